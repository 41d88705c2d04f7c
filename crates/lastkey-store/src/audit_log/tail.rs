//! The right edge of the log, which lies in no full tile yet, and reading across it.
//!
//! Room      `store`.

use std::io;

use lastkey_core::audit::merkle::{Hash, Hashes, TILE_WIDTH, Tree};
use lastkey_core::audit::tile::{TileKind, TileName, hashes_of};

use super::files::{Layout, read_if_there};

/// Longest bundle: 256 records of 65,535 bytes, and their lengths.
pub(super) const MAX_BUNDLE_LEN: u64 = 256 * (65_535 + 2);

/// What lies in no full tile.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    /// Records in the whole tree.
    pub(super) size: u64,
    /// The hashes of the last tile of each level, lowest first.
    levels: Vec<Vec<Hash>>,
    /// The records of the last bundle, each after its length.
    pub(super) bundle: Vec<u8>,
}

impl Tail {
    /// The edge of a tree.
    pub(super) fn of(tree: &Tree, bundle: &[u8]) -> Self {
        let levels = (0..tree.height()).map(|level| tree.partial(level).to_vec()).collect();
        Self { size: tree.size(), levels, bundle: bundle.to_vec() }
    }

    /// The hashes of the last tile of a level.
    pub(super) fn partial(&self, level: u8) -> &[Hash] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// Begins anew where a tile of the tree has become full. Its buffer stays.
    pub(super) fn restart(&mut self, tree: &Tree) {
        let mut bundle = std::mem::take(&mut self.bundle);
        bundle.clear();
        *self = Self { bundle, ..Self::of(tree, &[]) };
    }

    /// Takes up what has come to its bundle and to the tree, and has filled no tile.
    pub(super) fn catch_up(&mut self, tree: &Tree, bundle: &[u8]) {
        self.bundle.extend_from_slice(bundle.get(self.bundle.len()..).unwrap_or_default());
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        if let Some(lowest) = self.levels.first_mut() {
            lowest.extend_from_slice(tree.partial(0).get(lowest.len()..).unwrap_or_default());
        }
        self.size = tree.size();
    }
}

/// The hashes of a log: full tiles from their files, the rest from its tail.
pub(super) struct LogHashes<'a> {
    pub(super) layout: &'a Layout,
    pub(super) tail: &'a Tail,
}

impl Hashes for LogHashes<'_> {
    type Error = io::Error;

    fn read(&self, level: u8, first: u64, count: usize) -> io::Result<Vec<Hash>> {
        let number = first / TILE_WIDTH as u64;
        let start = (first % TILE_WIDTH as u64) as usize;
        let last = self.tail.size.checked_shr(u32::from(level) * 8 + 8).unwrap_or(0);
        let part = |hashes: &[Hash]| hashes.get(start..start + count).map(<[Hash]>::to_vec);
        let found = if number == last {
            self.tail.levels.get(usize::from(level)).and_then(|hashes| part(hashes))
        } else {
            read_tile(self.layout, level, number)?.and_then(|hashes| part(&hashes))
        };
        found.ok_or_else(|| missing(level, number))
    }
}

fn missing(level: u8, number: u64) -> io::Error {
    let name = TileName::full(TileKind::Level(level), number);
    io::Error::new(io::ErrorKind::NotFound, format!("the audit log lacks {name}"))
}

/// The hashes of a full tile; `None` when it is not there or not whole.
///
/// # Errors
/// An I/O error.
pub(super) fn read_tile(layout: &Layout, level: u8, number: u64) -> io::Result<Option<Vec<Hash>>> {
    let name = TileName::full(TileKind::Level(level), number);
    let bytes = read_if_there(&layout.tile(&name), 1 << 20)?;
    Ok(bytes.and_then(|bytes| hashes_of(&bytes)).filter(|hashes| hashes.len() == TILE_WIDTH))
}
