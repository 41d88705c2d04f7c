//! Stores of Lastkey: SQLite and memory, with encrypted, versioned records.
//!
//! Room      `store`. Implements the [`Store`](lastkey_core::ports::Store) and
//!           [`SealedStore`](lastkey_core::ports::SealedStore) ports. A [`Backend`] keeps bytes;
//!           everything above it (record codec, sealing, errors of the port) is shared, so a
//!           backend can neither forget to encrypt nor write a record in a format of its own.
//! Source    `docs/formats/record.md`.
//! Holds     no record leaves this room for a disk but sealed under the record key of its epoch
//!           and bound to its installation, path and revision.

mod answers;
pub mod audit_log;
pub mod backend;
pub mod backup;
mod encrypted;
mod gather;
pub mod memory;
mod opener;
pub mod record;
mod sealing;
pub mod sqlite;
mod watch;

pub use backend::Backend;
pub use opener::{MemorySealedStore, SealedRecords, SqliteSealedStore};
