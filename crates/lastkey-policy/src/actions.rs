//! Actions as numbers: one bit for each, so that a scope's actions are one word.
//!
//! Room      `policy`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{ActionConstraint, Entity, EntityUID};
use lastkey_core::permit::ALL_ACTIONS;

use crate::names::{Type, VALIDATOR};

/// One action of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Action(u8);

/// A set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actions(u128);

impl Actions {
    /// Whether the action is one of them.
    pub(crate) const fn has(self, action: Action) -> bool {
        self.0 >> action.0 & 1 == 1
    }

    /// The actions of a scope: those named and those in a group that is named.
    pub(crate) fn of(constraint: &ActionConstraint) -> Self {
        match constraint {
            ActionConstraint::Any => Self(u128::MAX),
            ActionConstraint::In(uids) => Self::where_any(uids, |known, uid| known.is_in(uid)),
            ActionConstraint::Eq(uid) => {
                Self::where_any(core::slice::from_ref(uid), |known, uid| *known.uid == *uid)
            }
        }
    }

    fn where_any(uids: &[Arc<EntityUID>], hit: impl Fn(&Known, &EntityUID) -> bool) -> Self {
        let bits = KNOWN.iter().enumerate().filter(|(_, known)| uids.iter().any(|u| hit(known, u)));
        Self(bits.fold(0, |all, (bit, _)| all | 1 << bit))
    }

    /// Their names.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all = KNOWN.iter().enumerate();
        all.filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, known)| known.name).collect()
    }
}

/// What the schema says of one action.
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: &'static str,
    /// Cedar's name.
    pub(crate) uid: Arc<EntityUID>,
    /// It and the groups that it is in, for the evaluator.
    pub(crate) entity: Arc<Entity>,
    /// Types of the things that it is done to, a bit for each.
    done_to: u32,
}

impl Known {
    fn is_in(&self, uid: &EntityUID) -> bool {
        *self.uid == *uid || self.entity.is_descendant_of(uid)
    }
}

// The place in this list is the number of the action.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let known = ALL_ACTIONS.iter().filter_map(|(name, _)| known(name)).collect::<Vec<_>>();
    if known.len() == ALL_ACTIONS.len() && known.len() <= 128 { known } else { Vec::new() }
});

static NUMBERS: LazyLock<HashMap<&'static str, Action>> = LazyLock::new(|| {
    let numbered = KNOWN.iter().zip(0_u8..);
    numbered.map(|(known, number)| (known.name, Action(number))).collect()
});

fn known(name: &'static str) -> Option<Known> {
    let schema = VALIDATOR.as_ref()?.schema();
    let entities = schema.action_entities().ok()?;
    let entity = entities.iter().find(|entity| {
        let eid: &str = entity.uid().eid().as_ref();
        eid == name
    })?;
    let takes = schema.get_action_id(entity.uid())?;
    let bit =
        |kind: &&Type| kind.cedar().is_some_and(|cedar| takes.is_applicable_resource_type(cedar));
    let done_to = Type::ALL.iter().filter(bit).fold(0, |all, kind| all | kind.bit());
    Some(Known {
        name,
        uid: Arc::new(entity.uid().clone()),
        entity: Arc::new(entity.clone()),
        done_to,
    })
}

impl Action {
    /// The action of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        NUMBERS.get(name).copied()
    }

    /// What the schema says of it.
    pub(crate) fn known(self) -> Option<&'static Known> {
        KNOWN.get(usize::from(self.0))
    }

    /// Whether it is done to things of this type.
    pub(crate) fn is_done_to(self, kind: Type) -> bool {
        self.known().is_some_and(|known| known.done_to & kind.bit() != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_the_core_is_in_the_schema_and_no_other() {
        let schema = VALIDATOR.as_ref().unwrap().schema();
        for (name, _) in ALL_ACTIONS {
            assert!(Action::parse(name).is_some(), "{name}");
        }
        let leaves = schema.actions().filter(|uid| {
            schema.get_action_id(uid).is_some_and(|id| id.applies_to_principals().next().is_some())
        });
        assert_eq!(leaves.count(), ALL_ACTIONS.len());
    }

    #[test]
    fn the_administrators_share_no_action() {
        let of = |group: &str| {
            let uid = EntityUID::with_eid_and_type("Action", group).unwrap();
            Actions::of(&ActionConstraint::In(vec![Arc::new(uid)])).0
        };
        let groups = [
            "admin:System",
            "admin:Security",
            "admin:Audit",
            "kms:Use",
            "kms:Due",
            "secrets:Use",
            "secrets:Due",
        ]
        .map(of);
        assert!(groups.iter().all(|group| *group != 0));
        let sum: u32 = groups.iter().map(|group| group.count_ones()).sum();
        assert_eq!(groups.iter().fold(0, |all, group| all | group).count_ones(), sum);
        assert_eq!(sum as usize, ALL_ACTIONS.len());
    }
}
