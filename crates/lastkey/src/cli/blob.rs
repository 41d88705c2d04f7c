//! `blob encrypt`, `blob decrypt`, `reencrypt`, `batch`: ciphertexts made by the server.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lastkey_client::Client;
use lastkey_wire::{
    Base64Bytes, SecretBase64,
    native::{
        batch::BatchRequest,
        operations::{DecryptRequest, EncryptRequest, ReencryptRequest},
    },
};
use serde::de::DeserializeOwned;

use super::{
    args::{ContextArgs, DryRunArgs, Encoding, Format, OutArgs, Pair, wire_map},
    failure::Failure,
    input, output,
    session::Session,
};

/// Subcommands of `blob`.
#[derive(Subcommand, Debug)]
pub(crate) enum BlobCommand {
    /// Encrypt at most 64 KiB
    Encrypt(EncryptArgs),
    /// Decrypt a ciphertext; it names its key itself
    Decrypt(DecryptArgs),
}

/// Arguments of `blob encrypt`.
#[derive(Args, Debug)]
pub(crate) struct EncryptArgs {
    /// Key: id or alias
    #[arg(long)]
    key: String,
    /// Plaintext file (default: standard input)
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// Plaintext itself; other users of this machine can see it
    #[arg(long, conflicts_with = "input")]
    text: Option<String>,
    #[command(flatten)]
    context: ContextArgs,
    /// How to write the ciphertext
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `blob decrypt`.
#[derive(Args, Debug)]
pub(crate) struct DecryptArgs {
    /// Ciphertext file (default: standard input)
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// Key it must have been encrypted under; RSA ciphertexts need it
    #[arg(long)]
    key: Option<String>,
    /// Key version; RSA ciphertexts only
    #[arg(long, requires = "key", value_name = "N")]
    version: Option<u32>,
    #[command(flatten)]
    context: ContextArgs,
    /// How the ciphertext is written
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `reencrypt`.
#[derive(Args, Debug)]
pub(crate) struct ReencryptArgs {
    /// Ciphertext file (default: standard input)
    file: Option<PathBuf>,
    /// Key of the new ciphertext: id or alias
    #[arg(long, value_name = "KEY")]
    to_key: String,
    #[command(flatten)]
    context: ContextArgs,
    /// Encryption context of the new ciphertext (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    to_context: Vec<Pair>,
    /// Key it must have been encrypted under; RSA ciphertexts need it
    #[arg(long, value_name = "KEY")]
    from_key: Option<String>,
    /// Key version; RSA ciphertexts only
    #[arg(long, requires = "from_key", value_name = "N")]
    from_version: Option<u32>,
    /// How both ciphertexts are written
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `batch`.
#[derive(Args, Debug)]
pub(crate) struct BatchArgs {
    /// Operation that all items ask for
    #[arg(value_enum)]
    operation: BatchOperation,
    /// File with the JSON body {"items": [...]} (default: standard input)
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BatchOperation {
    Encrypt,
    Decrypt,
    Reencrypt,
    DataKey,
    DataKeyWithoutPlaintext,
}

/// Runs one of the subcommands of `blob`.
pub(crate) async fn blob(command: BlobCommand, session: &Session) -> Result<(), Failure> {
    match command {
        BlobCommand::Encrypt(args) => encrypt(args, session).await,
        BlobCommand::Decrypt(args) => decrypt(args, session).await,
    }
}

async fn encrypt(args: EncryptArgs, session: &Session) -> Result<(), Failure> {
    let request = EncryptRequest {
        key: args.key,
        plaintext: SecretBase64(input::message(args.text.as_deref(), args.input.as_deref())?),
        context: args.context.wire()?,
        context_raw: None,
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.encrypt(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_encoded(&args.out, &reply.ciphertext.0, args.format)
}

async fn decrypt(args: DecryptArgs, session: &Session) -> Result<(), Failure> {
    let request = DecryptRequest {
        ciphertext: Base64Bytes(input::encoded(args.input.as_deref(), args.format)?),
        context: args.context.wire()?,
        context_raw: None,
        key: args.key,
        version: args.version,
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.decrypt(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_secret(&args.out, &reply.plaintext.0, Encoding::Raw)
}

/// Moves a ciphertext to another key or context.
pub(crate) async fn reencrypt(args: ReencryptArgs, session: &Session) -> Result<(), Failure> {
    let request = ReencryptRequest {
        ciphertext: Base64Bytes(input::encoded(args.file.as_deref(), args.format)?),
        context: args.context.wire()?,
        context_raw: None,
        from_key: args.from_key,
        from_version: args.from_version,
        to_key: args.to_key,
        to_context: wire_map(&args.to_context)?,
        to_context_raw: None,
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.reencrypt(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_encoded(&args.out, &reply.ciphertext.0, args.format)
}

/// Sends the items of a file in one request. The reply is JSON in every format.
pub(crate) async fn batch(args: BatchArgs, session: &Session) -> Result<(), Failure> {
    let body = input::Source::open(args.file.as_deref())?.read_secret(BODY_LIMIT)?;
    let client = session.client()?;
    send_batch(&client, args.operation, &body, session).await
}

/// The server takes no longer body.
const BODY_LIMIT: usize = 1 << 20;

async fn send_batch(
    client: &Client,
    operation: BatchOperation,
    body: &lastkey_secret::SecretVec,
    session: &Session,
) -> Result<(), Failure> {
    match operation {
        BatchOperation::Encrypt => session.show_json(&client.encrypt_batch(&parse(body)?).await?),
        BatchOperation::Decrypt => session.show_json(&client.decrypt_batch(&parse(body)?).await?),
        BatchOperation::Reencrypt => {
            session.show_json(&client.reencrypt_batch(&parse(body)?).await?)
        }
        BatchOperation::DataKey => session.show_json(&client.data_key_batch(&parse(body)?).await?),
        BatchOperation::DataKeyWithoutPlaintext => {
            session.show_json(&client.data_key_without_plaintext_batch(&parse(body)?).await?)
        }
    }
}

fn parse<T: DeserializeOwned>(
    body: &lastkey_secret::SecretVec,
) -> Result<BatchRequest<T>, Failure> {
    body.expose(|text| serde_json::from_slice(text))
        .map_err(|error| Failure::Input(format!("the batch is not as the API wants it: {error}")))
}
