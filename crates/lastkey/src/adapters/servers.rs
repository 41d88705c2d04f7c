//! Several servers, one answer in time.
//!
//! Room      the binary. Under the ports of `node` that are served over the network.
//! Holds     A call ends within its budget, failover included. A refusal is final; only silence
//!           and "not now" make another server be asked. Credentials are read again when their
//!           files change, and a key that the TPM does not open is tried again: a start may come
//!           before the TPM does. Servers in an older state than was known do no more than they are
//!           asked to by [`Needs::Answer`]; the silence after one is no outage.

use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lastkey_client::{
    Addr, Client, ClientConfig, Error, RetryPolicy, SecretVec, Trust, identity_from_env,
    token_from_env, trust_from_env,
};
use lastkey_node::ports::Cause;
use lastkey_wire::SecretText;
use lastkey_wire::native::sessions::TokenRequest;
use lastkey_wire::native::system::ContinuityRequest;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::memory::Memory;
use crate::cli::ConnectionArgs;
use crate::node_key::{self, Keeping, NodeKeyError};

/// A server that is not there is found out in this time, and another one asked.
const CONNECT: Duration = Duration::from_millis(1_000);
/// A renewal that takes longer is tried again later.
const RENEWAL: Duration = Duration::from_secs(2);
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
    /// Whether what is known of their state outlives the process, beside the certificate.
    pub(crate) remembers: bool,
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
pub(crate) struct Servers {
    access: Arc<Access>,
    clients: RwLock<Clients>,
    /// Held by who makes clients in place of those that a sealed server was asked by.
    connecting: Mutex<()>,
    /// The server that answered last.
    preferred: AtomicUsize,
    memory: Memory,
}

/// What a call needs of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// An answer, in whatever state they are: what is there can be read.
    Answer,
    /// That their state continues the one that was known.
    Continuity,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all.
    pub(super) budget: Duration,
    /// At one server, while there is time for another.
    pub(super) attempt: Duration,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// Nobody answered, or only to say that it cannot serve now.
    Away(Cause),
    /// A server said no, on purpose: code and message.
    Refused(String, String),
    /// They are in an older state than was known; what to do.
    RolledBack(String),
}

/// Why an attempt at one server came to nothing.
enum Missed {
    /// The call failed.
    Call(Error),
    /// The question before it failed: whether the state of the server continues the one that was
    /// known.
    Question(Error),
    /// It does not.
    RolledBack(String),
}

#[derive(Debug)]
struct Clients {
    each: Arc<[Client]>,
    /// None when the files are to be read again at the next call.
    made_of: Option<Stamp>,
    /// How the key of the certificate lies on the disk; none before it was opened.
    keeping: Option<Keeping>,
}

/// What a change of the credential files changes: their device, number, time and size.
type Stamp = [Option<(u64, u64, i64, i64, u64)>; 2];

impl Servers {
    /// Prepares the clients; connects at the first call.
    ///
    /// # Errors
    /// When a credential cannot be read or used. A key that the TPM does not open is told of, and
    /// tried again at each call.
    pub(crate) fn new(access: Access) -> anyhow::Result<Self> {
        let clients = match access.clients(None) {
            Err(error) if is_closed(&error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the node certificate cannot be used yet");
                access.clients_of(None, None)?
            }
            made => made?,
        };
        let memory = Memory::beside(access.identity.as_deref().filter(|_| access.remembers));
        let (access, clients) = (Arc::new(access), RwLock::new(clients));
        let (connecting, preferred) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Self { access, clients, connecting, preferred, memory })
    }

    /// The node certificate to renew, when there is one, and when: so many seconds before its end.
    pub(super) fn renewal(&self) -> Option<(PathBuf, u64)> {
        let identity = self.access.identity.clone()?;
        (self.access.renew_secs > 0).then_some((identity, self.access.renew_secs))
    }

    /// Has the node certificate in `file` followed by the next one, by the server that answered
    /// last. It is asked once: of two that sign, the later would void what the other one sent.
    /// Calls go on meanwhile, by the certificate before, which is good until the next one is shown.
    ///
    /// # Errors
    /// When the server does not sign it in time, or the file cannot be written.
    pub(super) async fn renew_identity(&self, file: &Path) -> anyhow::Result<()> {
        let (clients, index) = (self.clients().await, self.preferred.load(Ordering::Relaxed));
        let client = clients.get(index).context("no server")?;
        let keeping = self.known().keeping.clone().context("its key is not opened")?;
        let renewed = timeout(RENEWAL, crate::cli::renew_identity(client, file, &keeping));
        renewed
            .await
            .context("no answer in time")?
            .map(drop)
            .map_err(|failure| anyhow::anyhow!(failure.text()))
    }

    async fn clients(&self) -> Arc<[Client]> {
        let stamp = self.access.stamp();
        {
            let known = self.known();
            if known.made_of == Some(stamp) {
                return Arc::clone(&known.each);
            }
        }
        self.made_anew(stamp).await
    }

    /// Fresh connections in place of these: once, for all calls that came to the same by them.
    async fn connect_anew(&self, used: &Arc<[Client]>) {
        let _one = self.connecting.lock().await;
        if Arc::ptr_eq(used, &self.known().each) {
            self.made_anew(self.access.stamp()).await;
        }
    }

    /// Clients of what the files of credentials hold now, with fresh connections; those from before
    /// when it cannot be used.
    async fn made_anew(&self, stamp: Stamp) -> Arc<[Client]> {
        let (access, keeping) = (Arc::clone(&self.access), self.known().keeping.clone());
        // The TPM may have to be asked, and whoever asks something else does not wait for it.
        let made = spawn_blocking(move || access.clients(keeping.as_ref())).await;
        let mut known = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        match made.map_err(anyhow::Error::from).flatten() {
            Ok(made) => *known = made,
            Err(error) => {
                known.made_of = (!is_closed(&error)).then_some(stamp);
                let error = format!("{error:#}");
                tracing::error!(error, "a changed credential cannot be used; the old one stays");
            }
        }
        Arc::clone(&known.each)
    }

    fn known(&self) -> RwLockReadGuard<'_, Clients> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one server after the other until one answers.
    pub(super) async fn ask<T, F>(
        &self,
        limits: Limits,
        needs: Needs,
        call: impl Fn(Client) -> F,
    ) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.ask_each(limits, needs, call).await {
            Err(NoAnswer::Away(cause)) if needs == Needs::Continuity => {
                Err(self.memory.refused().map_or(NoAnswer::Away(cause), NoAnswer::RolledBack))
            }
            answer => answer,
        }
    }

    async fn ask_each<T, F>(
        &self,
        limits: Limits,
        needs: Needs,
        call: impl Fn(Client) -> F,
    ) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + limits.budget;
        let Ok(clients) = timeout_at(deadline, self.clients()).await else {
            return Err(NoAnswer::Away(Silent.into()));
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let attempts = clients.len().max(LEAST_ATTEMPTS);
        let mut last = None;
        for attempt in 0..attempts {
            let left = deadline.saturating_duration_since(Instant::now());
            let index = (first + attempt) % clients.len().max(1);
            let Some(client) = clients.get(index).filter(|_| !left.is_zero()) else { break };
            let limit = if attempt + 1 == attempts { left } else { left.min(limits.attempt) };
            match timeout(limit, self.attempt(client, needs, &call)).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(missed)) => {
                    self.memory.doubt();
                    // A sealed server asks nobody for a certificate, so a connection that was
                    // made meanwhile would never show ours.
                    if missed.code() == Some("Sealed") {
                        // Also out of time: there is what the server said.
                        let _ = timeout_at(deadline, self.connect_anew(&clients)).await;
                    }
                    last = Some(sorted(missed)?);
                }
                Err(_) => {
                    self.memory.doubt();
                    last = Some(Silent.into());
                }
            }
        }
        Err(NoAnswer::Away(last.unwrap_or_else(|| Silent.into())))
    }

    /// Asks one server, and before that whether its state is good for the call.
    async fn attempt<T, F>(
        &self,
        client: &Client,
        needs: Needs,
        call: &impl Fn(Client) -> F,
    ) -> Result<T, Missed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if needs == Needs::Continuity && !self.memory.is_fresh() {
            let remembered = self.memory.state().map_err(Missed::RolledBack)?;
            let asked = client.continuity(&ContinuityRequest { remembered }).await;
            let reply = asked.map_err(Missed::Question)?;
            self.memory.take(reply).await.map_err(Missed::RolledBack)?;
        }
        call(client.clone()).await.map_err(Missed::Call)
    }
}

impl Missed {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Call(error) | Self::Question(error) => error.code(),
            Self::RolledBack(_) => None,
        }
    }
}

/// Whether the key of the node certificate is sealed, and the TPM does not open it now.
fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(NodeKeyError::NotOpened { .. }))
}

/// A server that did not answer within its share of the time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct Silent;

/// A server that refuses the question whether its state continues the one that was known. That says
/// nothing of the key or the secret that the call is about.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server does not compare its state with the one that was known here; update it before its \
     agents"
)]
struct NotCompared(#[source] Error);

/// What another server may do better is a value, what is final an error.
fn sorted(missed: Missed) -> Result<Cause, NoAnswer> {
    let (error, is_question) = match missed {
        Missed::Call(error) => (error, false),
        Missed::Question(error) => (error, true),
        Missed::RolledBack(message) => return Err(NoAnswer::RolledBack(message)),
    };
    let Some(refusal) = error.refusal() else { return Ok(error.into()) };
    match refusal.detail.code.as_str() {
        "Sealed" | "Unavailable" | "Throttled" | "Timeout" | "Internal" => Ok(error.into()),
        _ if is_question => Ok(NotCompared(error).into()),
        code => Err(NoAnswer::Refused(code.to_owned(), refusal.detail.message.clone())),
    }
}

impl Access {
    /// The certificate belongs to all doors of the node; `lastkey node renew` renews it.
    pub(crate) const NO_RENEWAL: u64 = 0;

    /// As the flags and variables of the command line say it, with the certificate renewed so many
    /// seconds before its end.
    ///
    /// # Errors
    /// When there is no server, or a credential cannot be read.
    pub(crate) fn of_flags(connection: &ConnectionArgs, renew_secs: u64) -> anyhow::Result<Self> {
        let addr = match &connection.addr {
            Some(text) => text.clone(),
            None => std::env::var(lastkey_client::ADDR_VARIABLE)
                .ok()
                .filter(|text| !text.is_empty())
                .context("no server: give --addr, or set LASTKEY_ADDR")?,
        };
        let trust = match (&connection.ca, &connection.ca_fingerprint) {
            (Some(path), _) => trust_in(path)?,
            (None, Some(text)) => Trust::Pinned(text.parse().context("--ca-fingerprint")?),
            (None, None) => trust_from_env()?,
        };
        let identity = match &connection.identity {
            Some(path) => Some(path.clone()),
            // Read here to refuse a wrong one now; the file is read again when it changes.
            None => identity_from_env()?
                .and(std::env::var_os(lastkey_client::IDENTITY_VARIABLE))
                .map(PathBuf::from),
        };
        let token = match &connection.token_file {
            Some(path) => Token::File(path.clone()),
            None => token_from_env().map_or(Token::None, Token::Fixed),
        };
        let servers = vec![parse_addr(&addr)?];
        Ok(Self { servers, trust, identity, renew_secs, token, remembers: true })
    }

    /// Of what the files of credentials hold; the key of a file that is `known` need not be asked
    /// of the TPM.
    fn clients(&self, known: Option<&Keeping>) -> anyhow::Result<Clients> {
        let made_of = self.stamp();
        let Some(path) = &self.identity else { return self.clients_of(None, Some(made_of)) };
        let opened = node_key::open(read_private(path)?, known);
        self.clients_of(Some(opened.with_context(|| path.display().to_string())?), Some(made_of))
    }

    fn clients_of(
        &self,
        identity: Option<(SecretVec, Keeping)>,
        made_of: Option<Stamp>,
    ) -> anyhow::Result<Clients> {
        let (identity, keeping) = identity.unzip();
        let each = self.servers.iter().map(|addr| self.client(addr, identity.as_ref()));
        Ok(Clients { each: each.collect::<Result<_, _>>()?, made_of, keeping })
    }

    fn client(&self, addr: &Addr, identity: Option<&SecretVec>) -> anyhow::Result<Client> {
        let mut config = ClientConfig::new(addr.clone());
        config.trust = self.trust.clone();
        config.identity = identity.map(|identity| identity.expose(SecretVec::copy_of));
        config.token = match &self.token {
            Token::None => None,
            Token::Fixed(token) => Some(token.expose(SecretVec::copy_of)),
            Token::File(path) => Some(first_line(&read_private(path)?)),
        };
        config.connect_timeout = CONNECT;
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

/// Asks for a session for the holder of a token: as long as is usual, or so many seconds.
pub(super) fn token_request(token: &SecretVec, role: &str, seconds: Option<u64>) -> TokenRequest {
    TokenRequest {
        subject_token: SecretText(token.expose(SecretVec::copy_of)),
        role: role.to_owned(),
        grant_type: None,
        subject_token_type: None,
        duration_seconds: seconds,
        policy: None,
        nonce: None,
    }
}

/// The address of a server. Nobody looks at what an agent says while it runs, so a warning would not
/// do for one at which tokens and keys cross a network readable.
///
/// # Errors
/// When it is none, or an `http://` of another machine.
pub(crate) fn parse_addr(text: &str) -> anyhow::Result<Addr> {
    let addr: Addr = text.parse().with_context(|| format!("{text:?}"))?;
    ensure!(
        !addr.is_exposed(),
        "{text:?}: everybody on the way to another machine could read what is asked over http://; use \
         https://"
    );
    Ok(addr)
}

/// The authority in a file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn trust_in(path: &Path) -> anyhow::Result<Trust> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Trust::Authority(pem))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What a server answers to the question for its state, and to everything else.
    type Script = [(u16, String); 2];

    const LIMITS: Limits =
        Limits { budget: Duration::from_secs(60), attempt: Duration::from_secs(30) };

    fn standing(standing: &str) -> (u16, String) {
        let state = r#"{"checkpoint":"signed\n","commits":7,"rollback":0,"later":1}"#;
        (200, format!(r#"{{"standing":"{standing}","state":{state}}}"#))
    }

    fn refusal(status: u16, code: &str) -> (u16, String) {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"no","request_id":"r"}}}}"#);
        (status, body)
    }

    /// A server that answers as it is told, and keeps the targets that it was asked for.
    #[derive(Clone)]
    struct Scripted {
        addr: Addr,
        script: Arc<Mutex<Script>>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Scripted {
        async fn answering(script: Script) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let server = Self { addr, script: Arc::new(Mutex::new(script)), seen: Arc::default() };
            let serving = server.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let head = head_of(&mut stream).await;
                    stream.write_all(serving.answer(&head).as_bytes()).await.unwrap();
                }
            });
            server
        }

        fn answer(&self, head: &str) -> String {
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let [question, call] = self.script.lock().unwrap().clone();
            let (status, body) = if target.ends_with("/continuity") { question } else { call };
            self.seen.lock().unwrap().push(target);
            let len = body.len();
            format!(
                "HTTP/1.1 {status} Such\r\ncontent-type: application/json\r\n\
                 content-length: {len}\r\nconnection: close\r\n\r\n{body}"
            )
        }

        fn seen(&self) -> Vec<String> {
            std::mem::take(&mut *self.seen.lock().unwrap())
        }
    }

    /// Reads a request to its end, and answers its head.
    async fn head_of(stream: &mut tokio::net::TcpStream) -> String {
        let mut text = Vec::new();
        loop {
            let mut part = [0; 4_096];
            let len = stream.read(&mut part).await.unwrap();
            text.extend_from_slice(&part[..len]);
            let said = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = said.split_once("\r\n\r\n") else {
                assert!(len > 0, "{said}");
                continue;
            };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return head.to_owned();
            }
            assert!(len > 0, "{said}");
        }
    }

    fn servers(all: &[&Scripted], identity: Option<PathBuf>) -> Servers {
        let access = Access {
            servers: all.iter().map(|one| one.addr.clone()).collect(),
            trust: Trust::Nothing,
            identity: None,
            renew_secs: Access::NO_RENEWAL,
            token: Token::None,
            remembers: true,
        };
        let made = Servers::new(access).unwrap();
        Servers { memory: Memory::beside(identity.as_deref()), ..made }
    }

    async fn ask(servers: &Servers, needs: Needs) -> Result<(), NoAnswer> {
        let call = |client: Client| async move { client.describe_key("k").await.map(drop) };
        servers.ask(LIMITS, needs, call).await
    }

    #[test]
    fn another_machine_is_asked_over_tls_alone() {
        for good in ["https://10.0.0.1:8400", "http://127.0.0.1:8400", "unix:///run/s.sock"] {
            assert!(parse_addr(good).is_ok(), "{good}");
        }
        let refused = parse_addr("http://10.0.0.1:8400").unwrap_err().to_string();
        assert!(refused.contains("10.0.0.1") && refused.contains("https://"), "{refused}");
    }

    /// A sealed server asks for no certificate, and each call would make its own anew.
    #[tokio::test]
    async fn connections_to_a_sealed_server_are_made_anew_once() {
        let sealed = refusal(503, "Sealed");
        let server = Scripted::answering([sealed.clone(), sealed]).await;
        let servers = servers(&[&server], None);
        let first = servers.clients().await;
        assert!(matches!(ask(&servers, Needs::Answer).await, Err(NoAnswer::Away(_))));
        let second = servers.clients().await;
        assert!(!Arc::ptr_eq(&first, &second), "the one that it was asked by stayed");
        // Of two calls by the same connections, the later finds new ones.
        servers.connect_anew(&first).await;
        assert!(Arc::ptr_eq(&second, &servers.clients().await));
    }

    #[tokio::test]
    async fn a_server_that_does_not_know_the_question_refuses_no_key() {
        let gone = refusal(404, "KeyState");
        for question in [refusal(404, "NotFound"), refusal(400, "InvalidRequest")] {
            let server = Scripted::answering([question, gone.clone()]).await;
            let servers = servers(&[&server], None);
            let Err(NoAnswer::Away(cause)) = ask(&servers, Needs::Continuity).await else {
                panic!("it is not known what it says of the key")
            };
            assert!(cause.to_string().contains("update it"), "{cause}");
            assert!(server.seen().iter().all(|target| target.ends_with("/continuity")));
            // What it says of the key itself is final.
            let said = ask(&servers, Needs::Answer).await;
            assert!(matches!(said, Err(NoAnswer::Refused(code, _)) if code == "KeyState"));
        }
    }

    #[tokio::test]
    async fn a_server_that_another_fails_over_to_is_compared_before_it_is_asked() {
        let away = refusal(503, "Unavailable");
        let first = Scripted::answering([standing("continues"), away]).await;
        let second = Scripted::answering([standing("older"), refusal(403, "KeyState")]).await;
        let servers = servers(&[&first, &second], None);
        let said = ask(&servers, Needs::Continuity).await;
        assert!(matches!(said, Err(NoAnswer::RolledBack(_))));
        assert_eq!(first.seen(), ["/v1/sys/continuity", "/v1/keys/k"]);
        assert_eq!(second.seen(), ["/v1/sys/continuity"]);
    }

    #[tokio::test]
    async fn silence_after_an_older_state_is_no_outage_also_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let (away, no) = (refusal(503, "Unavailable"), refusal(403, "KeyState"));
        let server = Scripted::answering([standing("continues"), no.clone()]).await;
        let says = |question: (u16, String)| {
            *server.script.lock().unwrap() = [question, no.clone()];
            servers(&[&server], Some(identity.clone()))
        };
        let is_away = async |servers: &Servers| {
            matches!(ask(servers, Needs::Continuity).await, Err(NoAnswer::Away(_)))
        };
        let is_older = async |servers: &Servers| {
            matches!(ask(servers, Needs::Continuity).await, Err(NoAnswer::RolledBack(_)))
        };
        let is_asked = async |servers: &Servers| {
            matches!(ask(servers, Needs::Continuity).await, Err(NoAnswer::Refused(..)))
        };
        assert!(is_asked(&says(standing("continues"))).await);
        assert!(is_away(&says(away.clone())).await);
        assert!(is_older(&says(standing("older"))).await);
        assert!(is_older(&says(away.clone())).await);
        assert!(is_asked(&says(standing("continues"))).await);
        assert!(is_away(&says(away)).await);
    }
}
