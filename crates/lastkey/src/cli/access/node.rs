//! `node`: machines that agents run on.
//!
//! Room      `lastkey`.
//! Holds     a node's key is made on the node and goes nowhere. Key and certificate lie in one
//!           file, which changes in one step: there is no moment at which they do not fit. A key
//!           that was sealed is followed by sealed ones.

use std::{
    fs::DirBuilder,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lastkey_client::{
    Client,
    file::{PendingFile, Replace},
};
use lastkey_connect::seal::{
    hex_of,
    tpm::{Tcti, TpmError, attest, attestation_key},
};
use lastkey_core::ids::Name;
use lastkey_node::sealed_key::block_in;
use lastkey_secret::SecretVec;
use lastkey_trust::attestation::{bound_to, name_of};
use lastkey_wire::{
    Base64Bytes, SecretText,
    native::nodes::{
        ChallengeRequest, JoinRequest, NodeCertificateReply, RenewRequest, SetNodeRequest,
        TpmEvidence,
    },
};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;

use crate::adapters::remembered_beside;
use crate::cli::{
    args::DryRunArgs,
    failure::Failure,
    input,
    key::paging::{ListArgs, listed},
    session::Session,
    table::Show,
};
use crate::node_key::Keeping;

/// Subcommands of `node`.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Make a node known and print the token that it joins with, once and within an hour; or let it
    /// join by its TPM
    Add(AddArgs),
    /// Show a node
    Show {
        /// Name of the node
        name: String,
    },
    /// List the nodes
    List(ListArgs),
    /// Remove a node; its certificate is void at once
    Remove {
        /// Name of the node
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// What signs the certificates of nodes
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// On the node: print the attestation key of its TPM, for `node add --tpm-key`
    TpmKey {
        /// The TPM: device:/dev/tpmrm0, swtpm:host=HOST,port=PORT or swtpm:path=SOCKET
        #[arg(long, value_name = "TCTI", default_value = DEFAULT_TPM)]
        tcti: Tcti,
    },
    /// On the node: make a key, and exchange the token of --token-file, the word of its TPM, or the
    /// certificate of the node's kubelet, for a certificate
    Join(JoinArgs),
    /// On the node: make a new key and get the next certificate; the last one is void then
    Renew {
        /// Folder that `node join` wrote to
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Subcommands of `node authority`.
#[derive(Subcommand, Debug)]
pub(crate) enum AuthorityCommand {
    /// Let a new authority sign; certificates of the one before are good until they end, a day at
    /// most
    Rotate(DryRunArgs),
}

/// Arguments of `node add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name of the node, as its cluster calls it; it stands once in an installation
    name: String,
    /// Cluster that it is a node of
    #[arg(long, value_name = "CLUSTER")]
    cluster: String,
    /// Instead of a token: the attestation key of its TPM, as `node tpm-key` prints it there
    #[arg(long, value_name = "SHA256")]
    tpm_key: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `node join`.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// Name of the node
    name: String,
    /// Without a token: cluster that it is a node of, and whose kubelet's certificate and key --identity
    /// names: /var/lib/kubelet/pki/kubelet-client-current.pem
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Without a token: join by the TPM, at device:/dev/tpmrm0 unless it is somewhere else
    #[arg(long, value_name = "TCTI", num_args = 0..=1, require_equals = true,
          default_missing_value = DEFAULT_TPM, conflicts_with = "cluster")]
    tpm: Option<Tcti>,
    /// Seal the key to the TPM, at device:/dev/tpmrm0 unless it is somewhere else: the file opens on
    /// this machine alone, while its registers are as they are now
    #[arg(long, value_name = "TCTI", num_args = 0..=1, require_equals = true,
          default_missing_value = DEFAULT_TPM)]
    seal_key: Option<Tcti>,
    /// Registers (PCR) that the key is sealed to
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "7",
        requires = "seal_key"
    )]
    pcrs: Vec<u8>,
    /// Folder for the key and certificate; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

const DEFAULT_TPM: &str = "device:/dev/tpmrm0";

/// The file of key and certificate, in PEM, of mode 0600.
const IDENTITY_FILE: &str = "node.pem";

/// Runs a subcommand.
pub(crate) async fn run(command: NodeCommand, session: &Session) -> Result<(), Failure> {
    match command {
        NodeCommand::Add(args) => {
            let client = session.client()?;
            let request = SetNodeRequest { cluster: args.cluster, tpm_key: args.tpm_key };
            session.settle_and_show(client.invite_node(&args.name, &request), args.dry_run).await
        }
        NodeCommand::Show { name } => {
            let client = session.client()?;
            session.settle_and_show(client.describe_node(&name), DryRunArgs::default()).await
        }
        NodeCommand::List(args) => {
            let client = session.client()?;
            let all = listed(args, async |page| client.list_nodes(&page).await).await?;
            session.show(&all)
        }
        NodeCommand::Remove { name, dry_run } => {
            session.settle_quietly(session.client()?.remove_node(&name), dry_run).await
        }
        NodeCommand::Authority(AuthorityCommand::Rotate(dry_run)) => {
            session.settle_and_show(session.client()?.rotate_node_authority(), dry_run).await
        }
        NodeCommand::TpmKey { tcti } => {
            let public = attestation_key(&tcti).map_err(|error| tpm_failed(&tcti, &error))?;
            session.show(&ShownKey { tpm_key: format!("sha256:{}", hex_of(&name_of(&public))) })
        }
        NodeCommand::Join(args) => join(args, session).await,
        NodeCommand::Renew { dir } => renew(&dir, session).await,
    }
}

async fn join(args: JoinArgs, session: &Session) -> Result<(), Failure> {
    let (client, token) = match (&args.cluster, &args.tpm) {
        (Some(_), _) | (_, Some(_)) => (session.client()?, None),
        (None, None) => {
            let (client, token) = session.client_and_token()?;
            (client, Some(SecretText(token)))
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .map_err(|cause| Failure::io(format!("make {}", args.out.display()), cause))?;
    let file = args.out.join(IDENTITY_FILE);
    // Opened before the token is used up.
    let fresh = Fresh::open(&file, &keeping_of(&args, &file)?)?;
    let tpm = match &args.tpm {
        Some(tcti) => Some(evidence(&client, tcti, &args.name, &fresh.request).await?),
        None => None,
    };
    let (name, cluster, csr) = (args.name, args.cluster, fresh.csr.clone());
    let request = JoinRequest { name, token, cluster, tpm, csr };
    let reply = client.join_node(&request).await?;
    fresh.keep(&reply)?;
    forget(&file)?;
    session.show(&reply)
}

/// Forgets what was remembered of the installation that this node belonged to: who joins chooses
/// the one that it belongs to now.
fn forget(identity: &Path) -> Result<(), Failure> {
    let file = remembered_beside(identity);
    match std::fs::remove_file(&file) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(format!("remove {}", file.display()), cause))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How the key is to lie in the file. One that was sealed is not followed by one in the clear.
fn keeping_of(args: &JoinArgs, file: &Path) -> Result<Keeping, Failure> {
    if let Some(tpm) = &args.seal_key {
        return Ok(Keeping::sealed_to(tpm, &args.pcrs)?);
    }
    let is_sealed = match std::fs::read(file).map(SecretVec::take) {
        Ok(before) => before.expose(|before| !matches!(block_in(before), Ok(None))),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => return Err(Failure::io(format!("read {}", file.display()), cause)),
    };
    if is_sealed {
        let file = file.display();
        return Err(Failure::Usage(format!(
            "the key in {file} is sealed: give --seal-key, or remove the file"
        )));
    }
    Ok(Keeping::Clear)
}

/// What the TPM says about a request for a certificate (in DER).
async fn evidence(
    client: &Client,
    tcti: &Tcti,
    name: &str,
    request: &[u8],
) -> Result<TpmEvidence, Failure> {
    let node = Name::parse(name).map_err(|error| Failure::Usage(error.to_string()))?;
    let asked = client.challenge_node(&ChallengeRequest { name: name.to_owned() }).await?;
    let bound = bound_to(&asked.challenge.0, &node, request);
    let said = attest(tcti, &bound).map_err(|error| tpm_failed(tcti, &error))?;
    Ok(TpmEvidence {
        challenge: asked.challenge,
        public: Base64Bytes(said.public),
        attestation: Base64Bytes(said.attestation),
        signature: Base64Bytes(said.signature),
    })
}

fn tpm_failed(tcti: &Tcti, error: &TpmError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Failure::Input(format!("the TPM at {tcti}: {error}{}", cause.unwrap_or_default()))
}

/// The attestation key of a TPM.
#[derive(Serialize)]
struct ShownKey {
    tpm_key: String,
}

impl Show for ShownKey {
    fn table(&self) -> String {
        format!("{}\n", self.tpm_key)
    }
}

async fn renew(dir: &Path, session: &Session) -> Result<(), Failure> {
    let file = dir.join(IDENTITY_FILE);
    let (identity, keeping) = input::identity_file(&file)?;
    let client = session.client_as(identity)?;
    session.show(&renew_identity(&client, &file, &keeping).await?)
}

/// Puts the next key and certificate in the place of those in `file`, which are the client's, and
/// the key as the one before.
pub(crate) async fn renew_identity(
    client: &Client,
    file: &Path,
    keeping: &Keeping,
) -> Result<NodeCertificateReply, Failure> {
    let fresh = Fresh::open(file, keeping)?;
    let reply = client.renew_node(&RenewRequest { csr: fresh.csr.clone() }).await?;
    fresh.keep(&reply)?;
    Ok(reply)
}

/// A new key, and the file that it will be in.
struct Fresh {
    /// As it is written.
    key: SecretVec,
    /// The request for a certificate, in PEM.
    csr: String,
    /// It in DER.
    request: Vec<u8>,
    file: PendingFile,
}

impl Fresh {
    fn open(file: &Path, keeping: &Keeping) -> Result<Self, Failure> {
        let failed = |_| Failure::Input("no key can be made".to_owned());
        let key = KeyPair::generate().map_err(failed)?;
        let csr = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        let file = PendingFile::create(file, Replace::Allow)?;
        let (request, csr) = (csr.der().to_vec(), csr.pem().map_err(failed)?);
        let key = keeping.written(SecretVec::take_text(key.serialize_pem()))?;
        Ok(Self { key, csr, request, file })
    }

    /// Writes key and certificate in the place of what was there.
    fn keep(self, reply: &NodeCertificateReply) -> Result<(), Failure> {
        let mut file = self.file.handle()?;
        self.key
            .expose(|key| file.write_all(key))
            .and_then(|()| file.write_all(reply.certificate.as_bytes()))
            .map_err(|cause| Failure::io("write key and certificate", cause))?;
        Ok(self.file.keep(None)?)
    }
}
