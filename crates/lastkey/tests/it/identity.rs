//! Pods get sessions, may do what their role says, and lose them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::http::{Http, base64};
use crate::issuer::{ISSUER, Issuer, now};
use crate::world::{Server, text};

const AUDIENCE: &str = "lastkey-test";

/// A server with a cluster and two keys; the role `shop` may encrypt and decrypt under one, for
/// one tenant.
struct Shop {
    server: Server,
    issuer: Issuer,
    folder: tempfile::TempDir,
    key: String,
    other: String,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        let issuer = Issuer::new();
        let key = server.create(r#"{"alias":"alias/shop"}"#);
        let other = server.create(r#"{"alias":"alias/other"}"#);
        let shop = Self { server, issuer, folder, key, other };
        shop.write("jwks.json", &shop.issuer.jwks());
        shop.write("shop.cedar", POLICY);
        let jwks = shop.path("jwks.json");
        let policy = shop.path("shop.cedar");
        shop.cli(&format!(
            "cluster add prod --issuer {ISSUER} --audience {AUDIENCE} --jwks {jwks}"
        ));
        shop.cli(&format!(
            "role create shop --cluster prod --namespace shop --service-account api --policy {policy}"
        ));
        shop
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(Path::new(&self.path(name)), text).unwrap();
    }

    #[track_caller]
    fn cli(&self, line: &str) -> Value {
        self.server.cli(&format!("{line} --output json")).json()
    }

    fn token(&self) -> String {
        self.issuer.pod_token(AUDIENCE, "shop", "api")
    }

    /// A connection of the pod, in a new session.
    fn pod(&self) -> Http {
        let session = self.exchange(&self.token(), &json!({}));
        self.server.anybody().with_token(&text(&session["access_token"]))
    }

    #[track_caller]
    fn exchange(&self, token: &str, more: &Value) -> Value {
        let mut body = json!({ "subject_token": token, "role": "shop" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.server.anybody().answer("POST", "/v1/sts/token", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn exchange_refused(&self, token: &str) {
        let body = json!({ "subject_token": token, "role": "shop" }).to_string();
        self.server
            .anybody()
            .answer("POST", "/v1/sts/token", &body)
            .refused(401, "Unauthenticated");
    }
}

const POLICY: &str = r#"
permit (principal, action in [Action::"kms:Encrypt", Action::"kms:Decrypt"],
        resource in Alias::"alias/shop")
when { context.ec.hasTag("tenant") && context.ec.getTag("tenant") == "a" };
"#;

fn encrypt(key: &str, tenant: &str) -> String {
    json!({ "key": key, "plaintext": base64(b"secret"), "context": { "tenant": tenant } })
        .to_string()
}

#[test]
fn pod_may_do_what_its_role_says_and_nothing_else() {
    let shop = Shop::open();
    let mut pod = shop.pod();
    assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a")).status, 200);
    assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt("alias/shop", "a")).status, 200);
    for (key, tenant) in [(&shop.key, "b"), (&shop.other, "a")] {
        pod.answer("POST", "/v1/encrypt", &encrypt(key, tenant)).refused(403, "AccessDenied");
    }
    pod.answer("GET", "/v1/keys", "").refused(403, "AccessDenied");
    let me = pod.answer("GET", "/v1/sts/whoami", "").json();
    assert_eq!((&me["principal"], &me["role"]), (&json!("k8s:prod/shop/api"), &json!("shop")));
    let role = shop.cli("role show shop");
    assert_eq!((&role["cluster"], &role["policy_version"]), (&json!("prod"), &json!(1)));
}

#[test]
fn role_follows_an_alias_to_another_key() {
    let shop = Shop::open();
    let mut pod = shop.pod();
    pod.answer("POST", "/v1/encrypt", &encrypt(&shop.other, "a")).refused(403, "AccessDenied");
    shop.cli("key alias set alias/shop alias/other");
    assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt(&shop.other, "a")).status, 200);
    pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a")).refused(403, "AccessDenied");
}

#[test]
fn tokens_that_are_not_of_this_pod_cluster_or_audience_open_no_session() {
    let shop = Shop::open();
    shop.exchange_refused("no token");
    shop.exchange_refused(&shop.issuer.pod_token("other", "shop", "api"));
    shop.exchange_refused(&shop.issuer.pod_token(AUDIENCE, "shop", "web"));
    shop.exchange_refused(&shop.issuer.pod_token(AUDIENCE, "pay", "api"));
    // Another cluster with the same issuer name and the same id of its key.
    shop.exchange_refused(&Issuer::new().pod_token(AUDIENCE, "shop", "api"));
    let expired = json!({ "iss": ISSUER, "sub": "system:serviceaccount:shop:api",
        "aud": [AUDIENCE], "iat": now() - 9_000, "nbf": now() - 9_000, "exp": now() - 5_400 });
    shop.exchange_refused(&shop.issuer.sign(&expired));
    let body = json!({ "subject_token": shop.token(), "role": "nobody" }).to_string();
    let answer = shop.server.anybody().answer("POST", "/v1/sts/token", &body);
    answer.refused(401, "Unauthenticated");
}

#[test]
fn session_is_as_long_and_as_wide_as_its_holder_asked() {
    let shop = Shop::open();
    let narrow = r#"permit(principal, action == Action::"kms:Decrypt", resource);"#;
    let session =
        shop.exchange(&shop.token(), &json!({ "duration_seconds": 120, "policy": narrow }));
    assert_eq!(session["expires_in"], 120);
    let mut pod = shop.server.anybody().with_token(&text(&session["access_token"]));
    pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a")).refused(403, "AccessDenied");
    let long = shop.exchange(&shop.token(), &json!({ "duration_seconds": 43_200 }));
    assert_eq!(long["expires_in"], 3_600);
    for (more, field) in [
        (json!({ "duration_seconds": 59 }), "duration_seconds"),
        (json!({ "policy": "permit(principal, action, resource" }), "policy"),
    ] {
        let mut body = json!({ "subject_token": shop.token(), "role": "shop" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = shop.server.anybody().answer("POST", "/v1/sts/token", &body.to_string());
        answer.refused(400, "InvalidRequest");
        assert_eq!(answer.json()["error"]["field"], field);
    }
}

#[test]
fn session_token_of_a_triple_never_authenticates_by_itself() {
    let shop = Shop::open();
    let session = shop.exchange(&shop.token(), &json!({}));
    for name in ["session_token", "secret_access_key", "access_key_id"] {
        let mut thief = shop.server.anybody().with_token(&text(&session[name]));
        let answer = thief.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a"));
        answer.refused(401, "Unauthenticated");
    }
}

#[test]
fn revoked_sessions_end_at_once_and_later_ones_do_not() {
    for line in [
        "revoke --pod pod-uid-1",
        "revoke --service-account prod/shop/api",
        "revoke --node worker-1",
        "revoke --role shop",
        "revoke --cluster prod",
        "revoke --all",
    ] {
        let shop = Shop::open();
        let mut pod = shop.pod();
        assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a")).status, 200);
        shop.cli(line);
        let answer = pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a"));
        answer.refused(401, "Unauthenticated");
        assert_eq!(shop.cli("revocations")["revocations"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn whoever_holds_a_credential_can_burn_it() {
    let shop = Shop::open();
    let session = shop.exchange(&shop.token(), &json!({}));
    let token = text(&session["access_token"]);
    shop.write("leaked", &token);
    let burn = format!("burn {}", shop.path("leaked"));
    assert_eq!(shop.cli(&burn)["burned"], true);
    let mut pod = shop.server.anybody().with_token(&token);
    let answer = pod.answer("POST", "/v1/encrypt", &encrypt(&shop.key, "a"));
    answer.refused(401, "Unauthenticated");
    shop.write("leaked", "lkb1_nothing");
    assert_eq!(shop.cli(&burn)["burned"], false);
    let other = shop.exchange(&shop.token(), &json!({}));
    let body = json!({ "access_key_id": other["access_key_id"],
        "secret_access_key": other["secret_access_key"] });
    let burned = shop.server.anybody().answer("POST", "/v1/sts/burn", &body.to_string());
    assert_eq!(burned.json()["burned"], true);
}

#[test]
fn policy_explains_itself() {
    let shop = Shop::open();
    let yes = "can decrypt alias/shop --as k8s:prod/shop/api --role shop --context tenant=a";
    let answer = shop.cli(yes);
    assert_eq!(answer["allowed"], true);
    assert!(answer["why"][0].as_str().unwrap().contains("role.shop"), "{answer}");
    let no = "can decrypt alias/shop --as k8s:prod/shop/api --role shop --context tenant=b";
    let refused = shop.server.cli(no);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.text().starts_with("no\n"), "{}", refused.text());
    let who = shop.cli("who-can decrypt alias/shop");
    let role = who["may"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["policy"].as_str().unwrap().starts_with("role.shop"));
    assert!(role.is_some(), "{who}");
    assert!(!shop.cli("who-can decrypt alias/other")["may"].to_string().contains("role.shop"));
}

/// Kubernetes gives an account's token to whoever may ask for one, or may run a pod as it: to us
/// he is the account. `who-can` says so, and `lastkey check` names who that is (RBA-05, RBA-07).
#[test]
fn attack_who_may_create_tokens_or_pods_becomes_the_account() {
    let shop = Shop::open();
    let made = shop.issuer.token_of_pod("somebody-elses-pod", AUDIENCE, "shop", "api");
    let body = json!({ "subject_token": made, "role": "shop" }).to_string();
    let answer = shop.server.anybody().answer("POST", "/v1/sts/token", &body);
    assert_eq!(answer.json()["principal"], "k8s:prod/shop/api");
    let told = "whoever may create pods, or tokens of ServiceAccount api, in namespace shop of \
                cluster prod can take role shop";
    assert_eq!(shop.cli("who-can decrypt alias/shop")["by_kubernetes"], json!([told]));
    assert!(shop.server.cli("who-can decrypt alias/shop").ok().contains(told));
    assert_eq!(shop.cli("who-can decrypt alias/other")["by_kubernetes"], Value::Null);
}

#[test]
fn roles_of_administrators_cannot_be_given_to_tokens() {
    let shop = Shop::open();
    for name in ["system-administrator", "security-administrator", "audit-administrator"] {
        let policy = shop.path("shop.cedar");
        let line = format!(
            "role create {name} --cluster prod --namespace shop --service-account api --policy {policy}"
        );
        assert!(shop.server.cli(&line).failed(1).contains("kept for a role of administrators"));
    }
}

#[test]
fn policy_with_a_fault_is_refused_with_its_place() {
    let shop = Shop::open();
    shop.write("bad.cedar", "permit (principal, action == Action::\"kms:Encrpyt\", resource);\n");
    let refused = shop.server.cli(&format!("policy put base {}", shop.path("bad.cedar")));
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("base:1:"), "{}", refused.stderr);
    // Nobody would be left who may change policies.
    shop.write("lock.cedar", "forbid (principal, action, resource);\n");
    let refused = shop.server.cli(&format!("policy put base {}", shop.path("lock.cedar")));
    assert!(refused.stderr.contains("nobody would be left"), "{}", refused.stderr);
    assert_eq!(shop.cli("policy list")["policies"], json!([]));
}

#[test]
fn policy_keeps_what_it_was_and_is_written_only_over_what_was_seen() {
    let shop = Shop::open();
    let put = |text: &str, more: &str| {
        shop.write("p.cedar", text);
        shop.server.cli(&format!("policy put base {} {more} --output json", shop.path("p.cedar")))
    };
    let one = "permit (principal == User::\"a\", action == Action::\"kms:Encrypt\", resource);";
    let two = "permit (principal == User::\"b\", action == Action::\"kms:Encrypt\", resource);";
    assert_eq!(put(one, "--expected-version 0").json()["version"], 1);
    assert_ne!(put(two, "--expected-version 0").code, Some(0));
    assert_eq!(put(two, "--expected-version 1").json()["version"], 2);
    assert_eq!(shop.cli("policy versions base")["policies"][0]["text"], one);
    assert_eq!(shop.server.cli("policy show base").ok(), two);
    shop.cli("policy delete base");
    assert_ne!(shop.server.cli("policy show base").code, Some(0));
    // Made again it goes on where it was, however often it is written then.
    let texts = || {
        let kept = shop.cli("policy versions base");
        let kept = kept["policies"].as_array().unwrap();
        let text = |one: &Value| (one["version"].as_u64().unwrap(), one["text"].clone());
        kept.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts(), [(1, json!(one)), (2, json!(two))]);
    assert_eq!(put(two, "--expected-version 0").json()["version"], 3);
    assert_eq!(put(one, "--expected-version 3").json()["version"], 4);
    assert_eq!(put(two, "").json()["version"], 5);
    let kept = [(1, one), (2, two), (3, two), (4, one)];
    assert_eq!(texts(), kept.map(|(version, text)| (version, json!(text))));
}

#[test]
fn dry_run_of_a_policy_names_the_calls_that_it_would_have_refused() {
    let shop = Shop::open();
    let mut pod = shop.pod();
    for _ in 0..3 {
        assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt("alias/shop", "a")).status, 200);
    }
    pod.answer("POST", "/v1/encrypt", &encrypt("alias/shop", "b")).refused(403, "AccessDenied");
    pod.answer("GET", "/v1/keys", "").refused(403, "AccessDenied");
    // Who may not use contexts is refused whatever the context was.
    shop.write("none.cedar", r#"forbid (principal in Role::"shop", action, resource);"#);
    let run = |more: &str| shop.cli(&format!("policy test {more}"));
    let all = run(&format!("none {}", shop.path("none.cedar")));
    // The role reads contexts, of which the log has the hash: its calls cannot be put again.
    assert_eq!((&all["would_refuse"], &all["not_judged"]), (&json!(0), &json!(3)), "{all}");
    shop.write("wide.cedar", r#"permit (principal, action, resource in Alias::"alias/shop");"#);
    let path = shop.path("wide.cedar");
    shop.cli(&format!(
        "role create shop --cluster prod --namespace shop --service-account api --policy {path}"
    ));
    let refused = run(&format!("none {}", shop.path("none.cedar")));
    assert_eq!(refused["would_refuse"], 3, "{refused}");
    assert_eq!(refused["changes"][0]["key"], json!(shop.key));
    assert_eq!(refused["changes"][0]["action"], "kms:Encrypt");
    shop.write("list.cedar", r#"permit (principal, action == Action::"kms:ListKeys", resource);"#);
    let allowed = run(&format!("--role shop {}", shop.path("list.cedar")));
    assert_eq!((&allowed["would_allow"], &allowed["would_refuse"]), (&json!(1), &json!(3)));
    // Nothing was changed by that.
    assert_eq!(pod.answer("POST", "/v1/encrypt", &encrypt("alias/shop", "b")).status, 200);
    shop.write("bad.cedar", "permit (principal, action == Action::\"kms:Encript\", resource);");
    let bad = shop.server.cli(&format!("policy test none {}", shop.path("bad.cedar")));
    assert!(bad.failed(1).contains("1:30"), "{}", bad.stderr);
    // Without a text it would be removed, which needs one that is there.
    let none = shop.server.cli("policy test none");
    assert!(none.failed(1).contains("there is none that could be removed"), "{}", none.stderr);
}
