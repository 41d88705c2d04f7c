//! The unsealed service: its parts, and what every operation does first.
//!
//! Room      `service`. The operations are in `ops`, one file each.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use lastkey_core::ids::{InstanceId, KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::leak::Claims;
use lastkey_core::outside::{Clusters, Databases, Issuers, Webhooks};
use lastkey_core::permit::{Action, ExplainDecision, Facts, KeyFacts, Permit, Resource, authorize};
use lastkey_core::ports::{Audit, Clock, EntropySource, SealedStore, Store};
use lastkey_core::principal::{Caller, Principal};
use lastkey_core::state::{Purpose, State};
use lastkey_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use crate::access::{Access, Current, Nodes, SessionKeys};
use crate::attempts::{Attempts, AttemptsOfCallers, AttemptsOfPeople, Pace, Visitors};
use crate::audited::Trail;
use crate::call::Call;
use crate::clock::ServiceClock;
use crate::custody::Custody;
use crate::error::Error;
use crate::holders::Holders;
use crate::keyring::{CacheOfIds, Keyring, LoadedKey, Opened, cache_of_ids};
use crate::ops::databases::RootTurns;
use crate::ops::fetch_keys::Fetches;
use crate::ops::leases::Leases;
use crate::ops::secrets::{NODES_AT_ONCE, Turns, WATCHES_AT_ONCE};
use crate::people::STRETCHED_AT_ONCE;
use crate::root::MaterialKeys;
use crate::seal_book::Book;
use crate::seats::Seats;

/// The world as use cases see it, the store aside.
#[derive(Clone)]
pub struct Ports {
    /// The audit log.
    pub audit: Arc<dyn Audit>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn EntropySource>,
    /// What issuers publish.
    pub issuers: Arc<dyn Issuers>,
    /// What clusters say of their pods.
    pub clusters: Arc<dyn Clusters>,
    /// Databases whose accounts are managed.
    pub databases: Arc<dyn Databases>,
    /// Programs that rotate secrets.
    pub webhooks: Arc<dyn Webhooks>,
    /// Judges what scanners claim to have seen.
    pub claims: Arc<dyn Claims>,
}

/// What an unseal gives an engine.
pub(crate) struct Keys {
    /// The installation.
    pub(crate) instance: InstanceId,
    /// For key material.
    pub(crate) materials: MaterialKeys,
    /// For changes of the seals.
    pub(crate) custody: Custody,
    /// Where they are kept.
    pub(crate) sealed_store: Arc<dyn SealedStore>,
}

/// The unsealed service.
pub struct Engine {
    pub(crate) ports: Ports,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: ServiceClock,
    pub(crate) keyring: Keyring,
    /// Who may come in, and as what.
    pub(crate) access: Current,
    /// Held while that is changed.
    pub(crate) access_changes: tokio::sync::Mutex<()>,
    pub(crate) sessions: SessionKeys,
    /// What people tried, and how often.
    pub(crate) attempts: AttemptsOfPeople,
    /// What those who are not known were refused or told.
    pub(crate) visitors: Visitors,
    /// What callers claim to have seen, and how often.
    pub(crate) claimed: AttemptsOfCallers,
    /// Credentials that were to be burned and are none of ours.
    pub(crate) burns: Mutex<Attempts>,
    /// A permit for each password that is stretched.
    pub(crate) stretching: Semaphore,
    /// For watches of secrets.
    pub(crate) watches: Seats,
    /// Which secrets are being rotated.
    pub(crate) turns: Turns,
    /// Whose root accounts are being used.
    pub(crate) root_turns: RootTurns,
    /// Whose accounts of databases are being worked on.
    pub(crate) leases: Leases,
    /// The same for agents of nodes, of whom each needs one all the time.
    pub(crate) node_watches: Seats,
    /// Who holds which version of a secret.
    pub(crate) holders: Holders,
    /// Becomes true when the gate lets go of the engine: nobody waits any longer then.
    pub(crate) retiring: watch::Sender<bool>,
    pub(crate) nodes: Nodes,
    /// When issuers were asked for their keys.
    pub(crate) fetches: Fetches,
    pub(crate) instance: InstanceId,
    /// Longest value of a secret, in bytes.
    pub(crate) secret_len: usize,
    pub(crate) principals: CacheOfIds<[u8; 32], Principal>,
    /// Service time before which the journals are not rewritten again, after it has failed.
    pub(crate) rewrite_not_before: AtomicU64,
    /// Held from the check of a change of the seals until its new seal is proven.
    pub(crate) seal_changes: tokio::sync::Mutex<()>,
    /// Held while the seals or the keyring change.
    pub(crate) custody: tokio::sync::Mutex<Custody>,
    pub(crate) sealed_store: Arc<dyn SealedStore>,
    /// Tells that records are to be renewed.
    pub(crate) epoch_began: Notify,
    /// What is remembered of the seals.
    pub(crate) seal_book: Book,
    /// Dropped with the engine, which is how the gate knows that it is gone.
    _gone: oneshot::Sender<()>,
}

impl Engine {
    /// Tokens whose principal is remembered.
    const REMEMBERED_TOKENS: usize = 1_024;

    /// Puts the unsealed service together.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`] when the clock cannot be read or written.
    pub(crate) async fn start(
        ports: Ports,
        store: Arc<dyn Store>,
        Keys { instance, materials, custody, sealed_store }: Keys,
        (open_keys, secret_len): (usize, usize),
        gone: oneshot::Sender<()>,
    ) -> Result<Self, Error> {
        let clock = ServiceClock::resume(Arc::clone(&ports.clock), &*store).await?;
        let access = Current::new(Access::load(&*store, None).await?);
        let sessions = SessionKeys::load(&*store, &materials).await?;
        let nodes = Nodes::load(&*store).await?;
        let seal_book = Book::load(&*store).await?;
        let keyring = Keyring::new(materials, open_keys);
        let principals = cache_of_ids(Self::REMEMBERED_TOKENS);
        let holders = Holders::none(clock.wall());
        let rewrite_not_before = AtomicU64::new(0);
        let engine = Self {
            ports,
            store,
            clock,
            keyring,
            access,
            access_changes: tokio::sync::Mutex::default(),
            sessions,
            attempts: AttemptsOfPeople::none(),
            visitors: Visitors::none(),
            claimed: AttemptsOfCallers::none(),
            burns: Mutex::new(Attempts::full(Pace::BURN)),
            stretching: Semaphore::new(STRETCHED_AT_ONCE),
            watches: Seats::new(WATCHES_AT_ONCE),
            turns: Turns::default(),
            root_turns: RootTurns::default(),
            leases: Leases::default(),
            node_watches: Seats::new(NODES_AT_ONCE),
            holders,
            retiring: watch::Sender::new(false),
            nodes,
            fetches: Fetches::default(),
            instance,
            secret_len,
            principals,
            rewrite_not_before,
            seal_changes: tokio::sync::Mutex::default(),
            custody: tokio::sync::Mutex::new(custody),
            sealed_store,
            epoch_began: Notify::new(),
            seal_book,
            _gone: gone,
        };
        engine.turn_sessions().await?;
        Ok(engine)
    }

    /// The wall clock, as use cases read it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Whether the caller may learn why a call is allowed or refused.
    #[must_use]
    pub fn may_explain(&self, call: &Call) -> bool {
        self.may::<ExplainDecision>(call, Resource::Instance)
    }

    /// Whether the caller may do this: before something is done that is none of the records.
    pub(crate) fn may<A: Action>(&self, call: &Call, resource: Resource) -> bool {
        let Caller { principal, source, .. } = &call.caller;
        let facts = Facts { now: self.clock.wall(), source: *source, ..Facts::default() };
        authorize::<A>(&*self.access.get(), principal, resource, &facts).is_ok()
    }

    /// Asks policy about a resource, and notes the reason of a refusal in the trail.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn permit<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        resource: Resource,
    ) -> Result<Permit<A>, Error> {
        self.permit_knowing(trail, resource, None)
    }

    /// As [`Engine::permit`], with what policy may know of the resource.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn permit_knowing<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        resource: Resource,
        key: Option<KeyFacts<'_>>,
    ) -> Result<Permit<A>, Error> {
        let Caller { principal, source, .. } = &trail.call().caller;
        let facts = Facts { now: trail.at(), source: *source, context: trail.context, key };
        let asked = authorize::<A>(&*self.access.get(), principal, resource, &facts);
        trail.reason = match &asked {
            Ok(permit) => permit.why().clone(),
            Err(denied) => denied.why.clone(),
        };
        asked.map_err(Error::from)
    }

    /// Finds a key by any of its names and asks policy about it.
    ///
    /// # Errors
    /// [`Error::Denied`] when there is no such key or policy says no; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn permit_key<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
    ) -> Result<Permit<A>, Error> {
        let id = match name {
            KeyRef::Id(id) => Some(*id),
            KeyRef::Alias(alias) => self.alias_target(alias).await?,
        };
        let Some(id) = id else {
            trail.reason = "no such alias".into();
            return Err(Error::Denied);
        };
        self.permit_key_id(trail, id).await
    }

    /// As [`Engine::permit_key`], for a key of this id.
    ///
    /// # Errors
    /// As [`Engine::permit_key`].
    pub(crate) async fn permit_key_id<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        id: KeyId,
    ) -> Result<Permit<A>, Error> {
        trail.key = Some(id);
        let known = self.known_key(id).await?;
        let facts = known.as_ref().map(|known| known.key.facts());
        let permit = self.permit_knowing(trail, Resource::Key(id), facts);
        trail.known = known;
        permit
    }

    /// The key of a permit.
    ///
    /// # Errors
    /// [`Error::Denied`] when there is none; [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn load_key<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        permit: &Permit<A>,
    ) -> Result<Arc<LoadedKey>, Error> {
        let Resource::Key(id) = *permit.resource() else {
            return Err(Error::Denied);
        };
        let known = match &trail.known {
            Some(known) if known.key.id == id => Some(Arc::clone(known)),
            Some(_) | None => self.known_key(id).await?,
        };
        known.ok_or_else(|| {
            trail.reason = "no such key".into();
            Error::Denied
        })
    }

    /// Opens a version of a loaded key for a use, and counts the use. Both tables of states are
    /// asked: that of the key and that of the version.
    ///
    /// # Errors
    /// [`Error::KeyUsage`], [`Error::KeyState`]; [`Error::Denied`] for a version that there is
    /// not; [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn open_for_use<'a>(
        &self,
        trail: &mut Trail<'_>,
        loaded: &'a LoadedKey,
        use_of: KeyUse,
    ) -> Result<Opened<'a>, Error> {
        if loaded.key.usage != use_of.usage {
            return Err(Error::KeyUsage);
        }
        let phase = loaded.key.phase();
        if !phase.permits(use_of.purpose) {
            return Err(if phase.destruction_scheduled {
                Error::KeyState { state: "pending deletion" }
            } else {
                Error::state(phase.state)
            });
        }
        let Some(number) = use_of.version.or(loaded.key.primary) else {
            return Err(Error::state(State::PreActivation));
        };
        trail.version = Some(number);
        let Some(open) = self.open_version(loaded, number).await? else {
            trail.reason = "no such version".into();
            return Err(Error::Denied);
        };
        if !open.state.permits(use_of.purpose) {
            if open.state == State::Suspended {
                open.usage.refuse();
                trail.reason = "the version is shadow-disabled".into();
            }
            return Err(Error::state(open.state));
        }
        trail.call().go_on()?;
        open.usage.count(use_of.purpose, trail.at());
        Ok(open)
    }

    /// A fresh random key id.
    ///
    /// # Errors
    /// [`Error::Internal`] when no randomness can be had.
    pub(crate) fn draw_key_id(&self) -> Result<KeyId, Error> {
        let mut entropy = self.ports.entropy.open();
        let random = crate::root::draw_id(&mut *entropy);
        random.map(KeyId::from_random).map_err(|error| Error::Internal(error.into()))
    }
}

/// How a key is to be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyUse {
    /// The usage that the key must have.
    pub(crate) usage: KeyUsage,
    /// Whether data is protected or processed.
    pub(crate) purpose: Purpose,
    /// The version; `None` for the primary one.
    pub(crate) version: Option<VersionNo>,
}

impl KeyUse {
    /// A use of the primary version, or of the one that is named.
    pub(crate) const fn of(usage: KeyUsage, purpose: Purpose, version: Option<VersionNo>) -> Self {
        Self { usage, purpose, version }
    }
}
