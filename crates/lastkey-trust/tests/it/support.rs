//! Issuers that sign as Kubernetes and OpenID providers do, and sessions to try things on.
//!
//! Room      `trust`, tests.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, ML_DSA_65_SIGNING, PqdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA384,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::ids::SessionId;
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_trust::jwks::KeySet;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::service_account::{ClusterTrust, ObjectRef};
use lastkey_trust::session::{
    AuthStrength, EpochKeys, EpochRing, Presentation, Session, Subject, Workload,
};
use serde_json::{Value, json};

/// The moment at which most tests happen.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);
/// Whatever began up to then is over; kept until the longest session has ended by itself.
pub(crate) fn revocation(what: RevokedWhat, issued_until: Timestamp) -> Revocation {
    Revocation { what, issued_until, needed_until: Timestamp(issued_until.0 + 43_200) }
}

/// Issuer name that many clusters share.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Our audience.
pub(crate) const AUDIENCE: &str = "lastkey://3fa85f64-5717-4562-b3fc-2c963f66afa6";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn secret(text: &str) -> SecretVec {
    SecretVec::copy_of(text.as_bytes())
}

/// The text of a credential, for tests that take it apart.
pub(crate) fn reveal(secret: &SecretVec) -> String {
    secret.expose(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A key that signs tokens, and its public half as a JWK.
pub(crate) struct Signer {
    pub(crate) alg: &'static str,
    pub(crate) jwk: Value,
    sign: Sign,
}

impl Signer {
    /// A token with these claims, signed the way `alg` of the header says.
    pub(crate) fn token(&self, claims: &Value) -> SecretVec {
        let header = json!({"alg": self.alg, "kid": self.jwk["kid"]});
        self.token_with(&header, claims.to_string().as_bytes())
    }

    /// A token with any header and payload, and a signature that is right for both.
    pub(crate) fn token_with(&self, header: &Value, payload: &[u8]) -> SecretVec {
        let input = format!("{}.{}", b64(header.to_string()), b64(payload));
        let signature = b64((self.sign)(input.as_bytes()));
        secret(&format!("{input}.{signature}"))
    }

    /// A set with this key alone.
    pub(crate) fn keys(&self) -> KeySet {
        key_set(&[&self.jwk])
    }
}

pub(crate) fn key_set(jwks: &[&Value]) -> KeySet {
    KeySet::parse(json!({"keys": jwks}).to_string().as_bytes()).unwrap()
}

fn rsa(kid: &str, alg: &'static str) -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RSAPublicKey in DER: the modulus is the 256 bytes behind nine of headers and a zero.
    let der = pair.public_key().as_ref().to_vec();
    let (n, e) = (&der[9..265], &der[der.len() - 3..]);
    let jwk = json!({"kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": b64(n), "e": b64(e)});
    let sign = move |message: &[u8]| {
        let mut signature = vec![0; 256];
        let random = SystemRandom::new();
        if alg == "RS256" {
            pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
        } else {
            pair.sign(&RSA_PSS_SHA384, &random, message, &mut signature).unwrap();
        }
        signature
    };
    Signer { alg, jwk, sign: Box::new(sign) }
}

fn ec(alg: &'static str, curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "use": "sig", "alg": alg, "kid": alg, "crv": curve,
        "x": b64(x), "y": b64(y)});
    let sign =
        move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    Signer { alg, jwk, sign: Box::new(sign) }
}

fn ed25519() -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = b64(pair.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x});
    Signer {
        alg: "EdDSA",
        jwk,
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    }
}

fn ml_dsa() -> Signer {
    let pair = PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).unwrap();
    let public = b64(pair.public_key().as_ref());
    let jwk = json!({"kty": "AKP", "alg": "ML-DSA-65", "kid": "pq", "pub": public});
    let sign = move |message: &[u8]| {
        let mut signature = vec![0; 3_309];
        pair.sign(message, &mut signature).unwrap();
        signature
    };
    Signer { alg: "ML-DSA-65", jwk, sign: Box::new(sign) }
}

/// The default of a Kubernetes API server: RS256 with 2,048 bits.
pub(crate) static RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-1", "RS256"));
/// Another cluster, whose keys have the same id.
pub(crate) static OTHER_RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa-1", "RS256"));
pub(crate) static PSS: LazyLock<Signer> = LazyLock::new(|| rsa("pss", "PS384"));
pub(crate) static P256: LazyLock<Signer> =
    LazyLock::new(|| ec("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING));
pub(crate) static P384: LazyLock<Signer> =
    LazyLock::new(|| ec("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING));
pub(crate) static P521: LazyLock<Signer> =
    LazyLock::new(|| ec("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING));
pub(crate) static ED25519: LazyLock<Signer> = LazyLock::new(ed25519);
pub(crate) static ML_DSA: LazyLock<Signer> = LazyLock::new(ml_dsa);

/// The claims of a projected token, as Kubernetes 1.32 and later write them.
pub(crate) fn kubernetes_claims() -> Value {
    json!({
        "aud": [AUDIENCE],
        "exp": NOW.0 + 3_000,
        "iat": NOW.0 - 600,
        "iss": ISSUER,
        "jti": "0b0ef0a4-2f35-4b4c-9a3e-6d8c1f0a7b11",
        "kubernetes.io": {
            "namespace": "payments",
            "node": {"name": "node-7", "uid": "8a9d1f8e-6f0e-4b35-9b5a-4b7a52b3f6d1"},
            "pod": {"name": "api-6d5f7c9b8-x2x7p", "uid": "5c0c2d4e-9f0b-4f43-8f0e-6c4a9a1b2c3d"},
            "serviceaccount": {"name": "api", "uid": "d2c1b0a9-8f7e-4d6c-9b5a-493827161504"}
        },
        "nbf": NOW.0 - 600,
        "sub": "system:serviceaccount:payments:api"
    })
}

pub(crate) fn trust(signer: &Signer) -> ClusterTrust {
    ClusterTrust::strict("prod".into(), ISSUER.into(), AUDIENCE.into(), signer.keys())
}

/// Randomness that counts, so that vectors come out the same each time.
pub(crate) struct Counting(pub(crate) u8);

impl Entropy for Counting {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        for byte in dest {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

/// The epoch of most tests.
pub(crate) const EPOCH: u32 = 20_833;

pub(crate) fn epoch(number: u32, seed: u8) -> EpochKeys {
    EpochKeys::derive(number, &SecretArray::copy_of(&[seed; 32])).unwrap()
}

pub(crate) fn ring() -> EpochRing {
    let mut ring = EpochRing::default();
    ring.insert(epoch(EPOCH, 7));
    ring
}

pub(crate) fn session() -> Session {
    Session {
        id: SessionId::draw(EPOCH, &mut Counting(1)).unwrap(),
        subject: Subject::Workload(workload()),
        role: Some("payments-api".into()),
        issued_at: NOW,
        expires_at: Timestamp(NOW.0 + 900),
        via_provider: false,
        policy: None,
        sources: Vec::new(),
        certificate: None,
        strength: AuthStrength::default(),
    }
}

pub(crate) fn workload() -> Workload {
    Workload {
        cluster: "prod".into(),
        namespace: "payments".into(),
        service_account: ObjectRef {
            name: "api".into(),
            uid: "d2c1b0a9-8f7e-4d6c-9b5a-493827161504".into(),
        },
        pod: Some(ObjectRef {
            name: "api-6d5f7c9b8-x2x7p".into(),
            uid: "5c0c2d4e-9f0b-4f43-8f0e-6c4a9a1b2c3d".into(),
        }),
        node: Some("node-7".into()),
        token_id: Some("0b0ef0a4-2f35-4b4c-9a3e-6d8c1f0a7b11".into()),
    }
}

pub(crate) fn presentation(revocations: &Revocations) -> Presentation<'_> {
    Presentation {
        now: Timestamp(NOW.0 + 10),
        source: Some([10, 1, 2, 3].into()),
        certificate: None,
        agent: None,
        revocations,
    }
}
