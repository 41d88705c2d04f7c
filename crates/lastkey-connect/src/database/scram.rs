//! Nothing but SCRAM: how a PostgreSQL server may ask for a password.
//!
//! Room      `connect`, inside.
//! Source    PostgreSQL, 55.2.1 "Start-up" and 55.7 "Message Formats".
//! Holds     a server that asks for a password in the clear or as MD5, or lets in without one, is
//!           heard no further. After SCRAM has begun the driver goes on with nothing else, and the
//!           server has shown that it knows the password.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `AuthenticationSASL`, of the kinds of authentication.
const SASL: u32 = 10;

/// A connection on which the first authentication is SCRAM.
pub(super) struct ScramOnly<S> {
    inner: S,
    judge: Judge,
}

impl<S> ScramOnly<S> {
    pub(super) fn over(inner: S) -> Self {
        Self { inner, judge: Judge::default() }
    }
}

/// What has been heard before the first authentication.
#[derive(Default)]
struct Judge {
    /// Type, length and first number of a message, as far as they have come.
    head: Vec<u8>,
    /// What is left of a message of another type.
    skip: u32,
    is_settled: bool,
}

impl Judge {
    fn hear(&mut self, heard: &[u8]) -> io::Result<()> {
        for byte in heard {
            if self.is_settled {
                return Ok(());
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.head.push(*byte);
            match *self.head {
                [b'R', _, _, _, _, a, b, c, d] => {
                    if u32::from_be_bytes([a, b, c, d]) != SASL {
                        let problem = "it does not ask for the password by SCRAM-SHA-256";
                        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
                    }
                    self.is_settled = true;
                }
                [kind, a, b, c, d] if kind != b'R' => {
                    // The length counts itself.
                    self.skip = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
                    self.head.clear();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ScramOnly<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf)?;
        let heard = buf.filled().get(before..).unwrap_or_default();
        if let Err(error) = this.judge.hear(heard) {
            buf.set_filled(before);
            return Poll::Ready(Err(error));
        }
        read.map(Ok)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScramOnly<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authentication(kind: u32) -> Vec<u8> {
        [b"R\0\0\0\x08", &kind.to_be_bytes()[..]].concat()
    }

    /// Byte by byte, since a message comes in any pieces.
    fn hears(judge: &mut Judge, said: &[u8]) -> bool {
        said.iter().all(|byte| judge.hear(&[*byte]).is_ok())
    }

    #[test]
    fn a_server_that_asks_by_scram_is_heard_to_the_end() {
        let mut judge = Judge::default();
        // A notice comes first, whose text is no authentication.
        assert!(hears(&mut judge, b"N\0\0\0\x0dR\0\0\0\x08\0\0\0\x03"));
        assert!(hears(&mut judge, &authentication(SASL)) && judge.is_settled);
        assert!(hears(&mut judge, &authentication(0)));
    }

    /// No password at all, Kerberos, in the clear, MD5, and what nobody knows.
    #[test]
    fn a_server_that_asks_in_another_way_is_not_heard() {
        for kind in [0, 2, 3, 5, 7, 9, 11, 12, 99] {
            assert!(!hears(&mut Judge::default(), &authentication(kind)), "{kind}");
            let notice_first = [&b"N\0\0\0\x04"[..], &authentication(kind)].concat();
            assert!(Judge::default().hear(&notice_first).is_err(), "{kind}");
        }
    }
}
