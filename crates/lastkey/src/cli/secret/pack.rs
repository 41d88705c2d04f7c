//! `secret scan-pack`: marks of values, by which `lastkey scan` finds them where they should not be.
//!
//! Room      `lastkey`. What stands in a pack is `checks::scan::pack`; here values are read one by
//!           one, by the rights of the caller, and wiped.
//! Source    docs/formats/scan-pack.md.
//! Holds     A value that the caller may not read, or that could be guessed, is not in the pack,
//!           and is counted. The key that signs is drawn for the pack unless one is given, and
//!           leaves nothing behind but its public half.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use lastkey_checks::scan::pack::{Builder, ValueId, Width};
use lastkey_client::Client;
use lastkey_core::secret_item::SecretId;
use lastkey_crypto::{
    entropy::{Entropy as _, SystemEntropy},
    material::{self, MaterialSpec},
    sign::{Message, SignAlgorithm, SigningKey},
};
use lastkey_secret::SecretVec;
use lastkey_wire::{
    SecretBase64,
    native::secrets::{ListSecretsQuery, SecretValueQuery, SecretValueReply},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::Serialize;

use crate::cli::{
    args::{OutArgs, Span},
    failure::Failure,
    key::paging::{self, ListArgs},
    output::{self, Content},
    progress::CountProgress,
    session::Session,
};

/// A match of so many bits is no chance.
const CERTAIN: Width = Width::Bits(64);
const NOT_FOUND: u16 = 404;
const DENIED: u16 = 403;

/// Arguments of `secret scan-pack`.
#[derive(Args, Debug)]
pub(crate) struct PackArgs {
    /// Path below which secrets are taken, such as prod/shop [default: everything]
    path: Option<String>,
    /// Write here, in JSON, which entry stands for which secret
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// For how long scanners take it
    #[arg(long, value_name = "TIME", default_value = "30d")]
    lifetime: Span,
    /// Marks so short that a match has to be confirmed by the service (`scan --confirm`)
    #[arg(long)]
    narrow: bool,
    /// Ed25519 key in PEM (PKCS#8) that signs; without one, a key is drawn for this pack alone
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// Which entry stands for which secret.
#[derive(Serialize)]
struct Entry {
    entry: u32,
    name: String,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

/// What became of the values.
#[derive(Default)]
struct Counts {
    guessable: usize,
    unreadable: usize,
}

/// Reads what the caller may read, and writes the pack.
pub(crate) async fn scan_pack(args: PackArgs, session: &Session) -> Result<(), Failure> {
    let signer = signing_key(args.signing_key.as_deref())?;
    let mut builder = builder(args.lifetime)?;
    let client = session.client()?;
    let query =
        ListSecretsQuery { path: args.path, recursive: true, ..ListSecretsQuery::default() };
    let all = paging::listed(ListArgs::everything(), async |page| {
        let query = ListSecretsQuery { limit: page.limit, marker: page.marker, ..query.clone() };
        client.list_secrets(&query).await
    });
    let secrets = all.await?.secrets;
    let (mut index, mut counts) = (Vec::new(), Counts::default());
    let progress = CountProgress::new("reading", secrets.len() as u64);
    for secret in secrets {
        match value(&client, &secret.name).await? {
            Some(reply) => add(reply, id(&secret.id)?, &mut builder, &mut index, &mut counts)?,
            None => counts.unreadable += 1,
        }
        progress.advance();
    }
    drop(progress);
    let width = if args.narrow { Width::Narrow } else { CERTAIN };
    let (pack, public) = sign(builder, width, &signer)?;
    output::write_whole(&args.out, &pack, Content::Binary)?;
    if let Some(path) = args.index {
        let to = OutArgs { out: Some(path), force: args.out.force };
        output::write_by(&to, |out| Ok(serde_json::to_writer_pretty(out, &index)?))?;
    }
    output::note(&told(&index, &counts, &public));
    Ok(())
}

fn told(index: &[Entry], counts: &Counts, public: &str) -> String {
    let mut said = format!(
        "{} values in the pack; {} can be guessed and {} may not be read: those are not in it\n\
         its signer, for `lastkey scan --pack-signer`: {public}",
        index.len(),
        counts.guessable,
        counts.unreadable
    );
    if index.is_empty() {
        said.push_str("\nnothing will be found by it");
    }
    said
}

/// The current value; `None` when it may not be read, or went meanwhile.
async fn value(client: &Client, name: &str) -> Result<Option<SecretValueReply>, Failure> {
    match client.get_secret(name, &SecretValueQuery::default()).send().await {
        Ok(reply) => Ok(Some(reply)),
        Err(error) => match error.refusal().map(|refusal| refusal.status) {
            Some(DENIED | NOT_FOUND) => Ok(None),
            Some(_) | None => Err(error.into()),
        },
    }
}

/// The identity of a secret, which stays when it is moved.
fn id(text: &str) -> Result<[u8; 16], Failure> {
    let id = SecretId::parse(text);
    id.map(|id| id.0).map_err(|error| Failure::Input(format!("the server names {text}: {error}")))
}

fn add(
    reply: SecretValueReply,
    // secrets: allow, the identity of a secret, which is none
    secret: [u8; 16],
    builder: &mut Builder,
    index: &mut Vec<Entry>,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let id = ValueId { secret, version: reply.version };
    let fields = reply.fields.unwrap_or_default().into_iter();
    let named = fields.map(|(name, SecretBase64(value))| (Some(name), value));
    let whole = reply.value.into_iter().map(|SecretBase64(value)| (None, value));
    for (field, value) in whole.chain(named) {
        let added = value.expose(|value| builder.add(value, id));
        match added.map_err(|error| Failure::Input(error.to_string()))? {
            Some(entry) => {
                let (name, version) = (reply.name.clone(), reply.version);
                index.push(Entry { entry, name, version, field });
            }
            None => counts.guessable += 1,
        }
    }
    Ok(())
}

fn signing_key(path: Option<&Path>) -> Result<SigningKey, Failure> {
    let material = match path {
        Some(path) => {
            let der = PrivateKeyDer::from_pem_file(path)
                .map_err(|cause| Failure::Input(format!("{}: {cause}", path.display())))?;
            SecretVec::copy_of(der.secret_der())
        }
        None => material::generate(MaterialSpec::Ed25519, &mut SystemEntropy)
            .map_err(|error| Failure::Input(error.to_string()))?,
    };
    SigningKey::new(MaterialSpec::Ed25519, &material).map_err(|error| {
        let path = path.map(|path| format!("{}: ", path.display())).unwrap_or_default();
        Failure::Input(format!("{path}{error}; an Ed25519 key in PKCS#8 signs packs"))
    })
}

fn builder(lifetime: Span) -> Result<Builder, Failure> {
    let mut id = [0; 16];
    let mut keys = [0; 32];
    for drawn in [&mut id[..], &mut keys[..]] {
        SystemEntropy.fill(drawn).map_err(|error| Failure::Input(error.to_string()))?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let expires = now.saturating_add(lifetime.seconds);
    Builder::new(id, (now, expires), keys).map_err(|error| Failure::Input(error.to_string()))
}

/// The signed pack, and its signer in base64.
fn sign(builder: Builder, width: Width, key: &SigningKey) -> Result<(Vec<u8>, String), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Input(error.to_string());
    let der = key.public_key_der().map_err(|error| failed(&error))?;
    // A SubjectPublicKeyInfo of Ed25519 ends with the key itself (RFC 8410).
    let public = *der.last_chunk::<32>().unwrap_or(&[0; 32]);
    let mut refused = None;
    let pack = builder.finish(width, public, &mut |bytes| {
        let signed = key.sign(SignAlgorithm::Ed25519, Message::Raw(bytes));
        signed
            .map_err(|error| refused = Some(error))
            .ok()
            .and_then(|made| made.try_into().ok())
            .unwrap_or([0; 64])
    });
    match refused {
        Some(error) => Err(failed(&error)),
        None => Ok((pack.map_err(|error| failed(&error))?, STANDARD.encode(public))),
    }
}
