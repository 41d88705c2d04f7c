//! Posture: whether a cluster keeps its keys and Secrets well.
//!
//! Room      `checks`. A [`Snapshot`] comes in, an [`Outcome`] goes out; one file for each family.
//! Holds     A check that saw nothing it could judge cannot tell: [`State::Pass`] is given only by
//!           a line of code that looked and found it right, and never beside a doubt.

mod catalogue;
mod control_plane;
mod encryption;
mod mlps;
mod network;
mod nodes;
mod patch;
mod pods;
pub mod policy;
mod rbac;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    finding::{Finding, Fingerprinter, Location, Severity},
    report::{Figure, NotChecked, RuleInfo},
    snapshot::{
        Snapshot,
        component::{Component, components},
        object::Place,
        pod::{PodView, pods as pods_of},
    },
};

pub use self::{
    catalogue::{CHECKS, Check, MLPS, Needs, check},
    mlps::{Clause, clauses},
};

/// What the checks have to know beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It looked, and it is right.
    Pass,
    /// There are findings.
    Fail,
    /// It does not concern what was given.
    NotApplicable,
    /// Something it needs was not given; never counted as right.
    CannotTell,
}

impl State {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotApplicable => "not applicable",
            Self::CannotTell => "cannot tell",
        }
    }
}

/// What the checks say about a snapshot.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be judged, and why.
    pub not_checked: Vec<NotChecked>,
    /// The state of every check.
    pub states: BTreeMap<&'static str, State>,
}

impl Outcome {
    /// Checks by their end, for the sum of a report.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let states = [State::Pass, State::Fail, State::NotApplicable, State::CannotTell];
        let count = |state| self.states.values().filter(|known| **known == state).count();
        states
            .into_iter()
            .map(|state| Figure::new(format!("checks: {}", state.name()), count(state) as u64))
            .collect()
    }
}

/// All checks, as reports explain them.
#[must_use]
pub fn rules() -> Vec<RuleInfo> {
    CHECKS.iter().map(Check::rule).collect()
}

/// Applies all checks.
#[must_use]
pub fn judge(snapshot: &Snapshot, settings: Settings) -> Outcome {
    let world =
        World { snapshot, pods: pods_of(snapshot), components: components(snapshot), settings };
    let mut judge = Judge { is_live: snapshot.origin.live, ..Judge::default() };
    encryption::judge(&world, &mut judge);
    control_plane::judge(&world, &mut judge);
    rbac::judge(&world, &mut judge);
    pods::judge(&world, &mut judge);
    network::judge(&world, &mut judge);
    nodes::judge(&world, &mut judge);
    judge.unreadable(snapshot);
    judge.outcome()
}

/// What every family looks at.
struct World<'a> {
    snapshot: &'a Snapshot,
    pods: Vec<PodView<'a>>,
    components: Vec<Component>,
    settings: Settings,
}

impl World<'_> {
    fn component(&self, name: &str) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(move |component| component.name == name)
    }
}

/// Something wrong, before it is a finding.
struct Fault {
    subject: String,
    place: Place,
    title: String,
    evidence: String,
    /// What makes it another one than its neighbours; no line numbers.
    detail: String,
    severity: Option<Severity>,
    fix: Option<String>,
}

impl Fault {
    fn new(subject: impl Into<String>, place: Place, title: impl Into<String>) -> Self {
        let title = title.into();
        Self {
            subject: subject.into(),
            place,
            evidence: title.clone(),
            detail: title.clone(),
            title,
            severity: None,
            fix: None,
        }
    }

    fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Collects verdicts.
#[derive(Default)]
struct Judge {
    findings: Vec<Finding>,
    passed: BTreeSet<&'static str>,
    moot: BTreeSet<&'static str>,
    unknown: Vec<NotChecked>,
    /// A cluster was asked for all that it has.
    is_live: bool,
}

impl Judge {
    /// It was looked at and is right, as far as this part goes.
    fn pass(&mut self, id: &'static str) {
        self.passed.insert(id);
    }

    /// Nothing here is of the kind it judges, and nothing has to be.
    fn moot(&mut self, id: &'static str) {
        self.moot.insert(id);
    }

    /// A part could not be judged.
    fn unknown(&mut self, id: &'static str, subject: impl Into<String>, reason: impl Into<String>) {
        let gap = NotChecked {
            rule: Some(id.to_owned()),
            subject: subject.into(),
            reason: reason.into(),
        };
        if !self.unknown.contains(&gap) {
            self.unknown.push(gap);
        }
    }

    /// It is wrong.
    fn fail(&mut self, id: &'static str, fault: Fault) {
        let Some(check) = check(id) else { return };
        let parts = [id.as_bytes(), fault.subject.as_bytes(), fault.detail.as_bytes()];
        let fingerprint = Fingerprinter::unkeyed().of(&parts);
        self.findings.push(Finding {
            rule: id.to_owned(),
            severity: fault.severity.unwrap_or(check.severity),
            title: fault.title,
            subject: Some(fault.subject),
            evidence: fault.evidence,
            location: Location {
                path: fault.place.path.to_string(),
                line: fault.place.line.into(),
                column: fault.place.column.into(),
                end_line: fault.place.line.into(),
                end_column: 0,
            },
            fingerprint,
            why: Cow::Borrowed(check.why),
            fix: fault.fix.map_or(Cow::Borrowed(check.fix), Cow::Owned),
            mappings: check.mappings(),
        });
    }

    /// Passes or fails by one condition.
    fn hold(&mut self, id: &'static str, is_right: bool, fault: impl FnOnce() -> Fault) {
        if is_right { self.pass(id) } else { self.fail(id, fault()) }
    }

    /// What could not be read leaves a doubt for all checks.
    fn unreadable(&mut self, snapshot: &Snapshot) {
        for unreadable in &snapshot.unreadable {
            let subject = unreadable.place.to_string();
            self.unknown.push(NotChecked {
                rule: None,
                subject,
                reason: unreadable.reason.clone(),
            });
        }
        for withheld in &snapshot.withheld {
            for id in withheld.checks {
                self.unknown(id, &withheld.subject, &withheld.reason);
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let failed: BTreeSet<&str> = self.findings.iter().map(|f| f.rule.as_str()).collect();
        let doubted: BTreeSet<String> =
            self.unknown.iter().filter_map(|gap| gap.rule.clone()).collect();
        let mut states = BTreeMap::new();
        for check in CHECKS {
            let state = if failed.contains(check.id) {
                State::Fail
            } else if doubted.contains(check.id) {
                State::CannotTell
            } else if self.passed.contains(check.id) {
                State::Pass
            } else if self.moot.contains(check.id) || (self.is_live && check.needs.is_listed()) {
                State::NotApplicable
            } else {
                let (subject, reason) = (check.title.to_owned(), check.needs.missing());
                let rule = Some(check.id.to_owned());
                self.unknown.push(NotChecked { rule, subject, reason });
                State::CannotTell
            };
            states.insert(check.id, state);
        }
        Outcome { findings: self.findings, not_checked: self.unknown, states }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKS, Judge, Settings, State, judge};
    use crate::snapshot::Snapshot;

    #[test]
    fn nothing_given_is_never_a_pass() {
        let outcome = judge(&Snapshot::default(), Settings { now: 0 });
        assert!(outcome.findings.is_empty());
        for (id, state) in &outcome.states {
            assert_eq!(*state, State::CannotTell, "{id}");
        }
        assert_eq!(outcome.not_checked.len(), CHECKS.len());
    }

    #[test]
    fn a_doubt_beside_a_pass_is_a_doubt() {
        let mut judge = Judge::default();
        judge.pass("ENC-01");
        judge.unknown("ENC-01", "x", "y");
        assert_eq!(judge.outcome().states["ENC-01"], State::CannotTell);
    }
}
