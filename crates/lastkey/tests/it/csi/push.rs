//! New versions reach mounted volumes at once, with a driver that knows nothing of it, and who
//! holds which version is known.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lastkey_client::{Client, ClientConfig, SecretVec, Trust};
use lastkey_wire::native::secrets::{SeenSecret, WatchSecretsRequest};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::csi::driver::{Driver, Pod, Published};
use crate::csi::site::{Site, class, content};
use crate::process::{HANG, Running, until};
use crate::secret_sync::{Secrets, kubeconfig};
use crate::world::audit_records;

/// A provider that sees the kubelet's folder.
fn provider(site: &Site) -> Running {
    site.provider(&["--kubelet-dir", site.path("kubelet").to_str().unwrap()])
}

/// Pod and version of each who holds a secret.
fn consumers(site: &Site, name: &str) -> Vec<(String, u64)> {
    let reply = site.run(&format!("secret consumers {name} --output json")).json();
    let of = |one: &Value| {
        (one["pod_uid"].as_str().unwrap().to_owned(), one["version"].as_u64().unwrap())
    };
    reply["consumers"].as_array().unwrap().iter().map(of).collect()
}

fn held(pod: &str, version: u64) -> Vec<(String, u64)> {
    vec![(pod.to_owned(), version)]
}

#[track_caller]
fn mounted(driver: &mut Driver, pod: &Pod, objects: &str) {
    let published = driver.publish(pod, &class(objects)).unwrap();
    assert!(matches!(published, Published::Mounted(_)), "{published:?}");
}

fn has(target: &Path, name: &str, text: &str) -> bool {
    fs::read_to_string(target.join(name)).is_ok_and(|found| found == text)
}

#[test]
fn new_version_is_in_the_volume_at_once_and_comes_back_as_a_receipt() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    site.put("prod/shop/other", b"other");
    let _provider = provider(&site);
    let mut driver = site.driver();
    let (pod, bystander) = (site.pod("pod-1"), site.pod("pod-2"));
    let objects = "- {secret: prod/shop/db, mode: '0440', previous: true}";
    mounted(&mut driver, &pod, objects);
    mounted(&mut driver, &bystander, "- {secret: prod/shop/other}");
    let target = driver.target(&pod);
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 1));
    assert!(!target.join("db.previous").exists());
    let reads = site.audited("secrets:GetSecret");

    site.put("prod/shop/db", b"two");
    until("new bytes", || has(&target, "db", "two"));
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 2));
    assert_eq!(content(&target, "db.previous"), "one");
    assert_eq!(driver.calls, 2, "the driver was not needed");
    // It writes nothing when the kubelet asks, and the other pod was left alone.
    let before = fs::read_link(target.join("..data")).unwrap();
    mounted(&mut driver, &pod, objects);
    assert_eq!(fs::read_link(target.join("..data")).unwrap(), before);
    assert_eq!(site.audited("secrets:GetSecret"), reads + 2);
    assert_eq!(consumers(&site, "prod/shop/other"), held("pod-2", 1));
    // Each receipt is in the audit log, by the node and about the pod.
    let records = audit_records(&site.installation.data, "--action secrets:ReportHolders");
    let newest = records.iter().find(|one| one["target"] == "secret/prod/shop/db#2").unwrap();
    assert!(newest["reason"].as_str().unwrap().contains("pod-1"), "{newest}");
    assert!(newest.to_string().contains("node:worker-1"), "{newest}");
}

#[test]
fn what_changed_while_the_server_or_the_provider_was_away_arrives_afterwards() {
    let mut site = Site::found();
    site.put("prod/shop/db", b"one");
    let mut first = provider(&site);
    let mut driver = site.driver();
    let pod = site.pod("pod-1");
    let objects = "- {secret: prod/shop/db}";
    mounted(&mut driver, &pod, objects);
    let target = driver.target(&pod);
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 1));
    site.server.process.kill();
    site.serve_again();
    site.put("prod/shop/db", b"two");
    until("new bytes after the server's restart", || has(&target, "db", "two"));
    // The server has forgotten what it was told, and is told again.
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 2));
    first.kill();
    site.put("prod/shop/db", b"three");
    // A provider that starts knows of no volume until the kubelet asks.
    let _second = provider(&site);
    mounted(&mut driver, &pod, objects);
    assert_eq!(content(&target, "db"), "three");
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 3));
}

/// The driver tells nobody when a mounted volume is not renewed.
#[test]
fn what_becomes_of_a_mounted_volume_is_an_event_of_its_pod() {
    let (site, api) = (Site::found(), Secrets::default());
    let kubeconfig = kubeconfig(&site.path(""), &api.serve());
    site.put_fields("prod/shop/db", &[("password", "one")]);
    let kubelet = site.path("kubelet");
    let (kubelet, kubeconfig) = (kubelet.to_str().unwrap(), kubeconfig.to_str().unwrap());
    let _provider = site.provider(&["--kubelet-dir", kubelet, "--events-kubeconfig", kubeconfig]);
    let mut driver = site.driver();
    let pod = site.pod("pod-1");
    mounted(&mut driver, &pod, "- {secret: prod/shop/db, field: password, path: pw}");
    let target = driver.target(&pod);
    let told = |reason: &str| {
        let all = api.below("/apis/events.k8s.io/v1/namespaces/shop/events/");
        all.into_iter().find(|event| event["reason"] == reason)
    };
    site.put_fields("prod/shop/db", &[("password", "two")]);
    until("new bytes", || has(&target, "pw", "two"));
    until("an event of it", || told("SecretsRenewed").is_some());
    // Its field is gone: the volume stays as it is.
    site.put("prod/shop/db", b"{}");
    until("an event of that", || told("SecretsNotRenewed").is_some());
    let kept = told("SecretsNotRenewed").unwrap();
    assert_eq!(kept["type"], "Warning");
    assert_eq!(kept["regarding"]["uid"], "pod-1");
    let note = kept["note"].as_str().unwrap();
    assert!(note.contains("prod/shop/db") && note.contains("no field password"), "{note}");
    assert!(has(&target, "pw", "two"));
    // The next version has it again.
    site.put_fields("prod/shop/db", &[("password", "four")]);
    until("new bytes", || has(&target, "pw", "four"));
}

#[test]
fn node_that_may_not_be_told_says_so_and_names_what_to_permit() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    site.ok("policy delete nodes");
    let provider = provider(&site);
    let mut driver = site.driver();
    mounted(&mut driver, &site.pod("pod-1"), "- {secret: prod/shop/db}");
    provider.logs("Permit secrets:ListSecrets to nodes");
    assert!(consumers(&site, "prod/shop/db").is_empty());
}

/// Nodes are listened to for a minute before anything is revoked.
#[test]
#[ignore = "heavy: a minute of listening"]
fn old_version_is_revoked_when_the_last_pod_has_moved_and_not_before() {
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    site.ok("secret rotation set prod/shop/db --generate");
    // It leaves mounted volumes to the kubelet, and sees that it knows them all.
    let kubelet = site.path("kubelet");
    let _provider = site.provider(&["--no-push", "--kubelet-dir", kubelet.to_str().unwrap()]);
    let mut driver = site.driver();
    let pod = site.pod("pod-1");
    let objects = "- {secret: prod/shop/db}";
    mounted(&mut driver, &pod, objects);
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 1));
    let line = ["secret", "rotate", "prod/shop/db", "--wait-consumers"];
    let mut waiting = Running::start(&mut site.server.client(line));
    let told = waiting.logs("version 1 is still held by");
    assert!(told.contains("shop/") && told.contains("worker-1"), "{told}");
    assert_eq!(site.ok("secret get prod/shop/db --version 1"), "one");

    let target = driver.target(&pod);
    until("new bytes when the kubelet asks", || {
        mounted(&mut driver, &pod, objects);
        !has(&target, "db", "one")
    });
    let ended = waiting.ended_within(HANG);
    assert!(ended.success(), "{}", waiting.complaint());
    assert_eq!(consumers(&site, "prod/shop/db"), held("pod-1", 2));
    assert_eq!(site.run("secret get prod/shop/db --version 1").code, Some(1));
    assert_eq!(site.ok("secret get prod/shop/db"), content(&target, "db"));
}

/// Other nodes: each keeps a connection of its own, and a watch of the secret waiting on it.
struct Others {
    runtime: Runtime,
    connected: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl Others {
    /// They have the certificate of the one node that there is, and say of nobody what he holds.
    fn watch(site: &Site, name: &str, count: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let this = Self { runtime, connected: Arc::default(), told: Arc::default() };
        for number in 1..=count {
            let client = node_client(site);
            let (connected, told) = (Arc::clone(&this.connected), Arc::clone(&this.told));
            let request = WatchSecretsRequest {
                secrets: vec![SeenSecret { name: name.to_owned(), version: Some(1) }],
                wait_seconds: Some(20),
                holders_digest: None,
                holders: None,
                holders_incomplete: false,
            };
            this.runtime.spawn(async move {
                client.health().await.unwrap();
                connected.fetch_add(1, Ordering::Relaxed);
                while client.watch_secrets(&request).await.unwrap().changed.is_empty() {}
                told.fetch_add(1, Ordering::Relaxed);
            });
            // As many handshakes at a time as are over before the server gives one up.
            if number % 50 == 0 || number == count {
                until("they connect", || this.connected.load(Ordering::Relaxed) == number);
            }
        }
        this
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

fn node_client(site: &Site) -> Client {
    let mut config = ClientConfig::new(site.server.addr.parse().unwrap());
    config.trust = Trust::Authority(fs::read(site.installation.data.join("tls/ca.pem")).unwrap());
    config.identity = Some(SecretVec::take(fs::read(site.path("node/node.pem")).unwrap()));
    config.connect_timeout = Duration::from_secs(30);
    Client::new(&config).unwrap()
}

/// Prints how long it took, for `cargo xtask bench push`.
#[test]
#[ignore = "heavy: a thousand connections"]
fn new_version_is_in_the_volume_among_a_thousand_nodes() {
    const OTHERS: usize = 999;
    let site = Site::found();
    site.put("prod/shop/db", b"one");
    let _provider = provider(&site);
    let mut driver = site.driver();
    let pod = site.pod("pod-1");
    mounted(&mut driver, &pod, "- {secret: prod/shop/db}");
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 1));
    let others = Others::watch(&site, "prod/shop/db", OTHERS);
    assert_eq!(others.told(), 0);
    let begun = Instant::now();
    site.put("prod/shop/db", b"two");
    until("new bytes", || has(&driver.target(&pod), "db", "two"));
    let in_volume = begun.elapsed();
    until("all are told", || others.told() == OTHERS);
    let all_told = begun.elapsed();
    let (in_volume, all_told) = (in_volume.as_millis(), all_told.as_millis());
    // The harness may have begun a line.
    println!("\npush.in_volume_ms {in_volume}\npush.all_told_ms {all_told}");
    until("a receipt", || consumers(&site, "prod/shop/db") == held("pod-1", 2));
}
