//! Grants: what a binding gives to whom, its role resolved.
//!
//! Room      `checks`.
//! Source    k8s.io/kubernetes: pkg/apis/rbac/v1/evaluation_helpers.go for how rules match,
//!           pkg/controller/clusterroleaggregation for how roles are put together.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use crate::snapshot::{
    Snapshot,
    object::{Object, Place},
    yaml::Node,
};

use super::danger::Danger;

/// One rule of a role.
#[derive(Clone, Debug)]
pub(super) struct Rule<'a> {
    pub(super) node: &'a Node,
    pub(super) verbs: Vec<&'a str>,
    pub(super) groups: Vec<&'a str>,
    pub(super) resources: Vec<&'a str>,
    pub(super) names: Vec<&'a str>,
}

impl<'a> Rule<'a> {
    fn read(node: &'a Node) -> Self {
        let list = |name| node.get(name).texts().collect();
        Self {
            node,
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
        }
    }

    /// Whether it allows a verb on every object of a resource: a rule with names does not.
    pub(super) fn allows(&self, verb: &str, group: &str, resource: &str) -> bool {
        self.names.is_empty() && self.covers(verb, group, resource)
    }

    /// Whether it allows a verb on some objects of a resource.
    pub(super) fn covers(&self, verb: &str, group: &str, resource: &str) -> bool {
        let has =
            |list: &[&str], item: &str| list.iter().any(|known| *known == "*" || *known == item);
        let subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        has(&self.verbs, verb)
            && has(&self.groups, group)
            && (has(&self.resources, resource)
                || subresource.is_some_and(|any| self.resources.contains(&any.as_str())))
    }

    fn is_everything(&self) -> bool {
        [&self.verbs, &self.groups, &self.resources].iter().all(|list| list.contains(&"*"))
            && self.names.is_empty()
    }

    /// The role with this rule mended.
    pub(super) fn without(&self, danger: &Danger, role: Option<&Object>) -> String {
        let name = role.map(Object::subject).unwrap_or_default();
        let is_bad = |verb: &&&str| **verb == "*" || danger.verbs.contains(*verb);
        let verbs: Vec<&str> = self.verbs.iter().filter(|verb| !is_bad(verb)).copied().collect();
        let list = |items: &[&str]| {
            items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("# {name}: this rule becomes\n");
        if verbs.is_empty() {
            text.push_str(&format!("# nothing: delete it. Where single objects are needed, name them:\n- apiGroups: [{}]\n  resources: [{}]\n  verbs: [{}]\n  resourceNames: [\"NAME\"]\n", list(&self.groups), list(&self.resources), list(&self.verbs)));
        } else {
            text.push_str(&format!(
                "- apiGroups: [{}]\n  resources: [{}]\n  verbs: [{}]\n",
                list(&self.groups),
                list(&self.resources),
                list(&verbs)
            ));
        }
        text
    }
}

/// Who is granted something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == "ServiceAccount" {
            write!(f, "ServiceAccount {}/{}", self.namespace, self.name)
        } else {
            write!(f, "{} {}", self.kind, self.name)
        }
    }
}

/// A role given to somebody, or, without a binding, to nobody here.
#[derive(Clone, Debug)]
pub(super) struct Grant<'a> {
    pub(super) binding: Option<&'a Object>,
    pub(super) role: Option<&'a Object>,
    pub(super) role_name: &'a str,
    pub(super) rules: Vec<Rule<'a>>,
    /// Where it holds; `None` for everywhere.
    pub(super) namespace: Option<&'a str>,
    pub(super) subjects: Vec<Subject<'a>>,
    /// The role is one of Kubernetes' own and not among the objects.
    pub(super) is_built_in: bool,
    /// The role is nowhere.
    pub(super) is_unresolved: bool,
}

impl Grant<'_> {
    pub(super) fn place(&self) -> Place {
        let object = self.binding.or(self.role);
        object.map_or_else(|| Place::whole(&"".into()), |object| object.place.clone())
    }

    pub(super) fn subject(&self) -> String {
        self.binding.or(self.role).map(Object::subject).unwrap_or_default()
    }

    /// In words: by which binding and role.
    pub(super) fn describe(&self) -> String {
        let role =
            self.role.map_or_else(|| format!("ClusterRole/{}", self.role_name), Object::subject);
        match self.binding {
            Some(binding) => format!("{} gives {role}", binding.subject()),
            None => format!("{role}, which nothing here binds"),
        }
    }

    /// The subjects in words.
    pub(super) fn who(&self) -> String {
        let mut names: Vec<String> = self.subjects.iter().take(3).map(Subject::to_string).collect();
        if self.subjects.len() > 3 {
            names.push(format!("{} more", self.subjects.len() - 3));
        }
        match names.is_empty() {
            false => names.join(", "),
            true if self.binding.is_none() => "whoever is bound".to_owned(),
            true => "nobody".to_owned(),
        }
    }

    /// ` in namespace x`, or ` everywhere`.
    pub(super) fn scope(&self) -> String {
        match (self.binding, self.namespace) {
            (None, _) => String::new(),
            (Some(_), Some(namespace)) => format!(" in namespace {namespace}"),
            (Some(_), None) => " in all namespaces".to_owned(),
        }
    }

    /// How to take it back.
    pub(super) fn unbind(&self) -> String {
        let Some(binding) = self.binding else { return String::new() };
        let namespace = self.namespace.map(|n| format!(" -n {n}")).unwrap_or_default();
        format!(
            "kubectl{namespace} delete {} {}\n# or take out of its subjects: {}",
            binding.kind.to_lowercase(),
            binding.name,
            self.who()
        )
    }

    pub(super) fn is_administrator(&self) -> bool {
        (self.is_built_in && self.role_name == "cluster-admin")
            || self.rules.iter().any(Rule::is_everything)
    }

    /// One of the bindings that every cluster is born with, still as it was.
    pub(super) fn is_bootstrap(&self) -> bool {
        let Some(binding) = self.binding else { return false };
        let is_own = |s: &Subject<'_>| match s.kind {
            "ServiceAccount" => s.namespace == "kube-system",
            _ => {
                s.name.starts_with("system:")
                    && !matches!(s.name, "system:anonymous" | "system:unauthenticated")
            }
        };
        binding.label("kubernetes.io/bootstrapping") == Some("rbac-defaults")
            && (binding.name.starts_with("system:")
                && self.role_name.starts_with("system:")
                && self.subjects.iter().all(is_own)
                || binding.name == "cluster-admin"
                    && matches!(self.subjects.as_slice(), [only] if only.name == "system:masters")
                || binding.name.starts_with("system:")
                    && self.role_name.starts_with("system:public-info"))
    }

    /// How its subjects can act as a ServiceAccount of the place.
    pub(super) fn way_to_become(&self) -> Option<&'static str> {
        let may = |verbs: &[&str], group: &str, resource: &str| {
            self.rules.iter().any(|rule| {
                verbs.iter().any(|verb| {
                    rule.covers(verb, group, resource)
                        && (rule.names.is_empty() || resource.starts_with("serviceaccounts"))
                })
            })
        };
        let makes_pods = [
            ("", "pods"),
            ("apps", "deployments"),
            ("apps", "daemonsets"),
            ("apps", "statefulsets"),
            ("apps", "replicasets"),
            ("batch", "jobs"),
            ("batch", "cronjobs"),
            ("", "replicationcontrollers"),
        ];
        if self.is_built_in && matches!(self.role_name, "admin" | "edit")
            || makes_pods.iter().any(|(group, resource)| may(&["create"], group, resource))
        {
            Some("creates pods")
        } else if may(&["create"], "", "serviceaccounts/token") {
            Some("issues tokens")
        } else if may(&["impersonate"], "", "serviceaccounts") {
            Some("impersonates")
        } else if may(&["create", "get"], "", "pods/exec") {
            Some("enters pods")
        } else {
            None
        }
    }

    /// Whether rules with names leave this account open.
    pub(super) fn may_become(&self, account: &str) -> bool {
        self.is_built_in
            || self.rules.iter().any(|rule| {
                rule.names.is_empty()
                    || rule.names.contains(&account)
                        && rule.resources.iter().any(|r| r.starts_with("serviceaccounts"))
            })
    }
}

/// All grants of a snapshot.
pub(super) fn grants(snapshot: &Snapshot) -> Vec<Grant<'_>> {
    let roles = Roles::of(snapshot);
    let bindings = snapshot.objects.iter().filter(|object| {
        object.group() == "rbac.authorization.k8s.io"
            && matches!(object.kind.as_str(), "RoleBinding" | "ClusterRoleBinding")
    });
    bindings.map(|binding| roles.grant(binding)).collect()
}

/// Roles that no binding here gives to anybody.
pub(super) fn unbound<'a>(snapshot: &'a Snapshot, grants: &[Grant<'a>]) -> Vec<Grant<'a>> {
    let bound: HashSet<(&str, &str)> = grants
        .iter()
        .filter_map(|g| g.role)
        .map(|role| (role.kind.as_str(), role.name.as_str()))
        .collect();
    let roles = Roles::of(snapshot);
    let all = snapshot.objects.iter().filter(|object| {
        matches!(object.kind.as_str(), "Role" | "ClusterRole")
            && object.group() == "rbac.authorization.k8s.io"
    });
    all.filter(|role| {
        !bound.contains(&(role.kind.as_str(), role.name.as_str()))
            && role.label("kubernetes.io/bootstrapping").is_none()
    })
    .map(|role| Grant {
        binding: None,
        role: Some(role),
        role_name: &role.name,
        rules: roles.rules(role),
        namespace: (role.kind == "Role").then(|| role.namespace()),
        subjects: Vec::new(),
        is_built_in: false,
        is_unresolved: false,
    })
    .collect()
}

struct Roles<'a> {
    cluster: HashMap<&'a str, &'a Object>,
    local: HashMap<(&'a str, &'a str), &'a Object>,
}

impl<'a> Roles<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let cluster =
            snapshot.of_kind("ClusterRole").map(|role| (role.name.as_str(), role)).collect();
        let local = snapshot
            .of_kind("Role")
            .map(|role| ((role.namespace(), role.name.as_str()), role))
            .collect();
        Self { cluster, local }
    }

    fn grant(&self, binding: &'a Object) -> Grant<'a> {
        let reference = binding.root.get("roleRef");
        let role_name = reference.get("name").str();
        let is_local = reference.get("kind").text() == Some("Role");
        let role = if is_local {
            self.local.get(&(binding.namespace(), role_name)).copied()
        } else {
            self.cluster.get(role_name).copied()
        };
        let is_own = !is_local
            && (matches!(role_name, "cluster-admin" | "admin" | "edit" | "view")
                || role_name.starts_with("system:"));
        Grant {
            binding: Some(binding),
            role,
            role_name,
            rules: role.map(|role| self.rules(role)).unwrap_or_default(),
            namespace: (binding.kind == "RoleBinding").then(|| binding.namespace()),
            subjects: binding
                .root
                .get("subjects")
                .items()
                .iter()
                .map(|node| subject(node, binding))
                .collect(),
            is_built_in: is_own
                && role.is_none_or(|role| role.label("kubernetes.io/bootstrapping").is_some()),
            is_unresolved: role.is_none() && !is_own,
        }
    }

    /// Its own rules and those that its selectors take from other roles.
    fn rules(&self, role: &'a Object) -> Vec<Rule<'a>> {
        let mut rules: Vec<Rule<'a>> =
            role.root.get("rules").items().iter().map(Rule::read).collect();
        for selector in role.root.at("aggregationRule.clusterRoleSelectors").items() {
            let labels = selector.get("matchLabels").entries();
            let parts = self.cluster.values().filter(|other| {
                other.name != role.name
                    && !labels.is_empty()
                    && labels.iter().all(|(name, value)| other.label(name) == value.text())
            });
            rules.extend(parts.flat_map(|part| part.root.get("rules").items()).map(Rule::read));
        }
        rules
    }
}

fn subject<'a>(node: &'a Node, binding: &'a Object) -> Subject<'a> {
    let namespace = node.get("namespace").text();
    let name = node.get("name").str();
    // A user may be the name of a ServiceAccount.
    if let Some((namespace, name)) =
        name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        return Subject { kind: "ServiceAccount", name, namespace };
    }
    Subject {
        kind: node.get("kind").str(),
        name,
        namespace: namespace.unwrap_or_else(|| binding.namespace()),
    }
}
