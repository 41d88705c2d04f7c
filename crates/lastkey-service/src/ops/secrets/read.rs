//! Use cases: read a value; describe a secret and its versions.
//!
//! Room      `service`.

use lastkey_core::ids::VersionNo;
use lastkey_core::permit::{DescribeSecret, GetSecret};
use lastkey_core::ports::StoreError;
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretItem, SecretName, SecretVersion, Stage};

use super::{SecretView, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::secret_box::Value;

/// Which version.
#[derive(Clone, Debug)]
pub enum Which {
    /// The one with this number.
    Number(VersionNo),
    /// The one at this stage.
    Stage(Stage),
}

impl Which {
    fn of(&self, item: &SecretItem) -> Option<VersionNo> {
        match self {
            Self::Number(number) => item.kept.binary_search(number).is_ok().then_some(*number),
            Self::Stage(stage) => item.stages.get(stage).copied(),
        }
    }
}

/// A value, and which one it is.
#[derive(Debug)]
pub struct SecretValue {
    /// The secret.
    pub item: SecretItem,
    /// The version.
    pub version: SecretVersion,
    /// The value.
    pub value: Value,
}

impl Engine {
    /// Reads the value of a version.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::SecretState`] when the secret is deleted, the version destroyed,
    /// or no version stands at the stage; [`Error::KeyState`]; [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn get_secret(
        &self,
        call: &Call,
        name: &SecretName,
        which: &Which,
    ) -> Result<SecretValue, Error> {
        let mut trail = Trail::of::<GetSecret>(self, call);
        trail.target = Some(target(name, None));
        let outcome = self.try_get_secret(&mut trail, name, which).await;
        trail.close(self, outcome).await
    }

    /// As [`Engine::get_secret`], within a use case that leaves its own record.
    ///
    /// # Errors
    /// As [`Engine::get_secret`].
    pub(super) async fn try_get_secret(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        which: &Which,
    ) -> Result<SecretValue, Error> {
        let (_, stored) = self.permit_secret::<GetSecret>(trail, name).await?;
        let item = stored.in_use()?.item;
        let number = which.of(&item).ok_or(Error::SecretState { state: "not there" })?;
        trail.target = Some(target(name, Some(number)));
        let (version, value) = self.value_of(trail, &item, number).await?;
        Ok(SecretValue { item, version, value })
    }

    /// The value of a version, for whoever was let in already, or for the service itself.
    ///
    /// # Errors
    /// [`Error::SecretState`], [`Error::Denied`], [`Error::KeyState`]; [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(super) async fn value_of(
        &self,
        trail: &mut Trail<'_>,
        item: &SecretItem,
        number: VersionNo,
    ) -> Result<(SecretVersion, Value), Error> {
        let Some((version, _)) = self.secret_version(item, number).await? else {
            // It was let go of since the secret was read.
            return Err(Error::SecretState { state: "not there" });
        };
        if version.destroyed_at.is_some() {
            return Err(Error::SecretState { state: "destroyed" });
        }
        let path = RecordPath::secret_value(item.id, number);
        let Some(stored) = self.store.get(&path).await? else {
            return Err(Error::SecretState { state: "not there" });
        };
        let Record::SecretValue(sealed) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        let value = self.open_value(trail, &item.name, &version, &sealed).await?;
        Ok((version, value))
    }

    /// Describes a secret.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn describe_secret(
        &self,
        call: &Call,
        name: &SecretName,
    ) -> Result<SecretView, Error> {
        let mut trail = Trail::of::<DescribeSecret>(self, call);
        trail.target = Some(target(name, None));
        let outcome = self.try_describe_secret(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_describe_secret(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<SecretView, Error> {
        let (_, stored) = self.permit_secret::<DescribeSecret>(trail, name).await?;
        trail.call().go_on()?;
        Ok(SecretView::of(stored.item, &self.clock.observe()))
    }

    /// The versions of a secret that are kept, the oldest first.
    ///
    /// # Errors
    /// As [`Engine::describe_secret`].
    pub async fn secret_versions(
        &self,
        call: &Call,
        name: &SecretName,
    ) -> Result<(SecretItem, Vec<SecretVersion>), Error> {
        let mut trail = Trail::of::<DescribeSecret>(self, call);
        trail.target = Some(target(name, None));
        let outcome = self.try_secret_versions(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_secret_versions(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<(SecretItem, Vec<SecretVersion>), Error> {
        let (_, stored) = self.permit_secret::<DescribeSecret>(trail, name).await?;
        trail.call().go_on()?;
        let versions = self.kept_versions(&stored.item).await?;
        Ok((stored.item, versions.into_iter().map(|(version, _)| version).collect()))
    }
}
