//! Envelopes between files that are read and written at any place, on several threads.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, "Random access".
//! Holds     The last segment is verified before any other is written. A counter hands out
//!           each position once, so each is sealed once. Buffers of all threads together stay
//!           within 16 MiB, or one segment.

use core::{
    num::NonZeroUsize,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    thread,
};

use lastkey_secret::SecretArray;
use zeroize::Zeroizing;

use super::{StreamError, StreamStats, as_u64};
use crate::{
    entropy::Entropy,
    envelope::{
        EnvelopeError, EnvelopeOptions, Header, Layout, RandomAccess, Recipient,
        SEGMENT_OVERHEAD_LEN, SegmentCipher, build, sealed_len_of,
    },
};

/// The most bytes that the buffers of all threads take together, unless one segment is longer.
const BUFFERS_LEN: usize = 16 << 20;

/// Something that can be read at any place, by several threads at once.
pub trait ReadAt: Sync {
    /// Reads at `offset`, in bytes from the start; 0 bytes only at the end.
    ///
    /// # Errors
    /// Whatever the system says; an interrupted read is tried again.
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Something that can be written at any place, by several threads at once.
pub trait WriteAt: Sync {
    /// Writes everything at `offset`, in bytes from the start.
    ///
    /// # Errors
    /// Whatever the system says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// Encrypts an input of `plaintext_len` bytes on at most `threads` threads.
///
/// # Errors
/// [`StreamError::Changed`] when the input has another length; else [`StreamError`]. What was
/// written by then is no envelope and has to be thrown away.
#[expect(clippy::too_many_arguments, reason = "two ends, what is made, and from what")]
pub fn encrypt_at(
    input: &dyn ReadAt,
    plaintext_len: u64,
    output: &dyn WriteAt,
    options: &EnvelopeOptions,
    data_key: &SecretArray<32>,
    recipients: &[Recipient],
    entropy: &mut dyn Entropy,
    threads: NonZeroUsize,
) -> Result<StreamStats, StreamError> {
    let (header, keys) = build(options, data_key, recipients, entropy)?;
    let layout = Layout::of_plaintext(header.len(), keys.segment_len(), plaintext_len)?;
    let cipher = SegmentCipher::new(&keys)?;
    output.write_all_at(&header, 0).map_err(StreamError::Write)?;
    let work = Work::new(0..layout.segment_count(), sealed_len_of(keys.segment_len()));
    work.run(threads, &|index, buffer| {
        let span = layout.span(index).ok_or(EnvelopeError::WrongSegment)?;
        let segment = buffer.get_mut(..span.len).ok_or(EnvelopeError::WrongSegment)?;
        let text_len = span.len.saturating_sub(SEGMENT_OVERHEAD_LEN);
        let text = segment.get_mut(..text_len).unwrap_or_default();
        read_exactly(input, text, layout.plaintext_offset(index))?;
        cipher.seal(index, layout.is_last(index), segment)?;
        output.write_all_at(segment, span.offset).map_err(StreamError::Write)
    })?;
    if read_some(input, &mut [0], plaintext_len)? != 0 {
        return Err(StreamError::Changed);
    }
    Ok(StreamStats { plaintext_len, envelope_len: layout.envelope_len() })
}

/// Decrypts a whole envelope of `envelope_len` bytes on at most `threads` threads.
///
/// # Errors
/// [`StreamError`]; what was written by then is authentic but incomplete, and has to be thrown
/// away.
pub fn decrypt_at(
    header: &Header,
    data_key: &SecretArray<32>,
    input: &dyn ReadAt,
    envelope_len: u64,
    output: &dyn WriteAt,
    threads: NonZeroUsize,
) -> Result<StreamStats, StreamError> {
    let access = verified_end(header, data_key, input, envelope_len)?;
    let plaintext_len = access.plaintext_len();
    write_range(&access, input, 0..plaintext_len, output, threads)?;
    Ok(StreamStats { plaintext_len, envelope_len })
}

/// Decrypts a range of the plaintext, in bytes, to the start of the output. What lies behind
/// the end is left out; answers how much there was.
///
/// # Errors
/// As [`decrypt_at`].
pub fn decrypt_range_at(
    header: &Header,
    data_key: &SecretArray<32>,
    input: &dyn ReadAt,
    envelope_len: u64,
    range: Range<u64>,
    output: &dyn WriteAt,
    threads: NonZeroUsize,
) -> Result<u64, StreamError> {
    let access = verified_end(header, data_key, input, envelope_len)?;
    let range = range.start..range.end.min(access.plaintext_len());
    write_range(&access, input, range.clone(), output, threads)?;
    Ok(range.end.saturating_sub(range.start))
}

/// Decrypts a range of the plaintext, in bytes, one segment after the other. What lies behind
/// the end is left out; answers how much there was. The writer is flushed, not synced.
///
/// # Errors
/// [`StreamError`]; what was written by then is authentic but incomplete.
pub fn decrypt_range(
    header: &Header,
    data_key: &SecretArray<32>,
    input: &dyn ReadAt,
    envelope_len: u64,
    range: Range<u64>,
    writer: &mut dyn Write,
) -> Result<u64, StreamError> {
    let access = verified_end(header, data_key, input, envelope_len)?;
    let range = range.start..range.end.min(access.plaintext_len());
    let mut buffer = Zeroizing::new(vec![0; sealed_len_of(header.segment_len())]);
    for index in segments_of(access.layout(), &range) {
        let (_, plaintext) = open_part(&access, input, index, &range, &mut buffer)?;
        writer.write_all(plaintext).map_err(StreamError::Write)?;
    }
    writer.flush().map_err(StreamError::Write)?;
    Ok(range.end.saturating_sub(range.start))
}

fn verified_end(
    header: &Header,
    data_key: &SecretArray<32>,
    input: &dyn ReadAt,
    envelope_len: u64,
) -> Result<RandomAccess, StreamError> {
    let keys = header.unlock(data_key)?;
    let span = RandomAccess::locate_last(&keys, envelope_len)?;
    let mut segment = vec![0; span.len];
    read_exactly(input, &mut segment, span.offset)?;
    Ok(RandomAccess::new(&keys, envelope_len, segment)?)
}

fn write_range(
    access: &RandomAccess,
    input: &dyn ReadAt,
    range: Range<u64>,
    output: &dyn WriteAt,
    threads: NonZeroUsize,
) -> Result<(), StreamError> {
    let layout = access.layout();
    let sealed_len = layout.span(0).map_or(SEGMENT_OVERHEAD_LEN, |span| span.len);
    Work::new(segments_of(layout, &range), sealed_len).run(threads, &|index, buffer| {
        let (offset, plaintext) = open_part(access, input, index, &range, buffer)?;
        let to = offset.saturating_sub(range.start);
        output.write_all_at(plaintext, to).map_err(StreamError::Write)
    })
}

/// The segments that hold a range; none for an empty one.
fn segments_of(layout: &Layout, range: &Range<u64>) -> Range<u64> {
    match range.end.checked_sub(1).filter(|last| *last >= range.start) {
        Some(last) => layout.segment_of(range.start)..layout.segment_of(last).saturating_add(1),
        None => 0..0,
    }
}

/// Opens one segment and answers the part of it within `range`, and where that begins.
fn open_part<'a>(
    access: &RandomAccess,
    input: &dyn ReadAt,
    index: u64,
    range: &Range<u64>,
    buffer: &'a mut [u8],
) -> Result<(u64, &'a [u8]), StreamError> {
    let wrong = EnvelopeError::WrongSegment;
    let span = access.span(index).ok_or(wrong)?;
    let segment = buffer.get_mut(..span.len).ok_or(wrong)?;
    read_exactly(input, segment, span.offset)?;
    let len = access.open_in_place(index, segment)?;
    let begin = access.layout().plaintext_offset(index);
    let skipped = usize::try_from(range.start.saturating_sub(begin)).unwrap_or(len);
    let end = usize::try_from(range.end.saturating_sub(begin)).unwrap_or(len).min(len);
    let part = segment.get(skipped..end).unwrap_or_default();
    Ok((begin.saturating_add(as_u64(skipped)), part))
}

/// Segments to be done, each once, by whichever thread comes first.
struct Work {
    next: AtomicU64,
    end: u64,
    buffer_len: usize,
    has_failed: AtomicBool,
    failure: Mutex<Option<StreamError>>,
}

type Step<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), StreamError> + Sync + 'a;

impl Work {
    fn new(segments: Range<u64>, buffer_len: usize) -> Self {
        Self {
            next: AtomicU64::new(segments.start),
            end: segments.end,
            buffer_len,
            has_failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn run(self, threads: NonZeroUsize, step: &Step<'_>) -> Result<(), StreamError> {
        let segments = self.end.saturating_sub(self.next.load(Ordering::Relaxed));
        let segments = usize::try_from(segments).unwrap_or(usize::MAX);
        let fitting = BUFFERS_LEN.checked_div(self.buffer_len).unwrap_or(1);
        let others = threads.get().min(fitting).min(segments).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..others {
                // Where the system gives no thread, this one does the work alone.
                let _ = thread::Builder::new().spawn_scoped(scope, || self.take_part(step));
            }
            self.take_part(step);
        });
        let failure = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }

    fn take_part(&self, step: &Step<'_>) {
        let mut buffer = Zeroizing::new(vec![0; self.buffer_len]);
        while !self.has_failed.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.end {
                return;
            }
            if let Err(error) = step(index, &mut buffer) {
                self.has_failed.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        }
    }
}

fn read_exactly(input: &dyn ReadAt, dest: &mut [u8], offset: u64) -> Result<(), StreamError> {
    let (mut free, mut offset) = (dest, offset);
    while !free.is_empty() {
        let len = read_some(input, free, offset)?;
        if len == 0 {
            return Err(StreamError::Changed);
        }
        free = free.get_mut(len..).unwrap_or_default();
        offset = offset.saturating_add(as_u64(len));
    }
    Ok(())
}

fn read_some(input: &dyn ReadAt, dest: &mut [u8], offset: u64) -> Result<usize, StreamError> {
    loop {
        match input.read_at(dest, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(StreamError::Read),
        }
    }
}
