//! Segments: the data of an envelope, piece by piece.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "Segments"; NIST SP 800-38D.
//! Holds     Each nonce is a position and a "last" flag, so a segment opens at its own place
//!           only, and an envelope without its last segment is refused. No nonce repeats: the
//!           payload key serves one envelope, a position is sealed once.

use core::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lastkey_secret::SecretVec;
use zeroize::Zeroize;

use super::{EnvelopeError, MAX_SEGMENTS, PayloadKeys};

/// Bytes that sealing adds to a segment: the tag.
pub const SEGMENT_OVERHEAD_LEN: usize = 16;

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
        self.cipher.seal(segment, self.index, false)?;
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
        self.cipher.seal(segment, self.index, true)
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
        self.cipher.sealed_len()
    }

    /// Opens a full segment that others follow: ciphertext ‖ tag in, plaintext out. After an
    /// error the buffer is empty.
    ///
    /// # Errors
    /// [`EnvelopeError::WrongSegment`] unless it has [`Self::sealed_segment_len`] bytes;
    /// [`EnvelopeError::Undecryptable`]; [`EnvelopeError::TooManySegments`].
    pub fn open(&mut self, segment: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        if segment.len() != self.cipher.sealed_len() {
            return Err(EnvelopeError::WrongSegment);
        }
        let next = self.index.checked_add(1).filter(|next| *next < MAX_SEGMENTS);
        let next = next.ok_or(EnvelopeError::TooManySegments)?;
        self.cipher.open(segment, self.index, false)?;
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
        self.cipher.open_last(segment, self.index)
    }
}

/// Where a sealed segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset from the start of the envelope, in bytes.
    pub offset: u64,
    /// Length with the tag, in bytes.
    pub len: usize,
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
        let layout = Layout::of(keys, envelope_len)?;
        layout.span(layout.last_index).ok_or(EnvelopeError::Truncated)
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
        let layout = Layout::of(keys, envelope_len)?;
        let access = Self { cipher: SegmentCipher::new(keys)?, layout };
        access.open(access.layout.last_index, last_segment).map(|_| access)
    }

    /// Length of the whole plaintext, in bytes.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.layout.plaintext_len
    }

    /// Number of segments, from 1.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.layout.last_index.saturating_add(1)
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
        let span = self.span(index).ok_or(EnvelopeError::WrongSegment)?;
        if segment.len() != span.len {
            return Err(EnvelopeError::WrongSegment);
        }
        if index == self.layout.last_index {
            self.cipher.open_last(&mut segment, index)?;
        } else {
            self.cipher.open(&mut segment, index, false)?;
        }
        Ok(SecretVec::take(segment))
    }
}

/// The segments that fill an envelope of a given length.
struct Layout {
    header_len: u64,
    sealed_len: u64,
    last_index: u64,
    last_len: u64,
    plaintext_len: u64,
}

impl Layout {
    fn of(keys: &PayloadKeys, envelope_len: u64) -> Result<Self, EnvelopeError> {
        let overhead = to_u64(SEGMENT_OVERHEAD_LEN);
        let header_len = to_u64(keys.header_len);
        let sealed_len = to_u64(keys.segment_len).saturating_add(overhead);
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
        Ok(Self { header_len, sealed_len, last_index, last_len, plaintext_len })
    }

    fn span(&self, index: u64) -> Option<Span> {
        let len = match index.cmp(&self.last_index) {
            core::cmp::Ordering::Less => self.sealed_len,
            core::cmp::Ordering::Equal => self.last_len,
            core::cmp::Ordering::Greater => return None,
        };
        let offset = self.header_len.checked_add(index.checked_mul(self.sealed_len)?)?;
        Some(Span { offset, len: usize::try_from(len).ok()? })
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The payload key, ready, and the length of a full segment.
struct SegmentCipher {
    key: LessSafeKey,
    segment_len: usize,
}

impl SegmentCipher {
    fn new(keys: &PayloadKeys) -> Result<Self, EnvelopeError> {
        let key = keys
            .payload
            .expose(|bytes| UnboundKey::new(&AES_256_GCM, bytes))
            .map_err(|_| EnvelopeError::Failed)?;
        Ok(Self { key: LessSafeKey::new(key), segment_len: keys.segment_len })
    }

    fn sealed_len(&self) -> usize {
        self.segment_len.saturating_add(SEGMENT_OVERHEAD_LEN)
    }

    fn fits_last(&self, plaintext_len: usize, index: u64) -> bool {
        plaintext_len <= self.segment_len && (plaintext_len > 0 || index == 0)
    }

    fn seal(&self, segment: &mut Vec<u8>, index: u64, is_last: bool) -> Result<(), EnvelopeError> {
        self.key
            .seal_in_place_append_tag(nonce(index, is_last), Aad::empty(), segment)
            .map_err(|_| EnvelopeError::Failed)
    }

    fn open(&self, segment: &mut Vec<u8>, index: u64, is_last: bool) -> Result<(), EnvelopeError> {
        let opened = self.key.open_in_place(nonce(index, is_last), Aad::empty(), segment);
        match opened.map(|plaintext| plaintext.len()) {
            Ok(len) => {
                segment.truncate(len);
                Ok(())
            }
            Err(_) => {
                segment.zeroize();
                Err(EnvelopeError::Undecryptable)
            }
        }
    }

    fn open_last(&self, segment: &mut Vec<u8>, index: u64) -> Result<(), EnvelopeError> {
        let plaintext_len = segment.len().checked_sub(SEGMENT_OVERHEAD_LEN);
        let plaintext_len = plaintext_len.ok_or(EnvelopeError::Truncated)?;
        if plaintext_len > self.segment_len {
            return Err(EnvelopeError::WrongSegment);
        }
        if !self.fits_last(plaintext_len, index) {
            return Err(EnvelopeError::Truncated);
        }
        self.open(segment, index, true)
    }
}

/// Three zero bytes ‖ position, 8 bytes ‖ 1 for the last segment, else 0.
fn nonce(index: u64, is_last: bool) -> Nonce {
    let [a, b, c, d, e, f, g, h] = index.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, a, b, c, d, e, f, g, h, u8::from(is_last)])
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
