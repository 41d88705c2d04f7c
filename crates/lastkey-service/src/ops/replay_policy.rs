//! Use case: what a policy would have said to the calls of the last days.
//!
//! Room      `service`.
//! Holds     nothing is written. A call counts only when the policies of now decide it as it was
//!           decided then: the log has the hash of an encryption context and no groups, so some
//!           calls cannot be put again. Those are counted, never guessed.

use std::collections::HashMap;
use std::sync::Arc;

use lastkey_core::access::{Policy, Role};
use lastkey_core::audit::archive::{Entry, Filter, Search};
use lastkey_core::audit::record::Record as AuditRecord;
use lastkey_core::ids::{KeyId, Name};
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{
    Action as _, CreateKey, Decision, DecisionPoint as _, Facts, KeyFacts, Question, ReadPolicies,
    Resource, ResourceKind, RevokeSessions,
};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_core::time::Timestamp;

use crate::access::Access;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::keyring::LoadedKey;
use crate::ops::ask_policy::{known_action, principal};
use crate::ops::named::Named;

/// What is changed for the dry run.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// The policy, or the role whose policy it is.
    pub of: PolicyOf,
    /// Its text; `None` when it is removed.
    pub text: Option<String>,
    /// How many days back, 1 to 366.
    pub days: u64,
}

/// Whose text it is.
#[derive(Clone, Debug)]
pub enum PolicyOf {
    /// A policy of the installation.
    Policy(Name),
    /// A role.
    Role(Name),
}

/// What would have been otherwise.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Calls that were looked at.
    pub calls: usize,
    /// Of those, calls that cannot be decided again from what the log has.
    pub unjudged: usize,
    /// Calls that would have been refused.
    pub refused: usize,
    /// Calls that would have been allowed.
    pub allowed: usize,
    /// The newest of them, at most [`MAX_SHOWN`].
    pub changes: Vec<ChangedCall>,
    /// Whether there are older calls that were not looked at.
    pub is_cut: bool,
}

/// A call that would be decided otherwise.
#[derive(Clone, Debug)]
pub struct ChangedCall {
    /// Its record.
    pub entry: Entry,
    /// What would be decided.
    pub allowed: bool,
    /// By which policies, in words.
    pub why: String,
}

/// Most calls that are shown.
pub const MAX_SHOWN: usize = 100;
/// Most records that are looked at.
const MAX_RECORDS: usize = 250_000;

impl Engine {
    /// Puts the calls of the last days to the policies as they would be.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is no policy, with line and column, and without a text
    /// for a policy that is not there; [`Error::Denied`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn replay_policy(
        &self,
        call: &Call,
        rewritten: Rewritten,
    ) -> Result<Replayed, Error> {
        let mut trail = Trail::of::<ReadPolicies>(self, call);
        trail.target = Some(match &rewritten.of {
            PolicyOf::Policy(name) => format!("policy/{name}"),
            PolicyOf::Role(name) => format!("role/{name}"),
        });
        let outcome = self.try_replay(&mut trail, rewritten).await;
        trail.close(self, outcome).await
    }

    async fn try_replay(
        &self,
        trail: &mut Trail<'_>,
        rewritten: Rewritten,
    ) -> Result<Replayed, Error> {
        if !(1..=366).contains(&rewritten.days) {
            return Err(Error::invalid("days", "expected 1 to 366"));
        }
        self.permit::<ReadPolicies>(trail, Resource::Instance)?;
        let since = trail.at().0.saturating_sub(rewritten.days.saturating_mul(86_400));
        let then = self.as_rewritten(rewritten, trail.at()).await?;
        trail.call().go_on()?;
        let mut replay =
            Replay { engine: self, now: self.access.get(), then, keys: HashMap::new() };
        let mut replayed = Replayed::default();
        let filter = Filter { since: Some(since), ..Filter::default() };
        let mut search = Search { from: None, limit: MAX_PAGE_LEN, newest_first: true, filter };
        let mut looked_at = 0;
        loop {
            let found = self.archive()?.search(search.clone()).await;
            let found = found.map_err(Error::Unavailable)?;
            looked_at += found.entries.len();
            for entry in found.entries {
                replay.take(entry, &mut replayed).await?;
            }
            match found.next {
                Some(_) if looked_at >= MAX_RECORDS => {
                    replayed.is_cut = true;
                    return Ok(replayed);
                }
                Some(next) => search.from = Some(next),
                None => return Ok(replayed),
            }
            // Others get their turn, and so does the deadline.
            tokio::task::yield_now().await;
        }
    }

    /// The snapshot as it would be.
    async fn as_rewritten(&self, rewritten: Rewritten, now: Timestamp) -> Result<Access, Error> {
        let (path, record) = match rewritten.of {
            PolicyOf::Policy(name) => {
                let path = RecordPath::from_stored(format!("{}/{name}", Policy::WORD));
                if rewritten.text.is_none() && self.read_one::<Policy>(&path).await?.is_none() {
                    return Err(Error::invalid("policy", "there is none that could be removed"));
                }
                let record = rewritten.text.map(|text| {
                    let (version, changed_by) = (0, String::new());
                    Record::Policy(Policy { name, text, version, changed_at: now, changed_by })
                });
                (path, record)
            }
            PolicyOf::Role(name) => {
                let path = RecordPath::from_stored(format!("{}/{name}", Role::WORD));
                let role = self.read_one::<Role>(&path).await?;
                let (role, _) = role.ok_or_else(|| Error::invalid("role", "there is none"))?;
                let policy = rewritten.text.unwrap_or_default();
                (path, Some(Record::Role(Role { policy, ..role })))
            }
        };
        self.judge(&path, record).await
    }
}

/// A dry run.
struct Replay<'a> {
    engine: &'a Engine,
    now: Arc<Access>,
    then: Access,
    /// Keys as they are now.
    keys: HashMap<KeyId, Option<Arc<LoadedKey>>>,
}

impl Replay<'_> {
    async fn take(&mut self, entry: Entry, replayed: &mut Replayed) -> Result<(), Error> {
        let Some(past) = Past::of(&entry.record) else { return Ok(()) };
        replayed.calls += 1;
        let (mut key, mut tags) = (None, None);
        match &past.resource {
            Resource::Key(id) => key = self.key(*id).await?,
            Resource::Secret(name) => {
                tags = self.engine.stored_secret(name).await?.map(|stored| stored.item.tags);
            }
            Resource::Instance | Resource::Named(_, _) | Resource::SecretPath(_) => {}
        }
        let of_secret = tags.as_ref().map(|tags| KeyFacts { aliases: &[], tags });
        let facts = Facts {
            now: past.at,
            source: past.source,
            context: None,
            key: key.as_ref().map(|key| key.key.facts()).or(of_secret),
        };
        let (who, action, resource) = (&past.who, past.action, &past.resource);
        let question = Question { who, action, resource, facts: &facts };
        if self.now.policies.decide(&question).allowed != past.allowed {
            replayed.unjudged += 1;
            return Ok(());
        }
        let Decision { allowed, why } = self.then.policies.decide(&question);
        if allowed == past.allowed {
            return Ok(());
        }
        if past.has_context && self.then.policies.reads_encryption_context(&question) {
            replayed.unjudged += 1;
            return Ok(());
        }
        match allowed {
            true => replayed.allowed += 1,
            false => replayed.refused += 1,
        }
        if replayed.changes.len() < MAX_SHOWN {
            let why = why.as_str().to_owned();
            replayed.changes.push(ChangedCall { entry, allowed, why });
        }
        Ok(())
    }

    async fn key(&mut self, id: KeyId) -> Result<Option<Arc<LoadedKey>>, Error> {
        if let Some(known) = self.keys.get(&id) {
            return Ok(known.clone());
        }
        let known = self.engine.known_key(id).await?;
        self.keys.insert(id, known.clone());
        Ok(known)
    }
}

/// A call that policy decided, as far as the log has it.
struct Past {
    who: Principal,
    action: &'static str,
    resource: Resource,
    at: Timestamp,
    source: Source,
    /// Whether there was an encryption context, of which the log has the hash.
    has_context: bool,
    allowed: bool,
}

impl Past {
    /// `None` for what no policy decided: logins, refused tokens, intents.
    fn of(record: &AuditRecord) -> Option<Self> {
        let text = |name| record.text(name);
        if text("phase") == Some("intent") || text("reason").is_none_or(str::is_empty) {
            return None;
        }
        let action = known_action(text("action")?).ok()?;
        let at = Timestamp(record.number("at")?);
        let role = text("role").map(str::to_owned);
        let who = principal(text("who")?.to_owned(), role, Vec::new(), at).ok()?;
        let address = text("from").and_then(|from| from.parse().ok());
        // What these make or end is named in the record; they are done to the installation.
        let is_of_instance = [CreateKey::NAME, RevokeSessions::NAME].contains(&action);
        let resource = match (text("key"), text("target")) {
            // The key beside it is the one that protects the secret.
            (_, Some(target)) if action.starts_with("secrets:") => secret(target)?,
            (Some(key), _) if !is_of_instance => Resource::Key(key.parse().ok()?),
            (None, Some(target)) if !is_of_instance => named(target),
            (Some(_) | None, Some(_) | None) => Resource::Instance,
        };
        Some(Self {
            who,
            action,
            resource,
            at,
            source: Source { address, by_node_agent: false },
            has_context: text("context_sha256").is_some(),
            allowed: text("result") != Some("AccessDenied"),
        })
    }
}

/// What a target of the log is to policy, for what is done to secrets.
fn secret(target: &str) -> Option<Resource> {
    let named = target.strip_prefix("secret/")?;
    let name = named.split_once('#').map_or(named, |(name, _)| name);
    if name.is_empty() {
        return Some(Resource::Instance);
    }
    if name.ends_with('/') {
        return SecretPath::parse(name).ok().map(Resource::SecretPath);
    }
    SecretName::parse(name).ok().map(Resource::Secret)
}

/// What a target of the log is to policy.
fn named(target: &str) -> Resource {
    let kind = |word: &str| match word {
        "cluster" => Some(ResourceKind::Cluster),
        "provider" => Some(ResourceKind::Provider),
        "role" => Some(ResourceKind::Role),
        "policy" => Some(ResourceKind::Policy),
        "user" => Some(ResourceKind::User),
        "node" => Some(ResourceKind::Node),
        "database" => Some(ResourceKind::Database),
        "database-role" => Some(ResourceKind::DatabaseRole),
        _ => None,
    };
    // What follows is a lease of the role.
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    let split = target.split_once('/');
    let found = split.and_then(|(word, name)| Some((kind(word)?, name.to_owned())));
    found.map_or(Resource::Instance, |(kind, name)| Resource::Named(kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_secrets_is_a_secret_a_path_or_all_of_them() {
        let name = |text| Some(Resource::Secret(SecretName::parse(text).unwrap()));
        assert_eq!((secret("secret/a/b#3"), secret("secret/a@5")), (name("a/b"), name("a@5")));
        let path = Resource::SecretPath(SecretPath::parse("a/b").unwrap());
        assert_eq!(secret("secret/a/b/"), Some(path));
        assert_eq!(secret("secret/"), Some(Resource::Instance));
        assert_eq!((secret("secret/a and 2 more"), secret("role/a")), (None, None));
    }

    #[test]
    fn a_target_of_databases_is_the_database_or_the_role() {
        let of = |kind, name: &str| Resource::Named(kind, name.to_owned());
        assert_eq!(named("database/shop"), of(ResourceKind::Database, "shop"));
        assert_eq!(named("database-role/app#0a"), of(ResourceKind::DatabaseRole, "app"));
        assert_eq!(named("witness/a"), Resource::Instance);
    }
}
