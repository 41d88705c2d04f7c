//! Names of tiles and bundles, and what is in a bundle.
//!
//! Room      `core`.
//! Source    C2SP tlog-tiles.
//! Holds     one name for each tile; a name that is read back is the one that would be written.

use core::fmt;

use super::merkle::{Hash, TILE_WIDTH};

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of a level of the tree, 0 to 63.
    Level(u8),
    /// Records.
    Entries,
}

/// The name of a tile or bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileName {
    /// What it holds.
    pub kind: TileKind,
    /// Its number within its kind.
    pub number: u64,
    /// How many it holds, 1 to 256; below 256 it is partial.
    pub width: usize,
}

impl TileName {
    /// The full tile of this number.
    #[must_use]
    pub const fn full(kind: TileKind, number: u64) -> Self {
        Self { kind, number, width: TILE_WIDTH }
    }

    /// Reads a name, as [`fmt::Display`] writes it; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Level(level.parse().ok().filter(|level| *level < 64)?),
        };
        let (path, width) = match rest.split_once(".p/") {
            Some((path, width)) => (path, width.parse().ok().filter(|w| *w < TILE_WIDTH)?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = path.split('/').map(|part| part.trim_start_matches('x')).collect();
        let name = Self { kind, number: digits.parse().ok()?, width };
        (width > 0 && name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for TileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Level(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.number % 1_000];
        let mut rest = self.number / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for (place, group) in groups.iter().enumerate().rev() {
            let (mark, end) = if place > 0 { ("x", "/") } else { ("", "") };
            write!(f, "{mark}{group:03}{end}")?;
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// Longest record in bytes: its length stands in two bytes.
pub const MAX_RECORD_LEN: usize = 65_535;

/// Appends a record to a bundle. Answers false, and appends nothing, when it is too long.
#[must_use]
pub fn push_record(bundle: &mut Vec<u8>, record: &[u8]) -> bool {
    let Ok(len) = u16::try_from(record.len()) else { return false };
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(record);
    true
}

/// The records of a bundle, in order; the last item is `None` when the bundle ends within one.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// The records of these bytes.
    #[must_use]
    pub const fn of(bundle: &'a [u8]) -> Self {
        Self(bundle)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let whole = self
            .0
            .split_first_chunk::<2>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*len))));
        let (record, rest) = whole.unzip();
        self.0 = rest.unwrap_or_default();
        Some(record)
    }
}

/// The hashes in the bytes of a tile; `None` when the bytes end within one.
#[must_use]
pub fn hashes_of(tile: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = tile.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_standard() {
        let full = |kind, number| TileName::full(kind, number).to_string();
        assert_eq!(full(TileKind::Level(0), 0), "tile/0/000");
        assert_eq!(full(TileKind::Level(3), 1_234_067), "tile/3/x001/x234/067");
        assert_eq!(full(TileKind::Entries, 1_000), "tile/entries/x001/000");
        let partial = TileName { kind: TileKind::Level(0), number: 273, width: 112 };
        assert_eq!(partial.to_string(), "tile/0/273.p/112");
    }

    #[test]
    fn a_name_has_one_spelling() {
        for bad in [
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/64/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/x001",
            "tile/0/../000",
            "tile/entries/",
            "tile/entries/+01",
            "entries/000",
            "",
        ] {
            assert_eq!(TileName::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back(number: u64, width in 1_usize..=256, level in 0_u8..64, entries: bool) {
            let kind = if entries { TileKind::Entries } else { TileKind::Level(level) };
            let name = TileName { kind, number, width };
            prop_assert_eq!(TileName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn any_text_is_a_name_or_none(text: String) {
            if let Some(name) = TileName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn a_bundle_gives_back_its_records(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..9),
            cut in any::<usize>(),
        ) {
            let mut bundle = Vec::new();
            for record in &records {
                prop_assert!(push_record(&mut bundle, record));
            }
            let read: Option<Vec<_>> = Records::of(&bundle).collect();
            prop_assert_eq!(read.unwrap(), records);
            if !bundle.is_empty() {
                let cut = &bundle[..cut % bundle.len()];
                let whole = Records::of(cut).flatten().map(|record| record.len() + 2).sum::<usize>();
                let torn = Records::of(cut).any(|record| record.is_none());
                prop_assert_eq!(torn, whole < cut.len());
            }
        }
    }

    #[test]
    fn a_record_too_long_for_the_format_is_refused() {
        let mut bundle = Vec::new();
        assert!(!push_record(&mut bundle, &vec![0; 65_536]) && bundle.is_empty());
        assert!(push_record(&mut bundle, &vec![0; 65_535]));
    }
}
