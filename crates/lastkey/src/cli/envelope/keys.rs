//! Who can open an envelope: recipients that are asked for, and means to recover a data key.
//!
//! Room      `lastkey`.
//! Holds     Who brings an identity or a passphrase needs no server, and none is asked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use lastkey_client::{Client, envelope::wire_context};
use lastkey_crypto::{
    context::EncryptionContext,
    entropy::{Entropy, SystemEntropy},
    envelope::{
        AgeIdentity, AgeKeyError, AgeRecipient, EnvelopeError, Header, Recipient, RecipientName,
    },
    kdf::Argon2Params,
    stream::StreamError,
};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_wire::{SecretBase64, native::operations::EncryptRequest};

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
        let client = if self.key.is_empty() { None } else { Some(Arc::new(session.client()?)) };
        let mut age = self.recipient;
        for path in &self.recipients_file {
            age.extend(read_recipients(path)?);
        }
        let file = self.passphrase_file.as_deref();
        let passphrase = match file.is_some() || self.passphrase {
            true => Some(Arc::new(passphrase::read_new(file).map_err(no_passphrase)?)),
            false => None,
        };
        Ok(Recipients { client, keys: self.key, age, passphrase })
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
        let client = if is_offline { None } else { Some(Arc::new(session.client()?)) };
        Ok(Opener { identities, passphrase, client })
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
    client: Option<Arc<Client>>,
    pub(super) keys: Vec<String>,
    pub(super) age: Vec<AgeRecipient>,
    passphrase: Option<Arc<SecretVec>>,
}

/// A data key, and the recipients that recover it.
pub(super) struct Protected {
    pub(super) data_key: SecretArray<32>,
    pub(super) recipients: Vec<Recipient>,
}

impl Recipients {
    /// Whether nobody is named.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.age.is_empty() && self.passphrase.is_none()
    }

    /// The server of the keys.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.clone()
    }

    /// What opens the envelopes that are made for these: the server, or else the passphrase and
    /// these identities. `None` when there is none of that.
    pub(super) fn opener(&self, identities: &[PathBuf]) -> Result<Option<Opener>, Failure> {
        let identities = read_identities(identities)?;
        let passphrase = self.passphrase.clone();
        let client = self.client.clone();
        let is_none = identities.is_empty() && passphrase.is_none() && client.is_none();
        Ok((!is_none).then_some(Opener { identities, passphrase, client }))
    }

    /// A fresh data key for all of them: one call for each key of the server.
    pub(super) async fn protect(&self, context: &EncryptionContext) -> Result<Protected, Failure> {
        let (data_key, mut recipients) = match (&self.client, self.keys.first()) {
            (Some(client), Some(key)) => {
                let made = client.envelope_key(key, context).await?;
                (made.data_key, vec![made.recipient])
            }
            _ => (fresh_data_key()?, Vec::new()),
        };
        let others = self.keys.get(1..).unwrap_or_default();
        recipients.extend(self.wrap_keys(others, &data_key, context).await?);
        recipients.extend(self.wrap_offline(&data_key)?);
        Ok(Protected { data_key, recipients })
    }

    /// All of them as recipients of a data key that is there already.
    pub(super) async fn wrap(
        &self,
        data_key: &SecretArray<32>,
        context: &EncryptionContext,
    ) -> Result<Vec<Recipient>, Failure> {
        let mut recipients = self.wrap_keys(&self.keys, data_key, context).await?;
        recipients.extend(self.wrap_offline(data_key)?);
        Ok(recipients)
    }

    async fn wrap_keys(
        &self,
        keys: &[String],
        data_key: &SecretArray<32>,
        context: &EncryptionContext,
    ) -> Result<Vec<Recipient>, Failure> {
        let mut recipients = Vec::new();
        if let Some(client) = &self.client {
            for key in keys {
                recipients.push(wrap_for(client, key, data_key, context).await?);
            }
        }
        Ok(recipients)
    }

    fn wrap_offline(&self, data_key: &SecretArray<32>) -> Result<Vec<Recipient>, Failure> {
        let mut recipients = Vec::new();
        for key in &self.age {
            recipients.push(Recipient::age(key, data_key, &mut SystemEntropy).map_err(failed)?);
        }
        if let Some(passphrase) = &self.passphrase {
            let cost = Argon2Params::default();
            let made = Recipient::passphrase(passphrase, cost, data_key, &mut SystemEntropy);
            recipients.push(made.map_err(failed)?);
        }
        Ok(recipients)
    }
}

/// Wraps a data key under a key of the server, in its primary version.
pub(super) async fn wrap_for(
    client: &Client,
    key: &str,
    data_key: &SecretArray<32>,
    context: &EncryptionContext,
) -> Result<Recipient, Failure> {
    let (context, context_raw) = wire_context(context);
    let plaintext = data_key.expose(|bytes| SecretBase64(SecretVec::copy_of(bytes)));
    let key = key.to_owned();
    let request = EncryptRequest { key, plaintext, context, context_raw, dry_run: false };
    let reply = client.encrypt(&request).send().await?;
    Ok(Recipient::lastkey(reply.ciphertext.0))
}

fn fresh_data_key() -> Result<SecretArray<32>, Failure> {
    SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes))
        .map_err(|_| failed(EnvelopeError::Entropy))
}

/// What recovers data keys.
pub(super) struct Opener {
    identities: Vec<AgeIdentity>,
    passphrase: Option<Arc<SecretVec>>,
    client: Option<Arc<Client>>,
}

impl Opener {
    /// The data key of an envelope, proven to be the one of its header.
    pub(super) async fn data_key(&self, header: &Header) -> Result<SecretArray<32>, Failure> {
        if let Some(client) = &self.client {
            let data_key = client.envelope_data_key(header).await?;
            header.unlock(&data_key).map_err(failed)?;
            return Ok(data_key);
        }
        let by_identity = match header.data_key_by_age(&self.identities) {
            Err(error) => error,
            Ok(data_key) => return Ok(data_key),
        };
        let Some(passphrase) = &self.passphrase else { return Err(failed(by_identity)) };
        header.data_key_by_passphrase(passphrase).map_err(failed)
    }

    /// The server, unless everything is done without one.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.clone()
    }

    /// The passphrase as a recipient of another data key; `None` when this is no passphrase, or
    /// another one than was given.
    pub(super) fn passphrase_again(
        &self,
        recipient: &Recipient,
        data_key: &SecretArray<32>,
    ) -> Result<Option<Recipient>, Failure> {
        match (recipient.name(), &self.passphrase) {
            (RecipientName::Passphrase(cost), Some(passphrase))
                if recipient.open_by_passphrase(passphrase).is_ok() =>
            {
                Recipient::passphrase(passphrase, cost, data_key, &mut SystemEntropy)
                    .map(Some)
                    .map_err(failed)
            }
            _ => Ok(None),
        }
    }
}

/// An error of the format as a failure of a command.
pub(super) fn failed(error: EnvelopeError) -> Failure {
    StreamError::Envelope(error).into()
}
