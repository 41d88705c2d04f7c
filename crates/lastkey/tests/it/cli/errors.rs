//! How commands fail: exit codes, advice, and what never shows.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::house::{Ended, House, ended};

#[test]
fn exit_code_tells_who_has_to_act() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let with = |line: &str, name: &str, value: &str| {
        ended(house.command(line).env(name, value).output().unwrap())
    };
    for (done, code) in [
        (house.run("key create --alias alias/app"), 1),
        (house.run("key create --spec AES_512"), 2),
        (with("key list", "LASTKEY_ADDR", ""), 2),
        (with("key list", "LASTKEY_ADDR", "nonsense"), 2),
        (with("key list", "LASTKEY_ADDR", "https://127.0.0.1:1"), 2),
        (with("key list", "LASTKEY_ADDR", "unix:///no/such/socket"), 3),
        (with("key list", "LASTKEY_TOKEN", "wrong"), 4),
        (with("key list", "LASTKEY_TOKEN", ""), 4),
        (house.run("key show alias/none"), 4),
        (house.run("blob decrypt --in /etc/hostname --format raw"), 5),
        (house.run("encrypt --key alias/app no-such-file -o OUT"), 7),
        (house.run("encrypt --key alias/app /dev/null -o no/such/folder/OUT"), 7),
    ] {
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.err.starts_with("error: ") && done.out.is_empty(), "{done:?}");
    }
    assert_eq!(house.names(), Vec::<String>::new());
}

#[test]
fn sealed_server_says_so_and_what_to_do() {
    let house = House::open();
    house.ok("seal");
    let done = house.run("random --bytes 8");
    assert_eq!(done.code, 6);
    assert!(
        done.err.contains("code: Sealed") && done.err.contains("lastkey unseal"),
        "{}",
        done.err
    );
    assert_eq!(house.run("status").code, 0);
    assert_eq!(house.run("status --ready").code, 6);
}

#[test]
fn error_in_json_is_the_body_of_the_api() {
    let house = House::open();
    let done = house.run("key show alias/none --output json");
    let body: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(body["error"]["code"], "AccessDenied");
    assert!(!body["error"]["request_id"].as_str().unwrap().is_empty());
}

#[test]
fn plaintext_over_the_limit_is_refused_by_its_own_code() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let (done, _) = house.pipe("blob encrypt --key alias/app", &[b'x'; 65_536]);
    assert_eq!(done.code, 0, "{}", done.err);
    let (done, _) = house.pipe("blob encrypt --key alias/app", &[b'x'; 65_537]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("PlaintextTooLarge"), "{}", done.err);
}

#[test]
fn token_is_never_an_argument_and_never_shown() {
    let house = House::open();
    let token = house.variable("LASTKEY_TOKEN").to_owned();
    assert!(!token.is_empty());
    assert_eq!(house.run("key list --token x").code, 2);
    for line in ["status", "key list", "key show alias/none", "key list --output json"] {
        let done = house.run(line);
        assert!(!done.out.contains(&token) && !done.err.contains(&token), "{line}");
    }
    let wrong = ended(house.command("key list").env("LASTKEY_TOKEN", "hunter2").output().unwrap());
    assert!(!wrong.err.contains("hunter2"), "{}", wrong.err);
}

#[test]
fn token_file_takes_the_place_of_the_variable() {
    let house = House::open();
    house.write("token", format!("{}\n", house.variable("LASTKEY_TOKEN")));
    let mut command = house.command("key list --token-file token");
    assert_eq!(ended(command.env_remove("LASTKEY_TOKEN").output().unwrap()).code, 0);
}

#[test]
fn tls_server_is_trusted_by_its_authority_only() {
    let house = House::open_with(&["--tls"]);
    let ca = house.variable("LASTKEY_CA").to_owned();
    assert!(house.variable("LASTKEY_ADDR").starts_with("https://"));
    house.ok("key list");
    let without = ended(house.command("key list").env_remove("LASTKEY_CA").output().unwrap());
    assert_eq!(without.code, 2);
    assert!(without.err.contains("--ca"), "{}", without.err);
    let mut other = house.command("key list");
    other
        .env_remove("LASTKEY_CA")
        .env("LASTKEY_CA_FINGERPRINT", format!("sha256:{}", "ab".repeat(32)));
    assert_eq!(ended(other.output().unwrap()).code, 3);
    let flag = house.command(&format!("key list --ca {ca}")).env_remove("LASTKEY_CA").output();
    assert_eq!(ended(flag.unwrap()).code, 0);
}

/// Runs a command on a terminal of its own, with something typed. `None` where the program
/// `script`, which makes the terminal, is not there.
fn on_terminal(house: &House, line: &str, typed: &str) -> Option<Ended> {
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no `script` to make a terminal");
        return None;
    }
    house.write("typed", typed);
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_lastkey"));
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(house.folder())
        .env("LASTKEY_ADDR", house.variable("LASTKEY_ADDR"))
        .env("LASTKEY_TOKEN", house.variable("LASTKEY_TOKEN"))
        .stdin(fs::File::open(house.path("typed")).unwrap());
    Some(ended(script.output().unwrap()))
}

#[test]
fn terminal_gets_no_binary_data() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.write("FILE", b"\x00\x01binary");
    let Some(refused) = on_terminal(&house, "encrypt --key alias/app FILE", "") else { return };
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.out.contains("-o FILE"), "{refused:?}");
    house.ok("encrypt --key alias/app FILE -o FILE.lk");
    let refused = on_terminal(&house, "decrypt FILE.lk", "").unwrap();
    assert_eq!(refused.code, 7, "{refused:?}");
    assert!(!refused.out.contains('\u{1}'), "{refused:?}");
    house.write("TEXT", "words\n");
    house.ok("encrypt --key alias/app TEXT -o TEXT.lk");
    let shown = on_terminal(&house, "decrypt TEXT.lk", "").unwrap();
    assert_eq!((shown.code, shown.out.trim()), (0, "words"));
}

#[test]
fn deletion_asks_on_a_terminal_and_takes_no_for_an_answer() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let Some(declined) = on_terminal(&house, "key delete alias/app", "n\n") else { return };
    assert_eq!(declined.code, 1, "{declined:?}");
    assert!(declined.out.contains("Destroy this key in 30 days?"), "{declined:?}");
    assert_eq!(house.json("key show alias/app")["state"], "Enabled");
    let agreed = on_terminal(&house, "key delete alias/app", "y\n").unwrap();
    assert_eq!(agreed.code, 0, "{agreed:?}");
    assert_eq!(house.json("key show alias/app")["state"], "PendingDeletion");
}

#[test]
fn completions_know_the_commands() {
    let house = House::open();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(house.ok(&format!("completions {shell}")).contains("data-key-pair"), "{shell}");
    }
}
