//! Changes of a key: one draft, one plan, one commit.
//!
//! Room      `service`.
//! Holds     a plan sees the key as it is stored now and writes nothing by itself; what it wants
//!           written goes out as one batch that expects exactly what the plan has seen. If
//!           somebody was faster, the plan is made anew.

use std::sync::Arc;

use lastkey_core::holding::Reason;
use lastkey_core::ids::{AliasName, KeyId, KeyRef, Name, VersionNo};
use lastkey_core::key::{DeletionWindow, Description, Key};
use lastkey_core::permit::{Action, OverrideHolding, Permit, Resource, Why};
use lastkey_core::ports::{Expected, Revision, StoreError, Write};
use lastkey_core::record::{Due, DueWhat, ImportSession, Record, RecordPath};
use lastkey_core::rotation::Period;
use lastkey_core::time::{ClockRecord, Elapsed, Timestamp};
use lastkey_core::version::KeyVersion;
use lastkey_secret::SecretVec;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::holdings::Reported;
use crate::sealing::detached;
use crate::view::KeyView;

/// A change of the state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Back into use.
    Enable,
    /// Held back for a time.
    Disable,
    /// Retired for good: processes, protects no more.
    Deactivate,
    /// Its material is known or suspected to be in other hands.
    MarkCompromised,
}

/// A change of one version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionChange {
    /// Make it the primary version, in a new activation generation.
    MakePrimary,
    /// Refuse and report any use, until it is reinstated or destroyed.
    ShadowDisable,
    /// Undo a shadow-disable.
    Reinstate,
    /// Its material is known or suspected to be in other hands.
    MarkCompromised,
    /// Let its material go.
    Destroy,
}

/// What is to be done to a key.
#[derive(Debug)]
pub(crate) enum Plan {
    Update { description: Option<Description>, deletion_protection: Option<bool> },
    Rotate,
    RotateDue(Elapsed),
    SetRotation(Option<Period>),
    State(StateChange),
    ScheduleDeletion(DeletionWindow, Option<Reason>),
    CancelDeletion,
    DestroyDue(Elapsed),
    Version(VersionNo, VersionChange, Option<Reason>),
    OfferImport(ImportSession),
    Import { token: SecretVec, wrapped: Vec<u8> },
    ExpireImport(Elapsed),
    Erase { at: Elapsed, rewritten: Timestamp },
    Tag(Vec<(String, String)>),
    Untag(Vec<String>),
    SetAlias { alias: AliasName, from: Option<KeyId> },
    DeleteAlias(AliasName),
    Report(Reported),
    Forget(Name, Reason),
}

impl Plan {
    /// Whether somebody wants to go on in spite of what was reported.
    const fn is_in_spite(&self) -> bool {
        matches!(self, Self::ScheduleDeletion(_, Some(_)) | Self::Version(_, _, Some(_)))
    }
}

/// A key under change.
pub(crate) struct Draft {
    /// The key; the plan changes it.
    pub(crate) key: Key,
    /// The key as it is stored.
    before: Key,
    revision: Revision,
    /// Whether the key is written though it is as it was, so that nobody else changes it meanwhile.
    pub(crate) is_claimed: bool,
    /// What is written beside the key.
    writes: Vec<Write>,
    /// Service time and wall clock of the change.
    pub(crate) clock: ClockRecord,
    /// The version that the change is about, for the audit log.
    pub(crate) version: Option<VersionNo>,
    /// What the audit log is told beside the reason.
    pub(crate) note: Option<String>,
}

impl Draft {
    /// Adds a write beside the key.
    pub(crate) fn write(&mut self, path: RecordPath, expected: Expected, record: Option<Record>) {
        self.writes.push(Write { path, expected, record });
    }

    /// Adds a changed or new version.
    pub(crate) fn put_version(&mut self, version: KeyVersion, expected: Expected) {
        let path = RecordPath::version(version.key, version.number);
        self.write(path, expected, Some(Record::Version(version)));
    }

    /// Moves a due time: removes the old one, adds the new one. Due records are written once, so
    /// the old one is at its first revision.
    pub(crate) fn move_due(&mut self, what: DueWhat, old: Option<Elapsed>, new: Option<Elapsed>) {
        if old == new {
            return;
        }
        let due = |at| Due { at, what, key: self.key.id };
        let old = old.map(due);
        let new = new.map(due);
        if let Some(due) = old {
            self.write(RecordPath::due(due), Expected::At(Revision(1)), None);
        }
        if let Some(due) = new {
            self.write(RecordPath::due(due), Expected::Absent, Some(Record::Due(due)));
        }
    }

    fn into_batch(mut self) -> Vec<Write> {
        if self.is_claimed || self.key != self.before {
            let path = RecordPath::key(self.key.id);
            let record = Some(Record::Key(self.key));
            self.writes.push(Write { path, expected: Expected::At(self.revision), record });
        }
        self.writes
    }
}

/// How often a plan is made anew when somebody else was faster.
const ATTEMPTS: usize = 8;

impl Engine {
    /// Changes a key: permit, draft, plan, intent, commit. Runs to its end even when the caller
    /// goes away.
    ///
    /// # Errors
    /// Those of the plan; [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn change<A: Action>(
        self: &Arc<Self>,
        call: &Call,
        name: KeyRef,
        plan: Plan,
    ) -> Result<KeyView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<A>(&engine, &call);
            let outcome = engine.try_change::<A>(&mut trail, &name, &plan).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_change<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
        plan: &Plan,
    ) -> Result<KeyView, Error> {
        let permit = self.permit_key::<A>(trail, name).await?;
        if let (true, Resource::Key(id)) = (plan.is_in_spite(), permit.resource()) {
            self.permit_key_id::<OverrideHolding>(trail, *id).await?;
        }
        for _ in 0..ATTEMPTS {
            let mut draft = self.draft(trail, &permit).await?;
            self.apply(&mut draft, plan).await?;
            trail.version = draft.version;
            if let Some(note) = draft.note.take() {
                trail.reason = Why::Named(format!("{}; {note}", permit.why().as_str()).into());
            }
            trail.call().go_on()?;
            trail.intend(self).await?;
            match self.commit(draft).await {
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
        Err(Error::Conflict)
    }

    async fn draft<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        permit: &Permit<A>,
    ) -> Result<Draft, Error> {
        let Resource::Key(id) = *permit.resource() else {
            return Err(Error::Denied);
        };
        let Some(stored) = self.store.get(&RecordPath::key(id)).await? else {
            trail.reason = "no such key".into();
            return Err(Error::Denied);
        };
        let Record::Key(key) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Draft {
            before: key.clone(),
            key,
            revision: stored.revision,
            is_claimed: false,
            writes: Vec::new(),
            clock: self.clock.observe(),
            version: None,
            note: None,
        })
    }

    async fn apply(&self, draft: &mut Draft, plan: &Plan) -> Result<(), Error> {
        match plan {
            Plan::Update { description, deletion_protection } => {
                update(draft, description.as_ref(), *deletion_protection);
                Ok(())
            }
            Plan::Rotate => self.plan_rotation(draft).await,
            Plan::RotateDue(at) => self.plan_due_rotation(draft, *at).await,
            Plan::SetRotation(period) => self.plan_rotation_period(draft, *period),
            Plan::State(change) => draft.plan_state(*change),
            Plan::ScheduleDeletion(window, in_spite) => {
                draft.plan_deletion(*window)?;
                self.check_needed(draft, None, in_spite.as_ref()).await
            }
            Plan::CancelDeletion => {
                draft.plan_cancellation()?;
                self.lift_overrides(draft).await
            }
            Plan::DestroyDue(at) => self.plan_destruction(draft, *at).await,
            Plan::Version(number, change, in_spite) => {
                self.plan_version_change(draft, *number, *change, in_spite.as_ref()).await
            }
            Plan::OfferImport(session) => self.plan_import_offer(draft, session).await,
            Plan::Import { token, wrapped } => self.plan_import(draft, token, wrapped).await,
            Plan::ExpireImport(at) => self.plan_import_expiry(draft, *at).await,
            Plan::Erase { at, rewritten } => self.plan_erasure(draft, *at, *rewritten).await,
            Plan::Tag(tags) => {
                draft.key.tags = draft.key.tags.with(tags.iter().cloned())?;
                Ok(())
            }
            Plan::Untag(names) => {
                draft.key.tags = draft.key.tags.without(names.iter().map(String::as_str));
                Ok(())
            }
            Plan::SetAlias { alias, from } => self.plan_alias(draft, alias, *from).await,
            Plan::DeleteAlias(alias) => self.plan_alias_removal(draft, alias).await,
            Plan::Report(reported) => self.plan_report(draft, reported).await,
            Plan::Forget(place, why) => self.plan_forgetting(draft, place, why).await,
        }
    }

    async fn commit(&self, draft: Draft) -> Result<KeyView, Error> {
        let key = draft.key.clone();
        let mut aliases = key.aliases.clone();
        aliases.extend_from_slice(&draft.before.aliases);
        let mut touched = vec![key.id];
        touched.extend(draft.writes.iter().filter_map(|write| {
            let Some(Record::Key(other)) = &write.record else { return None };
            Some(other.id)
        }));
        let clock = draft.clock;
        let batch = draft.into_batch();
        if !batch.is_empty() {
            let committed = self.store.commit(batch).await;
            // Also after a failure: whether a failed group was written may be unknown.
            for id in touched {
                self.keyring.forget(id, &aliases);
            }
            committed?;
        }
        let last_used_at = self.last_use(&key).await?;
        Ok(KeyView::of(key, &clock, last_used_at))
    }
}

fn update(draft: &mut Draft, description: Option<&Description>, protection: Option<bool>) {
    if let Some(description) = description {
        draft.key.description = description.clone();
    }
    if let Some(protection) = protection {
        draft.key.deletion_protection = protection;
    }
}
