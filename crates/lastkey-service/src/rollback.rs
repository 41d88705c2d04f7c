//! Whether this is an older state of the installation than somebody outside knew.
//!
//! Room      `service`.
//! Source    docs/backup.md, "An older state".
//! Holds     What this log has signed and does not have was signed in a newer state: nobody else can
//!           make that up. That an older state is meant has a number, which rises by the word of an
//!           operator alone, and never falls while the state is the same.

use std::sync::PoisonError;

use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::{Hash, verify_consistency};
use lastkey_core::audit::note::{NoteError, split};
use lastkey_core::ids::RequestId;
use lastkey_core::ports::{AuditArchive, Cause, CommitSeq, Expected, Store, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::Timestamp;

use crate::engine::Ports;
use crate::error::Error;
use crate::root::draw_id;
use crate::sealing::{Gate, audit_operator};

/// What somebody outside keeps of the state of an installation, to know it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The newest signed checkpoint of the audit log.
    pub checkpoint: String,
    /// The last commit of the store.
    pub commits: CommitSeq,
    /// Number of the last rollback that was meant; 0 before there was one.
    pub rollback: u64,
}

/// How the state of an installation stands to one that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what became of it.
    Continues,
    /// It is an older one, and an operator has said since that this is meant.
    Accepted,
    /// It is an older one.
    Older(RolledBack),
    /// It is another installation.
    Foreign,
}

/// Somebody knew more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolledBack {
    /// The log is shorter.
    #[error("remembers {old} records and the log has {size}: the log was cut")]
    Cut {
        /// Records that are remembered.
        old: u64,
        /// Records that there are.
        size: u64,
    },
    /// The log has other records.
    #[error("remembers another tree of {old} records: the log was rewritten")]
    Rewritten {
        /// Records that are remembered.
        old: u64,
    },
    /// The log lacks what would prove that it continues the one that is remembered.
    #[error(
        "remembers {old} records, and the log cannot be read to prove that it has them; the log of \
         the server says what is missing"
    )]
    Unproven {
        /// Records that are remembered.
        old: u64,
    },
    /// The store is older, whatever the log has.
    #[error("remembers commit {old} of the store, and the last one is {last}")]
    Store {
        /// The last commit that is remembered.
        old: u64,
        /// The last commit that there is.
        last: u64,
    },
    /// The state is from before a rollback that was meant.
    #[error("remembers an accepted rollback that this state does not know")]
    Undone,
}

impl Gate {
    /// Compares the state of the installation with what somebody remembers of it, and answers what
    /// he has to remember from now on. Who asks is not asked: a signature of this log is what counts.
    /// The server is not ready any more when it proves a newer state, unless a rollback was ever
    /// meant.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn compare(
        &self,
        remembered: Option<&Remembered>,
    ) -> Result<(Standing, Remembered), Error> {
        let engine = self.engine()?;
        let archive = engine.archive()?;
        let (rollback, _) = meant(&*engine.store).await?;
        let (checkpoint, commits) = (archive.signed_checkpoint(), engine.store.last_commit());
        let now = Remembered { checkpoint, commits, rollback };
        let Some(remembered) = remembered else { return Ok((Standing::Continues, now)) };
        let keys: Vec<_> = archive.state().log_key.into_iter().collect();
        let Ok((known, _)) = Checkpoint::open(&remembered.checkpoint, &keys) else {
            return Ok((Standing::Foreign, now));
        };
        let log = compare_logs(archive, &known, &now.checkpoint).await?;
        let is_proof = |what: &RolledBack| !matches!(what, RolledBack::Unproven { .. });
        if let Some(what) = log.filter(|what| now.rollback == 0 && is_proof(what)) {
            self.note_rollback("a node", "node", &what.to_string()).await;
        }
        Ok((standing(log, remembered, &now), now))
    }

    /// Notes that somebody knew a newer state of the installation. The server is not ready from then
    /// on, unless whoever started it said that this is meant.
    pub async fn note_rollback(&self, who: &str, target: &str, what: &str) {
        let problem = format!("{who} {what}");
        {
            let mut known = self.rollback.lock().unwrap_or_else(PoisonError::into_inner);
            if known.is_some() {
                return;
            }
            *known = Some(problem.clone());
        }
        tracing::error!(problem, "this is an older state of the installation than was known");
        if self.accepts_rollback {
            // Recorded when the server was unsealed.
            return;
        }
        let drawn = draw_id(&mut *self.ports.entropy.open()).unwrap_or_default();
        let (request, action) = (RequestId(drawn), "sys:DetectRollback");
        let recorded = audit_operator(&self.ports, request, action, "ok", Some(target)).await;
        if let Err(error) = recorded {
            tracing::warn!(%error, "a rollback could not be recorded");
        }
    }
}

/// Records that the state of a store is meant although others may know a newer one, and says so to
/// all who ask.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Internal`]; nothing is said then.
pub(crate) async fn accept(ports: &Ports, store: &dyn Store) -> Result<(), Error> {
    let drawn = draw_id(&mut *ports.entropy.open());
    let request = RequestId(drawn.map_err(|error| Error::Internal(error.into()))?);
    audit_operator(ports, request, "sys:AcceptRollback", "ok", None).await?;
    raise(store, ports.clock.read().wall).await
}

/// Gives the state of a store the next number. By the wall clock, because the store may be older
/// than the number before.
///
/// # Errors
/// [`Error::Conflict`] when somebody else does the same; [`Error::Unavailable`],
/// [`Error::Internal`].
pub(crate) async fn raise(store: &dyn Store, now: Timestamp) -> Result<(), Error> {
    let (before, expected) = meant(store).await?;
    let record = Some(Record::Rollback(now.0.max(before.saturating_add(1))));
    store.commit(vec![Write { path: RecordPath::rollback(), expected, record }]).await?;
    Ok(())
}

/// Number of the last rollback that was meant, and the write that its record expects.
async fn meant(store: &dyn Store) -> Result<(u64, Expected), Error> {
    match store.get(&RecordPath::rollback()).await? {
        None => Ok((0, Expected::Absent)),
        Some(stored) => {
            let Record::Rollback(number) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            Ok((number, Expected::At(stored.revision)))
        }
    }
}

/// Whether the log has what was signed of it.
async fn compare_logs(
    archive: &dyn AuditArchive,
    known: &Checkpoint,
    now: &str,
) -> Result<Option<RolledBack>, Error> {
    let internal = |error: NoteError| Error::Internal(error.into());
    let (text, _) = split(now).map_err(internal)?;
    let now = Checkpoint::parse(text).map_err(internal)?;
    let (old, size) = (known.size, now.size);
    if old > size {
        return Ok(Some(RolledBack::Cut { old, size }));
    }
    let proof = archive.consistency(old, size).await;
    Ok(judge(proof, (old, &known.root), (size, &now.root)))
}

/// What a proof is worth. Without one it is an older state until somebody says that it is meant:
/// "not now" would be the answer for ever when a part of the log is lost.
fn judge(
    proof: Result<Vec<Hash>, Cause>,
    old: (u64, &Hash),
    new: (u64, &Hash),
) -> Option<RolledBack> {
    match proof {
        Ok(proof) if verify_consistency(&proof, old, new) => None,
        Ok(_) => Some(RolledBack::Rewritten { old: old.0 }),
        Err(cause) => {
            let error = &*cause;
            tracing::error!(error, "the audit log cannot prove that it continues what was signed");
            Some(RolledBack::Unproven { old: old.0 })
        }
    }
}

fn standing(log: Option<RolledBack>, remembered: &Remembered, now: &Remembered) -> Standing {
    let (old, last) = (remembered.commits.0, now.commits.0);
    let store = (old > last).then_some(RolledBack::Store { old, last });
    let undone = (remembered.rollback > now.rollback).then_some(RolledBack::Undone);
    match log.or(store).or(undone) {
        None => Standing::Continues,
        Some(_) if now.rollback > remembered.rollback => Standing::Accepted,
        Some(what) => Standing::Older(what),
    }
}

#[cfg(test)]
mod tests {
    use lastkey_testkit::fakes::FakeStore;

    use super::*;

    fn remembered(commits: u64, rollback: u64) -> Remembered {
        Remembered { checkpoint: String::new(), commits: CommitSeq(commits), rollback }
    }

    #[test]
    fn a_state_continues_until_log_store_or_number_say_otherwise() {
        let cut = RolledBack::Cut { old: 9, size: 8 };
        let now = remembered(5, 7);
        for known in [remembered(5, 7), remembered(4, 7), remembered(4, 6)] {
            assert_eq!(standing(None, &known, &now), Standing::Continues);
        }
        let older = Standing::Older;
        assert_eq!(standing(Some(cut), &remembered(5, 7), &now), older(cut));
        let store = RolledBack::Store { old: 6, last: 5 };
        assert_eq!(standing(None, &remembered(6, 7), &now), older(store));
        assert_eq!(standing(None, &remembered(5, 8), &now), older(RolledBack::Undone));
    }

    #[test]
    fn a_log_that_proves_nothing_is_an_older_state_that_the_word_cures() {
        let (root, other) = ([1; 32], [2; 32]);
        let judged = |proof, new| judge(proof, (9, &root), new);
        assert_eq!(judged(Ok(vec![]), (9, &root)), None);
        let rewritten = Some(RolledBack::Rewritten { old: 9 });
        assert_eq!(judged(Ok(vec![]), (9, &other)), rewritten);
        let unproven = judged(Err("the audit log lacks a tile".into()), (12, &other));
        assert_eq!(unproven, Some(RolledBack::Unproven { old: 9 }));
        let now = remembered(5, 7);
        assert!(matches!(standing(unproven, &remembered(5, 7), &now), Standing::Older(_)));
        assert_eq!(standing(unproven, &remembered(5, 0), &now), Standing::Accepted);
    }

    #[test]
    fn a_word_is_good_for_whoever_has_not_heard_it_and_once() {
        let cut = Some(RolledBack::Rewritten { old: 9 });
        let now = remembered(5, 7);
        for (log, known) in
            [(cut, remembered(5, 6)), (cut, remembered(9, 0)), (None, remembered(9, 6))]
        {
            assert_eq!(standing(log, &known, &now), Standing::Accepted);
        }
        for known in [remembered(9, 7), remembered(9, 8)] {
            assert!(matches!(standing(cut, &known, &now), Standing::Older(_)));
        }
    }

    #[tokio::test]
    async fn the_number_of_a_rollback_is_its_time_and_rises_when_the_clock_does_not() {
        let store = FakeStore::default();
        let number = async || meant(&store).await.unwrap().0;
        assert_eq!(number().await, 0);
        for (at, expected) in [(1_000, 1_000), (2_000, 2_000), (2_000, 2_001), (7, 2_002)] {
            raise(&store, Timestamp(at)).await.unwrap();
            assert_eq!(number().await, expected);
        }
    }
}
