//! Opening a log: what a crash left is mended, what somebody else left is refused.
//!
//! Room      `store`.
//! Source    docs/formats/audit-log.md, "Recovery".
//! Holds     a log opens only when its segments continue each other and its tiles, and lead to the
//!           root of its newest checkpoint.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::{
    Hash, TILE_WIDTH, Tree, levels_of, partial_width, root_of, tree_root,
};
use lastkey_core::audit::note::split;

use super::builder::{Signed, make_dirs};
use super::files::{Layout, private_file, read_if_there};
use super::tail::{LogHashes, Tail, read_tile};
use super::verify::whole_notes;
use super::wal::{BadSegment, Group, GroupAt, Scanned, Segment, scan, segments};

/// Why a log does not open. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The operating system refused something.
    #[error("the audit log does not open: {0}")]
    Io(#[from] io::Error),
    /// Files were removed, cut, replaced or changed.
    #[error(
        "the audit log was tampered with or its disk is damaged, from record {first_bad} on: \
         {what}. See what is left with `lastkey audit verify --offline {}`; \
         to go on, restore it from a copy", .dir.display()
    )]
    Damaged {
        /// The directory of the log.
        dir: PathBuf,
        /// Number of the first record that is not there as it was written.
        first_bad: u64,
        /// What is wrong.
        what: String,
    },
}

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) segment: Segment,
    /// The tree up to the first record of `segments` that is not in a full bundle.
    pub(super) tree: Tree,
    /// Records from there on and some before, where they stand.
    pub(super) segments: Vec<Found>,
    pub(super) signed: Signed,
    /// Records in the log.
    pub(super) end: u64,
}

/// A segment that was found, and its groups.
pub(super) struct Found {
    path: PathBuf,
    groups: Vec<GroupAt>,
}

impl Found {
    /// The groups, one after the other: a segment is long, and is not kept in memory.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn read(self, mut use_it: impl FnMut(&Group) -> io::Result<()>) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        self.groups.into_iter().try_for_each(|group| use_it(&group.read(&bytes)?))
    }
}

/// Length of the first segment of a new log: small, so that a small installation stays small.
pub(super) const FIRST_SEGMENT_LEN: u64 = 1 << 20;

/// Opens the log of a directory, or begins one.
///
/// # Errors
/// [`OpenLogError`].
pub(super) fn recover(layout: &Layout) -> Result<Recovered, OpenLogError> {
    make_dirs(layout)?;
    end_checkpoints(layout)?;
    let signed = read_checkpoint(layout)?;
    let all = segments(&layout.wal())?;
    let Some((first, _)) = all.first().cloned() else { return begin(layout, signed) };
    let damaged = |first_bad, what: String| damaged(layout, first_bad, what);
    let (mut found, mut end, mut last) = (Vec::new(), first, None);
    for (first, path) in all {
        if first != end {
            return Err(damaged(end, format!("the segment of record {end} is missing")));
        }
        let bytes = fs::read(&path)?;
        let Scanned { groups, end: len, torn } = scan(&bytes, first).map_err(|error| {
            let (BadSegment::Header(at) | BadSegment::Group(at)) = error;
            damaged(at, format!("{}: {error}", path.display()))
        })?;
        end = groups.last().map_or(first, GroupAt::end);
        if torn {
            tracing::warn!(record = end, "a group that was never acknowledged is cut off");
        }
        last = Some((path.clone(), len));
        found.push(Found { path, groups });
    }
    let tree = tree_before(layout, first).map_err(|what| damaged(what.0, what.1))?;
    let (path, at) = last.ok_or_else(|| io::Error::other("no segment"))?;
    let segment = Segment::resume(path, at)?;
    check_signed(layout, &tree, &found, &signed, end)?;
    Ok(Recovered {
        segment,
        tree,
        segments: found,
        signed: signed.map_or_else(Signed::default, |s| s.1),
        end,
    })
}

/// Cuts a list of checkpoints that a crash has ended within one.
fn end_checkpoints(layout: &Layout) -> io::Result<()> {
    let path = layout.checkpoints();
    let list = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        list => list?,
    };
    let (_, rest) = whole_notes(&list);
    if !rest.is_empty() {
        let file = private_file().write(true).open(&path)?;
        file.set_len((list.len() - rest.len()) as u64)?;
    }
    Ok(())
}

fn damaged(layout: &Layout, first_bad: u64, what: String) -> OpenLogError {
    OpenLogError::Damaged { dir: layout.dir.clone(), first_bad, what }
}

type SignedRoot = Option<(Checkpoint, Signed)>;

/// The newest checkpoint, its signature unchecked.
fn read_checkpoint(layout: &Layout) -> Result<SignedRoot, OpenLogError> {
    let Some(bytes) = read_if_there(&layout.checkpoint(), 1 << 20)? else { return Ok(None) };
    let bad = || damaged(layout, 0, "the file checkpoint is no checkpoint".to_owned());
    let note = String::from_utf8(bytes).map_err(|_| bad())?;
    let (text, _) = split(&note).map_err(|_| bad())?;
    let checkpoint = Checkpoint::parse(text).map_err(|_| bad())?;
    let signed = Signed { size: checkpoint.size, note: note.clone() };
    Ok(Some((checkpoint, signed)))
}

fn begin(layout: &Layout, signed: SignedRoot) -> Result<Recovered, OpenLogError> {
    let has_tiles = fs::read_dir(layout.dir.join("tile"))?.next().is_some();
    if signed.is_some() || has_tiles {
        return Err(damaged(layout, 0, "its segments are missing".to_owned()));
    }
    let mut segment = Segment::create(&layout.wal(), FIRST_SEGMENT_LEN, 0)?;
    segment.sync_name()?;
    let (tree, segments) = (Tree::default(), Vec::new());
    Ok(Recovered { segment, tree, segments, signed: Signed::default(), end: 0 })
}

/// The tree of the full bundles before the oldest segment, from the tiles alone. On failure, the
/// first record under the tile that is missing, and which that is.
pub(super) fn tree_before(layout: &Layout, first: u64) -> Result<Tree, (u64, String)> {
    let size = first.next_multiple_of(TILE_WIDTH as u64);
    let mut levels: Vec<Vec<Hash>> = Vec::new();
    for level in 0..levels_of(size) {
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        let count = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
        let width = partial_width(level, size) as u64;
        let hashes = (count - width..count).map(|number| subtree(layout, level, number));
        levels.push(hashes.collect::<Result<_, _>>()?);
    }
    Tree::resume(size, levels).ok_or_else(|| (0, "the tiles do not fit each other".to_owned()))
}

/// A hash of a level, from the full tile below it.
fn subtree(layout: &Layout, level: u8, number: u64) -> Result<Hash, (u64, String)> {
    let below = level.saturating_sub(1);
    let first = number.checked_shl(u32::from(level) * 8).unwrap_or(u64::MAX);
    let lacks = |why: String| (first, format!("tile/{below} number {number} {why}"));
    match read_tile(layout, below, number) {
        Ok(Some(hashes)) => Ok(root_of(&hashes)),
        Ok(None) => Err(lacks("is missing or not whole".to_owned())),
        Err(error) => Err(lacks(error.to_string())),
    }
}

/// The records must lead to the root that was signed last.
fn check_signed(
    layout: &Layout,
    tree: &Tree,
    found: &[Found],
    signed: &SignedRoot,
    end: u64,
) -> Result<(), OpenLogError> {
    let Some((checkpoint, _)) = signed else { return Ok(()) };
    if checkpoint.size > end {
        let what = format!("the newest checkpoint has {} records, the log {end}", checkpoint.size);
        return Err(damaged(layout, end, what));
    }
    let mut tree = tree.clone();
    let root = if checkpoint.size < tree.size() {
        let tail = Tail::of(&tree, &[]);
        tree_root(&LogHashes { layout, tail: &tail }, checkpoint.size)?
    } else {
        let known = |group: &GroupAt| {
            usize::try_from(tree.size().saturating_sub(group.first)).unwrap_or(usize::MAX)
        };
        let groups = found.iter().flat_map(|segment| &segment.groups);
        let leaves = groups.flat_map(|group| group.leaves.iter().skip(known(group)));
        let leaves: Vec<_> = leaves.copied().collect();
        let more = usize::try_from(checkpoint.size - tree.size()).unwrap_or(usize::MAX);
        for leaf in leaves.iter().take(more) {
            tree.push(*leaf, |_| Ok::<_, io::Error>(()))?;
        }
        tree.root()
    };
    if root == checkpoint.root {
        Ok(())
    } else {
        let what =
            format!("the tree of {} records is not the one that was signed", checkpoint.size);
        Err(damaged(layout, first_unsigned(layout), what))
    }
}

/// A lower bound of where a change began that left no other trace.
fn first_unsigned(layout: &Layout) -> u64 {
    super::keeper::minimum_index(layout).unwrap_or(0)
}

/// Files of the log before it was a tree; they stay where they are and are read by nobody.
pub(super) fn has_old_files(dir: &Path) -> bool {
    dir.join("audit.jsonl").exists()
}
