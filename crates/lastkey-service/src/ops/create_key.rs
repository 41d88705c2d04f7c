//! Use case: create a key, with its first version unless its material is to be imported.
//!
//! Room      `service`.

use std::sync::Arc;

use lastkey_core::ids::{AliasName, VersionNo};
use lastkey_core::key::{Description, Key, KeyUsage, Tags};
use lastkey_core::permit::{CreateKey, Resource};
use lastkey_core::ports::{Expected, StoreError, Write};
use lastkey_core::principal::Principal;
use lastkey_core::record::{Due, DueWhat, Record, RecordPath};
use lastkey_core::rotation::{Period, Rotation};
use lastkey_core::state::State;
use lastkey_core::time::{ClockRecord, Elapsed};
use lastkey_core::version::{KeyVersion, Origin};
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_secret::SecretVec;

use super::aliases::check_owner;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::MaterialPlace;
use crate::sealing::detached;
use crate::view::KeyView;

/// The key that is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// What its material is.
    pub spec: MaterialSpec,
    /// What it is for; default the first usage of the spec.
    pub usage: Option<KeyUsage>,
    /// Whether the service draws the material or its owner brings it.
    pub origin: Origin,
    /// A first alias.
    pub alias: Option<AliasName>,
    /// Free text.
    pub description: Description,
    /// Tags.
    pub tags: Tags,
    /// Whether it is protected against deletion.
    pub deletion_protection: bool,
    /// Automatic rotation; only for generated material.
    pub rotation: Option<Period>,
}

impl Engine {
    /// Creates a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a usage that the spec has not, rotation of imported material, or
    /// an alias of the server;
    /// [`Error::AlreadyExists`] when the alias is taken; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn create_key(
        self: &Arc<Self>,
        call: &Call,
        request: Request,
    ) -> Result<KeyView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<CreateKey>(&engine, &call);
            let outcome = engine.try_create_key(&mut trail, request).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_create_key(
        &self,
        trail: &mut Trail<'_>,
        request: Request,
    ) -> Result<KeyView, Error> {
        self.permit::<CreateKey>(trail, Resource::Instance)?;
        let is_server = trail.call().caller.principal.name() == Principal::SECRETS;
        request.alias.as_ref().map_or(Ok(()), |alias| check_owner(alias, is_server))?;
        let clock = self.clock.observe();
        let mut key = self.new_key(request, &clock)?;
        trail.key = Some(key.id);
        if let Some(alias) = key.aliases.first()
            && self.alias_target(alias).await?.is_some()
        {
            return Err(Error::AlreadyExists);
        }
        let version = match key.origin {
            Origin::Imported => None,
            Origin::Generated => Some(self.first_version(&mut key).await?),
        };
        trail.call().go_on()?;
        trail.intend(self).await?;
        let batch = creation(&key, version);
        match self.store.commit(batch).await {
            // Key ids do not collide: it is the alias that somebody else has taken meanwhile.
            Err(StoreError::Conflict) => return Err(Error::AlreadyExists),
            committed => committed?,
        };
        Ok(KeyView::of(key, &clock, None))
    }

    fn new_key(&self, request: Request, clock: &ClockRecord) -> Result<Key, Error> {
        let usages = KeyUsage::for_spec(request.spec);
        if !request.spec.is_supported() {
            return Err(Error::invalid("spec", "this build does not have it"));
        }
        let usage = request.usage.or_else(|| usages.first().copied()).ok_or(Error::KeyUsage)?;
        if !usages.contains(&usage) {
            let names: Vec<_> = usages.iter().map(|usage| usage.name()).collect();
            let problem = format!("{} keys are for {}", request.spec.name(), names.join(" or "));
            return Err(Error::invalid("usage", problem));
        }
        if request.rotation.is_some() && request.origin == Origin::Imported {
            return Err(Error::invalid("rotation_period_seconds", IMPORTED_NEVER_ROTATES));
        }
        Ok(Key {
            id: self.draw_key_id()?,
            spec: request.spec,
            usage,
            origin: request.origin,
            state: State::PreActivation,
            destruction: None,
            primary: None,
            newest: None,
            activation: 0,
            rotation: request.rotation.map(|period| self.rotation(period, clock.elapsed)),
            deletion_protection: request.deletion_protection,
            description: request.description,
            tags: request.tags,
            aliases: request.alias.into_iter().collect(),
            created_at: clock.last.wall,
            destroyed_at: None,
        })
    }

    /// Automatic rotation from now on, its first due time jittered.
    pub(crate) fn rotation(&self, period: Period, now: Elapsed) -> Rotation {
        let mut random = [0; 4];
        // Without randomness the rotation only loses its jitter.
        let _ = self.ports.entropy.open().fill(&mut random);
        Rotation { period, due: period.next_due(now, u32::from_be_bytes(random)), last: None }
    }

    async fn first_version(&self, key: &mut Key) -> Result<KeyVersion, Error> {
        let material = self.generate_material(key.spec).await?;
        let version = self.new_version(key, VersionNo::FIRST, &material)?;
        key.state = State::Active;
        Ok(version)
    }

    /// Draws material. What takes long is drawn off the threads that serve calls.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) async fn generate_material(&self, spec: MaterialSpec) -> Result<SecretVec, Error> {
        let mut entropy = self.ports.entropy.open();
        let drawn = match spec {
            MaterialSpec::Rsa2048 | MaterialSpec::Rsa3072 | MaterialSpec::Rsa4096 => {
                let draw = move || material::generate(spec, &mut *entropy);
                tokio::task::spawn_blocking(draw)
                    .await
                    .map_err(|error| Error::Internal(error.into()))?
            }
            MaterialSpec::Aes128
            | MaterialSpec::Aes256
            | MaterialSpec::Sm4
            | MaterialSpec::Hmac256
            | MaterialSpec::Hmac384
            | MaterialSpec::Hmac512
            | MaterialSpec::P256
            | MaterialSpec::P384
            | MaterialSpec::Secp256k1
            | MaterialSpec::Ed25519
            | MaterialSpec::Sm2 => material::generate(spec, &mut *entropy),
        };
        drawn.map_err(|error| Error::Internal(error.into()))
    }

    /// Makes material the next version of a key and its primary one.
    ///
    /// # Errors
    /// [`Error::Internal`] when the material is not of the key's spec.
    pub(crate) fn new_version(
        &self,
        key: &mut Key,
        number: VersionNo,
        material: &SecretVec,
    ) -> Result<KeyVersion, Error> {
        let internal = |error: material::MaterialError| Error::Internal(error.into());
        let public_key = match key.spec.symmetric_len() {
            Some(_) => None,
            None => Some(material::public_key_der(key.spec, material).map_err(internal)?),
        };
        let place = MaterialPlace { key: key.id, version: Some(number), spec: key.spec };
        let mut entropy = self.ports.entropy.open();
        let wrapped = self.keyring.materials.wrap(place, material, &mut *entropy);
        key.activation = key.activation.saturating_add(1);
        key.primary = Some(number);
        key.newest = Some(number);
        Ok(KeyVersion {
            key: key.id,
            number,
            state: State::Active,
            origin: key.origin,
            activation: key.activation,
            created_at: self.clock.wall(),
            material: Some(wrapped.map_err(Error::Internal)?),
            public_key,
            destroyed_at: None,
            erased_at: None,
        })
    }
}

/// Why an imported key has no rotation.
pub(crate) const IMPORTED_NEVER_ROTATES: &str =
    "material of this key is imported; import new material instead";

fn creation(key: &Key, version: Option<KeyVersion>) -> Vec<Write> {
    let new = |path, record| Write { path, expected: Expected::Absent, record: Some(record) };
    let mut batch = vec![new(RecordPath::key(key.id), Record::Key(key.clone()))];
    if let Some(version) = version {
        batch.push(new(RecordPath::version(key.id, version.number), Record::Version(version)));
    }
    for alias in &key.aliases {
        batch.push(new(RecordPath::alias(alias), Record::Alias(key.id)));
    }
    if let Some(rotation) = key.rotation {
        let due = Due { at: rotation.due, what: DueWhat::Rotate, key: key.id };
        batch.push(new(RecordPath::due(due), Record::Due(due)));
    }
    batch
}
