//! What a strategy does outside: sets, tests and revokes.
//!
//! Room      `service`. Behind the ports `core::outside::{Databases, Webhooks}`.
//! Holds     everything here can be done twice. An account that the current version names is not
//!           locked, and opened again if it was.

use lastkey_core::ids::VersionNo;
use lastkey_core::outside::{HookCall, HookError, HookStep};
use lastkey_core::secret_item::SecretItem;
use lastkey_core::secret_rotation::{
    Accounts, PASSWORD_FIELD, SecretRotation, Strategy, USERNAME_FIELD, UnderWay, Webhook,
};
use lastkey_secret::SecretVec;

use super::Scene;
use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::SecretPlace;
use crate::secret_box::Value;

/// Why a step was not done.
pub(super) enum Stopped {
    /// It failed.
    Failed(Error),
    /// A program was told to do it, and it is not known whether it did.
    Unknown(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An account and its password, as a version has them.
struct Account {
    name: String,
    password: SecretVec,
}

impl Engine {
    /// Sets the new value where it is to count.
    pub(super) async fn set_outside(
        &self,
        trail: &mut Trail<'_>,
        scene: &Scene,
        under_way: &UnderWay,
    ) -> Result<(), Stopped> {
        match &scene.held.rotation.strategy {
            Strategy::Generated(_) => Ok(()),
            Strategy::Accounts(accounts) => {
                let account = self.account(trail, &scene.item, under_way.version).await?;
                check_pair(accounts, &account.name)?;
                let root = self.root_of(&accounts.database).await?;
                Ok(root.set_password(self, &account.name, &account.password).await?)
            }
            Strategy::Webhook(webhook) => {
                let (_, value) = self.value_of(trail, &scene.item, under_way.version).await?;
                self.call_hook(HookStep::Set, webhook, &scene.item, under_way, Some(&value)).await
            }
        }
    }

    /// Tries whether the new value works.
    pub(super) async fn test_outside(
        &self,
        trail: &mut Trail<'_>,
        scene: &Scene,
        under_way: &UnderWay,
    ) -> Result<(), Stopped> {
        match &scene.held.rotation.strategy {
            Strategy::Generated(_) => Ok(()),
            Strategy::Accounts(accounts) => {
                let account = self.account(trail, &scene.item, under_way.version).await?;
                let root = self.root_of(&accounts.database).await?;
                Ok(root.log_in(self, &account.name, &account.password).await?)
            }
            Strategy::Webhook(webhook) => {
                let (_, value) = self.value_of(trail, &scene.item, under_way.version).await?;
                self.call_hook(HookStep::Test, webhook, &scene.item, under_way, Some(&value)).await
            }
        }
    }

    /// Tells a program that the new version is current. It is, whatever the program says.
    pub(super) async fn tell_finished(
        &self,
        rotation: &SecretRotation,
        item: &SecretItem,
        under_way: &UnderWay,
    ) {
        let Strategy::Webhook(webhook) = &rotation.strategy else { return };
        let told = self.call_hook(HookStep::Finish, webhook, item, under_way, None).await;
        if let Err(Stopped::Failed(error) | Stopped::Unknown(error)) = told {
            tracing::warn!(%error, "a program was not told that a rotation is finished");
        }
    }

    /// Lets nobody in any more by the old version. If its account is in use by now, it opens.
    pub(super) async fn revoke_outside(
        &self,
        trail: &mut Trail<'_>,
        scene: &Scene,
        old: VersionNo,
    ) -> Result<(), Error> {
        let Strategy::Accounts(accounts) = &scene.held.rotation.strategy else { return Ok(()) };
        let Some(current) = scene.item.current() else { return Ok(()) };
        let in_use = self.account(trail, &scene.item, current).await?;
        let account = match self.account(trail, &scene.item, old).await {
            // There is no value that could tell which account it was: the other one of the two.
            Err(Error::SecretState { .. }) if accounts.pair.contains(&in_use.name) => {
                accounts.standby(Some(in_use.name.as_bytes())).to_owned()
            }
            Err(Error::SecretState { .. }) => return Ok(()),
            account => account?.name,
        };
        if !accounts.pair.contains(&account) {
            return Ok(());
        }
        let root = self.root_of(&accounts.database).await?;
        if in_use.name == account {
            // Perhaps it was locked before somebody went back to it.
            return root.set_password(self, &account, &in_use.password).await;
        }
        root.lock(self, &account).await
    }

    async fn account(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        number: VersionNo,
    ) -> Result<Account, Error> {
        let mut fields = self.fields_of(trail, item, number).await?;
        let mut take = |wanted: &str| {
            let place = fields.iter().position(|(name, _)| name == wanted)?;
            Some(fields.swap_remove(place).1)
        };
        let missing = || Error::invalid("secret", "it lacks the field username or password");
        let (name, password) = (take(USERNAME_FIELD), take(PASSWORD_FIELD));
        let (name, password) = (name.ok_or_else(missing)?, password.ok_or_else(missing)?);
        let name = name.expose(|name| core::str::from_utf8(name).map(str::to_owned));
        Ok(Account { name: name.map_err(|_| missing())?, password })
    }

    /// What a program made when it was asked for a value; `None` when it leaves that to us.
    pub(super) async fn made_outside(
        &self,
        item: &SecretItem,
        webhook: &Webhook,
        id: &[u8; 16],
    ) -> Result<Option<Value>, Error> {
        let (rotation, signing) = (hex(id), self.signing(item, webhook)?);
        let call = self.hook(HookStep::Create, webhook, item, (&rotation, &signing));
        let made = self.ports.webhooks.call(call).await.map_err(|error| outside(&error))?;
        let made = made.map(|(kind, bytes)| Value { kind, bytes });
        if let Some(value) = &made {
            self.check_value(value)?;
        }
        Ok(made)
    }

    async fn call_hook(
        &self,
        step: HookStep,
        webhook: &Webhook,
        item: &SecretItem,
        under_way: &UnderWay,
        value: Option<&Value>,
    ) -> Result<(), Stopped> {
        let (rotation, signing) = (hex(&under_way.id), self.signing(item, webhook)?);
        let call = HookCall {
            version: Some(under_way.version.number()),
            value: value.map(|value| (value.kind, &value.bytes)),
            ..self.hook(step, webhook, item, (&rotation, &signing))
        };
        self.ports.webhooks.call(call).await.map(|_| ()).map_err(|error| match &error {
            HookError::No(_) => Stopped::Failed(outside(&error)),
            HookError::Away(_) => Stopped::Unknown(outside(&error)),
        })
    }

    fn hook<'a>(
        &self,
        step: HookStep,
        webhook: &'a Webhook,
        item: &'a SecretItem,
        (rotation, signing): (&'a str, &'a SecretVec),
    ) -> HookCall<'a> {
        HookCall {
            url: &webhook.url,
            authority: webhook.authority.as_deref(),
            signing,
            rotation,
            at: self.clock.wall(),
            step,
            secret: item.name.as_str(),
            version: None,
            value: None,
        }
    }

    fn signing(&self, item: &SecretItem, webhook: &Webhook) -> Result<SecretVec, Error> {
        let place = SecretPlace::Webhook(item.id);
        let opened = self.keyring.materials.unwrap_secret(place, &webhook.signing);
        opened.map_err(Error::Internal)
    }
}

fn outside(error: &HookError) -> Error {
    Error::Outside(format!("the program that rotates it: {error}").into())
}

/// Refuses an account that is none of the two: a version that somebody else wrote.
fn check_pair(accounts: &Accounts, account: &str) -> Result<(), Error> {
    if accounts.pair.iter().any(|one| one == account) {
        Ok(())
    } else {
        Err(Error::invalid("secret", "its username is none of the two accounts"))
    }
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}
