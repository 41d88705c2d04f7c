//! Changing who can open an envelope, without touching its data.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`, section "Slots".
//! Holds     The old recipients are in force until the new slot is whole and on disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use lastkey_crypto::{
    context::EncryptionContext,
    envelope::{AgeRecipient, Header, Recipient, RecipientName, SlotUpdate},
    stream::{StreamError, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_wire::{Base64Bytes, native::operations::ReencryptRequest};

use crate::{
    client::Client,
    decryptor::Decryptor,
    encryptor::{Whom, passphrase_of, wrong},
    envelope::{EnvelopeError, wire_context},
};

/// A change of the recipients of envelopes: only the header is written, whatever the length.
///
/// Who was removed and kept the data key, or an older copy of the envelope, can still decrypt:
/// to shut somebody out, encrypt anew.
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
    refreshed: Option<Client>,
}

impl Rewrap {
    /// Changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one more key decrypt: an id or an alias.
    #[must_use]
    pub fn add_key(mut self, client: &Client, key: impl Into<String>) -> Self {
        self.added.push(Whom::Key { client: client.clone(), key: key.into() });
        self
    }

    /// Lets the owner of a key of age decrypt.
    #[must_use]
    pub fn add_age(mut self, recipient: AgeRecipient) -> Self {
        self.added.push(Whom::Age(recipient));
        self
    }

    /// Lets who knows a passphrase decrypt.
    #[must_use]
    pub fn add_passphrase(mut self, passphrase: SecretVec) -> Self {
        self.added.push(passphrase_of(passphrase));
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

    /// Takes every passphrase away.
    #[must_use]
    pub fn remove_passphrases(mut self) -> Self {
        self.removes_passphrases = true;
        self
    }

    /// Protects the data key anew under the primary version of each key that stays, for
    /// instance after a rotation. The server does it; the keys must be its own.
    #[must_use]
    pub fn refresh(mut self, client: &Client) -> Self {
        self.refreshed = Some(client.clone());
        self
    }

    /// Changes a file in place and waits for the disk. A crash leaves the old recipients or the
    /// new ones. `decryptor` recovers the data key.
    ///
    /// # Errors
    /// [`EnvelopeError::NotFound`] when somebody to remove is no recipient;
    /// [`EnvelopeError::NoRecipient`] when nobody would be left; in a [`StreamError`],
    /// `RecipientsTooLong` when the header has no room: encrypt anew then. See
    /// [`EnvelopeError`] for the others.
    pub async fn file(&self, decryptor: &Decryptor, path: &Path) -> Result<(), EnvelopeError> {
        let open = || File::options().read(true).write(true).open(path);
        let mut file = open().map_err(StreamError::Read)?;
        // Two at once would write one slot.
        file.lock().map_err(StreamError::Read)?;
        let header = read_header(&mut file)?;
        let update = self.header(decryptor, &header).await?;
        write_slot(&file, &update).map_err(|cause| StreamError::Write(cause).into())
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
        let loan = decryptor.loan(header).await?;
        // A wrong data key must not be protected for anybody.
        header.unlock(&loan.key.data_key).map_err(wrong)?;
        let recipients = self.recipients(header, &loan.key.data_key).await?;
        if recipients.is_empty() {
            return Err(EnvelopeError::NoRecipient);
        }
        header.rewrap(&loan.key.data_key, &recipients).map_err(wrong)
    }

    async fn recipients(
        &self,
        header: &Header,
        data_key: &SecretArray<32>,
    ) -> Result<Vec<Recipient>, EnvelopeError> {
        self.check_removed(header)?;
        let mut recipients = Vec::new();
        for recipient in header.recipients() {
            let name = recipient.name();
            if self.removes(&name) {
                continue;
            }
            let renewed = match (&self.refreshed, &name) {
                (Some(client), RecipientName::Lastkey { key_id, .. }) => {
                    refreshed(client, &key_id_text(key_id), recipient, header.context()).await?
                }
                (Some(_) | None, _) => recipient.clone(),
            };
            recipients.push(renewed);
        }
        for whom in &self.added {
            recipients.push(whom.protect(data_key, header.context()).await?);
        }
        Ok(recipients)
    }

    fn removes(&self, name: &RecipientName) -> bool {
        match name {
            RecipientName::Lastkey { key_id, .. } => {
                self.removed_keys.contains(&key_id_text(key_id))
            }
            RecipientName::Age(recipient) => self.removed_age.contains(recipient),
            RecipientName::Passphrase(_) => self.removes_passphrases,
            RecipientName::Unknown => false,
        }
    }

    /// Somebody who is not there was mistyped, and another one would stay.
    fn check_removed(&self, header: &Header) -> Result<(), EnvelopeError> {
        let names: Vec<_> = header.recipients().iter().map(Recipient::name).collect();
        let has_key = |id: &String| {
            names.iter().any(|name| {
                matches!(name, RecipientName::Lastkey { key_id, .. } if key_id_text(key_id) == *id)
            })
        };
        let has_age = |age: &AgeRecipient| {
            names.iter().any(|name| matches!(name, RecipientName::Age(one) if one == age))
        };
        let is_there =
            self.removed_keys.iter().all(has_key) && self.removed_age.iter().all(has_age);
        if is_there { Ok(()) } else { Err(EnvelopeError::NotFound) }
    }
}

async fn refreshed(
    client: &Client,
    key: &str,
    recipient: &Recipient,
    context: &EncryptionContext,
) -> Result<Recipient, EnvelopeError> {
    let (context, context_raw) = wire_context(context);
    let request = ReencryptRequest {
        ciphertext: Base64Bytes(recipient.body.clone()),
        context: context.clone(),
        context_raw: context_raw.clone(),
        from_key: None,
        from_version: None,
        to_key: key.to_owned(),
        to_context: context,
        to_context_raw: context_raw,
        dry_run: false,
    };
    let reply = client.reencrypt(&request).send().await.map_err(EnvelopeError::Server)?;
    Ok(Recipient::lastkey(reply.ciphertext.0))
}

fn write_slot(file: &File, update: &SlotUpdate) -> io::Result<()> {
    file.write_all_at(&update.bytes, update.offset)?;
    file.sync_data()
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
