//! Limits of the key service, in one place, each with its reason.
//!
//! Room      `core`.

use core::time::Duration;

/// Most plaintext that one Encrypt protects, in bytes. More goes through a data key.
pub const MAX_PLAINTEXT_LEN: usize = lastkey_crypto::blob::MAX_PLAINTEXT_LEN;
/// Most bytes that one GenerateDataKey draws.
pub const MAX_DATA_KEY_LEN: usize = 1_024;
/// Most bytes that one GenerateRandom draws.
pub const MAX_RANDOM_LEN: usize = 65_536;
/// Most bytes of a message to sign or to authenticate (larger ones are hashed by the caller).
pub const MAX_MESSAGE_LEN: usize = 65_536;
/// Most items in one batch.
pub const MAX_BATCH_LEN: usize = 256;
/// Most aliases of one key.
pub const MAX_ALIASES: usize = 50;
/// Most tags of one key.
pub const MAX_TAGS: usize = 50;
/// Longest tag name, in bytes.
pub const MAX_TAG_NAME_LEN: usize = 128;
/// Longest tag value, in bytes.
pub const MAX_TAG_VALUE_LEN: usize = 256;
/// Longest description, in bytes.
pub const MAX_DESCRIPTION_LEN: usize = 8_192;
/// Most keys, versions or aliases in one page of a list.
pub const MAX_PAGE_LEN: usize = 1_000;
/// Shortest period of automatic rotation.
pub const MIN_ROTATION_PERIOD: Duration = Duration::from_secs(3_600);
/// Longest period of automatic rotation: ten years.
pub const MAX_ROTATION_PERIOD: Duration = Duration::from_secs(3_650 * 86_400);
/// Shortest deletion window, in days.
pub const MIN_DELETION_DAYS: u32 = 7;
/// Longest deletion window, in days.
pub const MAX_DELETION_DAYS: u32 = 366;
/// Deletion window when none is named, in days.
pub const DEFAULT_DELETION_DAYS: u32 = 30;
/// How long import parameters are good for.
pub const IMPORT_TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);
