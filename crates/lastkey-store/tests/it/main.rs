//! The stores through their public doors: crashes, full disks, foreign and damaged files.
//!
//! Room      `store`.

#![cfg(test)]

mod audit_log;
mod backup;
mod crash;
mod damage;
mod directory;
mod full;
mod million;
mod residue;

use std::path::Path;
use std::sync::Arc;

use lastkey_core::ports::{Expected, SealedStore as _, Store};
use lastkey_store::SqliteSealedStore;
use lastkey_store::backend::RawWrite;
use lastkey_store::sqlite::OpenError;
use lastkey_testkit::entropy::SeededSource;
use lastkey_testkit::fixtures;

/// A store over a directory, unsealed. It closes when both are dropped.
fn open(dir: &Path) -> Result<(SqliteSealedStore, Arc<dyn Store>), OpenError> {
    let sealed = SqliteSealedStore::open_dir(dir, Arc::new(SeededSource::new(1)))?;
    let store = sealed.open(fixtures::record_keys(&[1])).unwrap();
    Ok((sealed, store))
}

fn at(revision: u64) -> Expected {
    Expected::At(lastkey_core::ports::Revision(revision))
}

fn raw(path: &str, expected: Option<u64>, value: Option<&[u8]>) -> RawWrite {
    RawWrite { path: path.to_owned(), expected, value: value.map(<[u8]>::to_vec) }
}
