//! What the KMS plugin is told: by a file, or by flags for one provider.
//!
//! Room      the binary.
//! Source    docs/kubernetes/kms-plugin.md.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lastkey_client::Trust;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::oaep::OaepPublicKey;
use lastkey_node::kmsv2::{ProviderConfig, WhenAway};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::Args;
use super::embedded::Embedded;
use super::events::EventsTo;
use super::renewal::RENEW_SECS;
use crate::adapters::{Access, Token, TpmSeal, parse_addr, trust_in};
use crate::cli::ConnectionArgs;
use crate::config::file::Log;
use crate::roles::pages::PageArgs;

/// A configuration file as it was typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<Server>,
    embedded: Option<EmbeddedServer>,
    #[serde(default)]
    outage: Outage,
    local_keys: Option<LocalKeys>,
    #[serde(default)]
    metrics: Listen,
    #[serde(default)]
    health: Listen,
    events: Option<Events>,
    #[serde(default)]
    log: Log,
    provider: Vec<Provider>,
}

/// The servers, and a credential.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    ca_fingerprint: Option<String>,
    identity: Option<PathBuf>,
    renew_seconds: Option<u64>,
    token_file: Option<PathBuf>,
}

/// The server of this process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddedServer {
    data: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// What to do while no server answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Outage {
    writes: Writes,
    bound_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Writes {
    #[default]
    Coast,
    Stop,
}

impl Default for Outage {
    fn default() -> Self {
        Self { writes: Writes::Coast, bound_seconds: 86_400 }
    }
}

/// Where local keys outlive a reboot, sealed to the TPM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalKeys {
    folder: PathBuf,
    #[serde(default = "usual_tpm")]
    tpm: String,
    #[serde(default = "usual_registers")]
    registers: Vec<u8>,
}

/// The TPM of the machine, behind the kernel's resource manager.
fn usual_tpm() -> String {
    "device:/dev/tpmrm0".to_owned()
}

/// What secure boot has measured.
fn usual_registers() -> Vec<u8> {
    vec![7]
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    listen: Option<SocketAddr>,
}

/// Where events of Kubernetes are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    kubeconfig: PathBuf,
    node: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    name: Option<String>,
    socket: PathBuf,
    key: String,
    #[serde(default)]
    cluster: String,
    group: Option<u32>,
    recovery_key: Option<PathBuf>,
}

/// What the plugin does, without contradictions.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) service: Service,
    pub(super) pages: PageArgs,
    pub(super) events: Option<EventsTo>,
    pub(super) log: Log,
    pub(super) kept: Option<KeptIn>,
    pub(super) providers: Vec<Place>,
}

/// A folder for local keys, and what seals them.
#[derive(Clone, Debug)]
pub(super) struct KeptIn {
    folder: PathBuf,
    pub(super) seal: TpmSeal,
}

impl KeptIn {
    fn of(typed: LocalKeys, folder: &Path) -> anyhow::Result<Self> {
        let tcti = typed.tpm.parse().with_context(|| format!("local_keys.tpm {:?}", typed.tpm))?;
        ensure!(
            !typed.registers.is_empty() && typed.registers.iter().all(|number| *number < 24),
            "local_keys.registers names none of the registers 0 to 23 of the TPM"
        );
        let seal = TpmSeal { tcti, registers: typed.registers };
        Ok(Self { folder: folder.join(typed.folder), seal })
    }

    /// The file of a provider.
    pub(super) fn file(&self, provider: &str) -> PathBuf {
        self.folder.join(format!("{provider}.lkl"))
    }
}

/// Who holds the keys.
#[derive(Debug)]
pub(super) enum Service {
    /// Servers elsewhere.
    Remote(Access),
    /// The server of this process.
    Embedded(Embedded),
}

/// A provider and its socket.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) socket: PathBuf,
    pub(super) group: Option<u32>,
    pub(super) config: ProviderConfig,
}

impl Resolved {
    /// From the file or the flags.
    ///
    /// # Errors
    /// When something is missing, unknown, contradictory or cannot be read.
    pub(super) fn of(args: &Args, connection: &ConnectionArgs) -> anyhow::Result<Self> {
        match (&args.config, &args.socket, &args.key) {
            (Some(path), None, None) => Self::read(path),
            (None, Some(socket), Some(key)) => Self::of_flags(args, socket, key, connection),
            _ => bail!("give --socket and --key, or --config alone"),
        }
    }

    /// From the file.
    ///
    /// # Errors
    /// As [`Resolved::of`].
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let file = toml::from_str(&text).with_context(|| format!("{name} is no configuration"))?;
        Self::of_file(file, path.parent().unwrap_or(Path::new(".")))
    }

    fn of_flags(
        args: &Args,
        socket: &Path,
        key: &str,
        connection: &ConnectionArgs,
    ) -> anyhow::Result<Self> {
        let provider = Provider {
            name: None,
            socket: socket.to_owned(),
            key: key.to_owned(),
            cluster: args.cluster.clone(),
            group: args.group,
            recovery_key: args.recovery_key.clone(),
        };
        let place = place(provider, &Outage::default(), Path::new("."))?;
        let log = Log::default();
        let service = match &args.data {
            Some(data) => Service::Embedded(Embedded::Data(data.clone())),
            None => Service::Remote(Access::of_flags(connection, RENEW_SECS)?),
        };
        let (pages, providers) = (args.pages.clone(), vec![place]);
        Ok(Self { service, pages, events: None, log, kept: None, providers })
    }

    fn of_file(file: File, folder: &Path) -> anyhow::Result<Self> {
        ensure!(!file.provider.is_empty(), "there is no [[provider]]");
        let service = service(file.server, file.embedded, folder)?;
        let kept = file.local_keys.map(|typed| KeptIn::of(typed, folder)).transpose()?;
        let places = file.provider.into_iter().map(|one| place(one, &file.outage, folder));
        let providers: Vec<Place> = places.collect::<Result<_, _>>()?;
        for (index, one) in providers.iter().enumerate() {
            for other in providers.iter().skip(index + 1) {
                let (socket, name) = (one.socket.display(), &one.config.name);
                ensure!(one.socket != other.socket, "two providers have the socket {socket}");
                ensure!(*name != other.config.name, "two providers are named {name}");
            }
        }
        if kept.is_some() {
            for Place { config, .. } in &providers {
                let name = &config.name;
                let is_plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
                ensure!(is_plain, "local_keys makes a file named after the provider {name:?}");
            }
        }
        let events = file.events.map(|typed| events_to(typed, folder)).transpose()?;
        let pages = PageArgs { metrics: file.metrics.listen, health: file.health.listen };
        Ok(Self { service, pages, events, log: file.log, kept, providers })
    }
}

/// The kubeconfig need not be there yet: it is not needed to serve.
fn events_to(typed: Events, folder: &Path) -> anyhow::Result<EventsTo> {
    let node = typed.node.unwrap_or_else(|| {
        rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
    });
    let is_name = !node.is_empty()
        && node.len() <= 128
        && node.split('.').all(|label| {
            label.starts_with(|first: char| first.is_ascii_alphanumeric())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        });
    ensure!(is_name, "events.node {node:?} is no name of a node");
    Ok(EventsTo { kubeconfig: folder.join(typed.kubeconfig), node })
}

fn place(provider: Provider, outage: &Outage, folder: &Path) -> anyhow::Result<Place> {
    let socket = folder.join(&provider.socket);
    let name = match provider.name {
        Some(name) => name,
        None => socket.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    ensure!(!provider.key.is_empty(), "the provider {name} has no key");
    let recovery = provider.recovery_key.map(|path| recovery_key(&folder.join(path)));
    let config = ProviderConfig {
        name,
        key: provider.key,
        cluster: provider.cluster,
        when_away: match outage.writes {
            Writes::Coast => WhenAway::Coast,
            Writes::Stop => WhenAway::Stop,
        },
        bound: Duration::from_secs(outage.bound_seconds),
        recovery: recovery.transpose()?,
    };
    Ok(Place { socket, group: provider.group, config })
}

/// A public key of RSA with 3,072 or 4,096 bits, in PEM.
fn recovery_key(path: &Path) -> anyhow::Result<OaepPublicKey> {
    let name = path.display();
    let pem = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("{name} holds no public key in PEM"))?;
    [MaterialSpec::Rsa3072, MaterialSpec::Rsa4096]
        .into_iter()
        .find_map(|spec| OaepPublicKey::new(spec, &der).ok())
        .with_context(|| format!("{name} is no RSA key of 3072 or 4096 bits"))
}

fn service(
    server: Option<Server>,
    embedded: Option<EmbeddedServer>,
    folder: &Path,
) -> anyhow::Result<Service> {
    let embedded = match (server, embedded) {
        (Some(server), None) => return Ok(Service::Remote(access_of_file(server, folder)?)),
        (None, Some(EmbeddedServer { data: Some(data), config: None })) => {
            Embedded::Data(folder.join(data))
        }
        (None, Some(EmbeddedServer { data: None, config: Some(path) })) => {
            Embedded::Config(folder.join(path))
        }
        (None, Some(_)) => bail!("give embedded.data or embedded.config, one of the two"),
        _ => bail!("give [server] or [embedded], one of the two"),
    };
    Ok(Service::Embedded(embedded))
}

fn access_of_file(server: Server, folder: &Path) -> anyhow::Result<Access> {
    ensure!(!server.endpoints.is_empty(), "server.endpoints names no server");
    let servers = server.endpoints.iter().map(|text| parse_addr(text)).collect::<Result<_, _>>()?;
    let trust = match (server.ca, server.ca_fingerprint) {
        (Some(_), Some(_)) => bail!("give server.ca or server.ca_fingerprint, not both"),
        (Some(path), None) => trust_in(&folder.join(path))?,
        (None, Some(text)) => Trust::Pinned(text.parse().context("server.ca_fingerprint")?),
        (None, None) => Trust::Nothing,
    };
    let token = server.token_file.map_or(Token::None, |path| Token::File(folder.join(path)));
    let identity = server.identity.map(|path| folder.join(path));
    let renew_secs = server.renew_seconds.unwrap_or(RENEW_SECS);
    Ok(Access { servers, trust, identity, renew_secs, token, remembers: true })
}
