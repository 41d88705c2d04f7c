//! Bringing own material in, wrapped to an RSA key of ours.
//!
//! Room      `crypto`. The wrapping pair is ordinary RSA material, made for one import.
//! Source    RFC 8017, 7.1 (RSAES-OAEP, SHA-256); PKCS#11 v3.1, 6.1.24
//!           (CKM_RSA_AES_KEY_WRAP: OAEP of an AES-256 key, then RFC 5649 of the material).
//! Holds     Unwrapped material has passed `material::validate` for its spec.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use lastkey_secret::{SecretArray, SecretVec};
use zeroize::Zeroizing;

use crate::{
    entropy::Entropy,
    material::{MaterialError, MaterialSpec, validate},
    oaep::{OaepError, OaepKey, OaepPublicKey},
};

/// How material is wrapped for import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportAlgorithm {
    /// The material itself under RSA-OAEP: symmetric material only, by its length.
    RsaesOaepSha256,
    /// A fresh AES-256 key under RSA-OAEP, then the material under AES key wrap with padding.
    RsaAesKeyWrapSha256,
}

impl ImportAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::RsaesOaepSha256, Self::RsaAesKeyWrapSha256];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaesOaepSha256 => "RSAES_OAEP_SHA_256",
            Self::RsaAesKeyWrapSha256 => "RSA_AES_KEY_WRAP_SHA_256",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// Why material was not imported or wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Wrong wrapping key, wrong algorithm, or altered bytes: deliberately one value.
    #[error("the wrapped material cannot be unwrapped")]
    Unwrap,
    /// It was unwrapped, but is no material for the key.
    #[error("the imported material does not fit the key")]
    Material(#[source] MaterialError),
    /// Too long for RSA-OAEP alone.
    #[error("the material is too long for this wrapping algorithm")]
    TooLong,
    /// No randomness for the AES key.
    #[error("no randomness available")]
    Entropy,
    /// The primitive refused, which it has no reason to.
    #[error("wrapping failed")]
    Failed,
}

/// The longest wrapped material, in bytes. Far above a PKCS#8 RSA-4096 key.
pub const MAX_WRAPPED_LEN: usize = 8_192;

/// Unwraps and validates material that its owner wrapped to the public half of `wrapping`.
///
/// # Errors
/// [`ImportError::Unwrap`], whatever is wrong with the wrapping;
/// [`ImportError::Material`] when what came out is no material of `spec`.
pub fn unwrap_material(
    wrapping: &OaepKey,
    algorithm: ImportAlgorithm,
    wrapped: &[u8],
    spec: MaterialSpec,
) -> Result<SecretVec, ImportError> {
    if wrapped.len() > MAX_WRAPPED_LEN {
        return Err(ImportError::Unwrap);
    }
    let material = match algorithm {
        ImportAlgorithm::RsaesOaepSha256 => {
            wrapping.decrypt(wrapped).map_err(|_| ImportError::Unwrap)?
        }
        ImportAlgorithm::RsaAesKeyWrapSha256 => {
            unwrap_two_steps(wrapping, wrapped).ok_or(ImportError::Unwrap)?
        }
    };
    validate(spec, &material).map_err(ImportError::Material)?;
    Ok(material)
}

/// Wraps material for a later [`unwrap_material`]: what the owner's command line does.
///
/// # Errors
/// [`ImportError::TooLong`] when RSA-OAEP alone cannot hold it; [`ImportError::Entropy`];
/// [`ImportError::Failed`].
pub fn wrap_material(
    wrapping: &OaepPublicKey,
    algorithm: ImportAlgorithm,
    material: &SecretVec,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, ImportError> {
    match algorithm {
        ImportAlgorithm::RsaesOaepSha256 => wrap_oaep(wrapping, material),
        ImportAlgorithm::RsaAesKeyWrapSha256 => {
            let kek = SecretArray::<32>::try_fill(|bytes| entropy.fill(bytes))
                .map_err(|_| ImportError::Entropy)?;
            wrap_two_steps(wrapping, &kek, material).ok_or(ImportError::Failed)
        }
    }
}

fn wrap_oaep(wrapping: &OaepPublicKey, material: &SecretVec) -> Result<Vec<u8>, ImportError> {
    material.expose(|bytes| wrapping.encrypt(bytes)).map_err(|error| match error {
        OaepError::TooLong => ImportError::TooLong,
        OaepError::Undecryptable | OaepError::Failed => ImportError::Failed,
    })
}

fn unwrap_two_steps(wrapping: &OaepKey, wrapped: &[u8]) -> Option<SecretVec> {
    let (kek, wrapped) = wrapped.split_at_checked(wrapping.modulus_len())?;
    let kek = wrapping.decrypt(kek).ok()?;
    let kek = kek.expose(|bytes| AesKek::new(&AES_256, bytes)).ok()?;
    let mut buffer = Zeroizing::new(vec![0; wrapped.len()]);
    let material = kek.unwrap_with_padding(wrapped, &mut buffer).ok()?;
    Some(SecretVec::copy_of(material))
}

fn wrap_two_steps(
    wrapping: &OaepPublicKey,
    kek: &SecretArray<32>,
    material: &SecretVec,
) -> Option<Vec<u8>> {
    let mut out = kek.expose(|bytes| wrapping.encrypt(bytes)).ok()?;
    let kek = kek.expose(|bytes| AesKek::new(&AES_256, bytes)).ok()?;
    // RFC 5649: rounded up to blocks of 8, and one block for the length.
    let mut buffer = vec![0; material.len().checked_add(15)?];
    let wrapped = material.expose(|bytes| kek.wrap_with_padding(bytes, &mut buffer)).ok()?;
    out.extend_from_slice(wrapped);
    Some(out)
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{ImportAlgorithm, ImportError, unwrap_material, wrap_material};
    use crate::{
        entropy::SystemEntropy,
        material::{MaterialError, MaterialSpec, public_key_der},
        oaep::{OaepKey, OaepPublicKey},
        testing::{sample_material, sample_specs},
    };

    const RSA: MaterialSpec = MaterialSpec::Rsa2048;

    fn wrapping_pair() -> (OaepKey, OaepPublicKey) {
        let material = sample_material(RSA);
        let der = public_key_der(RSA, &material).unwrap();
        (OaepKey::new(RSA, &material).unwrap(), OaepPublicKey::new(RSA, &der).unwrap())
    }

    #[test]
    fn names_parse_back() {
        for algorithm in ImportAlgorithm::ALL {
            assert_eq!(ImportAlgorithm::parse(algorithm.name()), Some(algorithm));
        }
        assert_eq!(ImportAlgorithm::parse("RSAES_PKCS1_V1_5"), None);
    }

    #[test]
    fn two_step_wrapping_carries_material_of_every_kind() {
        let (private, public) = wrapping_pair();
        for spec in sample_specs() {
            let material = sample_material(spec);
            let algorithm = ImportAlgorithm::RsaAesKeyWrapSha256;
            let wrapped = wrap_material(&public, algorithm, &material, &mut SystemEntropy).unwrap();
            let back = unwrap_material(&private, algorithm, &wrapped, spec).unwrap();
            assert!(back.ct_eq(&material), "{spec:?}");
        }
    }

    #[test]
    fn direct_wrapping_carries_symmetric_material_and_refuses_long_material() {
        let (private, public) = wrapping_pair();
        let algorithm = ImportAlgorithm::RsaesOaepSha256;
        let material = sample_material(MaterialSpec::Aes256);
        let wrapped = wrap_material(&public, algorithm, &material, &mut SystemEntropy).unwrap();
        let back = unwrap_material(&private, algorithm, &wrapped, MaterialSpec::Aes256).unwrap();
        assert!(back.ct_eq(&material));
        let long = wrap_material(&public, algorithm, &sample_material(RSA), &mut SystemEntropy);
        assert_eq!(long, Err(ImportError::TooLong));
    }

    #[test]
    fn material_of_another_kind_is_refused_after_unwrapping() {
        let (private, public) = wrapping_pair();
        let algorithm = ImportAlgorithm::RsaAesKeyWrapSha256;
        let short = SecretVec::copy_of(&[1; 31]);
        let wrapped = wrap_material(&public, algorithm, &short, &mut SystemEntropy).unwrap();
        let outcome = unwrap_material(&private, algorithm, &wrapped, MaterialSpec::Aes256);
        assert_eq!(outcome.err(), Some(ImportError::Material(MaterialError::Malformed)));
    }

    #[test]
    fn damage_truncation_and_the_other_algorithm_are_refused_alike() {
        let (private, public) = wrapping_pair();
        let (two_steps, direct) =
            (ImportAlgorithm::RsaAesKeyWrapSha256, ImportAlgorithm::RsaesOaepSha256);
        let material = sample_material(MaterialSpec::Aes256);
        let wrapped = wrap_material(&public, two_steps, &material, &mut SystemEntropy).unwrap();
        let refuse = |algorithm, bytes: &[u8]| {
            unwrap_material(&private, algorithm, bytes, MaterialSpec::Aes256).err()
        };
        for at in [0, 255, 256, wrapped.len() - 1] {
            let mut bad = wrapped.clone();
            bad[at] ^= 1;
            assert_eq!(refuse(two_steps, &bad), Some(ImportError::Unwrap), "byte {at}");
        }
        for len in [0, 1, 255, 256, 264, wrapped.len() - 8, wrapped.len() - 1] {
            assert_eq!(refuse(two_steps, &wrapped[..len]), Some(ImportError::Unwrap), "len {len}");
        }
        assert_eq!(refuse(direct, &wrapped), Some(ImportError::Unwrap));
        assert_eq!(refuse(two_steps, &vec![0; 9_000]), Some(ImportError::Unwrap));
    }
}
