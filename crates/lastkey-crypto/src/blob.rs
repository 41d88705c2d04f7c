//! The ciphertext blob: self-describing, authenticated whole, 104 bytes longer than its
//! plaintext.
//!
//! Room      `crypto`. Encrypt, Decrypt, ReEncrypt and data keys all use it.
//! Source    `docs/formats/ciphertext.md`; RFC 5869, NIST SP 800-38D.
//! Holds     Key, context and header are committed: a blob opens under one key version, one
//!           context and one header. Key and nonce are fresh for each blob, so a version may
//!           seal without counting. Derived keys are wiped.

use core::fmt;

use lastkey_secret::{SecretVec, ct_eq};
use zeroize::Zeroizing;

use crate::{
    aead::{OneTimeKey, TAG_LEN},
    entropy::Entropy,
    hkdf::Prk,
    material::{MaterialError, MaterialSpec},
};

/// Bytes that a blob adds to its plaintext.
pub const OVERHEAD_LEN: usize = HEADER_LEN + TAG_LEN;
/// Bytes before the ciphertext.
pub const HEADER_LEN: usize = PREFIX_LEN + COMMITMENT_LEN;
/// The longest plaintext, in bytes. Longer data belongs into an envelope.
pub const MAX_PLAINTEXT_LEN: usize = 65_536;
/// The longest blob, in bytes.
pub const MAX_BLOB_LEN: usize = MAX_PLAINTEXT_LEN + OVERHEAD_LEN;

const MAGIC: [u8; 2] = *b"LK";
const FORMAT: u8 = 1;
const SALT_LEN: usize = 32;
const COMMITMENT_LEN: usize = 32;
const PREFIX_LEN: usize = 2 + 1 + 1 + 16 + 4 + SALT_LEN;
const INFO_LEN: usize = PREFIX_LEN + 32;
const AAD_LEN: usize = HEADER_LEN + 32;

/// The authenticated encryption inside a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-256-GCM.
    Aes256Gcm = 1,
    /// AES-128-GCM.
    Aes128Gcm = 2,
    /// SM4-GCM; usable only with the cargo feature `sm`.
    Sm4Gcm = 3,
}

impl Suite {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::Aes128Gcm, Self::Sm4Gcm]
            .into_iter()
            .find(|suite| suite.byte() == byte)
    }

    fn byte(self) -> u8 {
        self as u8
    }
}

/// What a blob says of itself before anything is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHeader {
    /// The suite; fixed by the spec of the key.
    pub suite: Suite,
    /// UUID of the key.
    pub key_id: [u8; 16],
    /// Number of the key version.
    pub version: u32,
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A plaintext over [`MAX_PLAINTEXT_LEN`].
    #[error("plaintext is too long")]
    TooLong,
    /// No randomness for the salt.
    #[error("no randomness available")]
    Entropy,
    /// The primitive refused, which it has no reason to.
    #[error("encryption failed")]
    Failed,
}

/// Not a blob, wrong key, wrong context, or altered bytes: deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext cannot be decrypted")]
pub struct OpenError;

/// The material of one key version, prepared for many blobs.
pub struct BlobKey {
    suite: Suite,
    prk: Prk,
}

impl BlobKey {
    /// Extracts the pseudorandom key of a version from its material.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] unless `spec` is AES_256, AES_128 or SM4;
    /// [`MaterialError::Malformed`] when the material has another length;
    /// [`MaterialError::Unsupported`] for SM4 without the cargo feature `sm`.
    pub fn new(spec: MaterialSpec, material: &SecretVec) -> Result<Self, MaterialError> {
        let suite = suite_of(spec).ok_or(MaterialError::WrongSpec)?;
        if !spec.is_supported() {
            return Err(MaterialError::Unsupported);
        }
        if spec.symmetric_len() != Some(material.len()) {
            return Err(MaterialError::Malformed);
        }
        let label = ["lastkey/blob/v1/", spec.name()].concat();
        let prk = material
            .expose(|bytes| Prk::extract(label.as_bytes(), bytes))
            .ok_or(MaterialError::Failed)?;
        Ok(Self { suite, prk })
    }

    /// The suite of every blob under this key.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    fn derive(&self, prefix: &[u8; PREFIX_LEN], context_hash: &[u8; 32]) -> Option<MessageKeys> {
        let mut info = [0; INFO_LEN];
        concat_into(&mut info, prefix, context_hash)?;
        self.prk.expand(&[&info]).map(MessageKeys)
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(..)")
    }
}

fn suite_of(spec: MaterialSpec) -> Option<Suite> {
    use MaterialSpec as S;
    match spec {
        S::Aes256 => Some(Suite::Aes256Gcm),
        S::Aes128 => Some(Suite::Aes128Gcm),
        S::Sm4 => Some(Suite::Sm4Gcm),
        S::Hmac256
        | S::Hmac384
        | S::Hmac512
        | S::Rsa2048
        | S::Rsa3072
        | S::Rsa4096
        | S::P256
        | S::P384
        | S::Secp256k1
        | S::Ed25519
        | S::Sm2 => None,
    }
}

/// Reads the header of a blob without any key. Nothing in it is authenticated yet.
///
/// # Errors
/// [`OpenError`] for bytes that cannot be a blob: wrong magic, format or suite, shorter than
/// [`OVERHEAD_LEN`] or longer than [`MAX_BLOB_LEN`].
pub fn peek(blob: &[u8]) -> Result<BlobHeader, OpenError> {
    Parts::split(blob).and_then(|parts| parse_prefix(parts.prefix)).ok_or(OpenError)
}

/// Seals `plaintext` into a blob of `plaintext.len() + OVERHEAD_LEN` bytes.
///
/// An empty plaintext is allowed: its blob proves knowledge of key and context.
///
/// # Errors
/// [`SealError::TooLong`] above [`MAX_PLAINTEXT_LEN`]; [`SealError::Entropy`] without a salt;
/// [`SealError::Failed`] when the primitive refuses.
pub fn seal(
    key: &BlobKey,
    key_id: &[u8; 16],
    version: u32,
    context_hash: &[u8; 32],
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, SealError> {
    let mut out = Vec::new();
    seal_into(key, key_id, version, context_hash, plaintext, entropy, &mut out)?;
    Ok(out)
}

/// As [`seal`], appended to `out`. On an error `out` is as before.
///
/// # Errors
/// As [`seal`].
pub fn seal_into(
    key: &BlobKey,
    key_id: &[u8; 16],
    version: u32,
    context_hash: &[u8; 32],
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    if plaintext.len() > MAX_PLAINTEXT_LEN {
        return Err(SealError::TooLong);
    }
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt).map_err(|_| SealError::Entropy)?;
    let header = BlobHeader { suite: key.suite, key_id: *key_id, version };
    let prefix = write_prefix(&header, &salt).ok_or(SealError::Failed)?;
    let start = out.len();
    out.resize(start.saturating_add(plaintext.len()).saturating_add(OVERHEAD_LEN), 0);
    let fresh = out.get_mut(start..).unwrap_or_default();
    let sealed = seal_parts(key, &prefix, context_hash, plaintext, fresh);
    if sealed.is_none() {
        out.truncate(start);
    }
    sealed.ok_or(SealError::Failed)
}

fn seal_parts(
    key: &BlobKey,
    prefix: &[u8; PREFIX_LEN],
    context_hash: &[u8; 32],
    plaintext: &[u8],
    out: &mut [u8],
) -> Option<()> {
    let keys = key.derive(prefix, context_hash)?;
    let (header, rest) = out.split_first_chunk_mut::<HEADER_LEN>()?;
    concat_into(header, prefix, keys.commitment()?)?;
    let mut aad = [0; AAD_LEN];
    concat_into(&mut aad, header, context_hash)?;
    let (ciphertext, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
    keys.one_time(key.suite)?.seal(&aad, plaintext, ciphertext, tag).ok()
}

/// Opens a blob under the key version that its header names.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(key: &BlobKey, blob: &[u8], context_hash: &[u8; 32]) -> Result<SecretVec, OpenError> {
    open_parts(key, blob, context_hash).ok_or(OpenError)
}

fn open_parts(key: &BlobKey, blob: &[u8], context_hash: &[u8; 32]) -> Option<SecretVec> {
    let parts = Parts::split(blob)?;
    if parse_prefix(parts.prefix)?.suite != key.suite {
        return None;
    }
    let keys = key.derive(parts.prefix, context_hash)?;
    if !ct_eq(keys.commitment()?, parts.commitment) {
        return None;
    }
    let mut aad = [0; AAD_LEN];
    concat_into(&mut aad, parts.header, context_hash)?;
    let once = keys.one_time(key.suite)?;
    SecretVec::try_fill(parts.ciphertext.len(), |plaintext| {
        once.open(&aad, parts.ciphertext, parts.tag, plaintext)
    })
    .ok()
}

/// Output of the expansion: key 32 ‖ commitment 32 ‖ nonce 12.
struct MessageKeys(Zeroizing<[u8; 76]>);

impl MessageKeys {
    fn commitment(&self) -> Option<&[u8; COMMITMENT_LEN]> {
        self.0.get(32..64)?.try_into().ok()
    }

    fn one_time(&self, suite: Suite) -> Option<OneTimeKey<'_>> {
        let key = self.0.first_chunk::<32>()?;
        let nonce = self.0.last_chunk::<12>()?;
        Some(OneTimeKey { suite, key, nonce })
    }
}

/// A blob cut at its fixed borders.
struct Parts<'a> {
    header: &'a [u8; HEADER_LEN],
    prefix: &'a [u8; PREFIX_LEN],
    commitment: &'a [u8; COMMITMENT_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Parts<'a> {
    fn split(blob: &'a [u8]) -> Option<Self> {
        if blob.len() > MAX_BLOB_LEN {
            return None;
        }
        let (header, rest) = blob.split_first_chunk::<HEADER_LEN>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let (prefix, commitment) = header.split_first_chunk::<PREFIX_LEN>()?;
        Some(Self { header, prefix, commitment: commitment.try_into().ok()?, ciphertext, tag })
    }
}

fn parse_prefix(prefix: &[u8; PREFIX_LEN]) -> Option<BlobHeader> {
    let rest = prefix.strip_prefix(&MAGIC)?.strip_prefix(&[FORMAT])?;
    let (suite, rest) = rest.split_first()?;
    let (key_id, rest) = rest.split_first_chunk::<16>()?;
    let version = rest.first_chunk::<4>()?;
    Some(BlobHeader {
        suite: Suite::parse(*suite)?,
        key_id: *key_id,
        version: u32::from_be_bytes(*version),
    })
}

fn write_prefix(header: &BlobHeader, salt: &[u8; SALT_LEN]) -> Option<[u8; PREFIX_LEN]> {
    let mut prefix = [0; PREFIX_LEN];
    let (magic, rest) = prefix.split_first_chunk_mut::<2>()?;
    *magic = MAGIC;
    let (kind, rest) = rest.split_first_chunk_mut::<2>()?;
    *kind = [FORMAT, header.suite.byte()];
    let (key_id, rest) = rest.split_first_chunk_mut::<16>()?;
    *key_id = header.key_id;
    let (version, rest) = rest.split_first_chunk_mut::<4>()?;
    *version = header.version.to_be_bytes();
    rest.copy_from_slice(salt);
    Some(prefix)
}

/// Writes both parts into `out`, whose length is the sum of theirs.
fn concat_into(out: &mut [u8], front: &[u8], back: &[u8]) -> Option<()> {
    let (head, tail) = out.split_at_mut_checked(front.len())?;
    head.copy_from_slice(front);
    tail.get_mut(..back.len())?.copy_from_slice(back);
    Some(())
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    use super::{
        BlobHeader, BlobKey, HEADER_LEN, MAX_BLOB_LEN, MAX_PLAINTEXT_LEN, OVERHEAD_LEN, OpenError,
        SealError, Suite, open, peek, seal, seal_into,
    };
    use crate::{
        entropy::SystemEntropy,
        material::{MaterialError, MaterialSpec},
        testing::FixedEntropy,
    };

    const KEY_ID: [u8; 16] = [0xa5; 16];
    const CONTEXT: [u8; 32] = [0xc0; 32];

    fn key(byte: u8) -> BlobKey {
        BlobKey::new(MaterialSpec::Aes256, &SecretVec::copy_of(&[byte; 32])).unwrap()
    }

    fn seal_sample(plaintext: &[u8]) -> Vec<u8> {
        seal(&key(1), &KEY_ID, 3, &CONTEXT, plaintext, &mut SystemEntropy).unwrap()
    }

    #[test]
    fn lengths_are_those_of_the_format() {
        assert_eq!((HEADER_LEN, OVERHEAD_LEN, MAX_BLOB_LEN), (88, 104, 65_640));
        assert_eq!(seal_sample(b"").len(), 104);
        assert_eq!(seal_sample(b"abc").len(), 107);
    }

    #[test]
    fn blob_says_which_key_version_opens_it() {
        let expected = BlobHeader { suite: Suite::Aes256Gcm, key_id: KEY_ID, version: 3 };
        assert_eq!(peek(&seal_sample(b"abc")), Ok(expected));
    }

    #[test]
    fn empty_plaintext_still_authenticates_key_and_context() {
        let blob = seal_sample(b"");
        assert!(open(&key(1), &blob, &CONTEXT).unwrap().is_empty());
        assert_eq!(open(&key(2), &blob, &CONTEXT).err(), Some(OpenError));
        assert_eq!(open(&key(1), &blob, &[0; 32]).err(), Some(OpenError));
    }

    #[test]
    fn longest_plaintext_opens_and_one_byte_more_is_refused() {
        let mut plaintext = vec![0x5a; MAX_PLAINTEXT_LEN];
        let blob = seal_sample(&plaintext);
        assert_eq!(blob.len(), MAX_BLOB_LEN);
        let opened = open(&key(1), &blob, &CONTEXT).unwrap();
        assert!(opened.expose(|bytes| bytes == plaintext));
        plaintext.push(0);
        let sealed = seal(&key(1), &KEY_ID, 3, &CONTEXT, &plaintext, &mut SystemEntropy);
        assert_eq!(sealed, Err(SealError::TooLong));
    }

    #[test]
    fn blob_above_the_limit_is_refused_before_any_work() {
        let mut blob = seal_sample(&vec![0; MAX_PLAINTEXT_LEN]);
        blob.push(0);
        assert_eq!(peek(&blob), Err(OpenError));
        assert_eq!(open(&key(1), &blob, &CONTEXT).err(), Some(OpenError));
    }

    #[test]
    fn every_bit_flip_and_truncation_is_refused() {
        let blob = seal_sample(b"attack at dawn");
        for bit in 0..blob.len() * 8 {
            let mut bad = blob.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key(1), &bad, &CONTEXT).err(), Some(OpenError), "bit {bit}");
        }
        for len in 0..blob.len() {
            assert_eq!(open(&key(1), &blob[..len], &CONTEXT).err(), Some(OpenError), "len {len}");
        }
        let mut longer = blob;
        longer.push(0);
        assert_eq!(open(&key(1), &longer, &CONTEXT).err(), Some(OpenError));
    }

    #[test]
    fn suites_do_not_open_one_another() {
        let bytes = SecretVec::copy_of(&[1; 16]);
        let small = BlobKey::new(MaterialSpec::Aes128, &bytes).unwrap();
        let blob = seal(&small, &KEY_ID, 1, &CONTEXT, b"x", &mut SystemEntropy).unwrap();
        assert_eq!(peek(&blob).unwrap().suite, Suite::Aes128Gcm);
        assert!(open(&small, &blob, &CONTEXT).is_ok());
        assert_eq!(open(&key(1), &blob, &CONTEXT).err(), Some(OpenError));
    }

    #[test]
    fn key_refuses_other_kinds_and_lengths() {
        let refuse = |spec, len| BlobKey::new(spec, &SecretVec::take(vec![0; len])).err();
        assert_eq!(refuse(MaterialSpec::Hmac256, 32), Some(MaterialError::WrongSpec));
        assert_eq!(refuse(MaterialSpec::P256, 32), Some(MaterialError::WrongSpec));
        assert_eq!(refuse(MaterialSpec::Aes256, 31), Some(MaterialError::Malformed));
        assert_eq!(refuse(MaterialSpec::Aes128, 32), Some(MaterialError::Malformed));
    }

    #[test]
    fn sealing_without_randomness_leaves_the_buffer_alone() {
        let mut out = vec![9];
        let mut entropy = FixedEntropy(vec![0; 31]);
        let outcome = seal_into(&key(1), &KEY_ID, 1, &CONTEXT, b"x", &mut entropy, &mut out);
        assert_eq!((outcome, out), (Err(SealError::Entropy), vec![9]));
    }

    #[test]
    fn sealing_appends_what_sealing_alone_gives() {
        let salt = || FixedEntropy(vec![8; 32]);
        let alone = seal(&key(1), &KEY_ID, 1, &CONTEXT, b"x", &mut salt()).unwrap();
        let mut out = vec![9];
        seal_into(&key(1), &KEY_ID, 1, &CONTEXT, b"x", &mut salt(), &mut out).unwrap();
        assert_eq!(out[1..], alone);
    }

    #[test]
    fn another_salt_gives_another_commitment_and_ciphertext() {
        let one = seal_sample(b"same");
        let two = seal_sample(b"same");
        assert_ne!(one[24..56], two[24..56]);
        assert_ne!(one[56..88], two[56..88]);
        assert_ne!(one[88..], two[88..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn blob_round_trips(
            plaintext in proptest::collection::vec(any::<u8>(), 0..2_000),
            key_id: [u8; 16],
            version: u32,
            context_hash: [u8; 32],
        ) {
            let blob =
                seal(&key(1), &key_id, version, &context_hash, &plaintext, &mut SystemEntropy)
                    .unwrap();
            let header = peek(&blob).unwrap();
            prop_assert_eq!((header.key_id, header.version), (key_id, version));
            let opened = open(&key(1), &blob, &context_hash).unwrap();
            prop_assert!(opened.expose(|bytes| bytes == plaintext));
        }

        #[test]
        fn parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = peek(&bytes);
            prop_assert!(open(&key(1), &bytes, &CONTEXT).is_err());
        }
    }
}
