//! A provider as the chart runs it: it writes events by the account of its own pod, which may do
//! nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use lastkey_connect::guard::Guard;
use lastkey_kube::{Access, Cluster, Form};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::csi::driver::Published;
use crate::csi::site::{Site, class, content};
use crate::helm::{EVENTS, objects, render};
use crate::process::{Running, command, not_run, until};

/// Where a pod finds its account.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// Runs a program with a `/run` of its own, in which this folder is the account of a pod.
fn in_pod(account: &Path, program: &Command) -> Command {
    let mut inside = unshare();
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p {ACCOUNT} && mount --bind \"$0\" {ACCOUNT} && exec \"$@\""
    );
    inside.args(["sh", "-c", &script]).arg(account);
    inside.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside.current_dir(program.get_current_dir().unwrap());
    inside
}

fn unshare() -> Command {
    let mut command = command("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
}

#[test]
#[ignore = "heavy: builds helm, builds and starts a kube-apiserver"]
fn events_are_written_by_the_account_that_the_chart_makes_which_may_do_nothing_else() {
    let test = "events_are_written_by_the_account_that_the_chart_makes";
    if !unshare().arg("true").output().is_ok_and(|ended| ended.status.success()) {
        not_run(&format!("SKIPPED {test}: this machine gives no mounts of its own (unshare)"));
        return;
    }
    let Some(rendered) = render(test, EVENTS) else { return };
    let Some(api) = ApiServer::found(test) else { return };
    for namespace in ["keys", "shop"] {
        let named = json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": namespace } });
        api.create_object(&named, false).unwrap();
    }
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
    for object in
        objects(&rendered).iter().filter(|one| kinds.contains(&one["kind"].as_str().unwrap()))
    {
        api.create_object(object, false).unwrap();
    }
    let site = Site::found();
    let account = site.path("account");
    fs::create_dir(&account).unwrap();
    fs::copy(api.authority(), account.join("ca.crt")).unwrap();
    fs::write(account.join("token"), token(&api)).unwrap();
    site.put_fields("prod/shop/db", &[("password", "one")]);
    let kubelet = site.path("kubelet");
    let mut provider = in_pod(
        &account,
        &site.provider_command(&["--events", "--kubelet-dir", kubelet.to_str().unwrap()]),
    );
    let (host, port) = api.url.trim_start_matches("https://").split_once(':').unwrap();
    provider.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    let provider = Running::start(&mut provider);
    provider
        .says("lastkey secrets-provider serves")
        .unwrap_or_else(|| panic!("{}", provider.complaint()));

    let (mut driver, pod) = (site.driver(), site.pod("pod-1"));
    let class = class("- {secret: prod/shop/db, field: password, path: pw}");
    assert!(matches!(driver.publish(&pod, &class), Ok(Published::Mounted(_))));
    site.put_fields("prod/shop/db", &[("password", "two")]);
    until("an event of the pod", || told(&api, "SecretsRenewed").is_some());
    assert_eq!(content(&driver.target(&pod), "pw"), "two");
    let event = told(&api, "SecretsRenewed").unwrap();
    assert_eq!((&event["regarding"]["name"], &event["type"]), (&json!("api-0"), &json!("Normal")));
    site.put("prod/shop/db", b"{}");
    until("an event of that", || told(&api, "SecretsNotRenewed").is_some());
    let complaint = provider.complaint();
    assert!(!complaint.contains("an event is not written"), "{complaint}");
    drop(provider);

    // The same account asks for something else.
    let own = account.join("token");
    let access = Access::with_token_file(api.url.clone(), Some(&api.authority()), own).unwrap();
    let as_account = Cluster::new(&Guard::default(), access).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for path in [
        "/api/v1/namespaces/shop/pods",
        "/api/v1/namespaces/shop/secrets",
        "/apis/events.k8s.io/v1/namespaces/shop/events",
    ] {
        let refused = runtime.block_on(as_account.get(path, Form::Whole)).unwrap_err().to_string();
        assert!(refused.contains("403"), "{path}: {refused}");
    }
}

/// A token of the provider's account, as kubelet mounts it.
fn token(api: &ApiServer) -> String {
    let path = "/api/v1/namespaces/keys/serviceaccounts/lastkey-secrets-provider/token";
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "expirationSeconds": 3_600 } });
    let made = api.ask(async |api| api.create(path, &request).await).unwrap();
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// The newest event of the pod for this reason.
fn told(api: &ApiServer, reason: &str) -> Option<Value> {
    let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
    let all = api.ask(async |api| api.get(path, Form::Whole).await).unwrap();
    all["items"].as_array()?.iter().find(|event| event["reason"] == reason).cloned()
}
