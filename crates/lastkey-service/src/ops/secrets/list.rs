//! Use case: list the secrets in a path, one page at a time; search by name, tag and age.
//!
//! Room      `service`.
//! Holds     a page reads no more than [`MOST_READ`] records, however many there are; it may hold
//!           less than was asked for, and says where the next one begins. What the caller may not
//!           list is not in it.

use lastkey_core::permit::DecisionPoint as _;
use lastkey_core::permit::{Action as _, Facts, KeyFacts, ListSecrets, Question, Resource};
use lastkey_core::ports::StoreError;
use lastkey_core::record::{PathRange, Record};
use lastkey_core::secret_item::{SecretItem, SecretName, SecretPath};
use lastkey_core::time::{ClockRecord, Timestamp};

use super::SecretView;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::describe::check_limit;

/// Most records that one page reads.
const MOST_READ: usize = 20_000;

/// Records read at once: few where the rest of a path may be passed over, more while it may not.
const READ_AT_ONCE: core::ops::RangeInclusive<usize> = 16..=1_000;

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Where.
    pub path: SecretPath,
    /// Also in the paths below it; otherwise those are told by their names alone.
    pub recursive: bool,
    /// What the name contains.
    pub name: Option<String>,
    /// A tag, and its value unless any will do.
    pub tag: Option<(String, Option<String>)>,
    /// Written last before this moment.
    pub written_before: Option<Timestamp>,
    /// Only those that are deleted.
    pub deleted: bool,
}

/// One entry of a list.
#[derive(Clone, Debug)]
pub enum Listed {
    /// A secret.
    Secret(Box<SecretView>),
    /// A path with secrets in it.
    Path(String),
}

/// One page of a list.
#[derive(Debug, Default)]
pub struct SecretPage {
    /// The entries, by name.
    pub entries: Vec<Listed>,
    /// Where the next page begins, if there may be more.
    pub next: Option<String>,
}

impl Engine {
    /// Lists secrets.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_secrets(
        &self,
        call: &Call,
        search: &Search,
        after: Option<String>,
        limit: usize,
    ) -> Result<SecretPage, Error> {
        let mut trail = Trail::of::<ListSecrets>(self, call);
        trail.target = Some(format!("secret/{}", search.path.prefix()));
        let outcome = self.try_list_secrets(&mut trail, search, after, limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_secrets(
        &self,
        trail: &mut Trail<'_>,
        search: &Search,
        after: Option<String>,
        limit: usize,
    ) -> Result<SecretPage, Error> {
        check_limit(limit)?;
        // A marker from before the path would end the list before it begins.
        let mut after = after.filter(|marker| *marker > search.path.prefix());
        let resource = match search.path.as_str() {
            "" => Resource::Instance,
            _ => Resource::SecretPath(search.path.clone()),
        };
        self.permit::<ListSecrets>(trail, resource)?;
        trail.call().go_on()?;
        let (clock, mut page, mut read) = (self.clock.observe(), SecretPage::default(), 0);
        let (few, many) = (*READ_AT_ONCE.start(), *READ_AT_ONCE.end());
        let mut most = if search.recursive { many } else { few };
        while page.entries.len() < limit && read < MOST_READ {
            let at_once = most.min(limit.saturating_sub(page.entries.len())).max(few);
            let range = PathRange::secrets(&search.path, after.as_deref(), at_once);
            let stored = self.store.scan(&range).await?;
            read = read.saturating_add(stored.len());
            let is_last = stored.len() < range.limit;
            let mut skipped = false;
            for stored in stored {
                let Record::Secret(item) = stored.record else {
                    return Err(StoreError::Corrupt(stored.path).into());
                };
                after = Some(item.name.as_str().to_owned());
                let Some(entry) = self.entry(trail, search, item, &clock) else { continue };
                if let Listed::Path(path) = &entry {
                    after = Some(format!("{path}{}", SecretName::AFTER));
                    skipped = true;
                }
                page.entries.push(entry);
                if skipped || page.entries.len() == limit {
                    break;
                }
            }
            most = if skipped { few } else { many.min(most.saturating_mul(4)) };
            page.next = after.clone();
            if is_last && !skipped && page.entries.len() < limit {
                page.next = None;
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(page)
    }

    /// What a list says of a secret; nothing when it is not looked for, or not for this caller.
    fn entry(
        &self,
        trail: &Trail<'_>,
        search: &Search,
        item: SecretItem,
        clock: &ClockRecord,
    ) -> Option<Listed> {
        if !self.may_list(trail, &item) {
            return None;
        }
        let rest = item.name.as_str().get(search.path.prefix().len()..)?;
        if let Some((folder, _)) = rest.split_once('/').filter(|_| !search.recursive) {
            return Some(Listed::Path(format!("{}{folder}/", search.path.prefix())));
        }
        search.matches(&item).then(|| Listed::Secret(Box::new(SecretView::of(item, clock))))
    }

    /// Whether the caller may list this one.
    pub(super) fn may_list(&self, trail: &Trail<'_>, item: &SecretItem) -> bool {
        let caller = &trail.call().caller;
        let facts = Facts {
            now: trail.at(),
            source: caller.source,
            context: None,
            key: Some(KeyFacts { aliases: &[], tags: &item.tags }),
        };
        let resource = Resource::Secret(item.name.clone());
        let (who, action) = (&caller.principal, ListSecrets::NAME);
        let question = Question { who, action, resource: &resource, facts: &facts };
        self.access.get().decide(&question).allowed
    }
}

impl Search {
    fn matches(&self, item: &SecretItem) -> bool {
        let has_tag = |(name, value): &(String, Option<String>)| {
            item.tags
                .iter()
                .any(|(tag, held)| tag == name && value.as_ref().is_none_or(|value| value == held))
        };
        self.name.as_ref().is_none_or(|part| item.name.as_str().contains(part.as_str()))
            && self.tag.as_ref().is_none_or(has_tag)
            && self.written_before.is_none_or(|moment| item.written_at < moment)
            && item.deletion.is_some() == self.deleted
    }
}
