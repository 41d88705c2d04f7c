//! What requests get: journeys, refusals, and the shape of errors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_http::{Limits, MetricsAccess};
use serde_json::json;

use crate::client::Client;
use crate::world::{Setup, World};

async fn key(admin: &mut Client) -> String {
    let made = admin.done("POST", "/v1/keys", r#"{"alias":"alias/app"}"#).await;
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn plaintext_comes_back_through_a_rotation_with_its_context() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    let id = key(&mut admin).await;
    let body = r#"{"key":"alias/app","plaintext":"aGVsbG8=","context":{"a":"1","b":"2"}}"#;
    let sealed = admin.done("POST", "/v1/encrypt", body).await;
    assert_eq!((sealed["key"].as_str(), &sealed["version"]), (Some(&*id), &json!(1)));
    let rotated = admin.done("POST", "/v1/keys/alias%2Fapp/rotate", "").await;
    assert_eq!(rotated["primary_version"], 2);
    let body = json!({ "ciphertext": sealed["ciphertext"], "context": {"b": "2", "a": "1"} });
    let opened = admin.done("POST", "/v1/decrypt", &body.to_string()).await;
    assert_eq!(opened, json!({ "plaintext": "aGVsbG8=", "key": id, "version": 1 }));
    let moved = json!({
        "ciphertext": sealed["ciphertext"], "context": {"b": "2", "a": "1"}, "to_key": id,
    });
    let moved = admin.done("POST", "/v1/reencrypt", &moved.to_string()).await;
    assert_eq!((&moved["version"], &moved["source_version"]), (&json!(2), &json!(1)));
    let body = json!({ "ciphertext": moved["ciphertext"] }).to_string();
    assert_eq!(admin.done("POST", "/v1/decrypt", &body).await["plaintext"], "aGVsbG8=");
}

#[tokio::test]
async fn every_way_that_decryption_fails_looks_the_same() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    key(&mut admin).await;
    let body = r#"{"key":"alias/app","plaintext":"aGVsbG8=","context":{"a":"1"}}"#;
    let sealed = admin.done("POST", "/v1/encrypt", body).await;
    let good = STANDARD.decode(sealed["ciphertext"].as_str().unwrap()).unwrap();
    let mut seen = Vec::new();
    for (place, bit) in [(30, 1), (60, 1), (90, 128), (good.len() - 1, 1)] {
        let mut bad = good.clone();
        bad[place] ^= bit;
        seen.push(json!({ "ciphertext": STANDARD.encode(bad), "context": {"a": "1"} }));
    }
    seen.push(
        json!({ "ciphertext": STANDARD.encode(&good[..good.len() - 1]), "context": {"a": "1"} }),
    );
    seen.push(json!({ "ciphertext": STANDARD.encode(&good), "context": {"a": "2"} }));
    seen.push(json!({ "ciphertext": STANDARD.encode(&good) }));
    seen.push(json!({ "ciphertext": "" }));
    let mut messages = Vec::new();
    for body in seen {
        let answer = admin.send("POST", "/v1/decrypt", &body.to_string()).await;
        messages.push(answer.error(400, "Undecryptable")["message"].clone());
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
}

#[tokio::test]
async fn an_unknown_key_and_a_forbidden_one_look_the_same() {
    let world = World::start().await;
    let id = key(&mut world.admin().await).await;
    let mut stranger = world.anybody().await.with_token(crate::world::STRANGER);
    let mut admin = world.admin().await;
    let none = "00000000-0000-4000-8000-000000000000";
    let unknown =
        admin.send("GET", &format!("/v1/keys/{none}"), "").await.error(403, "AccessDenied");
    let forbidden =
        stranger.send("GET", &format!("/v1/keys/{id}"), "").await.error(403, "AccessDenied");
    assert_eq!(unknown["message"], forbidden["message"]);
}

#[tokio::test]
async fn bad_requests_name_the_field_and_what_is_allowed() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    for (body, field, allowed) in [
        (r#"{"key":"alias/app","plaintext":"","contxt":{}}"#, "contxt", 5),
        (r#"{"key":"alias/app"}"#, "plaintext", 0),
        (r#"{"key":"a b","plaintext":""}"#, "key", 0),
        (r#"{"key":"alias/app","plaintext":"?"}"#, "plaintext", 0),
        (r#"{"key":"alias/app","plaintext":"","context":{"a":1}}"#, "context.a", 0),
        (
            r#"{"key":"alias/app","plaintext":"","context":{"a":"1"},"context_raw":"AA=="}"#,
            "context",
            0,
        ),
    ] {
        let error = admin.send("POST", "/v1/encrypt", body).await.error(400, "InvalidRequest");
        assert_eq!(error["field"], field, "{body}");
        assert_eq!(error["allowed"].as_array().map_or(0, Vec::len), allowed, "{error}");
    }
    let error =
        admin.send("POST", "/v1/keys", r#"{"spec":"AES"}"#).await.error(400, "InvalidRequest");
    assert!(error["allowed"].as_array().unwrap().contains(&json!("AES_256")), "{error}");
    let error = admin.send("GET", "/v1/keys?limit=0", "").await.error(400, "InvalidRequest");
    assert_eq!(error["field"], "limit");
    let error = admin.send("GET", "/v1/keys/alias%2", "").await.error(400, "InvalidRequest");
    assert_eq!(error["field"], "key");
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    for body in [&b"{"[..], b"[]x", b"\xff", b"{\"key\":\"\xff\",\"plaintext\":\"\"}", b"null"] {
        let answer = admin.send_as("POST", "/v1/encrypt", Some("application/json"), body).await;
        answer.error(400, "InvalidRequest");
    }
    for content in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let answer = admin.send_as("POST", "/v1/encrypt", content, b"{}").await;
        answer.error(415, "UnsupportedMediaType");
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    admin.send("GET", "/v1/nothing", "").await.error(404, "NotFound");
    let answer = admin.send("GET", "/v1/encrypt", "").await;
    answer.error(405, "MethodNotAllowed");
    assert_eq!(answer.headers["allow"], "POST");
    let answer = admin.send("POST", "/healthz", "").await;
    answer.error(405, "MethodNotAllowed");
    assert_eq!(answer.headers["allow"], "GET");
    world.anybody().await.send("GET", "/v1/nothing", "").await.error(401, "Unauthenticated");
}

#[tokio::test]
async fn too_much_plaintext_is_told_to_use_a_data_key() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    key(&mut admin).await;
    let most = json!({ "key": "alias/app", "plaintext": STANDARD.encode(vec![0; 65_536]) });
    admin.done("POST", "/v1/encrypt", &most.to_string()).await;
    let more = json!({ "key": "alias/app", "plaintext": STANDARD.encode(vec![0; 65_537]) });
    let error = admin.send("POST", "/v1/encrypt", &more.to_string()).await;
    let error = error.error(400, "PlaintextTooLarge");
    assert!(error["next"].as_str().unwrap().contains("data key"), "{error}");
}

#[tokio::test]
async fn a_dry_run_answers_and_does_nothing() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    let id = key(&mut admin).await;
    let body = r#"{"key":"alias/app","plaintext":"","dry_run":true}"#;
    let answer = admin.done("POST", "/v1/encrypt", body).await;
    assert_eq!(answer, json!({ "dry_run": { "allowed": true } }));
    let rotate = format!("/v1/keys/{id}/rotate?dry_run=true");
    assert_eq!(admin.done("POST", &rotate, "").await, json!({ "dry_run": { "allowed": true } }));
    let shown = admin.done("GET", &format!("/v1/keys/{id}"), "").await;
    assert_eq!(shown["newest_version"], 1);
    admin.done("POST", &format!("/v1/keys/{id}/disable"), "").await;
    let answer = admin.done("POST", "/v1/encrypt", body).await;
    assert_eq!(answer, json!({ "dry_run": { "allowed": false, "why": "KeyState" } }));
    let mut stranger = world.anybody().await.with_token(crate::world::STRANGER);
    let answer = stranger.done("POST", "/v1/encrypt", body).await;
    assert_eq!(answer, json!({ "dry_run": { "allowed": false } }));
    let unreadable = r#"{"key":"alias/app","dry_run":true}"#;
    admin.send("POST", "/v1/encrypt", unreadable).await.error(400, "InvalidRequest");
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_item() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    key(&mut admin).await;
    let items = json!({ "items": [
        { "key": "alias/app", "plaintext": "Zm9v" },
        { "key": "alias/none", "plaintext": "Zm9v" },
        { "key": "alias/app", "plaintext": "Zm9v", "dry_run": true },
        { "key": "no key", "plaintext": "Zm9v" },
    ] });
    let answer = admin.send("POST", "/v1/batch/encrypt", &items.to_string()).await;
    let results = answer.json()["results"].clone();
    assert!(results[0]["ok"]["ciphertext"].is_string(), "{results}");
    assert_eq!(results[1]["error"]["code"], "AccessDenied");
    assert_eq!(
        results[1]["error"]["request_id"].as_str(),
        answer.headers["x-request-id"].to_str().ok()
    );
    assert_eq!(results[2], json!({ "dry_run": { "allowed": true } }));
    assert_eq!(results[3]["error"]["field"], "key");
    for (len, good) in [(0, false), (256, true), (257, false)] {
        let items = vec![json!({ "key": "alias/app" }); len];
        let body = json!({ "items": items }).to_string();
        let answer = admin.send("POST", "/v1/batch/data-key", &body).await;
        assert_eq!(answer.status == 200, good, "{len}");
    }
}

#[tokio::test]
async fn lists_are_paged_by_their_markers() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    for name in ["a", "b", "c"] {
        admin.done("POST", "/v1/keys", &format!(r#"{{"alias":"alias/{name}"}}"#)).await;
    }
    let (mut seen, mut target) = (Vec::new(), "/v1/aliases?limit=2".to_owned());
    loop {
        let page = admin.done("GET", &target, "").await;
        let aliases = page["aliases"].as_array().unwrap().iter();
        seen.extend(aliases.map(|alias| alias["alias"].as_str().unwrap().to_owned()));
        let Some(marker) = page["next_marker"].as_str() else { break };
        target = format!("/v1/aliases?limit=2&marker={}", marker.replace('/', "%2F"));
    }
    assert_eq!(seen, ["alias/a", "alias/b", "alias/c"]);
    let page = admin.done("GET", "/v1/keys?limit=2", "").await;
    let marker = page["next_marker"].as_str().unwrap();
    let rest = admin.done("GET", &format!("/v1/keys?limit=2&marker={marker}"), "").await;
    assert_eq!(rest["keys"].as_array().unwrap().len(), 1);
    assert!(rest["next_marker"].is_null());
}

#[tokio::test]
async fn a_sealed_server_answers_health_and_unseals() {
    let world = World::with(Setup { sealed: true, ..Setup::default() }).await;
    let mut anybody = world.anybody().await;
    assert_eq!(anybody.done("GET", "/healthz", "").await, json!({ "status": "ok" }));
    let ready = anybody.send("GET", "/readyz", "").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["reason"]), (503, &json!("sealed")));
    let status = anybody.done("GET", "/v1/sys/status", "").await;
    assert_eq!((&status["initialised"], &status["sealed"]), (&json!(true), &json!(true)));
    assert_eq!(status["seals"][0]["kind"], "keyfile");
    let wrong = anybody.send("POST", "/v1/sys/unseal", r#"{"passphrase":"wrong"}"#).await;
    wrong.error(401, "Unauthenticated");
    let right = String::from_utf8(crate::world::KEYFILE.to_vec()).unwrap();
    let body = json!({ "passphrase": right }).to_string();
    let unsealed = anybody.done("POST", "/v1/sys/unseal", &body).await;
    assert_eq!(unsealed["sealed"], false);
    assert_eq!(anybody.done("GET", "/readyz", "").await, json!({ "ready": true }));
    assert!(world.gate.engine().is_ok());
}

#[tokio::test]
async fn attempts_to_unseal_are_limited() {
    let world = World::with(Setup { sealed: true, ..Setup::default() }).await;
    let mut anybody = world.anybody().await;
    let body = r#"{"passphrase":"wrong"}"#;
    for _ in 0..5 {
        anybody.send("POST", "/v1/sys/unseal", body).await.error(401, "Unauthenticated");
    }
    let answer = anybody.send("POST", "/v1/sys/unseal", body).await;
    answer.error(429, "Throttled");
    assert_eq!(answer.headers["retry-after"], "10");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_must_not_be_kept() {
    let world = World::start().await;
    let mut admin = world.admin().await;
    let mut ids = Vec::new();
    for target in ["/healthz", "/v1/keys", "/v1/nothing", "/metrics"] {
        let answer = admin.send("GET", target, "").await;
        assert_eq!(answer.headers["cache-control"], "no-store", "{target}");
        ids.push(answer.headers["x-request-id"].to_str().unwrap().to_owned());
    }
    assert!(ids.iter().all(|id| id.len() == 32 && id.starts_with("0909090909090909")), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn metrics_need_a_token_unless_they_are_public() {
    let world = World::start().await;
    world.anybody().await.send("GET", "/metrics", "").await.error(401, "Unauthenticated");
    let mut admin = world.admin().await;
    key(&mut admin).await;
    let text = String::from_utf8(admin.send("GET", "/metrics", "").await.body.to_vec()).unwrap();
    let created = "lastkey_http_requests_total{operation=\"kms:CreateKey\",code=\"ok\"} 1";
    assert!(text.lines().any(|line| line == created), "{text}");
    let refused =
        "lastkey_http_requests_total{operation=\"sys:Metrics\",code=\"Unauthenticated\"} 1";
    assert!(text.lines().any(|line| line == refused), "{text}");
    assert!(text.ends_with("# EOF\n"));
    let setup = Setup { metrics_access: MetricsAccess::Public, sealed: true, ..Setup::default() };
    let sealed = World::with(setup).await;
    let answer = sealed.anybody().await.send("GET", "/metrics", "").await;
    assert!(String::from_utf8_lossy(&answer.body).contains("lastkey_sealed 1"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let limits = Limits { body_len: 100, ..Limits::default() };
    let world = World::with(Setup { limits, ..Setup::default() }).await;
    for (len, status) in [(100, 400), (101, 413)] {
        let body = vec![b' '; len];
        let mut admin = world.admin().await;
        let answer = admin.send_as("POST", "/v1/encrypt", Some("application/json"), &body).await;
        assert_eq!(answer.status, status, "{len}");
    }
}
