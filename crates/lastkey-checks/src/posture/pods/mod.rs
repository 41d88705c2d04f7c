//! Family POD: pods in all kinds of containers and workloads; ADM-01: what stops them.
//!
//! Room      `checks`.
//! Source    Pod Security Standards (kubernetes.io/docs/concepts/security/pod-security-standards).

mod credentials;
mod tokens;

use std::collections::HashMap;

use crate::{
    finding::Severity,
    snapshot::{
        component::Component,
        object::Object,
        pod::{Container, PodView},
        yaml::Node,
    },
};

use super::{Fault, Judge, World, patch};

/// Judges the family.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    let accounts: HashMap<(&str, &str), &Object> = world
        .snapshot
        .of_kind("ServiceAccount")
        .map(|account| ((account.namespace(), account.name.as_str()), account))
        .collect();
    if !world.pods.is_empty() {
        for id in ["POD-01", "POD-02", "POD-03", "POD-05", "POD-06", "POD-07"] {
            judge.pass(id);
        }
    }
    for pod in world.pods.iter().filter(|pod| !is_control_plane(pod)) {
        token(pod, &accounts, judge);
        variables(pod, judge);
        host(pod, judge);
        shared_processes(pod, judge);
        for container in pod.containers() {
            boundaries(pod, &container, judge);
            rights(pod, &container, judge);
        }
    }
    credentials::judge(world, judge);
    tokens::judge(world, judge);
    admission(world, judge);
}

/// Static pods of the control plane need the host by nature; their files are judged elsewhere.
fn is_control_plane(pod: &PodView<'_>) -> bool {
    pod.object.namespace() == "kube-system"
        && pod.object.kind == "Pod"
        && pod.containers().any(|container| {
            let (command, args) = (container.node.get("command"), container.node.get("args"));
            let words: Vec<&str> = command.texts().chain(args.texts()).collect();
            Component::from_command(&words, pod.object.place.clone()).is_some()
        })
}

fn token(pod: &PodView<'_>, accounts: &HashMap<(&str, &str), &Object>, judge: &mut Judge) {
    let name = pod.service_account();
    let account = accounts.get(&(pod.object.namespace(), name));
    let field = "automountServiceAccountToken";
    let setting = pod.spec.get(field).bool();
    let inherited = account.and_then(|account| account.root.get(field).bool());
    if setting.or(inherited) != Some(false) && !wants_api(pod) {
        let title = "a token of the API is mounted, and nothing says that it is needed";
        let fault = Fault::new(pod.object.subject(), pod.place_of(pod.spec), title)
            .evidence(format!("serviceAccountName: {name}, {field} not false"))
            .fix(patch::pod(pod, "automountServiceAccountToken: false"));
        judge.fail("POD-01", fault);
    }
    if name == "default" && setting.or(inherited) != Some(false) {
        let fix = format!("serviceAccountName: {}", pod.object.name);
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(pod.spec),
            "runs as the ServiceAccount default",
        )
        .evidence("serviceAccountName: default, with its token")
        .fix(patch::pod(pod, &fix));
        judge.fail("POD-02", fault);
    }
}

/// A workload that names an account of its own and says true means it.
fn wants_api(pod: &PodView<'_>) -> bool {
    pod.spec.get("automountServiceAccountToken").is_true() && pod.service_account() != "default"
}

fn variables(pod: &PodView<'_>, judge: &mut Judge) {
    for container in pod.containers() {
        let by_name = container.node.get("env").items().iter().filter_map(|variable| {
            let secret = variable.at("valueFrom.secretKeyRef");
            let what =
                format!("{} from Secret {}", variable.get("name").str(), secret.get("name").str());
            secret.is_there().then_some((what, secret))
        });
        let whole = container.node.get("envFrom").items().iter().filter_map(|source| {
            let secret = source.get("secretRef");
            let what = format!("all of Secret {}", secret.get("name").str());
            secret.is_there().then_some((what, secret))
        });
        for (what, node) in by_name.chain(whole) {
            let secret = node.get("name").str();
            let body = format!(
                "volumeMounts:\n- name: {secret}\n  mountPath: /run/secrets/{secret}\n  readOnly: true"
            );
            let fix = patch::container(pod, &container, &body)
                + &format!(
                    "# and in the pod's volumes: {{name: {secret}, secret: {{secretName: {secret}, defaultMode: 0400}}}};\n# then remove the variable and read the file.\n"
                );
            let fault = Fault::new(
                pod.object.subject(),
                pod.place_of(node),
                "a Secret comes by an environment variable",
            )
            .evidence(format!("{} {}: {what}", container.role.field(), container.name()))
            .detail(format!("{} {what}", container.name()))
            .fix(fix);
            judge.fail("POD-03", fault);
        }
    }
}

/// Folders of the host whose content is keys or Secrets, or leads to them.
const SECRET_PATHS: &[&str] = &[
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd",
    "/var/run/containerd",
    "/run/crio",
    "/var/run/crio",
    "/root",
    "/etc",
    "/proc",
    "/var",
    "/var/lib",
    "/run",
    "/var/run",
    "/dev",
    "/home",
];

fn host(pod: &PodView<'_>, judge: &mut Judge) {
    for field in ["hostPID", "hostIPC", "hostNetwork"] {
        let node = pod.spec.get(field);
        if node.is_true() {
            let fault = Fault::new(
                pod.object.subject(),
                pod.place_of(node),
                format!("shares the host: {field}"),
            )
            .evidence(format!("{field}: true"))
            .fix(patch::pod(pod, &format!("{field}: false")));
            judge.fail("POD-05", fault);
        }
    }
    for volume in pod.spec.get("volumes").items() {
        let node = volume.at("hostPath.path");
        let Some(path) = node.text() else { continue };
        let plain = normal(path);
        let is_worst = plain == "/"
            || SECRET_PATHS.contains(&plain.as_str())
            || SECRET_PATHS.iter().take(9).any(|secret| plain.starts_with(&format!("{secret}/")));
        let severity = if is_worst { Severity::Critical } else { Severity::High };
        let name = volume.get("name").str();
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(node),
            format!("mounts {plain} of the host"),
        )
        .evidence(format!("volume {name}: hostPath {path}"))
        .severity(severity)
        .fix(patch::pod(
            pod,
            &format!("volumes:\n- name: {name}\n  hostPath: null\n  emptyDir: {{}}"),
        ));
        judge.fail("POD-05", fault);
    }
    for sysctl in pod.spec.at("securityContext.sysctls").items() {
        let name = sysctl.get("name").str();
        if !SAFE_SYSCTLS.contains(&name) {
            let fault = Fault::new(
                pod.object.subject(),
                pod.place_of(sysctl),
                format!("changes the kernel setting {name}"),
            )
            .severity(Severity::Medium)
            .fix(patch::pod(
                pod,
                &format!("securityContext:\n  sysctls:\n  - name: {name}\n    $patch: delete"),
            ));
            judge.fail("POD-05", fault);
        }
    }
    if pod.spec.at("securityContext.windowsOptions.hostProcess").is_true() {
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(pod.spec.get("securityContext")),
            "is a process of the Windows host",
        )
        .fix(patch::pod(pod, "securityContext:\n  windowsOptions:\n    hostProcess: false"));
        judge.fail("POD-05", fault);
    }
}

const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// A path without empty, `.` and `..` parts.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The setting of the container, or else that of its pod.
fn setting<'a>(pod: &PodView<'a>, container: &Container<'a>, path: &str) -> &'a Node {
    let own = container.node.get("securityContext").at(path);
    if own.is_there() { own } else { pod.spec.get("securityContext").at(path) }
}

/// What the baseline standard forbids in a container.
fn boundaries(pod: &PodView<'_>, container: &Container<'_>, judge: &mut Judge) {
    for breach in own_breaches(container).into_iter().chain(profile_breaches(pod, container)) {
        let Breach { node, title, severity, fix } = breach;
        let evidence = format!("{} {}: {title}", container.role.field(), container.name());
        let fault = Fault::new(pod.object.subject(), pod.place_of(node), title)
            .detail(evidence.clone())
            .evidence(evidence)
            .severity(severity)
            .fix(patch::container(pod, container, fix));
        judge.fail("POD-05", fault);
    }
}

/// A way out of the box.
struct Breach<'a> {
    node: &'a Node,
    title: String,
    severity: Severity,
    fix: &'static str,
}

impl<'a> Breach<'a> {
    fn new(node: &'a Node, title: &str, severity: Severity, fix: &'static str) -> Self {
        Self { node, title: title.to_owned(), severity, fix }
    }
}

/// Those that stand in the container alone.
fn own_breaches<'a>(container: &Container<'a>) -> Vec<Breach<'a>> {
    let context = container.node.get("securityContext");
    let mut found = Vec::new();
    let privileged = context.get("privileged");
    if privileged.is_true() {
        let fix = "securityContext:\n  privileged: false";
        found.push(Breach::new(privileged, "is privileged", Severity::Critical, fix));
    }
    let process = context.at("windowsOptions.hostProcess");
    if process.is_true() {
        let fix = "securityContext:\n  windowsOptions:\n    hostProcess: false";
        found.push(Breach::new(
            process,
            "is a process of the Windows host",
            Severity::Critical,
            fix,
        ));
    }
    for host in container.node.get("ports").items().iter().map(|port| port.get("hostPort")) {
        if let Some(number) = host.int().filter(|number| *number != 0) {
            let fix = "ports: []  # name them again without hostPort";
            let title = format!("takes port {number} of the host");
            found.push(Breach::new(host, &title, Severity::Medium, fix));
        }
    }
    let mount = context.get("procMount");
    if mount.text().is_some_and(|text| text != "Default") {
        let fix = "securityContext:\n  procMount: Default";
        found.push(Breach::new(mount, "sees all of /proc", Severity::High, fix));
    }
    found
}

/// Those that the container may have from its pod.
fn profile_breaches<'a>(pod: &PodView<'a>, container: &Container<'a>) -> Vec<Breach<'a>> {
    let mut found = Vec::new();
    let seccomp = setting(pod, container, "seccompProfile.type");
    if seccomp.text() == Some("Unconfined") {
        let fix = "securityContext:\n  seccompProfile:\n    type: RuntimeDefault";
        found.push(Breach::new(seccomp, "seccomp is switched off", Severity::Medium, fix));
    }
    let apparmor = setting(pod, container, "appArmorProfile.type");
    let annotation = format!("container.apparmor.security.beta.kubernetes.io/{}", container.name());
    let old = pod.metadata.get("annotations").get(&annotation);
    if apparmor.text() == Some("Unconfined") || old.text() == Some("unconfined") {
        let fix = "securityContext:\n  appArmorProfile:\n    type: RuntimeDefault";
        found.push(Breach::new(apparmor, "AppArmor is switched off", Severity::Medium, fix));
    }
    let selinux = setting(pod, container, "seLinuxOptions");
    let is_safe = matches!(
        selinux.get("type").str(),
        "" | "container_t" | "container_init_t" | "container_kvm_t" | "container_engine_t"
    );
    if !is_safe || selinux.get("user").is_there() || selinux.get("role").is_there() {
        let title = "changes its SELinux user, role or type";
        let fix = "securityContext:\n  seLinuxOptions: null";
        found.push(Breach::new(selinux, title, Severity::Medium, fix));
    }
    found
}

/// Capabilities that lead to the host or to the files and memory of others.
const WORST_CAPABILITIES: &[&str] = &[
    "ALL",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_MODULE",
    "DAC_READ_SEARCH",
    "BPF",
    "SYS_RAWIO",
    "SYS_BOOT",
    "PERFMON",
    "CHECKPOINT_RESTORE",
    "MAC_ADMIN",
    "NET_ADMIN",
    "SYS_CHROOT",
    "DAC_OVERRIDE",
];

/// What the restricted standard asks of a container.
fn rights(pod: &PodView<'_>, container: &Container<'_>, judge: &mut Judge) {
    if pod.is_windows() {
        return;
    }
    let context = container.node.get("securityContext");
    let added: Vec<String> = context
        .at("capabilities.add")
        .texts()
        .map(capability)
        .filter(|c| c != "NET_BIND_SERVICE")
        .collect();
    let worst: Vec<&str> =
        added.iter().map(String::as_str).filter(|c| WORST_CAPABILITIES.contains(c)).collect();
    if !worst.is_empty() {
        let node = context.at("capabilities.add");
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(node),
            format!("has the capabilities {}", worst.join(", ")),
        )
        .evidence(format!("{} {}: capabilities.add", container.role.field(), container.name()))
        .detail(format!("{} {}", container.name(), worst.join(",")))
        .severity(Severity::High)
        .fix(patch::container(
            pod,
            container,
            "securityContext:\n  capabilities:\n    add: []\n    drop: [ALL]",
        ));
        judge.fail("POD-06", fault);
    }
    let missing = shortfalls(pod, container, &added, !worst.is_empty());
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        let fixes: String = missing.iter().map(|(_, fix)| format!("  {fix}\n")).collect();
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(container.node),
            format!("below the restricted standard: {}", names.join(", ")),
        )
        .evidence(format!("{} {}", container.role.field(), container.name()))
        .severity(Severity::Low)
        .detail(format!("{} restricted", container.name()))
        .fix(patch::container(pod, container, &format!("securityContext:\n{fixes}")));
        judge.fail("POD-06", fault);
    }
}

fn shortfalls(
    pod: &PodView<'_>,
    container: &Container<'_>,
    added: &[String],
    is_told: bool,
) -> Vec<(&'static str, &'static str)> {
    let context = container.node.get("securityContext");
    let user = setting(pod, container, "runAsUser").int();
    let non_root = setting(pod, container, "runAsNonRoot").bool();
    let seccomp = setting(pod, container, "seccompProfile.type").str();
    let drops_all = context.at("capabilities.drop").texts().any(|c| capability(c) == "ALL");
    let mut missing = Vec::new();
    if user == Some(0) {
        missing.push(("runs as root", "runAsUser: 65532"));
    }
    if non_root != Some(true) {
        missing.push(("may run as root", "runAsNonRoot: true"));
    }
    if context.get("allowPrivilegeEscalation").bool() != Some(false) {
        missing.push(("may gain rights", "allowPrivilegeEscalation: false"));
    }
    if !drops_all {
        missing.push(("keeps capabilities", "capabilities: {drop: [ALL]}"));
    }
    if !added.is_empty() && !is_told {
        missing.push(("adds capabilities", "capabilities: {add: [], drop: [ALL]}"));
    }
    if !matches!(seccomp, "RuntimeDefault" | "Localhost") {
        missing.push(("has no seccomp profile", "seccompProfile: {type: RuntimeDefault}"));
    }
    missing
}

fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

fn shared_processes(pod: &PodView<'_>, judge: &mut Judge) {
    let node = pod.spec.get("shareProcessNamespace");
    if node.is_true() && !pod.secrets().is_empty() {
        let fault = Fault::new(
            pod.object.subject(),
            pod.place_of(node),
            "its containers see each other's processes, and it holds Secrets",
        )
        .evidence(format!("Secrets: {}", pod.secrets().join(", ")))
        .fix(patch::pod(pod, "shareProcessNamespace: false"));
        judge.fail("POD-07", fault);
    }
}

/// Namespaces of the cluster itself.
pub(super) fn is_system(namespace: &str) -> bool {
    matches!(namespace, "kube-system" | "kube-public" | "kube-node-lease")
}

fn admission(world: &World<'_>, judge: &mut Judge) {
    let snapshot = world.snapshot;
    let guards = [
        "ValidatingAdmissionPolicyBinding",
        "ClusterPolicy",
        "ValidatingPolicy",
        "K8sPSPPrivilegedContainer",
        "Constraint",
    ];
    let has_guard = snapshot.objects.iter().any(|object| {
        guards.contains(&object.kind.as_str()) || object.group() == "constraints.gatekeeper.sh"
    });
    for webhook in snapshot.of_kind("ValidatingWebhookConfiguration") {
        for hook in webhook.root.get("webhooks").items() {
            let policy = hook.get("failurePolicy");
            let sees_pods = hook.get("rules").items().iter().any(|rule| {
                rule.get("resources").texts().any(|r| matches!(r, "*" | "pods" | "*/*"))
            });
            if sees_pods && policy.text() == Some("Ignore") {
                let fault = Fault::new(webhook.subject(), webhook.place_of(policy), format!("webhook {} lets everything in when it is away", hook.get("name").str()))
                    .evidence("failurePolicy: Ignore")
                    .fix("Set failurePolicy: Fail, run two replicas, and exempt its own namespace by label.");
                judge.fail("ADM-01", fault);
            }
        }
    }
    for namespace in snapshot.of_kind("Namespace").filter(|n| !is_system(&n.name)) {
        let level = namespace.label("pod-security.kubernetes.io/enforce");
        let is_right = has_guard || matches!(level, Some("baseline" | "restricted"));
        judge.hold("ADM-01", is_right, || {
            let body = "  labels:\n    pod-security.kubernetes.io/enforce: restricted\n";
            Fault::new(
                namespace.subject(),
                namespace.place.clone(),
                "nothing stops privileged pods in this namespace",
            )
            .evidence(format!("pod-security.kubernetes.io/enforce: {}", level.unwrap_or("not set")))
            .fix(patch::object(namespace, body))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_are_made_plain() {
        assert_eq!(normal("//etc/./kubernetes/../kubernetes/"), "/etc/kubernetes");
        assert_eq!(normal("/.."), "/");
    }
}
