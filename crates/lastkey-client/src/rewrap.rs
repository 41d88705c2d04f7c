//! Changing who can open an envelope, in its header alone or by encrypting it anew.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`, section "Slots".
//! Holds     The old recipients are in force until the new slot is whole and on disk, or until
//!           the new file is. Two processes do not change one file at once.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use lastkey_crypto::{
    entropy::SystemEntropy,
    envelope::{
        AgeRecipient, EnvelopeOptions, Header, KIND_PASSPHRASE, MAX_PASSPHRASES, Recipient,
        RecipientName, SlotUpdate,
    },
    stream::{StreamError, decrypt_stream, encrypt_stream, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use tokio::runtime::Handle;

use crate::{
    cache::ProtectedKey,
    client::Client,
    decryptor::Decryptor,
    encryptor::{Encryptor, Whom, fresh_data_key, wrong},
    envelope::EnvelopeError,
    file::{PendingFile, Replace},
};

/// A change of the recipients of envelopes: only the header is written, whatever the length.
///
/// Who was removed and kept the data key, or an older copy of the envelope, can still decrypt:
/// to shut somebody out, encrypt anew, by [`Rewrap::rewrite`].
///
/// ```no_run
/// use std::path::Path;
/// use lastkey_client::{Client, Decryptor, Rewrap};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect()?;
/// let change = Rewrap::new().add_key(&client, "alias/new").remove_key("0b5e3f6c-…");
/// change.file(&Decryptor::new(&client), Path::new("report.lk")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rewrap {
    added: Vec<Whom>,
    removed_keys: Vec<String>,
    removed_age: Vec<AgeRecipient>,
    removes_passphrases: bool,
    server: Option<Client>,
    refreshes: bool,
    rewrites: bool,
}

/// An envelope whose recipients were changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rewrapped {
    /// How often its recipients were written, from 1.
    pub sequence: u64,
    /// They.
    pub recipients: Vec<Recipient>,
}

impl Rewrap {
    /// Changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one more key decrypt: an id or an alias. In the place of that key, where it could
    /// already.
    #[must_use]
    pub fn add_key(self, client: &Client, key: impl Into<String>) -> Self {
        self.add_all(&Encryptor::new(client, key))
    }

    /// Lets the owner of a key of age decrypt.
    #[must_use]
    pub fn add_age(self, recipient: AgeRecipient) -> Self {
        self.add_all(&Encryptor::for_age(recipient))
    }

    /// Lets who knows a passphrase decrypt.
    #[must_use]
    pub fn add_passphrase(self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        self.add_all(&Encryptor::for_passphrase(passphrase))
    }

    /// Lets everybody decrypt for whom this encrypts.
    #[must_use]
    pub fn add_all(mut self, encryptor: &Encryptor) -> Self {
        self.added.extend_from_slice(encryptor.whom());
        self
    }

    /// Takes a key away, by its id.
    #[must_use]
    pub fn remove_key(mut self, key_id: impl Into<String>) -> Self {
        self.removed_keys.push(key_id.into());
        self
    }

    /// Takes a key of age away.
    #[must_use]
    pub fn remove_age(mut self, recipient: AgeRecipient) -> Self {
        self.removed_age.push(recipient);
        self
    }

    /// Takes every passphrase away, but for an added one.
    #[must_use]
    pub fn remove_passphrases(mut self) -> Self {
        self.removes_passphrases = true;
        self
    }

    /// Protects the data key anew under the primary version of each key that stays, for
    /// instance after a rotation. The keys must be those of this server, and the caller must be
    /// allowed to encrypt under them.
    #[must_use]
    pub fn refresh(mut self, client: &Client) -> Self {
        self.refreshes = true;
        self.server(client)
    }

    /// Encrypts the whole file anew, under another data key: this shuts out who was removed and
    /// kept the old one, and makes room in a full header. Who stays is made a recipient anew:
    /// keys of a server by [`Rewrap::server`], keys of age by themselves, a passphrase when it is
    /// that of the decryptor.
    #[must_use]
    pub fn rewrite(mut self) -> Self {
        self.rewrites = true;
        self
    }

    /// The server of the keys that stay.
    #[must_use]
    pub fn server(mut self, client: &Client) -> Self {
        self.server = Some(client.clone());
        self
    }

    /// Whether somebody is taken away, who may have kept the data key.
    #[must_use]
    pub fn removes_somebody(&self) -> bool {
        self.removes_passphrases || !self.removed_keys.is_empty() || !self.removed_age.is_empty()
    }

    /// Changes a file in place and waits for the disk. A crash leaves the old recipients or the
    /// new ones. `decryptor` recovers the data key.
    ///
    /// # Errors
    /// [`EnvelopeError::NotFound`] when somebody to remove is no recipient;
    /// [`EnvelopeError::Nobody`] when nobody would be left; [`EnvelopeError::Busy`];
    /// [`EnvelopeError::NotRenewed`]; in a [`StreamError`], `RecipientsTooLong` when the header
    /// has no room: see [`Rewrap::rewrite`]. See [`EnvelopeError`] for the others.
    pub async fn file(
        &self,
        decryptor: &Decryptor,
        path: &Path,
    ) -> Result<Rewrapped, EnvelopeError> {
        let mut file = open_alone(path)?;
        let header = read_header(&mut file)?;
        if self.rewrites {
            return self.write_anew(decryptor, file, path, header).await;
        }
        let (update, rewrapped) = self.changed(decryptor, &header).await?;
        write_slot(&file, &update).map_err(StreamError::Write)?;
        Ok(rewrapped)
    }

    /// The bytes that have to be written into an envelope with this header, and where: for
    /// envelopes that are no files. Nothing else may be written meanwhile.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub async fn header(
        &self,
        decryptor: &Decryptor,
        header: &Header,
    ) -> Result<SlotUpdate, EnvelopeError> {
        self.changed(decryptor, header).await.map(|(update, _)| update)
    }

    async fn changed(
        &self,
        decryptor: &Decryptor,
        header: &Header,
    ) -> Result<(SlotUpdate, Rewrapped), EnvelopeError> {
        let mut recipients = self.staying(header)?;
        let key = decryptor.proven_key(header).await?;
        let data_key = &key.data_key;
        if self.refreshes {
            for recipient in &mut recipients {
                if let RecipientName::Lastkey { .. } = recipient.name() {
                    *recipient = self.renewed(recipient, data_key, header, decryptor).await?;
                }
            }
        }
        self.add(&mut recipients, data_key, header).await?;
        let update = header.rewrap(data_key, &recipients).map_err(wrong)?;
        let sequence = header.sequence().saturating_add(1);
        Ok((update, Rewrapped { sequence, recipients }))
    }

    /// The old file keeps its name until the new one is whole.
    async fn write_anew(
        &self,
        decryptor: &Decryptor,
        file: File,
        path: &Path,
        header: Header,
    ) -> Result<Rewrapped, EnvelopeError> {
        let staying = self.staying(&header)?;
        let old = decryptor.proven_key(&header).await?;
        let mut fresh = ProtectedKey { data_key: fresh_data_key()?, recipients: Vec::new() };
        for recipient in &staying {
            let renewed = self.renewed(recipient, &fresh.data_key, &header, decryptor).await?;
            fresh.recipients.push(renewed);
        }
        self.add(&mut fresh.recipients, &fresh.data_key, &header).await?;
        let recipients = fresh.recipients.clone();
        let about = file.metadata().map_err(StreamError::Read)?;
        let pending = PendingFile::create(path, Replace::Allow)?;
        pending.set_owner(about.uid(), about.gid())?;
        let to = pending.handle()?;
        off_the_runtime(move || pump(file, &header, &old.data_key, to, &fresh)).await?;
        pending.keep(Some(about.mode()))?;
        Ok(Rewrapped { sequence: 1, recipients })
    }

    /// The recipients that are not taken away. Somebody to take away who is not there was
    /// mistyped, and another one would stay.
    fn staying(&self, header: &Header) -> Result<Vec<Recipient>, EnvelopeError> {
        let has = |wanted: &RecipientName| {
            header.recipients().iter().any(|recipient| is_same(&recipient.name(), wanted))
        };
        let has_key = |id: &String| header.recipients().iter().any(|one| is_key(&one.name(), id));
        if let Some(id) = self.removed_keys.iter().find(|id| !has_key(id)) {
            return Err(EnvelopeError::NotFound(id.clone()));
        }
        let has_age = |age: &AgeRecipient| has(&RecipientName::Age(age.clone()));
        if let Some(age) = self.removed_age.iter().find(|age| !has_age(age)) {
            return Err(EnvelopeError::NotFound(age.to_string()));
        }
        if self.removes_passphrases && passphrases(header.recipients()) == 0 {
            return Err(EnvelopeError::NotFound("a passphrase".to_owned()));
        }
        let stays = |recipient: &&Recipient| !self.removes(recipient);
        Ok(header.recipients().iter().filter(stays).cloned().collect())
    }

    fn removes(&self, recipient: &Recipient) -> bool {
        if recipient.kind == KIND_PASSPHRASE {
            return self.removes_passphrases;
        }
        let name = recipient.name();
        match &name {
            RecipientName::Lastkey { .. } => self.removed_keys.iter().any(|id| is_key(&name, id)),
            RecipientName::Age(recipient) => self.removed_age.contains(recipient),
            RecipientName::Passphrase(_) | RecipientName::Unknown => false,
        }
    }

    /// Adds; whom the header names already is replaced.
    async fn add(
        &self,
        recipients: &mut Vec<Recipient>,
        data_key: &SecretArray<32>,
        header: &Header,
    ) -> Result<(), EnvelopeError> {
        for whom in &self.added {
            let new = whom.protect(data_key, header.context()).await?;
            recipients.retain(|old| !is_same(&old.name(), &new.name()));
            recipients.push(new);
        }
        if passphrases(recipients) > MAX_PASSPHRASES {
            return Err(EnvelopeError::TooManyPassphrases);
        }
        if recipients.is_empty() { Err(EnvelopeError::Nobody) } else { Ok(()) }
    }

    /// The same recipient of a data key, made now.
    async fn renewed(
        &self,
        recipient: &Recipient,
        data_key: &SecretArray<32>,
        header: &Header,
        decryptor: &Decryptor,
    ) -> Result<Recipient, EnvelopeError> {
        let name = recipient.name();
        let whom = match &name {
            RecipientName::Lastkey { key_id, .. } => self
                .server
                .as_ref()
                .map(|client| Whom::Key { client: client.clone(), key: key_id_text(key_id) }),
            RecipientName::Age(age) => Some(Whom::Age(age.clone())),
            RecipientName::Passphrase(cost) => decryptor
                .known_passphrase(recipient)
                .map(|passphrase| Whom::Passphrase { passphrase, cost: *cost }),
            RecipientName::Unknown => None,
        };
        match whom {
            Some(whom) => whom.protect(data_key, header.context()).await,
            None => Err(EnvelopeError::NotRenewed(text_of(&name))),
        }
    }
}

fn passphrases(recipients: &[Recipient]) -> usize {
    recipients.iter().filter(|recipient| recipient.kind == KIND_PASSPHRASE).count()
}

fn is_key(name: &RecipientName, id: &str) -> bool {
    matches!(name, RecipientName::Lastkey { key_id, .. } if key_id_text(key_id) == id)
}

/// Two passphrases may be two persons'.
fn is_same(one: &RecipientName, other: &RecipientName) -> bool {
    match (one, other) {
        (RecipientName::Lastkey { key_id: a, .. }, RecipientName::Lastkey { key_id: b, .. }) => {
            a == b
        }
        (RecipientName::Age(a), RecipientName::Age(b)) => a == b,
        (
            RecipientName::Lastkey { .. }
            | RecipientName::Age(_)
            | RecipientName::Passphrase(_)
            | RecipientName::Unknown,
            _,
        ) => false,
    }
}

fn text_of(name: &RecipientName) -> String {
    match name {
        RecipientName::Lastkey { key_id, .. } => format!("key {}", key_id_text(key_id)),
        RecipientName::Age(recipient) => recipient.to_string(),
        RecipientName::Passphrase(_) => "a passphrase".to_owned(),
        RecipientName::Unknown => {
            "a recipient of a kind that this version does not know".to_owned()
        }
    }
}

/// The file, locked, and still the one of that name: two at once would write one slot.
fn open_alone(path: &Path) -> Result<File, EnvelopeError> {
    let open = || File::options().read(true).write(true).open(path);
    let file = open().map_err(StreamError::Read)?;
    file.try_lock().map_err(|_| EnvelopeError::Busy)?;
    let ours = file.metadata().map_err(StreamError::Read)?;
    let named = fs::metadata(path).map_err(StreamError::Read)?;
    let is_same = (ours.dev(), ours.ino()) == (named.dev(), named.ino());
    is_same.then_some(file).ok_or(EnvelopeError::Busy)
}

fn write_slot(file: &File, update: &SlotUpdate) -> io::Result<()> {
    file.write_all_at(&update.bytes, update.offset)?;
    file.sync_data()
}

/// On a thread for blocking work, where there is a runtime that has some.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnvelopeError> + Send + 'static,
) -> Result<T, EnvelopeError> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(|_| EnvelopeError::Thread)?,
        Err(_) => work(),
    }
}

/// Decrypts on one thread and encrypts on another.
fn pump(
    mut from: File,
    header: &Header,
    data_key: &SecretArray<32>,
    mut to: File,
    fresh: &ProtectedKey,
) -> Result<(), EnvelopeError> {
    let mut options = EnvelopeOptions {
        suite: header.suite(),
        segment_log2: u8::try_from(header.segment_len().ilog2()).unwrap_or(u8::MAX),
        slot_len: u32::try_from(header.slot_len()).unwrap_or(u32::MAX),
        context: header.context().clone(),
    };
    options.fit(&fresh.recipients).map_err(wrong)?;
    let (mut reader, mut writer) = io::pipe().map_err(StreamError::Write)?;
    let (opened, sealed) = std::thread::scope(|scope| {
        let opening = scope.spawn(move || decrypt_stream(header, data_key, &mut from, &mut writer));
        let (key, recipients) = (&fresh.data_key, &fresh.recipients);
        let entropy = &mut SystemEntropy;
        let sealed = encrypt_stream(&mut reader, &mut to, &options, key, recipients, entropy);
        // The other side may still write: it ends when nobody reads.
        drop(reader);
        (opening.join(), sealed)
    });
    // What could not be sealed ends the opening as well, so it is told first.
    let sealed = sealed?;
    let opened = opened.map_err(|_| EnvelopeError::Thread)??;
    let is_whole = opened.plaintext_len == sealed.plaintext_len;
    is_whole.then_some(()).ok_or_else(|| StreamError::Changed.into())
}

/// The id of a key as text, as [`RecipientName::Lastkey`] and the server have it.
///
/// # Source
/// RFC 9562, section 4: groups of 8, 4, 4, 4 and 12 hex digits.
#[must_use]
pub fn key_id_text(id: &[u8; 16]) -> String {
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
    use super::key_id_text;

    #[test]
    fn key_id_is_written_in_its_usual_groups() {
        let id = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(key_id_text(&id), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
