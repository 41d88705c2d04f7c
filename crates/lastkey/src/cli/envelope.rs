//! `encrypt`, `decrypt`, `verify`, `inspect`: files of any size, encrypted here with a data key
//! from the server.
//!
//! Room      `lastkey`.
//! Holds     A file appears only after its last segment was written, or authenticated.

use std::{io, path::PathBuf};

use clap::Args;
use lastkey_crypto::{
    blob,
    envelope::{EnvelopeOptions, Header, KIND_LASTKEY, Recipient},
    stream,
};
use serde_json::{Value, json};

use super::{
    args::{ContextArgs, DryRunArgs, Encoding, Format, OutArgs, Pair},
    failure::Failure,
    input::Source,
    output::{self, Content, Output},
    progress::Progress,
    session::Session,
    signature::{self, AlgorithmArgs, Signed},
    table::{Fields, Show},
};

/// Arguments of `encrypt`.
#[derive(Args, Debug)]
pub(crate) struct EncryptArgs {
    /// Key that protects the file: id or alias
    #[arg(long)]
    key: String,
    /// File to encrypt (default: standard input)
    file: Option<PathBuf>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `decrypt`.
#[derive(Args, Debug)]
pub(crate) struct DecryptArgs {
    /// Encrypted file (default: standard input)
    file: Option<PathBuf>,
    /// Refuse the file unless its context is exactly this (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    context: Vec<Pair>,
    #[command(flatten)]
    out: OutArgs,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Encrypted file (default: standard input)
    file: Option<PathBuf>,
}

/// Arguments of `verify`: of an encrypted file, or with `--key` of a signature.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Encrypted file, or with --key the signed message (default: standard input)
    file: Option<PathBuf>,
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

/// Encrypts a file.
pub(crate) async fn encrypt(args: EncryptArgs, session: &Session) -> Result<(), Failure> {
    let context = args.context.encryption_context()?;
    let client = session.client()?;
    if args.dry_run.dry_run {
        let request = lastkey_wire::native::operations::DataKeyRequest {
            key: args.key,
            spec: None,
            bytes: None,
            context: args.context.wire()?,
            context_raw: None,
            dry_run: false,
        };
        session.settle(client.data_key(&request), args.dry_run).await?;
        return Ok(());
    }
    let source = Source::open(args.file.as_deref())?;
    let mut output = Output::open(&args.out, Content::Binary)?;
    let (mode, progress) = (source.mode, Progress::new(source.len, "encrypting"));
    let options = EnvelopeOptions { context, ..EnvelopeOptions::default() };
    let reader = progress.reader(source.file);
    let writer = output.writer()?;
    let work = client.encrypt_envelope(&args.key, options, reader, writer);
    output.filled_by(work).await?;
    progress.finish();
    output.finish(mode)
}

/// Decrypts a file.
pub(crate) async fn decrypt(args: DecryptArgs, session: &Session) -> Result<(), Failure> {
    let wanted = ContextArgs { context: args.context }.encryption_context()?;
    let source = Source::open(args.file.as_deref())?;
    let (mode, progress) = (source.mode, Progress::new(source.len, "decrypting"));
    let mut reader = progress.reader(source.file);
    let header = stream::read_header(&mut reader)?;
    if !wanted.is_none() && *header.context() != wanted {
        return Err(Failure::NotValid("the file has another encryption context"));
    }
    let client = session.client()?;
    let mut output = Output::open(&args.out, Content::Unknown)?;
    let writer = output.writer()?;
    output.filled_by(client.decrypt_envelope(header, reader, writer)).await?;
    progress.finish();
    output.finish(mode)
}

/// Verifies a signature, or every segment of an encrypted file.
pub(crate) async fn verify(args: VerifyArgs, session: &Session) -> Result<(), Failure> {
    let Some(key) = args.key else {
        return verify_file(args.file, session).await;
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

async fn verify_file(file: Option<PathBuf>, session: &Session) -> Result<(), Failure> {
    let source = Source::open(file.as_deref())?;
    let progress = Progress::new(source.len, "verifying");
    let mut reader = progress.reader(source.file);
    let header = stream::read_header(&mut reader)?;
    let client = session.client()?;
    let stats = client.decrypt_envelope(header, reader, io::sink()).await?;
    progress.finish();
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

/// Shows what the header of a file says, without any key.
pub(crate) fn inspect(args: &InspectArgs, session: &Session) -> Result<(), Failure> {
    let mut source = Source::open(args.file.as_deref())?;
    let header = stream::read_header(&mut source.file)?;
    match session.format() {
        Format::Json => session.show_json(&header_json(&header)),
        Format::Table => output::print(&header_table(&header)),
    }
}

fn header_table(header: &Header) -> String {
    let mut fields = Fields::new()
        .with("Format", "Lastkey envelope 1, AES-256-GCM")
        .with("Segment", format!("{} bytes", header.segment_len()))
        .with("Header", format!("{} bytes", header.len()))
        .with("Header written", format!("{} times", header.sequence()));
    if let Some(raw) = header.context().raw() {
        fields = fields.with_base64("Context, bytes", raw);
    }
    for (name, value) in header.context().pairs() {
        fields = fields.with("Context", format!("{name}={value}"));
    }
    for recipient in header.recipients() {
        fields = fields.with("Recipient", recipient_text(recipient));
    }
    fields.with("Authentic", "not checked: that takes `lastkey verify`").table()
}

fn recipient_text(recipient: &Recipient) -> String {
    match lastkey_recipient(recipient) {
        Some((key, version)) => format!("Lastkey key {key}, version {version}"),
        None => format!("type {}, {} bytes", recipient.kind, recipient.body.len()),
    }
}

fn header_json(header: &Header) -> Value {
    let context: serde_json::Map<String, Value> = header
        .context()
        .pairs()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    let raw = header.context().raw().map(|raw| lastkey_wire::Base64Bytes(raw.to_vec()));
    let recipients: Vec<Value> = header.recipients().iter().map(recipient_json).collect();
    json!({
        "format": 1,
        "suite": "AES_256_GCM",
        "segment_bytes": header.segment_len(),
        "header_bytes": header.len(),
        "sequence": header.sequence(),
        "context": context,
        "context_raw": raw,
        "recipients": recipients,
    })
}

fn recipient_json(recipient: &Recipient) -> Value {
    let mut view = json!({ "type": recipient.kind, "bytes": recipient.body.len() });
    if let (Some((key, version)), Some(fields)) =
        (lastkey_recipient(recipient), view.as_object_mut())
    {
        fields.insert("key".to_owned(), Value::from(key));
        fields.insert("version".to_owned(), Value::from(version));
    }
    view
}

/// Key id and version, when a Lastkey key is the recipient.
fn lastkey_recipient(recipient: &Recipient) -> Option<(String, u32)> {
    if recipient.kind != KIND_LASTKEY {
        return None;
    }
    let header = blob::peek(&recipient.body).ok()?;
    Some((uuid_text(&header.key_id), header.version))
}

/// RFC 9562, section 4: groups of 8, 4, 4, 4 and 12 hex digits.
fn uuid_text(id: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::{
        context::EncryptionContext,
        entropy::SystemEntropy,
        envelope::{self, EnvelopeOptions, Header, Recipient},
    };
    use lastkey_secret::SecretArray;

    use super::{header_json, header_table, uuid_text};

    fn header() -> Header {
        let options = EnvelopeOptions {
            context: EncryptionContext::from_pairs([("app", "web\u{1b}")]).unwrap(),
            ..EnvelopeOptions::default()
        };
        let recipients = [Recipient { kind: 9, body: vec![1, 2, 3] }];
        let data_key = SecretArray::copy_of(&[7; 32]);
        let (bytes, _) =
            envelope::build(&options, &data_key, &recipients, &mut SystemEntropy).unwrap();
        Header::parse(&bytes).unwrap()
    }

    #[test]
    fn header_table_shows_context_and_recipients_of_unknown_type() {
        let table = header_table(&header());
        assert!(table.contains("app=web\\u{1b}"), "{table}");
        assert!(table.contains("type 9, 3 bytes"), "{table}");
    }

    #[test]
    fn header_json_has_the_context_as_it_is() {
        let json = header_json(&header());
        assert_eq!(json["context"]["app"], "web\u{1b}");
        assert_eq!(json["recipients"][0]["type"], 9);
        assert_eq!(json["sequence"], 1);
    }

    #[test]
    fn uuid_is_written_in_its_usual_groups() {
        let id = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(uuid_text(&id), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
