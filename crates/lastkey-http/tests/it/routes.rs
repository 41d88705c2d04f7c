//! Each protected route: closed without a token, closed to a stranger, open to the administrator.
//! The list of routes comes from the server's own document, the bodies from the table below.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Client;
use crate::world::{STRANGER, World};

/// A good body for each route that needs one, or nothing. KEY, BLOB, SIGNER, MAC and ALIAS stand
/// for what the test made before.
const BODIES: &[(&str, &str)] = &[
    ("post /v1/encrypt", r#"{"key":"KEY","plaintext":"Zm9v"}"#),
    ("post /v1/decrypt", r#"{"ciphertext":"BLOB"}"#),
    ("post /v1/data-key", r#"{"key":"KEY"}"#),
    ("post /v1/data-key-without-plaintext", r#"{"key":"KEY","bytes":5}"#),
    ("post /v1/data-key-pair", r#"{"key":"KEY","pair_spec":"ED25519"}"#),
    ("post /v1/reencrypt", r#"{"ciphertext":"BLOB","to_key":"KEY"}"#),
    ("post /v1/random", r#"{"bytes":16}"#),
    ("post /v1/sign", r#"{"key":"SIGNER","message":"Zm9v"}"#),
    ("post /v1/verify", r#"{"key":"SIGNER","message":"Zm9v","signature":"Zm9v"}"#),
    ("post /v1/mac", r#"{"key":"MAC","message":"Zm9v"}"#),
    ("post /v1/verify-mac", r#"{"key":"MAC","message":"Zm9v","mac":"Zm9v"}"#),
    ("post /v1/batch/encrypt", r#"{"items":[{"key":"KEY","plaintext":"Zm9v"}]}"#),
    ("post /v1/batch/decrypt", r#"{"items":[{"ciphertext":"BLOB"}]}"#),
    ("post /v1/batch/reencrypt", r#"{"items":[{"ciphertext":"BLOB","to_key":"KEY"}]}"#),
    ("post /v1/batch/data-key", r#"{"items":[{"key":"KEY"}]}"#),
    ("post /v1/batch/data-key-without-plaintext", r#"{"items":[{"key":"KEY"}]}"#),
    ("post /v1/keys", "{}"),
    ("get /v1/keys", ""),
    ("get /v1/keys/{key}", ""),
    ("patch /v1/keys/{key}", r#"{"description":"new"}"#),
    ("post /v1/keys/{key}/rotate", ""),
    ("get /v1/keys/{key}/rotation", ""),
    ("put /v1/keys/{key}/rotation", r#"{"period_seconds":86400}"#),
    ("delete /v1/keys/{key}/rotation", ""),
    ("post /v1/keys/{key}/enable", ""),
    ("post /v1/keys/{key}/disable", ""),
    ("post /v1/keys/{key}/deactivate", ""),
    ("post /v1/keys/{key}/compromise", ""),
    ("post /v1/keys/{key}/schedule-deletion", r#"{"window_days":7}"#),
    ("post /v1/keys/{key}/cancel-deletion", ""),
    ("get /v1/keys/{key}/versions", ""),
    ("get /v1/keys/{key}/versions/{version}", ""),
    ("post /v1/keys/{key}/versions/{version}/make-primary", ""),
    ("post /v1/keys/{key}/versions/{version}/shadow-disable", ""),
    ("post /v1/keys/{key}/versions/{version}/enable", ""),
    ("post /v1/keys/{key}/versions/{version}/compromise", ""),
    ("post /v1/keys/{key}/versions/{version}/destroy", ""),
    ("get /v1/keys/{key}/impact", ""),
    (
        "put /v1/keys/{key}/holdings/{place}",
        r#"{"what":"volumes","versions":[{"version":1,"count":1}],"things":[{"name":"v","version":1}]}"#,
    ),
    ("delete /v1/keys/{key}/holdings/{place}", r#"{"reason":"the cluster is gone"}"#),
    ("get /v1/keys/{key}/public-key", ""),
    ("post /v1/keys/{key}/import-parameters", r#"{"algorithm":"RSAES_OAEP_SHA_256"}"#),
    ("post /v1/keys/{key}/import", r#"{"token":"x","wrapped_material":""}"#),
    ("put /v1/keys/{key}/tags", r#"{"tags":{"a":"b"}}"#),
    ("delete /v1/keys/{key}/tags", r#"{"names":["a"]}"#),
    ("get /v1/aliases", ""),
    ("put /v1/aliases/{alias}", r#"{"key":"KEY"}"#),
    ("delete /v1/aliases/{alias}", ""),
    ("get /v1/secrets", ""),
    ("get /v1/secrets/{secret}", ""),
    ("put /v1/secrets/{secret}", r#"{"value":"Zm9v"}"#),
    ("patch /v1/secrets/{secret}", r#"{"description":"new"}"#),
    ("delete /v1/secrets/{secret}", r#"{"window_days":7}"#),
    ("get /v1/secrets/{secret}/value", ""),
    ("get /v1/secrets/{secret}/versions", ""),
    ("get /v1/secrets/{secret}/consumers", ""),
    ("post /v1/secrets/{secret}/versions/{version}/destroy", ""),
    ("put /v1/secrets/{secret}/stages/{stage}", r#"{"version":1}"#),
    ("delete /v1/secrets/{secret}/stages/{stage}", ""),
    ("post /v1/secrets/{secret}/restore", ""),
    ("post /v1/secrets/{secret}/destroy", ""),
    ("post /v1/secrets/{secret}/copy", r#"{"to":"there"}"#),
    ("post /v1/secrets/{secret}/move", r#"{"to":"there"}"#),
    ("put /v1/secrets/{secret}/rotation", r#"{"generated":{}}"#),
    ("get /v1/secrets/{secret}/rotation", ""),
    ("post /v1/secrets/{secret}/rotate", ""),
    ("delete /v1/secrets/{secret}/rotation", ""),
    ("get /v1/databases", ""),
    ("get /v1/databases/{name}", ""),
    (
        "put /v1/databases/{name}",
        r#"{"address":"postgresql://db/a","user":"root","password":"x","keep_password":true}"#,
    ),
    ("post /v1/databases/{name}/rotate-root", ""),
    ("delete /v1/databases/{name}", ""),
    ("post /v1/databases/{name}/mend", ""),
    ("get /v1/database-roles", ""),
    ("get /v1/database-roles/{name}", ""),
    ("put /v1/database-roles/{name}", r#"{"database":"here","group":"shop_rw"}"#),
    ("delete /v1/database-roles/{name}", ""),
    ("post /v1/database-roles/{name}/credentials", ""),
    ("get /v1/database-roles/{name}/leases", ""),
    ("post /v1/database-roles/{name}/leases/{lease}/renew", ""),
    ("delete /v1/database-roles/{name}/leases/{lease}", ""),
    ("post /v1/watch/secrets", r#"{"secrets":[{"name":"in/here","version":1}]}"#),
    (
        "post /v1/confirm/leaks",
        r#"{"proof_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","claims":[{"id":"SECRETID","version":1,"proof":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}"#,
    ),
    ("post /v1/sys/seal", ""),
    ("post /v1/sys/clock/confirm", ""),
    ("get /v1/sys/seals", ""),
    (
        "post /v1/sys/seals",
        r#"{"passphrase":{"passphrase":"a second passphrase","memory_kib":1024,"passes":1}}"#,
    ),
    ("put /v1/sys/seals/{seal}", r#"{"device":{"kind":"tpm2","settings":{}}}"#),
    ("delete /v1/sys/seals/{seal}", ""),
    ("post /v1/sys/seals/rotate", r#"{"keyring":true}"#),
    ("post /v1/sys/seals/drill", ""),
    ("post /v1/sys/seals/accept-weakness", ""),
    ("get /v1/sys/backups", ""),
    ("post /v1/sys/backups", r#"{"directory":"/backups"}"#),
    ("get /v1/sys/backups/{backup}", ""),
    ("delete /v1/sys/backups/{backup}", "{}"),
    ("get /v1/sys/clusters", ""),
    ("get /v1/sys/clusters/{name}", ""),
    ("put /v1/sys/clusters/{name}", r#"{"issuers":["https://k"],"jwks":"JWKS"}"#),
    ("delete /v1/sys/clusters/{name}", ""),
    ("get /v1/sys/nodes", ""),
    ("get /v1/sys/nodes/{name}", ""),
    ("put /v1/sys/nodes/{name}", r#"{"cluster":"here"}"#),
    ("delete /v1/sys/nodes/{name}", ""),
    ("post /v1/sys/node-authority/rotate", ""),
    ("get /v1/iam/providers", ""),
    ("get /v1/iam/providers/{name}", ""),
    ("put /v1/iam/providers/{name}", r#"{"issuer":"https://p","audiences":["a"],"jwks":"JWKS"}"#),
    ("delete /v1/iam/providers/{name}", ""),
    ("get /v1/iam/roles", ""),
    ("get /v1/iam/roles/{name}", ""),
    (
        "put /v1/iam/roles/{name}",
        r#"{"cluster":"here","namespaces":["a"],"service_accounts":["b"],"policy":""}"#,
    ),
    ("delete /v1/iam/roles/{name}", ""),
    ("get /v1/iam/policies", ""),
    ("get /v1/iam/policies/{name}", ""),
    ("get /v1/iam/policies/{name}/versions", ""),
    (
        "put /v1/iam/policies/{name}",
        r#"{"text":"permit(principal == User::\"a\",action,resource);"}"#,
    ),
    ("delete /v1/iam/policies/{name}", ""),
    ("get /v1/iam/users", ""),
    ("post /v1/iam/users", r#"{"name":"new","groups":["a"]}"#),
    ("get /v1/iam/users/{name}", ""),
    ("patch /v1/iam/users/{name}", r#"{"disabled":true}"#),
    ("delete /v1/iam/users/{name}", ""),
    ("post /v1/iam/users/{name}/enrolment", ""),
    ("post /v1/iam/can", r#"{"principal":"user:a","action":"kms:Decrypt","key":"KEY"}"#),
    ("post /v1/iam/who-can", r#"{"action":"kms:Decrypt","key":"KEY"}"#),
    ("post /v1/iam/replay", r#"{"policy":"p","text":"permit (principal, action, resource);"}"#),
    ("get /v1/sts/whoami", ""),
    ("post /v1/sts/revoke", r#"{"kind":"role","value":"here"}"#),
    ("get /v1/sts/revocations", ""),
    ("get /v1/audit/records", ""),
    ("get /v1/audit/records/{record}/receipt", ""),
    ("get /v1/audit/checkpoint", ""),
    ("get /v1/audit/tlog/{file}", ""),
    ("get /v1/audit/witnesses", ""),
    ("post /v1/audit/witnesses", r#"{"key":"LOGKEY"}"#),
    ("delete /v1/audit/witnesses", r#"{"key":"LOGKEY"}"#),
];

/// Routes that tell everybody about himself.
const OWN: &[&str] = &["get /v1/sts/whoami"];

/// A key set of one Ed25519 key (RFC 8037, appendix A.2), quoted.
const JWKS: &str = r#"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"#;

/// The example key of C2SP signed-note.
const LOG_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// What routes are called with.
struct Things {
    secret_id: String,
    key: String,
    blob: String,
    signer: String,
    mac: String,
}

impl Things {
    async fn make(admin: &mut Client) -> Self {
        let mut create = async |body: &str| {
            let made = admin.done("POST", "/v1/keys", body).await;
            made["id"].as_str().unwrap().to_owned()
        };
        let key = create(r#"{"alias":"alias/here"}"#).await;
        let signer = create(r#"{"spec":"ED25519"}"#).await;
        let mac = create(r#"{"spec":"HMAC_256"}"#).await;
        admin.done("POST", &format!("/v1/keys/{key}/rotate"), "").await;
        let body = json!({ "key": key, "plaintext": "Zm9v" }).to_string();
        let sealed = admin.done("POST", "/v1/encrypt", &body).await;
        let cluster = format!(r#"{{"issuers":["https://k"],"jwks":"{JWKS}"}}"#);
        admin.done("PUT", "/v1/sys/clusters/here", &cluster).await;
        admin.done("POST", "/v1/iam/users", r#"{"name":"here"}"#).await;
        for value in ["Zm9v", "YmFy"] {
            let body = json!({ "value": value }).to_string();
            admin.done("PUT", "/v1/secrets/in%2Fhere", &body).await;
        }
        let secret = admin.done("GET", "/v1/secrets/in%2Fhere", "").await;
        let secret_id = secret["id"].as_str().unwrap().to_owned();
        Self {
            secret_id,
            key,
            blob: sealed["ciphertext"].as_str().unwrap().to_owned(),
            signer,
            mac,
        }
    }

    fn body(&self, template: &str) -> String {
        let filled = template.replace("LOGKEY", LOG_KEY).replace("KEY", &self.key);
        let filled = filled.replace("BLOB", &self.blob).replace("JWKS", JWKS);
        let filled = filled.replace("SECRETID", &self.secret_id);
        filled.replace("SIGNER", &self.signer).replace("MAC\"", &format!("{}\"", self.mac))
    }

    fn path(&self, pattern: &str) -> String {
        let path = pattern.replace("{key}", &self.key).replace("{version}", "1");
        let path = path.replace("{secret}", "in%2Fhere").replace("{stage}", "mine");
        let path = path.replace("{seal}", "00000000000000000000000000000001");
        let path = path.replace("{backup}", "00000000000000000000000000000001");
        let path = path.replace("{record}", "0").replace("{file}", "checkpoint");
        let path = path.replace("{place}", "prod").replace("{lease}", &"0".repeat(32));
        path.replace("{alias}", "alias%2Fhere").replace("{name}", "here")
    }
}

/// Method and pattern of each protected route, as the server tells them.
async fn protected(client: &mut Client) -> Vec<String> {
    let document = client.done("GET", "/v1/openapi.json", "").await;
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] != json!([]) {
                routes.push(format!("{method} {path}"));
            }
        }
    }
    routes
}

fn table() -> BTreeMap<String, &'static str> {
    BODIES.iter().map(|(route, body)| ((*route).to_owned(), *body)).collect()
}

#[tokio::test]
async fn every_protected_route_is_in_the_table_of_this_test() {
    let world = World::start().await;
    let mut routes = protected(&mut world.anybody().await).await;
    routes.sort_unstable();
    assert_eq!(routes, table().into_keys().collect::<Vec<_>>());
    assert_eq!(routes.len(), BODIES.len());
}

#[tokio::test]
async fn every_protected_route_is_closed_without_a_valid_token() {
    let world = World::start().await;
    let things = Things::make(&mut world.admin().await).await;
    for (route, body) in BODIES {
        let (method, pattern) = route.split_once(' ').unwrap();
        for token in [None, Some("wrong"), Some("")] {
            let mut client = world.anybody().await;
            if let Some(token) = token {
                client = client.with_token(token);
            }
            let (path, body) = (things.path(pattern), things.body(body));
            let answer = client.send(&method.to_uppercase(), &path, &body).await;
            answer.error(401, "Unauthenticated");
        }
    }
}

#[tokio::test]
async fn every_protected_route_is_closed_to_a_stranger() {
    let world = World::start().await;
    let things = Things::make(&mut world.admin().await).await;
    let mut stranger = world.anybody().await.with_token(STRANGER);
    for (route, body) in BODIES {
        let (method, pattern) = route.split_once(' ').unwrap();
        let (path, body) = (things.path(pattern), things.body(body));
        let answer = stranger.send(&method.to_uppercase(), &path, &body).await;
        if OWN.contains(route) {
            assert_eq!(answer.status, 200, "{route}");
        } else if pattern.contains("/batch/") {
            let result = &answer.json()["results"][0];
            assert_eq!(result["error"]["code"], "AccessDenied", "{route}: {result}");
        } else {
            answer.error(403, "AccessDenied");
        }
    }
}

#[tokio::test]
async fn every_protected_route_is_reached_by_the_administrator() {
    // A new server for each: some routes end the life of a key, one that of the engine.
    for (route, body) in BODIES {
        let world = World::start().await;
        let mut admin = world.admin().await;
        let things = Things::make(&mut admin).await;
        let (method, pattern) = route.split_once(' ').unwrap();
        let (path, body) = (things.path(pattern), things.body(body));
        let answer = admin.send(&method.to_uppercase(), &path, &body).await;
        if pattern.contains("/tlog/") {
            // Files are as they are, and no JSON.
            assert_eq!(answer.status, 200, "{route}");
            continue;
        }
        let code = answer.json()["error"]["code"].clone();
        let refusal_of_state =
            ["KeyState", "KeyUsage", "SecretState"].map(Value::from).contains(&code);
        // Nobody is called from here.
        let outside = pattern.contains("/databases/") && code == "OutsideFailed";
        // Generated keys take no import.
        let imports = pattern.contains("/import") && code == "InvalidRequest";
        // There is no seal of that id.
        let imports = imports || pattern.contains("{seal}") && code == "InvalidRequest";
        // Nor a backup, nor a place for one.
        let imports = imports || pattern.contains("/backups") && code == "InvalidRequest";
        // Nothing was reported that could be forgotten.
        let unknown = route.starts_with("delete /v1/keys/{key}/holdings");
        // Nothing of this name was made before: reading it is refused as for a stranger.
        let reads = method == "get" && pattern.contains("{name}");
        let absent = (reads || pattern.contains("/database")) && code == "AccessDenied";
        assert!(
            code.is_null() || refusal_of_state || imports || unknown || absent || outside,
            "{route}: {:?}",
            answer.body
        );
    }
}

#[tokio::test]
async fn every_protected_route_is_closed_while_the_server_is_sealed() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    let things = Things::make(&mut admin).await;
    admin.done("POST", "/v1/sys/seal", "").await;
    for (route, body) in BODIES {
        let (method, pattern) = route.split_once(' ').unwrap();
        let (path, body) = (things.path(pattern), things.body(body));
        admin.send(&method.to_uppercase(), &path, &body).await.error(503, "Sealed");
        // Sealed comes before the token.
        let answer = world.anybody().await.send(&method.to_uppercase(), &path, &body).await;
        answer.error(503, "Sealed");
    }
}
