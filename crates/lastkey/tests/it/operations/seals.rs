//! Routes and commands of seals.

use std::fs;

use serde_json::{Value, json};

use super::{Recorder, Shell};
use crate::world::{PASSPHRASE, text};

const CHEAP: &str = "--argon2-memory 1 --argon2-passes 1";

/// The id of the newest seal.
#[track_caller]
fn newest(reply: &Value) -> String {
    text(&reply["seals"].as_array().unwrap().last().unwrap()["id"])
}

pub(super) fn routes(r: &mut Recorder) {
    let seal = |passphrase: &str| json!({ "passphrase": { "passphrase": passphrase, "memory_kib": 1_024, "passes": 1 } });
    let one = r.call("get /v1/sys/seals", &[], Value::Null);
    assert_eq!(one["weaknesses"][0]["code"], "single-seal");
    let two = r.call("post /v1/sys/seals", &[], seal("the second passphrase"));
    let second = newest(&two);
    let changed = r.call("put /v1/sys/seals/{seal}", &[&second], seal("the third passphrase"));
    let third = newest(&changed);
    r.call("post /v1/sys/seals/rotate", &[], json!({}));
    let drill = json!({ "passphrase": PASSPHRASE });
    assert_eq!(r.call("post /v1/sys/seals/drill", &[], drill)["seals"][0]["health"], "proven");
    let left = r.call("delete /v1/sys/seals/{seal}", &[&third], Value::Null);
    assert_eq!(left["seals"].as_array().unwrap().len(), 1);
    let accepted = r.call("post /v1/sys/seals/accept-weakness", &[], Value::Null);
    assert!(accepted["accepted"]["by"].is_string(), "{accepted}");
}

pub(super) fn commands(s: &mut Shell) {
    for name in ["second", "third"] {
        fs::write(s.folder.path().join(name), format!("the {name} passphrase\n")).unwrap();
    }
    assert_eq!(s.run("seal check", b"").code, Some(1));
    let second = newest(&s.json(&format!("seal add passphrase --passphrase-file second {CHEAP}")));
    let change = format!("seal change-passphrase {second} --passphrase-file third {CHEAP}");
    let third = newest(&s.json(&change));
    s.ok("seal rotate");
    s.ok("seal drill --passphrase-file third");
    s.json("seal add shamir --shares 2 --threshold 2 --out shares");
    let folder = s.folder.path().join("shares");
    let share = crate::process::names(&folder).into_iter().find(|name| name.contains("share-1"));
    s.ok(&format!("seal check-share shares/{} --list shares/shares.json", share.unwrap()));
    s.ok(&format!("seal remove {third}"));
    assert_eq!(s.json("seal list")["seals"].as_array().unwrap().len(), 2);
    // What each device does has tests of its own.
    s.run("seal add kms --client-config nowhere --key alias/none", b"").failed(1);
}
