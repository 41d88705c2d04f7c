//! `lastkey volumes`: a CSI driver whose every volume is encrypted under a key of its own.
//!
//! Room      the binary.
//! Holds     The process does not end because a server is away: volumes that are open stay open,
//!           and pods that start are told why they wait.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lastkey_node::socket;
use lastkey_volumes::{Config, Driver, Linux, guard, serve};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::adapters::{Access, RemoteKeys, VolumeKeyService};
use crate::cli::ConnectionArgs;
use crate::config::file::Log;
use crate::{hardening, say, telemetry};

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
    /// Where volumes lie: loop:DIR, files in a folder.
    #[arg(long, value_name = "BACKEND")]
    backend: Backend,
    /// The key of classes without kmsKeyId: id or alias.
    #[arg(long, value_name = "KEY", default_value = "alias/volumes")]
    default_key: String,
    /// A name that is bound to every volume's key, for clusters that share a key service.
    #[arg(long, value_name = "NAME", default_value = "")]
    cluster: String,
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

/// Where volumes lie.
#[derive(Clone, Debug)]
struct Backend(PathBuf);

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("loop", folder)) if folder.starts_with('/') => Ok(Self(PathBuf::from(folder))),
            Some(("loop", _)) => Err("the folder must be absolute, as in loop:/var/lib/x".into()),
            Some(("lvm" | "raw", _)) => {
                Err("the back ends lvm and raw are not there yet; use loop:DIR".into())
            }
            Some(_) | None => Err("give loop:DIR".to_owned()),
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
    let config = Config {
        name: args.driver_name.clone(),
        node_id: args.node_id.clone(),
        version: crate::VERSION.to_owned(),
        cluster: args.cluster.clone(),
        default_key: args.default_key.clone(),
        folder: args.backend.0.clone(),
    };
    let keys = VolumeKeyService::new(RemoteKeys::new(access)?, runtime.handle().clone());
    let folder = config.folder.display().to_string();
    let driver = Driver::new(config, Arc::new(keys), Arc::new(Linux))
        .with_context(|| format!("cannot use the folder {folder}"))?;
    runtime.block_on(serve_until_stopped(socket, Arc::new(driver)))
}

async fn serve_until_stopped(socket: socket::Socket, driver: Arc<Driver>) -> anyhow::Result<()> {
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stopping, stopped) = watch::channel(false);
    let guarding = Handle::current().spawn(guard(Arc::clone(&driver), stopped.clone()));
    let serving = tokio::spawn(serve(socket, driver, stopped));
    hardening::release_code();
    say::line("lastkey volumes serves")?;
    tokio::select! { _ = stop.0.recv() => (), _ = stop.1.recv() => () }
    tracing::info!("stopping: volumes stay open, accepted requests are finished");
    // Nobody may listen any more.
    let _ = stopping.send(true);
    serving.await??;
    guarding.await?;
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
    fn back_ends_that_are_not_there_are_said() {
        assert!("loop:/var/lib/volumes".parse::<Backend>().is_ok());
        for bad in ["loop:", "loop:here", "lvm:vg", "raw:/dev/sdb", "zfs:x", "/var/lib"] {
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
