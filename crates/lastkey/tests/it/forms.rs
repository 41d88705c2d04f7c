//! The forms that people type, exactly as the manual writes them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::process::{BINARY, Ended, command, lastkey, run};
use crate::world::{Server, dev_command};

/// Runs lines in a shell, in a folder, with `lastkey` on the path.
fn shell(folder: &Path, lines: &str) -> Ended {
    let binaries = Path::new(BINARY).parent().unwrap().to_str().unwrap();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    let mut shell = command("bash");
    shell.args(["-euo", "pipefail", "-c", lines]).current_dir(folder).env("PATH", path);
    run(&mut shell, b"")
}

#[test]
fn forms_of_the_manual_work_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let _server = Server::dev(&here.join("DIR"));
    fs::write(here.join("FILE"), vec![7; 700_000]).unwrap();
    fs::create_dir(here.join("d")).unwrap();
    fs::write(here.join("d/one"), "first").unwrap();
    fs::write(here.join("d/two"), vec![0; 300_000]).unwrap();
    let lines = "
        . DIR/env
        lastkey key create --alias alias/app --spec AES_256
        lastkey key rotate alias/app
        lastkey key show alias/app --output json > shown.json
        lastkey encrypt --key alias/app FILE -o FILE.lk
        lastkey key rotate alias/app
        lastkey decrypt FILE.lk -o OUT
        lastkey encrypt --key alias/app FILE -o FILE2.lk
        lastkey decrypt FILE2.lk -o OUT2
        tar c d | lastkey encrypt --key alias/app > d.lk
        mkdir back
        lastkey decrypt d.lk | tar x -C back
        lastkey decrypt < d.lk | cmp - <(tar c d)
        lastkey verify d.lk
        diff -r d back/d
        cmp FILE OUT
        cmp FILE OUT2
    ";
    shell(here, lines).ok();
    let shown: serde_json::Value =
        serde_json::from_slice(&fs::read(here.join("shown.json")).unwrap()).unwrap();
    assert_eq!(shown["aliases"], serde_json::json!(["alias/app"]));
    assert_eq!((&shown["spec"], &shown["state"]), (&"AES_256".into(), &"Enabled".into()));
    assert_eq!((&shown["primary_version"], &shown["newest_version"]), (&2.into(), &2.into()));
    // Encrypted, and under the version that was primary then.
    let sealed = fs::read(here.join("FILE.lk")).unwrap();
    assert!(sealed.len() > 700_000 && !sealed.windows(64).any(|part| part == [7; 64]));
    for (file, version) in [("FILE.lk", 2), ("FILE2.lk", 3)] {
        let header = shell(here, &format!("lastkey inspect --output json {file}")).json();
        assert_eq!(header["recipients"][0]["version"], version, "{file}");
        assert_eq!(header["recipients"][0]["key"], shown["id"]);
    }
}

#[test]
fn dev_says_that_it_is_ready_and_writes_a_private_env_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let mut server = Server::dev(&data);
    assert_eq!(server.ready, format!("lastkey dev is ready on {}", server.addr));
    let port = server.addr.strip_prefix("http://127.0.0.1:").unwrap().parse::<u16>().unwrap();
    assert_ne!(port, 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data.join("env")), mode(&data)), (0o600, 0o700));
    let env = fs::read_to_string(data.join("env")).unwrap();
    assert!(!env.contains("LASTKEY_CA"), "{env}");
    let tour = server.process.says("Stop with Ctrl-C").unwrap();
    assert!(tour.contains("--data"), "{tour}");
    let id = server.create(r#"{"alias":"alias/kept"}"#);
    server.process.stop();

    // Taken up again: the same token, the same key.
    let again = Server::dev(&data);
    assert_eq!(again.token, server.token);
    assert_eq!(again.cli("key show alias/kept --output json").json()["id"], id.as_str());
}

#[test]
fn dev_with_tls_names_its_ca_in_the_env_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d with blanks");
    let server = Server::dev_by(dev_command(&data).arg("--tls"), &data);
    assert!(server.ready.contains("https://127.0.0.1:"), "{}", server.ready);
    let lines = ". 'd with blanks/env'; lastkey key create --alias alias/app; lastkey key list";
    assert!(shell(folder.path(), lines).ok().contains("alias/app"));
    let untrusting = ". 'd with blanks/env'; unset LASTKEY_CA; lastkey key list";
    assert!(shell(folder.path(), untrusting).failed(2).contains("--ca"));
}

#[test]
fn the_tour_that_dev_prints_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::dev(&folder.path().join("d"));
    server.process.says("Stop with Ctrl-C").unwrap();
    let said = server.process.said();
    let lines: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(lines.len() > 5, "{said}");
    assert!(shell(folder.path(), &lines.join("\n")).ok().ends_with("same"));
}

#[test]
fn dev_listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = lastkey(["dev", "--listen", "0.0.0.0:0", "--data"]);
    let said = run(dev.arg(folder.path().join("d")), b"");
    assert!(said.failed(1).contains("loopback"), "{}", said.stderr);
    assert!(!folder.path().join("d").exists());
}

#[test]
fn usage_errors_and_unreachable_servers_have_exit_codes_of_their_own() {
    let nowhere = |addr: &str| {
        let mut command = lastkey(["status"]);
        run(command.env("LASTKEY_ADDR", addr), b"")
    };
    assert!(run(&mut lastkey(["status"]), b"").failed(2).contains("LASTKEY_ADDR"));
    assert!(nowhere("gopher://x").failed(2).contains("gopher"));
    nowhere("http://127.0.0.1:1").failed(3);
    nowhere("unix:///no/such/socket").failed(3);
    run(&mut lastkey(["encrypt", "FILE"]), b"").failed(2);
    run(&mut lastkey(["key", "create", "--spec", "AES_512"]), b"").failed(2);
}

#[test]
fn file_longer_than_the_memory_of_a_command_is_encrypted_and_decrypted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::dev(&folder.path().join("DIR"));
    server.cli("key create --alias alias/app").ok();
    // 40 MiB of data segment for each command, 160 MiB of file.
    let lines = "
        . DIR/env
        ulimit -d 40960
        file() { head -c 167772160 /dev/zero; }
        file | lastkey encrypt --key alias/app | lastkey decrypt | cmp - <(file)
    ";
    shell(folder.path(), lines).ok();
}

#[test]
#[ignore = "heavy: measures for a second a row, and keeps a core busy"]
fn bench_prints_a_rate_for_each_row() {
    let table = run(&mut lastkey(["bench", "--seconds", "1"]), b"").ok();
    let rows: Vec<_> = table.lines().filter(|line| line.contains("/s")).collect();
    assert!(rows.len() >= 8, "{table}");
    for row in rows {
        assert!(row.chars().any(|letter| ('1'..='9').contains(&letter)), "{row}");
    }
}
