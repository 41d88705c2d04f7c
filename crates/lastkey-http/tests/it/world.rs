//! A server for a test, and the handles that a test needs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lastkey_core::audit::Event;
use lastkey_core::outside::Nobody;
use lastkey_core::ports::{
    Audit, AuditArchive, Cause, Expected, RecordKeys, SealedStore, Store, StoreError, Write,
};
use lastkey_core::principal::Principal;
use lastkey_core::record::{Record, RecordPath, TokenRecord};
use lastkey_core::seal_record::Bootstrap;
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_http::{Address, Limits, Listen, MetricsAccess, Server, ServerConfig, Shutdown};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::engine::Ports;
use lastkey_service::sealing::{Gate, NewSeal, initialise};
use lastkey_store::MemorySealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions};
use lastkey_testkit::clock::FixedClock;
use lastkey_testkit::entropy::SeededSource;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::client::Client;

/// The key file of every test.
pub(crate) const KEYFILE: [u8; 32] = [7; 32];
/// The token of somebody who is known and may do nothing.
pub(crate) const STRANGER: &str = "stranger-token";

/// An audit log whose durable writes can be held up.
pub(crate) struct HeldAudit {
    /// Durable writes take a permit of these.
    pub(crate) let_through: Semaphore,
    /// Gets a permit when a durable write begins.
    pub(crate) began: Semaphore,
    /// Where the records go.
    log: AuditLog,
    _dir: tempfile::TempDir,
}

impl HeldAudit {
    /// From now on durable writes wait for permits.
    pub(crate) fn hold(&self) {
        self.let_through.forget_permits(Semaphore::MAX_PERMITS);
        self.began.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Waits until a durable write has begun.
    pub(crate) async fn began(&self) {
        self.began.acquire().await.unwrap().forget();
    }

    /// Lets all durable writes through.
    pub(crate) fn release(&self) {
        self.let_through.add_permits(1_000_000);
    }
}

#[async_trait]
impl Audit for HeldAudit {
    fn append(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.log.append(event)
    }

    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.began.add_permits(1);
        self.let_through.acquire().await?.forget();
        self.log.append_durably(event).await
    }

    fn archive(&self) -> Option<&dyn AuditArchive> {
        self.log.archive()
    }
}

/// A store that remembers its opened form, so that a test can write records of its own.
struct Remembering {
    inner: MemorySealedStore,
    opened: Mutex<Option<Arc<dyn Store>>>,
}

#[async_trait]
impl SealedStore for Remembering {
    async fn bootstrap(&self) -> Result<Option<Bootstrap>, StoreError> {
        self.inner.bootstrap().await
    }

    async fn initialise(&self, bootstrap: &Bootstrap) -> Result<(), StoreError> {
        self.inner.initialise(bootstrap).await
    }

    async fn replace_bootstrap(
        &self,
        before: &Bootstrap,
        after: &Bootstrap,
    ) -> Result<(), StoreError> {
        self.inner.replace_bootstrap(before, after).await
    }

    fn open(&self, keys: RecordKeys) -> Result<Arc<dyn Store>, StoreError> {
        let opened = self.inner.open(keys)?;
        *self.opened.lock().unwrap() = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

/// A running server.
pub(crate) struct World {
    /// The administrator's token.
    pub(crate) admin: String,
    pub(crate) gate: Arc<Gate>,
    pub(crate) audit: Arc<HeldAudit>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) addresses: Vec<Address>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<JoinHandle<Shutdown>>,
}

/// How a server of a test differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) listeners: Vec<Listen>,
    pub(crate) metrics_access: MetricsAccess,
    pub(crate) sealed: bool,
}

impl World {
    /// An unsealed server on a free port.
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let entropy = Arc::new(SeededSource::new(1));
        let dir = tempfile::tempdir().unwrap();
        let audit = Arc::new(HeldAudit {
            log: AuditLog::open(dir.path(), AuditOptions::KEEP_ALL).unwrap(),
            _dir: dir,
            let_through: Semaphore::new(1_000_000),
            began: Semaphore::new(0),
        });
        let clock = Arc::new(FixedClock::default());
        let ports = Ports {
            audit: Arc::clone(&audit) as _,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::clone(&entropy) as _,
            issuers: Arc::new(Nobody),
            clusters: Arc::new(Nobody),
            databases: Arc::new(Nobody),
            webhooks: Arc::new(Nobody),
            claims: Arc::new(Nobody),
        };
        let store = Arc::new(Remembering {
            inner: MemorySealedStore::in_memory(entropy),
            opened: Mutex::new(None),
        });
        let seal = NewSeal::Keyfile(SecretArray::copy_of(&KEYFILE));
        let made = initialise(&*store, &ports, &seal).await.unwrap();
        let admin = made.admin_token.expose(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let opened = store.opened.lock().unwrap().take().unwrap();
        opened.commit(vec![stranger()]).await.unwrap();
        let gate = Arc::new(Gate::new(store, ports, 100));
        if !setup.sealed {
            let id = lastkey_core::ids::RequestId([0; 16]);
            gate.unseal(id, SecretVec::copy_of(&KEYFILE)).await.unwrap();
        }
        let (addresses, stop, ended) = Self::serve(setup, Arc::clone(&gate)).await;
        Self { admin, gate, audit, clock, addresses, stop: Some(stop), ended: Some(ended) }
    }

    async fn serve(
        setup: Setup,
        gate: Arc<Gate>,
    ) -> (Vec<Address>, oneshot::Sender<()>, JoinHandle<Shutdown>) {
        let mut listeners = setup.listeners;
        if listeners.is_empty() {
            listeners.push(Listen::Tcp { addr: ([127, 0, 0, 1], 0).into(), tls: None });
        }
        let config = ServerConfig {
            listeners,
            limits: setup.limits,
            metrics_access: setup.metrics_access,
            registry: prometheus_client::registry::Registry::default(),
            request_id_prefix: [9; 8],
            server_version: "1.2.3".to_owned(),
        };
        let server = Server::bind(config, gate).await.unwrap();
        let addresses = server.local_addrs();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(server.run(async {
            stopped.await.ok();
        }));
        (addresses, stop, ended)
    }

    /// The address of the first listener.
    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.addresses[0] {
            Address::Http(addr) | Address::Https(addr) => *addr,
            Address::Unix(_) => panic!("a unix socket has no port"),
        }
    }

    /// A connection with the administrator's token.
    pub(crate) async fn admin(&self) -> Client {
        self.anybody().await.with_token(&self.admin)
    }

    /// A connection without a token.
    pub(crate) async fn anybody(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// Asks the server to end.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Shutdown {
        self.ended.take().unwrap().await.unwrap()
    }
}

fn stranger() -> Write {
    let record = TokenRecord { principal: Principal::named("stranger"), created_at: Timestamp(0) };
    Write {
        path: RecordPath::token(&sha256(STRANGER.as_bytes())),
        expected: Expected::Absent,
        record: Some(Record::Token(record)),
    }
}
