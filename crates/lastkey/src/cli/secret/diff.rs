//! `secret diff`: in what two versions differ.
//!
//! Room      `lastkey`. Both are read as they would be by `secret get`, and compared here.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use lastkey_wire::{
    SecretBase64,
    native::secrets::{SecretValueQuery, SecretValueReply},
};
use serde::Serialize;

use crate::cli::{
    failure::Failure,
    session::Session,
    table::{Show, grid},
};

/// Arguments of `secret diff`.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// Name of the secret
    name: String,
    /// The older version [default: the previous one]
    #[arg(long, value_name = "N")]
    from: Option<u32>,
    /// The newer version [default: the current one]
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// Show the values too
    #[arg(long)]
    show_values: bool,
}

/// In what two versions differ.
#[derive(Serialize)]
struct Differences {
    name: String,
    from: u32,
    to: u32,
    changes: Vec<Difference>,
}

/// One field, or the value as a whole, that is not the same.
#[derive(Serialize)]
struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SecretBase64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<SecretBase64>,
}

/// Shows in what two versions differ.
pub(crate) async fn diff(args: DiffArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let from = SecretValueQuery {
        version: args.from,
        stage: args.from.is_none().then(|| "previous".to_owned()),
        dry_run: false,
    };
    let to = SecretValueQuery { version: args.to, ..SecretValueQuery::default() };
    let from = client.get_secret(&args.name, &from).await?;
    let to = client.get_secret(&args.name, &to).await?;
    session.show(&compared(from, to, args.show_values))
}

fn compared(from: SecretValueReply, to: SecretValueReply, show: bool) -> Differences {
    let (name, versions) = (to.name.clone(), (from.version, to.version));
    let (mut old, mut new) = (parts(from), parts(to));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let changes = names.into_iter().filter_map(|field| {
        let (from, to) = (old.remove(&field), new.remove(&field));
        let change = match (&from, &to) {
            (Some(from), Some(to)) if from.0.ct_eq(&to.0) => return None,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "removed",
            (None, _) => "added",
        };
        let (from, to) = if show { (from, to) } else { (None, None) };
        Some(Difference { field, change, from, to })
    });
    Differences { name, from: versions.0, to: versions.1, changes: changes.collect() }
}

/// The fields; a value without fields is one part without a name.
fn parts(reply: SecretValueReply) -> BTreeMap<Option<String>, SecretBase64> {
    let fields = reply.fields.into_iter().flatten().map(|(name, value)| (Some(name), value));
    reply.value.into_iter().map(|value| (None, value)).chain(fields).collect()
}

impl Show for Differences {
    fn table(&self) -> String {
        let text = |value: &Option<SecretBase64>| match value {
            Some(SecretBase64(value)) => {
                value.expose(|bytes| String::from_utf8_lossy(bytes).into_owned())
            }
            None => "-".to_owned(),
        };
        let row = |one: &Difference| {
            let field = one.field.clone().unwrap_or_else(|| "(the value)".to_owned());
            vec![field, one.change.to_owned(), text(&one.from), text(&one.to)]
        };
        let (from, to) = (format!("VERSION {}", self.from), format!("VERSION {}", self.to));
        grid(&["FIELD", "CHANGE", &from, &to], self.changes.iter().map(row))
    }
}
