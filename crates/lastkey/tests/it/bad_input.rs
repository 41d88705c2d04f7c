//! Bad input over HTTP: a stable code, a request id, and no side effect.

use serde_json::{Value, json};

use crate::http::{Answer, Http, base64, bytes};
use crate::world::{Server, audit_records, text};

/// A server with a few things on it.
struct House {
    _folder: tempfile::TempDir,
    data: std::path::PathBuf,
    server: Server,
    http: Http,
    key: String,
    mac: String,
    /// Encrypted under `key` with the context `app=shop`.
    ciphertext: Vec<u8>,
}

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("d"));
        let key = server.create(r#"{"alias":"alias/app"}"#);
        let mac = server.create(r#"{"spec":"HMAC_256"}"#);
        for (alias, verb) in [("off", "disable"), ("retired", "deactivate")] {
            let id = server.create(&format!(r#"{{"alias":"alias/{alias}"}}"#));
            server.admin().done("POST", &format!("/v1/keys/{id}/{verb}"), "");
        }
        let mut http = server.admin();
        let body = json!({ "key": key, "plaintext": "Zm9v", "context": { "app": "shop" } });
        let sealed = http.done("POST", "/v1/encrypt", &body.to_string());
        let ciphertext = bytes(&sealed["ciphertext"]);
        let data = folder.path().join("d");
        Self { _folder: folder, data, server, http, key, mac, ciphertext }
    }

    fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.http.answer("POST", path, &body.to_string())
    }

    /// All that a caller can see of keys, versions and aliases.
    fn everything(&mut self) -> String {
        let keys = self.http.done("GET", "/v1/keys", "");
        let mut all = vec![keys.to_string()];
        for key in keys["keys"].as_array().unwrap() {
            let path = format!("/v1/keys/{}/versions", text(&key["id"]));
            all.push(self.http.done("GET", &path, "").to_string());
        }
        all.push(self.http.done("GET", "/v1/aliases", "").to_string());
        all.join("\n")
    }
}

#[test]
fn requests_that_cannot_be_done_are_refused_by_code_and_change_nothing() {
    let mut house = House::open();
    let (key, mac) = (house.key.clone(), house.mac.clone());
    let before = house.everything();
    let plain = |key: &str| json!({ "key": key, "plaintext": "Zm9v" });
    let long = json!({ "key": key, "plaintext": base64(&[0; 65_537]) });
    let of_unknown = {
        let mut blob = house.ciphertext.clone();
        blob[4..20].fill(7);
        json!({ "ciphertext": base64(&blob) })
    };
    let both = json!({ "key": key, "plaintext": "", "context": {"a": "b"}, "context_raw": "YQ==" });
    let cases: &[(u16, &str, &str, Value)] = &[
        (403, "AccessDenied", "/v1/encrypt", plain(UNKNOWN)),
        (403, "AccessDenied", "/v1/encrypt", plain("alias/none")),
        (403, "AccessDenied", "/v1/decrypt", of_unknown),
        (409, "KeyState", "/v1/encrypt", plain("alias/off")),
        (409, "KeyState", "/v1/encrypt", plain("alias/retired")),
        (409, "KeyState", "/v1/keys/alias%2Fretired/enable", json!({})),
        (400, "KeyUsage", "/v1/encrypt", plain(&mac)),
        (400, "KeyUsage", "/v1/mac", json!({ "key": key, "message": "Zm9v" })),
        (400, "KeyUsage", "/v1/sign", json!({ "key": key, "message": "Zm9v" })),
        (400, "PlaintextTooLarge", "/v1/encrypt", long),
        (400, "InvalidRequest", "/v1/encrypt", both),
        (400, "InvalidRequest", "/v1/encrypt", plain("no key at all")),
        (400, "InvalidRequest", "/v1/random", json!({ "bytes": 65_537 })),
        (400, "InvalidRequest", "/v1/random", json!({ "bytes": 0 })),
        (400, "InvalidRequest", "/v1/data-key", json!({ "key": key, "bytes": 1_025 })),
        (400, "InvalidRequest", "/v1/batch/encrypt", json!({ "items": [] })),
        (409, "AlreadyExists", "/v1/keys", json!({ "alias": "alias/app" })),
        (400, "InvalidRequest", "/v1/keys", json!({ "alias": "app" })),
        (400, "InvalidRequest", "/v1/keys", json!({ "rotation_period_seconds": 3_599 })),
        (
            400,
            "InvalidRequest",
            "/v1/keys",
            json!({ "spec": "RSA_2048", "usage": "GENERATE_VERIFY_MAC" }),
        ),
        (
            400,
            "InvalidRequest",
            "/v1/keys/alias%2Fapp/schedule-deletion",
            json!({ "window_days": 6 }),
        ),
        (
            400,
            "InvalidRequest",
            "/v1/keys/alias%2Fapp/schedule-deletion",
            json!({ "window_days": 367 }),
        ),
        (404, "NotFound", "/v1/no-such-route", json!({})),
        (405, "MethodNotAllowed", "/v1/aliases", json!({})),
    ];
    for (status, code, path, body) in cases {
        let answer = house.post(path, body);
        assert_eq!(answer.status, *status, "{path} {body}: {}", answer.text());
        answer.refused(*status, code);
    }
    assert_eq!(house.everything(), before);
}

#[test]
fn too_much_plaintext_is_told_to_use_a_data_key() {
    let mut house = House::open();
    let body = json!({ "key": house.key, "plaintext": base64(&vec![0; 65_537]) });
    let error = house.post("/v1/encrypt", &body).refused(400, "PlaintextTooLarge");
    assert!(text(&error["next"]).contains("use a data key"), "{error}");
    let body = json!({ "key": house.key, "plaintext": base64(&vec![0; 65_536]) });
    assert_eq!(house.post("/v1/encrypt", &body).status, 200);
}

#[test]
fn every_broken_ciphertext_gets_the_same_answer_and_its_reason_in_the_audit_log_only() {
    let mut house = House::open();
    let right = json!({ "app": "shop" });
    let mut bodies = Vec::new();
    let good = house.ciphertext.clone();
    let decrypt =
        |blob: &[u8], context: &Value| json!({ "ciphertext": base64(blob), "context": context });
    assert_eq!(house.post("/v1/decrypt", &decrypt(&good, &right)).status, 200);
    let contexts = [
        json!({}),
        json!({ "app": "shoq" }),
        json!({ "app": "shop", "b": "" }),
        json!({ "App": "shop" }),
    ];
    bodies.extend(contexts.iter().map(|context| decrypt(&good, context)));
    for len in [0, 1, 4, 24, 56, 88, 103, good.len() - 1] {
        bodies.push(decrypt(&good[..len], &right));
    }
    // Each part once: magic, format, suite, version, salt, commitment, ciphertext, tag.
    for place in [0, 2, 3, 23, 24, 56, 88, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[place] ^= 1;
        bodies.push(decrypt(&flipped, &right));
    }
    bodies.push(decrypt(&[&good[..], &[0]].concat(), &right));
    let mut answers = Vec::new();
    for body in &bodies {
        let mut error = house.post("/v1/decrypt", body).refused(400, "Undecryptable");
        let id = text(&error["request_id"]);
        error["request_id"] = Value::Null;
        answers.push((error, id));
    }
    for (error, _) in &answers {
        assert_eq!(*error, answers[0].0);
    }
    let records = audit_records(&house.data, "--action kms:Decrypt");
    for (_, id) in &answers {
        let line = records.iter().find(|record| record["request"] == id.as_str()).unwrap();
        assert_eq!(line["result"], "Undecryptable");
        assert!(line["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{line}");
    }
}

#[test]
fn syntax_errors_name_the_field_and_what_may_stand_there() {
    let mut house = House::open();
    let mut field = |path: &str, body: &str, named: &str| {
        let error = house.http.answer("POST", path, body).refused(400, "InvalidRequest");
        assert_eq!(error["field"], named, "{body}: {error}");
        error
    };
    let error = field("/v1/encrypt", r#"{"key":"a","plaintext":"","contxt":{}}"#, "contxt");
    let allowed = json!(["key", "plaintext", "context", "context_raw", "dry_run"]);
    assert_eq!(error["allowed"], allowed);
    let error = field("/v1/keys", r#"{"spec":"AES_512"}"#, "spec");
    assert!(error["allowed"].as_array().unwrap().contains(&json!("AES_256")), "{error}");
    field("/v1/encrypt", r#"{"key":"alias/app"}"#, "plaintext");
    field("/v1/encrypt", r#"{"key":"alias/app","key":"alias/app","plaintext":""}"#, "key");
    field("/v1/encrypt", r#"{"key":"alias/app","plaintext":"Zg"}"#, "plaintext");
    field("/v1/encrypt", r#"{"key":"alias/app","plaintext":17}"#, "plaintext");
    let twice = r#"{"key":"alias/app","plaintext":"","context":{"a":"1","a":"2"}}"#;
    let error = house.http.answer("POST", "/v1/encrypt", twice).refused(400, "InvalidRequest");
    assert!(error["field"].as_str().unwrap().starts_with("context"), "{error}");
}

#[test]
fn what_is_not_json_or_not_utf8_or_of_another_type_is_refused() {
    let house = House::open();
    for body in [&b"{"[..], b"", b"[]", b"{\"key\":\"\xff\"}", b"{} {}", b"null", b"\xef\xbb\xbf{}"]
    {
        let answer = house.server.admin().send("POST", "/v1/encrypt", body).unwrap();
        answer.refused(400, "InvalidRequest");
    }
    let mut http = house.server.admin();
    let head = http.head("POST", "/v1/encrypt", 2, "").replace("application/json", "text/plain");
    http.write(format!("{head}{{}}").as_bytes()).unwrap();
    http.read_answer().unwrap().refused(415, "UnsupportedMediaType");
    // A path that is no UTF-8.
    house.server.admin().answer("GET", "/v1/keys/%ff", "").refused(400, "InvalidRequest");
}

#[test]
fn body_over_the_limit_is_refused_before_it_is_sent_and_when_its_length_is_not_told() {
    let house = House::open();
    let mut http = house.server.admin();
    let head = http.head("POST", "/v1/encrypt", (1 << 20) + 1, "");
    http.write(head.as_bytes()).unwrap();
    http.read_answer().unwrap().refused(413, "BodyTooLarge");

    let mut http = house.server.admin();
    let head = http.head("POST", "/v1/encrypt", 2, "");
    let head = head.replace("Content-Length: 2", "Transfer-Encoding: chunked");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
    let chunks = std::iter::repeat_n(chunk, 17);
    // The server may close before it has read everything.
    let _ = http.write(format!("{head}{}0\r\n\r\n", chunks.collect::<String>()).as_bytes());
    http.read_answer().unwrap().refused(413, "BodyTooLarge");
    assert_eq!(house.server.admin().answer("GET", "/healthz", "").status, 200);
}

#[test]
fn only_the_right_token_is_let_in() {
    let house = House::open();
    let token = house.server.token.clone();
    let (mut shorter, other_case) = (token.clone(), token.to_uppercase());
    shorter.pop();
    for wrong in ["", "x", &shorter, &format!("{token}0"), &other_case] {
        let mut http = house.server.anybody().with_token(wrong);
        let answer = http.answer("GET", "/v1/keys", "");
        assert_eq!(answer.status, 401, "{wrong:?}");
        let error = answer.refused(401, "Unauthenticated");
        assert!(!error.to_string().contains(&token));
    }
    let mut http = house.server.anybody();
    let head = http.head("GET", "/v1/keys", 0, "Authorization: Basic YTpi\r\n");
    http.write(head.as_bytes()).unwrap();
    http.read_answer().unwrap().refused(401, "Unauthenticated");
}

#[test]
fn dry_run_answers_and_has_no_effect() {
    let mut house = House::open();
    let before = house.everything();
    let key = house.key.clone();
    let ask = |house: &mut House, method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        house.http.done(method, path, &body)["dry_run"].clone()
    };
    let good = json!({ "key": key, "plaintext": "Zm9v", "dry_run": true });
    let verdict = ask(&mut house, "POST", "/v1/encrypt", good);
    assert_eq!(verdict["allowed"], true);
    for (named, why) in
        [(UNKNOWN, "AccessDenied"), ("alias/off", "KeyState"), (&house.mac.clone(), "KeyUsage")]
    {
        let body = json!({ "key": named, "plaintext": "Zm9v", "dry_run": true });
        let verdict = ask(&mut house, "POST", "/v1/encrypt", body);
        assert_eq!((&verdict["allowed"], &verdict["why"]), (&json!(false), &json!(why)));
    }
    let changes = [
        ("POST", "/v1/keys", json!({ "alias": "alias/new" })),
        ("PATCH", "/v1/keys/alias%2Fapp", json!({ "description": "changed" })),
        ("POST", "/v1/keys/alias%2Fapp/rotate", Value::Null),
        ("POST", "/v1/keys/alias%2Fapp/disable", Value::Null),
        ("POST", "/v1/keys/alias%2Fapp/compromise", Value::Null),
        ("POST", "/v1/keys/alias%2Fapp/schedule-deletion", json!({})),
        ("PUT", "/v1/keys/alias%2Fapp/rotation", json!({ "period_seconds": 3_600 })),
        ("PUT", "/v1/keys/alias%2Fapp/tags", json!({ "tags": { "a": "b" } })),
        ("PUT", "/v1/aliases/alias%2Fnew", json!({ "key": key })),
        ("DELETE", "/v1/aliases/alias%2Fapp", Value::Null),
        ("POST", "/v1/keys/alias%2Fapp/versions/1/shadow-disable", Value::Null),
        ("POST", "/v1/sys/seal", Value::Null),
    ];
    for (method, path, body) in changes {
        let verdict = ask(&mut house, method, &format!("{path}?dry_run=true"), body);
        assert!(verdict["allowed"].is_boolean(), "{path}: {verdict}");
    }
    assert_eq!(house.everything(), before);
}
