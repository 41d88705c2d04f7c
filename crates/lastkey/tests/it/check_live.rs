//! `lastkey check --kubeconfig`: against a real API server by the rights of three callers, and
//! against one that refuses everything.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use serde_json::Value;

use crate::api_server::{ApiServer, STRANGER, TOKEN};
use crate::process::{Ended, lastkey, run};

const READER: &str = include_str!("../../../../deploy/kubernetes/check-reader.yaml");

/// One fault of each family; the value of the Secret may stand nowhere.
const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: helper, namespace: shop}
---
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2-applied}
stringData: {password: hunter2-stored}
---
apiVersion: v1
kind: Secret
metadata: {name: forever, namespace: shop, annotations: {kubernetes.io/service-account.name: helper}}
type: kubernetes.io/service-account-token
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {hostPID: true, containers: [{name: a, image: a}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-1
  namespace: shop
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}]
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {hostPID: true, containers: [{name: a, image: a}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1-a
  namespace: shop
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: u, controller: true}]
spec: {hostPID: true, containers: [{name: a, image: a}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: helper}
rules: [{apiGroups: [''], resources: [secrets], verbs: [patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: helper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: helper}
subjects: [{kind: ServiceAccount, name: helper, namespace: shop}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: s}
provisioner: ebs.csi.aws.com
";

const BIND_READER: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lastkey-check}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lastkey-check}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}]
";

fn check(kubeconfig: &Path) -> Ended {
    let kubeconfig = kubeconfig.to_str().unwrap();
    let form = ["check", "--fail-on", "low", "--output", "json", "--kubeconfig", kubeconfig];
    run(&mut lastkey(form), b"")
}

fn report(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr))
}

/// Subjects of what a check found.
fn found<'r>(report: &'r Value, check: &str) -> Vec<&'r str> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of_check = findings.filter(|finding| finding["rule"] == check);
    of_check.map(|finding| finding["subject"].as_str().unwrap()).collect()
}

/// Ids of checks that are listed as not checked for this reason.
fn untold<'r>(report: &'r Value, reason: &str) -> Vec<&'r str> {
    let gaps = report["not_checked"].as_array().unwrap().iter();
    let of_reason = gaps.filter(|gap| gap["reason"].as_str().unwrap().contains(reason));
    of_reason.map(|gap| gap["rule"].as_str().unwrap()).collect()
}

#[test]
#[ignore = "heavy: builds and starts a kube-apiserver"]
fn live_cluster_is_judged_as_far_as_the_caller_may_look() {
    let Some(api) = ApiServer::found("live_cluster_is_judged_as_far_as_the_caller_may_look") else {
        return;
    };
    api.create(SHOP, false).unwrap();
    // More than a page.
    for number in 0..505 {
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c-{number}}}\n");
        api.create(&map, false).unwrap();
    }
    let last =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: zz}\ndata: {db_password: kR9vT2mQx}\n";
    api.create(last, false).unwrap();

    let ended = check(&api.kubeconfig(TOKEN));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let all = report(&ended);
    assert_eq!(found(&all, "RBA-02"), ["ClusterRoleBinding/helper"]);
    assert_eq!(found(&all, "POD-05"), ["Deployment/shop/web"]);
    assert_eq!(found(&all, "POD-04"), ["ConfigMap/default/zz"]);
    assert_eq!(found(&all, "ENC-09"), ["StorageClass/s"]);
    assert_eq!(found(&all, "POD-08"), ["Secret/shop/db", "Secret/shop/forever"]);
    assert!(found(&all, "ADM-01").contains(&"Namespace/shop"));
    assert!(!ended.text().contains("hunter2"), "a value of a Secret is in the report");
    // What the cluster has none of is no doubt, and what only a node shows is one.
    assert_eq!(all["checks"]["API-01"], "cannot tell");
    assert_ne!(all["checks"]["RBA-01"], "cannot tell");
    assert_eq!(untold(&all, "Forbidden"), [""; 0]);

    // Somebody who may nothing.
    let ended = check(&api.kubeconfig(STRANGER));
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    let none = report(&ended);
    assert_eq!(none["findings"].as_array().unwrap().len(), 0);
    for (id, state) in none["checks"].as_object().unwrap() {
        assert_eq!(state, "cannot tell", "{id}");
        let is_listed = ["RBA-", "POD-", "NET-01", "ADM-", "ENC-08", "ENC-09"];
        if is_listed.iter().any(|start| id.starts_with(start)) {
            assert!(untold(&none, "Forbidden").contains(&id.as_str()), "{id}");
        }
    }

    // The same with the role that is shipped for it.
    api.create(READER, false).unwrap();
    api.create(BIND_READER, false).unwrap();
    let ended = check(&api.kubeconfig(STRANGER));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let most = report(&ended);
    assert_eq!(untold(&most, "Forbidden"), ["POD-08", "POD-08"]);
    assert_eq!(found(&most, "POD-05"), found(&all, "POD-05"));
    assert_eq!(found(&most, "RBA-02"), found(&all, "RBA-02"));

    check(&api.kubeconfig("forged")).failed(4);
}

/// An API server that answers every request in the same way, on a connection of its own.
fn answering(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4_096];
            if stream.read(&mut head).is_err() {
                continue;
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            // A caller who went away is none of ours.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn kubeconfig(folder: &Path, server: &str) -> std::path::PathBuf {
    let path = folder.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: c, user: {{token: t}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn kubeconfig_without_rights_leaves_every_check_open_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"{"kind":"Status","reason":"Forbidden","message":"bob cannot list","code":403}"#;
    let ended = check(&kubeconfig(folder.path(), &answering("403 Forbidden", body)));
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    let report = report(&ended);
    let states = report["checks"].as_object().unwrap();
    assert!(states.values().all(|state| state == "cannot tell"), "{states:?}");
    for id in ["RBA-01", "POD-05", "NET-01", "ADM-01", "ENC-08", "ENC-09", "POD-08"] {
        assert!(untold(&report, "bob cannot list").contains(&id), "{id}");
    }
}

#[test]
fn what_is_no_api_server_ends_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let refused = r#"{"kind":"Status","reason":"Unauthorized","message":"no","code":401}"#;
    let strange = kubeconfig(folder.path(), &answering("401 Unauthorized", refused));
    assert!(check(&strange).failed(4).contains("Unauthorized"));
    // An address at which nobody listens any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    check(&kubeconfig(folder.path(), &url)).failed(3);
    fs::write(folder.path().join("config"), "apiVersion: v1\nkind: [\n").unwrap();
    assert!(check(&folder.path().join("config")).failed(2).contains("config"));
    check(&folder.path().join("nowhere")).failed(2);
}
