//! What a condition looks at beside the caller and the thing.
//!
//! Room      `policy`.
//! Holds     a condition that reads the call's context is never taken for one that does not.

use cedar_policy_core::ast::{Expr, ExprKind, Literal, Policy, Var};

/// Parts of the context that a decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Anything of it: then the answer is good for this call alone.
    pub(crate) context: bool,
    /// The caller, the action or the thing themselves, or anything that is named.
    pub(crate) entities: bool,
    /// The time.
    pub(crate) now: bool,
    /// The source address.
    pub(crate) source: bool,
    /// The encryption context.
    pub(crate) encryption_context: bool,
    /// What is known of the session and the pod.
    pub(crate) session: bool,
}

impl Needs {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        context: true,
        entities: true,
        now: true,
        source: true,
        encryption_context: true,
        session: true,
    };

    /// What the conditions of a policy need.
    pub(crate) fn of(policy: &Policy) -> Self {
        policy.non_scope_constraints().map_or(Self::default(), of_expr)
    }

    /// What both need.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            context: self.context || other.context,
            entities: self.entities || other.entities,
            now: self.now || other.now,
            source: self.source || other.source,
            encryption_context: self.encryption_context || other.encryption_context,
            session: self.session || other.session,
        }
    }

    fn attribute(name: &str) -> Self {
        let context = Self { context: true, ..Self::default() };
        match name {
            "via" => context,
            "now" => Self { now: true, ..context },
            "sourceIp" => Self { source: true, ..context },
            "ec" => Self { encryption_context: true, ..context },
            _ => Self { session: true, ..context },
        }
    }
}

fn of_expr(condition: &Expr) -> Needs {
    let is_context = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Context));
    let (mut needs, mut read, mut seen) = (Needs::default(), 0_usize, 0_usize);
    for part in condition.subexpressions() {
        let name = match part.expr_kind() {
            ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } => {
                Some((expr, attr))
            }
            ExprKind::ExtHasAttr { expr, attrs } => Some((expr, attrs.first())),
            ExprKind::Var(Var::Context) => {
                seen += 1;
                None
            }
            ExprKind::Lit(Literal::EntityUID(_))
            | ExprKind::Var(Var::Principal | Var::Action | Var::Resource) => {
                needs.entities = true;
                None
            }
            ExprKind::Lit(Literal::Bool(_) | Literal::Long(_) | Literal::String(_))
            | ExprKind::Slot(_)
            | ExprKind::Unknown(_)
            | ExprKind::If { .. }
            | ExprKind::And { .. }
            | ExprKind::Or { .. }
            | ExprKind::UnaryApp { .. }
            | ExprKind::BinaryApp { .. }
            | ExprKind::ExtensionFunctionApp { .. }
            | ExprKind::Like { .. }
            | ExprKind::Is { .. }
            | ExprKind::Set(_)
            | ExprKind::Record(_) => None,
        };
        if let Some((_, attr)) = name.filter(|(base, _)| is_context(base)) {
            read += 1;
            needs = needs.and(Needs::attribute(attr));
        }
    }
    // The context as a whole, compared or handed on: then nothing may be missing.
    if seen == read { needs } else { Needs::ALL }
}
