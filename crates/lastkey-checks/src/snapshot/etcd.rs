//! An etcd snapshot: its revisions, and how the values in it are encrypted.
//!
//! Room      `checks`. Reads from any `Read + Seek`; the file may be larger than memory.
//! Source    bbolt's bucket `key` as etcd writes it (go.etcd.io/etcd: server/mvcc/revision.go).
//! Holds     No value is kept, only its class. What is remembered of a key is 16 bytes.

use std::{
    collections::{BTreeMap, HashSet},
    io::{Read, Seek},
};

use aws_lc_rs::digest;

use super::{
    bolt::{Bolt, Walk},
    stored::{EncryptedObject, KeyValue, owner, prefix},
};

pub use super::{
    bolt::{EtcdError, MAX_PAGE_LEN},
    stored::{Class, classify},
};

const SAMPLE_LEN: usize = 5;
const REGISTRY: &str = "/registry";

/// Some objects of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// The first few by name.
    pub sample: Vec<String>,
}

/// What a snapshot says.
#[derive(Clone, Debug, Default)]
pub struct EtcdFacts {
    /// Newest revisions of Secrets by class.
    pub secrets: BTreeMap<Class, Count>,
    /// Newest revisions of ConfigMaps by class.
    pub config_maps: BTreeMap<Class, Count>,
    /// Older revisions of Secrets that still lie in the file in the clear.
    pub clear_history: u64,
    /// Secrets by the key id of KMS v2 that seals them.
    pub key_ids: BTreeMap<String, u64>,
    /// All revisions seen.
    pub keys: u64,
}

/// One revision of a key, as it lies in a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    /// Key and value.
    pub record: KeyValue<'a>,
    /// Whether no later one of this key is there.
    pub is_newest: bool,
    /// Whether this one deleted the key.
    pub is_deletion: bool,
}

/// The revisions of a snapshot, the newest first.
pub struct Revisions<S> {
    file: Bolt<S>,
    walk: Walk,
    /// The other buckets: only their pages are of interest.
    others: Vec<Walk>,
    /// Keys that were seen, by the first half of their SHA-256: a collision would hide a key.
    seen: HashSet<[u8; 16]>,
}

impl<S: Read + Seek> Revisions<S> {
    /// Opens a snapshot or a database file that nobody writes to.
    ///
    /// # Errors
    /// [`EtcdError`] when it is no snapshot, truncated or damaged.
    pub fn open(source: S) -> Result<Self, EtcdError> {
        let mut file = Bolt::open(source)?;
        let (mut walk, mut others) = (None, Vec::new());
        for (name, bucket) in file.buckets()? {
            if name == b"key" {
                walk = Some(bucket);
            } else {
                others.push(bucket);
            }
        }
        let walk = walk.ok_or(EtcdError::NoKeys)?;
        Ok(Self { file, walk, others, seen: HashSet::new() })
    }

    /// Sees the revisions of the next page; `false` when there was none.
    ///
    /// # Errors
    /// [`EtcdError`] when a page or a record in it is damaged or cannot be read.
    pub fn next_page(&mut self, see: &mut dyn FnMut(Revision<'_>)) -> Result<bool, EtcdError> {
        let Some(leaf) = self.file.next_leaf(&mut self.walk)? else { return Ok(false) };
        let (seen, mut is_damaged) = (&mut self.seen, false);
        leaf.entries(&mut |entry| {
            let record = KeyValue::parse(entry.value).filter(|record| !record.key.is_empty());
            // Without it an older revision of its key would count as the newest.
            let Some(mut record) = record.filter(|_| !is_damaged) else {
                is_damaged = true;
                return;
            };
            if let Some(main) = entry.key.first_chunk() {
                record.revision = u64::from_be_bytes(*main);
            }
            let is_deletion = entry.key.len() > 17 && entry.key.last() == Some(&b't');
            let is_newest = seen.insert(half_hash(record.key));
            see(Revision { record, is_newest, is_deletion });
        })?;
        if is_damaged { Err(EtcdError::Damaged(leaf.number())) } else { Ok(true) }
    }
}

impl<S: Read + Seek> Revisions<S> {
    /// Sees the pages to which nothing leads any more, a run at a time, once every page of keys
    /// was seen.
    ///
    /// # Errors
    /// What `see` answers, and [`EtcdError`].
    pub fn free_pages<E: From<EtcdError>>(
        mut self,
        see: &mut dyn FnMut(&mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        for walk in &mut self.others {
            while self.file.next_leaf(walk)?.is_some() {}
        }
        for (offset, len) in self.file.unvisited() {
            see(&mut self.file.at(offset, len)?)?;
        }
        Ok(())
    }
}

fn half_hash(bytes: &[u8]) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Reads a snapshot.
///
/// # Errors
/// [`EtcdError`] when it is no snapshot, truncated or damaged.
pub fn read(source: &mut (impl Read + Seek)) -> Result<EtcdFacts, EtcdError> {
    let mut revisions = Revisions::open(source)?;
    let mut facts = EtcdFacts::default();
    while revisions.next_page(&mut |revision| facts.take(revision))? {}
    Ok(facts)
}

impl EtcdFacts {
    fn take(&mut self, revision: Revision<'_>) {
        self.keys += 1;
        let Some(owner) = owner(revision.record.key, REGISTRY) else { return };
        let is_secret = owner.resource == "secrets";
        let class = classify(revision.record.value);
        if !revision.is_newest {
            self.clear_history += u64::from(is_secret && class == Class::Clear);
            return;
        }
        let counts = match owner.resource.as_str() {
            "secrets" => &mut self.secrets,
            "configmaps" => &mut self.config_maps,
            _ => return,
        };
        if revision.is_deletion {
            return;
        }
        if let Some(key_id) = key_id(revision.record.value).filter(|_| is_secret) {
            *self.key_ids.entry(key_id.to_owned()).or_default() += 1;
        }
        counts.entry(class).or_default().add(owner.name);
    }
}

impl Count {
    /// One more; the sample keeps the first names.
    pub(crate) fn add(&mut self, name: String) {
        self.count += 1;
        let at = self.sample.binary_search(&name).unwrap_or_else(|at| at);
        if at < SAMPLE_LEN {
            self.sample.insert(at, name);
            self.sample.truncate(SAMPLE_LEN);
        }
    }
}

fn key_id(stored: &[u8]) -> Option<&str> {
    let prefix = prefix(stored).filter(|prefix| matches!(prefix.class(), Class::Kms2(_)))?;
    EncryptedObject::parse(prefix.body).map(|object| object.key_id)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::{Class, EtcdError, read};

    #[test]
    fn what_is_no_snapshot_is_refused() {
        assert!(matches!(read(&mut Cursor::new(vec![0; 9000])), Err(EtcdError::NotBolt)));
        assert!(matches!(read(&mut Cursor::new(b"short".to_vec())), Err(EtcdError::NotBolt)));
    }

    #[test]
    fn snapshot_of_etcd_is_told_by_classes_and_keys() {
        let mut file = Cursor::new(include_bytes!("../../tests/data/etcd-mixed.db"));
        let facts = read(&mut file).unwrap();
        let counts: Vec<(Class, u64)> =
            facts.secrets.iter().map(|(class, count)| (class.clone(), count.count)).collect();
        let expected = [
            (Class::Clear, 1),
            (Class::Kms2("lastkey".into()), 3),
            (Class::Local("aescbc".into()), 1),
        ];
        assert_eq!(counts, expected);
        assert_eq!(facts.secrets[&Class::Clear].sample, ["shop/clear"]);
        assert_eq!(facts.config_maps[&Class::Clear].count, 1);
        let ids: Vec<(&str, u64)> = facts.key_ids.iter().map(|(id, n)| (id.as_str(), *n)).collect();
        assert_eq!(ids, [("k1", 2), ("k2", 1)]);
        assert_eq!(facts.clear_history, 2);
    }

    #[test]
    fn truncated_snapshot_says_what_is_missing() {
        let bytes = include_bytes!("../../tests/data/etcd-mixed.db");
        let cut = bytes[..bytes.len() - 8192].to_vec();
        assert!(matches!(read(&mut Cursor::new(cut)), Err(EtcdError::Truncated { .. })));
    }

    #[test]
    fn record_that_cannot_be_read_is_damage_and_not_left_out() {
        let whole = include_bytes!("../../tests/data/etcd-mixed.db");
        let before = format!("{:?}", read(&mut Cursor::new(whole)).unwrap());
        let needle = b"/registry/secrets/";
        let mut refused = 0;
        for at in memchr::memmem::find_iter(whole, needle) {
            let mut bytes = whole.to_vec();
            // The tag of the key becomes one that protobuf does not have.
            assert_eq!(bytes[at - 2], 0x0a);
            bytes[at - 2] = 0x0f;
            match read(&mut Cursor::new(bytes)) {
                Err(EtcdError::Damaged(_)) => refused += 1,
                Err(error) => panic!("{error}"),
                Ok(facts) => assert_eq!(format!("{facts:?}"), before, "a page that is free"),
            }
        }
        assert!(refused > 0);
    }

    proptest! {
        #[test]
        fn damaged_snapshots_end_in_facts_or_an_error(at in 0_usize..60_000, byte: u8) {
            let mut bytes = include_bytes!("../../tests/data/etcd-mixed.db").to_vec();
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = read(&mut Cursor::new(bytes));
        }
    }
}
