//! LUKS2: headers that cryptsetup reads, and a token that holds a wrapped key.
//!
//! Room      `luks`. Bytes go through [`Medium`]; what is behind it (a file, a device) is the
//!           caller's. Randomness is an argument.
//! Source    LUKS2 On-Disk Format Specification 1.1.3; docs/formats/luks2-token.md.
//! Holds     There is a good copy of the header at every moment of a change. What cannot be
//!           read is never taken for empty. Volume keys and key slot secrets leave as
//!           `lastkey_secret` types alone.

mod anti_forensic;
mod area;
mod binary;
mod error;
mod header;
mod kdf;
mod medium;
mod metadata;
mod slot;
mod token;

pub use area::ENCRYPTION;
pub use error::Error;
pub use header::{Copies, Format, Header, VolumeKey};
pub use medium::Medium;
pub use metadata::Segment;
pub use token::{Content, KmsToken, State, TOKEN_TYPE};

/// Where the data of a volume begins that [`Header::format`] made, in bytes.
pub const DATA_OFFSET: u64 = 16 * 1_024 * 1_024;
/// Bytes right before the data that no key slot takes: what lies there is the caller's.
pub const RESERVED_LEN: u64 = 4_096;
/// Length of a volume key that [`Header::format`] draws: two keys of AES-256, for XTS.
pub const VOLUME_KEY_LEN: usize = 64;
/// Key slots and tokens of a header, each.
pub const MAX_SLOTS: u32 = 32;
