//! Configurations as the API server reads them: first match, one name once, nothing masked.

use super::{
    EnableError, Platform, SECRETS_LIKE, Stage, Wanted, configuration, holds_keys, managed, steps,
};
use crate::{
    posture::{Settings, judge},
    snapshot::Snapshot,
};

fn wanted(stage: Stage, resources: &[&str]) -> Wanted {
    Wanted {
        provider: "lastkey".to_owned(),
        socket: "/run/lastkey/kms.sock".to_owned(),
        resources: resources.iter().map(|name| (*name).to_owned()).collect(),
        stage,
    }
}

fn start(resources: &[&str], running: Option<&str>) -> String {
    configuration(&wanted(Stage::Start, resources), running).unwrap()
}

/// Blocks as `resources: providers`, without what stands in the providers.
fn shape(text: &str) -> Vec<String> {
    let root = crate::snapshot::yaml::parse(text, 1).unwrap();
    let blocks = root.get("resources").items().iter().map(|block| {
        let resources: Vec<&str> = block.get("resources").texts().collect();
        let providers = block.get("providers").items().iter().map(|provider| {
            let (kind, body) = provider.entries().first().unwrap();
            let name = body.get("name").str();
            if name.is_empty() { kind.to_string() } else { format!("{kind} {name}") }
        });
        format!("{}: {}", resources.join(" "), providers.collect::<Vec<_>>().join(" > "))
    });
    blocks.collect()
}

/// What the posture checks say of a configuration.
fn findings(text: &str) -> Vec<String> {
    let mut snapshot = Snapshot::default();
    snapshot.add_file("encryption.yaml", text.as_bytes());
    let outcome = judge(&snapshot, Settings { now: 0 });
    outcome.findings.into_iter().map(|finding| finding.rule).collect()
}

const AESCBC: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: key1, secret: \"c2VjcmV0IGlzIHNlY3VyZQ==\"}]}
  - identity: {}
";

#[test]
fn first_configuration_reads_what_is_there_and_passes_every_check() {
    let text = start(&SECRETS_LIKE, None);
    assert_eq!(shape(&text), ["secrets configmaps: kms lastkey > identity"]);
    assert!(text.contains("endpoint: unix:///run/lastkey/kms.sock\n"));
    assert!(text.contains("apiVersion: v2\n"));
    assert_eq!(findings(&text), [""; 0]);
}

#[test]
fn wildcards_take_what_they_cover() {
    assert_eq!(shape(&start(&["secrets", "*.*"], None)), ["*.*: kms lastkey > identity"]);
    let text = start(&["secrets", "*.example.com", "a.example.com"], None);
    assert_eq!(
        shape(&text),
        ["secrets: kms lastkey > identity", "*.example.com: kms lastkey-2 > identity"]
    );
    assert_eq!(findings(&text), ["ENC-03"], "configmaps are not named, and that is said");
}

#[test]
fn another_provider_is_kept_behind_with_its_keys_until_the_last_step() {
    let text = start(&SECRETS_LIKE, Some(AESCBC));
    assert_eq!(shape(&text), ["secrets configmaps: kms lastkey > aescbc > identity"]);
    assert!(text.contains("c2VjcmV0IGlzIHNlY3VyZQ=="));
    assert!(holds_keys(&text) && !holds_keys(&start(&SECRETS_LIKE, None)));
    let last = configuration(&wanted(Stage::Finish, &SECRETS_LIKE), Some(&text)).unwrap();
    assert_eq!(shape(&last), ["secrets configmaps: kms lastkey"]);
    assert!(!holds_keys(&last));
    let again = configuration(&wanted(Stage::Start, &SECRETS_LIKE), Some(&text)).unwrap();
    assert_eq!(shape(&again), shape(&text), "a second start changes nothing");
}

#[test]
fn identity_in_front_writes_in_the_clear_and_goes_to_the_end() {
    let running = "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources:\n- resources: ['*.*']\n  providers: [{identity: {}}, {kms: {apiVersion: v2, name: vault, endpoint: 'unix:///v'}}]\n";
    assert!(findings(running).contains(&"ENC-02".to_owned()));
    let text = start(&["secrets"], Some(running));
    assert_eq!(shape(&text), ["*.*: kms lastkey > kms vault > identity"]);
    assert_eq!(findings(&text), [""; 0]);
}

#[test]
fn way_back_writes_in_the_clear_and_reads_what_was_sealed() {
    let running = start(&SECRETS_LIKE, None);
    let text = configuration(&wanted(Stage::Back, &[]), Some(&running)).unwrap();
    assert_eq!(shape(&text), ["secrets configmaps: identity > kms lastkey"]);
    let after = configuration(&wanted(Stage::Finish, &[]), Some(&running)).unwrap();
    let text = configuration(&wanted(Stage::Back, &[]), Some(&after)).unwrap();
    assert_eq!(shape(&text), ["secrets configmaps: identity > kms lastkey"]);
}

#[test]
fn what_the_api_server_would_refuse_is_refused_here() {
    let refused = |change: &dyn Fn(&mut Wanted), running: Option<&str>| {
        let mut wanted = wanted(Stage::Start, &["secrets"]);
        change(&mut wanted);
        configuration(&wanted, running).unwrap_err()
    };
    for name in ["", "a:b", "a b", "a\n"] {
        let error = refused(&|wanted| wanted.provider = name.to_owned(), None);
        assert_eq!(error, EnableError::Provider(name.to_owned()));
    }
    for socket in ["", "run/kms.sock", "/a\n", "/a\"b"] {
        let error = refused(&|wanted| wanted.socket = socket.to_owned(), None);
        assert_eq!(error, EnableError::Socket(socket.to_owned()));
    }
    for name in ["", "*", "Secrets", "events.events.k8s.io", "a.extensions", "secrets.", "a b"] {
        let error = refused(&|wanted| wanted.resources = vec![name.to_owned()], None);
        assert_eq!(error, EnableError::Resource(name.to_owned()));
    }
    assert_eq!(refused(&|_| (), Some("kind: Pod\n")), EnableError::Kind);
    assert!(matches!(refused(&|_| (), Some("kind: [")), EnableError::Syntax { .. }));
    let last = refused(&|wanted| wanted.stage = Stage::Finish, None);
    assert_eq!(last, EnableError::NothingRuns);
    let last = refused(&|wanted| wanted.stage = Stage::Finish, Some(AESCBC));
    assert_eq!(last, EnableError::NotStarted("lastkey".to_owned()));
    let other = start(&["secrets"], None).replace("/run/lastkey/", "/run/other/");
    assert_eq!(refused(&|_| (), Some(&other)), EnableError::Taken("lastkey".to_owned()));
}

const PLATFORMS: [Platform; 5] =
    [Platform::Kubeadm, Platform::K3s, Platform::Rke2, Platform::Talos, Platform::StaticPod];

/// What is printed once a configuration with these resources was made.
fn steps_for(platform: Platform, stage: Stage, resources: &[&str]) -> String {
    let text = match stage {
        Stage::Start => start(resources, None),
        Stage::Finish | Stage::Back => {
            configuration(&wanted(stage, &[]), Some(&start(resources, None))).unwrap()
        }
    };
    steps(platform, &wanted(stage, &SECRETS_LIKE), &text, "encryption.yaml")
}

/// The command, from its first word to its last line.
fn command<'a>(text: &'a str, words: &str) -> &'a str {
    let (_, rest) = text.split_once(words).unwrap();
    rest.split_once("\n4.").or(rest.split_once("\n5.")).map_or(rest, |(command, _)| command)
}

#[test]
fn steps_name_file_socket_and_proof_for_every_platform() {
    for platform in PLATFORMS {
        let text = steps_for(platform, Stage::Start, &["secrets", "widgets.example.com"]);
        for part in ["encryption.yaml", "/run/lastkey", "--require clear=0,stale=0", "etcd rewrite"]
        {
            assert!(text.contains(part), "{platform:?} lacks {part}");
        }
    }
}

#[test]
fn proof_and_rewriting_name_the_current_key_and_every_resource_of_the_configuration() {
    for platform in PLATFORMS {
        let is_talos = platform == Platform::Talos;
        let key = if is_talos { "--key-id ID" } else { "--socket /run/lastkey/kms.sock" };
        let resources = ["secrets", "widgets.example.com"];
        let start = steps_for(platform, Stage::Start, &resources);
        let last = steps_for(platform, Stage::Finish, &resources);
        for command in [
            command(&start, "lastkey etcd rewrite"),
            command(&start, "lastkey etcd verify"),
            command(&last, "lastkey etcd verify"),
        ] {
            for part in [key, "--resource secrets ", "--resource widgets.example.com "] {
                assert!(command.contains(part), "{platform:?} lacks {part}: {command}");
            }
        }
    }
}

#[test]
fn wildcards_are_proved_as_one_and_rewritten_one_by_one() {
    let text = steps_for(Platform::Kubeadm, Stage::Start, &["*.*"]);
    assert!(command(&text, "lastkey etcd verify").contains("--resource '*' "), "{text}");
    let rewrite = command(&text, "lastkey etcd rewrite");
    assert!(rewrite.contains("--resource R ") && rewrite.contains("R: each resource of *.*"));
    let text = steps_for(Platform::Kubeadm, Stage::Start, &["secrets", "*.example.com"]);
    let verify = command(&text, "lastkey etcd verify");
    assert!(verify.contains("--resource secrets --resource R "), "{verify}");
}

#[test]
fn way_back_proves_that_nothing_is_sealed_under_any_key() {
    for platform in PLATFORMS {
        let text = steps_for(platform, Stage::Back, &["secrets", "widgets.example.com"]);
        let verify = command(&text, "lastkey etcd verify");
        assert!(verify.contains("--key-id none --require stale=0"), "{verify}");
        assert!(text.contains("kubectl get secrets,widgets.example.com --all-namespaces"));
    }
}

#[test]
fn managed_control_planes_are_recognised_by_what_they_say() {
    for (words, name) in [
        ("v1.33.4-eks-99d6cc0", Some("Amazon EKS")),
        ("v1.34.1-gke.3355000", Some("Google GKE")),
        ("label kubernetes.azure.com/cluster=x", Some("Azure AKS")),
        ("v1.32.7-aliyun.1", Some("Alibaba Cloud ACK")),
        ("v1.34.3+k3s1", None),
        ("v1.37.0", None),
    ] {
        assert_eq!(managed(words).map(|service| service.name), name, "{words}");
    }
    assert!(managed("-eks-").unwrap().left().contains("associate-encryption-config"));
}
