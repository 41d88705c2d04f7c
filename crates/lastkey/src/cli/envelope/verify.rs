//! `verify`: every segment of an encrypted file, or a signature.
//!
//! Room      `lastkey`. Reads everything and writes nothing.

use std::{io, num::NonZeroUsize, path::PathBuf};

use clap::Args;
use lastkey_crypto::stream::{self, StreamStats, WriteAt};
use serde_json::json;

use super::{is_stdin, keys::OpenArgs, on_a_thread, one_stdin, threads};
use crate::cli::{
    args::{DryRunArgs, Encoding, Format},
    failure::Failure,
    input::Source,
    output,
    progress::Progress,
    session::Session,
    signature::{self, AlgorithmArgs, Signed},
    table::{Fields, Show},
};

/// Arguments of `verify`: of an encrypted file, or with `--key` of a signature.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Encrypted file, or with --key the signed message (default: standard input)
    file: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Threads at work (default: one for each core)
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Key of a signature: id or alias
    #[arg(long, help_heading = "Signatures")]
    key: Option<String>,
    /// Signature of the message
    #[arg(long, value_name = "TEXT", requires = "key", help_heading = "Signatures")]
    signature: Option<String>,
    /// File with the signature
    #[arg(
        long,
        value_name = "FILE",
        requires = "key",
        conflicts_with = "signature",
        help_heading = "Signatures"
    )]
    signature_file: Option<PathBuf>,
    /// Key version (default: the primary one)
    #[arg(long, value_name = "N", requires = "key", help_heading = "Signatures")]
    version: Option<u32>,
    /// Message itself; other users of this machine can see it
    #[arg(long, requires = "key", conflicts_with = "file", help_heading = "Signatures")]
    text: Option<String>,
    /// How the signature is written
    #[arg(long, value_enum, default_value = "base64", help_heading = "Signatures")]
    format: Encoding,
    #[command(flatten, next_help_heading = "Signatures")]
    algorithm: AlgorithmArgs,
    #[command(flatten, next_help_heading = "Signatures")]
    dry_run: DryRunArgs,
}

/// Verifies a signature, or every segment of an encrypted file.
pub(crate) async fn verify(args: VerifyArgs, session: &Session) -> Result<(), Failure> {
    let Some(key) = args.key.clone() else {
        return verify_file(args, session).await;
    };
    if args.signature.is_none() && args.signature_file.is_none() {
        return Err(Failure::Usage("give --signature or --signature-file".to_owned()));
    }
    let signature = signature::given_or_read(
        args.signature.as_deref(),
        args.signature_file.as_deref(),
        args.format,
    )?;
    let signed = Signed {
        key,
        version: args.version,
        file: args.file,
        text: args.text,
        algorithm: args.algorithm,
        signature,
        dry_run: args.dry_run,
    };
    signature::verify(signed, session).await
}

async fn verify_file(args: VerifyArgs, session: &Session) -> Result<(), Failure> {
    if args.open.takes_stdin() && is_stdin(args.file.as_deref()) {
        return Err(one_stdin());
    }
    let mut source = Source::open(args.file.as_deref())?;
    let progress = Progress::new(source.len, "verifying");
    let header = stream::read_header(&mut source.file)?;
    let key = args.open.read(session)?.decryptor.proven_key(&header).await?;
    let threads = threads(args.jobs);
    let work = move || match source.len.filter(|_| source.is_named) {
        Some(len) => {
            let from = progress.counted(source.file);
            stream::decrypt_at(&header, &key.data_key, &from, len, &Nowhere, threads)
        }
        None => {
            let mut from = progress.reader(source.file);
            stream::decrypt_stream(&header, &key.data_key, &mut from, &mut io::sink())
        }
    };
    show(on_a_thread(work).await?, session)
}

fn show(stats: StreamStats, session: &Session) -> Result<(), Failure> {
    match session.format() {
        Format::Json => session.show_json(&json!({
            "valid": true,
            "plaintext_bytes": stats.plaintext_len,
            "envelope_bytes": stats.envelope_len,
        })),
        Format::Table => output::print(
            &Fields::new()
                .with("File", "valid: every segment is authentic and none is missing")
                .with("Plaintext", format!("{} bytes", stats.plaintext_len))
                .table(),
        ),
    }
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl WriteAt for Nowhere {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}
