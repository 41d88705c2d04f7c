//! The Merkle tree of the audit log: hashes, roots, and proofs of inclusion and consistency.
//!
//! Room      `core`.
//! Source    RFC 6962, section 2.1; the checks of proofs are RFC 9162, 2.1.3.2 and 2.1.4.2.
//! Holds     a proof is taken only when it leads to the root that was asked about; no length that
//!           a proof claims is believed.

use lastkey_crypto::digest::{sha256, sha256_of};

/// A SHA-256 hash of the tree.
pub type Hash = [u8; 32];

/// Hashes in a full tile (C2SP tlog-tiles).
pub const TILE_WIDTH: usize = 256;
/// Levels of the tree that one tile spans.
const TILE_HEIGHT: u32 = 8;

/// The hash of one record.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    // What lies in one piece is hashed in one call, which costs half of what two cost.
    let mut whole = [0; USUAL_LEN];
    let Some(place) = whole.get_mut(1..).and_then(|rest| rest.get_mut(..record.len())) else {
        return sha256_of(&[&[0], record]);
    };
    place.copy_from_slice(record);
    sha256(whole.get(..=record.len()).unwrap_or_default())
}

/// Longer than most records, in bytes.
const USUAL_LEN: usize = 1_024;

/// The hash of two subtrees.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut whole = [1; 65];
    let (_, halves) = whole.split_at_mut(1);
    for (half, hash) in halves.as_chunks_mut().0.iter_mut().zip([left, right]) {
        *half = *hash;
    }
    sha256(&whole)
}

/// The root of the empty tree.
#[must_use]
pub fn empty_root() -> Hash {
    sha256_of(&[])
}

/// The root over hashes of subtrees of one size, in order; of none, that of the empty tree.
#[must_use]
pub fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// A tree that grows at its right edge, tile by tile.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// For each level of tiles, the hashes of the tile that is not full yet.
    levels: Vec<Vec<Hash>>,
    size: u64,
}

/// A tile that has become full.
#[derive(Clone, Copy, Debug)]
pub struct FullTile<'a> {
    /// Its level.
    pub level: u8,
    /// Its number within the level.
    pub number: u64,
    /// Its 256 hashes.
    pub hashes: &'a [Hash],
}

impl Tree {
    /// A tree of `size` records, from the hashes of its last tile at each level, lowest first.
    /// `None` when their numbers do not fit that size.
    #[must_use]
    pub fn resume(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let fits = |(level, hashes): (usize, &Vec<Hash>)| {
            let level = u8::try_from(level).ok()?;
            (partial_width(level, size) == hashes.len()).then_some(())
        };
        let needed = levels_of(size);
        let all = levels.iter().enumerate().all(|entry| fits(entry).is_some());
        (all && levels.len() >= needed).then_some(Self { levels, size })
    }

    /// Records in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of one record; `full` is told of every tile that this fills.
    ///
    /// # Errors
    /// That of `full`; the tree is then not to be used any more.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut full: impl FnMut(FullTile<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.size = self.size.saturating_add(1);
        let (mut carried, mut width) = (leaf, 1_u64);
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let Some(hashes) = self.levels.get_mut(level) else { break };
            hashes.push(carried);
            width = width.saturating_mul(TILE_WIDTH as u64);
            if hashes.len() < TILE_WIDTH {
                break;
            }
            let number = (self.size / width).saturating_sub(1);
            full(FullTile { level: u8::try_from(level).unwrap_or(u8::MAX), number, hashes })?;
            carried = root_of(hashes);
            hashes.clear();
        }
        Ok(())
    }

    /// The hashes of the tile at a level that is not full; empty when there is none.
    #[must_use]
    pub fn partial(&self, level: u8) -> &[Hash] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// Levels that have a tile, full or not.
    #[must_use]
    pub fn height(&self) -> u8 {
        u8::try_from(self.levels.len()).unwrap_or(u8::MAX)
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        // Every partial tile stands to the left of all tiles of the levels below it.
        let mut right: Option<Hash> = None;
        for hashes in &self.levels {
            let mut rest = hashes.as_slice();
            let mut peaks = Vec::with_capacity(8);
            while let Some(height) = rest.len().checked_ilog2() {
                let (peak, others) = rest.split_at(1 << height);
                peaks.push(root_of(peak));
                rest = others;
            }
            for peak in peaks.iter().rev() {
                right = Some(right.map_or(*peak, |right| node_hash(peak, &right)));
            }
        }
        right.unwrap_or_else(empty_root)
    }
}

/// Hashes in the last tile of a level, 0 when it is full or not begun, for a tree of `size`.
#[must_use]
pub fn partial_width(level: u8, size: u64) -> usize {
    let shift = u32::from(level).saturating_mul(TILE_HEIGHT);
    let hashes = size.checked_shr(shift).unwrap_or(0);
    (hashes % TILE_WIDTH as u64) as usize
}

/// Levels that have a tile in a tree of `size`.
#[must_use]
pub fn levels_of(size: u64) -> usize {
    size.checked_ilog2().map_or(0, |height| (height / TILE_HEIGHT + 1) as usize)
}

/// Where proofs read the hashes of tiles from.
pub trait Hashes {
    /// Why it cannot be read.
    type Error;

    /// Hashes `first` to `first + count` of a level of tiles; they lie in one tile.
    ///
    /// # Errors
    /// When they are not there, or cannot be read.
    fn read(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, Self::Error>;
}

/// Root of the `size` records from `first`; `first` is a multiple of a power of two that is at
/// least `size`, as everywhere in a proof.
fn subtree<H: Hashes>(hashes: &H, first: u64, size: u64) -> Result<Hash, H::Error> {
    if size.is_power_of_two() {
        let height = size.ilog2();
        let (level, inner) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let start = first >> (level * TILE_HEIGHT);
        let read = hashes.read(u8::try_from(level).unwrap_or(u8::MAX), start, 1 << inner)?;
        return Ok(root_of(&read));
    }
    let left = split(size.max(2));
    let right = subtree(hashes, first.saturating_add(left), size.saturating_sub(left))?;
    Ok(node_hash(&subtree(hashes, first, left)?, &right))
}

/// The root of the tree of the first `size` records.
///
/// # Errors
/// Those of `hashes`.
pub fn tree_root<H: Hashes>(hashes: &H, size: u64) -> Result<Hash, H::Error> {
    if size == 0 { Ok(empty_root()) } else { subtree(hashes, 0, size) }
}

/// Proof that record `index` is in the tree of the first `size` records: siblings from the leaf
/// up. Empty when `index` is not below `size`.
///
/// # Errors
/// Those of `hashes`.
pub fn inclusion<H: Hashes>(hashes: &H, index: u64, size: u64) -> Result<Vec<Hash>, H::Error> {
    let (mut first, mut size, mut proof) = (0, size, Vec::new());
    if index >= size {
        return Ok(proof);
    }
    while size > 1 {
        let left = split(size);
        if index - first < left {
            proof.push(subtree(hashes, first + left, size - left)?);
            size = left;
        } else {
            proof.push(subtree(hashes, first, left)?);
            first += left;
            size -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree of `new` records begins with the tree of `old`. Empty when `old` is 0 or
/// not below `new`.
///
/// # Errors
/// Those of `hashes`.
pub fn consistency<H: Hashes>(hashes: &H, old: u64, new: u64) -> Result<Vec<Hash>, H::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    // RFC 6962, 2.1.2: SUBPROOF, from the root down.
    let (mut first, mut size, mut wanted, mut is_whole) = (0, new, old, true);
    while wanted != size {
        let left = split(size);
        if wanted <= left {
            proof.push(subtree(hashes, first + left, size - left)?);
            size = left;
        } else {
            proof.push(subtree(hashes, first, left)?);
            first += left;
            size -= left;
            wanted -= left;
            is_whole = false;
        }
    }
    if !is_whole {
        proof.push(subtree(hashes, first, size)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that a record of this hash is number `index` of the tree of `size`
/// records with this root.
#[must_use]
pub fn verify_inclusion(proof: &[Hash], index: u64, leaf: &Hash, size: u64, root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `new` records begins with the tree of `old`.
#[must_use]
pub fn verify_consistency(
    proof: &[Hash],
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
) -> bool {
    if old > new || (old == 0 && !proof.is_empty()) {
        return false;
    }
    if old == 0 {
        return *old_root == empty_root();
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let whole = old.is_power_of_two().then_some(old_root);
    let mut proof = whole.into_iter().chain(proof);
    let Some(first) = proof.next() else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard_however_long_a_record_is() {
        for len in [0, 1, USUAL_LEN - 2, USUAL_LEN - 1, USUAL_LEN, 2 * USUAL_LEN] {
            let record = vec![7; len];
            assert_eq!(leaf_hash(&record), sha256_of(&[&[0], &record]), "{len}");
        }
        let (left, right) = ([2; 32], [3; 32]);
        assert_eq!(node_hash(&left, &right), sha256_of(&[&[1], &left, &right]));
    }

    /// All leaves; every hash is made anew by the definition of RFC 6962.
    struct Naive(Vec<Hash>);

    impl Hashes for Naive {
        type Error = Infallible;

        fn read(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, Infallible> {
            let width = 256_usize.pow(level.into());
            let hash = |i: usize| root_of(&self.0[i * width..(i + 1) * width]);
            let first = usize::try_from(first).unwrap();
            Ok((first..first + count).map(hash).collect())
        }
    }

    fn leaves(size: u64) -> Naive {
        Naive((0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect())
    }

    fn hex(hash: &Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The tree of the reference implementation of RFC 6962 (certificate-transparency).
    const RFC_INPUTS: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];

    #[test]
    fn roots_are_those_of_the_reference_tree() {
        let hashes: Vec<_> = RFC_INPUTS.iter().map(|input| leaf_hash(input)).collect();
        for (size, root) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&root_of(&hashes[..size])), root);
        }
    }

    #[test]
    fn a_tree_that_grows_has_the_roots_of_the_definition() {
        let all = leaves(1_100);
        let mut tree = Tree::default();
        for (size, leaf) in all.0.iter().enumerate() {
            if size % 37 == 0 || size % 256 < 3 {
                assert_eq!(tree.root(), root_of(&all.0[..size]), "{size}");
            }
            tree.push(*leaf, |_| Ok::<_, Infallible>(())).unwrap();
        }
        assert_eq!((tree.size(), tree.root()), (1_100, root_of(&all.0)));
    }

    #[test]
    fn full_tiles_are_told_once_with_their_place() {
        let all = leaves(256 * 256 + 1);
        let (mut tree, mut told) = (Tree::default(), Vec::new());
        for leaf in &all.0 {
            let keep = |tile: FullTile<'_>| {
                told.push((tile.level, tile.number, tile.hashes.len()));
                Ok::<_, Infallible>(())
            };
            tree.push(*leaf, keep).unwrap();
        }
        assert_eq!(told.iter().filter(|tile| tile.0 == 0).count(), 256);
        assert_eq!(told[..2], [(0, 0, 256), (0, 1, 256)]);
        assert_eq!(told.last(), Some(&(1, 0, 256)));
        assert_eq!(
            (tree.partial(0).len(), tree.partial(1).len(), tree.partial(2).len()),
            (1, 0, 1)
        );
        let resumed =
            Tree::resume(tree.size(), (0..3).map(|level| tree.partial(level).to_vec()).collect());
        assert_eq!(resumed.unwrap().root(), tree.root());
        assert!(Tree::resume(5, vec![Vec::new()]).is_none());
        assert!(Tree::resume(256, vec![Vec::new()]).is_none());
    }

    proptest! {
        #[test]
        fn proofs_hold_and_nothing_near_them_does(
            new in 1_u64..600, old in 0_u64..600, index in 0_u64..600, flip in any::<usize>(),
        ) {
            let (old, index) = (old % (new + 1), index % new);
            let all = leaves(new);
            let root = root_of(&all.0);
            let Ok(proof) = inclusion(&all, index, new);
            let leaf = all.0[usize::try_from(index).unwrap()];
            prop_assert!(verify_inclusion(&proof, index, &leaf, new, &root));
            prop_assert!(!verify_inclusion(&proof, index, &root_of(&[]), new, &root));
            if !proof.is_empty() {
                let mut bad = proof.clone();
                let at = flip % bad.len();
                bad[at][flip % 32] ^= 1;
                prop_assert!(!verify_inclusion(&bad, index, &leaf, new, &root));
                prop_assert!(!verify_inclusion(&proof[1..], index, &leaf, new, &root));
            }
            let before = root_of(&all.0[..usize::try_from(old).unwrap()]);
            let Ok(proof) = consistency(&all, old, new);
            prop_assert!(verify_consistency(&proof, (old, &before), (new, &root)));
            let wrong = leaf_hash(b"another");
            prop_assert!(!verify_consistency(&proof, (old, &wrong), (new, &root)));
            if old != 0 {
                prop_assert!(!verify_consistency(&proof, (old, &before), (new, &wrong)));
            }
            let Ok(tree) = tree_root(&all, new);
            prop_assert_eq!(tree, root);
        }
    }

    #[test]
    fn proofs_over_more_than_one_level_of_tiles_hold() {
        let all = leaves(70_000);
        let root = root_of(&all.0);
        for index in [0, 255, 256, 65_535, 65_536, 69_999] {
            let Ok(proof) = inclusion(&all, index, 70_000);
            let leaf = all.0[usize::try_from(index).unwrap()];
            assert!(verify_inclusion(&proof, index, &leaf, 70_000, &root));
        }
        let Ok(proof) = consistency(&all, 65_537, 70_000);
        assert!(verify_consistency(&proof, (65_537, &root_of(&all.0[..65_537])), (70_000, &root)));
    }
}
