//! Backups over the real binary: made, proven, checked, restored; and everything that must not
//! pass for one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::device_seals::is_installed;
use crate::process::{BINARY, Ended, command, lastkey, names, not_run, run};
use crate::world::{Installation, PASSPHRASE, Server, text};

/// An installation that serves, and something encrypted to look for.
struct Kept {
    folder: tempfile::TempDir,
    installation: Installation,
    server: Server,
    sealed: String,
}

impl Kept {
    fn begin(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let server = installation.serve_unsealed(lines);
        server.cli("key create --alias alias/app").ok();
        let sealed = server.cli_with("blob encrypt --key alias/app", b"kept").ok();
        Self { folder, installation, server, sealed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a backup in a directory, and answers what the server says of it.
    fn back_up(&self, dir: &str) -> Value {
        let dir = self.path(dir);
        fs::create_dir_all(&dir).unwrap();
        self.server.cli(&format!("backup create --to {} --output json", dir.display())).json()
    }

    fn verify(&self, arguments: &str) -> Ended {
        let mut command = lastkey(["backup", "verify", "--output", "json"]);
        run(command.args(arguments.split_whitespace()).current_dir(self.folder.path()), b"")
    }

    fn restore(&self, arguments: &str, passphrase: &str) -> Ended {
        let mut command = lastkey(["restore", "--output", "json", "--passphrase-file", "-"]);
        let command = command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        run(command, passphrase.as_bytes())
    }

    /// Serves a data directory that was restored, and the first one no more.
    fn serve(&mut self, data: &str) -> Server {
        if self.server.process.lives() {
            self.server.process.stop();
        }
        self.installation.data = self.path(data);
        self.installation.serve_unsealed("")
    }

    fn works(&self, server: &Server) {
        assert_eq!(server.cli_with("blob decrypt", self.sealed.as_bytes()).ok(), "kept");
    }
}

/// What a command that failed said on standard output.
fn of(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn only_backup(dir: &Path) -> PathBuf {
    let all = names(dir);
    let mut backups = all.iter().filter(|name| name.ends_with(".backup"));
    let (first, second) = (backups.next(), backups.next());
    assert!(second.is_none(), "{all:?}");
    dir.join(first.unwrap())
}

#[test]
fn a_backup_is_proven_checked_and_restored_to_a_new_node() {
    let mut kept = Kept::begin("");
    let none = kept.server.cli("backup list").ok();
    assert!(none.contains("there is no backup"), "{none}");
    assert!(kept.server.cli("status").ok().contains("none; make one"), "");
    let made = kept.back_up("backups");
    assert_eq!(made["state"], "proven", "{made}");
    assert!(made["records"].as_u64().unwrap() > 3 && made["audit_records"].as_u64().unwrap() > 3);
    // Without a seal every byte is compared with what was signed; with one every record opens.
    let bytes = kept.verify("backups").json();
    assert_eq!(
        (&bytes["backups"][0]["valid"], &bytes["backups"][0]["checked"]),
        (&true.into(), &"bytes".into())
    );
    let all = kept.verify("backups --passphrase-file passphrase").json();
    assert_eq!(all["backups"][0]["checked"], "everything", "{all}");
    assert_eq!(all["backups"][0]["records"], made["records"]);
    let key = kept.server.cli("audit checkpoint --public-key").ok();
    fs::write(kept.path("log-key"), key).unwrap();
    let signed = kept.verify("backups --public-key log-key").json();
    assert_eq!(signed["backups"][0]["checked"], "bytes and signature");
    // What came after the backup is not in it.
    kept.server.cli("key create --alias alias/later").ok();
    let status = kept.server.cli("status --output json").json();
    assert_eq!(status["backup"]["proven"], 1);
    let metrics = kept.server.admin().answer("GET", "/metrics", "").text();
    assert!(metrics.contains("lastkey_backup_proven 1\n"), "{metrics}");

    let restored = kept.restore("--from backups --data new", PASSPHRASE).json();
    assert_eq!(restored["records"], made["records"]);
    let server = kept.serve("new");
    kept.works(&server);
    server.cli("key show alias/later").failed(4);
    // The backup that it came from is one for the restored server as well.
    assert_eq!(server.cli("status --output json").json()["backup"]["proven"], 1);
    // Log and authority came along: the log goes on and clients need no new fingerprint.
    let log = kept.path("new/audit").display().to_string();
    let searched = server.cli("audit search --action sys:Restore --output json").ok();
    assert_eq!(searched.lines().count(), 1, "{searched}");
    drop(server);
    let key = kept.path("log-key").display().to_string();
    let mut verify = lastkey(["audit", "verify", "--offline", &log, "--public-key", &key]);
    run(&mut verify, b"").ok();
    for file in ["tls/ca.pem", "tls/ca.key"] {
        let read = |data: &str| fs::read(kept.path(data).join(file)).unwrap();
        assert_eq!(read("data"), read("new"), "{file}");
    }
}

#[test]
fn what_is_no_whole_backup_is_told_and_not_restored() {
    let kept = Kept::begin("");
    kept.back_up("backups");
    let good = fs::read(only_backup(&kept.path("backups"))).unwrap();
    let name = only_backup(&kept.path("backups")).file_name().unwrap().to_owned();
    let list = names(&kept.path("backups")).into_iter().find(|n| n.ends_with(".tombstones"));
    let list = kept.path("backups").join(list.unwrap()).display().to_string();
    let middle = good.len() / 2;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = good.len();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("text", b"this is no backup at all".to_vec()),
        ("cut-head", good[..40].to_vec()),
        ("cut-middle", good[..middle].to_vec()),
        ("cut-end", good[..end - 1].to_vec()),
        ("more", [&good[..], b"x"].concat()),
        ("flip-magic", flipped(0)),
        ("flip-head", flipped(60)),
        ("flip-middle", flipped(middle)),
        ("flip-signature", flipped(end - 10)),
        ("flip-length", flipped(end - 1)),
    ] {
        let dir = kept.path(what);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(&name), &bytes).unwrap();
        // The signature alone needs a key to be checked by.
        if what != "flip-signature" {
            let told = kept.verify(what);
            told.failed(1);
            assert_eq!(of(&told)["backups"][0]["valid"], false, "{what}");
        }
        let told = kept.verify(&format!("{what} --passphrase-file passphrase"));
        told.failed(1);
        let to = format!("to-{what}");
        let arguments = format!("--from {what} --data {to} --tombstones {list}");
        let refused = kept.restore(&arguments, PASSPHRASE);
        refused.failed(1);
        // What was begun does not open.
        let mut serve = lastkey(["server", "--listen", "127.0.0.1:0", "--data"]);
        let refused = run(serve.arg(kept.path(&to)), b"");
        assert_ne!(refused.code, Some(0), "{what}");
    }
}

#[test]
fn a_restore_needs_the_right_passphrase_and_an_empty_directory() {
    let mut kept = Kept::begin("");
    kept.back_up("backups");
    let wrong = kept.restore("--from backups --data new", "not the passphrase");
    assert!(wrong.failed(1).contains("this opens no seal of the backup; it has: passphrase"));
    assert!(!kept.path("new").exists());
    fs::create_dir(kept.path("taken")).unwrap();
    fs::write(kept.path("taken/file"), "mine").unwrap();
    let taken = kept.restore("--from backups --data taken", PASSPHRASE);
    assert!(taken.failed(1).contains("is not empty, and nothing in it was touched"));
    assert_eq!(names(&kept.path("taken")), ["file"]);
    fs::create_dir(kept.path("empty")).unwrap();
    kept.restore("--from backups --data empty", PASSPHRASE).ok();
    let server = kept.serve("empty");
    kept.works(&server);
}

#[test]
fn an_older_state_comes_back_only_at_an_explicit_word() {
    let mut kept = Kept::begin("");
    kept.back_up("backups");
    let old = only_backup(&kept.path("backups"));
    kept.server.cli("key create --alias alias/later").ok();
    kept.back_up("backups");
    let from = old.display().to_string();
    let refused = kept.restore(&format!("--from {from} --data new"), PASSPHRASE);
    assert!(refused.failed(1).contains("--accept-rollback"));
    assert!(!kept.path("new").exists());
    kept.restore(&format!("--from {from} --data new --accept-rollback"), PASSPHRASE).ok();
    // The directory gives the newest one without a word.
    kept.restore("--from backups --data newest", PASSPHRASE).ok();
    let server = kept.serve("newest");
    server.cli("key show alias/later").ok();
}

#[test]
fn a_key_that_was_destroyed_does_not_come_back() {
    let mut kept = Kept::begin("");
    let doomed =
        text(&kept.server.cli("key create --alias alias/doomed --output json").json()["id"]);
    kept.back_up("early");
    kept.server.cli("key rotate alias/doomed").ok();
    let blob = kept.server.cli_with("blob encrypt --key alias/doomed", b"gone").ok();
    kept.back_up("backups");
    let first = only_backup(&kept.path("backups"));
    let destroyed = ["shadow-disable alias/doomed 1", "destroy alias/doomed 1 --yes"];
    for step in destroyed {
        kept.server.cli(&format!("key version {step}")).ok();
    }
    kept.back_up("backups");
    fs::rename(&first, kept.path("first.backup")).unwrap();
    let list = names(&kept.path("backups")).into_iter().find(|n| n.ends_with(".tombstones"));
    let list = kept.path("backups").join(list.unwrap()).display().to_string();
    let lost = kept.restore("--from first.backup --data lost", PASSPHRASE);
    assert!(lost.failed(1).contains("--without-tombstones"));
    let arguments = format!("--from first.backup --data new --tombstones {list}");
    let restored = kept.restore(&arguments, PASSPHRASE).json();
    assert_eq!(restored["destroyed_again"], 1);
    let server = kept.serve("new");
    kept.works(&server);
    let versions = server.cli(&format!("key versions {doomed} --output json")).json();
    assert_eq!(versions["versions"][0]["state"], "Destroyed", "{versions}");
    // The newest version still opens what it protected.
    assert_eq!(server.cli_with("blob decrypt", blob.as_bytes()).ok(), "gone");
    drop(server);
    // In the first backup the destroyed version was the primary one: another one takes its place.
    let arguments = format!("--from early --data old --tombstones {list}");
    let restored = kept.restore(&arguments, PASSPHRASE).json();
    assert_eq!(restored["destroyed_again"], 1, "{restored}");
    assert!(restored["last_destroyed_at"].is_string(), "{restored}");
    let server = kept.serve("old");
    server.cli_with("blob encrypt --key alias/doomed", b"new").failed(1);
    server.cli("key rotate alias/doomed").ok();
    let blob = server.cli_with("blob encrypt --key alias/doomed", b"new").ok();
    assert_eq!(server.cli_with("blob decrypt", blob.as_bytes()).ok(), "new");
}

#[test]
fn a_server_that_is_killed_while_it_backs_up_leaves_no_half_backup() {
    let mut kept = Kept::begin("");
    kept.back_up("backups");
    let dir = kept.path("backups").display().to_string();
    for round in 0..4_u32 {
        let mut create = kept.server.client(["backup", "create", "--no-wait", "--to", &dir]);
        run(&mut create, b"").ok();
        for _ in 0..round * 400_000 {
            std::hint::spin_loop();
        }
        kept.server.process.kill();
        kept.server = kept.installation.serve_unsealed("");
        kept.works(&kept.server);
        // Every file that has a name is whole, proven or not.
        kept.verify("backups --passphrase-file passphrase").ok();
        let list = kept.server.cli("backup list --output json").json();
        for backup in list["backups"].as_array().unwrap() {
            let state = text(&backup["state"]);
            assert!(["proven", "interrupted"].contains(&state.as_str()), "{list}");
        }
    }
    assert_eq!(kept.back_up("backups")["state"], "proven");
}

/// A restore is cut off after each thing that it makes. What it leaves opens when all was done,
/// and otherwise not at all; a restore to another directory goes on as if nothing had been.
#[test]
fn a_restore_that_is_killed_at_any_step_opens_whole_or_not_at_all() {
    let mut kept = Kept::begin("");
    kept.back_up("backups");
    kept.server.process.stop();
    let list = names(&kept.path("backups"));
    for (step, made) in ["restoring", "records.db", "tls/ca.pem", "audit/checkpoint", "audit/wal"]
        .iter()
        .enumerate()
    {
        let to = format!("cut-{step}");
        let mut restore = lastkey(["restore", "--from", "backups", "--data", &to]);
        restore.arg("--passphrase-file").arg(&kept.installation.passphrase);
        let mut running = crate::process::Running::start(restore.current_dir(kept.folder.path()));
        while running.lives() && !kept.path(&to).join(made).exists() {
            std::hint::spin_loop();
        }
        running.kill();
        if kept.path(&to).join("restoring").exists() {
            let mut serve = lastkey(["server", "--listen", "127.0.0.1:0", "--data"]);
            let refused = run(serve.arg(kept.path(&to)), b"");
            assert!(refused.failed(1).contains("restore"), "{made}: {}", refused.stderr);
            let again = kept.restore(&format!("--from backups --data {to}"), PASSPHRASE);
            assert!(again.failed(1).contains("is not empty"), "{made}: {}", again.stderr);
        } else {
            let server = kept.serve(&to);
            kept.works(&server);
        }
    }
    assert_eq!(names(&kept.path("backups")), list);
    kept.restore("--from backups --data new", PASSPHRASE).ok();
    let server = kept.serve("new");
    kept.works(&server);
}

/// What changes a disk. A crash after a file was made is one before its first bytes are written.
const CHANGES: [&str; 12] = [
    "mkdir",
    "mkdirat",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
];

impl Kept {
    /// A restore under strace, with further words for it.
    fn restore_traced(&self, strace: &[String], to: &str) -> Ended {
        let mut traced = command("strace");
        traced.args(["-f", "-qq"]).args(strace).arg(BINARY);
        traced.args(["restore", "--from", "backups", "--passphrase-file", "passphrase", "--data"]);
        run(traced.arg(to).current_dir(self.folder.path()), b"")
    }

    /// How often a restore calls for each change of the disk; of its threads the one that does so
    /// most often.
    fn changes_of_a_restore(&self) -> BTreeMap<&'static str, usize> {
        let log = self.path("calls").display().to_string();
        let traced = [format!("--trace={}", CHANGES.join(",")), "-o".to_owned(), log.clone()];
        self.restore_traced(&traced, "whole").ok();
        let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for line in fs::read_to_string(log).unwrap().lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let made = |change: &&&str| call.trim_start().starts_with(&format!("{change}("));
            if let Some(change) = CHANGES.iter().find(made) {
                *counts.entry((thread.to_owned(), *change)).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, change), count) in counts {
            let known: &mut usize = most.entry(change).or_default();
            *known = count.max(*known);
        }
        most
    }
}

/// The same one by one: the restore dies as it is about to make each of its changes of the disk.
#[test]
#[ignore = "heavy: restores once for each change of the disk"]
fn a_restore_that_dies_before_any_change_of_the_disk_opens_whole_or_not_at_all() {
    if !is_installed("strace") {
        return;
    }
    if run(command("strace").args(["-f", "-qq", "true"]), b"").code != Some(0) {
        return not_run("this process may not trace another");
    }
    let mut kept = Kept::begin("");
    kept.back_up("backups");
    kept.server.process.stop();
    let list = names(&kept.path("backups"));
    let changes = kept.changes_of_a_restore();
    let (mut half, mut whole) = (0, 0);
    for (change, count) in &changes {
        for nth in 1..=*count {
            let die = format!("--inject={change}:signal=KILL:when={nth}");
            let traced = [format!("--trace={change}"), die, "-o".to_owned(), "calls".to_owned()];
            let ended = kept.restore_traced(&traced, "cut");
            let cut = kept.path("cut");
            let made = if cut.exists() { names(&cut) } else { Vec::new() };
            if made.iter().any(|name| name == "restoring") {
                let mut serve = lastkey(["server", "--listen", "127.0.0.1:0", "--data"]);
                let refused = run(serve.arg(&cut), b"");
                assert!(refused.failed(1).contains("restore"), "{change} {nth}: {made:?}");
                half += 1;
            } else if made.iter().any(|name| name == "records.db") {
                let server = kept.serve("cut");
                kept.works(&server);
                whole += 1;
            } else {
                // Before it began; it must not say that it is done.
                assert_ne!(ended.code, Some(0), "{change} {nth}: {made:?}");
            }
            if cut.exists() {
                fs::remove_dir_all(&cut).unwrap();
            }
        }
    }
    eprintln!("died before {changes:?}: {half} half, {whole} whole");
    assert!(half > 20 && whole > 0, "{half} half, {whole} whole: {changes:?}");
    assert_eq!(names(&kept.path("backups")), list);
}

#[test]
fn two_backups_at_once_are_one_and_a_refusal() {
    let kept = Kept::begin("");
    let dir = kept.path("backups").display().to_string();
    fs::create_dir(&dir).unwrap();
    let mut begun = 0;
    for _ in 0..8 {
        let line = format!("backup create --no-wait --to {dir}");
        let ended = kept.server.cli(&line);
        if ended.code == Some(0) {
            begun += 1;
        } else {
            assert!(ended.failed(1).contains("one backup is made at a time"), "{}", ended.stderr);
        }
    }
    assert!(begun >= 1);
    // The next one that is waited for is proven.
    let made = loop {
        let ended = kept.server.cli(&format!("backup create --to {dir} --output json"));
        if ended.code == Some(0) {
            break ended.json();
        }
        assert!(ended.stderr.contains("one backup is made at a time"), "{}", ended.stderr);
    };
    assert_eq!(made["state"], "proven");
    kept.verify("backups --passphrase-file passphrase").ok();
}

#[test]
fn places_that_would_be_lost_with_the_data_are_refused() {
    let kept = Kept::begin("");
    let inside = kept.installation.data.join("backups");
    for (dir, why) in [
        (inside.clone(), "lies in the data directory"),
        (inside.join("../../backups"), "goes up by"),
    ] {
        let refused = kept.server.cli(&format!("backup create --to {}", dir.display()));
        assert!(refused.failed(1).contains(why), "{}", refused.stderr);
    }
    // What was refused is not on record.
    assert!(kept.server.cli("backup list").ok().contains("there is no backup"), "");
    let absent = kept.path("mount/backups");
    let failed = kept.server.cli(&format!("backup create --to {} --output json", absent.display()));
    failed.failed(1);
    let told = of(&failed);
    assert_eq!(told["state"], "failed", "{}", failed.stderr);
    assert!(text(&told["problem"]).contains("mount it, or make it"), "{told}");
    assert!(!kept.path("mount").exists(), "what may be an absent mount is not made");
    kept.server.cli(&format!("backup remove --forget {}", text(&told["id"]))).ok();
    let refused = kept.server.cli("backup create");
    assert!(refused.failed(1).contains("name a directory"), "{}", refused.stderr);
    assert!(kept.server.cli("status").ok().contains("none; make one"), "");
}

#[test]
fn a_witness_that_knew_a_newer_state_tells_and_an_explicit_word_accepts_it() {
    let mut kept = Kept::begin("");
    let there = kept.path("there");
    fs::create_dir(&there).unwrap();
    let other = Installation::found(&there);
    let witness = other.serve_unsealed("");
    let log = kept.server.cli("audit checkpoint --public-key").ok();
    witness.cli(&format!("audit witness add {log}")).ok();
    kept.back_up("backups");
    let key = witness.cli("audit checkpoint --witness-key").ok();
    let url = format!("{}/v1/audit/witness", witness.addr);
    kept.server.cli(&format!("audit witness add {key} --url {url}")).ok();
    // The witness has seen more than the backup has.
    let seen = || {
        let folder = there.join("data/audit/witnessed");
        folder.exists() && names(&folder).iter().any(|name| !name.ends_with(".new"))
    };
    while !seen() {
        assert!(kept.server.process.lives());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    kept.server.process.kill();
    kept.restore("--from backups --data older", PASSPHRASE).ok();
    kept.installation.data = kept.path("older");
    let server = kept.installation.serve_unsealed("");
    // The list of witnesses came after the backup, too.
    server.cli(&format!("audit witness add {key} --url {url}")).ok();
    server.process.logs("this is an older state of the installation than was known");
    let status = server.cli("status --output json").json();
    assert!(text(&status["rollback"]).contains("remembers"), "{status}");
    assert_eq!(server.cli("status --ready").code, Some(6));
    kept.works(&server);
    drop(server);
    let server = kept.installation.serve_by("tls.mode = 'off'", &["--accept-rollback"]);
    kept.installation.unseal(&server);
    server.process.logs("this is an older state of the installation than was known");
    server.cli("status --ready").ok();
    let recorded = server.cli("audit search --action sys:AcceptRollback --output json").ok();
    assert_eq!(recorded.lines().count(), 1, "{recorded}");
}

#[test]
fn a_server_makes_backups_by_itself_where_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let target = folder.path().join("by-itself");
    fs::create_dir(&target).unwrap();
    let server = installation.serve_unsealed(&format!("backup.target = '{}'", target.display()));
    server.process.logs("proven by a trial restore");
    let list = server.cli("backup list --output json").json();
    assert_eq!(list["backups"][0]["state"], "proven", "{list}");
    assert_eq!(list["backups"][0]["directory"], Value::Null);
    only_backup(&target);
    let made = server.cli("backup create --output json").json();
    assert_eq!(made["state"], "proven", "{made}");
    let id = text(&list["backups"][0]["id"]);
    server.cli(&format!("backup remove {id}")).ok();
    only_backup(&target);
}
