//! PostgreSQL: accounts and their passwords.
//!
//! Room      `connect`, inside.
//! Source    PostgreSQL 15, reference of ALTER ROLE; RFC 5803 as
//!           PostgreSQL writes it (`SCRAM-SHA-256$...`).
//! Holds     what cannot be a parameter is quoted by the driver. The server is sent the verifier of
//!           a password, never the password. No statement waits for a lock until it is forgotten.
//!           Accounts are not believed: neither what they set of themselves decides who inherits,
//!           nor what they make where the root account looks for functions is called.

use std::io;
use std::time::Duration;

use lastkey_core::database::{Endpoint, Login};
use lastkey_core::lease::{GROUP_PLACE, USER_PLACE};
use lastkey_core::outside::{DatabaseError, NewAccount};
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
use super::scram::ScramOnly;
use super::tls::Tls;
use super::{Again, refused};
use crate::guard::{Guard, Trust};

/// Where our own statements look for what they name.
const OUR_PATH: &str = "pg_catalog, pg_temp";

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
        let address = Address::parse(at.kind, at.address)?;
        Self::open_at(guard, at, login, &address).await
    }

    async fn open_at(
        guard: &Guard,
        at: Endpoint<'_>,
        login: Login<'_>,
        address: &Address,
    ) -> Result<Self, DatabaseError> {
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
                let reached = guard.dial(host, *port, &trust, b"postgresql").await;
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
        let this = Self { client, driver };
        this.run(&format!("SET search_path = {OUR_PATH}")).await?;
        Ok(this)
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

    /// Makes an account, or makes the one that is there like it.
    pub(super) async fn make_account(&self, new: NewAccount<'_>) -> Result<(), DatabaseError> {
        let made = self.statements(new).await?;
        self.run(&format!("BEGIN;\n{made}\n; COMMIT")).await
    }

    /// Makes an account and drops it, all of it in a transaction that is taken back.
    pub(super) async fn try_account(&self, new: NewAccount<'_>) -> Result<(), DatabaseError> {
        let (made, account) = (self.statements(new).await?, escape_identifier(new.login.account));
        let group = escape_identifier(new.group);
        let joined = format!("GRANT {account} TO CURRENT_USER");
        let dropped = format!("{joined}; {}; DROP ROLE {account}", emptied(&account, Some(&group)));
        self.run(&format!("BEGIN;\n{made}\n; {dropped}; ROLLBACK")).await
    }

    /// What makes an account. Whatever it makes belongs to the group, since it acts as the group.
    async fn statements(&self, new: NewAccount<'_>) -> Result<String, DatabaseError> {
        let NewAccount { login, group, lasts, statements, comment } = new;
        let (user, verifier) = (escape_identifier(login.account), verifier(login));
        let (ends, role) = (escape_literal(&self.end_after(lasts).await?), escape_literal(group));
        let quoted = escape_identifier(group);
        let verb = if self.has(login.account).await? { "ALTER" } else { "CREATE" };
        let mut all = vec![
            format!("{verb} ROLE {user} LOGIN PASSWORD {verifier} VALID UNTIL {ends}"),
            format!("GRANT {quoted} TO {user}"),
            format!("ALTER ROLE {user} SET role = {role}"),
            format!("COMMENT ON ROLE {user} IS {}", escape_literal(comment)),
        ];
        let filled = |text: &String| {
            let bare = text.trim_end().trim_end_matches(';');
            bare.replace(USER_PLACE, &user).replace(GROUP_PLACE, &quoted)
        };
        // The statements of a role find what the root account finds, and ours what is built in.
        all.push("SET LOCAL search_path = DEFAULT".to_owned());
        all.extend(statements.iter().map(filled));
        all.push(format!("SET LOCAL search_path = {OUR_PATH}"));
        // A line of its own, should a statement end with a comment.
        Ok(all.join("\n;"))
    }

    /// When something ends that lasts so long from now on, by the clock of the database.
    async fn end_after(&self, lasts: Duration) -> Result<String, DatabaseError> {
        let seconds = lasts.as_secs_f64();
        let sql = "SELECT (now() + make_interval(secs => $1::float8))::text";
        let row = self.client.query_one(sql, &[&seconds]).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| failed(&error, ""))
    }

    async fn has(&self, account: &str) -> Result<bool, DatabaseError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname::text = $1)";
        let row = self.client.query_one(sql, &[&account]).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| failed(&error, ""))
    }

    /// Lets the password of an account open for so long; no when there is none.
    pub(super) async fn extend(
        &self,
        account: &str,
        lasts: Duration,
    ) -> Result<bool, DatabaseError> {
        if !self.has(account).await? {
            return Ok(false);
        }
        let ends = escape_literal(&self.end_after(lasts).await?);
        let user = escape_identifier(account);
        self.run(&format!("ALTER ROLE {user} LOGIN VALID UNTIL {ends}")).await.map(|()| true)
    }

    /// Drops an account and nothing that it owns, also in other databases of the server, which are
    /// opened as this one was.
    pub(super) async fn drop_account(
        &self,
        account: &str,
        group: Option<&str>,
        (guard, at, root): Again<'_>,
    ) -> Result<(), DatabaseError> {
        if !self.has(account).await? {
            return Ok(());
        }
        self.lock(account).await?;
        let user = escape_identifier(account);
        // Who is a member may end its connections and hand on what it owns.
        self.run(&format!("GRANT {user} TO CURRENT_USER")).await?;
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE \
                     usename::text = $1";
        self.client.query(ended, &[&account]).await.map_err(|error| failed(&error, ""))?;
        let heir = self.heir(account, group).await?;
        let emptied = emptied(&user, heir.as_deref());
        self.run(&format!("BEGIN; {emptied}; COMMIT")).await?;
        for name in self.other_databases(account).await? {
            let address = Address { name, ..Address::parse(at.kind, at.address)? };
            let other = Self::open_at(guard, at, root, &address).await?;
            other.run(&format!("BEGIN; {emptied}; COMMIT")).await?;
        }
        self.run(&format!("DROP ROLE IF EXISTS {user}")).await
    }

    /// Who takes over what an account owns, quoted; nobody when it owns nothing. An account of no
    /// known group leaves it to the one role that it is a member of, which it cannot choose.
    async fn heir(
        &self,
        account: &str,
        group: Option<&str>,
    ) -> Result<Option<String>, DatabaseError> {
        if let Some(group) = group
            && self.has(group).await?
        {
            return Ok(Some(escape_identifier(group)));
        }
        let owned = "SELECT r.rolname::text FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles \
                     r ON r.oid = s.refobjid WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass \
                     AND s.deptype = 'o' AND r.rolname::text = $1 LIMIT 1";
        if self.texts(owned, account).await?.is_empty() {
            return Ok(None);
        }
        let groups = "SELECT DISTINCT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN \
                      pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = \
                      m.member WHERE u.rolname::text = $1";
        let groups = if group.is_none() { self.texts(groups, account).await? } else { Vec::new() };
        match groups.as_slice() {
            [group] => Ok(Some(escape_identifier(group))),
            _ => Err(DatabaseError::Refused(format!(
                "the account {account} owns something, and its group is not known; it is locked. \
                 REASSIGN OWNED BY it to whom that shall belong"
            ))),
        }
    }

    /// Other databases of the server in which something depends on an account.
    async fn other_databases(&self, account: &str) -> Result<Vec<String>, DatabaseError> {
        let sql = "SELECT DISTINCT d.datname::text FROM pg_catalog.pg_shdepend s JOIN \
                   pg_catalog.pg_database d ON d.oid = s.dbid JOIN pg_catalog.pg_roles r ON r.oid = \
                   s.refobjid WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND \
                   r.rolname::text = $1 AND d.datname <> current_database()";
        self.texts(sql, account).await
    }

    /// The accounts whose names begin so.
    pub(super) async fn accounts(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE \
                   left(rolname::text, length($1::text)) = $1::text ORDER BY 1";
        self.texts(sql, prefix).await
    }

    async fn texts(&self, sql: &str, parameter: &str) -> Result<Vec<String>, DatabaseError> {
        let rows = self.client.query(sql, &[&parameter]).await;
        let rows = rows.map_err(|error| failed(&error, ""))?;
        let texts = rows.iter().map(|row| row.try_get(0));
        texts.collect::<Result<_, _>>().map_err(|error| failed(&error, ""))
    }
}

/// Hands on what an account owns, and takes away what it was granted. The order matters: what was
/// handed on is not dropped.
fn emptied(user: &str, heir: Option<&str>) -> String {
    let handed = heir.map(|heir| format!("REASSIGN OWNED BY {user} TO {heir}; "));
    format!("{}DROP OWNED BY {user}", handed.unwrap_or_default())
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
