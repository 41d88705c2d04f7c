//! What listings and descriptions answer. Never key material.
//!
//! Room      `service`.

use lastkey_core::holding::{Holding, Inventory};
use lastkey_core::ids::{AliasName, KeyId};
use lastkey_core::key::Key;
use lastkey_core::time::{ClockRecord, Timestamp};
use lastkey_core::version::{KeyVersion, Usage};

/// A key, with its due times told by the wall clock.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// The key.
    pub key: Key,
    /// Last use of any of its versions; `None` when there was none.
    pub last_used_at: Option<Timestamp>,
    /// When it rotates next.
    pub next_rotation_at: Option<Timestamp>,
    /// When it is destroyed.
    pub deletion_at: Option<Timestamp>,
    /// What places outside were last reported to hold, by place. Told where one key is described.
    pub holdings: Vec<Holding>,
}

impl KeyView {
    pub(crate) fn of(key: Key, clock: &ClockRecord, last_used_at: Option<Timestamp>) -> Self {
        let next_rotation_at = key.rotation.map(|rotation| clock.wall_at(rotation.due));
        let deletion_at = key.destruction.map(|destruction| clock.wall_at(destruction.due));
        let holdings = Vec::new();
        Self { key, last_used_at, next_rotation_at, deletion_at, holdings }
    }
}

/// What depends on a key, as far as the service knows.
#[derive(Clone, Debug)]
pub struct Impact {
    /// The key, and what places hold under it.
    pub key: KeyView,
    /// The same by name, where places name what they hold.
    pub inventories: Vec<Inventory>,
    /// Secrets that have a value under it.
    pub secrets: u64,
    /// Values of secrets under it.
    pub secret_versions: u64,
}

/// A version, with its use.
#[derive(Clone, Debug)]
pub struct VersionView {
    /// The version. Its wrapped material is left out.
    pub version: KeyVersion,
    /// Whether it is the primary version.
    pub primary: bool,
    /// Its use.
    pub usage: Usage,
}

/// An alias.
#[derive(Clone, Debug)]
pub struct AliasView {
    /// Its name.
    pub alias: AliasName,
    /// The key it names.
    pub key: KeyId,
}

/// One page of a list, in order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl<T> Page<T> {
    /// Cuts a page out of a scan that asked for one more than `limit`.
    pub(crate) fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}
