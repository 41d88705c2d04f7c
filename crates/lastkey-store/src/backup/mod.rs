//! Backups: one file that holds everything of an installation, encrypted and signed.
//!
//! Room      `store`. Records stay as the store keeps them, so a backup opens nothing that its
//!           store did not; around them lies an envelope of `crypto`, under a key that every seal
//!           wraps.
//! Source    docs/formats/backup.md.
//! Holds     a file appears under its name when it is whole and durable. What comes out of a
//!           backup was authenticated, and counts only when its end and its signature were right.

mod data;
mod directory;
mod failure;
mod file;
mod format;
mod restore;
mod sink;
mod source;
mod tombstones;

pub use self::data::{DataBackups, SUFFIX, newest_first};
pub use self::directory::Directory;
pub use self::file::BackupFile;
pub use self::format::{MAX_HEAD_LEN, Manifest, decode_head};
pub use self::restore::{check, restore};
pub use self::sink::scan_stream;
pub use self::tombstones::{list_name, read_list, write_list};
