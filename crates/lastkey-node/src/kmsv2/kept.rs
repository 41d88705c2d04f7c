//! Local keys on disk, sealed to the machine: a node that is rebooted starts while the service is
//! away.
//!
//! Room      `node`. What seals is a port; the file is ours.
//! Source    docs/formats/kmsv2.md, "Local keys on disk"; ADR 37.
//! Holds     What is kept is used only while the service is silent, not longer than the bound
//!           after its last word by the wall clock, and is removed when the service refuses. A
//!           file opens for its provider, key and cluster alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use tokio::sync::Mutex;

use super::ciphertext::WrappedLocalKey;
use crate::ports::{Cause, KeyInUse, MachineSeal};

const MAGIC: [u8; 4] = *b"LKL\x01";
const DOMAIN: &[u8] = b"lastkey/kmsv2/kept/v1\0";
/// More than 256 local keys and everything beside them.
const MAX_FILE_LEN: u64 = 65_536;

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
    #[error("the file of local keys is damaged, or of another provider")]
    Damaged,
    /// The service was silent for too long, or the clock went back.
    #[error("the local keys on disk are older than the bound")]
    TooOld,
    /// No randomness.
    #[error("no randomness available")]
    Entropy,
}

/// What is kept of a provider.
pub(super) struct Saved {
    /// The last word of the service, by the wall clock.
    pub(super) heard_at: u64,
    pub(super) key: KeyInUse,
    pub(super) key_id: String,
    pub(super) wrapped: WrappedLocalKey,
    /// Local keys, by the hash of what the service has to unwrap for them.
    pub(super) locals: Vec<([u8; 32], SecretArray<32>)>,
}

/// Where local keys are kept.
pub(super) struct Kept {
    path: PathBuf,
    /// What the file is bound to, beside its header.
    bound_to: Vec<u8>,
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
    pub(super) fn new(
        path: PathBuf,
        (key, cluster): (&str, &str),
        seal: Arc<dyn MachineSeal>,
    ) -> Self {
        let bound_to = [key, cluster]
            .map(|text| [&(text.len() as u64).to_be_bytes()[..], text.as_bytes()].concat());
        Self { path, bound_to: bound_to.concat(), seal, opened: Mutex::new(None) }
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
        let Some(Opened { header, key }) = opened.as_ref() else { return Err(KeptError::Damaged) };
        let wrapped = saved
            .encode()
            .expose(|bytes| key.wrap(&self.aad(header), bytes, &mut SystemEntropy))
            .map_err(|_| KeptError::Entropy)?;
        let (path, bytes) = (self.path.clone(), [&header[..], &wrapped].concat());
        blocking(move || write_whole(&path, &bytes)).await
    }

    async fn seal_new_key(&self) -> Result<Opened, KeptError> {
        let key = SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes));
        let key = key.map_err(|_| KeptError::Entropy)?;
        let sealed = self.seal.seal(&key).await.map_err(KeptError::Seal)?;
        let len = u16::try_from(sealed.len()).map_err(|_| KeptError::Damaged)?;
        let header = [&MAGIC[..], &len.to_be_bytes(), &sealed].concat();
        let key = Arc::new(WrapKey::new(&key).map_err(|_| KeptError::Damaged)?);
        Ok(Opened { header, key })
    }

    /// What was saved, when it is not older than `bound` at the time `now`.
    ///
    /// # Errors
    /// [`KeptError`].
    pub(super) async fn load(&self, now: u64, bound: Duration) -> Result<Saved, KeptError> {
        let path = self.path.clone();
        let bytes = blocking(move || read_private(&path)).await?;
        let (header, sealed, wrapped) = parse(&bytes).ok_or(KeptError::Damaged)?;
        let key = self.seal.unseal(sealed).await.map_err(KeptError::Seal)?;
        let key = WrapKey::new(&key).map_err(|_| KeptError::Damaged)?;
        let plain = key.unwrap(&self.aad(header), wrapped).map_err(|_| KeptError::Damaged)?;
        let saved = plain.expose(Saved::decode).ok_or(KeptError::Damaged)?;
        let age = now.checked_sub(saved.heard_at).ok_or(KeptError::TooOld)?;
        if Duration::from_secs(age) >= bound {
            return Err(KeptError::TooOld);
        }
        let opened = Opened { header: header.to_vec(), key: Arc::new(key) };
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

    fn aad(&self, header: &[u8]) -> Vec<u8> {
        [DOMAIN, &(header.len() as u64).to_be_bytes(), header, &self.bound_to].concat()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, KeptError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// Header, sealed key, wrapped content.
fn parse(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (sealed, wrapped) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let header = bytes.get(..bytes.len().checked_sub(wrapped.len())?)?;
    Some((header, sealed, wrapped))
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

impl Saved {
    fn encode(&self) -> SecretVec {
        let texts = [self.key_id.as_bytes(), &self.wrapped.by_service, &self.wrapped.for_recovery];
        let len =
            34 + texts.iter().map(|text| 2 + text.len()).sum::<usize>() + 64 * self.locals.len();
        // Of its final size at once: a buffer that grows leaves copies.
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&self.heard_at.to_be_bytes());
        out.extend_from_slice(&self.key.id);
        out.extend_from_slice(&self.key.version.to_be_bytes());
        out.extend_from_slice(&self.key.activation.to_be_bytes());
        for text in texts {
            // A ciphertext of a seed is at most 1,024 bytes, and holds all of these.
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(text);
        }
        out.extend_from_slice(&u16::try_from(self.locals.len()).unwrap_or(0).to_be_bytes());
        for (name, local) in &self.locals {
            out.extend_from_slice(name);
            local.expose(|local| out.extend_from_slice(local));
        }
        SecretVec::take(out)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (heard_at, rest) = bytes.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (activation, rest) = rest.split_first_chunk::<4>()?;
        let (key_id, rest) = sized(rest)?;
        let (by_service, rest) = sized(rest)?;
        let (for_recovery, rest) = sized(rest)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let mut locals = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (name, local);
            (name, rest) = rest.split_first_chunk::<32>()?;
            (local, rest) = rest.split_first_chunk::<32>()?;
            locals.push((*name, SecretArray::copy_of(local)));
        }
        let key = KeyInUse {
            id: *id,
            version: u32::from_be_bytes(*version),
            activation: u32::from_be_bytes(*activation),
        };
        let wrapped = WrappedLocalKey {
            by_service: by_service.to_vec(),
            for_recovery: for_recovery.to_vec(),
        };
        let heard_at = u64::from_be_bytes(*heard_at);
        let key_id = String::from_utf8(key_id.to_vec()).ok()?;
        rest.is_empty().then_some(Self { heard_at, key, key_id, wrapped, locals })
    }
}

fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use async_trait::async_trait;

    use super::*;

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
        Kept::new(path.to_owned(), ("alias/etcd", cluster), Arc::new(Machine(machine)))
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

        let damaged = |result| matches!(result, Err(KeptError::Damaged));
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

    #[test]
    fn what_is_saved_is_read_whole_or_not_at_all() {
        let bytes = saved(1).encode().expose(<[u8]>::to_vec);
        assert!(Saved::decode(&bytes).is_some());
        for len in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..len]).is_none(), "{len}");
        }
        assert!(Saved::decode(&[&bytes[..], &[0]].concat()).is_none());
    }
}
