//! GB/T 22239-2019, level 3: which clause is answered by which checks.
//!
//! Room      `checks`.
//! Source    GB/T 22239-2019, 8.1. The titles are ours; whether a clause is met as a whole is an
//!           assessor's word, so a clause passes here only as far as its checks go.

use std::collections::BTreeMap;

use super::{CHECKS, MLPS, State};

/// One clause and how its checks ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Its number.
    pub number: &'static str,
    /// What it asks for.
    pub title: &'static str,
    /// The worst of its checks.
    pub state: State,
    /// Its checks with their states.
    pub checks: Vec<(&'static str, State)>,
}

const CLAUSES: &[(&str, &str)] = &[
    ("8.1.2.1", "network structure"),
    ("8.1.2.2", "protection of data on the way"),
    ("8.1.3.2", "control of access at the border"),
    ("8.1.4.1", "proof of identity"),
    ("8.1.4.2", "control of access"),
    ("8.1.4.3", "security audit"),
    ("8.1.4.8", "confidentiality of data"),
    ("8.1.4.10", "protection of what is left over"),
    ("8.1.10.9", "management of keys"),
];

/// The clauses of level 3 that the checks speak about.
#[must_use]
pub fn clauses(states: &BTreeMap<&'static str, State>) -> Vec<Clause> {
    CLAUSES
        .iter()
        .map(|(number, title)| {
            let concerned = CHECKS.iter().filter(|check| {
                check.mappings().iter().any(|m| m.list == MLPS && m.item == *number)
            });
            let checks: Vec<(&str, State)> = concerned
                .map(|check| (check.id, states.get(check.id).copied().unwrap_or(State::CannotTell)))
                .collect();
            Clause { number, title, state: worst(&checks), checks }
        })
        .collect()
}

/// One failure fails the clause, one doubt leaves it open.
fn worst(checks: &[(&str, State)]) -> State {
    let has = |state| checks.iter().any(|(_, known)| *known == state);
    [State::Fail, State::CannotTell, State::Pass]
        .into_iter()
        .find(|state| has(*state))
        .unwrap_or(State::NotApplicable)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{CHECKS, CLAUSES, MLPS, State, clauses};

    #[test]
    fn every_clause_that_a_check_names_is_here_and_has_checks() {
        let mappings = CHECKS.iter().flat_map(|check| check.mappings());
        let named: BTreeSet<String> =
            mappings.filter(|m| m.list == MLPS).map(|m| m.item.into_owned()).collect();
        let known: BTreeSet<String> =
            CLAUSES.iter().map(|(number, _)| (*number).to_owned()).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn one_failure_fails_the_clause_and_a_doubt_leaves_it_open() {
        let mut states: BTreeMap<&str, State> =
            CHECKS.iter().map(|check| (check.id, State::Pass)).collect();
        assert!(clauses(&states).iter().all(|clause| clause.state == State::Pass));
        states.insert("API-05", State::CannotTell);
        let audit =
            |states: &_| clauses(states).into_iter().find(|c| c.number == "8.1.4.3").unwrap();
        assert_eq!(audit(&states).state, State::CannotTell);
        states.insert("API-06", State::Fail);
        assert_eq!(audit(&states).state, State::Fail);
    }
}
