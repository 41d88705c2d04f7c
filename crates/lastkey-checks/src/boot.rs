//! Whether a control-plane node can start: an API server that waits for a KMS plugin that waits
//! for something of the API server never does.
//!
//! Room      `checks`. Manifests and facts about the plugin in, answers out.
//! Source    docs/kubernetes/kms-plugin.md, "Start before everything else".
//! Holds     What could not be judged is said, never passed.

use std::net::IpAddr;

use serde::Serialize;

use crate::snapshot::{
    Snapshot,
    component::{Component, components},
    object::Object,
    yaml::Node,
};

/// The first version of Kubernetes whose API server can talk to the plugin.
const FIRST_MINOR: u32 = 32;
/// A node certificate is good for so long, in seconds, and nobody's clock is exact.
const MOST_LEFT_SECS: u64 = 86_400 + 300;
/// Less than that of a certificate is left: it was not renewed when it was due.
const LITTLE_SECS: u64 = 6 * 3_600;

/// What a plugin is told.
#[derive(Clone, Debug, Default)]
pub struct Plugin {
    /// Hosts of its servers; none when the server is in its process.
    pub hosts: Vec<String>,
    /// Paths of its sockets.
    pub sockets: Vec<String>,
    /// The file of its token.
    pub token_file: Option<String>,
    /// When its node certificate ends, in seconds since 1970.
    pub certificate_ends: Option<u64>,
}

/// How an answer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Good,
    /// It could not be judged.
    Unknown,
    /// It works today.
    Warning,
    /// The node will not start, or does not do what it is there for.
    Bad,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// In words, and what to do.
    pub words: String,
}

impl Answer {
    fn new(what: &'static str, verdict: Verdict, words: impl Into<String>) -> Self {
        Self { what, verdict, words: words.into() }
    }
}

/// Looks at everything; `now` in seconds since 1970.
#[must_use]
pub fn examine(plugin: &Plugin, snapshot: &Snapshot, now: u64) -> Vec<Answer> {
    let running = components(snapshot);
    let server = running.iter().find(|one| one.name == "kube-apiserver");
    let mut answers: Vec<Answer> = plugin.hosts.iter().map(|host| way(host, &running)).collect();
    answers.push(credential(plugin, now));
    answers.extend(plugin.sockets.iter().map(|socket| mount(socket, snapshot)));
    answers.extend(configuration(plugin, snapshot));
    answers.push(version(snapshot, server.is_some()));
    answers
}

/// The way to a server, that must not lead through the cluster.
fn way(host: &str, running: &[Component]) -> Answer {
    const WHAT: &str = "way to the key service";
    let Ok(addr) = host.parse::<IpAddr>() else {
        let lower = host.trim_end_matches('.').to_ascii_lowercase();
        let is_service = lower.ends_with(".svc") || lower.ends_with(".cluster.local");
        return if is_service {
            Answer::new(
                WHAT,
                Verdict::Bad,
                format!(
                    "{host} is a Service of a cluster: its DNS and network start after the API server, which waits for the plugin. Name an address outside, or embed the server"
                ),
            )
        } else {
            Answer::new(
                WHAT,
                Verdict::Warning,
                format!(
                    "{host} is a name: whatever resolves it has to work before the API server does. An address, or a line in /etc/hosts, needs nothing"
                ),
            )
        };
    };
    let ranges = [
        ("kube-apiserver", "service-cluster-ip-range", "a Service"),
        ("kube-controller-manager", "service-cluster-ip-range", "a Service"),
        ("kube-controller-manager", "cluster-cidr", "a pod"),
    ];
    for (component, flag, thing) in ranges {
        let here = running.iter().filter(|one| one.name == component);
        if here.flat_map(|one| one.list(flag)).any(|range| is_in(addr, range)) {
            return Answer::new(
                WHAT,
                Verdict::Bad,
                format!(
                    "{host} is {thing} of this cluster (--{flag}): it starts after the API server, which waits for the plugin. Name an address outside, or embed the server"
                ),
            );
        }
    }
    if running.is_empty() {
        let words = format!("{host}: no manifest tells the networks of this cluster");
        return Answer::new(WHAT, Verdict::Unknown, words);
    }
    Answer::new(WHAT, Verdict::Good, format!("{host} is outside the networks of this cluster"))
}

/// Whether an address is in a range such as `10.96.0.0/12`.
fn is_in(addr: IpAddr, range: &str) -> bool {
    let Some((net, len)) = range.split_once('/') else { return false };
    let (Ok(net), Ok(len)) = (net.parse::<IpAddr>(), len.parse::<u32>()) else { return false };
    let shifted = |addr: u128, bits: u32| addr.checked_shr(bits.saturating_sub(len)).unwrap_or(0);
    match (addr, net) {
        (IpAddr::V4(addr), IpAddr::V4(net)) => {
            shifted(u32::from(addr).into(), 32) == shifted(u32::from(net).into(), 32)
        }
        (IpAddr::V6(addr), IpAddr::V6(net)) => {
            shifted(addr.into(), 128) == shifted(net.into(), 128)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// What the plugin shows to the service.
fn credential(plugin: &Plugin, now: u64) -> Answer {
    const WHAT: &str = "credential";
    if let Some(path) = &plugin.token_file
        && path.contains("/run/secrets/kubernetes.io/")
    {
        return Answer::new(
            WHAT,
            Verdict::Bad,
            format!(
                "{path} comes from the API server that waits for the plugin. Use a node certificate (`lastkey node join`)"
            ),
        );
    }
    let Some(end) = plugin.certificate_ends else {
        let words = if plugin.hosts.is_empty() {
            "none is needed"
        } else {
            "a token; nobody here knows how long it is good"
        };
        let verdict = if plugin.hosts.is_empty() { Verdict::Good } else { Verdict::Unknown };
        return Answer::new(WHAT, verdict, words);
    };
    match end.checked_sub(now) {
        None | Some(0) => Answer::new(
            WHAT,
            Verdict::Bad,
            "the node certificate is over: `lastkey node add` on the server and `lastkey node join` here, or set the clock of this machine",
        ),
        Some(left) if left > MOST_LEFT_SECS => Answer::new(
            WHAT,
            Verdict::Warning,
            "the node certificate is good for longer than any is signed for: the clock of this machine is behind",
        ),
        Some(left) if left < LITTLE_SECS => Answer::new(
            WHAT,
            Verdict::Warning,
            format!(
                "the node certificate ends in {} minutes: the plugin does not run, or cannot renew it",
                left / 60
            ),
        ),
        Some(left) => Answer::new(
            WHAT,
            Verdict::Good,
            format!("the node certificate is good for {} hours", left / 3_600),
        ),
    }
}

/// Whether the API server sees a socket, and still sees it after the plugin was started anew.
fn mount(socket: &str, snapshot: &Snapshot) -> Answer {
    const WHAT: &str = "socket in the API server";
    let Some(pod) = api_server(snapshot) else {
        let words = format!("{socket}: no manifest of the API server was found");
        return Answer::new(WHAT, Verdict::Unknown, words);
    };
    let spec = pod.root.get("spec");
    let containers = spec.get("containers").items().iter();
    let mounts = containers.flat_map(|container| container.get("volumeMounts").items());
    let mut seen = None;
    for mount in mounts {
        let path = mount.get("mountPath").str();
        let volume = spec.get("volumes").items().iter();
        let volume = volume.filter(|one| one.get("name").str() == mount.get("name").str());
        let source = volume.map(|one| one.get("hostPath").get("path").str()).next();
        if path == socket || source == Some(socket) {
            return Answer::new(
                WHAT,
                Verdict::Bad,
                format!(
                    "{socket} is mounted as a file, which goes stale when the socket is made anew: mount its folder"
                ),
            );
        }
        if is_below(socket, path) {
            seen = source;
        }
    }
    match seen {
        Some(source) if !source.is_empty() => Answer::new(
            WHAT,
            Verdict::Good,
            format!("{socket} is seen through the folder {source}"),
        ),
        Some(_) | None => Answer::new(
            WHAT,
            Verdict::Bad,
            format!("the API server does not see {socket}: mount its folder by hostPath"),
        ),
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| !folder.is_empty() && rest.starts_with('/'))
}

fn api_server(snapshot: &Snapshot) -> Option<&Object> {
    snapshot.of_kind("Pod").find(|pod| {
        let containers = pod.root.get("spec").get("containers").items();
        containers.iter().any(|container| container.get("command").has("kube-apiserver"))
    })
}

/// Whether the encryption configuration names the plugin, and first.
fn configuration(plugin: &Plugin, snapshot: &Snapshot) -> Vec<Answer> {
    const WHAT: &str = "encryption configuration";
    let Some(object) = snapshot.of_kind("EncryptionConfiguration").next() else {
        return vec![Answer::new(
            WHAT,
            Verdict::Unknown,
            "none was found; name it with --encryption-config",
        )];
    };
    let place = &object.place;
    let mut answers = Vec::new();
    let blocks = object.root.get("resources").items();
    for block in blocks {
        let first = block.get("providers").items().first();
        if first.is_some_and(|first| first.get("identity").is_there()) {
            let of: Vec<&str> = block.get("resources").texts().collect();
            answers.push(Answer::new(
                WHAT,
                Verdict::Bad,
                format!(
                    "{place}: `identity` stands first, so {} is written in the clear",
                    of.join(", ")
                ),
            ));
        }
    }
    for socket in &plugin.sockets {
        let is_here = |provider: &Node| {
            let endpoint = provider.get("kms").get("endpoint").text();
            endpoint.and_then(|endpoint| endpoint.strip_prefix("unix://")) == Some(socket)
        };
        let providers = blocks.iter().map(|block| block.get("providers").items());
        let naming: Vec<_> = providers.filter(|them| them.iter().any(is_here)).collect();
        // What stands in the clear was told above.
        let is_behind = |them: &&[Node]| {
            them.first().is_some_and(|first| !is_here(first) && !first.get("identity").is_there())
        };
        let (verdict, words) = if naming.is_empty() {
            (Verdict::Bad, format!("{place} names no provider at unix://{socket}"))
        } else if naming.iter().any(is_behind) {
            let words = format!(
                "{place} names {socket} behind another provider: it reads what was written, and \
                 new values go under the other one"
            );
            (Verdict::Warning, words)
        } else {
            (Verdict::Good, format!("{place} names {socket}"))
        };
        answers.push(Answer::new(WHAT, verdict, words));
    }
    answers
}

/// Whether the API server is new enough, by the tag of its image.
fn version(snapshot: &Snapshot, is_there: bool) -> Answer {
    const WHAT: &str = "version of the API server";
    let images = api_server(snapshot).map(|pod| pod.root.get("spec").get("containers").items());
    let images = images.into_iter().flatten().map(|container| container.get("image").str());
    let minor = images.filter(|image| image.contains("kube-apiserver")).find_map(minor_of);
    match minor {
        Some(minor) if minor < FIRST_MINOR => Answer::new(
            WHAT,
            Verdict::Bad,
            format!(
                "1.{minor}: API servers before 1.{FIRST_MINOR} send a header that HTTP/2 refuses"
            ),
        ),
        Some(minor) => Answer::new(WHAT, Verdict::Good, format!("1.{minor}")),
        None if is_there => {
            Answer::new(WHAT, Verdict::Unknown, "the image has no tag with a version")
        }
        None => Answer::new(WHAT, Verdict::Unknown, "no manifest of the API server was found"),
    }
}

/// 33 of `registry/kube-apiserver:v1.33.2`.
fn minor_of(image: &str) -> Option<u32> {
    let (_, tag) = image.split('@').next()?.rsplit_once(":v1.")?;
    tag.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SOCKET: &str = "/run/lastkey/kms/etcd.sock";

    fn manifests(mount: &str, source: &str, tag: &str, first: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-apiserver, namespace: kube-system}}\nspec:\n  containers:\n  - name: kube-apiserver\n    image: registry.k8s.io/kube-apiserver:{tag}\n    command: [kube-apiserver, --service-cluster-ip-range=10.96.0.0/12]\n    volumeMounts:\n    - {{name: kms, mountPath: {mount}}}\n  volumes:\n  - {{name: kms, hostPath: {{path: {source}}}}}\n"
        );
        snapshot.add_file("/etc/kubernetes/manifests/kube-apiserver.yaml", pod.as_bytes());
        let manager = "apiVersion: v1\nkind: Pod\nmetadata: {name: kube-controller-manager}\nspec:\n  containers:\n  - name: m\n    command: [kube-controller-manager, --cluster-cidr=10.244.0.0/16]\n";
        snapshot.add_file("/etc/kubernetes/manifests/manager.yaml", manager.as_bytes());
        let kms = format!("kms: {{apiVersion: v2, name: lastkey, endpoint: unix://{SOCKET}}}");
        let order = if first == "kms" {
            [kms, "identity: {}".to_owned()]
        } else {
            [first.to_owned() + ": {}", kms]
        };
        let configuration = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - {}\n  - {}\n",
            order[0], order[1]
        );
        snapshot.add_file("/etc/kubernetes/enc.yaml", configuration.as_bytes());
        snapshot
    }

    fn good() -> Snapshot {
        manifests("/run/lastkey/kms", "/run/lastkey/kms", "v1.33.2", "kms")
    }

    fn plugin() -> Plugin {
        Plugin {
            hosts: vec!["10.0.0.11".to_owned()],
            sockets: vec![SOCKET.to_owned()],
            token_file: None,
            certificate_ends: Some(NOW + 70_000),
        }
    }

    /// Words of what is worse than good.
    fn faults(plugin: &Plugin, snapshot: &Snapshot) -> Vec<(Verdict, String)> {
        let answers = examine(plugin, snapshot, NOW).into_iter();
        let answers = answers.filter(|answer| answer.verdict != Verdict::Good);
        answers.map(|answer| (answer.verdict, answer.words)).collect()
    }

    #[track_caller]
    fn only(plugin: &Plugin, snapshot: &Snapshot, verdict: Verdict, words: &str) {
        let faults = faults(plugin, snapshot);
        let [(found, said)] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(*found == verdict && said.contains(words), "{faults:?}");
    }

    #[test]
    fn node_that_needs_nothing_of_its_cluster_is_good() {
        assert_eq!(faults(&plugin(), &good()), []);
        let embedded = Plugin { hosts: Vec::new(), certificate_ends: None, ..plugin() };
        assert_eq!(faults(&embedded, &good()), []);
    }

    #[test]
    fn server_inside_the_cluster_that_waits_for_it_is_a_loop() {
        for (host, verdict, words) in [
            ("lastkey.kms.svc", Verdict::Bad, "Service of a cluster"),
            ("lastkey.kms.svc.cluster.local.", Verdict::Bad, "Service of a cluster"),
            ("10.97.3.1", Verdict::Bad, "a Service of this cluster"),
            ("10.244.7.9", Verdict::Bad, "a pod of this cluster"),
            ("kms.example.com", Verdict::Warning, "is a name"),
        ] {
            let plugin = Plugin { hosts: vec![host.to_owned()], ..plugin() };
            only(&plugin, &good(), verdict, words);
        }
        assert!(!is_in("10.112.0.1".parse().unwrap(), "10.96.0.0/12"));
        assert!(is_in("fd00::7".parse().unwrap(), "fd00::/108"));
        assert!(!is_in("fd00::7".parse().unwrap(), "10.0.0.0/8"));
    }

    #[test]
    fn credential_of_the_api_server_and_one_that_ends_are_told() {
        let token = Some("/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned());
        let by_token = Plugin { token_file: token, certificate_ends: None, ..plugin() };
        only(&by_token, &good(), Verdict::Bad, "comes from the API server");
        for (ends, verdict, words) in [
            (NOW, Verdict::Bad, "is over"),
            (NOW - 5, Verdict::Bad, "is over"),
            (NOW + 600, Verdict::Warning, "ends in 10 minutes"),
            (NOW + 90_000, Verdict::Warning, "is behind"),
        ] {
            let plugin = Plugin { certificate_ends: Some(ends), ..plugin() };
            only(&plugin, &good(), verdict, words);
        }
    }

    #[test]
    fn socket_that_is_mounted_as_a_file_or_not_at_all_is_told() {
        let file = manifests(SOCKET, SOCKET, "v1.33.2", "kms");
        only(&plugin(), &file, Verdict::Bad, "mounted as a file");
        let elsewhere = manifests("/run/lastkey/km", "/run/lastkey/km", "v1.33.2", "kms");
        only(&plugin(), &elsewhere, Verdict::Bad, "does not see");
    }

    #[test]
    fn identity_first_another_socket_and_an_old_server_are_told() {
        let clear = manifests("/run/lastkey/kms", "/run/lastkey/kms", "v1.33.2", "identity");
        only(&plugin(), &clear, Verdict::Bad, "secrets is written in the clear");
        let file = manifests("/run/lastkey/kms", "/run/lastkey/kms", "v1.33.2", "aescbc");
        only(&plugin(), &file, Verdict::Warning, "new values go under the other one");
        let old = manifests("/run/lastkey/kms", "/run/lastkey/kms", "v1.31.9", "kms");
        only(&plugin(), &old, Verdict::Bad, "before 1.32");
        let sockets = vec!["/run/lastkey/kms/other.sock".to_owned()];
        only(&Plugin { sockets, ..plugin() }, &good(), Verdict::Bad, "names no provider");
    }

    #[test]
    fn what_nobody_shows_is_unknown() {
        let faults = faults(&plugin(), &Snapshot::default());
        assert!(faults.iter().all(|(verdict, _)| *verdict == Verdict::Unknown), "{faults:?}");
        assert_eq!(faults.len(), 4);
    }
}
