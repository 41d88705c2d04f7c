//! Envelopes from a reader to a writer, between files, and in memory.
//!
//! Room      `crypto`. The only module here that reads and writes, and only what it is given.
//! Source    `docs/formats/envelope.md`.
//! Holds     A segment reaches the writer only after it was authenticated. Memory does not
//!           grow with the data: one buffer of a segment for each thread; they are wiped.

mod positioned;
mod slice;

use std::io::{self, Read, Write};

use lastkey_secret::SecretArray;
use zeroize::Zeroizing;

pub use self::{
    positioned::{ReadAt, WriteAt, decrypt_at, decrypt_range, decrypt_range_at, encrypt_at},
    slice::{decrypt_slice, decrypt_slice_into, encrypt_slice},
};
use crate::{
    entropy::Entropy,
    envelope::{
        EnvelopeError, EnvelopeOptions, Header, MAX_SEGMENTS, PREFIX_LEN, Recipient,
        SEGMENT_OVERHEAD_LEN, SegmentCipher, build, sealed_len_of,
    },
};

/// What a finished stream amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// Bytes of plaintext.
    pub plaintext_len: u64,
    /// Bytes of the whole envelope, header included.
    pub envelope_len: u64,
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The reader failed.
    #[error("cannot read the input")]
    Read(#[source] io::Error),
    /// The writer failed.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// The input has another length than when the work began.
    #[error("the input changed while it was read")]
    Changed,
    /// The envelope is wrong.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Encrypts everything the reader gives. The writer is flushed, not synced.
///
/// # Errors
/// [`StreamError`]; what was written by then is no envelope and has to be thrown away.
pub fn encrypt_stream(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    options: &EnvelopeOptions,
    data_key: &SecretArray<32>,
    recipients: &[Recipient],
    entropy: &mut dyn Entropy,
) -> Result<StreamStats, StreamError> {
    let (header, keys) = build(options, data_key, recipients, entropy)?;
    writer.write_all(&header).map_err(StreamError::Write)?;
    let mut stats = StreamStats { plaintext_len: 0, envelope_len: as_u64(header.len()) };
    let cipher = SegmentCipher::new(&keys)?;
    let mut input = Pieces::new(reader, keys.segment_len());
    for index in 0.. {
        if index == MAX_SEGMENTS {
            return Err(EnvelopeError::TooManySegments.into());
        }
        let piece = input.next()?;
        let sealed_len = sealed_len_of(piece.len);
        let segment = input.buffer.get_mut(..sealed_len).ok_or(EnvelopeError::WrongSegment)?;
        cipher.seal(index, piece.is_last, segment)?;
        writer.write_all(segment).map_err(StreamError::Write)?;
        stats.plaintext_len += as_u64(piece.len);
        stats.envelope_len += as_u64(sealed_len);
        if piece.is_last {
            break;
        }
    }
    writer.flush().map_err(StreamError::Write)?;
    Ok(stats)
}

/// Reads the header and leaves the reader at the first segment.
///
/// # Errors
/// [`StreamError::Read`]; [`StreamError::Envelope`] as [`Header::parse`], with
/// [`EnvelopeError::Malformed`] for anything too short to be told from another file.
pub fn read_header(reader: &mut dyn Read) -> Result<Header, StreamError> {
    let mut prefix = [0; PREFIX_LEN];
    if fill(reader, &mut prefix)? < PREFIX_LEN {
        return Err(EnvelopeError::Malformed.into());
    }
    let mut header = vec![0; Header::len_from_prefix(&prefix)?];
    let (front, rest) =
        header.split_first_chunk_mut::<PREFIX_LEN>().ok_or(EnvelopeError::Malformed)?;
    *front = prefix;
    if fill(reader, rest)? < rest.len() {
        return Err(EnvelopeError::Truncated.into());
    }
    Ok(Header::parse(&header)?)
}

/// Decrypts the segments after `header`. The writer is flushed, not synced.
///
/// # Errors
/// [`StreamError`]; what was written by then is authentic but incomplete, and has to be thrown
/// away.
pub fn decrypt_stream(
    header: &Header,
    data_key: &SecretArray<32>,
    reader: &mut dyn Read,
    writer: &mut dyn Write,
) -> Result<StreamStats, StreamError> {
    let keys = header.unlock(data_key)?;
    let mut stats = StreamStats { plaintext_len: 0, envelope_len: as_u64(header.len()) };
    let cipher = SegmentCipher::new(&keys)?;
    let mut input = Pieces::new(reader, sealed_len_of(keys.segment_len()));
    for index in 0.. {
        if index == MAX_SEGMENTS {
            return Err(EnvelopeError::TooManySegments.into());
        }
        let piece = input.next()?;
        if piece.is_last {
            cipher.check_last(piece.len, index)?;
        }
        let segment = input.buffer.get_mut(..piece.len).ok_or(EnvelopeError::WrongSegment)?;
        cipher.open(index, piece.is_last, segment)?;
        let plaintext_len = piece.len.saturating_sub(SEGMENT_OVERHEAD_LEN);
        let plaintext = segment.get(..plaintext_len).unwrap_or_default();
        writer.write_all(plaintext).map_err(StreamError::Write)?;
        stats.plaintext_len += as_u64(plaintext_len);
        stats.envelope_len += as_u64(piece.len);
        if piece.is_last {
            break;
        }
    }
    writer.flush().map_err(StreamError::Write)?;
    Ok(stats)
}

/// Cuts a reader into pieces of one length and knows which one is the last: it reads one byte
/// ahead.
struct Pieces<'a> {
    reader: &'a mut dyn Read,
    piece_len: usize,
    /// A piece, and room for the byte ahead or a tag.
    buffer: Zeroizing<Vec<u8>>,
    ahead: Option<u8>,
}

#[derive(Clone, Copy)]
struct Piece {
    len: usize,
    is_last: bool,
}

impl<'a> Pieces<'a> {
    fn new(reader: &'a mut dyn Read, piece_len: usize) -> Self {
        let buffer = Zeroizing::new(vec![0; sealed_len_of(piece_len)]);
        Self { reader, piece_len, buffer, ahead: None }
    }

    /// Fills the buffer with the next piece. Nothing comes after the last one.
    fn next(&mut self) -> Result<Piece, StreamError> {
        let held = usize::from(self.ahead.is_some());
        if let (Some(byte), Some(first)) = (self.ahead.take(), self.buffer.first_mut()) {
            *first = byte;
        }
        let window = self.buffer.get_mut(held..=self.piece_len).unwrap_or_default();
        let len = held.saturating_add(fill(self.reader, window)?);
        if len <= self.piece_len {
            return Ok(Piece { len, is_last: true });
        }
        self.ahead = self.buffer.get(self.piece_len).copied();
        Ok(Piece { len: self.piece_len, is_last: false })
    }
}

/// Reads until `dest` is full or the input ends; answers how much there was.
fn fill(reader: &mut dyn Read, dest: &mut [u8]) -> Result<usize, StreamError> {
    let total = dest.len();
    let mut free = dest;
    while !free.is_empty() {
        match reader.read(free) {
            Ok(0) => break,
            Ok(len) => free = free.get_mut(len..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Read(error)),
        }
    }
    Ok(total - free.len())
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
