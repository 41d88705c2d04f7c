//! The service of the provider of secrets, over the network.
//!
//! Room      the binary: `node::ports::SecretOps` by `client`.
//! Holds     Every read is in the name of one pod, by its own session, over the connection of the
//!           node: without the node's certificate that session is worth nothing. A service in an
//!           older state than was known is as good as away: its values and its rights are old.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_client::{Client, Error, SecretVec};
use lastkey_node::ports::{
    Holder, News, PodSession, Question, ReadSecret, ReadValue, SecretError, SecretOps, Which,
};
use lastkey_wire::native::secrets::{
    SecretHolder, SecretValueQuery, SecretValueReply, SeenSecret, WatchSecretsRequest,
};
use tokio::time::Instant;

use super::servers::{Access, Limits, Needs, NoAnswer, Servers, token_request};

/// A driver waits two minutes for a volume; most need two such calls, one after the other.
const LIMITS: Limits = Limits { budget: Duration::from_secs(15), attempt: Duration::from_secs(5) };

/// As long as a server lets a watch wait.
const WAIT_SECONDS: u32 = 20;
/// A watch waits, so another server is asked only when one is certainly lost.
const WATCH_LIMITS: Limits =
    Limits { budget: Duration::from_secs(60), attempt: Duration::from_secs(30) };

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

    async fn ask<T, F>(&self, limits: Limits, call: impl Fn(Client) -> F) -> Result<T, SecretError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.0.ask(limits, Needs::Continuity, call).await.map_err(|error| match error {
            NoAnswer::Away(cause) => SecretError::Away(cause),
            NoAnswer::RolledBack(message) => SecretError::Away(message.into()),
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
        self.ask(LIMITS, async |client: Client| call(client.with_token(&session.bearer)?).await)
            .await
    }
}

impl RemoteSecrets {
    /// The account that a pod has by a role of a database.
    async fn account(&self, session: &PodSession, role: &str) -> Result<ReadSecret, SecretError> {
        let ask = |client: Client| async move { client.database_credentials(role).await };
        let reply = self.ask_as(session, ask).await?;
        let text = |text: &str| SecretVec::copy_of(text.as_bytes());
        let fields = [
            ("username".to_owned(), text(&reply.lease.username)),
            ("password".to_owned(), reply.password.0),
            ("address".to_owned(), text(&reply.address)),
        ];
        // An account that was ended and made again has the same name and another password.
        let made_at = format!("{} {}", reply.lease.created_at, reply.lease.id);
        let ask_after = Some(Duration::from_secs(reply.lease.renew_in));
        Ok(ReadSecret { version: 1, made_at, value: ReadValue::Fields(fields.into()), ask_after })
    }
}

#[async_trait]
impl SecretOps for RemoteSecrets {
    async fn open_session(&self, token: &SecretVec, role: &str) -> Result<PodSession, SecretError> {
        let (request, asked_at) = (&token_request(token, role, None), Instant::now());
        let exchange = |client: Client| async move { client.exchange_token(request).await };
        let reply = self.ask(LIMITS, exchange).await?;
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
            Which::Account => return self.account(session, name).await,
        };
        let query = &query;
        let read = |client: Client| async move { client.get_secret(name, query).await };
        read_of(self.ask_as(session, read).await?)
    }

    async fn watch(&self, question: &Question) -> Result<News, SecretError> {
        let seen = question.seen.iter().cloned();
        let request = WatchSecretsRequest {
            secrets: seen.map(|(name, version)| SeenSecret { name, version }).collect(),
            wait_seconds: Some(WAIT_SECONDS),
            holders_digest: question.holders_digest.clone(),
            holders: question.holders.as_ref().map(|all| all.iter().map(holder_of).collect()),
            holders_incomplete: question.holders_incomplete,
        };
        let request = &request;
        let ask = |client: Client| async move { client.watch_secrets(request).await };
        let reply = self.ask(WATCH_LIMITS, ask).await?;
        let changed = reply.changed.into_iter().map(|one| (one.name, one.version));
        Ok(News { changed: changed.collect(), holders_wanted: reply.holders_wanted })
    }
}

fn holder_of(holder: &Holder) -> SecretHolder {
    SecretHolder {
        secret: holder.secret.clone(),
        version: holder.version,
        namespace: holder.namespace.clone(),
        service_account: holder.service_account.clone(),
        pod: holder.pod.clone(),
        pod_uid: holder.pod_uid.clone(),
        given_in_outage: holder.given_in_outage,
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
    Ok(ReadSecret { version: reply.version, made_at: reply.created_at, value, ask_after: None })
}
