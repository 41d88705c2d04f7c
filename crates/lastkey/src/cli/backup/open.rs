//! Opening a backup by what opens one of its seals.
//!
//! Room      `lastkey`.

use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_core::backup::BackupHead;
use lastkey_core::ports::DeviceKind;
use lastkey_core::seal_record::SealKind;
use lastkey_crypto::share::Share;
use lastkey_secret::SecretVec;
use lastkey_service::seals::{OpenSeal, open_any, open_by_device, open_by_shares};

use crate::cli::failure::Failure;
use crate::cli::seal::read_share;
use crate::cli::{input, output};
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
}

impl OpenArgs {
    /// Whether anything was given.
    pub(super) const fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
            || self.keyfile.is_some()
            || !self.share.is_empty()
            || self.device
    }

    /// Opens a seal. When nothing was given, devices are asked and then a person. `memory` is
    /// where devices remember what they must not be asked again.
    pub(super) async fn open(&self, head: &BackupHead, memory: &Path) -> Result<OpenSeal, Failure> {
        if let Some(path) = &self.keyfile {
            let key = read_keyfile(path).map_err(|error| Failure::Input(format!("{error:#}")))?;
            return by_secret(head, &key);
        }
        if !self.share.is_empty() {
            return self.by_shares(head);
        }
        if self.device || (self.passphrase_file.is_none() && has_device(head)) {
            match by_devices(head, memory).await {
                Ok(open) => return Ok(open),
                Err(failure) if self.device => return Err(failure),
                Err(failure) => output::note(&format!("{failure}")),
            }
        }
        by_secret(head, &input::passphrase(self.passphrase_file.as_deref())?)
    }

    fn by_shares(&self, head: &BackupHead) -> Result<OpenSeal, Failure> {
        let read = |path: &PathBuf| {
            let share = Share::parse(&read_share(path)?);
            share.map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
        };
        let shares = self.share.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        open_by_shares(&head.bootstrap, &shares).map_err(|_| {
            Failure::Input(format!(
                "these shares do not open a seal of the backup: {}",
                known(head)
            ))
        })
    }
}

fn by_secret(head: &BackupHead, secret: &SecretVec) -> Result<OpenSeal, Failure> {
    open_any(&head.bootstrap, secret).ok_or_else(|| {
        Failure::Input(format!("this opens no seal of the backup; it has: {}", known(head)))
    })
}

async fn by_devices(head: &BackupHead, memory: &Path) -> Result<OpenSeal, Failure> {
    let devices = seal_devices(memory, &[], &[]);
    let mut said = Vec::new();
    for seal in &head.bootstrap.seals {
        let SealKind::Device { kind, .. } = &seal.kind else { continue };
        match open_by_device(head.instance(), seal, &*devices).await {
            Ok(open) => return Ok(open),
            Err(error) => said.push(format!("{}: {error}", kind.as_str())),
        }
    }
    let said = if said.is_empty() { "the backup has none".to_owned() } else { said.join("; ") };
    Err(Failure::Input(format!("no device opens a seal of the backup ({said})")))
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
