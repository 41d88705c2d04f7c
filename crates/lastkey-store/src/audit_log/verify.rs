//! Checks a whole log against the key that signed it, and finds where it was changed.
//!
//! Room      `store`. Trusts nothing but the public keys it is given.
//! Source    docs/formats/audit-log.md, "Verification".
//! Holds     a log is found whole only when every record that is kept leads to the root of a
//!           checkpoint signed by a given key.

use std::io;
use std::path::{Path, PathBuf};

use lastkey_core::audit::AUDIT_PRUNES;
use lastkey_core::audit::archive::{Found, Search};
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::{FullTile, Hash, TILE_WIDTH, Tree, leaf_hash};
use lastkey_core::audit::note::{NoteError, NoteKey, Vouched, split};
use lastkey_core::audit::record::Record;
use lastkey_core::audit::tile::{Records, TileKind, TileName, hashes_of, push_record};

use super::archive::{Bundles, beginning, search_in};
use super::files::{Layout, read_if_there};
use super::keeper::{PRUNED, minimum_index};
use super::tail::MAX_BUNDLE_LEN;
use super::wal::{BadSegment, Group, GroupAt, scan, segments};

/// Where the files of a log are read from, by the names of C2SP tlog-tiles.
pub trait LogFiles {
    /// The file of this name; `None` when there is none.
    ///
    /// # Errors
    /// An I/O error.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// The groups of records that lie in segments; empty where there are none to see.
    ///
    /// # Errors
    /// [`VerifyError`].
    fn groups(&self) -> Result<Vec<(u64, Vec<Hash>)>, VerifyError> {
        Ok(Vec::new())
    }
}

/// A log in a directory, live or a copy.
#[derive(Clone, Debug)]
pub struct LogDir(pub PathBuf);

impl LogDir {
    /// Searches a log without its server: bundles first, then what lies in segments alone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn search(&self, search: &Search) -> Result<Found, VerifyError> {
        let mut held = Vec::new();
        for (first, path) in self.segments()? {
            let (bytes, groups) = read_segment(&path, first)?;
            for group in groups {
                held.push(group.read(&bytes)?);
            }
        }
        Ok(search_in(&Offline { dir: self, held }, search)?)
    }

    /// The segments; none where there are none, as in a copy.
    fn segments(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        match segments(&Layout { dir: self.0.clone() }.wal()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found,
        }
    }

    /// A file of this name, or the beginning of a longer one that has taken its place.
    fn read_longer(&self, name: &TileName) -> io::Result<Option<Vec<u8>>> {
        for width in name.width + 1..=TILE_WIDTH {
            let longer = TileName { width, ..*name };
            if let Some(bytes) = read_if_there(&self.0.join(longer.to_string()), MAX_BUNDLE_LEN)? {
                return Ok(beginning(name, &bytes));
            }
        }
        Ok(None)
    }
}

/// A log that no server has open.
struct Offline<'a> {
    dir: &'a LogDir,
    held: Vec<Group>,
}

impl Bundles for Offline<'_> {
    fn bundle(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let name = TileName::full(TileKind::Entries, number);
        let start = number * TILE_WIDTH as u64;
        if let Some(bytes) = self.dir.read(&name.to_string())? {
            return Ok(Some(bytes));
        }
        let mut bundle = Vec::new();
        for group in &self.held {
            let records = Records::of(group.records()).flatten().zip(group.first..);
            let wanted = start..start + TILE_WIDTH as u64;
            for (record, _) in records.filter(|(_, index)| wanted.contains(index)) {
                // It was in a bundle before, so it is not too long for one.
                let _ = push_record(&mut bundle, record);
            }
        }
        if !bundle.is_empty() {
            return Ok(Some(bundle));
        }
        let width = self.range()?.1.saturating_sub(start).min(TILE_WIDTH as u64) as usize;
        self.dir.read(&TileName { width, ..name }.to_string())
    }

    fn range(&self) -> io::Result<(u64, u64)> {
        let layout = Layout { dir: self.dir.0.clone() };
        let first = minimum_index(&layout)?;
        if let Some(group) = self.held.last() {
            return Ok((first, group.end()));
        }
        let note = self.dir.read("checkpoint")?.unwrap_or_default();
        let note = String::from_utf8_lossy(&note);
        let checkpoint = split(&note).and_then(|(text, _)| Checkpoint::parse(text));
        Ok((first, checkpoint.map_or(0, |checkpoint| checkpoint.size)))
    }
}

impl LogFiles for LogDir {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_if_there(&self.0.join(name), MAX_BUNDLE_LEN)? {
            Some(bytes) => Ok(Some(bytes)),
            // A server that goes on removes tiles that have become longer.
            None => match TileName::parse(name) {
                Some(name) => self.read_longer(&name),
                None => Ok(None),
            },
        }
    }

    fn groups(&self) -> Result<Vec<(u64, Vec<Hash>)>, VerifyError> {
        let (mut groups, mut end) = (Vec::new(), None);
        for (first, path) in self.segments()? {
            if end.is_some_and(|end| end != first) {
                let at = end.unwrap_or(first);
                return Err(bad(at, format!("the segment of record {at} is missing")));
            }
            let (_, found) = read_segment(&path, first)?;
            end = Some(found.last().map_or(first, GroupAt::end));
            groups.extend(found.into_iter().map(|group| (group.first, group.leaves)));
        }
        Ok(groups)
    }
}

fn read_segment(path: &Path, first: u64) -> Result<(Vec<u8>, Vec<GroupAt>), VerifyError> {
    let bytes = std::fs::read(path)?;
    let scanned = scan(&bytes, first).map_err(|error| {
        let (BadSegment::Header(at) | BadSegment::Group(at)) = error;
        bad(at, format!("{}: {error}", path.display()))
    })?;
    Ok((bytes, scanned.groups))
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no checkpoint, or none that a given key has signed.
    #[error("the checkpoint is not taken: {0}")]
    Checkpoint(NoteError),
    /// It is not what was signed.
    #[error("record {first_bad}: {what}")]
    Bad {
        /// Number of the first record that is not, or cannot be shown to be, what was written.
        first_bad: u64,
        /// What is wrong.
        what: String,
    },
}

fn bad(first_bad: u64, what: impl Into<String>) -> VerifyError {
    VerifyError::Bad { first_bad, what: what.into() }
}

/// A log that was found whole.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The checkpoint that it leads to.
    pub checkpoint: Checkpoint,
    /// Who has signed it.
    pub vouched: Vec<Vouched>,
    /// Number of the oldest record that is kept.
    pub first: u64,
    /// Records after the checkpoint, which no signature covers yet.
    pub unsigned: u64,
    /// Earlier checkpoints that it leads to as well.
    pub earlier: usize,
}

/// Checks a log that may go on meanwhile. What was removed or replaced under the check makes the log
/// look changed, once: before that is said, it is checked again.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_live(
    files: &dyn LogFiles,
    keys: &[NoteKey],
    mut progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    match verify(files, keys, &mut progress) {
        Err(VerifyError::Bad { .. }) => verify(files, keys, progress),
        Err(VerifyError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            verify(files, keys, progress)
        }
        checked => checked,
    }
}

/// Checks a log. `progress` is told how many records are checked, now and then.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    files: &dyn LogFiles,
    keys: &[NoteKey],
    progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    // INVARIANT: these two are read before the checkpoint. A log that goes on writes into them only
    // what its checkpoint covers by then; everything else it writes before its checkpoint.
    let (minimum, kept) = (text(files, "minimum-index")?, text(files, "checkpoints")?);
    let (mut checkpoint, mut vouched) = newest(files, keys)?;
    let first = first_kept(minimum.as_deref())?;
    let earlier = earlier(&kept.unwrap_or_default(), keys, &checkpoint)?;
    let (segments, end) = leaves_of(files.groups()?);
    if let Some(end) = end.filter(|end| *end < checkpoint.size) {
        let size = checkpoint.size;
        let what = format!("the checkpoint covers {size} records, segments end at {end}");
        return Err(bad(end, what));
    }
    let mut check = Check {
        files,
        first,
        tree: Tree::default(),
        earlier: &earlier,
        sure: 0,
        segments,
        pruned: 0,
        progress,
    };
    check.grow_to(&checkpoint)?;
    // What was removed meanwhile is told of by a record that came meanwhile.
    while check.first > check.pruned.max(first) {
        let newer = newest(files, keys)?;
        if newer.0.size <= checkpoint.size || newer.0.origin != checkpoint.origin {
            break;
        }
        (checkpoint, vouched) = newer;
        check.grow_to(&checkpoint)?;
    }
    if check.first > check.pruned {
        let what = "records are missing and no record tells of their removal";
        return Err(bad(check.pruned, what));
    }
    let unsigned = end.map_or(0, |end| end.saturating_sub(checkpoint.size));
    let (first, earlier) = (check.first, earlier.len());
    Ok(Verified { checkpoint, vouched, first, unsigned, earlier })
}

/// The newest checkpoint, and who has signed it.
fn newest(
    files: &dyn LogFiles,
    keys: &[NoteKey],
) -> Result<(Checkpoint, Vec<Vouched>), VerifyError> {
    let note = text(files, "checkpoint")?.ok_or(VerifyError::Checkpoint(NoteError::Malformed))?;
    Checkpoint::open(&note, keys).map_err(VerifyError::Checkpoint)
}

fn text(files: &dyn LogFiles, name: &str) -> Result<Option<String>, VerifyError> {
    let Some(bytes) = files.read(name)? else { return Ok(None) };
    let malformed = |_| VerifyError::Checkpoint(NoteError::Malformed);
    String::from_utf8(bytes).map(Some).map_err(malformed)
}

fn first_kept(minimum: Option<&str>) -> Result<u64, VerifyError> {
    let Some(text) = minimum else { return Ok(0) };
    let number: Option<u64> = text.trim_end().parse().ok();
    let number = number.filter(|number| number.is_multiple_of(TILE_WIDTH as u64));
    number.ok_or_else(|| bad(0, "minimum-index does not fit the log"))
}

/// The checkpoints of a list, oldest first.
fn earlier(
    list: &str,
    keys: &[NoteKey],
    newest: &Checkpoint,
) -> Result<Vec<Checkpoint>, VerifyError> {
    let mut kept: Vec<Checkpoint> = Vec::new();
    let (notes, rest) = whole_notes(list);
    if !rest.is_empty() {
        return Err(bad(0, "the list of earlier checkpoints ends within one"));
    }
    for note in notes {
        let sure = kept.last().map_or(0, |before| before.size);
        let (checkpoint, _) = Checkpoint::open(&note, keys)
            .map_err(|error| bad(sure, format!("an earlier checkpoint is not taken: {error}")))?;
        let rises = kept.last().is_none_or(|before| before.size < checkpoint.size);
        if !rises || checkpoint.size > newest.size || checkpoint.origin != newest.origin {
            return Err(bad(sure.min(newest.size), "the checkpoints do not follow each other"));
        }
        kept.push(checkpoint);
    }
    Ok(kept)
}

/// The notes of a list in which an empty line ends each, and what comes after the last whole one.
pub(super) fn whole_notes(list: &str) -> (Vec<String>, &str) {
    let (mut notes, mut rest) = (Vec::new(), list);
    while let Some((body, after)) = rest.split_once("\n\n") {
        let Some((lines, after)) = after.split_once("\n\n") else { break };
        notes.push(format!("{body}\n\n{lines}\n"));
        rest = after;
    }
    (notes, rest)
}

/// The leaves of segments by their numbers, and the number after the last.
fn leaves_of(groups: Vec<(u64, Vec<Hash>)>) -> (Vec<(u64, Hash)>, Option<u64>) {
    let (mut leaves, mut end) = (Vec::new(), None);
    for (first, hashes) in groups {
        let start = leaves.len();
        leaves.extend((first..).zip(hashes));
        end = Some(first + (leaves.len() - start) as u64);
    }
    (leaves, end)
}

/// A check that is running.
struct Check<'a, P> {
    files: &'a dyn LogFiles,
    /// The oldest record that is kept.
    first: u64,
    tree: Tree,
    earlier: &'a [Checkpoint],
    /// Records up to here lead to a root that was signed.
    sure: u64,
    /// Records that segments hold as well.
    segments: Vec<(u64, Hash)>,
    /// A record tells that those before this number were removed.
    pruned: u64,
    progress: P,
}

impl<P: FnMut(u64)> Check<'_, P> {
    /// Adds records up to a checkpoint, to which they must lead.
    fn grow_to(&mut self, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
        while self.tree.size() < checkpoint.size {
            let number = self.tree.size() / TILE_WIDTH as u64;
            let start = number * TILE_WIDTH as u64;
            let width = (checkpoint.size - start).min(TILE_WIDTH as u64) as usize;
            let leaves = self.leaves(number, width)?;
            let known = self.tree.partial(0).len();
            if leaves.get(..known) != Some(self.tree.partial(0)) {
                return Err(bad(start, "this or one after it has changed meanwhile"));
            }
            self.grow(leaves.get(known..).unwrap_or_default())?;
            if number.is_multiple_of(1_024) {
                (self.progress)(self.tree.size());
            }
        }
        self.check_partials()?;
        if self.tree.root() == checkpoint.root {
            Ok(())
        } else {
            Err(bad(self.sure, "the records are not those that were signed"))
        }
    }

    /// The hashes of the records of a bundle, compared with its tile.
    fn leaves(&mut self, number: u64, width: usize) -> Result<Vec<Hash>, VerifyError> {
        let start = number * TILE_WIDTH as u64;
        let tile = TileName { kind: TileKind::Level(0), number, width };
        let hashes = self.tile(&tile, start)?;
        if start < self.first {
            return Ok(hashes);
        }
        let name = TileName { kind: TileKind::Entries, number, width };
        let Some(bundle) = self.files.read(&name.to_string())? else {
            let is_removed = self.is_removed(start)?;
            return if is_removed { Ok(hashes) } else { Err(missing(&name, start)) };
        };
        let mut leaves = Vec::with_capacity(width);
        for record in Records::of(&bundle) {
            let at = start + leaves.len() as u64;
            let record = record.ok_or_else(|| bad(at, format!("{name} ends within a record")))?;
            let leaf = leaf_hash(record);
            if hashes.get(leaves.len()) != Some(&leaf) {
                return Err(bad(at, format!("it is not what {tile} has the hash of")));
            }
            self.note_removal(record);
            leaves.push(leaf);
        }
        if leaves.len() < width {
            return Err(bad(start + leaves.len() as u64, format!("{name} lacks it")));
        }
        Ok(leaves)
    }

    /// Whether a log that goes on has removed the bundle of this record meanwhile.
    fn is_removed(&mut self, start: u64) -> Result<bool, VerifyError> {
        let now = first_kept(text(self.files, "minimum-index")?.as_deref())?;
        self.first = self.first.max(now);
        Ok(start < self.first)
    }

    /// Notes what a record of the log about itself says of removals.
    fn note_removal(&mut self, record: &[u8]) {
        let head = br#"{"action":"audit:Prune""#;
        debug_assert!(head.ends_with(format!("{AUDIT_PRUNES}\"").as_bytes()));
        if !record.starts_with(head) {
            return;
        }
        let record = Record::parse(record).ok();
        let text = record.as_ref().and_then(|record| record.text("reason"));
        let number = text.and_then(|text| text.strip_prefix(PRUNED)?.parse().ok());
        self.pruned = self.pruned.max(number.unwrap_or(0));
    }

    /// Adds records to the tree; compares it with the segments, the tiles above and the earlier
    /// checkpoints.
    fn grow(&mut self, leaves: &[Hash]) -> Result<(), VerifyError> {
        for leaf in leaves {
            let at = self.tree.size();
            let held = self.segments.binary_search_by_key(&at, |(number, _)| *number);
            let held = held.ok().and_then(|place| self.segments.get(place));
            if held.is_some_and(|(_, held)| held != leaf) {
                return Err(bad(at, "its segment holds another record"));
            }
            let files = self.files;
            self.tree.push(*leaf, |full| compare(files, &full))?;
            self.look_back()?;
        }
        Ok(())
    }

    /// Compares the tree with the earlier checkpoint of its size, if there is one.
    fn look_back(&mut self) -> Result<(), VerifyError> {
        let Some((next, rest)) = self.earlier.split_first() else { return Ok(()) };
        if next.size != self.tree.size() {
            return Ok(());
        }
        if next.root != self.tree.root() {
            let what = format!("this or one up to {} is not what was signed", next.size);
            return Err(bad(self.sure, what));
        }
        (self.sure, self.earlier) = (next.size, rest);
        Ok(())
    }

    /// Compares the tiles above the records that are not full.
    fn check_partials(&self) -> Result<(), VerifyError> {
        for level in 1..self.tree.height() {
            let hashes = self.tree.partial(level);
            if hashes.is_empty() {
                continue;
            }
            let shift = u32::from(level) * 8;
            let number = self.tree.size().checked_shr(shift + 8).unwrap_or(0);
            let kind = TileKind::Level(level);
            let name = TileName { kind, number, width: hashes.len() };
            let first = number.checked_shl(shift + 8).unwrap_or(u64::MAX);
            same(&name, hashes, &self.tile(&name, first)?, first, shift)?;
        }
        Ok(())
    }

    fn tile(&self, name: &TileName, first: u64) -> Result<Vec<Hash>, VerifyError> {
        let hashes = hashes_of(&self.read(name, first)?);
        let whole = hashes.filter(|hashes| hashes.len() == name.width);
        whole.ok_or_else(|| bad(first, format!("{name} has another length")))
    }

    /// A tile; one that was partial may be full by now.
    fn read(&self, name: &TileName, first: u64) -> Result<Vec<u8>, VerifyError> {
        let read = |name: &TileName| self.files.read(&name.to_string());
        read(name)?.ok_or_else(|| missing(name, first))
    }
}

fn missing(name: &TileName, first: u64) -> VerifyError {
    bad(first, format!("{name} is missing"))
}

/// A tile above the records must hold what the records lead to.
fn compare(files: &dyn LogFiles, full: &FullTile<'_>) -> Result<(), VerifyError> {
    if full.level == 0 {
        return Ok(());
    }
    let name = TileName::full(TileKind::Level(full.level), full.number);
    let shift = u32::from(full.level) * 8;
    let first = full.number.checked_shl(shift + 8).unwrap_or(u64::MAX);
    let bytes = files.read(&name.to_string())?;
    let bytes = bytes.ok_or_else(|| missing(&name, first))?;
    let found =
        hashes_of(&bytes).ok_or_else(|| bad(first, format!("{name} has another length")))?;
    same(&name, full.hashes, &found, first, shift)
}

fn same(
    name: &TileName,
    ours: &[Hash],
    found: &[Hash],
    first: u64,
    shift: u32,
) -> Result<(), VerifyError> {
    let differs = ours.iter().zip(found).position(|(ours, found)| ours != found);
    if let Some(place) = differs {
        let at = first.saturating_add((place as u64).checked_shl(shift).unwrap_or(0));
        return Err(bad(at, format!("{name} has another hash of it and those after it")));
    }
    if ours.len() == found.len() {
        Ok(())
    } else {
        Err(bad(first, format!("{name} has another length")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lastkey_core::ports::AuditArchive as _;

    use super::super::builder::now;
    use super::super::tests::{fill, known, old_log, open, signed_log, signers};
    use super::*;

    /// A log that goes on after this file of it was read: from then on it is the one in `newer`.
    struct GoesOn<'a> {
        log: LogDir,
        after: &'a str,
        newer: &'a Path,
    }

    impl LogFiles for GoesOn<'_> {
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            let read = self.log.read(name);
            if name == self.after && self.newer.exists() {
                fs::rename(&self.log.0, self.newer.with_extension("older"))?;
                fs::rename(self.newer, &self.log.0)?;
            }
            read
        }

        fn groups(&self) -> Result<Vec<(u64, Vec<Hash>)>, VerifyError> {
            self.log.groups()
        }
    }

    fn copy_all(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_all(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    /// The checkpoint was read first. What the server signed and kept before the list of earlier
    /// checkpoints was read did not follow from it, and the log was called tampered with.
    #[tokio::test]
    async fn log_that_goes_on_while_it_is_checked_is_found_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (older, newer) = (dir.path().join("a"), dir.path().join("b"));
        signed_log(&older).await;
        copy_all(&older, &newer);
        let log = open(&newer);
        log.unsealed(signers()).await.unwrap();
        fill(&log, 300, 300).await;
        log.checkpoint().await.unwrap();
        drop(log);
        for after in
            ["minimum-index", "checkpoints", "checkpoint", "tile/0/000", "tile/entries/000"]
        {
            let scratch = tempfile::tempdir().unwrap();
            let (now, later) = (scratch.path().join("log"), scratch.path().join("later"));
            copy_all(&older, &now);
            copy_all(&newer, &later);
            let files = GoesOn { log: LogDir(now), after, newer: &later };
            let found = verify(&files, &known(), |_| ());
            assert!(!later.exists() && found.is_ok(), "{after}: {found:?}");
        }
    }

    /// A bundle that was gone made the log look tampered with, and a second check met the next one.
    #[tokio::test]
    async fn log_that_is_pruned_while_it_is_checked_is_found_whole_if_a_record_tells_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let [older, newer, silent] = ["a", "b", "c"].map(|name| dir.path().join(name));
        drop(old_log(&older, 10).await);
        copy_all(&older, &newer);
        copy_all(&older, &silent);
        let log = open(&newer);
        log.unsealed(signers()).await.unwrap();
        log.trust_time(now());
        while log.state().first == 0 {
            tokio::task::yield_now().await;
        }
        drop(log);
        fs::write(silent.join("minimum-index"), "256\n").unwrap();
        fs::remove_file(silent.join("tile/entries/000")).unwrap();
        for after in ["minimum-index", "checkpoints", "checkpoint", "tile/0/000"] {
            let found = [&newer, &silent].map(|then| {
                let scratch = tempfile::tempdir().unwrap();
                let (now, later) = (scratch.path().join("log"), scratch.path().join("later"));
                copy_all(&older, &now);
                copy_all(then, &later);
                verify(&GoesOn { log: LogDir(now), after, newer: &later }, &known(), |_| ())
            });
            let [told, silent] = found;
            let told = told.unwrap();
            assert!(told.first == 256 && told.checkpoint.size > 310, "{after}: {told:?}");
            assert!(matches!(silent, Err(VerifyError::Bad { first_bad: 0, .. })), "{after}");
        }
    }

    /// A log of which one file is missing, so often.
    struct Lacks {
        log: LogDir,
        times: AtomicUsize,
    }

    impl LogFiles for Lacks {
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            let less = |times: usize| times.checked_sub(1);
            let lacks = name == "tile/entries/000"
                && self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
            if lacks { Ok(None) } else { self.log.read(name) }
        }

        fn groups(&self) -> Result<Vec<(u64, Vec<Hash>)>, VerifyError> {
            self.log.groups()
        }
    }

    #[tokio::test]
    async fn what_goes_while_it_is_checked_is_looked_at_again_once() {
        let dir = tempfile::tempdir().unwrap();
        signed_log(dir.path()).await;
        let lacks = |times| Lacks { log: LogDir(dir.path().to_owned()), times };
        assert!(verify_live(&lacks(1.into()), &known(), |_| ()).is_ok());
        assert!(verify_live(&lacks(2.into()), &known(), |_| ()).is_err());
        assert!(verify(&lacks(1.into()), &known(), |_| ()).is_err());
    }
}
