//! MariaDB and MySQL: accounts and their passwords.
//!
//! Room      `connect`, inside.
//! Source    MariaDB 10.4 and later: ALTER USER, CREATE USER, GRANT of roles, KILL USER; MySQL 8.0 and
//!           later: the same but for `dialect.rs`, PROCESSLIST and KILL.
//! Holds     what cannot be a parameter is quoted here, in a mode in which that is enough. The
//!           server is sent what it keeps of a new password, never that. No statement waits for
//!           a lock until it is forgotten.

mod dialect;
mod password;
mod sha_crypt;
mod wire;

use std::time::Duration;

use lastkey_core::database::{Endpoint, Login};
use lastkey_core::lease::{GROUP_PLACE, USER_PLACE};
use lastkey_core::outside::{DatabaseError, NewAccount};
use lastkey_crypto::entropy::SystemEntropy;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use self::dialect::Dialect;
use self::wire::{Greeting, Line, MALFORMED, Stream, Wire, WireError};
use super::address::{Address, Place};
use super::{Again, refused};
use crate::guard::{Guard, Trust};

/// Access denied for a user, by its password.
const DENIED: u16 = 1_045;
/// Two rows at a MySQL that lets no account in by what it keeps of a password that was set here. Before 9.7
/// there is neither setting.
const OTHER_FORMATS: &str = "SHOW GLOBAL VARIABLES WHERE (Variable_name = \
     'caching_sha2_password_enforce_storage_format' AND Value <> 'OFF') OR (Variable_name = \
     'caching_sha2_password_storage_format' AND Value <> 'CRYPT5')";
const OTHERS_ALONE: &str = "it lets no account in whose password is set by Lastkey, and nothing was \
     changed: caching_sha2_password_enforce_storage_format is on while \
     caching_sha2_password_storage_format is another than CRYPT5; turn the first off";
/// No connection of this number.
const NO_SUCH_CONNECTION: u16 = 1_094;

const UNNAMED: WireError =
    WireError::Foreign("it is a MySQL, and its address says mariadb: write mysql: in its place");

/// A connection, logged in. Closes when it is dropped.
pub(super) struct Session {
    wire: Wire<Box<dyn Stream>>,
    dialect: Dialect,
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
        let opened = match &address.place {
            Place::Socket(path) => {
                let away = |error| DatabaseError::Away(format!("{}: {error}", path.display()));
                let stream = UnixStream::connect(path).await.map_err(away)?;
                Self::over(Box::new(stream), Line::Socket, at.address, login).await
            }
            Place::Host(host, port) => {
                let trust = Trust::from(at.authority);
                let reached = guard.dial(host, *port, &trust, b"mariadb").await;
                let (stream, tls) = reached.map_err(|error| refused(&error))?;
                match tls {
                    None => Self::over(Box::new(stream), Line::Clear, at.address, login).await,
                    Some(tls) => Self::over_tls(stream, tls, at.address, login).await,
                }
            }
        };
        let mut this = opened.map_err(|error| failed(error, login.account))?;
        // The mode in which a quoted text is what it seems, and a bound on waiting for others.
        this.run("SET SESSION sql_mode = '', lock_wait_timeout = 5").await?;
        Ok(this)
    }

    async fn over(
        stream: Box<dyn Stream>,
        line: Line,
        address: &str,
        login: Login<'_>,
    ) -> Result<Self, WireError> {
        let mut wire = Wire::over(stream);
        let greeting = greeting_at(address, &mut wire).await?;
        Self::greeted(wire, &greeting, line, login).await
    }

    async fn over_tls(
        stream: TcpStream,
        (connector, name): (TlsConnector, ServerName<'static>),
        address: &str,
        login: Login<'_>,
    ) -> Result<Self, WireError> {
        let mut wire = Wire::over(stream);
        let greeting = greeting_at(address, &mut wire).await?;
        if !greeting.has_tls() {
            return Err(WireError::Foreign("it does not speak TLS"));
        }
        wire.ask_for_tls().await?;
        let (stream, sequence) = wire.into_parts();
        let secured: Box<dyn Stream> = Box::new(connector.connect(name, stream).await?);
        Self::greeted(Wire::continued(secured, sequence), &greeting, Line::Tls, login).await
    }

    async fn greeted(
        mut wire: Wire<Box<dyn Stream>>,
        greeting: &Greeting,
        line: Line,
        login: Login<'_>,
    ) -> Result<Self, WireError> {
        wire.log_in(greeting, login, line).await?;
        Ok(Self { wire, dialect: greeting.dialect() })
    }

    async fn run(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.texts(sql).await.map(drop)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<String>, DatabaseError> {
        self.wire.query(sql).await.map_err(|error| failed(error, ""))
    }

    /// Every form of an account, one for each place that it may come from; quoted.
    async fn forms(&mut self, account: &str) -> Result<Vec<String>, DatabaseError> {
        let name = quoted(account);
        let are_accounts = self.dialect.are_accounts();
        let sql = format!("SELECT Host FROM mysql.user WHERE User = {name} AND {are_accounts}");
        let hosts = self.texts(&sql).await?;
        Ok(hosts.iter().map(|host| format!("{name}@{}", quoted(host))).collect())
    }

    async fn needed_forms(&mut self, account: &str) -> Result<Vec<String>, DatabaseError> {
        let forms = self.forms(account).await?;
        if forms.is_empty() {
            return Err(DatabaseError::Refused(format!("user {account} does not exist")));
        }
        Ok(forms)
    }

    /// Something that acts as an account, if the root account sees it.
    async fn defined_by(&mut self, account: &str) -> Result<Option<String>, DatabaseError> {
        let name = quoted(&format!("{account}@"));
        let of = |kind: &str, table: &str, prefix: &str| {
            format!(
                "SELECT CONCAT('the {kind} ', {prefix}_SCHEMA, '.', {prefix}_NAME) FROM \
                 information_schema.{table} WHERE LEFT(DEFINER, CHAR_LENGTH({name})) = {name}"
            )
        };
        let all = [
            of("view", "VIEWS", "TABLE"),
            of("trigger", "TRIGGERS", "TRIGGER"),
            of("routine", "ROUTINES", "ROUTINE"),
            of("event", "EVENTS", "EVENT"),
        ];
        Ok(self.texts(&format!("{} LIMIT 1", all.join(" UNION ALL "))).await?.pop())
    }

    /// Ends the connections of an account.
    async fn end_connections(
        &mut self,
        account: &str,
        forms: &[String],
    ) -> Result<(), DatabaseError> {
        match self.dialect {
            Dialect::MariaDb => {
                for form in forms {
                    self.run(&format!("KILL USER {form}")).await?;
                }
            }
            Dialect::MySql => {
                self.see_connections().await?;
                let name = quoted(account);
                let sql =
                    format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = {name}");
                for id in self.texts(&sql).await? {
                    self.end_connection(&id).await?;
                }
            }
        }
        Ok(())
    }

    /// Refuses where connections of others are not seen: a list of those of an account would have none.
    async fn see_connections(&mut self) -> Result<(), DatabaseError> {
        match self.dialect {
            // It ends them unseen, or says that it may not.
            Dialect::MariaDb => Ok(()),
            // What wants the same right and is short.
            Dialect::MySql => self.run("SELECT page_size FROM information_schema.INNODB_CMP").await,
        }
    }

    /// Ends a connection, by its number; it may have ended by itself.
    async fn end_connection(&mut self, id: &str) -> Result<(), DatabaseError> {
        let id: u64 = id.parse().map_err(|_| failed(MALFORMED, ""))?;
        match self.wire.query(&format!("KILL {id}")).await {
            Ok(_) | Err(WireError::Server(NO_SUCH_CONNECTION, _)) => Ok(()),
            Err(error) => Err(failed(error, "")),
        }
    }

    /// Refuses where an account that is given a password here would be let in no more.
    async fn need_our_format(&mut self) -> Result<(), DatabaseError> {
        let takes_others_alone = match self.dialect {
            Dialect::MariaDb => false,
            Dialect::MySql => self.texts(OTHER_FORMATS).await?.len() == 2,
        };
        if takes_others_alone {
            return Err(DatabaseError::Refused(OTHERS_ALONE.to_owned()));
        }
        Ok(())
    }

    /// What gives an account a password.
    async fn identified(&mut self, login: Login<'_>) -> Result<String, DatabaseError> {
        self.need_our_format().await?;
        let plugin = self.dialect.plugin();
        let kept = login.password.expose(|bytes| plugin.kept_of(bytes, &mut SystemEntropy));
        let kept = kept.map_err(|error| DatabaseError::Away(error.to_string()))?;
        Ok(self.dialect.identified(&kept))
    }

    /// Locks an account, ends its connections and drops it, unless something acts as it.
    async fn drop_forms(&mut self, account: &str) -> Result<(), DatabaseError> {
        let forms = self.forms(account).await?;
        for form in &forms {
            self.run(&format!("ALTER USER {form} ACCOUNT LOCK")).await?;
        }
        self.end_connections(account, &forms).await?;
        if let Some(left) = self.defined_by(account).await? {
            return Err(DatabaseError::Refused(format!(
                "{left} has the account {account} as its DEFINER and would work no more; the \
                 account is locked. Give that another DEFINER, or drop it"
            )));
        }
        for form in &forms {
            self.run(&format!("DROP USER IF EXISTS {form}")).await?;
        }
        Ok(())
    }
}

impl Session {
    /// Gives an account a password, and lets it log in.
    pub(super) async fn set_password(&mut self, account: Login<'_>) -> Result<(), DatabaseError> {
        let by = self.identified(account).await?;
        for form in self.needed_forms(account.account).await? {
            self.run(&format!("ALTER USER {form} {by} ACCOUNT UNLOCK")).await?;
        }
        Ok(())
    }

    /// Lets an account log in no more.
    pub(super) async fn lock(&mut self, account: &str) -> Result<(), DatabaseError> {
        for form in self.needed_forms(account).await? {
            self.run(&format!("ALTER USER {form} ACCOUNT LOCK")).await?;
        }
        Ok(())
    }

    /// Makes an account, or makes the one that is there like it. Nothing here is taken back by itself:
    /// what was begun is dropped by whoever began it.
    pub(super) async fn make_account(&mut self, new: NewAccount<'_>) -> Result<(), DatabaseError> {
        let user = format!("{}@'%'", quoted(new.login.account));
        let (group, by) = (quoted(new.group), self.identified(new.login).await?);
        self.run(&format!("CREATE USER IF NOT EXISTS {user} {by}")).await?;
        self.run(&format!("ALTER USER {user} {by} ACCOUNT UNLOCK")).await?;
        let granted = self.run(&format!("GRANT {group} TO {user}")).await;
        granted.map_err(|error| about_role(error, new.group))?;
        self.run(&self.dialect.default_role(&group, &user)).await?;
        for statement in new.statements {
            let bare = statement.trim_end().trim_end_matches(';');
            self.run(&bare.replace(USER_PLACE, &user).replace(GROUP_PLACE, &group)).await?;
        }
        Ok(())
    }

    /// Makes an account and drops it.
    pub(super) async fn try_account(&mut self, new: NewAccount<'_>) -> Result<(), DatabaseError> {
        self.see_connections().await?;
        let made = self.make_account(new).await;
        self.drop_forms(new.login.account).await?;
        made
    }

    /// Whether there is an account: it opens until it is dropped.
    pub(super) async fn extend(
        &mut self,
        account: &str,
        _: Duration,
    ) -> Result<bool, DatabaseError> {
        Ok(!self.forms(account).await?.is_empty())
    }

    /// Ends the connections of an account and drops it. Nothing belongs to accounts here, but views,
    /// triggers, routines and events may act as one: then it is locked and stays.
    pub(super) async fn drop_account(
        &mut self,
        account: &str,
        _: Option<&str>,
        _: Again<'_>,
    ) -> Result<(), DatabaseError> {
        self.drop_forms(account).await
    }

    /// The accounts whose names begin so.
    pub(super) async fn accounts(&mut self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        let (text, len) = (quoted(prefix), prefix.chars().count());
        let of_it = format!("LEFT(User, {len}) = {text} AND {}", self.dialect.are_accounts());
        self.texts(&format!("SELECT DISTINCT User FROM mysql.user WHERE {of_it} ORDER BY 1")).await
    }
}

/// Reads what a server says first, if such a one may be at this address.
async fn greeting_at<S: Stream>(address: &str, wire: &mut Wire<S>) -> Result<Greeting, WireError> {
    let greeting = wire.greeting().await?;
    if greeting.dialect().may_be_at(address) { Ok(greeting) } else { Err(UNNAMED) }
}

/// A text or a name, in quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// What the server or the connection said, for people: never the statement.
fn failed(error: WireError, account: &str) -> DatabaseError {
    match error {
        WireError::Server(DENIED, _) if !account.is_empty() => {
            DatabaseError::Login(account.to_owned())
        }
        WireError::Server(code, message) => DatabaseError::Refused(format!("{message} ({code})")),
        WireError::Io(error) => DatabaseError::Away(error.to_string()),
        WireError::Foreign(problem) => DatabaseError::Refused(problem.to_owned()),
    }
}

/// Names the role that was to be granted: a MySQL does not tell one that is not there from one that the
/// root account may not grant, and names neither.
fn about_role(error: DatabaseError, role: &str) -> DatabaseError {
    match error {
        DatabaseError::Refused(why) => DatabaseError::Refused(format!("the role {role}: {why}")),
        DatabaseError::Login(_) | DatabaseError::Away(_) | DatabaseError::Address(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        for (text, expected) in
            [("a", "'a'"), ("a'b", "'a''b'"), ("a\\", "'a\\\\'"), ("\\'; DROP", "'\\\\''; DROP'")]
        {
            assert_eq!(quoted(text), expected);
        }
    }
}
