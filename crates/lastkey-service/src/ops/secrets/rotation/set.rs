//! Use cases: say how a secret rotates, read that, and end it.
//!
//! Room      `service`.
//! Holds     whoever lets a secret rotate the accounts of a database may change that database: he
//!           gets passwords of accounts that he names. Whoever names a program may read and write
//!           the secret: the program does.

use std::sync::Arc;

use lastkey_core::database::MAX_ADDRESS_LEN;
use lastkey_core::permit::{
    DescribeSecret, GetSecret, PutSecret, Resource, ResourceKind, UpdateDatabase,
    UpdateSecretRotation,
};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretItem, SecretName};
use lastkey_core::secret_rotation::{
    Accounts, DEFAULT_OVERLAP_SECS, MAX_OVERLAP_SECS, MAX_WINDOW_SECS, Recipe, Schedule,
    SecretRotation, Strategy, Webhook, is_account,
};
use lastkey_secret::SecretVec;

use super::{ATTEMPTS, Held, RotationView, moved_dues, target};
use crate::audited::Trail;
use crate::authenticate::mint_token;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::SecretPlace;
use crate::sealing::detached;

/// How a secret shall rotate.
#[derive(Clone, Debug)]
pub struct RotationRequest {
    /// How a new value comes about.
    pub strategy: StrategyRequest,
    /// When it rotates by itself; `None` when on demand alone.
    pub schedule: Option<Schedule>,
    /// How long the old version counts, in seconds, before it is revoked. When it is left out: a
    /// day for accounts of a database, else the old version is kept like any other.
    pub overlap_secs: Option<u64>,
}

/// How a new value shall come about.
#[derive(Clone, Debug)]
pub enum StrategyRequest {
    /// The service draws it.
    Generated(Recipe),
    /// Two accounts of a database take turns.
    Accounts(Accounts),
    /// A program of somebody's makes, sets and tests it.
    Webhook {
        /// Where it listens.
        url: String,
        /// Whose certificate it shows, in PEM.
        authority: Option<String>,
        /// What is drawn when it makes no value of its own.
        recipe: Recipe,
    },
}

/// A rotation that was set.
#[derive(Debug)]
pub struct RotationSet {
    /// It.
    pub view: RotationView,
    /// What calls of the program are signed with, shown once.
    pub signing: Option<SecretVec>,
}

impl Engine {
    /// Says how a secret rotates.
    ///
    /// # Errors
    /// [`Error::Invalid`] for accounts, times or an overlap that cannot be; [`Error::Denied`], also
    /// for a database that is not there or that the caller may not change, and for a program when he
    /// may not read and write the secret; [`Error::SecretState`]
    /// for a secret that is deleted, being rotated, or in an overlap of another strategy;
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn set_secret_rotation(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        request: RotationRequest,
    ) -> Result<RotationSet, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<UpdateSecretRotation>(&engine, &call);
            trail.target = Some(target(&name, None));
            let outcome = engine.try_set_rotation(&mut trail, &name, &request).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_set_rotation(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        request: &RotationRequest,
    ) -> Result<RotationSet, Error> {
        check_request(request)?;
        for _ in 0..ATTEMPTS {
            let (_, stored) = self.permit_secret::<UpdateSecretRotation>(trail, name).await?;
            let item = stored.in_use()?.item;
            let allowed = trail.reason.clone();
            self.permit_accounts(trail, request).await?;
            self.permit_program(trail, name, request).await?;
            trail.reason = allowed;
            let held = self.held_rotation(item.id).await?;
            let (rotation, signing) = self.planned(&item, request, held.as_ref())?;
            trail.call().go_on()?;
            trail.intend(self).await?;
            match self.store.commit(batch(held, rotation.clone())).await.map_err(Error::from) {
                Err(Error::Conflict) => {}
                committed => {
                    committed?;
                    return Ok(RotationSet { view: self.rotation_view(rotation), signing });
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Asks whether the caller may have passwords of accounts.
    async fn permit_accounts(
        &self,
        trail: &mut Trail<'_>,
        request: &RotationRequest,
    ) -> Result<(), Error> {
        let StrategyRequest::Accounts(accounts) = &request.strategy else { return Ok(()) };
        let name = accounts.database.as_str().to_owned();
        self.permit::<UpdateDatabase>(trail, Resource::Named(ResourceKind::Database, name))?;
        if self.store.get(&RecordPath::database(&accounts.database)).await?.is_none() {
            trail.reason = "no such database".into();
            return Err(Error::Denied);
        }
        Ok(())
    }

    /// Asks whether the caller may have what a program gets, and the operator lets it be called.
    async fn permit_program(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        request: &RotationRequest,
    ) -> Result<(), Error> {
        let StrategyRequest::Webhook { url, authority, .. } = &request.strategy else {
            return Ok(());
        };
        self.permit_secret::<GetSecret>(trail, name).await?;
        self.permit_secret::<PutSecret>(trail, name).await?;
        let allowed = self.ports.webhooks.check(url, authority.as_deref());
        allowed.map_err(|error| Error::invalid("webhook.url", error.to_string()))
    }

    /// The rotation as it shall be, and what calls are signed with if that is new.
    fn planned(
        &self,
        item: &SecretItem,
        request: &RotationRequest,
        held: Option<&Held>,
    ) -> Result<(SecretRotation, Option<SecretVec>), Error> {
        let before = held.map(|held| &held.rotation);
        if before.is_some_and(|before| before.under_way.is_some()) {
            return Err(Error::SecretState { state: "being rotated" });
        }
        let (strategy, signing) = self.strategy(item, &request.strategy)?;
        let overlap = before.and_then(|before| before.overlap);
        let is_other = before.is_some_and(|before| revokes_otherwise(&before.strategy, &strategy));
        if overlap.is_some() && is_other {
            return Err(Error::SecretState { state: "in the overlap of another strategy" });
        }
        let (clock, random) = (self.clock.observe(), self.draw_random()?);
        let rotation = SecretRotation {
            secret: item.id,
            name: item.name.clone(),
            due: request.schedule.as_ref().and_then(|schedule| schedule.next(&clock, random)),
            schedule: request.schedule.clone(),
            overlap_secs: request.overlap_secs.or(match strategy {
                Strategy::Accounts(_) => Some(DEFAULT_OVERLAP_SECS),
                Strategy::Generated(_) | Strategy::Webhook(_) => None,
            }),
            strategy,
            under_way: None,
            overlap,
            failures: 0,
            last: before.and_then(|before| before.last.clone()),
        };
        Ok((rotation, signing))
    }

    fn strategy(
        &self,
        item: &SecretItem,
        request: &StrategyRequest,
    ) -> Result<(Strategy, Option<SecretVec>), Error> {
        Ok(match request {
            StrategyRequest::Generated(recipe) => (Strategy::Generated(recipe.clone()), None),
            StrategyRequest::Accounts(accounts) => (Strategy::Accounts(accounts.clone()), None),
            StrategyRequest::Webhook { url, authority, recipe } => {
                let mut entropy = self.ports.entropy.open();
                let drawn = mint_token("lastkey_webhook", &mut *entropy)
                    .map_err(|error| Error::Internal(error.into()))?;
                let place = SecretPlace::Webhook(item.id);
                let signing = self.keyring.materials.wrap_secret(place, &drawn, &mut *entropy);
                let signing = signing.map_err(Error::Internal)?;
                let (url, authority, recipe) = (url.clone(), authority.clone(), recipe.clone());
                (Strategy::Webhook(Webhook { url, authority, signing, recipe }), Some(drawn))
            }
        })
    }

    /// Four random bytes.
    pub(super) fn draw_random(&self) -> Result<u32, Error> {
        let mut random = [0; 4];
        let drawn = self.ports.entropy.open().fill(&mut random);
        drawn.map_err(|error| Error::Internal(error.into()))?;
        Ok(u32::from_be_bytes(random))
    }

    /// How a secret rotates.
    ///
    /// # Errors
    /// [`Error::NoRotation`] when it does not; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn secret_rotation(
        &self,
        call: &Call,
        name: &SecretName,
    ) -> Result<RotationView, Error> {
        let mut trail = Trail::of::<DescribeSecret>(self, call);
        trail.target = Some(target(name, None));
        let outcome = self.try_secret_rotation(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_secret_rotation(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<RotationView, Error> {
        let (_, stored) = self.permit_secret::<DescribeSecret>(trail, name).await?;
        trail.call().go_on()?;
        let held = self.held_rotation(stored.item.id).await?.ok_or(Error::NoRotation)?;
        Ok(self.rotation_view(held.rotation))
    }

    /// Ends the rotation of a secret. Versions stay as they are; an overlap goes on for good.
    ///
    /// # Errors
    /// [`Error::NoRotation`]; [`Error::SecretState`] when one is under way; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn remove_secret_rotation(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
    ) -> Result<(), Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<UpdateSecretRotation>(&engine, &call);
            trail.target = Some(target(&name, None));
            let outcome = engine.try_remove_rotation(&mut trail, &name).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_remove_rotation(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<(), Error> {
        // The scheduler writes to it as well.
        for _ in 0..ATTEMPTS {
            let (_, stored) = self.permit_secret::<UpdateSecretRotation>(trail, name).await?;
            let held = self.held_rotation(stored.item.id).await?.ok_or(Error::NoRotation)?;
            if held.rotation.under_way.is_some() {
                return Err(Error::SecretState { state: "being rotated" });
            }
            trail.call().go_on()?;
            trail.intend(self).await?;
            match self.store.commit(held.end()).await.map_err(Error::from) {
                Err(Error::Conflict) => {}
                committed => return committed.map(drop),
            }
        }
        Err(Error::Conflict)
    }
}

fn batch(held: Option<Held>, rotation: SecretRotation) -> Vec<Write> {
    if let Some(held) = held {
        return held.changed(rotation);
    }
    let mut writes = moved_dues(None, Some(&rotation));
    let path = RecordPath::secret_rotation(rotation.secret);
    let record = Some(Record::SecretRotation(Box::new(rotation)));
    writes.push(Write { path, expected: Expected::Absent, record });
    writes
}

/// Whether an old version would be revoked in another way: at another place, or none at all.
fn revokes_otherwise(before: &Strategy, after: &Strategy) -> bool {
    match (before, after) {
        (Strategy::Accounts(before), Strategy::Accounts(after)) => before != after,
        (Strategy::Accounts(_), _) | (_, Strategy::Accounts(_)) => true,
        (
            Strategy::Generated(_) | Strategy::Webhook(_),
            Strategy::Generated(_) | Strategy::Webhook(_),
        ) => false,
    }
}

fn check_request(request: &RotationRequest) -> Result<(), Error> {
    if request.overlap_secs.is_some_and(|overlap| overlap > MAX_OVERLAP_SECS) {
        return Err(Error::invalid("overlap_seconds", "an overlap is 90 days at most"));
    }
    if let StrategyRequest::Webhook { url, authority, .. } = &request.strategy {
        check_place("url", url, authority.as_deref())?;
    }
    match &request.schedule {
        Some(Schedule::At { window_secs, .. }) if *window_secs > MAX_WINDOW_SECS => {
            return Err(Error::invalid("window_seconds", "a window is a day at most"));
        }
        Some(Schedule::Every(period)) => check_period(request, period.as_secs())?,
        Some(Schedule::At { .. }) | None => {}
    }
    let StrategyRequest::Accounts(accounts) = &request.strategy else { return Ok(()) };
    let [first, second] = &accounts.pair;
    if first == second || !is_account(first) || !is_account(second) {
        let problem = "expected two accounts, 1 to 32 bytes each, without control characters";
        return Err(Error::invalid("accounts", problem));
    }
    Ok(())
}

/// Longest text of an authority, in bytes.
const MAX_AUTHORITY_LEN: usize = 65_536;

/// Whether something can be kept of where somebody is called.
pub(crate) fn check_place(
    field: &'static str,
    address: &str,
    authority: Option<&str>,
) -> Result<(), Error> {
    if !(1..=MAX_ADDRESS_LEN).contains(&address.len()) {
        return Err(Error::invalid(field, "an address has 1 to 2048 bytes"));
    }
    if authority.is_some_and(|pem| pem.len() > MAX_AUTHORITY_LEN) {
        return Err(Error::invalid("authority", "an authority has at most 65536 bytes"));
    }
    Ok(())
}

/// An overlap ends before the next rotation, which it would put off.
fn check_period(request: &RotationRequest, period_secs: u64) -> Result<(), Error> {
    let overlap = request.overlap_secs.or(match request.strategy {
        StrategyRequest::Accounts(_) => Some(DEFAULT_OVERLAP_SECS),
        StrategyRequest::Generated(_) | StrategyRequest::Webhook { .. } => None,
    });
    if overlap.is_some_and(|overlap| overlap.saturating_mul(10) > period_secs.saturating_mul(9)) {
        let problem = "the old version would still count when the next rotation is due: at most \
                       nine tenths of the period";
        return Err(Error::invalid("overlap_seconds", problem));
    }
    Ok(())
}
