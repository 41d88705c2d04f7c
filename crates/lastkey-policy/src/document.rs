//! Policy documents: Cedar text with a kind that fixes what it may speak of.
//!
//! Room      `policy`. Cedar's own parser reads the text; the scope is forced here.
//! Holds     what is written was checked against the schema without a warning, what is stored
//!           without an error, and a key's policy speaks of that key alone, a role's of that role
//!           alone.

use std::collections::HashSet;
use std::sync::Arc;

use cedar_policy_core::ast::{
    Annotation, AnyId, EntityReference, EntityUID, Policy, PolicyID, PolicySet as Policies,
    PrincipalConstraint, PrincipalOrResourceConstraint as Constraint, ResourceConstraint,
    StaticPolicy,
};
use cedar_policy_core::parser::parse_policyset;
use cedar_policy_core::validator::ValidationMode;
use lastkey_core::ids::KeyId;
use miette::Diagnostic;

use crate::limits;
use crate::names::{Thing, Type, VALIDATOR};

/// Policies that are written and replaced together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name; a policy in it is called `NAME#LABEL`, where the label is its `@id` or, without
    /// one, its place in the document from 1.
    pub name: String,
    /// What it may speak of.
    pub kind: DocumentKind,
    /// The policies, in Cedar; at most [`Document::MAX_LEN`] bytes.
    pub text: String,
}

/// What a document may speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// Everything.
    Installation,
    /// One key: every policy in it is about that key.
    Key(KeyId),
    /// One role: every policy in it is about callers in that role.
    Role(String),
}

impl Document {
    /// The longest text, in bytes.
    pub const MAX_LEN: usize = 65_536;

    /// Checks the document by itself.
    ///
    /// # Errors
    /// [`PolicyError`] with the first fault.
    pub fn check(&self) -> Result<(), PolicyError> {
        statements(self, Check::Schema).map(drop)
    }
}

/// A document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{document}:{line}:{column}: {message}")]
pub struct PolicyError {
    /// The document's name.
    pub document: String,
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// What is wrong and, where that is known, what was meant.
    pub message: String,
}

impl PolicyError {
    pub(crate) fn at(document: &Document, offset: usize, message: impl Into<String>) -> Self {
        let before = document.text.get(..offset).unwrap_or(&document.text);
        let line = before.matches('\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or_default();
        let column = last.chars().count() + 1;
        Self { document: document.name.clone(), line, column, message: message.into() }
    }

    fn of(document: &Document, fault: &dyn Diagnostic) -> Self {
        let offset =
            fault.labels().and_then(|mut labels| labels.next()).map_or(0, |at| at.offset());
        let message = match fault.help() {
            Some(help) => format!("{fault}; {help}"),
            None => fault.to_string(),
        };
        Self::at(document, offset, message)
    }
}

/// How far a document is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Against the schema: on writing.
    Schema,
    /// The same but for warnings: what was written once. Another version of this program may warn
    /// of what this one did not, and the server has to start all the same.
    Stored,
    /// As far as it can be read: on use of what was checked when it was written. What the schema
    /// would have refused cannot be evaluated, and that denies.
    Syntax,
}

/// One policy, ready for the set.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// `NAME#LABEL`.
    pub(crate) id: String,
    /// As written, but for the forced scope.
    pub(crate) policy: Policy,
}

/// The policies of a document, in the order of the text.
pub(crate) fn statements(document: &Document, check: Check) -> Result<Vec<Statement>, PolicyError> {
    if document.text.len() > Document::MAX_LEN {
        return Err(PolicyError::at(document, 0, "a policy document has at most 65536 bytes"));
    }
    limits::check(&document.text)
        .map_err(|(offset, words)| PolicyError::at(document, offset, words))?;
    let parsed =
        parse_policyset(&document.text).map_err(|faults| PolicyError::of(document, &faults))?;
    if let Some(template) = parsed.templates().next() {
        let offset = template.loc().map_or(0, |loc| loc.start());
        return Err(PolicyError::at(
            document,
            offset,
            "a policy has no slots: write what is meant",
        ));
    }
    let mut found: Vec<Policy> = parsed.into_policies().collect();
    found.sort_by_key(|policy| policy.loc().map_or(0, |loc| loc.start()));
    let numbered = found.iter().zip(1_usize..);
    let statements = numbered.map(|(policy, place)| forced(document, policy, place));
    let statements = statements.collect::<Result<Vec<_>, _>>()?;
    refuse_twins(document, &statements)?;
    match check {
        Check::Schema | Check::Stored => validate(document, &statements, check)?,
        Check::Syntax => {}
    }
    Ok(statements)
}

fn forced(document: &Document, policy: &Policy, place: usize) -> Result<Statement, PolicyError> {
    let offset = policy.loc().map_or(0, |loc| loc.start());
    let fault = |message: String| PolicyError::at(document, offset, message);
    let label = label(policy).map_err(|message| fault(message.to_owned()))?;
    let id = format!("{}#{}", document.name, label.unwrap_or_else(|| place.to_string()));
    let (mut who, mut what) = (policy.principal_constraint(), policy.resource_constraint());
    match &document.kind {
        DocumentKind::Installation => {}
        DocumentKind::Key(key) => {
            let key = Thing::new(Type::Key, key.to_string());
            let forced = narrowed(what.as_inner(), &key, Constraint::is_eq).ok_or_else(|| {
                fault(format!("a key's policy is about that key alone: write `resource`, or `resource == Key::\"{}\"`", key.name))
            })?;
            what = ResourceConstraint::new(forced);
        }
        DocumentKind::Role(role) => {
            let role = Thing::new(Type::Role, role.as_str());
            let forced = narrowed(who.as_inner(), &role, Constraint::is_in).ok_or_else(|| {
                fault(format!("a role's policy is about that role alone: write `principal`, or `principal in Role::\"{}\"`", role.name))
            })?;
            who = PrincipalConstraint::new(forced);
        }
    }
    let built = StaticPolicy::new(
        PolicyID::from_string(&id),
        policy.loc().cloned(),
        policy.annotations().map(|(key, value)| (key.clone(), value.clone())).collect(),
        policy.effect(),
        who,
        policy.action_constraint().clone(),
        what,
        policy.non_scope_constraints().cloned(),
    );
    let policy = built.map_err(|slot| fault(slot.to_string()))?.into();
    Ok(Statement { id, policy })
}

/// The label that the policy gives itself; refused when it is not a plain word.
fn label(policy: &Policy) -> Result<Option<String>, &'static str> {
    let Ok(id) = "id".parse::<AnyId>() else { return Ok(None) };
    let Some(Annotation { val, .. }) = policy.annotation(&id) else { return Ok(None) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&val.len())
        && val.bytes().all(plain)
        && !val.bytes().all(|byte| byte.is_ascii_digit())
    {
        Ok(Some(val.to_string()))
    } else {
        Err("an @id has 1 to 64 characters of A-Z a-z 0-9 . _ - and is not a number")
    }
}

/// The scope `written`, cut down to `thing`; `None` when it speaks of something else.
fn narrowed(
    written: &Constraint,
    thing: &Thing,
    constraint: impl Fn(Arc<EntityUID>) -> Constraint,
) -> Option<Constraint> {
    let uid = Arc::new(thing.uid()?);
    let same =
        |named: &EntityReference| matches!(named, EntityReference::EUID(named) if *named == uid);
    match written {
        Constraint::Any => Some(constraint(uid)),
        Constraint::Is(kind) if thing.kind == Type::Role => {
            Some(Constraint::is_entity_type_in(Arc::clone(kind), uid))
        }
        Constraint::Is(kind) => (**kind == **thing.kind.cedar()?).then(|| constraint(uid)),
        Constraint::Eq(named) => (same(named) && thing.kind == Type::Key).then(|| written.clone()),
        Constraint::In(named) | Constraint::IsIn(_, named) => same(named).then(|| written.clone()),
    }
}

fn refuse_twins(document: &Document, statements: &[Statement]) -> Result<(), PolicyError> {
    let mut seen = HashSet::new();
    match statements.iter().find(|statement| !seen.insert(statement.id.as_str())) {
        None => Ok(()),
        Some(twin) => {
            let offset = twin.policy.loc().map_or(0, |loc| loc.start());
            Err(PolicyError::at(document, offset, format!("two policies are called {}", twin.id)))
        }
    }
}

/// Strict: what Cedar only warns of (a policy that can never apply, a text that looks like
/// another) is refused as well where it is written, since in a policy it is a slip or worse.
fn validate(
    document: &Document,
    statements: &[Statement],
    check: Check,
) -> Result<(), PolicyError> {
    let fault = |message: String| PolicyError::at(document, 0, message);
    let validator = VALIDATOR.as_ref().ok_or_else(|| fault("there is no schema".to_owned()))?;
    let policies = statements.iter().map(|statement| statement.policy.clone());
    let policies = Policies::try_from_iter(policies).map_err(|twin| fault(twin.to_string()))?;
    let found = validator.validate(&policies, ValidationMode::Strict);
    if let Some(error) = found.validation_errors().next() {
        return Err(PolicyError::of(document, error));
    }
    let warning = found.validation_warnings().next().filter(|_| check == Check::Schema);
    warning.map_or(Ok(()), |warning| Err(PolicyError::of(document, warning)))
}
