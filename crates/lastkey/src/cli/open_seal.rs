//! Opening a backup, or an installation whose server is stopped, by what opens one of its seals.
//!
//! Room      `lastkey`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lastkey_core::ports::{DeviceKind, SealDeviceError, SealDevices};
use lastkey_core::seal_record::{Bootstrap, SealKind};
use lastkey_crypto::share::Share;
use lastkey_secret::SecretVec;
use lastkey_service::seals::{OpenSeal, open_any, open_by_device, open_by_shares};

use crate::cli::failure::Failure;
use crate::cli::seal::read_share;
use crate::cli::{input, output};
use crate::config::file::ConfigFile;
use crate::devices::DevicePlaces;
use crate::roles::admin_token::read_keyfile;
use crate::wiring::seal_devices;

/// What opens a seal.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// File with the passphrase of a seal (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The key file of a seal
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    keyfile: Option<PathBuf>,
    /// File with a share, decrypted (`-`: standard input); once for each share
    #[arg(long, value_name = "FILE", conflicts_with_all = ["passphrase_file", "keyfile"])]
    share: Vec<PathBuf>,
    /// Ask the devices of seals that this machine reaches
    #[arg(long, conflicts_with_all = ["passphrase_file", "keyfile", "share"])]
    device: bool,
    /// Folder with approvals of TPM seals: those of the server's data directory
    #[arg(long, value_name = "DIR")]
    approvals: Option<PathBuf>,
    /// Configuration of the server: its `unseal.pkcs11_modules`, `unseal.kms_configs` and
    /// `backup.s3` hold here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What opens the backups of one run, or an installation. Devices are asked by all of it with one
/// memory of what they must not be asked again.
pub(crate) struct Opener<'a> {
    args: &'a OpenArgs,
    /// Whose seals they are, in words.
    whose: &'static str,
    devices: Arc<dyn SealDevices>,
    /// Seals whose device has refused its PIN in this run.
    refused: BTreeSet<[u8; 16]>,
}

impl OpenArgs {
    /// Whether anything was given.
    pub(crate) const fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
            || self.keyfile.is_some()
            || !self.share.is_empty()
            || self.device
    }

    /// What opens the backups of this run. What devices must not be asked again is remembered
    /// beside `beside`.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub(crate) fn opener_of_backups(&self, beside: &Path) -> Result<Opener<'_>, Failure> {
        self.opener("the backup", &beside.with_extension("devices"))
    }

    /// What opens the installation in a data directory.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub(crate) fn opener_of_data(&self, data: &Path) -> Result<Opener<'_>, Failure> {
        self.opener("this installation", data)
    }

    fn opener(&self, whose: &'static str, folder: &Path) -> Result<Opener<'_>, Failure> {
        let unseal = self.server_config()?.unseal;
        let mut places = DevicePlaces::of(folder, &unseal.pkcs11_modules, &unseal.kms_configs);
        if let Some(approvals) = &self.approvals {
            places.approvals.clone_from(approvals);
        }
        let devices = seal_devices(places);
        Ok(Opener { args: self, whose, devices, refused: BTreeSet::new() })
    }

    /// The configuration of the server that was named; one without a word otherwise.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn server_config(&self) -> Result<ConfigFile, Failure> {
        let config = self.config.as_deref().map(ConfigFile::read).transpose();
        Ok(config.map_err(|error| Failure::Input(format!("{error:#}")))?.unwrap_or_default())
    }
}

impl Opener<'_> {
    /// Opens a seal. When nothing was given, devices are asked and then a person.
    pub(crate) async fn open(&mut self, bootstrap: &Bootstrap) -> Result<OpenSeal, Failure> {
        let args = self.args;
        if let Some(path) = &args.keyfile {
            let key = read_keyfile(path).map_err(|error| Failure::Input(format!("{error:#}")))?;
            return self.by_secret(bootstrap, &key);
        }
        if !args.share.is_empty() {
            return self.by_shares(bootstrap);
        }
        if args.device || (args.passphrase_file.is_none() && has_device(bootstrap)) {
            match self.by_devices(bootstrap).await {
                Ok(open) => return Ok(open),
                Err(failure) if args.device => return Err(failure),
                Err(failure) => output::note(&format!("{failure}")),
            }
        }
        self.by_secret(bootstrap, &input::passphrase(args.passphrase_file.as_deref())?)
    }

    fn by_shares(&self, bootstrap: &Bootstrap) -> Result<OpenSeal, Failure> {
        let read = |path: &PathBuf| {
            let share = Share::parse(&read_share(path)?);
            share.map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
        };
        let shares = self.args.share.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        open_by_shares(bootstrap, &shares).map_err(|_| {
            Failure::Input(format!(
                "these shares do not open a seal of {}; it has: {}. Give as many as open a seal, \
                 each by its own --share, and all of them of that seal",
                self.whose,
                known(bootstrap)
            ))
        })
    }

    async fn by_devices(&mut self, bootstrap: &Bootstrap) -> Result<OpenSeal, Failure> {
        let mut said = Vec::new();
        for seal in &bootstrap.seals {
            let SealKind::Device { kind, .. } = &seal.kind else { continue };
            if self.refused.contains(&seal.id) {
                said.push(format!("{}: its PIN was refused, and is tried once", kind.as_str()));
                continue;
            }
            match open_by_device(bootstrap.instance.id, seal, &*self.devices).await {
                Ok(open) => return Ok(open),
                Err(error) => {
                    if matches!(error, SealDeviceError::PinLocked { .. }) {
                        self.refused.insert(seal.id);
                    }
                    said.push(format!("{}: {error}", kind.as_str()));
                }
            }
        }
        let said = if said.is_empty() { "it has none".to_owned() } else { said.join("; ") };
        Err(Failure::Input(format!("no device opens a seal of {} ({said})", self.whose)))
    }

    fn by_secret(&self, bootstrap: &Bootstrap, secret: &SecretVec) -> Result<OpenSeal, Failure> {
        open_any(bootstrap, secret).ok_or_else(|| {
            Failure::Input(format!(
                "this opens no seal of {}; it has: {}. Shares are given by --share, and devices \
                 asked by --device",
                self.whose,
                known(bootstrap)
            ))
        })
    }
}

fn has_device(bootstrap: &Bootstrap) -> bool {
    bootstrap.seals.iter().any(|seal| DeviceKind::parse(seal.kind.as_str()).is_some())
}

/// The seals that there are, in words.
pub(crate) fn known(bootstrap: &Bootstrap) -> String {
    let word = |kind: &SealKind| match kind {
        SealKind::Shamir { threshold, holders } => {
            format!("shamir ({threshold} of {})", holders.len())
        }
        SealKind::Passphrase { .. } | SealKind::Keyfile | SealKind::Device { .. } => {
            kind.as_str().to_owned()
        }
    };
    bootstrap.seals.iter().map(|seal| word(&seal.kind)).collect::<Vec<_>>().join(", ")
}
