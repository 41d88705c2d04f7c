//! Routes and commands of backups.

use serde_json::{Value, json};

use super::{Recorder, Shell};
use crate::world::text;

pub(super) fn routes(r: &mut Recorder) {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    let begun = r.call("post /v1/sys/backups", &[], json!({ "directory": directory }));
    let id = text(&begun["id"]);
    let ended = loop {
        let seen = r.call("get /v1/sys/backups/{backup}", &[&id], Value::Null);
        if !["writing", "proving"].contains(&seen["state"].as_str().unwrap()) {
            break seen;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(ended["state"], "proven", "{ended}");
    let list = r.call("get /v1/sys/backups", &[], Value::Null);
    assert_eq!(text(&list["backups"][0]["id"]), id);
    r.call("delete /v1/sys/backups/{backup}", &[&id], Value::Null);
    let left = std::fs::read_dir(directory).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.ends_with(".backup")));
}

pub(super) fn commands(s: &mut Shell) {
    std::fs::create_dir(s.folder.path().join("backups")).unwrap();
    let made = s.json("backup create --to backups");
    assert_eq!(made["state"], "proven", "{made}");
    let id = text(&made["id"]);
    assert_eq!(s.json("backup list")["backups"][0]["id"], made["id"]);
    assert_eq!(s.json(&format!("backup show {id}"))["name"], made["name"]);
    let by = "--passphrase-file passphrase";
    assert_eq!(s.json(&format!("backup verify backups {by}"))["backups"][0]["valid"], true);
    let restored = s.json(&format!("restore --from backups --data new {by}"));
    assert_eq!(restored["records"], made["records"]);
    s.ok(&format!("backup remove {id}"));
}
