//! Envelopes from a reader to a writer, in constant memory.
//!
//! Room      `crypto`. The only module here that reads and writes, and only what it is given.
//! Source    `docs/formats/envelope.md`.
//! Holds     A segment reaches the writer only after it was authenticated. Two buffers of one
//!           segment each are all the memory; they are wiped.

use std::io::{self, Read, Write};

use lastkey_secret::SecretArray;
use zeroize::Zeroizing;

use crate::{
    entropy::Entropy,
    envelope::{
        EnvelopeError, EnvelopeOptions, Header, Opener, PREFIX_LEN, Recipient,
        SEGMENT_OVERHEAD_LEN, Sealer, build,
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
    let mut sealer = Sealer::new(&keys)?;
    let mut input = Segments::new(reader, sealer.segment_len());
    while let Some(segment) = input.next_inner()? {
        stats.plaintext_len += as_u64(segment.len());
        sealer.seal(segment)?;
        stats.envelope_len += as_u64(segment.len());
        writer.write_all(segment).map_err(StreamError::Write)?;
    }
    let last = input.last();
    stats.plaintext_len += as_u64(last.len());
    sealer.seal_last(last)?;
    stats.envelope_len += as_u64(last.len());
    writer.write_all(last).and_then(|()| writer.flush()).map_err(StreamError::Write)?;
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
    let mut opener = Opener::new(&keys)?;
    let mut input = Segments::new(reader, opener.sealed_segment_len());
    while let Some(segment) = input.next_inner()? {
        stats.envelope_len += as_u64(segment.len());
        opener.open(segment)?;
        stats.plaintext_len += as_u64(segment.len());
        writer.write_all(segment).map_err(StreamError::Write)?;
    }
    let last = input.last();
    stats.envelope_len += as_u64(last.len());
    opener.open_last(last)?;
    stats.plaintext_len += as_u64(last.len());
    writer.write_all(last).and_then(|()| writer.flush()).map_err(StreamError::Write)?;
    Ok(stats)
}

/// Cuts a reader into pieces of one length and knows which one is the last: it reads one
/// piece ahead.
struct Segments<'a> {
    reader: &'a mut dyn Read,
    piece_len: usize,
    current: Zeroizing<Vec<u8>>,
    ahead: Zeroizing<Vec<u8>>,
    has_ahead: bool,
}

impl<'a> Segments<'a> {
    fn new(reader: &'a mut dyn Read, piece_len: usize) -> Self {
        // Room for a tag, so that sealing in place never moves the buffer.
        let buffer =
            || Zeroizing::new(Vec::with_capacity(piece_len.saturating_add(SEGMENT_OVERHEAD_LEN)));
        Self { reader, piece_len, current: buffer(), ahead: buffer(), has_ahead: false }
    }

    /// The next full piece that others follow. After `None` the rest is in [`Self::last`].
    fn next_inner(&mut self) -> Result<Option<&mut Vec<u8>>, StreamError> {
        if !self.has_ahead {
            read_piece(self.reader, self.piece_len, &mut self.ahead)?;
            self.has_ahead = true;
        }
        core::mem::swap(&mut self.current, &mut self.ahead);
        if self.current.len() < self.piece_len {
            return Ok(None);
        }
        read_piece(self.reader, self.piece_len, &mut self.ahead)?;
        Ok((!self.ahead.is_empty()).then_some(&mut *self.current))
    }

    fn last(&mut self) -> &mut Vec<u8> {
        &mut self.current
    }
}

fn read_piece(
    reader: &mut dyn Read,
    piece_len: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), StreamError> {
    buffer.resize(piece_len, 0);
    let len = fill(reader, buffer)?;
    buffer.truncate(len);
    Ok(())
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
