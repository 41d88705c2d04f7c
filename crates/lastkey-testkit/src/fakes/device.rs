//! A device that holds seals, in memory.
//!
//! Room      `testkit`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lastkey_core::ports::{DeviceKind, DeviceSettings, SealDevice, SealDeviceError, SealDevices};
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::SecretArray;

/// How a device goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceFault {
    /// Not at all.
    #[default]
    None,
    /// It does not answer.
    Away,
    /// It was replaced by another one of the same name.
    Replaced,
    /// Its PIN is locked.
    PinLocked,
}

/// Devices by the setting `name`: each has a key that depends on its name. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct FakeDevices(Arc<Mutex<DeviceFault>>);

impl FakeDevices {
    /// Lets all devices go wrong from now on.
    pub fn set_fault(&self, fault: DeviceFault) {
        *self.fault() = fault;
    }

    fn fault(&self) -> MutexGuard<'_, DeviceFault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SealDevices for FakeDevices {
    async fn open(
        &self,
        kind: DeviceKind,
        settings: &DeviceSettings,
    ) -> Result<Arc<dyn SealDevice>, SealDeviceError> {
        let name = settings.get("name").map_or("", String::as_str);
        let mut key = [0x11; 32];
        key.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        match *self.fault() {
            DeviceFault::None => {}
            DeviceFault::Away => return Err(SealDeviceError::Away("no answer".into())),
            DeviceFault::Replaced => key = [0x22; 32],
            DeviceFault::PinLocked => {
                return Err(SealDeviceError::PinLocked { next: "unlock it by its SO PIN" });
            }
        }
        Ok(Arc::new(FakeDevice { kind, key }))
    }
}

struct FakeDevice {
    kind: DeviceKind,
    key: [u8; 32],
}

impl FakeDevice {
    fn key(&self) -> Result<WrapKey, SealDeviceError> {
        let key = WrapKey::new(&SecretArray::copy_of(&self.key));
        key.map_err(|error| SealDeviceError::Failed(error.into()))
    }
}

#[async_trait]
impl SealDevice for FakeDevice {
    fn kind(&self) -> DeviceKind {
        self.kind
    }

    async fn wrap(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError> {
        let key = self.key()?;
        let wrapped = secret.expose(|bytes| key.wrap(aad, bytes, &mut SystemEntropy));
        wrapped.map_err(|error| SealDeviceError::Failed(error.into()))
    }

    async fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<SecretArray<32>, SealDeviceError> {
        let secret = self.key()?.unwrap(aad, wrapped);
        let secret = secret.map_err(|_| SealDeviceError::NotThisDevice)?;
        secret.to_array().ok_or(SealDeviceError::NotThisDevice)
    }
}
