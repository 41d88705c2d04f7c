//! The file of local keys, as bytes: a key that the machine has sealed, and under it what is kept.
//!
//! Room      `node`. Parsed from a file that whoever reaches the disk can write.
//! Source    docs/formats/kmsv2.md, "Local keys on disk".
//! Holds     A file opens for its provider, key and cluster alone, and whole or not at all.

use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::wrap::{WrapError, WrapKey};
use lastkey_secret::{SecretArray, SecretVec};

use super::ciphertext::WrappedLocalKey;
use crate::fields::{field, sized};
use crate::ports::KeyInUse;

/// The longest file, in bytes: more than 256 local keys and everything beside them.
pub const MAX_FILE_LEN: u64 = 65_536;

const MAGIC: [u8; 4] = *b"LKL\x01";
const DOMAIN: &[u8] = b"lastkey/kmsv2/kept/v1\0";

/// Not a file of this format, or not one that opens. Deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file of local keys is damaged, or of another provider")]
pub struct Damaged;

/// What is kept of a provider.
#[derive(Debug)]
pub struct Saved {
    /// The last word of the service, in seconds since 1970 by the wall clock.
    pub heard_at: u64,
    /// The key as it protected new data then.
    pub key: KeyInUse,
    /// Its key id.
    pub key_id: String,
    /// The local key that new seeds were protected under.
    pub wrapped: WrappedLocalKey,
    /// Local keys, by the SHA-256 of what the service has to unwrap for them.
    pub locals: Vec<([u8; 32], SecretArray<32>)>,
}

/// Whose file it is: the key as it is configured, and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(Vec<u8>);

impl Owner {
    /// The provider of a key and a cluster.
    #[must_use]
    pub fn new(key: &str, cluster: &str) -> Self {
        Self([key, cluster].map(|text| field(text.as_bytes())).concat())
    }
}

/// A file, taken apart. Nothing of it is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile<'a> {
    /// Everything before the nonce.
    pub header: &'a [u8],
    /// The key of the file, as the machine has sealed it.
    pub sealed: &'a [u8],
    wrapped: &'a [u8],
}

impl<'a> KeptFile<'a> {
    /// Takes a file apart.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Damaged)?;
        let (sealed, wrapped) = sized(rest).ok_or(Damaged)?;
        let header_len = bytes.len().checked_sub(wrapped.len()).ok_or(Damaged)?;
        let header = bytes.get(..header_len).ok_or(Damaged)?;
        Ok(Self { header, sealed, wrapped })
    }

    /// Opens it with its key.
    ///
    /// # Errors
    /// [`Damaged`], whatever is wrong.
    pub fn open(&self, key: &WrapKey, owner: &Owner) -> Result<Saved, Damaged> {
        let content = key.unwrap(&aad(self.header, owner), self.wrapped).map_err(|_| Damaged)?;
        content.expose(Saved::decode)
    }
}

/// The header of a file whose key was sealed to this; none for more than 65,535 bytes.
#[must_use]
pub fn header_of(sealed: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(sealed.len()).ok()?;
    Some([&MAGIC[..], &len.to_be_bytes(), sealed].concat())
}

impl Saved {
    /// The file of this, with a header by [`header_of`].
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn seal(
        &self,
        header: &[u8],
        key: &WrapKey,
        owner: &Owner,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, WrapError> {
        let mut file = header.to_vec();
        self.encode()
            .expose(|content| key.wrap_into(&aad(header, owner), content, entropy, &mut file))?;
        Ok(file)
    }

    /// The content of a file.
    #[must_use]
    pub fn encode(&self) -> SecretVec {
        let texts = [self.key_id.as_bytes(), &self.wrapped.by_service, &self.wrapped.for_recovery];
        let len =
            34 + texts.iter().map(|text| 2 + text.len()).sum::<usize>() + 64 * self.locals.len();
        // Of its final size at once: a buffer that grows leaves copies.
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&self.heard_at.to_be_bytes());
        out.extend_from_slice(&self.key.id);
        out.extend_from_slice(&self.key.version.to_be_bytes());
        out.extend_from_slice(&self.key.activation.to_be_bytes());
        for text in texts {
            // A ciphertext of a seed is at most 1,024 bytes, and holds all of these.
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(text);
        }
        out.extend_from_slice(&u16::try_from(self.locals.len()).unwrap_or(0).to_be_bytes());
        for (name, local) in &self.locals {
            out.extend_from_slice(name);
            local.expose(|local| out.extend_from_slice(local));
        }
        SecretVec::take(out)
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        Self::read(bytes).ok_or(Damaged)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (heard_at, rest) = bytes.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (activation, rest) = rest.split_first_chunk::<4>()?;
        let (key_id, rest) = sized(rest)?;
        let (by_service, rest) = sized(rest)?;
        let (for_recovery, rest) = sized(rest)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let mut locals = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (name, local);
            (name, rest) = rest.split_first_chunk::<32>()?;
            (local, rest) = rest.split_first_chunk::<32>()?;
            locals.push((*name, SecretArray::copy_of(local)));
        }
        let key = KeyInUse {
            id: *id,
            version: u32::from_be_bytes(*version),
            activation: u32::from_be_bytes(*activation),
        };
        let wrapped = WrappedLocalKey {
            by_service: by_service.to_vec(),
            for_recovery: for_recovery.to_vec(),
        };
        let heard_at = u64::from_be_bytes(*heard_at);
        let key_id = String::from_utf8(key_id.to_vec()).ok()?;
        rest.is_empty().then_some(Self { heard_at, key, key_id, wrapped, locals })
    }
}

fn aad(header: &[u8], owner: &Owner) -> Vec<u8> {
    [DOMAIN, &field(header), &owner.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_whole_or_not_at_all() {
        let saved = Saved {
            heard_at: 1,
            key: KeyInUse { id: [7; 16], version: 3, activation: 9 },
            key_id: "lk1.abc".to_owned(),
            wrapped: WrappedLocalKey { by_service: vec![1; 136], for_recovery: vec![2; 384] },
            locals: vec![([3; 32], SecretArray::copy_of(&[4; 32]))],
        };
        let bytes = saved.encode().expose(<[u8]>::to_vec);
        assert!(Saved::decode(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Saved::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
