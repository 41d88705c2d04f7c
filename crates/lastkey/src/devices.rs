//! Devices that hold seals, by the adapters of `connect`.
//!
//! Room      the binary.
//! Holds     where a device is comes from the seal, which is not authenticated while the server
//!           is sealed: the adapters take nothing from there that could run code or send a
//!           credential elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_connect::seal::kms::KmsSeal;
use lastkey_connect::seal::pkcs11::{HOST_PROGRAM, HostOptions, Pkcs11Seal};
use lastkey_connect::seal::tpm::Tpm2Seal;
use lastkey_core::ports::{
    DeviceKind, DeviceSettings, EntropySource, SealDevice, SealDeviceError, SealDevices,
};

use crate::adapters::SystemEntropySource;

/// Folder in the data directory for approvals of the TPM seal.
const APPROVALS: &str = "approvals";
/// Folder in the data directory for what devices must not be asked again.
const MEMORY: &str = "devices";

/// Where devices look on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlaces {
    /// Folder with approvals of the TPM seal.
    pub(crate) approvals: PathBuf,
    /// Folder for what devices must not be asked again.
    pub(crate) memory: PathBuf,
    /// Modules that may be loaded although others than root can change them.
    pub(crate) modules: Vec<PathBuf>,
    /// Configurations of clients that may be used although others than root can change them.
    pub(crate) configs: Vec<PathBuf>,
}

impl DevicePlaces {
    /// Those of a data directory, with what the configuration allows.
    pub(crate) fn of(data: &Path, modules: &[PathBuf], configs: &[PathBuf]) -> Self {
        let (approvals, memory) = (data.join(APPROVALS), data.join(MEMORY));
        Self { approvals, memory, modules: modules.to_vec(), configs: configs.to_vec() }
    }
}

/// The devices that this server can reach.
pub(crate) struct Devices {
    places: DevicePlaces,
    entropy: Arc<dyn EntropySource>,
}

impl Devices {
    pub(crate) fn new(places: DevicePlaces) -> Self {
        Self { places, entropy: Arc::new(SystemEntropySource) }
    }

    fn host(&self) -> Result<HostOptions, SealDeviceError> {
        let own = std::env::current_exe().map_err(|error| SealDeviceError::Failed(error.into()))?;
        Ok(HostOptions {
            program: own.with_file_name(HOST_PROGRAM),
            trusted: self.places.modules.clone(),
            memory: self.places.memory.clone(),
        })
    }
}

#[async_trait]
impl SealDevices for Devices {
    async fn open(
        &self,
        kind: DeviceKind,
        settings: &DeviceSettings,
    ) -> Result<Arc<dyn SealDevice>, SealDeviceError> {
        let entropy = Arc::clone(&self.entropy);
        Ok(match kind {
            DeviceKind::Pkcs11 => Arc::new(Pkcs11Seal::open(settings, self.host()?, entropy)?),
            DeviceKind::Tpm2 => {
                let approvals = self.places.approvals.clone();
                Arc::new(Tpm2Seal::open(settings, Some(approvals), entropy)?)
            }
            DeviceKind::Kms => {
                Arc::new(KmsSeal::open(settings, self.places.configs.clone(), entropy)?)
            }
        })
    }
}
