//! The key service of a node's doors, in the same process.
//!
//! Room      the binary: `node::ports::KeyOps` by `service`.
//! Holds     The doors get no permit but by policy: they call under a name of their own, and what
//!           they do is audited as every other call. A sealed server is silence, no refusal.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::ids::{KeyRef, RequestId, VersionNo};
use lastkey_core::key::Key;
use lastkey_core::principal::{Caller, Principal, Source};
use lastkey_core::state::State;
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_node::ports::{Context, KeyError, KeyInUse, KeyOps};
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::engine::Engine;
use lastkey_service::error::Error;
use lastkey_service::ops::{decrypt, encrypt};
use lastkey_service::sealing::Gate;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

/// As whom the plugin calls; a policy has to let it.
pub(crate) const PLUGIN: &str = "system:kms-plugin";

/// An API server gives a plugin three seconds.
const BUDGET: Duration = Duration::from_millis(2_500);

/// The server of this process, while it runs.
#[derive(Clone, Default)]
pub(crate) struct EmbeddedKeys(Arc<RwLock<Option<Arc<Gate>>>>);

impl EmbeddedKeys {
    /// The server runs, sealed or not; or it runs no more, and its data directory is free.
    pub(crate) fn serve_by(&self, gate: Option<Arc<Gate>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    async fn ask<T, F>(&self, call: impl FnOnce(Arc<Engine>, Call) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let gate = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let gate = gate.ok_or_else(|| KeyError::Away("it does not run".into()))?;
        let engine = gate.engine().map_err(sorted)?;
        let call = call(engine, own_call()?);
        let silent = |_| KeyError::Away("no answer in time".into());
        timeout(BUDGET, call).await.map_err(silent)?.map_err(sorted)
    }
}

fn own_call() -> Result<Call, KeyError> {
    let mut request = [0; 16];
    SystemEntropy.fill(&mut request).map_err(|error| KeyError::Away(error.into()))?;
    let (principal, source) = (Principal::named(PLUGIN), Source::default());
    let caller = Caller { principal, source, request: RequestId(request) };
    Ok(Call { caller, dry_run: false })
}

/// What may pass is silence, what is final a refusal.
fn sorted(error: Error) -> KeyError {
    let refused = |error: &Error| KeyError::Refused {
        code: error.code().to_owned(),
        message: error.to_string(),
    };
    match error {
        Error::Sealed
        | Error::Unavailable(_)
        | Error::Internal(_)
        | Error::Throttled { .. }
        | Error::Conflict => KeyError::Away(error.into()),
        Error::Undecryptable => KeyError::Undecryptable,
        Error::Invalid { .. }
        | Error::PlaintextTooLarge
        | Error::Unauthenticated
        | Error::Denied
        | Error::KeyState { .. }
        | Error::SecretState { .. }
        | Error::NoRotation
        | Error::KeyUsage
        | Error::AlreadyExists
        | Error::LimitExceeded(_)
        | Error::DeletionProtected
        | Error::KeyNeeded { .. }
        | Error::ClockHeld
        | Error::SealRefused(_)
        | Error::Outside(_)
        | Error::DryRun => refused(&error),
    }
}

fn key_ref(key: &str) -> Result<KeyRef, Error> {
    Ok(KeyRef::parse(key)?)
}

fn context_of(context: &Context) -> Result<EncryptionContext, Error> {
    let pairs = context.iter().map(|(name, value)| (*name, value.as_str()));
    EncryptionContext::from_pairs(pairs)
        .map_err(|error| Error::Invalid { field: "context", problem: error.to_string().into() })
}

/// As the HTTP API writes it: a key id is made of it, and has to be the same everywhere.
fn written(at: Timestamp) -> Result<String, Error> {
    let moment = i64::try_from(at.0).ok();
    let moment = moment.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.ok_or_else(|| Error::Internal("a version was made at no time".into()))
}

fn in_use(key: &Key) -> Result<KeyInUse, KeyError> {
    let refused = |state: &str| KeyError::Refused {
        code: "KeyState".to_owned(),
        message: format!("the key is {state}"),
    };
    if key.destruction.is_some() {
        return Err(refused("to be destroyed"));
    }
    match (key.state, key.primary) {
        (State::Active, Some(version)) => Ok(KeyInUse {
            id: *key.id.as_bytes(),
            version: version.number(),
            activation: key.activation,
        }),
        (State::Active, None) => Err(KeyError::Away("a key without a version".into())),
        (State::PreActivation, _) => Err(refused("without material")),
        (State::Suspended, _) => Err(refused("disabled")),
        (State::Deactivated, _) => Err(refused("retired")),
        (State::Compromised, _) => Err(refused("compromised")),
        (State::Destroyed, _) => Err(refused("destroyed")),
    }
}

#[async_trait]
impl KeyOps for EmbeddedKeys {
    async fn key_in_use(&self, key: &str) -> Result<KeyInUse, KeyError> {
        let describe =
            async |engine: Arc<Engine>, call: Call| engine.describe_key(&call, key_ref(key)?).await;
        in_use(&self.ask(describe).await?.key)
    }

    async fn version_made_at(&self, key: &str, version: u32) -> Result<String, KeyError> {
        let describe = async |engine: Arc<Engine>, call: Call| {
            let version = VersionNo::new(version).ok_or(Error::Denied)?;
            let view = engine.describe_version(&call, key_ref(key)?, version).await?;
            written(view.version.created_at)
        };
        self.ask(describe).await
    }

    async fn wrap(
        &self,
        key: &str,
        local: &SecretVec,
        context: &Context,
    ) -> Result<Vec<u8>, KeyError> {
        let encrypt = async |engine: Arc<Engine>, call: Call| {
            let plaintext = local.expose(SecretVec::copy_of);
            let (key, context) = (key_ref(key)?, context_of(context)?);
            engine.encrypt(&call, encrypt::Request { key, plaintext, context }).await
        };
        Ok(self.ask(encrypt).await?.ciphertext)
    }

    async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        let decrypt = async |engine: Arc<Engine>, call: Call| {
            let (ciphertext, context) = (wrapped.to_vec(), context_of(context)?);
            let request = decrypt::Request { ciphertext, context, key: None, version: None };
            engine.decrypt(&call, request).await
        };
        Ok(self.ask(decrypt).await?.plaintext)
    }
}
