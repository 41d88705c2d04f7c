//! Devices and services that protect a secret with a key that they do not give out.
//!
//! Room      `core`. A security module, a TPM or another key service is an adapter behind
//!           [`SealDevice`]; seals are made of them in `service`.
//! Holds     a device sees 32 bytes and what they are bound to, never the root key or a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_secret::SecretArray;

use crate::ports::Cause;

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// A hardware security module behind PKCS#11.
    Pkcs11,
    /// A TPM 2.0 of the machine.
    Tpm2,
    /// Another key service.
    Kms,
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pkcs11, Self::Tpm2, Self::Kms];

    /// The word in commands and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pkcs11 => "pkcs11",
            Self::Tpm2 => "tpm2",
            Self::Kms => "kms",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it is lost when the machine is.
    #[must_use]
    pub const fn is_in_the_machine(self) -> bool {
        match self {
            Self::Tpm2 => true,
            Self::Pkcs11 | Self::Kms => false,
        }
    }
}

/// Where a device is and how it is reached: names and paths, never a secret. Kept in the seal,
/// so that a restart finds the device again. What the names mean is the adapter's business.
pub type DeviceSettings = BTreeMap<String, String>;

/// Why a device did not do what it was asked to, sorted by what a person can do next. Messages
/// carry no secret; `next` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SealDeviceError {
    /// It does not answer, or was taken away in the middle. Trying again may help.
    #[error("the device is away")]
    Away(#[source] Cause),
    /// Its PIN is locked or wrong; trying again makes it worse.
    #[error("the device refuses its PIN: {next}")]
    PinLocked {
        /// What to do.
        next: &'static str,
    },
    /// The machine is not in the state that the secret was bound to: another boot chain.
    #[error("the machine was started differently from what the seal is bound to: {next}")]
    StateChanged {
        /// What to do.
        next: &'static str,
    },
    /// Another device than the one that wrapped it, other bytes, or another binding.
    #[error("this was not wrapped by this device")]
    NotThisDevice,
    /// The settings name no device, or one that may not be used here.
    #[error("the settings of the device are not usable: {problem}")]
    Settings {
        /// What is wrong with them.
        problem: String,
    },
    /// This build or this server has no such kind of device.
    #[error("this server has no {0} devices")]
    Unsupported(&'static str),
    /// Anything else that the device said.
    #[error("the device failed")]
    Failed(#[source] Cause),
}

impl SealDeviceError {
    /// Whether trying again later may help without a person.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::PinLocked { .. }
            | Self::StateChanged { .. }
            | Self::NotThisDevice
            | Self::Settings { .. }
            | Self::Unsupported(_)
            | Self::Failed(_) => false,
        }
    }
}

/// A device or service that protects 32 secret bytes with a key that it does not give out.
/// Asked when a seal is made, at every unseal and by drills; never for an operation on keys.
#[async_trait]
pub trait SealDevice: Send + Sync {
    /// What it is.
    fn kind(&self) -> DeviceKind;

    /// Wraps a secret, bound to `aad`. The answer holds whatever the device needs to find its key
    /// again, and at most [`MAX_WRAPPED_LEN`] bytes.
    ///
    /// # Errors
    /// [`SealDeviceError`].
    async fn wrap(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError>;

    /// Recovers what [`SealDevice::wrap`] wrapped for the same `aad`.
    ///
    /// # Errors
    /// [`SealDeviceError`].
    async fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<SecretArray<32>, SealDeviceError>;
}

/// Longest answer of [`SealDevice::wrap`], in bytes.
pub const MAX_WRAPPED_LEN: usize = 4_096;

/// Opens devices by their settings. The binary implements it, and decides what it is willing to
/// open: the settings of a sealed server are not authenticated.
#[async_trait]
pub trait SealDevices: Send + Sync {
    /// Opens a device. Cheap, and done anew for every use, so that one that was taken away and
    /// put back is found again.
    ///
    /// # Errors
    /// [`SealDeviceError`].
    async fn open(
        &self,
        kind: DeviceKind,
        settings: &DeviceSettings,
    ) -> Result<Arc<dyn SealDevice>, SealDeviceError>;
}

/// No devices at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

#[async_trait]
impl SealDevices for NoDevices {
    async fn open(
        &self,
        kind: DeviceKind,
        _settings: &DeviceSettings,
    ) -> Result<Arc<dyn SealDevice>, SealDeviceError> {
        Err(SealDeviceError::Unsupported(kind.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_words() {
        for kind in DeviceKind::ALL {
            assert_eq!(DeviceKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(DeviceKind::parse("passphrase"), None);
    }

    #[test]
    fn only_a_device_that_is_away_is_worth_another_try() {
        assert!(SealDeviceError::Away("gone".into()).may_pass());
        assert!(!SealDeviceError::PinLocked { next: "" }.may_pass());
        assert!(!SealDeviceError::NotThisDevice.may_pass());
    }
}
