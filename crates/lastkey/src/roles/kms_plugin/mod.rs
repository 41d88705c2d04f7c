//! `lastkey kms-plugin`: the Kubernetes KMS v2 plugin of a control-plane node.
//!
//! Room      the binary.
//! Holds     The sockets are open before anything else is tried, and the process does not end
//!           because a server is away: an API server that is refused a connection comes back
//!           only after minutes.

mod config;
mod embedded;
mod events;
mod renewal;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lastkey_checks::boot::Plugin;
use lastkey_client::Addr;
use lastkey_node::kmsv2::{Metrics, Page, Provider, refresh, serve};
use lastkey_node::ports::{Herald, KeyOps};
use lastkey_node::socket::{self, Peers, Socket};
use tokio::sync::watch;

use self::config::{Place, Resolved, Service};
use self::embedded::Running;
use self::events::EventsTo;
use crate::adapters::{EmbeddedKeys, RemoteKeys, Token};
use crate::cli::ConnectionArgs;
use crate::roles::events::{By, write};
use crate::roles::pages::{PageArgs, Pages};
use crate::roles::serving::{StopSignals, finish};
use crate::{hardening, telemetry};

/// Lets a kube-apiserver encrypt what it stores in etcd under a key of the service (Kubernetes
/// 1.32 or later).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The unix socket to serve, in a folder that only root can write to.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The key: id or alias.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A name that is bound to every ciphertext, for clusters that share a key.
    #[arg(long, value_name = "NAME", default_value = "")]
    cluster: String,
    /// A group, by number, that may use the socket as well.
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
    /// A public RSA key in PEM: whoever holds its private half can recover everything offline.
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    #[command(flatten)]
    pages: PageArgs,
    /// Run the server of this data directory in the same process, in place of asking one by
    /// --addr.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A configuration file, for several providers or servers.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all =
            ["socket", "key", "data", "cluster", "group", "recovery_key", "metrics", "health"]
    )]
    config: Option<PathBuf>,
}

/// Runs the plugin.
///
/// # Errors
/// When the configuration is wrong, or a socket cannot be opened.
pub(crate) fn run(args: &Args, connection: &ConnectionArgs) -> anyhow::Result<()> {
    // Before there is a second thread: it takes variables out of the environment.
    let given = socket::handed_over().context("cannot take the sockets of systemd over")?;
    let Resolved { service, pages, events: events_to, log, kept, providers } =
        Resolved::of(args, connection)?;
    hardening::apply().context("cannot switch core dumps off")?;
    telemetry::start(&log)?;
    let sockets = open(&providers, given)?;
    let pages = Pages::open(&pages)?;
    let locked = hardening::lock_memory();
    if let Err(reason) = &locked {
        tracing::warn!(reason, "the memory is not locked: local keys may reach the swap space");
    }
    let Connected { keys, server, remote } = connect(service)?;
    let metrics = Metrics::new(crate::VERSION, locked.is_ok());
    let (herald, letters) = match events_to {
        None => (None, None),
        Some(EventsTo { kubeconfig, node }) => {
            let (announcer, letters) = events::announcer(&node);
            (Some(Arc::new(announcer) as Arc<dyn Herald>), Some((kubeconfig, letters)))
        }
    };
    let started: Vec<(Socket, Arc<Provider>)> = sockets
        .into_iter()
        .zip(providers)
        .map(|(socket, place)| {
            let mut provider = Provider::new(place.config, Arc::clone(&keys), &metrics);
            if let Some(kept) = &kept {
                let file = kept.file(provider.name());
                provider = provider.keeping(file, Arc::new(kept.seal.clone()));
            }
            if let Some(herald) = &herald {
                provider = provider.announced_by(Arc::clone(herald));
            }
            (socket, Arc::new(provider))
        })
        .collect();
    // One thread: there is little to do, and nobody waits for a second one to wake up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(remote) = remote {
            tokio::spawn(renewal::renew(remote, metrics.expiry()));
        }
        if let Some((kubeconfig, letters)) = letters {
            tokio::spawn(write(By::Kubeconfig(kubeconfig), letters));
        }
        serve_all(started, metrics, pages).await
    })?;
    if let Some(server) = server {
        server.wait();
    }
    Ok(())
}

/// What a configuration file says about how the plugin starts, for whoever judges that.
///
/// # Errors
/// When it is wrong or cannot be read.
pub(crate) fn facts(config: &Path) -> anyhow::Result<Plugin> {
    let Resolved { service, providers, .. } = Resolved::read(config)?;
    let sockets = providers.iter().map(|place| place.socket.to_string_lossy().into_owned());
    let mut facts = Plugin { sockets: sockets.collect(), ..Plugin::default() };
    match service {
        Service::Embedded(embedded) => drop(embedded.resolve()?),
        Service::Remote(access) => {
            facts.hosts = access.servers.iter().filter_map(host).collect();
            if let Token::File(path) = &access.token {
                facts.token_file = Some(path.to_string_lossy().into_owned());
            }
            let end = access.identity.as_deref().map(renewal::expires_at).transpose()?;
            facts.certificate_ends = end.map(|end| end.0);
        }
    }
    Ok(facts)
}

/// The host of a server; none for one on a unix socket.
fn host(server: &Addr) -> Option<String> {
    let uri = server.to_string().parse::<http::Uri>().ok()?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty())
}

/// What the providers ask.
struct Connected {
    keys: Arc<dyn KeyOps>,
    /// When it is in this process.
    server: Option<Running>,
    /// When it is elsewhere.
    remote: Option<Arc<RemoteKeys>>,
}

fn connect(service: Service) -> anyhow::Result<Connected> {
    match service {
        Service::Remote(access) => {
            let remote = Arc::new(RemoteKeys::new(access)?);
            let keys = Arc::clone(&remote) as Arc<dyn KeyOps>;
            Ok(Connected { keys, server: None, remote: Some(remote) })
        }
        Service::Embedded(embedded) => {
            // What is wrong in its configuration now will be so at the next attempt.
            embedded.resolve()?;
            let keys = EmbeddedKeys::default();
            let server = embedded.start(keys.clone())?;
            Ok(Connected { keys: Arc::new(keys), server: Some(server), remote: None })
        }
    }
}

/// The socket of each provider: that of systemd when there is one for its path.
fn open(places: &[Place], mut given: Vec<(PathBuf, UnixListener)>) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for place in places {
        let found = given.iter().position(|(path, _)| *path == place.socket);
        sockets.push(match found {
            // Its permissions are the unit's.
            Some(index) => {
                let (_, listener) = given.remove(index);
                Socket { listener, peers: Peers::Group, lock: None }
            }
            None => socket::open(&place.socket, place.group)?,
        });
    }
    let left: Vec<_> = given.iter().map(|(path, _)| path.display().to_string()).collect();
    ensure!(left.is_empty(), "systemd gave sockets that no provider names: {}", left.join(", "));
    Ok(sockets)
}

async fn serve_all(
    started: Vec<(Socket, Arc<Provider>)>,
    metrics: Metrics,
    pages: Pages,
) -> anyhow::Result<()> {
    let stop = StopSignals::listen()?;
    let (stopping, stopped) = watch::channel(false);
    let providers = started.iter().map(|(_, provider)| Arc::clone(provider)).collect();
    let mut locks = Vec::new();
    let mut serving = tokio::task::JoinSet::new();
    for (socket, provider) in started {
        tokio::spawn(refresh(Arc::clone(&provider)));
        locks.push(socket.lock);
        serving.spawn(serve(socket.listener, socket.peers, provider, stopped.clone()));
    }
    let told = pages.serve(&Arc::new(Page { metrics, providers }))?;
    let ready = format!("lastkey kms-plugin serves{told}");
    stop.serve_until_asked(&ready).await?;
    finish(&stopping, serving).await?;
    drop(locks);
    Ok(())
}
