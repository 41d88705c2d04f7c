//! The service of the provider of secrets, over the network.
//!
//! Room      the binary: `node::ports::SecretOps` by `client`.
//! Holds     Every read is in the name of one pod, by its own session, over the connection of the
//!           node: without the node's certificate that session is worth nothing.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_client::{Client, Error, SecretVec};
use lastkey_node::ports::{PodSession, ReadSecret, ReadValue, SecretError, SecretOps, Which};
use lastkey_wire::SecretText;
use lastkey_wire::native::secrets::{SecretValueQuery, SecretValueReply};
use lastkey_wire::native::sessions::TokenRequest;
use tokio::time::Instant;

use super::servers::{Access, Limits, NoAnswer, Servers};

/// A driver waits two minutes for a volume; most need two such calls, one after the other.
const LIMITS: Limits = Limits { budget: Duration::from_secs(15), attempt: Duration::from_secs(5) };

/// Servers that hold the same secrets.
#[derive(Debug)]
pub(crate) struct RemoteSecrets(Servers);

impl RemoteSecrets {
    /// Prepares the clients; connects at the first call.
    ///
    /// # Errors
    /// When a credential cannot be read or used.
    pub(crate) fn new(access: Access) -> anyhow::Result<Self> {
        Servers::new(access).map(Self)
    }

    async fn ask<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, SecretError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.0.ask(LIMITS, call).await.map_err(|error| match error {
            NoAnswer::Away(cause) => SecretError::Away(cause),
            NoAnswer::Refused(code, message) => SecretError::Refused { code, message },
        })
    }

    /// The same in the name of a pod.
    async fn ask_as<T, F>(
        &self,
        session: &PodSession,
        call: impl Fn(Client) -> F,
    ) -> Result<T, SecretError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let call = &call;
        self.ask(async |client: Client| call(client.with_token(&session.bearer)?).await).await
    }
}

#[async_trait]
impl SecretOps for RemoteSecrets {
    async fn open_session(&self, token: &SecretVec, role: &str) -> Result<PodSession, SecretError> {
        let request = TokenRequest {
            subject_token: SecretText(token.expose(SecretVec::copy_of)),
            role: role.to_owned(),
            grant_type: None,
            subject_token_type: None,
            duration_seconds: None,
            policy: None,
            nonce: None,
        };
        let (request, asked_at) = (&request, Instant::now());
        let reply = self.ask(|client| async move { client.exchange_token(request).await }).await?;
        let ends_at = asked_at + Duration::from_secs(reply.expires_in);
        Ok(PodSession { bearer: reply.access_token.0, ends_at })
    }

    async fn read(
        &self,
        session: &PodSession,
        name: &str,
        which: &Which,
    ) -> Result<ReadSecret, SecretError> {
        let query = match which {
            Which::Stage(stage) => {
                SecretValueQuery { stage: Some(stage.clone()), ..SecretValueQuery::default() }
            }
            Which::Number(number) => {
                SecretValueQuery { version: Some(*number), ..SecretValueQuery::default() }
            }
        };
        let query = &query;
        let read = |client: Client| async move { client.get_secret(name, query).await };
        read_of(self.ask_as(session, read).await?)
    }
}

fn read_of(reply: SecretValueReply) -> Result<ReadSecret, SecretError> {
    let value = match (reply.value, reply.fields) {
        (Some(value), None) => ReadValue::Opaque(value.0),
        (None, Some(fields)) => {
            let fields = fields.into_iter().map(|(name, value)| (name, value.0));
            ReadValue::Fields(fields.collect())
        }
        (_, _) => return Err(SecretError::Away("a value that is none".into())),
    };
    Ok(ReadSecret { version: reply.version, made_at: reply.created_at, value })
}
