//! The stream of a backup, item by item, as it is read out of a store and its files.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md, "Stream".
//! Holds     memory does not grow with the store: one item at a time, wiped when it was handed on.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use lastkey_core::backup::{BackupError, Stop};
use lastkey_crypto::digest::Sha256;
use lastkey_secret::SecretVec;
use rusqlite::Rows;

use super::failure::damaged;
use super::format::{MAX_FILE_LEN, Manifest, file_item, is_file_name, manifest_item, record_item};
use crate::audit_log::LogCopy;
use crate::sqlite::next_value;

/// What comes next.
#[derive(Debug)]
enum Stage {
    Records,
    Files,
    Log,
    Over,
}

/// Reads a store, files beside it and the audit log as the stream of a backup.
pub(super) struct Source<'a> {
    rows: Rows<'a>,
    dir: &'a Path,
    /// Files of the data directory, by their names in it.
    files: Vec<String>,
    log: LogCopy,
    stop: Stop,
    stage: Stage,
    item: SecretVec,
    at: usize,
    records: Sha256,
    items: Sha256,
    manifest: Manifest,
}

impl<'a> Source<'a> {
    pub(super) fn new(rows: Rows<'a>, dir: &'a Path, log: LogCopy, stop: Stop) -> io::Result<Self> {
        let manifest = Manifest {
            records: 0,
            records_sha256: [0; 32],
            files: 0,
            files_sha256: [0; 32],
            tombstones: 0,
            audit: Some(log.head().clone()),
        };
        Ok(Self {
            rows,
            dir,
            files: small_files(dir)?,
            log,
            stop,
            stage: Stage::Records,
            item: SecretVec::take(Vec::new()),
            at: 0,
            records: Sha256::new(),
            items: Sha256::new(),
            manifest,
        })
    }

    /// What the stream said of itself at its end.
    pub(super) fn manifest(self) -> Manifest {
        self.manifest
    }

    fn next_item(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.stop.is_set() {
            return Err(io::Error::other(BackupError::Stopped));
        }
        loop {
            match self.stage {
                Stage::Records => match self.next_record()? {
                    Some(item) => return Ok(Some(item)),
                    None => self.stage = Stage::Files,
                },
                Stage::Files => match self.files.pop() {
                    Some(name) => {
                        let bytes = read_small(&self.dir.join(&name))?;
                        return bytes.expose(|bytes| self.file(&name, bytes)).map(Some);
                    }
                    None => self.stage = Stage::Log,
                },
                Stage::Log => match self.log.next_file()? {
                    Some((name, bytes)) => {
                        return self.file(&format!("audit/{name}"), &bytes).map(Some);
                    }
                    None => {
                        self.stage = Stage::Over;
                        self.manifest.records_sha256 = self.records.clone().finish();
                        self.manifest.files_sha256 = self.items.clone().finish();
                        let item = manifest_item(&self.manifest).map_err(io::Error::other)?;
                        return Ok(Some(item));
                    }
                },
                Stage::Over => return Ok(None),
            }
        }
    }

    fn next_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(stored) = next_value(&mut self.rows).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let item = record_item(&stored.path, stored.revision, &stored.value);
        let item = item.ok_or_else(|| {
            io::Error::other(damaged(&stored.path, "a record is longer than there is any"))
        })?;
        self.records.update(&item);
        self.manifest.records = self.manifest.records.saturating_add(1);
        let is_tombstone = stored.path.starts_with("tombstone/");
        self.manifest.tombstones = self.manifest.tombstones.saturating_add(is_tombstone.into());
        Ok(Some(item))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let item = Some(name).filter(|name| is_file_name(name));
        let item = item.and_then(|name| file_item(name, bytes)).ok_or_else(|| {
            io::Error::other(damaged(name, "no file of this name or length is kept"))
        })?;
        self.items.update(&item);
        self.manifest.files = self.manifest.files.saturating_add(1);
        Ok(item)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        while self.at == self.item.len() {
            match self.next_item()? {
                Some(item) => (self.item, self.at) = (SecretVec::take(item), 0),
                None => return Ok(0),
            }
        }
        let copied = self.item.expose(|item| {
            let rest = item.get(self.at..).unwrap_or_default();
            let len = rest.len().min(dest.len());
            if let (Some(to), Some(from)) = (dest.get_mut(..len), rest.get(..len)) {
                to.copy_from_slice(from);
            }
            len
        });
        self.at += copied;
        Ok(copied)
    }
}

/// Files beside the records and the log: the server's own authority, approvals of TPM seals.
fn small_files(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["approvals", "tls"] {
        let entries = match fs::read_dir(dir.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_file() && is_file_name(&name) {
                found.push(name);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn read_small(path: &PathBuf) -> io::Result<SecretVec> {
    let file = fs::File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(MAX_FILE_LEN);
    // Room for all of it, so that no part is left behind by a growing buffer.
    let mut bytes = Vec::with_capacity(len + 1);
    let read = file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes);
    let bytes = SecretVec::take(bytes);
    read.map(|_| bytes)
}
