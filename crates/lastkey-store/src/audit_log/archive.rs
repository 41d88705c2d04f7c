//! Reading the log, and proving what it says.
//!
//! Room      `store`. Files are read on threads of the blocking pool.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::audit::archive::{
    Entry, Filter, Found, LogHead, LogSigners, LogState, Search, Witness, Witnesses,
};
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::{Hash, TILE_WIDTH, consistency, inclusion};
use lastkey_core::audit::note::{NoteKey, open, split};
use lastkey_core::audit::receipt::Receipt;
use lastkey_core::audit::record::Record;
use lastkey_core::audit::tile::{Records, TileKind, TileName};
use lastkey_core::audit::witness::{AddCheckpoint, Refusal, Remembered};
use lastkey_core::ports::{AuditArchive, Cause};
use lastkey_core::time::Timestamp;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::AuditLog;
use super::builder::{Signed, ToBuilder, read_keys};
use super::files::{Layout, make_dir, read_if_there, replace_file};
use super::keeper::minimum_index;
use super::tail::{LogHashes, MAX_BUNDLE_LEN, Tail};

/// Most bundles that one search reads.
const MAX_BUNDLES: u64 = 4_096;
/// How far a clock that was set back is believed to have been ahead, in seconds.
const CLOCK_SLACK_SECS: u64 = 86_400;
/// So many full bundles in a row are older than what is searched before nothing newer is believed to
/// stand before them: a clock may have been behind for a while.
const OLD_BUNDLES: u64 = 16;
/// How long the last checkpoint before sealing may take.
const LAST_CHECKPOINT: Duration = Duration::from_secs(10);

impl AuditLog {
    /// Asks the builder something and waits for its answer.
    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> ToBuilder,
    ) -> Result<T, Cause> {
        let (answer, answered) = oneshot::channel();
        self.to_builder.send(question(answer)).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    /// The edge of the log when everything that is durable by now has been built.
    async fn tail(&self) -> Result<Tail, Cause> {
        self.ask(ToBuilder::Flush).await?;
        Ok(self.published.tail().clone())
    }

    fn reader(&self, tail: Tail) -> Reader {
        Reader { layout: self.layout.clone(), tail }
    }
}

fn stopped() -> Cause {
    "the audit log has stopped".into()
}

/// Runs something that reads files.
async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Cause> {
    Ok(tokio::task::spawn_blocking(read).await??)
}

/// Reads records by their numbers.
struct Reader {
    layout: Layout,
    tail: Tail,
}

impl Reader {
    fn record(&self, index: u64) -> io::Result<Option<Vec<u8>>> {
        let place = (index % TILE_WIDTH as u64) as usize;
        let bundle = self.bundle(index / TILE_WIDTH as u64)?.unwrap_or_default();
        Ok(Records::of(&bundle).flatten().nth(place).map(<[u8]>::to_vec))
    }

    fn proof(&self, index: u64, size: u64) -> io::Result<Vec<Hash>> {
        inclusion(&LogHashes { layout: &self.layout, tail: &self.tail }, index, size)
    }

    /// The bytes of a tile or bundle. One that is not full is the beginning of what there is by
    /// now, so that it is there for as long as somebody holds the checkpoint that needs it.
    fn tile(&self, name: &TileName) -> io::Result<Option<Vec<u8>>> {
        if let Some(bytes) = read_if_there(&self.layout.tile(name), MAX_BUNDLE_LEN)? {
            return Ok(Some(bytes));
        }
        if name.width == TILE_WIDTH {
            return Ok(None);
        }
        let whole = match name.kind {
            TileKind::Entries => self.bundle(name.number)?,
            TileKind::Level(level) => self.hashes(level, name.number)?,
        };
        Ok(whole.and_then(|whole| beginning(name, &whole)))
    }

    /// The tile of a level, as far as it goes by now.
    fn hashes(&self, level: u8, number: u64) -> io::Result<Option<Vec<u8>>> {
        let last = self.tail.size.checked_shr(u32::from(level) * 8 + 8).unwrap_or(0);
        if number == last {
            return Ok(Some(self.tail.partial(level).as_flattened().to_vec()));
        }
        let name = TileName::full(TileKind::Level(level), number);
        read_if_there(&self.layout.tile(&name), MAX_BUNDLE_LEN)
    }
}

/// The first of what a tile holds, as many as the name says; `None` when there are fewer.
pub(super) fn beginning(name: &TileName, whole: &[u8]) -> Option<Vec<u8>> {
    let len = match name.kind {
        TileKind::Level(_) => name.width * 32,
        TileKind::Entries => {
            let records: Option<Vec<_>> = Records::of(whole).take(name.width).collect();
            let records = records.filter(|records| records.len() == name.width)?;
            records.iter().map(|record| record.len() + 2).sum()
        }
    };
    whole.get(..len).map(<[u8]>::to_vec)
}

impl Bundles for Reader {
    fn bundle(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        if number == self.tail.size / TILE_WIDTH as u64 {
            return Ok((!self.tail.bundle.is_empty()).then(|| self.tail.bundle.clone()));
        }
        let name = TileName::full(TileKind::Entries, number);
        read_if_there(&self.layout.tile(&name), MAX_BUNDLE_LEN)
    }

    fn range(&self) -> io::Result<(u64, u64)> {
        Ok((minimum_index(&self.layout)?, self.tail.size))
    }
}

/// Where a search reads records from.
pub(super) trait Bundles {
    /// The bundle of this number; `None` when it is not there.
    fn bundle(&self, number: u64) -> io::Result<Option<Vec<u8>>>;

    /// Number of the oldest record, and of the one after the newest.
    fn range(&self) -> io::Result<(u64, u64)>;
}

/// Searches, bundle by bundle.
///
/// # Errors
/// Those of `bundles`.
pub(super) fn search_in(bundles: &dyn Bundles, search: &Search) -> io::Result<Found> {
    let (first, end) = bundles.range()?;
    let needle = search.filter.needle();
    let mut found = Found { end, ..Found::default() };
    let mut old = 0;
    let mut at = if search.newest_first {
        search.from.unwrap_or(end).min(end)
    } else {
        search.from.unwrap_or(first).max(first)
    };
    for _ in 0..MAX_BUNDLES {
        if if search.newest_first { at <= first } else { at >= end } {
            return Ok(found);
        }
        let number = at.saturating_sub(search.newest_first.into()) / TILE_WIDTH as u64;
        let start = number * TILE_WIDTH as u64;
        let range = if search.newest_first {
            start.max(first)..at
        } else {
            at..(start + TILE_WIDTH as u64).min(end)
        };
        let bundle = bundles.bundle(number)?.unwrap_or_default();
        let records = Records::of(&bundle).flatten().zip(start..);
        let mut records: Vec<_> = records.filter(|(_, index)| range.contains(index)).collect();
        if search.newest_first {
            let is_old = records.len() == TILE_WIDTH && is_before(&records, search.filter.since);
            old = if is_old { old + 1 } else { 0 };
            if old == OLD_BUNDLES {
                return Ok(found);
            }
            records.reverse();
        }
        for (bytes, index) in records {
            at = if search.newest_first { index } else { index + 1 };
            found.entries.extend(matching(bytes, index, &search.filter, needle.as_deref()));
            if found.entries.len() >= search.limit {
                found.next = Some(at);
                return Ok(found);
            }
        }
        at = if search.newest_first { range.start } else { range.end };
    }
    found.next = Some(at);
    Ok(found)
}

/// Whether all records are so much older than what is searched that none before them is newer.
fn is_before(records: &[(&[u8], u64)], since: Option<u64>) -> bool {
    let Some(since) = since.and_then(|since| since.checked_sub(CLOCK_SLACK_SECS)) else {
        return false;
    };
    let at = |bytes| Record::parse(bytes).ok().and_then(|record| record.number("at"));
    !records.is_empty() && records.iter().all(|(bytes, _)| at(bytes).is_some_and(|at| at < since))
}

fn matching(bytes: &[u8], index: u64, filter: &Filter, needle: Option<&[u8]>) -> Option<Entry> {
    if needle.is_some_and(|needle| !bytes.windows(needle.len()).any(|window| window == needle)) {
        return None;
    }
    let record = Record::parse(bytes).ok().filter(|record| filter.matches(record))?;
    Some(Entry { index, record })
}

#[async_trait]
impl AuditArchive for AuditLog {
    async fn unsealed(&self, signers: LogSigners) -> Result<(), Cause> {
        self.ask(|answer| ToBuilder::Unsealed(Box::new(signers), answer)).await?
    }

    async fn sealed(&self) -> Result<(), Cause> {
        let signed = tokio::time::timeout(LAST_CHECKPOINT, self.ask(ToBuilder::Sealed)).await;
        self.forget_keys();
        signed.map_err(|_| Cause::from("its disk holds it up"))??
    }

    fn forget_keys(&self) {
        *self.published.signers() = None;
    }

    fn trust_time(&self, now: Timestamp) {
        *self.published.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    async fn head(&self) -> Result<LogHead, Cause> {
        self.ask(ToBuilder::Head).await
    }

    fn state(&self) -> LogState {
        let keys = self.published.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (log_key, witness_key) = keys.unzip();
        // Before the space, as it is made known after that: what is told is of one look or a later one.
        let refusing = self.buffer.troubles().error().map(|error| error.to_string());
        let space = *self.published.space.lock().unwrap_or_else(PoisonError::into_inner);
        LogState {
            durable: self.buffer.durable(),
            signed: self.published.signed().size,
            first: minimum_index(&self.layout).unwrap_or(0),
            log_key,
            witness_key,
            refusing,
            free_bytes: space.free,
            is_alarming: space.is_alarming,
            has_unsynced_tiles: self.published.is_unsynced(),
        }
    }

    async fn checkpoint(&self) -> Result<String, Cause> {
        self.ask(ToBuilder::Checkpoint).await?
    }

    fn signed_checkpoint(&self) -> String {
        self.published.signed().note
    }

    async fn search(&self, search: Search) -> Result<Found, Cause> {
        let reader = self.reader(self.tail().await?);
        off_thread(move || search_in(&reader, &search)).await
    }

    async fn receipt(&self, index: u64) -> Result<Option<(Vec<u8>, Receipt)>, Cause> {
        let tail = self.tail().await?;
        if index >= tail.size {
            return Ok(None);
        }
        let mut signed = self.published.signed();
        if signed.size <= index {
            self.ask(ToBuilder::Checkpoint).await??;
            signed = self.published.signed();
        }
        let reader = self.reader(self.published.tail().clone());
        let cosigned = self.layout.cosigned();
        off_thread(move || {
            if let Some(better) = read_cosigned(&cosigned, index)? {
                signed = better;
            }
            let Some(record) = reader.record(index)? else { return Ok(None) };
            let Signed { size, note: checkpoint } = signed;
            let proof = reader.proof(index, size)?;
            Ok(Some((record, Receipt { index, proof, checkpoint })))
        })
        .await
    }

    async fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, Cause> {
        let reader = self.reader(self.tail().await?);
        off_thread(move || reader.tile(&name)).await
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Cause> {
        let reader = self.reader(self.tail().await?);
        off_thread(move || {
            consistency(&LogHashes { layout: &reader.layout, tail: &reader.tail }, old, new)
        })
        .await
    }

    async fn cosign(&self, request: &AddCheckpoint) -> Result<Result<String, Refusal>, Cause> {
        let alone = self.witness_alone().await;
        let known = self.witnesses().await?.theirs;
        let remembered = |origin: &str| {
            known.iter().any(|key| key.name() == origin).then(|| self.remembered(origin))
        };
        let mut failed = None;
        let judged = request.judge(&known, |origin| match remembered(origin)? {
            Ok(remembered) => Some(remembered),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let checkpoint = match judged {
            Ok(checkpoint) => checkpoint,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let line = self.ask(|answer| ToBuilder::Cosign(checkpoint.to_string(), answer)).await??;
        let path = self.layout.witnessed(&checkpoint.origin);
        let note = request.checkpoint.clone();
        off_thread(move || {
            let _alone = alone;
            make_dir(path.parent().unwrap_or(&path))?;
            replace_file(&path, note.as_bytes())
        })
        .await?;
        Ok(Ok(line))
    }

    async fn add_cosignatures(&self, note: &str, lines: &str) -> Result<(), Cause> {
        let known: Vec<NoteKey> =
            self.witnesses().await?.ours.into_iter().map(|witness| witness.key).collect();
        let (text, _) = split(note)?;
        open(&format!("{text}\n{lines}"), &known)?;
        let joined = format!("{note}{lines}");
        split(&joined)?;
        let path = self.layout.cosigned();
        off_thread(move || replace_file(&path, joined.as_bytes())).await
    }

    async fn witnesses(&self) -> Result<Witnesses, Cause> {
        let path = self.layout.witnesses();
        let bytes = off_thread(move || read_if_there(&path, 1 << 20)).await?.unwrap_or_default();
        read_witnesses(&String::from_utf8(bytes)?)
    }

    async fn replace_witnesses(&self, before: &Witnesses, after: Witnesses) -> Result<bool, Cause> {
        let alone = self.witness_alone().await;
        if self.witnesses().await? != *before {
            return Ok(false);
        }
        let path = self.layout.witnesses();
        let text = write_witnesses(&after);
        off_thread(move || {
            let _alone = alone;
            replace_file(&path, text.as_bytes())
        })
        .await?;
        Ok(true)
    }
}

impl AuditLog {
    /// Keeps everybody else out of what is known of witnesses.
    ///
    /// INVARIANT: who writes takes the guard along to the thread that does: a caller who goes away
    /// ends neither the writing nor what it keeps out.
    async fn witness_alone(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.witnessing).lock_owned().await
    }

    /// The newest checkpoint of another log that was cosigned here.
    fn remembered(&self, origin: &str) -> Result<Remembered, Cause> {
        let bytes = read_if_there(&self.layout.witnessed(origin), 1 << 20)?;
        let Some(bytes) = bytes else { return Ok(Remembered::default()) };
        let note = String::from_utf8(bytes)?;
        let checkpoint = Checkpoint::parse(split(&note)?.0)?;
        Ok(Remembered { size: checkpoint.size, root: checkpoint.root })
    }

    /// The keys that have signed this log, for those who check it.
    ///
    /// # Errors
    /// A cause when the list cannot be read.
    pub fn public_keys(&self) -> Result<Vec<NoteKey>, Cause> {
        read_keys(&self.layout)
    }
}

/// The newest checkpoint that witnesses have cosigned, if it covers a record.
fn read_cosigned(path: &Path, index: u64) -> io::Result<Option<Signed>> {
    let Some(bytes) = read_if_there(path, 1 << 20)? else { return Ok(None) };
    let Ok(note) = String::from_utf8(bytes) else { return Ok(None) };
    let checkpoint = split(&note).and_then(|(text, _)| Checkpoint::parse(text)).ok();
    let covers = checkpoint.filter(|checkpoint| checkpoint.size > index);
    Ok(covers.map(|checkpoint| Signed { size: checkpoint.size, note }))
}

/// One line for each: `witness KEY URL [FINGERPRINT]`, or `log KEY`.
fn write_witnesses(witnesses: &Witnesses) -> String {
    let ours = witnesses.ours.iter().map(|witness| {
        let fingerprint = witness.ca_fingerprint.as_deref().unwrap_or_default();
        let line = format!("witness {} {} {fingerprint}", witness.key, witness.url);
        format!("{}\n", line.trim_end())
    });
    let theirs = witnesses.theirs.iter().map(|key| format!("log {key}\n"));
    ours.chain(theirs).collect()
}

fn read_witnesses(text: &str) -> Result<Witnesses, Cause> {
    let mut witnesses = Witnesses::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let key = NoteKey::parse(words.next().unwrap_or_default())?;
        match (kind, words.next()) {
            ("witness", Some(url)) => witnesses.ours.push(Witness {
                key,
                url: url.to_owned(),
                ca_fingerprint: words.next().map(str::to_owned),
            }),
            ("log", None) => witnesses.theirs.push(key),
            _ => return Err("the list of witnesses cannot be read".into()),
        }
    }
    Ok(witnesses)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use lastkey_core::audit::merkle::{Tree, leaf_hash};
    use lastkey_core::audit::note::{KeyKind, NoteSigner};
    use lastkey_core::audit::tile::push_record;
    use lastkey_secret::SecretArray;

    use super::super::builder::now;
    use super::super::tests::{open, signers};
    use super::*;

    /// A log with one record an hour, and how many of its bundles were read.
    struct Hourly {
        records: u64,
        read: core::cell::Cell<usize>,
    }

    impl Bundles for Hourly {
        fn bundle(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
            self.read.set(self.read.get() + 1);
            let start = number * TILE_WIDTH as u64;
            let mut bundle = Vec::new();
            for index in start..(start + TILE_WIDTH as u64).min(self.records) {
                let record = format!("{{\"at\":{}}}", index * 3_600);
                assert!(push_record(&mut bundle, record.as_bytes()));
            }
            Ok(Some(bundle))
        }

        fn range(&self) -> io::Result<(u64, u64)> {
            Ok((0, self.records))
        }
    }

    #[test]
    fn search_of_the_last_day_reads_no_years() {
        let log = Hourly { records: 1_000_000, read: core::cell::Cell::new(0) };
        let since = Some((log.records - 24) * 3_600);
        let filter = Filter { since, ..Filter::default() };
        let search = Search { from: None, limit: 1_000, newest_first: true, filter };
        let found = search_in(&log, &search).unwrap();
        assert_eq!((found.entries.len(), found.next), (24, None));
        assert!(log.read.get() <= 2 + OLD_BUNDLES as usize, "{}", log.read.get());
    }

    /// The checkpoint of another log of so many records, shown to who remembers nothing of it.
    fn first_shown(size: usize) -> AddCheckpoint {
        let by = NoteSigner::from_seed("other", KeyKind::Ed25519, &SecretArray::copy_of(&[3; 32]));
        let mut tree = Tree::default();
        for number in 0..size {
            tree.push(leaf_hash(&number.to_be_bytes()), |_| Ok::<(), io::Error>(())).unwrap();
        }
        let checkpoint =
            Checkpoint { origin: "other".into(), size: tree.size(), root: tree.root() };
        let text = checkpoint.to_string();
        let signed = by.unwrap().sign(&text, now()).unwrap();
        AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: format!("{text}\n{signed}") }
    }

    fn others(seeds: &[u8]) -> Witnesses {
        let key = |seed: &u8| {
            let seed = SecretArray::copy_of(&[*seed; 32]);
            NoteSigner::from_seed("other", KeyKind::Ed25519, &seed).unwrap().key().clone()
        };
        Witnesses { ours: Vec::new(), theirs: seeds.iter().map(key).collect() }
    }

    /// The caller went away while a thread was writing what was cosigned for him. The next one was
    /// judged by what was remembered before, and then the old checkpoint replaced his: a fork from
    /// either was cosigned as well.
    #[test]
    fn what_is_being_remembered_keeps_others_out_also_when_its_caller_has_gone() {
        // One thread reads and writes files, one after the other.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let log = open(dir.path());
            log.unsealed(signers()).await.unwrap();
            assert!(log.replace_witnesses(&Witnesses::default(), others(&[3])).await.unwrap());
            let (one, two) = (first_shown(1), first_shown(2));
            let mut asked = log.cosign(&one);
            let mut context = Context::from_waker(Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
            // It reads the list of witnesses; then the thread is kept busy.
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let (busy, is_busy) = tokio::sync::oneshot::channel();
            let thread = tokio::task::spawn_blocking(move || {
                busy.send(()).unwrap();
                wait.recv().unwrap();
            });
            is_busy.await.unwrap();
            assert!(asked.as_mut().poll(&mut context).is_pending());
            // It is signed; then the writing waits for the thread.
            let (built, is_built) = tokio::sync::oneshot::channel();
            log.to_builder.send(ToBuilder::Flush(built)).unwrap();
            is_built.await.unwrap();
            assert!(asked.as_mut().poll(&mut context).is_pending());
            drop(asked);
            assert!(log.witnessing.try_lock().is_err());
            go_on.send(()).unwrap();
            thread.await.unwrap();
            assert_eq!(log.cosign(&two).await.unwrap(), Err(Refusal::Conflict(1)));
        });
    }

    #[tokio::test]
    async fn list_of_witnesses_that_somebody_else_has_changed_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let before = log.witnesses().await.unwrap();
        assert!(log.replace_witnesses(&before, others(&[3])).await.unwrap());
        assert!(!log.replace_witnesses(&before, others(&[4])).await.unwrap());
        assert_eq!(log.witnesses().await.unwrap(), others(&[3]));
        assert!(log.replace_witnesses(&others(&[3]), others(&[3, 4])).await.unwrap());
    }
}
