//! A seal by another Lastkey: a key there wraps, and its policy says who may unwrap.
//!
//! Room      `connect`.
//! Source    docs/formats/device-seals.md.
//! Holds     address, trust and token come from a file that only root can change, or that the
//!           operator has named. The seal tells its path, which nothing authenticates yet; so who
//!           can write the storage cannot send a token elsewhere. The other server sees a fresh
//!           key, never a secret of this one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_client::wire::native::operations::{DecryptRequest, EncryptRequest};
use lastkey_client::wire::{Base64Bytes, SecretBase64};
use lastkey_client::{Client, ClientConfig, Error};
use lastkey_core::ports::{DeviceKind, DeviceSettings, EntropySource, SealDevice, SealDeviceError};
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::{SecretArray, SecretVec};

use super::wire::{In, Out};
use super::{check_path, close, draw_key, failed, open, refused};

/// The setting with the path of a configuration file of a client.
pub const CONFIG_SETTING: &str = "client_config";
/// The setting with the name or id of the key.
pub const KEY_SETTING: &str = "key";

const VERSION: u8 = 1;
/// What a configuration is called, and where exceptions are named.
const CONFIGS: (&str, &str) = ("client configuration", "unseal.kms_configs");
/// How long a call may take, whatever the configuration says.
const PATIENCE: Duration = Duration::from_secs(10);

/// A seal by another Lastkey.
pub struct KmsSeal {
    config: PathBuf,
    trusted: Vec<PathBuf>,
    key: String,
    entropy: Arc<dyn EntropySource>,
}

impl KmsSeal {
    /// The seal of these settings. Configurations of `trusted` are used although not root alone
    /// can change them.
    ///
    /// # Errors
    /// [`SealDeviceError::Settings`].
    pub fn open(
        settings: &DeviceSettings,
        trusted: Vec<PathBuf>,
        entropy: Arc<dyn EntropySource>,
    ) -> Result<Self, SealDeviceError> {
        let setting =
            |name: &str| settings.get(name).ok_or_else(|| refused(format!("{name} is missing")));
        let config = PathBuf::from(setting(CONFIG_SETTING)?);
        if !config.is_absolute() {
            return Err(refused(format!("the path in {CONFIG_SETTING} must be absolute")));
        }
        Ok(Self { config, trusted, key: setting(KEY_SETTING)?.clone(), entropy })
    }

    /// Read anew each time, so that a token that was renewed is used.
    fn client(&self) -> Result<Client, SealDeviceError> {
        let path = check_path(&self.config, &self.trusted, CONFIGS)?;
        // A token of the environment is for whatever server its owner meant, not for this one.
        let mut config = ClientConfig::from_file_alone(&path)
            .map_err(|error| refused(format!("{error}: {}", root_of(&error))))?;
        if config.token.is_none() {
            let path = self.config.display();
            return Err(refused(format!("{path} names no token_file")));
        }
        if config.addr.is_exposed() {
            return Err(refused(format!(
                "{}: {} is another machine, and everybody on the way could read the key: use https://",
                path.display(),
                config.addr
            )));
        }
        // Whoever waits for this tries again, and has other seals to ask.
        config.request_timeout = config.request_timeout.min(PATIENCE);
        Client::new(&config).map_err(error_of)
    }
}

#[async_trait]
impl SealDevice for KmsSeal {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Kms
    }

    async fn wrap(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError> {
        let key = draw_key(&mut *self.entropy.open())?;
        let request = EncryptRequest {
            key: self.key.clone(),
            plaintext: SecretBase64(key.expose(|bytes| SecretVec::copy_of(bytes))),
            context: None,
            context_raw: Some(context_of(aad)),
            dry_run: false,
        };
        let reply = self.client()?.encrypt(&request).await.map_err(error_of)?;
        let front = Out::default().u8(VERSION).sized(&reply.ciphertext.0).done();
        close(front, aad, &key, secret, &mut *self.entropy.open())
    }

    async fn unwrap(&self, aad: &[u8], stored: &[u8]) -> Result<SecretArray<32>, SealDeviceError> {
        let (front, ciphertext, wrapped) = split(stored).ok_or(SealDeviceError::NotThisDevice)?;
        let request = DecryptRequest {
            ciphertext: Base64Bytes(ciphertext.to_vec()),
            context: None,
            context_raw: Some(context_of(aad)),
            key: Some(self.key.clone()),
            version: None,
            dry_run: false,
        };
        let reply = self.client()?.decrypt(&request).await.map_err(error_of)?;
        let key = reply.plaintext.0.to_array().ok_or(SealDeviceError::NotThisDevice)?;
        open(front, wrapped, aad, &key)
    }
}

/// What the other server binds its ciphertext to, and writes into its audit log.
fn context_of(aad: &[u8]) -> Base64Bytes {
    Base64Bytes(sha256_of(&[b"lastkey/kms-seal/v1", aad]).to_vec())
}

/// Whether these bytes have the form of what [`KmsSeal`] wraps.
pub(super) fn is_stored(bytes: &[u8]) -> bool {
    split(bytes).is_some_and(|(front, _, wrapped)| [front, wrapped].concat() == bytes)
}

/// Front, ciphertext and wrapped secret of what is stored.
fn split(stored: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut reader = In::new(stored);
    if reader.u8().ok()? != VERSION {
        return None;
    }
    let ciphertext = reader.sized().ok()?;
    let wrapped = reader.rest();
    Some((stored.get(..stored.len().checked_sub(wrapped.len())?)?, ciphertext, wrapped))
}

fn root_of(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

/// A server that is sealed itself, or busy, or not there, may be there later.
fn error_of(error: Error) -> SealDeviceError {
    let is_away = matches!(error, Error::Timeout { .. }) || error.may_pass();
    match error.code() {
        Some("Sealed") => SealDeviceError::Away(error.into()),
        Some("Undecryptable") => SealDeviceError::NotThisDevice,
        Some(_) | None if is_away => SealDeviceError::Away(error.into()),
        Some(_) | None => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use lastkey_testkit::entropy::SeededSource;

    use super::*;

    #[test]
    fn a_configuration_that_others_can_change_is_used_only_when_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kms.toml");
        let token = folder.path().join("token");
        std::fs::write(&path, "addr = 'http://127.0.0.1:1'\ntoken_file = 'token'\n").unwrap();
        std::fs::write(&token, "t").unwrap();
        std::fs::set_permissions(token, PermissionsExt::from_mode(0o600)).unwrap();
        let settings = [(CONFIG_SETTING, path.to_str().unwrap()), (KEY_SETTING, "alias/seal")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let client = |trusted: &[PathBuf]| {
            let entropy = Arc::new(SeededSource::new(1));
            KmsSeal::open(&settings.clone().into(), trusted.to_vec(), entropy).unwrap().client()
        };
        let Err(SealDeviceError::Settings { problem }) = client(&[]) else { panic!("used") };
        assert!(problem.contains("unseal.kms_configs"), "{problem}");
        assert!(client(std::slice::from_ref(&path)).is_ok());
        std::fs::write(&path, "addr = 'http://10.0.0.1:1'\ntoken_file = 'token'\n").unwrap();
        let Err(SealDeviceError::Settings { problem }) = client(&[path]) else { panic!("used") };
        assert!(problem.contains("https://"), "{problem}");
    }

    #[test]
    fn stored_bytes_are_split_into_their_parts() {
        let stored = Out::default().u8(VERSION).sized(b"cipher").raw(b"wrapped").done();
        let (front, ciphertext, wrapped) = split(&stored).unwrap();
        assert_eq!((front.len(), ciphertext, wrapped), (9, &b"cipher"[..], &b"wrapped"[..]));
        for len in 0..9 {
            assert!(split(&stored[..len]).is_none(), "{len}");
        }
        assert!(split(&[2, 0, 0]).is_none());
    }
}
