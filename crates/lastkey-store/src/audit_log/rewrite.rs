//! Tiles that the disk has refused, written again from the segments while the log goes on.
//!
//! Room      `store`.
//! Source    docs/formats/audit-log.md, "Segments".
//! Holds     one segment at a time, so that the builder is held up for no longer than that.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;

use lastkey_core::audit::merkle::Tree;

use super::builder::grow;
use super::files::{Layout, write_file};
use super::recover::tree_before;
use super::wal::{scan_until, segments};

/// Tiles that are being written again.
pub(super) struct Rewrite {
    tree: Tree,
    bundle: Vec<u8>,
    /// Segments that are to be read, by their first record.
    left: VecDeque<(u64, PathBuf)>,
    /// Records before this one are in tiles; those after it come into tiles later.
    end: u64,
}

impl Rewrite {
    /// Begins with the oldest segment of a log that has so many records in its tree.
    ///
    /// # Errors
    /// An I/O error, also when the tiles before that segment are missing.
    pub(super) fn begin(layout: &Layout, end: u64) -> io::Result<Self> {
        let mut left = VecDeque::from(segments(&layout.wal())?);
        left.retain(|(first, _)| *first < end);
        let first = left.front().map_or(end, |(first, _)| *first);
        let tree = tree_before(layout, first).map_err(|(_, what)| io::Error::other(what))?;
        Ok(Self { tree, bundle: Vec::new(), left, end })
    }

    /// Writes what one more segment holds; whether that was the last one.
    ///
    /// # Errors
    /// An I/O error, also when the segment is not what was written.
    pub(super) fn step(&mut self, layout: &Layout) -> io::Result<bool> {
        let Some((first, path)) = self.left.pop_front() else { return Ok(true) };
        let until = self.left.front().map_or(self.end, |(next, _)| *next);
        let bytes = fs::read(path)?;
        for group in scan_until(&bytes, first, until).map_err(io::Error::other)? {
            let edge = (&mut self.tree, &mut self.bundle);
            grow(layout, edge, &group.read(&bytes)?, write_file, |_| ())?;
        }
        Ok(self.left.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use lastkey_core::audit::tile::push_record;

    use super::super::recover::FIRST_SEGMENT_LEN;
    use super::super::tests::{fill, open, unsyncable};
    use super::super::wal::{Group, Segment};
    use super::super::{AuditOptions, Parts};
    use super::*;

    /// They were written again at the next start alone: until somebody made one, no segment went.
    #[tokio::test]
    async fn tiles_that_the_disk_has_refused_are_written_again_when_it_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        fill(&log, 0, 600).await;
        drop(log);
        let wal = dir.path().join("wal");
        let mut records = Vec::new();
        for _ in 0..200 {
            assert!(push_record(&mut records, b"a record"));
        }
        let mut newest = Segment::create(&wal, FIRST_SEGMENT_LEN, 600).unwrap();
        newest.append(&Group::of(600, &records).unwrap()).unwrap();
        let Parts { mut builder, .. } = Parts::of(dir.path(), AuditOptions::default()).unwrap();
        let tile = |number: u32| dir.path().join(format!("tile/entries/{number:03}"));
        let written = [0, 1, 2].map(|number| fs::read(tile(number)).unwrap());
        builder.dir = unsyncable(dir.path());
        assert!(builder.try_release(600).is_err());
        for number in [0, 1, 2] {
            fs::write(tile(number), "lost").unwrap();
        }
        let has_lost = || [0, 1, 2].map(|number| fs::read(tile(number)).unwrap()) != written;
        // One segment at a time, and then the disk is asked.
        builder.tick();
        assert!(has_lost() && builder.rewrite.is_some());
        builder.tick();
        assert!(!has_lost() && builder.rewrite.is_none());
        assert!(builder.published.is_unsynced() && wal.join("unsynced").exists());
        // It is left alone for a while, and then asked again.
        fs::write(tile(2), "lost").unwrap();
        builder.dir = File::open(dir.path()).unwrap();
        builder.tick();
        assert!(builder.rewrite.is_none() && builder.rewrite_at.take().is_some());
        builder.tick();
        builder.tick();
        assert!(!has_lost() && !builder.published.is_unsynced() && !wal.join("unsynced").exists());
        let left = segments(&wal).unwrap().into_iter().map(|s| s.0).collect::<Vec<_>>();
        assert_eq!(left, [600]);
    }
}
