//! The header of an envelope: an immutable part and two recipient slots.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, sections "Immutable part" and "Keys".
//! Holds     [`PayloadKeys`] exist only after commitment and slot MAC were right, or for an
//!           envelope that was just built.

use core::fmt;

use lastkey_secret::{SecretArray, SecretVec, ct_eq};

use super::{
    EnvelopeError, Layout, MAX_PASSPHRASES, MAX_SEGMENT_LOG2, MAX_SLOT_LEN, MIN_SEGMENT_LOG2,
    SLOT_UNIT_LEN,
    age::{AgeIdentity, AgeRecipient},
    recipient::{KIND_AGE, KIND_PASSPHRASE, Recipient},
    slot::{self, Slot},
    suite::Suite,
};
use crate::{
    context::{EncryptionContext, MAX_ENCODED_LEN},
    digest::sha256_of,
    entropy::Entropy,
    hkdf::Prk,
};

/// Bytes that must be read before the length of a header is known.
pub const PREFIX_LEN: usize = HASHED_LEN + COMMITMENT_LEN;

const MAGIC: &[u8; 8] = b"LKENV\r\n\x1a";
const FORMAT: u8 = 1;
const RESERVED_LEN: usize = 12;
const SALT_LEN: usize = 32;
const HASHED_LEN: usize = 8 + 4 + 4 + 4 + RESERVED_LEN + SALT_LEN;
const COMMITMENT_LEN: usize = 32;
const ALIGNMENT: usize = 512;
const DEFAULT_SLOT_LEN: u32 = 1_024;
const LABEL: &[u8] = b"lastkey/envelope/v1";

/// How to make a new envelope.
#[derive(Clone, Debug)]
pub struct EnvelopeOptions {
    /// How the segments are protected.
    pub suite: Suite,
    /// Length of a segment of plaintext as a power of two, 12 to 24.
    pub segment_log2: u8,
    /// Length of one recipient slot in bytes: a multiple of 512, up to 1 MiB.
    pub slot_len: u32,
    /// Bound to the envelope and kept in it, in the clear.
    pub context: EncryptionContext,
}

impl Default for EnvelopeOptions {
    /// AES-256-GCM, segments of 256 KiB, slots of 1,024 bytes, no context.
    fn default() -> Self {
        Self {
            suite: Suite::default(),
            segment_log2: 18,
            slot_len: DEFAULT_SLOT_LEN,
            context: EncryptionContext::none(),
        }
    }
}

impl EnvelopeOptions {
    /// Makes the slots long enough for these recipients and half as many again, so that
    /// recipients can be added later. Never makes them shorter.
    ///
    /// # Errors
    /// [`EnvelopeError::Options`] without a recipient; [`EnvelopeError::TooManyRecipients`];
    /// [`EnvelopeError::RecipientsTooLong`] when the longest slot is too short.
    pub fn fit(&mut self, recipients: &[Recipient]) -> Result<(), EnvelopeError> {
        let too_long = EnvelopeError::RecipientsTooLong;
        let filled = slot::filled_len(recipients)?;
        let filled = u32::try_from(filled).map_err(|_| too_long)?;
        if filled > MAX_SLOT_LEN {
            return Err(too_long);
        }
        if filled > self.slot_len {
            let roomy = filled.saturating_add(filled / 2).next_multiple_of(SLOT_UNIT_LEN);
            self.slot_len = roomy.min(MAX_SLOT_LEN);
        }
        Ok(())
    }
}

/// The bytes that replace one slot, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUpdate {
    /// Offset from the start of the envelope, in bytes.
    pub offset: u64,
    /// A whole slot.
    pub bytes: Vec<u8>,
}

/// The keys of one envelope.
pub struct PayloadKeys {
    pub(super) payload: SecretArray<32>,
    pub(super) suite: Suite,
    pub(super) segment_len: usize,
    pub(super) header_len: usize,
    mac: SecretArray<32>,
}

impl PayloadKeys {
    /// Plaintext bytes of a full segment.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// Length of the header in bytes: the offset of the first segment.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Where the segments of an envelope of this many bytes lie.
    ///
    /// # Errors
    /// As [`Layout::of_envelope`].
    pub fn layout(&self, envelope_len: u64) -> Result<Layout, EnvelopeError> {
        Layout::of_envelope(self.header_len, self.segment_len, envelope_len)
    }
}

impl fmt::Debug for PayloadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadKeys(..)")
    }
}

/// Builds the header of a new envelope: slot A with sequence 1, slot B empty.
///
/// The data key may serve several envelopes: each has its own salt, and so its own keys.
///
/// # Errors
/// [`EnvelopeError::Options`] for options outside their limits or without a recipient;
/// [`EnvelopeError::RecipientsTooLong`]; [`EnvelopeError::Entropy`]; [`EnvelopeError::Failed`].
pub fn build(
    options: &EnvelopeOptions,
    data_key: &SecretArray<32>,
    recipients: &[Recipient],
    entropy: &mut dyn Entropy,
) -> Result<(Vec<u8>, PayloadKeys), EnvelopeError> {
    let shape = Shape::of(options)?;
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt).map_err(|_| EnvelopeError::Entropy)?;
    let mut header = shape.write_hashed(&salt);
    let hash = sha256_of(&[&header, options.context.encoded()]);
    let derived = Derived::from(data_key, &salt, &hash).ok_or(EnvelopeError::Failed)?;
    header.extend_from_slice(&derived.commitment);
    header.extend_from_slice(options.context.encoded());
    header.resize(shape.fixed_len(), 0);
    let slot = slot::write(shape.slot_len, &derived.mac, &hash, 1, recipients)?;
    header.extend_from_slice(&slot);
    header.resize(shape.header_len(), 0);
    Ok((header, derived.into_keys(&shape)))
}

/// A parsed header. Nothing in it is authenticated before [`Header::unlock`].
#[derive(Debug)]
pub struct Header {
    shape: Shape,
    salt: [u8; SALT_LEN],
    commitment: [u8; COMMITMENT_LEN],
    context: EncryptionContext,
    hash: [u8; 32],
    slot: Slot,
    slot_is_second: bool,
}

impl Header {
    /// Length of the whole header in bytes, both slots included: the offset of the first
    /// segment. At most 2 MiB and 9 KiB.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`]; [`EnvelopeError::UnsupportedVersion`].
    pub fn len_from_prefix(prefix: &[u8; PREFIX_LEN]) -> Result<usize, EnvelopeError> {
        Shape::parse(prefix).map(|shape| shape.header_len())
    }

    /// Parses a header of exactly the length that [`Self::len_from_prefix`] tells.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] when it is shorter; [`EnvelopeError::Malformed`];
    /// [`EnvelopeError::UnsupportedVersion`]; [`EnvelopeError::NoSlot`].
    pub fn parse(header: &[u8]) -> Result<Self, EnvelopeError> {
        let prefix = header.first_chunk::<PREFIX_LEN>().ok_or(EnvelopeError::Truncated)?;
        let shape = Shape::parse(prefix)?;
        if header.len() < shape.header_len() {
            return Err(EnvelopeError::Truncated);
        }
        let malformed = EnvelopeError::Malformed;
        let (fixed, slots) = header.split_at_checked(shape.fixed_len()).ok_or(malformed)?;
        let (first, second) = slots.split_at_checked(shape.slot_len).ok_or(malformed)?;
        if second.len() != shape.slot_len {
            return Err(malformed);
        }
        let (context, padding) = fixed
            .split_at_checked(PREFIX_LEN)
            .and_then(|(_, rest)| rest.split_at_checked(shape.context_len))
            .ok_or(malformed)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(malformed);
        }
        let context = EncryptionContext::parse(context).map_err(|_| malformed)?;
        let (hashed, commitment) = prefix.split_first_chunk::<HASHED_LEN>().ok_or(malformed)?;
        let (slot, slot_is_second) = Slot::choose(first, second)?;
        Ok(Self {
            salt: *hashed.last_chunk().ok_or(malformed)?,
            commitment: commitment.try_into().map_err(|_| malformed)?,
            hash: sha256_of(&[hashed, context.encoded()]),
            shape,
            context,
            slot,
            slot_is_second,
        })
    }

    /// Length of the header in bytes: the offset of the first segment.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.header_len()
    }

    /// The context that the envelope is bound to.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// How the segments are protected.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.shape.suite
    }

    /// Bytes of one recipient slot: 512 to 1 MiB.
    #[must_use]
    pub fn slot_len(&self) -> usize {
        self.shape.slot_len
    }

    /// Plaintext bytes of a full segment.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.shape.segment_len()
    }

    /// The ways to recover the data key, kinds unknown to this version included.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.slot.recipients
    }

    /// How often the recipients were written, from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.slot.sequence
    }

    /// Recovers the data key by whichever of these identities is a recipient.
    ///
    /// # Errors
    /// [`EnvelopeError::NoRecipient`] when none is; [`EnvelopeError::Undecryptable`] when one
    /// is, but its body is not right.
    pub fn data_key_by_age(
        &self,
        identities: &[AgeIdentity],
    ) -> Result<SecretArray<32>, EnvelopeError> {
        let mut failure = EnvelopeError::NoRecipient;
        for recipient in self.recipients().iter().filter(|one| one.kind == KIND_AGE) {
            let Some(named) = AgeRecipient::of_body(&recipient.body) else { continue };
            let Some(identity) = identities.iter().find(|one| *one.recipient() == named) else {
                continue;
            };
            match identity.unwrap(&recipient.body).and_then(|key| self.if_right(key)) {
                Ok(data_key) => return Ok(data_key),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Recovers the data key by a passphrase. Each of at most four recipients of this kind
    /// takes the time and memory that it names, within the limits of the format.
    ///
    /// # Errors
    /// [`EnvelopeError::NoRecipient`] when the envelope has no passphrase;
    /// [`EnvelopeError::PassphraseCost`]; [`EnvelopeError::Undecryptable`] for another one;
    /// [`EnvelopeError::Failed`] also when the memory is not there.
    pub fn data_key_by_passphrase(
        &self,
        passphrase: &SecretVec,
    ) -> Result<SecretArray<32>, EnvelopeError> {
        let mut failure = EnvelopeError::NoRecipient;
        let bodies = self.recipients().iter().filter(|one| one.kind == KIND_PASSPHRASE);
        for recipient in bodies.take(MAX_PASSPHRASES) {
            let data_key = recipient.open_by_passphrase(passphrase);
            match data_key.and_then(|key| self.if_right(key)) {
                Ok(data_key) => return Ok(data_key),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn if_right(&self, data_key: SecretArray<32>) -> Result<SecretArray<32>, EnvelopeError> {
        self.unlock(&data_key).map(|_| data_key)
    }

    /// Proves that `data_key` belongs to this header and derives the keys of the envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::Undecryptable`] for another data key, an altered header or an altered
    /// slot.
    pub fn unlock(&self, data_key: &SecretArray<32>) -> Result<PayloadKeys, EnvelopeError> {
        let derived =
            Derived::from(data_key, &self.salt, &self.hash).ok_or(EnvelopeError::Failed)?;
        if !ct_eq(&derived.commitment, &self.commitment) {
            return Err(EnvelopeError::Undecryptable);
        }
        if !self.slot.verify(&derived.mac, &self.hash) {
            return Err(EnvelopeError::Undecryptable);
        }
        Ok(derived.into_keys(&self.shape))
    }

    /// Replaces the recipients: the bytes of the slot that is not in use, with the next
    /// sequence. After they are written and synced the envelope has the new recipients; a
    /// crash before leaves the old ones.
    ///
    /// Old recipients who kept the data key, or a copy of the old slot, can still decrypt.
    ///
    /// # Errors
    /// As [`Self::unlock`]; [`EnvelopeError::Options`] without a recipient;
    /// [`EnvelopeError::RecipientsTooLong`].
    pub fn rewrap(
        &self,
        data_key: &SecretArray<32>,
        recipients: &[Recipient],
    ) -> Result<SlotUpdate, EnvelopeError> {
        let keys = self.unlock(data_key)?;
        let sequence = self.slot.sequence.checked_add(1).ok_or(EnvelopeError::Malformed)?;
        let bytes = slot::write(self.shape.slot_len, &keys.mac, &self.hash, sequence, recipients)?;
        let skipped = if self.slot_is_second { 0 } else { self.shape.slot_len };
        let offset = self.shape.fixed_len().saturating_add(skipped);
        let offset = u64::try_from(offset).map_err(|_| EnvelopeError::Failed)?;
        Ok(SlotUpdate { offset, bytes })
    }
}

/// Output of the expansion: payload key 32 ‖ header MAC key 32 ‖ commitment 32.
struct Derived {
    payload: SecretArray<32>,
    mac: SecretArray<32>,
    commitment: [u8; COMMITMENT_LEN],
}

impl Derived {
    fn from(data_key: &SecretArray<32>, salt: &[u8], hash: &[u8; 32]) -> Option<Self> {
        let prk = data_key.expose(|bytes| Prk::extract(salt, bytes))?;
        let okm = prk.expand::<96>(&[LABEL, hash])?;
        let (payload, rest) = okm.split_first_chunk::<32>()?;
        let (mac, commitment) = rest.split_first_chunk::<32>()?;
        Some(Self {
            payload: SecretArray::copy_of(payload),
            mac: SecretArray::copy_of(mac),
            commitment: commitment.try_into().ok()?,
        })
    }

    fn into_keys(self, shape: &Shape) -> PayloadKeys {
        PayloadKeys {
            payload: self.payload,
            mac: self.mac,
            suite: shape.suite,
            segment_len: shape.segment_len(),
            header_len: shape.header_len(),
        }
    }
}

/// The lengths that an immutable part declares, checked against their limits.
#[derive(Debug)]
struct Shape {
    suite: Suite,
    segment_log2: u8,
    slot_len: usize,
    context_len: usize,
}

impl Shape {
    fn of(options: &EnvelopeOptions) -> Result<Self, EnvelopeError> {
        let context_len = options.context.encoded().len();
        if !options.suite.is_supported() {
            return Err(EnvelopeError::UnsupportedSuite);
        }
        Self::checked(options.suite, options.segment_log2, options.slot_len, context_len)
            .ok_or(EnvelopeError::Options)
    }

    fn parse(prefix: &[u8; PREFIX_LEN]) -> Result<Self, EnvelopeError> {
        let rest = prefix.strip_prefix(MAGIC).ok_or(EnvelopeError::Malformed)?;
        let ([format, suite, segment_log2, flags], rest) =
            rest.split_first_chunk::<4>().ok_or(EnvelopeError::Malformed)?;
        if (*format, *flags) != (FORMAT, 0) {
            return Err(EnvelopeError::UnsupportedVersion);
        }
        let suite = Suite::from_number(*suite).ok_or(EnvelopeError::UnsupportedVersion)?;
        let (slot_len, rest) = rest.split_first_chunk::<4>().ok_or(EnvelopeError::Malformed)?;
        let (context_len, rest) = rest.split_first_chunk::<4>().ok_or(EnvelopeError::Malformed)?;
        let reserved = rest.first_chunk::<RESERVED_LEN>().ok_or(EnvelopeError::Malformed)?;
        if *reserved != [0; RESERVED_LEN] {
            return Err(EnvelopeError::UnsupportedVersion);
        }
        usize::try_from(u32::from_be_bytes(*context_len))
            .ok()
            .and_then(|len| Self::checked(suite, *segment_log2, u32::from_be_bytes(*slot_len), len))
            .ok_or(EnvelopeError::Malformed)
    }

    fn checked(suite: Suite, segment_log2: u8, slot_len: u32, context_len: usize) -> Option<Self> {
        let segment_fits = (MIN_SEGMENT_LOG2..=MAX_SEGMENT_LOG2).contains(&segment_log2);
        let slot_fits = (SLOT_UNIT_LEN..=MAX_SLOT_LEN).contains(&slot_len)
            && slot_len.is_multiple_of(SLOT_UNIT_LEN);
        let context_fits = (1..=MAX_ENCODED_LEN).contains(&context_len);
        let slot_len = usize::try_from(slot_len).ok()?;
        let fits = segment_fits && slot_fits && context_fits;
        fits.then_some(Self { suite, segment_log2, slot_len, context_len })
    }

    /// Everything before the commitment.
    fn write_hashed(&self, salt: &[u8; SALT_LEN]) -> Vec<u8> {
        // The limits of `checked` keep both lengths far below 2^32.
        let [slot_len, context_len] =
            [self.slot_len, self.context_len].map(|len| u32::try_from(len).unwrap_or(u32::MAX));
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[FORMAT, self.suite.number(), self.segment_log2, 0]);
        bytes.extend_from_slice(&slot_len.to_be_bytes());
        bytes.extend_from_slice(&context_len.to_be_bytes());
        bytes.extend_from_slice(&[0; RESERVED_LEN]);
        bytes.extend_from_slice(salt);
        bytes
    }

    fn segment_len(&self) -> usize {
        1 << self.segment_log2
    }

    fn fixed_len(&self) -> usize {
        (PREFIX_LEN + self.context_len).next_multiple_of(ALIGNMENT)
    }

    fn header_len(&self) -> usize {
        self.fixed_len() + 2 * self.slot_len
    }
}
