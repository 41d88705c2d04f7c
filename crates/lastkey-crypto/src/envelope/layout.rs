//! Where the segments of an envelope lie.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "Opening", "Random access".
//! Holds     Every envelope length is that of one plaintext length, or refused.

use super::{EnvelopeError, MAX_SEGMENTS, SEGMENT_OVERHEAD_LEN};

/// Where a sealed segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset from the start of the envelope, in bytes.
    pub offset: u64,
    /// Length with the tag, in bytes.
    pub len: usize,
}

/// The segments of an envelope of a given length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    header_len: u64,
    segment_len: u64,
    last_index: u64,
    /// With the tag.
    last_len: u64,
    plaintext_len: u64,
}

impl Layout {
    /// By the length of the whole envelope. Lengths in bytes.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] when no envelope has this length;
    /// [`EnvelopeError::TooManySegments`].
    pub fn of_envelope(
        header_len: usize,
        segment_len: usize,
        envelope_len: u64,
    ) -> Result<Self, EnvelopeError> {
        let overhead = to_u64(SEGMENT_OVERHEAD_LEN);
        let (header_len, segment_len) = (to_u64(header_len), to_u64(segment_len));
        let sealed_len = segment_len.saturating_add(overhead);
        let sealed = envelope_len.checked_sub(header_len).filter(|len| *len >= overhead);
        let sealed = sealed.ok_or(EnvelopeError::Truncated)?;
        let count = sealed.div_ceil(sealed_len);
        let last_index = count.saturating_sub(1);
        let last_len = sealed.saturating_sub(last_index.saturating_mul(sealed_len));
        if last_len < overhead || (last_len == overhead && last_index > 0) {
            return Err(EnvelopeError::Truncated);
        }
        if count > MAX_SEGMENTS {
            return Err(EnvelopeError::TooManySegments);
        }
        let plaintext_len = sealed.saturating_sub(count.saturating_mul(overhead));
        Ok(Self { header_len, segment_len, last_index, last_len, plaintext_len })
    }

    /// By the length of the plaintext. Lengths in bytes.
    ///
    /// # Errors
    /// [`EnvelopeError::TooManySegments`].
    pub fn of_plaintext(
        header_len: usize,
        segment_len: usize,
        plaintext_len: u64,
    ) -> Result<Self, EnvelopeError> {
        let count = plaintext_len.div_ceil(to_u64(segment_len)).max(1);
        let tags = count.checked_mul(to_u64(SEGMENT_OVERHEAD_LEN));
        let envelope_len = tags
            .and_then(|tags| tags.checked_add(plaintext_len))
            .and_then(|sealed| sealed.checked_add(to_u64(header_len)))
            .ok_or(EnvelopeError::TooManySegments)?;
        Self::of_envelope(header_len, segment_len, envelope_len)
    }

    /// Length of the whole plaintext, in bytes.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Length of the whole envelope, in bytes.
    #[must_use]
    pub fn envelope_len(&self) -> u64 {
        self.offset(self.last_index).saturating_add(self.last_len)
    }

    /// Number of segments, from 1.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.last_index.saturating_add(1)
    }

    /// Where segment `index` lies, counted from 0; `None` behind the last one.
    #[must_use]
    pub fn span(&self, index: u64) -> Option<Span> {
        let len = match index.cmp(&self.last_index) {
            core::cmp::Ordering::Less => self.sealed_len(),
            core::cmp::Ordering::Equal => self.last_len,
            core::cmp::Ordering::Greater => return None,
        };
        Some(Span { offset: self.offset(index), len: usize::try_from(len).ok()? })
    }

    /// Where the plaintext of segment `index` begins, in bytes.
    #[must_use]
    pub fn plaintext_offset(&self, index: u64) -> u64 {
        index.saturating_mul(self.segment_len)
    }

    /// Whether this is the last segment.
    #[must_use]
    pub fn is_last(&self, index: u64) -> bool {
        index == self.last_index
    }

    /// The segment in which a byte of the plaintext lies.
    #[must_use]
    pub fn segment_of(&self, plaintext_offset: u64) -> u64 {
        plaintext_offset.checked_div(self.segment_len).unwrap_or(0)
    }

    fn sealed_len(&self) -> u64 {
        self.segment_len.saturating_add(to_u64(SEGMENT_OVERHEAD_LEN))
    }

    fn offset(&self, index: u64) -> u64 {
        self.header_len.saturating_add(index.saturating_mul(self.sealed_len()))
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::Layout;
    use crate::envelope::EnvelopeError;

    #[test]
    fn layout_refuses_lengths_that_no_envelope_has() {
        for len in [0, 100, 1_536, 1_551, 1_536 + 4_112 + 1, 1_536 + 4_112 + 16] {
            let refused = Layout::of_envelope(1_536, 4_096, len);
            assert_eq!(refused, Err(EnvelopeError::Truncated), "{len}");
        }
        let too_many = Err(EnvelopeError::TooManySegments);
        assert_eq!(Layout::of_plaintext(1_536, 4_096, u64::MAX), too_many);
        assert_eq!(Layout::of_plaintext(1_536, 4_096, (1 << 44) + 1), too_many);
        assert!(Layout::of_plaintext(1_536, 4_096, 1 << 44).is_ok());
    }

    proptest! {
        #[test]
        fn both_ways_to_a_layout_agree(len in 0_u64..1 << 44) {
            let one = Layout::of_plaintext(1_536, 4_096, len).unwrap();
            prop_assert_eq!(one.plaintext_len(), len);
            prop_assert_eq!(Layout::of_envelope(1_536, 4_096, one.envelope_len()), Ok(one));
        }
    }
}
