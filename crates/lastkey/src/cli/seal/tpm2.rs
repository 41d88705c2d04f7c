//! The TPM seal: measuring the machine, the approval key, approvals.
//!
//! Room      `lastkey`. `state` and `add` reach the TPM, so they run on the server's machine; `key`
//!           and `approve` need neither TPM nor network.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use lastkey_connect::seal::parse_hex;
use lastkey_connect::seal::tpm::{
    APPROVAL_SETTING, Anchor, Approval, ApprovalKey, MeasureError, State, TCTI_SETTING, Tcti,
    forget, measure,
};
use lastkey_core::ports::DeviceKind;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_secret::SecretVec;
use lastkey_wire::native::seals::DeviceSeal;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::device::seal_of;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::tls_identity::write_new;

/// Arguments of `seal add tpm2`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// The TPM: device:/dev/tpmrm0, swtpm:host=HOST,port=PORT or swtpm:path=SOCKET
    #[arg(long, value_name = "TCTI")]
    tcti: Tcti,
    /// Registers (PCR) that must be as they are now
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "7")]
    pcrs: Vec<u8>,
    /// The key that approves states of the machine (PKCS#8, PEM); made when it is not there
    #[arg(long, value_name = "FILE", default_value = "tpm2-approval-key.pem")]
    approval_key: PathBuf,
    /// File to write the first approval to; later states are approved with it at hand
    #[arg(long, value_name = "FILE", default_value = "tpm2-approval.json")]
    approval_out: PathBuf,
    /// An approval that was made elsewhere, by `seal tpm2 state` and `seal tpm2 approve`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pcrs", "approval_key", "approval_out"])]
    approval: Option<PathBuf>,
}

/// Commands about approvals.
#[derive(Subcommand, Debug)]
pub(crate) enum Tpm2Command {
    /// Make an approval key; on a machine that is offline
    Key(KeyArgs),
    /// Write the state of this machine, to be approved
    State(StateArgs),
    /// Approve a state; on the machine with the approval key
    Approve(ApproveArgs),
}

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// File to write the key to (mode 0600)
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct StateArgs {
    /// The TPM: device:/dev/tpmrm0, swtpm:host=HOST,port=PORT or swtpm:path=SOCKET
    #[arg(long, value_name = "TCTI")]
    tcti: Tcti,
    /// Registers (PCR) to approve; those of --approval, or 7, when left out
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pcrs: Vec<u8>,
    /// An approval of the seal; without it a new seal is prepared in the TPM
    #[arg(long, value_name = "FILE")]
    approval: Option<PathBuf>,
    /// File to write to; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ApproveArgs {
    /// What `seal tpm2 state` wrote
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The approval key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Expect this value of a register, for a system that was not booted yet (repeatable)
    #[arg(long, value_name = "N=HEX", value_parser = parse_register)]
    pcr: Vec<(u8, [u8; 32])>,
    /// Version of the approval; one more than the TPM's minimum when left out
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Leave older approvals good, to be able to boot the system of before
    #[arg(long)]
    keep_older: bool,
    /// File to write to; it goes into the folder `approvals` of the data directory
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

fn parse_register(text: &str) -> Result<(u8, [u8; 32]), String> {
    let wrong = || "expected a register and 64 hexadecimal digits, as in 11=00ff...".to_owned();
    let (number, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, parse_hex(value).ok_or_else(wrong)?))
}

/// Does what needs no server.
pub(super) fn run(command: Tpm2Command) -> Result<(), Failure> {
    match command {
        Tpm2Command::Key(args) => make_key(&args.out).map(|_| ()),
        Tpm2Command::State(args) => write_state(&args),
        Tpm2Command::Approve(args) => approve(args),
    }
}

/// A seal that was prepared in the TPM.
pub(crate) struct Prepared {
    pub(crate) seal: DeviceSeal,
    tcti: Tcti,
    /// Set when the TPM was given a counter for it.
    fresh: Option<Anchor>,
}

impl Prepared {
    /// Gives back what the TPM was given, after the server has refused the seal.
    pub(crate) fn undo(self) {
        if let Some(anchor) = self.fresh
            && let Err(error) = forget(&self.tcti, &anchor)
        {
            output::note(&format!("warning: the TPM keeps a counter that nobody uses: {error}"));
        }
    }
}

/// Prepares a seal of the TPM of this machine, approved for the state it is in.
pub(super) fn prepare(args: &AddArgs) -> Result<Prepared, Failure> {
    let tcti = args.tcti.clone();
    let (approval, fresh) = match &args.approval {
        Some(path) => (read_approval(path)?, None),
        None => {
            let key = key_of(&args.approval_key)?;
            let state = measure(&tcti, &args.pcrs, None, &mut SystemEntropy);
            let state = state.map_err(|error| tpm_failed(&error))?;
            let version = state.counter();
            let approval = key.approve(&state, version, version).map_err(input)?;
            write_text(&args.approval_out, &approval.to_json())?;
            (approval, Some(state.anchor().clone()))
        }
    };
    let settings = vec![(TCTI_SETTING, tcti.to_string()), (APPROVAL_SETTING, approval.to_json())];
    Ok(Prepared { seal: seal_of(DeviceKind::Tpm2, settings), tcti, fresh })
}

fn key_of(path: &Path) -> Result<ApprovalKey, Failure> {
    if path.exists() {
        return read_key(path);
    }
    let key = make_key(path)?;
    output::note(&format!(
        "The approval key is in {path}. Whoever has it can approve any state of this machine: \
         take it to a safe place offline. Without it an update of the machine closes this seal.",
        path = path.display()
    ));
    Ok(key)
}

fn make_key(path: &Path) -> Result<ApprovalKey, Failure> {
    let (key, pkcs8) = ApprovalKey::generate().map_err(input)?;
    let text = Zeroizing::new(pkcs8.expose(|der| STANDARD.encode(der)));
    let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    write_new(path, pem.as_bytes(), 0o600).map_err(|error| Failure::Input(error.to_string()))?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<ApprovalKey, Failure> {
    let shown = path.display();
    let pem = fs::read(path)
        .map(SecretVec::take)
        .map_err(|source| Failure::io(format!("read {shown}"), source))?;
    let der = pem
        .expose(PrivatePkcs8KeyDer::from_pem_slice)
        .map_err(|_| Failure::Input(format!("{shown} is no private key in PKCS#8, PEM")))?;
    let der = SecretVec::copy_of(der.secret_pkcs8_der());
    ApprovalKey::from_pkcs8(&der).map_err(input)
}

fn write_state(args: &StateArgs) -> Result<(), Failure> {
    let approval = args.approval.as_deref().map(read_approval).transpose()?;
    let of_approval = approval.as_ref().map_or(&[7][..], Approval::pcrs);
    let pcrs = if args.pcrs.is_empty() { of_approval } else { &args.pcrs };
    let anchor = approval.as_ref().map(Approval::anchor);
    let state = measure(&args.tcti, pcrs, anchor, &mut SystemEntropy);
    let text = state.map_err(|error| tpm_failed(&error))?.to_json();
    match &args.out {
        Some(path) => write_text(path, &text),
        None => output::print(&format!("{text}\n")),
    }
}

fn approve(args: ApproveArgs) -> Result<(), Failure> {
    let mut state = State::parse(&read_text(&args.state)?).map_err(input)?;
    for (register, value) in args.pcr {
        state.expect(register, value).map_err(input)?;
    }
    let version = args.version.unwrap_or_else(|| state.counter().saturating_add(1));
    let minimum = if args.keep_older { state.counter() } else { version };
    let approval = read_key(&args.key)?.approve(&state, version, minimum).map_err(input)?;
    write_text(&args.out, &approval.to_json())
}

fn read_approval(path: &Path) -> Result<Approval, Failure> {
    Approval::parse(&read_text(path)?).map_err(input)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|source| Failure::io(format!("read {}", path.display()), source))
}

fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, format!("{text}\n"))
        .map_err(|source| Failure::io(format!("write {}", path.display()), source))
}

fn input(error: impl std::error::Error) -> Failure {
    Failure::Input(error.to_string())
}

fn tpm_failed(error: &MeasureError) -> Failure {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        said = format!("{said}: {deeper}");
        cause = deeper.source();
    }
    Failure::Input(said)
}
