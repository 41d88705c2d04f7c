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

/// The devices that this server can reach.
pub(crate) struct Devices {
    data: PathBuf,
    modules: Vec<PathBuf>,
    configs: Vec<PathBuf>,
    entropy: Arc<dyn EntropySource>,
}

impl Devices {
    /// `modules` may be loaded, and `configs` of clients be used, although others than root can
    /// change them.
    pub(crate) fn new(data: &Path, modules: &[PathBuf], configs: &[PathBuf]) -> Self {
        let (modules, configs) = (modules.to_vec(), configs.to_vec());
        Self { data: data.to_owned(), modules, configs, entropy: Arc::new(SystemEntropySource) }
    }

    fn host(&self) -> Result<HostOptions, SealDeviceError> {
        let own = std::env::current_exe().map_err(|error| SealDeviceError::Failed(error.into()))?;
        Ok(HostOptions {
            program: own.with_file_name(HOST_PROGRAM),
            trusted: self.modules.clone(),
            memory: self.data.join(MEMORY),
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
                let approvals = self.data.join(APPROVALS);
                Arc::new(Tpm2Seal::open(settings, Some(approvals), entropy)?)
            }
            DeviceKind::Kms => Arc::new(KmsSeal::open(settings, self.configs.clone(), entropy)?),
        })
    }
}
