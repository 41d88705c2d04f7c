//! Files of bbolt, in which etcd keeps its keys: pages, buckets, and what no bucket holds.
//!
//! Room      `checks`. Reads from any `Read + Seek`; the file may be larger than memory.
//! Source    bbolt's page layout (go.etcd.io/bbolt: page.go, meta.go, bucket.go).
//! Holds     Pages that lie are errors: none is visited twice, and no memory is taken for
//!           claimed lengths beyond [`MAX_PAGE_LEN`].

use std::io::{self, Read, Seek, SeekFrom};

/// Longest run of pages that holds one leaf, in bytes.
pub const MAX_PAGE_LEN: u64 = 64 << 20;
const MAX_DEPTH: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
const PAGE_HEADER_LEN: usize = 16;
const META_LEN: usize = 64;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// Reading failed.
    #[error("the snapshot cannot be read")]
    Io(#[from] io::Error),
    /// It is no bbolt file.
    #[error("this is no etcd snapshot: no page of it begins as one of bbolt does")]
    NotBolt,
    /// It ends too early.
    #[error("the snapshot is truncated: {have} bytes are there, {want} belong to it")]
    Truncated {
        /// Bytes of the file.
        have: u64,
        /// Bytes that its header tells.
        want: u64,
    },
    /// A page contradicts itself.
    #[error("page {0} of the snapshot is damaged")]
    Damaged(u64),
    /// There is no bucket of keys.
    #[error("the snapshot holds no keys of etcd")]
    NoKeys,
}

/// An open file.
pub(super) struct Bolt<S> {
    source: S,
    page_len: u64,
    pages: u64,
    root: u64,
    /// One bit for each page that was visited.
    visited: Vec<u64>,
}

/// One entry of a leaf.
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    is_bucket: bool,
}

/// A walk through the leaves of one bucket, the last one first.
pub(super) enum Walk {
    /// Pages that are still to be visited, with their depth.
    Tree(Vec<(u64, usize)>),
    /// A small bucket lies inside the value that names it.
    Inline(Option<Vec<u8>>),
}

/// A leaf.
pub(super) struct Leaf {
    page: Vec<u8>,
    number: u64,
}

impl<S: Read + Seek> Bolt<S> {
    pub(super) fn open(mut source: S) -> Result<Self, EtcdError> {
        let have = source.seek(SeekFrom::End(0))?;
        let meta = newest_meta(&mut source, have)?;
        let want = meta.pages.saturating_mul(meta.page_len);
        if have < want {
            return Err(EtcdError::Truncated { have, want });
        }
        let words = usize::try_from(meta.pages.div_ceil(64)).map_err(|_| EtcdError::NotBolt)?;
        let (page_len, pages, root) = (meta.page_len, meta.pages, meta.root);
        Ok(Self { source, page_len, pages, root, visited: vec![0; words] })
    }

    /// The buckets of the file by name.
    pub(super) fn buckets(&mut self) -> Result<Vec<(Vec<u8>, Walk)>, EtcdError> {
        let mut buckets = Vec::new();
        let mut walk = Walk::Tree(vec![(self.root, 0)]);
        while let Some(leaf) = self.next_leaf(&mut walk)? {
            leaf.entries(&mut |entry| {
                if let Some(walk) = bucket(&entry) {
                    buckets.push((entry.key.to_vec(), walk));
                }
            })?;
        }
        Ok(buckets)
    }

    /// The next leaf of a walk; its entries too come with the last one first.
    pub(super) fn next_leaf(&mut self, walk: &mut Walk) -> Result<Option<Leaf>, EtcdError> {
        let waiting = match walk {
            Walk::Inline(page) => return Ok(page.take().map(|page| Leaf { page, number: 0 })),
            Walk::Tree(waiting) => waiting,
        };
        while let Some((number, depth)) = waiting.pop() {
            let page = self.page(number)?;
            match u16_at(&page, 8) {
                Some(BRANCH) if depth < MAX_DEPTH => {
                    let children = branch(&page).ok_or(EtcdError::Damaged(number))?;
                    waiting.extend(children.into_iter().map(|child| (child, depth + 1)));
                }
                Some(LEAF) => return Ok(Some(Leaf { page, number })),
                Some(_) | None => return Err(EtcdError::Damaged(number)),
            }
        }
        Ok(None)
    }

    /// Runs of pages that no walk came through, as offset and length in bytes. The two headers
    /// at the front are not among them.
    pub(super) fn unvisited(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in (2..self.pages).filter(|number| !self.is_visited(*number)) {
            let at = number.saturating_mul(self.page_len);
            match runs.last_mut() {
                Some((start, len)) if *start + *len == at => *len += self.page_len,
                Some(_) | None => runs.push((at, self.page_len)),
            }
        }
        runs
    }

    /// Bytes of the file as they are.
    pub(super) fn at(&mut self, offset: u64, len: u64) -> Result<impl Read, EtcdError> {
        self.source.seek(SeekFrom::Start(offset))?;
        Ok(self.source.by_ref().take(len))
    }

    fn page(&mut self, number: u64) -> Result<Vec<u8>, EtcdError> {
        if number >= self.pages {
            return Err(EtcdError::Damaged(number));
        }
        self.source.seek(SeekFrom::Start(number.saturating_mul(self.page_len)))?;
        let mut header = [0; PAGE_HEADER_LEN];
        self.source.read_exact(&mut header)?;
        let more = u64::from(u32_at(&header, 12).unwrap_or_default());
        let len = (more + 1).saturating_mul(self.page_len);
        if len > MAX_PAGE_LEN || number + more >= self.pages {
            return Err(EtcdError::Damaged(number));
        }
        for number in number..=number + more {
            self.visit(number)?;
        }
        let mut page = header.to_vec();
        let rest = len - PAGE_HEADER_LEN as u64;
        self.source.by_ref().take(rest).read_to_end(&mut page)?;
        Ok(page)
    }

    /// Marks a page. INVARIANT: a tree holds no page twice, so a second visit is damage.
    fn visit(&mut self, number: u64) -> Result<(), EtcdError> {
        let (word, bit) = place(number);
        let word = self.visited.get_mut(word).ok_or(EtcdError::Damaged(number))?;
        if *word & bit != 0 {
            return Err(EtcdError::Damaged(number));
        }
        *word |= bit;
        Ok(())
    }

    fn is_visited(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.visited.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(number: u64) -> (usize, u64) {
    (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
}

fn bucket(entry: &Entry<'_>) -> Option<Walk> {
    if !entry.is_bucket {
        return None;
    }
    match u64_at(entry.value, 0)? {
        0 => Some(Walk::Inline(Some(entry.value.get(16..)?.to_vec()))),
        root => Some(Walk::Tree(vec![(root, 0)])),
    }
}

impl Leaf {
    /// The page at which it begins.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Sees the entries, the last one first. Entries that overlap are damage: a short page could
    /// claim many times its length.
    pub(super) fn entries(&self, see: &mut dyn FnMut(Entry<'_>)) -> Result<(), EtcdError> {
        let damaged = || EtcdError::Damaged(self.number);
        let count = u16_at(&self.page, 10).map(usize::from).ok_or_else(damaged)?;
        let mut left = self.page.len();
        for index in (0..count).rev() {
            let entry = entry(&self.page, index).ok_or_else(damaged)?;
            let rest = left.checked_sub(entry.key.len() + entry.value.len());
            left = rest.ok_or_else(damaged)?;
            see(entry);
        }
        Ok(())
    }
}

struct Meta {
    page_len: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// The valid one of the two headers with the higher transaction number.
fn newest_meta(source: &mut (impl Read + Seek), len: u64) -> Result<Meta, EtcdError> {
    let first = meta_at(source, 0, len)?;
    let page_lens = match &first {
        Some(meta) => vec![meta.page_len],
        None => vec![4096, 8192, 16_384, 65_536],
    };
    let mut newest = first;
    for page_len in page_lens {
        if let Some(meta) = meta_at(source, page_len, len)?
            && newest.as_ref().is_none_or(|known| meta.transaction > known.transaction)
        {
            newest = Some(meta);
        }
    }
    newest.ok_or(EtcdError::NotBolt)
}

fn meta_at(
    source: &mut (impl Read + Seek),
    offset: u64,
    len: u64,
) -> Result<Option<Meta>, EtcdError> {
    let mut page = [0; PAGE_HEADER_LEN + META_LEN];
    if len < offset + page.len() as u64 {
        return Ok(None);
    }
    source.seek(SeekFrom::Start(offset))?;
    source.read_exact(&mut page)?;
    Ok(meta(page.get(PAGE_HEADER_LEN..).unwrap_or_default()))
}

fn meta(bytes: &[u8]) -> Option<Meta> {
    let sum = bytes.get(..56)?.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let page_len = u64::from(u32_at(bytes, 8)?);
    let is_valid = u32_at(bytes, 0)? == MAGIC
        && u32_at(bytes, 4)? == 2
        && u64_at(bytes, 56)? == sum
        && page_len.is_power_of_two()
        && (512..=1 << 20).contains(&page_len);
    is_valid.then_some(Meta {
        page_len,
        root: u64_at(bytes, 16)?,
        pages: u64_at(bytes, 40)?,
        transaction: u64_at(bytes, 48)?,
    })
}

fn branch(page: &[u8]) -> Option<Vec<u64>> {
    let count = usize::from(u16_at(page, 10)?);
    (0..count).map(|index| u64_at(page, PAGE_HEADER_LEN + index * 16 + 8)).collect()
}

fn entry(page: &[u8], index: usize) -> Option<Entry<'_>> {
    let at = PAGE_HEADER_LEN + index * 16;
    let field = |offset| u32_at(page, at + offset).and_then(|value| usize::try_from(value).ok());
    let start = at.checked_add(field(4)?)?;
    let middle = start.checked_add(field(8)?)?;
    let end = middle.checked_add(field(12)?)?;
    let (key, value) = (page.get(start..middle)?, page.get(middle..end)?);
    Some(Entry { key, value, is_bucket: field(0)? & 1 == 1 })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::{EtcdError, LEAF, Leaf, PAGE_HEADER_LEN};

    /// A leaf of entries without keys, each a part of `data`.
    fn leaf(data: &[u8], parts: &[(usize, usize)]) -> Leaf {
        let mut page = vec![0; PAGE_HEADER_LEN];
        page[8..10].copy_from_slice(&LEAF.to_le_bytes());
        page[10..12].copy_from_slice(&u16::try_from(parts.len()).unwrap().to_le_bytes());
        for (index, (start, len)) in parts.iter().enumerate() {
            let offset = (parts.len() - index) * 16 + start;
            for field in [0, offset, 0, *len] {
                page.extend_from_slice(&u32::try_from(field).unwrap().to_le_bytes());
            }
        }
        page.extend_from_slice(data);
        Leaf { page, number: 7 }
    }

    fn lengths(leaf: &Leaf) -> (Result<(), EtcdError>, Vec<usize>) {
        let mut seen = Vec::new();
        let ended = leaf.entries(&mut |entry| seen.push(entry.value.len()));
        (ended, seen)
    }

    #[test]
    fn entries_that_overlap_are_damage() {
        let (ended, seen) = lengths(&leaf(&[1; 200], &[(0, 150), (150, 50)]));
        assert!(ended.is_ok() && seen == [50, 150]);
        let (ended, seen) = lengths(&leaf(&[1; 200], &[(0, 200); 40]));
        assert!(matches!(ended, Err(EtcdError::Damaged(7))));
        assert!(seen.iter().sum::<usize>() <= 1_000, "{seen:?}");
    }
}
