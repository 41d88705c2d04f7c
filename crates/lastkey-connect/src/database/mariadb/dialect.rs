//! What MariaDB and MySQL say in words of their own.
//!
//! Room      `connect`, inside.
//! Source    MariaDB 10.4 and MySQL 8.0, their statements of account management.

use super::password::Plugin;
use super::quoted;

/// Which of the two a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MariaDB.
    MariaDb,
    /// MySQL.
    MySql,
}

/// The first MySQL whose accounts have roles.
const FIRST_MYSQL: u32 = 8;

impl Dialect {
    /// By the version that a greeting names; nothing for a MySQL that is too old.
    pub(super) fn of_version(version: &[u8]) -> Option<Self> {
        if version.windows(7).any(|part| part == b"MariaDB") {
            return Some(Self::MariaDb);
        }
        let major = version.split(|byte| *byte == b'.').next()?;
        let major: u32 = core::str::from_utf8(major).ok()?.parse().ok()?;
        (major >= FIRST_MYSQL).then_some(Self::MySql)
    }

    /// Whether such a server may be at an address. A MySQL may ask for the password itself: whoever listens
    /// at an address that says `mariadb:` does not get that by saying that he is one.
    pub(super) fn may_be_at(self, address: &str) -> bool {
        match self {
            Self::MariaDb => true,
            Self::MySql => address.starts_with("mysql:"),
        }
    }

    /// How new passwords are kept.
    pub(super) const fn plugin(self) -> Plugin {
        match self {
            Self::MariaDb => Plugin::Native,
            Self::MySql => Plugin::CachingSha2,
        }
    }

    /// The way to log in that a server names, if it is answered.
    pub(super) fn answered(self, name: &[u8]) -> Option<Plugin> {
        let known: &[Plugin] = match self {
            Self::MariaDb => &[Plugin::Native],
            Self::MySql => &[Plugin::CachingSha2, Plugin::Native],
        };
        known.iter().copied().find(|plugin| plugin.name().as_bytes() == name)
    }

    /// What is said of another way.
    pub(super) const fn refusal(self) -> &'static str {
        match self {
            Self::MariaDb => {
                "it asks for the password in another way than mysql_native_password; let the \
                 account log in by that"
            }
            Self::MySql => {
                "it asks for the password in another way than caching_sha2_password; let the \
                 account log in by that"
            }
        }
    }

    /// What gives an account a password, by what is kept of it.
    pub(super) fn identified(self, kept: &str) -> String {
        let (plugin, kept) = (self.plugin().name(), quoted(kept));
        match self {
            Self::MariaDb => format!("IDENTIFIED VIA {plugin} USING {kept}"),
            Self::MySql => format!("IDENTIFIED WITH {plugin} AS {kept}"),
        }
    }

    /// What lets an account act as a role from its login on. Both are quoted.
    pub(super) fn default_role(self, role: &str, user: &str) -> String {
        match self {
            Self::MariaDb => format!("SET DEFAULT ROLE {role} FOR {user}"),
            Self::MySql => format!("SET DEFAULT ROLE {role} TO {user}"),
        }
    }

    /// Which users of a server are accounts. Any account of a MySQL may be a role as well.
    pub(super) const fn are_accounts(self) -> &'static str {
        match self {
            Self::MariaDb => "is_role = 'N'",
            Self::MySql => "TRUE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_is_told_by_the_version() {
        for (version, expected) in [
            ("10.11.6-MariaDB-0+deb12u1", Some(Dialect::MariaDb)),
            ("5.5.5-10.11.6-MariaDB-log", Some(Dialect::MariaDb)),
            ("8.0.28-0ubuntu4", Some(Dialect::MySql)),
            ("9.7.4-2", Some(Dialect::MySql)),
            ("10.1.0", Some(Dialect::MySql)),
            ("5.7.44-log", None),
            ("", None),
            ("MySQL", None),
            ("-8.0", None),
        ] {
            assert_eq!(Dialect::of_version(version.as_bytes()), expected, "{version}");
        }
    }
}
