//! Managed secrets: each route and command.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Recorder, Shell};
use crate::http::{base64, bytes};
use crate::world::text;

pub(super) fn routes(r: &mut Recorder) {
    let body =
        json!({ "value": base64(b"one"), "tags": { "team": "shop" }, "expected_version": 0 });
    let put = r.call("put /v1/secrets/{secret}", &["prod/shop/db"], body.clone());
    assert_eq!((&put["newest_version"], &put["stages"]), (&json!(1), &json!({ "current": 1 })));
    r.answer("put /v1/secrets/{secret}", &["prod/shop/db"], body).refused(409, "Conflict");
    let body = json!({ "fields": { "user": base64(b"app"), "password": base64(b"two") } });
    r.call("put /v1/secrets/{secret}", &["prod/shop/db"], body);
    let value = "get /v1/secrets/{secret}/value";
    let read = r.call(value, &["prod/shop/db"], Value::Null);
    assert_eq!((&read["version"], &read["fields"]["user"]), (&json!(2), &json!(base64(b"app"))));
    let read = r.call(value, &["prod/shop/db", "stage=previous"], Value::Null);
    assert_eq!((&read["version"], &read["value"]), (&json!(1), &json!(base64(b"one"))));
    let listed = r.call("get /v1/secrets", &[], Value::Null);
    assert_eq!((&listed["secrets"], &listed["paths"]), (&json!([]), &json!(["prod/"])));
    let answer = r.answer(value, &["prod/shop/db", "version=9"], Value::Null);
    answer.refused(409, "SecretState");
    let versions = r.call("get /v1/secrets/{secret}/versions", &["prod/shop/db"], Value::Null);
    assert_eq!(versions["versions"][1]["has_fields"], true, "{versions}");
    let consumers = r.call("get /v1/secrets/{secret}/consumers", &["prod/shop/db"], Value::Null);
    assert_eq!(consumers["consumers"], json!([]));
    let stage = "/v1/secrets/{secret}/stages/{stage}";
    let body = json!({ "version": 1 });
    let placed = r.call(&format!("put {stage}"), &["prod/shop/db", "mine"], body);
    assert_eq!(placed["stages"]["mine"], 1);
    r.call(&format!("delete {stage}"), &["prod/shop/db", "mine"], Value::Null);
    let patch = json!({ "description": "new", "remove_tags": ["team"], "tags": { "a": "b" } });
    let patched = r.call("patch /v1/secrets/{secret}", &["prod/shop/db"], patch);
    assert_eq!(patched["tags"], json!({ "a": "b" }));
    let route = "post /v1/secrets/{secret}/versions/{version}/destroy";
    r.call(route, &["prod/shop/db", "1"], Value::Null);
    r.answer(value, &["prod/shop/db", "version=1"], Value::Null).refused(409, "SecretState");
    r.call("post /v1/secrets/{secret}/copy", &["prod/shop/db"], json!({ "to": "copy" }));
    r.call("post /v1/secrets/{secret}/move", &["copy"], json!({ "to": "moved" }));
    let moved = r.call(value, &["moved"], Value::Null);
    assert_eq!(moved["fields"]["password"], base64(b"two"));
    let gone = r.call("delete /v1/secrets/{secret}", &["moved"], json!({ "window_days": 7 }));
    assert!(gone["destroyed_at"].is_string(), "{gone}");
    r.answer(value, &["moved"], Value::Null).refused(409, "SecretState");
    r.call("post /v1/secrets/{secret}/restore", &["moved"], Value::Null);
    r.call("post /v1/secrets/{secret}/destroy", &["moved"], Value::Null);
    r.answer("get /v1/secrets/{secret}", &["moved"], Value::Null).refused(403, "AccessDenied");
    rotation(r);
    watches(r);
    leaks(r);
    // Values are kept under a key of their own, with words of the caller's choice around them.
    let key = r.call("get /v1/keys/{key}", &["alias/lastkey/secrets"], Value::Null);
    assert_eq!(key["deletion_protection"], true);
    let body = json!({ "action": "secrets:GetSecret", "secret": "prod/shop/db" });
    assert!(r.call("post /v1/iam/who-can", &[], body)["may"].to_string().contains("admin"));
    let answer = r.answer("put /v1/secrets/{secret}", &["a/../b"], json!({ "value": "" }));
    answer.refused(400, "InvalidRequest");
    let long = json!({ "value": base64(&vec![7; 65_537]) });
    let answer = r.answer("put /v1/secrets/{secret}", &["long"], long);
    assert!(answer.text().contains("65536"), "{}", answer.text());
    answer.refused(400, "InvalidRequest");
}

fn rotation(r: &mut Recorder) {
    let (rotation, rotate) = ("/v1/secrets/{secret}/rotation", "post /v1/secrets/{secret}/rotate");
    r.call("put /v1/secrets/{secret}", &["turn"], json!({ "value": base64(b"one") }));
    r.answer(rotate, &["turn"], Value::Null).refused(409, "SecretState");
    let body = json!({ "generated": { "length": 40 }, "cron": "0 3 * * *", "window_seconds": 60 });
    let set = r.call(&format!("put {rotation}"), &["turn"], body);
    assert!(set["rotation"]["due_at"].is_string() && set["signing_key"].is_null(), "{set}");
    let turned = r.call(rotate, &["turn"], Value::Null);
    assert_eq!((&turned["last"]["version"], &turned["failures"]), (&json!(2), &json!(0)));
    let read = r.call("get /v1/secrets/{secret}/value", &["turn"], Value::Null);
    assert_eq!(bytes(&read["value"]).len(), 40);
    assert_eq!(r.call(&format!("get {rotation}"), &["turn"], Value::Null), turned);
    for bad in [
        json!({ "generated": {}, "webhook": { "url": "https://a" } }),
        json!({ "generated": { "length": 7 } }),
        json!({ "generated": {}, "cron": "0 0 30 2 *" }),
        json!({ "generated": {}, "period_seconds": 60 }),
        json!({ "generated": {}, "window_seconds": 60 }),
    ] {
        let answer = r.answer(&format!("put {rotation}"), &["turn"], bad);
        answer.refused(400, "InvalidRequest");
    }
    let body = json!({ "wait_for_consumers": true });
    let waits = r.call(rotate, &["turn"], body);
    assert_eq!((&waits["overlap"]["version"], &waits["last"]["version"]), (&json!(2), &json!(3)));
    assert_eq!(waits["overlap"]["waits_for_consumers"], true);
    r.call(&format!("delete {rotation}"), &["turn"], Value::Null);
    r.call("post /v1/secrets/{secret}/destroy", &["turn"], Value::Null);
    let (address, password) = ("postgresql:///shop?host=/nowhere", "x");
    let body = json!({ "address": address, "user": "root", "password": password });
    r.answer("put /v1/databases/{name}", &["shop"], body).refused(502, "OutsideFailed");
    assert_eq!(r.call("get /v1/databases", &[], Value::Null)["databases"], json!([]));
    for route in ["get /v1/databases/{name}", "delete /v1/databases/{name}"] {
        r.answer(route, &["shop"], Value::Null).refused(403, "AccessDenied");
    }
    for route in ["post /v1/databases/{name}/rotate-root", "post /v1/databases/{name}/mend"] {
        r.answer(route, &["shop"], Value::Null).refused(403, "AccessDenied");
    }
    let body = json!({ "database": "shop", "group": "shop_rw" });
    r.answer("put /v1/database-roles/{name}", &["app"], body).refused(403, "AccessDenied");
    assert_eq!(r.call("get /v1/database-roles", &[], Value::Null)["roles"], json!([]));
    for route in ["get", "delete"] {
        let route = format!("{route} /v1/database-roles/{{name}}");
        r.answer(&route, &["app"], Value::Null).refused(403, "AccessDenied");
    }
    let route = "post /v1/database-roles/{name}/credentials";
    r.answer(route, &["app"], Value::Null).refused(403, "AccessDenied");
    let lease = "0123456789abcdef0123456789abcdef";
    let leases = "/v1/database-roles/{name}/leases";
    assert_eq!(r.call(&format!("get {leases}"), &["app"], Value::Null)["leases"], json!([]));
    for route in [format!("post {leases}/{{lease}}/renew"), format!("delete {leases}/{{lease}}")] {
        r.answer(&route, &["app", lease], Value::Null).refused(403, "AccessDenied");
        r.answer(&route, &["app", "1"], Value::Null).refused(400, "InvalidRequest");
    }
}

/// What is claimed here is nobody's value; what is right is told by `scan_pack`.
fn leaks(r: &mut Recorder) {
    let route = "post /v1/confirm/leaks";
    let shown = r.call("get /v1/secrets/{secret}", &["prod/shop/db"], Value::Null);
    let claim = json!({ "id": shown["id"], "version": 2, "proof": base64(&[0; 32]) });
    let gone = json!({ "id": "0".repeat(32), "version": 2, "proof": base64(&[0; 32]) });
    let body = json!({ "proof_key": base64(&[7; 32]), "claims": [claim, gone] });
    let verdicts = r.call(route, &[], body);
    let told = json!([{ "verdict": "refuted" }, { "verdict": "untold" }]);
    assert_eq!(verdicts["verdicts"], told);
    let body = json!({ "proof_key": base64(&[7; 32]), "claims": [gone] });
    r.answer(route, &[], body).refused(403, "AccessDenied");
    for bad in [
        json!({ "proof_key": base64(&[7; 32]), "claims": [] }),
        json!({ "proof_key": base64(&[7; 31]), "claims": [claim] }),
        json!({ "proof_key": base64(&[7; 32]), "claims": [{ "id": "x", "version": 1, "proof": "" }] }),
    ] {
        r.answer(route, &[], bad).refused(400, "InvalidRequest");
    }
}

fn watches(r: &mut Recorder) {
    let known = json!([{ "name": "prod/shop/db", "version": 1 }, { "name": "none" }]);
    let news = r.call("post /v1/watch/secrets", &[], json!({ "secrets": known }));
    assert_eq!(news["changed"], json!([{ "name": "prod/shop/db", "version": 2 }]));
    let known = json!([{ "name": "prod/shop/db", "version": 2 }]);
    let news = r.call("post /v1/watch/secrets", &[], json!({ "secrets": known }));
    assert_eq!(news["changed"], json!([]));
    // Who holds what is said by the agents of nodes alone.
    let holder = json!({ "secret": "prod/shop/db", "version": 2, "namespace": "n", "pod": "p",
        "service_account": "s", "pod_uid": "u" });
    let body = json!({ "secrets": known, "holders_digest": "x", "holders": [holder] });
    r.answer("post /v1/watch/secrets", &[], body).refused(403, "AccessDenied");
}

pub(super) fn commands(s: &mut Shell) {
    let there = s.folder.path().to_owned();
    for (file, value) in [("first", "hunter2"), ("second", "hunter3")] {
        fs::write(there.join(file), value).unwrap();
    }
    s.ok("secret put prod/db --value-file first --tag team=shop --description main");
    s.ok("secret put prod/db --value-file second --expected-version 1");
    let stale = s.run("secret put prod/db --value-file second --expected-version 1", b"");
    assert!(stale.failed(1).contains("Conflict"), "{}", stale.stderr);
    assert_eq!(s.ok("secret get prod/db"), "hunter3");
    assert_eq!(s.ok("secret get prod/db --version 1"), "hunter2");
    assert_eq!(s.ok("secret get prod/db --stage previous"), "hunter2");
    let typed = s.run("secret put prod/api --field user=app --field-file pw=first", b"");
    assert!(typed.stderr.contains("warning") && !typed.stderr.contains("app"), "{}", typed.stderr);
    let object: Value = serde_json::from_str(&s.ok("secret get prod/api")).unwrap();
    assert_eq!(object, json!({ "user": "app", "pw": "hunter2" }));
    assert_eq!(s.ok("secret get prod/api --field pw"), "hunter2");
    let absent = s.run("secret get prod/api --field none", b"");
    let told = absent.failed(1);
    assert!(told.contains("pw, user") && !told.contains("hunter2"), "{told}");
    assert!(s.run("secret put prod/api --field a=1 --field a=2", b"").stderr.contains("twice"));
    s.ok("secret put prod/api --field-file pw=second --field-file token=first");
    let diff = s.ok("secret diff prod/api");
    assert!(
        diff.contains("changed") && diff.contains("removed") && diff.contains("added"),
        "{diff}"
    );
    assert!(!diff.contains("hunter"), "{diff}");
    assert!(s.ok("secret diff prod/api --from 1 --to 2 --show-values").contains("hunter3"));
    assert!(s.ok("secret list").contains("prod/"));
    assert!(s.ok("secret list prod --recursive --tag team=shop").contains("prod/db"));
    let found = s.json("secret list prod --recursive --name api --limit 1");
    assert_eq!(text(&found["secrets"][0]["name"]), "prod/api");
    assert!(s.ok("secret list prod --older-than 90d").contains("none"));
    assert!(s.ok("secret show prod/db").contains("team=shop"));
    assert!(s.ok("secret versions prod/db").contains("current"));
    assert!(s.ok("secret consumers prod/db").contains("listened to since"));
    assert_eq!(s.json("secret update prod/db --untag team --keep 5")["keep_versions"], 5);
    assert_eq!(s.json("secret stage prod/db current 1")["stages"]["previous"], 2);
    assert_eq!(s.ok("secret get prod/db"), "hunter2");
    s.ok("secret stage prod/db mine 2");
    assert!(!s.ok("secret unstage prod/db mine").contains("mine"));
    rotation_commands(s);
    s.ok("secret copy prod/db prod/copy");
    s.ok("secret move prod/copy test/copy");
    assert_eq!(s.ok("secret get test/copy"), "hunter2");
    s.ok("secret delete test/copy --window-days 7");
    assert!(s.run("secret get test/copy", b"").failed(1).contains("deleted"));
    assert!(s.ok("secret list --recursive --deleted").contains("test/copy"));
    s.ok("secret restore test/copy");
    assert!(s.run("secret destroy test/copy", b"").failed(2).contains("--yes"));
    s.ok("secret destroy prod/api --version 1 --yes");
    s.ok("secret destroy test/copy --yes");
    s.ok("secret put dry --value-file first --dry-run");
    assert_eq!(s.run("secret get dry", b"").code, Some(4));
    imports(s, &there);
    assert_eq!(s.ok("exec --secret prod/db -- printenv DB"), "hunter2");
    assert_eq!(s.run("exec --secret prod/db -- printenv LASTKEY_TOKEN", b"").code, Some(1));
    s.ok("can get-secret prod/db");
    s.ok("can list-secrets prod/");
    assert!(s.run("can get-secret prod/db --as user:eve", b"").code == Some(1));
}

fn rotation_commands(s: &mut Shell) {
    s.ok("secret put turn --value-file first");
    let told = s.run("secret rotate turn", b"").failed(1).to_owned();
    for words in ["has no rotation", "secret rotation set NAME", "secret put NAME"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let set = s.ok("secret rotation set turn --generate --length 40 --every 30d --overlap 1d");
    assert!(set.contains("generated: 40 characters") && set.contains("Due"), "{set}");
    let turned = s.ok("secret rotate turn");
    assert!(turned.contains("version 2") && turned.contains("Still counts"), "{turned}");
    assert_eq!(s.ok("secret get turn").len(), 40);
    assert!(s.run("secret rotate turn", b"").failed(1).contains("--end-overlap"));
    s.ok("secret rotate turn --end-overlap");
    assert!(s.run("secret get turn --version 1", b"").failed(1).contains("destroyed"));
    assert!(s.ok("secret rotation show turn").contains("version 3"));
    let hook = s.run("secret rotation set turn --webhook https://rotate.example/turn", b"");
    assert!(hook.failed(1).contains("connect.allow"), "{}", hook.stderr);
    s.ok("secret rotation remove turn");
    s.ok("secret destroy turn --yes");
    let add = "database add shop --address postgresql:///shop?host=/nowhere --user root";
    let refused = s.run(&format!("{add} --password-file first"), b"");
    assert!(refused.failed(1).contains("/nowhere"), "{}", refused.stderr);
    assert!(s.ok("database list").contains("none"));
    assert!(s.ok("database role list").contains("none"));
    assert!(s.ok("database lease list app").contains("none"));
    for line in [
        "show shop",
        "rotate-root shop",
        "mend shop",
        "remove shop --yes",
        "role create app --database shop --member-of shop_rw",
        "role show app",
        "role delete app",
        "creds app",
        "lease renew app 0123456789abcdef0123456789abcdef",
        "lease revoke app 0123456789abcdef0123456789abcdef",
    ] {
        assert_eq!(s.run(&format!("database {line}"), b"").code, Some(4), "{line}");
    }
}

fn imports(s: &mut Shell, there: &Path) {
    fs::write(there.join("shop.env"), "USER=app\nPASSWORD='hunter2'\n").unwrap();
    let manifest = "kind: Secret\ntype: Opaque\nmetadata: {name: tls, namespace: shop}\n\
                    data: {key: AP8=}\n";
    fs::write(there.join("secret.yaml"), manifest).unwrap();
    fs::write(there.join("aws.json"), r#"{"Name":"/a/raw","SecretString":"hunter2"}"#).unwrap();
    fs::write(there.join("kv.json"), r#"{"data":{"data":{"user":"v"},"metadata":{}}}"#).unwrap();
    fs::write(there.join("tree.json"), r#"{"x":{"y":{"k":"v"}}}"#).unwrap();
    let dry = s.ok("secret import --from dotenv shop.env --to env --dry-run");
    assert!(dry.contains("would be written") && !dry.contains("hunter2"), "{dry}");
    assert_eq!(s.run("secret get env/shop", b"").code, Some(4));
    let told = s.ok("secret import --from dotenv shop.env --to env");
    assert!(told.contains("env/shop") && told.contains("PASSWORD, USER"), "{told}");
    assert_eq!(s.ok("secret get env/shop --field PASSWORD"), "hunter2");
    let again = s.run("secret import --from dotenv shop.env --to env", b"");
    assert!(again.code == Some(1) && !again.stderr.contains("hunter2"), "{}", again.stderr);
    s.ok("secret import --from dotenv shop.env --to env --overwrite");
    s.ok("secret import --from kubernetes secret.yaml --to k8s/prod");
    assert_eq!(s.ok("secret get k8s/prod/shop/tls --field key --format hex"), "00ff");
    s.ok("secret update k8s/prod/shop/tls --tag kubernetes-type=Ours --tag team=shop");
    s.ok("secret import --from kubernetes secret.yaml --to k8s/prod --overwrite");
    let kept = s.json("secret show k8s/prod/shop/tls");
    assert_eq!(kept["newest_version"], 2);
    assert_eq!(kept["tags"], json!({ "kubernetes-type": "Ours", "team": "shop" }));
    s.ok("secret import --from aws aws.json");
    assert_eq!(s.ok("secret get a/raw"), "hunter2");
    s.ok("secret import --from vault-kv2 kv.json --name from-vault");
    assert_eq!(s.ok("secret get from-vault --field user"), "v");
    s.ok("secret import --from json tree.json --to tree");
    assert_eq!(s.ok("secret get tree/x/y --field k"), "v");
    // Nothing is written unless every file can be read.
    let broken = s.run("secret import --from json tree.json shop.env --to none", b"");
    assert!(broken.failed(1).contains("shop.env"), "{}", broken.stderr);
    assert!(s.ok("secret list none --recursive").contains("none"));
}
