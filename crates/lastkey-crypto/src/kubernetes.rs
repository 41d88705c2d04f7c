//! Objects as the Kubernetes API server seals them under KMS v2.
//!
//! Room      `crypto`. Opens only: sealing is the API server's.
//! Source    k8s.io/apiserver: storage/value/encrypt/aes (`transformer_extendednonce`) and
//!           envelope/kmsv2; RFC 5869 without its first step; NIST SP 800-38D.
//! Holds     The key in etcd is authenticated with the object: a value that was moved to another
//!           key does not open.

use lastkey_secret::{SecretArray, SecretVec};

use crate::{
    aead::{OneTimeKey, TAG_LEN},
    blob::Suite,
    hkdf::Prk,
};

const INFO_LEN: usize = 32;

/// What the plugin gave back for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The key itself (Kubernetes 1.27 and 1.28).
    Key,
    /// A seed, from which each object's key is derived (1.29 and later).
    Seed,
}

/// The object does not open: wrong seed, another key in etcd, changed or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored object cannot be decrypted")]
pub struct OpenError;

/// Opens `data`, which is `info 32 ‖ nonce 12 ‖ ciphertext ‖ tag 16` under a seed, and the same
/// without `info` under a key. `etcd_key` is the whole key in etcd.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_object(
    kind: SourceKind,
    source: &SecretArray<32>,
    etcd_key: &[u8],
    data: &[u8],
) -> Result<SecretVec, OpenError> {
    match kind {
        SourceKind::Key => source.expose(|key| open(key, etcd_key, data)),
        SourceKind::Seed => {
            let (info, rest) = data.split_first_chunk::<INFO_LEN>().ok_or(OpenError)?;
            let key = source.expose(|seed| Prk::ready(seed).expand::<32>(&[info]));
            open(&*key.ok_or(OpenError)?, etcd_key, rest)
        }
    }
}

fn open(key: &[u8; 32], etcd_key: &[u8], data: &[u8]) -> Result<SecretVec, OpenError> {
    let (nonce, rest) = data.split_first_chunk::<12>().ok_or(OpenError)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(OpenError)?;
    let once = OneTimeKey { suite: Suite::Aes256Gcm, key, nonce };
    let fill = |plaintext: &mut [u8]| once.open(etcd_key, ciphertext, tag, plaintext);
    SecretVec::try_fill(ciphertext.len(), fill).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;
    use serde::Deserialize;

    use super::{OpenError, SourceKind, open_object};
    use crate::testing::unhex;

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        etcd_key: String,
        etcd_value_hex: String,
        dek_seed_plaintext_hex: String,
        plaintext: String,
    }

    /// What a real API server wrote (k8s.io/apiserver 0.36.4).
    fn vectors() -> Vec<(Vector, Vec<u8>, SecretArray<32>)> {
        let text = include_str!("../tests/vectors/kubernetes/kmsv2.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        let take = |vector: Vector| {
            let seed = unhex(&vector.dek_seed_plaintext_hex);
            let data = sealed_data(&unhex(&vector.etcd_value_hex));
            (vector, data, SecretArray::try_copy_of(&seed).unwrap())
        };
        vectors.vectors.into_iter().map(take).collect()
    }

    /// The first field of the message behind the prefix: `0a`, a length, the data.
    fn sealed_data(stored: &[u8]) -> Vec<u8> {
        let body = stored.strip_prefix(b"k8s:enc:kms:v2:lastkey-b:").unwrap();
        assert_eq!(body[0], 0x0a);
        let len = usize::from(body[1] & 0x7f) | usize::from(body[2]) << 7;
        body[3..3 + len].to_vec()
    }

    #[test]
    fn objects_of_a_real_api_server_open() {
        for (vector, data, seed) in vectors() {
            let key = vector.etcd_key.as_bytes();
            let opened = open_object(SourceKind::Seed, &seed, key, &data).unwrap();
            opened.expose(|bytes| assert_eq!(bytes, vector.plaintext.as_bytes()));
        }
    }

    #[test]
    fn object_opens_nowhere_else_and_not_when_changed() {
        for (vector, data, seed) in vectors() {
            let key = vector.etcd_key.as_bytes();
            let other = SecretArray::copy_of(&[7; 32]);
            let moved = [key, b"x"].concat();
            let refused = [
                open_object(SourceKind::Seed, &other, key, &data).err(),
                open_object(SourceKind::Seed, &seed, &moved, &data).err(),
                open_object(SourceKind::Key, &seed, key, &data).err(),
                open_object(SourceKind::Seed, &seed, key, &data[..data.len() - 1]).err(),
                open_object(SourceKind::Seed, &seed, key, &data[..40]).err(),
                open_object(SourceKind::Seed, &seed, key, &[]).err(),
            ];
            assert_eq!(refused, [Some(OpenError); 6]);
            for at in [0, 31, 32, 44, data.len() - 1] {
                let mut changed = data.clone();
                changed[at] ^= 1;
                assert!(open_object(SourceKind::Seed, &seed, key, &changed).is_err(), "{at}");
            }
        }
    }

    /// Kubernetes 1.27 and 1.28: the source is the key. Sealed here by the same primitive.
    #[test]
    fn object_under_a_key_opens_without_derivation() {
        let once =
            super::OneTimeKey { suite: super::Suite::Aes256Gcm, key: &[1; 32], nonce: &[2; 12] };
        let (mut sealed, mut tag) = ([0; 5], [0; 16]);
        once.seal(b"/registry/secrets/a/b", b"hello", &mut sealed, &mut tag).unwrap();
        let data = [&[2; 12][..], &sealed, &tag].concat();
        let key = SecretArray::copy_of(&[1; 32]);
        let opened = open_object(SourceKind::Key, &key, b"/registry/secrets/a/b", &data).unwrap();
        opened.expose(|bytes| assert_eq!(bytes, b"hello"));
    }
}
