//! Segments: where records are made durable, group by group, before anything else is done to them.
//!
//! Room      `store`.
//! Source    docs/formats/audit-log.md, "Segments".
//! Holds     a group is taken whole or not at all; bytes after the last whole group that are no
//!           group of their own were never acknowledged.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lastkey_core::audit::merkle::{Hash, leaf_hash};
use lastkey_core::audit::tile::Records;
use lastkey_crypto::digest::sha256_of;

use super::files::{private_file, sync_dir};

/// Length of the header of a segment and of a group, in bytes.
pub(super) const HEADER_LEN: usize = 40;
const SEGMENT_MAGIC: &[u8; 8] = b"LKAUDSEG";
const GROUP_MAGIC: &[u8; 8] = b"LKAUDGRP";
const FORMAT: u32 = 1;
const CHECK_LEN: usize = 16;

/// A group of records that were made durable together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Number of its first record.
    pub(super) first: u64,
    /// It as it stands in a segment: header, and records.
    framed: Vec<u8>,
    /// The hashes of the records.
    pub(super) leaves: Vec<Hash>,
}

/// What stands before records that become a group, until its header takes the place.
pub(super) const ROOM: [u8; HEADER_LEN] = [0; HEADER_LEN];

impl Group {
    /// A group of these records, each after its length, as in a bundle; `None` when the bytes end
    /// within one.
    pub(super) fn of(first: u64, records: &[u8]) -> Option<Self> {
        Self::in_place(first, [&ROOM[..], records].concat())
    }

    /// The same of records behind [`ROOM`], which are not copied.
    pub(super) fn in_place(first: u64, mut framed: Vec<u8>) -> Option<Self> {
        let (header, records) = framed.split_first_chunk_mut::<HEADER_LEN>()?;
        let leaves = leaves_of(records)?;
        *header = group_header(first, &leaves, records.len());
        Some(Self { first, framed, leaves })
    }

    /// The records, each after its length.
    pub(super) fn records(&self) -> &[u8] {
        self.framed.get(HEADER_LEN..).unwrap_or_default()
    }

    /// How long it is in a segment, in bytes.
    pub(super) fn framed_len(&self) -> usize {
        self.framed.len()
    }

    /// The buffer that it was in.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.framed
    }

    /// Number of the record after its last.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.leaves.len() as u64)
    }
}

/// A group where it was found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupAt {
    /// Number of its first record.
    pub(super) first: u64,
    /// The hashes of the records.
    pub(super) leaves: Vec<Hash>,
    /// Where it stands, header and records.
    place: Range<usize>,
}

impl GroupAt {
    /// Number of the record after its last.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.leaves.len() as u64)
    }

    /// The group itself, from the segment that it was found in.
    ///
    /// # Errors
    /// When this is a shorter one.
    pub(super) fn read(self, segment: &[u8]) -> io::Result<Group> {
        let framed = segment.get(self.place).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
        Ok(Group { first: self.first, framed, leaves: self.leaves })
    }
}

fn group_header(first: u64, leaves: &[Hash], len: usize) -> [u8; HEADER_LEN] {
    let count = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let fields = [&first.to_be_bytes()[..], &count.to_be_bytes(), &len.to_be_bytes()];
    header(GROUP_MAGIC, &fields.concat(), leaves.as_flattened())
}

fn leaves_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    Records::of(bytes).map(|record| record.map(leaf_hash)).collect()
}

fn header(magic: &[u8; 8], fields: &[u8], content: &[u8]) -> [u8; HEADER_LEN] {
    let check = sha256_of(&[magic, fields, content]);
    let mut header = [0; HEADER_LEN];
    let parts = magic.iter().chain(fields).chain(check.iter().take(CHECK_LEN));
    for (place, byte) in header.iter_mut().zip(parts) {
        *place = *byte;
    }
    header
}

fn segment_header(first: u64) -> [u8; HEADER_LEN] {
    let fields = [&first.to_be_bytes()[..], &FORMAT.to_be_bytes(), &0_u32.to_be_bytes()];
    header(SEGMENT_MAGIC, &fields.concat(), &[])
}

/// The name of the segment that begins with a record.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.wal")
}

/// Makes a file of zeros, so that a group written into it changes nothing but its bytes: the disk
/// then has less to do for each group.
///
/// # Errors
/// When there is no room.
pub(super) fn zero_filled(path: &Path, len: u64) -> io::Result<File> {
    let made = private_file().write(true).read(true).create(true).truncate(true).open(path)?;
    let filled = fill(&made, len);
    if filled.is_err() {
        // What is half made is in the way of those who need the room.
        let _ = fs::remove_file(path);
    }
    filled.map(|()| made)
}

fn fill(mut file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 18];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(zeros.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    file.sync_all()
}

/// A segment that is written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    len: u64,
    /// Where the next group goes.
    at: u64,
    /// Whether its name is durable.
    is_named: bool,
}

impl Segment {
    /// Makes the segment that begins with record `first`, where no file is prepared.
    ///
    /// # Errors
    /// An I/O error; there is no segment then.
    pub(super) fn create(dir: &Path, len: u64, first: u64) -> io::Result<Self> {
        let path = dir.join("next");
        let file = zero_filled(&path, len)?;
        Self::begin(dir, &path, file, first)
    }

    /// Turns a prepared file into the segment that begins with record `first`. Its name is durable
    /// with its first group, or when it is asked for.
    ///
    /// # Errors
    /// An I/O error; there is no segment then.
    pub(super) fn begin(dir: &Path, spare: &Path, file: File, first: u64) -> io::Result<Self> {
        file.write_all_at(&segment_header(first), 0)?;
        file.sync_all()?;
        let len = file.metadata()?.len();
        let path = dir.join(segment_name(first));
        // INVARIANT: nothing fails after this. Who tries again would take what he made for a
        // segment of somebody else.
        fs::rename(spare, &path)?;
        Ok(Self { path, file, len, at: HEADER_LEN as u64, is_named: false })
    }

    /// Makes its name durable.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn sync_name(&mut self) -> io::Result<()> {
        if !self.is_named {
            sync_dir(self.path.parent().unwrap_or(&self.path))?;
            self.is_named = true;
        }
        Ok(())
    }

    /// Goes on with a segment whose groups end at `at`.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn resume(path: PathBuf, at: u64) -> io::Result<Self> {
        let file = private_file().write(true).read(true).open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self { path, file, len, at, is_named: true })
    }

    /// Whether a group fits.
    pub(super) fn has_room(&self, group: &Group) -> bool {
        self.at.saturating_add(group.framed_len() as u64) <= self.len
    }

    /// Length of the file, in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Writes a group and waits until it is on the disk. After an error the group can be written
    /// again: it goes to the same place.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn append(&mut self, group: &Group) -> io::Result<()> {
        self.sync_name()?;
        // One write, so that a group is not torn by anything but the machine.
        self.file.write_all_at(&group.framed, self.at)?;
        self.file.sync_data()?;
        self.at = self.at.saturating_add(group.framed_len() as u64);
        Ok(())
    }
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The whole groups, in order.
    pub(super) groups: Vec<GroupAt>,
    /// Where they end, in bytes.
    pub(super) end: u64,
    /// Whether a group was begun and not finished after them.
    pub(super) torn: bool,
}

/// Why a segment is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSegment {
    /// It does not begin as the segment of this record.
    #[error("the segment does not begin with record {0}")]
    Header(u64),
    /// A group is not what was written, although later ones are there.
    #[error("record {0} and those after it are not what was written")]
    Group(u64),
}

/// Reads the groups of the segment that begins with record `first`.
///
/// # Errors
/// [`BadSegment`].
pub(super) fn scan(bytes: &[u8], first: u64) -> Result<Scanned, BadSegment> {
    let groups: Vec<_> = groups_of(bytes, first)?.collect();
    let last = groups.last();
    let (end, next) = last.map_or((HEADER_LEN, first), |last| (last.place.end, last.end()));
    let rest = bytes.get(end..).unwrap_or_default();
    if continues(rest, next) {
        return Err(BadSegment::Group(next));
    }
    let torn = claims(rest).is_some_and(|first| first == next);
    Ok(Scanned { groups, end: end as u64, torn })
}

/// Reads the groups of the segment that begins with record `first`, up to the one that ends with the
/// record before `until`. What comes after them may be in the middle of being written.
///
/// # Errors
/// [`BadSegment`].
pub(super) fn scan_until(bytes: &[u8], first: u64, until: u64) -> Result<Vec<GroupAt>, BadSegment> {
    let groups = groups_of(bytes, first)?.take_while(|group| group.first < until);
    let groups: Vec<_> = groups.collect();
    let end = groups.last().map_or(first, GroupAt::end);
    if end == until { Ok(groups) } else { Err(BadSegment::Group(end.min(until))) }
}

/// The groups of the segment that begins with record `first`, up to the first bytes that are none.
///
/// # Errors
/// [`BadSegment::Header`].
fn groups_of(bytes: &[u8], first: u64) -> Result<impl Iterator<Item = GroupAt>, BadSegment> {
    if bytes.get(..HEADER_LEN) != Some(&segment_header(first)[..]) {
        return Err(BadSegment::Header(first));
    }
    let (mut end, mut next) = (HEADER_LEN, first);
    Ok(std::iter::from_fn(move || {
        let group = find_group(bytes, end, next)?;
        (end, next) = (group.place.end, group.end());
        Some(group)
    }))
}

/// The group of record `expected`, if it begins at `at` and is whole.
fn find_group(bytes: &[u8], at: usize, expected: u64) -> Option<GroupAt> {
    let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEADER_LEN>()?;
    if claims(head)? != expected {
        return None;
    }
    let len = u32::from_be_bytes(head.get(20..24)?.try_into().ok()?);
    let body = rest.get(..usize::try_from(len).ok()?)?;
    let leaves = leaves_of(body)?;
    let is_whole = group_header(expected, &leaves, body.len()) == *head && !leaves.is_empty();
    let place = at..at + HEADER_LEN + body.len();
    is_whole.then_some(GroupAt { first: expected, leaves, place })
}

/// The number of the first record of the group that seems to begin here.
fn claims(bytes: &[u8]) -> Option<u64> {
    let first = bytes.strip_prefix(GROUP_MAGIC)?.first_chunk()?;
    Some(u64::from_be_bytes(*first))
}

/// Whether a whole group of later records stands anywhere in these bytes. A file that was a
/// segment before may hold groups of earlier ones.
fn continues(bytes: &[u8], expected: u64) -> bool {
    // A segment is mostly zeros, which are passed over a page at a time.
    let pages =
        bytes.chunks(PAGE).enumerate().filter(|(_, page)| ZEROS.get(..page.len()) != Some(page));
    let mut starts = pages.flat_map(|(number, _)| {
        // What begins here may reach into the next page.
        let start = number * PAGE;
        let page = bytes.get(start..bytes.len().min(start + PAGE + GROUP_MAGIC.len() - 1));
        let windows = page.unwrap_or_default().windows(GROUP_MAGIC.len()).enumerate();
        windows.filter(|(_, window)| window == GROUP_MAGIC).map(move |(at, _)| start + at)
    });
    starts.any(|at| {
        let first = claims(bytes.get(at..).unwrap_or_default());
        first.is_some_and(|first| first > expected && find_group(bytes, at, first).is_some())
    })
}

const PAGE: usize = 4_096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// The segments of a directory by the number of their first record, oldest first.
///
/// # Errors
/// An I/O error.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let first = path.file_name().and_then(|name| {
            let first = name.to_str()?.strip_suffix(".wal")?.parse().ok()?;
            (name.to_str()? == segment_name(first)).then_some(first)
        });
        found.extend(first.map(|first| (first, path)));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::tile::push_record;
    use proptest::prelude::*;

    use super::*;

    fn group(first: u64, records: &[&[u8]]) -> Group {
        let mut bytes = Vec::new();
        for record in records {
            assert!(push_record(&mut bytes, record));
        }
        Group::of(first, &bytes).unwrap()
    }

    fn segment(first: u64, groups: &[Group]) -> Vec<u8> {
        let mut bytes = segment_header(first).to_vec();
        for group in groups {
            bytes.extend_from_slice(&group.framed);
        }
        bytes
    }

    fn three() -> Vec<u8> {
        let groups = [group(5, &[b"a", b"b"]), group(7, &[b"c"]), group(8, &[b"", b"d"])];
        segment(5, &groups)
    }

    fn ends(bytes: &[u8]) -> Result<(u64, bool), BadSegment> {
        let scanned = scan(bytes, 5)?;
        Ok((scanned.groups.last().map_or(5, GroupAt::end), scanned.torn))
    }

    #[test]
    fn groups_read_back_and_zeros_after_them_are_the_end() {
        assert_eq!(ends(&three()), Ok((10, false)));
        assert_eq!(ends(&[three(), vec![0; 500]].concat()), Ok((10, false)));
        assert_eq!(ends(&segment_header(5)), Ok((5, false)));
    }

    #[test]
    fn groups_up_to_a_record_are_read_while_others_are_being_written() {
        let until = |bytes: &[u8], until| {
            let groups = scan_until(bytes, 5, until);
            groups.map(|groups| groups.last().map_or(5, GroupAt::end))
        };
        let last = three().len() - group(8, &[b"", b"d"]).framed_len();
        let half = [&three()[..last + 43], &[0; 100]].concat();
        for bytes in [&three(), &half] {
            assert_eq!([5, 7, 8].map(|end| until(bytes, end)), [Ok(5), Ok(7), Ok(8)]);
        }
        assert_eq!(until(&three(), 10), Ok(10));
        assert_eq!(until(&half, 10), Err(BadSegment::Group(8)));
        // The end of a group and no other.
        assert_eq!(until(&three(), 6), Err(BadSegment::Group(6)));
        assert_eq!(scan_until(&three(), 6, 7), Err(BadSegment::Header(6)));
    }

    #[test]
    fn groups_of_a_file_that_was_a_segment_before_are_not_taken() {
        let stale = segment(1, &[group(1, &[b"x"]), group(2, &[b"y"])]);
        let mut bytes = three();
        bytes.extend_from_slice(&stale[HEADER_LEN..]);
        assert_eq!(ends(&bytes), Ok((10, false)));
    }

    #[test]
    fn a_segment_of_another_record_is_refused() {
        assert_eq!(scan(&three(), 6).unwrap_err(), BadSegment::Header(6));
        assert_eq!(scan(b"", 5).unwrap_err(), BadSegment::Header(5));
    }

    #[test]
    fn a_torn_last_group_is_cut_at_every_length() {
        let bytes = three();
        let last = bytes.len() - group(8, &[b"", b"d"]).framed_len();
        for cut in last..bytes.len() {
            let zeros = vec![0; 100];
            assert_eq!(ends(&[&bytes[..cut], &zeros].concat()).unwrap().0, 8, "{cut}");
        }
        assert!(ends(&bytes[..bytes.len() - 1]).unwrap().1);
    }

    #[test]
    fn a_changed_byte_before_the_last_group_is_found_with_its_record() {
        let bytes = three();
        let last = bytes.len() - group(8, &[b"", b"d"]).framed_len();
        for at in HEADER_LEN..last {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let first = if at < last - HEADER_LEN - 3 { 5 } else { 7 };
            assert_eq!(scan(&changed, 5).unwrap_err(), BadSegment::Group(first), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_scan_fail(bytes: Vec<u8>) {
            let _ = scan(&[&segment_header(5)[..], &bytes].concat(), 5);
        }
    }
}
