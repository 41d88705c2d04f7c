//! `rewrap`: who can open encrypted files, changed in the header alone.
//!
//! Room      `lastkey`. The work is the library's: here are words in, words out.
//! Source    `docs/formats/envelope.md`, "Changing recipients".

use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_client::{Client, EnvelopeError, Rewrap, Rewrapped, StreamError};
use lastkey_crypto::envelope::{AgeRecipient, EnvelopeError as FormatError};
use serde_json::{Value, json};

use super::{
    inspect::{recipient_json, recipient_text},
    keys::{OpenArgs, Opener, RecipientArgs},
};
use crate::cli::{
    args::Format,
    failure::Failure,
    output,
    session::Session,
    table::{Fields, Show},
};

/// Arguments of `rewrap`. Without a change, the keys of the server in their primary version.
#[derive(Args, Debug)]
pub(crate) struct RewrapArgs {
    /// Encrypted files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Key of the server that can open them from now on: id or alias (repeatable)
    #[arg(long, value_name = "KEY")]
    add_key: Vec<String>,
    /// Key of the server that no longer can (repeatable)
    #[arg(long, value_name = "KEY")]
    remove_key: Vec<String>,
    /// Key of age that can open them from now on (repeatable)
    #[arg(long, value_name = "age1...", value_parser = AgeRecipient::parse)]
    add_recipient: Vec<AgeRecipient>,
    /// Key of age that no longer can (repeatable)
    #[arg(long, value_name = "age1...", value_parser = AgeRecipient::parse)]
    remove_recipient: Vec<AgeRecipient>,
    /// File with a passphrase that can open them from now on, or `-`
    #[arg(long, value_name = "FILE")]
    add_passphrase_file: Option<PathBuf>,
    /// No passphrase can open them any more, but for an added one
    #[arg(long)]
    remove_passphrases: bool,
    /// Encrypt the whole file anew, with another data key and room for more recipients
    #[arg(long)]
    rewrite: bool,
}

/// Changes the recipients of files.
pub(crate) async fn rewrap(args: RewrapArgs, session: &Session) -> Result<(), Failure> {
    let opener = args.open.read(session)?;
    let change = change(&args, &opener, session).await?;
    let mut changed = Vec::new();
    for path in &args.files {
        let rewrapped = change.file(&opener.decryptor, path).await;
        changed.push((path, rewrapped.map_err(|error| told(error, path))?));
        if change.removes_somebody() && !args.rewrite {
            output::note(&format!(
                "note: whoever has seen the data key of {} can still open it; \
                 `lastkey rewrap --rewrite` encrypts it anew",
                path.display()
            ));
        }
    }
    show(&changed, session)
}

/// What the arguments ask for.
async fn change(args: &RewrapArgs, opener: &Opener, session: &Session) -> Result<Rewrap, Failure> {
    let added = RecipientArgs::of(
        args.add_key.clone(),
        args.add_recipient.clone(),
        args.add_passphrase_file.clone(),
    );
    let added = added.read(session)?;
    // Who opens the file without a server may still have one for its other recipients.
    let client = match opener.client.as_ref().or(added.client.as_ref()) {
        Some(client) => Some(client.clone()),
        None if args.remove_key.iter().all(|key| is_id(key)) => session.client().ok(),
        None => Some(session.client()?),
    };
    let mut change = Rewrap::new().add_all(&added.encryptor);
    for key in &args.remove_key {
        change = change.remove_key(id_of(key, client.as_ref()).await?);
    }
    for recipient in &args.remove_recipient {
        change = change.remove_age(recipient.clone());
    }
    if args.remove_passphrases {
        change = change.remove_passphrases();
    }
    if args.rewrite {
        change = change.rewrite();
    }
    let is_something =
        args.rewrite || change.removes_somebody() || !added.encryptor.is_for_nobody();
    match client {
        Some(client) if is_something => Ok(change.server(&client)),
        Some(client) => Ok(change.refresh(&client)),
        None if is_something => Ok(change),
        None => Err(Failure::Usage(
            "nothing to change: name whom to add or remove, or a server for its newest key versions"
                .to_owned(),
        )),
    }
}

/// An error with the file that it is about.
fn told(error: EnvelopeError, path: &Path) -> Failure {
    let place = path.display();
    if let EnvelopeError::Stream(cause) = error {
        return match cause {
            StreamError::Envelope(FormatError::RecipientsTooLong) => {
                Failure::HeaderFull(place.to_string())
            }
            StreamError::Read(cause) => Failure::io(format!("open {place}"), cause),
            StreamError::Write(cause) => Failure::io(format!("write {place}"), cause),
            StreamError::Envelope(_) | StreamError::Changed => cause.into(),
        };
    }
    if matches!(error, EnvelopeError::Nobody) {
        return Failure::Usage(format!("{place}: {error}"));
    }
    if matches!(
        error,
        EnvelopeError::NotFound(_)
            | EnvelopeError::NotRenewed(_)
            | EnvelopeError::TooManyPassphrases
            | EnvelopeError::Busy
    ) {
        return Failure::Input(format!("{place}: {error}"));
    }
    error.into()
}

fn is_id(key: &str) -> bool {
    key.len() == 36 && !key.contains('/')
}

/// The id of a key; the server knows it where an alias was given.
async fn id_of(key: &str, client: Option<&Client>) -> Result<String, Failure> {
    match client.filter(|_| !is_id(key)) {
        Some(client) => Ok(client.describe_key(key).send().await?.id),
        None => Ok(key.to_ascii_lowercase()),
    }
}

fn show(changed: &[(&PathBuf, Rewrapped)], session: &Session) -> Result<(), Failure> {
    match session.format() {
        Format::Json => {
            let files: Vec<Value> = changed
                .iter()
                .map(|(path, changed)| {
                    let recipients = changed.recipients.iter().map(recipient_json);
                    json!({
                        "file": path.to_string_lossy(),
                        "sequence": changed.sequence,
                        "recipients": recipients.collect::<Vec<_>>(),
                    })
                })
                .collect();
            session.show_json(&json!({ "files": files }))
        }
        Format::Table => {
            let mut fields = Fields::new();
            for (path, changed) in changed {
                fields = fields
                    .with("File", path.display())
                    .with("Header written", format!("{} times", changed.sequence));
                for recipient in &changed.recipients {
                    fields = fields.with("Recipient", recipient_text(recipient));
                }
            }
            output::print(&fields.table())
        }
    }
}
