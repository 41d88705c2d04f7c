//! `secret import`: many secrets at once, from what other programs export.
//!
//! Room      `lastkey`. The files are read here; the server sees ordinary writes.
//! Holds     nothing is written before every file was read whole and every name is known to be
//!           good and there once. A secret that is there already is left alone unless the person
//!           says otherwise. No message holds a value.

mod dotenv;
mod json;
mod kubernetes;

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, ValueEnum};
use lastkey_client::Client;
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_secret::SecretVec;
use lastkey_wire::{
    SecretBase64, StringMap,
    native::secrets::{PutSecretRequest, SecretView},
};
use serde::Serialize;

use crate::cli::{
    args::{DryRunArgs, is_dash},
    failure::Failure,
    input::Source,
    session::Session,
    table::{Show, grid},
};

/// Longest file, in bytes.
const FILE_LIMIT: usize = 64 << 20;

/// Arguments of `secret import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// What wrote the files
    #[arg(long, value_enum)]
    from: Format,
    /// Files (`-`: standard input)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Path that the secrets come to
    #[arg(long, value_name = "PATH", default_value = "")]
    to: String,
    /// Name below that path, for a file that holds one secret without a name [default: the name of
    /// the file without its ending]
    #[arg(long)]
    name: Option<String>,
    /// Key that protects them: id or alias
    #[arg(long)]
    key: Option<String>,
    /// Write a new version of what is there already
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// What wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Secrets of Kubernetes, as manifests or `kubectl get secrets -o yaml` write them
    Kubernetes,
    /// Lines NAME=VALUE: one secret with fields
    Dotenv,
    /// JSON: an object of texts is a secret with fields, one of objects a path
    Json,
    /// `vault kv get -format=json`, of the KV engine version 2
    VaultKv2,
    /// `aws secretsmanager get-secret-value` or `batch-get-secret-value`
    Aws,
}

/// A secret that a file holds.
pub(super) struct Found {
    /// Its name there, if it has one.
    pub(super) name: Option<String>,
    /// Its value.
    pub(super) value: FoundValue,
    /// What to remember of where it came from.
    pub(super) tags: BTreeMap<String, String>,
}

/// A value: bytes, or fields.
pub(super) enum FoundValue {
    Bytes(SecretVec),
    Fields(BTreeMap<String, SecretVec>),
}

impl Found {
    fn fields(name: Option<String>, fields: BTreeMap<String, SecretVec>) -> Self {
        Self { name, value: FoundValue::Fields(fields), tags: BTreeMap::new() }
    }
}

/// What became of one secret. Names of fields are told, values never.
#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
    result: String,
}

/// What became of all of them.
#[derive(Serialize)]
struct Imported {
    secrets: Vec<Row>,
}

impl Show for Imported {
    fn table(&self) -> String {
        let row = |row: &Row| vec![row.name.clone(), row.fields.join(", "), row.result.clone()];
        grid(&["SECRET", "FIELDS", "RESULT"], self.secrets.iter().map(row))
    }
}

/// Imports files.
pub(crate) async fn import(args: ImportArgs, session: &Session) -> Result<(), Failure> {
    let all = read_all(&args)?;
    let client = session.client()?;
    let (mut secrets, mut left) = (Vec::new(), 0_usize);
    for (name, found) in all {
        let (fields, mut request) = request(found, &args)?;
        let mut result = written(&client, &name, &request, &args).await?;
        if args.overwrite && request.tags.is_some() && result == IS_THERE {
            // Policies rest on the tags of a secret that is there; only its value is imported.
            (request.tags, request.expected_version) = (None, None);
            result = written(&client, &name, &request, &args).await?;
        }
        left += usize::from(!result.starts_with("version") && !result.starts_with("would be"));
        secrets.push(Row { name: name.to_string(), fields, result });
    }
    session.show(&Imported { secrets })?;
    if left == 0 {
        return Ok(());
    }
    Err(Failure::Input(format!("{left} secrets were not written; the table says why")))
}

/// Writes a secret, or asks whether that could be done, and tells what became of it.
async fn written(
    client: &Client,
    name: &SecretName,
    request: &PutSecretRequest,
    args: &ImportArgs,
) -> Result<String, Failure> {
    let call = client.put_secret(name.as_str(), request);
    if !args.dry_run.dry_run {
        return told(call.send().await);
    }
    let verdict = call.dry_run().await?;
    Ok(if verdict.allowed { "would be written".to_owned() } else { refusal(verdict.why) })
}

fn refusal(why: Option<String>) -> String {
    match why.as_deref() {
        Some("Conflict") => IS_THERE.to_owned(),
        Some(why) => format!("refused: {why}"),
        None => "refused".to_owned(),
    }
}

const IS_THERE: &str = "is there already; --overwrite writes a new version";

/// What became of a write. A server that cannot be reached, or no right to write, ends the import.
fn told(outcome: Result<SecretView, lastkey_client::Error>) -> Result<String, Failure> {
    match outcome {
        Ok(view) => Ok(format!("version {}", view.newest_version)),
        Err(error) => match error.code() {
            Some("Conflict") => Ok(IS_THERE.to_owned()),
            Some("SecretState") => Ok("is deleted; restore it first".to_owned()),
            Some(_) | None => Err(error.into()),
        },
    }
}

/// Reads all files, and puts their secrets in the order of their names here.
fn read_all(args: &ImportArgs) -> Result<BTreeMap<SecretName, Found>, Failure> {
    let path = SecretPath::parse(&args.to).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut all = BTreeMap::new();
    for file in &args.files {
        let text = Source::open(Some(file))?.read_secret(FILE_LIMIT)?;
        let about = |problem: String| Failure::Input(format!("{}: {problem}", file.display()));
        if text.len() == FILE_LIMIT {
            return Err(about("is longer than 64 MiB".to_owned()));
        }
        let found = text.expose(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => args.from.read(text),
            Err(_) => Err("is not UTF-8 text".to_owned()),
        });
        for found in found.map_err(about)? {
            let named = found.name.clone().or_else(|| args.name.clone());
            let Some(own) = named.or_else(|| stem(file)) else {
                return Err(about("holds a secret without a name; give --name".to_owned()));
            };
            let full = format!("{}{}", path.prefix(), own.trim_start_matches('/'));
            let name = SecretName::parse(&full).map_err(|e| about(format!("{full:?}: {e}")))?;
            if all.contains_key(&name) {
                return Err(about(format!("{name} is there twice")));
            }
            all.insert(name, found);
        }
    }
    Ok(all)
}

fn stem(file: &std::path::Path) -> Option<String> {
    if is_dash(file) {
        return None;
    }
    let name = file.file_name()?.to_str()?;
    // `.env` is all ending; then its own name is better than none.
    let bare = name.trim_start_matches('.');
    Some(bare.rsplit_once('.').map_or(bare, |(stem, _)| stem).to_owned())
}

fn request(found: Found, args: &ImportArgs) -> Result<(Vec<String>, PutSecretRequest), Failure> {
    let has_tags = !found.tags.is_empty();
    let mut request = PutSecretRequest {
        key: args.key.clone(),
        tags: has_tags.then_some(StringMap(found.tags)),
        // What has tags is made with them or not at all.
        expected_version: (!args.overwrite || has_tags).then_some(0),
        ..PutSecretRequest::default()
    };
    let names = match found.value {
        FoundValue::Bytes(bytes) => {
            request.value = Some(SecretBase64(bytes));
            Vec::new()
        }
        FoundValue::Fields(fields) => {
            let names = fields.keys().cloned().collect();
            let fields = fields.into_iter().map(|(name, value)| (name, SecretBase64(value)));
            request.fields = Some(fields.collect());
            names
        }
    };
    Ok((names, request))
}

impl Format {
    /// The secrets in a text, or what is wrong with it, without a word of it.
    fn read(self, text: &str) -> Result<Vec<Found>, String> {
        match self {
            Self::Kubernetes => kubernetes::read(text),
            Self::Dotenv => Ok(vec![Found::fields(None, dotenv::read(text)?)]),
            Self::Json => json::tree(text),
            Self::VaultKv2 => json::vault_kv2(text),
            Self::Aws => json::aws(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::stem;

    #[test]
    fn a_file_names_its_secret_by_its_stem() {
        for (file, name) in [("a/db.json", "db"), (".env", "env"), (".env.prod", "env"), ("x", "x")]
        {
            assert_eq!(stem(Path::new(file)).as_deref(), Some(name), "{file}");
        }
        assert_eq!(stem(Path::new("-")), None);
    }
}
