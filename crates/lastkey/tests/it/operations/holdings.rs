//! Routes and commands of what depends on a key.

use serde_json::{Value, json};

use super::{Recorder, Shell};

fn report() -> Value {
    json!({ "what": "etcd-objects", "versions": [{ "version": 1, "count": 3 }] })
}

pub(super) fn routes(r: &mut Recorder) {
    let key = r.create(json!({}));
    let id = key.as_str();
    r.call("put /v1/keys/{key}/holdings/{place}", &[id, "prod"], report());
    let impact = r.call("get /v1/keys/{key}/impact", &[id], Value::Null);
    assert_eq!(
        (&impact["holdings"][0]["place"], &impact["holdings"][0]["count"]),
        (&json!("prod"), &json!(3))
    );
    let delete = "post /v1/keys/{key}/schedule-deletion";
    r.answer(delete, &[id], json!({})).refused(409, "KeyNeeded");
    let why = json!({ "reason": "the cluster is gone" });
    r.call("delete /v1/keys/{key}/holdings/{place}", &[id, "prod"], why);
    let impact = r.call("get /v1/keys/{key}/impact", &[id], Value::Null);
    assert_eq!(impact["holdings"], json!([]));
}

pub(super) fn commands(s: &mut Shell) {
    let key = s.server.create("{}");
    let target = format!("/v1/keys/{key}/holdings/prod");
    s.server.admin().done("PUT", &target, &report().to_string());
    assert_eq!(s.json(&format!("key impact {key}"))["holdings"][0]["count"], 3);
    s.ok(&format!("key forget-holding {key} prod --reason gone"));
    assert_eq!(s.json(&format!("key impact {key}"))["holdings"], json!([]));
}
