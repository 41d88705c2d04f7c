//! Templates: a text with places for secrets.
//!
//! Room      `node`.
//! Source    Jinja's language, by minijinja.
//! Holds     A template comes from whoever writes a pod: it has no loader, little fuel, and a bound
//!           on what it writes. No message repeats a value.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value};
use serde_json::Value as Json;

/// Longest text that a template may write, in bytes.
const MAX_LEN: usize = 1 << 20;
/// Enough for some thousand steps, and for texts of a megabyte.
const FUEL: u64 = 100_000;

/// Why a template gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("the template names `{0}`, which does not stand under `secrets`")]
    Unnamed(String),
    #[error("the template names `{0}`, which that secret does not have")]
    NoField(String),
    #[error("the template cannot be rendered: {kind} in line {line}")]
    Failed { kind: String, line: usize },
    #[error("the template writes more than {MAX_LEN} bytes")]
    TooLong,
}

/// Renders a template over secrets by name.
pub(super) fn render(
    text: &str,
    secrets: &BTreeMap<String, Json>,
) -> Result<Vec<u8>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    let template = environment.template_from_str(text).map_err(|error| failed(&error))?;
    for name in template.undeclared_variables(true) {
        let (secret, field) = name.split_once('.').unwrap_or((&name, ""));
        let known = secrets.get(secret);
        // A function of the language, such as `range`, is no secret.
        let is_global = || environment.globals().any(|(global, _)| global == secret);
        match known {
            None if !is_global() => return Err(TemplateError::Unnamed(secret.to_owned())),
            Some(Json::Object(fields))
                if !field.is_empty() && !fields.contains_key(first(field)) =>
            {
                return Err(TemplateError::NoField(name));
            }
            Some(_) | None => {}
        }
    }
    let context: BTreeMap<String, Value> =
        secrets.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
    let mut rendered = template.render(Value::from(context)).map_err(|error| failed(&error))?;
    // The language drops the last end of a line; a file keeps it.
    if text.ends_with('\n') {
        rendered.push('\n');
    }
    if rendered.len() > MAX_LEN { Err(TemplateError::TooLong) } else { Ok(rendered.into_bytes()) }
}

fn first(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// Kind and line alone: details may repeat what was worked on.
fn failed(error: &minijinja::Error) -> TemplateError {
    TemplateError::Failed { kind: error.kind().to_string(), line: error.line().unwrap_or_default() }
}

fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(real)) => Value::from(real),
            (None, None) => Value::from(number.to_string()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), value_of(value)));
            Value::from(fields.collect::<BTreeMap<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> BTreeMap<String, Json> {
        [
            ("db".to_owned(), json!({ "user": "u", "password": "p<&>\"", "port": 5432 })),
            ("salt".to_owned(), json!("s")),
        ]
        .into()
    }

    #[test]
    fn secrets_stand_in_their_places_as_they_are() {
        let text = "postgres://{{ db.user }}:{{ db['password'] }}@h:{{ db.port }}/{{ salt }}\n";
        let rendered = render(text, &secrets()).unwrap();
        assert_eq!(String::from_utf8(rendered).unwrap(), "postgres://u:p<&>\"@h:5432/s\n");
        let looped = "{% for i in range(3) %}{{ i }}{% endfor %}";
        assert_eq!(render(looped, &secrets()).unwrap(), b"012");
    }

    #[test]
    fn what_is_not_there_is_told_by_name_and_no_value_is_repeated() {
        for (text, error) in [
            ("{{ api.key }}", TemplateError::Unnamed("api".to_owned())),
            ("{{ db.host }}", TemplateError::NoField("db.host".to_owned())),
        ] {
            assert_eq!(render(text, &secrets()), Err(error));
        }
        for text in ["{{ db.user", "{{ db.password|int }}", "{% include 'x' %}"] {
            let said = render(text, &secrets()).unwrap_err().to_string();
            assert!(!said.contains("p<&>"), "{said}");
        }
    }

    #[test]
    fn template_that_goes_on_for_ever_or_fills_memory_ends() {
        for text in [
            "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}\
             {% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        ] {
            render(text, &secrets()).unwrap_err();
        }
    }
}
