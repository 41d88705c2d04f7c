//! Use case: rotate a secret now; and the first step of every rotation.
//!
//! Room      `service`.
//! Holds     the new value is kept, at `pending`, before anybody else hears of it.

use std::sync::Arc;

use lastkey_core::ids::VersionNo;
use lastkey_core::permit::{DestroySecret, RotateSecret};
use lastkey_core::secret_item::{SecretId, SecretItem, SecretName, Stage, ValueKind};
use lastkey_core::secret_rotation::{
    Accounts, PASSWORD_FIELD, Recipe, SecretRotation, Step, Strategy, USERNAME_FIELD, UnderWay,
};
use lastkey_core::secret_value::Fields;
use lastkey_secret::SecretVec;

use super::{ATTEMPTS, RotationView, Scene, rewritten, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::draw_id;
use crate::sealing::detached;
use crate::secret_box::Value;

/// How a rotation is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// The old version is revoked when no consumer holds it any more, and not before.
    pub waits_for_consumers: bool,
    /// The version before, if it still counts, is revoked now: by somebody who may destroy it.
    pub ends_overlap: bool,
}

/// The value of a version whose fields are known by name.
pub(super) type NamedFields = Vec<(String, SecretVec)>;

impl Engine {
    /// Rotates a secret now.
    ///
    /// # Errors
    /// [`Error::NoRotation`]; [`Error::SecretState`] while the version before still counts;
    /// [`Error::Outside`] when it was taken back, and why; [`Error::Conflict`] when it is being
    /// rotated; [`Error::Invalid`], [`Error::Denied`], [`Error::KeyState`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn rotate_secret(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        begin: Begin,
    ) -> Result<RotationView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<RotateSecret>(&engine, &call);
            trail.target = Some(target(&name, None));
            let outcome = engine.try_rotate(&mut trail, &name, begin).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_rotate(
        self: &Arc<Self>,
        trail: &mut Trail<'_>,
        name: &SecretName,
        begin: Begin,
    ) -> Result<RotationView, Error> {
        let (_, stored) = self.permit_secret::<RotateSecret>(trail, name).await?;
        let secret = stored.in_use()?.item.id;
        let turn = self.turns.take(secret).ok_or(Error::Conflict)?;
        let held = self.held_rotation(secret).await?.ok_or(Error::NoRotation)?;
        if held.rotation.overlap.is_some() && !begin.ends_overlap {
            return Err(IN_OVERLAP);
        }
        if held.rotation.overlap.is_some() {
            let allowed = trail.reason.clone();
            self.permit_secret::<DestroySecret>(trail, name).await?;
            trail.reason = allowed;
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        if held.rotation.overlap.is_some() {
            self.revoke_now::<DestroySecret>(trail.call(), secret).await?;
        }
        let rotation = self.rotate(trail, secret, begin.waits_for_consumers).await?;
        drop(turn);
        Ok(self.rotation_view(rotation))
    }

    /// Does a rotation from its beginning, or from where it stands, to its end.
    pub(super) async fn rotate(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        waits_for_consumers: bool,
    ) -> Result<SecretRotation, Error> {
        let begun = self.begin(trail, secret, waits_for_consumers).await;
        if let Err(error) = begun {
            self.note_failure(trail, secret, &error).await?;
            return Err(error);
        }
        self.carry_out(trail, secret).await
    }

    /// Keeps a new value at `pending`, unless there is one already.
    async fn begin(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        waits_for_consumers: bool,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some(scene) = self.scene(secret).await? else { return Err(Error::NoRotation) };
            if scene.held.rotation.under_way.is_some() {
                return Ok(());
            }
            match self.create(trail, scene, waits_for_consumers).await {
                Err(Error::Conflict) => {}
                created => return created,
            }
        }
        Err(Error::Conflict)
    }

    async fn create(
        &self,
        trail: &mut Trail<'_>,
        Scene { held, mut item, item_revision }: Scene,
        waits_for_consumers: bool,
    ) -> Result<(), Error> {
        let mut id = [0; 16];
        let drawn = draw_id(&mut *self.ports.entropy.open()).map(|drawn| id = drawn);
        drawn.map_err(|error| Error::Internal(error.into()))?;
        let value = self.new_value(trail, &item, &held.rotation, &id).await?;
        let replaces = item.current();
        let Some(gone) = item.write(Stage::pending(), trail.at())? else {
            return Err(Error::LimitExceeded("this secret has no version numbers left"));
        };
        let mut batch = self.version_writes(trail, &item, &value).await?;
        batch.extend(self.forget_versions(&item, &gone).await?);
        batch.push(rewritten(&item, item_revision));
        let under_way = UnderWay {
            id,
            version: item.newest,
            replaces,
            step: Step::Created,
            began_at: trail.at(),
            waits_for_consumers,
        };
        let rotation = SecretRotation {
            // INVARIANT: what is under way is due, so that it is taken up after a restart.
            due: Some(self.clock.observe().elapsed),
            under_way: Some(under_way),
            ..held.rotation.clone()
        };
        batch.extend(held.changed(rotation));
        self.store.commit(batch).await?;
        Ok(())
    }

    async fn new_value(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        rotation: &SecretRotation,
        id: &[u8; 16],
    ) -> Result<Value, Error> {
        match &rotation.strategy {
            Strategy::Generated(recipe) => self.generated(trail, item, recipe).await,
            Strategy::Accounts(accounts) => self.next_account(trail, item, accounts).await,
            Strategy::Webhook(webhook) => match self.made_outside(item, webhook, id).await? {
                Some(value) => Ok(value),
                None => self.generated(trail, item, &webhook.recipe).await,
            },
        }
    }

    async fn generated(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        recipe: &Recipe,
    ) -> Result<Value, Error> {
        let drawn = self.draw_value(recipe)?;
        let Some(field) = recipe.field() else {
            return Ok(Value { kind: ValueKind::Opaque, bytes: drawn });
        };
        let mut fields = match item.current() {
            Some(current) => self.fields_of(trail, item, current).await?,
            None => Vec::new(),
        };
        put_field(&mut fields, field, drawn);
        fields_value(fields)
    }

    async fn next_account(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        accounts: &Accounts,
    ) -> Result<Value, Error> {
        let mut fields = match item.current() {
            Some(current) => self.fields_of(trail, item, current).await?,
            None => Vec::new(),
        };
        let in_use = fields.iter().find(|(name, _)| name == USERNAME_FIELD);
        let standby = match in_use {
            Some((_, name)) => name.expose(|name| accounts.standby(Some(name)).to_owned()),
            None => accounts.standby(None).to_owned(),
        };
        put_field(&mut fields, USERNAME_FIELD, SecretVec::copy_of(standby.as_bytes()));
        put_field(&mut fields, PASSWORD_FIELD, self.draw_password()?);
        fields_value(fields)
    }

    fn draw_value(&self, recipe: &Recipe) -> Result<SecretVec, Error> {
        let drawn = recipe.draw(&mut *self.ports.entropy.open());
        drawn.map_err(|error| Error::Internal(error.into()))
    }

    /// The fields of a version.
    pub(super) async fn fields_of(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        number: VersionNo,
    ) -> Result<NamedFields, Error> {
        let (_, value) = self.value_of(trail, item, number).await?;
        match value.kind {
            ValueKind::Fields => {
                let fields = value.bytes.expose(Fields::parse);
                Ok(fields.map_err(|error| Error::Internal(error.into()))?.into_inner())
            }
            ValueKind::Opaque => {
                let problem = "its current value has no fields; write it with --field-file first";
                Err(Error::invalid("secret", problem))
            }
        }
    }
}

/// Why a rotation is not begun while the version before still counts.
pub(super) const IN_OVERLAP: Error = Error::SecretState {
    state: "in the overlap of its last rotation (`--end-overlap` revokes the old version now)",
};

fn put_field(fields: &mut NamedFields, field: &str, value: SecretVec) {
    fields.retain(|(name, _)| name != field);
    fields.push((field.to_owned(), value));
}

fn fields_value(fields: NamedFields) -> Result<Value, Error> {
    let fields = Fields::new(fields);
    let fields = fields.map_err(|error| Error::invalid("fields", error.to_string()))?;
    let bytes = fields.encode().ok_or(Error::LimitExceeded("a field is too long"))?;
    Ok(Value { kind: ValueKind::Fields, bytes })
}
