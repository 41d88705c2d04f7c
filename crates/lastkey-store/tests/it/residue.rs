//! What was deleted or replaced is in no file any more once the residue was erased.

use std::collections::HashSet;
use std::path::Path;

use lastkey_crypto::entropy::Entropy as _;
use lastkey_store::Backend as _;
use lastkey_store::sqlite::SqliteStore;
use lastkey_testkit::entropy::Seeded;

use crate::raw;

const MARK_LEN: usize = 16;

type Mark = [u8; MARK_LEN];

/// A value of this length that has one random mark in every place.
fn marked(entropy: &mut Seeded, len: usize) -> Vec<u8> {
    let mut mark = [0; MARK_LEN];
    entropy.fill(&mut mark).unwrap();
    mark.into_iter().cycle().take(len).collect()
}

fn mark_of(value: &[u8]) -> Mark {
    value[..MARK_LEN].try_into().unwrap()
}

/// Marks that are found anywhere in the files of a directory.
fn found(dir: &Path, marks: &HashSet<Mark>) -> usize {
    // Most places are passed over by their first two bytes; hashing them all takes seconds.
    let start = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut starts = vec![false; 1 << 16];
    marks.iter().for_each(|mark| starts[start(mark)] = true);
    let mut hits = HashSet::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let likely = bytes.windows(MARK_LEN).filter(|window| starts[start(window)]);
        hits.extend(likely.map(mark_of).filter(|mark| marks.contains(mark)));
    }
    hits.len()
}

/// How long the values are: within a page, of many sizes, and on pages of their own.
const LENGTHS: [usize; 6] = [64, 100, 400, 777, 1_500, 9_000];

#[tokio::test]
async fn deleted_and_replaced_values_are_in_no_file_after_the_residue_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (gone, kept) = fill(&store).await;
    assert!(found(dir.path(), &gone) > 0, "the search finds nothing");
    let last = store.commit(Vec::new()).await.unwrap();
    assert_eq!(store.erase_residue().await.unwrap(), last);
    assert_eq!(found(dir.path(), &gone), 0);
    assert_eq!(found(dir.path(), &kept), kept.len());
    for n in 0..VALUES {
        let stored = store.get(&path(n)).await.unwrap();
        assert_eq!(stored.is_some(), n % 3 != 0);
        assert!(stored.is_none_or(|s| kept.contains(&mark_of(&s.value))));
    }
}

const VALUES: usize = 600;

/// In an order that makes SQLite move values between pages.
fn path(n: usize) -> String {
    format!("version/{:04}", n * 7_919 % VALUES)
}

/// Writes values, then deletes a third of them and replaces another; answers the marks of those
/// that are gone and of those that are there.
async fn fill(store: &SqliteStore) -> (HashSet<Mark>, HashSet<Mark>) {
    let mut entropy = Seeded::new(4);
    let mut values = vec![Vec::new(); VALUES];
    let mut gone = HashSet::new();
    for (n, value) in values.iter_mut().enumerate() {
        *value = marked(&mut entropy, LENGTHS[n % LENGTHS.len()]);
        store.commit(vec![raw(&path(n), None, Some(value))]).await.unwrap();
    }
    for (n, value) in values.iter_mut().enumerate().filter(|(n, _)| n % 3 != 2) {
        gone.insert(mark_of(value));
        *value = marked(&mut entropy, LENGTHS[n / 3 % LENGTHS.len()]);
        let new = (n % 3 == 1).then_some(&value[..]);
        store.commit(vec![raw(&path(n), Some(1), new)]).await.unwrap();
    }
    let kept = values.iter().enumerate().filter(|(n, _)| n % 3 != 0);
    (gone, kept.map(|(_, value)| mark_of(value)).collect())
}
