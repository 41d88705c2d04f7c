//! PostgreSQL: accounts and their passwords.
//!
//! Room      `connect`, inside.
//! Source    PostgreSQL 15, reference of ALTER ROLE; RFC 5803 as
//!           PostgreSQL writes it (`SCRAM-SHA-256$...`).
//! Holds     what cannot be a parameter is quoted by the driver. The server is sent the verifier of
//!           a password, never the password. No statement waits for a lock until it is forgotten.

use std::io;

use lastkey_core::database::{Endpoint, Login};
use lastkey_core::outside::DatabaseError;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::address::{Address, Place};
use super::refused;
use super::scram::ScramOnly;
use super::tls::Tls;
use crate::guard::{Guard, Trust};

/// A connection, logged in. Closes when it is dropped.
pub(super) struct Session {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub(super) async fn open(
        guard: &Guard,
        at: Endpoint<'_>,
        login: Login<'_>,
    ) -> Result<Self, DatabaseError> {
        let address = Address::parse(at.address)?;
        let mut config = Config::new();
        config.user(login.account).dbname(&address.name).application_name("lastkey");
        login.password.expose(|password| {
            config.password(password);
        });
        match &address.place {
            Place::Socket(path) => {
                let reached = UnixStream::connect(path).await;
                let away = |error| DatabaseError::Away(format!("{}: {error}", path.display()));
                config.ssl_mode(SslMode::Disable);
                let stream = ScramOnly::over(reached.map_err(away)?);
                Self::start(&config, stream, NoTls, login.account).await
            }
            Place::Host(host, port) => {
                let trust = Trust::from(at.authority);
                let reached = guard.dial(host, *port, &trust).await;
                let (stream, tls) = reached.map_err(|error| refused(&error))?;
                if let Some((connector, name)) = tls {
                    config.ssl_mode(SslMode::Require);
                    let tls = Tls { connector, name };
                    Self::start(&config, stream, tls, login.account).await
                } else {
                    config.ssl_mode(SslMode::Disable);
                    Self::start(&config, ScramOnly::over(stream), NoTls, login.account).await
                }
            }
        }
    }

    async fn start<S, T>(
        config: &Config,
        stream: S,
        tls: T,
        account: &str,
    ) -> Result<Self, DatabaseError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S> + Send,
        T::Stream: Send + 'static,
    {
        let connected = config.connect_raw(stream, tls).await;
        let (client, connection) = connected.map_err(|error| failed(&error, account))?;
        // What goes wrong on the connection is told by the answer that does not come.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { client, driver })
    }

    async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        // Sooner than the deadline: what is given up here is not to be done later.
        let sql = format!("SET lock_timeout = '5s'; {sql}");
        self.client.batch_execute(&sql).await.map_err(|error| failed(&error, ""))
    }

    /// Gives an account a password, and lets it log in.
    pub(super) async fn set_password(&self, account: Login<'_>) -> Result<(), DatabaseError> {
        let (name, verifier) = (escape_identifier(account.account), verifier(account));
        self.run(&format!("ALTER ROLE {name} LOGIN PASSWORD {verifier}")).await
    }

    /// Lets an account log in no more.
    pub(super) async fn lock(&self, account: &str) -> Result<(), DatabaseError> {
        self.run(&locking(account)).await
    }
}

/// What ends the logins of an account.
fn locking(account: &str) -> String {
    format!("ALTER ROLE {} NOLOGIN PASSWORD NULL", escape_identifier(account))
}

/// What the server keeps of a password, quoted.
fn verifier(login: Login<'_>) -> String {
    escape_literal(&login.password.expose(scram_sha_256))
}

/// What the server or the connection said, for people: never the statement.
fn failed(error: &Error, account: &str) -> DatabaseError {
    let Some(said) = error.as_db_error() else {
        return undone(error);
    };
    // No other code says that the password is wrong: 28000 is a rule of pg_hba.conf, or NOLOGIN.
    if !account.is_empty() && *said.code() == SqlState::INVALID_PASSWORD {
        return DatabaseError::Login(account.to_owned());
    }
    DatabaseError::Refused(format!("{} ({})", said.message(), said.code().code()))
}

/// What came of a conversation in which the server said nothing.
fn undone(error: &Error) -> DatabaseError {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    match cause.map(|cause: &io::Error| (cause.kind(), cause)) {
        Some((io::ErrorKind::PermissionDenied, cause)) => DatabaseError::Refused(cause.to_string()),
        Some(_) | None => DatabaseError::Away(chain(error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let links = std::iter::successors(Some(error), |error| error.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2026-39946.
    #[test]
    fn attack_unquoted_identifier_in_the_statement_of_a_revocation() {
        let statement = locking("a\"; DROP ROLE admin; --");
        let quoted = "ALTER ROLE \"a\"\"; DROP ROLE admin; --\" NOLOGIN PASSWORD NULL";
        assert_eq!(statement, quoted);
    }
}
