//! The key service of a node's doors, over the network: several servers, one answer in time.
//!
//! Room      the binary: `node::ports::KeyOps` by `client`.
//! Holds     A call ends within 2.5 seconds, failover included. A refusal is final; only silence
//!           and "not now" make another server be asked. Credentials are read again when their
//!           files change.

use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use lastkey_client::{Addr, Client, ClientConfig, Error, RetryPolicy, SecretVec, Trust};
use lastkey_core::ids::KeyId;
use lastkey_node::ports::{Context, KeyError, KeyInUse, KeyOps};
use lastkey_wire::native::operations::{DecryptRequest, EncryptRequest};
use lastkey_wire::words::KeyState;
use lastkey_wire::{Base64Bytes, SecretBase64, StringMap};
use tokio::time::{Instant, timeout};

/// An API server gives a plugin three seconds.
const BUDGET: Duration = Duration::from_millis(2_500);
/// A server that is silent for so long leaves time to ask another one.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// Also with one server: its pooled connection may have died with a restart.
const LEAST_ATTEMPTS: usize = 2;

/// Where the servers are, and how the caller shows who he is.
#[derive(Debug)]
pub(crate) struct Access {
    /// At least one.
    pub(crate) servers: Vec<Addr>,
    pub(crate) trust: Trust,
    /// A node certificate and its key.
    pub(crate) identity: Option<PathBuf>,
    /// How many seconds before its end the certificate is renewed; 0 for never.
    pub(crate) renew_secs: u64,
    pub(crate) token: Token,
}

/// Where the token comes from.
#[derive(Debug)]
pub(crate) enum Token {
    /// There is none; the certificate speaks.
    None,
    /// From the environment.
    Fixed(SecretVec),
    /// From a file, which somebody keeps fresh.
    File(PathBuf),
}

/// Servers that hold the same keys.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    access: Access,
    clients: RwLock<Clients>,
    /// The server that answered last.
    preferred: AtomicUsize,
    /// A certificate is void when the next one is signed: a call by it in that moment would be
    /// refused, and a refusal counts. So calls wait.
    renewing: tokio::sync::RwLock<()>,
}

#[derive(Debug)]
struct Clients {
    each: Arc<[Client]>,
    made_of: Stamp,
}

/// What a change of the credential files changes: their device, number, time and size.
type Stamp = [Option<(u64, u64, i64, i64, u64)>; 2];

impl RemoteKeys {
    /// Prepares the clients; connects at the first call.
    ///
    /// # Errors
    /// When a credential cannot be read or used.
    pub(crate) fn new(access: Access) -> anyhow::Result<Self> {
        let made_of = access.stamp();
        let clients = RwLock::new(Clients { each: access.clients()?, made_of });
        let (preferred, renewing) = (AtomicUsize::new(0), tokio::sync::RwLock::new(()));
        Ok(Self { access, clients, preferred, renewing })
    }

    /// The node certificate to renew, when there is one, and when: so many seconds before its end.
    pub(crate) fn renewal(&self) -> Option<(PathBuf, u64)> {
        let identity = self.access.identity.clone()?;
        (self.access.renew_secs > 0).then_some((identity, self.access.renew_secs))
    }

    /// Has the node certificate in `file` followed by the next one, by the server that answered
    /// last: another one is not asked, because the certificate may be void then.
    ///
    /// # Errors
    /// When no server signs it, or the file cannot be written.
    pub(crate) async fn renew_identity(&self, file: &Path) -> anyhow::Result<()> {
        let _no_calls = self.renewing.write().await;
        let (clients, index) = (self.clients(), self.preferred.load(Ordering::Relaxed));
        let client = clients.get(index).context("no server")?;
        let renewed = crate::cli::renew_identity(client, file).await;
        renewed.map(drop).map_err(|failure| anyhow::anyhow!(failure.text()))
    }

    fn clients(&self) -> Arc<[Client]> {
        let stamp = self.access.stamp();
        let known = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        if known.made_of == stamp {
            return Arc::clone(&known.each);
        }
        drop(known);
        let mut known = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        match self.access.clients() {
            Ok(each) => *known = Clients { each, made_of: stamp },
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "a changed credential cannot be used; the old one stays");
                known.made_of = stamp;
            }
        }
        Arc::clone(&known.each)
    }

    /// Asks one server after the other until one answers.
    async fn ask<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + BUDGET;
        let waited = tokio::time::timeout_at(deadline, self.renewing.read()).await;
        let _not_renewing = waited.map_err(|_| KeyError::Away(Silent.into()))?;
        let clients = self.clients();
        let first = self.preferred.load(Ordering::Relaxed);
        let attempts = clients.len().max(LEAST_ATTEMPTS);
        let mut last = None;
        for attempt in 0..attempts {
            let left = deadline.saturating_duration_since(Instant::now());
            let index = (first + attempt) % clients.len().max(1);
            let Some(client) = clients.get(index).filter(|_| !left.is_zero()) else { break };
            let limit = if attempt + 1 == attempts { left } else { left.min(ATTEMPT) };
            match timeout(limit, call(client.clone())).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(error)) => last = Some(sorted(error)?),
                Err(_) => last = Some(KeyError::Away(Silent.into())),
            }
        }
        Err(last.unwrap_or_else(|| KeyError::Away(Silent.into())))
    }
}

/// A server that did not answer within its share of the time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct Silent;

/// What another server may do better is a value, what is final an error.
fn sorted(error: Error) -> Result<KeyError, KeyError> {
    let Some(refusal) = error.refusal() else { return Ok(KeyError::Away(error.into())) };
    match refusal.detail.code.as_str() {
        "Sealed" | "Unavailable" | "Throttled" | "Timeout" | "Internal" => {
            Ok(KeyError::Away(error.into()))
        }
        "Undecryptable" => Err(KeyError::Undecryptable),
        code => Err(KeyError::Refused {
            code: code.to_owned(),
            message: refusal.detail.message.clone(),
        }),
    }
}

impl Access {
    fn clients(&self) -> anyhow::Result<Arc<[Client]>> {
        self.servers.iter().map(|addr| self.client(addr)).collect()
    }

    fn client(&self, addr: &Addr) -> anyhow::Result<Client> {
        let mut config = ClientConfig::new(addr.clone());
        config.trust = self.trust.clone();
        config.identity = self.identity.as_deref().map(read_private).transpose()?;
        config.token = match &self.token {
            Token::None => None,
            Token::Fixed(token) => Some(token.expose(SecretVec::copy_of)),
            Token::File(path) => Some(first_line(&read_private(path)?)),
        };
        config.connect_timeout = ATTEMPT;
        config.request_timeout = BUDGET;
        // Whether to ask again, and whom, is decided here.
        config.retry = RetryPolicy::never();
        Client::new(&config).with_context(|| format!("cannot use {addr}"))
    }

    fn stamp(&self) -> Stamp {
        let token = match &self.token {
            Token::File(path) => Some(path),
            Token::None | Token::Fixed(_) => None,
        };
        [self.identity.as_ref(), token].map(|path| {
            let about = std::fs::metadata(path?).ok()?;
            Some((about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.size()))
        })
    }
}

/// A file that only its owner can read.
fn read_private(path: &Path) -> anyhow::Result<SecretVec> {
    let name = path.display();
    let about = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?;
    let others = about.permissions().mode() & 0o077;
    ensure!(others == 0, "{name} can be read by others; chmod 600 it");
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    Ok(SecretVec::take(bytes))
}

fn first_line(text: &SecretVec) -> SecretVec {
    text.expose(|bytes| {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        SecretVec::copy_of(line.trim_ascii())
    })
}

#[async_trait]
impl KeyOps for RemoteKeys {
    async fn key_in_use(&self, key: &str) -> Result<KeyInUse, KeyError> {
        let view = self.ask(|client| async move { client.describe_key(key).await }).await?;
        if view.state != KeyState::Enabled {
            return Err(KeyError::Refused {
                code: "KeyState".to_owned(),
                message: format!("the key is {}", view.state.as_str()),
            });
        }
        let (Ok(id), Some(version)) = (view.id.parse::<KeyId>(), view.primary_version) else {
            return Err(KeyError::Away("a key without id or version".into()));
        };
        Ok(KeyInUse { id: *id.as_bytes(), version, activation: view.activation })
    }

    async fn version_made_at(&self, key: &str, version: u32) -> Result<String, KeyError> {
        let ask = |client: Client| async move { client.describe_version(key, version).await };
        Ok(self.ask(ask).await?.created_at)
    }

    async fn wrap(
        &self,
        key: &str,
        local: &SecretVec,
        context: &Context,
    ) -> Result<Vec<u8>, KeyError> {
        let request = EncryptRequest {
            key: key.to_owned(),
            plaintext: SecretBase64(local.expose(SecretVec::copy_of)),
            context: Some(map_of(context)),
            context_raw: None,
            dry_run: false,
        };
        let request = &request;
        let reply = self.ask(|client| async move { client.encrypt(request).await }).await?;
        Ok(reply.ciphertext.0)
    }

    async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        let request = DecryptRequest {
            ciphertext: Base64Bytes(wrapped.to_vec()),
            context: Some(map_of(context)),
            context_raw: None,
            key: None,
            version: None,
            dry_run: false,
        };
        let request = &request;
        let reply = self.ask(|client| async move { client.decrypt(request).await }).await?;
        Ok(reply.plaintext.0)
    }
}

fn map_of(context: &Context) -> StringMap {
    context.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
