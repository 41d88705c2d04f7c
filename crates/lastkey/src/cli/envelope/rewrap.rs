//! `rewrap`: who can open encrypted files, changed in the header alone.
//!
//! Room      `lastkey`.
//! Source    `docs/formats/envelope.md`, "Changing recipients".
//! Holds     A crash leaves the old recipients or the new ones. Two processes do not change one
//!           file at once.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use lastkey_client::{
    Client,
    file::{PendingFile, Replace},
};
use lastkey_crypto::{
    entropy::{Entropy, SystemEntropy},
    envelope::{
        AgeRecipient, EnvelopeError, EnvelopeOptions, Header, KIND_LASTKEY, KIND_PASSPHRASE,
        MAX_PASSPHRASES, Recipient, RecipientName,
    },
    stream,
};
use lastkey_secret::SecretArray;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::{
    inspect::{recipient_json, recipient_text, uuid_text},
    keys::{OpenArgs, Opener, Protected, RecipientArgs, Recipients, failed, wrap_for},
    on_a_thread,
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
    let changes = Changes::read(&args, &opener, session).await?;
    let mut changed = Vec::new();
    for path in &args.files {
        changed.push((path, change(path, &opener, &changes).await?));
    }
    show(&changed, session)
}

/// What is to be changed.
struct Changes {
    added: Recipients,
    removed_ids: Vec<(String, String)>,
    removed_age: Vec<AgeRecipient>,
    removes_passphrases: bool,
    rewrites: bool,
    client: Option<Arc<Client>>,
}

/// A file whose recipients were changed.
struct Changed {
    sequence: u64,
    recipients: Vec<Recipient>,
}

impl Changes {
    async fn read(args: &RewrapArgs, opener: &Opener, session: &Session) -> Result<Self, Failure> {
        let added = RecipientArgs::of(
            args.add_key.clone(),
            args.add_recipient.clone(),
            args.add_passphrase_file.clone(),
        );
        let added = added.read(session)?;
        // Who opens the file without a server may still have one for its other recipients.
        let client = match opener.client().or_else(|| added.client()) {
            Some(client) => Some(client),
            None if args.remove_key.iter().all(|key| is_id(key)) => {
                session.client().ok().map(Arc::new)
            }
            None => Some(Arc::new(session.client()?)),
        };
        let mut removed_ids = Vec::new();
        for key in &args.remove_key {
            removed_ids.push((key.clone(), id_of(key, client.as_deref()).await?));
        }
        Ok(Self {
            added,
            removed_ids,
            removed_age: args.remove_recipient.clone(),
            removes_passphrases: args.remove_passphrases,
            rewrites: args.rewrite,
            client,
        })
    }

    fn removes_somebody(&self) -> bool {
        !self.removed_ids.is_empty() || !self.removed_age.is_empty() || self.removes_passphrases
    }

    /// Nothing but the newest versions of the keys that are there.
    fn only_refreshes(&self) -> bool {
        !self.removes_somebody() && self.added.is_empty() && !self.rewrites
    }

    /// The recipients that stay, as they are.
    fn staying(&self, header: &Header, path: &Path) -> Result<Vec<Recipient>, Failure> {
        let names: Vec<_> = header.recipients().iter().map(Recipient::name).collect();
        let missing = |what: &dyn std::fmt::Display| {
            Err(Failure::Input(format!("{} is not encrypted for {what}", path.display())))
        };
        for (key, id) in &self.removed_ids {
            if !names.iter().any(|name| is_key(name, id)) {
                return missing(key);
            }
        }
        for age in &self.removed_age {
            if !names.contains(&RecipientName::Age(age.clone())) {
                return missing(age);
            }
        }
        let passphrases = header.recipients().iter().filter(|one| one.kind == KIND_PASSPHRASE);
        if self.removes_passphrases && passphrases.count() == 0 {
            return missing(&"a passphrase");
        }
        let stays = |recipient: &&Recipient| {
            let name = recipient.name();
            let is_removed = self.removed_ids.iter().any(|(_, id)| is_key(&name, id))
                || matches!(&name, RecipientName::Age(age) if self.removed_age.contains(age))
                || (recipient.kind == KIND_PASSPHRASE && self.removes_passphrases);
            !is_removed
        };
        Ok(header.recipients().iter().filter(stays).cloned().collect())
    }

    /// A recipient of a key in its primary version.
    async fn refreshed(
        &self,
        recipient: &Recipient,
        data_key: &SecretArray<32>,
        header: &Header,
    ) -> Result<Recipient, Failure> {
        match (recipient.name(), &self.client) {
            (RecipientName::Lastkey { key_id, .. }, Some(client)) => {
                wrap_for(client, &uuid_text(&key_id), data_key, header.context()).await
            }
            (RecipientName::Age(age), _) => {
                Recipient::age(&age, data_key, &mut SystemEntropy).map_err(failed)
            }
            (
                RecipientName::Lastkey { .. }
                | RecipientName::Passphrase(_)
                | RecipientName::Unknown,
                _,
            ) => Err(Failure::Input(format!(
                "nothing given can make this recipient anew: {}; remove it, or give its server or \
                 passphrase",
                recipient_text(recipient)
            ))),
        }
    }

    /// The recipients from now on.
    async fn apply(
        &self,
        header: &Header,
        staying: Vec<Recipient>,
        data_key: &SecretArray<32>,
    ) -> Result<Vec<Recipient>, Failure> {
        let mut recipients = staying;
        if self.only_refreshes() {
            for recipient in recipients.iter_mut().filter(|one| one.kind == KIND_LASTKEY) {
                *recipient = self.refreshed(recipient, data_key, header).await?;
            }
        }
        self.add(&mut recipients, header, data_key).await?;
        Ok(recipients)
    }

    /// Adds; whom the header names already is replaced.
    async fn add(
        &self,
        recipients: &mut Vec<Recipient>,
        header: &Header,
        data_key: &SecretArray<32>,
    ) -> Result<(), Failure> {
        for new in self.added.wrap(data_key, header.context()).await? {
            recipients.retain(|old| !is_same(&old.name(), &new.name()));
            recipients.push(new);
        }
        let passphrases = recipients.iter().filter(|one| one.kind == KIND_PASSPHRASE).count();
        if passphrases > MAX_PASSPHRASES {
            return Err(Failure::Input(format!(
                "a file has at most {MAX_PASSPHRASES} passphrases; see --remove-passphrases"
            )));
        }
        if recipients.is_empty() {
            return Err(Failure::Usage(
                "nobody could open it any more: add somebody, or delete the file".to_owned(),
            ));
        }
        Ok(())
    }
}

async fn change(path: &Path, opener: &Opener, changes: &Changes) -> Result<Changed, Failure> {
    let io_failed = |doing: &str, cause| Failure::io(format!("{doing} {}", path.display()), cause);
    let mut file = open_alone(path)?;
    let header = stream::read_header(&mut file)?;
    let data_key = opener.data_key(&header).await?;
    let staying = changes.staying(&header, path)?;
    if changes.rewrites {
        return rewrite(path, file, header, data_key, staying, opener, changes).await;
    }
    let recipients = changes.apply(&header, staying, &data_key).await?;
    let update = header.rewrap(&data_key, &recipients).map_err(|error| {
        if error == EnvelopeError::RecipientsTooLong {
            return Failure::HeaderFull(path.display().to_string());
        }
        failed(error)
    })?;
    file.write_all_at(&update.bytes, update.offset)
        .and_then(|()| file.sync_data())
        .map_err(|cause| io_failed("write", cause))?;
    if changes.removes_somebody() {
        output::note(&format!(
            "note: whoever has seen the data key of {} can still open it; \
             `lastkey rewrap --rewrite` encrypts it anew",
            path.display()
        ));
    }
    Ok(Changed { sequence: header.sequence() + 1, recipients })
}

/// Encrypts the whole file anew. The old one keeps its name until the new one is whole.
async fn rewrite(
    path: &Path,
    file: File,
    header: Header,
    data_key: SecretArray<32>,
    staying: Vec<Recipient>,
    opener: &Opener,
    changes: &Changes,
) -> Result<Changed, Failure> {
    let fresh = SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes))
        .map_err(|_| failed(EnvelopeError::Entropy))?;
    let mut recipients = Vec::new();
    for recipient in &staying {
        recipients.push(match opener.passphrase_again(recipient, &fresh)? {
            Some(again) => again,
            None => changes.refreshed(recipient, &fresh, &header).await?,
        });
    }
    changes.add(&mut recipients, &header, &fresh).await?;
    let mut options = EnvelopeOptions {
        suite: header.suite(),
        segment_log2: u8::try_from(header.segment_len().ilog2()).unwrap_or(u8::MAX),
        slot_len: u32::try_from(header.slot_len()).unwrap_or(u32::MAX),
        context: header.context().clone(),
    };
    options.fit(&recipients).map_err(failed)?;
    let about = file
        .metadata()
        .map_err(|cause| Failure::io(format!("look at {}", path.display()), cause))?;
    let pending = PendingFile::create(path, Replace::Allow)?;
    pending.set_owner(about.uid(), about.gid())?;
    let to = pending.handle()?;
    let protected = Protected { data_key: fresh, recipients };
    let recipients = protected.recipients.clone();
    on_a_thread(move || pump(file, &header, &data_key, to, &options, &protected)).await?;
    pending.keep(Some(about.mode()))?;
    Ok(Changed { sequence: 1, recipients })
}

/// Decrypts on one thread and encrypts on another.
fn pump(
    mut from: File,
    header: &Header,
    data_key: &SecretArray<32>,
    mut to: File,
    options: &EnvelopeOptions,
    protected: &Protected,
) -> Result<(), Failure> {
    let (mut reader, mut writer) = io::pipe().map_err(|cause| Failure::io("make a pipe", cause))?;
    let (opened, sealed) = std::thread::scope(|scope| {
        let opening =
            scope.spawn(move || stream::decrypt_stream(header, data_key, &mut from, &mut writer));
        let sealed = stream::encrypt_stream(
            &mut reader,
            &mut to,
            options,
            &protected.data_key,
            &protected.recipients,
            &mut SystemEntropy,
        );
        // The other side may still write: it ends when nobody reads.
        drop(reader);
        (opening.join(), sealed)
    });
    // What could not be sealed ends the opening as well, so it is told first.
    let sealed = sealed?;
    let opened = opened.map_err(|_| Failure::Input("decryption ended early".to_owned()))??;
    if opened.plaintext_len != sealed.plaintext_len {
        return Err(Failure::NotValid("the new file is not as long as the old one"));
    }
    Ok(())
}

/// The file, locked, and still the one of that name.
fn open_alone(path: &Path) -> Result<File, Failure> {
    let failed = |cause| Failure::io(format!("open {}", path.display()), cause);
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Failure::Input(format!("another process is changing {}", path.display())))?;
    let (ours, named) = (file.metadata().map_err(failed)?, fs::metadata(path).map_err(failed)?);
    if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Err(Failure::Input(format!("{} was just replaced", path.display())));
    }
    Ok(file)
}

fn is_key(name: &RecipientName, id: &str) -> bool {
    matches!(name, RecipientName::Lastkey { key_id, .. } if uuid_text(key_id) == id)
}

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

fn show(changed: &[(&PathBuf, Changed)], session: &Session) -> Result<(), Failure> {
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
