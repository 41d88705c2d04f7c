//! A service over fakes, and short words for what tests do with it.

use std::sync::{Arc, LazyLock};

use lastkey_core::ids::{AliasName, KeyRef, RequestId};
use lastkey_core::key::{Description, KeyUsage, Tags};
use lastkey_core::outside::{Clusters, Issuers, Nobody};
use lastkey_core::ports::EntropySource;
use lastkey_core::principal::{Caller, Principal, Source};
use lastkey_core::time::{Reading, Timestamp};
use lastkey_core::version::Origin;
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::call::Call;
use lastkey_service::engine::{Engine, Ports};
use lastkey_service::error::Error;
use lastkey_service::ops;
use lastkey_service::sealing::{Gate, NewSeal, initialise};
use lastkey_service::view::KeyView;
use lastkey_testkit::clock::FixedClock;
use lastkey_testkit::fakes::{
    FakeBackups, FakeClaims, FakeDatabases, FakeSealedStore, FakeStore, FakeWebhooks, MemoryAudit,
};

struct RealEntropy;

impl EntropySource for RealEntropy {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}

/// A service and the fakes behind it.
pub(crate) struct World {
    pub(crate) gate: Arc<Gate>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) audit: Arc<MemoryAudit>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) token: SecretVec,
    pub(crate) enrolment_code: SecretVec,
    pub(crate) store: Arc<FakeSealedStore>,
    pub(crate) ports: Ports,
    pub(crate) backups: Arc<FakeBackups>,
    pub(crate) databases: Arc<FakeDatabases>,
    pub(crate) webhooks: Arc<FakeWebhooks>,
}

pub(crate) const KEYFILE: [u8; 32] = [9; 32];

/// An initialised and unsealed service.
pub(crate) async fn world() -> World {
    world_asking(Arc::new(Nobody)).await
}

/// The same, which asks these issuers for keys.
pub(crate) async fn world_asking(issuers: Arc<dyn Issuers>) -> World {
    world_among(issuers, Arc::new(Nobody)).await
}

/// The same among these clusters.
pub(crate) async fn world_among(issuers: Arc<dyn Issuers>, clusters: Arc<dyn Clusters>) -> World {
    let audit = Arc::new(MemoryAudit::default());
    let reading = Reading { wall: Timestamp(1_800_000_000), since_boot: 1_000, boot: [3; 16] };
    let clock = Arc::new(FixedClock::at(reading));
    let (databases, webhooks) =
        (Arc::new(FakeDatabases::default()), Arc::new(FakeWebhooks::default()));
    let ports = Ports {
        audit: audit.clone(),
        clock: clock.clone(),
        entropy: Arc::new(RealEntropy),
        issuers,
        clusters,
        databases: databases.clone(),
        webhooks: webhooks.clone(),
        claims: Arc::new(FakeClaims),
    };
    let store = Arc::new(FakeSealedStore::over(FakeStore::default()));
    let seal = NewSeal::Keyfile(SecretArray::copy_of(&KEYFILE));
    let founded = initialise(&*store, &ports, &seal).await.unwrap();
    let backups = Arc::new(FakeBackups::of(store.clone()));
    let gate = Gate::new(store.clone(), ports.clone(), 100).with_backups(backups.clone());
    let gate = Arc::new(gate);
    gate.unseal(RequestId([1; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
    let engine = gate.engine().unwrap();
    let (token, enrolment_code) = (founded.admin_token, founded.enrolment_code);
    World {
        gate,
        engine,
        audit,
        clock,
        token,
        enrolment_code,
        store,
        ports,
        backups,
        databases,
        webhooks,
    }
}

/// A call by somebody.
pub(crate) fn call_by(name: &str) -> Call {
    let caller = Caller {
        principal: Principal::named(name),
        source: Source::default(),
        request: RequestId([5; 16]),
    };
    Call { caller, dry_run: false }
}

/// A call by the administrator.
pub(crate) fn admin() -> &'static Call {
    static ADMIN: LazyLock<Call> = LazyLock::new(|| call_by(Principal::ADMIN));
    &ADMIN
}

pub(crate) fn alias(name: &str) -> KeyRef {
    KeyRef::Alias(AliasName::parse(name).unwrap())
}

pub(crate) fn none() -> EncryptionContext {
    EncryptionContext::none()
}

pub(crate) fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
}

pub(crate) fn request(spec: MaterialSpec) -> ops::create_key::Request {
    ops::create_key::Request {
        spec,
        usage: None,
        origin: Origin::Generated,
        alias: None,
        description: Description::default(),
        tags: Tags::default(),
        deletion_protection: false,
        rotation: None,
    }
}

impl World {
    /// Unseals after a seal or a stop. The old engine goes first: the gate waits for that.
    pub(crate) async fn unseal_again(self) -> Self {
        drop(self.engine);
        let secret = SecretVec::copy_of(&KEYFILE);
        self.gate.unseal(RequestId([2; 16]), secret).await.unwrap();
        let engine = self.gate.engine().unwrap();
        Self { engine, ..self }
    }

    pub(crate) async fn create(&self, spec: MaterialSpec) -> KeyRef {
        self.create_as(request(spec)).await.key_ref()
    }

    pub(crate) async fn create_for(&self, spec: MaterialSpec, usage: KeyUsage) -> KeyRef {
        let request = ops::create_key::Request { usage: Some(usage), ..request(spec) };
        self.create_as(request).await.key_ref()
    }

    pub(crate) async fn create_as(&self, request: ops::create_key::Request) -> KeyView {
        self.engine.create_key(admin(), request).await.unwrap()
    }

    pub(crate) async fn encrypt(&self, key: &KeyRef, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.encrypt_in(key, plaintext, none()).await
    }

    pub(crate) async fn encrypt_in(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        context: EncryptionContext,
    ) -> Result<Vec<u8>, Error> {
        let plaintext = SecretVec::copy_of(plaintext);
        let request = ops::encrypt::Request { key: key.clone(), plaintext, context };
        self.engine.encrypt(admin(), request).await.map(|reply| reply.ciphertext)
    }

    pub(crate) async fn decrypt(&self, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        self.decrypt_in(ciphertext, none()).await
    }

    pub(crate) async fn decrypt_in(
        &self,
        ciphertext: &[u8],
        context: EncryptionContext,
    ) -> Result<Vec<u8>, Error> {
        let request = ops::decrypt::Request {
            ciphertext: ciphertext.to_vec(),
            context,
            key: None,
            version: None,
        };
        let reply = self.engine.decrypt(admin(), request).await?;
        Ok(reply.plaintext.expose(<[u8]>::to_vec))
    }

    pub(crate) async fn show(&self, key: &KeyRef) -> KeyView {
        self.engine.describe_key(admin(), key.clone()).await.unwrap()
    }
}

pub(crate) trait Named {
    fn key_ref(&self) -> KeyRef;
}

impl Named for KeyView {
    fn key_ref(&self) -> KeyRef {
        KeyRef::Id(self.key.id)
    }
}

/// The stable code of a failure; panics on success.
pub(crate) fn code<T>(outcome: Result<T, Error>) -> &'static str {
    match outcome {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.code(),
    }
}
