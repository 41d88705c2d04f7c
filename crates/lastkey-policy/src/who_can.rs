//! Who can do this to that: the policies about it, without a caller.
//!
//! Room      `policy`.
//! Holds     nobody may who is in no [`Answer`] of `may`, and somebody in an unconditional one
//!           may unless an answer of `may_not` is about him too.

use cedar_policy_core::ast::{
    EntityReference, Expr, PartialValue, PrincipalOrResourceConstraint as Constraint,
};
use lastkey_core::permit::{KeyFacts, Resource};
use lastkey_core::principal::Principal;

use crate::actions::Action;
use crate::entities::{Call, Standing};
use crate::names::{Thing, Type};
use crate::scope::Side;
use crate::set::{PolicySet, Rule};
use crate::words;

/// Everybody who may do something to a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhoCan {
    /// Those whom a policy permits it.
    pub may: Vec<Answer>,
    /// Those whom a policy forbids it, permitted or not.
    pub may_not: Vec<Answer>,
}

/// What one policy says about an action on a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The policy, `DOCUMENT#LABEL`.
    pub policy: String,
    /// Whom it is about, in words.
    pub who: String,
    /// What must hold of the caller and the call, in words; what is known to hold of the thing is
    /// left out.
    pub conditions: Vec<String>,
    pub(crate) side: Side,
    /// Whether it is about the server itself, such as `system:scheduler`.
    pub(crate) is_the_server: bool,
}

/// What the conditions of a policy come to when only the action and the thing are known.
pub(crate) enum Outlook {
    /// They hold.
    Always,
    /// They do not hold, whoever calls.
    Never,
    /// It depends on this.
    Sometimes(Expr),
    /// They cannot be evaluated, which denies.
    Fault,
}

impl PolicySet {
    /// Who can do this to that. What somebody may do to himself because of the groups he is in is
    /// not told. Nobody can do what is no action, or is not done to such a thing.
    #[must_use]
    pub fn who_can(&self, action: &str, resource: &Resource, key: Option<KeyFacts<'_>>) -> WhoCan {
        self.answers(action, resource, key).unwrap_or_default()
    }

    /// Whether anybody at all can, in some circumstances, the server itself aside. Ask before a
    /// change that might leave a key with nobody.
    #[must_use]
    pub fn leaves_somebody(
        &self,
        action: &str,
        resource: &Resource,
        key: Option<KeyFacts<'_>>,
    ) -> bool {
        let WhoCan { may, may_not } = self.who_can(action, resource, key);
        let barred = |answer: &Answer| {
            let always = may_not.iter().filter(|bar| bar.conditions.is_empty());
            always.clone().any(|bar| bar.side.covers(&answer.side))
        };
        may.iter().any(|answer| !answer.is_the_server && !barred(answer))
    }

    /// Whether one of these callers could still change policies, in some circumstances. A change
    /// after which none could is refused.
    #[must_use]
    pub fn leaves_an_administrator(&self, candidates: &[Principal]) -> bool {
        candidates.iter().any(|who| self.could(who, "iam:UpdatePolicy", &ANY_POLICY) == Some(true))
    }

    /// Whether a policy permits a caller to do this to anything at all, conditions and what forbids
    /// it left out of account. Ask before work that a no would make useless.
    #[must_use]
    pub fn permits_somewhere(&self, who: &Principal, action: &str) -> bool {
        let asked = Action::parse(action).zip(Standing::of_caller(who));
        asked.is_some_and(|(action, who)| {
            let who = who.place(&self.register);
            let mut rules = self.index.of_caller(&who, action).filter_map(|one| self.rule(one));
            rules.any(|rule| !rule.forbids)
        })
    }

    /// Whether policies leave room for a yes; `None` when the question cannot be put.
    fn could(&self, who: &Principal, action: &str, resource: &Resource) -> Option<bool> {
        let (action, who) = (Action::parse(action)?, Standing::of_caller(who)?);
        let what = Standing::of_resource(resource, None)?;
        let slice =
            self.index.slice(&who.place(&self.register), action, &what.place(&self.register));
        let call = Call::whenever(Some(&who), action.known()?, &what)?;
        let mut could = false;
        for rule in slice.iter().filter_map(|number| self.rule(*number)) {
            match (rule.outlook(&call), rule.forbids) {
                (Outlook::Always, true) | (Outlook::Fault, true | false) => return Some(false),
                (Outlook::Always | Outlook::Sometimes(_), false) => could = true,
                (Outlook::Sometimes(_), true) | (Outlook::Never, true | false) => {}
            }
        }
        Some(could)
    }

    fn answers(
        &self,
        action: &str,
        resource: &Resource,
        key: Option<KeyFacts<'_>>,
    ) -> Option<WhoCan> {
        let action = Action::parse(action)?;
        let what = Standing::of_resource(resource, key)?;
        if !action.is_done_to(what.thing.kind) {
            return None;
        }
        let call = Call::whenever(None, action.known()?, &what)?;
        let mut all = WhoCan::default();
        for number in self.index.about(action, &what.place(&self.register)) {
            let (rule, scope) = (self.rule(number)?, self.index.scope(number)?);
            let (conditions, denies) = match rule.outlook(&call) {
                Outlook::Never => continue,
                Outlook::Always => (Vec::new(), rule.forbids),
                Outlook::Sometimes(rest) => (rest_in_words(&rest), rule.forbids),
                Outlook::Fault => (Vec::new(), true),
            };
            let constraint = rule.policy.principal_constraint();
            let who = words::side(constraint.as_inner(), "anybody");
            let is_the_server = names_the_server(constraint.as_inner());
            let (policy, side) = (rule.id.clone(), scope.who);
            let answer = Answer { policy, who, conditions, side, is_the_server };
            if denies { all.may_not.push(answer) } else { all.may.push(answer) }
        }
        Some(all)
    }
}

// No policy can have the empty name, so no scope can mean this one alone.
const ANY_POLICY: Resource =
    Resource::Named(lastkey_core::permit::ResourceKind::Policy, String::new());

/// Whether a scope is about the server itself and nobody else.
pub(crate) fn names_the_server(who: &Constraint) -> bool {
    let Constraint::Eq(EntityReference::EUID(uid)) = who else { return false };
    let thing = Thing::of(uid);
    thing.is_some_and(|it| it.kind == Type::Service && it.name.starts_with("system:"))
}

fn rest_in_words(rest: &Expr) -> Vec<String> {
    words::parts(rest).into_iter().map(words::say).collect()
}

impl Rule {
    /// What its conditions come to in a call of which not everything is known.
    pub(crate) fn outlook(&self, call: &Call) -> Outlook {
        let Some(condition) = self.policy.non_scope_constraints() else { return Outlook::Always };
        match call.evaluator().partial_interpret(condition, self.policy.env()) {
            Err(_) => Outlook::Fault,
            Ok(PartialValue::Residual(rest)) => Outlook::Sometimes(rest),
            Ok(PartialValue::Value(value)) => match crate::set::truth(&value) {
                Ok(true) => Outlook::Always,
                Ok(false) => Outlook::Never,
                Err(_) => Outlook::Fault,
            },
        }
    }
}
