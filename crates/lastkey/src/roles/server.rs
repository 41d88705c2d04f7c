//! `lastkey server`: serves a data directory until it is told to stop.
//!
//! Room      the binary.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lastkey_core::ids::RequestId;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_http::{Address, Listen, MetricsAccess, Server, ServerConfig, Shutdown, TlsHandle};
use lastkey_secret::SecretVec;
use lastkey_service::backup_schedule::{BackupKeeper, BackupSchedule};
use lastkey_service::sealing::Gate;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::admin_token::read_keyfile;
use crate::buckets::buckets;
use crate::config::file::{self, ConfigFile};
use crate::config::resolved::{Resolved, TlsSource};
use crate::devices::DevicePlaces;
use crate::wiring::{Opened, open_data, seal_devices};
use crate::{device_unseal, hardening, say, telemetry, tls_identity, witnessing};

/// How often a self-made certificate is issued anew; it is good for three times as long.
const RENEWAL: Duration = Duration::from_secs(30 * 86_400);

/// How often it is looked whether a backup is due.
const BACKUP_ROUND: Duration = Duration::from_secs(10);

/// Serves a data directory until it is told to stop (SIGTERM or SIGINT; SIGHUP reads the TLS
/// certificate again).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A configuration file; `lastkey config show` prints one with every default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory, made by `lastkey init`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Listen here instead of where the configuration says. May be given more than once.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Begin a new audit log where the one before was removed, cut or replaced. That is recorded.
    #[arg(long)]
    accept_audit_loss: bool,
    /// Serve an older state of the installation although nodes or witnesses knew a newer one. That is
    /// recorded, and nodes go on by this word; say it once.
    #[arg(long)]
    accept_rollback: bool,
}

/// Runs the server.
///
/// # Errors
/// When the configuration is wrong, the data directory cannot be opened, or an address is taken.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut typed = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
    typed.data = args.data.clone().or(typed.data);
    if !args.listen.is_empty() {
        typed.listen.tcp.clone_from(&args.listen);
    }
    let mut config = Resolved::of(typed)?;
    config.accepts_audit_loss = args.accept_audit_loss;
    config.accepts_rollback = args.accept_rollback;
    telemetry::start(&config.log)?;
    start(config, |started| {
        let sealed = if started.unsealed { "" } else { ", sealed; unseal it by `lastkey unseal`" };
        let addresses: Vec<_> = started.addresses.iter().map(Address::to_string).collect();
        say::line(&format!("lastkey serves on {}{sealed}", addresses.join(" ")))
    })
}

/// A server that has started.
pub(crate) struct Started {
    pub(crate) addresses: Vec<Address>,
    pub(crate) unsealed: bool,
    pub(crate) gate: Arc<Gate>,
}

/// Starts a server, says so through `ready`, and serves until a signal.
///
/// # Errors
/// As [`run`], and those of `ready`.
pub(crate) fn start(
    config: Resolved,
    ready: impl FnOnce(&Started) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    hardening::apply().context("cannot switch core dumps off")?;
    if let Err(reason) = hardening::lock_memory() {
        tracing::warn!(%reason, "memory is not locked: keys may reach the swap");
    }
    let runtime = runtime()?;
    // Behind a pointer its code is there once; each kind of runtime would have it thrice.
    let server: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(serve(config, ready));
    let outcome = runtime.block_on(server);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// One thread for each core; on a single core none has to be woken by another.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(cores).enable_all().build()
}

async fn serve(
    config: Resolved,
    ready: impl FnOnce(&Started) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut opened = open_data(&config.data, config.audit)?;
    let watched = opened.ask_others(&config.guard, &config.clusters)?;
    let Opened { store, ports, backups } = opened;
    if store.bootstrap().await?.is_none() {
        let data = config.data.display();
        bail!("{data} holds no installation yet; run `lastkey init --data {data}` first");
    }
    let audit = Arc::clone(&ports.audit);
    let listening = watched.listen();
    let places = DevicePlaces::of(&config.data, &config.pkcs11_modules, &config.kms_configs);
    let gate = Gate::new(store, ports, config.open_keys).with_devices(seal_devices(places));
    let backups = backups
        .with(config.backup.target.clone(), config.backup.scratch.clone())
        .with_buckets(buckets(&config.backup.s3));
    let gate = gate.with_secret_len(config.secret_len).with_backups(Arc::new(backups));
    let gate = gate.accepting_rollback(config.accepts_rollback);
    let gate = Arc::new(gate.accepting_audit_loss(config.accepts_audit_loss));
    let witnessing = tokio::spawn(witnessing::run(audit, Arc::clone(&gate), config.guard.clone()));
    if let Some(path) = &config.keyfile {
        unseal_by_keyfile(&gate, path).await?;
    }
    let retry = device_unseal::start(&gate).await;
    let tls = tls_handle(&config)?;
    let server = Server::bind(server_config(&config, tls.as_ref())?, Arc::clone(&gate)).await?;
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangup = signal(SignalKind::hangup())?;
    let (addresses, unsealed) = (server.local_addrs(), gate.engine().is_ok());
    hardening::release_code();
    ready(&Started { addresses, unsealed, gate: Arc::clone(&gate) })?;

    let keeping = tokio::spawn(keep_backups(Arc::clone(&gate), config.backup.schedule));
    let renewal = tokio::spawn(renew(config, tls, hangup));
    let shutdown = server.run(async move {
        tokio::select! { _ = stop.0.recv() => (), _ = stop.1.recv() => () }
        tracing::info!("stopping: no new connections, accepted requests are finished");
    });
    if let Shutdown::Cut { connections } = shutdown.await {
        tracing::warn!(connections, "the time to finish was over; connections were cut");
    }
    keeping.abort();
    renewal.abort();
    witnessing.abort();
    if let Some(retry) = retry {
        retry.abort();
    }
    drop(listening);
    gate.stop().await;
    Ok(())
}

fn server_config(config: &Resolved, tls: Option<&TlsHandle>) -> anyhow::Result<ServerConfig> {
    let tcp = config.tcp.iter().map(|addr| Listen::Tcp { addr: *addr, tls: tls.cloned() });
    let users = &config.unix_users;
    let unix =
        config.unix.iter().map(|path| Listen::Unix { path: path.clone(), users: users.clone() });
    let mut request_id_prefix = [0; 8];
    SystemEntropy.fill(&mut request_id_prefix)?;
    Ok(ServerConfig {
        listeners: tcp.chain(unix).collect(),
        limits: config.limits,
        metrics_access: match config.metrics {
            file::MetricsAccess::Public => MetricsAccess::Public,
            file::MetricsAccess::Token => MetricsAccess::Token,
        },
        registry: Default::default(),
        request_id_prefix,
        server_version: crate::VERSION.to_owned(),
    })
}

async fn unseal_by_keyfile(gate: &Arc<Gate>, path: &std::path::Path) -> anyhow::Result<()> {
    let key = read_keyfile(path)?;
    let mut request = [0; 16];
    SystemEntropy.fill(&mut request)?;
    gate.unseal(RequestId(request), key).await.with_context(|| {
        format!("the key file {} does not unseal this installation", path.display())
    })?;
    Ok(())
}

/// The certificate to serve with; `None` in the clear.
fn tls_handle(config: &Resolved) -> anyhow::Result<Option<TlsHandle>> {
    let Some((chain, key)) = identity(config)? else { return Ok(None) };
    Ok(Some(TlsHandle::from_pem(&chain, &key)?))
}

fn identity(config: &Resolved) -> anyhow::Result<Option<(Vec<u8>, SecretVec)>> {
    match &config.tls {
        TlsSource::Off => Ok(None),
        TlsSource::SelfMade { names } => {
            let mut all = tls_identity::own_names(config.tcp.iter().map(SocketAddr::ip));
            all.extend_from_slice(names);
            let issued = tls_identity::issue(&config.data, &all)?;
            Ok(Some((issued.chain, issued.private_key)))
        }
        TlsSource::Files { certificate, private_key } => {
            let read = |path: &PathBuf| {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            };
            Ok(Some((read(certificate)?, SecretVec::take(read(private_key)?))))
        }
    }
}

/// Looks after the backups until it is dropped.
async fn keep_backups(gate: Arc<Gate>, schedule: BackupSchedule) {
    let mut keeper = BackupKeeper::new(gate, schedule);
    loop {
        tokio::time::sleep(BACKUP_ROUND).await;
        keeper.look_after().await;
    }
}

/// Renews the certificate on SIGHUP, and a self-made one in time by itself.
async fn renew(config: Resolved, tls: Option<TlsHandle>, mut hangup: Signal) {
    let Some(tls) = tls else { return pending().await };
    loop {
        tokio::select! {
            _ = hangup.recv() => (),
            () = tokio::time::sleep(RENEWAL) => (),
        }
        let renewed = identity(&config).and_then(|identity| {
            let (chain, key) = identity.context("TLS is off")?;
            Ok(tls.reload(&chain, &key)?)
        });
        match renewed {
            Ok(()) => tracing::info!("the TLS certificate was read again"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the TLS certificate cannot be read; the old one stays");
            }
        }
    }
}
