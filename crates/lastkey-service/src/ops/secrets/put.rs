//! Use case: write a version of a secret, and make the secret if there is none.
//!
//! Room      `service`.
//! Holds     secret, version and value are one commit. With `expected_version` nothing is written
//!           unless that is the newest version there is.

use std::sync::Arc;

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::{Description, Tags};
use lastkey_core::permit::{Encrypt, PutSecret, UpdateSecret};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{
    DEFAULT_KEPT, MAX_KEPT, SecretId, SecretItem, SecretName, SecretVersion, Stage, ValueKind,
};
use lastkey_core::secret_value::Fields;

use super::{ATTEMPTS, SecretView, Stored, removed, rewritten, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::sealing::detached;
use crate::secret_box::{Slot, Value};

/// What is to be written.
#[derive(Debug)]
pub struct PutRequest {
    /// The value.
    pub value: Value,
    /// The key that protects it; the secret's own, or that of all secrets, when it is left out.
    pub key: Option<KeyRef>,
    /// Free text.
    pub description: Option<Description>,
    /// Tags, all of them.
    pub tags: Option<Tags>,
    /// Number of the newest version, 0 when there is no such secret: nothing is written if it is
    /// another.
    pub expected_version: Option<u32>,
    /// Where the new version stands; `current` when it is left out.
    pub stage: Option<Stage>,
    /// How many versions are kept, 1 to 100.
    pub keep: Option<u32>,
}

impl PutRequest {
    fn changes_the_secret(&self) -> bool {
        self.key.is_some()
            || self.description.is_some()
            || self.tags.is_some()
            || self.keep.is_some()
    }
}

/// Writes that make a version, and the secret as it is then.
struct Draft {
    item: SecretItem,
    batch: Vec<Write>,
}

impl Engine {
    /// Writes a version of a secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that is too long or no fields; [`Error::Denied`], also for a
    /// key that the caller may not encrypt under; [`Error::Conflict`] when another version is the
    /// newest; [`Error::SecretState`] for a deleted secret; [`Error::KeyState`],
    /// [`Error::KeyUsage`]; [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn put_secret(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        request: PutRequest,
    ) -> Result<SecretView, Error> {
        self.put_secret_under(call, name, request, None).await
    }

    /// As [`Engine::put_secret`], with the key of a secret that is made and for which nobody chose
    /// one.
    pub(super) async fn put_secret_under(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        request: PutRequest,
        inherited: Option<KeyId>,
    ) -> Result<SecretView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<PutSecret>(&engine, &call);
            trail.target = Some(target(&name, None));
            let outcome = engine.try_put_secret(&mut trail, &name, (&request, inherited)).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_put_secret(
        self: &Arc<Self>,
        trail: &mut Trail<'_>,
        name: &SecretName,
        (request, inherited): (&PutRequest, Option<KeyId>),
    ) -> Result<SecretView, Error> {
        self.check_value(&request.value)?;
        check_keep(request.keep)?;
        for _ in 0..ATTEMPTS {
            let before = self.stored_secret(name).await?;
            let key = self.permit_put(trail, name, (request, inherited), before.as_ref()).await?;
            let newest = before.as_ref().map_or(0, |stored| stored.item.newest.number());
            if request.expected_version.is_some_and(|expected| expected != newest) {
                return Err(Error::Conflict);
            }
            let draft = match before {
                Some(stored) => self.next_version(trail, stored.in_use()?, key, request).await?,
                None => self.first_secret(trail, name, key, request).await?,
            };
            trail.target = Some(target(name, Some(draft.item.newest)));
            trail.call().go_on()?;
            trail.intend(self).await?;
            match self.store.commit(draft.batch).await.map_err(Error::from) {
                Err(Error::Conflict) => {}
                committed => {
                    committed?;
                    return Ok(SecretView::of(draft.item, &self.clock.observe()));
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Asks policy about everything that the request does, and answers the key to use.
    async fn permit_put(
        self: &Arc<Self>,
        trail: &mut Trail<'_>,
        name: &SecretName,
        (request, inherited): (&PutRequest, Option<KeyId>),
        before: Option<&Stored>,
    ) -> Result<KeyId, Error> {
        let tags = before.map(|stored| &stored.item.tags).or(request.tags.as_ref());
        self.permit_named_secret::<PutSecret>(trail, name, tags)?;
        if before.is_some() && request.changes_the_secret() {
            self.permit_named_secret::<UpdateSecret>(trail, name, tags)?;
        }
        let allowed = trail.reason.clone();
        let key = match (&request.key, before) {
            (Some(key), _) => {
                self.permit_key::<Encrypt>(trail, key).await?;
                trail.key.ok_or(Error::Denied)?
            }
            (None, Some(stored)) => stored.item.key,
            (None, None) => match inherited {
                Some(key) => key,
                None => self.default_key(trail.call()).await?,
            },
        };
        trail.reason = allowed;
        Ok(key)
    }

    async fn first_secret(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        key: KeyId,
        request: &PutRequest,
    ) -> Result<Draft, Error> {
        let mut entropy = self.ports.entropy.open();
        let id = crate::root::draw_id(&mut *entropy).map_err(|e| Error::Internal(e.into()))?;
        let now = trail.at();
        let stage = request.stage.clone().unwrap_or_else(Stage::current);
        let item = SecretItem {
            id: SecretId(id),
            name: name.clone(),
            key,
            description: request.description.clone().unwrap_or_default(),
            tags: request.tags.clone().unwrap_or_default(),
            newest: VersionNo::FIRST,
            kept: vec![VersionNo::FIRST],
            keep: request.keep.unwrap_or(DEFAULT_KEPT),
            stages: [(stage, VersionNo::FIRST)].into(),
            deletion: None,
            created_at: now,
            written_at: now,
        };
        let mut batch = self.version_writes(trail, &item, &request.value).await?;
        let record = Some(Record::Secret(item.clone()));
        batch.push(Write { path: RecordPath::secret(name), expected: Expected::Absent, record });
        Ok(Draft { item, batch })
    }

    async fn next_version(
        &self,
        trail: &mut Trail<'_>,
        Stored { mut item, revision }: Stored,
        key: KeyId,
        request: &PutRequest,
    ) -> Result<Draft, Error> {
        item.key = key;
        item.keep = request.keep.unwrap_or(item.keep);
        if let Some(description) = &request.description {
            item.description = description.clone();
        }
        if let Some(tags) = &request.tags {
            item.tags = tags.clone();
        }
        let stage = request.stage.clone().unwrap_or_else(Stage::current);
        let Some(gone) = item.write(stage, trail.at())? else {
            return Err(Error::LimitExceeded("this secret has no version numbers left"));
        };
        let mut batch = self.version_writes(trail, &item, &request.value).await?;
        batch.extend(self.forget_versions(&item, &gone).await?);
        batch.push(rewritten(&item, revision));
        Ok(Draft { item, batch })
    }

    /// The writes of the newest version and its value.
    pub(super) async fn version_writes(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        value: &Value,
    ) -> Result<Vec<Write>, Error> {
        let slot = Slot { id: item.id, name: &item.name, number: item.newest };
        let sealed = self.seal_value(trail, item.key, slot, value).await?;
        let version = SecretVersion {
            secret: item.id,
            number: item.newest,
            kind: value.kind,
            length: u32::try_from(value.bytes.len()).unwrap_or(u32::MAX),
            key: item.key,
            data_key_blob: Some(sealed.data_key_blob),
            created_at: trail.at(),
            created_by: trail.call().caller.principal.name().to_owned(),
            destroyed_at: None,
        };
        let new = |path, record| Write { path, expected: Expected::Absent, record: Some(record) };
        Ok(vec![
            new(RecordPath::secret_version(item.id, item.newest), Record::SecretVersion(version)),
            new(RecordPath::secret_value(item.id, item.newest), Record::SecretValue(sealed.value)),
        ])
    }

    /// The writes that let go of versions, destroyed ones included.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(super) async fn forget_versions(
        &self,
        item: &SecretItem,
        gone: &[VersionNo],
    ) -> Result<Vec<Write>, Error> {
        let mut writes = Vec::new();
        for number in gone {
            let Some((version, revision)) = self.secret_version(item, *number).await? else {
                continue;
            };
            let path = RecordPath::secret_version(item.id, *number);
            writes.push(Write { path, expected: Expected::At(revision), record: None });
            if version.destroyed_at.is_none() {
                writes.push(removed(RecordPath::secret_value(item.id, *number)));
            }
        }
        Ok(writes)
    }

    /// Whether a value may be kept.
    pub(super) fn check_value(&self, value: &Value) -> Result<(), Error> {
        let most = self.secret_len;
        if value.bytes.len() > most {
            let problem = format!(
                "a value has at most {most} bytes here; `secrets.max_value_bytes` raises that to \
                 1048576 at most"
            );
            return Err(Error::invalid("value", problem));
        }
        match value.kind {
            ValueKind::Opaque => Ok(()),
            ValueKind::Fields => value
                .bytes
                .expose(|bytes| Fields::parse(bytes).map(drop))
                .map_err(|error| Error::invalid("fields", error.to_string())),
        }
    }
}

/// Whether so many versions can be kept.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn check_keep(keep: Option<u32>) -> Result<(), Error> {
    if keep.is_none_or(|keep| (1..=MAX_KEPT).contains(&keep)) {
        Ok(())
    } else {
        Err(Error::invalid("keep_versions", "expected 1 to 100"))
    }
}
