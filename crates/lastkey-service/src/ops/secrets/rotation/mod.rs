//! Use cases of rotation: how a secret rotates, and that it does.
//!
//! Room      `service`. What a strategy does outside is behind the ports of `core::outside`.
//! Source    `docs/rotation.md`.
//! Holds     a step is done before it is written down, and can be done twice: a server that stops
//!           anywhere goes on or takes back. The current version is not touched before the new one
//!           was tested, and the old one not before its overlap has ended.

mod begin;
mod due;
mod outside;
mod revoke;
mod run;
mod set;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lastkey_core::ports::{Expected, Revision, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretId, SecretItem};
use lastkey_core::secret_rotation::{RotationDue, RotationDueWhat, SecretRotation};
use lastkey_core::time::{Elapsed, Timestamp};

pub use self::begin::Begin;
pub(crate) use self::due::run;
pub(crate) use self::set::check_place;
pub use self::set::{RotationRequest, RotationSet, StrategyRequest};
use super::{ATTEMPTS, Stored, removed, rewritten, target};
use crate::engine::Engine;
use crate::error::Error;

/// A rotation, with its times told by the wall clock.
#[derive(Clone, Debug)]
pub struct RotationView {
    /// The rotation.
    pub rotation: SecretRotation,
    /// When it is due.
    pub due_at: Option<Timestamp>,
    /// When the old version is revoked, or looked at again.
    pub overlap_ends_at: Option<Timestamp>,
    /// Who holds the old version still, as far as that is known.
    pub holders: Vec<String>,
}

/// How many rotations there were since the server was unsealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotationTotals {
    /// That ended well.
    pub done: u64,
    /// That were taken back.
    pub failed: u64,
}

/// Which secrets are being rotated by this server, and how often it did so. Servers that share a
/// store are kept apart by what each step expects to find.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<HashSet<SecretId>>,
    done: AtomicU64,
    failed: AtomicU64,
}

/// The right to rotate one secret; given back when it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    secret: SecretId,
}

impl Turns {
    /// The right to rotate a secret, if nobody has it.
    fn take(&self, secret: SecretId) -> Option<Turn<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Not made before it is known to be free: a turn gives back what it has when it is dropped.
        taken.insert(secret).then(|| Turn { turns: self, secret })
    }

    fn count(&self, is_done: bool) {
        let counter = if is_done { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.secret);
    }
}

/// A rotation as it is stored.
struct Held {
    rotation: SecretRotation,
    revision: Revision,
}

/// A rotation and its secret, as they are stored.
struct Scene {
    held: Held,
    item: SecretItem,
    item_revision: Revision,
}

impl Engine {
    /// How many rotations there were since the server was unsealed.
    #[must_use]
    pub fn rotation_totals(&self) -> RotationTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RotationTotals { done: read(&self.turns.done), failed: read(&self.turns.failed) }
    }

    /// The rotation of a secret, as it is stored now.
    async fn held_rotation(&self, secret: SecretId) -> Result<Option<Held>, Error> {
        let Some(stored) = self.store.get(&RecordPath::secret_rotation(secret)).await? else {
            return Ok(None);
        };
        let Record::SecretRotation(rotation) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some(Held { rotation: *rotation, revision: stored.revision }))
    }

    /// The rotation and the secret; `None` when one of them is gone.
    async fn scene(&self, secret: SecretId) -> Result<Option<Scene>, Error> {
        let Some(held) = self.held_rotation(secret).await? else { return Ok(None) };
        let stored = self.stored_secret(&held.rotation.name).await?;
        let stored = stored.filter(|stored| stored.item.id == secret);
        Ok(stored.map(|Stored { item, revision }| Scene { held, item, item_revision: revision }))
    }

    /// The writes with which the rotation of a secret that is gone goes too.
    pub(super) async fn end_of_rotation(&self, secret: SecretId) -> Result<Vec<Write>, Error> {
        Ok(self.held_rotation(secret).await?.map(Held::end).unwrap_or_default())
    }

    /// The write with which the rotation of a secret follows it to another name.
    pub(super) async fn renamed_rotation(&self, item: &SecretItem) -> Result<Vec<Write>, Error> {
        let held = self.held_rotation(item.id).await?;
        Ok(held.map_or_else(Vec::new, |held| {
            let rotation = SecretRotation { name: item.name.clone(), ..held.rotation.clone() };
            held.changed(rotation)
        }))
    }

    /// The view of a rotation.
    fn rotation_view(&self, rotation: SecretRotation) -> RotationView {
        let clock = self.clock.observe();
        let at = |elapsed: Elapsed| clock.wall_at(elapsed);
        let holders = match rotation.overlap {
            Some(overlap) => self.old_holders(&rotation.name, overlap.version),
            None => Vec::new(),
        };
        RotationView {
            due_at: rotation.due.map(at),
            overlap_ends_at: rotation.overlap.map(|overlap| at(overlap.ends)),
            holders,
            rotation,
        }
    }
}

impl Held {
    /// The writes that put another form in its place, and move what is due.
    fn changed(&self, after: SecretRotation) -> Vec<Write> {
        let mut writes = moved_dues(Some(&self.rotation), Some(&after));
        let path = RecordPath::secret_rotation(after.secret);
        let record = Some(Record::SecretRotation(Box::new(after)));
        writes.push(Write { path, expected: Expected::At(self.revision), record });
        writes
    }

    /// The writes that remove it.
    fn end(self) -> Vec<Write> {
        let mut writes = moved_dues(Some(&self.rotation), None);
        let path = RecordPath::secret_rotation(self.rotation.secret);
        writes.push(Write { path, expected: Expected::At(self.revision), record: None });
        writes
    }
}

/// What is due with a rotation.
fn dues(rotation: &SecretRotation) -> impl Iterator<Item = RotationDue> {
    let secret = rotation.secret;
    let due = move |at, what| RotationDue { at, what, secret };
    let rotate = rotation.due.map(|at| due(at, RotationDueWhat::Rotate));
    let revoke = rotation.overlap.map(|overlap| due(overlap.ends, RotationDueWhat::Revoke));
    rotate.into_iter().chain(revoke)
}

/// The writes that move what is due.
fn moved_dues(before: Option<&SecretRotation>, after: Option<&SecretRotation>) -> Vec<Write> {
    let old: Vec<_> = before.into_iter().flat_map(dues).collect();
    let new: Vec<_> = after.into_iter().flat_map(dues).collect();
    let gone = old.iter().filter(|due| !new.contains(due));
    let gone = gone.map(|due| removed(RecordPath::rotation_due(due)));
    let come = new.iter().filter(|due| !old.contains(due)).map(|due| Write {
        path: RecordPath::rotation_due(due),
        expected: Expected::Absent,
        record: Some(Record::RotationDue(*due)),
    });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_given_to_one_and_again_when_it_was_given_back() {
        let (turns, one, other) = (Turns::default(), SecretId([1; 16]), SecretId([2; 16]));
        let turn = turns.take(one).unwrap();
        assert!(turns.take(one).is_none() && turns.take(one).is_none());
        assert!(turns.take(other).is_some());
        drop(turn);
        assert!(turns.take(one).is_some());
    }
}
