//! `data-key`, `data-key-pair`, `random`: keys and bytes that the server draws.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::Args;
use lastkey_secret::SecretVec;
use lastkey_wire::{
    native::operations::{
        DataKeyPairReply, DataKeyPairRequest, DataKeyReply, DataKeyRequest, RandomRequest,
    },
    words::{DataKeySpec, KeySpec},
};

use super::{
    args::{ContextArgs, DryRunArgs, Encoding, Format, OutArgs, one_of},
    failure::Failure,
    output::{self, Content},
    session::Session,
    table::{Fields, Show},
};

/// Arguments of `data-key`.
#[derive(Args, Debug)]
pub(crate) struct DataKeyArgs {
    /// Key that protects the data key: id or alias
    #[arg(long)]
    key: String,
    /// Length by name (default: AES_256)
    #[arg(long, value_parser = one_of::<DataKeySpec>(DataKeySpec::WORDS))]
    spec: Option<DataKeySpec>,
    /// Length in bytes, 1 to 1024
    #[arg(long, conflicts_with = "spec", value_name = "N")]
    bytes: Option<u32>,
    /// Leave the data key itself in the server; answer its protected form alone
    #[arg(long, conflicts_with = "plaintext_out")]
    without_plaintext: bool,
    #[command(flatten)]
    context: ContextArgs,
    /// Write the data key to this file, binary, mode 0600
    #[arg(long, value_name = "FILE")]
    plaintext_out: Option<PathBuf>,
    /// Write the protected data key to this file, binary
    #[arg(long, value_name = "FILE")]
    ciphertext_out: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `data-key-pair`.
#[derive(Args, Debug)]
pub(crate) struct DataKeyPairArgs {
    /// Key that protects the private half: id or alias
    #[arg(long)]
    key: String,
    /// What the pair is
    #[arg(long, value_parser = one_of::<KeySpec>(KeySpec::WORDS))]
    spec: KeySpec,
    /// Leave the private half in the server; answer its protected form alone
    #[arg(long, conflicts_with = "private_out")]
    without_private: bool,
    #[command(flatten)]
    context: ContextArgs,
    /// Write the private half to this file, PKCS#8 in DER, mode 0600
    #[arg(long, value_name = "FILE")]
    private_out: Option<PathBuf>,
    /// Write the protected private half to this file, binary
    #[arg(long, value_name = "FILE")]
    ciphertext_out: Option<PathBuf>,
    /// Write the public half to this file, PEM
    #[arg(long, value_name = "FILE")]
    public_out: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `random`.
#[derive(Args, Debug)]
pub(crate) struct RandomArgs {
    /// How many, 1 to 65536
    #[arg(long, value_name = "N")]
    bytes: u32,
    /// How to write them
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Makes a data key.
pub(crate) async fn data_key(args: DataKeyArgs, session: &Session) -> Result<(), Failure> {
    let request = DataKeyRequest {
        key: args.key.clone(),
        spec: args.spec,
        bytes: args.bytes,
        context: args.context.wire()?,
        context_raw: None,
        dry_run: false,
    };
    let client = session.client()?;
    if args.without_plaintext {
        let call = client.data_key_without_plaintext(&request);
        let Some(reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
        write_public(args.ciphertext_out, &reply.ciphertext.0)?;
        return session.show(&reply);
    }
    let call = client.data_key(&request);
    let Some(reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    write_public(args.ciphertext_out, &reply.ciphertext.0)?;
    match args.plaintext_out {
        None => session.show(&reply),
        Some(file) => {
            write_private(file, &reply.plaintext.0)?;
            session.show(&lastkey_wire::native::operations::EncryptReply {
                ciphertext: reply.ciphertext,
                key: reply.key,
                version: reply.version,
            })
        }
    }
}

/// Makes a key pair.
pub(crate) async fn data_key_pair(args: DataKeyPairArgs, session: &Session) -> Result<(), Failure> {
    let request = DataKeyPairRequest {
        key: args.key,
        pair_spec: args.spec,
        context: args.context.wire()?,
        context_raw: None,
        without_private: args.without_private,
        dry_run: false,
    };
    let client = session.client()?;
    let call = client.data_key_pair(&request);
    let Some(mut reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    write_public(args.ciphertext_out, &reply.private_key_ciphertext.0)?;
    if let Some(file) = args.public_out {
        let pem = lastkey_crypto::material::public_key_pem(&reply.public_key.0);
        output::write_whole(&to(file), pem.as_bytes(), Content::Unknown)?;
    }
    if let Some(file) = args.private_out
        && let Some(secret) = reply.private_key.take()
    {
        write_private(file, &secret.0)?;
    }
    session.show(&reply)
}

/// Draws random bytes.
pub(crate) async fn random(args: RandomArgs, session: &Session) -> Result<(), Failure> {
    let request = RandomRequest { bytes: args.bytes, dry_run: false };
    let client = session.client()?;
    let Some(reply) = session.settle(client.random(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_secret(&args.out, &reply.bytes.0, args.format)
}

impl Show for DataKeyReply {
    fn table(&self) -> String {
        let fields = Fields::new().with("Key", &self.key).with("Version", self.version);
        self.plaintext
            .0
            .expose(|bytes| fields.with_base64("Plaintext", bytes))
            .with_base64("Ciphertext", &self.ciphertext.0)
            .table()
    }
}

impl Show for DataKeyPairReply {
    fn table(&self) -> String {
        let mut fields = Fields::new()
            .with("Key", &self.key)
            .with("Version", self.version)
            .with("Pair", self.pair_spec)
            .with_base64("Public key", &self.public_key.0);
        if let Some(secret) = &self.private_key {
            fields = secret.0.expose(|bytes| fields.with_base64("Private key", bytes));
        }
        fields.with_base64("Private key, protected", &self.private_key_ciphertext.0).table()
    }
}

fn to(file: PathBuf) -> OutArgs {
    OutArgs { out: Some(file), force: false }
}

fn write_public(file: Option<PathBuf>, bytes: &[u8]) -> Result<(), Failure> {
    file.map_or(Ok(()), |file| output::write_encoded(&to(file), bytes, Encoding::Raw))
}

fn write_private(file: PathBuf, secret: &SecretVec) -> Result<(), Failure> {
    output::write_secret(&to(file), secret, Encoding::Raw)
}
