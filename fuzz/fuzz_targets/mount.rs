//! Classes as whoever writes a pod can write them, and what a driver sends: for each dialect a
//! refusal, or files that a driver takes. The first byte says which dialect.
#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_node::csi::{Personality, Provider, ProviderConfig};
use lastkey_node::ports::{
    News, PodSession, Question, ReadSecret, ReadValue, SecretError, SecretOps, Which,
};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::{MountRequest, MountResponse};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// The largest answer that a driver takes.
const MOST: usize = ProviderConfig::USUAL_VOLUME_BYTES;

/// Gives every secret: fields, or JSON for a name with an even length.
struct Service;

#[async_trait]
impl SecretOps for Service {
    async fn open_session(&self, _: &SecretVec, _: &str) -> Result<PodSession, SecretError> {
        let ends_at = Instant::now() + Duration::from_secs(900);
        Ok(PodSession { bearer: SecretVec::copy_of(b"b"), ends_at })
    }

    async fn read(&self, _: &PodSession, name: &str, _: &Which) -> Result<ReadSecret, SecretError> {
        let json = br#"{"a":"b","list":[1,{"deep":null}],"user":"x"}"#;
        let value = if name.len() % 2 == 0 {
            ReadValue::Opaque(SecretVec::copy_of(json))
        } else {
            let field = |name: &str| (name.to_owned(), SecretVec::copy_of(b"cGFzc3dvcmQ="));
            ReadValue::Fields(["user", "password", "../up"].map(field).into())
        };
        Ok(ReadSecret { version: 1, made_at: String::new(), value, ask_after: None })
    }

    async fn watch(&self, _: &Question) -> Result<News, SecretError> {
        std::future::pending().await
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// What stands for the parameters: JSON as it is, or the objects of a class that is right otherwise.
fn attributes(text: &str) -> String {
    if text.starts_with('{') {
        return text.to_owned();
    }
    // The claims of a pod with the UID `u`.
    let token = "h.eyJleHAiOjQwMDAwMDAwMDAsImt1YmVybmV0ZXMuaW8iOnsicG9kIjp7InVpZCI6InUifX19.s";
    let tokens = format!(r#"{{"lastkey":{{"token":"{token}"}}}}"#);
    serde_json::json!({
        "role": "r", "roleName": "r", "objects": text, "csi.storage.k8s.io/pod.uid": "u",
        "csi.storage.k8s.io/serviceAccount.tokens": tokens,
    })
    .to_string()
}

fn check(answer: &MountResponse) {
    assert!(!answer.object_version.is_empty() && answer.error.is_none());
    let mut paths = BTreeSet::new();
    for file in &answer.files {
        assert!(paths.insert(&file.path), "two files at {}", file.path);
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(file.path.split('/').all(is_plain), "{:?}", file.path);
        assert!((1..=0o777).contains(&file.mode));
    }
    assert!(answer.files.iter().map(|file| file.contents.len()).sum::<usize>() < MOST);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let personality = match which % 4 {
        0 => Personality::Lastkey,
        1 => Personality::AlibabaCloud,
        2 => Personality::Aws,
        _ => Personality::Vault,
    };
    let config = ProviderConfig {
        version: "fuzz".to_owned(),
        role: Some("r".to_owned()),
        kubelet: None,
        push: false,
        audiences: vec!["lastkey".to_owned()],
        max_volume_bytes: MOST,
    };
    let request = MountRequest {
        attributes: attributes(text),
        secrets: "null".to_owned(),
        target_path: "/pods/u".to_owned(),
        permission: "420".to_owned(),
        current_object_version: Vec::new(),
    };
    RUNTIME.block_on(async {
        let provider = Provider::new(config, Arc::new(Service), None).expect("a provider");
        if let Ok(answer) = provider.mount(personality, &request).await {
            check(&answer);
        }
    });
});
