//! Keys out of other keys and out of passphrases.
//!
//! Room      `crypto`. [`derive()`] separates purposes under one key; [`derive_from_passphrase`]
//!           makes guessing slow.
//! Source    RFC 5869 (HKDF-SHA-256); RFC 9106 (Argon2id, version 0x13).
//! Holds     [`Argon2Params`] cannot be built outside its limits, so a hostile record can ask
//!           for at most 1 GiB of memory.

use lastkey_secret::{SecretArray, SecretVec};

use crate::hkdf::Prk;

/// Why no key was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// Parameters outside the limits of [`Argon2Params::parse`].
    #[error("key derivation parameters are out of range")]
    Limits,
    /// The primitive refused: out of memory, or a passphrase over 4 GiB.
    #[error("key derivation failed")]
    Failed,
}

/// Derives the key for one purpose; another `label` gives an unrelated key.
///
/// # Errors
/// [`KdfError::Failed`] when the library refuses, which it has no reason to.
///
/// # Source
/// RFC 5869 with an empty salt: `secret` is uniform already. `label` is the info.
pub fn derive(secret: &SecretArray<32>, label: &[u8]) -> Result<SecretArray<32>, KdfError> {
    let prk = secret.expose(|bytes| Prk::extract(&[], bytes)).ok_or(KdfError::Failed)?;
    let okm = prk.expand::<32>(&[label]).ok_or(KdfError::Failed)?;
    Ok(SecretArray::copy_of(&okm))
}

/// Cost of one guess at a passphrase. Stored beside the salt, in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// The most memory one derivation may take, in KiB: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1_048_576;
    /// The most passes over the memory.
    pub const MAX_PASSES: u32 = 16;
    /// The most lanes.
    pub const MAX_LANES: u32 = 16;

    /// Checks parameters, wherever they come from.
    ///
    /// `memory_kib` is 8 for each lane to [`Self::MAX_MEMORY_KIB`], `passes` 1 to
    /// [`Self::MAX_PASSES`], `lanes` 1 to [`Self::MAX_LANES`].
    ///
    /// # Errors
    /// [`KdfError::Limits`] outside these ranges.
    pub fn parse(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, KdfError> {
        let lanes_fit = (1..=Self::MAX_LANES).contains(&lanes);
        let passes_fit = (1..=Self::MAX_PASSES).contains(&passes);
        let memory_fits =
            memory_kib >= lanes.saturating_mul(8) && memory_kib <= Self::MAX_MEMORY_KIB;
        if lanes_fit && passes_fit && memory_fits {
            Ok(Self { memory_kib, passes, lanes })
        } else {
            Err(KdfError::Limits)
        }
    }

    /// Passes for the passphrase of a seal when nothing else is said: everything lies under it, and
    /// it is typed seldom.
    pub const SEAL_PASSES: u32 = 8;

    /// Memory of one derivation, in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes; they run one after the other here.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }
}

impl Default for Argon2Params {
    /// 64 MiB, 3 passes, 4 lanes.
    ///
    /// # Source
    /// RFC 9106, section 4, second recommended option.
    fn default() -> Self {
        Self { memory_kib: 65_536, passes: 3, lanes: 4 }
    }
}

/// Derives a key from a passphrase with Argon2id. Takes about a tenth of a second by default.
///
/// # Errors
/// [`KdfError::Failed`] when the memory cannot be had or the passphrase is absurdly long.
pub fn derive_from_passphrase(
    passphrase: &SecretVec,
    salt: &[u8; 16],
    params: Argon2Params,
) -> Result<SecretArray<32>, KdfError> {
    let cost = argon2::Params::new(params.memory_kib, params.passes, params.lanes, Some(32))
        .map_err(|_| KdfError::Limits)?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cost);
    passphrase.expose(|bytes| {
        SecretArray::try_fill(|out| argon2.hash_password_into(bytes, salt, out))
            .map_err(|_| KdfError::Failed)
    })
}

#[cfg(test)]
mod tests {
    use lastkey_secret::{SecretArray, SecretVec};

    use super::{Argon2Params, KdfError, derive, derive_from_passphrase};
    use crate::testing::unhex;

    #[test]
    fn derivation_separates_labels_and_secrets() {
        let secret = SecretArray::copy_of(&[1; 32]);
        let one = derive(&secret, b"one").unwrap();
        assert!(one.ct_eq(&derive(&secret, b"one").unwrap()));
        assert!(!one.ct_eq(&derive(&secret, b"two").unwrap()));
        assert!(!one.ct_eq(&derive(&SecretArray::copy_of(&[2; 32]), b"one").unwrap()));
    }

    #[test]
    fn argon2_parameters_refuse_what_is_out_of_range() {
        for (memory, passes, lanes) in [
            (7, 1, 1),
            (31, 1, 4),
            (1_048_577, 1, 1),
            (u32::MAX, 1, 1),
            (64, 0, 1),
            (64, 17, 1),
            (64, 1, 0),
            (1_024, 1, 17),
            (1_024, 1, u32::MAX),
        ] {
            assert_eq!(Argon2Params::parse(memory, passes, lanes), Err(KdfError::Limits));
        }
        assert!(Argon2Params::parse(8, 1, 1).is_ok());
        assert!(Argon2Params::parse(1_048_576, 16, 16).is_ok());
    }

    #[test]
    fn argon2_defaults_are_inside_the_limits() {
        let params = Argon2Params::default();
        let parsed = Argon2Params::parse(params.memory_kib(), params.passes(), params.lanes());
        assert_eq!(parsed, Ok(params));
    }

    /// Computed by OpenSSL: Argon2id, 32 KiB, 3 passes, 4 lanes, no secret, no associated data.
    #[test]
    fn passphrase_gives_the_key_another_implementation_computes() {
        let passphrase = SecretVec::copy_of(&[1; 32]);
        let params = Argon2Params::parse(32, 3, 4).unwrap();
        let key = derive_from_passphrase(&passphrase, &[2; 16], params).unwrap();
        assert_eq!(key.expose(|bytes| bytes.to_vec()), unhex(ARGON2_KEY));
    }

    const ARGON2_KEY: &str = "03aab965c12001c9d7d0d2de33192c0494b684bb148196d73c1df1acaf6d0c2e";

    #[test]
    fn passphrase_salt_and_cost_all_change_the_key() {
        let passphrase = SecretVec::copy_of(b"passphrase");
        let params = Argon2Params::parse(32, 1, 1).unwrap();
        let key = derive_from_passphrase(&passphrase, &[0; 16], params).unwrap();
        let other = Argon2Params::parse(32, 2, 1).unwrap();
        assert!(!key.ct_eq(&derive_from_passphrase(&passphrase, &[1; 16], params).unwrap()));
        assert!(!key.ct_eq(&derive_from_passphrase(&passphrase, &[0; 16], other).unwrap()));
    }
}
