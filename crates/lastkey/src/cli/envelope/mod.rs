//! `encrypt`, `decrypt`, `verify`, `inspect`, `rewrap`: data of any size, encrypted here with a
//! data key.
//!
//! Room      `lastkey`. One file or stream here; folders in [`tree`].
//! Holds     A file appears only after its last segment was written, or authenticated.

mod glob;
mod inspect;
mod keys;
mod range;
mod rewrap;
mod tree;
mod verify;

use std::{num::NonZeroUsize, path::PathBuf};

use clap::Args;
use lastkey_client::{Encryptor, EnvelopeError};
use lastkey_crypto::{
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{Header, Suite},
    stream,
};

pub(super) use self::{
    inspect::{InspectArgs, inspect},
    rewrap::{RewrapArgs, rewrap},
    verify::{VerifyArgs, verify},
};
use self::{
    keys::{OpenArgs, RecipientArgs},
    range::ByteRange,
    tree::TreeArgs,
};
use super::{
    args::{BadValue, ContextArgs, DryRunArgs, OutArgs, Pair, is_dash},
    failure::Failure,
    input::Source,
    output::{Content, Output},
    progress::Progress,
    session::Session,
};

/// Arguments of `encrypt`.
#[derive(Args, Debug)]
pub(crate) struct EncryptArgs {
    /// File or folder to encrypt (default or `-`: standard input)
    file: Option<PathBuf>,
    #[command(flatten)]
    recipients: RecipientArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    tree: TreeArgs,
    /// In a folder: identities that verify what was encrypted before (repeatable)
    #[arg(long, short = 'i', value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Threads at work (default: one for each core)
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// What is chosen once for an envelope and stays.
#[derive(Args, Debug)]
struct ShapeArgs {
    #[command(flatten)]
    context: ContextArgs,
    /// Cipher: AES_256_GCM, CHACHA20_POLY1305, or SM4_GCM in builds that have it
    #[arg(long, value_name = "SUITE", default_value = "AES_256_GCM", value_parser = suite)]
    suite: Suite,
    /// Bytes that are authenticated at a time: a power of two, 4KiB to 16MiB
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = segment_log2)]
    segment_size: u8,
}

impl ShapeArgs {
    fn of(&self, encryptor: Encryptor) -> Result<Encryptor, Failure> {
        let context = self.context.encryption_context()?;
        Ok(encryptor.suite(self.suite).segment_log2(self.segment_size).context(context))
    }
}

fn suite(name: &str) -> Result<Suite, BadValue> {
    let suite = Suite::from_name(name).ok_or(BadValue("no such suite"))?;
    suite.is_supported().then_some(suite).ok_or(BadValue("this build lacks that suite"))
}

/// `256KiB`, `1MiB` or a number of bytes, as a power of two.
fn segment_log2(text: &str) -> Result<u8, BadValue> {
    let bad = BadValue("expected a power of two from 4KiB to 16MiB");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_log2 = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        _ => return Err(bad),
    };
    let number: u32 = digits.parse().map_err(|_| bad)?;
    let log2 = number.checked_ilog2().ok_or(bad)?.saturating_add(unit_log2);
    let fits = number.is_power_of_two() && (12..=24).contains(&log2);
    u8::try_from(log2).ok().filter(|_| fits).ok_or(bad)
}

/// Arguments of `decrypt`.
#[derive(Args, Debug)]
pub(crate) struct DecryptArgs {
    /// Encrypted file or folder (default or `-`: standard input)
    file: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Refuse the file unless its context is exactly this (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    context: Vec<Pair>,
    /// Only these bytes, the first one is 0: `A-B` with both ends, `A-`, or `-N` for the last N
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    range: Option<ByteRange>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    tree: TreeArgs,
    /// Threads at work (default: one for each core)
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Encrypts a file, a folder or a stream.
pub(crate) async fn encrypt(args: EncryptArgs, session: &Session) -> Result<(), Failure> {
    if args.recipients.takes_stdin() && is_stdin(args.file.as_deref()) {
        return Err(one_stdin());
    }
    if args.dry_run.dry_run {
        return ask_for_data_keys(args, session).await;
    }
    let recipients = args.recipients.read(session)?;
    let encryptor = args.shape.of(recipients.encryptor.clone())?;
    if args.tree.is_for(args.file.as_deref()) {
        let opener = recipients.opener(&args.identity)?;
        let job = args.tree.job(args.file.unwrap_or_default(), args.out, args.jobs)?;
        return tree::encrypt(job, opener, encryptor).await;
    }
    args.tree.refuse_for_file()?;
    let source = Source::open(args.file.as_deref())?;
    let (key, options) = encryptor.data_key(source.len.unwrap_or(0)).await?;
    let mut output = Output::open(&args.out, Content::Binary)?;
    let (mode, progress) = (source.mode, Progress::new(source.len, "encrypting"));
    let (output_file, mut writer) = (output.shared()?, output.writer()?);
    let shared = source.is_named.then_some(()).and(output_file);
    // Files of the kernel say that they are empty and are not.
    let len = source.len.filter(|len| *len > 0);
    let work = move || match (shared, len) {
        (Some(to), Some(len)) => stream::encrypt_at(
            &progress.counted(source.file),
            len,
            &to,
            &options,
            &key.data_key,
            &key.recipients,
            &mut SystemEntropy,
            threads(args.jobs),
        ),
        (Some(_) | None, _) => stream::encrypt_stream(
            &mut progress.reader(source.file),
            &mut writer,
            &options,
            &key.data_key,
            &key.recipients,
            &mut SystemEntropy,
        ),
    };
    output.filled_by(on_a_thread(work)).await?;
    output.finish(mode)
}

/// Decrypts a file, a folder, a stream, or a range of a file.
pub(crate) async fn decrypt(args: DecryptArgs, session: &Session) -> Result<(), Failure> {
    if args.open.takes_stdin() && is_stdin(args.file.as_deref()) {
        return Err(one_stdin());
    }
    let wanted = ContextArgs { context: args.context }.encryption_context()?;
    if args.tree.is_for(args.file.as_deref()) {
        if args.range.is_some() {
            return Err(Failure::Usage("--range is for one file".to_owned()));
        }
        let decryptor = args.open.read(session)?.decryptor;
        let source = args.file.unwrap_or_default();
        return tree::decrypt(args.tree.job(source, args.out, args.jobs)?, decryptor, wanted).await;
    }
    args.tree.refuse_for_file()?;
    let mut source = Source::open(args.file.as_deref())?;
    let header = stream::read_header(&mut source.file)?;
    check_context(&header, &wanted)?;
    let key = args.open.read(session)?.decryptor.proven_key(&header).await?;
    let mut output = Output::open(&args.out, Content::Unknown)?;
    let (mode, progress) = (source.mode, Progress::new(source.len, "decrypting"));
    progress.advance(header.len());
    let (output_file, mut writer) = (output.shared()?, output.writer()?);
    let threads = threads(args.jobs);
    let work = move || {
        if let Some(range) = args.range {
            let opened = range::Opened { header, key, source, progress };
            return opened.decrypt(range, output_file.as_ref(), &mut writer, threads);
        }
        let shared = source.is_named.then_some(()).and(output_file);
        match (shared, source.len) {
            (Some(to), Some(len)) => {
                let from = progress.counted(source.file);
                stream::decrypt_at(&header, &key.data_key, &from, len, &to, threads)
            }
            (Some(_) | None, _) => {
                let mut from = progress.reader(source.file);
                stream::decrypt_stream(&header, &key.data_key, &mut from, &mut writer)
            }
        }
        .map_err(Failure::from)
    };
    output.filled_by(on_a_thread(work)).await?;
    output.finish(mode)
}

async fn ask_for_data_keys(args: EncryptArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    for key in args.recipients.key {
        let request = lastkey_wire::native::operations::DataKeyRequest {
            key,
            spec: None,
            bytes: None,
            context: args.shape.context.wire()?,
            context_raw: None,
            dry_run: false,
        };
        session.settle(client.data_key(&request), args.dry_run).await?;
    }
    Ok(())
}

fn check_context(header: &Header, wanted: &EncryptionContext) -> Result<(), Failure> {
    if !wanted.is_none() && header.context() != wanted {
        return Err(Failure::NotValid(
            "the file has another encryption context; `lastkey inspect FILE` shows it",
        ));
    }
    Ok(())
}

/// Runs blocking work beside the runtime, which meanwhile hears signals.
async fn on_a_thread<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|_| Failure::from(EnvelopeError::Thread))?.map_err(Into::into)
}

fn threads(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or(cores)
}

fn is_stdin(file: Option<&std::path::Path>) -> bool {
    file.is_none_or(is_dash)
}

fn one_stdin() -> Failure {
    Failure::Usage("standard input cannot be both the passphrase and the data".to_owned())
}
