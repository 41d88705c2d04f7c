//! Families KUB, HST and the files of ETC and API: what lies and runs on a node.
//!
//! Room      `checks`.
//! Source    CIS Kubernetes Benchmark 1.12, sections 1.1 and 4; GB/T 22239-2019, 8.1.

use std::sync::Arc;

use crate::{
    finding::Severity,
    snapshot::{
        component::Component,
        der::first_certificate,
        node::{FileFact, FileKind, NodeFacts},
        object::{Object, Place},
        yaml::Node,
    },
};

use super::{Fault, Judge, World};

/// Judges the families.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    kubelet(world, judge);
    let Some(node) = &world.snapshot.node else { return };
    for (path, reason) in &node.unreadable {
        judge.unknown("API-09", path, reason);
    }
    files(node, judge);
    etcd_data(world, node, judge);
    authority(node, judge);
    memory(node, judge);
    dumps(node, judge);
    login(node, judge);
    accounts(node, judge);
    ports(node, judge);
    validity(world, node, judge);
}

fn place(path: &str) -> Place {
    Place::whole(&Arc::from(path))
}

/// A setting of the kubelet: its flag wins over its file.
struct Kubelet<'a> {
    flags: Option<&'a Component>,
    file: Option<&'a Object>,
}

impl<'a> Kubelet<'a> {
    fn is(&self, flag: &str, path: &str) -> Option<bool> {
        let by_flag = self
            .flags
            .and_then(|c| if c.is_on(flag) { Some(true) } else { c.is_off(flag).then_some(false) });
        by_flag.or_else(|| self.file.and_then(|file| file.root.at(path).bool()))
    }

    fn text(&self, flag: &str, path: &str) -> Option<&'a str> {
        self.flags
            .and_then(|c| c.flag(flag))
            .or_else(|| self.file.and_then(|file| file.root.at(path).text()))
    }

    fn fault(&self, path: &str, title: &str, fix: &str) -> Fault {
        let place = match (self.file, self.flags) {
            (Some(file), _) => file.place_of(file.root.at(path)),
            (None, Some(flags)) => flags.place.clone(),
            (None, None) => place("kubelet"),
        };
        let value = match self.file {
            Some(file) => file.root.at(path),
            None => absent(),
        };
        let evidence = match (value.text(), value.bool(), value.int()) {
            (Some(text), ..) => format!("{path}: {text}"),
            (_, Some(value), _) => format!("{path}: {value}"),
            (.., Some(value)) => format!("{path}: {value}"),
            _ => format!("{path} is not set"),
        };
        Fault::new("kubelet", place, title).evidence(evidence).fix(fix.to_owned())
    }
}

fn absent() -> &'static Node {
    static NOTHING: Node = Node { value: crate::snapshot::yaml::Value::Null, line: 0, column: 0 };
    &NOTHING
}

fn kubelet(world: &World<'_>, judge: &mut Judge) {
    let files: Vec<&Object> = world.snapshot.of_kind("KubeletConfiguration").collect();
    let flags = world.component("kubelet").next();
    let all: Vec<Kubelet<'_>> = if files.is_empty() {
        flags.map(|flags| Kubelet { flags: Some(flags), file: None }).into_iter().collect()
    } else {
        files.into_iter().map(|file| Kubelet { flags, file: Some(file) }).collect()
    };
    for kubelet in all {
        settings(&kubelet, judge);
    }
}

fn settings(kubelet: &Kubelet<'_>, judge: &mut Judge) {
    // Without a file the old defaults hold: anonymous, AlwaysAllow, port 10255.
    let has_file = kubelet.file.is_some();
    let anonymous =
        kubelet.is("anonymous-auth", "authentication.anonymous.enabled").unwrap_or(!has_file);
    judge.hold("KUB-01", !anonymous, || {
        kubelet.fault(
            "authentication.anonymous.enabled",
            "strangers are served",
            "authentication:\n  anonymous:\n    enabled: false\n",
        )
    });
    let default = if has_file { "Webhook" } else { "AlwaysAllow" };
    let mode = kubelet.text("authorization-mode", "authorization.mode").unwrap_or(default);
    judge.hold("KUB-02", mode == "Webhook", || {
        kubelet.fault(
            "authorization.mode",
            "every caller may do everything",
            "authorization:\n  mode: Webhook\n",
        )
    });
    let by_flag =
        kubelet.flags.and_then(|c| c.flag("read-only-port")).and_then(|port| port.parse().ok());
    let by_file = kubelet.file.and_then(|file| file.root.get("readOnlyPort").int());
    let port = by_flag.or(by_file).unwrap_or(if has_file { 0 } else { 10_255 });
    judge.hold("KUB-03", port == 0, || {
        kubelet
            .fault("readOnlyPort", "the read-only port is open", "readOnlyPort: 0\n")
            .evidence(format!("port {port}"))
    });
    let has_authority =
        kubelet.text("client-ca-file", "authentication.x509.clientCAFile").is_some();
    judge.hold("KUB-04", has_authority, || {
        kubelet.fault(
            "authentication.x509.clientCAFile",
            "callers cannot prove themselves by certificate",
            "authentication:\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\n",
        )
    });
    judge.hold(
        "KUB-04",
        kubelet.is("rotate-certificates", "rotateCertificates") == Some(true),
        || {
            kubelet.fault(
                "rotateCertificates",
                "its certificate is not renewed",
                "rotateCertificates: true\n",
            )
        },
    );
    let serves = kubelet.is("rotate-server-certificates", "serverTLSBootstrap") == Some(true)
        || kubelet.text("tls-cert-file", "tlsCertFile").is_some();
    judge.hold("KUB-04", serves, || {
        kubelet
            .fault(
                "serverTLSBootstrap",
                "it shows a certificate that nobody can check",
                "serverTLSBootstrap: true\n",
            )
            .severity(Severity::Low)
    });
}

/// What a file may be, by its path.
struct Guard {
    check: &'static str,
    /// Bits that may be set.
    mode: u32,
}

fn guard(path: &str, file: &FileFact) -> Option<Guard> {
    let is_folder = file.kind == FileKind::Folder;
    let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
    if file.kind == FileKind::Other {
        return None;
    }
    let mode = if is_folder { 0o755 } else { 0o600 };
    if path.starts_with("/etc/kubernetes/pki") && !is_folder {
        return Some(Guard {
            check: "API-09",
            mode: if ends(&[".crt", ".pub"]) { 0o644 } else { 0o600 },
        });
    }
    if path == "/etc/kubernetes/kubelet.conf" || path == "/etc/kubernetes/bootstrap-kubelet.conf" {
        return Some(Guard { check: "KUB-05", mode });
    }
    if path.starts_with("/etc/kubernetes")
        && (is_folder
            || ends(&[".conf", ".kubeconfig"])
            || path.starts_with("/etc/kubernetes/manifests/"))
    {
        return Some(Guard { check: "API-09", mode });
    }
    if path.starts_with("/var/lib/kubelet/pki/") && !is_folder {
        return Some(Guard { check: "KUB-05", mode: if ends(&[".crt"]) { 0o644 } else { 0o600 } });
    }
    if matches!(path, "/var/lib/kubelet/config.yaml" | "/var/lib/kubelet/kubeconfig") {
        return Some(Guard { check: "KUB-05", mode });
    }
    let is_unit = path.starts_with("/etc/systemd/system/kubelet.service.d")
        || path == "/usr/lib/systemd/system/kubelet.service";
    is_unit.then_some(Guard { check: "KUB-05", mode: if is_folder { 0o755 } else { 0o644 } })
}

fn files(node: &NodeFacts, judge: &mut Judge) {
    for (path, file) in &node.files {
        let Some(guard) = guard(path, file) else { continue };
        let is_right = file.mode & !guard.mode == 0 && file.uid == 0;
        judge.hold(guard.check, is_right, || {
            Fault::new(path, place(path), "others than root can read or change it")
                .evidence(format!("mode {:04o}, owner {}", file.mode, node.user(file.uid)))
                .fix(format!("chown root:root {path} && chmod {:o} {path}", guard.mode))
        });
    }
}

fn etcd_data(world: &World<'_>, node: &NodeFacts, judge: &mut Judge) {
    let named =
        world.component("etcd").find_map(|etcd| etcd.flag("data-dir")).unwrap_or("/var/lib/etcd");
    let Some(folder) = node.file(named) else {
        if node.file("/var/lib/etcd").is_none()
            && node.file("/etc/kubernetes/manifests/etcd.yaml").is_none()
        {
            judge.moot("ETC-05");
        } else {
            judge.unknown("ETC-05", named, "the data folder is not there or could not be read");
        }
        return;
    };
    judge.hold("ETC-05", folder.mode & 0o077 == 0, || {
        Fault::new(named, place(named), "others can read etcd's data")
            .evidence(format!("mode {:04o}, owner {}", folder.mode, node.user(folder.uid)))
            .fix(format!("chmod 700 {named}"))
    });
    for (path, file) in node.below(named) {
        let is_data = path.ends_with(".db") || path.ends_with(".wal") || path.ends_with(".snap");
        if is_data && folder.mode & 0o077 != 0 && file.mode & 0o077 != 0 {
            let fault = Fault::new(
                path,
                place(path),
                "a database or snapshot of etcd can be read by others",
            )
            .evidence(format!("mode {:04o}", file.mode))
            .fix(format!("chmod 600 {path}"));
            judge.fail("ETC-05", fault);
        }
    }
}

fn authority(node: &NodeFacts, judge: &mut Judge) {
    let key = |path: &str| {
        node.text(path).and_then(first_certificate).map(|certificate| certificate.public_key)
    };
    let (cluster, etcd) = ("/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt");
    match (key(cluster), key(etcd)) {
        (Some(one), Some(other)) => judge.hold("ETC-04", one != other, || {
            Fault::new(etcd, place(etcd), "etcd trusts the cluster's own authority")
                .evidence(format!("the public keys of {cluster} and {etcd} are the same"))
        }),
        (None, None) => judge.moot("ETC-04"),
        (None, Some(_)) => {
            judge.unknown("ETC-04", cluster, "the certificate is not there or cannot be read")
        }
        (Some(_), None) => {
            judge.unknown("ETC-04", etcd, "the certificate is not there or cannot be read")
        }
    }
}

/// Memory file systems can refuse swap since this kernel.
const NOSWAP_KERNEL: (u32, u32) = (6, 3);

fn memory(node: &NodeFacts, judge: &mut Judge) {
    let Some(swaps) = node.text("/proc/swaps") else { return };
    let used: Vec<&str> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.contains("zram"))
        .collect();
    if used.is_empty() {
        return judge.pass("KUB-06");
    }
    let release = node.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).filter_map(|part| part.trim().parse().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let mounts = node.text("/proc/self/mountinfo").unwrap_or_default();
    let is_secret = |line: &&str| {
        line.contains("kubernetes.io~secret") || line.contains("kubernetes.io~projected")
    };
    let open = mounts.lines().filter(is_secret).filter(|line| !line.contains("noswap")).count();
    let is_right = version >= NOSWAP_KERNEL && open == 0;
    judge.hold("KUB-06", is_right, || {
        Fault::new("swap", place("/proc/swaps"), "Secrets in memory can reach the swap").evidence(
            format!(
                "swap on {}; kernel {}; {open} volumes of Secrets without noswap",
                used.join(", "),
                release.trim()
            ),
        )
    });
}

fn dumps(node: &NodeFacts, judge: &mut Judge) {
    let Some(pattern) = node.text("/proc/sys/kernel/core_pattern") else { return };
    let pattern = pattern.trim();
    let is_off = matches!(pattern, "|/bin/false" | "|/bin/true" | "" | "/dev/null");
    let limited = !node.processes.is_empty()
        && node.processes.iter().all(|process| process.core_limit == Some(0));
    judge.hold("KUB-07", is_off || limited, || {
        Fault::new(
            "core dumps",
            place("/proc/sys/kernel/core_pattern"),
            "processes that crash leave their memory on disk",
        )
        .evidence(format!("core_pattern: {pattern}"))
    });
    let suid = node.text("/proc/sys/fs/suid_dumpable").map_or("0", str::trim);
    judge.hold("KUB-07", suid != "1", || {
        Fault::new(
            "core dumps",
            place("/proc/sys/fs/suid_dumpable"),
            "processes that changed their user leave readable dumps",
        )
        .evidence(format!("suid_dumpable: {suid}"))
    });
}

fn login(node: &NodeFacts, judge: &mut Judge) {
    let main = "/etc/ssh/sshd_config";
    let Some(text) = node.text(main) else {
        return judge.moot("HST-01");
    };
    // Files of the folder are included first, and of equal settings the first one counts.
    let parts: Vec<(&str, &str)> = node
        .below("/etc/ssh/sshd_config.d")
        .filter(|(path, _)| path.ends_with(".conf"))
        .filter_map(|(path, _)| Some((path, node.text(path)?)))
        .collect();
    let includes = text
        .lines()
        .any(|line| line.trim().to_ascii_lowercase().starts_with("include /etc/ssh/sshd_config.d"));
    let all: Vec<(&str, &str)> =
        parts.into_iter().filter(|_| includes).chain([(main, text)]).collect();
    let rules = [
        (
            "permitrootlogin",
            "prohibit-password",
            &["no"][..],
            "root can log in",
            "PermitRootLogin no",
        ),
        (
            "passwordauthentication",
            "yes",
            &["no"][..],
            "passwords are taken",
            "PasswordAuthentication no",
        ),
        (
            "permitemptypasswords",
            "no",
            &["no"][..],
            "empty passwords are taken",
            "PermitEmptyPasswords no",
        ),
    ];
    for (name, default, right, title, fix) in rules {
        let found = all.iter().find_map(|(path, text)| {
            sshd_setting(text, name).map(|(line, value)| (*path, line, value))
        });
        let (path, line, value) = found.unwrap_or((main, 0, default.to_owned()));
        let severity = if name == "permitrootlogin" && value == "prohibit-password" {
            Severity::Low
        } else {
            Severity::Medium
        };
        judge.hold("HST-01", right.contains(&value.as_str()), || {
            Fault::new("sshd", Place { line, ..place(path) }, title)
                .evidence(format!("{name} {value}{}", if line == 0 { ", the default" } else { "" }))
                .severity(severity)
                .fix(format!("{fix}\n# then: systemctl reload ssh"))
        });
    }
}

/// The first value of a setting outside of Match blocks, and its line.
fn sshd_setting(text: &str, name: &str) -> Option<(u32, String)> {
    for (number, line) in (1..).zip(text.lines()) {
        let lower = line.trim().to_ascii_lowercase();
        if lower.starts_with("match ") {
            return None;
        }
        let mut words = lower.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        if words.next() == Some(name) {
            return words.next().map(|value| (number, value.trim_matches('"').to_owned()));
        }
    }
    None
}

fn accounts(node: &NodeFacts, judge: &mut Judge) {
    let accounts = node.accounts();
    if accounts.is_empty() {
        return;
    }
    judge.pass("HST-02");
    if node.text("/etc/shadow").is_none() {
        judge.unknown("HST-02", "/etc/shadow", "passwords could not be looked at");
    }
    for account in accounts {
        let name = &account.name;
        let mut fail = |title: &str, severity, fix: String| {
            let fault = Fault::new(format!("account {name}"), place("/etc/passwd"), title)
                .severity(severity)
                .fix(fix);
            judge.fail("HST-02", fault);
        };
        if account.uid == 0 && name != "root" {
            fail("a second account is root", Severity::High, format!("userdel {name}"));
        }
        if account.is_open {
            let severity = if account.has_shell { Severity::Critical } else { Severity::Medium };
            fail("its password is empty", severity, format!("passwd -l {name}"));
        }
        if matches!(account.hash.as_deref(), Some("1" | "des" | "5" | "md5")) && account.has_shell {
            fail(
                "its password is kept under an old hash",
                Severity::Medium,
                format!("passwd {name}  # with ENCRYPT_METHOD YESCRYPT in /etc/login.defs"),
            );
        }
    }
}

fn ports(node: &NodeFacts, judge: &mut Judge) {
    if node.file("/proc/net/tcp").is_none() {
        return;
    }
    judge.pass("HST-03");
    let public = node.public_addresses();
    for listener in node.listeners().into_iter().filter(|listener| listener.is_exposed()) {
        let is_on_all = listener.addr.is_unspecified();
        let outside = public.iter().find(|addr| is_on_all || **addr == listener.addr);
        let Some((what, severity)) = exposed(listener.port, is_on_all, outside.is_some()) else {
            continue;
        };
        let to_whom = outside
            .map_or("other machines".to_owned(), |addr| format!("the internet (address {addr})"));
        let fault = Fault::new(
            format!("port {}", listener.port),
            place("/proc/net/tcp"),
            format!("{what} is open to {to_whom}"),
        )
        .detail(what)
        .evidence(format!("listens on {}; a firewall before it is not seen here", listener.addr))
        .severity(severity);
        judge.fail("HST-03", fault);
    }
}

/// What a port is that should not be open so far: on all addresses of the node, on one that
/// the internet reaches.
const fn exposed(port: u16, is_on_all: bool, is_public: bool) -> Option<(&'static str, Severity)> {
    match port {
        10_255 => Some(("the kubelet's read-only port", Severity::High)),
        2379 if is_on_all || is_public => Some(("etcd's clients' port", Severity::High)),
        2380 if is_on_all || is_public => Some(("etcd's members' port", Severity::Medium)),
        10_250 if is_public => Some(("the kubelet's port", Severity::High)),
        6443 if is_public => Some(("the API server's port", Severity::Medium)),
        10_257 | 10_259 => Some(("a controller's port", Severity::Low)),
        _ => None,
    }
}

const DAY: u64 = 86_400;

fn validity(world: &World<'_>, node: &NodeFacts, judge: &mut Judge) {
    let certificates =
        node.files.keys().filter(|path| path.ends_with(".crt") || path.ends_with("-current.pem"));
    let mut is_seen = false;
    for path in certificates {
        let Some(certificate) = node.text(path).and_then(first_certificate) else { continue };
        is_seen = true;
        let days = certificate.not_after.saturating_sub(world.settings.now) / DAY;
        judge.hold("HST-04", days >= 30, || {
            let (title, severity) = if days == 0 {
                ("has ended or ends today", Severity::High)
            } else {
                ("ends within a month", Severity::Medium)
            };
            Fault::new(path, place(path), title)
                .evidence(format!("{days} days are left"))
                .severity(severity)
        });
    }
    if !is_seen {
        judge.moot("HST-04");
    }
}
