//! `seal add shamir` and `seal check-share`: shares are made and checked on this machine.
//!
//! Room      `lastkey`.
//! Source    `docs/formats/share.md`.
//! Holds     the server gets the public half, the wrapped seed, what the seal shares with it and
//!           check values, and no share. A share in clear is written only where no recipient was named, and is called
//!           one.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_client::Client;
use lastkey_core::ids::{InstanceId, RequestId};
use lastkey_core::seal_record::SealKind;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::envelope::{FileRecipient, encrypt_for};
use lastkey_crypto::share::Share;
use lastkey_secret::SecretVec;
use lastkey_service::seals::SealDraft;
use lastkey_wire::native::seals::{SetSealRequest, ShamirSeal, ShareHolderBody};
use lastkey_wire::{Base64Bytes, SecretBase64};
use serde::{Deserialize, Serialize};

use crate::cli::{args::DryRunArgs, failure::Failure, input, output, session::Session};
use crate::tls_identity::write_new;

/// Longest file of a share, in bytes.
const MAX_SHARE_LEN: usize = 1_024;

/// Arguments of `seal add shamir`.
#[derive(Args, Debug)]
pub(super) struct AddShamirArgs {
    /// How many shares there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..))]
    shares: u8,
    /// How many of them open the seal
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u8).range(2..))]
    threshold: u8,
    /// Folder for the shares, one file for each holder; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Public key of a holder (age1... or ssh-ed25519 ...): share 1 for the first one, and so on
    #[arg(long = "recipient", value_name = "KEY")]
    recipients: Vec<String>,
    /// File with the public keys of the holders, one on a line
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    recipients_file: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `seal check-share`.
#[derive(Args, Debug)]
pub(super) struct CheckShareArgs {
    /// File with your share, decrypted (`-`: standard input)
    share: PathBuf,
    /// The file `shares.json` that was written beside the shares; it holds no secret
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
}

/// What lies beside the shares for everybody: by what each is checked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareList {
    instance: String,
    seal: String,
    threshold: u8,
    shares: Vec<ListedShare>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedShare {
    number: u8,
    recipient: Option<String>,
    check_value: Base64Bytes,
}

/// Makes the shares, writes them, and lets the server know of the seal.
pub(super) async fn add(
    args: &AddShamirArgs,
    client: &Client,
    session: &Session,
) -> Result<(), Failure> {
    let recipients = recipients(args)?;
    let instance = instance_of(client).await?;
    let names = match &recipients {
        Some(recipients) => recipients.iter().map(ToString::to_string).collect(),
        None => vec![String::new(); usize::from(args.shares)],
    };
    let split = SealDraft::split(instance, args.threshold, names, &mut SystemEntropy);
    let (draft, shares) = split.map_err(|error| Failure::Usage(error.to_string()))?;
    let request = request(&draft)?;
    if !args.dry_run.dry_run {
        // Written first: a seal that the server knows and nobody can open helps nobody.
        write_shares(args, instance, &draft, &shares, recipients.as_deref())?;
    }
    let reply = session.settle(client.add_seal(request), args.dry_run).await?;
    let Some(reply) = reply else { return Ok(()) };
    if recipients.is_none() {
        output::note(&format!(
            "warning: no --recipient was given, so the shares in {} are in clear; hand them out \
             one by one and destroy the folder",
            args.out.display()
        ));
    }
    session.show(&reply)
}

/// The public keys of the holders; none when no one was named.
fn recipients(args: &AddShamirArgs) -> Result<Option<Vec<FileRecipient>>, Failure> {
    if args.threshold > args.shares {
        return Err(Failure::Usage("--threshold is at most --shares".to_owned()));
    }
    let named = match &args.recipients_file {
        Some(path) => {
            let doing = || format!("read {}", path.display());
            let text = fs::read_to_string(path)
                .map_err(|source| Failure::Io { doing: doing(), source })?;
            let lines = text.lines().map(str::trim);
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned)
                .collect()
        }
        None => args.recipients.clone(),
    };
    if named.is_empty() && args.recipients_file.is_none() {
        return Ok(None);
    }
    if named.len() != usize::from(args.shares) {
        let problem =
            format!("{} shares need as many recipients; there are {}", args.shares, named.len());
        return Err(Failure::Usage(problem));
    }
    let parse = |text: &String| FileRecipient::parse(text);
    let parsed = named.iter().map(parse).collect::<Result<Vec<_>, _>>();
    parsed.map(Some).map_err(|error| Failure::Usage(error.to_string()))
}

async fn instance_of(client: &Client) -> Result<InstanceId, Failure> {
    let instance = client.status().await?.instance.unwrap_or_default();
    let parsed = InstanceId::parse(&instance);
    parsed.ok_or_else(|| Failure::Input("the server has no installation yet".to_owned()))
}

fn request(draft: &SealDraft) -> Result<SetSealRequest, Failure> {
    let (id, kind, public, wrapped_seed) = draft.parts();
    let SealKind::Shamir { threshold, holders } = kind else {
        return Err(Failure::Input("not a seal of shares".to_owned()));
    };
    let holders = holders.iter().map(|holder| ShareHolderBody {
        recipient: Some(holder.recipient.clone()).filter(|text| !text.is_empty()),
        check_value: Base64Bytes(holder.check_value.to_vec()),
    });
    let shamir = ShamirSeal {
        id: RequestId(*id).to_string(),
        threshold: *threshold,
        holders: holders.collect(),
        public: Base64Bytes(public.to_vec()),
        wrapped_seed: Base64Bytes(wrapped_seed.to_vec()),
        shared: SecretBase64(draft.shared().expose(|shared| SecretVec::copy_of(shared))),
    };
    Ok(SetSealRequest { shamir: Some(shamir), ..SetSealRequest::default() })
}

/// One file for each share, and the list.
fn write_shares(
    args: &AddShamirArgs,
    instance: InstanceId,
    draft: &SealDraft,
    shares: &[Share],
    recipients: Option<&[FileRecipient]>,
) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::Input(format!("{error:#}"));
    let doing = || format!("make {}", args.out.display());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&args.out);
    made.map_err(|source| Failure::Io { doing: doing(), source })?;
    let (id, _, _, _) = draft.parts();
    let mut listed = Vec::with_capacity(shares.len());
    for (at, share) in shares.iter().enumerate() {
        let text = share.to_text();
        let recipient = recipients.and_then(|recipients| recipients.get(at));
        let stem = args.out.join(format!("share-{}", share.index()));
        match recipient {
            Some(recipient) => {
                let file = encrypt_for(recipient, &text, &mut SystemEntropy)
                    .map_err(|error| Failure::Input(error.to_string()))?;
                write_new(&stem.with_extension("age"), &file, 0o600).map_err(failed)?;
            }
            None => {
                let path = stem.with_extension("txt");
                text.expose(|text| write_new(&path, text, 0o600)).map_err(failed)?;
            }
        }
        let check_value = share.check_value().map_err(|error| Failure::Input(error.to_string()))?;
        listed.push(ListedShare {
            number: share.index(),
            recipient: recipient.map(ToString::to_string),
            check_value: Base64Bytes(check_value.to_vec()),
        });
    }
    let (seal, instance) = (RequestId(*id).to_string(), instance.to_string());
    let list = ShareList { instance, seal, threshold: args.threshold, shares: listed };
    let text = serde_json::to_vec_pretty(&list).unwrap_or_default();
    write_new(&args.out.join("shares.json"), &text, 0o644).map_err(failed)
}

/// Reads a share that its holder has decrypted.
pub(crate) fn read_share(path: &Path) -> Result<SecretVec, Failure> {
    input::Source::open(Some(path))?.read_secret(MAX_SHARE_LEN)
}

/// Checks a share against the list, on this machine.
pub(super) fn check(args: &CheckShareArgs, session: &Session) -> Result<(), Failure> {
    let not_valid = |problem: String| Failure::Input(problem);
    let share = Share::parse(&read_share(&args.share)?);
    let share = share.map_err(|error| not_valid(error.to_string()))?;
    let doing = || format!("read {}", args.list.display());
    let list = fs::read(&args.list).map_err(|source| Failure::Io { doing: doing(), source })?;
    let list: ShareList = serde_json::from_slice(&list)
        .map_err(|error| not_valid(format!("{}: {error}", args.list.display())))?;
    let place = share.place();
    let is_of_it = RequestId(place.seal).to_string() == list.seal
        && InstanceId(place.instance).to_string() == list.instance
        && place.threshold == list.threshold;
    if !is_of_it {
        return Err(not_valid("this share belongs to another seal or installation".to_owned()));
    }
    let listed = list.shares.iter().find(|listed| listed.number == share.index());
    let check_value = share.check_value().map_err(|error| not_valid(error.to_string()))?;
    if listed.is_none_or(|listed| listed.check_value.0 != check_value) {
        return Err(Failure::NotValid("this is not the share that was handed out"));
    }
    session.show(&CheckedShare {
        seal: list.seal,
        share: share.index(),
        shares: place.shares,
        threshold: list.threshold,
    })
}

/// A share that is right.
#[derive(Debug, Serialize)]
pub(super) struct CheckedShare {
    pub(super) seal: String,
    pub(super) share: u8,
    pub(super) shares: u8,
    pub(super) threshold: u8,
}
