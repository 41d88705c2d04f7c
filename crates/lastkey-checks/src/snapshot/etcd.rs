//! An etcd snapshot: how the values in it are encrypted.
//!
//! Room      `checks`. Reads from any `Read + Seek`; the file may be larger than memory.
//! Source    bbolt's page layout (go.etcd.io/bbolt: page.go, meta.go), etcd's `mvccpb.KeyValue`,
//!           and the prefixes of the API server (k8s.io/apiserver: storage/value/encrypt).
//! Holds     No value is kept, only its class. Pages that lie are errors: no recursion
//!           without end, no memory for claimed lengths beyond [`MAX_PAGE_LEN`].

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Seek, SeekFrom},
};

/// Longest run of pages that holds one leaf, in bytes.
pub const MAX_PAGE_LEN: u64 = 64 << 20;
const MAX_DEPTH: usize = 64;
const SAMPLE_LEN: usize = 5;

/// How a stored value is protected, by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Protobuf or JSON that everyone can read.
    Clear,
    /// Sealed under a key of the named KMS v2 provider.
    Kms2(String),
    /// Sealed under a key of the named KMS v1 provider.
    Kms1(String),
    /// Sealed under a key that lies in a file: `aescbc`, `aesgcm` or `secretbox`.
    Local(String),
    /// Something else.
    Unknown,
}

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
    /// All keys seen.
    pub keys: u64,
}

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

/// Reads a snapshot.
///
/// # Errors
/// [`EtcdError`] when it is no snapshot, truncated or damaged.
pub fn read(source: &mut (impl Read + Seek)) -> Result<EtcdFacts, EtcdError> {
    let len = source.seek(SeekFrom::End(0))?;
    let meta = newest_meta(source, len)?;
    let want = meta.pages.saturating_mul(meta.page_len);
    if len < want {
        return Err(EtcdError::Truncated { have: len, want });
    }
    let mut file = Bolt { source, page_len: meta.page_len, pages: meta.pages, budget: meta.pages };
    let mut bucket = None;
    file.walk(meta.root, &mut |key, value, is_bucket| {
        if is_bucket && key == b"key" {
            bucket = Some(value.to_vec());
        }
    })?;
    let bucket = bucket.ok_or(EtcdError::NoKeys)?;
    let mut keys = Keys::default();
    match u64_at(&bucket, 0) {
        Some(0) => leaf(bucket.get(16..).unwrap_or_default(), 0, &mut |k, v, _| keys.take(k, v))?,
        Some(root) => file.walk(root, &mut |key, value, _| keys.take(key, value))?,
        None => return Err(EtcdError::NoKeys),
    }
    Ok(keys.facts())
}

struct Meta {
    page_len: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

const MAGIC: u32 = 0xED0C_DAED;
const PAGE_HEADER_LEN: usize = 16;
const META_LEN: usize = 64;

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

struct Bolt<'a, S> {
    source: &'a mut S,
    page_len: u64,
    pages: u64,
    /// Pages that may still be visited: a tree visits none twice.
    budget: u64,
}

/// Sees key, value and whether the value is a bucket.
type See<'a> = &'a mut dyn FnMut(&[u8], &[u8], bool);

const BRANCH: u16 = 1;
const LEAF: u16 = 2;

impl<S: Read + Seek> Bolt<'_, S> {
    /// Visits the entries of a tree in order.
    fn walk(&mut self, root: u64, see: See<'_>) -> Result<(), EtcdError> {
        let mut waiting = vec![(root, 0)];
        while let Some((number, depth)) = waiting.pop() {
            let page = self.page(number)?;
            match u16_at(&page, 8) {
                Some(BRANCH) if depth < MAX_DEPTH => {
                    let children = branch(&page).ok_or(EtcdError::Damaged(number))?;
                    waiting.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
                }
                Some(LEAF) => leaf(&page, number, see)?,
                Some(_) | None => return Err(EtcdError::Damaged(number)),
            }
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> Result<Vec<u8>, EtcdError> {
        self.budget = self.budget.checked_sub(1).ok_or(EtcdError::Damaged(number))?;
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
        let mut page = header.to_vec();
        let rest = len - PAGE_HEADER_LEN as u64;
        self.source.by_ref().take(rest).read_to_end(&mut page)?;
        Ok(page)
    }
}

fn branch(page: &[u8]) -> Option<Vec<u64>> {
    let count = usize::from(u16_at(page, 10)?);
    (0..count).map(|index| u64_at(page, PAGE_HEADER_LEN + index * 16 + 8)).collect()
}

fn leaf(page: &[u8], number: u64, see: See<'_>) -> Result<(), EtcdError> {
    let count = u16_at(page, 10).map(usize::from).ok_or(EtcdError::Damaged(number))?;
    for index in 0..count {
        let (key, value, is_bucket) = entry(page, index).ok_or(EtcdError::Damaged(number))?;
        see(key, value, is_bucket);
    }
    Ok(())
}

fn entry(page: &[u8], index: usize) -> Option<(&[u8], &[u8], bool)> {
    let at = PAGE_HEADER_LEN + index * 16;
    let field = |offset| u32_at(page, at + offset).and_then(|value| usize::try_from(value).ok());
    let start = at.checked_add(field(4)?)?;
    let middle = start.checked_add(field(8)?)?;
    let end = middle.checked_add(field(12)?)?;
    Some((page.get(start..middle)?, page.get(middle..end)?, field(0)? & 1 == 1))
}

/// What is known of the newest revision of a Secret or ConfigMap.
struct Newest {
    class: Class,
    key_id: Option<String>,
}

#[derive(Default)]
struct Keys {
    secrets: HashMap<String, Newest>,
    config_maps: HashMap<String, Newest>,
    clear_history: u64,
    keys: u64,
}

impl Keys {
    /// Takes one revision; they come in order.
    fn take(&mut self, revision: &[u8], value: &[u8]) {
        self.keys += 1;
        let Some(record) = fields(value) else { return };
        let path = String::from_utf8_lossy(record.get(&1).copied().unwrap_or_default());
        let mut segments = path.trim_start_matches('/').splitn(3, '/').skip(1);
        let (resource, name) =
            (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
        let kept = match resource {
            "secrets" => &mut self.secrets,
            "configmaps" => &mut self.config_maps,
            _ => return,
        };
        let before = if revision.last() == Some(&b't') && revision.len() > 17 {
            kept.remove(name)
        } else {
            let stored = record.get(&5).copied().unwrap_or_default();
            kept.insert(name.to_owned(), newest(stored))
        };
        if resource == "secrets" && before.is_some_and(|before| before.class == Class::Clear) {
            self.clear_history += 1;
        }
    }

    fn facts(self) -> EtcdFacts {
        let mut key_ids = BTreeMap::new();
        for key_id in self.secrets.values().filter_map(|newest| newest.key_id.clone()) {
            *key_ids.entry(key_id).or_default() += 1;
        }
        EtcdFacts {
            secrets: count(self.secrets),
            config_maps: count(self.config_maps),
            clear_history: self.clear_history,
            key_ids,
            keys: self.keys,
        }
    }
}

fn count(objects: HashMap<String, Newest>) -> BTreeMap<Class, Count> {
    let mut names: Vec<(String, Newest)> = objects.into_iter().collect();
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut counts: BTreeMap<Class, Count> = BTreeMap::new();
    for (name, newest) in names {
        let count = counts.entry(newest.class).or_default();
        count.count += 1;
        if count.sample.len() < SAMPLE_LEN {
            count.sample.push(name);
        }
    }
    counts
}

fn newest(stored: &[u8]) -> Newest {
    let class = classify(stored);
    let key_id = match &class {
        Class::Kms2(name) => {
            let sealed = stored.get("k8s:enc:kms:v2:".len() + name.len() + 1..).unwrap_or_default();
            fields(sealed).and_then(|fields| {
                fields.get(&2).map(|id| String::from_utf8_lossy(id).into_owned())
            })
        }
        Class::Clear | Class::Kms1(_) | Class::Local(_) | Class::Unknown => None,
    };
    Newest { class, key_id }
}

/// The class of a stored value.
///
/// # Source
/// k8s.io/apiserver: `k8s:enc:PROVIDER:VERSION:NAME:`; `k8s\0` is protobuf in the clear, `{` JSON.
#[must_use]
pub fn classify(stored: &[u8]) -> Class {
    let head = String::from_utf8_lossy(stored.get(..256.min(stored.len())).unwrap_or_default());
    let Some(rest) = head.strip_prefix("k8s:enc:") else {
        let is_clear = stored.starts_with(b"k8s\0") || stored.starts_with(b"{");
        return if is_clear { Class::Clear } else { Class::Unknown };
    };
    let mut parts = rest.splitn(4, ':');
    let (provider, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = parts.next().unwrap_or_default().to_owned();
    match (provider, version) {
        ("kms", "v2") => Class::Kms2(name),
        ("kms", "v1") => Class::Kms1(name),
        ("aescbc" | "aesgcm" | "secretbox", _) => Class::Local(provider.to_owned()),
        _ => Class::Unknown,
    }
}

/// The last value of each length-delimited field of a protobuf message.
fn fields(mut message: &[u8]) -> Option<BTreeMap<u64, &[u8]>> {
    let mut found = BTreeMap::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                found.insert(tag >> 3, message.get(..len)?);
                message = message.get(len..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
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
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::{Class, EtcdError, classify, read};

    #[test]
    fn classes_are_told_by_the_prefix() {
        for (stored, class) in [
            (&b"k8s:enc:kms:v2:lastkey:\x0a\x01x"[..], Class::Kms2("lastkey".into())),
            (b"k8s:enc:kms:v1:old:xx", Class::Kms1("old".into())),
            (b"k8s:enc:aescbc:v1:key1:xx", Class::Local("aescbc".into())),
            (b"k8s\0\x0a\x0c", Class::Clear),
            (b"{\"kind\":1}", Class::Clear),
            (b"k8s:enc:other:v9:", Class::Unknown),
            (b"", Class::Unknown),
        ] {
            assert_eq!(classify(stored), class);
        }
    }

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
