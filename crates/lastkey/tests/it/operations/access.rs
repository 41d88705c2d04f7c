//! Who may come in, and as what: each route and command.

use std::fs;

use serde_json::{Value, json};

use super::{Recorder, Shell};
use crate::issuer::{ISSUER, Issuer};
use crate::world::text;

pub(super) fn access(r: &mut Recorder) {
    let issuer = Issuer::new();
    let cluster = json!({ "issuers": [ISSUER], "audiences": ["here"], "jwks": issuer.jwks() });
    let set = r.call("put /v1/sys/clusters/{name}", &["prod"], cluster);
    assert_eq!(set["key_ids"], json!(["k1"]));
    assert_eq!(r.call("get /v1/sys/clusters/{name}", &["prod"], Value::Null), set);
    assert_eq!(r.call("get /v1/sys/clusters", &[], Value::Null)["clusters"], json!([set]));
    let provider =
        json!({ "issuer": "https://ci.example", "audiences": ["here"], "jwks": issuer.jwks() });
    let set = r.call("put /v1/iam/providers/{name}", &["ci"], provider);
    assert_eq!(r.call("get /v1/iam/providers/{name}", &["ci"], Value::Null), set);
    assert_eq!(r.call("get /v1/iam/providers", &[], Value::Null)["providers"], json!([set]));
    let policy = "permit (principal, action == Action::\"kms:GenerateRandom\", resource);";
    let where_to = r.call("post /v1/sts/provider", &[], json!({ "provider": "ci" }));
    assert_eq!(
        (&where_to["issuer"], &where_to["client_id"]),
        (&json!("https://ci.example"), &json!("here"))
    );
    r.call("delete /v1/iam/providers/{name}", &["ci"], Value::Null);
    let role = json!({ "cluster": "prod", "namespaces": ["shop"], "service_accounts": ["*"],
        "policy": policy });
    let set = r.call("put /v1/iam/roles/{name}", &["shop"], role);
    assert_eq!(r.call("get /v1/iam/roles/{name}", &["shop"], Value::Null), set);
    assert_eq!(r.call("get /v1/iam/roles", &[], Value::Null)["roles"], json!([set]));
    let text = "forbid (principal == User::\"eve\", action, resource);";
    let set = r.call("put /v1/iam/policies/{name}", &["base"], json!({ "text": text }));
    assert_eq!((&set["version"], &set["changed_by"]), (&json!(1), &json!("admin")));
    assert_eq!(r.call("get /v1/iam/policies/{name}", &["base"], Value::Null), set);
    assert_eq!(r.call("get /v1/iam/policies", &[], Value::Null)["policies"], json!([set]));
    let before = r.call("get /v1/iam/policies/{name}/versions", &["base"], Value::Null);
    assert_eq!(before["policies"], json!([]));
    questions(r);
    sessions(r, &issuer);
    nodes(r);
    r.call("delete /v1/iam/policies/{name}", &["base"], Value::Null);
    r.call("delete /v1/iam/roles/{name}", &["shop"], Value::Null);
    r.call("delete /v1/sys/clusters/{name}", &["prod"], Value::Null);
}

fn questions(r: &mut Recorder) {
    let body = json!({ "principal": "k8s:prod/shop/api", "role": "shop",
        "action": "kms:GenerateRandom" });
    assert_eq!(r.call("post /v1/iam/can", &[], body)["allowed"], true);
    let who = r.call("post /v1/iam/who-can", &[], json!({ "action": "kms:GenerateRandom" }));
    assert!(who["may"].to_string().contains("role.shop"), "{who}");
    assert!(who["may_not"].to_string().contains("base"), "{who}");
    let body = json!({ "policy": "none", "text": "permit (principal, action, resource);" });
    let replayed = r.call("post /v1/iam/replay", &[], body);
    assert_eq!((&replayed["would_refuse"], &replayed["cut"]), (&json!(0), &json!(false)));
    assert_eq!(r.call("get /v1/sts/whoami", &[], Value::Null)["principal"], "admin");
}

fn sessions(r: &mut Recorder, issuer: &Issuer) {
    let body = json!({ "subject_token": issuer.pod_token("here", "shop", "api"), "role": "shop" });
    let session = r.call("post /v1/sts/token", &[], body);
    assert_eq!(session["principal"], "k8s:prod/shop/api");
    let burned = r.call("post /v1/sts/burn", &[], json!({ "token": session["access_token"] }));
    assert_eq!(burned["burned"], true);
    let revoked = r.call("post /v1/sts/revoke", &[], json!({ "kind": "role", "value": "shop" }));
    let all = r.call("get /v1/sts/revocations", &[], Value::Null)["revocations"].clone();
    assert!(all.as_array().unwrap().contains(&revoked), "{all}");
}

fn nodes(r: &mut Recorder) {
    let invited = r.call("put /v1/sys/nodes/{name}", &["n1"], json!({ "cluster": "prod" }));
    assert_eq!(
        (&invited["node"]["may_join"], &invited["expires_in"]),
        (&json!(true), &json!(3_600))
    );
    let request = rcgen::CertificateParams::default();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = request.serialize_request(&key).unwrap().pem().unwrap();
    let body = json!({ "name": "n1", "token": invited["join_token"], "csr": csr });
    let challenge = r.call("post /v1/nodes/challenge", &[], json!({ "name": "n1" }));
    assert_eq!(challenge["expires_in"], 120);
    let joined = r.call("post /v1/nodes/join", &[], body.clone());
    assert!(text(&joined["certificate"]).starts_with("-----BEGIN CERTIFICATE-----"), "{joined}");
    r.answer("post /v1/nodes/join", &[], body).refused(401, "Unauthenticated");
    let shown = r.call("get /v1/sys/nodes/{name}", &["n1"], Value::Null);
    assert_eq!((&shown["may_join"], &shown["expires_at"]), (&json!(false), &joined["expires_at"]));
    assert_eq!(r.call("get /v1/sys/nodes", &[], Value::Null)["nodes"], json!([shown]));
    let rotated = r.call("post /v1/sys/node-authority/rotate", &[], Value::Null);
    assert_ne!(rotated["authority"], rotated["previous"]);
    // There is no certificate on this connection; tests of nodes and workloads have one.
    let opening = r.answer("post /v1/sts/certificate", &[], json!({ "role": "shop" }));
    opening.refused(401, "Unauthenticated");
    let renewal = r.answer("post /v1/nodes/renew", &[], json!({ "csr": csr }));
    renewal.refused(401, "Unauthenticated");
    r.call("delete /v1/sys/nodes/{name}", &["n1"], Value::Null);
}

pub(super) fn access_commands(s: &mut Shell) {
    let issuer = Issuer::new();
    let there = s.folder.path().to_owned();
    fs::write(there.join("jwks"), issuer.jwks()).unwrap();
    fs::write(there.join("token"), issuer.pod_token("here", "shop", "api")).unwrap();
    fs::write(there.join("unbound"), issuer.token_without_pod("here", "shop", "api")).unwrap();
    fs::write(there.join("any"), "permit (principal == User::\"a\", action, resource);").unwrap();
    fs::write(there.join("random"), RANDOM).unwrap();
    s.ok(&format!("cluster add prod --issuer {ISSUER} --audience here --jwks jwks"));
    assert!(s.ok("cluster list").contains("prod") && s.ok("cluster show prod").contains("k1"));
    s.ok("provider add ci --issuer https://ci.example --audience here --jwks jwks");
    assert!(s.ok("provider list").contains("ci"));
    assert!(s.ok("provider show ci").contains("https://ci.example"));
    s.ok("provider remove ci");
    s.ok("role create r --cluster prod --namespace shop --service-account api --policy random");
    assert!(s.ok("role list").contains("api") && s.ok("role show r").contains("permit"));
    s.ok("policy put p any");
    assert!(s.ok("policy list").contains('p') && s.ok("policy show p").contains("permit"));
    s.ok("policy put p random");
    assert_eq!(s.json("policy versions p")["policies"][0]["version"], 1);
    assert!(s.ok("policy test p any --days 1").contains("would have been refused"));
    s.ok("policy delete p");
    let refused = s.run("login --jwt-file unbound --role r", b"").stderr;
    assert!(refused.contains("--allow-without-pod"), "{refused}");
    let session = s.json("login --jwt-file token --role r --duration 5m");
    assert_eq!(session["expires_in"], 300);
    fs::write(there.join("session"), text(&session["access_token"])).unwrap();
    let me = s.json("whoami --token-file session");
    assert_eq!((&me["principal"], &me["role"]), (&json!("k8s:prod/shop/api"), &json!("r")));
    s.ok("can generate-random --token-file session");
    assert!(
        s.run("can decrypt --token-file session", b"").text().contains("name the key or secret")
    );
    assert!(s.ok("who-can generate-random").contains("role.r"));
    let denied = s.run("key list --token-file session --output json", b"").stderr;
    let denied: Value = serde_json::from_str(&denied).unwrap();
    let told = s.ok(&format!("explain {}", text(&denied["error"]["request_id"])));
    assert!(told.contains("kms:ListKeys") && told.contains("no policy allows it"), "{told}");
    s.ok("burn session");
    assert_eq!(s.run("whoami --token-file session", b"").code, Some(4));
    s.ok("revoke --all");
    assert!(s.ok("revocations").contains("everything"));
    let invited = s.json("node add n1 --cluster prod");
    fs::write(there.join("join"), text(&invited["join_token"])).unwrap();
    assert!(s.ok("node join n1 --token-file join --out n1").contains("/node/n1"));
    assert!(s.ok("node list").contains("n1") && s.ok("node show n1").contains("prod"));
    // Here is no TLS to show the certificate by.
    assert!(s.run("node renew --dir n1", b"").stderr.contains("https://"));
    assert!(s.ok("node authority rotate").contains("Which counts until"));
    assert!(s.run("login --certificate --role r", b"").stderr.contains("credential"));
    s.ok("node remove n1");
    s.ok("role delete r");
    s.ok("cluster remove prod");
}

const RANDOM: &str = r#"permit (principal, action == Action::"kms:GenerateRandom", resource);"#;
