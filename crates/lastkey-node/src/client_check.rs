//! Clients that HTTP/2 refuses before any request of theirs is seen.
//!
//! Room      `node`. API servers before 1.32 and drivers before 1.5.5 send the percent-encoded
//!           socket path as `:authority`; h2 resets such a stream with PROTOCOL_ERROR, and nobody
//!           would ever know why. So the frames that leave are looked at for as long as the
//!           connection lives.
//! Source    RFC 9113, 4.1 (frames) and 6.4 (RST_STREAM).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose outgoing frames are looked at.
pub(crate) struct Checked<S> {
    stream: S,
    frames: Frames,
    on_refusal: Arc<dyn Fn() + Send + Sync>,
}

impl<S> Checked<S> {
    pub(crate) fn new(stream: S, on_refusal: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { stream, frames: Frames::default(), on_refusal }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Not vectored: headers and small bodies are copied into one buffer anyway.
impl<S: AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &written
            && self.frames.pass(buf.get(..*len).unwrap_or_default())
        {
            (self.on_refusal)();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const HEAD_LEN: usize = 9;
const RST_STREAM: u8 = 3;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const CODE_LEN: usize = PROTOCOL_ERROR.len();

/// Follows frames through whatever pieces they come in.
#[derive(Debug, Default)]
struct Frames {
    /// Head of the frame, and its first bytes when it is an RST_STREAM.
    held: Vec<u8>,
    /// Bytes of the payload that are still to be skipped.
    skip: usize,
}

impl Frames {
    /// Takes the next bytes; whether a stream was reset with PROTOCOL_ERROR in them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut refused = false;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.wanted().saturating_sub(self.held.len()).min(bytes.len());
            let (head, rest) = bytes.split_at_checked(missing).unwrap_or_default();
            self.held.extend_from_slice(head);
            bytes = rest;
            if self.held.len() == self.wanted() && !self.held.is_empty() {
                refused |= self.is_refusal();
                self.skip = self.payload_len().saturating_sub(self.held.len() - HEAD_LEN);
                self.held.clear();
            }
        }
        refused
    }

    /// How much of the frame has to be held.
    fn wanted(&self) -> usize {
        let is_reset = self.held.get(3) == Some(&RST_STREAM);
        if is_reset && self.payload_len() == CODE_LEN { HEAD_LEN + CODE_LEN } else { HEAD_LEN }
    }

    fn payload_len(&self) -> usize {
        let len = self.held.iter().take(3);
        len.fold(0, |len, byte| len << 8 | usize::from(*byte))
    }

    fn is_refusal(&self) -> bool {
        self.held.len() == HEAD_LEN + CODE_LEN && self.held.ends_with(&PROTOCOL_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    const REFUSAL: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x01";
    const CANCEL: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

    fn refusals(pieces: &[&[u8]]) -> usize {
        let mut frames = Frames::default();
        pieces.iter().filter(|piece| frames.pass(piece)).count()
    }

    #[test]
    fn reset_with_protocol_error_is_seen_between_other_frames() {
        let all = [SETTINGS, CANCEL, REFUSAL, SETTINGS].concat();
        assert_eq!(refusals(&[&all]), 1);
        assert_eq!(refusals(&[SETTINGS, CANCEL, SETTINGS]), 0);
    }

    #[test]
    fn frames_are_followed_through_pieces_of_any_size() {
        let all = [SETTINGS, REFUSAL, SETTINGS, CANCEL, REFUSAL].concat();
        for size in 1..all.len() {
            let pieces: Vec<_> = all.chunks(size).collect();
            let mut frames = Frames::default();
            let seen = pieces.iter().filter(|piece| frames.pass(piece)).count();
            assert!((1..=2).contains(&seen), "{size}");
            assert!(size > 20 || seen == 2, "{size}");
        }
    }

    #[test]
    fn payload_that_looks_like_a_refusal_is_none() {
        let mut data = vec![0, 0, 13, 0, 0, 0, 0, 0, 1];
        data.extend_from_slice(REFUSAL);
        assert_eq!(refusals(&[&data]), 0);
    }
}
