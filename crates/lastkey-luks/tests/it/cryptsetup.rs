//! Debian's cryptsetup as the judge: each reads what the other writes. On plain files, which
//! needs neither root nor a device mapper.
//!
//! Holds     Without cryptsetup each test says SKIPPED on the terminal.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_luks::{Copies, Error, Format, Header};
use lastkey_secret::SecretVec;

use crate::media::{Disk, secret, token};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// None without cryptsetup, which is then said.
    fn set(test: &str) -> Option<Self> {
        if Command::new("cryptsetup").arg("--version").output().is_err() {
            let said = format!("\nSKIPPED {test}: cryptsetup is missing (scripts/setup)\n");
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_file(&self, byte: u8) -> PathBuf {
        let path = self.path(&format!("key-{byte}"));
        std::fs::write(&path, [byte; 64]).unwrap();
        path
    }

    fn image(&self) -> (PathBuf, Disk) {
        let path = self.path("image");
        let file = File::create(&path).unwrap();
        file.set_len(32 << 20).unwrap();
        drop(file);
        let disk = open(&path);
        (path, disk)
    }

    fn try_run(&self, line: &str, paths: &[&Path]) -> Output {
        let mut command = Command::new("cryptsetup");
        command.args(line.split_whitespace()).args(paths);
        // Its locks would need root.
        command.arg("--disable-locks").output().unwrap()
    }

    #[track_caller]
    fn run(&self, line: &str, paths: &[&Path]) -> String {
        let output = self.try_run(line, paths);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cryptsetup {line}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit status 2 is cryptsetup's word for a wrong passphrase.
    #[track_caller]
    fn opens(&self, image: &Path, byte: u8) -> bool {
        let key = self.key_file(byte);
        let line = format!("open --test-passphrase --key-file {}", key.display());
        match self.try_run(&line, &[image]).status.code() {
            Some(0) => true,
            Some(2) => false,
            other => panic!("cryptsetup open: {other:?}"),
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn open(path: &Path) -> Disk {
    Disk(OpenOptions::new().read(true).write(true).open(path).unwrap())
}

fn format(disk: &Disk, sector_size: u32) -> (Header, lastkey_luks::VolumeKey) {
    let format = Format { label: "pvc-1", subsystem: "lastkey", sector_size };
    Header::format(disk, format, &secret(1), token, &mut SystemEntropy).unwrap()
}

#[test]
fn cryptsetup_reads_what_we_write() {
    let Some(bench) = Bench::set("cryptsetup_reads_what_we_write") else { return };
    for sector_size in [512, 4_096] {
        let (image, disk) = bench.image();
        let (header, key) = format(&disk, sector_size);
        bench.run("isLuks --type luks2", &[&image]);
        assert_eq!(bench.run("luksUUID", &[&image]).trim(), header.uuid());
        let dump = bench.run("luksDump", &[&image]);
        for said in ["Label:         \tpvc-1", "Subsystem:     \tlastkey", "0: lastkey", "pbkdf2"] {
            assert!(dump.contains(said), "{said}\n{dump}");
        }
        assert!(dump.contains(&format!("sector: {sector_size} [bytes]")), "{dump}");
        assert!(bench.opens(&image, 1) && !bench.opens(&image, 2));
        let (key_file, volume_key) = (bench.key_file(1), bench.path("volume-key"));
        let line =
            format!("luksDump --batch-mode --dump-volume-key --key-file {}", key_file.display());
        bench.run(&line, &[Path::new("--volume-key-file"), &volume_key, &image]);
        assert!(key.expose(|key| key == std::fs::read(&volume_key).unwrap()));
        std::fs::remove_file(volume_key).unwrap();
    }
}

#[test]
fn cryptsetup_changes_what_we_wrote_and_we_read_it_again() {
    let test = "cryptsetup_changes_what_we_wrote_and_we_read_it_again";
    let Some(bench) = Bench::set(test) else { return };
    let (image, disk) = bench.image();
    let (_, key) = format(&disk, 4_096);
    let (one, two, three) = (bench.key_file(1), bench.key_file(2), bench.key_file(3));
    let add = format!("luksAddKey --batch-mode --key-file {}", one.display());
    bench.run(
        &format!("{add} --pbkdf argon2id --pbkdf-memory 4096 --pbkdf-force-iterations 4"),
        &[&image, &two],
    );
    bench.run(
        &format!("{add} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --hash sha512"),
        &[&image, &three],
    );
    let header = Header::read(&disk).unwrap().unwrap();
    assert_eq!(header.slots().unwrap(), [0, 1, 2]);
    assert_eq!(header.tokens().unwrap(), [(0, token(0))]);
    for byte in [1, 2, 3] {
        assert!(header.open(&disk, &[], &secret(byte)).unwrap().ct_eq(&key));
    }
    bench.run("luksKillSlot --batch-mode", &[&image, Path::new("0")]);
    let header = Header::read(&disk).unwrap().unwrap();
    assert!(matches!(header.open(&disk, &[], &secret(1)), Err(Error::WrongKey)));
    assert!(header.tokens().unwrap()[0].1.slots.is_empty());
}

#[test]
fn we_change_what_cryptsetup_wrote_and_it_reads_it_again() {
    let test = "we_change_what_cryptsetup_wrote_and_it_reads_it_again";
    let Some(bench) = Bench::set(test) else { return };
    let argon2 = "--pbkdf argon2id --pbkdf-memory 4096 --pbkdf-force-iterations 4";
    let pbkdf2 = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    for options in [
        format!("--sector-size 4096 {argon2} --label theirs"),
        format!("--sector-size 512 --hash sha512 {pbkdf2} --luks2-metadata-size 64k"),
        argon2.replace("argon2id", "argon2i"),
    ] {
        let (image, disk) = bench.image();
        let key = bench.key_file(1);
        let line = "luksFormat --type luks2 --batch-mode --cipher aes-xts-plain64 --key-size 512";
        bench.run(&format!("{line} {options}"), &[&image, &key]);
        let foreign = bench.path("foreign.json");
        std::fs::write(&foreign, br#"{"type":"other","keyslots":["0"],"note":"stays"}"#).unwrap();
        bench.run("token import --json-file", &[&foreign, &image]);

        let mut header = Header::read(&disk).unwrap().unwrap();
        let volume_key = header.open(&disk, &[], &secret(1)).unwrap();
        let slot = header.add_slot(&disk, &volume_key, &secret(2), &mut SystemEntropy).unwrap();
        header.put_token(None, &token(slot)).unwrap();
        header.store(&disk).unwrap();
        assert!(bench.opens(&image, 1) && bench.opens(&image, 2), "{options}");
        header.remove_slot(&disk, 0, &mut SystemEntropy).unwrap();
        assert!(!bench.opens(&image, 1) && bench.opens(&image, 2), "{options}");
        let kept = bench.run("token export --token-id 0", &[&image]);
        assert!(kept.contains(r#""note":"stays""#), "{kept}");
    }
}

#[test]
fn shorter_volume_keys_of_others_are_refused() {
    let Some(bench) = Bench::set("shorter_volume_keys_of_others_are_refused") else { return };
    let (image, disk) = bench.image();
    let key = bench.key_file(1);
    let line = "luksFormat --type luks2 --batch-mode --key-size 256 --pbkdf pbkdf2";
    bench.run(&format!("{line} --pbkdf-force-iterations 1000"), &[&image, &key]);
    let header = Header::read(&disk).unwrap().unwrap();
    assert!(matches!(header.open(&disk, &[], &secret(1)), Err(Error::Unsupported(_))));
    assert!(matches!(header.open(&disk, &[], &secret(2)), Err(Error::WrongKey)));
}

#[test]
fn either_repairs_the_copy_that_is_damaged() {
    let Some(bench) = Bench::set("either_repairs_the_copy_that_is_damaged") else { return };
    for damaged in [0, 16_384] {
        let (image, disk) = bench.image();
        format(&disk, 4_096);
        let overwrite = || open(&image).0.write_all_at(&[0xAA; 4_096], damaged).unwrap();
        overwrite();
        let mut header = Header::read(&disk).unwrap().unwrap();
        assert_ne!(header.copies(), Copies::Both);
        header.store(&disk).unwrap();
        assert!(bench.opens(&image, 1));

        overwrite();
        if !is_root() {
            // Without its locks it reads the other copy and repairs nothing.
            assert!(bench.opens(&image, 1));
            continue;
        }
        let repaired =
            Command::new("cryptsetup").args(["repair", "--batch-mode"]).arg(&image).output();
        assert!(repaired.unwrap().status.success());
        let header = Header::read(&disk).unwrap().unwrap();
        assert_eq!(header.copies(), Copies::Both);
        assert!(header.open(&disk, &[], &secret(1)).is_ok());
    }
}

#[test]
fn re_encryption_under_way_is_left_alone() {
    let Some(bench) = Bench::set("re_encryption_under_way_is_left_alone") else { return };
    let (image, disk) = bench.image();
    format(&disk, 4_096);
    let key = bench.key_file(1);
    let line = format!(
        "reencrypt --init-only --force-offline-reencrypt --batch-mode --pbkdf pbkdf2 \
         --pbkdf-force-iterations 1000 --key-file {}",
        key.display()
    );
    bench.run(&line, &[&image]);
    assert!(matches!(Header::read(&disk), Err(Error::Unsupported(_))));
}

#[test]
fn secret_of_a_key_slot_is_found_in_no_file() {
    let Some(bench) = Bench::set("secret_of_a_key_slot_is_found_in_no_file") else { return };
    let (image, disk) = bench.image();
    let data_key: Vec<u8> = (100..164).collect();
    let format = Format { label: "", subsystem: "", sector_size: 4_096 };
    let data_key = SecretVec::take(data_key);
    let (_, key) = Header::format(&disk, format, &data_key, token, &mut SystemEntropy).unwrap();
    let bytes = std::fs::read(&image).unwrap();
    for secret in [data_key.expose(<[u8]>::to_vec), key.expose(<[u8]>::to_vec)] {
        assert!(!bytes.windows(16).any(|window| window == &secret[..16]));
    }
}
