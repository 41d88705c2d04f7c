//! Policies that would have stopped what the checks find: ValidatingAdmissionPolicies in CEL with
//! their bindings, and NetworkPolicies that deny by default.
//!
//! Room      `checks`.
//! Source    admissionregistration.k8s.io/v1 (Kubernetes 1.30 and later).
//! Holds     Every file is a set of whole objects that `kubectl apply` takes as they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::snapshot::{Snapshot, pod::pods};

use super::{Outcome, State, pods::is_system};

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
    /// The check that it enforces.
    pub check: &'static str,
}

/// One admission policy.
struct Policy {
    check: &'static str,
    name: &'static str,
    on: On,
    /// Name and expression of each variable beside those of `on`.
    variables: &'static [(&'static str, &'static str)],
    /// Expression that must be true, and what is said when it is not.
    validations: &'static [(&'static str, &'static str)],
}

/// What a policy looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// Pods and everything that makes them; `variables.spec` and `variables.containers`.
    Pods,
    /// Roles; `variables.rules`.
    Roles,
    /// Bindings of roles.
    Bindings,
    /// Secrets.
    Secrets,
    /// Storage classes.
    StorageClasses,
}

const POLICIES: &[Policy] = &[
    Policy {
        check: "POD-05",
        name: "lastkey-pods-stay-in-their-box",
        on: On::Pods,
        variables: &[],
        validations: &[
            (
                "!(has(variables.spec.hostPID) && variables.spec.hostPID) && !(has(variables.spec.hostIPC) && variables.spec.hostIPC) && !(has(variables.spec.hostNetwork) && variables.spec.hostNetwork)",
                "hostPID, hostIPC and hostNetwork show the host, and with it the Secrets of all its pods",
            ),
            (
                "!has(variables.spec.volumes) || variables.spec.volumes.all(v, !has(v.hostPath))",
                "hostPath volumes read files of the node",
            ),
            (
                "variables.containers.all(c, !has(c.securityContext) || !has(c.securityContext.privileged) || !c.securityContext.privileged)",
                "a privileged container owns its node",
            ),
            (
                "variables.containers.all(c, !has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0))",
                "hostPort takes a port of the node",
            ),
        ],
    },
    Policy {
        check: "POD-06",
        name: "lastkey-containers-have-few-rights",
        on: On::Pods,
        variables: &[],
        validations: &[
            (
                "variables.containers.all(c, has(c.securityContext) && has(c.securityContext.allowPrivilegeEscalation) && !c.securityContext.allowPrivilegeEscalation)",
                "set securityContext.allowPrivilegeEscalation: false",
            ),
            (
                "variables.containers.all(c, has(c.securityContext) && has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop) && c.securityContext.capabilities.drop.exists(d, d == 'ALL') && (!has(c.securityContext.capabilities.add) || c.securityContext.capabilities.add.all(a, a == 'NET_BIND_SERVICE')))",
                "set securityContext.capabilities.drop: [ALL] and add at most NET_BIND_SERVICE",
            ),
            (
                "(has(variables.spec.securityContext) && has(variables.spec.securityContext.runAsNonRoot) && variables.spec.securityContext.runAsNonRoot && variables.containers.all(c, !has(c.securityContext) || !has(c.securityContext.runAsNonRoot) || c.securityContext.runAsNonRoot)) || variables.containers.all(c, has(c.securityContext) && has(c.securityContext.runAsNonRoot) && c.securityContext.runAsNonRoot)",
                "set securityContext.runAsNonRoot: true",
            ),
            (
                "(has(variables.spec.securityContext) && has(variables.spec.securityContext.seccompProfile) && variables.spec.securityContext.seccompProfile.type != 'Unconfined' && variables.containers.all(c, !has(c.securityContext) || !has(c.securityContext.seccompProfile) || c.securityContext.seccompProfile.type != 'Unconfined')) || variables.containers.all(c, has(c.securityContext) && has(c.securityContext.seccompProfile) && c.securityContext.seccompProfile.type != 'Unconfined')",
                "set securityContext.seccompProfile.type: RuntimeDefault",
            ),
        ],
    },
    Policy {
        check: "POD-03",
        name: "lastkey-secrets-are-files",
        on: On::Pods,
        variables: &[],
        validations: &[
            (
                "variables.containers.all(c, !has(c.env) || c.env.all(e, !has(e.valueFrom) || !has(e.valueFrom.secretKeyRef)))",
                "mount the Secret as files; variables are inherited, logged and dumped",
            ),
            (
                "variables.containers.all(c, !has(c.envFrom) || c.envFrom.all(e, !has(e.secretRef)))",
                "mount the Secret as files; variables are inherited, logged and dumped",
            ),
        ],
    },
    Policy {
        check: "POD-02",
        name: "lastkey-pods-name-their-account",
        on: On::Pods,
        variables: &[],
        validations: &[(
            "(has(variables.spec.serviceAccountName) && variables.spec.serviceAccountName != '' && variables.spec.serviceAccountName != 'default') || (has(variables.spec.automountServiceAccountToken) && !variables.spec.automountServiceAccountToken)",
            "name a ServiceAccount of its own, or set automountServiceAccountToken: false",
        )],
    },
    Policy {
        check: "POD-07",
        name: "lastkey-processes-are-not-shared",
        on: On::Pods,
        variables: &[],
        validations: &[(
            "!(has(variables.spec.shareProcessNamespace) && variables.spec.shareProcessNamespace)",
            "shared processes read each other's Secrets",
        )],
    },
    Policy {
        check: "POD-08",
        name: "lastkey-tokens-end",
        on: On::Secrets,
        variables: &[],
        validations: &[(
            "!has(object.type) || object.type != 'kubernetes.io/service-account-token'",
            "a token in a Secret never ends; use kubectl create token, or a projected volume",
        )],
    },
    Policy {
        check: "RBA-01",
        name: "lastkey-roles-do-not-read-all-secrets",
        on: On::Roles,
        variables: &[],
        validations: &[(
            "!variables.rules.exists(r, has(r.apiGroups) && r.apiGroups.exists(g, g == '' || g == '*') && has(r.resources) && r.resources.exists(x, x == 'secrets' || x == '*') && r.verbs.exists(v, v in ['get', 'list', 'watch', 'patch', 'deletecollection', '*']) && (!has(r.resourceNames) || r.resourceNames.size() == 0))",
            "name the Secrets (resourceNames); get, list, watch, patch and deletecollection all return values",
        )],
    },
    Policy {
        check: "RBA-09",
        name: "lastkey-roles-do-not-raise-rights",
        on: On::Roles,
        variables: &[],
        validations: &[
            (
                "!variables.rules.exists(r, r.verbs.exists(v, v in ['impersonate', 'bind', 'escalate', '*']) && has(r.resources) && r.resources.exists(x, x in ['users', 'groups', 'serviceaccounts', 'uids', 'roles', 'clusterroles', '*']) && (!has(r.resourceNames) || r.resourceNames.size() == 0))",
                "impersonate, bind and escalate raise rights; name whom or what they may touch (resourceNames)",
            ),
            (
                "!variables.rules.exists(r, has(r.resources) && r.resources.exists(x, x == 'nodes/proxy' || x == '*/proxy'))",
                "every verb on nodes/proxy runs commands in pods; use nodes/metrics, nodes/stats or nodes/log",
            ),
            (
                "!variables.rules.exists(r, has(r.resources) && r.resources.exists(x, x == 'serviceaccounts/token' || x == '*/token') && r.verbs.exists(v, v == 'create' || v == '*') && (!has(r.resourceNames) || r.resourceNames.size() == 0))",
                "name the ServiceAccounts whose tokens may be issued (resourceNames)",
            ),
        ],
    },
    Policy {
        check: "RBA-12",
        name: "lastkey-bindings-know-their-subjects",
        on: On::Bindings,
        variables: &[("subjects", "has(object.subjects) ? object.subjects : []")],
        validations: &[
            (
                "!variables.subjects.exists(s, s.name in ['system:anonymous', 'system:unauthenticated', 'system:authenticated', 'system:serviceaccounts'])",
                "a grant to everybody is no grant; name the subjects",
            ),
            (
                "object.roleRef.name != 'cluster-admin' || variables.subjects.all(s, s.kind != 'ServiceAccount')",
                "no program needs cluster-admin; write a role for it",
            ),
            (
                "!variables.subjects.exists(s, s.kind == 'Group' && s.name == 'system:masters')",
                "system:masters is beyond all rules and cannot be taken back",
            ),
        ],
    },
    Policy {
        check: "ENC-09",
        name: "lastkey-volumes-are-encrypted",
        on: On::StorageClasses,
        variables: &[],
        validations: &[(
            "!(object.provisioner in ['ebs.csi.aws.com', 'diskplugin.csi.alibabacloud.com', 'rbd.csi.ceph.com', 'driver.longhorn.io']) || (has(object.parameters) && 'encrypted' in object.parameters && object.parameters['encrypted'] == 'true')",
            "set parameters.encrypted: \"true\"",
        )],
    },
];

const POD_RULES: &str = "    - apiGroups: [\"\"]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [pods, pods/ephemeralcontainers, replicationcontrollers]
    - apiGroups: [apps]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [deployments, daemonsets, statefulsets, replicasets]
    - apiGroups: [batch]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [jobs, cronjobs]
";

impl On {
    fn rules(self) -> String {
        let (group, resources) = match self {
            Self::Pods => return POD_RULES.to_owned(),
            Self::Roles => ("rbac.authorization.k8s.io", "roles, clusterroles"),
            Self::Bindings => ("rbac.authorization.k8s.io", "rolebindings, clusterrolebindings"),
            Self::Secrets => ("\"\"", "secrets"),
            Self::StorageClasses => ("storage.k8s.io", "storageclasses"),
        };
        format!(
            "    - apiGroups: [{group}]\n      apiVersions: [v1]\n      operations: [CREATE, UPDATE]\n      resources: [{resources}]\n"
        )
    }

    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Pods => &[
                (
                    "spec",
                    "object.kind == 'Pod' ? object.spec : object.kind == 'CronJob' ? object.spec.jobTemplate.spec.template.spec : object.spec.template.spec",
                ),
                (
                    "containers",
                    "variables.spec.containers + (has(variables.spec.initContainers) ? variables.spec.initContainers : []) + (has(variables.spec.ephemeralContainers) ? variables.spec.ephemeralContainers : [])",
                ),
            ],
            Self::Roles => {
                &[("rules", "has(object.rules) && object.rules != null ? object.rules : []")]
            }
            Self::Bindings | Self::Secrets | Self::StorageClasses => &[],
        }
    }

    /// Objects that the cluster itself makes are let through.
    fn conditions(self) -> &'static str {
        match self {
            Self::Roles | Self::Bindings => {
                "  matchConditions:\n  - name: not-by-the-cluster-itself\n    expression: \"!(object.metadata.name.startsWith('system:') && request.userInfo.groups.exists(g, g == 'system:masters')) && request.userInfo.username != 'system:serviceaccount:kube-system:clusterrole-aggregation-controller' && request.userInfo.username != 'system:apiserver'\"\n"
            }
            Self::Pods | Self::Secrets | Self::StorageClasses => "",
        }
    }

    /// Kinds without a namespace are always matched; a selector concerns the others.
    fn selector(self) -> &'static str {
        "  matchResources:\n    namespaceSelector:\n      matchExpressions:\n      - key: kubernetes.io/metadata.name\n        operator: NotIn\n        values: [kube-system, kube-public, kube-node-lease]\n"
    }
}

impl Policy {
    fn file(&self) -> PolicyFile {
        let Self { check, name, on, .. } = self;
        let mut text = format!(
            "# {check}: see `lastkey check`. Begin with validationActions: [Warn, Audit] in the binding.\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata:\n  name: {name}\nspec:\n  failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n"
        );
        text.push_str(&on.rules());
        text.push_str(on.conditions());
        let variables: Vec<_> = on.variables().iter().chain(self.variables).collect();
        if !variables.is_empty() {
            text.push_str("  variables:\n");
        }
        for (name, expression) in variables {
            text.push_str(&format!("  - name: {name}\n    expression: {}\n", quoted(expression)));
        }
        text.push_str("  validations:\n");
        for (expression, message) in self.validations {
            text.push_str(&format!(
                "  - expression: {}\n    message: {}\n",
                quoted(expression),
                quoted(&format!("{check}: {message}"))
            ));
        }
        text.push_str(&format!(
            "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata:\n  name: {name}\nspec:\n  policyName: {name}\n  validationActions: [Deny, Audit]\n{}",
            on.selector()
        ));
        PolicyFile { name: format!("{}-{name}.yaml", check.to_lowercase()), text, check }
    }
}

/// A YAML string in double quotes; JSON strings are YAML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// All admission policies, and a NetworkPolicy that denies for each namespace in which pods are;
/// with an outcome only those whose checks failed.
#[must_use]
pub fn policies(snapshot: &Snapshot, outcome: Option<&Outcome>) -> Vec<PolicyFile> {
    let failed: Option<BTreeMap<_, _>> = outcome.map(|outcome| outcome.states.clone());
    let is_wanted = |check: &str| {
        failed.as_ref().is_none_or(|states| {
            states.get(check) == Some(&State::Fail)
                || check == "RBA-01" && states.get("RBA-02") == Some(&State::Fail)
                || check == "RBA-09"
                    && ["RBA-07", "RBA-08"].iter().any(|id| states.get(id) == Some(&State::Fail))
        })
    };
    let mut files: Vec<PolicyFile> =
        POLICIES.iter().filter(|policy| is_wanted(policy.check)).map(Policy::file).collect();
    if is_wanted("NET-01") {
        let views = pods(snapshot);
        let namespaces: BTreeSet<&str> = views
            .iter()
            .map(|pod| pod.object.namespace())
            .filter(|name| !is_system(name))
            .collect();
        let names = if namespaces.is_empty() { BTreeSet::from(["default"]) } else { namespaces };
        files.extend(names.into_iter().map(default_deny));
    }
    files
}

fn default_deny(namespace: &str) -> PolicyFile {
    let text = format!(
        "# NET-01: nothing may come in or go out but what another policy allows; names are still resolved.\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: default-deny\n  namespace: {namespace}\nspec:\n  podSelector: {{}}\n  policyTypes: [Ingress, Egress]\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: allow-dns\n  namespace: {namespace}\nspec:\n  podSelector: {{}}\n  policyTypes: [Egress]\n  egress:\n  - to:\n    - namespaceSelector:\n        matchLabels:\n          kubernetes.io/metadata.name: kube-system\n      podSelector:\n        matchLabels:\n          k8s-app: kube-dns\n    ports:\n    - protocol: UDP\n      port: 53\n    - protocol: TCP\n      port: 53\n"
    );
    PolicyFile { name: format!("net-01-default-deny-{namespace}.yaml"), text, check: "NET-01" }
}

#[cfg(test)]
mod tests {
    use super::{POLICIES, policies};
    use crate::{
        posture::{Settings, check, judge},
        snapshot::Snapshot,
    };

    #[test]
    fn every_policy_belongs_to_a_check_and_is_whole_yaml() {
        let files = policies(&Snapshot::default(), None);
        assert_eq!(files.len(), POLICIES.len() + 1);
        for file in files {
            assert!(check(file.check).is_some(), "{}", file.name);
            let mut snapshot = Snapshot::default();
            snapshot.add_file(&file.name, file.text.as_bytes());
            assert!(snapshot.unreadable.is_empty(), "{:?}", snapshot.unreadable);
            assert_eq!(snapshot.objects.len(), 2, "{}", file.name);
        }
    }

    #[test]
    fn only_what_was_found_is_written_and_it_closes_the_namespace() {
        let mut snapshot = Snapshot::default();
        snapshot.add_file("p", b"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {hostPID: true, containers: [{name: c}]}}");
        let outcome = judge(&snapshot, Settings { now: 0 });
        let files = policies(&snapshot, Some(&outcome));
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert!(
            names.contains(&"net-01-default-deny-shop.yaml")
                && names.iter().any(|n| n.starts_with("pod-05")),
            "{names:?}"
        );
        assert!(!names.iter().any(|name| name.starts_with("rba-")), "{names:?}");
        for file in &files {
            snapshot.add_file(&file.name, file.text.as_bytes());
        }
        let after = judge(&snapshot, Settings { now: 0 });
        assert!(after.findings.iter().all(|finding| finding.rule != "NET-01"));
    }
}
