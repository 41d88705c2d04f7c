//! An audit log in memory.
//!
//! Room      `testkit`.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use lastkey_core::audit::archive::{Found, LogHead, LogSigners, LogState, Search, Witnesses};
use lastkey_core::audit::merkle::{Hash, empty_root};
use lastkey_core::audit::receipt::Receipt;
use lastkey_core::audit::tile::TileName;
use lastkey_core::audit::witness::{AddCheckpoint, Refusal};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::{KeyId, RequestId, VersionNo};
use lastkey_core::ports::{Audit, AuditArchive, Cause};
use lastkey_core::principal::Principal;
use lastkey_core::time::Timestamp;
use tokio::sync::oneshot;

use super::calls::{Call, Calls};

/// An event as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    /// When.
    pub at: Timestamp,
    /// Identity of the request.
    pub request: RequestId,
    /// Who.
    pub who: Principal,
    /// What.
    pub action: &'static str,
    /// Which part of the operation.
    pub phase: Phase,
    /// The key.
    pub key: Option<KeyId>,
    /// The key version.
    pub version: Option<VersionNo>,
    /// Hash of the encryption context.
    pub context_hash: Option<[u8; 32]>,
    /// How it ended.
    pub result: &'static str,
    /// Why it was refused.
    pub reason: String,
    /// What was acted on, when it is no key.
    pub target: Option<String>,
    /// Whether the caller waited until it was durable.
    pub durable: bool,
}

/// The log was told to be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditAway;

impl core::fmt::Display for AuditAway {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the audit log is away")
    }
}

impl std::error::Error for AuditAway {}

/// A log that keeps events, and can be away.
#[derive(Debug, Default)]
pub struct MemoryAudit {
    events: Mutex<Vec<KeptEvent>>,
    away: AtomicBool,
    hold: Mutex<Option<oneshot::Receiver<()>>>,
    calls: Calls,
    archive: Option<EmptyArchive>,
}

impl MemoryAudit {
    /// A log with an archive, which is given keys and gives them up, and holds no records.
    #[must_use]
    pub fn with_archive() -> Self {
        Self { archive: Some(EmptyArchive::default()), ..Self::default() }
    }

    /// Whether its archive has the keys that it signs with.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.archive.as_ref().is_some_and(|archive| archive.has_keys.load(Ordering::SeqCst))
    }

    /// A log that also adds to a list of calls.
    #[must_use]
    pub fn with_calls(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }

    /// From now on refuses every event, or takes them again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Holds up who waits for the next durable event, until he is told to go on. It is kept before.
    pub fn hold_next(&self) -> oneshot::Sender<()> {
        let (go_on, hold) = oneshot::channel();
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        go_on
    }

    /// Everything that was kept, in order.
    #[must_use]
    pub fn events(&self) -> Vec<KeptEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, event: &Event<'_>, durable: bool) -> Result<(), Cause> {
        let Event { action, phase, result, .. } = *event;
        self.calls.push(Call::Audit { action, phase, result, durable });
        if self.away.load(Ordering::SeqCst) {
            return Err(AuditAway.into());
        }
        let kept = KeptEvent {
            at: event.at,
            request: event.request,
            who: event.who.clone(),
            action,
            phase,
            key: event.key,
            version: event.version,
            context_hash: event.context_hash,
            result,
            target: event.target.map(str::to_owned),
            reason: event.reason.to_owned(),
            durable,
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        Ok(())
    }
}

#[async_trait]
impl Audit for MemoryAudit {
    fn append(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.keep(event, false)
    }

    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.keep(event, true)?;
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hold) = hold {
            // Who has let go of the other end holds nobody up.
            let _ = hold.await;
        }
        Ok(())
    }

    fn archive(&self) -> Option<&dyn AuditArchive> {
        self.archive.as_ref().map(|archive| archive as _)
    }
}

/// The archive of a log without records: there is nothing to sign, and nothing to find.
#[derive(Debug, Default)]
struct EmptyArchive {
    has_keys: AtomicBool,
}

#[async_trait]
impl AuditArchive for EmptyArchive {
    async fn unsealed(&self, _signers: LogSigners) -> Result<(), Cause> {
        self.has_keys.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn sealed(&self) -> Result<(), Cause> {
        self.forget_keys();
        Ok(())
    }

    fn forget_keys(&self) {
        self.has_keys.store(false, Ordering::SeqCst);
    }

    fn trust_time(&self, _now: Timestamp) {}

    async fn head(&self) -> Result<LogHead, Cause> {
        Ok(LogHead { size: 0, root: empty_root() })
    }

    fn state(&self) -> LogState {
        LogState::default()
    }

    async fn checkpoint(&self) -> Result<String, Cause> {
        Ok(String::new())
    }

    fn signed_checkpoint(&self) -> String {
        String::new()
    }

    async fn search(&self, _search: Search) -> Result<Found, Cause> {
        Ok(Found::default())
    }

    async fn receipt(&self, _index: u64) -> Result<Option<(Vec<u8>, Receipt)>, Cause> {
        Ok(None)
    }

    async fn tile(&self, _name: TileName) -> Result<Option<Vec<u8>>, Cause> {
        Ok(None)
    }

    async fn consistency(&self, _old: u64, _new: u64) -> Result<Vec<Hash>, Cause> {
        Ok(Vec::new())
    }

    async fn add_cosignatures(&self, _checkpoint: &str, _lines: &str) -> Result<(), Cause> {
        Err("no witness is known".into())
    }

    async fn cosign(&self, _request: &AddCheckpoint) -> Result<Result<String, Refusal>, Cause> {
        Ok(Err(Refusal::UnknownLog))
    }

    async fn witnesses(&self) -> Result<Witnesses, Cause> {
        Ok(Witnesses::default())
    }

    async fn replace_witnesses(
        &self,
        _before: &Witnesses,
        _after: Witnesses,
    ) -> Result<bool, Cause> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::principal::Source;

    use super::*;

    fn event(who: &Principal) -> Event<'_> {
        Event {
            at: Timestamp(1),
            request: RequestId([1; 16]),
            who,
            action: "kms:Encrypt",
            phase: Phase::Whole,
            key: None,
            version: None,
            context_hash: None,
            result: "ok",
            reason: "",
            source: Source::default(),
            target: None,
        }
    }

    #[test]
    fn log_keeps_nothing_while_it_is_away_but_lists_the_call() {
        let (calls, who) = (Calls::default(), Principal::named("a"));
        let audit = MemoryAudit::with_calls(calls.clone());
        audit.append(&event(&who)).unwrap();
        audit.set_away(true);
        assert!(audit.append(&event(&who)).is_err());
        assert_eq!((audit.events().len(), calls.take().len()), (1, 2));
        assert!(!audit.events()[0].durable);
    }
}
