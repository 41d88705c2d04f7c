//! `restore`: a data directory out of a backup.
//!
//! Room      `lastkey`.
//! Source    docs/formats/backup.md, "Restore"; docs/backup.md.
//! Holds     the directory opens when everything is done: records, log, and the destruction of
//!           what was destroyed since. An older state than is known is not restored without a
//!           word, and what is restored holds no word for others who know a newer one.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_core::backup::{BackupHead, Stop, Tombstone, Written};
use lastkey_core::backup_folder::BackupFolder;
use lastkey_core::ports::Clock as _;
use lastkey_service::restoring::{OpenBackup, audit_restored, bury, note_restored, open_backup};
use lastkey_service::seals::OpenSeal;
use lastkey_store::backup::{BackupFile, Manifest, list_name, read_list, restore as fill};
use lastkey_store::sqlite::finish_restore;

use super::find::{Chosen, Origin};
use super::show::{RestoredView, date};
use crate::adapters::MachineClock;
use crate::cli::failure::Failure;
use crate::cli::open_seal::OpenArgs;
use crate::cli::session::Session;
use crate::wiring::{Opened, open_restored};

/// Arguments of `restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// A backup, or a directory or s3://BUCKET/FOLDER with some: the newest one is taken
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The new data directory; it must be empty or not there
    #[arg(long, value_name = "NEWDIR")]
    data: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
    /// File with what was destroyed since; found beside the backup when left out
    #[arg(long, value_name = "FILE")]
    tombstones: Option<PathBuf>,
    /// Restore although nothing tells what was destroyed since: such keys come back
    #[arg(long, conflicts_with = "tombstones")]
    without_tombstones: bool,
    /// Restore an older state although a newer one is known
    #[arg(long)]
    accept_rollback: bool,
}

/// Restores and tells what.
pub(crate) async fn restore(args: RestoreArgs, session: &Session) -> Result<(), Failure> {
    let origin = Origin::of(&args.from, &args.open)?;
    let Chosen { mut backup, newer } = origin.choose()?;
    if let Some(newer) = newer.filter(|_| !args.accept_rollback) {
        return Err(Failure::Input(format!(
            "this would bring an older state back: {newer}. What was changed since would be \
             undone; restore the newest backup, or say --accept-rollback"
        )));
    }
    check_empty(&args.data)?;
    let head = backup.head().clone();
    let open = args.open.opener_of_backups(&args.data)?.open(&head.bootstrap).await?;
    let opened = unlock(&head, &open)?;
    let list = find_tombstones(&args, &*origin.folder, &head, &opened)?;
    let stop = Stop::default();
    let OpenBackup { key, records, log_key } = opened;
    let manifest = fill(&mut backup, key, records, &log_key, &args.data, &stop)?;
    let tombstones = check_list(list, &manifest)?;
    let again = finish(&args.data, &backup, &manifest, &tombstones, &open).await?;
    session.show(&RestoredView {
        instance: head.instance().to_string(),
        backup: head.id.to_string(),
        begun_at: date(head.begun_at),
        records: manifest.records,
        audit_records: manifest.audit.map(|audit| audit.size),
        destroyed_again: again,
        last_destroyed_at: tombstones.iter().map(|one| one.destroyed_at).max().map(date),
        data: args.data.display().to_string(),
    })
}

fn unlock(head: &BackupHead, open: &OpenSeal) -> Result<OpenBackup, Failure> {
    open_backup(head, open).map_err(|error| Failure::Input(error.to_string()))
}

fn check_empty(data: &Path) -> Result<(), Failure> {
    match fs::read_dir(data).map(Iterator::count) {
        Ok(1..) => Err(Failure::Input(format!(
            "{} is not empty, and nothing in it was touched; name a new directory",
            data.display()
        ))),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io(format!("read {}", data.display()), error)),
    }
}

/// What was destroyed since, when somebody knows it; `None` when nobody is to be asked.
fn find_tombstones(
    args: &RestoreArgs,
    folder: &dyn BackupFolder,
    head: &BackupHead,
    opened: &OpenBackup,
) -> Result<Option<Vec<Tombstone>>, Failure> {
    if args.without_tombstones {
        return Ok(None);
    }
    let list = match &args.tombstones {
        Some(path) => {
            let read = std::fs::read(path);
            read.map_err(|error| Failure::io(format!("read {}", path.display()), error))?
        }
        None => {
            let name = list_name(head.instance());
            folder.read(&name)?.ok_or_else(|| {
                Failure::Input(format!(
                    "there is no {name} in {}, so nothing tells which keys were destroyed since; \
                     name the list by --tombstones FILE, or say --without-tombstones",
                    folder.place()
                ))
            })?
        }
    };
    let list = String::from_utf8_lossy(&list);
    Ok(Some(read_list(&list, head.instance(), &opened.log_key)?))
}

/// A list that is older than the backup would bring back what was destroyed before it.
fn check_list(
    list: Option<Vec<Tombstone>>,
    manifest: &Manifest,
) -> Result<Vec<Tombstone>, Failure> {
    match list {
        Some(list) if (list.len() as u64) < manifest.tombstones => Err(Failure::Input(
            "the list of what was destroyed is older than the backup; name the newest one by \
             --tombstones FILE, empty the new directory, and restore again"
                .to_owned(),
        )),
        list => Ok(list.unwrap_or_default()),
    }
}

/// Everything after the records are there; the directory opens when this has ended well.
async fn finish(
    data: &Path,
    backup: &BackupFile,
    manifest: &Manifest,
    tombstones: &[Tombstone],
    open: &OpenSeal,
) -> Result<usize, Failure> {
    let failed = |error: anyhow::Error| Failure::Input(format!("{error:#}"));
    let again = {
        let Opened { store, ports, .. } = open_restored(data).map_err(failed)?;
        let opened = unlock(backup.head(), open)?;
        let records = store.open(opened.records).map_err(|error| failed(error.into()))?;
        let written = Written {
            len: backup.len(),
            sha256: *backup.sha256(),
            records: manifest.records,
            records_sha256: manifest.records_sha256,
            audit: manifest.audit.clone(),
        };
        let now = MachineClock::of_this_boot().read().wall;
        let noted = note_restored(&*records, backup.head().id, written, now).await;
        noted.map_err(|error| failed(error.into()))?;
        let again = bury(&*records, tombstones).await.map_err(|error| failed(error.into()))?;
        let audited = audit_restored(&ports, backup.head().id).await;
        audited.map_err(|error| failed(error.into()))?;
        again
    };
    finish_restore(data).map_err(|error| failed(error.into()))?;
    Ok(again)
}
