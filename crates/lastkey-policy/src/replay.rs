//! A dry run: what a new set of policies would have said to calls that were made.
//!
//! Room      `policy`.

use lastkey_core::ids::AliasName;
use lastkey_core::key::Tags;
use lastkey_core::permit::{DecisionPoint, Facts, KeyFacts, Question, Resource};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;

use crate::actions::Action;
use crate::set::PolicySet;

/// A call that was made and decided.
#[derive(Clone, Debug)]
pub struct PastCall {
    /// Who called.
    pub who: Principal,
    /// The action, by its name.
    pub action: String,
    /// What it was done to.
    pub resource: Resource,
    /// When, by the wall clock.
    pub now: Timestamp,
    /// From where.
    pub source: Source,
    /// The encryption context, if the action took one.
    pub context: Option<EncryptionContext>,
    /// Aliases and tags of the key, if it was about one that existed.
    pub key: Option<(Vec<AliasName>, Tags)>,
    /// What was decided.
    pub allowed: bool,
}

/// A call that would be decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place among the calls, from 0.
    pub call: usize,
    /// What would be decided; before it was the contrary.
    pub allowed: bool,
    /// By which policies, in words.
    pub why: String,
}

impl PolicySet {
    /// The calls that this set decides otherwise than they were decided.
    #[must_use]
    pub fn replay(&self, calls: &[PastCall]) -> Vec<Change> {
        let changes = calls.iter().enumerate().filter_map(|(call, past)| self.changes(call, past));
        changes.collect()
    }

    fn changes(&self, call: usize, past: &PastCall) -> Option<Change> {
        let Some(known) = Action::parse(&past.action).and_then(Action::known) else {
            let why = "there is no such action any more".to_owned();
            return past.allowed.then_some(Change { call, allowed: false, why });
        };
        let key = past.key.as_ref().map(|(aliases, tags)| KeyFacts { aliases, tags });
        let facts =
            Facts { now: past.now, source: past.source, context: past.context.as_ref(), key };
        let (who, resource) = (&past.who, &past.resource);
        let decision = self.decide(&Question { who, action: known.name, resource, facts: &facts });
        let (allowed, why) = (decision.allowed, decision.why.as_str().to_owned());
        (allowed != past.allowed).then_some(Change { call, allowed, why })
    }
}
