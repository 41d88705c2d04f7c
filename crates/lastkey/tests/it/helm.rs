//! deploy/helm/lastkey by the real helm: what it renders is what `lastkey check` and an API server
//! that enforces the restricted standard take. Without helm or Go the tests say SKIPPED.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lastkey_checks::snapshot::yaml;
use serde_json::{Value, json};

use crate::api_server::{self, ApiServer};
use crate::process::{Ended, lastkey, not_run, run};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const VERSION: &str = "v3.22.0";

/// The helm of the path, or else one that Go builds.
fn program() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        if Command::new("helm").arg("version").output().is_ok_and(|ended| ended.status.success()) {
            return Ok("helm".into());
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = folder.join("helm");
        if built.exists() {
            return Ok(built);
        }
        let mut go = Command::new("go");
        go.env("GOBIN", folder);
        go.args(["install", "-ldflags=-s -w", &format!("helm.sh/helm/v3/cmd/helm@{VERSION}")]);
        match go.output() {
            Err(error) => Err(format!("needs helm, or Go 1.26 ({error})")),
            Ok(ended) if ended.status.success() => Ok(built),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
        }
    })
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/lastkey").canonicalize().unwrap()
}

/// Runs helm; `None` where there is none.
fn helm(test: &str, verb: &[&str], set: &[&str]) -> Option<Ended> {
    let program = match program() {
        Ok(program) => program,
        Err(reason) => {
            not_run(&format!("SKIPPED {test}: {reason}"));
            return None;
        }
    };
    let mut command = Command::new(program);
    command.args(verb).arg(chart()).args(["--namespace", "keys"]);
    // One that was built without the scripts of its makers believes in an old cluster.
    command.args(["--kube-version", "1.37.0"]);
    for value in set {
        command.args(["--set", value]);
    }
    Some(run(&mut command, b""))
}

fn image() -> [String; 2] {
    ["image.repository=registry.example/lastkey".to_owned(), format!("image.digest={DIGEST}")]
}

/// The chart with an image and these values.
pub(crate) fn render(test: &str, set: &[&str]) -> Option<String> {
    let image = image();
    let all: Vec<&str> = image.iter().map(String::as_str).chain(set.iter().copied()).collect();
    Some(helm(test, &["template", "lastkey"], &all)?.ok())
}

/// Every way in which the chart can be used.
const WAYS: [&[&str]; 4] = [
    &[],
    &["init=true"],
    &["cluster=prod", "metrics.access=public", "tls.names={keys.example.org}"],
    &[
        "storage.existingClaim=mine",
        "backup.credentialsSecret=bucket",
        "priorityClassName=system-cluster-critical",
        "nodeSelector.disk=ssd",
        "networkPolicy.from[0].podSelector.matchLabels.uses=keys",
        "networkPolicy.egress[0].ports[0].port=53",
        "image.pullSecrets[0].name=pull",
    ],
];

const FINGERPRINT: &str =
    "agents.caFingerprint=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ADDRESS: &str = "agents.address=https://lastkey.lastkey.svc:8400";
const AUTHORITY: &str = "agents.ca=-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

/// Every way in which agents can be had.
const AGENTS: [&[&str]; 6] = [
    &["server.enabled=false", ADDRESS, FINGERPRINT, "secretsProvider.enabled=true"],
    &[
        ADDRESS,
        AUTHORITY,
        "secretsProvider.enabled=true",
        "secretsProvider.personalities={lastkey,aws}",
        "secretsProvider.audiences={lastkey,sts.amazonaws.com}",
        "secretsProvider.role=\\{namespace\\}-\\{serviceaccount\\}",
        "secretsProvider.push=false",
        "secretsProvider.outage.hours=4",
        "secretsProvider.outage.issuer=https://k",
        "secretsProvider.outage.jwks=keys",
        "agents.nodeSelector.kubernetes\\.io/os=linux",
    ],
    &[
        "server.enabled=false",
        ADDRESS,
        FINGERPRINT,
        "volumes.enabled=true",
        "volumes.image.repository=registry.example/volumes",
        "volumes.image.tag=v1",
        "volumes.sidecars.provisioner=registry.example/provisioner:1",
    ],
    &[
        ADDRESS,
        AUTHORITY,
        "volumes.enabled=true",
        "volumes.image.repository=registry.example/volumes",
        "volumes.image.tag=v1",
        "volumes.driverName=diskplugin.csi.alibabacloud.com",
        "volumes.cluster=prod",
        "volumes.storageClass.name=encrypted",
        "volumes.storageClass.key=alias/team-a",
        "volumes.storageClass.unlockRole=team-a",
        "volumes.audience=lastkey",
        "volumes.inline.enabled=false",
        "volumes.sidecars.provisioner=registry.example/provisioner:1",
        "volumes.sidecars.snapshotter=registry.example/snapshotter:1",
        "volumes.sidecars.resizer=registry.example/resizer:1",
    ],
    KMS_PLUGIN,
    &[
        "server.enabled=false",
        AUTHORITY,
        "kmsPlugin.enabled=true",
        "kmsPlugin.endpoints={https://10.0.0.11:8400}",
        "kmsPlugin.outage.writes=stop",
        "kmsPlugin.events=/etc/kubernetes/kubelet.conf",
    ],
];

/// A provider that writes events, and that classes may send to other servers.
pub(crate) const EVENTS: &[&str] = &[
    "server.enabled=false",
    ADDRESS,
    FINGERPRINT,
    "secretsProvider.enabled=true",
    "secretsProvider.events=true",
    "secretsProvider.maxVolumeBytes=8388608",
    "secretsProvider.allowAddresses={https://eu.example:8443,https://us.example/,https://ap.example:8400}",
];

const KMS_PLUGIN: &[&str] = &[
    "server.enabled=false",
    FINGERPRINT,
    "kmsPlugin.enabled=true",
    "kmsPlugin.endpoints={https://10.0.0.11:8400,https://10.0.0.12:8400}",
    "kmsPlugin.cluster=prod",
];

/// The objects of a chart.
pub(crate) fn objects(rendered: &str) -> Vec<Value> {
    let documents = yaml::documents(rendered).into_iter();
    documents.map(|(line, text)| api_server::json(&yaml::parse(text, line).unwrap())).collect()
}

/// What the schema of the values does not take.
const BAD_VALUES: [&str; 14] = [
    "image.digest=sha256:12",
    "image.repository=",
    "storage.size=many",
    "metrics.access=everybody",
    "tls.names={\"}",
    "nobodyKnows=1",
    "image.nobodyKnows=1",
    "volumes.refuseNamespaces={a/b}",
    "volumes.inline.limit=much",
    "kmsPlugin.metrics=0.0.0.0:9808",
    "secretsProvider.events=maybe",
    "secretsProvider.maxVolumeBytes=100",
    "secretsProvider.allowAddresses={http://eu.example}",
    "backup.credentialsSecret=a/b",
];

#[test]
#[ignore = "heavy: builds helm"]
fn chart_is_linted_and_its_values_are_checked() {
    let test = "chart_is_linted_and_its_values_are_checked";
    let image = image();
    let good: Vec<&str> = image.iter().map(String::as_str).collect();
    let Some(linted) = helm(test, &["lint", "--strict"], &good) else { return };
    assert!(linted.ok().contains("0 chart(s) failed"), "{}", linted.text());
    for bad in BAD_VALUES {
        let set: Vec<&str> = good.iter().copied().chain([bad]).collect();
        let refused = helm(test, &["template", "lastkey"], &set).unwrap();
        assert_ne!(refused.code, Some(0), "{bad}");
        let by_schema = ["schema", "parsing"].iter().any(|word| refused.stderr.contains(word));
        assert!(by_schema, "{bad}: {}", refused.stderr);
    }
    let refused = helm(test, &["template", "lastkey"], &[]).unwrap();
    assert!(refused.failed(1).contains("image"), "without an image: {}", refused.stderr);
    for (bad, words) in [
        (&["secretsProvider.enabled=true"][..], "agents.address"),
        (&["secretsProvider.enabled=true", ADDRESS], "agents.caFingerprint"),
        (
            &[
                "secretsProvider.enabled=true",
                ADDRESS,
                FINGERPRINT,
                "secretsProvider.outage.hours=4",
            ],
            "secretsProvider.outage.",
        ),
        (&["volumes.enabled=true", ADDRESS, FINGERPRINT], "volumes"),
        (
            &[
                "volumes.enabled=true",
                ADDRESS,
                FINGERPRINT,
                "volumes.image.repository=registry.example/volumes",
                "volumes.image.tag=v1",
                "volumes.sidecars.provisioner=registry.example/provisioner:1",
                "volumes.storageClass.name=encrypted",
                "volumes.storageClass.unlockRole=team-a",
            ],
            "volumes.audience",
        ),
        (&["kmsPlugin.enabled=true", FINGERPRINT], "kmsPlugin"),
        (&["agents.address=http://k:8400"], "agents"),
    ] {
        let set: Vec<&str> = good.iter().chain(bad).copied().collect();
        let refused = helm(test, &["template", "lastkey"], &set).unwrap();
        assert!(refused.failed(1).contains(words), "{bad:?}: {}", refused.stderr);
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn credentials_of_the_bucket_come_from_a_secret_that_not_everybody_can_read() {
    let test = "credentials_of_the_bucket_come_from_a_secret_that_not_everybody_can_read";
    let secret = json!({ "secretName": "bucket", "defaultMode": 0o440 });
    for (way, expected) in [(WAYS[0], None), (WAYS[3], Some(secret))] {
        let Some(rendered) = render(test, way) else { return };
        let objects = objects(&rendered);
        let server = objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
        let pod = &server["spec"]["template"]["spec"];
        let named = |list: &Value| {
            list.as_array().unwrap().iter().find(|one| one["name"] == "backup").cloned()
        };
        assert_eq!(named(&pod["volumes"]).map(|volume| volume["secret"].clone()), expected);
        let mount = named(&pod["containers"][0]["volumeMounts"]);
        let path = mount.map(|mount| mount["mountPath"].clone());
        assert_eq!(path, expected.map(|_| json!("/etc/lastkey-backup")));
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn agents_are_started_by_words_that_the_binary_takes() {
    let test = "agents_are_started_by_words_that_the_binary_takes";
    for way in AGENTS.into_iter().chain([EVENTS]) {
        let Some(rendered) = render(test, way) else { return };
        for daemon in objects(&rendered).iter().filter(|object| object["kind"] == "DaemonSet") {
            let container = &daemon["spec"]["template"]["spec"]["containers"][0];
            let words = container["args"].as_array().unwrap().iter();
            let words = words.map(|word| word.as_str().unwrap());
            // Folders of a node that are not there here: whatever it says, it is about them.
            let words = words.map(|word| {
                let word = word.replace("=/", "=/nowhere/").replace(":/", ":/nowhere/");
                word.replace("0.0.0.0:9809", "127.0.0.1:0").replace("0.0.0.0:9810", "127.0.0.1:0")
            });
            let mut agent = lastkey(words);
            for one in container["env"].as_array().unwrap() {
                let name = one["name"].as_str().unwrap();
                if ["LASTKEY_ADDR", "LASTKEY_CA_FINGERPRINT"].contains(&name) {
                    agent.env(name, one["value"].as_str().unwrap());
                }
            }
            agent.env("LASTKEY_CA_FINGERPRINT", FINGERPRINT.split_once('=').unwrap().1);
            // The tests may run in a pod themselves.
            agent.env_remove("KUBERNETES_SERVICE_HOST");
            let ended = run(&mut agent, b"");
            assert_eq!(ended.code, Some(1), "{way:?}: {}", ended.text());
            let words = if way == EVENTS { "this is no pod" } else { "nowhere" };
            assert!(ended.stderr.contains(words), "{way:?}: {}", ended.text());
        }
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn kubelet_sends_tokens_of_pods_where_an_audience_is_named() {
    let test = "kubelet_sends_tokens_of_pods_where_an_audience_is_named";
    for (way, requests, role) in [
        (AGENTS[2], Value::Null, Value::Null),
        (AGENTS[3], json!([{ "audience": "lastkey" }]), json!("team-a")),
    ] {
        let Some(rendered) = render(test, way) else { return };
        let objects = objects(&rendered);
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind);
        let spec = &of("CSIDriver").unwrap()["spec"];
        assert_eq!(spec["tokenRequests"], requests);
        assert_eq!(spec["requiresRepublish"] == true, requests != Value::Null);
        let parameters = of("StorageClass").map(|class| &class["parameters"]["unlockRole"]);
        assert_eq!(parameters.unwrap_or(&Value::Null), &role);
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn provider_may_create_events_and_reach_what_it_is_told_to_and_nothing_else() {
    let test = "provider_may_create_events_and_reach_what_it_is_told_to_and_nothing_else";
    for (way, has_token, ports) in
        [(AGENTS[0], false, &[8400][..]), (EVENTS, true, &[8400, 8443, 443, 6443])]
    {
        let Some(rendered) = render(test, way) else { return };
        let objects = objects(&rendered);
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind);
        let pod = &of("DaemonSet").unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], has_token);
        let rules = of("ClusterRole").map(|role| role["rules"].clone());
        let creates = json!([{ "apiGroups": ["events.k8s.io"], "resources": ["events"],
            "verbs": ["create"] }]);
        assert_eq!(rules, has_token.then_some(creates));
        let bound = of("ClusterRoleBinding").map(|binding| binding["subjects"][0]["name"].clone());
        assert_eq!(bound, has_token.then(|| pod["serviceAccountName"].clone()));
        let [rule] = of("NetworkPolicy").unwrap()["spec"]["egress"].as_array().unwrap().as_slice()
        else {
            panic!("one rule")
        };
        let open = rule["ports"].as_array().unwrap().iter();
        let open = open.filter(|one| one["protocol"] == "TCP" && one["port"] != 53);
        assert_eq!(open.map(|one| &one["port"]).collect::<Vec<_>>(), ports);
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn inline_volumes_are_bounded_or_there_are_none() {
    let test = "inline_volumes_are_bounded_or_there_are_none";
    for (way, modes, bounds) in [
        (AGENTS[2], json!(["Persistent", "Ephemeral"]), &["limit=10Gi", "total=50Gi"][..]),
        (AGENTS[3], json!(["Persistent"]), &["total=0"]),
    ] {
        let Some(rendered) = render(test, way) else { return };
        let objects = objects(&rendered);
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(of("CSIDriver")["spec"]["volumeLifecycleModes"], modes);
        let driver = &of("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
        let words = driver["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let said: Vec<&str> = words.filter_map(|word| word.strip_prefix("--inline-")).collect();
        assert_eq!(said, bounds);
        assert_eq!(driver["livenessProbe"]["httpGet"]["port"], driver["ports"][0]["name"]);
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn driver_refuses_claims_of_each_namespace_that_has_a_key_service() {
    let test = "driver_refuses_claims_of_each_namespace_that_has_a_key_service";
    let with_server = "server.enabled=true";
    for (set, expected) in [
        (&[][..], &["lastkey"][..]),
        (&[with_server], &["lastkey", "keys"]),
        (&[with_server, "volumes.refuseNamespaces={keys,vault}"], &["keys", "vault"]),
    ] {
        let way: Vec<&str> = AGENTS[2].iter().chain(set).copied().collect();
        let Some(rendered) = render(test, &way) else { return };
        let objects = objects(&rendered);
        let daemon = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let words = daemon["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        let words = words.iter().map(|word| word.as_str().unwrap());
        let refused: Vec<&str> =
            words.filter_map(|word| word.strip_prefix("--refuse-namespace=")).collect();
        assert_eq!(refused, expected, "{set:?}");
    }
}

#[test]
#[ignore = "heavy: builds helm"]
fn agents_reach_no_more_of_a_node_than_the_documents_say() {
    let test = "agents_reach_no_more_of_a_node_than_the_documents_say";
    let mut found = std::collections::BTreeSet::new();
    for way in AGENTS[..4].iter().chain([&EVENTS]) {
        let Some(rendered) = render(test, way) else { return };
        let mut check = lastkey(["check", "--manifests", "-", "--output", "json"]);
        let said = run(&mut check, rendered.as_bytes()).text();
        let report: Value = serde_json::from_str(&said).unwrap();
        for finding in report["findings"].as_array().unwrap() {
            if finding["rule"] == "POD-05" {
                let subject = finding["subject"].as_str().unwrap();
                let agent = subject.rsplit('/').next().unwrap();
                found.insert(format!("{agent}: {}", finding["evidence"].as_str().unwrap()));
            }
        }
    }
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [
            "lastkey-secrets-provider: volume identity: hostPath /var/lib/lastkey-node",
            "lastkey-secrets-provider: volume pods: hostPath /var/lib/kubelet/pods",
            "lastkey-secrets-provider: volume sockets: hostPath /var/run/secrets-store-csi-providers",
            "lastkey-volumes: containers driver: is privileged",
            "lastkey-volumes: volume devices: hostPath /dev",
            "lastkey-volumes: volume files: hostPath /var/lib/lastkey-volumes",
            "lastkey-volumes: volume identity: hostPath /var/lib/lastkey-node",
            "lastkey-volumes: volume kubelet: hostPath /var/lib/kubelet",
            "lastkey-volumes: volume plugin: hostPath /var/lib/kubelet/plugins/diskplugin.csi.alibabacloud.com",
            "lastkey-volumes: volume plugin: hostPath /var/lib/kubelet/plugins/volumes.lastkey.dev",
        ]
    );
}

/// What a ConfigMap keeps for control-plane nodes: the manifest of the plugin, and its configuration.
fn files_of_the_kms_plugin(rendered: &str) -> (String, String) {
    let all = objects(rendered);
    let map = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let text = |name: &str| map["data"][name].as_str().unwrap().to_owned();
    (text("lastkey-kms-plugin.yaml"), text("kms-plugin.toml"))
}

#[test]
#[ignore = "heavy: builds helm"]
fn files_for_control_plane_nodes_are_those_that_lie_beside_the_chart_and_are_taken() {
    let test = "files_for_control_plane_nodes_are_those_that_lie_beside_the_chart_and_are_taken";
    let Some(rendered) = render(test, KMS_PLUGIN) else { return };
    let (manifest, config) = files_of_the_kms_plugin(&rendered);
    let beside = chart().join("../../kubernetes/kms-plugin-static-pod.yaml");
    let beside = std::fs::read_to_string(beside).unwrap();
    let pod = |text: &str| {
        let mut pod = objects(text).remove(0);
        let image = pod["spec"]["containers"][0]["image"].take();
        assert!(image.as_str().unwrap().contains("@sha256:"), "{image}");
        pod
    };
    assert_eq!(pod(&manifest), pod(&beside));
    // The plugin reads it whole, and misses the certificate of the node alone.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kms-plugin.toml");
    std::fs::write(&file, config).unwrap();
    let doctor = ["etcd", "doctor", "--config", file.to_str().unwrap()];
    let said = run(&mut lastkey(doctor), b"");
    assert!(said.stderr.contains("/var/lib/lastkey-node/node.pem"), "{}", said.stderr);
}

#[test]
#[ignore = "heavy: builds helm"]
fn rendered_chart_has_no_finding_worth_a_word_and_a_configuration_that_is_taken() {
    let test = "rendered_chart_has_no_finding_worth_a_word_and_a_configuration_that_is_taken";
    for way in WAYS {
        let Some(rendered) = render(test, way) else { return };
        let mut check =
            lastkey(["check", "--manifests", "-", "--fail-on", "low", "--output", "json"]);
        let ended = run(&mut check, rendered.as_bytes());
        assert_eq!(ended.code, Some(0), "{way:?}\n{}", ended.text());
        // The server reads what it is given, and completes it.
        let all = objects(&rendered);
        let map = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lastkey.toml");
        std::fs::write(&file, map["data"]["lastkey.toml"].as_str().unwrap()).unwrap();
        let shown = run(&mut lastkey(["config", "show", "--config", file.to_str().unwrap()]), b"");
        assert!(shown.ok().contains("lastkey.keys.svc"), "{}", shown.text());
    }
}

#[test]
#[ignore = "heavy: builds helm, builds and starts a kube-apiserver"]
fn api_server_takes_the_chart_under_the_restricted_standard() {
    let test = "api_server_takes_the_chart_under_the_restricted_standard";
    let Some(first) = render(test, &[]) else { return };
    let Some(api) = ApiServer::found(test) else { return };
    let restricted = "apiVersion: v1\nkind: Namespace\nmetadata: {name: keys, labels: {pod-security.kubernetes.io/enforce: restricted}}\n";
    api.create(restricted, false).unwrap();
    for rendered in
        std::iter::once(first).chain(WAYS[1..].iter().filter_map(|way| render(test, way)))
    {
        for object in objects(&rendered) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            api.create_object(&object, true).unwrap_or_else(|error| panic!("{kind}: {error}"));
            // Pods that a controller would make are judged by what they are.
            if kind == "StatefulSet" {
                api.create_object(&pod_of(&object), true)
                    .unwrap_or_else(|error| panic!("its pod: {error}"));
            }
        }
    }
    // Agents have folders of their nodes, which the standard forbids: a namespace of their own.
    let refused = |rendered: &str| {
        let all = objects(rendered);
        let daemon = all.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        api.create_object(&pod_of(daemon), true)
    };
    for way in AGENTS[..4].iter().chain([&EVENTS]) {
        let rendered = render(test, way).unwrap();
        let error = refused(&rendered).unwrap_err().to_string();
        assert!(error.contains("restricted"), "{error}");
        let rendered = rendered.replace("namespace: keys", "namespace: agents");
        if *way == AGENTS[0] {
            let privileged =
                restricted.replace("keys", "agents").replace("restricted", "privileged");
            api.create(&privileged, false).unwrap();
        }
        for object in objects(&rendered) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            api.create_object(&object, true).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        refused(&rendered).unwrap();
    }
    // As the kubelet shows it to the API server.
    for way in &AGENTS[4..] {
        let (manifest, _) = files_of_the_kms_plugin(&render(test, way).unwrap());
        api.create(&manifest, true).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

/// A pod as a controller would make it.
fn pod_of(controller: &Value) -> Value {
    let template = &controller["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = "lastkey-0".into();
    metadata["namespace"] = controller["metadata"]["namespace"].clone();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}
