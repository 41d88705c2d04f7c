//! Segments: the data of an envelope, piece by piece.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "Segments"; NIST SP 800-38D.
//! Holds     Each nonce is a position and a "last" flag, so a segment opens at its own place
//!           only, and an envelope without its last segment is refused. No nonce repeats: the
//!           payload key serves one envelope, a position is sealed once.

use core::fmt;

use lastkey_secret::SecretVec;
use zeroize::Zeroize;

use super::{
    EnvelopeError, Layout, MAX_SEGMENTS, PayloadKeys, Span,
    suite::{Cipher, TAG_LEN},
};

/// Bytes that sealing adds to a segment: the tag.
pub const SEGMENT_OVERHEAD_LEN: usize = TAG_LEN;

/// Seals the segments of a new envelope, first to last.
pub struct Sealer {
    cipher: SegmentCipher,
    index: u64,
}

impl Sealer {
    /// Starts before the first segment.
    ///
    /// # Errors
    /// [`EnvelopeError::Failed`] when the library refuses, which it has no reason to.
    pub fn new(keys: &PayloadKeys) -> Result<Self, EnvelopeError> {
        SegmentCipher::new(keys).map(|cipher| Self { cipher, index: 0 })
    }

    /// Plaintext bytes of a full segment.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.cipher.segment_len
    }

    /// Seals a full segment that others follow: plaintext in, ciphertext ‖ tag out.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongSegment`] unless it has exactly [`Self::segment_len`] bytes;
    /// [`EnvelopeError::TooManySegments`].
    pub fn seal(&mut self, segment: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        if segment.len() != self.cipher.segment_len {
            return Err(EnvelopeError::WrongSegment);
        }
        // One place stays free for the last segment.
        let next = self.index.checked_add(1).filter(|next| *next < MAX_SEGMENTS);
        let next = next.ok_or(EnvelopeError::TooManySegments)?;
        self.cipher.seal_vec(segment, self.index, false)?;
        self.index = next;
        Ok(())
    }

    /// Seals the last segment. It may be full; it is empty only when there is no other.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongSegment`] when it is too long, or empty after another.
    pub fn seal_last(self, segment: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        if !self.cipher.fits_last(segment.len(), self.index) {
            return Err(EnvelopeError::WrongSegment);
        }
        self.cipher.seal_vec(segment, self.index, true)
    }

    /// Seals a full segment that others follow from one buffer into another, which is
    /// [`SEGMENT_OVERHEAD_LEN`] longer.
    ///
    /// # Errors
    /// As [`Self::seal`]; [`EnvelopeError::WrongSegment`] also for another length of `sealed`.
    pub fn seal_from(&mut self, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), EnvelopeError> {
        let fits = sealed.len() == sealed_len_of(plaintext.len());
        if plaintext.len() != self.cipher.segment_len || !fits {
            return Err(EnvelopeError::WrongSegment);
        }
        let next = self.index.checked_add(1).filter(|next| *next < MAX_SEGMENTS);
        let next = next.ok_or(EnvelopeError::TooManySegments)?;
        self.cipher.seal_from(self.index, false, plaintext, sealed)?;
        self.index = next;
        Ok(())
    }

    /// [`Self::seal_last`] from one buffer into another, which is [`SEGMENT_OVERHEAD_LEN`] longer.
    ///
    /// # Errors
    /// As [`Self::seal_last`]; [`EnvelopeError::WrongSegment`] also for another length of `sealed`.
    pub fn seal_last_from(self, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), EnvelopeError> {
        let fits = sealed.len() == sealed_len_of(plaintext.len());
        if !fits || !self.cipher.fits_last(plaintext.len(), self.index) {
            return Err(EnvelopeError::WrongSegment);
        }
        self.cipher.seal_from(self.index, true, plaintext, sealed)
    }
}

/// Opens the segments of an envelope, first to last.
pub struct Opener {
    cipher: SegmentCipher,
    index: u64,
}

impl Opener {
    /// Starts before the first segment.
    ///
    /// # Errors
    /// [`EnvelopeError::Failed`] when the library refuses, which it has no reason to.
    pub fn new(keys: &PayloadKeys) -> Result<Self, EnvelopeError> {
        SegmentCipher::new(keys).map(|cipher| Self { cipher, index: 0 })
    }

    /// Bytes of a full segment with its tag.
    #[must_use]
    pub fn sealed_segment_len(&self) -> usize {
        sealed_len_of(self.cipher.segment_len)
    }

    /// Opens a full segment that others follow: ciphertext ‖ tag in, plaintext out. After an
    /// error the buffer is empty.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongSegment`] unless it has [`Self::sealed_segment_len`] bytes;
    /// [`EnvelopeError::Undecryptable`]; [`EnvelopeError::TooManySegments`].
    pub fn open(&mut self, segment: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        if segment.len() != sealed_len_of(self.cipher.segment_len) {
            return Err(EnvelopeError::WrongSegment);
        }
        let next = self.index.checked_add(1).filter(|next| *next < MAX_SEGMENTS);
        let next = next.ok_or(EnvelopeError::TooManySegments)?;
        self.cipher.open_vec(segment, self.index, false)?;
        self.index = next;
        Ok(())
    }

    /// Opens the segment at the end of the envelope; only after this the data is complete.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] when it is shorter than a tag, or empty after another;
    /// [`EnvelopeError::WrongSegment`] when it is too long; [`EnvelopeError::Undecryptable`],
    /// also when it was not the last one.
    pub fn open_last(self, segment: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.cipher.check_last(segment.len(), self.index)?;
        self.cipher.open_vec(segment, self.index, true)
    }
}

/// Opens single segments of an envelope whose length is known and whose end was verified.
pub struct RandomAccess {
    cipher: SegmentCipher,
    layout: Layout,
}

impl RandomAccess {
    /// Where the last segment of an envelope of `envelope_len` bytes must lie.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] when no envelope has this length;
    /// [`EnvelopeError::TooManySegments`].
    pub fn locate_last(keys: &PayloadKeys, envelope_len: u64) -> Result<Span, EnvelopeError> {
        let layout = keys.layout(envelope_len)?;
        layout.span(layout.segment_count() - 1).ok_or(EnvelopeError::Truncated)
    }

    /// Verifies the last segment, without which the envelope may be cut or joined.
    ///
    /// # Errors
    /// As [`Self::locate_last`]; [`EnvelopeError::Undecryptable`].
    pub fn new(
        keys: &PayloadKeys,
        envelope_len: u64,
        last_segment: Vec<u8>,
    ) -> Result<Self, EnvelopeError> {
        let layout = keys.layout(envelope_len)?;
        let access = Self { cipher: SegmentCipher::new(keys)?, layout };
        access.open(layout.segment_count() - 1, last_segment).map(|_| access)
    }

    /// Length of the whole plaintext, in bytes.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.layout.plaintext_len()
    }

    /// Number of segments, from 1.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.layout.segment_count()
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where segment `index` lies, counted from 0.
    #[must_use]
    pub fn span(&self, index: u64) -> Option<Span> {
        self.layout.span(index)
    }

    /// Opens the sealed bytes of segment `index`.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongSegment`] when there is no such segment or it has another length;
    /// [`EnvelopeError::Undecryptable`].
    pub fn open(&self, index: u64, mut segment: Vec<u8>) -> Result<SecretVec, EnvelopeError> {
        let len = self.open_in_place(index, &mut segment)?;
        segment.truncate(len);
        Ok(SecretVec::take(segment))
    }

    /// Opens the sealed bytes of segment `index` where they lie, and answers how many of them
    /// are plaintext. After an error none is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in_place(&self, index: u64, segment: &mut [u8]) -> Result<usize, EnvelopeError> {
        let wrong = EnvelopeError::WrongSegment;
        let span = self.span(index).filter(|span| span.len == segment.len()).ok_or(wrong)?;
        self.cipher.open(index, self.layout.is_last(index), segment)?;
        Ok(span.len.saturating_sub(SEGMENT_OVERHEAD_LEN))
    }
}

/// The payload key, ready, and the length of a full segment.
///
/// INVARIANT: whoever seals with it seals each position of one envelope once.
pub(crate) struct SegmentCipher {
    cipher: Cipher,
    segment_len: usize,
}

impl SegmentCipher {
    pub(crate) fn new(keys: &PayloadKeys) -> Result<Self, EnvelopeError> {
        let cipher = Cipher::new(keys.suite, &keys.payload)?;
        Ok(Self { cipher, segment_len: keys.segment_len })
    }

    /// Seals plaintext ‖ 16 free bytes where they lie.
    pub(crate) fn seal(
        &self,
        index: u64,
        is_last: bool,
        segment: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        self.cipher.seal(nonce(index, is_last), segment)
    }

    /// Seals from one buffer into another, which is 16 bytes longer.
    pub(crate) fn seal_from(
        &self,
        index: u64,
        is_last: bool,
        plaintext: &[u8],
        segment: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        self.cipher.seal_from(nonce(index, is_last), plaintext, segment)
    }

    /// Opens ciphertext ‖ tag where they lie; the last 16 bytes mean nothing then.
    pub(crate) fn open(
        &self,
        index: u64,
        is_last: bool,
        segment: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        self.cipher.open(nonce(index, is_last), segment)
    }

    /// Opens from one buffer into another, which is 16 bytes shorter.
    pub(crate) fn open_into(
        &self,
        index: u64,
        is_last: bool,
        segment: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        self.cipher.open_into(nonce(index, is_last), segment, plaintext)
    }

    fn fits_last(&self, plaintext_len: usize, index: u64) -> bool {
        plaintext_len <= self.segment_len && (plaintext_len > 0 || index == 0)
    }

    fn seal_vec(
        &self,
        segment: &mut Vec<u8>,
        index: u64,
        is_last: bool,
    ) -> Result<(), EnvelopeError> {
        segment.resize(segment.len().saturating_add(SEGMENT_OVERHEAD_LEN), 0);
        self.seal(index, is_last, segment)
    }

    fn open_vec(
        &self,
        segment: &mut Vec<u8>,
        index: u64,
        is_last: bool,
    ) -> Result<(), EnvelopeError> {
        let outcome = self.open(index, is_last, segment);
        match outcome {
            Ok(()) => segment.truncate(segment.len().saturating_sub(SEGMENT_OVERHEAD_LEN)),
            Err(_) => segment.zeroize(),
        }
        outcome
    }

    /// Checks that a last segment of this sealed length may stand at this place.
    pub(crate) fn check_last(&self, sealed_len: usize, index: u64) -> Result<(), EnvelopeError> {
        let plaintext_len = sealed_len.checked_sub(SEGMENT_OVERHEAD_LEN);
        let plaintext_len = plaintext_len.ok_or(EnvelopeError::Truncated)?;
        if plaintext_len > self.segment_len {
            return Err(EnvelopeError::WrongSegment);
        }
        if !self.fits_last(plaintext_len, index) {
            return Err(EnvelopeError::Truncated);
        }
        Ok(())
    }
}

/// Bytes of a full segment with its tag.
pub(crate) fn sealed_len_of(segment_len: usize) -> usize {
    segment_len.saturating_add(SEGMENT_OVERHEAD_LEN)
}

/// Three zero bytes ‖ position, 8 bytes ‖ 1 for the last segment, else 0.
fn nonce(index: u64, is_last: bool) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = index.to_be_bytes();
    [0, 0, 0, a, b, c, d, e, f, g, h, u8::from(is_last)]
}

macro_rules! prints_nothing {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
prints_nothing!(Sealer, Opener, RandomAccess);
