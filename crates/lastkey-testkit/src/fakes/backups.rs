//! Backups that lie in memory.
//!
//! Room      `testkit`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lastkey_core::audit::note::NoteSigner;
use lastkey_core::backup::{
    BackupError, BackupHead, BackupOrder, BackupPlace, Backups, Frozen, Tombstone, Trial, Written,
};
use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{CommitSeq, SealedStore};
use lastkey_core::seal_record::Bootstrap;
use lastkey_secret::SecretArray;
use tokio::sync::oneshot;

struct Kept {
    place: BackupPlace,
    head: BackupHead,
    key: SecretArray<32>,
}

/// Backups in memory: heads and keys, without content.
pub struct FakeBackups {
    store: Arc<dyn SealedStore>,
    kept: Arc<Mutex<Vec<Kept>>>,
    refuses_proof: AtomicBool,
    refuses_place: AtomicBool,
    refuses_list: AtomicBool,
    is_locked: AtomicBool,
    is_silent: AtomicBool,
    /// Holds up the next list.
    hold: Mutex<Option<oneshot::Receiver<()>>>,
    lists: Mutex<Vec<(Option<String>, Vec<Tombstone>)>>,
}

impl FakeBackups {
    /// Backups of a store.
    #[must_use]
    pub fn of(store: Arc<dyn SealedStore>) -> Self {
        let (kept, lists) = (Arc::default(), Mutex::default());
        Self {
            store,
            kept,
            refuses_proof: AtomicBool::new(false),
            refuses_place: AtomicBool::new(false),
            refuses_list: AtomicBool::new(false),
            is_locked: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            hold: Mutex::default(),
            lists,
        }
    }

    /// From now on no trial restore ends well, or again each.
    pub fn refuse_proof(&self, refuses: bool) {
        self.refuses_proof.store(refuses, Ordering::Relaxed);
    }

    /// From now on no backup may lie anywhere, or again everywhere.
    pub fn refuse_place(&self, refuses: bool) {
        self.refuses_place.store(refuses, Ordering::Relaxed);
    }

    /// From now on the place lets no backup go, or again each.
    pub fn lock(&self, locks: bool) {
        self.is_locked.store(locks, Ordering::Relaxed);
    }

    /// Holds up the next list that is to be kept, until it is told to go on.
    pub fn hold_next_list(&self) -> oneshot::Sender<()> {
        let (go_on, hold) = oneshot::channel();
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        go_on
    }

    /// Whether the list that is to be held up has not come yet.
    #[must_use]
    pub fn awaits_list(&self) -> bool {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// From now on no list of what was destroyed can be written, or again each.
    pub fn refuse_list(&self, refuses: bool) {
        self.refuses_list.store(refuses, Ordering::Relaxed);
    }

    /// From now on the place of backups does not answer who reads them.
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// Puts other keys in the place of those of all backups.
    pub fn sabotage(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter_mut().for_each(|one| one.key = SecretArray::copy_of(&[0; 32]));
    }

    /// Every list of what was destroyed that was kept, and where, oldest first.
    pub fn lists(&self) -> Vec<(Option<String>, Vec<Tombstone>)> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with<T>(
        &self,
        place: &BackupPlace,
        use_it: impl FnOnce(&Kept) -> T,
    ) -> Result<T, BackupError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|one| one.place == *place);
        found.map(use_it).ok_or_else(|| BackupError::NotABackup(place.name.clone()))
    }
}

#[async_trait]
impl Backups for FakeBackups {
    async fn check(&self, _: Option<&str>) -> Result<(), BackupError> {
        if self.refuses_place.load(Ordering::Relaxed) {
            return Err(BackupError::NotConfigured("this place is refused".to_owned()));
        }
        Ok(())
    }

    async fn freeze(&self, _: Option<&str>) -> Result<Box<dyn Frozen>, BackupError> {
        let bootstrap = self.store.bootstrap().await.ok().flatten();
        let bootstrap = bootstrap.ok_or(BackupError::Stopped)?;
        Ok(Box::new(Still { bootstrap, kept: Arc::clone(&self.kept) }))
    }

    async fn prove(&self, trial: Trial) -> Result<(), BackupError> {
        if self.refuses_proof.load(Ordering::Relaxed) {
            return Err(BackupError::Full("the scratch directory".to_owned()));
        }
        self.with(&trial.place, |kept| kept.key.ct_eq(&trial.key))?
            .then_some(())
            .ok_or(BackupError::WrongKey(trial.place.name))
    }

    async fn head(&self, place: &BackupPlace) -> Result<BackupHead, BackupError> {
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.with(place, |kept| kept.head.clone())
    }

    async fn try_key(&self, place: &BackupPlace, key: SecretArray<32>) -> Result<(), BackupError> {
        let is_right = self.with(place, |kept| kept.key.ct_eq(&key))?;
        is_right.then_some(()).ok_or_else(|| BackupError::WrongKey(place.name.clone()))
    }

    async fn remove(&self, place: &BackupPlace) -> Result<(), BackupError> {
        self.check(place.directory.as_deref()).await?;
        if self.is_locked.load(Ordering::Relaxed) {
            return Err(BackupError::Refused("the bucket locks its objects".to_owned()));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.place != *place);
        Ok(())
    }

    async fn keep_tombstones(
        &self,
        directory: Option<&str>,
        _: InstanceId,
        tombstones: Vec<Tombstone>,
        _: NoteSigner,
    ) -> Result<(), BackupError> {
        if self.refuses_list.load(Ordering::Relaxed) {
            return Err(BackupError::Full("the directory of the list".to_owned()));
        }
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hold) = hold {
            // Whoever was to tell may be gone.
            let _ = hold.await;
        }
        let kept = (directory.map(str::to_owned), tombstones);
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        Ok(())
    }
}

struct Still {
    bootstrap: Bootstrap,
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[async_trait]
impl Frozen for Still {
    fn bootstrap(&self) -> Result<Bootstrap, BackupError> {
        Ok(self.bootstrap.clone())
    }

    fn commit(&self) -> CommitSeq {
        CommitSeq(1)
    }

    async fn write(self: Box<Self>, order: BackupOrder) -> Result<Written, BackupError> {
        let BackupOrder { head, key, place, .. } = order;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Kept { place, head, key });
        Ok(Written { len: 1, sha256: [1; 32], records: 1, records_sha256: [2; 32], audit: None })
    }
}
