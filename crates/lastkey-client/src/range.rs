//! Any part of an envelope without the rest: plaintext by `Read` and `Seek`.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`, section "Opening", "Random access".
//! Holds     The last segment was verified before anything is given, so the length is authentic.
//!           One segment of plaintext is kept, wiped when another takes its place.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use lastkey_crypto::envelope::{EnvelopeError, Header, PayloadKeys, RandomAccess};
use lastkey_secret::SecretVec;

use crate::reader::failed;

/// The plaintext of an envelope in something that can seek. Made by
/// [`crate::Decryptor::seekable`] and [`crate::blocking::Decryptor::seekable`].
///
/// The envelope begins at the start of what is behind and ends with it.
pub struct RangeReader<R> {
    inner: R,
    header: Header,
    access: RandomAccess,
    segment_len: u64,
    position: u64,
    /// A segment by its number.
    kept: Option<(u64, SecretVec)>,
}

impl<R> fmt::Debug for RangeReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReader").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<R> RangeReader<R> {
    /// Length of the whole plaintext, in bytes.
    pub fn len(&self) -> u64 {
        self.access.plaintext_len()
    }

    /// Whether the plaintext has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header of the envelope; it is authenticated.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl<R: Read + Seek> RangeReader<R> {
    /// Reads and verifies the last segment.
    pub(crate) fn open(mut inner: R, header: Header, keys: &PayloadKeys) -> io::Result<Self> {
        let envelope_len = inner.seek(SeekFrom::End(0))?;
        let last = RandomAccess::locate_last(keys, envelope_len).map_err(failed)?;
        let sealed = read_at(&mut inner, last.offset, last.len)?;
        let access = RandomAccess::new(keys, envelope_len, sealed).map_err(failed)?;
        let segment_len = header.segment_len() as u64;
        Ok(Self { inner, header, access, segment_len, position: 0, kept: None })
    }

    /// The bytes of `range`, counted from the start of the plaintext. Takes as much memory.
    ///
    /// # Errors
    /// Kind `InvalidInput` when the range is not within the plaintext; `InvalidData` for a
    /// segment that is not authentic; those of the reader behind.
    pub fn range(&mut self, range: Range<u64>) -> io::Result<SecretVec> {
        let len = range.end.checked_sub(range.start).filter(|_| range.end <= self.len());
        let len = len.and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        self.position = range.start;
        SecretVec::try_fill(len, |dest| self.read_exact(dest))
    }

    fn segment(&mut self, index: u64) -> io::Result<&SecretVec> {
        let kept = match self.kept.take().filter(|(number, _)| *number == index) {
            Some(kept) => kept,
            None => {
                let span = self.access.span(index).ok_or(io::ErrorKind::InvalidInput)?;
                let sealed = read_at(&mut self.inner, span.offset, span.len)?;
                (index, self.access.open(index, sealed).map_err(failed)?)
            }
        };
        Ok(&self.kept.insert(kept).1)
    }
}

impl<R: Read + Seek> Read for RangeReader<R> {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        if dest.is_empty() || self.position >= self.len() {
            return Ok(0);
        }
        let place = |position: u64, segment_len| {
            Some((position.checked_div(segment_len)?, position.checked_rem(segment_len)?))
        };
        let (index, within) =
            place(self.position, self.segment_len).ok_or(io::ErrorKind::InvalidInput)?;
        let within = usize::try_from(within).map_err(io::Error::other)?;
        let len = self.segment(index)?.expose(|plaintext| {
            let plaintext = plaintext.get(within..).unwrap_or_default();
            let len = plaintext.len().min(dest.len());
            if let (Some(dest), Some(plaintext)) = (dest.get_mut(..len), plaintext.get(..len)) {
                dest.copy_from_slice(plaintext);
            }
            len
        });
        self.position = self.position.saturating_add(len as u64);
        Ok(len)
    }
}

impl<R: Read + Seek> Seek for RangeReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn read_at<R: Read + Seek>(inner: &mut R, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    inner.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; len];
    match inner.read_exact(&mut bytes) {
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            Err(failed(EnvelopeError::Truncated))
        }
        outcome => outcome.map(|()| bytes),
    }
}
