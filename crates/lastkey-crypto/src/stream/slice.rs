//! Envelopes in memory: one pass from one buffer into another.
//!
//! Room      `crypto`.
//! Holds     After an error the output holds no plaintext.

use core::ops::Range;

use lastkey_secret::{SecretArray, SecretVec};
use zeroize::Zeroize;

use super::as_u64;
use crate::{
    entropy::Entropy,
    envelope::{
        EnvelopeError, EnvelopeOptions, Header, Layout, PayloadKeys, Recipient,
        SEGMENT_OVERHEAD_LEN, SegmentCipher, build,
    },
};

/// Encrypts `plaintext`; `out` then holds the envelope and nothing else. A buffer that is used
/// again is the fastest way.
///
/// # Errors
/// See [`EnvelopeError`]; `out` then holds nothing of use.
pub fn encrypt_slice(
    plaintext: &[u8],
    options: &EnvelopeOptions,
    data_key: &SecretArray<32>,
    recipients: &[Recipient],
    entropy: &mut dyn Entropy,
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let (header, keys) = build(options, data_key, recipients, entropy)?;
    let layout = Layout::of_plaintext(header.len(), keys.segment_len(), as_u64(plaintext.len()))?;
    let cipher = SegmentCipher::new(&keys)?;
    let envelope_len = usize::try_from(layout.envelope_len());
    out.resize(envelope_len.map_err(|_| EnvelopeError::TooManySegments)?, 0);
    let failed = EnvelopeError::Failed;
    let (front, mut free) = out.split_at_mut_checked(header.len()).ok_or(failed)?;
    front.copy_from_slice(&header);
    let mut rest = plaintext;
    for index in 0..layout.segment_count() {
        let sealed_len = layout.span(index).ok_or(failed)?.len;
        let (segment, after) = free.split_at_mut_checked(sealed_len).ok_or(failed)?;
        let text_len = rest.len().min(keys.segment_len());
        let (text, following) = rest.split_at_checked(text_len).ok_or(failed)?;
        cipher.seal_from(index, layout.is_last(index), text, segment)?;
        (free, rest) = (after, following);
    }
    Ok(())
}

/// Decrypts a whole envelope, whose header is `header`.
///
/// # Errors
/// See [`EnvelopeError`].
pub fn decrypt_slice(
    header: &Header,
    data_key: &SecretArray<32>,
    envelope: &[u8],
) -> Result<SecretVec, EnvelopeError> {
    let keys = header.unlock(data_key)?;
    let layout = keys.layout(as_u64(envelope.len()))?;
    let len = usize::try_from(layout.plaintext_len()).map_err(|_| EnvelopeError::Failed)?;
    SecretVec::try_fill(len, |out| open_all(&keys, envelope, out))
}

/// The same into a buffer, which has exactly the length of the plaintext.
///
/// # Errors
/// [`EnvelopeError::WrongSegment`] for a buffer of another length; else see [`EnvelopeError`].
/// The buffer is then zero.
pub fn decrypt_slice_into(
    header: &Header,
    data_key: &SecretArray<32>,
    envelope: &[u8],
    out: &mut [u8],
) -> Result<(), EnvelopeError> {
    let outcome = header.unlock(data_key).and_then(|keys| open_all(&keys, envelope, out));
    if outcome.is_err() {
        out.zeroize();
    }
    outcome
}

/// The last segment first: an envelope that was cut is refused before anything is decrypted.
fn open_all(keys: &PayloadKeys, envelope: &[u8], out: &mut [u8]) -> Result<(), EnvelopeError> {
    let layout = keys.layout(as_u64(envelope.len()))?;
    if as_u64(out.len()) != layout.plaintext_len() {
        return Err(EnvelopeError::WrongSegment);
    }
    let cipher = SegmentCipher::new(keys)?;
    let last = layout.segment_count().saturating_sub(1);
    for index in core::iter::once(last).chain(0..last) {
        let span = layout.span(index).ok_or(EnvelopeError::WrongSegment)?;
        let text_len = span.len.saturating_sub(SEGMENT_OVERHEAD_LEN);
        let sealed = part(span.offset, span.len).and_then(|at| envelope.get(at));
        let text = part(layout.plaintext_offset(index), text_len).and_then(|at| out.get_mut(at));
        let (Some(sealed), Some(text)) = (sealed, text) else {
            return Err(EnvelopeError::Truncated);
        };
        cipher.open_into(index, index == last, sealed, text)?;
    }
    Ok(())
}

fn part(offset: u64, len: usize) -> Option<Range<usize>> {
    let begin = usize::try_from(offset).ok()?;
    Some(begin..begin.checked_add(len)?)
}
