//! Sealed, unsealed, sealed again: what a server answers in each, and over a restart.

use serde_json::json;

use crate::process::{lastkey, run};
use crate::world::{Installation, PASSPHRASE, Server, audit_records, routes, text};

/// Calls a route with something in its parameters and an empty body.
fn call(server: &Server, route: &str) -> crate::http::Answer {
    let (method, pattern) = route.split_once(' ').unwrap();
    let path = pattern.replace("{key}", "alias%2Fapp").replace("{alias}", "alias%2Fapp");
    let path = path.replace("{version}", "1");
    server.admin().answer(&method.to_uppercase(), &path, "")
}

#[test]
fn sealed_server_answers_health_and_unseal_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = Installation::found(folder.path()).serve("tls.mode = 'off'");
    assert!(server.ready.contains("sealed; unseal it by `lastkey unseal`"), "{}", server.ready);
    let open = [
        "get /healthz",
        "get /metrics",
        "get /readyz",
        "get /v1/openapi.json",
        "get /v1/sys/status",
        "post /v1/audit/witness/add-checkpoint",
        "post /v1/sys/unseal",
    ];
    for (route, _) in routes(&mut server.anybody()) {
        if !open.contains(&route.as_str()) {
            let error = call(&server, &route).refused(503, "Sealed");
            assert!(text(&error["next"]).contains("lastkey unseal"), "{error}");
        }
    }
    // A sealed server has no key to vouch for another log with.
    call(&server, "post /v1/audit/witness/add-checkpoint").refused(503, "Sealed");
    let mut anybody = server.anybody();
    assert_eq!(anybody.answer("GET", "/healthz", "").status, 200);
    let ready = anybody.answer("GET", "/readyz", "");
    assert_eq!((ready.status, ready.json()["reason"].as_str()), (503, Some("sealed")));
    let status = anybody.done("GET", "/v1/sys/status", "");
    assert_eq!((&status["sealed"], &status["initialised"]), (&json!(true), &json!(true)));
    assert_eq!(status["seals"][0]["kind"], "passphrase");
}

#[test]
fn wrong_passphrase_is_refused_and_the_right_one_still_opens() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve("tls.mode = 'off'");
    let mut http = server.anybody();
    for wrong in ["", "correct horse battery stapl", "correct horse battery staple "] {
        let body = json!({ "passphrase": wrong }).to_string();
        http.answer("POST", "/v1/sys/unseal", &body).refused(401, "Unauthenticated");
    }
    assert_eq!(http.done("GET", "/v1/sys/status", "")["sealed"], true);
    let body = json!({ "passphrase": PASSPHRASE }).to_string();
    let opened = http.done("POST", "/v1/sys/unseal", &body);
    assert_eq!(opened["sealed"], false);
    // The attempt has an id of its own, by which the audit log knows it.
    let attempt = text(&opened["attempt"]);
    let of = |filter: &str| audit_records(&installation.data, filter);
    let records = of(&format!("--request {attempt}"));
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["action"], &records[0]["result"]),
        (&json!("sys:Unseal"), &json!("ok"))
    );
    assert_eq!(of("--action sys:Unseal --result Unauthenticated").len(), 3);
}

#[test]
fn attempts_to_unseal_are_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let server = Installation::found(folder.path()).serve("tls.mode = 'off'");
    let mut http = server.anybody();
    // Five at once and one more every ten seconds: a slow machine may be given a few more.
    let throttled = (0..60).find_map(|_| {
        let answer = http.answer("POST", "/v1/sys/unseal", r#"{"passphrase":"guess"}"#);
        (answer.status != 401).then_some(answer)
    });
    let throttled = throttled.expect("60 guesses were let through");
    throttled.refused(429, "Throttled");
    let wait: u32 = throttled.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    // Health is not throttled, and sealed it stays.
    assert_eq!(http.done("GET", "/v1/sys/status", "")["sealed"], true);
}

#[test]
fn what_was_made_before_a_seal_and_a_restart_is_there_after_them() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let mut server = installation.serve_unsealed("");
    server.cli("key create --alias alias/app").ok();
    let sealed = server.cli_with("blob encrypt --key alias/app", b"kept").ok();

    server.cli("seal").ok();
    let refused = server.cli("key show alias/app");
    assert!(refused.failed(6).contains("lastkey unseal"), "{}", refused.stderr);
    installation.unseal(&server);
    assert_eq!(server.cli_with("blob decrypt --format base64", sealed.as_bytes()).ok(), "kept");

    server.process.stop();
    let server = installation.serve("tls.mode = 'off'");
    assert_eq!(server.cli("key list").code, Some(6));
    installation.unseal(&server);
    assert_eq!(server.cli_with("blob decrypt", sealed.as_bytes()).ok(), "kept");
}

#[test]
fn seal_needs_a_valid_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Installation::found(folder.path()).serve_unsealed("");
    for mut http in [server.anybody(), server.anybody().with_token("lastkey_admin_00")] {
        http.answer("POST", "/v1/sys/seal", "").refused(401, "Unauthenticated");
    }
    assert_eq!(server.anybody().done("GET", "/v1/sys/status", "")["sealed"], false);
}

#[test]
fn init_refuses_weak_passphrases_and_can_then_be_done_well() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (weak, why) in [("short\n", "at least 12 bytes"), ("\n", "is empty")] {
        let mut init = lastkey(["init", "--passphrase-file", "-", "--data"]);
        let said = run(init.arg(&data), weak.as_bytes());
        assert!(said.failed(1).contains(why), "{}", said.stderr);
    }
    Installation::found(folder.path()).serve_unsealed("").cli("key list").ok();
}

#[test]
fn new_token_of_the_administrator_makes_the_old_one_void() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let mint = |passphrase: &str| {
        let mut mint = lastkey(["admin-token", "--passphrase-file", "-", "--data"]);
        run(mint.arg(&installation.data), passphrase.as_bytes())
    };
    let mut server = installation.serve_unsealed("");
    server.cli("key create --alias alias/app").ok();
    assert!(mint(PASSPHRASE).failed(1).contains("in use by another Lastkey process"));
    server.process.stop();

    let wrong = mint("correct horse battery stable");
    assert!(wrong.failed(1).contains("opens no seal of this installation"), "{}", wrong.stderr);
    assert!(!wrong.text().contains("lastkey_admin"), "{}", wrong.text());
    let minted = mint(PASSPHRASE).ok();
    let mut server = installation.serve_unsealed("");
    server.admin().answer("GET", "/v1/keys", "").refused(401, "Unauthenticated");
    assert_eq!(minted.lines().count(), 1, "{minted}");
    server.token = minted;
    server.cli("key show alias/app").ok();
}

#[test]
fn keyfile_opens_a_keyfile_seal_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = (folder.path().join("data"), folder.path().join("root.key"));
    let mut init = lastkey(["init", "--seal", "keyfile", "--keyfile"]);
    let said = run(init.arg(&key).arg("--data").arg(&data), b"").ok();
    let token = said.split_whitespace().find(|word| word.starts_with("lastkey_admin_"));
    let token = token.unwrap().to_owned();
    let (fingerprint, passphrase) = (String::new(), folder.path().join("none"));
    let enrolment_code = String::new();
    let installation =
        Installation { data, token, enrolment_code, fingerprint, passphrase, env: Vec::new() };
    let server = installation.serve("tls.mode = 'off'");
    std::fs::write(folder.path().join("other.key"), [7; 32]).unwrap();
    let unseal = |name: &str| {
        let mut command = server.client(["unseal", "--keyfile"]);
        run(command.arg(folder.path().join(name)), b"")
    };
    assert!(unseal("other.key").failed(4).contains("no seal opens"));
    unseal("no.key").failed(7);
    let mut http = server.anybody();
    for body in [json!({}), json!({ "passphrase": PASSPHRASE, "keyfile": "Zm9v" })] {
        let answer = http.answer("POST", "/v1/sys/unseal", &body.to_string());
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
    }
    assert_eq!(http.done("GET", "/v1/sys/status", "")["seals"][0]["kind"], "keyfile");
    assert!(unseal("root.key").ok().contains("keyfile"));
    server.cli("key create").ok();
}
