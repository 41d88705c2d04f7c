//! Opening a backup by what opens one of its seals.
//!
//! Room      `lastkey`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lastkey_core::backup::BackupHead;
use lastkey_core::ports::{DeviceKind, SealDeviceError, SealDevices};
use lastkey_core::seal_record::SealKind;
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
pub(super) struct OpenArgs {
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

/// What opens the backups of one run. Devices are asked by all of it with one memory of what they
/// must not be asked again.
pub(super) struct Opener<'a> {
    args: &'a OpenArgs,
    devices: Arc<dyn SealDevices>,
    /// Seals whose device has refused its PIN in this run.
    refused: BTreeSet<[u8; 16]>,
}

impl OpenArgs {
    /// Whether anything was given.
    pub(super) const fn is_given(&self) -> bool {
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
    pub(super) fn opener(&self, beside: &Path) -> Result<Opener<'_>, Failure> {
        let unseal = self.server_config()?.unseal;
        let beside = beside.with_extension("devices");
        let mut places = DevicePlaces::of(&beside, &unseal.pkcs11_modules, &unseal.kms_configs);
        if let Some(approvals) = &self.approvals {
            places.approvals.clone_from(approvals);
        }
        Ok(Opener { args: self, devices: seal_devices(places), refused: BTreeSet::new() })
    }

    /// The configuration of the server that was named; one without a word otherwise.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn server_config(&self) -> Result<ConfigFile, Failure> {
        let config = self.config.as_deref().map(ConfigFile::read).transpose();
        Ok(config.map_err(|error| Failure::Input(format!("{error:#}")))?.unwrap_or_default())
    }

    fn by_shares(&self, head: &BackupHead) -> Result<OpenSeal, Failure> {
        let read = |path: &PathBuf| {
            let share = Share::parse(&read_share(path)?);
            share.map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
        };
        let shares = self.share.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        open_by_shares(&head.bootstrap, &shares).map_err(|_| {
            Failure::Input(format!(
                "these shares do not open a seal of the backup; it has: {}. Give as many as open \
                 a seal, each by its own --share, and all of them of that seal",
                known(head)
            ))
        })
    }
}

impl Opener<'_> {
    /// Opens a seal. When nothing was given, devices are asked and then a person.
    pub(super) async fn open(&mut self, head: &BackupHead) -> Result<OpenSeal, Failure> {
        let args = self.args;
        if let Some(path) = &args.keyfile {
            let key = read_keyfile(path).map_err(|error| Failure::Input(format!("{error:#}")))?;
            return by_secret(head, &key);
        }
        if !args.share.is_empty() {
            return args.by_shares(head);
        }
        if args.device || (args.passphrase_file.is_none() && has_device(head)) {
            match self.by_devices(head).await {
                Ok(open) => return Ok(open),
                Err(failure) if args.device => return Err(failure),
                Err(failure) => output::note(&format!("{failure}")),
            }
        }
        by_secret(head, &input::passphrase(args.passphrase_file.as_deref())?)
    }

    async fn by_devices(&mut self, head: &BackupHead) -> Result<OpenSeal, Failure> {
        let mut said = Vec::new();
        for seal in &head.bootstrap.seals {
            let SealKind::Device { kind, .. } = &seal.kind else { continue };
            if self.refused.contains(&seal.id) {
                said.push(format!("{}: its PIN was refused, and is tried once", kind.as_str()));
                continue;
            }
            match open_by_device(head.instance(), seal, &*self.devices).await {
                Ok(open) => return Ok(open),
                Err(error) => {
                    if matches!(error, SealDeviceError::PinLocked { .. }) {
                        self.refused.insert(seal.id);
                    }
                    said.push(format!("{}: {error}", kind.as_str()));
                }
            }
        }
        let said = if said.is_empty() { "the backup has none".to_owned() } else { said.join("; ") };
        Err(Failure::Input(format!("no device opens a seal of the backup ({said})")))
    }
}

fn by_secret(head: &BackupHead, secret: &SecretVec) -> Result<OpenSeal, Failure> {
    open_any(&head.bootstrap, secret).ok_or_else(|| {
        Failure::Input(format!(
            "this opens no seal of the backup; it has: {}. Shares are given by --share, and \
             devices asked by --device",
            known(head)
        ))
    })
}

fn has_device(head: &BackupHead) -> bool {
    head.bootstrap.seals.iter().any(|seal| DeviceKind::parse(seal.kind.as_str()).is_some())
}

/// The seals that can open a backup, in words.
pub(super) fn known(head: &BackupHead) -> String {
    let word = |kind: &SealKind| match kind {
        SealKind::Shamir { threshold, holders } => {
            format!("shamir ({threshold} of {})", holders.len())
        }
        SealKind::Passphrase { .. } | SealKind::Keyfile | SealKind::Device { .. } => {
            kind.as_str().to_owned()
        }
    };
    head.bootstrap.seals.iter().map(|seal| word(&seal.kind)).collect::<Vec<_>>().join(", ")
}
