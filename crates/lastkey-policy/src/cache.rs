//! Decisions that hold until the policies change.
//!
//! Room      `policy`. Each set of policies has its own, so a new set starts empty.
//! Holds     a decision is kept only when no policy of its slice reads the context; what else it
//!           may depend on (who, action, thing, the key's names and tags) is the key, whole.

use core::hash::{Hash, Hasher};

use lastkey_core::ids::AliasName;
use lastkey_core::key::Tags;
use lastkey_core::permit::{Decision, KeyFacts, Question, Resource};
use lastkey_core::principal::Principal;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::actions::Action;

/// Decisions kept for one set of policies.
#[derive(Debug)]
pub(crate) struct Decisions(Cache<Kept, Decision>);

#[derive(Debug)]
struct Kept {
    who: Principal,
    action: Action,
    resource: Resource,
    names: Option<(Vec<AliasName>, Tags)>,
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    who: &'a Principal,
    action: Action,
    resource: &'a Resource,
    names: Option<KeyFacts<'a>>,
}

impl Decisions {
    /// None yet, and at most so many.
    pub(crate) fn new(kept: usize) -> Self {
        Self(Cache::new(kept))
    }

    /// The decision, if it was made before.
    pub(crate) fn find(&self, question: &Question<'_>, action: Action) -> Option<Decision> {
        self.0.get(&Asked::of(question, action))
    }

    /// Keeps a decision.
    pub(crate) fn keep(&self, question: &Question<'_>, action: Action, decision: Decision) {
        let names = question.facts.key.map(|key| (key.aliases.to_vec(), key.tags.clone()));
        let (who, resource) = (question.who.clone(), question.resource.clone());
        self.0.insert(Kept { who, action, resource, names }, decision);
    }
}

impl<'a> Asked<'a> {
    fn of(question: &Question<'a>, action: Action) -> Self {
        Self { who: question.who, action, resource: question.resource, names: question.facts.key }
    }
}

/// Everything that was verified is the same: two callers of one session may differ in what they
/// narrowed it to, and callers without a session in their groups.
fn same(asked: &Principal, kept: &Principal) -> bool {
    let (asked, kept) = (asked.identity(), kept.identity());
    core::ptr::eq(asked, kept) || asked == kept
}

// The names and tags are left out of the hash: they seldom differ for one key, and are compared.
fn hash_of(state: &mut impl Hasher, who: &Principal, action: Action, resource: &Resource) {
    // An id of a session is drawn for one caller; who has none is told apart by his name.
    match who.session() {
        Some(session) => session.id.hash(state),
        None => who.name().hash(state),
    }
    action.hash(state);
    resource.hash(state);
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_of(state, &self.who, self.action, &self.resource);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_of(state, self.who, self.action, self.resource);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        let names = self.names.as_ref().map(|(aliases, tags)| KeyFacts { aliases, tags });
        let asked = Asked { who: &self.who, action: self.action, resource: &self.resource, names };
        asked.equivalent(other)
    }
}

impl Eq for Kept {}

impl Equivalent<Kept> for Asked<'_> {
    fn equivalent(&self, kept: &Kept) -> bool {
        let names = match (&self.names, &kept.names) {
            (None, None) => true,
            (Some(asked), Some((aliases, tags))) => {
                asked.aliases == aliases.as_slice() && asked.tags == tags
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        names
            && self.action == kept.action
            && self.resource == &kept.resource
            && same(self.who, &kept.who)
    }
}
