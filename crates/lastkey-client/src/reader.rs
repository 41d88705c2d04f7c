//! Decryption on the way in: an envelope is read behind, plaintext comes out.
//!
//! Room      `client`. One reader for `std::io::Read` and tokio's `AsyncRead`, whichever the
//!           reader behind it is.
//! Holds     Nothing leaves that was not authenticated, and the end is answered only after the
//!           last segment was. A failure stays one.

use std::{
    fmt,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use lastkey_crypto::envelope::{EnvelopeError, Header, Opener};
use tokio::io::{AsyncRead, ReadBuf};
use zeroize::Zeroizing;

/// Reads the plaintext of the envelope behind it. Made by [`crate::Decryptor::reader`] and
/// [`crate::blocking::Decryptor::reader`].
///
/// Every byte that it gives is authentic. Whether it is all of them is known at the end only: an
/// envelope that was cut ends in an error, of kind `UnexpectedEof` or `InvalidData`, never in
/// the end of the file. Act on the whole, or be ready to take back what you did.
pub struct DecryptReader<R> {
    inner: R,
    header: Header,
    core: OpenCore,
}

impl<R> fmt::Debug for DecryptReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptReader").finish_non_exhaustive()
    }
}

impl<R> DecryptReader<R> {
    /// `inner` stands at the first segment.
    pub(crate) fn new(inner: R, header: Header, opener: Opener) -> Self {
        Self { inner, header, core: OpenCore::new(opener) }
    }

    /// The header of the envelope; it is authenticated.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The reader behind.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        while !dest.is_empty() {
            let free = match self.core.next()? {
                Next::Plaintext => return Ok(self.core.give(dest)),
                Next::End => return Ok(0),
                Next::Input(free) => free,
            };
            match self.inner.read(free) {
                Ok(len) => self.core.filled(len),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(0)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for DecryptReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        dest: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, core, .. } = &mut *self;
        while dest.remaining() > 0 {
            let free = match core.next()? {
                Next::Plaintext => {
                    let len = core.give(dest.initialize_unfilled());
                    dest.advance(len);
                    break;
                }
                Next::End => break,
                Next::Input(free) => free,
            };
            let mut free = ReadBuf::new(free);
            ready!(Pin::new(&mut *inner).poll_read(cx, &mut free))?;
            let len = free.filled().len();
            core.filled(len);
        }
        Poll::Ready(Ok(()))
    }
}

/// What to do next.
enum Next<'a> {
    /// Give plaintext.
    Plaintext,
    /// The last segment was authenticated and given.
    End,
    /// Read something into this; nothing when the input ends.
    Input(&'a mut [u8]),
}

/// What both kinds of reading have in common: nothing here reads or writes.
struct OpenCore {
    /// Gone after the last segment, or after a failure.
    opener: Option<Opener>,
    /// A sealed segment, with one byte of the next that tells it is not the last.
    sealed_len: usize,
    /// Sealed bytes up to `have`, or plaintext from `given` on.
    buffer: Zeroizing<Vec<u8>>,
    have: usize,
    given: usize,
    is_open: bool,
    /// First byte of the next segment.
    ahead: Option<u8>,
    failure: Option<EnvelopeError>,
}

impl OpenCore {
    fn new(opener: Opener) -> Self {
        let sealed_len = opener.sealed_segment_len();
        Self {
            opener: Some(opener),
            sealed_len,
            buffer: Zeroizing::new(vec![0; sealed_len.saturating_add(1)]),
            have: 0,
            given: 0,
            is_open: false,
            ahead: None,
            failure: None,
        }
    }

    fn next(&mut self) -> io::Result<Next<'_>> {
        if let Some(failure) = self.failure {
            return Err(failed(failure));
        }
        if self.is_open && self.given < self.buffer.len() {
            return Ok(Next::Plaintext);
        }
        if self.opener.is_none() {
            return Ok(Next::End);
        }
        if self.is_open {
            self.is_open = false;
            self.buffer.resize(self.sealed_len.saturating_add(1), 0);
            self.have = 0;
            if let (Some(first), Some(byte)) = (self.buffer.first_mut(), self.ahead.take()) {
                *first = byte;
                self.have = 1;
            }
        }
        Ok(Next::Input(self.buffer.get_mut(self.have..).unwrap_or_default()))
    }

    /// Counts what was read; opens the segment when it is there.
    fn filled(&mut self, len: usize) {
        self.have = self.have.saturating_add(len);
        let outcome = if len == 0 {
            self.open_last()
        } else if self.have > self.sealed_len {
            self.open()
        } else {
            return;
        };
        match outcome {
            Ok(()) => (self.is_open, self.given) = (true, 0),
            Err(failure) => {
                self.opener = None;
                self.buffer = Zeroizing::new(Vec::new());
                self.failure = Some(failure);
            }
        }
    }

    fn open(&mut self) -> Result<(), EnvelopeError> {
        self.ahead = self.buffer.pop();
        self.opener.as_mut().ok_or(EnvelopeError::Failed)?.open(&mut self.buffer)
    }

    fn open_last(&mut self) -> Result<(), EnvelopeError> {
        self.buffer.truncate(self.have);
        self.opener.take().ok_or(EnvelopeError::Failed)?.open_last(&mut self.buffer)
    }

    fn give(&mut self, dest: &mut [u8]) -> usize {
        let plaintext = self.buffer.get(self.given..).unwrap_or_default();
        let len = plaintext.len().min(dest.len());
        if let (Some(dest), Some(plaintext)) = (dest.get_mut(..len), plaintext.get(..len)) {
            dest.copy_from_slice(plaintext);
        }
        self.given = self.given.saturating_add(len);
        len
    }
}

pub(crate) fn failed(failure: EnvelopeError) -> io::Error {
    let is_cut = failure == EnvelopeError::Truncated;
    let kind = if is_cut { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, failure)
}
