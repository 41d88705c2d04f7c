//! `backup verify`: backups without their server.
//!
//! Room      `lastkey`.
//! Source    docs/formats/backup.md, "What can be checked".

use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_core::audit::note::NoteKey;
use lastkey_core::backup::Stop;
use lastkey_core::backup_folder::is_in_bucket;
use lastkey_core::ids::InstanceId;
use lastkey_service::restoring::open_backup;
use lastkey_store::backup::check;

use super::find::Origin;
use super::show::{CheckedBackup, CheckedBackups, date};
use crate::cli::audit::verify::read_keys;
use crate::cli::failure::Failure;
use crate::cli::open_seal::{OpenArgs, Opener, known};
use crate::cli::output::note;
use crate::cli::session::Session;

/// Arguments of `backup verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A backup, or a directory with some, or s3://BUCKET/FOLDER
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// File with the key that signs the audit log of the installation, as `audit checkpoint
    /// --public-key` prints it: shows that the installation made the backup
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
}

/// Checks backups and tells of each; fails when one is not what was written.
pub(super) async fn verify(args: &VerifyArgs, session: &Session) -> Result<(), Failure> {
    let keys = args.public_key.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let is_remote = args.path.to_str().is_some_and(is_in_bucket);
    let beside = if is_remote { Path::new("backups") } else { &args.path };
    let mut opener =
        args.open.is_given().then(|| args.open.opener_of_backups(beside)).transpose()?;
    let origin = Origin::of(&args.path, &args.open)?;
    let mut backups = Vec::new();
    for name in origin.names()? {
        backups.push(match verify_one(&origin, &name, &keys, opener.as_mut()).await {
            Ok(checked) => checked,
            Err(failure) => {
                let failed = CheckedBackup::failed(name, failure);
                note(&format!("error: {}", failed.problem.as_deref().unwrap_or_default()));
                failed
            }
        });
    }
    let is_failed = backups.iter().any(|backup| !backup.valid);
    session.show(&CheckedBackups { backups })?;
    if is_failed { Err(Failure::Found) } else { Ok(()) }
}

async fn verify_one(
    origin: &Origin,
    name: &str,
    keys: &[NoteKey],
    opener: Option<&mut Opener<'_>>,
) -> Result<CheckedBackup, Failure> {
    let mut backup = origin.open(name)?;
    let head = backup.head().clone();
    let mut checked = CheckedBackup {
        name: backup.name().to_owned(),
        valid: true,
        instance: Some(head.instance().to_string()),
        begun_at: Some(date(head.begun_at)),
        bytes: Some(backup.len()),
        seals: Some(known(&head.bootstrap)),
        checked: "bytes",
        records: None,
        audit_records: None,
        problem: None,
    };
    if let Some(key) = key_of(keys, head.instance()) {
        backup.check_signature(key)?;
        checked.checked = "bytes and signature";
    } else if !keys.is_empty() {
        return Err(Failure::Input("none of the public keys is of this installation".to_owned()));
    }
    let Some(opener) = opener else {
        backup.check_hash()?;
        return Ok(checked);
    };
    let open = opener.open(&head.bootstrap).await?;
    let opened = open_backup(&head, &open).map_err(|error| Failure::Input(error.to_string()))?;
    let stop = Stop::default();
    let manifest = check(&mut backup, &opened.key, &opened.records, &opened.log_key, &stop)?;
    checked.checked = "everything";
    checked.records = Some(manifest.records);
    checked.audit_records = manifest.audit.map(|audit| audit.size);
    Ok(checked)
}

fn key_of(keys: &[NoteKey], instance: InstanceId) -> Option<&NoteKey> {
    let name = format!("lastkey/{instance}");
    keys.iter().find(|key| key.name() == name)
}
