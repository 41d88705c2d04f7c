//! Encryption on the way out: plaintext is written in, an envelope comes out behind.
//!
//! Room      `client`. One writer for `std::io::Write` and tokio's `AsyncWrite`, whichever the
//!           writer behind it is.
//! Holds     Two buffers of one segment. An envelope that was not finished does not open.

use std::{
    fmt,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use lastkey_crypto::{
    envelope::{EnvelopeError, SEGMENT_OVERHEAD_LEN, Sealer},
    stream::StreamStats,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::cache::Meter;

/// Writes an envelope to the writer behind it. Made by [`crate::Encryptor::writer`] and
/// [`crate::blocking::Encryptor::writer`].
///
/// Call [`finish`](Self::finish), or for `AsyncWrite` `shutdown` or
/// [`finish_async`](Self::finish_async): before that the last segment is missing, and what was
/// written does not decrypt. Flushing hands on whole segments only.
pub struct EncryptWriter<W> {
    inner: W,
    core: SealCore,
}

impl<W> fmt::Debug for EncryptWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptWriter").field("stats", &self.core.stats).finish_non_exhaustive()
    }
}

impl<W> EncryptWriter<W> {
    /// `header` goes out before anything else.
    pub(crate) fn new(inner: W, header: Vec<u8>, sealer: Sealer, meter: Meter) -> Self {
        Self { inner, core: SealCore::new(header, sealer, meter) }
    }

    /// What was taken in and what came of it so far.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.core.stats
    }

    /// The writer behind.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The writer behind. What is written to it directly is no part of the envelope.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }
}

impl<W: Write> EncryptWriter<W> {
    /// Writes the last segment, flushes, and gives the writer back. Only now the envelope is
    /// whole.
    ///
    /// # Errors
    /// Those of the writer behind.
    pub fn finish(mut self) -> io::Result<W> {
        self.try_finish()?;
        Ok(self.inner)
    }

    /// [`Self::finish`] where the writer is needed no more or cannot be moved. Does nothing the
    /// second time.
    ///
    /// # Errors
    /// Those of the writer behind; after one it may be called again.
    pub fn try_finish(&mut self) -> io::Result<()> {
        self.drain()?;
        self.core.seal_end()?;
        self.drain()?;
        self.inner.flush()
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(pending) = self.core.pending() {
            match self.inner.write(pending) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.core.consume(len),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        self.drain()?;
        self.core.take(plaintext)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()?;
        self.inner.flush()
    }
}

impl<W: AsyncWrite + Unpin> EncryptWriter<W> {
    /// Writes the last segment, shuts the writer behind down, and gives it back. Only now the
    /// envelope is whole.
    ///
    /// # Errors
    /// Those of the writer behind.
    pub async fn finish_async(mut self) -> io::Result<W> {
        self.shutdown().await?;
        Ok(self.inner)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(pending) = self.core.pending() {
            let len = ready!(Pin::new(&mut self.inner).poll_write(cx, pending))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.core.consume(len);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for EncryptWriter<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plaintext: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        Poll::Ready(self.core.take(plaintext))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.core.seal_end()?;
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What both kinds of writing have in common: nothing here reads or writes.
struct SealCore {
    /// Gone after the last segment, or after a failure.
    sealer: Option<Sealer>,
    segment_len: usize,
    /// Never grows over its first capacity, a segment: it leaves no copy behind.
    // secrets: allow, filled piece by piece, and wiped by `Zeroizing`
    plaintext: Zeroizing<Vec<u8>>,
    /// Header or sealed segment on its way out.
    sealed: Vec<u8>,
    sent: usize,
    stats: StreamStats,
    meter: Meter,
    is_finished: bool,
}

impl SealCore {
    fn new(header: Vec<u8>, sealer: Sealer, meter: Meter) -> Self {
        let segment_len = sealer.segment_len();
        let stats = StreamStats { plaintext_len: 0, envelope_len: header.len() as u64 };
        Self {
            sealer: Some(sealer),
            segment_len,
            plaintext: Zeroizing::new(Vec::new()),
            sealed: header,
            sent: 0,
            stats,
            meter,
            is_finished: false,
        }
    }

    fn pending(&self) -> Option<&[u8]> {
        self.sealed.get(self.sent..).filter(|pending| !pending.is_empty())
    }

    fn consume(&mut self, len: usize) {
        self.sent = self.sent.saturating_add(len);
    }

    /// Takes plaintext in when nothing is pending. A full segment is sealed once more follows,
    /// since the last one is sealed otherwise.
    fn take(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        if self.is_finished {
            return Err(io::Error::other("the envelope is finished"));
        }
        if plaintext.is_empty() {
            return Ok(0);
        }
        if self.plaintext.is_empty() && plaintext.len() > self.segment_len {
            let (segment, _) = plaintext.split_at_checked(self.segment_len).unwrap_or_default();
            self.seal(Some(segment))?;
            return Ok(segment.len());
        }
        if self.plaintext.len() == self.segment_len {
            self.seal(None)?;
        }
        let free = self.segment_len.saturating_sub(self.plaintext.len());
        self.plaintext.reserve_exact(free);
        let (taken, _) = plaintext.split_at_checked(free).unwrap_or((plaintext, &[]));
        self.plaintext.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Seals a segment that others follow: the given one, or the buffered one.
    fn seal(&mut self, given: Option<&[u8]>) -> io::Result<()> {
        let sealer = self.sealer.as_mut().ok_or_else(|| failed(EnvelopeError::Failed))?;
        let segment = given.unwrap_or(&self.plaintext);
        self.sent = 0;
        self.sealed.resize(segment.len().saturating_add(SEGMENT_OVERHEAD_LEN), 0);
        if let Err(failure) = sealer.seal_from(segment, &mut self.sealed) {
            return Err(self.fail(failure));
        }
        let len = segment.len();
        if given.is_none() {
            self.plaintext.clear();
        }
        self.count(len);
        Ok(())
    }

    /// Seals what is left as the last segment.
    fn seal_end(&mut self) -> io::Result<()> {
        if self.is_finished {
            return Ok(());
        }
        let sealer = self.sealer.take().ok_or_else(|| failed(EnvelopeError::Failed))?;
        self.sent = 0;
        self.sealed.resize(self.plaintext.len().saturating_add(SEGMENT_OVERHEAD_LEN), 0);
        if let Err(failure) = sealer.seal_last_from(&self.plaintext, &mut self.sealed) {
            return Err(self.fail(failure));
        }
        self.count(self.plaintext.len());
        self.plaintext = Zeroizing::new(Vec::new());
        self.is_finished = true;
        Ok(())
    }

    fn count(&mut self, plaintext_len: usize) {
        self.meter.add(plaintext_len);
        self.stats.plaintext_len += plaintext_len as u64;
        self.stats.envelope_len += self.sealed.len() as u64;
    }

    /// Nothing more can come: neither a half segment nor a nonce a second time.
    fn fail(&mut self, failure: EnvelopeError) -> io::Error {
        self.sealer = None;
        self.sealed.clear();
        failed(failure)
    }
}

fn failed(failure: EnvelopeError) -> io::Error {
    io::Error::other(failure)
}
