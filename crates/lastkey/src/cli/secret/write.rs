//! `secret put`.
//!
//! Room      `lastkey`.
//! Holds     a value that stands in an argument is warned about: everybody on the machine can read
//!           arguments, and shells keep them.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args};
use lastkey_secret::SecretVec;
use lastkey_wire::{SecretBase64, native::secrets::PutSecretRequest};

use crate::cli::{
    args::{BadValue, DryRunArgs, Pair, wire_map},
    failure::Failure,
    input::Source,
    output,
    session::Session,
};

/// One byte more than any server takes: a longer value is refused by the server, with its own
/// words, and costs no memory here.
pub(super) const VALUE_LIMIT: usize = (1 << 20) + 1;

/// Arguments of `secret put`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("value").required(true).multiple(true)
    .args(["value_file", "fields", "field_files"]))]
pub(crate) struct PutArgs {
    /// Name of the secret, such as prod/shop/db
    name: String,
    /// File with the value (`-`: standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fields", "field_files"])]
    value_file: Option<PathBuf>,
    /// A field with a name (repeatable). Arguments can be seen by others: better --field-file
    #[arg(long = "field", value_name = "NAME=VALUE")]
    fields: Vec<Field>,
    /// A field with a name, its value from a file (repeatable; `-`: standard input)
    #[arg(long = "field-file", value_name = "NAME=FILE")]
    field_files: Vec<Pair>,
    /// Key that protects it: id or alias [default: the secret's own, or alias/lastkey/secrets]
    #[arg(long)]
    key: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Tag (repeatable); these are all the tags then
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<Pair>,
    /// Write only if this is the newest version now (0: only if there is no such secret)
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<u32>,
    /// Where the version stands: current, pending, or a label of your own [default: current]
    #[arg(long)]
    stage: Option<String>,
    /// How many versions are kept, 1 to 100
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// `NAME=VALUE`, the value a secret.
#[derive(Debug)]
struct Field {
    name: String,
    value: SecretVec,
}

impl Clone for Field {
    // The parser of the command line keeps copies of what it parsed.
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), value: self.value.expose(SecretVec::copy_of) }
    }
}

impl FromStr for Field {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let Pair { name, value } = text.parse()?;
        Ok(Self { name, value: SecretVec::take_text(value) })
    }
}

/// Writes a version.
pub(crate) async fn put(args: PutArgs, session: &Session) -> Result<(), Failure> {
    let PutArgs { name, value_file, fields, field_files, dry_run, .. } = args;
    if !fields.is_empty() {
        output::note(
            "warning: a value in an argument can be read by everybody on this machine, and stays \
             in the history of the shell; use --field-file or --value-file",
        );
    }
    let value = match value_file {
        Some(path) => Some(SecretBase64(Source::open(Some(&path))?.read_secret(VALUE_LIMIT)?)),
        None => None,
    };
    let request = PutSecretRequest {
        fields: if value.is_some() { None } else { Some(collected(fields, field_files)?) },
        value,
        key: args.key,
        description: args.description,
        tags: wire_map(&args.tags)?,
        expected_version: args.expected_version,
        stage: args.stage,
        keep_versions: args.keep,
    };
    session.settle_and_show(session.client()?.put_secret(&name, &request), dry_run).await
}

fn collected(
    fields: Vec<Field>,
    files: Vec<Pair>,
) -> Result<BTreeMap<String, SecretBase64>, Failure> {
    let mut all = BTreeMap::new();
    let typed = fields.into_iter().map(|field| Ok((field.name, field.value)));
    let read = files.into_iter().map(|file| {
        let source = Source::open(Some(file.value.as_ref()))?;
        Ok((file.name, source.read_secret(VALUE_LIMIT)?))
    });
    let read: Result<Vec<_>, Failure> = typed.chain(read).collect();
    for (name, value) in read? {
        let twice = format!("the field {name:?} stands there twice");
        if all.insert(name, SecretBase64(value)).is_some() {
            return Err(Failure::Usage(twice));
        }
    }
    Ok(all)
}
