//! Several recipients, recovery without a server, ranges, and recipients that change.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::process::{Ended, lastkey, names, run};
use crate::world::Server;

/// Two identities of `age-keygen`, and their recipients.
const ALICE: &str = "AGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y";
const BOB: &str = "AGE-SECRET-KEY-14VXG8TH7VYUH2GNE8708NKSAXTLFCRYECE60VPGDQW9TCCHT5UVQDA0PCD";
const TO_ALICE: &str = "age1p5z6n9gplrv72tah09ydesmg5z59nv6p0yqy7fkahhq07dd7732smyg0pd";
const TO_BOB: &str = "age1vz343tt0xwyfag833jkqxtx9pjaxx9kc9ngg404csevtvg4ng5pq2f369f";

/// A server with two keys, and a folder with a file and the means to open it.
struct Desk {
    _data: tempfile::TempDir,
    folder: tempfile::TempDir,
    server: Server,
    plain: Vec<u8>,
}

impl Desk {
    fn open() -> Self {
        let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Server::dev(&data.path().join("d"));
        server.cli("key create --alias alias/one").ok();
        server.cli("key create --alias alias/two").ok();
        let plain: Vec<u8> = (0..600_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::write(folder.path().join("plain"), &plain).unwrap();
        write("alice", &format!("# a comment\n{ALICE}\n"));
        write("bob", &format!("{BOB}\n"));
        write("recipients", &format!("# both\n{TO_ALICE}\n{TO_BOB}\n"));
        write("word", "correct horse battery\n");
        write("other", "incorrect horse battery\n");
        Self { _data: data, folder, server, plain }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, line: &str) -> Ended {
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.path()), b"")
    }

    /// Without any server.
    fn offline(&self, line: &str) -> Ended {
        run(lastkey(line.split_whitespace()).current_dir(self.path()), b"")
    }

    #[track_caller]
    fn opens(&self, ended: &Ended) {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout == self.plain);
    }
}

#[test]
fn each_recipient_opens_the_file_and_nobody_else_does() {
    let desk = Desk::open();
    let line = format!(
        "encrypt --key alias/one --key alias/two --recipient {TO_ALICE} \
         --passphrase-file word --context a=b plain -o f.lk"
    );
    desk.run(&line).ok();
    desk.opens(&desk.run("decrypt f.lk"));
    desk.opens(&desk.offline("decrypt f.lk --identity alice"));
    desk.opens(&desk.offline("decrypt f.lk -i bob -i alice"));
    desk.opens(&desk.offline("decrypt f.lk --passphrase-file word"));
    desk.opens(&desk.offline("decrypt f.lk -i alice --range 0-"));
    desk.offline("verify f.lk -i alice").ok();
    desk.offline("decrypt f.lk -i bob -o out").failed(5);
    desk.offline("decrypt f.lk --passphrase-file other -o out").failed(5);
    desk.offline("decrypt f.lk -o out").failed(2);
    desk.run("key disable alias/one").ok();
    desk.opens(&desk.run("decrypt f.lk"));
    desk.run("key disable alias/two").ok();
    desk.run("decrypt f.lk -o out").failed(1);
    assert!(!desk.path().join("out").exists());
    let seen = desk.offline("inspect f.lk --output json").json();
    let kinds: Vec<_> = seen["recipients"].as_array().unwrap().iter().map(|r| &r["type"]).collect();
    assert_eq!(kinds, [1, 1, 2, 3]);
    assert_eq!(seen["recipients"][2]["recipient"], TO_ALICE);
    assert_eq!(seen["recipients"][3]["argon2id"]["memory_kib"], 65_536);
}

#[test]
fn file_is_encrypted_and_changed_without_a_server() {
    let desk = Desk::open();
    desk.offline("encrypt --recipients-file recipients plain -o f.lk").ok();
    desk.opens(&desk.offline("decrypt f.lk -i bob"));
    desk.offline(&format!("rewrap f.lk -i bob --remove-recipient {TO_ALICE}")).ok();
    desk.offline("decrypt f.lk -i alice").failed(5);
    desk.opens(&desk.offline("decrypt f.lk -i bob"));
    let last = desk.offline(&format!("rewrap f.lk -i bob --remove-recipient {TO_BOB}"));
    assert!(last.failed(2).contains("nobody could open it"), "{}", last.stderr);
    let absent = desk.offline(&format!("rewrap f.lk -i bob --remove-recipient {TO_ALICE}"));
    assert!(absent.failed(1).contains("is not encrypted for age1"), "{}", absent.stderr);
    desk.offline("encrypt plain -o g.lk").failed(2);
    desk.offline("encrypt --recipient age1nonsense plain -o g.lk").failed(2);
    desk.offline("encrypt --recipients-file alice plain -o g.lk").failed(1);
    desk.offline("decrypt f.lk -i plain").failed(1);
}

#[test]
fn file_of_the_kernel_that_says_it_is_empty_is_encrypted_whole() {
    let desk = Desk::open();
    desk.offline(&format!("encrypt --recipient {TO_BOB} /proc/version -o f.lk")).ok();
    let opened = desk.offline("decrypt f.lk -i bob");
    assert_eq!(opened.stdout, fs::read("/proc/version").unwrap());
}

#[test]
fn fifth_passphrase_is_refused_because_nobody_would_try_it() {
    let desk = Desk::open();
    desk.offline(&format!("encrypt --recipient {TO_BOB} plain -o f.lk")).ok();
    let line = "rewrap f.lk -i bob --add-passphrase-file word";
    for _ in 0..4 {
        desk.offline(line).ok();
    }
    assert!(desk.offline(line).failed(1).contains("at most 4 passphrases"));
    desk.opens(&desk.offline("decrypt f.lk --passphrase-file word"));
}

#[test]
fn each_suite_and_segment_size_comes_back() {
    let desk = Desk::open();
    for (number, line) in [
        "--suite CHACHA20_POLY1305 --segment-size 4KiB",
        "--suite aes_256_gcm --segment-size 16MiB",
        "--segment-size 65536",
    ]
    .into_iter()
    .enumerate()
    {
        desk.offline(&format!("encrypt --recipient {TO_BOB} {line} plain -o {number}.lk")).ok();
        desk.opens(&desk.offline(&format!("decrypt {number}.lk -i bob")));
    }
    let seen = desk.offline("inspect 0.lk --output json").json();
    assert_eq!(
        (&seen["suite"], &seen["segment_bytes"]),
        (&"CHACHA20_POLY1305".into(), &4096.into())
    );
    for line in ["--segment-size 0", "--segment-size 5000", "--segment-size 32MiB", "--suite DES"] {
        desk.offline(&format!("encrypt --recipient {TO_BOB} {line} plain -o x.lk")).failed(2);
    }
}

#[test]
fn range_of_a_file_is_the_same_bytes() {
    let desk = Desk::open();
    desk.offline(&format!("encrypt --recipient {TO_BOB} plain -o f.lk")).ok();
    for (range, expected) in [
        ("0-0", 0..1),
        ("262140-262150", 262_140..262_151),
        ("599990-", 599_990..600_000),
        ("-7", 599_993..600_000),
        ("500000-999999", 500_000..600_000),
    ] {
        let read = desk.offline(&format!("decrypt f.lk -i bob --range {range}"));
        assert!(read.stdout == desk.plain[expected], "{range}: {}", read.stderr);
        desk.offline(&format!("decrypt f.lk -i bob --range {range} -o out --force")).ok();
        assert_eq!(fs::read(desk.path().join("out")).unwrap(), read.stdout, "{range}");
    }
    desk.offline("decrypt f.lk -i bob --range 600000- -o none").failed(1);
    desk.offline("decrypt f.lk -i bob --range 5-2 -o none").failed(2);
    let cut = fs::File::options().write(true).open(desk.path().join("f.lk")).unwrap();
    cut.set_len(cut.metadata().unwrap().len() - 1).unwrap();
    let refused = desk.offline("decrypt f.lk -i bob --range 0-9");
    refused.failed(5);
    assert_eq!(refused.stdout, b"", "the end is verified first");
    assert!(!desk.path().join("none").exists());
}

#[test]
fn recipients_change_in_the_header_alone() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/one plain -o f.lk").ok();
    let data = || fs::read(desk.path().join("f.lk")).unwrap()[2_560..].to_vec();
    let before = data();
    desk.run("rewrap f.lk --add-key alias/two").ok();
    desk.run(&format!("rewrap f.lk --add-recipient {TO_BOB} --remove-key alias/one")).ok();
    assert!(data() == before, "the segments stay");
    desk.run("key disable alias/one").ok();
    desk.opens(&desk.run("decrypt f.lk"));
    desk.opens(&desk.offline("decrypt f.lk -i bob"));
    desk.run("key rotate alias/two").ok();
    let seen = desk.run("rewrap f.lk --output json").json();
    assert_eq!(seen["files"][0]["recipients"][0]["version"], 2);
    assert_eq!(seen["files"][0]["sequence"], 4);
    let told = desk.run(&format!("rewrap f.lk --remove-recipient {TO_BOB}"));
    told.ok();
    assert!(told.stderr.contains("--rewrite"), "{}", told.stderr);
    desk.run("rewrap f.lk --rewrite").ok();
    assert!(data() != before, "everything is new");
    desk.opens(&desk.run("decrypt f.lk"));
    desk.run("rewrap f.lk --remove-key alias/one").failed(1);
    desk.run("rewrap plain").failed(5);
}

#[test]
fn full_header_says_so_and_is_rewritten_when_asked() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/one plain -o f.lk").ok();
    let before = fs::read(desk.path().join("f.lk")).unwrap();
    let made: Vec<String> = (0..8)
        .map(|number| {
            desk.run(&format!("key create --alias alias/n{number}")).ok();
            format!("--add-key alias/n{number}")
        })
        .collect();
    let line = format!("rewrap f.lk {}", made.join(" "));
    assert!(desk.run(&line).failed(1).contains("--rewrite"));
    assert!(fs::read(desk.path().join("f.lk")).unwrap() == before, "nothing was done");
    desk.run(&format!("{line} --rewrite")).ok();
    desk.opens(&desk.run("decrypt f.lk"));
    let seen = desk.run("inspect f.lk --output json").json();
    assert_eq!(seen["recipients"].as_array().unwrap().len(), 9);
    assert!(seen["slot_bytes"].as_u64().unwrap() > 1_024);
}

#[test]
fn recipients_of_a_sparse_file_of_100_gib_change_without_touching_it() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/one plain -o f.lk").ok();
    let file = fs::File::options().write(true).open(desk.path().join("f.lk")).unwrap();
    if file.set_len(100 << 30).is_err() {
        return crate::process::not_run("a file of 100 GiB: this file system has no such files");
    }
    desk.run("rewrap f.lk --add-key alias/two").ok();
    // Its end is no segment, which a range notices at once.
    desk.run("decrypt f.lk --range 0-9").failed(5);
    let mut marks = [0; 16];
    file.read_at(&mut marks, 50 << 30).unwrap_or_default();
    assert_eq!((file.metadata().unwrap().len(), marks), (100 << 30, [0; 16]));
}

#[test]
fn envelopes_that_ask_for_too_much_are_refused_at_once() {
    let desk = Desk::open();
    desk.offline(&format!("encrypt --recipient {TO_BOB} plain -o f.lk")).ok();
    let good = fs::read(desk.path().join("f.lk")).unwrap();
    let refused = |name: &str, at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(desk.path().join(name), bad).unwrap();
        for line in ["decrypt -o out", "verify"] {
            desk.offline(&format!("{line} -i bob {name}")).failed(5);
        }
        desk.offline(&format!("inspect {name}")).failed(5);
    };
    refused("slots-of-100-mb", 12, &100_000_256_u32.to_be_bytes());
    refused("context-of-4-gb", 16, &u32::MAX.to_be_bytes());
    refused("segment-of-nothing", 10, &[0]);
    refused("segment-of-2-gb", 10, &[31]);
    assert!(!names(desk.path()).contains(&"out".to_owned()));
}
