//! Scopes as numbers, and the index that finds the policies whose scope matches.
//!
//! Room      `policy`.
//! Holds     [`Index::slice`] gives exactly the policies whose scope matches the call: who, which
//!           action and what, the conditions left out of account.

use std::collections::HashMap;

use cedar_policy_core::ast::{
    EntityReference, Policy, PrincipalOrResourceConstraint as Constraint,
};

use crate::actions::{Action, Actions};
use crate::names::{Thing, Type};

/// Number of a thing that some scope names.
pub(crate) type Number = u32;

/// Numbers for the things that scopes name.
#[derive(Debug, Default)]
pub(crate) struct Register(HashMap<Thing, Number>);

impl Register {
    fn number(&mut self, thing: Thing) -> Number {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(thing).or_insert(next)
    }

    /// The number of a thing, if a scope names it.
    pub(crate) fn find(&self, thing: &Thing) -> Option<Number> {
        self.0.get(thing).copied()
    }
}

/// One side of a scope: who, or what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Types that match, a bit for each.
    kinds: u32,
    /// The thing that must be it or above it.
    named: Option<Number>,
    /// It must be the thing itself.
    itself: bool,
}

impl Side {
    /// Reads a constraint. One that names a type outside the schema matches nothing: neither a
    /// caller nor a thing is of such a type or in something of it.
    fn of(constraint: &Constraint, register: &mut Register) -> Self {
        let (kind, named, itself) = match constraint {
            Constraint::Any => (None, None, false),
            Constraint::In(it) => (None, Some(it), false),
            Constraint::Eq(it) => (None, Some(it), true),
            Constraint::Is(kind) => (Some(kind), None, false),
            Constraint::IsIn(kind, it) => (Some(kind), Some(it), false),
        };
        let kinds =
            kind.map_or(u32::MAX, |kind| Type::parse(&kind.to_string()).map_or(0, Type::bit));
        let thing = named.map(|reference| match reference {
            EntityReference::EUID(uid) => Thing::of(uid),
            EntityReference::Slot(_) => None,
        });
        match thing {
            None => Self { kinds, named: None, itself },
            Some(Some(thing)) => Self { kinds, named: Some(register.number(thing)), itself },
            Some(None) => Self { kinds: 0, named: None, itself },
        }
    }

    /// Whether whatever matches the other matches this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let kinds = other.kinds & !self.kinds == 0;
        let named =
            self.named.is_none() || (self.named == other.named && (!self.itself || other.itself));
        kinds && named
    }

    /// Whether a thing matches.
    pub(crate) fn matches(&self, place: &Place) -> bool {
        let kind = self.kinds & place.kind.bit() != 0;
        kind && self.named.is_none_or(|named| {
            if self.itself { place.itself == Some(named) } else { place.chain.contains(&named) }
        })
    }
}

/// Where a caller or a thing stands, in the numbers of one register.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    kind: Type,
    itself: Option<Number>,
    /// It and what is above it, as far as scopes name them.
    chain: Vec<Number>,
}

impl Place {
    /// The place of `thing` below `above`.
    pub(crate) fn of(thing: &Thing, above: &[Thing], register: &Register) -> Self {
        let itself = register.find(thing);
        let above = above.iter().filter_map(|thing| register.find(thing));
        let mut chain: Vec<Number> = itself.into_iter().chain(above).collect();
        // INVARIANT: no number twice, or a policy would be in a slice twice.
        chain.sort_unstable();
        chain.dedup();
        Self { kind: thing.kind, itself, chain }
    }
}

/// The scope of one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Who.
    pub(crate) who: Side,
    /// Which actions.
    pub(crate) actions: Actions,
    /// What.
    pub(crate) what: Side,
}

impl Scope {
    /// The scope of a policy.
    pub(crate) fn of(policy: &Policy, register: &mut Register) -> Self {
        Self {
            who: Side::of(policy.principal_constraint().as_inner(), register),
            actions: Actions::of(policy.action_constraint()),
            what: Side::of(policy.resource_constraint().as_inner(), register),
        }
    }
}

/// Which policies a call concerns.
#[derive(Debug, Default)]
pub(crate) struct Index {
    scopes: Vec<Scope>,
    // By the thing that the resource side names, then by the one that the principal side names.
    buckets: HashMap<Option<Number>, HashMap<Option<Number>, Vec<u32>>>,
}

impl Index {
    /// Adds the next policy.
    pub(crate) fn push(&mut self, scope: Scope) {
        let number = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX);
        self.scopes.push(scope);
        let by_who = self.buckets.entry(scope.what.named).or_default();
        by_who.entry(scope.who.named).or_default().push(number);
    }

    /// The scope of policy `number`.
    pub(crate) fn scope(&self, number: u32) -> Option<&Scope> {
        self.scopes.get(usize::try_from(number).ok()?)
    }

    /// The policies whose scope matches, in no order.
    pub(crate) fn slice(&self, who: &Place, action: Action, what: &Place) -> Vec<u32> {
        let mut found = Vec::new();
        for by_who in keys(what).filter_map(|named| self.buckets.get(&named)) {
            for bucket in keys(who).filter_map(|named| by_who.get(&named)) {
                found.extend(bucket.iter().filter(|number| {
                    self.scope(**number).is_some_and(|scope| {
                        scope.actions.has(action)
                            && scope.who.matches(who)
                            && scope.what.matches(what)
                    })
                }));
            }
        }
        found
    }

    /// The policies about this caller and action, whatever it is done to.
    pub(crate) fn of_caller(&self, who: &Place, action: Action) -> impl Iterator<Item = u32> {
        let all = self.scopes.iter().zip(0_u32..);
        all.filter(move |(scope, _)| scope.actions.has(action) && scope.who.matches(who))
            .map(|(_, number)| number)
    }

    /// The policies about this action on this thing, whoever asks, in order.
    pub(crate) fn about(&self, action: Action, what: &Place) -> Vec<u32> {
        let about = |scope: &Scope| scope.actions.has(action) && scope.what.matches(what);
        let all = self.scopes.iter().zip(0_u32..);
        all.filter(|(scope, _)| about(scope)).map(|(_, number)| number).collect()
    }
}

fn keys(place: &Place) -> impl Iterator<Item = Option<Number>> {
    core::iter::once(None).chain(place.chain.iter().copied().map(Some))
}
