//! Values for pods that start while the service is away.
//!
//! Room      `node`.
//! Holds     In memory alone, sealed under a key of this process, bound to identity, secret and
//!           version. A value is given only to the identity that the service gave it to, as a
//!           verified token says it, and no longer than the bound after that. A refusal of the
//!           service takes away what it is about. Who has many values makes room for his own
//!           first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lastkey_crypto::digest::sha256_of;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::wrap::{WrapError, WrapKey};
use lastkey_secret::{SecretArray, SecretVec};
use tokio::time::Instant;

use super::plan::Source;
use crate::ports::{ReadSecret, ReadValue, Which};

/// Bytes that are kept. The oldest value of whoever has the most goes first.
const MAX_LEN: usize = 64 << 20;
/// Bytes that are kept of one identity, so that nobody takes the place of the others.
const MAX_LEN_OF_ONE: usize = 8 << 20;
/// What a value counts at least, with all that is around it.
const MIN_LEN: usize = 8 << 10;

/// For whom a value was read: what a role is given to, and nothing that another pod of the same
/// account would not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) role: String,
    pub(super) namespace: String,
    pub(super) service_account: String,
}

/// The values.
pub(super) struct Shelf {
    key: WrapKey,
    bound: Duration,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
}

struct Kept {
    identity: Identity,
    sealed: Vec<u8>,
    version: u32,
    made_at: String,
    /// Names of fields and where each ends; none for bytes.
    fields: Option<Vec<(String, usize)>>,
    read_at: Instant,
}

impl Kept {
    fn len(&self) -> usize {
        let names =
            self.fields.iter().flatten().map(|(name, _)| name.len() + size_of::<(String, usize)>());
        (self.sealed.len() + names.sum::<usize>()).max(MIN_LEN)
    }
}

impl Shelf {
    /// An empty one, under a fresh key.
    ///
    /// # Errors
    /// Without randomness.
    pub(super) fn new(bound: Duration) -> Result<Self, WrapError> {
        use lastkey_crypto::entropy::Entropy as _;
        let key = SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes));
        let key = key.map_err(|_| WrapError::Entropy)?;
        Ok(Self { key: WrapKey::new(&key)?, bound, kept: Mutex::default() })
    }

    /// Keeps a value that the service has just given to somebody.
    pub(super) fn put(&self, identity: &Identity, source: &Source, read: &ReadSecret) {
        let place = place(identity, source);
        let (bytes, fields) = joined(&read.value);
        let sealed = bytes.expose(|bytes| self.key.wrap(&place, bytes, &mut SystemEntropy));
        let Ok(sealed) = sealed else { return };
        let kept = Kept {
            identity: identity.clone(),
            sealed,
            version: read.version,
            made_at: read.made_at.clone(),
            fields,
            read_at: Instant::now(),
        };
        let mut all = self.lock();
        all.insert(place, kept);
        while let Some(place) = too_many(&all) {
            all.remove(&place);
        }
    }

    /// A value that this identity was given within the bound.
    pub(super) fn find(&self, identity: &Identity, source: &Source) -> Option<ReadSecret> {
        let place = place(identity, source);
        let mut all = self.lock();
        all.retain(|_, kept| kept.read_at.elapsed() < self.bound);
        let kept = all.get(&place)?;
        let bytes = self.key.unwrap(&place, &kept.sealed).ok()?;
        let value = parted(bytes, kept.fields.as_deref())?;
        let (version, made_at) = (kept.version, kept.made_at.clone());
        Some(ReadSecret { version, made_at, value, ask_after: None })
    }

    /// The service has refused a value.
    pub(super) fn forget(&self, identity: &Identity, source: &Source) {
        self.lock().remove(&place(identity, source));
    }

    /// The service has refused somebody altogether.
    pub(super) fn forget_all(&self, identity: &Identity) {
        self.lock().retain(|_, kept| kept.identity != *identity);
    }

    /// Each change is one call on a map, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What goes first while there is too much of one identity, or of all.
fn too_many(all: &HashMap<[u8; 32], Kept>) -> Option<[u8; 32]> {
    let mut taken: HashMap<&Identity, usize> = HashMap::new();
    for kept in all.values() {
        *taken.entry(&kept.identity).or_default() += kept.len();
    }
    let total: usize = taken.values().sum();
    let (identity, most) = taken.into_iter().max_by_key(|(_, len)| *len)?;
    if most <= MAX_LEN_OF_ONE && total <= MAX_LEN {
        return None;
    }
    let own = all.iter().filter(|(_, kept)| kept.identity == *identity);
    own.min_by_key(|(_, kept)| kept.read_at).map(|(place, _)| *place)
}

fn place(identity: &Identity, source: &Source) -> [u8; 32] {
    let which = match &source.which {
        Which::Stage(stage) => format!("stage\0{stage}"),
        Which::Number(number) => format!("number\0{number}"),
        Which::Account => "account".to_owned(),
    };
    let Identity { role, namespace, service_account } = identity;
    let parts = [role, namespace, service_account, &source.name, &which];
    let parts: Vec<&[u8]> = parts.iter().flat_map(|part| [part.as_bytes(), b"\0"]).collect();
    sha256_of(&parts)
}

fn joined(value: &ReadValue) -> (SecretVec, Option<Vec<(String, usize)>>) {
    match value {
        ReadValue::Opaque(bytes) => (bytes.expose(SecretVec::copy_of), None),
        ReadValue::Fields(fields) => {
            // At its full length from the start: a buffer that grows leaves copies behind.
            let len = fields.values().map(SecretVec::len).sum();
            let (mut all, mut ends) = (Vec::with_capacity(len), Vec::new());
            for (name, value) in fields {
                value.expose(|bytes| all.extend_from_slice(bytes));
                ends.push((name.clone(), all.len()));
            }
            (SecretVec::take(all), Some(ends))
        }
    }
}

fn parted(bytes: SecretVec, fields: Option<&[(String, usize)]>) -> Option<ReadValue> {
    let Some(fields) = fields else { return Some(ReadValue::Opaque(bytes)) };
    bytes.expose(|bytes| {
        let (mut start, mut parts) = (0, BTreeMap::new());
        for (name, end) in fields {
            parts.insert(name.clone(), SecretVec::copy_of(bytes.get(start..*end)?));
            start = *end;
        }
        Some(ReadValue::Fields(parts))
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::current;
    use super::*;

    fn identity(account: &str) -> Identity {
        Identity {
            role: "r".to_owned(),
            namespace: "n".to_owned(),
            service_account: account.to_owned(),
        }
    }

    fn read(text: &str) -> ReadSecret {
        let value = ReadValue::Opaque(SecretVec::copy_of(text.as_bytes()));
        ReadSecret { version: 3, made_at: "t".to_owned(), value, ask_after: None }
    }

    fn text(found: Option<ReadSecret>) -> Option<Vec<u8>> {
        match found?.value {
            ReadValue::Opaque(bytes) => Some(bytes.expose(<[u8]>::to_vec)),
            ReadValue::Fields(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn value_is_for_its_identity_and_secret_alone_and_for_its_time() {
        let shelf = Shelf::new(Duration::from_secs(60)).unwrap();
        let (own, other) = (identity("a"), identity("b"));
        shelf.put(&own, &current("s"), &read("v"));
        assert_eq!(text(shelf.find(&own, &current("s"))).unwrap(), b"v");
        assert!(shelf.find(&other, &current("s")).is_none());
        assert!(shelf.find(&own, &current("t")).is_none());
        let pinned = Source { name: "s".to_owned(), which: Which::Number(3) };
        assert!(shelf.find(&own, &pinned).is_none());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(shelf.find(&own, &current("s")).is_none());
        assert_eq!(shelf.lock().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_much_takes_nobody_elses_place() {
        let shelf = Shelf::new(Duration::from_secs(60)).unwrap();
        let quiet = identity("quiet");
        shelf.put(&quiet, &current("s"), &read("v"));
        let large = read(&"x".repeat(1 << 20));
        for account in 0..9 {
            for secret in 0..9 {
                tokio::time::advance(Duration::from_millis(1)).await;
                let loud = identity(&format!("loud-{account}"));
                shelf.put(&loud, &current(&format!("s{secret}")), &large);
            }
        }
        assert!(shelf.find(&quiet, &current("s")).is_some());
        let newest = shelf.find(&identity("loud-8"), &current("s8"));
        assert!(newest.is_some());
        let total: usize = shelf.lock().values().map(Kept::len).sum();
        assert!(total <= MAX_LEN, "{total}");
        let of_one = |one: &str| {
            let all = shelf.lock();
            let own = all.values().filter(|kept| kept.identity == identity(one));
            own.map(Kept::len).sum::<usize>()
        };
        assert!(of_one("loud-8") <= MAX_LEN_OF_ONE);
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_takes_away_what_it_is_about() {
        let shelf = Shelf::new(Duration::from_secs(60)).unwrap();
        let (own, other) = (identity("a"), identity("b"));
        for who in [&own, &other] {
            shelf.put(who, &current("s"), &read("v"));
            shelf.put(who, &current("t"), &read("v"));
        }
        shelf.forget(&own, &current("s"));
        assert!(shelf.find(&own, &current("s")).is_none());
        assert!(shelf.find(&own, &current("t")).is_some());
        shelf.forget_all(&other);
        assert!(shelf.find(&other, &current("t")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn fields_come_back_and_nothing_lies_there_in_clear() {
        let shelf = Shelf::new(Duration::from_secs(60)).unwrap();
        let fields = [("a", "hunter2"), ("b", ""), ("c", "x")];
        let fields = fields.map(|(name, v)| (name.to_owned(), SecretVec::copy_of(v.as_bytes())));
        let value = ReadValue::Fields(fields.into());
        let secret = ReadSecret { version: 1, made_at: String::new(), value, ask_after: None };
        shelf.put(&identity("a"), &current("s"), &secret);
        let found = shelf.find(&identity("a"), &current("s")).unwrap();
        let ReadValue::Fields(found) = found.value else { panic!() };
        assert_eq!(found.len(), 3);
        assert!(found["a"].ct_eq(&SecretVec::copy_of(b"hunter2")) && found["b"].is_empty());
        let all = shelf.lock();
        assert!(all.values().all(|kept| !kept.sealed.windows(7).any(|part| part == b"hunter2")));
    }
}
