//! A real API server: its tokens, its watch, its word on a token, its keys.

use std::fs;
use std::time::Instant;

use lastkey_kube::{Change, Form, Patch};
use serde_json::{Value, json};

use crate::api_server::{ApiServer, ISSUER};
use crate::world::{Installation, Server, audit_records, text};

const AUDIENCE: &str = "lastkey-test";

/// What docs/identity.md asks for.
fn permissions() -> [(&'static str, Value); 3] {
    let api = "rbac.authorization.k8s.io";
    [
        (
            "/api/v1/namespaces/default/serviceaccounts",
            json!({ "metadata": { "name": "lastkey" } }),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({ "metadata": { "name": "lastkey-liveness" }, "rules": [
                { "apiGroups": [""], "resources": ["pods", "serviceaccounts"],
                  "verbs": ["list", "watch"] },
                { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"],
                  "verbs": ["create"] },
                { "nonResourceURLs": ["/openid/v1/jwks"], "verbs": ["get"] },
            ] }),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({ "metadata": { "name": "lastkey-liveness" },
                "roleRef": { "apiGroup": api, "kind": "ClusterRole", "name": "lastkey-liveness" },
                "subjects": [
                    { "kind": "ServiceAccount", "name": "lastkey", "namespace": "default" }
                ] }),
        ),
    ]
}

fn create(api: &ApiServer, path: &str, object: &Value) -> Value {
    api.ask(async |api| api.create(path, object).await).unwrap()
}

fn delete(api: &ApiServer, path: &str) {
    api.ask(async |api| api.delete(path).await).unwrap();
}

/// A pod of the account `api`, and the token that its kubelet would ask for.
fn pod(api: &ApiServer, name: &str) -> String {
    let pod = json!({ "metadata": { "name": name },
        "spec": { "serviceAccountName": "api", "containers": [{ "name": "a", "image": "a" }] } });
    let made = create(api, "/api/v1/namespaces/shop/pods", &pod);
    let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": name,
        "uid": made["metadata"]["uid"] });
    let asked = json!({ "spec": { "audiences": [AUDIENCE], "expirationSeconds": 3_600,
        "boundObjectRef": bound } });
    let path = "/api/v1/namespaces/shop/serviceaccounts/api/token";
    text(&create(api, path, &asked)["status"]["token"])
}

/// A server that asks this cluster with a token of its own.
fn serve(api: &ApiServer, installation: &Installation) -> Server {
    let asked = json!({ "spec": { "expirationSeconds": 3_600 } });
    let path = "/api/v1/namespaces/default/serviceaccounts/lastkey/token";
    let token = api.folder.path().join("lastkey-token");
    fs::write(&token, text(&create(api, path, &asked)["status"]["token"])).unwrap();
    let server = installation.serve_unsealed(&format!(
        "[[cluster]]\nname = 'prod'\nserver = '{}'\nauthority = '{}'\ntoken_file = '{}'\n",
        api.url,
        api.authority().display(),
        token.display(),
    ));
    server.cli(&format!("cluster add prod --issuer {ISSUER} --audience {AUDIENCE}")).ok();
    let policy = api.folder.path().join("shop.cedar");
    fs::write(&policy, "permit (principal, action, resource);").unwrap();
    let role = "role create shop --cluster prod --namespace shop --service-account api";
    server.cli(&format!("{role} --policy {}", policy.display())).ok();
    server
}

fn exchange(server: &Server, token: &str) -> crate::http::Answer {
    let body = json!({ "subject_token": token, "role": "shop" }).to_string();
    server.anybody().answer("POST", "/v1/sts/token", &body)
}

fn session(server: &Server, token: &str) -> String {
    let answer = exchange(server, token);
    assert_eq!(answer.status, 200, "{}", answer.text());
    text(&answer.json()["access_token"])
}

fn is_over(server: &Server, session: &str) -> bool {
    let mut http = server.anybody().with_token(session);
    http.answer("GET", "/v1/sts/whoami", "").status == 401
}

#[test]
#[ignore = "heavy: builds and starts a kube-apiserver"]
fn sessions_live_as_long_as_pods_and_accounts_of_a_real_api_server() {
    let Some(api) =
        ApiServer::found("sessions_live_as_long_as_pods_and_accounts_of_a_real_api_server")
    else {
        return;
    };
    let version = api.ask(async |api| api.get("/version", Form::Whole).await).unwrap();
    for (path, object) in permissions() {
        create(&api, path, &object);
    }
    create(&api, "/api/v1/namespaces", &json!({ "metadata": { "name": "shop" } }));
    let account = json!({ "metadata": { "name": "api" } });
    create(&api, "/api/v1/namespaces/shop/serviceaccounts", &account);
    let (first, second) = (pod(&api, "api-0"), pod(&api, "api-1"));
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = serve(&api, &installation);
    // The key set came from the cluster, and tokens are as it signs them.
    let (of_first, of_second) = (session(&server, &first), session(&server, &second));
    delete(&api, "/api/v1/namespaces/shop/pods/api-0");
    let begun = Instant::now();
    api.until("the session is over", || is_over(&server, &of_first));
    println!("a session ended {:?} after its pod, {}", begun.elapsed(), version["gitVersion"]);
    exchange(&server, &first).refused(401, "Unauthenticated");
    assert!(!is_over(&server, &of_second));
    // One that the watch may not have told of yet.
    session(&server, &pod(&api, "api-2"));
    delete(&api, "/api/v1/namespaces/shop/serviceaccounts/api");
    api.until("the account's session is over", || is_over(&server, &of_second));
    drop(server);
    let opened = audit_records(&installation.data, "--action sts:OpenSession --result ok");
    let reason = |record: &Value| text(&record["reason"]);
    assert!(opened.iter().all(|record| {
        ["the pod is there", "the cluster took the token"].contains(&reason(record).as_str())
    }));
}

#[test]
#[ignore = "heavy: builds and starts a kube-apiserver"]
fn objects_of_a_real_api_server_are_listed_in_pages_watched_and_patched() {
    let Some(api) =
        ApiServer::found("objects_of_a_real_api_server_are_listed_in_pages_watched_and_patched")
    else {
        return;
    };
    let path = "/api/v1/namespaces/default/configmaps";
    let names: Vec<_> = (0..600).map(|number| format!("n{number}")).collect();
    api.ask(async |api| {
        for name in &names {
            let object = json!({ "metadata": { "name": name }, "data": { "a": "b" } });
            api.create(path, &object).await.unwrap();
        }
        let listed = api.list(path, Form::Metadata).await.unwrap();
        let of_names =
            |one: &&Value| names.iter().any(|name| one["metadata"]["name"].as_str() == Some(name));
        assert_eq!(listed.items.iter().filter(of_names).count(), 600);
        assert!(listed.items.iter().all(|one| one.get("data").is_none()));
        let mut watch = api.watch(path, Form::Whole, &listed.version).await.unwrap();
        let patch = json!({ "data": { "a": "c" } });
        api.patch(&format!("{path}/n7"), Patch::Merge, &patch).await.unwrap();
        api.delete(&format!("{path}/n8")).await.unwrap();
        let Some(Change::Is(is)) = watch.next().await.unwrap() else { panic!("nothing changed") };
        assert_eq!((&is["metadata"]["name"], &is["data"]["a"]), (&json!("n7"), &json!("c")));
        let Some(Change::Was(was)) = watch.next().await.unwrap() else { panic!("nothing went") };
        assert_eq!(was["metadata"]["name"], "n8");
        let missing = api.get(&format!("{path}/n8"), Form::Whole).await.unwrap_err();
        assert!(missing.is_not_found(), "{missing}");
    });
}
