//! Envelopes that are in memory as a whole.
//!
//! Room      `client`.
//! Holds     From one buffer straight into another: no copy is made on the way. After a failure
//!           the output is empty or wiped.

use lastkey_crypto::envelope::{
    EnvelopeError, Header, Opener, PREFIX_LEN, PayloadKeys, SEGMENT_OVERHEAD_LEN, Sealer,
};

/// Seals `plaintext` behind `header`; `out` keeps its buffer when that is long enough.
pub(crate) fn seal(
    header: &[u8],
    keys: &PayloadKeys,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let mut sealer = Sealer::new(keys)?;
    let segment_len = sealer.segment_len();
    let tags = plaintext.len().div_ceil(segment_len).max(1).checked_mul(SEGMENT_OVERHEAD_LEN);
    let len = tags.and_then(|tags| header.len().checked_add(tags)?.checked_add(plaintext.len()));
    fit(out, len.ok_or(EnvelopeError::TooManySegments)?);
    let (front, mut free) = out.split_at_mut_checked(header.len()).ok_or(EnvelopeError::Failed)?;
    front.copy_from_slice(header);
    let mut left = plaintext;
    while left.len() > segment_len {
        let (segment, rest) = left.split_at_checked(segment_len).unwrap_or_default();
        let sealed = free.split_off_mut(..segment_len + SEGMENT_OVERHEAD_LEN);
        sealer.seal_from(segment, sealed.ok_or(EnvelopeError::Failed)?)?;
        left = rest;
    }
    sealer.seal_last_from(left, free)
}

/// Parses the header of a whole envelope; answers the segments as well.
pub(crate) fn split(envelope: &[u8]) -> Result<(Header, &[u8]), EnvelopeError> {
    let prefix = envelope.first_chunk::<PREFIX_LEN>().ok_or(EnvelopeError::Malformed)?;
    let (header, segments) = envelope
        .split_at_checked(Header::len_from_prefix(prefix)?)
        .ok_or(EnvelopeError::Truncated)?;
    Ok((Header::parse(header)?, segments))
}

/// Length of the plaintext that sealed segments hold, in bytes.
pub(crate) fn plaintext_len(header: &Header, segments: &[u8]) -> Result<usize, EnvelopeError> {
    let sealed_len = header.segment_len().saturating_add(SEGMENT_OVERHEAD_LEN);
    let tags = segments.len().div_ceil(sealed_len).max(1).saturating_mul(SEGMENT_OVERHEAD_LEN);
    segments.len().checked_sub(tags).ok_or(EnvelopeError::Truncated)
}

/// Opens sealed segments into `out`, which has the length of [`plaintext_len`].
pub(crate) fn open(
    keys: &PayloadKeys,
    segments: &[u8],
    out: &mut [u8],
) -> Result<(), EnvelopeError> {
    let mut opener = Opener::new(keys)?;
    let sealed_len = opener.sealed_segment_len();
    let segment_len = sealed_len.saturating_sub(SEGMENT_OVERHEAD_LEN);
    let (mut left, mut free) = (segments, out);
    while left.len() > sealed_len {
        let (sealed, rest) = left.split_at_checked(sealed_len).unwrap_or_default();
        let segment = free.split_off_mut(..segment_len).ok_or(EnvelopeError::Failed)?;
        opener.open_into(sealed, segment)?;
        left = rest;
    }
    opener.open_last_into(left, free)
}

/// Makes `out` this long. New memory comes zeroed from the system; what is there is not written
/// twice.
pub(crate) fn fit(out: &mut Vec<u8>, len: usize) {
    if out.capacity() < len {
        *out = vec![0; len];
    } else {
        out.resize(len, 0);
    }
}
