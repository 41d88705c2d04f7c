//! Recipient slots: who can recover the data key, twice.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "Slots".
//! Holds     A slot is whole or ignored: its checksum needs no key. Its MAC needs the data key
//!           and is checked before anything is decrypted.

use aws_lc_rs::hmac;
use lastkey_secret::{SecretArray, ct_eq};

use super::{EnvelopeError, MAX_RECIPIENTS, recipient::Recipient};
use crate::digest::sha256;

const MAC_LEN: usize = 32;
const CHECKSUM_LEN: usize = 32;
/// Bytes of a slot besides body and padding.
pub(super) const FRAME_LEN: usize = 8 + 4 + MAC_LEN + CHECKSUM_LEN;

/// The content of a whole slot. Unauthenticated until [`Slot::verify`].
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) sequence: u64,
    pub(super) recipients: Vec<Recipient>,
    body: Vec<u8>,
    mac: [u8; MAC_LEN],
}

impl Slot {
    /// The whole slot with the highest sequence, and whether it is the second one.
    pub(super) fn choose(first: &[u8], second: &[u8]) -> Result<(Self, bool), EnvelopeError> {
        let (frame, is_second) = match (Frame::split(first), Frame::split(second)) {
            (None, None) => return Err(EnvelopeError::NoSlot),
            (Some(frame), None) => (frame, false),
            (None, Some(frame)) => (frame, true),
            (Some(one), Some(two)) if one.sequence == two.sequence => {
                return Err(EnvelopeError::Malformed);
            }
            (Some(one), Some(two)) if one.sequence < two.sequence => (two, true),
            (Some(one), Some(_)) => (one, false),
        };
        let recipients = read_recipients(frame.body)?;
        let slot = Self {
            sequence: frame.sequence,
            recipients,
            body: frame.body.to_vec(),
            mac: *frame.mac,
        };
        Ok((slot, is_second))
    }

    /// Whether the holder of the data key wrote this slot for the header with this hash.
    pub(super) fn verify(&self, mac_key: &SecretArray<32>, header_hash: &[u8; 32]) -> bool {
        ct_eq(&self.mac, &compute_mac(mac_key, header_hash, self.sequence, &self.body))
    }
}

/// The bytes of a slot, padded with zeros to `slot_len`.
pub(super) fn write(
    slot_len: usize,
    mac_key: &SecretArray<32>,
    header_hash: &[u8; 32],
    sequence: u64,
    recipients: &[Recipient],
) -> Result<Vec<u8>, EnvelopeError> {
    let body = write_recipients(recipients)?;
    if body.len().saturating_add(FRAME_LEN) > slot_len {
        return Err(EnvelopeError::RecipientsTooLong);
    }
    let body_len = u32::try_from(body.len()).map_err(|_| EnvelopeError::RecipientsTooLong)?;
    let mut slot = Vec::with_capacity(slot_len);
    slot.extend_from_slice(&sequence.to_be_bytes());
    slot.extend_from_slice(&body_len.to_be_bytes());
    slot.extend_from_slice(&body);
    slot.extend_from_slice(&compute_mac(mac_key, header_hash, sequence, &body));
    slot.extend_from_slice(&sha256(&slot));
    slot.resize(slot_len, 0);
    Ok(slot)
}

fn compute_mac(
    mac_key: &SecretArray<32>,
    header_hash: &[u8; 32],
    sequence: u64,
    body: &[u8],
) -> [u8; MAC_LEN] {
    let key = mac_key.expose(|bytes| hmac::Key::new(hmac::HMAC_SHA256, bytes));
    let mut context = hmac::Context::with_key(&key);
    context.update(b"slot");
    context.update(header_hash);
    context.update(&sequence.to_be_bytes());
    context.update(body);
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

/// A slot whose checksum is right and whose padding is zero.
struct Frame<'a> {
    sequence: u64,
    body: &'a [u8],
    mac: &'a [u8; MAC_LEN],
}

impl<'a> Frame<'a> {
    fn split(slot: &'a [u8]) -> Option<Self> {
        let (sequence, rest) = slot.split_first_chunk::<8>()?;
        let (body_len, rest) = rest.split_first_chunk::<4>()?;
        let body_len = usize::try_from(u32::from_be_bytes(*body_len)).ok()?;
        let (body, rest) = rest.split_at_checked(body_len)?;
        let (mac, rest) = rest.split_first_chunk::<MAC_LEN>()?;
        let (checksum, padding) = rest.split_first_chunk::<CHECKSUM_LEN>()?;
        let covered = slot.get(..slot.len().checked_sub(rest.len())?)?;
        let is_whole = sha256(covered) == *checksum && padding.iter().all(|byte| *byte == 0);
        is_whole.then_some(Self { sequence: u64::from_be_bytes(*sequence), body, mac })
    }
}

fn write_recipients(recipients: &[Recipient]) -> Result<Vec<u8>, EnvelopeError> {
    let count = u16::try_from(recipients.len()).map_err(|_| EnvelopeError::RecipientsTooLong)?;
    if count == 0 {
        return Err(EnvelopeError::Options);
    }
    if count > MAX_RECIPIENTS {
        return Err(EnvelopeError::TooManyRecipients);
    }
    let mut body = count.to_be_bytes().to_vec();
    for recipient in recipients {
        let len = u16::try_from(recipient.body.len());
        let len = len.map_err(|_| EnvelopeError::RecipientsTooLong)?;
        body.push(recipient.kind);
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(&recipient.body);
    }
    Ok(body)
}

fn read_recipients(body: &[u8]) -> Result<Vec<Recipient>, EnvelopeError> {
    let (count, rest) = body.split_first_chunk::<2>().ok_or(EnvelopeError::Malformed)?;
    let count = u16::from_be_bytes(*count);
    if count > MAX_RECIPIENTS {
        return Err(EnvelopeError::TooManyRecipients);
    }
    split_recipients(count, rest).ok_or(EnvelopeError::Malformed)
}

fn split_recipients(count: u16, mut rest: &[u8]) -> Option<Vec<Recipient>> {
    let mut recipients = Vec::new();
    for _ in 0..count {
        let (kind, after) = rest.split_first()?;
        let (len, after) = after.split_first_chunk::<2>()?;
        let (body, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        recipients.push(Recipient { kind: *kind, body: body.to_vec() });
        rest = after;
    }
    (rest.is_empty() && !recipients.is_empty()).then_some(recipients)
}

/// Bytes of a slot that holds these recipients and nothing more.
pub(super) fn filled_len(recipients: &[Recipient]) -> Result<usize, EnvelopeError> {
    write_recipients(recipients).map(|body| body.len().saturating_add(FRAME_LEN))
}
