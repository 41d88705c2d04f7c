//! Use cases: make a backup and prove it, list, and remove; what a backup needs of the seals.
//!
//! Room      `service`.
//! Source    docs/formats/backup.md; docs/backup.md.
//! Holds     a backup is on record before its first byte is, so that nothing that it may hold is
//!           called erased; it counts only after its trial restore. One at a time. Its key and
//!           those of the trial end with the server's being unsealed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lastkey_core::audit::note::{NoteKey, NoteSigner};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::backup::{
    BACKUP_PURPOSE, BackupError, BackupHead, BackupId, BackupOrder, BackupPlace, BackupRecord,
    BackupState, Stop, Tombstone, Trial,
};
use lastkey_core::backup_folder::is_in_bucket;
use lastkey_core::ids::RequestId;
use lastkey_core::permit::{CreateBackup, ReadBackups, RemoveBackup, Resource};
use lastkey_core::ports::{Expected, RecordKeys, Revision, StoreError, Write};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_secret::SecretArray;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::{KeyringKeys, draw_id, draw_secret, log_signers};
use crate::seal_authority::CHANGED;
use crate::sealing::{Gate, detached};
use crate::seals::{OpenSeal, wrap_for_all};

/// Longest path of a directory, or place in a bucket, in bytes.
const MAX_DIRECTORY_LEN: usize = 4_096;

/// How long a drill waits for the place of the newest backup.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backup as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// What is remembered of it.
    pub record: BackupRecord,
    /// How far it is.
    pub state: BackupState,
}

/// Whether there is a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStanding {
    /// When the newest one that is proven was begun; `None` when there is no backup.
    pub newest: Option<Timestamp>,
    /// Backups that are proven.
    pub proven: usize,
    /// Why the last attempt gave none.
    pub problem: Option<String>,
}

/// The newest backup, as a drill looks at it.
pub(crate) struct NewestBackup {
    place: BackupPlace,
    /// Why it cannot be read, if it cannot.
    head: Result<BackupHead, String>,
}

/// What is wrong with a seal that was added after the newest backup was made.
const TOO_NEW: &str = "it opens the root key, but it is newer than the newest backup; make one: `lastkey backup create`";

/// The one backup that is being made.
#[derive(Debug, Default)]
pub(crate) struct Turn(Arc<Mutex<Option<BackupId>>>);

impl Turn {
    /// Which one it is.
    pub(crate) fn running(&self) -> Option<BackupId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn, until the answer is dropped.
    fn take(&self, id: BackupId) -> Result<Taken, Error> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Err(Error::LimitExceeded(
                "one backup is made at a time, and one is being made; see `lastkey backup list`",
            ));
        }
        *running = Some(id);
        Ok(Taken(Arc::clone(&self.0)))
    }
}

struct Taken(Arc<Mutex<Option<BackupId>>>);

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A backup under way: its record, as it was last written.
struct Making {
    record: BackupRecord,
    revision: Revision,
    stop: Stop,
    _turn: Taken,
}

/// What making and proving takes of the key hierarchy.
struct BackupKeys {
    signer: NoteSigner,
    log_key: NoteKey,
    records: RecordKeys,
}

impl Gate {
    /// Begins a backup in a directory of the server's machine or in a bucket, or where the
    /// configuration says, and answers; making and proving go on. Runs to its end even when the
    /// caller goes away.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] while another one is made; [`Error::Invalid`],
    /// [`Error::Sealed`], [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn start_backup(
        self: &Arc<Self>,
        call: &Call,
        directory: Option<String>,
    ) -> Result<BackupReport, Error> {
        let (gate, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let engine = gate.engine()?;
            let mut trail = Trail::of::<CreateBackup>(&engine, &call);
            let begun = gate.try_start_backup(&engine, &mut trail, directory).await;
            let begun = begun.map(|making| {
                let report = gate.report(making.record.clone());
                tokio::spawn(make(Arc::clone(&gate), Arc::clone(&engine), making));
                report
            });
            trail.close(&engine, begun).await
        })
        .await?
    }

    async fn try_start_backup(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
        directory: Option<String>,
    ) -> Result<Making, Error> {
        engine.permit::<CreateBackup>(trail, Resource::Instance)?;
        check_directory(directory.as_deref())?;
        self.backups.check(directory.as_deref()).await?;
        trail.call().go_on()?;
        let drawn = draw_id(&mut *engine.ports.entropy.open());
        let id = RequestId(drawn.map_err(|error| Error::Internal(error.into()))?);
        let turn = self.turn.take(id)?;
        trail.target = Some(format!("backup/{id}"));
        trail.intend(engine).await?;
        let now = engine.clock.observe();
        let (begun_at, begun) = (now.last.wall, now.elapsed);
        let name = format!(
            "lastkey-{}-{:012}-{}.backup",
            engine.instance,
            begun_at.0,
            id.to_string().get(..8).unwrap_or_default()
        );
        let place = BackupPlace { directory, name };
        let (written, proven_at, problem) = (None, None, None);
        let record = BackupRecord { id, place, begun_at, begun, written, proven_at, problem };
        let path = RecordPath::backup(id);
        let write = Write {
            path,
            expected: Expected::Absent,
            record: Some(Record::Backup(record.clone())),
        };
        engine.store.commit(vec![write]).await?;
        Ok(Making { record, revision: Revision(1), stop: Stop::default(), _turn: turn })
    }

    fn report(&self, record: BackupRecord) -> BackupReport {
        let state = record.state(self.turn.running() == Some(record.id));
        BackupReport { record, state }
    }

    /// The backups, newest first.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn list_backups(&self, call: &Call) -> Result<Vec<BackupReport>, Error> {
        let engine = self.engine()?;
        let mut trail = Trail::of::<ReadBackups>(&engine, call);
        let outcome = self.try_list_backups(&engine, &mut trail).await;
        trail.close(&engine, outcome).await
    }

    async fn try_list_backups(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
    ) -> Result<Vec<BackupReport>, Error> {
        engine.permit::<ReadBackups>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        self.reports(engine).await
    }

    /// What is known of all backups, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn reports(&self, engine: &Engine) -> Result<Vec<BackupReport>, Error> {
        let records = engine.backups().await?;
        Ok(records.into_iter().map(|(record, _)| self.report(record)).collect())
    }

    /// What is known of one backup.
    ///
    /// # Errors
    /// As [`Gate::list_backups`]; [`Error::Invalid`] when there is no such backup.
    pub async fn describe_backup(&self, call: &Call, id: BackupId) -> Result<BackupReport, Error> {
        let all = self.list_backups(call).await?;
        all.into_iter().find(|report| report.record.id == id).ok_or_else(no_such_backup)
    }

    /// Takes a backup away and forgets it: from now on nobody counts with it. One that is gone
    /// already is forgotten, and at somebody's word one in a place that the server does not go
    /// to. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such backup, and for one in such a place without that
    /// word; [`Error::LimitExceeded`] while it is
    /// made; [`Error::Sealed`], [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], also
    /// when its place does not let it go; [`Error::Internal`].
    pub async fn remove_backup(
        self: &Arc<Self>,
        call: &Call,
        id: BackupId,
        forget: bool,
    ) -> Result<(), Error> {
        let (gate, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let engine = gate.engine()?;
            let mut trail = Trail::of::<RemoveBackup>(&engine, &call);
            trail.target = Some(format!("backup/{id}"));
            let outcome = gate.try_remove_backup(&engine, &mut trail, id, forget).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_remove_backup(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
        id: BackupId,
        forget: bool,
    ) -> Result<(), Error> {
        engine.permit::<RemoveBackup>(trail, Resource::Instance)?;
        let found = engine.backups().await?.into_iter().find(|(record, _)| record.id == id);
        let (record, revision) = found.ok_or_else(no_such_backup)?;
        if self.turn.running() == Some(id) {
            return Err(Error::LimitExceeded("this backup is being made; wait until it is"));
        }
        trail.call().go_on()?;
        trail.intend(engine).await?;
        // A bucket that refuses to delete still has what it was asked for.
        let directory = record.place.directory.as_deref();
        let is_named_directory = directory.is_some_and(|place| !is_in_bucket(place));
        match self.backups.remove(&record.place).await {
            Err(BackupError::NotConfigured(_)) if forget => {
                trail.reason = "forgotten where the server does not go".into();
            }
            Err(BackupError::Refused(_)) if forget && is_named_directory => {
                trail.reason = "forgotten where the server finds nothing".into();
            }
            Err(BackupError::NotConfigured(why)) => {
                let word = format!("when it is destroyed, `lastkey backup remove {id} --forget`");
                return Err(Error::invalid("directory", format!("{why}; {word}")));
            }
            removed => removed?,
        }
        let (path, expected) = (RecordPath::backup(id), Expected::At(revision));
        engine.store.commit(vec![Write { path, expected, record: None }]).await?;
        Ok(())
    }

    /// Whether there is a backup.
    pub(crate) async fn backup_standing(&self, engine: &Engine) -> Result<BackupStanding, Error> {
        let mut standing = BackupStanding { newest: None, proven: 0, problem: None };
        let mut is_last = true;
        for BackupReport { record, state } in self.reports(engine).await? {
            match state {
                BackupState::Proven => {
                    standing.proven = standing.proven.saturating_add(1);
                    standing.newest = standing.newest.max(Some(record.begun_at));
                }
                BackupState::Failed if is_last => standing.problem.clone_from(&record.problem),
                BackupState::Interrupted if is_last => {
                    standing.problem = Some(BackupError::Stopped.to_string());
                }
                BackupState::Begun
                | BackupState::Written
                | BackupState::Failed
                | BackupState::Interrupted => {}
            }
            is_last &= matches!(state, BackupState::Begun | BackupState::Written);
        }
        Ok(standing)
    }

    /// The newest backup that is proven, for a drill; `None` when there is no backup.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn newest_backup(
        &self,
        engine: &Engine,
    ) -> Result<Option<NewestBackup>, Error> {
        let reports = self.reports(engine).await?;
        let newest = reports.into_iter().find(|report| report.state == BackupState::Proven);
        let Some(BackupReport { record, .. }) = newest else { return Ok(None) };
        let head = in_time(self.backups.head(&record.place)).await;
        Ok(Some(NewestBackup { place: record.place, head }))
    }

    /// Whether a seal opens a backup.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) async fn opens_backup(
        &self,
        open: &OpenSeal,
        NewestBackup { place, head }: &NewestBackup,
    ) -> Result<(), String> {
        let head = head.as_ref().map_err(|why| format!("the newest backup is lost: {why}"))?;
        let wrapped = head.wrapped_for(&open.id()).ok_or(TOO_NEW)?;
        let key = open.unwrap(BACKUP_PURPOSE, &head.id.0, wrapped);
        let key = key.map_err(|_| "it does not open the newest backup".to_owned())?;
        in_time(self.backups.try_key(place, key)).await
    }

    /// Writes, proves, and keeps the record of it.
    async fn make_backup(&self, engine: &Engine, making: &mut Making) -> Result<(), Error> {
        let directory = making.record.place.directory.clone();
        let (frozen, order, keys) = {
            // INVARIANT: the seals do not change until the key of the backup is wrapped for them.
            let custody = engine.custody.lock().await;
            let frozen = self.backups.freeze(directory.as_deref()).await?;
            let bootstrap = frozen.bootstrap()?;
            if !custody.has_written(&bootstrap) {
                return Err(Error::SealRefused(CHANGED.into()));
            }
            let keys = backup_keys(engine, custody.secrets()).map_err(Error::Internal)?;
            let mut entropy = engine.ports.entropy.open();
            let key = draw_secret(&mut *entropy).map_err(|e| Error::Internal(e.into()))?;
            let id = making.record.id;
            let wrapped = wrap_for_all(
                &bootstrap,
                custody.shared(),
                BACKUP_PURPOSE,
                &id.0,
                &key,
                &mut *entropy,
            );
            let wrapped = wrapped.map_err(Error::Internal)?;
            let wrapped = wrapped.into_iter().map(|one| (one.seal, one.wrapped)).collect();
            let (begun_at, begun) = (making.record.begun_at, making.record.begun);
            let commit = frozen.commit();
            let head = BackupHead { id, begun_at, begun, commit, bootstrap, wrapped };
            (frozen, (head, key), keys)
        };
        let ((head, key), BackupKeys { signer, log_key, records }) = (order, keys);
        let (place, stop) = (making.record.place.clone(), making.stop.clone());
        let trial_key = key.expose(SecretArray::copy_of);
        let order = BackupOrder { head, key, signer, place: place.clone(), stop: stop.clone() };
        let expected = frozen.write(order).await?;
        making.record.written = Some(expected.clone());
        engine.put_backup(making).await?;
        let trial = Trial { place, key: trial_key, records, log_key, expected, stop };
        self.backups.prove(trial).await?;
        // A backup without the list brings back what was destroyed: it is none before.
        self.keep_tombstones(engine, directory.as_deref()).await?;
        making.record.proven_at = Some(engine.clock.wall());
        engine.put_backup(making).await
    }

    /// Keeps the list of what was destroyed beside the backups.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn keep_tombstones(
        &self,
        engine: &Engine,
        directory: Option<&str>,
    ) -> Result<(), Error> {
        // INVARIANT: whoever writes a list has read what was destroyed after the writer before.
        let _lists = self.lists.lock().await;
        let tombstones = engine.tombstones().await?;
        let signer = {
            let custody = engine.custody.lock().await;
            log_signers(engine.instance, custody.secrets()).map_err(Error::Internal)?.log
        };
        let instance = engine.instance;
        Ok(self.backups.keep_tombstones(directory, instance, tombstones, signer).await?)
    }
}

/// What a place of backups says, or that it says nothing.
async fn in_time<T>(asked: impl Future<Output = Result<T, BackupError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_) => Err("its place does not answer; see to the mount, or to the bucket".to_owned()),
    }
}

/// Makes and proves a backup that was begun; its end is on record and in the audit log.
async fn make(gate: Arc<Gate>, engine: Arc<Engine>, mut making: Making) {
    let (id, stop) = (making.record.id, making.stop.clone());
    let mut retiring = engine.retiring.subscribe();
    let made = tokio::select! {
        biased;
        _ = retiring.wait_for(|retiring| *retiring) => {
            // What runs on another thread lets go of its keys; the record says how far it came.
            stop.set();
            return;
        }
        made = gate.make_backup(&engine, &mut making) => made,
    };
    let result = made.as_ref().map_or_else(Error::code, |()| "ok");
    if let Err(error) = &made
        && making.record.proven_at.is_none()
    {
        making.record.problem = Some(problem(error));
        if let Err(error) = engine.put_backup(&mut making).await {
            tracing::warn!(%error, "that a backup failed could not be written");
        }
    }
    if let Err(error) = audit_end(&engine, id, result).await {
        tracing::warn!(%error, "how a backup ended could not be recorded");
    }
    // Whoever hears of the end may begin the next one.
    drop(making);
    match made {
        Ok(()) => tracing::info!(backup = %id, "a backup was made, and proven by a trial restore"),
        Err(error) => {
            tracing::error!(backup = %id, %error, cause = cause(&error), "there is no backup");
        }
    }
}

/// What went wrong, in words that may be shown: a fault of the server's own is in its log.
fn problem(error: &Error) -> String {
    if let Error::Unavailable(cause) = error
        && cause.is::<BackupError>()
    {
        return cause.to_string();
    }
    error.to_string()
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

async fn audit_end(engine: &Engine, id: BackupId, result: &'static str) -> Result<(), Error> {
    let event = Event {
        at: engine.clock.wall(),
        request: id,
        who: &Principal::named(Principal::SCHEDULER),
        action: "sys:ProveBackup",
        phase: Phase::Whole,
        key: None,
        version: None,
        context_hash: None,
        result,
        reason: "",
        source: Source::default(),
        target: Some(&format!("backup/{id}")),
    };
    engine.ports.audit.append_durably(&event).await.map_err(Error::Unavailable)
}

fn backup_keys(
    engine: &Engine,
    secrets: &[(u32, SecretArray<32>)],
) -> Result<BackupKeys, lastkey_core::ports::Cause> {
    let KeyringKeys { records, log, .. } = KeyringKeys::derive(engine.instance, secrets)?;
    let signer = log.log;
    let log_key = signer.key().clone();
    Ok(BackupKeys { signer, log_key, records })
}

fn check_directory(directory: Option<&str>) -> Result<(), Error> {
    match directory {
        None => Ok(()),
        Some(place)
            if (place.starts_with('/') || is_in_bucket(place))
                && place.len() <= MAX_DIRECTORY_LEN =>
        {
            Ok(())
        }
        Some(_) => Err(Error::invalid(
            "directory",
            "expected an absolute path or s3://BUCKET/FOLDER, of at most 4096 bytes",
        )),
    }
}

fn no_such_backup() -> Error {
    Error::invalid("backup", "there is no backup of this id; see `lastkey backup list`")
}

impl Engine {
    /// What is remembered of backups, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn backups(&self) -> Result<Vec<(BackupRecord, Revision)>, Error> {
        let mut found = Vec::new();
        for stored in self.store.scan(&PathRange::kind("backup", None, usize::MAX)).await? {
            let Record::Backup(record) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            found.push((record, stored.revision));
        }
        // Of those of one second a proven one counts as the newer, and the one with the longer log.
        found.sort_by_key(|(record, _)| {
            let audited =
                record.written.as_ref().and_then(|it| it.audit.as_ref().map(|log| log.size));
            std::cmp::Reverse((record.begun, record.proven_at, audited, record.id.0))
        });
        Ok(found)
    }

    /// Whether a backup may hold what is to be called erased.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn is_held_by_backups(
        &self,
        due: Elapsed,
        now: Timestamp,
    ) -> Result<bool, Error> {
        Ok(self.backups().await?.iter().any(|(record, _)| record.may_hold(due, now)))
    }

    /// Everything that was destroyed.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn tombstones(&self) -> Result<Vec<Tombstone>, Error> {
        let range = PathRange::kind("tombstone", None, usize::MAX);
        let mut found = Vec::new();
        for stored in self.store.scan(&range).await? {
            let Record::Tombstone(tombstone) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            found.push(tombstone);
        }
        Ok(found)
    }

    async fn put_backup(&self, making: &mut Making) -> Result<(), Error> {
        let record = Some(Record::Backup(making.record.clone()));
        let (path, expected) =
            (RecordPath::backup(making.record.id), Expected::At(making.revision));
        self.store.commit(vec![Write { path, expected, record }]).await?;
        making.revision = Revision(making.revision.0.saturating_add(1));
        Ok(())
    }
}
