//! Families ETC and API: flags of the control plane, and its audit policy.
//!
//! Room      `checks`.
//! Source    CIS Kubernetes Benchmark 1.12, sections 1 to 3; k8s.io/apiserver: pkg/audit/policy
//!           for how audit rules match.

use crate::{
    finding::Severity,
    snapshot::{component::Component, object::Object, yaml::Node},
};

use super::{Fault, Judge, World};

/// Judges both families.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    for etcd in world.component("etcd") {
        store(etcd, judge);
    }
    for server in world.component("kube-apiserver") {
        to_etcd(server, judge);
        anonymous(world, server, judge);
        access(world, server, judge);
        records(server, judge);
        tokens(server, judge);
    }
    for manager in world.component("kube-controller-manager") {
        let is_right = manager.is_on("use-service-account-credentials");
        flag(
            judge,
            "API-08",
            manager,
            is_right,
            "all controllers act as one",
            "--use-service-account-credentials is not true",
        );
    }
    for component in &world.components {
        if matches!(component.name, "kube-apiserver" | "kube-controller-manager" | "kube-scheduler")
        {
            flag(
                judge,
                "API-10",
                component,
                component.is_off("profiling"),
                "profiling is open",
                "--profiling is not false",
            );
        }
    }
    let policies = world
        .snapshot
        .objects
        .iter()
        .filter(|object| object.kind == "Policy" && object.group() == "audit.k8s.io");
    policies.for_each(|policy| audit_policy(policy, judge));
}

fn flag(
    judge: &mut Judge,
    id: &'static str,
    component: &Component,
    is_right: bool,
    title: &str,
    evidence: &str,
) {
    judge.hold(id, is_right, || {
        Fault::new(component.name, component.place.clone(), title).evidence(evidence)
    });
}

fn is_set(component: &Component, name: &str) -> bool {
    component.flag(name).is_some_and(|value| !value.is_empty())
}

fn store(etcd: &Component, judge: &mut Judge) {
    let has = |names: &[&str]| names.iter().all(|name| is_set(etcd, name));
    let listens_in_clear =
        etcd.list("listen-client-urls").any(|url| url.starts_with("http://") && !is_local(url));
    let is_right = has(&["cert-file", "key-file", "trusted-ca-file"])
        && etcd.is_on("client-cert-auth")
        && !listens_in_clear;
    flag(
        judge,
        "ETC-01",
        etcd,
        is_right,
        "clients need no certificate",
        "--cert-file, --key-file, --trusted-ca-file and --client-cert-auth=true are not all set, or a client URL is http://",
    );
    let own = ["auto-tls", "peer-auto-tls"].into_iter().find(|name| etcd.is_on(name));
    flag(
        judge,
        "ETC-02",
        etcd,
        own.is_none(),
        "it makes its own certificates",
        &format!("--{} is true", own.unwrap_or_default()),
    );
    let is_right = has(&["peer-cert-file", "peer-key-file", "peer-trusted-ca-file"])
        && etcd.is_on("peer-client-cert-auth");
    flag(
        judge,
        "ETC-03",
        etcd,
        is_right,
        "members need no certificate",
        "--peer-cert-file, --peer-key-file, --peer-trusted-ca-file and --peer-client-cert-auth=true are not all set",
    );
}

fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
}

fn to_etcd(server: &Component, judge: &mut Judge) {
    let has_all =
        ["etcd-cafile", "etcd-certfile", "etcd-keyfile"].iter().all(|name| is_set(server, name));
    let in_clear = server.list("etcd-servers").any(|url| url.starts_with("http://"));
    flag(
        judge,
        "ETC-06",
        server,
        has_all && !in_clear,
        "the way to etcd is not proven at both ends",
        "--etcd-cafile, --etcd-certfile and --etcd-keyfile are not all set, or a server is http://",
    );
}

/// Paths that anonymous probes may ask for.
const HEALTH_PATHS: &[&str] = &["/livez", "/readyz", "/healthz"];

fn anonymous(world: &World<'_>, server: &Component, judge: &mut Judge) {
    if server.is_off("anonymous-auth") {
        return judge.pass("API-01");
    }
    if let Some(path) = server.flag("authentication-config") {
        let Some(configuration) = world.snapshot.of_kind("AuthenticationConfiguration").next()
        else {
            return judge.unknown("API-01", "kube-apiserver", format!("{path} was not given"));
        };
        let anonymous = configuration.root.get("anonymous");
        let conditions = anonymous.get("conditions").items();
        let is_limited = !conditions.is_empty()
            && conditions.iter().all(|c| HEALTH_PATHS.contains(&c.get("path").str()));
        let is_right = anonymous.get("enabled").bool() == Some(false) || is_limited;
        return judge.hold("API-01", is_right, || {
            Fault::new(configuration.subject(), configuration.place_of(anonymous), "anonymous requests are taken for more than health")
                .severity(Severity::Medium)
                .evidence("anonymous is not limited to /livez, /readyz and /healthz")
                .fix("anonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n  - path: /readyz\n  - path: /healthz\n")
        });
    }
    let fault = Fault::new("kube-apiserver", server.place.clone(), "anonymous requests are taken")
        .severity(Severity::Medium)
        .evidence("--anonymous-auth is not false, and there is no --authentication-config");
    judge.fail("API-01", fault);
}

fn access(world: &World<'_>, server: &Component, judge: &mut Judge) {
    let tokens = server.flag("token-auth-file");
    flag(
        judge,
        "API-02",
        server,
        tokens.is_none(),
        "static tokens are taken",
        &format!("--token-auth-file={}", tokens.unwrap_or_default()),
    );
    let configured = server.flag("authorization-config").is_some();
    let modes: Vec<&str> = if configured {
        let objects = world.snapshot.of_kind("AuthorizationConfiguration");
        objects
            .flat_map(|object| object.root.get("authorizers").items())
            .filter_map(|a| a.get("type").text())
            .collect()
    } else {
        server.list("authorization-mode").collect()
    };
    if configured && modes.is_empty() {
        judge.unknown(
            "API-03",
            "kube-apiserver",
            "the file of --authorization-config was not given",
        );
    } else {
        let is_right =
            modes.contains(&"Node") && modes.contains(&"RBAC") && !modes.contains(&"AlwaysAllow");
        flag(
            judge,
            "API-03",
            server,
            is_right,
            "requests are not authorized by Node and RBAC alone",
            &format!(
                "modes: {}",
                if modes.is_empty() {
                    "AlwaysAllow, the default".to_owned()
                } else {
                    modes.join(",")
                }
            ),
        );
    }
    let is_on = server.list("enable-admission-plugins").any(|plugin| plugin == "NodeRestriction")
        && !server.list("disable-admission-plugins").any(|plugin| plugin == "NodeRestriction");
    flag(
        judge,
        "API-04",
        server,
        is_on,
        "kubelets may change what is not theirs",
        "NodeRestriction is not in --enable-admission-plugins",
    );
}

fn number(server: &Component, name: &str) -> i64 {
    server.flag(name).and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Days for which records have to be kept (Cybersecurity Law, article 21).
const RECORD_DAYS: i64 = 180;

fn records(server: &Component, judge: &mut Judge) {
    let to_file = is_set(server, "audit-log-path");
    let to_webhook = is_set(server, "audit-webhook-config-file");
    if !is_set(server, "audit-policy-file") || !(to_file || to_webhook) {
        flag(
            judge,
            "API-05",
            server,
            false,
            "requests are not recorded",
            "--audit-policy-file and one of --audit-log-path and --audit-webhook-config-file are not set",
        );
    } else if to_file {
        let rotates = ["audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize"]
            .iter()
            .all(|name| number(server, name) > 0);
        judge.hold("API-05", rotates || to_webhook, || {
            Fault::new(
                "kube-apiserver",
                server.place.clone(),
                "nothing says how long records stay and how much disk they take",
            )
            .severity(Severity::Low)
            .evidence(
                "--audit-log-maxage, --audit-log-maxbackup and --audit-log-maxsize are not all set",
            )
        });
    } else {
        judge.pass("API-05");
    }
    let days = number(server, "audit-log-maxage");
    if to_webhook {
        judge.unknown(
            "MLP-01",
            "kube-apiserver",
            "records go to a webhook; how long it keeps them is not known here",
        );
    } else {
        flag(
            judge,
            "MLP-01",
            server,
            to_file && days >= RECORD_DAYS,
            "records do not stay six months",
            &format!("--audit-log-maxage={days}"),
        );
    }
}

fn tokens(server: &Component, judge: &mut Judge) {
    let faults = [
        (
            server.is_off("service-account-lookup"),
            "tokens of deleted ServiceAccounts still work",
            "--service-account-lookup=false",
            Severity::High,
        ),
        (
            !is_set(server, "service-account-key-file"),
            "the key of tokens is not named, so the key of TLS is used",
            "--service-account-key-file is not set",
            Severity::Medium,
        ),
        (
            !server.is_off("service-account-extend-token-expiration"),
            "tokens live a year in place of an hour",
            "--service-account-extend-token-expiration is not false",
            Severity::Low,
        ),
    ];
    for (is_wrong, title, evidence, severity) in faults {
        judge.hold("API-07", !is_wrong, || {
            Fault::new("kube-apiserver", server.place.clone(), title)
                .evidence(evidence)
                .severity(severity)
        });
    }
}

/// A request by which an audit policy is tried.
struct Request {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    /// Its body or its answer holds a secret.
    is_secret: bool,
}

const fn request(
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    is_secret: bool,
) -> Request {
    Request { verb, group, resource, is_secret }
}

const REQUESTS: &[Request] = &[
    request("get", "", "secrets", true),
    request("list", "", "secrets", true),
    request("watch", "", "secrets", true),
    request("create", "", "secrets", true),
    request("update", "", "secrets", true),
    request("patch", "", "secrets", true),
    request("delete", "", "secrets", false),
    request("deletecollection", "", "secrets", true),
    request("get", "", "configmaps", true),
    request("update", "", "configmaps", true),
    request("create", "", "serviceaccounts/token", true),
    request("create", "authentication.k8s.io", "tokenreviews", true),
];

fn audit_policy(policy: &Object, judge: &mut Judge) {
    judge.pass("API-06");
    let mut silent = Vec::new();
    let mut loud = Vec::new();
    for request in REQUESTS {
        let (level, rule) = level(policy, request);
        let name = format!("{} {}", request.verb, request.resource);
        match level {
            "Metadata" => {}
            "Request" | "RequestResponse" => {
                let is_read = matches!(request.verb, "get" | "list" | "watch");
                if request.is_secret && !(is_read && level == "Request") {
                    loud.push((name, rule));
                }
            }
            _ => silent.push((name, rule)),
        }
    }
    for (found, title, what) in [
        (silent, "access to Secrets is not recorded", "silent"),
        (loud, "values of Secrets are written into the audit log", "loud"),
    ] {
        let Some((_, rule)) = found.first() else { continue };
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let place = rule.map_or_else(|| policy.place.clone(), |rule| policy.place_of(rule));
        let fault = Fault::new(policy.subject(), place, title)
            .evidence(names.join(", "))
            .detail(what)
            .fix(FIRST_RULE);
        judge.fail("API-06", fault);
    }
}

const FIRST_RULE: &str = "\
# as the first rule:
- level: Metadata
  resources:
  - group: \"\"
    resources: [secrets, configmaps, serviceaccounts/token]
  - group: authentication.k8s.io
    resources: [tokenreviews]
";

/// The level of the first rule that takes a request of an ordinary ServiceAccount.
fn level<'a>(policy: &'a Object, request: &Request) -> (&'a str, Option<&'a Node>) {
    let rules = policy.root.get("rules").items();
    let rule = rules.iter().find(|rule| takes(rule, request));
    (rule.map_or("None", |rule| rule.get("level").str()), rule)
}

fn takes(rule: &Node, request: &Request) -> bool {
    let is_for = |field: &str, mine: &[&str]| {
        let list = rule.get(field);
        list.items().is_empty() || mine.iter().any(|name| list.has(name))
    };
    let resources = rule.get("resources").items();
    let is_url = !rule.get("nonResourceURLs").items().is_empty();
    is_for("users", &["system:serviceaccount:shop:app"])
        && is_for(
            "userGroups",
            &["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:shop"],
        )
        && is_for("verbs", &[request.verb])
        && is_for("namespaces", &["shop"])
        && (resources.is_empty() && !is_url || resources.iter().any(|entry| names(entry, request)))
}

fn names(entry: &Node, request: &Request) -> bool {
    let (resource, sub) = request.resource.split_once('/').unwrap_or((request.resource, ""));
    let list = entry.get("resources");
    entry.get("group").str() == request.group
        && entry.get("resourceNames").items().is_empty()
        && (list.items().is_empty()
            || list.texts().any(|known| {
                known == "*"
                    || known == request.resource
                    || !sub.is_empty()
                        && (known == format!("{resource}/*") || known == format!("*/{sub}"))
            }))
}
