//! `lastkey volumes`: a CSI driver whose every volume is encrypted under a key of its own.
//!
//! Room      the binary.
//! Holds     The process does not end because a server is away: volumes that are open stay open,
//!           and pods that start are told why they wait.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lastkey_node::socket;
use lastkey_volumes::{
    BackEnd, Config, Driver, Fault, Files, InlineBounds, Linux, Lvm, Metrics, Raw, guard, keep,
    quantity, register, serve,
};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::adapters::{Access, RemoteKeys, VolumeKeyService};
use crate::cli::ConnectionArgs;
use crate::config::file::Log;
use crate::roles::pages::{PageArgs, Pages};
use crate::roles::serving::StopSignals;
use crate::{hardening, telemetry};

/// Serves volumes to the pods of this node, each encrypted under a key of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The unix socket to serve, in a folder that only root can write to.
    #[arg(long, value_name = "unix:///PATH", env = "CSI_ENDPOINT")]
    csi_endpoint: Endpoint,
    /// The name of this node in Kubernetes.
    #[arg(long, value_name = "ID")]
    node_id: String,
    /// The name of the driver, as StorageClasses give it (`provisioner`).
    #[arg(long, value_name = "NAME", default_value = "volumes.lastkey.dev")]
    driver_name: String,
    /// Where volumes lie: loop:DIR, files in a folder; lvm:VG, logical volumes, or lvm:VG/THINPOOL;
    /// raw:FILE, whole devices, one a line.
    #[arg(long, value_name = "BACKEND")]
    backend: Backend,
    /// Where records of volumes lie that are no files.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lastkey-volumes")]
    state_dir: PathBuf,
    /// The kubelet's folder of plugin sockets, to register there without a sidecar, such as
    /// /var/lib/kubelet/plugins_registry.
    #[arg(long, value_name = "DIR")]
    kubelet_registration: Option<PathBuf>,
    /// The path of --csi-endpoint as the kubelet sees it, where it is another one.
    #[arg(long, value_name = "PATH", requires = "kubelet_registration")]
    kubelet_endpoint: Option<PathBuf>,
    /// The key of classes without kmsKeyId: id or alias.
    #[arg(long, value_name = "KEY", default_value = "alias/volumes")]
    default_key: String,
    /// A name that is bound to every volume's key, for clusters that share a key service.
    #[arg(long, value_name = "NAME", default_value = "")]
    cluster: String,
    /// The audience of tokens of pods that mean us, for classes with unlockAs: workload.
    #[arg(long, value_name = "NAME", default_value = "lastkey")]
    audience: String,
    /// How much one inline volume of a pod may have.
    #[arg(long, value_name = "SIZE", default_value = "10Gi")]
    inline_limit: Bound,
    /// How much all inline volumes of this node may have; 0 for none at all.
    #[arg(long, value_name = "SIZE", default_value = "50Gi")]
    inline_total: Bound,
    #[command(flatten)]
    pages: PageArgs,
    /// A namespace whose claims are refused, because the key service runs there (repeatable).
    #[arg(long = "refuse-namespace", value_name = "NAME", default_value = "lastkey")]
    refused_namespaces: Vec<String>,
}

/// The path of a socket, with or without its scheme.
#[derive(Clone, Debug)]
struct Endpoint(PathBuf);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(_) => return Err("only unix:// is served".to_owned()),
            None => text.strip_prefix("unix:").unwrap_or(text),
        };
        if !path.starts_with('/') {
            return Err(
                "the path of the socket must be absolute, as in unix:///csi/csi.sock".into()
            );
        }
        Ok(Self(PathBuf::from(path)))
    }
}

/// A number of bytes as Kubernetes writes it, or nothing.
#[derive(Clone, Copy, Debug)]
struct Bound(u64);

impl FromStr for Bound {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Ok(Self(if text == "0" { 0 } else { quantity(text)? }))
    }
}

/// Where volumes lie.
#[derive(Clone, Debug)]
enum Backend {
    Loop(PathBuf),
    Lvm(Lvm),
    Raw(PathBuf),
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("loop", folder)) if folder.starts_with('/') => Ok(Self::Loop(folder.into())),
            Some(("loop", _)) => Err("the folder must be absolute, as in loop:/var/lib/x".into()),
            Some(("lvm", group)) => {
                let lvm = Lvm::parse(group).map(Self::Lvm);
                lvm.ok_or_else(|| "give lvm:VG or lvm:VG/THINPOOL, by their names".into())
            }
            Some(("raw", list)) if list.starts_with('/') => Ok(Self::Raw(list.into())),
            Some(("raw", _)) => Err("the list must be absolute, as in raw:/etc/devices".into()),
            Some(_) | None => Err("give loop:DIR, lvm:VG[/THINPOOL] or raw:FILE".to_owned()),
        }
    }
}

impl Backend {
    /// Where records lie, and what volumes lie on.
    fn open(&self, state: &Path) -> anyhow::Result<(PathBuf, Arc<dyn BackEnd>)> {
        match self {
            Self::Loop(folder) => Ok((folder.clone(), Arc::new(Files::new(folder.clone())))),
            Self::Lvm(lvm) => {
                lvm.activate().context("cannot use the volume group")?;
                Ok((state.to_owned(), Arc::new(lvm.clone())))
            }
            Self::Raw(list) => {
                let raw = Raw::new(list.clone(), state.to_owned());
                raw.devices().context("cannot use the list of devices")?;
                Ok((state.to_owned(), Arc::new(raw)))
            }
        }
    }
}

/// Runs the driver.
///
/// # Errors
/// When the configuration is wrong, or the socket or the folder cannot be opened.
pub(crate) fn run(args: &Args, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let access = Access::of_flags(connection, Access::NO_RENEWAL)?;
    ensure!(is_driver_name(&args.driver_name), "--driver-name is no name of a CSI driver");
    ensure!((1..=192).contains(&args.node_id.len()), "--node-id has 1 to 192 bytes");
    hardening::apply().context("cannot switch core dumps off")?;
    telemetry::start(&Log::default())?;
    let socket = socket::open(&args.csi_endpoint.0, None)?;
    if let Err(reason) = hardening::lock_memory() {
        tracing::warn!(reason, "the memory is not locked: keys may reach the swap space");
    }
    // Calls of CSI have threads of their own; the runtime has little to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (folder, back_end) = args.backend.open(&args.state_dir)?;
    let config = Config {
        name: args.driver_name.clone(),
        node_id: args.node_id.clone(),
        version: crate::VERSION.to_owned(),
        cluster: args.cluster.clone(),
        default_key: args.default_key.clone(),
        folder,
        refused_namespaces: args.refused_namespaces.clone(),
        audience: args.audience.clone(),
        inline: InlineBounds { each: args.inline_limit.0, total: args.inline_total.0 },
    };
    let keys = VolumeKeyService::new(RemoteKeys::new(access)?, runtime.handle().clone());
    let folder = config.folder.display().to_string();
    let driver = Driver::new(config, Arc::new(keys), Arc::new(Linux), back_end)
        .with_context(|| format!("cannot use the folder {folder}"))?;
    let extras = Extras { kubelet: registration(args)?, pages: Pages::open(&args.pages)? };
    runtime.block_on(serve_until_stopped(socket, Arc::new(driver), extras))
}

/// What the kubelet is told: a socket of its own, the driver's name, and the path of ours.
type Registration = (socket::Socket, String, PathBuf);

/// What is served beside CSI.
struct Extras {
    kubelet: Option<Registration>,
    pages: Pages,
}

fn registration(args: &Args) -> anyhow::Result<Option<Registration>> {
    let Some(folder) = &args.kubelet_registration else { return Ok(None) };
    let path = folder.join(format!("{}-reg.sock", args.driver_name));
    let endpoint = args.kubelet_endpoint.as_ref().unwrap_or(&args.csi_endpoint.0);
    let socket = socket::open_in_place(&path)?;
    Ok(Some((socket, args.driver_name.clone(), endpoint.clone())))
}

async fn serve_until_stopped(
    socket: socket::Socket,
    driver: Arc<Driver>,
    extras: Extras,
) -> anyhow::Result<()> {
    let stop = StopSignals::listen()?;
    let (stopping, stopped) = watch::channel(false);
    let guarding = Handle::current().spawn(guard(Arc::clone(&driver), stopped.clone()));
    let keeping = Handle::current().spawn(keep(Arc::clone(&driver), stopped.clone()));
    let told = extras.pages.serve(&Arc::new(Metrics::new(Arc::clone(&driver))))?;
    let ready = format!("lastkey volumes serves{told}");
    let serving = tokio::spawn(serve(socket, driver, stopped.clone()));
    let registering = extras
        .kubelet
        .map(|(socket, name, endpoint)| tokio::spawn(register(socket, name, endpoint, stopped)));
    stop.serve_until_asked(&ready).await?;
    tracing::info!("stopping: volumes stay open, accepted requests are finished");
    // Nobody may listen any more.
    let _ = stopping.send(true);
    serving.await??;
    guarding.await?;
    keeping.await?;
    if let Some(registering) = registering {
        registering.await??;
    }
    Ok(())
}

/// CSI 1.13, "GetPluginInfo": a domain name of at most 63 characters.
fn is_driver_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::{Backend, Endpoint, is_driver_name};

    #[test]
    fn endpoints_are_absolute_paths_of_unix_sockets() {
        for good in ["unix:///csi/csi.sock", "unix:/csi/csi.sock", "/csi/csi.sock"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().0.to_str(), Some("/csi/csi.sock"));
        }
        for bad in ["tcp://127.0.0.1:1", "unix://csi.sock", "csi.sock", ""] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn back_ends_are_folders_groups_and_lists() {
        for good in ["loop:/var/lib/volumes", "lvm:vg", "lvm:vg/pool", "raw:/etc/devices"] {
            assert!(good.parse::<Backend>().is_ok(), "{good}");
        }
        for bad in ["loop:", "loop:here", "lvm:", "lvm:a/b/c", "raw:sdb", "zfs:x", "/var/lib"] {
            assert!(bad.parse::<Backend>().is_err(), "{bad}");
        }
    }

    #[test]
    fn driver_names_are_domain_names() {
        assert!(is_driver_name("diskplugin.csi.alibabacloud.com"));
        for bad in ["", ".a", "a-", "a_b", &"a".repeat(64)] {
            assert!(!is_driver_name(bad), "{bad}");
        }
    }
}
