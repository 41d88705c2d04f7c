//! A cluster that signs ServiceAccount tokens as Kubernetes does by default: RS256, 2,048 bits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use serde_json::{Value, json};

/// The name of the issuer, which many clusters share.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A cluster.
pub(crate) struct Issuer {
    key: SigningKey,
    jwk: Value,
    key_id: String,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The machine's clock, in seconds.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

impl Issuer {
    /// A cluster with a key of its own; ids of keys are the same in all.
    pub(crate) fn new() -> Self {
        Self::with_key_id("k1")
    }

    /// A cluster whose key has this id.
    pub(crate) fn with_key_id(key_id: &str) -> Self {
        let spec = MaterialSpec::Rsa2048;
        let material = material::generate(spec, &mut SystemEntropy).unwrap();
        let key = SigningKey::new(spec, &material).unwrap();
        // SubjectPublicKeyInfo of 2,048 bits: the modulus stands behind 33 bytes, the exponent
        // at the end.
        let der = key.public_key_der().unwrap();
        let (n, e) = (&der[33..289], &der[der.len() - 3..]);
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id,
            "n": b64(n), "e": b64(e) });
        Self { key, jwk, key_id: key_id.to_owned() }
    }

    /// What `kubectl get --raw /openid/v1/jwks` prints.
    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }

    /// A token of any claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "RS256", "kid": self.key_id });
        let input = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let message = Message::Raw(input.as_bytes());
        let algorithm = SignAlgorithm::RsassaPkcs1V15Sha256;
        let signature = self.key.sign(algorithm, message).unwrap();
        format!("{input}.{}", b64(signature))
    }

    /// A token of a pod, as the kubelet asks for it.
    pub(crate) fn pod_token(&self, audience: &str, namespace: &str, account: &str) -> String {
        self.token_of_pod("pod-uid-1", audience, namespace, account)
    }

    /// The same of a pod with this UID.
    pub(crate) fn token_of_pod(
        &self,
        pod_uid: &str,
        audience: &str,
        namespace: &str,
        account: &str,
    ) -> String {
        let mut claims = claims(audience, namespace, account);
        let pod = json!({ "name": format!("{account}-0"), "uid": pod_uid });
        claims["kubernetes.io"]["pod"] = pod;
        claims["kubernetes.io"]["node"] = json!({ "name": "worker-1", "uid": "node-uid-1" });
        self.sign(&claims)
    }

    /// A token of an account that belongs to no pod, as `kubectl create token` asks for it.
    pub(crate) fn token_without_pod(
        &self,
        audience: &str,
        namespace: &str,
        account: &str,
    ) -> String {
        self.sign(&claims(audience, namespace, account))
    }
}

/// What each token of an account says.
fn claims(audience: &str, namespace: &str, account: &str) -> Value {
    let now = now();
    json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "aud": [audience],
        "iat": now, "nbf": now, "exp": now + 3_600,
        "jti": "2f6d6a2c-1111-4a3b-9d4e-000000000001",
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": { "name": account, "uid": "sa-uid-1" },
        },
    })
}
