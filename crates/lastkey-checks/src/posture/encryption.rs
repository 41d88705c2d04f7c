//! Family ENC: encryption of what the API server stores, judged as the API server reads it.
//!
//! Room      `checks`.
//! Source    k8s.io/apiserver: pkg/server/options/encryptionconfig/config.go (the first block that
//!           names a resource writes it; a resource behind a wildcard is refused as masked).

use crate::{
    enable::{SECRETS_LIKE, Stage, Wanted, configuration},
    finding::Severity,
    snapshot::{
        etcd::{Class, Count, EtcdFacts},
        object::Object,
        yaml::Node,
    },
};

use super::{Fault, Judge, World};

/// Judges the family.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    for server in world.component("kube-apiserver") {
        let flag = server.flag("encryption-provider-config");
        judge.hold("ENC-01", flag.is_some_and(|path| !path.is_empty()), || {
            Fault::new(
                "kube-apiserver",
                server.place.clone(),
                "nothing that is stored is encrypted",
            )
            .evidence("--encryption-provider-config is not set")
            .fix(first_configuration())
        });
        if flag.is_some() {
            reload(server, judge);
        }
    }
    let configurations = world.snapshot.objects.iter().filter(|object| {
        matches!(object.kind.as_str(), "EncryptionConfiguration" | "EncryptionConfig")
    });
    for configuration in configurations {
        providers(configuration, judge);
        guarded(world, configuration, judge);
    }
    for map in world.snapshot.of_kind("ConfigMap") {
        for (name, value) in map.root.get("data").entries() {
            if value.str().contains("kind: EncryptionConfig") {
                let fault = Fault::new(map.subject(), map.place_of(value), "the encryption configuration lies in a ConfigMap, readable without any right to Secrets")
                    .evidence(format!("entry {name}"));
                judge.fail("ENC-05", fault);
            }
        }
    }
    if let Some(facts) = &world.snapshot.etcd {
        stored(facts, judge);
    }
    if let Some(metrics) = &world.snapshot.metrics {
        reloads(metrics, judge);
    }
    volumes(world, judge);
}

/// Where the plugin listens when nobody says otherwise.
const SOCKET: &str = "/run/lastkey/kms/etcd.sock";

/// The way to encryption where there is none, with the file that `lastkey etcd enable` writes.
fn first_configuration() -> String {
    let wanted = Wanted {
        provider: "lastkey".to_owned(),
        socket: SOCKET.to_owned(),
        resources: SECRETS_LIKE.map(str::to_owned).to_vec(),
        stage: Stage::Start,
    };
    let command = format!("lastkey etcd enable --provider lastkey --socket {SOCKET}");
    // INVARIANT: these names are good, and nothing is running that could contradict them.
    let file = configuration(&wanted, None).unwrap_or_default();
    format!(
        "# 1. On each control plane node, root:root 0600, as {command} writes it:\n{file}\
         # 2. kube-apiserver: --encryption-provider-config=FILE\n\
         #    and --encryption-provider-config-automatic-reload=true\n\
         # 3. lastkey etcd rewrite, then lastkey etcd verify\n"
    )
}

/// The way to the key service from what is running, which stays readable.
fn next_configuration(running: &Object) -> String {
    format!(
        "lastkey etcd enable --provider lastkey --socket {SOCKET} --running {} -o encryption.yaml\n\
         keeps the providers that are there behind the key service; then lastkey etcd rewrite, and lastkey etcd verify.",
        running.place.path
    )
}

fn reload(server: &crate::snapshot::component::Component, judge: &mut Judge) {
    judge.hold("ENC-05", server.is_on("encryption-provider-config-automatic-reload"), || {
        Fault::new("kube-apiserver", server.place.clone(), "a changed encryption configuration waits for a restart")
            .evidence("--encryption-provider-config-automatic-reload is not true")
            .severity(Severity::Low)
            .fix("Add --encryption-provider-config-automatic-reload=true, and mount the folder of the file, not the file.")
    });
}

/// Whether an entry of a block names a resource.
fn names(entry: &str, group: &str, resource: &str) -> bool {
    let (known, known_group) = entry.split_once('.').unwrap_or((entry, ""));
    match (known, known_group) {
        ("*", "*") => true,
        ("*", _) => known_group == group,
        _ => known == resource && known_group == group,
    }
}

/// The block by which the API server writes a resource.
fn block<'a>(configuration: &'a Object, group: &str, resource: &str) -> Option<&'a Node> {
    let blocks = configuration.root.get("resources").items();
    blocks
        .iter()
        .find(|block| block.get("resources").texts().any(|entry| names(entry, group, resource)))
}

fn kind(provider: &Node) -> &str {
    provider.entries().first().map_or("", |(name, _)| &**name)
}

fn providers(configuration: &Object, judge: &mut Judge) {
    let subject = configuration.subject();
    for id in ["ENC-02", "ENC-03", "ENC-04"] {
        judge.pass(id);
    }
    masked(configuration, judge);
    match block(configuration, "", "secrets") {
        None => {
            let fault = Fault::new(
                &subject,
                configuration.place.clone(),
                "secrets are named by no block, so they are stored in the clear",
            )
            .evidence(blocks_in_words(configuration))
            .fix("Add secrets to the resources of the block with the key provider.");
            judge.fail("ENC-02", fault);
        }
        Some(block) => first_provider(configuration, block, judge),
    }
    let config_maps = block(configuration, "", "configmaps")
        .and_then(|block| block.get("providers").items().first());
    if config_maps.is_none_or(|first| kind(first) == "identity") {
        let fault = Fault::new(&subject, configuration.place.clone(), "configmaps are stored in the clear, and credentials often stand in them")
            .evidence(blocks_in_words(configuration))
            .severity(Severity::Low)
            .fix("Add configmaps to the resources of the block with the key provider, then rewrite them.");
        judge.fail("ENC-03", fault);
    }
}

fn blocks_in_words(configuration: &Object) -> String {
    let blocks = configuration.root.get("resources").items().iter().map(|block| {
        let resources: Vec<&str> = block.get("resources").texts().collect();
        let providers: Vec<&str> = block.get("providers").items().iter().map(kind).collect();
        format!("[{}] by {}", resources.join(", "), providers.join(" then "))
    });
    blocks.collect::<Vec<_>>().join("; ")
}

fn first_provider(configuration: &Object, block: &Node, judge: &mut Judge) {
    let subject = configuration.subject();
    let list = block.get("providers").items();
    let Some(first) = list.first() else { return };
    let words = blocks_in_words(configuration);
    let (id, title, severity) = match kind(first) {
        "identity" => ("ENC-02", "secrets are stored in the clear: identity is the first provider of the first block that names them".to_owned(), Severity::Critical),
        "kms" if first.at("kms.apiVersion").text() == Some("v2") => {
            return early_identity(configuration, list, judge);
        }
        "kms" => ("ENC-04", "the provider speaks KMS v1, which is deprecated (apiVersion: v2 is not set)".to_owned(), Severity::Medium),
        "aescbc" => ("ENC-04", "secrets are sealed by aescbc under a key in the file; changes to the text are not noticed".to_owned(), Severity::Medium),
        local => ("ENC-04", format!("secrets are sealed by {local} under a key in the file"), Severity::Medium),
    };
    let fault = Fault::new(subject, configuration.place_of(first), title)
        .evidence(words)
        .severity(severity)
        .fix(next_configuration(configuration));
    judge.fail(id, fault);
}

/// Behind the key provider, identity only reads; in front of another provider it hides it.
fn early_identity(configuration: &Object, list: &[Node], judge: &mut Judge) {
    let last = list.len().saturating_sub(1);
    if let Some((_, node)) =
        list.iter().enumerate().find(|(at, p)| kind(p) == "identity" && *at < last)
    {
        let fault = Fault::new(
            configuration.subject(),
            configuration.place_of(node),
            "identity stands before another provider",
        )
        .evidence(blocks_in_words(configuration))
        .severity(Severity::Low)
        .fix("Move identity: {} to the end of the list.");
        judge.fail("ENC-04", fault);
    }
}

/// An entry behind a wildcard that takes it: the API server refuses the whole file.
fn masked(configuration: &Object, judge: &mut Judge) {
    let mut before: Vec<&str> = Vec::new();
    for block in configuration.root.get("resources").items() {
        for entry in block.get("resources").texts() {
            let (resource, group) = entry.split_once('.').unwrap_or((entry, ""));
            let wildcard = before.iter().find(|known| {
                known.starts_with('*') && **known != entry && names(known, group, resource)
            });
            if let Some(wildcard) = wildcard {
                let fault = Fault::new(configuration.subject(), configuration.place_of(block), format!("{entry} is masked by {wildcard} of an earlier block; the API server refuses this file"))
                    .evidence(blocks_in_words(configuration))
                    .severity(Severity::High)
                    .fix("Move the block with the wildcard behind the others.");
                judge.fail("ENC-03", fault);
            }
        }
        before.extend(block.get("resources").texts());
    }
}

fn guarded(world: &World<'_>, configuration: &Object, judge: &mut Judge) {
    let path = configuration.place.path.as_ref();
    let file = world.snapshot.node.as_ref().and_then(|node| node.file(path));
    if let Some(file) = file {
        judge.hold("ENC-05", file.uid == 0 && file.mode & 0o077 == 0, || {
            Fault::new(
                path,
                configuration.place.clone(),
                "the encryption configuration can be read by others than root",
            )
            .evidence(format!("mode {:04o}, owner {}", file.mode, file.uid))
            .fix(format!("chown root:root {path} && chmod 600 {path}"))
        });
        return;
    }
    let mut has_key = None;
    configuration.root.visit(&mut |node| {
        if has_key.is_none() && node.get("secret").is_there() {
            has_key = Some(node);
        }
    });
    if let Some(node) = has_key {
        let fault = Fault::new(configuration.subject(), configuration.place_of(node.get("secret")), "a key of encryption lies among the manifests")
            .evidence("secret: (hidden)")
            .fix("Take the key out of the repository and its history, put a new one first on the nodes, and rewrite all Secrets.");
        judge.fail("ENC-05", fault);
    }
}

fn stored(facts: &EtcdFacts, judge: &mut Judge) {
    let place = crate::snapshot::object::Place::whole(&"etcd snapshot".into());
    let clear: Vec<(&Class, &Count)> = facts
        .secrets
        .iter()
        .filter(|(class, _)| matches!(class, Class::Clear | Class::Unknown))
        .collect();
    if facts.secrets.is_empty() {
        judge.moot("ENC-06");
        judge.moot("ENC-07");
        return;
    }
    judge.pass("ENC-06");
    judge.pass("ENC-07");
    for (class, count) in clear {
        let how =
            if *class == Class::Clear { "in the clear" } else { "in a form that is not known" };
        let fault =
            Fault::new("etcd", place.clone(), format!("{} Secrets are stored {how}", count.count))
                .detail(how)
                .evidence(format!("for example {}", count.sample.join(", ")));
        judge.fail("ENC-06", fault);
    }
    for (class, count) in &facts.secrets {
        if let Class::Local(name) | Class::Kms1(name) = class {
            let title =
                format!("{} Secrets are stored under {name}, and not by KMS v2", count.count);
            let fault = Fault::new("etcd", place.clone(), title)
                .detail(name.clone())
                .severity(Severity::Medium)
                .evidence(format!("for example {}", count.sample.join(", ")));
            judge.fail("ENC-06", fault);
        }
    }
    if facts.clear_history > 0 {
        let fault = Fault::new("etcd", place.clone(), format!("{} older revisions of Secrets still lie in the file in the clear", facts.clear_history))
            .detail("history")
            .severity(Severity::Medium)
            .fix("etcdctl compact REVISION, then etcdctl defrag on each member; then delete older snapshots.");
        judge.fail("ENC-06", fault);
    }
    if facts.key_ids.len() > 1 {
        let ids: Vec<String> =
            facts.key_ids.iter().map(|(id, count)| format!("{id}: {count}")).collect();
        let fault = Fault::new(
            "etcd",
            place,
            format!("Secrets are sealed under {} keys", facts.key_ids.len()),
        )
        .detail("key ids")
        .evidence(ids.join(", "));
        judge.fail("ENC-07", fault);
    }
}

/// Counters of the API server that must be zero.
const FAILURES: &[(&str, &str)] = &[
    ("apiserver_encryption_config_controller_automatic_reloads_total", "status=\"failure\""),
    ("apiserver_encryption_config_controller_automatic_reload_failures_total", ""),
    ("apiserver_envelope_encryption_invalid_key_id_from_status_total", ""),
];

fn reloads(metrics: &str, judge: &mut Judge) {
    let is_told = metrics.contains("apiserver_encryption_config_controller")
        || metrics.contains("apiserver_envelope_encryption");
    if !is_told {
        return;
    }
    judge.pass("ENC-08");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let failed =
            FAILURES.iter().find(|(name, label)| line.starts_with(name) && line.contains(label));
        let value =
            line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
        if let Some((name, _)) = failed
            && value > 0.0
        {
            let place = crate::snapshot::object::Place::whole(&"cluster/metrics".into());
            let fault = Fault::new(
                "kube-apiserver",
                place,
                "a change of the encryption configuration was not taken",
            )
            .evidence(line)
            .detail(*name);
            judge.fail("ENC-08", fault);
        }
    }
}

/// How a provisioner says that its volumes are encrypted.
enum Sealing {
    /// A parameter with the value `true`.
    Parameter(&'static str),
    /// Always, by the provider's key.
    Always,
    /// Nobody can tell from the class.
    Unknown,
}

fn sealing(provisioner: &str) -> Sealing {
    match provisioner {
        "ebs.csi.aws.com"
        | "kubernetes.io/aws-ebs"
        | "diskplugin.csi.alibabacloud.com"
        | "efs.csi.aws.com"
        | "com.tencent.cloud.csi.cbs"
        | "disk.csi.everest.io"
        | "ebs.csi.volcengine.com" => Sealing::Parameter("encrypted"),
        "rbd.csi.ceph.com" | "cephfs.csi.ceph.com" | "driver.longhorn.io" => {
            Sealing::Parameter("encrypted")
        }
        "pd.csi.storage.gke.io"
        | "disk.csi.azure.com"
        | "kubernetes.io/gce-pd"
        | "kubernetes.io/azure-disk" => Sealing::Always,
        name if name.contains("lastkey") => Sealing::Parameter("encrypted"),
        _ => Sealing::Unknown,
    }
}

fn volumes(world: &World<'_>, judge: &mut Judge) {
    for class in world.snapshot.of_kind("StorageClass") {
        let provisioner = class.root.get("provisioner").str();
        match sealing(provisioner) {
            Sealing::Always => judge.pass("ENC-09"),
            Sealing::Unknown => judge.unknown(
                "ENC-09",
                class.subject(),
                format!("whether {provisioner} encrypts is not known here"),
            ),
            Sealing::Parameter(name) => {
                let value = class.root.get("parameters").get(name);
                let is_sealed = value.is_true() || value.text() == Some("true");
                judge.hold("ENC-09", is_sealed, || {
                    Fault::new(class.subject(), class.place_of(class.root.get("parameters")), "its volumes are not encrypted")
                        .evidence(format!("provisioner {provisioner}, {name}: not \"true\""))
                        .fix(format!("# parameters of a StorageClass cannot change: make a new one\nparameters:\n  {name}: \"true\"\n"))
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SOCKET, first_configuration, names};
    use crate::{
        posture::{Settings, State, judge},
        snapshot::Snapshot,
    };

    #[test]
    fn the_first_configuration_is_good_and_its_socket_is_the_one_of_the_unit() {
        let unit = include_str!("../../../../deploy/systemd/lastkey-kms-plugin.socket");
        assert!(unit.contains(&format!("ListenStream={SOCKET}\n")));
        let mut snapshot = Snapshot::default();
        snapshot.add_file("fix.yaml", first_configuration().as_bytes());
        let outcome = judge(&snapshot, Settings { now: 0 });
        assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
        for id in ["ENC-02", "ENC-03", "ENC-04"] {
            assert_eq!(outcome.states[id], State::Pass, "{id}");
        }
    }

    #[test]
    fn entries_match_as_the_api_server_matches() {
        for (entry, group, resource, is_named) in [
            ("secrets", "", "secrets", true),
            ("*.", "", "secrets", true),
            ("*.*", "", "secrets", true),
            ("*.*", "a.io", "things", true),
            ("*.a.io", "a.io", "things", true),
            ("*.a.io", "", "secrets", false),
            ("secrets.a.io", "", "secrets", false),
            ("things.a.io", "a.io", "things", true),
            ("configmaps", "", "secrets", false),
        ] {
            assert_eq!(names(entry, group, resource), is_named, "{entry}");
        }
    }
}
