//! How long a connection has been without a request.
//!
//! Room      `http`.
//! Holds     the time from the end of one request to the whole head of the next is bounded, so
//!           neither a silent client nor one that sends its head byte by byte keeps a
//!           connection. It costs a request two stores and no timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What one connection is doing. Shared by the connection and its requests.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    opened: Instant,
    requests: AtomicUsize,
    /// Milliseconds from `opened` to the end of the last request.
    idle_since: AtomicU64,
}

impl Activity {
    /// A connection that was opened just now.
    pub(crate) fn start() -> Self {
        let (requests, idle_since) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { opened: Instant::now(), requests, idle_since }))
    }

    /// Marks a request until the answer is dropped.
    pub(crate) fn request(&self) -> Busy {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        Busy { activity: self.clone(), ended: None }
    }

    /// When the connection will have been idle for `limit`, if nothing happens until then.
    pub(crate) fn idle_at(&self, limit: Duration) -> Instant {
        if self.0.requests.load(Ordering::Relaxed) > 0 {
            return Instant::now() + limit;
        }
        let since = Duration::from_millis(self.0.idle_since.load(Ordering::Relaxed));
        self.0.opened + since + limit
    }
}

/// A request that is being worked on.
#[derive(Debug)]
pub(crate) struct Busy {
    activity: Activity,
    ended: Option<Instant>,
}

impl Busy {
    /// It ended at this moment, which somebody has read from the clock already.
    pub(crate) fn end(mut self, at: Instant) {
        self.ended = Some(at);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let inner = &*self.activity.0;
        let ended = self.ended.unwrap_or_else(Instant::now);
        let millis = ended.saturating_duration_since(inner.opened).as_millis();
        inner.idle_since.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
        inner.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_time_starts_when_the_last_request_ends() {
        let activity = Activity::start();
        let opened = Instant::now();
        assert_eq!(activity.idle_at(LIMIT), opened + LIMIT);
        tokio::time::advance(Duration::from_secs(10)).await;
        let (one, two) = (activity.request(), activity.request());
        drop(one);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(activity.idle_at(LIMIT), Instant::now() + LIMIT);
        two.end(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(activity.idle_at(LIMIT), opened + Duration::from_secs(110) + LIMIT);
    }
}
