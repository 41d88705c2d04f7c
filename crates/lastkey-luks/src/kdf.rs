//! From the secret of a key slot to the key of its area.
//!
//! Room      `luks`.
//! Source    LUKS2 specification, 3.2.3; RFC 8018 (PBKDF2); RFC 9106 (Argon2).
//! Holds     A hostile header asks for at most 1 GiB of memory and 2^26 rounds.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{
    self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA384, PBKDF2_HMAC_SHA512,
};
use lastkey_secret::SecretVec;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::metadata::Base64;

/// Rounds for secrets of 256 random bits and more, which nobody guesses: the least that
/// SP 800-132 allows.
pub(crate) const ROUNDS: u32 = 1_000;
const MAX_ROUNDS: u32 = 1 << 26;
/// In KiB: what cryptsetup takes at most unless it is told otherwise.
const MAX_MEMORY: u32 = 1_048_576;
const MAX_PASSES: u32 = 256;
const MAX_LANES: u32 = 16;

/// How a key is derived, as the header says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Kdf {
    #[serde(rename = "pbkdf2")]
    Pbkdf2 { hash: String, iterations: u32, salt: Base64 },
    #[serde(rename = "argon2i")]
    Argon2i(Argon2Cost),
    #[serde(rename = "argon2id")]
    Argon2id(Argon2Cost),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argon2Cost {
    time: u32,
    memory: u32,
    cpus: u32,
    salt: Base64,
}

impl Kdf {
    /// Derives `len` bytes.
    pub(crate) fn derive(&self, secret: &SecretVec, len: usize) -> Result<SecretVec, Error> {
        match self {
            Self::Pbkdf2 { hash, iterations, salt } => {
                pbkdf2(hash, *iterations, &salt.0, secret, len)
            }
            Self::Argon2i(cost) => cost.derive(argon2::Algorithm::Argon2i, secret, len),
            Self::Argon2id(cost) => cost.derive(argon2::Algorithm::Argon2id, secret, len),
        }
    }
}

impl Argon2Cost {
    fn derive(
        &self,
        algorithm: argon2::Algorithm,
        secret: &SecretVec,
        len: usize,
    ) -> Result<SecretVec, Error> {
        if self.memory > MAX_MEMORY || self.time > MAX_PASSES || self.cpus > MAX_LANES {
            return Err(Error::Unsupported("a costlier key derivation than is allowed"));
        }
        let params = argon2::Params::new(self.memory, self.time, self.cpus, Some(len))
            .map_err(|_| Error::Unsupported("the cost of a key derivation"))?;
        let argon2 = argon2::Argon2::new(algorithm, argon2::Version::V0x13, params);
        SecretVec::try_fill(len, |out| {
            secret.expose(|secret| argon2.hash_password_into(secret, &self.salt.0, out))
        })
        .map_err(|_| Error::Primitive)
    }
}

/// PBKDF2, also for the digest of the volume key.
pub(crate) fn pbkdf2(
    hash: &str,
    rounds: u32,
    salt: &[u8],
    secret: &SecretVec,
    len: usize,
) -> Result<SecretVec, Error> {
    let algorithm = match hash {
        "sha1" => PBKDF2_HMAC_SHA1,
        "sha256" => PBKDF2_HMAC_SHA256,
        "sha384" => PBKDF2_HMAC_SHA384,
        "sha512" => PBKDF2_HMAC_SHA512,
        _ => return Err(Error::Unsupported("the hash of a key derivation")),
    };
    let rounds = NonZeroU32::new(rounds).filter(|rounds| rounds.get() <= MAX_ROUNDS);
    let rounds = rounds.ok_or(Error::Unsupported("the rounds of a key derivation"))?;
    SecretVec::try_fill(len, |out| {
        secret.expose(|secret| pbkdf2::derive(algorithm, rounds, salt, secret, out));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{Argon2Cost, Base64, Kdf, pbkdf2};

    /// RFC 7914, section 11 (PBKDF2-HMAC-SHA-256, one round).
    #[test]
    fn pbkdf2_is_that_of_the_standard() {
        let secret = SecretVec::copy_of(b"passwd");
        let key = pbkdf2("sha256", 1, b"salt", &secret, 8).unwrap();
        assert!(key.expose(|key| key == [0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f]));
    }

    #[test]
    fn derivations_refuse_what_would_take_too_much() {
        let secret = SecretVec::copy_of(b"secret");
        assert!(pbkdf2("sha256", 0, b"salt", &secret, 32).is_err());
        assert!(pbkdf2("sha256", (1 << 26) + 1, b"salt", &secret, 32).is_err());
        assert!(pbkdf2("md5", 1_000, b"salt", &secret, 32).is_err());
        for (time, memory, cpus) in
            [(1, 1_048_577, 1), (257, 64, 1), (1, 1_024, 17), (0, 64, 1), (1, 0, 1), (1, 64, 0)]
        {
            let cost = Argon2Cost { time, memory, cpus, salt: Base64(vec![1; 32]) };
            assert!(Kdf::Argon2id(cost).derive(&secret, 32).is_err());
        }
    }
}
