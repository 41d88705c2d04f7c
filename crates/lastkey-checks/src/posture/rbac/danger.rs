//! What a rule can be dangerous for: verbs on resources, and the check that tells.
//!
//! Room      `checks`.
//! Source    kubernetes.io/docs/concepts/security/rbac-good-practices; that patch and
//!           deletecollection return objects: k8s.io/apiserver, pkg/endpoints/handlers.

use super::grant::Rule;

/// Verbs on a resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Danger {
    /// The check that tells.
    pub(super) check: &'static str,
    /// Any of these is enough.
    pub(super) verbs: &'static [&'static str],
    /// API group.
    pub(super) group: &'static str,
    /// Resource, with its subresource.
    pub(super) resource: &'static str,
    /// In words, behind who.
    pub(super) what: &'static str,
    /// The resource has no namespace.
    pub(super) is_cluster_wide: bool,
}

impl Danger {
    /// The first of its verbs that a rule allows on any object.
    pub(super) fn verb(&self, rule: &Rule<'_>) -> Option<&'static str> {
        self.verbs.iter().copied().find(|verb| rule.allows(verb, self.group, self.resource))
    }
}

const WRITE: &[&str] = &["create", "update", "patch"];

const fn danger(
    check: &'static str,
    verbs: &'static [&'static str],
    group: &'static str,
    resource: &'static str,
    what: &'static str,
) -> Danger {
    Danger { check, verbs, group, resource, what, is_cluster_wide: false }
}

const fn cluster(
    check: &'static str,
    verbs: &'static [&'static str],
    group: &'static str,
    resource: &'static str,
    what: &'static str,
) -> Danger {
    Danger { check, verbs, group, resource, what, is_cluster_wide: true }
}

const POD: &str = "creates or changes pods";
const SHELL: &str = "enters containers";
const ADMISSION: &str = "changes admission";
const OUTSIDE: &str = "says which outside secrets come in";
const ADMISSION_GROUP: &str = "admissionregistration.k8s.io";

/// All of them.
pub(super) const DANGERS: &[Danger] = &[
    danger("RBA-01", &["get", "list", "watch"], "", "secrets", "reads Secrets"),
    danger(
        "RBA-02",
        &["patch", "deletecollection"],
        "",
        "secrets",
        "reads Secrets by changing them",
    ),
    danger("RBA-05", WRITE, "", "pods", POD),
    danger("RBA-05", WRITE, "", "replicationcontrollers", POD),
    danger("RBA-05", WRITE, "apps", "deployments", POD),
    danger("RBA-05", WRITE, "apps", "daemonsets", POD),
    danger("RBA-05", WRITE, "apps", "statefulsets", POD),
    danger("RBA-05", WRITE, "apps", "replicasets", POD),
    danger("RBA-05", WRITE, "batch", "jobs", POD),
    danger("RBA-05", WRITE, "batch", "cronjobs", POD),
    danger("RBA-06", &["create", "get"], "", "pods/exec", SHELL),
    danger("RBA-06", &["create", "get"], "", "pods/attach", SHELL),
    danger("RBA-06", &["create", "get"], "", "pods/portforward", SHELL),
    danger("RBA-06", &["update", "patch"], "", "pods/ephemeralcontainers", SHELL),
    danger(
        "RBA-07",
        &["create"],
        "",
        "serviceaccounts/token",
        "issues tokens of any ServiceAccount",
    ),
    cluster(
        "RBA-08",
        &["get", "list", "watch", "create", "update", "patch", "delete"],
        "",
        "nodes/proxy",
        "runs commands through kubelets",
    ),
    cluster("RBA-09", &["impersonate"], "", "users", "acts as other users"),
    cluster("RBA-09", &["impersonate"], "", "groups", "acts as any group"),
    danger("RBA-09", &["impersonate"], "", "serviceaccounts", "acts as any ServiceAccount"),
    cluster("RBA-09", &["impersonate"], "authentication.k8s.io", "uids", "acts as other users"),
    danger("RBA-09", &["bind", "escalate"], "rbac.authorization.k8s.io", "roles", "raises rights"),
    danger(
        "RBA-09",
        &["bind", "escalate"],
        "rbac.authorization.k8s.io",
        "clusterroles",
        "raises rights",
    ),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "mutatingwebhookconfigurations", ADMISSION),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "validatingwebhookconfigurations", ADMISSION),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "validatingadmissionpolicies", ADMISSION),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "validatingadmissionpolicybindings", ADMISSION),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "mutatingadmissionpolicies", ADMISSION),
    cluster("RBA-11", WRITE, ADMISSION_GROUP, "mutatingadmissionpolicybindings", ADMISSION),
    cluster("RBA-13", &["create"], "", "persistentvolumes", "makes volumes of the host's files"),
    danger("RBA-14", WRITE, "secrets-store.csi.x-k8s.io", "secretproviderclasses", OUTSIDE),
    danger("RBA-14", WRITE, "external-secrets.io", "externalsecrets", OUTSIDE),
    danger("RBA-14", WRITE, "external-secrets.io", "secretstores", OUTSIDE),
    cluster("RBA-14", WRITE, "external-secrets.io", "clustersecretstores", OUTSIDE),
    cluster("RBA-14", WRITE, "external-secrets.io", "clusterexternalsecrets", OUTSIDE),
    danger("RBA-14", WRITE, "secrets.hashicorp.com", "vaultstaticsecrets", OUTSIDE),
];
