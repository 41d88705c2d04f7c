//! The one thread that turns durable records into tiles, bundles and checkpoints, and watches over
//! the files.
//!
//! Room      `store`.
//! Source    C2SP tlog-tiles; docs/formats/audit-log.md.
//! Holds     a segment goes only after every record in it lies in a full bundle that is on the
//!           disk; a checkpoint covers only durable records.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lastkey_core::audit::archive::{LogHead, LogSigners};
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::{FullTile, TILE_WIDTH, Tree};
use lastkey_core::audit::note::NoteKey;
use lastkey_core::audit::tile::{TileKind, TileName};
use lastkey_core::ports::Cause;
use lastkey_core::time::Timestamp;
use tokio::sync::oneshot;

use super::AuditOptions;
use super::files::{Layout, append_whole, make_dir, replace_file, sync_dir, write_file};
use super::keeper::Keeper;
use super::pending::Buffer;
use super::rewrite::Rewrite;
use super::tail::Tail;
use super::wal::{Group, segments};

/// What the builder is told.
pub(super) enum ToBuilder {
    /// Records that have become durable.
    Group(Group),
    /// Records from this one on go into another segment than those before.
    NewSegment(u64),
    /// Answer when everything before this has been built.
    Flush(oneshot::Sender<()>),
    /// Answer where the tree stands when everything before this has been built.
    Head(oneshot::Sender<LogHead>),
    /// Sign with these keys from now on.
    Unsealed(Box<LogSigners>, oneshot::Sender<Result<(), Cause>>),
    /// Sign what there is, and give the keys up.
    Sealed(oneshot::Sender<Result<(), Cause>>),
    /// Sign what there is.
    Checkpoint(oneshot::Sender<Result<String, Cause>>),
    /// Cosign the checkpoint of another log.
    Cosign(String, oneshot::Sender<Result<String, Cause>>),
    /// Nothing more comes.
    Close,
}

/// The newest signed checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Signed {
    pub(super) size: u64,
    pub(super) note: String,
}

/// What the builder lets others see.
#[derive(Default)]
pub(super) struct Published {
    pub(super) tail: Mutex<Tail>,
    pub(super) signed: Mutex<Signed>,
    pub(super) keys: Mutex<Option<(NoteKey, NoteKey)>>,
    /// What signs, while the server is unsealed. Here, so that the keys can be taken back while
    /// the builder is held up.
    signers: Mutex<Option<LogSigners>>,
    pub(super) space: Mutex<Space>,
    /// The newest time by a clock that was found right.
    pub(super) trusted: Mutex<Option<Timestamp>>,
    /// Whether the disk has refused tiles, which may be lost. They are in the segments.
    pub(super) is_unsynced: AtomicBool,
    /// Held by each copy that is being taken: until it is, nothing is removed.
    pub(super) copying: Arc<()>,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Space {
    pub(super) free: Option<u64>,
    pub(super) is_alarming: bool,
}

impl Published {
    pub(super) fn signed(&self) -> Signed {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.is_unsynced.load(Ordering::Relaxed)
    }

    pub(super) fn signers(&self) -> MutexGuard<'_, Option<LogSigners>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the builder waits before it tries a failing disk again.
const RETRY: Duration = Duration::from_millis(500);
/// How often it looks after things.
const TICK: Duration = Duration::from_secs(1);
/// A checkpoint is kept for good when the one kept before is so old.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long the disk is left alone after it has refused tiles that were written again.
const REWRITE_AFTER: Duration = Duration::from_secs(60);

/// What the builder works with.
pub(super) struct Builder {
    pub(super) layout: Layout,
    pub(super) options: AuditOptions,
    pub(super) tree: Tree,
    /// The records of the bundle that is not full, each after its length.
    pub(super) bundle: Vec<u8>,
    pub(super) published: Arc<Published>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) keeper: Keeper,
    /// When a checkpoint was last kept for good.
    pub(super) kept_at: Option<Instant>,
    /// Length of the list of those, while one more is not wholly in it.
    pub(super) kept_len: Option<u64>,
    /// Tiles of the newest checkpoint that are not full.
    pub(super) partials: Vec<TileName>,
    /// Whether a group was given up half added: the tree is then not what was recorded.
    pub(super) is_broken: bool,
    /// The directory, held from before the first tile is written: a handle that is opened later
    /// does not hear of what the disk refused before.
    pub(super) dir: File,
    /// Tiles that the disk had refused, while they are being written again.
    pub(super) rewrite: Option<Rewrite>,
    /// When that is tried next, once it has failed.
    pub(super) rewrite_at: Option<Instant>,
}

impl Builder {
    /// Builds until it is told that nothing more comes.
    pub(super) fn run(mut self, inbox: &Receiver<ToBuilder>) {
        let mut next_tick = Instant::now();
        loop {
            let left = next_tick.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(left) {
                Ok(ToBuilder::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if next_tick <= Instant::now() {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
        }
        if let Err(error) = self.sign_if_news() {
            tracing::warn!(%error, "the last checkpoint of the audit log cannot be written");
        }
        *self.published.signers() = None;
    }

    fn handle(&mut self, message: ToBuilder) {
        // Who asked and went away needs no answer.
        match message {
            ToBuilder::Group(group) => {
                self.add_patiently(&group);
                self.buffer.built(group.framed_len());
                self.buffer.reuse(group.into_buffer());
            }
            ToBuilder::NewSegment(first) => self.release_segments(first),
            ToBuilder::Flush(answer) => drop(answer.send(())),
            ToBuilder::Head(answer) => {
                let head = LogHead { size: self.tree.size(), root: self.tree.root() };
                drop(answer.send(head));
            }
            ToBuilder::Unsealed(signers, answer) => self.unseal_for(*signers, answer),
            ToBuilder::Sealed(answer) => {
                let last = self.sign_if_news();
                *self.published.signers() = None;
                drop(answer.send(last));
            }
            ToBuilder::Checkpoint(answer) => {
                let signed = self.sign_if_news().map(|()| self.published.signed().note);
                drop(answer.send(signed));
            }
            ToBuilder::Cosign(text, answer) => drop(answer.send(self.cosign(&text))),
            ToBuilder::Close => {}
        }
    }

    /// Looks after everything that comes with time.
    pub(super) fn tick(&mut self) {
        self.keeper.look_after(&self.layout, &self.buffer, &self.published);
        let signs = self.published.signers().is_some();
        if signs && let Err(error) = self.sign_if_news() {
            tracing::error!(%error, "no checkpoint of the audit log can be written");
        }
        if self.published.is_unsynced() && self.rewrite_at.is_none_or(|at| at <= Instant::now()) {
            self.rewrite_patiently();
        }
        let trusted = *self.published.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_copied = Arc::strong_count(&self.published.copying) > 1;
        if let Some(now) = trusted.filter(|_| !is_copied) {
            let signed = self.published.signed().size;
            self.keeper.prune(&self.layout, &self.options, &self.buffer, signed, now);
        }
    }

    /// Adds a group. While tiles cannot be written it is tried again and again, until the log is
    /// closed: then the segments still hold the records.
    fn add_patiently(&mut self, group: &Group) {
        if self.is_broken {
            return;
        }
        let buffer = Arc::clone(&self.buffer);
        let write = |path: &Path, bytes: &[u8]| loop {
            let Err(error) = write_file(path, bytes) else { return Ok(()) };
            tracing::error!(%error, "the audit log cannot write its tiles");
            if buffer.is_closed() {
                return Err(error);
            }
            let reason = error.to_string();
            buffer.trouble(|troubles| troubles.full = Some(reason));
            std::thread::sleep(RETRY);
        };
        if let Err(error) = self.add(group, write) {
            tracing::error!(%error, "records of the audit log stay in their segment");
            self.is_broken = true;
        }
    }

    /// Adds the records of a group that are not in the tree yet.
    ///
    /// # Errors
    /// That of `write`.
    pub(super) fn add(
        &mut self,
        group: &Group,
        write: impl Fn(&Path, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { layout, tree, bundle, published, .. } = self;
        let edge = (&mut *tree, &mut *bundle);
        grow(layout, edge, group, write, |tree| published.tail().restart(tree))?;
        published.tail().catch_up(tree, bundle);
        Ok(())
    }

    /// Removes segments whose records lie in full bundles. `first` begins the newest segment.
    fn release_segments(&mut self, first: u64) {
        if let Err(error) = self.try_release(first) {
            tracing::warn!(%error, "an old segment of the audit log stays");
        }
    }

    pub(super) fn try_release(&mut self, newest: u64) -> io::Result<()> {
        let full = self.tree.size() / TILE_WIDTH as u64 * TILE_WIDTH as u64;
        let wal = self.layout.wal();
        let all = segments(&wal)?;
        let ends = all.iter().skip(1).map(|(first, _)| *first);
        let done: Vec<_> = all
            .iter()
            .zip(ends)
            .filter(|(segment, end)| *end <= full && segment.0 < newest)
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        self.sync_tiles()?;
        for ((_, path), _) in done {
            self.keeper.reuse(&self.layout, path)?;
        }
        Ok(())
    }

    /// Waits until all tiles are on the disk. Once the disk has refused any, they have to be written
    /// again before it is asked again: who asks it twice is told that all is well.
    ///
    /// # Errors
    /// An I/O error.
    fn sync_tiles(&self) -> io::Result<()> {
        if !self.published.is_unsynced() {
            let Err(error) = rustix::fs::syncfs(&self.dir) else { return Ok(()) };
            self.published.is_unsynced.store(true, Ordering::Relaxed);
            tracing::error!(%error, "the disk has not taken tiles of the audit log");
        }
        replace_file(&self.layout.unsynced(), b"")?;
        Err(io::Error::other("tiles were not taken by the disk; they are written again first"))
    }

    /// Writes the tiles again that the disk has refused, a segment at each call.
    fn rewrite_patiently(&mut self) {
        if let Err(error) = self.rewrite_more() {
            tracing::error!(%error, "the disk does not take tiles of the audit log; segments stay");
            self.rewrite = None;
            self.rewrite_at = Some(Instant::now() + REWRITE_AFTER);
        }
    }

    fn rewrite_more(&mut self) -> io::Result<()> {
        let mut rewrite = match self.rewrite.take() {
            Some(rewrite) => rewrite,
            None => Rewrite::begin(&self.layout, self.tree.size())?,
        };
        if !rewrite.step(&self.layout)? {
            self.rewrite = Some(rewrite);
            return Ok(());
        }
        // What the disk refused since it was begun is told here, those tiles among it that came
        // meanwhile.
        self.end_unsynced()?;
        tracing::info!("the disk has taken the tiles of the audit log that it had refused");
        self.try_release(u64::MAX)
    }

    /// Ends what has written all tiles again that the disk had refused.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn end_unsynced(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.dir)?;
        match fs::remove_file(self.layout.unsynced()) {
            // It could not be made when it was needed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        sync_dir(&self.layout.wal())?;
        self.published.is_unsynced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes keys, unless whoever brought them has given up meanwhile.
    fn unseal_for(&mut self, signers: LogSigners, answer: oneshot::Sender<Result<(), Cause>>) {
        if answer.is_closed() {
            return;
        }
        let taken = self.unseal(signers);
        let is_taken = taken.is_ok();
        if answer.send(taken).is_err() || !is_taken {
            *self.published.signers() = None;
        }
    }

    fn unseal(&mut self, signers: LogSigners) -> Result<(), Cause> {
        let keys = (signers.log.key().clone(), signers.witness.key().clone());
        self.remember_key(&keys.0)?;
        let note = self.published.signed().note;
        if !note.is_empty() {
            let known = read_keys(&self.layout)?;
            let (checkpoint, _) = Checkpoint::open(&note, &known)?;
            if checkpoint.origin != keys.0.name() {
                return Err(format!("it is the log of {}", checkpoint.origin).into());
            }
        }
        *self.published.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        *self.published.signers() = Some(signers);
        self.sign_if_news()
    }

    /// Adds a key to the list of those that have signed this log.
    fn remember_key(&self, key: &NoteKey) -> Result<(), Cause> {
        let known = read_keys(&self.layout)?;
        if !known.contains(key) {
            let lines = known.iter().chain([key]).map(|key| format!("{key}\n"));
            replace_file(&self.layout.public_keys(), lines.collect::<String>().as_bytes())?;
        }
        Ok(())
    }

    /// Signs a checkpoint when there are records that none covers yet.
    fn sign_if_news(&mut self) -> Result<(), Cause> {
        if self.is_broken {
            return Err("its tiles could not be written".into());
        }
        let signed = self.published.signed();
        let size = self.tree.size();
        let is_signed = size == signed.size && !signed.note.is_empty();
        let note = match &*self.published.signers() {
            None if is_signed => return Ok(()),
            None => return Err("the server is sealed".into()),
            Some(_) if size == 0 || is_signed => return Ok(()),
            Some(signers) => {
                let origin = signers.log.key().name().to_owned();
                let text = Checkpoint { origin, size, root: self.tree.root() }.to_string();
                format!("{text}\n{}", signers.log.sign(&text, now())?)
            }
        };
        self.write_partials()?;
        replace_file(&self.layout.checkpoint(), note.as_bytes())?;
        self.keep(&note)?;
        *self.published.signed.lock().unwrap_or_else(PoisonError::into_inner) =
            Signed { size, note };
        Ok(())
    }

    /// Writes the tiles that are not full, as the checkpoint needs them, and removes those of the
    /// one before.
    fn write_partials(&mut self) -> io::Result<()> {
        let mut written = Vec::new();
        for level in 0..self.tree.height() {
            let hashes = self.tree.partial(level);
            let width = hashes.len();
            let shift = u32::from(level) * 8 + 8;
            let number = self.tree.size().checked_shr(shift).unwrap_or(0);
            if width > 0 {
                let name = TileName { kind: TileKind::Level(level), number, width };
                write_file(&self.layout.tile(&name), hashes.as_flattened())?;
                written.push(name);
            }
            if width > 0 && level == 0 {
                let name = TileName { kind: TileKind::Entries, number, width };
                write_file(&self.layout.tile(&name), &self.bundle)?;
                written.push(name);
            }
        }
        let before = std::mem::replace(&mut self.partials, written);
        for name in before.iter().filter(|name| !self.partials.contains(name)) {
            let path = self.layout.tile(name);
            fs::remove_file(&path)?;
            // It stays while it holds a newer one.
            let _ = fs::remove_dir(path.parent().unwrap_or(&path));
        }
        Ok(())
    }

    /// Keeps a checkpoint for good, once in a while: it bounds where a later change began.
    fn keep(&mut self, note: &str) -> io::Result<()> {
        if self.kept_at.is_some_and(|at| at.elapsed() < KEEP_EVERY) {
            return Ok(());
        }
        let note = format!("{note}\n");
        append_whole(&self.layout.checkpoints(), note.as_bytes(), &mut self.kept_len)?;
        self.kept_at = Some(Instant::now());
        Ok(())
    }

    fn cosign(&self, text: &str) -> Result<String, Cause> {
        let signers = self.published.signers();
        signers.as_ref().ok_or("the server is sealed")?.witness.sign(text, now())
    }
}

/// Adds the records of a group that are not in a tree yet: their hashes to the tree, and they
/// themselves to the bundle that is not full. What becomes full is written; then `filled` is told.
///
/// # Errors
/// That of `write`.
pub(super) fn grow(
    layout: &Layout,
    (tree, bundle): (&mut Tree, &mut Vec<u8>),
    group: &Group,
    write: impl Fn(&Path, &[u8]) -> io::Result<()>,
    mut filled: impl FnMut(&Tree),
) -> io::Result<()> {
    let known = tree.size().saturating_sub(group.first);
    let known = usize::try_from(known).unwrap_or(usize::MAX);
    let mut bytes = group.records();
    for (place, leaf) in group.leaves.iter().enumerate() {
        let Some((record, rest)) = split_record(bytes) else { break };
        bytes = rest;
        if place < known {
            continue;
        }
        bundle.extend_from_slice(record);
        let mut is_full = false;
        tree.push(*leaf, |tile: FullTile<'_>| {
            if tile.level == 0 {
                let name = TileName::full(TileKind::Entries, tile.number);
                write(&layout.tile(&name), bundle)?;
                is_full = true;
            }
            let name = TileName::full(TileKind::Level(tile.level), tile.number);
            write(&layout.tile(&name), tile.hashes.as_flattened())
        })?;
        if is_full {
            bundle.clear();
            filled(tree);
        }
    }
    Ok(())
}

/// The record at the start of these bytes, with its length, and what comes after it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u16::from_be_bytes(*bytes.first_chunk()?);
    bytes.split_at_checked(usize::from(len) + 2)
}

/// The keys that have signed this log.
///
/// # Errors
/// A cause when the list cannot be read.
pub(super) fn read_keys(layout: &Layout) -> Result<Vec<NoteKey>, Cause> {
    let bytes = super::files::read_if_there(&layout.public_keys(), 1 << 20)?.unwrap_or_default();
    let text = String::from_utf8(bytes)?;
    text.lines().map(|line| NoteKey::parse(line).map_err(Cause::from)).collect()
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_secs())
}

/// Makes the directories of a log.
///
/// # Errors
/// An I/O error.
pub(super) fn make_dirs(layout: &Layout) -> io::Result<()> {
    make_dir(&layout.wal())?;
    make_dir(&layout.dir.join("tile"))?;
    sync_dir(&layout.dir)?;
    let above = layout.dir.parent().filter(|above| !above.as_os_str().is_empty());
    sync_dir(above.unwrap_or(Path::new(".")))
}
