//! A log that goes away or back while nobody looks, and a witness that remembers it.

use std::fs;
use std::path::Path;

use crate::process::{Running, lastkey, run, until};
use crate::world::{Installation, Server, audit_records};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

fn replace(log: &Path, by: &Path) {
    fs::remove_dir_all(log).unwrap();
    copy(by, log);
}

/// What `unseal` says to a server that is sealed.
fn unseal(installation: &Installation, server: &Server) -> crate::process::Ended {
    let mut unseal = server.client(["unseal", "--passphrase-file"]);
    run(unseal.arg(&installation.passphrase), b"")
}

/// A server that takes the loss of its log.
fn serve_accepting(installation: &Installation) -> Server {
    let config = installation.data.with_extension("toml");
    let mut command = lastkey(["server", "--accept-audit-loss", "--config"]);
    let process = Running::start(command.arg(&config));
    let ready = process.says("lastkey serves on ").unwrap();
    let addr = ready.split([' ', ',']).find(|word| word.contains("://")).unwrap().to_owned();
    let token = installation.token.clone();
    let server = Server { process, ready, addr, token, env: Vec::new() };
    installation.unseal(&server);
    server
}

#[test]
fn removal_of_the_whole_log_while_the_server_is_down_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let (log, kept) = (installation.data.join("audit"), folder.path().join("kept"));
    let mut server = installation.serve_unsealed("");
    server.cli("random --bytes 1 --format hex").ok();
    server.process.stop();
    copy(&log, &kept);
    fs::remove_dir_all(&log).unwrap();
    let mut server = installation.serve("tls.mode = 'off'");
    let said = unseal(&installation, &server);
    let said = said.failed(1);
    assert!(said.contains("removed") && said.contains("--accept-audit-loss"), "{said}");
    server.process.stop();
    // With the copy it goes on where it was.
    replace(&log, &kept);
    let mut server = installation.serve_unsealed("");
    server.process.stop();
    // Who says that he knows of the loss is recorded.
    fs::remove_dir_all(&log).unwrap();
    let mut server = serve_accepting(&installation);
    server.process.stop();
    let recorded = audit_records(&installation.data, "--action sys:AcceptAuditLoss");
    assert_eq!(recorded.len(), 1);
    drop(installation.serve_unsealed(""));
}

/// A log that nobody had signed yet was signed before it was compared with what was remembered.
#[test]
fn forged_log_is_refused_before_anything_of_it_is_signed() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [installation, other] = folders.each_ref().map(|at| Installation::found(at.path()));
    let log = installation.data.join("audit");
    installation.serve_unsealed("").process.stop();
    let mut longer = other.serve_unsealed("");
    for _ in 0..5 {
        longer.cli("random --bytes 1 --format hex").ok();
    }
    longer.process.stop();
    for part in ["wal", "tile"] {
        replace(&log.join(part), &other.data.join("audit").join(part));
    }
    fs::remove_file(log.join("checkpoint")).unwrap();
    let mut server = installation.serve("tls.mode = 'off'");
    assert!(unseal(&installation, &server).failed(1).contains("records are others"));
    // A server that holds the key signs what it has when it ends, if not before.
    server.process.stop();
    assert!(!log.join("checkpoint").exists());
}

#[test]
fn older_copy_of_the_log_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let (log, kept) = (installation.data.join("audit"), folder.path().join("kept"));
    let mut server = installation.serve_unsealed("");
    server.process.stop();
    copy(&log, &kept);
    let mut server = installation.serve_unsealed("");
    server.cli("random --bytes 1 --format hex").ok();
    server.process.stop();
    replace(&log, &kept);
    let server = installation.serve("tls.mode = 'off'");
    assert!(unseal(&installation, &server).failed(1).contains("cut"));
}

/// The newest checkpoint that a witness has cosigned, as a note.
fn cosigned(installation: &Installation) -> String {
    fs::read_to_string(installation.data.join("audit/cosigned")).unwrap_or_default()
}

#[test]
fn two_servers_witness_each_other_and_a_log_that_was_cut_is_not_cosigned() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = folders.each_ref().map(|folder| Installation::found(folder.path()));
    let (log, kept) = (a.data.join("audit"), folders[0].path().join("kept"));
    let mut of_a = a.serve_unsealed("");
    let of_b = b.serve_unsealed("");
    let keys = |server: &Server| {
        let key = |more: &str| server.cli(&format!("audit checkpoint {more}")).ok();
        (key("--public-key"), key("--witness-key"))
    };
    let (keys_of_a, keys_of_b) = (keys(&of_a), keys(&of_b));
    for (server, log_key, witness_key, url) in [
        (&of_a, &keys_of_b.0, &keys_of_b.1, &of_b.addr),
        (&of_b, &keys_of_a.0, &keys_of_a.1, &of_a.addr),
    ] {
        let run = |arguments: &[&str]| {
            run(&mut server.client([&["audit", "witness", "add"], arguments].concat()), b"").ok()
        };
        run(&[log_key]);
        run(&[witness_key, "--url", &format!("{url}/v1/audit/witness")]);
    }
    let name = |key: &str| format!("\u{2014} {} ", key.split('+').next().unwrap());
    until("B has cosigned", || cosigned(&a).contains(&name(&keys_of_b.1)));
    until("A has cosigned", || cosigned(&b).contains(&name(&keys_of_a.1)));
    of_a.process.stop();
    copy(&log, &kept);
    let mut of_a = a.serve_unsealed("");
    of_a.cli("random --bytes 1 --format hex").ok();
    let before = cosigned(&a);
    until("B has cosigned more", || cosigned(&a) != before);
    of_a.process.stop();
    replace(&log, &kept);
    // Whoever is root on A may have it begin again; B remembers more.
    let of_a = serve_accepting(&a);
    of_a.process.logs("a witness did not cosign the audit log");
}
