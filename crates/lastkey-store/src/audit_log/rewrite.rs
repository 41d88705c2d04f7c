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
