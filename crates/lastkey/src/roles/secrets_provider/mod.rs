//! `lastkey secrets-provider`: secrets in volumes of pods, for the Secrets Store CSI driver.
//!
//! Room      the binary.
//! Holds     The process does not end because a server is away: pods that run keep what they have,
//!           and pods that start are told why they wait.

mod events;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lastkey_node::csi::{OutageConfig, Personality, Provider, ProviderConfig, Providers, serve};
use lastkey_node::socket::{self, Socket};
use tokio::sync::watch;

use crate::adapters::{Access, ClusterKeys, RemoteSecrets};
use crate::cli::ConnectionArgs;
use crate::config::file::Log;
use crate::roles::events::{By, write};
use crate::roles::pages::{PageArgs, Pages};
use crate::roles::serving::{StopSignals, finish};
use crate::{hardening, in_cluster, telemetry};

/// Where a driver looks first, whatever lies in the other folder.
const LOOKED_AT_FIRST: &str = "/etc/kubernetes/secrets-store-csi-providers";

/// Puts secrets into volumes of the pods on this node, for the Secrets Store CSI driver (1.5.5 or
/// later).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the driver's provider sockets, which only root can write to, such as
    /// /var/run/secrets-store-csi-providers.
    #[arg(long, value_name = "DIR")]
    provider_dir: PathBuf,
    /// Whose classes are understood, each over a socket of its own: lastkey, alibabacloud, aws,
    /// vault.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "lastkey")]
    personality: Vec<Personality>,
    /// The role of classes that name none; {namespace} and {serviceaccount} stand for the pod's.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// The kubelet's folder, as it is seen here: mounted volumes are renewed there at once.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// An address by which a class may name another server (`address`, of Vault `vaultAddress`),
    /// which is asked by the same --ca and --identity (repeatable). Any other one is not heeded.
    #[arg(long = "allow-address", value_name = "ADDR")]
    allowed_addresses: Vec<String>,
    /// For pods that start while no server answers: how many hours what their account was given may
    /// be given again.
    #[arg(long, value_name = "HOURS", requires = "cluster_jwks", requires = "cluster_issuer")]
    outage_hours: Option<u32>,
    /// The key set of the cluster, by which their tokens are verified then; read again when it
    /// changes.
    #[arg(long, value_name = "FILE", requires = "outage_hours")]
    cluster_jwks: Option<PathBuf>,
    /// The issuer of the cluster's tokens.
    #[arg(long, value_name = "URL", requires = "outage_hours")]
    cluster_issuer: Option<String>,
    /// Leave mounted volumes alone until the kubelet asks for them again.
    #[arg(long)]
    no_push: bool,
    #[command(flatten)]
    pages: PageArgs,
    /// Tell what becomes of mounted volumes in events about their pods, by this kubeconfig, which
    /// may create events in the namespaces of the pods.
    #[arg(long, value_name = "FILE")]
    events_kubeconfig: Option<PathBuf>,
    /// The same by the account of the pod that this runs in.
    #[arg(long, conflicts_with = "events_kubeconfig")]
    events: bool,
    /// Longest volume: what the driver's --max-call-recv-msg-size says, or less; 262144 to 16777216.
    #[arg(long, value_name = "BYTES", default_value_t = ProviderConfig::USUAL_VOLUME_BYTES)]
    max_volume_bytes: usize,
    /// An audience of tokens that mean us (repeatable).
    #[arg(long = "audience", value_name = "NAME", default_value = "lastkey")]
    audiences: Vec<String>,
}

/// Runs the provider.
///
/// # Errors
/// When the configuration is wrong, or a socket cannot be opened.
pub(crate) fn run(args: &Args, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let access = Access::of_flags(connection, Access::NO_RENEWAL)?;
    hardening::apply().context("cannot switch core dumps off")?;
    telemetry::start(&Log::default())?;
    if access.identity.is_none() {
        tracing::warn!(
            "there is no node certificate (--identity): roles that are taken by the agent of a \
             node alone will be refused"
        );
    }
    check_volume_bytes(args.max_volume_bytes)?;
    let events_by = events_by(args)?;
    let pages = Pages::open(&args.pages)?;
    let sockets = open(args)?;
    if let Err(reason) = hardening::lock_memory() {
        tracing::warn!(reason, "the memory is not locked: secrets may reach the swap space");
    }
    let kubelet = Some(&args.kubelet_dir).filter(|folder| folder.is_dir());
    if args.no_push || kubelet.is_none() {
        tracing::info!("mounted volumes are renewed when the kubelet asks for them again");
    }
    let config = ProviderConfig {
        version: crate::VERSION.to_owned(),
        role: args.role.clone(),
        // The driver names places by their whole path.
        kubelet: kubelet.map(std::path::absolute).transpose()?,
        push: !args.no_push,
        audiences: args.audiences.clone(),
        max_volume_bytes: args.max_volume_bytes,
    };
    let (announcer, letters) = events::announcer();
    let own = Provider::new(config, Arc::new(RemoteSecrets::new(access)?), outage(args)?)?;
    let (own, letters) = match events_by {
        None => (own, None),
        Some(by) => (own.announced_by(Arc::new(announcer)), Some((by, letters))),
    };
    let providers = providers(args, connection, own)?;
    // One thread: there is little to do, and nobody waits for a second one to wake up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some((by, letters)) = letters {
            tokio::spawn(write(by, letters));
        }
        serve_all(sockets, Arc::new(providers), pages).await
    })
}

/// Whether volumes may be so long.
fn check_volume_bytes(bytes: usize) -> anyhow::Result<()> {
    let range = ProviderConfig::VOLUME_BYTES;
    let (least, most) = (range.start(), range.end());
    ensure!(range.contains(&bytes), "--max-volume-bytes takes {least} to {most}");
    Ok(())
}

/// In whose name events are written, if they are. What has to be there for it at the start is looked
/// for at the start.
fn events_by(args: &Args) -> anyhow::Result<Option<By>> {
    if args.events {
        in_cluster::access().context("--events")?;
        return Ok(Some(By::Account));
    }
    Ok(args.events_kubeconfig.clone().map(By::Kubeconfig))
}

/// A provider for each server.
fn providers(args: &Args, connection: &ConnectionArgs, own: Provider) -> anyhow::Result<Providers> {
    let mut providers = Providers::new(Arc::new(own));
    for address in &args.allowed_addresses {
        let there = ConnectionArgs { addr: Some(address.clone()), ..connection.clone() };
        let access = Access::of_flags(&there, Access::NO_RENEWAL).context("--allow-address")?;
        // The file is about the node's own server; this may be another installation.
        let access = Access { remembers: false, ..access };
        let service = Arc::new(RemoteSecrets::new(access)?);
        let provider = providers.own().beside(service, outage(args)?)?;
        providers.allow(address, Arc::new(provider));
    }
    Ok(providers)
}

/// What is done for pods that start while no server answers.
fn outage(args: &Args) -> anyhow::Result<Option<OutageConfig>> {
    let (Some(hours), Some(jwks), Some(issuer)) =
        (args.outage_hours, &args.cluster_jwks, &args.cluster_issuer)
    else {
        return Ok(None);
    };
    ensure!(
        (1..=MAX_OUTAGE_HOURS).contains(&hours),
        "--outage-hours takes 1 to {MAX_OUTAGE_HOURS}"
    );
    let judge = ClusterKeys::read(jwks.clone(), issuer.clone(), args.audiences.clone())?;
    let bound = Duration::from_secs(u64::from(hours) * 3_600);
    Ok(Some(OutageConfig { bound, judge: Arc::new(judge) }))
}

/// A week: whoever was let go since must not be let in for longer.
const MAX_OUTAGE_HOURS: u32 = 168;

/// A socket for each personality.
fn open(args: &Args) -> anyhow::Result<Vec<(Personality, Socket)>> {
    let folder = args.provider_dir.as_path();
    let mut names = args.personality.clone();
    names.sort_unstable();
    names.dedup();
    ensure!(!names.is_empty(), "--personality names none");
    ensure!(
        folder.is_dir(),
        "{} is no folder: is the Secrets Store CSI driver installed on this node?",
        folder.display()
    );
    let mut sockets = Vec::new();
    for personality in names {
        let file = format!("{}.sock", personality.name());
        let path = folder.join(&file);
        if let Some(shadow) = shadow_of(&path, Path::new(LOOKED_AT_FIRST)) {
            tracing::warn!(
                path = %shadow.display(),
                "a driver looks at this socket first; remove it if nobody serves it"
            );
        }
        sockets.push((personality, socket::open(&path, None)?));
    }
    Ok(sockets)
}

/// What a driver finds in the place of a socket, because it looks into that folder first.
fn shadow_of(socket: &Path, first: &Path) -> Option<PathBuf> {
    let shadow = first.join(socket.file_name()?);
    let real = |path: &Path| path.canonicalize().ok();
    let is_same = shadow == socket || real(socket).is_some_and(|one| Some(one) == real(&shadow));
    (!is_same && shadow.exists()).then_some(shadow)
}

async fn serve_all(
    sockets: Vec<(Personality, Socket)>,
    providers: Arc<Providers>,
    pages: Pages,
) -> anyhow::Result<()> {
    let stop = StopSignals::listen()?;
    let (stopping, stopped) = watch::channel(false);
    let mut locks = Vec::new();
    let mut serving = tokio::task::JoinSet::new();
    for (personality, socket) in sockets {
        locks.push(socket.lock);
        let (providers, stopped) = (Arc::clone(&providers), stopped.clone());
        serving.spawn(serve(socket.listener, socket.peers, personality, providers, stopped));
    }
    for provider in providers.all() {
        tokio::spawn(Arc::clone(provider).watch());
    }
    let ready = format!("lastkey secrets-provider serves{}", pages.serve(&providers)?);
    stop.serve_until_asked(&ready).await?;
    finish(&stopping, serving).await?;
    drop(locks);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn socket_that_a_driver_finds_first_is_told_of_whether_or_not_somebody_serves_it() {
        let (ours, first) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (socket, shadow) =
            (ours.path().join("lastkey.sock"), first.path().join("lastkey.sock"));
        assert_eq!(shadow_of(&socket, first.path()), None);
        std::fs::write(&shadow, "").unwrap();
        assert_eq!(shadow_of(&socket, first.path()), Some(shadow.clone()));
        // It may be the same folder, by its name or by a link.
        assert_eq!(shadow_of(&socket, ours.path()), None);
        std::fs::write(&socket, "").unwrap();
        std::fs::remove_file(&shadow).unwrap();
        symlink(&socket, &shadow).unwrap();
        assert_eq!(shadow_of(&socket, first.path()), None);
    }

    #[test]
    fn longest_volume_is_what_a_driver_may_be_told_to_read() {
        for good in [256 << 10, ProviderConfig::USUAL_VOLUME_BYTES, 16 << 20] {
            check_volume_bytes(good).unwrap();
        }
        for bad in [0, (256 << 10) - 1, (16 << 20) + 1, usize::MAX] {
            let said = check_volume_bytes(bad).unwrap_err().to_string();
            assert!(said.contains("262144 to 16777216"), "{said}");
        }
    }
}
