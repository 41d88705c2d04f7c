//! People over HTTP and by the command line: the rows of `operations` about them, and the first
//! administrator from `init` to a role.

use std::fs;

use lastkey_testkit::authenticator::Authenticator;
use serde_json::{Value, json};

use crate::issuer::now;
use crate::operations::{Recorder, Shell};
use crate::process::{lastkey, run};
use crate::world::{Installation, PASSPHRASE, text};

/// Every route of people. The person enrolled here is no administrator: the token holds to the end of the journey.
pub(crate) fn routes(r: &mut Recorder) {
    let body = json!({ "name": "bob", "groups": ["developers"] });
    let added = r.call("post /v1/iam/users", &[], body);
    assert_eq!((&added["user"]["enrolled"], &added["expires_in"]), (&json!(false), &json!(900)));
    let renewed = r.call("post /v1/iam/users/{name}/enrolment", &["bob"], Value::Null);
    let mut body = json!({ "user": "bob", "enrolment_code": added["enrolment_code"] });
    r.answer("post /v1/sts/enrol", &[], body.clone()).refused(401, "Unauthenticated");
    body["enrolment_code"] = renewed["enrolment_code"].clone();
    let offered = r.call("post /v1/sts/enrol", &[], body.clone());
    let bob = Authenticator::scan(&text(&offered["otpauth_uri"]));
    body["password"] = json!(PASSPHRASE);
    body["one_time_code"] = json!(bob.code_at(now()));
    let enrolled = r.call("post /v1/sts/enrol", &[], body);
    assert_eq!(enrolled, json!({ "user": "bob", "enrolled": true, "groups": ["developers"] }));
    // The code of the next step is good already; that of this one is used up.
    let code = bob.code_at(now() + 30);
    let body = json!({ "user": "bob", "password": PASSPHRASE, "one_time_code": code });
    let session = r.call("post /v1/sts/login", &[], body.clone());
    assert_eq!(session["principal"], "user:bob");
    r.answer("post /v1/sts/login", &[], body).refused(401, "Unauthenticated");
    let shown = r.call("get /v1/iam/users/{name}", &["bob"], Value::Null);
    assert_eq!(shown["enrolled"], true);
    let list = r.call("get /v1/iam/users", &[], Value::Null);
    let names: Vec<_> = list["users"].as_array().unwrap().iter().map(|u| &u["name"]).collect();
    assert_eq!(names, ["bob", "first-administrator"]);
    let patch = json!({ "groups": [], "disabled": true });
    let patched = r.call("patch /v1/iam/users/{name}", &["bob"], patch);
    assert_eq!((&patched["groups"], &patched["disabled"]), (&json!([]), &json!(true)));
    r.call("delete /v1/iam/users/{name}", &["bob"], Value::Null);
    r.answer("get /v1/iam/users/{name}", &["bob"], Value::Null).refused(403, "AccessDenied");
}

/// Every command of people.
pub(crate) fn commands(s: &mut Shell) {
    let there = s.folder.path().to_owned();
    fs::write(there.join("password"), PASSPHRASE).unwrap();
    s.ok("user add bob --group developers");
    assert!(s.ok("user show bob").contains("not enrolled"));
    let code = text(&s.json("user enrol-code bob")["enrolment_code"]);
    fs::write(there.join("code"), &code).unwrap();
    let offered = s.json("user enrol --name bob --code-file code --offer");
    let bob = Authenticator::scan(&text(&offered["otpauth_uri"]));
    let line = "user enrol --name bob --code-file code --password-file password --otp-stdin";
    let done = s.run(line, bob.code_at(now()).as_bytes());
    assert!(done.ok().contains("developers"), "{done:?}");
    let line = "login --user bob --password-file password --otp-stdin --output json";
    let code = bob.code_at(now() + 30);
    assert_eq!(s.run(line, code.as_bytes()).json()["principal"], "user:bob");
    assert_eq!(s.run(line, code.as_bytes()).code, Some(4), "a code is good once");
    assert_eq!(s.json("user groups bob --group a --group b")["groups"], json!(["a", "b"]));
    assert_eq!(s.json("user disable bob")["disabled"], true);
    assert_eq!(s.json("user enable bob")["disabled"], false);
    assert!(s.ok("user list").contains("first-administrator"));
    s.ok("user remove bob");
    assert_eq!(s.run("user show bob", b"").code, Some(4));
    assert_eq!(s.run("user enrol --name bob --code-stdin --offer", code.as_bytes()).code, Some(4));
}

/// From `init` to an administrator with a role, as the manual tells it.
#[test]
fn first_administrator_enrols_and_the_token_of_init_is_void() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("");
    let there = |name: &str| folder.path().join(name).display().to_string();
    fs::write(there("password"), PASSPHRASE).unwrap();
    fs::write(there("code"), &installation.enrolment_code).unwrap();
    let enrol = format!("user enrol --name alice --code-file {}", there("code"));
    let offered = server.cli(&format!("{enrol} --offer --output json")).json();
    let alice = Authenticator::scan(&text(&offered["otpauth_uri"]));
    server.cli("whoami").ok();
    let line = format!("{enrol} --password-file {} --otp-stdin", there("password"));
    server.cli_with(&line, alice.code_at(now()).as_bytes()).ok();
    assert_eq!(server.cli("whoami").code, Some(4));
    let login = format!(
        "login --user alice --role security-administrator --password-file {} --otp-stdin",
        there("password")
    );
    let code = alice.code_at(now() + 30);
    let session = server.cli_with(&format!("{login} --output json"), code.as_bytes()).json();
    fs::write(there("session"), text(&session["access_token"])).unwrap();
    let by_session = |line: &str| server.cli(&format!("{line} --token-file {}", there("session")));
    by_session("user add bob --group system-administrator").ok();
    // In this role she makes keys and uses none, and she cannot lock everybody out.
    by_session("key create --alias alias/a").ok();
    assert_eq!(by_session("blob encrypt --key alias/a --text x").code, Some(4));
    assert!(by_session("user disable alice").failed(1).contains("nobody would be left"));
    // Whoever knows the passphrase gets a code now, and no token.
    drop(server);
    let mut again = lastkey(["admin-token", "--data"]);
    again.arg(&installation.data).arg("--passphrase-file").arg(&installation.passphrase);
    assert!(run(&mut again, b"").ok().starts_with("lastkey_enrol_"));
}
