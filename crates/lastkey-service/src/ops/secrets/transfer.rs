//! Use cases: copy a secret to another name, and move it; values stay in the service.
//!
//! Room      `service`.
//! Holds     whoever moves or copies a value may read it and may write the target; the audit log
//!           names both. A move is one commit: the secret is at one of its two names, never at
//!           both or neither.

use std::sync::Arc;

use lastkey_core::permit::{DeleteSecret, GetSecret, PutSecret, Why};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretItem, SecretName, Stage};

use super::put::PutRequest;
use super::{SecretView, Stored, Which, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::sealing::detached;

/// How a secret comes to another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Its current value, as the first version of another secret.
    Copy,
    /// All of it; nothing is left at the old name.
    Move,
}

impl Engine {
    /// Copies or moves a secret to a name at which there is none.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Denied`], [`Error::SecretState`], [`Error::KeyState`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn transfer_secret(
        self: &Arc<Self>,
        call: &Call,
        (from, to): (SecretName, SecretName),
        transfer: Transfer,
    ) -> Result<SecretView, Error> {
        match transfer {
            Transfer::Copy => self.copy_secret(call, &from, to).await,
            Transfer::Move => {
                let (engine, call) = (Arc::clone(self), call.clone());
                detached(async move {
                    let mut trail = Trail::of::<DeleteSecret>(&engine, &call);
                    trail.target = Some(target(&from, None));
                    let outcome = engine.try_move_secret(&mut trail, &from, &to).await;
                    trail.close(&engine, outcome).await
                })
                .await?
            }
        }
    }

    async fn copy_secret(
        self: &Arc<Self>,
        call: &Call,
        from: &SecretName,
        to: SecretName,
    ) -> Result<SecretView, Error> {
        let read = match self.get_secret(call, from, &Which::Stage(Stage::current())).await {
            Err(Error::DryRun) => return self.dry_copy(call, from, to).await,
            read => read?,
        };
        // Whoever chose that key chose it for this value, wherever it lies.
        let key = read.item.key;
        let request = PutRequest {
            value: read.value,
            key: None,
            description: Some(read.item.description),
            tags: Some(read.item.tags),
            expected_version: Some(0),
            stage: None,
            keep: Some(read.item.keep),
        };
        match self.put_secret_under(call, to, request, Some(key)).await {
            Err(Error::Conflict) => Err(Error::AlreadyExists),
            outcome => outcome,
        }
    }

    /// Asks about the other half of a copy of which the source may be read.
    async fn dry_copy(
        &self,
        call: &Call,
        from: &SecretName,
        to: SecretName,
    ) -> Result<SecretView, Error> {
        let mut trail = Trail::of::<PutSecret>(self, call);
        trail.target = Some(target(&to, None));
        let outcome = self.try_dry_copy(&mut trail, from, &to).await;
        trail.close(self, outcome).await
    }

    async fn try_dry_copy(
        &self,
        trail: &mut Trail<'_>,
        from: &SecretName,
        to: &SecretName,
    ) -> Result<SecretView, Error> {
        let source = self.stored_secret(from).await?.ok_or(Error::Denied)?;
        let there = self.stored_secret(to).await?;
        let tags = there.as_ref().map_or(&source.item.tags, |there| &there.item.tags);
        self.permit_named_secret::<PutSecret>(trail, to, Some(tags))?;
        if there.is_some() {
            return Err(Error::AlreadyExists);
        }
        Err(Error::DryRun)
    }

    async fn try_move_secret(
        &self,
        trail: &mut Trail<'_>,
        from: &SecretName,
        to: &SecretName,
    ) -> Result<SecretView, Error> {
        let (_, stored) = self.permit_secret::<DeleteSecret>(trail, from).await?;
        self.permit_secret::<GetSecret>(trail, from).await?;
        let there = self.stored_secret(to).await?;
        let tags = there.as_ref().map_or(&stored.item.tags, |there| &there.item.tags);
        self.permit_named_secret::<PutSecret>(trail, to, Some(tags))?;
        trail.reason = Why::Named(format!("moved to secret/{to}").into());
        if there.is_some() {
            return Err(Error::AlreadyExists);
        }
        let Stored { item: before, revision } = stored.in_use()?;
        trail.call().go_on()?;
        let mut batch = self.moved_versions(trail, &before, to).await?;
        let item = SecretItem { name: to.clone(), ..before };
        let path = RecordPath::secret(from);
        batch.push(Write { path, expected: Expected::At(revision), record: None });
        let (path, record) = (RecordPath::secret(to), Some(Record::Secret(item.clone())));
        batch.push(Write { path, expected: Expected::Absent, record });
        batch.extend(self.renamed_rotation(&item).await?);
        trail.intend(self).await?;
        self.store.commit(batch).await?;
        Ok(SecretView::of(item, &self.clock.observe()))
    }

    /// The versions with their data keys bound to the new name.
    async fn moved_versions(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        to: &SecretName,
    ) -> Result<Vec<Write>, Error> {
        let mut writes = Vec::new();
        let reason = trail.reason.clone();
        for (version, revision) in self.kept_versions(item).await? {
            if version.data_key_blob.is_none() {
                continue;
            }
            let key = version.key;
            let moved = self.rewrap_version(trail, (&item.name, to), &version, key).await?;
            let path = RecordPath::secret_version(item.id, version.number);
            let record = Some(Record::SecretVersion(moved));
            writes.push(Write { path, expected: Expected::At(revision), record });
        }
        trail.reason = reason;
        Ok(writes)
    }
}
