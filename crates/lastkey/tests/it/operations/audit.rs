//! The audit log: each route and command.

use std::fs;

use serde_json::{Value, json};

use super::{Recorder, Shell};
use crate::world::{Server, text};

pub(super) fn audit(r: &mut Recorder, server: &Server) {
    let sealed = r.call("post /v1/random", &[], json!({ "bytes": 1 }));
    assert!(sealed["bytes"].is_string() || sealed.is_object());
    let found =
        r.call("get /v1/audit/records", &["limit=1&newest_first=true&action=kms:*"], Value::Null);
    let record = &found["records"][0];
    assert_eq!(
        (&record["record"]["action"], &record["record"]["who"]),
        (&json!("kms:GenerateRandom"), &json!("admin"))
    );
    let id = text(&record["record"]["request"]);
    let proven = r.call("get /v1/audit/records/{record}/receipt", &[&id], Value::Null);
    assert_eq!(proven["index"], record["index"]);
    assert!(text(&proven["receipt"]).starts_with("c2sp.org/tlog-proof@v1\nindex "));
    let signed = r.call("get /v1/audit/checkpoint", &[], Value::Null);
    assert!(text(&signed["public_key"]).starts_with("lastkey/"));
    assert!(signed["size"].as_u64().unwrap() > record["index"].as_u64().unwrap());
    let file = |name: &str| server.admin().answer("GET", &format!("/v1/audit/tlog/{name}"), "");
    let note = r.answer("get /v1/audit/tlog/{file}", &["checkpoint"], Value::Null);
    assert_eq!(
        (note.status, note.header("content-type")),
        (200, Some("text/plain; charset=utf-8"))
    );
    assert_eq!(file("tile/9/000").status, 404);
    assert_eq!(file("..%2F..%2Flock").status, 404);

    assert_eq!(r.call("get /v1/audit/witnesses", &[], Value::Null)["logs"], json!([]));
    let body = json!({ "key": signed["public_key"] });
    let added = r.call("post /v1/audit/witnesses", &[], body.clone());
    assert_eq!(added["logs"], json!([signed["public_key"]]));
    // The log's own checkpoint, as if of another: it is cosigned once it is accepted.
    let asked = r.answer("post /v1/audit/witness/add-checkpoint", &[], Value::Null);
    assert_eq!(asked.status, 400);
    assert_eq!(r.call("delete /v1/audit/witnesses", &[], body)["logs"], json!([]));
}

pub(super) fn audit_commands(s: &mut Shell) {
    let there = s.folder.path().to_owned();
    s.ok("random --bytes 1 --format hex");
    let line = s.ok("audit tail -n 1 --output json");
    let last: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(last["record"]["action"], "kms:GenerateRandom");
    let id = text(&last["record"]["request"]);
    assert_eq!(
        s.ok("audit search --action kms:GenerateRandom --limit 1 --since 1h").lines().count(),
        1
    );
    assert!(s.ok(&format!("audit search --request {id}")).contains("kms:GenerateRandom"));
    assert_eq!(s.ok("audit search --who nobody"), "");

    fs::write(there.join("log.pub"), s.ok("audit checkpoint --public-key")).unwrap();
    assert!(s.ok("audit checkpoint").starts_with("lastkey/"));
    s.ok(&format!("audit receipt {id} -o r"));
    assert!(s.ok(&format!("audit receipt {} --tlog-proof", last["index"])).contains("tlog-proof"));
    assert_eq!(s.json("audit verify --receipt r --public-key log.pub")["valid"], true);
    let forged = fs::read_to_string(there.join("r")).unwrap().replace("GenerateRandom", "Decrypt");
    fs::write(there.join("forged"), forged).unwrap();
    assert_eq!(s.run("audit verify --receipt forged --public-key log.pub", b"").code, Some(5));

    let online = s.json("audit verify --public-key log.pub");
    let offline = s.json("audit verify --offline data/audit --public-key log.pub");
    assert_eq!((&online["valid"], &offline["valid"]), (&json!(true), &json!(true)));
    assert!(offline["size"].as_u64() >= online["size"].as_u64());

    for form in ["jsonl", "otlp", "syslog", "ocsf"] {
        let all = s.ok(&format!("audit export --format {form} --action kms:GenerateRandom"));
        assert!(all.contains("kms:GenerateRandom"), "{all}");
    }
    let count = s.ok("audit export --format jsonl --cursor c").lines().count();
    let again = s.ok("audit export --format jsonl --cursor c").lines().count();
    assert!(count > 10 && again < 5, "{count} {again}");

    let key = s.ok("audit checkpoint --witness-key");
    s.ok(&format!("audit witness add {key} --url https://127.0.0.1:1/w"));
    assert!(s.ok("audit witness list").contains("https://127.0.0.1:1/w"));
    s.ok(&format!("audit witness remove {key}"));
    assert_eq!(s.ok("audit witness list"), "none");
}
