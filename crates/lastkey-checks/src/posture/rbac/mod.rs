//! Family RBA: who can read Secrets in effect, and who can become somebody who can.
//!
//! Room      `checks`. Roles are judged together with their bindings; a role that nothing here
//!           binds is told with severity info, because its binding may lie elsewhere.
//! Source    k8s.io/kubernetes: plugin/pkg/auth/authorizer/rbac, pkg/apis/rbac/v1/evaluation_helpers.go.

mod danger;
mod grant;
mod stale;

use std::collections::BTreeMap;

use crate::finding::Severity;

use self::{
    danger::{DANGERS, Danger},
    grant::{Grant, Rule, Subject, grants, unbound},
    stale::Known,
};
use super::{Fault, Judge, World, catalogue::check};

/// Judges the family.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    let grants = grants(world.snapshot);
    let unbound = unbound(world.snapshot, &grants);
    if grants.is_empty() && unbound.is_empty() {
        return;
    }
    for id in DANGERS
        .iter()
        .map(|danger| danger.check)
        .chain(["RBA-03", "RBA-04", "RBA-10", "RBA-12", "RBA-15", "RBA-16"])
    {
        judge.pass(id);
    }
    let known = Known::of(world);
    for grant in grants.iter().filter(|grant| !grant.is_bootstrap()) {
        administrators(grant, judge);
        strangers(grant, judge);
        built_in(grant, judge);
        stale::judge(&known, grant, judge);
        if !grant.is_administrator() {
            dangers(grant, judge);
            wildcards(grant, judge);
            signers(grant, judge);
        }
    }
    for grant in &unbound {
        dangers(grant, judge);
        wildcards(grant, judge);
        aggregated(grant, judge);
    }
    become_account(&grants, judge);
}

fn fault(grant: &Grant<'_>, title: String, id: &str) -> Fault {
    let place = grant.place();
    let severity = check(id).map_or(Severity::Medium, |check| check.severity);
    let severity = match (grant.binding, grant.namespace) {
        (None, _) => Severity::Info,
        (Some(_), Some(_)) => lower(severity),
        (Some(_), None) => severity,
    };
    Fault::new(grant.subject(), place, title).severity(severity).evidence(grant.describe())
}

fn lower(severity: Severity) -> Severity {
    match severity {
        Severity::Critical => Severity::High,
        Severity::High => Severity::Medium,
        Severity::Medium => Severity::Low,
        Severity::Low | Severity::Info => Severity::Info,
    }
}

fn administrators(grant: &Grant<'_>, judge: &mut Judge) {
    let masters = grant.subjects.iter().any(|s| s.kind == "Group" && s.name == "system:masters");
    if grant.is_administrator() {
        let scope =
            grant.namespace.map_or("the whole cluster".to_owned(), |n| format!("namespace {n}"));
        let title = format!("{} may do everything in {scope}", grant.who());
        judge.fail("RBA-12", fault(grant, title, "RBA-12").fix(grant.unbind()));
    } else if masters {
        let title =
            "grants to system:masters, who may do everything already and cannot be taken back"
                .to_owned();
        judge.fail(
            "RBA-12",
            fault(grant, title, "RBA-12").severity(Severity::Medium).fix(grant.unbind()),
        );
    }
}

/// Roles that Kubernetes itself gives to everyone.
const PUBLIC_ROLES: &[&str] = &[
    "system:discovery",
    "system:basic-user",
    "system:public-info-viewer",
    "system:service-account-issuer-discovery",
];

fn strangers(grant: &Grant<'_>, judge: &mut Judge) {
    if PUBLIC_ROLES.contains(&grant.role_name) || grant.is_administrator() {
        return;
    }
    for subject in &grant.subjects {
        let (who, severity) = match (subject.kind, subject.name) {
            ("User", "system:anonymous") | ("Group", "system:unauthenticated") => {
                ("everyone who reaches the API", Severity::Critical)
            }
            ("Group", "system:authenticated") => ("everyone with any credential", Severity::High),
            ("Group", "system:serviceaccounts") => ("every pod of the cluster", Severity::High),
            _ => continue,
        };
        let title = format!("{} is granted to {who}", grant.role_name);
        let fault = fault(grant, title, "RBA-12").severity(severity).fix(grant.unbind());
        judge.fail("RBA-12", fault.detail(format!("{} {}", grant.role_name, subject.name)));
    }
}

fn built_in(grant: &Grant<'_>, judge: &mut Judge) {
    if grant.is_built_in && matches!(grant.role_name, "admin" | "edit") {
        let title = format!(
            "{} reads all Secrets{} by the built-in role {}",
            grant.who(),
            grant.scope(),
            grant.role_name
        );
        let mut fault = fault(grant, title, "RBA-03").fix(grant.unbind());
        fault.severity =
            Some(if grant.namespace.is_some() { Severity::Medium } else { Severity::High });
        judge.fail("RBA-03", fault);
    }
}

/// A role that adds to admin, edit or view reaches everyone who has those.
fn aggregated(grant: &Grant<'_>, judge: &mut Judge) {
    let Some(role) = grant.role else { return };
    for name in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
        let reads = grant
            .rules
            .iter()
            .any(|rule| rule.allows("get", "", "secrets") || rule.allows("list", "", "secrets"));
        if role.label(&label) == Some("true") && reads && !role.name.starts_with("system:") {
            let title = format!("adds reading Secrets to the built-in role {name}");
            let severity = if name == "view" { Severity::High } else { Severity::Medium };
            judge.fail(
                "RBA-03",
                Fault::new(role.subject(), role.place.clone(), title)
                    .severity(severity)
                    .fix("Remove the label, or secrets from the rules."),
            );
            return;
        }
    }
}

/// One finding for each check and grant, with everything that leads to it.
fn dangers(grant: &Grant<'_>, judge: &mut Judge) {
    let mut found: BTreeMap<&'static str, Vec<(&Danger, &str, &Rule<'_>)>> = BTreeMap::new();
    for rule in &grant.rules {
        for danger in
            DANGERS.iter().filter(|danger| !danger.is_cluster_wide || grant.namespace.is_none())
        {
            if let Some(verb) = danger.verb(rule) {
                found.entry(danger.check).or_default().push((danger, verb, rule));
            }
        }
    }
    for (id, hits) in found {
        let mut ways: Vec<String> =
            hits.iter().map(|(danger, verb, _)| format!("{verb} {}", danger.resource)).collect();
        ways.sort_unstable();
        ways.dedup();
        let Some((danger, _, rule)) = hits.first() else { continue };
        let title = format!("{} {}{}", grant.who(), danger.what, grant.scope());
        let evidence = format!("{}: {}", grant.describe(), ways.join(", "));
        let mut fault = fault(grant, title, id)
            .evidence(evidence)
            .detail(ways.join(","))
            .fix(rule.without(danger, grant.role));
        if let Some(role) = grant.role {
            fault.place = role.place_of(rule.node);
        }
        judge.fail(id, fault);
    }
}

fn wildcards(grant: &Grant<'_>, judge: &mut Judge) {
    for rule in grant.rules.iter().filter(|rule| !rule.resources.is_empty()) {
        let lists =
            [("verbs", &rule.verbs), ("resources", &rule.resources), ("apiGroups", &rule.groups)];
        let wild: Vec<&str> =
            lists.iter().filter(|(_, list)| list.contains(&"*")).map(|(name, _)| *name).collect();
        if wild.is_empty() || wild == ["apiGroups"] {
            continue;
        }
        let what = rule.resources.join(", ");
        let title = format!("a wildcard in {} of a rule for {what}", wild.join(" and "));
        let mut fault = fault(grant, title, "RBA-04");
        if let Some(role) = grant.role {
            fault.place = role.place_of(rule.node);
        }
        judge.fail("RBA-04", fault);
    }
}

/// Approval and signature of certificates in one hand.
fn signers(grant: &Grant<'_>, judge: &mut Judge) {
    const GROUP: &str = "certificates.k8s.io";
    let may = |verbs: &[&str], resource| {
        grant.rules.iter().any(|rule| verbs.iter().any(|verb| rule.allows(verb, GROUP, resource)))
    };
    let signs = |verb| {
        grant.rules.iter().any(|rule| {
            let is_any = rule.names.is_empty()
                || rule.names.iter().any(|name| {
                    matches!(*name, "kubernetes.io/*" | "kubernetes.io/kube-apiserver-client")
                });
            is_any && rule.covers(verb, GROUP, "signers")
        })
    };
    let approves =
        may(&["update", "patch"], "certificatesigningrequests/approval") && signs("approve");
    let issues = may(&["update", "patch"], "certificatesigningrequests/status") && signs("sign");
    if grant.namespace.is_none() && (approves || issues) {
        let title = format!(
            "{} {} client certificates of any name",
            grant.who(),
            if approves { "approves" } else { "signs" }
        );
        judge.fail("RBA-10", fault(grant, title, "RBA-10"));
    }
}

/// What a ServiceAccount can do that is worth becoming it.
fn is_worth(grant: &Grant<'_>) -> bool {
    grant.namespace.is_none()
        && (grant.is_administrator()
            || grant.rules.iter().any(|rule| {
                ["get", "list", "watch"].iter().any(|verb| rule.allows(verb, "", "secrets"))
            }))
}

/// Paths over somebody else's ServiceAccount to all Secrets of the cluster.
fn become_account(grants: &[Grant<'_>], judge: &mut Judge) {
    let mut victims: BTreeMap<(&str, &str), &Grant<'_>> = BTreeMap::new();
    for grant in grants.iter().filter(|grant| is_worth(grant)) {
        for subject in grant.subjects.iter().filter(|s| s.kind == "ServiceAccount") {
            victims.entry((subject.namespace, subject.name)).or_insert(grant);
        }
    }
    for grant in grants.iter().filter(|grant| !grant.is_bootstrap() && !is_worth(grant)) {
        let Some(way) = grant.way_to_become() else { continue };
        let reachable = victims.iter().find(|((namespace, name), _)| {
            grant.namespace.is_none_or(|own| own == *namespace)
                && grant.may_become(name)
                && !grant.subjects.iter().any(|s| s.is(namespace, name))
        });
        if let Some(((namespace, name), victim)) = reachable {
            let title = format!(
                "{} {way} and so becomes ServiceAccount {namespace}/{name}, which reads all Secrets",
                grant.who()
            );
            let evidence =
                format!("{} -> {namespace}/{name} -> {}", grant.describe(), victim.describe());
            judge.fail(
                "RBA-15",
                fault(grant, title, "RBA-15")
                    .severity(Severity::High)
                    .evidence(evidence)
                    .detail(format!("{namespace}/{name}")),
            );
        }
    }
}

impl Subject<'_> {
    fn is(&self, namespace: &str, name: &str) -> bool {
        self.kind == "ServiceAccount" && self.namespace == namespace && self.name == name
    }
}
