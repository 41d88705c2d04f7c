//! `audit verify`, `audit receipt`, `audit checkpoint`.
//!
//! Room      `lastkey`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lastkey_client::Client;
use lastkey_core::audit::note::NoteKey;
use lastkey_core::audit::receipt::Receipt;
use lastkey_store::audit_log::verify::{
    LogDir, LogFiles, Verified, VerifyError, verify as check, verify_live,
};
use lastkey_wire::native::audit::{AuditCheckpointReply, AuditReceiptReply};
use serde::Serialize;

use crate::cli::{
    args::OutArgs,
    failure::Failure,
    output::{self, Content, note},
    session::Session,
    table::{Fields, Show},
};

/// Longest file of keys.
const MAX_KEYS_LEN: u64 = 1 << 20;

/// Arguments of `audit verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Check this directory, a log or a copy of one, and ask no server
    #[arg(long, value_name = "DIR", requires = "public_key")]
    offline: Option<PathBuf>,
    /// File with the key that signs the log, and those of witnesses, one a line
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Check one receipt, as `audit receipt` writes it, in place of a log
    #[arg(long, value_name = "FILE", conflicts_with = "offline", requires = "public_key")]
    receipt: Option<PathBuf>,
}

/// What was found whole.
#[derive(Debug, Serialize)]
struct VerifiedView {
    valid: bool,
    origin: String,
    size: u64,
    first: u64,
    unsigned: u64,
    earlier_checkpoints: usize,
    signed_by: Vec<String>,
}

impl VerifiedView {
    fn of(found: Verified) -> Self {
        let by = found.vouched.into_iter();
        Self {
            valid: true,
            origin: found.checkpoint.origin,
            size: found.checkpoint.size,
            first: found.first,
            unsigned: found.unsigned,
            earlier_checkpoints: found.earlier,
            signed_by: by.map(|vouched| vouched.name).collect(),
        }
    }
}

impl Show for VerifiedView {
    fn table(&self) -> String {
        Fields::new()
            .with("Valid", "yes, every record leads to the signed checkpoint")
            .with("Log", &self.origin)
            .with("Records", format!("{} to {}", self.first, self.size.saturating_sub(1)))
            .with("Not signed yet", self.unsigned)
            .with("Earlier checkpoints", self.earlier_checkpoints)
            .with("Signed by", self.signed_by.join(", "))
            .table()
    }
}

/// Checks a log, or one receipt.
pub(crate) async fn verify(args: VerifyArgs, session: &Session) -> Result<(), Failure> {
    let keys = args.public_key.as_deref().map(read_keys).transpose()?;
    if let (Some(path), Some(keys)) = (&args.receipt, &keys) {
        return verify_receipt(path, keys, session);
    }
    let found = match (args.offline, keys) {
        (Some(dir), Some(keys)) => verify_live(&LogDir(dir), &keys, |_| ())?,
        (None, keys) => verify_online(keys, session).await?,
        (Some(_), None) => return Err(Failure::Usage("--offline needs --public-key".to_owned())),
    };
    session.show(&VerifiedView::of(found))
}

/// Fetches everything from the server and checks it here.
async fn verify_online(keys: Option<Vec<NoteKey>>, session: &Session) -> Result<Verified, Failure> {
    let client = Arc::new(session.client()?);
    let stated = client.audit_checkpoint().await?;
    let keys = match keys {
        Some(keys) => keys,
        None => {
            note(
                "warning: checked against the key that the server itself names; keep that key \
                 elsewhere and give it by --public-key",
            );
            vec![parse_key(&stated.public_key)?]
        }
    };
    let files = Remote { client, runtime: tokio::runtime::Handle::current() };
    let checked = tokio::task::spawn_blocking(move || check(&files, &keys, |_| ())).await;
    Ok(checked.map_err(|error| Failure::io("check the log", io::Error::other(error)))??)
}

/// The files of a server's log, which goes on.
struct Remote {
    client: Arc<Client>,
    runtime: tokio::runtime::Handle,
}

impl Remote {
    fn stated(&self) -> io::Result<AuditCheckpointReply> {
        let asked = async { self.client.audit_checkpoint().await };
        self.runtime.block_on(asked).map_err(io::Error::other)
    }
}

impl LogFiles for Remote {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match name {
            "checkpoint" => Ok(Some(self.stated()?.checkpoint.into_bytes())),
            "minimum-index" => Ok(Some(self.stated()?.first.to_string().into_bytes())),
            // A server does not hand out what it kept of earlier checkpoints.
            "checkpoints" => Ok(None),
            name => self.runtime.block_on(self.client.audit_file(name)).map_err(io::Error::other),
        }
    }
}

fn verify_receipt(path: &Path, keys: &[NoteKey], session: &Session) -> Result<(), Failure> {
    let text = fs::read_to_string(path)
        .map_err(|cause| Failure::io(format!("read {}", path.display()), cause))?;
    let bad = || Failure::Input(format!("{} is no receipt of `audit receipt`", path.display()));
    let reply: AuditReceiptReply = serde_json::from_str(&text).map_err(|_| bad())?;
    let receipt = Receipt::parse(&reply.receipt).map_err(|_| bad())?;
    let (checkpoint, vouched) = receipt
        .verify(reply.record.as_bytes(), keys)
        .map_err(|error| Failure::LogNotValid(error.to_string()))?;
    session.show(&VerifiedView {
        valid: true,
        origin: checkpoint.origin,
        size: receipt.index + 1,
        first: receipt.index,
        unsigned: 0,
        earlier_checkpoints: 0,
        signed_by: vouched.into_iter().map(|vouched| vouched.name).collect(),
    })
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Io(cause) => Self::io("read the log", cause),
            VerifyError::Checkpoint(_) | VerifyError::Bad { .. } => {
                Self::LogNotValid(error.to_string())
            }
        }
    }
}

fn parse_key(text: &str) -> Result<NoteKey, Failure> {
    NoteKey::parse(text).map_err(|error| Failure::Input(error.to_string()))
}

/// Keys of a file, one a line.
pub(crate) fn read_keys(path: &Path) -> Result<Vec<NoteKey>, Failure> {
    let doing = || format!("read {}", path.display());
    let len = fs::metadata(path).map_err(|cause| Failure::io(doing(), cause))?.len();
    if len > MAX_KEYS_LEN {
        return Err(Failure::Input(format!("{} is too long for keys", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|cause| Failure::io(doing(), cause))?;
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse_key).collect()
}

/// Arguments of `audit receipt`.
#[derive(Args, Debug)]
pub(crate) struct ReceiptArgs {
    /// Id of a request, or number of a record
    #[arg(value_name = "REQUEST_ID|INDEX")]
    record: String,
    /// Write only the proof, in the form of C2SP tlog-proof
    #[arg(long)]
    tlog_proof: bool,
    #[command(flatten)]
    out: OutArgs,
}

/// Writes a record and its proof.
pub(crate) async fn receipt(args: ReceiptArgs, session: &Session) -> Result<(), Failure> {
    let reply = session.client()?.audit_receipt(&args.record).await?;
    let text = if args.tlog_proof {
        reply.receipt
    } else {
        let json = serde_json::to_string_pretty(&reply);
        json.map_err(|cause| Failure::io("write the receipt", cause.into()))? + "\n"
    };
    output::write_whole(&args.out, text.as_bytes(), Content::Unknown)
}

/// Arguments of `audit checkpoint`.
#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    /// Print the key that signs the log, to be kept elsewhere
    #[arg(long, conflicts_with = "witness_key")]
    public_key: bool,
    /// Print the key with which this server cosigns other logs
    #[arg(long)]
    witness_key: bool,
}

/// Prints a fresh checkpoint, or a key.
pub(crate) async fn checkpoint(args: CheckpointArgs, session: &Session) -> Result<(), Failure> {
    let reply = session.client()?.audit_checkpoint().await?;
    if args.public_key {
        return output::print(&format!("{}\n", reply.public_key));
    }
    if args.witness_key {
        return output::print(&format!("{}\n", reply.witness_key));
    }
    session.show(&reply)
}

impl Show for AuditCheckpointReply {
    fn table(&self) -> String {
        self.checkpoint.clone()
    }
}
