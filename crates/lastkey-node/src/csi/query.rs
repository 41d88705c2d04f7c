//! JMESPath over a value: picks a part of it.
//!
//! Room      `node`.
//! Source    jmespath.org/specification.
//! Holds     An expression comes from whoever writes a pod. Those that build new values, and so
//!           could grow without bound inside a process of root, are refused.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jmespath::ast::Ast;
use serde_json::Value;

const MAX_LEN: usize = 512;
const MAX_FUNCTIONS: usize = 4;

/// Why an expression gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("is no JMESPath expression")]
    Syntax,
    #[error(
        "is more than is evaluated here: at most 512 bytes and 4 functions, and no `[a, b]` or \
         `{{a: b}}` that build new values; use a template for those"
    )]
    TooMuch,
    #[error("cannot be evaluated on this value")]
    Failed,
    #[error("finds nothing")]
    Nothing,
}

/// What an expression finds: texts as they are, anything else as JSON.
pub(super) fn find(expression: &str, value: &Value) -> Result<Vec<u8>, QueryError> {
    if expression.len() > MAX_LEN {
        return Err(QueryError::TooMuch);
    }
    // Whatever the evaluator does with an odd expression, the provider goes on.
    let found = catch_unwind(AssertUnwindSafe(|| evaluate(expression, value)));
    found.unwrap_or(Err(QueryError::Failed))
}

fn evaluate(expression: &str, value: &Value) -> Result<Vec<u8>, QueryError> {
    let compiled = jmespath::compile(expression).map_err(|_| QueryError::Syntax)?;
    if functions_in(compiled.as_ast()).is_none_or(|functions| functions > MAX_FUNCTIONS) {
        return Err(QueryError::TooMuch);
    }
    let found = compiled.search(value).map_err(|_| QueryError::Failed)?;
    if found.is_null() {
        return Err(QueryError::Nothing);
    }
    match found.as_string() {
        Some(text) => Ok(text.clone().into_bytes()),
        None => serde_json::to_vec(&found).map_err(|_| QueryError::Failed),
    }
}

/// How many functions are called; `None` when something builds new values.
fn functions_in(ast: &Ast) -> Option<usize> {
    let both = |a: &Ast, b: &Ast| Some(functions_in(a)? + functions_in(b)?);
    match ast {
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => Some(0),
        Ast::MultiList { .. } | Ast::MultiHash { .. } => None,
        Ast::Expref { ast: node, .. }
        | Ast::Flatten { node, .. }
        | Ast::Not { node, .. }
        | Ast::ObjectValues { node, .. } => functions_in(node),
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => both(lhs, rhs),
        Ast::Condition { predicate, then, .. } => both(predicate, then),
        Ast::Function { args, .. } => {
            args.iter().try_fold(1, |sum, arg| Some(sum + functions_in(arg)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_found_as_they_are_and_the_rest_as_json() {
        let value = json!({ "user": "u", "port": 5432, "on": true, "a": { "b": ["x", "y"] },
            "odd name": "z" });
        for (expression, found) in [
            ("user", "u"),
            ("port", "5432"),
            ("on", "true"),
            ("a.b[1]", "y"),
            ("a", r#"{"b":["x","y"]}"#),
            ("\"odd name\"", "z"),
            ("join(',', a.b)", "x,y"),
            ("missing || user", "u"),
        ] {
            assert_eq!(find(expression, &value).unwrap(), found.as_bytes(), "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_or_could_grow_is_refused() {
        let value = json!({ "a": 1 });
        let deep = format!("{}a", "(".repeat(600));
        let growing = vec!["[@, @]"; 40].join(" | ");
        let nested = "to_string(to_string(to_string(to_string(to_string(@)))))";
        for (expression, problem) in [
            ("a.", QueryError::Syntax),
            ("b", QueryError::Nothing),
            ("length(a)", QueryError::Failed),
            ("a[::0]", QueryError::Nothing),
            (&growing, QueryError::TooMuch),
            ("{x: a}", QueryError::TooMuch),
            (nested, QueryError::TooMuch),
            (&deep, QueryError::TooMuch),
        ] {
            let said = find(expression, &value);
            // How a step of zero is refused is the library's affair; that it is, is ours.
            let is_refused = said == Err(problem) || (expression == "a[::0]" && said.is_err());
            assert!(is_refused, "{expression}: {said:?}");
        }
    }
}
