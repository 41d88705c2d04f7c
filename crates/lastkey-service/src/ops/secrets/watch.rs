//! Use case: wait until one of these secrets has another current version.
//!
//! Room      `service`.
//! Holds     names and versions are told, never values; a secret that is not there, is deleted, or
//!           may not be listed by the caller looks the same. What the caller has seen is in his
//!           question, so a watch that broke is taken up where it was by asking again, whatever
//!           happened in between.

use std::collections::HashSet;
use std::time::Duration;

use lastkey_core::ids::VersionNo;
use lastkey_core::permit::{ListSecrets, Why};
use lastkey_core::ports::{Change, Watch};
use lastkey_core::record::RecordPath;
use lastkey_core::secret_item::SecretName;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::consumers::node_of;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::holders::Statement;

/// Most secrets of one watch.
pub const MAX_WATCHED: usize = 1_000;

/// Longest wait. Shorter than the longest request.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Most watches at once. They wait, and so must not take the place of calls that do not.
pub(crate) const WATCHES_AT_ONCE: usize = 256;

/// The same of agents of nodes, which keep one waiting all the time.
pub(crate) const NODES_AT_ONCE: usize = 4_096;

/// When a watch that is one too many may be asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A secret, and its current version as somebody knows it; none when he knows of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The secret.
    pub name: SecretName,
    /// Its current version.
    pub version: Option<VersionNo>,
}

/// What a watch tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Secrets with another current version.
    pub changed: Vec<Seen>,
    /// The statement of the node is not known here: it has to say it whole.
    pub holders_wanted: bool,
}

impl Engine {
    /// Answers those of the secrets whose current version is another one than the caller has seen:
    /// at once, or when that happens, or nothing when it does not within `wait` (20 seconds at
    /// most, and no longer than the engine is in use).
    ///
    /// # Errors
    /// [`Error::Invalid`] for none or more than 1,000 secrets, or one that stands twice;
    /// [`Error::Denied`] when the caller may list none of them; [`Error::Throttled`] at 256
    /// watches, of nodes at 4,096, and to who has many when few seats are left; [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn watch_secrets(
        &self,
        call: &Call,
        seen: &[Seen],
        wait: Duration,
    ) -> Result<Vec<Seen>, Error> {
        self.watch_for_node(call, (seen, None), wait).await.map(|news| news.changed)
    }

    /// The same for the agent of a node, which says with it who on the node holds what. When that
    /// is not understood the answer is at once.
    ///
    /// # Errors
    /// As [`Engine::watch_secrets`]; [`Error::Denied`] also for holders named by anybody else,
    /// [`Error::Invalid`] for more than 8,192 of them.
    pub async fn watch_for_node(
        &self,
        call: &Call,
        (seen, statement): (&[Seen], Option<Statement>),
        wait: Duration,
    ) -> Result<News, Error> {
        let mut trail = Trail::of::<ListSecrets>(self, call);
        trail.target = seen.first().map(|first| match seen.len() {
            1 => format!("secret/{}", first.name),
            many => format!("secret/{} and {} more", first.name, many.saturating_sub(1)),
        });
        let outcome = self.try_watch_secrets(&mut trail, (seen, statement), wait).await;
        trail.close(self, outcome).await
    }

    async fn try_watch_secrets(
        &self,
        trail: &mut Trail<'_>,
        (seen, statement): (&[Seen], Option<Statement>),
        wait: Duration,
    ) -> Result<News, Error> {
        // A node on which nobody holds anything any more says that, and waits for nothing.
        let is_last_word = statement.as_ref().is_some_and(|one| one.holders.is_some());
        if seen.is_empty() && is_last_word {
            let holders_wanted = !self.heard(trail, statement).await?;
            return Ok(News { holders_wanted, ..News::default() });
        }
        if !(1..=MAX_WATCHED).contains(&seen.len()) {
            return Err(Error::invalid("secrets", "a watch is of 1 to 1000 secrets"));
        }
        let paths: HashSet<_> = seen.iter().map(|one| RecordPath::secret(&one.name)).collect();
        if paths.len() != seen.len() {
            return Err(Error::invalid("secrets", "a secret stands there twice"));
        }
        self.permit_watch(trail, seen).await?;
        trail.call().go_on()?;
        if !self.heard(trail, statement).await? {
            return Ok(News { holders_wanted: true, ..News::default() });
        }
        let seats = match node_of(trail.call()) {
            Some(_) => &self.node_watches,
            None => &self.watches,
        };
        let seat = seats.take(trail.call().caller.principal.name());
        let _seat = seat.ok_or(Error::Throttled { retry_after: RETRY_AFTER })?;
        let mut retiring = self.retiring.subscribe();
        let until = Instant::now() + wait.min(MAX_WAIT);
        // Before the first look: what changes after it wakes us.
        let mut watch = self.store.watch("secret/");
        loop {
            let changed = self.news(trail, seen).await?;
            if !changed.is_empty() || !changes(&mut *watch, &paths, (until, &mut retiring)).await? {
                return Ok(News { changed, holders_wanted: false });
            }
        }
    }

    /// Whether what a node says, if it says something, is known from now on.
    async fn heard(
        &self,
        trail: &mut Trail<'_>,
        statement: Option<Statement>,
    ) -> Result<bool, Error> {
        let Some(statement) = statement else { return Ok(true) };
        let heard = self.hear_holders(trail.call(), statement).await;
        if matches!(heard, Err(Error::Denied)) {
            trail.reason = Why::Fixed("only the agent of a node says who holds what");
        }
        heard
    }

    /// Refuses a caller who may list none of the secrets.
    async fn permit_watch(&self, trail: &mut Trail<'_>, seen: &[Seen]) -> Result<(), Error> {
        for one in seen {
            let stored = self.stored_secret(&one.name).await?;
            let tags = stored.as_ref().map(|stored| &stored.item.tags);
            if self.permit_named_secret::<ListSecrets>(trail, &one.name, tags).is_ok() {
                return Ok(());
            }
        }
        trail.reason = Why::Fixed("he may list none of them");
        Err(Error::Denied)
    }

    async fn news(&self, trail: &Trail<'_>, seen: &[Seen]) -> Result<Vec<Seen>, Error> {
        let mut news = Vec::new();
        for one in seen {
            let stored = self.stored_secret(&one.name).await?.map(|stored| stored.item);
            let usable = stored.filter(|item| item.deletion.is_none());
            let version = usable.filter(|item| self.may_list(trail, item));
            let version = version.and_then(|item| item.current());
            if version != one.version {
                news.push(Seen { name: one.name.clone(), version });
            }
        }
        Ok(news)
    }
}

/// Waits for a change of one of these records; no when the time is over first, or the engine is to
/// go.
async fn changes(
    watch: &mut dyn Watch,
    paths: &HashSet<RecordPath>,
    (until, retiring): (Instant, &mut Receiver<bool>),
) -> Result<bool, Error> {
    loop {
        let change = tokio::select! {
            () = sleep_until(until) => return Ok(false),
            _ = retiring.wait_for(|retiring| *retiring) => return Ok(false),
            change = watch.next() => change,
        };
        match change {
            Some(Change::Record { path, .. }) if paths.contains(&path) => return Ok(true),
            Some(Change::Record { .. }) => {}
            Some(Change::Missed) => return Ok(true),
            None => return Err(Error::Unavailable("the store has closed".into())),
        }
    }
}
