//! Residue: old values that etcd does not answer any more, and that still lie on its disk.
//!
//! Room      `checks`.
//! Source    etcd's `mvccpb.KeyValue` (pages of bbolt) and `etcdserverpb.PutRequest` (write-ahead
//!           log): both hold the key, and behind it the value.
//! Holds     Bytes are searched as they lie there, torn pages included. Memory is bounded by
//!           [`WINDOW_LEN`], whatever lengths the bytes claim. A value is counted only when it
//!           begins as an API server writes it.

use std::{
    collections::HashSet,
    io::{self, Read},
    ops::Range,
};

use memchr::memmem;
use serde::Serialize;

use super::{Coverage, CoverageReport, Expected, Totals};
use crate::snapshot::stored::{SEALED, varint};

/// Bytes that are looked at together: the longest value is within.
const WINDOW_LEN: usize = 8 << 20;
/// The longest object of an API server with its key: etcd takes 1.5 MiB.
const SPAN_LEN: usize = 2 << 20;
/// How a Secret of the core group begins as protobuf.
const SECRET: &[u8] = b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret";

/// What lies where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Residue {
    /// Older revisions, until compaction.
    pub history: Totals,
    /// Pages that no key leads to, until defragmentation.
    pub free_pages: Totals,
    /// The write-ahead log, until its files are rolled away; none when nobody named it.
    pub wal: Option<Totals>,
}

impl Residue {
    /// Values in the clear, of other providers, under old keys, and those that are damaged: what
    /// is left of them was sealed under nobody knows what.
    #[must_use]
    pub fn count(&self) -> u64 {
        let parts = [Some(self.history), Some(self.free_pages), self.wal];
        parts.iter().flatten().map(|part| part.clear + part.stale()).sum()
    }
}

impl CoverageReport {
    /// What old values are held against: the keys and resources of this report.
    #[must_use]
    pub fn pinned(&self) -> Expected {
        let current = || self.keys.iter().filter(|key| key.current);
        let required = self.resources.iter().filter(|row| row.required);
        let mut key_ids: Vec<String> = current().map(|key| key.key_id.clone()).collect();
        if key_ids.is_empty() {
            // No object has this one: else the newest old value would say what is current.
            key_ids.push(String::new());
        }
        Expected {
            providers: current().map(|key| key.provider.clone()).collect(),
            key_ids,
            resources: required.map(|row| row.resource.clone()).collect(),
        }
    }
}

/// The longest length in front of a key: a tag, and two bytes.
const PREFIX_LEN: usize = 3;

/// Finds values below `registry` in raw bytes, and counts them.
///
/// # Errors
/// [`ScanError`].
pub fn scan(source: &mut dyn Read, registry: &str, found: &mut Coverage) -> Result<(), ScanError> {
    let needle = format!("{}/", registry.trim_end_matches('/'));
    let (mut window, mut values, mut from) = (Vec::new(), HashSet::new(), 0);
    loop {
        let room = WINDOW_LEN.saturating_sub(window.len()) as u64;
        let is_end = (&mut *source).take(room).read_to_end(&mut window)? == 0;
        // What begins near the end is looked at when the rest is there too.
        let border = if is_end { window.len() } else { window.len().saturating_sub(SPAN_LEN) };
        let border = border.max(from);
        look(&window, from..border, needle.as_bytes(), &mut values, found)?;
        if is_end {
            return Ok(());
        }
        // What stands right in front of the border is the length of a key that begins there.
        from = border.min(PREFIX_LEN);
        let gone = border - from;
        window.drain(..gone);
        // A value behind the border whose key was before it is counted already.
        values = values.iter().filter_map(|at: &usize| at.checked_sub(gone)).collect();
    }
}

/// Why bytes could not be searched.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Reading failed.
    #[error("the bytes cannot be read")]
    Io(#[from] io::Error),
    /// See there.
    #[error(transparent)]
    TooMany(#[from] super::TooMany),
}

fn look(
    window: &[u8],
    within: Range<usize>,
    needle: &[u8],
    values: &mut HashSet<usize>,
    found: &mut Coverage,
) -> Result<(), ScanError> {
    let found_within = |needle| {
        let all = memmem::find_iter(window, needle).skip_while(|at| *at < within.start);
        all.take_while(|at| *at < within.end)
    };
    for at in found_within(needle) {
        if let Some((key, value, start)) = pair(window, at) {
            values.insert(start);
            found.take(key, value, 0)?;
        }
    }
    // A Secret whose key was overwritten: nobody knows its name, and everybody its content.
    for at in found_within(SECRET) {
        if !values.contains(&at) {
            let key = [needle, b"secrets/?"].concat();
            found.take(&key, window.get(at..at + SECRET.len()).unwrap_or_default(), 0)?;
        }
    }
    Ok(())
}

/// Key and value of the message whose key begins here, and where the value begins.
fn pair(window: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let (before, rest) = window.split_at_checked(at)?;
    let key = rest.get(..key_len(before)?)?;
    let mut rest = rest.get(key.len()..)?;
    loop {
        match varint(&mut rest)? {
            // Revisions and the count of writes.
            0x10 | 0x18 | 0x20 => drop(varint(&mut rest)?),
            // The value of a KeyValue, of a PutRequest.
            0x2a | 0x12 => break,
            _ => return None,
        }
    }
    let len = usize::try_from(varint(&mut rest)?).ok()?;
    // What a torn page lost is lost; the beginning tells how the value was sealed.
    let value = rest.get(..len.min(rest.len()))?;
    let is_value =
        value.starts_with(SEALED) || value.starts_with(b"k8s\0") || value.starts_with(b"{");
    is_value.then_some((key, value, window.len() - rest.len()))
}

/// The length in front of a key: `0a` and one or two bytes.
fn key_len(before: &[u8]) -> Option<usize> {
    match *before {
        [.., 0x0a, len] if len < 0x80 => Some(usize::from(len)),
        [.., 0x0a, low, high] if low >= 0x80 && high < 0x80 => {
            Some(usize::from(low & 0x7f) | usize::from(high) << 7)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Coverage, Expected, Residue, SECRET, SPAN_LEN, Totals, WINDOW_LEN, scan};
    use crate::coverage::REGISTRY;

    fn message(key: &str, value: &[u8], tag: u8) -> Vec<u8> {
        let mut bytes = vec![0x0a];
        let len = |mut len: usize, bytes: &mut Vec<u8>| {
            while len > 0x7f {
                bytes.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
                len >>= 7;
            }
            bytes.push(u8::try_from(len).unwrap());
        };
        len(key.len(), &mut bytes);
        bytes.extend_from_slice(key.as_bytes());
        if tag == 0x2a {
            bytes.extend_from_slice(&[0x10, 0x81, 0x01, 0x18, 5, 0x20, 1]);
        }
        bytes.push(tag);
        len(value.len(), &mut bytes);
        bytes.extend_from_slice(value);
        bytes
    }

    fn clear(bytes: &[u8]) -> u64 {
        let mut found = Coverage::new(REGISTRY);
        scan(&mut &*bytes, REGISTRY, &mut found).unwrap();
        found.report(&Expected::default()).totals.clear
    }

    #[test]
    fn values_are_found_in_pages_logs_and_torn_pieces() {
        let long = format!("/registry/secrets/a/{}", "x".repeat(150));
        for (bytes, count) in [
            (message("/registry/secrets/a/b", b"k8s\0x", 0x2a), 1),
            (message("/registry/secrets/a/b", b"k8s\0x", 0x12), 1),
            (message(&long, SECRET, 0x12), 1),
            (message("/registry/secrets/a/b", b"random", 0x12), 0),
            (message("/registry/pods/a/b", b"k8s\0x", 0x12), 0),
            ([&[0; 100], SECRET, &[0; 9]].concat(), 1),
            (b"/registry/secrets/a/b".to_vec(), 0),
        ] {
            assert_eq!(clear(&bytes), count, "{bytes:?}");
            let inside = [&[7; 5_000], &bytes[..], &[7; 5_000]].concat();
            assert_eq!(clear(&inside), count);
        }
        let whole = message("/registry/secrets/a/b", b"k8s\0 and more", 0x2a);
        assert_eq!(clear(&whole[..whole.len() - 6]), 1, "the end is torn off");
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_at_the_borders_of_the_window() {
        let one = message("/registry/secrets/a/b", SECRET, 0x2a);
        for at in [WINDOW_LEN - SPAN_LEN - 20, WINDOW_LEN - SPAN_LEN, WINDOW_LEN - 10] {
            let mut bytes = vec![7; at];
            bytes.extend_from_slice(&one);
            bytes.resize(2 * WINDOW_LEN, 7);
            assert_eq!(clear(&bytes), 1, "{at}");
        }
    }

    #[test]
    fn key_whose_length_lies_before_the_border_is_found_once() {
        let long = format!("/registry/secrets/a/{}", "x".repeat(150));
        for key in ["/registry/secrets/a/b", &long] {
            let one = message(key, b"k8s\0x", 0x12);
            for at in WINDOW_LEN - SPAN_LEN - 6..WINDOW_LEN - SPAN_LEN + 3 {
                let mut bytes = vec![7; at];
                bytes.extend_from_slice(&one);
                bytes.resize(WINDOW_LEN + 100, 7);
                assert_eq!(clear(&bytes), 1, "{at}");
            }
        }
    }

    #[test]
    fn old_value_is_not_current_where_no_key_is() {
        let sealed = b"k8s:enc:kms:v2:p:\x0a\x02dd\x12\x02k1\x1a\x03src\x28\x01";
        let mut now = Coverage::new(REGISTRY);
        now.take(b"/registry/secrets/a/b", b"k8s\0x", 2).unwrap();
        let pinned = now.report(&Expected::default()).pinned();
        let mut old = Coverage::new(REGISTRY);
        old.take(b"/registry/secrets/a/b", sealed, 1).unwrap();
        let history = old.report(&pinned).totals;
        assert_eq!((history.current, history.stale()), (0, 1));
    }

    #[test]
    fn damaged_values_are_left_over_too() {
        let history = Totals { objects: 1, damaged: 1, ..Totals::default() };
        assert_eq!(Residue { history, ..Residue::default() }.count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_counts(noise: Vec<u8>, cut in 0_usize..60) {
            let one = message("/registry/secrets/a/b", b"k8s\0x", 0x2a);
            let bytes = [&noise[..], &one[..cut.min(one.len())], &noise].concat();
            let _ = clear(&bytes);
        }
    }
}
