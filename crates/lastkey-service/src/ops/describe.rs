//! Use cases: describe and list keys and versions.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::Key;
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{DescribeKey, ListKeys, Resource};
use lastkey_core::ports::{StoreError, Stored};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_core::version::{KeyVersion, Usage};

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::view::{KeyView, Page, VersionView};

impl Engine {
    /// Describes a key.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn describe_key(&self, call: &Call, key: KeyRef) -> Result<KeyView, Error> {
        let mut trail = Trail::of::<DescribeKey>(self, call);
        let outcome = self.try_describe_key(&mut trail, &key).await;
        trail.close(self, outcome).await
    }

    async fn try_describe_key(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
    ) -> Result<KeyView, Error> {
        let permit = self.permit_key::<DescribeKey>(trail, name).await?;
        let key = self.stored_key(trail, &permit).await?;
        trail.call().go_on()?;
        self.whole_view(key).await
    }

    /// A key with all that is known of it.
    pub(crate) async fn whole_view(&self, key: Key) -> Result<KeyView, Error> {
        let last_used_at = self.last_use(&key).await?;
        let holdings = self.holdings(key.id).await?;
        let holdings = holdings.into_iter().map(|(holding, _)| holding).collect();
        Ok(KeyView { holdings, ..KeyView::of(key, &self.clock.observe(), last_used_at) })
    }

    /// When any version of a key was used last, written or not.
    pub(crate) async fn last_use(&self, key: &Key) -> Result<Option<Timestamp>, Error> {
        let newest = key.newest.map_or(0, VersionNo::number);
        let written = self.store.scan(&PathRange::usages(key.id, usize::MAX)).await?;
        let written = written.into_iter().filter_map(|stored| {
            let Record::Usage(usage) = stored.record else { return None };
            usage.last_used_at
        });
        let pending = (1..=newest).filter_map(VersionNo::new);
        let pending = pending.filter_map(|n| self.keyring.usage.pending(key.id, n).last_used_at);
        Ok(written.chain(pending).max())
    }

    /// Lists keys by id, a page at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_keys(
        &self,
        call: &Call,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Page<KeyView>, Error> {
        let mut trail = Trail::of::<ListKeys>(self, call);
        let outcome = self.try_list_keys(&mut trail, after, limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_keys(
        &self,
        trail: &mut Trail<'_>,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Page<KeyView>, Error> {
        let one_more = check_limit(limit)?;
        self.permit::<ListKeys>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let clock = self.clock.observe();
        let stored = self.store.scan(&PathRange::keys(after, one_more)).await?;
        let mut views = Vec::with_capacity(stored.len());
        for stored in stored {
            let Record::Key(key) = stored.record else {
                return Err(corrupt(stored.path));
            };
            let last_used_at = self.last_use(&key).await?;
            views.push(KeyView::of(key, &clock, last_used_at));
        }
        Ok(Page::cut(views, limit))
    }

    /// Lists the versions of a key, oldest first, a page at a time.
    ///
    /// # Errors
    /// As [`Engine::list_keys`].
    pub async fn list_versions(
        &self,
        call: &Call,
        key: KeyRef,
        after: Option<VersionNo>,
        limit: usize,
    ) -> Result<Page<VersionView>, Error> {
        let mut trail = Trail::of::<DescribeKey>(self, call);
        let outcome = self.try_list_versions(&mut trail, &key, after, limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_versions(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
        after: Option<VersionNo>,
        limit: usize,
    ) -> Result<Page<VersionView>, Error> {
        let one_more = check_limit(limit)?;
        let permit = self.permit_key::<DescribeKey>(trail, name).await?;
        let loaded = self.load_key(trail, &permit).await?;
        trail.call().go_on()?;
        let range = PathRange::versions(loaded.key.id, after, one_more);
        let mut views = Vec::new();
        for stored in self.store.scan(&range).await? {
            let key = (loaded.key.id, loaded.key.primary);
            views.push(self.version_view(key, stored_version(stored)?).await?);
        }
        Ok(Page::cut(views, limit))
    }

    /// Describes one version.
    ///
    /// # Errors
    /// As [`Engine::describe_key`].
    pub async fn describe_version(
        &self,
        call: &Call,
        key: KeyRef,
        number: VersionNo,
    ) -> Result<VersionView, Error> {
        let mut trail = Trail::of::<DescribeKey>(self, call);
        trail.version = Some(number);
        let outcome = self.try_describe_version(&mut trail, &key, number).await;
        trail.close(self, outcome).await
    }

    async fn try_describe_version(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
        number: VersionNo,
    ) -> Result<VersionView, Error> {
        let permit = self.permit_key::<DescribeKey>(trail, name).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let Some((version, _)) = self.read_version(loaded.key.id, number).await? else {
            trail.reason = "no such version".into();
            return Err(Error::Denied);
        };
        trail.call().go_on()?;
        self.version_view((loaded.key.id, loaded.key.primary), version).await
    }

    /// A version of a key that was just changed. The permit for that is the one for this.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the version has gone meanwhile; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn changed_version(
        &self,
        key: &Key,
        number: VersionNo,
    ) -> Result<VersionView, Error> {
        let (version, _) = self.read_version(key.id, number).await?.ok_or(Error::Conflict)?;
        self.version_view((key.id, key.primary), version).await
    }

    /// A version with its use, written or not.
    async fn version_view(
        &self,
        (key, primary): (KeyId, Option<VersionNo>),
        version: KeyVersion,
    ) -> Result<VersionView, Error> {
        let pending = self.keyring.usage.pending(key, version.number);
        let path = RecordPath::usage(key, version.number);
        let written = self.store.get(&path).await?.map(|stored| stored.record);
        let written =
            if let Some(Record::Usage(usage)) = written { usage } else { Usage::default() };
        let primary = primary == Some(version.number);
        let version = KeyVersion { material: None, ..version };
        Ok(VersionView { version, primary, usage: written.plus(pending) })
    }
}

/// Checks the size of a page, and answers how many records to read: one more than it holds.
///
/// # Errors
/// [`Error::Invalid`] outside 1 to 1,000.
pub(crate) fn check_limit(limit: usize) -> Result<usize, Error> {
    if (1..=MAX_PAGE_LEN).contains(&limit) {
        Ok(limit.saturating_add(1))
    } else {
        Err(Error::invalid("limit", "a page has 1 to 1000 items"))
    }
}

fn stored_version(stored: Stored) -> Result<KeyVersion, Error> {
    let Record::Version(version) = stored.record else {
        return Err(corrupt(stored.path));
    };
    Ok(version)
}

pub(crate) fn corrupt(path: RecordPath) -> Error {
    StoreError::Corrupt(path).into()
}
