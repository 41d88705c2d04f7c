//! `secret get`, `secret list`.
//!
//! Room      `lastkey`.

use std::collections::BTreeMap;

use clap::Args;
use lastkey_secret::SecretVec;
use lastkey_wire::{
    SecretBase64,
    native::secrets::{ListSecretsQuery, SecretValueQuery, SecretValueReply},
};
use serde::Serializer as _;
use serde::ser::SerializeMap as _;

use crate::cli::{
    args::{DryRunArgs, Encoding, Format, OutArgs, Span},
    failure::Failure,
    key::paging::{self, listed},
    output,
    session::Session,
};

/// Which version.
#[derive(Args, Debug, Default)]
pub(super) struct WhichArgs {
    /// The version
    #[arg(long, value_name = "N", conflicts_with = "stage")]
    pub(super) version: Option<u32>,
    /// The stage: current, previous, pending, or a label of your own [default: current]
    #[arg(long)]
    pub(super) stage: Option<String>,
}

impl WhichArgs {
    pub(super) fn query(self) -> SecretValueQuery {
        SecretValueQuery { version: self.version, stage: self.stage, dry_run: false }
    }
}

/// Arguments of `secret get`.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Name of the secret
    name: String,
    #[command(flatten)]
    which: WhichArgs,
    /// One field alone
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// How to write the value
    #[arg(long, value_enum, default_value = "raw")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Reads a value: its bytes, or its fields as a JSON object.
pub(crate) async fn get(args: GetArgs, session: &Session) -> Result<(), Failure> {
    let (client, query) = (session.client()?, args.which.query());
    let call = client.get_secret(&args.name, &query);
    let Some(reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    if session.format() == Format::Json && args.field.is_none() {
        return session.show_json(&reply);
    }
    let value = chosen(reply, args.field.as_deref())?;
    output::write_secret(&args.out, &value, args.format)
}

/// The bytes to write.
pub(super) fn chosen(reply: SecretValueReply, field: Option<&str>) -> Result<SecretVec, Failure> {
    match (reply.value, reply.fields, field) {
        (Some(SecretBase64(value)), _, None) => Ok(value),
        (None, Some(fields), None) => json_object(&fields),
        (_, Some(mut fields), Some(name)) => {
            fields.remove(name).map(|SecretBase64(value)| value).ok_or_else(|| {
                let names: Vec<_> = fields.keys().map(String::as_str).collect();
                Failure::Input(format!(
                    "there is no field {name:?}; there are {}",
                    names.join(", ")
                ))
            })
        }
        (_, None, _) => Err(Failure::Input("the value has no fields".to_owned())),
    }
}

/// Fields as one JSON object of texts, in memory that is wiped.
fn json_object(fields: &BTreeMap<String, SecretBase64>) -> Result<SecretVec, Failure> {
    let most = |(name, value): (&String, &SecretBase64)| 6 * (name.len() + value.0.len()) + 8;
    let mut out = Vec::with_capacity(fields.iter().map(most).sum::<usize>() + 8);
    let mut writer = serde_json::Serializer::pretty(&mut out);
    let mut binary = None;
    let written = (|| {
        let mut map = writer.serialize_map(Some(fields.len()))?;
        for (name, SecretBase64(value)) in fields {
            value.expose(|bytes| match std::str::from_utf8(bytes) {
                Ok(text) => map.serialize_entry(name, text),
                Err(_) => {
                    binary = Some(name.clone());
                    Ok(())
                }
            })?;
        }
        map.end()
    })();
    out.push(b'\n');
    let out = SecretVec::take(out);
    if let Some(name) = binary {
        let advice =
            format!("the field {name:?} is not text; read it with --field, or --output json");
        return Err(Failure::Input(advice));
    }
    match written {
        Ok(()) => Ok(out),
        Err(_) => Err(Failure::Input("the fields cannot be written as JSON".to_owned())),
    }
}

/// Arguments of `secret list`.
#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    /// Path, such as prod/shop [default: everything]
    path: Option<String>,
    /// Also what lies in paths below
    #[arg(long, short)]
    recursive: bool,
    /// Only names that contain this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only secrets with this tag
    #[arg(long, value_name = "NAME[=VALUE]")]
    tag: Option<String>,
    /// Only secrets to which nothing was written for so long, such as 90d
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
    /// Only those that are deleted and can be restored
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    page: paging::ListArgs,
}

/// Lists secrets.
pub(crate) async fn list(args: SearchArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let query = ListSecretsQuery {
        path: args.path,
        recursive: args.recursive,
        name: args.name,
        tag: args.tag,
        older_than_seconds: args.older_than.map(|span| span.seconds),
        deleted: args.deleted,
        ..ListSecretsQuery::default()
    };
    let all = listed(args.page, async |page| {
        let query = ListSecretsQuery { limit: page.limit, marker: page.marker, ..query.clone() };
        client.list_secrets(&query).await
    });
    session.show(&all.await?)
}
