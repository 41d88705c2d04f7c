//! After a restore: what a seal opens of a backup, and what must not come back with it.
//!
//! Room      `service`.
//! Source    docs/formats/backup.md, "Restore".
//! Holds     a backup is believed only under seals that its root key has authenticated. A key that
//!           was destroyed after the backup was made has no material in the restored store.

use lastkey_core::audit::note::NoteKey;
use lastkey_core::backup::{BACKUP_PURPOSE, BackupHead, BackupId, Tombstone, Written};
use lastkey_core::ids::{RequestId, VersionNo};
use lastkey_core::key::Key;
use lastkey_core::ports::{Expected, RecordKeys, Revision, Store, StoreError, Write};
use lastkey_core::record::{Due, DueWhat, PathRange, Record, RecordPath};
use lastkey_core::state::State;
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_secret::SecretArray;

use crate::custody::Custody;
use crate::engine::Ports;
use crate::error::Error;
use crate::ops::change_version::erasure_after;
use crate::root::KeyringKeys;
use crate::seal_authority::CHANGED;
use crate::sealing::audit_operator;
use crate::seals::OpenSeal;

/// What a seal gives of a backup.
pub struct OpenBackup {
    /// Its key.
    pub key: SecretArray<32>,
    /// Opens the records in it.
    pub records: RecordKeys,
    /// The key that must have signed it.
    pub log_key: NoteKey,
}

/// Opens a backup by a seal that opens.
///
/// # Errors
/// [`Error::SealRefused`] when its root key has not authenticated these seals;
/// [`Error::Unauthenticated`] when the key of the backup is not wrapped for this seal;
/// [`Error::Internal`].
pub fn open_backup(head: &BackupHead, open: &OpenSeal) -> Result<OpenBackup, Error> {
    if !Custody::is_root_of(open.root(), &head.bootstrap) {
        return Err(Error::SealRefused(CHANGED.into()));
    }
    let wrapped = head.wrapped_for(&open.id()).ok_or(Error::Unauthenticated)?;
    let key = open.unwrap(BACKUP_PURPOSE, &head.id.0, wrapped);
    let key = key.map_err(|_| Error::Unauthenticated)?;
    let keys = open.root().open_keyring(&head.bootstrap).map_err(Error::Internal)?;
    let KeyringKeys { records, log, .. } = keys;
    Ok(OpenBackup { key, records, log_key: log.log.key().clone() })
}

/// Notes in a store that it was restored, and from what.
///
/// # Errors
/// [`StoreError`].
pub async fn note_restored(
    store: &dyn Store,
    id: BackupId,
    written: Written,
    now: Timestamp,
) -> Result<(), StoreError> {
    let path = RecordPath::backup(id);
    let Some(stored) = store.get(&path).await? else { return Ok(()) };
    let Record::Backup(mut record) = stored.record else {
        return Err(StoreError::Corrupt(path));
    };
    (record.written, record.proven_at, record.problem) = (Some(written), Some(now), None);
    let (expected, record) = (Expected::At(stored.revision), Some(Record::Backup(record)));
    store.commit(vec![Write { path, expected, record }]).await.map(|_| ())
}

/// Records in the restored log that it was restored.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn audit_restored(ports: &Ports, id: BackupId) -> Result<(), Error> {
    let mut request = [0; 16];
    let drawn = ports.entropy.open().fill(&mut request);
    drawn.map_err(|error| Error::Internal(error.into()))?;
    let target = format!("backup/{id}");
    audit_operator(ports, RequestId(request), "sys:Restore", "ok", Some(&target)).await
}

/// Destroys in a restored store what was destroyed since; answers how many keys and versions it
/// was. Remembers also what is not in the store: a later backup or the old ones may have it.
///
/// # Errors
/// [`StoreError`].
pub async fn bury(store: &dyn Store, tombstones: &[Tombstone]) -> Result<usize, StoreError> {
    let elapsed = match store.get(&RecordPath::clock()).await?.map(|stored| stored.record) {
        Some(Record::Clock(clock)) => clock.elapsed,
        Some(_) | None => Elapsed(0),
    };
    let mut buried = 0_usize;
    for tombstone in tombstones {
        let mut batch = Vec::new();
        match tombstone.version {
            Some(number) => bury_version(store, tombstone, number, &mut batch).await?,
            None => bury_key(store, tombstone, &mut batch).await?,
        }
        if !batch.is_empty() {
            buried = buried.saturating_add(1);
            let due = Due { at: erasure_after(elapsed), what: DueWhat::Erase, key: tombstone.key };
            put_if_absent(store, RecordPath::due(due), Record::Due(due), &mut batch).await?;
        }
        remember(store, tombstone, &mut batch).await?;
        if !batch.is_empty() {
            store.commit(batch).await?;
        }
    }
    Ok(buried)
}

async fn bury_version(
    store: &dyn Store,
    tombstone: &Tombstone,
    number: VersionNo,
    batch: &mut Vec<Write>,
) -> Result<(), StoreError> {
    let path = RecordPath::version(tombstone.key, number);
    let Some(stored) = store.get(&path).await? else { return Ok(()) };
    // A number is given again after a restore: this version is not the one that was destroyed.
    if matches!(&stored.record, Record::Version(v) if v.created_at > tombstone.destroyed_at) {
        return Ok(());
    }
    destroy(stored.path, stored.revision, stored.record, tombstone.destroyed_at, batch)?;
    let path = RecordPath::key(tombstone.key);
    let Some(stored) = store.get(&path).await? else { return Ok(()) };
    let Record::Key(mut key) = stored.record else { return Err(StoreError::Corrupt(path)) };
    // What the backup has for the primary version was superseded before it was destroyed.
    if key.primary == Some(number) {
        key.primary = None;
        let (expected, record) = (Expected::At(stored.revision), Some(Record::Key(key)));
        batch.push(Write { path, expected, record });
    }
    Ok(())
}

/// Notes a tombstone, with the later time when there is one already.
async fn remember(
    store: &dyn Store,
    tombstone: &Tombstone,
    batch: &mut Vec<Write>,
) -> Result<(), StoreError> {
    let path = RecordPath::tombstone(tombstone.key, tombstone.version);
    let mut expected = Expected::Absent;
    if let Some(stored) = store.get(&path).await? {
        let Record::Tombstone(known) = stored.record else { return Err(StoreError::Corrupt(path)) };
        if known.destroyed_at >= tombstone.destroyed_at {
            return Ok(());
        }
        expected = Expected::At(stored.revision);
    }
    batch.push(Write { path, expected, record: Some(Record::Tombstone(*tombstone)) });
    Ok(())
}

async fn bury_key(
    store: &dyn Store,
    tombstone: &Tombstone,
    batch: &mut Vec<Write>,
) -> Result<(), StoreError> {
    let path = RecordPath::key(tombstone.key);
    let Some(stored) = store.get(&path).await? else { return Ok(()) };
    let Record::Key(mut key) = stored.record else { return Err(StoreError::Corrupt(path)) };
    if key.state == State::Destroyed {
        return Ok(());
    }
    for path in loose_ends(store, &key).await? {
        if let Some(end) = store.get(&path).await? {
            batch.push(Write { path, expected: Expected::At(end.revision), record: None });
        }
    }
    for version in store.scan(&PathRange::versions(key.id, None, usize::MAX)).await? {
        let (path, revision) = (version.path, version.revision);
        destroy(path, revision, version.record, tombstone.destroyed_at, batch)?;
    }
    key.state = State::Destroyed;
    key.destroyed_at = Some(tombstone.destroyed_at);
    (key.destruction, key.primary, key.rotation) = (None, None, None);
    key.aliases.clear();
    let (expected, record) = (Expected::At(stored.revision), Some(Record::Key(key)));
    batch.push(Write { path, expected, record });
    Ok(())
}

/// What hangs on a key and goes with it: aliases, what is due, import parameters.
async fn loose_ends(store: &dyn Store, key: &Key) -> Result<Vec<RecordPath>, StoreError> {
    let due = |what, at| RecordPath::due(Due { at, what, key: key.id });
    let mut paths: Vec<_> = key.aliases.iter().map(RecordPath::alias).collect();
    paths.extend(key.rotation.as_ref().map(|rotation| due(DueWhat::Rotate, rotation.due)));
    paths.extend(key.destruction.as_ref().map(|end| due(DueWhat::Destroy, end.due)));
    let import = RecordPath::import(key.id);
    if let Some(stored) = store.get(&import).await?
        && let Record::Import(session) = stored.record
    {
        paths.extend([import, due(DueWhat::ExpireImport, session.expires)]);
    }
    Ok(paths)
}

fn destroy(
    path: RecordPath,
    revision: Revision,
    record: Record,
    at: Timestamp,
    batch: &mut Vec<Write>,
) -> Result<(), StoreError> {
    let Record::Version(mut version) = record else { return Err(StoreError::Corrupt(path)) };
    if version.state == State::Destroyed {
        return Ok(());
    }
    (version.state, version.material, version.destroyed_at) = (State::Destroyed, None, Some(at));
    let (expected, record) = (Expected::At(revision), Some(Record::Version(version)));
    batch.push(Write { path, expected, record });
    Ok(())
}

async fn put_if_absent(
    store: &dyn Store,
    path: RecordPath,
    record: Record,
    batch: &mut Vec<Write>,
) -> Result<(), StoreError> {
    if store.get(&path).await?.is_none() {
        batch.push(Write { path, expected: Expected::Absent, record: Some(record) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lastkey_core::version::KeyVersion;
    use lastkey_testkit::fakes::FakeStore;
    use lastkey_testkit::fixtures;

    use super::*;

    /// After everything in fixtures.
    const LATER: Timestamp = Timestamp(1_900_000_000);

    fn put(path: RecordPath, record: Record) -> Write {
        Write { path, expected: Expected::Absent, record: Some(record) }
    }

    fn version(key: u64, number: u32) -> Write {
        let version = fixtures::key_version(key, number);
        put(RecordPath::version(version.key, version.number), Record::Version(version))
    }

    async fn stored_version(store: &FakeStore, key: u64, number: u32) -> KeyVersion {
        let path = RecordPath::version(fixtures::key_id(key), fixtures::version_no(number));
        let record = store.get(&path).await.unwrap().unwrap().record;
        let Record::Version(version) = record else { panic!("{record:?}") };
        version
    }

    #[tokio::test]
    async fn what_was_destroyed_since_comes_back_without_material() {
        let store = FakeStore::default();
        let (first, second) = (fixtures::key(1), fixtures::key(2));
        let alias = lastkey_core::ids::AliasName::parse("alias/app").unwrap();
        let first = Key { aliases: vec![alias.clone()], ..first };
        let batch = vec![
            put(RecordPath::key(first.id), Record::Key(first.clone())),
            put(RecordPath::key(second.id), Record::Key(second.clone())),
            put(RecordPath::alias(&alias), Record::Alias(first.id)),
            version(1, 1),
            version(2, 1),
            version(2, 2),
        ];
        store.commit(batch).await.unwrap();
        let tombstone = |key: u64, version| Tombstone {
            key: fixtures::key_id(key),
            version: VersionNo::new(version),
            destroyed_at: LATER,
        };
        let all = [tombstone(1, 0), tombstone(2, 1), tombstone(3, 0)];
        assert_eq!(bury(&store, &all).await.unwrap(), 2);
        let gone = stored_version(&store, 1, 1).await;
        assert_eq!(
            (gone.state, gone.material, gone.destroyed_at),
            (State::Destroyed, None, Some(LATER))
        );
        assert_eq!(stored_version(&store, 2, 1).await.material, None);
        assert!(stored_version(&store, 2, 2).await.material.is_some());
        let key = store.get(&RecordPath::key(first.id)).await.unwrap().unwrap().record;
        let Record::Key(key) = key else { panic!("{key:?}") };
        assert_eq!((key.state, key.primary), (State::Destroyed, None));
        assert!(store.get(&RecordPath::alias(&alias)).await.unwrap().is_none());
        // Once more changes nothing.
        assert_eq!(bury(&store, &all).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_primary_version_that_was_destroyed_is_none_any_more() {
        let (store, key) = (FakeStore::default(), fixtures::key(1));
        let batch = vec![put(RecordPath::key(key.id), Record::Key(key.clone())), version(1, 1)];
        store.commit(batch).await.unwrap();
        let version = Some(VersionNo::FIRST);
        let tombstone = Tombstone { key: key.id, version, destroyed_at: LATER };
        assert_eq!(bury(&store, &[tombstone]).await.unwrap(), 1);
        let after = store.get(&RecordPath::key(key.id)).await.unwrap().unwrap().record;
        assert_eq!(after, Record::Key(Key { primary: None, ..key }));
    }

    #[tokio::test]
    async fn what_the_backup_does_not_know_is_remembered_and_spares_a_number_given_again() {
        let store = FakeStore::default();
        store.commit(vec![version(2, 2)]).await.unwrap();
        let before = Timestamp(fixtures::key_version(2, 2).created_at.0 - 1);
        let gone = |destroyed_at| {
            [
                Tombstone { key: fixtures::key_id(1), version: None, destroyed_at },
                Tombstone { key: fixtures::key_id(2), version: VersionNo::new(2), destroyed_at },
            ]
        };
        assert_eq!(bury(&store, &gone(before)).await.unwrap(), 0);
        assert!(stored_version(&store, 2, 2).await.material.is_some());
        let remembered = async || {
            let found = store.scan(&PathRange::kind("tombstone", None, 9)).await.unwrap();
            found.into_iter().map(|stored| stored.record).collect::<Vec<_>>()
        };
        assert_eq!(remembered().await, gone(before).map(Record::Tombstone));
        // The new one was destroyed too.
        assert_eq!(bury(&store, &gone(LATER)).await.unwrap(), 1);
        assert_eq!(stored_version(&store, 2, 2).await.material, None);
        assert_eq!(remembered().await, gone(LATER).map(Record::Tombstone));
    }
}
