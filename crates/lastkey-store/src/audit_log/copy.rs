//! Copies of the log: what a backup takes of it, and how a log goes on from one.
//!
//! Room      `store`.
//! Source    docs/formats/audit-log.md, "Files"; docs/formats/backup.md.
//! Holds     a copy is the log up to one signed checkpoint, whatever is added meanwhile. It has no
//!           segments: what lies in no full bundle comes out of the checkpoint's own. What is
//!           removed from the log stays until the copy is over: no record of it would tell of that.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lastkey_core::audit::archive::LogHead;
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::TILE_WIDTH;
use lastkey_core::audit::note::split;
use lastkey_core::audit::tile::{TileKind, TileName};
use lastkey_core::ports::{AuditArchive as _, Cause};

use super::AuditLog;
use super::files::{Layout, make_dir, read_if_there, sync_dir};
use super::keeper::minimum_index;
use super::recover::FIRST_SEGMENT_LEN;
use super::tail::MAX_BUNDLE_LEN;
use super::wal::{Group, HEADER_LEN, Segment};

/// A copy that is being taken, file by file.
#[derive(Debug)]
pub struct LogCopy {
    layout: Layout,
    head: LogHead,
    /// Files that are in memory already: what changes when the log goes on.
    held: Vec<(String, Vec<u8>)>,
    next: TileName,
    /// The oldest record that is there.
    first: u64,
    _copying: Arc<()>,
}

impl AuditLog {
    /// Holds the log still, up to a checkpoint that is signed now. Nothing is removed from it until
    /// the copy is dropped.
    ///
    /// # Errors
    /// A cause when the log has no keys or cannot be read.
    pub async fn copy(&self) -> Result<LogCopy, Cause> {
        // INVARIANT: held before the checkpoint is asked for. Whoever signs it also removes, and has
        // by then removed nothing that it does not tell of.
        let copying = Arc::clone(&self.published.copying);
        let note = self.checkpoint().await?;
        let signed = Checkpoint::parse(split(&note)?.0)?;
        let head = LogHead { size: signed.size, root: signed.root };
        let mut held = vec![("checkpoint".to_owned(), note.into_bytes())];
        for name in partials(head.size) {
            let bytes = self.tile(name).await?;
            let bytes = bytes.ok_or_else(|| format!("the audit log lacks {name}"))?;
            held.push((name.to_string(), bytes));
        }
        let layout = self.layout.clone();
        let small = tokio::task::spawn_blocking(move || small_files(&layout)).await??;
        held.extend(small);
        let (layout, next) = (self.layout.clone(), TileName::full(TileKind::Level(0), 0));
        let first = minimum_index(&layout)?;
        if first > 0 {
            held.push(("minimum-index".to_owned(), format!("{first}\n").into_bytes()));
        }
        Ok(LogCopy { layout, head, held, next, first, _copying: copying })
    }
}

/// Files beside the tree that a log needs to go on as it was.
fn small_files(layout: &Layout) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut names = vec!["public-keys".to_owned(), "witnesses".to_owned()];
    match fs::read_dir(layout.dir.join("witnessed")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                names.push(format!("witnessed/{}", entry?.file_name().to_string_lossy()));
            }
        }
    }
    for name in names {
        let bytes = read_if_there(&layout.dir.join(&name), 1 << 20)?;
        found.extend(bytes.map(|bytes| (name, bytes)));
    }
    Ok(found)
}

/// The tiles and the bundle that are not full in a log of this size.
fn partials(size: u64) -> Vec<TileName> {
    let mut names = Vec::new();
    for level in 0..8_u8 {
        let shift = u32::from(level) * 8;
        let width = (size >> shift) as usize % TILE_WIDTH;
        let number = size.checked_shr(shift + 8).unwrap_or(0);
        if width > 0 {
            names.push(TileName { kind: TileKind::Level(level), number, width });
        }
        if width > 0 && level == 0 {
            names.push(TileName { kind: TileKind::Entries, number, width });
        }
    }
    names
}

impl LogCopy {
    /// Where the log stands in the copy.
    #[must_use]
    pub const fn head(&self) -> &LogHead {
        &self.head
    }

    /// The next file: its name in the directory of the log, and its bytes. `None` after the last.
    ///
    /// # Errors
    /// An I/O error, also when a file of the tree is missing.
    pub fn next_file(&mut self) -> io::Result<Option<(String, Vec<u8>)>> {
        if let Some(held) = self.held.pop() {
            return Ok(Some(held));
        }
        let Some(name) = self.next_tile() else { return Ok(None) };
        let Some(bytes) = read_if_there(&self.layout.tile(&name), MAX_BUNDLE_LEN)? else {
            let what = format!("the audit log lacks {name}");
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        };
        Ok(Some((name.to_string(), bytes)))
    }

    /// The next full tile or bundle. Levels come first, then bundles.
    fn next_tile(&mut self) -> Option<TileName> {
        loop {
            let TileName { kind, number, .. } = self.next;
            let shift = match kind {
                TileKind::Level(level) => u32::from(level) * 8 + 8,
                TileKind::Entries => 8,
            };
            let count = self.head.size.checked_shr(shift).unwrap_or(0);
            if number < count {
                self.next = TileName::full(kind, number + 1);
                return Some(TileName::full(kind, number));
            }
            self.next = match kind {
                TileKind::Level(level) if count > 0 => {
                    TileName::full(TileKind::Level(level.saturating_add(1)), 0)
                }
                TileKind::Level(_) => {
                    TileName::full(TileKind::Entries, self.first / TILE_WIDTH as u64)
                }
                TileKind::Entries => return None,
            };
        }
    }
}

/// Lets a log go on from a copy: makes the segment that its next records go to, with those that
/// lie in no full bundle.
///
/// # Errors
/// An I/O error, also when the copy is not whole.
pub fn resume_copy(dir: &Path) -> io::Result<()> {
    let layout = Layout { dir: dir.to_owned() };
    let note = read_if_there(&layout.checkpoint(), 1 << 20)?.unwrap_or_default();
    let bad = || io::Error::other("the copy of the audit log has no checkpoint");
    let note = String::from_utf8(note).map_err(|_| bad())?;
    let signed = split(&note).and_then(|(text, _)| Checkpoint::parse(text)).map_err(|_| bad())?;
    let start = signed.size / TILE_WIDTH as u64 * TILE_WIDTH as u64;
    let name = partials(signed.size).into_iter().find(|name| name.kind == TileKind::Entries);
    let bundle = match name {
        Some(name) => read_if_there(&layout.tile(&name), MAX_BUNDLE_LEN)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let group = Group::of(start, &bundle).filter(|group| group.end() == signed.size);
    let group = group.ok_or_else(|| io::Error::other("the copy lacks the last records"))?;
    make_dir(&layout.wal())?;
    let needed = (group.framed_len() + HEADER_LEN) as u64;
    let mut segment = Segment::create(&layout.wal(), FIRST_SEGMENT_LEN.max(needed), start)?;
    segment.sync_name()?;
    if !group.leaves.is_empty() {
        segment.append(&group)?;
    }
    sync_dir(&layout.dir)
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, now};
    use super::super::tests::old_log;
    use super::super::{AuditOptions, Parts};
    use super::*;

    #[test]
    fn tiles_that_are_not_full_are_those_of_the_size() {
        let names = |size| partials(size).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(0), [""; 0]);
        assert_eq!(names(256), ["tile/1/000.p/1"]);
        assert_eq!(
            names(70_000),
            ["tile/0/273.p/112", "tile/entries/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
        );
    }

    /// What went while a copy was taken was missing in it, and the record that told of it as well.
    #[tokio::test]
    async fn nothing_is_removed_while_a_copy_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let log = old_log(dir.path(), 1).await;
        let copy = log.copy().await.unwrap();
        assert_eq!(Arc::strong_count(&log.published.copying), 2);
        drop((copy, log));
        let Parts { mut builder, .. } = Parts::of(dir.path(), AuditOptions::default()).unwrap();
        *builder.published.trusted.lock().unwrap() = Some(now());
        let bundle = dir.path().join("tile/entries/000");
        let ticks = |builder: &mut Builder| {
            builder.tick();
            // The record that says so is signed.
            builder.published.signed.lock().unwrap().size = 400;
            builder.tick();
            bundle.exists()
        };
        let copying = Arc::clone(&builder.published.copying);
        assert!(ticks(&mut builder));
        drop(copying);
        assert!(!ticks(&mut builder));
    }
}
