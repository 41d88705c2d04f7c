//! Who can open an envelope: recipients that are asked for, and means to recover a data key.
//!
//! Room      `lastkey`.
//! Holds     Who brings an identity or a passphrase needs no server, and none is asked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use lastkey_client::{Client, Decryptor, Encryptor};
use lastkey_crypto::{
    envelope::{AgeIdentity, AgeKeyError, AgeRecipient, EnvelopeError},
    stream::StreamError,
};
use lastkey_secret::SecretVec;

use crate::{
    cli::{args::is_dash, failure::Failure, input, session::Session},
    passphrase,
};

/// Longer files of identities and recipients are refused, in bytes.
const KEY_FILE_LIMIT: usize = 1 << 20;

/// For whom an envelope is made: at least one.
#[derive(Args, Debug, Default)]
#[group(required = true, multiple = true)]
pub(crate) struct RecipientArgs {
    /// Key of the server that can open it: id or alias (repeatable)
    #[arg(long)]
    pub(super) key: Vec<String>,
    /// Key of age that can open it without a server: age1... (repeatable)
    #[arg(long, value_name = "age1...", value_parser = AgeRecipient::parse)]
    pub(super) recipient: Vec<AgeRecipient>,
    /// File with such keys, one on a line (repeatable)
    #[arg(long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// Ask for a passphrase that can open it without a server
    #[arg(long)]
    passphrase: bool,
    /// The same with the passphrase in a file, or `-`
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    passphrase_file: Option<PathBuf>,
}

impl RecipientArgs {
    /// These recipients.
    pub(super) fn of(
        key: Vec<String>,
        recipient: Vec<AgeRecipient>,
        passphrase_file: Option<PathBuf>,
    ) -> Self {
        Self { key, recipient, passphrase_file, ..Self::default() }
    }

    /// Reads what the arguments name; talks to nobody.
    pub(super) fn read(self, session: &Session) -> Result<Recipients, Failure> {
        let client = if self.key.is_empty() { None } else { Some(session.client()?) };
        let mut encryptor = Encryptor::default();
        if let Some(client) = &client {
            encryptor = self.key.iter().fold(encryptor, |all, key| all.add_key(client, key));
        }
        encryptor = self.recipient.into_iter().fold(encryptor, Encryptor::add_age);
        for path in &self.recipients_file {
            encryptor = read_recipients(path)?.into_iter().fold(encryptor, Encryptor::add_age);
        }
        let file = self.passphrase_file.as_deref();
        let passphrase = match file.is_some() || self.passphrase {
            true => Some(Arc::new(passphrase::read_new(file).map_err(no_passphrase)?)),
            false => None,
        };
        if let Some(passphrase) = &passphrase {
            encryptor = encryptor.add_passphrase(Arc::clone(passphrase));
        }
        Ok(Recipients { encryptor, client, passphrase })
    }

    /// Whether standard input is the passphrase, and so cannot be the file.
    pub(super) fn takes_stdin(&self) -> bool {
        self.passphrase_file.as_deref().is_some_and(is_dash)
    }
}

/// How an envelope is opened without a server.
#[derive(Args, Debug, Default)]
pub(crate) struct OpenArgs {
    /// File with identities of age (AGE-SECRET-KEY-1...); needs no server (repeatable)
    #[arg(long, short = 'i', value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Ask for the passphrase of the file; needs no server
    #[arg(long)]
    passphrase: bool,
    /// The same with the passphrase in a file, or `-`
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    passphrase_file: Option<PathBuf>,
}

impl OpenArgs {
    /// Whether standard input is the passphrase, and so cannot be the file.
    pub(super) fn takes_stdin(&self) -> bool {
        self.passphrase_file.as_deref().is_some_and(is_dash)
    }

    /// Reads what the arguments name; talks to nobody.
    pub(super) fn read(&self, session: &Session) -> Result<Opener, Failure> {
        let identities = read_identities(&self.identity)?;
        let file = self.passphrase_file.as_deref();
        let passphrase = match file.is_some() || self.passphrase {
            true => Some(Arc::new(passphrase::read(file, "Passphrase: ").map_err(no_passphrase)?)),
            false => None,
        };
        let is_offline = !identities.is_empty() || passphrase.is_some();
        let client = if is_offline { None } else { Some(session.client()?) };
        Ok(Opener { decryptor: decryptor(identities, passphrase, client.as_ref()), client })
    }
}

/// What opens by all of these.
fn decryptor(
    identities: Vec<AgeIdentity>,
    passphrase: Option<Arc<SecretVec>>,
    client: Option<&Client>,
) -> Decryptor {
    let mut decryptor = Decryptor::offline(identities);
    if let Some(passphrase) = passphrase {
        decryptor = decryptor.passphrase(passphrase);
    }
    match client {
        Some(client) => decryptor.add_client(client),
        None => decryptor,
    }
}

fn read_identities(paths: &[PathBuf]) -> Result<Vec<AgeIdentity>, Failure> {
    let mut identities = Vec::new();
    for path in paths {
        let content = input::Source::open(Some(path))?.read_secret(KEY_FILE_LIMIT)?;
        let found = AgeIdentity::parse_file(&content);
        identities.extend(found.map_err(|error| bad_key_file(path, error))?);
    }
    Ok(identities)
}

fn read_recipients(path: &Path) -> Result<Vec<AgeRecipient>, Failure> {
    let content = input::Source::open(Some(path))?.read_plain()?;
    let text = String::from_utf8_lossy(&content);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys = lines.filter(|line| !line.starts_with('#')).map(AgeRecipient::parse);
    keys.collect::<Result<_, _>>().map_err(|error| bad_key_file(path, error))
}

fn bad_key_file(path: &Path, error: AgeKeyError) -> Failure {
    Failure::Input(format!("{}: {error}", path.display()))
}

fn no_passphrase(error: anyhow::Error) -> Failure {
    Failure::Input(format!("no passphrase: {error:#}"))
}

/// Recipients whose arguments were read.
pub(super) struct Recipients {
    /// Encrypts for them.
    pub(super) encryptor: Encryptor,
    /// The server of the keys.
    pub(super) client: Option<Client>,
    passphrase: Option<Arc<SecretVec>>,
}

impl Recipients {
    /// What opens the envelopes that are made for these: the server, or else the passphrase and
    /// these identities. `None` when there is none of that.
    pub(super) fn opener(&self, identities: &[PathBuf]) -> Result<Option<Decryptor>, Failure> {
        let identities = read_identities(identities)?;
        let passphrase = self.passphrase.clone();
        let is_none = identities.is_empty() && passphrase.is_none() && self.client.is_none();
        let opener = || decryptor(identities, passphrase, self.client.as_ref());
        Ok((!is_none).then(opener))
    }
}

/// What recovers data keys.
pub(super) struct Opener {
    pub(super) decryptor: Decryptor,
    /// The server, unless everything is done without one.
    pub(super) client: Option<Client>,
}

/// An error of the format as a failure of a command.
pub(super) fn failed(error: EnvelopeError) -> Failure {
    StreamError::Envelope(error).into()
}
