//! What of a live cluster the checks look at: the lists to ask for, and how they enter the snapshot.
//!
//! Room      `checks`. Whoever has the connection asks; this file knows what for.
//! Source    Kubernetes API reference; PartialObjectMetadata and field selectors of API concepts.
//! Holds     Of a Secret nothing but metadata is asked for. A list that could not be read makes
//!           every check that needs it a doubt.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{
    Snapshot, Withheld,
    object::{self, Object},
    yaml::{Node, Value},
};

/// The type of a Secret that holds a token without an end.
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

/// One list of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Path of the API, with its query.
    pub path: &'static str,
    /// How its objects say their version.
    pub api_version: &'static str,
    /// Their kind.
    pub kind: &'static str,
    /// Whether more than `metadata` is needed.
    pub is_whole: bool,
    /// Whether a cluster may do without such objects altogether.
    pub is_optional: bool,
    /// What all of them have at the top level, known by how they were asked for.
    field: Option<(&'static str, &'static str)>,
    /// Checks that cannot tell without it.
    pub checks: &'static [&'static str],
}

const RBAC: &[&str] = &[
    "RBA-01", "RBA-02", "RBA-03", "RBA-04", "RBA-05", "RBA-06", "RBA-07", "RBA-08", "RBA-09",
    "RBA-10", "RBA-11", "RBA-12", "RBA-13", "RBA-14", "RBA-15", "RBA-16",
];
const PODS: &[&str] = &[
    "POD-01", "POD-02", "POD-03", "POD-04", "POD-05", "POD-06", "POD-07", "POD-08", "NET-01",
    "RBA-16",
];

const fn whole(
    path: &'static str,
    api_version: &'static str,
    kind: &'static str,
    checks: &'static [&'static str],
) -> List {
    List { path, api_version, kind, is_whole: true, is_optional: false, field: None, checks }
}

const fn metadata(
    path: &'static str,
    api_version: &'static str,
    kind: &'static str,
    checks: &'static [&'static str],
) -> List {
    List { path, api_version, kind, is_whole: false, is_optional: false, field: None, checks }
}

/// A policy of admission, for which it is enough that it is there.
const fn guard(path: &'static str, api_version: &'static str, kind: &'static str) -> List {
    List { is_optional: true, ..metadata(path, api_version, kind, &["ADM-01"]) }
}

/// All lists. Controllers stand before what they make, so that the latter is left out at once.
pub const LISTS: &[List] = &[
    metadata("/api/v1/namespaces", "v1", "Namespace", &["ADM-01"]),
    whole("/api/v1/serviceaccounts", "v1", "ServiceAccount", &["POD-01", "POD-02", "RBA-16"]),
    whole(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        RBAC,
    ),
    whole(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        RBAC,
    ),
    whole("/apis/rbac.authorization.k8s.io/v1/roles", "rbac.authorization.k8s.io/v1", "Role", RBAC),
    whole(
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        RBAC,
    ),
    whole("/apis/batch/v1/cronjobs", "batch/v1", "CronJob", PODS),
    whole("/apis/batch/v1/jobs", "batch/v1", "Job", PODS),
    whole("/apis/apps/v1/deployments", "apps/v1", "Deployment", PODS),
    whole("/apis/apps/v1/statefulsets", "apps/v1", "StatefulSet", PODS),
    whole("/apis/apps/v1/daemonsets", "apps/v1", "DaemonSet", PODS),
    whole("/apis/apps/v1/replicasets", "apps/v1", "ReplicaSet", PODS),
    whole("/api/v1/replicationcontrollers", "v1", "ReplicationController", PODS),
    whole("/api/v1/pods", "v1", "Pod", PODS),
    whole("/api/v1/configmaps", "v1", "ConfigMap", &["POD-04", "ENC-05"]),
    whole(
        "/apis/networking.k8s.io/v1/networkpolicies",
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &["NET-01"],
    ),
    whole(
        "/apis/storage.k8s.io/v1/storageclasses",
        "storage.k8s.io/v1",
        "StorageClass",
        &["ENC-09"],
    ),
    whole(
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        &["ADM-01"],
    ),
    guard(
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
    ),
    guard("/apis/kyverno.io/v1/clusterpolicies", "kyverno.io/v1", "ClusterPolicy"),
    guard(
        "/apis/policies.kyverno.io/v1/validatingpolicies",
        "policies.kyverno.io/v1",
        "ValidatingPolicy",
    ),
    guard(
        "/apis/policies.kyverno.io/v1alpha1/validatingpolicies",
        "policies.kyverno.io/v1alpha1",
        "ValidatingPolicy",
    ),
    List {
        path: "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fservice-account-token",
        api_version: "v1",
        kind: "Secret",
        is_whole: false,
        is_optional: false,
        field: Some(("type", TOKEN_TYPE)),
        checks: &["POD-08"],
    },
    metadata(
        "/api/v1/secrets?fieldSelector=type%21%3Dkubernetes.io%2Fservice-account-token",
        "v1",
        "Secret",
        &["POD-08"],
    ),
];

/// Constraints of Gatekeeper: the path names the kinds, each of which is a list below it.
pub const CONSTRAINTS: &List = &guard(
    "/apis/constraints.gatekeeper.sh/v1beta1",
    "constraints.gatekeeper.sh/v1beta1",
    "Constraint",
);

/// Where the API server counts what befell it.
pub const METRICS: &str = "/metrics";
/// Checks that cannot tell without [`METRICS`].
pub const METRICS_CHECKS: &[&str] = &["ENC-08"];

impl Snapshot {
    /// Takes a page of a list. What a controller of an earlier list made is left out: its
    /// template is judged already.
    pub fn add_listed(&mut self, list: &List, page: Vec<Json>) {
        let path: Arc<str> =
            Arc::from(format!("cluster{}", list.path.split('?').next().unwrap_or_default()));
        for item in page {
            let object = object(list, item, &path);
            // A ReplicaSet that is left out makes pods that are left out.
            if object.root.at("spec.template").is_there()
                || object.root.at("spec.jobTemplate").is_there()
            {
                self.controllers.insert((
                    object.kind.clone(),
                    object.namespace().to_owned(),
                    object.name.clone(),
                ));
            }
            if list.kind == "Secret" && list.field.is_none() {
                self.unread_secrets += 1;
            }
            let owner = object.owner();
            if !owner.is_some_and(|owner| self.is_controller(&owner, object.namespace())) {
                self.objects.push(object);
            }
        }
    }

    /// Remembers that a list was not given, and which checks cannot tell for it.
    pub fn withhold(&mut self, path: &str, reason: String, checks: &'static [&'static str]) {
        let subject = format!("cluster{path}");
        self.withheld.push(Withheld { subject, reason, checks });
    }

    fn is_controller(&self, owner: &(String, String), namespace: &str) -> bool {
        let (kind, name) = owner;
        self.controllers.contains(&(kind.clone(), namespace.to_owned(), name.clone()))
    }
}

fn object(list: &List, item: Json, path: &Arc<str>) -> Object {
    let mut root = node(item);
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|(name, _)| {
            !matches!(name.as_ref(), "kind" | "apiVersion" | "status")
                && list.field.is_none_or(|(field, _)| name.as_ref() != field)
        });
        let known = [("kind", list.kind), ("apiVersion", list.api_version)];
        for (name, text) in known.into_iter().chain(list.field) {
            let value = Value::Text(text.to_owned());
            entries.push((name.into(), Node { value, line: 0, column: 0 }));
        }
        for (name, metadata) in entries.iter_mut() {
            if name.as_ref() == "metadata"
                && let Value::Map(fields) = &mut metadata.value
            {
                fields.retain(|(name, _)| name.as_ref() != "managedFields");
            }
        }
    }
    object::object(root, list.kind.to_owned(), list.api_version.to_owned(), path)
}

/// JSON as a tree that knows no lines.
fn node(json: Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Text(number.to_string()), Value::Int)
        }
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(node).collect()),
        Json::Object(entries) => {
            Value::Map(entries.into_iter().map(|(name, item)| (name.into(), node(item))).collect())
        }
    };
    Node { value, line: 0, column: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{LISTS, METRICS_CHECKS};
    use crate::{
        posture::{self, CHECKS, Needs, Settings, State, judge},
        snapshot::Snapshot,
    };

    fn live() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.origin.live = true;
        snapshot
    }

    fn add(snapshot: &mut Snapshot, kind: &str, item: serde_json::Value) {
        let list = LISTS.iter().find(|list| list.kind == kind).unwrap();
        snapshot.add_listed(list, vec![item]);
    }

    #[test]
    fn every_check_of_objects_has_its_lists() {
        let named: BTreeSet<&str> =
            LISTS.iter().flat_map(|list| list.checks).chain(METRICS_CHECKS).copied().collect();
        for check in CHECKS {
            let is_of_objects =
                matches!(check.needs, Needs::Objects | Needs::Rbac | Needs::Pods | Needs::Metrics);
            assert!(!is_of_objects || named.contains(check.id), "{}", check.id);
        }
        for id in named {
            assert!(posture::check(id).is_some(), "{id}");
        }
    }

    #[test]
    fn no_list_asks_for_the_values_of_secrets() {
        for list in LISTS.iter().filter(|list| list.path.contains("secrets")) {
            assert!(!list.is_whole, "{}", list.path);
        }
        assert_eq!(LISTS.iter().filter(|list| list.kind == "Secret").count(), 2);
    }

    #[test]
    fn what_a_listed_controller_made_is_left_out() {
        let mut snapshot = live();
        let spec = json!({ "template": { "spec": { "containers": [{ "name": "a" }] } } });
        let owned = |name: &str, kind: &str, owner: &str| {
            let owner = json!({ "kind": kind, "name": owner, "controller": true });
            json!({ "spec": spec, "metadata": { "name": name, "namespace": "n",
                "managedFields": [1], "ownerReferences": [owner] } })
        };
        let web = json!({ "metadata": { "name": "web", "namespace": "n" }, "spec": spec });
        for (kind, object) in [
            ("Deployment", web),
            ("ReplicaSet", owned("r", "Deployment", "web")),
            ("ReplicaSet", owned("s", "Rollout", "web")),
            ("Pod", owned("r-0", "ReplicaSet", "r")),
            ("Pod", owned("s-0", "ReplicaSet", "s")),
            ("Pod", owned("t-0", "ReplicaSet", "t")),
        ] {
            add(&mut snapshot, kind, object);
        }
        let names: Vec<&str> = snapshot.objects.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["web", "s", "t-0"]);
        assert!(!snapshot.objects[1].root.at("metadata.managedFields").is_there());
    }

    #[test]
    fn a_list_that_was_withheld_makes_its_checks_doubts() {
        let mut snapshot = live();
        let list = LISTS.iter().find(|list| list.kind == "Role").unwrap();
        snapshot.withhold(list.path, "forbidden".to_owned(), list.checks);
        add(&mut snapshot, "ClusterRole", json!({ "metadata": { "name": "r" }, "rules": [] }));
        let outcome = judge(&snapshot, Settings { now: 0 });
        for id in list.checks {
            assert_eq!(outcome.states[id], State::CannotTell, "{id}");
            assert!(
                outcome
                    .not_checked
                    .iter()
                    .any(|gap| { gap.rule.as_deref() == Some(*id) && gap.reason == "forbidden" })
            );
        }
        // Nothing was withheld there, and nothing is there.
        assert_eq!(outcome.states["POD-05"], State::NotApplicable);
        assert_eq!(outcome.states["API-01"], State::CannotTell);
    }

    #[test]
    fn unused_grant_is_told_when_pods_and_tokens_were_given_and_is_a_doubt_when_not() {
        let cluster = |without: Option<&'static str>| {
            let mut snapshot = live();
            let name = json!({ "name": "idle", "namespace": "n" });
            add(&mut snapshot, "ServiceAccount", json!({ "metadata": name }));
            add(
                &mut snapshot,
                "RoleBinding",
                json!({ "metadata": { "name": "b", "namespace": "n" },
                    "roleRef": { "kind": "ClusterRole", "name": "view" },
                    "subjects": [{ "kind": "ServiceAccount", "name": "idle", "namespace": "n" }] }),
            );
            add(&mut snapshot, "ClusterRole", json!({ "metadata": { "name": "view" } }));
            for list in LISTS.iter().filter(|list| Some(list.kind) == without) {
                snapshot.withhold(list.path, "forbidden".to_owned(), list.checks);
            }
            let outcome = judge(&snapshot, Settings { now: 0 });
            let found = outcome.findings.iter().filter(|found| found.rule == "RBA-16").count();
            (found, outcome.states["RBA-16"])
        };
        assert_eq!(cluster(None), (1, State::Fail));
        for without in ["Pod", "Deployment", "Secret"] {
            assert_eq!(cluster(Some(without)), (0, State::CannotTell), "{without}");
        }
    }

    #[test]
    fn tokens_are_known_by_how_they_were_asked_for_and_other_secrets_stay_a_doubt() {
        let mut snapshot = live();
        add(
            &mut snapshot,
            "Secret",
            json!({ "metadata": { "name": "t", "namespace": "n",
            "annotations": { "kubernetes.io/service-account.name": "a",
                "kubectl.kubernetes.io/last-applied-configuration": "hunter2" } } }),
        );
        assert!(!format!("{:?}", snapshot.objects).contains("hunter2"));
        let outcome = judge(&snapshot, Settings { now: 0 });
        assert_eq!(outcome.states["POD-08"], State::Fail);
        assert_eq!(outcome.findings.iter().filter(|f| f.rule == "POD-08").count(), 2);

        let mut snapshot = live();
        snapshot.add_listed(&LISTS[LISTS.len() - 1], vec![json!({ "metadata": { "name": "s" } })]);
        let outcome = judge(&snapshot, Settings { now: 0 });
        assert_eq!(outcome.states["POD-08"], State::CannotTell);
    }
}
