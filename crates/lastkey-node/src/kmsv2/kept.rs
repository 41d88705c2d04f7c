//! Local keys on disk, sealed to the machine: a node that is rebooted starts while the service is
//! away.
//!
//! Room      `node`. What seals is a port; the bytes are `kept_file`.
//! Source    docs/formats/kmsv2.md, "Local keys on disk"; ADR 37.
//! Holds     What is kept is used only while the service is silent, not longer than the bound
//!           after its last word by the wall clock, and is removed when the service refuses.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::SecretArray;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use tokio::sync::Mutex;

use super::kept_file::{Damaged, KeptFile, MAX_FILE_LEN, Owner, Saved, header_of};
use crate::ports::{Cause, MachineSeal};

/// Why local keys were not kept, or not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    /// The file.
    #[error("the file of local keys cannot be read or written")]
    Io(#[from] io::Error),
    /// What seals.
    #[error("this machine does not seal or open the local keys")]
    Seal(#[source] Cause),
    /// Not what was written, or of another provider.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The service was silent for too long, or the clock went back.
    #[error("the local keys on disk are older than the bound")]
    TooOld,
    /// No randomness.
    #[error("no randomness available")]
    Entropy,
}

/// Where local keys are kept.
pub(super) struct Kept {
    path: PathBuf,
    owner: Owner,
    seal: Arc<dyn MachineSeal>,
    /// The key of the file, once it is sealed.
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    header: Vec<u8>,
    key: Arc<WrapKey>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.path.display())
    }
}

impl Kept {
    pub(super) fn new(path: PathBuf, owner: Owner, seal: Arc<dyn MachineSeal>) -> Self {
        Self { path, owner, seal, opened: Mutex::new(None) }
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// [`KeptError`]; the file is the one before then.
    pub(super) async fn save(&self, saved: &Saved) -> Result<(), KeptError> {
        let mut opened = self.opened.lock().await;
        if opened.is_none() {
            *opened = Some(self.seal_new_key().await?);
        }
        let Some(Opened { header, key }) = opened.as_ref() else { return Err(Damaged.into()) };
        let bytes = saved
            .seal(header, key, &self.owner, &mut SystemEntropy)
            .map_err(|_| KeptError::Entropy)?;
        let path = self.path.clone();
        blocking(move || write_whole(&path, &bytes)).await
    }

    async fn seal_new_key(&self) -> Result<Opened, KeptError> {
        let key = SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes));
        let key = key.map_err(|_| KeptError::Entropy)?;
        let sealed = self.seal.seal(&key).await.map_err(KeptError::Seal)?;
        let header = header_of(&sealed).ok_or(Damaged)?;
        let key = Arc::new(WrapKey::new(&key).map_err(|_| Damaged)?);
        Ok(Opened { header, key })
    }

    /// What was saved, when it is not older than `bound` at the time `now`.
    ///
    /// # Errors
    /// [`KeptError`].
    pub(super) async fn load(&self, now: u64, bound: Duration) -> Result<Saved, KeptError> {
        let path = self.path.clone();
        let bytes = blocking(move || read_private(&path)).await?;
        let file = KeptFile::parse(&bytes)?;
        let key = self.seal.unseal(file.sealed).await.map_err(KeptError::Seal)?;
        let key = WrapKey::new(&key).map_err(|_| Damaged)?;
        let saved = file.open(&key, &self.owner)?;
        let age = now.checked_sub(saved.heard_at).ok_or(KeptError::TooOld)?;
        if Duration::from_secs(age) >= bound {
            return Err(KeptError::TooOld);
        }
        let opened = Opened { header: file.header.to_vec(), key: Arc::new(key) };
        *self.opened.lock().await = Some(opened);
        Ok(saved)
    }

    /// Removes the file: what may not be used is not kept.
    pub(super) fn remove(&self) {
        let removed = std::fs::remove_file(&self.path).and_then(|()| sync_folder(&self.path));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                tracing::error!(%path, %error, "local keys that may not be used stay on the disk");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, KeptError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// A file of this user or root, that nobody else can read or write.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags()).open(path)?;
    let about = file.metadata()?;
    let is_ours = [0, geteuid().as_raw()].contains(&about.uid()) && about.mode() & 0o077 == 0;
    if !about.is_file() || !is_ours || about.len() > MAX_FILE_LEN {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The old file or the new one, whatever happens in between.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(flags());
    let mut file = options.open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// Has what happened to the name of a file survive a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn flags() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use async_trait::async_trait;

    use super::super::ciphertext::WrappedLocalKey;
    use super::*;
    use crate::ports::KeyInUse;

    /// Seals by adding a number, which another machine does not know.
    struct Machine(u8);

    #[async_trait]
    impl MachineSeal for Machine {
        async fn seal(&self, key: &SecretArray<32>) -> Result<Vec<u8>, Cause> {
            Ok(key.expose(|key| key.map(|byte| byte ^ self.0).to_vec()))
        }

        async fn unseal(&self, sealed: &[u8]) -> Result<SecretArray<32>, Cause> {
            let key: Vec<u8> = sealed.iter().map(|byte| byte ^ self.0).collect();
            SecretArray::try_copy_of(&key).ok_or_else(|| "another length".into())
        }
    }

    fn kept(path: &Path, cluster: &str, machine: u8) -> Kept {
        let owner = Owner::new("alias/etcd", cluster);
        Kept::new(path.to_owned(), owner, Arc::new(Machine(machine)))
    }

    fn saved(heard_at: u64) -> Saved {
        Saved {
            heard_at,
            key: KeyInUse { id: [7; 16], version: 3, activation: 9 },
            key_id: "lk1.abc".to_owned(),
            wrapped: WrappedLocalKey { by_service: vec![1; 136], for_recovery: vec![2; 384] },
            locals: vec![([3; 32], SecretArray::copy_of(&[4; 32]))],
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn what_is_kept_comes_back_on_this_machine_for_this_provider_and_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.lkl");
        let here = kept(&path, "prod", 1);
        here.save(&saved(1_000)).await.unwrap();
        here.save(&saved(2_000)).await.unwrap();
        let again = kept(&path, "prod", 1).load(5_599, HOUR).await.unwrap();
        assert_eq!((again.heard_at, again.key_id.as_str()), (2_000, "lk1.abc"));
        assert_eq!(again.key, KeyInUse { id: [7; 16], version: 3, activation: 9 });
        assert_eq!(again.wrapped.for_recovery, [2; 384]);
        assert!(again.locals[0].1.ct_eq(&SecretArray::copy_of(&[4; 32])));

        let damaged = |result| matches!(result, Err(KeptError::Damaged(_)));
        assert!(damaged(kept(&path, "stage", 1).load(2_000, HOUR).await.map(drop)));
        assert!(damaged(kept(&path, "prod", 2).load(2_000, HOUR).await.map(drop)));
        for (now, bound) in [(5_600, HOUR), (1_999, HOUR), (2_000, Duration::ZERO)] {
            let old = kept(&path, "prod", 1).load(now, bound).await;
            assert!(matches!(old, Err(KeptError::TooOld)), "{now}");
        }
        let raw = std::fs::read(&path).unwrap();
        assert!(!raw.windows(32).any(|window| window == [4; 32]));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        here.remove();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn cut_changed_open_and_linked_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.lkl");
        let here = kept(&path, "prod", 1);
        here.save(&saved(1_000)).await.unwrap();
        let good = std::fs::read(&path).unwrap();
        for place in [0, 5, 7, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(here.load(1_000, HOUR).await.is_err(), "{place}");
            std::fs::write(&path, &good[..place]).unwrap();
            assert!(here.load(1_000, HOUR).await.is_err(), "cut at {place}");
        }
        std::fs::write(&path, &good).unwrap();
        here.load(1_000, HOUR).await.unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(here.load(1_000, HOUR).await.is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(here.load(1_000, HOUR).await.is_err());
    }
}
