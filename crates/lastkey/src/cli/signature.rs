//! `sign`, `public-key`, and `verify` of signatures; `mac` and `verify-mac`.
//!
//! Room      `lastkey`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lastkey_wire::{
    Base64Bytes, SecretBase64,
    native::operations::{MacRequest, SignRequest, VerifyMacRequest, VerifyRequest},
    words::{MessageType, SigningAlgorithm},
};

use super::{
    args::{DryRunArgs, Encoding, Format, OutArgs, one_of},
    failure::Failure,
    input,
    output::{self, Content},
    session::Session,
};

/// Whose key, which message.
#[derive(Args, Debug)]
pub(crate) struct MessageArgs {
    /// Key: id or alias
    #[arg(long)]
    key: String,
    /// Key version (default: the primary one)
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Message file, at most 64 KiB (default: standard input)
    file: Option<PathBuf>,
    /// Message itself; other users of this machine can see it
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
}

impl MessageArgs {
    fn message(&self) -> Result<SecretBase64, Failure> {
        input::message(self.text.as_deref(), self.file.as_deref()).map(SecretBase64)
    }
}

/// How to sign.
#[derive(Args, Debug)]
pub(crate) struct AlgorithmArgs {
    /// Algorithm (default: the usual one of the key's spec)
    #[arg(long, value_parser = one_of::<SigningAlgorithm>(SigningAlgorithm::WORDS))]
    algorithm: Option<SigningAlgorithm>,
    /// The message is a digest already, in binary
    #[arg(long)]
    digest: bool,
}

impl AlgorithmArgs {
    fn message_type(&self) -> Option<MessageType> {
        self.digest.then_some(MessageType::Digest)
    }
}

/// Arguments of `sign`.
#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    message: MessageArgs,
    #[command(flatten)]
    algorithm: AlgorithmArgs,
    /// How to write the signature
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// What `verify` needs for a signature.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) key: String,
    pub(crate) version: Option<u32>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) text: Option<String>,
    pub(crate) algorithm: AlgorithmArgs,
    pub(crate) signature: Vec<u8>,
    pub(crate) dry_run: DryRunArgs,
}

/// Arguments of `mac`.
#[derive(Args, Debug)]
pub(crate) struct MacArgs {
    #[command(flatten)]
    message: MessageArgs,
    /// How to write the MAC
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `verify-mac`.
#[derive(Args, Debug)]
pub(crate) struct VerifyMacArgs {
    #[command(flatten)]
    message: MessageArgs,
    /// MAC to verify
    #[arg(long, value_name = "TEXT", required_unless_present = "mac_file")]
    mac: Option<String>,
    /// File with the MAC
    #[arg(long, value_name = "FILE", conflicts_with = "mac")]
    mac_file: Option<PathBuf>,
    /// How the MAC is written
    #[arg(long, value_enum, default_value = "base64")]
    format: Encoding,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `public-key`.
#[derive(Args, Debug)]
pub(crate) struct PublicKeyArgs {
    /// Key: id or alias
    key: String,
    /// Key version (default: the primary one)
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// How to write it
    #[arg(long, value_enum, default_value = "pem")]
    format: PublicKeyFormat,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PublicKeyFormat {
    Pem,
    Der,
}

/// Signs a message.
pub(crate) async fn sign(args: SignArgs, session: &Session) -> Result<(), Failure> {
    let request = SignRequest {
        message: args.message.message()?,
        message_type: args.algorithm.message_type(),
        key: args.message.key,
        version: args.message.version,
        algorithm: args.algorithm.algorithm,
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.sign(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_encoded(&args.out, &reply.signature.0, args.format)
}

/// Verifies a signature.
pub(crate) async fn verify(signed: Signed, session: &Session) -> Result<(), Failure> {
    let message = input::message(signed.text.as_deref(), signed.file.as_deref())?;
    let request = VerifyRequest {
        key: signed.key,
        version: signed.version,
        message: SecretBase64(message),
        message_type: signed.algorithm.message_type(),
        algorithm: signed.algorithm.algorithm,
        signature: Base64Bytes(signed.signature),
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.verify(&request), signed.dry_run).await? else {
        return Ok(());
    };
    session.show(&reply)?;
    if reply.valid { Ok(()) } else { Err(Failure::NotValid("the signature is not valid")) }
}

/// Makes a MAC.
pub(crate) async fn mac(args: MacArgs, session: &Session) -> Result<(), Failure> {
    let request = MacRequest {
        message: args.message.message()?,
        key: args.message.key,
        version: args.message.version,
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.mac(&request), args.dry_run).await? else {
        return Ok(());
    };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    output::write_encoded(&args.out, &reply.mac.0, args.format)
}

/// Verifies a MAC.
pub(crate) async fn verify_mac(args: VerifyMacArgs, session: &Session) -> Result<(), Failure> {
    let mac = given_or_read(args.mac.as_deref(), args.mac_file.as_deref(), args.format)?;
    let request = VerifyMacRequest {
        message: args.message.message()?,
        key: args.message.key,
        version: args.message.version,
        mac: Base64Bytes(mac),
        dry_run: false,
    };
    let client = session.client()?;
    let Some(reply) = session.settle(client.verify_mac(&request), args.dry_run).await? else {
        return Ok(());
    };
    session.show(&reply)?;
    if reply.valid { Ok(()) } else { Err(Failure::NotValid("the MAC is not valid")) }
}

/// Writes the public half of a key.
pub(crate) async fn public_key(args: PublicKeyArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let call = client.public_key(&args.key, args.version);
    let Some(reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    if session.format() == Format::Json {
        return session.show_json(&reply);
    }
    let der = &reply.public_key.0;
    match args.format {
        PublicKeyFormat::Der => output::write_whole(&args.out, der, Content::Binary),
        PublicKeyFormat::Pem => {
            let pem = lastkey_crypto::material::public_key_pem(der);
            output::write_whole(&args.out, pem.as_bytes(), Content::Unknown)
        }
    }
}

/// A signature or MAC: on the command line, or in a file.
pub(crate) fn given_or_read(
    text: Option<&str>,
    file: Option<&Path>,
    encoding: Encoding,
) -> Result<Vec<u8>, Failure> {
    match (text, encoding) {
        (Some(_), Encoding::Raw) => Err(Failure::Usage(
            "raw bytes cannot stand on the command line; give a file".to_owned(),
        )),
        (Some(text), Encoding::Base64 | Encoding::Hex) => input::decode(text.as_bytes(), encoding),
        (None, _) => input::encoded(file, encoding),
    }
}
