//! The key service of the KMS plugin, over the network.
//!
//! Room      the binary: `node::ports::KeyOps` by `client`.
//! Holds     A call ends within 2.5 seconds, failover included.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_client::{Client, Error, SecretVec};
use lastkey_core::ids::KeyId;
use lastkey_node::ports::{Context, KeyError, KeyInUse, KeyOps};
use lastkey_wire::native::operations::{DecryptRequest, EncryptRequest};
use lastkey_wire::words::KeyState;
use lastkey_wire::{Base64Bytes, SecretBase64, StringMap};

use super::servers::{Access, Limits, Needs, NoAnswer, Servers, token_request};

/// An API server gives a plugin three seconds. A server that is silent for one of them leaves time
/// to ask another one.
const LIMITS: Limits =
    Limits { budget: Duration::from_millis(2_500), attempt: Duration::from_millis(1_000) };

/// As short as a session can be: it is used once.
const SESSION_SECONDS: u64 = 60;

/// Servers that hold the same keys.
#[derive(Debug)]
pub(crate) struct RemoteKeys(Servers);

impl RemoteKeys {
    /// Prepares the clients; connects at the first call.
    ///
    /// # Errors
    /// When a credential cannot be read or used.
    pub(crate) fn new(access: Access) -> anyhow::Result<Self> {
        Servers::new(access).map(Self)
    }

    /// The node certificate to renew, when there is one, and when: so many seconds before its end.
    pub(crate) fn renewal(&self) -> Option<(PathBuf, u64)> {
        self.0.renewal()
    }

    /// Has the node certificate in `file` followed by the next one.
    ///
    /// # Errors
    /// When no server signs it, or the file cannot be written.
    pub(crate) async fn renew_identity(&self, file: &Path) -> anyhow::Result<()> {
        self.0.renew_identity(file).await
    }

    /// Asks servers whose state continues the one that was known.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ask_for(Needs::Continuity, call).await
    }

    async fn ask_for<T, F>(&self, needs: Needs, call: impl Fn(Client) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ask_as(needs, call).await.map_err(|error| match error {
            // Not a word about the key: the server does not know who asks.
            KeyError::Refused { code, message } if code == "Unauthenticated" => {
                KeyError::Away(format!("it refuses the credential: {message}").into())
            }
            error @ (KeyError::Away(_)
            | KeyError::Refused { .. }
            | KeyError::RolledBack { .. }
            | KeyError::Undecryptable) => error,
        })
    }

    /// The same in the name of somebody else, whose credential it is that is refused.
    async fn ask_as<T, F>(&self, needs: Needs, call: impl Fn(Client) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.0.ask(LIMITS, needs, call).await.map_err(|error| match error {
            NoAnswer::Away(cause) => KeyError::Away(cause),
            NoAnswer::RolledBack(message) => KeyError::RolledBack { message },
            NoAnswer::Refused(code, _) if code == "Undecryptable" => KeyError::Undecryptable,
            NoAnswer::Refused(code, message) => KeyError::Refused { code, message },
        })
    }

    /// Opens a session for the holder of a token, over the connection of this node: the credential.
    pub(super) async fn open_session(
        &self,
        token: &SecretVec,
        role: &str,
    ) -> Result<SecretVec, KeyError> {
        let request = &token_request(token, role, Some(SESSION_SECONDS));
        let exchange = |client: Client| async move { client.exchange_token(request).await };
        Ok(self.ask_as(Needs::Answer, exchange).await?.access_token.0)
    }

    /// Recovers a secret in such a session.
    pub(super) async fn unwrap_in(
        &self,
        session: &SecretVec,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<SecretVec, KeyError> {
        let request = &decrypt_request(wrapped, context);
        let decrypt = async |client: Client| client.with_token(session)?.decrypt(request).await;
        Ok(self.ask_as(Needs::Answer, decrypt).await?.plaintext.0)
    }
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
        let request = &decrypt_request(wrapped, context);
        let ask = |client: Client| async move { client.decrypt(request).await };
        // What is there stays readable: without it nobody could look after the rest.
        let reply = self.ask_for(Needs::Answer, ask).await?;
        Ok(reply.plaintext.0)
    }
}

fn decrypt_request(wrapped: &[u8], context: &Context) -> DecryptRequest {
    DecryptRequest {
        ciphertext: Base64Bytes(wrapped.to_vec()),
        context: Some(map_of(context)),
        context_raw: None,
        key: None,
        version: None,
        dry_run: false,
    }
}

fn map_of(context: &Context) -> StringMap {
    context.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
