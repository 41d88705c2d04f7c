//! `lastkey init`: founds an installation in a data directory.
//!
//! Room      the binary.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use lastkey_crypto::kdf::Argon2Params;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::people::ENROLMENT_SECS;
use lastkey_service::sealing::{NewSeal, initialise};
use lastkey_store::audit_log::AuditOptions;

use crate::tls_identity::{ca_path, create_ca, write_new};
use crate::wiring::{Opened, open_data};
use crate::{hardening, passphrase, say};

/// Founds an installation: root key, first seal, certificate authority, administrator's token.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// What protects the root key.
    #[arg(long, value_enum, default_value = "passphrase")]
    seal: Seal,
    /// Read the passphrase from a file (- for standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Memory that Argon2id takes for the passphrase, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    argon2_memory: u32,
    /// Passes that Argon2id makes.
    #[arg(long, value_name = "N", default_value_t = Argon2Params::SEAL_PASSES)]
    argon2_passes: u32,
    /// With --seal keyfile: where the new key file is written (mode 0600). Development only.
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Seal {
    /// A passphrase, asked for at every unseal.
    Passphrase,
    /// A file. Development only: who reads the disk reads the root key.
    Keyfile,
}

/// What a new installation shows once.
pub(crate) struct Founded {
    pub(crate) instance: String,
    pub(crate) admin_token: SecretVec,
    pub(crate) enrolment_code: SecretVec,
    pub(crate) ca_fingerprint: String,
}

/// Founds it and prints what is shown once.
///
/// # Errors
/// When there is an installation already, or something cannot be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    hardening::apply().context("cannot switch core dumps off")?;
    let Some(founded) = found(&args.data, || new_seal(args))? else {
        bail!(
            "{} holds an installation already; nothing was changed \
             (a lost token is replaced by `lastkey admin-token`)",
            args.data.display()
        );
    };
    let shown =
        |secret: &SecretVec| secret.expose(|text| String::from_utf8_lossy(text).into_owned());
    let (token, code) = (shown(&founded.admin_token), shown(&founded.enrolment_code));
    let ca = ca_path(&args.data);
    let text = format!(
        "Installation {instance} is founded in {data}.\n\n\
         Administrator's token, shown this once, void when the first administrator is enrolled:\n  {token}\n\n\
         Enrolment code of the first administrator, good for {minutes} minutes:\n  {code}\n\n\
         CA certificate for clients (LASTKEY_CA): {ca}\n  {fingerprint}\n\n\
         Next:\n  lastkey server --data {data}\n  lastkey unseal    # with LASTKEY_ADDR and LASTKEY_CA set\n  \
         lastkey user enrol --name YOU --code-stdin",
        instance = founded.instance,
        minutes = ENROLMENT_SECS / 60,
        data = args.data.display(),
        ca = ca.display(),
        fingerprint = founded.ca_fingerprint,
    );
    drop((SecretVec::take_text(token), SecretVec::take_text(code)));
    let text = SecretVec::take_text(text);
    text.expose(|text| say::line(&String::from_utf8_lossy(text)))
}

/// Founds an installation; `None` when there is one already. The seal is made once it is sure
/// that there is none yet, under the lock of the data directory: a key file that is in use is
/// never replaced.
///
/// # Errors
/// When something cannot be written; those of `seal`.
pub(crate) fn found(
    data: &Path,
    seal: impl FnOnce() -> anyhow::Result<NewSeal>,
) -> anyhow::Result<Option<Founded>> {
    let Opened { store, ports, .. } = open_data(data, AuditOptions::KEEP_ALL)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(store.bootstrap())?;
    if status.is_some() {
        return Ok(None);
    }
    let seal = seal()?;
    let ca_fingerprint = create_ca(data)?;
    let founded = runtime.block_on(initialise(&*store, &ports, &seal))?;
    Ok(Some(Founded {
        instance: founded.instance.to_string(),
        admin_token: founded.admin_token,
        enrolment_code: founded.enrolment_code,
        ca_fingerprint,
    }))
}

fn new_seal(args: &Args) -> anyhow::Result<NewSeal> {
    match args.seal {
        Seal::Passphrase => {
            let memory_kib = args.argon2_memory.saturating_mul(1_024);
            let costs = Argon2Params::parse(memory_kib, args.argon2_passes, 4)
                .context("--argon2-memory is 1 to 1024, --argon2-passes 1 to 16")?;
            let passphrase = passphrase::read_new(args.passphrase_file.as_deref())?;
            Ok(NewSeal::Passphrase { passphrase, costs })
        }
        Seal::Keyfile => {
            let path = args.keyfile.as_deref().context("--seal keyfile needs --keyfile FILE")?;
            Ok(NewSeal::Keyfile(new_keyfile(path)?))
        }
    }
}

/// Draws a key file and writes it with mode 0600.
///
/// # Errors
/// When it is there already or cannot be written.
pub(crate) fn new_keyfile(path: &Path) -> anyhow::Result<SecretArray<32>> {
    use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
    let key = SecretArray::<32>::try_fill(|bytes| SystemEntropy.fill(bytes))?;
    key.expose(|bytes| write_new(path, bytes, 0o600))?;
    Ok(key)
}
