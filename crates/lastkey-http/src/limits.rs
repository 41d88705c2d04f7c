//! Limits of the door: bodies, headers, requests, connections, time.
//!
//! Room      `http`.
//! Holds     a request is refused before its body is read when it says itself that it is too
//!           long, and a longer one than it says is cut off at the limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

use crate::problem::{Problem, Syntax};

/// Limits of a server. `Default` gives the documented values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of a request, in bytes. 1 MiB.
    pub body_len: usize,
    /// Longest head of a request (request line and headers), in bytes. 16 KiB; HTTP/1.1 allows
    /// no less than 8 KiB.
    pub head_len: usize,
    /// Most requests that are worked on at once; above it 429. 1,024.
    pub requests_in_flight: usize,
    /// Most connections at once; above it 429 and close. 4,096.
    pub connections: usize,
    /// Longest time for one request, from its head to its answer. 30 s.
    pub request_time: Duration,
    /// Longest time that a connection may be without a request, which is also the longest time
    /// for a head to arrive. 60 s.
    pub idle_time: Duration,
    /// Longest time for a TLS handshake. 10 s.
    pub handshake_time: Duration,
    /// Longest time that a shutdown waits for requests that were accepted. 30 s.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_len: 1 << 20,
            head_len: 16 << 10,
            requests_in_flight: 1_024,
            connections: 4_096,
            request_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(60),
            handshake_time: Duration::from_secs(10),
            drain_time: Duration::from_secs(30),
        }
    }
}

/// Counts what is there at once, up to a limit.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: AtomicUsize,
    limit: usize,
}

impl Seats {
    /// So many seats.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit }
    }

    /// Takes a seat until the answer is dropped; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<Seat<'_>> {
        let seat = Seat(self);
        // The seat is counted before it is known to be free, and given back by `Drop` if not.
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(seat)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A taken seat.
#[derive(Debug)]
pub(crate) struct Seat<'a>(&'a Seats);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a body to its end. One frame, which is the rule, is not copied.
///
/// # Errors
/// [`Problem::BodyTooLarge`] over the limit; [`Problem::Syntax`] when the connection breaks.
pub(crate) async fn read_body<B>(mut body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::BodyTooLarge(limit));
    }
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
        if parts.len() + whole.len() + data.len() > limit {
            return Err(Problem::BodyTooLarge(limit));
        }
        if whole.is_empty() && parts.is_empty() {
            whole = data;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&data);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

fn broken() -> Problem {
    Problem::Syntax(Syntax {
        field: None,
        message: "the body ended before it was complete".into(),
        allowed: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    /// A body that does not say its length.
    struct Parts(std::collections::VecDeque<&'static [u8]>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(Bytes::from_static(part)))))
        }
    }

    fn in_parts(parts: &[&'static [u8]]) -> Parts {
        Parts(parts.iter().copied().collect())
    }

    #[tokio::test]
    async fn a_body_at_the_limit_is_read_whole() {
        assert_eq!(read_body(Full::new(Bytes::from_static(b"1234")), 4).await.unwrap(), "1234");
        assert_eq!(read_body(in_parts(&[b"1", b"23", b"4"]), 4).await.unwrap(), "1234");
        assert_eq!(read_body(in_parts(&[]), 4).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not() {
        let said = read_body(Full::new(Bytes::from_static(b"12345")), 4).await;
        assert!(matches!(said, Err(Problem::BodyTooLarge(4))));
        let unsaid = read_body(in_parts(&[b"12", b"34", b"5"]), 4).await;
        assert!(matches!(unsaid, Err(Problem::BodyTooLarge(4))));
    }

    #[test]
    fn seats_are_given_back() {
        let seats = Seats::new(1);
        let first = seats.take();
        assert!(first.is_some() && seats.take().is_none());
        assert_eq!(seats.taken(), 1);
        drop(first);
        assert!(seats.take().is_some());
        assert_eq!(seats.taken(), 0);
    }
}
