//! Query strings of the native dialect.
//!
//! Room      `http`. Names and values are percent-encoded; an unknown name is refused, and so is
//!           one that stands twice.

use lastkey_wire::native::query::{DryRunQuery, PageQuery, VersionQuery};
use lastkey_wire::native::secrets::{ListSecretsQuery, SecretValueQuery};

use crate::problem::Syntax;
use crate::router::percent_decode;

/// A query string of a known shape.
pub(crate) trait Query: Default {
    /// The names it knows.
    const NAMES: &'static [&'static str];

    /// Takes the value of a known name.
    ///
    /// # Errors
    /// What is expected instead.
    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str>;

    /// Whether it asks for a dry run.
    fn is_dry(&self) -> bool;
}

/// Reads a query string.
///
/// # Errors
/// [`Syntax`], naming the parameter.
pub(super) fn parse<Q: Query>(raw: Option<&str>) -> Result<Q, Syntax> {
    let mut query = Q::default();
    let mut seen = Vec::new();
    for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = Q::NAMES.iter().find(|known| **known == name) else {
            return Err(unknown::<Q>());
        };
        if seen.contains(name) {
            return Err(Syntax::field(name, "this parameter is there twice"));
        }
        seen.push(name);
        let value = percent_decode(value, true)
            .ok_or_else(|| Syntax::field(name, "expected percent-encoded UTF-8"))?;
        query.take(name, value).map_err(|expected| Syntax::field(name, expected))?;
    }
    Ok(query)
}

/// The name is not repeated: it may be a secret in the wrong place.
fn unknown<Q: Query>() -> Syntax {
    Syntax {
        field: Some("query".to_owned()),
        message: "there is no such parameter".into(),
        allowed: Q::NAMES.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Yes or no.
pub(super) fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("expected true or false"),
    }
}

impl Query for DryRunQuery {
    const NAMES: &'static [&'static str] = &["dry_run"];

    fn take(&mut self, _: &str, value: String) -> Result<(), &'static str> {
        self.dry_run = switch(&value)?;
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

impl Query for PageQuery {
    const NAMES: &'static [&'static str] = &["limit", "marker", "dry_run"];

    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "limit" => {
                self.limit = Some(value.parse().map_err(|_| "expected a number from 1 to 1000")?);
            }
            "marker" => self.marker = Some(value),
            _ => self.dry_run = switch(&value)?,
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

impl Query for VersionQuery {
    const NAMES: &'static [&'static str] = &["version", "dry_run"];

    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "version" => {
                self.version = Some(value.parse().map_err(|_| "expected a number from 1")?);
            }
            _ => self.dry_run = switch(&value)?,
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

impl Query for SecretValueQuery {
    const NAMES: &'static [&'static str] = &["version", "stage", "dry_run"];

    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "version" => {
                self.version = Some(value.parse().map_err(|_| "expected a number from 1")?);
            }
            "stage" => self.stage = Some(value),
            _ => self.dry_run = switch(&value)?,
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

impl Query for ListSecretsQuery {
    const NAMES: &'static [&'static str] = &[
        "path",
        "recursive",
        "name",
        "tag",
        "older_than_seconds",
        "deleted",
        "limit",
        "marker",
        "dry_run",
    ];

    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "path" => self.path = Some(value),
            "recursive" => self.recursive = switch(&value)?,
            "name" => self.name = Some(value),
            "tag" => self.tag = Some(value),
            "older_than_seconds" => {
                let seconds = value.parse().map_err(|_| "expected a number of seconds")?;
                self.older_than_seconds = Some(seconds);
            }
            "deleted" => self.deleted = switch(&value)?,
            "limit" => {
                self.limit = Some(value.parse().map_err(|_| "expected a number from 1 to 1000")?);
            }
            "marker" => self.marker = Some(value),
            _ => self.dry_run = switch(&value)?,
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_read_and_decoded() {
        let page: PageQuery = parse(Some("limit=7&marker=alias%2Fa+b&dry_run=true")).unwrap();
        assert_eq!(page.limit, Some(7));
        assert_eq!(page.marker.as_deref(), Some("alias/a b"));
        assert!(page.dry_run && page.is_dry());
        assert!(!parse::<DryRunQuery>(None).unwrap().dry_run);
        assert_eq!(parse::<VersionQuery>(Some("version=3")).unwrap().version, Some(3));
    }

    #[test]
    fn query_refuses_what_it_does_not_know_and_does_not_repeat_it() {
        for (raw, field) in [
            ("hunter2=1", "query"),
            ("limit=hunter2", "limit"),
            ("limit=1&limit=2", "limit"),
            ("dry_run=yes", "dry_run"),
            ("marker=%zz", "marker"),
            ("limit", "limit"),
        ] {
            let refused = parse::<PageQuery>(Some(raw)).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some(field), "{raw}");
            assert!(!refused.message.contains("hunter2"), "{}", refused.message);
        }
    }
}
