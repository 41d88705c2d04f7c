//! The walks of docs/operations/recovery.md over the real binary: what is left after each loss opens the
//! server again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{command, lastkey, run};
use crate::world::{Installation, PASSPHRASE, Server, text};

/// A folder with an installation, a served copy of it, and something encrypted to look for.
struct Walk {
    folder: tempfile::TempDir,
    installation: Installation,
    server: Server,
    sealed: String,
}

impl Walk {
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let server = installation.serve_unsealed("");
        server.cli("key create --alias alias/app").ok();
        let sealed = server.cli_with("blob encrypt --key alias/app", b"kept").ok();
        Self { folder, installation, server, sealed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    /// Adds a seal and answers its id.
    fn add(&self, what: &str) -> String {
        let reply = self.server.cli(&format!("seal add {what} --output json")).json();
        text(&reply["seals"].as_array().unwrap().last().unwrap()["id"])
    }

    fn add_passphrase(&self, passphrase: &str) -> String {
        let file = self.file("second", passphrase);
        self.add(&format!(
            "passphrase --passphrase-file {file} --argon2-memory 1 --argon2-passes 1"
        ))
    }

    /// Stops the server and starts another one, sealed, on what is there.
    fn restart(&mut self) {
        self.server.process.stop();
        self.server = self.installation.serve("tls.mode = 'off'");
    }

    /// A new way in for administrators, by what opens a seal.
    fn admin_token(&self, by: &str) -> crate::process::Ended {
        let mut mint = lastkey(["admin-token", "--data"]);
        mint.arg(&self.installation.data).args(by.split_whitespace());
        run(&mut mint, b"")
    }

    /// Makes a backup.
    fn back_up(&self) {
        let to = self.path("backups").display().to_string();
        fs::create_dir_all(&to).unwrap();
        self.server.cli(&format!("backup create --to {to}")).ok();
    }

    /// Nothing is left of the machine.
    fn burn(&mut self) {
        self.server.process.kill();
        fs::remove_dir_all(&self.installation.data).unwrap();
    }

    /// Restores to another machine by what opens a seal, and serves there, sealed.
    fn restore(&mut self, by: &str) -> crate::process::Ended {
        let new = self.path("new-machine");
        let mut restore = lastkey(["restore", "--from", "backups", "--data"]);
        let restore = restore.arg(&new).args(by.split_whitespace()).current_dir(self.folder.path());
        let ended = run(restore, b"");
        if new.exists() {
            self.installation.data = new;
            self.server = self.installation.serve("tls.mode = 'off'");
        }
        ended
    }

    fn works(&self) {
        assert_eq!(self.server.cli_with("blob decrypt", self.sealed.as_bytes()).ok(), "kept");
    }

    fn seals(&self) -> Vec<Value> {
        let reply = self.server.cli("seal list --output json").json();
        reply["seals"].as_array().unwrap().clone()
    }

    fn id(&self, kind: &str) -> String {
        text(&self.seals().iter().find(|seal| seal["kind"] == kind).unwrap()["id"])
    }

    fn unseal_by(&self, passphrase: &str) -> crate::process::Ended {
        self.server.cli_with("unseal --passphrase-file -", passphrase.as_bytes())
    }

    /// Somebody with a key of age: his identity, and what he is encrypted to.
    fn holder(&self, keygen: &Path, n: u8) -> (PathBuf, String) {
        let identity = self.path(&format!("holder-{n}"));
        run(command(keygen).arg("-o").arg(&identity), b"").ok();
        let recipient = run(command(keygen).arg("-y").arg(&identity), b"").ok();
        (identity, recipient)
    }

    /// Somebody who has an SSH key and no other.
    fn ssh_holder(&self, keygen: &Path) -> (PathBuf, String) {
        let identity = self.path("id_ed25519");
        let mut make = command(keygen);
        make.args(["-q", "-t", "ed25519", "-N", "", "-C", "carol@example.org", "-f"]);
        run(make.arg(&identity), b"").ok();
        let recipient = fs::read_to_string(identity.with_extension("pub")).unwrap();
        (identity, recipient.trim().to_owned())
    }

    fn bring(&self, share: &[u8]) -> crate::process::Ended {
        self.server.cli_with("unseal --share - --output json", share)
    }
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    if !path.exists() {
        let text = format!("\nSKIPPED: {name} is missing; apt-get install age openssh-client\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    Some(path)
}

#[test]
fn the_passphrase_is_forgotten_and_two_holders_open_with_shares_that_age_decrypts() {
    let (Some(keygen), Some(age)) = (tool("age-keygen"), tool("age")) else { return };
    let Some(ssh_keygen) = tool("ssh-keygen") else { return };
    let mut walk = Walk::begin();
    let holders = [walk.holder(&keygen, 1), walk.holder(&keygen, 2), walk.ssh_holder(&ssh_keygen)];
    let keys: Vec<&str> = holders.iter().map(|(_, key)| key.as_str()).collect();
    let file = walk.file("keys", &keys.join("\n"));
    let out = walk.path("shares").display().to_string();
    walk.add(&format!("shamir --shares 3 --threshold 2 --out {out} --recipients-file {file}"));
    let other = keys[2].replace("ssh-ed25519", "ssh-rsa");
    let add = walk.server.client(["seal", "add", "shamir", "--shares", "2", "--threshold", "2"]);
    let refused = refused_holder(add, &walk.path("none"), &other);
    assert!(
        refused.failed(2).contains("only SSH keys of the kind ssh-ed25519"),
        "{}",
        refused.stderr
    );
    let decrypt = |n: usize| {
        let mut age = Command::new(&age);
        let share = walk.path(&format!("shares/share-{n}.age"));
        run(age.arg("-d").arg("-i").arg(&holders[n - 1].0).arg(share), b"").stdout
    };
    let shares = [decrypt(1), decrypt(2), decrypt(3)];
    assert!(!fs::read(walk.path("shares/shares.json")).unwrap().starts_with(b"lastkey-share-"));
    // Each holder checks his share alone, with neither server nor the others.
    let list = walk.path("shares/shares.json");
    let mut check = lastkey(["seal", "check-share", "-", "--output", "json", "--list"]);
    assert_eq!(run(check.arg(&list), &shares[1]).json()["share"], 2);
    let mut typed = shares[1].clone();
    typed[40] = if typed[40] == b'q' { b'p' } else { b'q' };
    let mut check = lastkey(["seal", "check-share", "-", "--list"]);
    assert!(run(check.arg(&list), &typed).failed(1).contains("mistyped"));

    walk.restart();
    assert!(walk.bring(&typed).failed(1).contains("mistyped"));
    let first = walk.bring(&shares[2]).json();
    assert_eq!((&first["sealed"], &first["shares_brought"]), (&true.into(), &1.into()));
    let status = walk.server.cli("status").ok();
    assert!(status.contains("1 of 2 shares are here"), "{status}");
    assert!(walk.bring(&shares[2]).failed(1).contains("is here already"));
    assert_eq!(walk.bring(&shares[0]).json()["sealed"], false);
    walk.works();
    // A new passphrase takes the place of the lost one.
    walk.add_passphrase("the new passphrase");
    let lost = walk.id("passphrase");
    let removed = walk.server.cli(&format!("seal remove {lost}"));
    removed.ok();
    assert!(
        removed.stderr.contains("can still be opened by the removed seal"),
        "{}",
        removed.stderr
    );
    walk.restart();
    let lost = walk.unseal_by(PASSPHRASE);
    let said = lost.failed(4);
    assert!(said.contains("--share") && !said.contains("LASTKEY_TOKEN"), "{said}");
    walk.unseal_by("the new passphrase").ok();
    walk.works();
}

fn refused_holder(mut add: Command, out: &Path, recipient: &str) -> crate::process::Ended {
    add.arg("--out").arg(out).args(["--recipient", recipient, "--recipient", recipient]);
    run(&mut add, b"")
}

#[test]
fn the_machine_burned_and_a_backup_opens_elsewhere_by_another_seal() {
    let mut walk = Walk::begin();
    walk.add_passphrase("in the safe of the bank");
    walk.back_up();
    walk.burn();
    let safe = walk.file("safe", "in the safe of the bank");
    walk.restore(&format!("--passphrase-file {safe}")).ok();
    walk.unseal_by("in the safe of the bank").ok();
    walk.works();
    let burned = walk.seals()[0]["id"].clone();
    walk.server.cli(&format!("seal remove {}", text(&burned))).ok();
}

#[test]
fn two_of_three_holders_are_left_and_restore_a_backup_without_the_passphrase() {
    let mut walk = Walk::begin();
    let out = walk.path("old").display().to_string();
    let old = walk.add(&format!("shamir --shares 3 --threshold 2 --out {out}"));
    walk.back_up();
    walk.burn();
    let share = |n: u8| walk.path(&format!("old/share-{n}.txt")).display().to_string();
    let (first, third) = (share(1), share(3));
    let alone = walk.restore(&format!("--share {first}"));
    assert!(alone.failed(1).contains("do not open a seal of the backup"), "{}", alone.stderr);
    walk.restore(&format!("--share {first} --share {third}")).ok();
    for path in [&third, &first] {
        walk.bring(&fs::read(path).unwrap()).ok();
    }
    walk.works();
    // One more loss would be fatal: a new set, and the old shares open nothing from then on.
    let out = walk.path("new").display().to_string();
    walk.add(&format!("shamir --shares 3 --threshold 2 --out {out}"));
    let first = fs::read(walk.path("new/share-1.txt")).unwrap();
    let brought = walk.server.cli_with("unseal --share -", &first).ok();
    assert!(brought.contains("Brought to") && brought.contains("1 of 2"), "{brought}");
    walk.bring(&fs::read(walk.path("new/share-2.txt")).unwrap()).ok();
    walk.server.cli(&format!("seal remove {old}")).ok();
    // Holders let an administrator in as a passphrase would.
    walk.server.process.stop();
    let share = |n: u8| walk.path(&format!("new/share-{n}.txt")).display().to_string();
    let alone = walk.admin_token(&format!("--share {}", share(2)));
    assert!(alone.failed(1).contains("a seal of this installation"), "{}", alone.stderr);
    let two = format!("--share {} --share {}", share(2), share(3));
    assert!(walk.admin_token(&two).ok().starts_with("lastkey_admin_"));
}

#[test]
fn the_other_key_service_is_gone_and_the_passphrase_restores() {
    let mut walk = Walk::begin();
    let there = walk.path("there");
    fs::create_dir(&there).unwrap();
    let other = Installation::found(&there);
    let mut kms = other.serve_unsealed("");
    kms.cli("key create --alias alias/seal").ok();
    let token = walk.file("there/token", &kms.token);
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let lines = format!("addr = '{}'\ntoken_file = 'token'\n", kms.addr);
    let config = walk.file("there/client.toml", &lines);
    walk.server.process.stop();
    let named = format!("unseal.kms_configs = ['{config}']");
    walk.server = walk.installation.serve_unsealed(&named);
    walk.add(&format!("kms --client-config {config} --key alias/seal"));
    walk.back_up();
    // While it is there, it lets an administrator in.
    walk.server.process.stop();
    let named = walk.file("server.toml", &named);
    let token = walk.admin_token(&format!("--device --config {named}")).ok();
    assert!(token.starts_with("lastkey_admin_"), "{token}");
    walk.server = walk.installation.serve_unsealed("");
    walk.server.token = token;
    walk.works();
    // The account is gone, and the machine as well.
    kms.process.kill();
    walk.burn();
    let passphrase = walk.installation.passphrase.display().to_string();
    walk.restore(&format!("--passphrase-file {passphrase}")).ok();
    walk.unseal_by(PASSPHRASE).ok();
    walk.works();
    let lost = walk.id("kms");
    walk.server.cli(&format!("seal remove {lost}")).ok();
    walk.works();
}

#[test]
fn a_share_that_was_replaced_opens_nothing_any_more() {
    let mut walk = Walk::begin();
    let out = walk.path("old").display().to_string();
    let old = walk.add(&format!("shamir --shares 3 --threshold 2 --out {out}"));
    let out = walk.path("new").display().to_string();
    walk.add(&format!("shamir --shares 3 --threshold 2 --out {out}"));
    walk.server.cli(&format!("seal remove {old}")).ok();
    walk.restart();
    let share = |name: &str| fs::read(walk.path(name)).unwrap();
    assert!(walk.bring(&share("old/share-1.txt")).failed(1).contains("was removed or made anew"));
    walk.bring(&share("new/share-3.txt")).ok();
    walk.bring(&share("new/share-1.txt")).ok();
    walk.works();
}

#[test]
fn one_seal_fails_the_check_and_two_pass_it() {
    let walk = Walk::begin();
    let failed = walk.server.cli("seal check");
    assert!(failed.failed(1).contains("single-seal"), "{}", failed.stderr);
    let forced = walk.server.cli("seal check --force");
    forced.ok();
    assert!(forced.stderr.contains("accepted by admin"), "{}", forced.stderr);
    walk.server.cli("seal check").ok();
    let only = walk.id("passphrase");
    let refused = walk.server.cli(&format!("seal remove {only}"));
    assert!(refused.failed(1).contains("no seal would be left"), "{}", refused.stderr);
    walk.add_passphrase("a second passphrase");
    let passed = walk.server.cli("seal check");
    passed.ok();
    assert!(!passed.stderr.contains("accepted"), "{}", passed.stderr);
    let drill = walk.server.cli("seal drill --output json").json();
    let health: Vec<_> = drill["seals"].as_array().unwrap().iter().map(|s| &s["health"]).collect();
    assert_eq!(health, ["proven", "proven"]);
    let metrics = walk.server.admin().answer("GET", "/metrics", "").text();
    let line =
        format!("lastkey_seal_health{{seal=\"{only}\",kind=\"passphrase\",health=\"proven\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
}

#[test]
fn a_server_that_is_killed_while_seals_change_opens_by_a_seal_of_before_or_after() {
    let mut walk = Walk::begin();
    let second = walk.add_passphrase("a second passphrase");
    for round in 0..6_u32 {
        // A rotation of everything is under way when the process dies.
        let mut change = walk.server.client(["seal", "rotate", "--keyring"]);
        let mut change = change.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::yield_now();
        for _ in 0..round * 50_000 {
            std::hint::spin_loop();
        }
        walk.server.process.kill();
        change.wait().unwrap();
        walk.server = walk.installation.serve("tls.mode = 'off'");
        let passphrase = if round % 2 == 0 { PASSPHRASE } else { "a second passphrase" };
        walk.unseal_by(passphrase).ok();
        walk.works();
    }
    walk.server.cli(&format!("seal remove {second}")).ok();
}

/// Another implementation as a judge of the key hierarchy, from the documents of the formats.
#[test]
fn python_reader_opens_every_record_by_the_passphrase() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line = b"\nSKIPPED python_reader_opens_every_record_by_the_passphrase: needs python3 \
                     with the PyPI package `cryptography`\n";
        return std::io::stderr().write_all(line).unwrap();
    }
    let mut walk = Walk::begin();
    walk.server.cli("seal rotate --keyring").ok();
    walk.server.process.stop();
    let read = |passphrase: &str| {
        let room = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut reader = Command::new("python3");
        reader.arg("-B").arg(room.join("../../tests/python/open_root.py"));
        run(reader.arg(walk.installation.data.join("records.db")), passphrase.as_bytes())
    };
    let opened = read(PASSPHRASE).ok();
    assert!(opened.ends_with("records opened under 2 epochs"), "{opened}");
    assert!(read("correct horse battery stable").failed(1).contains("Refused"));
}
