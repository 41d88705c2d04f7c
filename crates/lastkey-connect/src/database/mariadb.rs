//! MariaDB: accounts and their passwords.
//!
//! Room      `connect`, inside.
//! Source    MariaDB 10.4 and later: ALTER USER, CREATE USER, GRANT of roles, KILL USER.
//! Holds     what cannot be a parameter is quoted here, in a mode in which that is enough. The
//!           server is sent what it keeps of a password, never the password. No statement waits for
//!           a lock until it is forgotten.

mod wire;

use std::time::Duration;

use lastkey_core::database::{Endpoint, Login};
use lastkey_core::lease::{GROUP_PLACE, USER_PLACE};
use lastkey_core::outside::{DatabaseError, NewAccount};
use tokio::net::UnixStream;

use self::wire::{NATIVE, Stream, Wire, WireError, kept_of};
use super::address::{Address, Place};
use super::{Again, refused};
use crate::guard::{Guard, Trust};

/// Access denied for a user, by its password.
const DENIED: u16 = 1_045;

/// A connection, logged in. Closes when it is dropped.
pub(super) struct Session(Wire<Box<dyn Stream>>);

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
        let said = |error| failed(error, login.account);
        let mut this = match &address.place {
            Place::Socket(path) => {
                let away = |error| DatabaseError::Away(format!("{}: {error}", path.display()));
                let stream = UnixStream::connect(path).await.map_err(away)?;
                let stream: Box<dyn Stream> = Box::new(stream);
                Self::over(stream, login).await.map_err(said)?
            }
            Place::Host(host, port) => {
                let trust = Trust::from(at.authority);
                let reached = guard.dial(host, *port, &trust, b"mariadb").await;
                let (stream, tls) = reached.map_err(|error| refused(&error))?;
                match tls {
                    None => Self::over(Box::new(stream), login).await.map_err(said)?,
                    Some((connector, name)) => {
                        let mut wire = Wire::over(stream);
                        let greeting = wire.greeting().await.map_err(said)?;
                        if !greeting.has_tls() {
                            let problem = "it does not speak TLS";
                            return Err(DatabaseError::Refused(problem.to_owned()));
                        }
                        wire.ask_for_tls().await.map_err(said)?;
                        let (stream, sequence) = wire.into_parts();
                        let secured = connector.connect(name, stream).await;
                        let secured = secured.map_err(|error| said(error.into()))?;
                        let stream: Box<dyn Stream> = Box::new(secured);
                        let mut wire = Wire::continued(stream, sequence);
                        log_in(&mut wire, &greeting, login, true).await.map_err(said)?;
                        Self(wire)
                    }
                }
            }
        };
        // The mode in which a quoted text is what it seems, and a bound on waiting for others.
        this.run("SET SESSION sql_mode = '', lock_wait_timeout = 5").await?;
        Ok(this)
    }

    async fn over(stream: Box<dyn Stream>, login: Login<'_>) -> Result<Self, WireError> {
        let mut wire = Wire::over(stream);
        let greeting = wire.greeting().await?;
        log_in(&mut wire, &greeting, login, false).await?;
        Ok(Self(wire))
    }

    async fn run(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.texts(sql).await.map(drop)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<String>, DatabaseError> {
        self.0.query(sql).await.map_err(|error| failed(error, ""))
    }

    /// Every form of an account, one for each place that it may come from; quoted.
    async fn forms(&mut self, account: &str) -> Result<Vec<String>, DatabaseError> {
        let name = quoted(account);
        let sql = format!("SELECT Host FROM mysql.user WHERE User = {name} AND is_role = 'N'");
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

    /// Locks an account, ends its connections and drops it, unless something acts as it.
    async fn drop_forms(&mut self, account: &str) -> Result<(), DatabaseError> {
        let forms = self.forms(account).await?;
        for form in &forms {
            self.run(&format!("ALTER USER {form} ACCOUNT LOCK")).await?;
        }
        for form in &forms {
            self.run(&format!("KILL USER {form}")).await?;
        }
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

async fn log_in<S: Stream>(
    wire: &mut Wire<S>,
    greeting: &wire::Greeting,
    login: Login<'_>,
    is_tls: bool,
) -> Result<(), WireError> {
    let password = zeroize::Zeroizing::new(login.password.expose(<[u8]>::to_vec));
    wire.log_in(greeting, login.account, &password, is_tls).await
}

impl Session {
    /// Gives an account a password, and lets it log in.
    pub(super) async fn set_password(&mut self, account: Login<'_>) -> Result<(), DatabaseError> {
        let kept = quoted(&account.password.expose(kept_of));
        for form in self.needed_forms(account.account).await? {
            let sql =
                format!("ALTER USER {form} IDENTIFIED VIA {NATIVE} USING {kept} ACCOUNT UNLOCK");
            self.run(&sql).await?;
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
        let (group, kept) = (quoted(new.group), quoted(&new.login.password.expose(kept_of)));
        let by = format!("IDENTIFIED VIA {NATIVE} USING {kept}");
        self.run(&format!("CREATE USER IF NOT EXISTS {user} {by}")).await?;
        self.run(&format!("ALTER USER {user} {by} ACCOUNT UNLOCK")).await?;
        self.run(&format!("GRANT {group} TO {user}")).await?;
        self.run(&format!("SET DEFAULT ROLE {group} FOR {user}")).await?;
        for statement in new.statements {
            let bare = statement.trim_end().trim_end_matches(';');
            self.run(&bare.replace(USER_PLACE, &user).replace(GROUP_PLACE, &group)).await?;
        }
        Ok(())
    }

    /// Makes an account and drops it.
    pub(super) async fn try_account(&mut self, new: NewAccount<'_>) -> Result<(), DatabaseError> {
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
        let of_it = format!("LEFT(User, {len}) = {text} AND is_role = 'N'");
        self.texts(&format!("SELECT DISTINCT User FROM mysql.user WHERE {of_it} ORDER BY 1")).await
    }
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
