//! A set of policies: compiled whole, asked often.
//!
//! Room      `policy`.
//! Holds     a set never changes, so a decision it keeps is as good as one it makes; whoever
//!           changes a policy compiles a new set and puts it in the old one's place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy_core::ast::{Effect, Literal, Policy, Value, ValueKind};
use cedar_policy_core::evaluator::Evaluator;
use lastkey_core::permit::{Decision, DecisionPoint, Question, Why};
use lastkey_core::principal::Principal;
use quick_cache::sync::Cache;

use crate::actions::Action;
use crate::cache::Decisions;
use crate::document::{Check, Document, DocumentKind, PolicyError, Statement, statements};
use crate::entities::{Call, Standing};
use crate::names::Type;
use crate::needs::Needs;
use crate::scope::{Index, Place, Register, Scope};

/// The role that may seal the server, keep its clusters and nodes, and no more.
pub const SYSTEM_ADMINISTRATOR: &str = "system-administrator";
/// The role that may manage keys, policies, roles and people, and no more.
pub const SECURITY_ADMINISTRATOR: &str = "security-administrator";
/// The role that may read the audit log and name its witnesses, and no more.
pub const AUDIT_ADMINISTRATOR: &str = "audit-administrator";

/// Whether the administrator of the first hour still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Nobody is enrolled yet: the token that `init` printed may do everything.
    Open,
    /// Somebody is enrolled: that token may do nothing.
    Closed,
}

/// All policies of an installation, ready to decide.
#[derive(Debug)]
pub struct PolicySet {
    parts: Vec<Arc<Part>>,
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) register: Register,
    pub(crate) index: Index,
    decisions: Decisions,
    callers: Cache<Principal, Arc<Caller>>,
    narrowings: Cache<Arc<str>, Option<Arc<PolicySet>>>,
}

/// One policy, as others may list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyInfo<'a> {
    /// `DOCUMENT#LABEL`.
    pub id: &'a str,
    /// Whether it forbids; otherwise it permits.
    pub forbids: bool,
    /// Its text, with the scope that was forced on it left out.
    pub text: &'a str,
}

/// One policy, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) forbids: bool,
    pub(crate) policy: Policy,
    needs: Needs,
    text: String,
    why: Arc<str>,
}

/// One document, compiled.
#[derive(Debug)]
struct Part {
    document: Document,
    rules: Vec<Arc<Rule>>,
}

#[derive(Debug)]
pub(crate) struct Caller {
    who: Principal,
    pub(crate) standing: Standing,
    pub(crate) place: Place,
}

/// A question, found its way.
struct Asked {
    caller: Arc<Caller>,
    what: Standing,
    /// The policies that may say something to it.
    slice: Vec<u32>,
}

/// What the policies of one slice said.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// The policies that decided: the forbids that held, else the permits that held.
    pub(crate) by: Vec<u32>,
    /// The policies that could not be evaluated, with the fault.
    pub(crate) faults: Vec<(u32, String)>,
    /// Why nothing could be asked at all.
    pub(crate) refused: Option<&'static str>,
    /// The verdict holds for every call that differs in its context alone.
    lasting: bool,
}

/// The name under which the rules of this program are listed.
const BUILT_IN: &str = "built-in";
/// How many decisions are kept, about 300 bytes each; callers a quarter, narrowings a sixteenth.
const KEPT: usize = 16_384;
/// The same for what a session was narrowed to.
const KEPT_BY_A_SESSION: usize = 64;
/// Longest policy of a session, in bytes; it travels with every call.
const MAX_SESSION_POLICY_LEN: usize = 2_048;

/// The rules that every installation has, in the notation of its other policies.
#[must_use]
pub fn built_in(bootstrap: Bootstrap) -> Document {
    let always = include_str!("builtin.cedar");
    let text = match bootstrap {
        Bootstrap::Open => format!("{always}\n{}", include_str!("bootstrap.cedar")),
        Bootstrap::Closed => always.to_owned(),
    };
    Document { name: BUILT_IN.to_owned(), kind: DocumentKind::Installation, text }
}

impl PolicySet {
    /// Compiles the built-in rules and these documents.
    ///
    /// # Errors
    /// [`PolicyError`] with the first fault: what Cedar cannot read, what the schema does not
    /// know, a policy that can never apply, a scope outside its document's kind, two documents or
    /// policies of one name, a document named like the built-in rules.
    pub fn compile(documents: &[Document], bootstrap: Bootstrap) -> Result<Self, PolicyError> {
        let parts = documents.iter().map(|document| Part::of(document, Check::Schema));
        Self::of_documents(documents, parts, bootstrap)
    }

    /// As [`Self::compile`], for documents that were written by this or an older version of this
    /// program: what is only a warning refuses none of them.
    ///
    /// # Errors
    /// As [`Self::compile`], but for policies that can never apply and texts that look like others.
    pub fn compile_stored(
        documents: &[Document],
        bootstrap: Bootstrap,
    ) -> Result<Self, PolicyError> {
        let parts = documents.iter().map(|document| Part::of(document, Check::Stored));
        Self::of_documents(documents, parts, bootstrap)
    }

    /// Checks the policy that the holder of a session narrows it with.
    ///
    /// # Errors
    /// [`PolicyError`] as for a document.
    pub fn check_session_policy(text: &str) -> Result<(), PolicyError> {
        let document = session_document(text);
        if text.len() > MAX_SESSION_POLICY_LEN {
            return Err(PolicyError::at(
                &document,
                0,
                "a session's own policy has at most 2048 bytes",
            ));
        }
        document.check()
    }

    /// Compiles these documents as [`Self::compile`] does; those that are in this set already are
    /// taken over from it, which takes a hundredth of the time.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn recompile(
        &self,
        documents: &[Document],
        bootstrap: Bootstrap,
    ) -> Result<Self, PolicyError> {
        let known = self.parts.iter().map(|part| (part.document.name.as_str(), part));
        let known: HashMap<_, _> = known.collect();
        let parts = documents.iter().map(|document| {
            match known.get(document.name.as_str()).filter(|part| part.document == *document) {
                Some(part) => Ok(Arc::clone(part)),
                None => Part::of(document, Check::Schema),
            }
        });
        Self::of_documents(documents, parts, bootstrap)
    }

    fn of_documents(
        documents: &[Document],
        parts: impl Iterator<Item = Result<Arc<Part>, PolicyError>>,
        bootstrap: Bootstrap,
    ) -> Result<Self, PolicyError> {
        let mut names = HashSet::from([BUILT_IN]);
        if let Some(twin) = documents.iter().find(|document| !names.insert(&document.name)) {
            return Err(PolicyError::at(twin, 0, "another document has this name"));
        }
        // The built-in rules were checked when this program was tested.
        let own = Part::of(&built_in(bootstrap), Check::Syntax);
        Ok(Self::assemble(core::iter::once(own).chain(parts).collect::<Result<_, _>>()?, KEPT))
    }

    /// A set of one document, without the built-in rules.
    pub(crate) fn bare(document: &Document, check: Check) -> Result<Self, PolicyError> {
        Ok(Self::assemble(vec![Part::of(document, check)?], KEPT_BY_A_SESSION))
    }

    fn assemble(parts: Vec<Arc<Part>>, kept: usize) -> Self {
        let (mut register, mut index) = (Register::default(), Index::default());
        let rules: Vec<_> = parts.iter().flat_map(|part| part.rules.iter().cloned()).collect();
        for rule in &rules {
            index.push(Scope::of(&rule.policy, &mut register));
        }
        let (callers, narrowings) = (Cache::new(kept / 4), Cache::new(kept / 16));
        Self { parts, rules, register, index, decisions: Decisions::new(kept), callers, narrowings }
    }

    /// The policies, built-in ones first.
    pub fn policies(&self) -> impl Iterator<Item = PolicyInfo<'_>> {
        self.rules.iter().map(|rule| rule.info())
    }

    pub(crate) fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?).map(|rule| &**rule)
    }

    pub(crate) fn caller(&self, question: &Question<'_>) -> Option<Arc<Caller>> {
        // Two callers that are equal may differ in their groups, which count here.
        let same = |kept: &Arc<Caller>| kept.who.identity() == question.who.identity();
        if let Some(kept) = self.callers.get(question.who).filter(same) {
            return Some(kept);
        }
        let caller = Arc::new(Caller::of(question.who, self)?);
        self.callers.insert(question.who.clone(), Arc::clone(&caller));
        Some(caller)
    }

    /// Whether the answer may depend on the encryption context.
    #[must_use]
    pub fn reads_encryption_context(&self, question: &Question<'_>) -> bool {
        let Some(action) = Action::parse(question.action) else { return false };
        let asked = self.asked(question, action);
        asked.is_ok_and(|asked| self.needs(&asked.slice).encryption_context)
    }

    /// Whom and what a question is about, and the policies that may say something to it.
    fn asked(&self, question: &Question<'_>, action: Action) -> Result<Asked, &'static str> {
        let caller = self.caller(question).ok_or("who asks cannot be named")?;
        let (resource, names) = (question.resource, question.facts.key);
        let what = Standing::in_name(resource, names).ok_or("what it is about cannot be named")?;
        if !action.is_done_to(what.thing.kind) {
            let is_unnamed = what.thing.kind == Type::Instance;
            return Err(if is_unnamed {
                "the action is not done to the installation: name the key or secret"
            } else {
                "the action is not done to such a thing"
            });
        }
        // Who acts upon himself is in his groups there too.
        let twin = caller.standing.thing == what.thing;
        let place = if twin { caller.place.clone() } else { what.place(&self.register) };
        let slice = self.index.slice(&caller.place, action, &place);
        Ok(Asked { caller, what, slice })
    }

    /// What the policies say, the holder's own narrowing left out of account.
    pub(crate) fn judge(&self, question: &Question<'_>, action: Action) -> Verdict {
        let Asked { caller, what, slice } = match self.asked(question, action) {
            Ok(asked) => asked,
            Err(refused) => return Verdict::refused(refused),
        };
        let (resource, names) = (question.resource, question.facts.key);
        let what = if self.needs(&slice).entities {
            Standing::of_resource(resource, names)
        } else {
            Some(what)
        };
        match what {
            Some(what) => self.judge_slice(&slice, question, action, (&caller.standing, &what)),
            None => Verdict::refused("what it is about cannot be named"),
        }
    }

    fn needs(&self, slice: &[u32]) -> Needs {
        let rules = slice.iter().filter_map(|number| self.rule(*number));
        rules.fold(Needs::default(), |all, rule| all.and(rule.needs))
    }

    pub(crate) fn judge_slice(
        &self,
        slice: &[u32],
        question: &Question<'_>,
        action: Action,
        standings: (&Standing, &Standing),
    ) -> Verdict {
        let rules = || slice.iter().filter_map(|number| Some((*number, self.rule(*number)?)));
        let needs = self.needs(slice);
        // Where no policy has conditions there is nothing to evaluate.
        let call = if rules().any(|(_, rule)| rule.policy.non_scope_constraints().is_some()) {
            let Some(call) = call(question, action, standings, needs) else {
                return Verdict::refused("the call cannot be put to the policies");
            };
            Some(call)
        } else {
            None
        };
        let evaluator = call.as_ref().map(Call::evaluator);
        let mut verdict = Verdict { lasting: !needs.context, ..Verdict::default() };
        let (mut permits, mut forbids) = (Vec::new(), Vec::new());
        for (number, rule) in rules() {
            match rule.holds(evaluator.as_ref()) {
                Ok(true) if rule.forbids => forbids.push(number),
                Ok(true) => permits.push(number),
                Ok(false) => {}
                Err(fault) => verdict.faults.push((number, fault)),
            }
        }
        // Cedar itself would pass over a policy that cannot be evaluated, be it a forbid.
        verdict.allowed = verdict.faults.is_empty() && forbids.is_empty() && !permits.is_empty();
        verdict.by = if forbids.is_empty() { permits } else { forbids };
        verdict.by.sort_unstable();
        verdict
    }

    /// The set that a session was narrowed to; `None` when its text cannot be read.
    pub(crate) fn narrowing(&self, text: &Arc<str>) -> Option<Arc<Self>> {
        if let Some(kept) = self.narrowings.get(text) {
            return kept;
        }
        let document = session_document(text);
        let set = Self::bare(&document, Check::Syntax).ok().map(Arc::new);
        self.narrowings.insert(Arc::clone(text), set.clone());
        set
    }

    fn words(&self, verdict: &Verdict) -> Why {
        if let Some(refused) = verdict.refused {
            return refused.into();
        }
        if let Some((number, _)) = verdict.faults.first() {
            let id = self.rule(*number).map_or("", |rule| &rule.id);
            return Why::Named(format!("{id} cannot be evaluated").into());
        }
        match verdict.by.as_slice() {
            [] => NOBODY_ALLOWS.into(),
            [one] => self
                .rule(*one)
                .map_or(NOBODY_ALLOWS.into(), |rule| Why::Named(Arc::clone(&rule.why))),
            several => {
                let verb = if verdict.allowed { "allowed" } else { "forbidden" };
                let ids: Vec<_> = several
                    .iter()
                    .filter_map(|number| Some(self.rule(*number)?.id.as_str()))
                    .collect();
                Why::Named(format!("{verb} by {}", ids.join(", ")).into())
            }
        }
    }

    fn narrowed(
        &self,
        question: &Question<'_>,
        action: Action,
        verdict: Verdict,
    ) -> (Decision, bool) {
        let decision = Decision { allowed: verdict.allowed, why: self.words(&verdict) };
        let Some(text) = narrowing_of(question).filter(|_| verdict.allowed) else {
            return (decision, verdict.lasting);
        };
        let Some(narrowing) = self.narrowing(text) else {
            return (
                Decision { allowed: false, why: "the session's own policy cannot be read".into() },
                true,
            );
        };
        let own = narrowing.judge(question, action);
        let lasting = verdict.lasting && own.lasting;
        if own.allowed {
            (decision, lasting)
        } else {
            (
                Decision {
                    allowed: false,
                    why: "the session's own policy does not allow it".into(),
                },
                lasting,
            )
        }
    }
}

const NOBODY_ALLOWS: &str = "no policy allows it";

impl DecisionPoint for PolicySet {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let Some(action) = Action::parse(question.action) else {
            return Decision { allowed: false, why: "there is no such action".into() };
        };
        if let Some(kept) = self.decisions.find(question, action) {
            return kept;
        }
        let (decision, lasting) = self.narrowed(question, action, self.judge(question, action));
        if lasting {
            self.decisions.keep(question, action, decision.clone());
        }
        decision
    }
}

impl Part {
    fn of(document: &Document, check: Check) -> Result<Arc<Self>, PolicyError> {
        let rules = statements(document, check)?.into_iter().map(|one| Arc::new(Rule::of(one)));
        Ok(Arc::new(Self { rules: rules.collect(), document: document.clone() }))
    }
}

impl Rule {
    fn of(statement: Statement) -> Self {
        let Statement { id, policy } = statement;
        let forbids = policy.effect() == Effect::Forbid;
        let why = format!("{} by {id}", if forbids { "forbidden" } else { "allowed" }).into();
        let text = policy.loc().and_then(|loc| loc.snippet()).unwrap_or_default().to_owned();
        let needs = Needs::of(&policy);
        Self { id, forbids, policy, needs, text, why }
    }

    fn info(&self) -> PolicyInfo<'_> {
        PolicyInfo { id: &self.id, forbids: self.forbids, text: &self.text }
    }

    /// Whether the conditions hold, for a call that the scope matches.
    ///
    /// # Errors
    /// The fault, in words, when they cannot be evaluated.
    pub(crate) fn holds(&self, evaluator: Option<&Evaluator<'_>>) -> Result<bool, String> {
        let Some(condition) = self.policy.non_scope_constraints() else { return Ok(true) };
        let evaluator = evaluator.ok_or_else(|| "the call was not put together".to_owned())?;
        let value = evaluator.interpret(condition, self.policy.env());
        truth(&value.map_err(|fault| fault.to_string())?)
    }
}

/// The truth that a condition came to.
///
/// # Errors
/// It came to something else.
pub(crate) fn truth(value: &Value) -> Result<bool, String> {
    match value.value_kind() {
        ValueKind::Lit(Literal::Bool(truth)) => Ok(*truth),
        ValueKind::Lit(_)
        | ValueKind::Set(_)
        | ValueKind::Record(_)
        | ValueKind::ExtensionValue(_) => Err("the condition is neither true nor false".to_owned()),
    }
}

impl Caller {
    fn of(who: &Principal, set: &PolicySet) -> Option<Self> {
        let standing = Standing::of_caller(who)?;
        let place = standing.place(&set.register);
        Some(Self { who: who.clone(), standing, place })
    }
}

impl Verdict {
    fn refused(words: &'static str) -> Self {
        Self { refused: Some(words), ..Self::default() }
    }
}

pub(crate) fn call(
    question: &Question<'_>,
    action: Action,
    standings: (&Standing, &Standing),
    needs: Needs,
) -> Option<Call> {
    Call::new(standings, action.known()?, question.who.identity(), question.facts, needs)
}

pub(crate) fn narrowing_of<'q>(question: &Question<'q>) -> Option<&'q Arc<str>> {
    question.who.session()?.policy.as_ref()
}

fn session_document(text: &str) -> Document {
    Document { name: "session".to_owned(), kind: DocumentKind::Installation, text: text.to_owned() }
}
