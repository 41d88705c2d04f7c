//! What the provider of secrets costs a node: time of a mount that is answered from memory, and
//! memory for 250 pods with 10 objects each.
//!
//!     cargo run --release -p lastkey-node --example csi_bench
//!
//! The service behind it is one in the same process; the time is that of the whole call but for
//! gRPC.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_node::csi::{Personality, Provider, ProviderConfig};
use lastkey_node::ports::{
    News, PodSession, Question, ReadSecret, ReadValue, SecretError, SecretOps, Which,
};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::MountRequest;

const PODS: usize = 250;
const OBJECTS: usize = 10;
const REPUBLISHES: usize = 20;
const VALUE_LEN: usize = 256;

/// Answers everything, and counts.
#[derive(Default)]
struct Service(AtomicUsize);

#[async_trait]
impl SecretOps for Service {
    async fn open_session(&self, _: &SecretVec, _: &str) -> Result<PodSession, SecretError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let ends_at = tokio::time::Instant::now() + Duration::from_secs(900);
        Ok(PodSession { bearer: SecretVec::take(vec![b'b'; 600]), ends_at })
    }

    async fn read(&self, _: &PodSession, _: &str, _: &Which) -> Result<ReadSecret, SecretError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let value = ReadValue::Opaque(SecretVec::take(vec![b'v'; VALUE_LEN]));
        let made_at = "2026-11-29T00:00:00Z".to_owned();
        Ok(ReadSecret { version: 1, made_at, value, ask_after: None })
    }

    async fn watch(&self, _: &Question) -> Result<News, SecretError> {
        std::future::pending().await
    }
}

fn request(pod: usize) -> MountRequest {
    let claims = format!(r#"{{"exp":4000000000,"kubernetes.io":{{"pod":{{"uid":"uid-{pod}"}}}}}}"#);
    let token = format!("h.{}.{}", URL_SAFE_NO_PAD.encode(claims), "s".repeat(700));
    let tokens = serde_json::json!({ "lastkey": { "token": token } }).to_string();
    let objects: String =
        (0..OBJECTS).map(|n| format!("- {{secret: prod/shop/secret-{n}}}\n")).collect();
    let attributes = serde_json::json!({
        "role": "shop", "objects": objects, "secretProviderClass": "shop",
        "csi.storage.k8s.io/pod.name": format!("pod-{pod}"),
        "csi.storage.k8s.io/pod.uid": format!("uid-{pod}"),
        "csi.storage.k8s.io/pod.namespace": "shop",
        "csi.storage.k8s.io/serviceAccount.name": "api",
        "csi.storage.k8s.io/serviceAccount.tokens": tokens,
    });
    MountRequest {
        attributes: attributes.to_string(),
        secrets: "null".to_owned(),
        target_path: format!("/pods/uid-{pod}/volumes/kubernetes.io~csi/v/mount"),
        permission: "420".to_owned(),
        current_object_version: Vec::new(),
    }
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let service = Arc::new(Service::default());
    let config = ProviderConfig {
        push: true,
        version: "bench".to_owned(),
        role: None,
        kubelet: None,
        audiences: vec!["lastkey".to_owned()],
        max_volume_bytes: ProviderConfig::USUAL_VOLUME_BYTES,
    };
    let port: Arc<dyn SecretOps> = service.clone();
    let provider = Provider::new(config, port, None).unwrap();
    let before = resident();
    for pod in 0..PODS {
        provider.mount(Personality::Lastkey, &request(pod)).await.unwrap();
    }
    let (asked, after) = (service.0.load(Ordering::Relaxed), resident());
    let mut times = Vec::new();
    for _ in 0..REPUBLISHES {
        for pod in 0..PODS {
            let request = request(pod);
            let start = Instant::now();
            let answer = provider.mount(Personality::Lastkey, &request).await.unwrap();
            times.push(start.elapsed());
            assert_eq!(answer.files.len(), OBJECTS);
        }
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    println!("csi.objects {OBJECTS}\ncsi.pods {PODS}");
    println!("csi.p50_ms {:.4}\ncsi.p99_ms {:.4}", millis(at(50)), millis(at(99)));
    println!("csi.memory_mib {:.2}", (after - before) as f64 / 1_024.0);
    let calls = service.0.load(Ordering::Relaxed) - asked;
    assert_eq!(calls, 0, "republishes are answered from memory");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
