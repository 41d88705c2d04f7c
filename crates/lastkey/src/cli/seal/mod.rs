//! `seal`: the seals of the root key, how they are changed and proven; and sealing the server.
//!
//! Room      `lastkey`.
//! Holds     secrets come from files, standard input or a prompt without echo, never from
//!           arguments. Shares are made here and never sent to the server.

mod device;
mod shamir;
mod show;
mod tpm2;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lastkey_crypto::kdf::Argon2Params;
use lastkey_secret::SecretVec;
use lastkey_wire::native::seals::{
    DeviceSeal, DrillRequest, PassphraseSeal, RotateSealsRequest, SetSealRequest,
};
use lastkey_wire::{SecretBase64, SecretText};

use super::{args::DryRunArgs, failure::Failure, input, output, session::Session};
use crate::passphrase;

pub(super) use shamir::read_share;

/// Arguments of `seal`. Without a subcommand it seals the server.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SealArgs {
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(subcommand)]
    command: Option<SealCommand>,
}

/// Subcommands of `seal`.
#[derive(Subcommand, Debug)]
enum SealCommand {
    #[command(flatten)]
    Remote(RemoteCommand),
    #[command(flatten)]
    Local(LocalCommand),
}

/// Those that need no server.
#[derive(Subcommand, Debug)]
enum LocalCommand {
    /// Check your share alone, without a server
    CheckShare(shamir::CheckShareArgs),
    /// Approve states of a machine whose TPM holds a seal
    #[command(subcommand)]
    Tpm2(tpm2::Tpm2Command),
}

/// Those that ask the server.
#[derive(Subcommand, Debug)]
enum RemoteCommand {
    /// List the seals and what is known of each
    List,
    /// Add a seal; each one opens the root key by itself
    #[command(subcommand)]
    Add(AddCommand),
    /// Change the passphrase of a seal
    ChangePassphrase {
        /// Id of the seal
        id: String,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Remove a seal; root and storage keys are drawn anew
    Remove {
        /// Id of the seal
        id: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Draw a new root key
    Rotate {
        /// Draw a new storage key as well, and renew all records under it
        #[arg(long)]
        keyring: bool,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Prove that seals open: all devices, and what is presented
    Drill {
        /// File with a passphrase to prove (`-`: standard input)
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// A key file to prove
        #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
        keyfile: Option<PathBuf>,
    },
    /// Fail when one loss would cost everything
    Check {
        /// Record in the server that it is meant so, and succeed from now on
        #[arg(long)]
        force: bool,
    },
}

/// What can be added.
#[derive(Subcommand, Debug)]
enum AddCommand {
    /// A passphrase
    Passphrase(PassphraseArgs),
    /// Shares for several holders, some of whom open it together
    Shamir(shamir::AddShamirArgs),
    /// A hardware security module, by PKCS#11
    Pkcs11(device::Pkcs11Args),
    /// The TPM of the server's machine; run it there
    Tpm2(tpm2::AddArgs),
    /// A key of another Lastkey
    Kms(device::KmsArgs),
}

/// A new passphrase and what guessing it costs.
#[derive(Args, Debug)]
struct PassphraseArgs {
    /// File with the new passphrase (`-`: standard input); asked for when left out
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Memory that Argon2id takes, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    argon2_memory: u32,
    /// Passes that Argon2id makes
    #[arg(long, value_name = "N", default_value_t = Argon2Params::SEAL_PASSES)]
    argon2_passes: u32,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a command.
pub(crate) async fn run(args: SealArgs, session: &Session) -> Result<(), Failure> {
    match args.command {
        None => session.settle_and_show(session.client()?.seal(), args.dry_run).await,
        Some(SealCommand::Local(LocalCommand::CheckShare(args))) => shamir::check(&args, session),
        Some(SealCommand::Local(LocalCommand::Tpm2(command))) => tpm2::run(command),
        Some(SealCommand::Remote(command)) => run_remote(command, session).await,
    }
}

async fn run_remote(command: RemoteCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        RemoteCommand::List => session.show(&client.list_seals().await?),
        RemoteCommand::Add(AddCommand::Passphrase(args)) => {
            let call = client.add_seal(of_passphrase(&args)?);
            session.settle_and_show(call, args.dry_run).await
        }
        RemoteCommand::Add(AddCommand::Shamir(args)) => shamir::add(&args, &client, session).await,
        RemoteCommand::Add(AddCommand::Pkcs11(args)) => {
            session.show(&client.add_seal(of_device(device::pkcs11(&args)?)).await?)
        }
        RemoteCommand::Add(AddCommand::Kms(args)) => {
            session.show(&client.add_seal(of_device(device::kms(&args)?)).await?)
        }
        RemoteCommand::Add(AddCommand::Tpm2(args)) => add_tpm2(&args, &client, session).await,
        RemoteCommand::ChangePassphrase { id, passphrase } => {
            let call = client.replace_seal(&id, of_passphrase(&passphrase)?);
            session.settle_and_show(call, passphrase.dry_run).await
        }
        RemoteCommand::Remove { id, dry_run } => {
            let reply = session.settle(client.remove_seal(&id), dry_run).await?;
            let Some(reply) = reply else { return Ok(()) };
            if let Some(notice) = &reply.notice {
                output::note(&format!("note: {notice}"));
            }
            session.show(&reply)
        }
        RemoteCommand::Rotate { keyring, dry_run } => {
            let call = client.rotate_seals(RotateSealsRequest { keyring });
            session.settle_and_show(call, dry_run).await
        }
        RemoteCommand::Drill { passphrase_file, keyfile } => {
            let passphrase = passphrase_file.as_deref().map(|file| input::passphrase(Some(file)));
            let passphrase = passphrase.transpose()?.map(SecretText);
            let keyfile = keyfile.as_deref().map(read).transpose()?.map(SecretBase64);
            let reply = client.drill_seals(DrillRequest { passphrase, keyfile }).await?;
            session.show(&reply)?;
            let failed = reply.seals.iter().any(|seal| seal.health == "failed");
            if failed { Err(Failure::Found) } else { Ok(()) }
        }
        RemoteCommand::Check { force } => check(force, &client, session).await,
    }
}

/// Fails when one loss is fatal, unless somebody has said that it is meant so.
async fn check(
    force: bool,
    client: &lastkey_client::Client,
    session: &Session,
) -> Result<(), Failure> {
    let reply = if force { client.accept_weakness().await? } else { client.list_seals().await? };
    for weakness in &reply.weaknesses {
        output::note(&format!(
            "{}: {}\n  next: {}",
            weakness.code, weakness.message, weakness.next
        ));
    }
    if let Some(accepted) = &reply.accepted {
        output::note(&format!("accepted by {} at {}", accepted.by, accepted.at));
    }
    session.show(&reply)?;
    let is_fatal = !reply.weaknesses.is_empty() && reply.accepted.is_none();
    if is_fatal { Err(Failure::Found) } else { Ok(()) }
}

fn of_passphrase(args: &PassphraseArgs) -> Result<SetSealRequest, Failure> {
    let passphrase = passphrase::read_new(args.passphrase_file.as_deref())
        .map_err(|error| Failure::Input(format!("{error:#}")))?;
    let passphrase = Some(PassphraseSeal {
        passphrase: SecretText(passphrase),
        memory_kib: Some(args.argon2_memory.saturating_mul(1_024)),
        passes: Some(args.argon2_passes),
    });
    Ok(SetSealRequest { passphrase, ..SetSealRequest::default() })
}

fn of_device(seal: DeviceSeal) -> SetSealRequest {
    SetSealRequest { device: Some(seal), ..SetSealRequest::default() }
}

/// Prepares the TPM of this machine, and lets the server make a seal of it.
async fn add_tpm2(
    args: &tpm2::AddArgs,
    client: &lastkey_client::Client,
    session: &Session,
) -> Result<(), Failure> {
    let prepared = tpm2::prepare(args)?;
    match client.add_seal(of_device(prepared.seal.clone())).await {
        Ok(reply) => session.show(&reply),
        Err(error) => {
            // When nobody knows whether the seal was made, the TPM keeps what it was given.
            if error.refusal().is_some() {
                prepared.undo();
            }
            Err(error.into())
        }
    }
}

fn read(path: &Path) -> Result<SecretVec, Failure> {
    let doing = || format!("read {}", path.display());
    let bytes = std::fs::read(path);
    bytes.map(SecretVec::take).map_err(|source| Failure::Io { doing: doing(), source })
}
