//! Why a call is allowed or refused, in words.
//!
//! Room      `policy`. Slower than a decision, and says more: not for callers, but for those who
//!           may read policies.

use core::fmt;

use lastkey_core::permit::{DecisionPoint, Question};

use crate::actions::Action;
use crate::entities::Standing;
use crate::scope::Scope;
use crate::set::{PolicySet, Rule, Verdict, call, narrowing_of};
use crate::who_can::names_the_server;
use crate::words;

/// A decision and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Yes or no: the same as the decision's.
    pub allowed: bool,
    /// The decision's own words.
    pub why: String,
    /// The policies that decided: the forbids that held, else the permits that held.
    pub by: Vec<String>,
    /// The policies that could not be evaluated, with the fault.
    pub faults: Vec<String>,
    /// Permits that nearly held, nearest first; empty when the call is allowed or forbidden.
    pub misses: Vec<NearMiss>,
}

/// A permit that nearly held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The policy, `DOCUMENT#LABEL`; those of the session's own policy begin with `session#`.
    pub policy: String,
    /// What did not hold, in words.
    pub failed: String,
}

/// How many near misses are told.
const TOLD: usize = 5;

impl PolicySet {
    /// Decides the question and tells how.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let decision = self.decide(question);
        let bare = Explanation {
            allowed: decision.allowed,
            why: decision.why.as_str().to_owned(),
            by: Vec::new(),
            faults: Vec::new(),
            misses: Vec::new(),
        };
        let Some(action) = Action::parse(question.action) else { return bare };
        let verdict = self.judge(question, action);
        if !verdict.allowed || decision.allowed {
            return self.told(bare, question, action, &verdict);
        }
        // The policies allow it: the session's own policy does not.
        match narrowing_of(question).and_then(|text| self.narrowing(text)) {
            Some(own) => own.told(bare, question, action, &own.judge(question, action)),
            None => bare,
        }
    }

    fn told(
        &self,
        bare: Explanation,
        question: &Question<'_>,
        action: Action,
        verdict: &Verdict,
    ) -> Explanation {
        let by =
            verdict.by.iter().filter_map(|number| Some(self.rule(*number)?.id.clone())).collect();
        let fault =
            |(number, fault): &(u32, String)| Some(format!("{}: {fault}", self.rule(*number)?.id));
        let faults: Vec<_> = verdict.faults.iter().filter_map(fault).collect();
        let default = !verdict.allowed && verdict.by.is_empty() && faults.is_empty();
        let misses = if default && verdict.refused.is_none() {
            self.misses(question, action).unwrap_or_default()
        } else {
            Vec::new()
        };
        Explanation { by, faults, misses, ..bare }
    }

    fn misses(&self, question: &Question<'_>, action: Action) -> Option<Vec<NearMiss>> {
        let caller = self.caller(question)?;
        let what = Standing::of_resource(question.resource, question.facts.key)?;
        let place = what.place(&self.register);
        let call = call(question, action, (&caller.standing, &what), crate::needs::Needs::ALL)?;
        let (mut conditions, mut scopes) = (Vec::new(), Vec::new());
        let permits = self.rules.iter().zip(0_u32..).filter(|(rule, _)| !rule.forbids);
        for (rule, number) in permits {
            let scope = self.index.scope(number)?;
            // Nobody becomes the server: what it may is no hint to anybody else.
            let who = rule.policy.principal_constraint();
            if !scope.who.matches(&caller.place) && names_the_server(who.as_inner()) {
                continue;
            }
            let sides = [
                scope.who.matches(&caller.place),
                scope.actions.has(action),
                scope.what.matches(&place),
            ];
            let miss = |failed| NearMiss { policy: rule.id.clone(), failed };
            match sides {
                [true, true, true] => {
                    conditions.extend(failed_condition(rule, &call.evaluator()).map(miss))
                }
                [false, true, true] | [true, false, true] | [true, true, false] => {
                    scopes.push(miss(failed_side(rule, scope, sides)));
                }
                [false, false, _] | [false, _, false] | [_, false, false] => {}
            }
        }
        conditions.append(&mut scopes);
        conditions.truncate(TOLD);
        Some(conditions)
    }
}

fn failed_condition(
    rule: &Rule,
    evaluator: &cedar_policy_core::evaluator::Evaluator<'_>,
) -> Option<String> {
    let parts = words::parts(rule.policy.non_scope_constraints()?);
    let holds = |part| {
        let value =
            evaluator.interpret(part, rule.policy.env()).map_err(|fault| fault.to_string())?;
        crate::set::truth(&value)
    };
    let failed = parts.into_iter().find(|part| holds(part) != Ok(true))?;
    Some(format!("this does not hold: {}", words::say(failed)))
}

fn failed_side(rule: &Rule, scope: &Scope, sides: [bool; 3]) -> String {
    match sides {
        [false, _, _] => format!(
            "it is about {}",
            words::side(rule.policy.principal_constraint().as_inner(), "anybody")
        ),
        [_, false, _] => format!("it is about {}", scope.actions.names().join(", ")),
        [_, _, _] => format!(
            "it is about {}",
            words::side(rule.policy.resource_constraint().as_inner(), "anything")
        ),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.allowed { "allowed" } else { "refused" }, self.why)?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        for NearMiss { policy, failed } in &self.misses {
            write!(f, "\n  {policy} would allow it, but {failed}")?;
        }
        Ok(())
    }
}
