//! Scopes and conditions in words.
//!
//! Room      `policy`. For people; nothing is decided by these words.

use cedar_policy_core::ast::{
    BinaryOp, EntityReference, EntityType, EntityUID, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint as Constraint, UnaryOp, Var,
};

/// The parts of a condition that must all hold.
pub(crate) fn parts(condition: &Expr) -> Vec<&Expr> {
    if let ExprKind::And { left, right } = condition.expr_kind() {
        return [parts(left), parts(right)].concat();
    }
    let holds = matches!(condition.expr_kind(), ExprKind::Lit(Literal::Bool(true)));
    if holds { Vec::new() } else { vec![condition] }
}

/// One side of a scope. `anything` is the word for a side that names nothing.
pub(crate) fn side(constraint: &Constraint, anything: &str) -> String {
    match constraint {
        Constraint::Any => anything.to_owned(),
        Constraint::Is(kind) => format!("any {}", kind_word(kind)),
        Constraint::Eq(it) => named(it),
        Constraint::In(it) => format!("{anything} in {}", named(it)),
        Constraint::IsIn(kind, it) => format!("any {} in {}", kind_word(kind), named(it)),
    }
}

fn named(it: &EntityReference) -> String {
    match it {
        EntityReference::EUID(uid) => thing(uid),
        EntityReference::Slot(_) => "something".to_owned(),
    }
}

fn thing(uid: &EntityUID) -> String {
    let name: &str = uid.eid().as_ref();
    let kind = kind_word(uid.entity_type());
    match kind.as_str() {
        "instance" => "the installation".to_owned(),
        "alias" | "Action" => name.to_owned(),
        _named => format!("{kind} {name}"),
    }
}

fn kind_word(kind: &EntityType) -> String {
    match kind.to_string().as_str() {
        "ServiceAccount" => "service account".to_owned(),
        "KeyGroup" => "key group".to_owned(),
        "SecretPath" => "path".to_owned(),
        "EncryptionContext" => "encryption context".to_owned(),
        "Action" => "Action".to_owned(),
        other => other.to_lowercase(),
    }
}

/// A condition in words; what has no words is written in Cedar.
pub(crate) fn say(condition: &Expr) -> String {
    match condition.expr_kind() {
        ExprKind::Lit(literal) => say_literal(literal),
        ExprKind::Var(Var::Principal) => "the caller".to_owned(),
        ExprKind::Var(Var::Action) => "the action".to_owned(),
        ExprKind::Var(Var::Resource) => "the thing".to_owned(),
        ExprKind::Var(Var::Context) => "the call".to_owned(),
        ExprKind::Unknown(unknown) if unknown.name == "principal" => "the caller".to_owned(),
        ExprKind::Unknown(_) => "the call".to_owned(),
        ExprKind::And { left, right } => format!("{} and {}", say(left), say(right)),
        ExprKind::Or { left, right } => format!("({} or {})", say(left), say(right)),
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => say_not(arg),
        ExprKind::BinaryApp { op, arg1, arg2 } => say_binary(*op, arg1, arg2, condition),
        ExprKind::GetAttr { expr, attr } if is_call(expr) => fact(attr),
        ExprKind::GetAttr { expr, attr } => format!("{} of {}", attr, say(expr)),
        ExprKind::HasAttr { expr, attr } if is_call(expr) => format!("{} is known", fact(attr)),
        ExprKind::HasAttr { expr, attr } => format!("{} has {attr}", say(expr)),
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            say_function(&fn_name.to_string(), args, condition)
        }
        ExprKind::Like { expr, pattern } => format!("{} looks like \"{pattern}\"", say(expr)),
        ExprKind::Is { expr, entity_type } => {
            format!("{} is a {}", say(expr), kind_word(entity_type))
        }
        ExprKind::Set(items) => {
            format!("[{}]", items.iter().map(say).collect::<Vec<_>>().join(", "))
        }
        ExprKind::UnaryApp { .. }
        | ExprKind::ExtHasAttr { .. }
        | ExprKind::Slot(_)
        | ExprKind::If { .. }
        | ExprKind::Record(_) => condition.to_string(),
    }
}

fn say_literal(literal: &Literal) -> String {
    match literal {
        Literal::EntityUID(uid) => thing(uid),
        Literal::Bool(_) | Literal::Long(_) | Literal::String(_) => literal.to_string(),
    }
}

fn say_not(arg: &Expr) -> String {
    if let ExprKind::BinaryApp { op: BinaryOp::Eq, arg1, arg2 } = arg.expr_kind() {
        format!("{} is not {}", say(arg1), say(arg2))
    } else if let ExprKind::UnaryApp { op: UnaryOp::Not, arg } = arg.expr_kind() {
        say(arg)
    } else {
        format!("not ({})", say(arg))
    }
}

fn say_binary(op: BinaryOp, left: &Expr, right: &Expr, whole: &Expr) -> String {
    let (a, b) = (say(left), say(right));
    match op {
        BinaryOp::Eq => format!("{a} is {b}"),
        BinaryOp::Less => format!("{a} is less than {b}"),
        BinaryOp::LessEq => format!("{a} is at most {b}"),
        BinaryOp::In => format!("{a} is in {b}"),
        BinaryOp::Contains => format!("{b} is one of {a}"),
        BinaryOp::ContainsAll => format!("all of {b} are among {a}"),
        BinaryOp::ContainsAny => format!("one of {b} is among {a}"),
        BinaryOp::HasTag => format!("{a} names {b}"),
        BinaryOp::GetTag => format!("{b} of {a}"),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => whole.to_string(),
    }
}

fn say_function(name: &str, args: &[Expr], whole: &Expr) -> String {
    match (name, args) {
        ("ip" | "datetime" | "duration" | "decimal", [text]) => {
            text_of(text).unwrap_or_else(|| whole.to_string())
        }
        ("isInRange", [address, range]) => format!("{} is in {}", say(address), say(range)),
        ("isLoopback", [address]) => format!("{} is of this machine", say(address)),
        ("toTime", [time]) => format!("the time of day (UTC) of {}", say(time)),
        _ => whole.to_string(),
    }
}

fn text_of(expr: &Expr) -> Option<String> {
    if let ExprKind::Lit(Literal::String(text)) = expr.expr_kind() {
        Some(text.to_string())
    } else {
        None
    }
}

fn is_call(expr: &Expr) -> bool {
    if let ExprKind::Unknown(unknown) = expr.expr_kind() {
        return unknown.name == "context";
    }
    matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
}

fn fact(name: &str) -> String {
    let known = match name {
        "now" => "the time",
        "sourceIp" => "the source address",
        "via" => "the way in",
        "ec" => "the encryption context",
        "authStrength" => "the strength of the login",
        "methods" => "the ways he logged in",
        "mfaAge" => "the age of the second factor in seconds",
        "sessionAge" => "the age of the session in seconds",
        "pod" => "the pod",
        "node" => "the node",
        other => other,
    };
    known.to_owned()
}
