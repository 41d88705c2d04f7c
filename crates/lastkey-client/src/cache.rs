//! Data keys that serve more than one envelope, for a while.
//!
//! Room      `client`. [`crate::Encryptor`] and [`crate::Decryptor`] ask it before the server.
//! Source    `docs/formats/envelope.md`, section "Keys": each envelope has its own salt, and so
//!           its own payload key, so a data key may serve many without repeating a nonce.
//! Holds     A data key leaves, wiped, when its time, its messages or its bytes are used up, also
//!           when nobody asks again. For one key and context one call is under way at a time.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lastkey_crypto::{digest::sha256_of, envelope::Recipient};
use lastkey_secret::SecretArray;
use tokio::{runtime::Handle, time::Instant};

use crate::envelope::EnvelopeError;

/// How long and for how much one data key may serve.
///
/// The bounds limit what one data key protects, should it ever become known, and how long a
/// lost permission goes unnoticed: within [`CacheLimits::max_age`] a cached data key is used
/// without asking the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheLimits {
    /// From the answer of the server until the data key is wiped. Default 5 minutes.
    pub max_age: Duration,
    /// Envelopes encrypted under one data key. Default 1,000.
    pub max_messages: u64,
    /// Bytes of plaintext encrypted under one data key, counted as they are encrypted: an
    /// envelope under way is finished. Default 64 GiB.
    pub max_bytes: u64,
    /// Data keys held, for encryption and decryption together; the oldest go. Default 1,000.
    pub max_entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(300),
            max_messages: 1_000,
            max_bytes: 64 << 30,
            max_entries: 1_000,
        }
    }
}

/// What a cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Envelopes whose data key was there.
    pub hits: u64,
    /// Calls to a server.
    pub misses: u64,
    /// Envelopes whose data key came with the call of another one, which they waited for.
    pub shared: u64,
    /// Calls that gave no data key.
    pub failures: u64,
    /// Data keys wiped because a bound was reached.
    pub retired: u64,
    /// Data keys held now.
    pub entries: u64,
}

/// A cache of data keys. A clone is the same cache: share it between as many encryptors and
/// decryptors as you like. What one caller was given is used for that caller only.
///
/// ```no_run
/// use lastkey_client::{CacheLimits, Client, DataKeyCache, Encryptor};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = DataKeyCache::new(CacheLimits::default());
/// let encryptor = Encryptor::new(&Client::connect()?, "alias/app").cache(&cache);
/// for text in ["one", "two", "three"] {
///     let envelope = encryptor.encrypt(text.as_bytes()).await?;
///     # let _ = envelope;
/// }
/// assert_eq!((cache.stats().misses, cache.stats().hits), (1, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DataKeyCache {
    shared: Arc<Shared>,
}

impl fmt::Debug for DataKeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeyCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A data key and the recipients that recover it; none for one that was recovered itself.
#[non_exhaustive]
pub struct ProtectedKey {
    /// The data key. It may be cached: not for more envelopes than it was asked for.
    pub data_key: SecretArray<32>,
    /// Who stands in the header of an envelope of it.
    pub recipients: Vec<Recipient>,
}

impl fmt::Debug for ProtectedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectedKey").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

/// A data key on loan for one envelope. Dropped with the last loan, it is wiped.
pub(crate) struct Loan {
    pub(crate) key: Arc<ProtectedKey>,
    pub(crate) meter: Meter,
}

impl Loan {
    /// Of a data key that is kept nowhere.
    pub(crate) fn of(key: ProtectedKey) -> Self {
        Self { key: Arc::new(key), meter: Meter::default() }
    }
}

/// Counts what is encrypted under one data key.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(crate) fn add(&self, plaintext_len: usize) {
        let len = u64::try_from(plaintext_len).unwrap_or(u64::MAX);
        // Wrapping would need 2^64 bytes.
        self.0.fetch_add(len, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a data key is kept for: a hash of caller, purpose, keys and context.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheId([u8; 32]);

impl CacheId {
    /// Of parts, each with its length in front.
    pub(crate) fn of<P: Deref<Target: AsRef<[u8]>>>(parts: &[P]) -> Self {
        let parts = || parts.iter().map(|part| part.deref().as_ref());
        let lengths: Vec<[u8; 8]> = parts().map(|part| (part.len() as u64).to_be_bytes()).collect();
        let framed: Vec<&[u8]> =
            lengths.iter().zip(parts()).flat_map(|(len, part)| [len.as_slice(), part]).collect();
        Self(sha256_of(&framed))
    }
}

struct Shared {
    limits: CacheLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<CacheId, Entry>,
    flights: HashMap<CacheId, Arc<Flight>>,
    stats: CacheStats,
    /// Whether somebody wipes what becomes too old.
    is_swept: bool,
}

struct Entry {
    key: Arc<ProtectedKey>,
    meter: Meter,
    messages: u64,
    since: Instant,
}

/// One call to the server. Who holds the lock makes it; the others wait for the lock.
type Flight = tokio::sync::Mutex<Landing>;

/// How a call ended, for those who waited.
enum Landing {
    /// Under way, or given up by a caller that went away.
    Open,
    /// Look again.
    Landed,
    Failed(Arc<EnvelopeError>),
}

impl DataKeyCache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: CacheLimits) -> Self {
        Self { shared: Arc::new(Shared { limits, state: Mutex::default() }) }
    }

    /// Counts since the beginning, and how many data keys are held now.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let state = self.shared.lock();
        CacheStats { entries: state.entries.len() as u64, ..state.stats }
    }

    /// Wipes every data key, for instance after a permission was taken away. Envelopes under way
    /// are finished.
    pub fn clear(&self) {
        self.shared.lock().entries.clear();
    }

    /// The data key for `id`: from memory, or by `fetch`, which runs once for all who ask
    /// meanwhile. When it fails, all of them get the failure.
    pub(crate) async fn obtain<F>(
        &self,
        id: CacheId,
        fetch: impl FnOnce() -> F,
    ) -> Result<Loan, EnvelopeError>
    where
        F: Future<Output = Result<ProtectedKey, EnvelopeError>>,
    {
        let mut waited = false;
        loop {
            let flight = match self.shared.find(id, waited) {
                Found::Loan(loan) => return Ok(loan),
                Found::Flight(flight) => flight,
            };
            let ticket = Ticket { shared: &self.shared, id, flight: &flight };
            waited = flight.try_lock().is_err();
            let mut landing = flight.lock().await;
            match &*landing {
                Landing::Landed => {}
                Landing::Failed(failure) => {
                    return Err(EnvelopeError::Shared(Arc::clone(failure)));
                }
                Landing::Open => {
                    let outcome = fetch().await;
                    let (next, result) = self.land(id, outcome);
                    *landing = next;
                    ticket.close();
                    return result;
                }
            }
        }
    }

    fn land(
        &self,
        id: CacheId,
        outcome: Result<ProtectedKey, EnvelopeError>,
    ) -> (Landing, Result<Loan, EnvelopeError>) {
        let mut state = self.shared.lock();
        state.stats.misses += 1;
        match outcome {
            Ok(key) => {
                let loan = self.shared.insert(&mut state, id, Arc::new(key));
                drop(state);
                self.wipe_in_time();
                (Landing::Landed, Ok(loan))
            }
            Err(failure) => {
                state.stats.failures += 1;
                let failure = Arc::new(failure);
                (Landing::Failed(Arc::clone(&failure)), Err(EnvelopeError::Shared(failure)))
            }
        }
    }

    /// Wipes what has become too old even if nobody asks for it again. One task does so, for as
    /// long as there is anything.
    fn wipe_in_time(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if std::mem::replace(&mut self.shared.lock().is_swept, true) {
            return;
        }
        let sweeper = Sweeper(Arc::downgrade(&self.shared));
        let mut wait = self.shared.limits.max_age;
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(wait).await;
                let Some(shared) = sweeper.0.upgrade() else { return };
                let Some(next) = shared.sweep() else { return };
                wait = next;
            }
        });
    }
}

/// Says that nobody sweeps any more, also when its runtime ends.
struct Sweeper(Weak<Shared>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.lock().is_swept = false;
        }
    }
}

/// What there is for an id.
enum Found {
    Loan(Loan),
    Flight(Arc<Flight>),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and the maps are whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: CacheId, waited: bool) -> Found {
        let mut state = self.lock();
        let State { entries, flights, stats, .. } = &mut *state;
        if let Some(entry) = entries.get_mut(&id) {
            if self.is_good(entry) {
                if waited {
                    stats.shared += 1;
                } else {
                    stats.hits += 1;
                }
                let loan = entry.lend();
                if entry.messages >= self.limits.max_messages {
                    entries.remove(&id);
                    stats.retired += 1;
                }
                return Found::Loan(loan);
            }
            entries.remove(&id);
            stats.retired += 1;
        }
        let open = || Arc::new(Flight::new(Landing::Open));
        Found::Flight(Arc::clone(flights.entry(id).or_insert_with(open)))
    }

    fn is_good(&self, entry: &Entry) -> bool {
        entry.since.elapsed() < self.limits.max_age && entry.meter.bytes() < self.limits.max_bytes
    }

    fn insert(&self, state: &mut State, id: CacheId, key: Arc<ProtectedKey>) -> Loan {
        let mut entry = Entry { key, meter: Meter::default(), messages: 0, since: Instant::now() };
        let loan = entry.lend();
        let is_worth_it = self.limits.max_messages > 1 && self.limits.max_entries > 0;
        if is_worth_it && !self.limits.max_age.is_zero() {
            if state.entries.len() >= self.limits.max_entries {
                let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.since);
                if let Some(oldest) = oldest.map(|(id, _)| *id) {
                    state.entries.remove(&oldest);
                    state.stats.retired += 1;
                }
            }
            state.entries.insert(id, entry);
        }
        loan
    }

    /// Wipes what is too old or used up; when to come again, unless nothing is left.
    fn sweep(&self) -> Option<Duration> {
        let mut state = self.lock();
        let before = state.entries.len();
        state.entries.retain(|_, entry| self.is_good(entry));
        let gone = before.saturating_sub(state.entries.len());
        state.stats.retired += gone as u64;
        let oldest = state.entries.values().map(|entry| entry.since).min();
        state.is_swept = oldest.is_some();
        oldest.map(|since| self.limits.max_age.saturating_sub(since.elapsed()))
    }
}

impl Entry {
    fn lend(&mut self) -> Loan {
        self.messages += 1;
        Loan { key: Arc::clone(&self.key), meter: self.meter.clone() }
    }
}

/// A place in a flight. The last one to go, even in the middle of the call, closes it.
struct Ticket<'a> {
    shared: &'a Shared,
    id: CacheId,
    flight: &'a Arc<Flight>,
}

impl Ticket<'_> {
    /// Nobody else may join: the flight is over.
    fn close(&self) {
        let mut state = self.shared.lock();
        if state.flights.get(&self.id).is_some_and(|flight| Arc::ptr_eq(flight, self.flight)) {
            state.flights.remove(&self.id);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let is_same =
            state.flights.get(&self.id).is_some_and(|flight| Arc::ptr_eq(flight, self.flight));
        // One count is the map's, one ours.
        if is_same && Arc::strong_count(self.flight) <= 2 {
            state.flights.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use lastkey_secret::SecretArray;
    use tokio::task::yield_now;

    use super::{CacheId, CacheLimits, DataKeyCache, Loan, ProtectedKey};
    use crate::{Error, envelope::EnvelopeError};

    const MINUTE: Duration = Duration::from_secs(60);

    /// Counts its calls; the data key of each is another one.
    #[derive(Default)]
    struct Server(AtomicU64);

    impl Server {
        async fn key(&self) -> Result<ProtectedKey, EnvelopeError> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut data_key = [0; 32];
            data_key[..8].copy_from_slice(&number.to_be_bytes());
            let data_key = SecretArray::copy_of(&data_key);
            Ok(ProtectedKey { data_key, recipients: Vec::new() })
        }

        fn calls(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn number(loan: &Loan) -> u8 {
        loan.key.data_key.expose(|bytes| bytes[7])
    }

    fn id(name: &str) -> CacheId {
        CacheId::of(&[name])
    }

    fn limits() -> CacheLimits {
        CacheLimits { max_age: MINUTE, ..CacheLimits::default() }
    }

    #[test]
    fn id_depends_on_where_its_parts_end() {
        assert!(CacheId::of(&["ab", "c"]) != CacheId::of(&["a", "bc"]));
        assert!(CacheId::of(&["ab"]) != CacheId::of(&["ab", ""]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_serves_all_who_ask_meanwhile() {
        let (cache, server) = (DataKeyCache::new(limits()), Server::default());
        let asks = (0..100).map(|_| cache.obtain(id("a"), || server.key()));
        let loans = futures_of(asks).await;
        assert!(loans.iter().all(|loan| number(loan.as_ref().unwrap()) == 0));
        assert_eq!(server.calls(), 1);
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.shared, stats.hits, stats.entries), (1, 99, 0, 1));
    }

    /// Polls all of them in turn until all are done.
    async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut open: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
        let mut done: Vec<Option<F::Output>> = open.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            for (future, slot) in open.iter_mut().zip(&mut done) {
                if let Some(pinned) = future
                    && let std::task::Poll::Ready(output) = pinned.as_mut().poll(cx)
                {
                    (*slot, *future) = (Some(output), None);
                }
            }
            if open.iter().all(Option::is_none) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        done.into_iter().flatten().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_shared_by_those_who_waited_and_not_kept() {
        let cache = DataKeyCache::new(limits());
        let calls = AtomicU64::new(0);
        let fail = || async {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(EnvelopeError::Server(Error::Token))
        };
        let outcomes = futures_of((0..10).map(|_| cache.obtain(id("a"), fail))).await;
        for outcome in outcomes {
            let failure = outcome.err().unwrap();
            assert!(matches!(failure.server_error(), Some(Error::Token)), "{failure:?}");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let server = Server::default();
        assert!(cache.obtain(id("a"), || server.key()).await.is_ok());
        assert_eq!((cache.stats().failures, cache.stats().misses), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn caller_that_goes_away_leaves_the_call_to_the_next() {
        let (cache, server) = (DataKeyCache::new(limits()), Server::default());
        let other = cache.clone();
        let gone = tokio::spawn(async move {
            let never = || async {
                pending::<()>().await;
                Err(EnvelopeError::DataKey)
            };
            other.obtain(id("a"), never).await.map(|_| ())
        });
        yield_now().await;
        assert_eq!(cache.shared.lock().flights.len(), 1);
        let waiting = cache.obtain(id("a"), || server.key());
        tokio::pin!(waiting);
        tokio::select! { biased; _ = &mut waiting => panic!("not yet"), () = yield_now() => {} }
        gone.abort();
        assert_eq!(number(&waiting.await.unwrap()), 0);
        assert!(cache.shared.lock().flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn call_that_everybody_left_is_forgotten() {
        let cache = DataKeyCache::new(limits());
        let server = Server::default();
        let early = tokio::time::timeout(Duration::from_millis(1), async {
            cache.obtain(id("a"), || server.key()).await.map(|_| ())
        });
        assert!(early.await.is_err());
        assert!(cache.shared.lock().flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn data_key_serves_no_more_messages_than_allowed() {
        let cache = DataKeyCache::new(CacheLimits { max_messages: 3, ..limits() });
        let server = Server::default();
        let mut numbers = Vec::new();
        for _ in 0..7 {
            numbers.push(number(&cache.obtain(id("a"), || server.key()).await.unwrap()));
        }
        assert_eq!(numbers, [0, 0, 0, 1, 1, 1, 2]);
        assert_eq!(cache.stats().retired, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn data_key_serves_no_more_once_its_bytes_are_used_up() {
        let cache = DataKeyCache::new(CacheLimits { max_bytes: 100, ..limits() });
        let server = Server::default();
        for (len, expected) in [(99, 0), (1, 0), (500, 1), (0, 2), (0, 2)] {
            let loan = cache.obtain(id("a"), || server.key()).await.unwrap();
            assert_eq!(number(&loan), expected);
            loan.meter.add(len);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_wipes_for_all_and_comes_back_when_there_is_something_again() {
        let (cache, server) = (DataKeyCache::new(limits()), Server::default());
        for _ in 0..2 {
            for name in ["a", "b", "c", "d"] {
                drop(cache.obtain(id(name), || server.key()).await.unwrap());
            }
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
            assert_eq!(cache.stats().entries, 4);
            tokio::time::sleep(MINUTE + Duration::from_millis(1)).await;
            assert_eq!(cache.stats().entries, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_key_is_wiped_in_time_though_nobody_asks() {
        let (cache, server) = (DataKeyCache::new(limits()), Server::default());
        let kept =
            std::sync::Arc::downgrade(&cache.obtain(id("a"), || server.key()).await.unwrap().key);
        tokio::time::sleep(MINUTE - Duration::from_millis(1)).await;
        assert_eq!((cache.stats().entries, kept.strong_count()), (1, 1));
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!((cache.stats().entries, kept.strong_count()), (0, 0));
        assert_eq!(number(&cache.obtain(id("a"), || server.key()).await.unwrap()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_data_key_goes_when_there_are_too_many() {
        let cache = DataKeyCache::new(CacheLimits { max_entries: 2, ..limits() });
        let server = Server::default();
        for name in ["a", "b", "c", "b", "c", "a"] {
            cache.obtain(id(name), || server.key()).await.unwrap();
        }
        assert_eq!((server.calls(), cache.stats().entries), (4, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn limits_of_nothing_keep_nothing() {
        for limits in [
            CacheLimits { max_age: Duration::ZERO, ..limits() },
            CacheLimits { max_messages: 1, ..limits() },
            CacheLimits { max_messages: 0, ..limits() },
            CacheLimits { max_entries: 0, ..limits() },
            CacheLimits { max_bytes: 0, ..limits() },
        ] {
            let (cache, server) = (DataKeyCache::new(limits), Server::default());
            let one = cache.obtain(id("a"), || server.key()).await.unwrap();
            let two = cache.obtain(id("a"), || server.key()).await.unwrap();
            assert_ne!(number(&one), number(&two), "{limits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cleared_cache_asks_again() {
        let (cache, server) = (DataKeyCache::new(limits()), Server::default());
        for expected in [0, 1] {
            assert_eq!(number(&cache.obtain(id("a"), || server.key()).await.unwrap()), expected);
            cache.clear();
        }
        assert_eq!(format!("{cache:?}").matches("misses: 2").count(), 1);
    }
}
