//! Use cases: set, delete and list aliases.
//!
//! Room      `service`.
//! Holds     an alias record and the alias lists of the keys that it leaves and joins change in
//!           one commit.

use std::sync::Arc;

use lastkey_core::ids::{AliasName, KeyId, KeyRef};
use lastkey_core::permit::{ListKeys, Resource, UpdateAlias};
use lastkey_core::ports::Expected;
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::state::State;

use super::describe::{check_limit, corrupt};
use crate::audited::Trail;
use crate::call::Call;
use crate::change::{Draft, Plan};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::{AliasView, KeyView, Page};

/// Where the aliases stand that the server makes for itself.
const OWN_ALIASES: &str = "alias/lastkey/";

/// Whether somebody may make, move or delete this alias. Programs trust that the server made what
/// stands in its own space.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_owner(alias: &AliasName, is_server: bool) -> Result<(), Error> {
    if is_server || !alias.as_str().starts_with(OWN_ALIASES) {
        return Ok(());
    }
    Err(Error::invalid("alias", "what begins with alias/lastkey/ is the server's own"))
}

impl Engine {
    /// Lets an alias name a key, whatever it named before. Needs permission for both keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an alias of the server, [`Error::LimitExceeded`] at 50 aliases, [`Error::KeyState`] for a destroyed key;
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn set_alias(
        self: &Arc<Self>,
        call: &Call,
        alias: AliasName,
        key: KeyRef,
    ) -> Result<KeyView, Error> {
        let from = self.alias_target(&alias).await?;
        if let Some(named) = from {
            let mut trail = Trail::of::<UpdateAlias>(self, call);
            if let Err(error) = self.permit_key_id::<UpdateAlias>(&mut trail, named).await {
                return trail.close(self, Err(error)).await;
            }
        }
        self.change::<UpdateAlias>(call, key, Plan::SetAlias { alias, from }).await
    }

    /// Deletes an alias. The key stays.
    ///
    /// # Errors
    /// As [`Engine::set_alias`].
    pub async fn delete_alias(
        self: &Arc<Self>,
        call: &Call,
        alias: AliasName,
    ) -> Result<(), Error> {
        let key = KeyRef::Alias(alias.clone());
        self.change::<UpdateAlias>(call, key, Plan::DeleteAlias(alias)).await.map(|_| ())
    }

    /// Lists aliases by name, a page at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_aliases(
        &self,
        call: &Call,
        after: Option<AliasName>,
        limit: usize,
    ) -> Result<Page<AliasView>, Error> {
        let mut trail = Trail::of::<ListKeys>(self, call);
        let outcome = self.try_list_aliases(&mut trail, after.as_ref(), limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_aliases(
        &self,
        trail: &mut Trail<'_>,
        after: Option<&AliasName>,
        limit: usize,
    ) -> Result<Page<AliasView>, Error> {
        let one_more = check_limit(limit)?;
        self.permit::<ListKeys>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let mut views = Vec::new();
        for stored in self.store.scan(&PathRange::aliases(after, one_more)).await? {
            let Record::Alias(key) = stored.record else {
                return Err(corrupt(stored.path));
            };
            views.push(AliasView { alias: AliasName::parse(stored.path.as_str())?, key });
        }
        Ok(Page::cut(views, limit))
    }

    pub(crate) async fn plan_alias(
        &self,
        draft: &mut Draft,
        alias: &AliasName,
        from: Option<KeyId>,
    ) -> Result<(), Error> {
        check_owner(alias, false)?;
        if draft.key.state == State::Destroyed {
            return Err(Error::state(draft.key.state));
        }
        let path = RecordPath::alias(alias);
        let expected = match self.store.get(&path).await? {
            None => Expected::Absent,
            Some(stored) if stored.record == Record::Alias(draft.key.id) => return Ok(()),
            // The key that the caller may take it from, and no other.
            Some(stored) if from.map(Record::Alias).as_ref() != Some(&stored.record) => {
                return Err(Error::Conflict);
            }
            Some(stored) => {
                self.leave_old_key(draft, alias, &stored.record).await?;
                Expected::At(stored.revision)
            }
        };
        draft.key.add_alias(alias.clone())?;
        draft.write(path, expected, Some(Record::Alias(draft.key.id)));
        Ok(())
    }

    async fn leave_old_key(
        &self,
        draft: &mut Draft,
        alias: &AliasName,
        named: &Record,
    ) -> Result<(), Error> {
        let Record::Alias(old) = named else {
            return Err(corrupt(RecordPath::alias(alias)));
        };
        let path = RecordPath::key(*old);
        if let Some(stored) = self.store.get(&path).await? {
            let Record::Key(mut key) = stored.record else {
                return Err(corrupt(path));
            };
            key.remove_alias(alias);
            draft.write(path, Expected::At(stored.revision), Some(Record::Key(key)));
        }
        Ok(())
    }

    pub(crate) async fn plan_alias_removal(
        &self,
        draft: &mut Draft,
        alias: &AliasName,
    ) -> Result<(), Error> {
        check_owner(alias, false)?;
        let path = RecordPath::alias(alias);
        let stored = self.store.get(&path).await?;
        // Meanwhile it may name another key, which the caller was not asked about.
        let stored = stored.filter(|stored| stored.record == Record::Alias(draft.key.id));
        let stored = stored.ok_or(Error::Conflict)?;
        draft.key.remove_alias(alias);
        draft.write(path, Expected::At(stored.revision), None);
        Ok(())
    }
}
