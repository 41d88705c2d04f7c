//! Addresses of databases, as operators write them.
//!
//! Room      `connect`, inside.
//! Source    PostgreSQL, 34.1.1.2 "Connection URIs", of which this is the part that names a place; the
//!           same for MariaDB and MySQL.

use std::path::PathBuf;

use lastkey_core::database::DatabaseKind;
use lastkey_core::outside::DatabaseError;

/// Where a database listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A host and a port.
    Host(String, u16),
    /// A socket in the file system.
    Socket(PathBuf),
}

/// A place, and the database there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Where it listens.
    pub(super) place: Place,
    /// Its name there.
    pub(super) name: String,
}

/// The port that a database has when nobody says otherwise.
const fn port_of(kind: DatabaseKind) -> u16 {
    match kind {
        DatabaseKind::PostgreSql => 5_432,
        DatabaseKind::MariaDb => 3_306,
    }
}

impl Address {
    /// Reads `postgresql://HOST[:PORT]/NAME` or `postgresql:///NAME?host=/FOLDER[&port=PORT]`; or
    /// `mariadb://HOST[:PORT]/NAME` or `mariadb:///NAME?socket=/FILE`, and the same
    /// with `mysql:`.
    ///
    /// # Errors
    /// [`DatabaseError::Address`].
    pub(super) fn parse(kind: DatabaseKind, text: &str) -> Result<Self, DatabaseError> {
        let (kind, rest) = DatabaseKind::of_address(text)
            .filter(|(found, _)| *found == kind)
            .ok_or_else(|| bad("it begins with none of postgresql://, mariadb:// and mysql://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = path.split_once('/').ok_or_else(|| bad("it names no database"))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(bad(
                "the name of the database has other characters than A-Z a-z 0-9 . _ -",
            ));
        }
        if authority.contains('@') {
            return Err(bad("it names a user; that is told apart"));
        }
        let place = match kind {
            _ if !authority.is_empty() => host(authority, query, port_of(kind))?,
            DatabaseKind::PostgreSql => socket(query)?,
            DatabaseKind::MariaDb => socket_file(query)?,
        };
        Ok(Self { place, name: name.to_owned() })
    }
}

fn host(authority: &str, query: &str, usual: u16) -> Result<Place, DatabaseError> {
    if !query.is_empty() {
        return Err(bad("a host takes no options"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(|| bad("its host is malformed"))?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| bad("its port is none"))?,
        None if port.is_empty() => usual,
        None => return Err(bad("its host is malformed")),
    };
    if host.is_empty() || port == 0 {
        return Err(bad("it has no host or port"));
    }
    Ok(Place::Host(host.to_ascii_lowercase(), port))
}

fn socket(query: &str) -> Result<Place, DatabaseError> {
    let (mut folder, mut port) = (None, port_of(DatabaseKind::PostgreSql));
    for option in query.split('&') {
        match option.split_once('=') {
            Some(("host", path)) if path.starts_with('/') => folder = Some(PathBuf::from(path)),
            Some(("port", text)) => port = text.parse().map_err(|_| bad("its port is none"))?,
            Some(_) | None => return Err(bad("expected ?host=/FOLDER, and &port=PORT if need be")),
        }
    }
    let folder = folder.ok_or_else(|| bad("it names neither a host nor ?host=/FOLDER"))?;
    Ok(Place::Socket(folder.join(format!(".s.PGSQL.{port}"))))
}

fn socket_file(query: &str) -> Result<Place, DatabaseError> {
    match query.split_once('=') {
        Some(("socket", path)) if path.starts_with('/') => Ok(Place::Socket(PathBuf::from(path))),
        Some(_) | None => Err(bad("it names neither a host nor ?socket=/FILE")),
    }
}

fn bad(why: &str) -> DatabaseError {
    DatabaseError::Address(format!("this is no address of a database: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTGRESQL: DatabaseKind = DatabaseKind::PostgreSql;
    const MARIADB: DatabaseKind = DatabaseKind::MariaDb;

    #[test]
    fn hosts_and_sockets_are_read() {
        for (text, place) in [
            ("postgresql://DB.example/shop", Place::Host("db.example".to_owned(), 5_432)),
            ("postgres://db:6000/shop", Place::Host("db".to_owned(), 6_000)),
            ("postgresql://[::1]:6000/shop", Place::Host("::1".to_owned(), 6_000)),
            ("postgresql://[::1]/shop", Place::Host("::1".to_owned(), 5_432)),
            ("postgresql:///shop?host=/run/pg", Place::Socket("/run/pg/.s.PGSQL.5432".into())),
            ("postgresql:///shop?host=/a&port=7", Place::Socket("/a/.s.PGSQL.7".into())),
            ("mariadb://DB/shop", Place::Host("db".to_owned(), 3_306)),
            ("mysql://db:7/shop", Place::Host("db".to_owned(), 7)),
            ("mariadb:///shop?socket=/run/m.sock", Place::Socket("/run/m.sock".into())),
        ] {
            let expected = Address { place, name: "shop".to_owned() };
            let kind = if text.starts_with('m') { MARIADB } else { POSTGRESQL };
            assert_eq!(Address::parse(kind, text).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "db/shop",
            "mariadb://db/shop",
            "sqlite://db/shop",
            "postgresql://db",
            "postgresql://db/",
            "postgresql://u:p@db/shop",
            "postgresql://db:0/shop",
            "postgresql://db:x/shop",
            "postgresql://db/a/b",
            "postgresql://db/shop?sslmode=disable",
            "postgresql:///shop",
            "postgresql:///shop?host=relative",
            "postgresql://[::1/shop",
            "postgresql://[::1]6/a",
            "postgresql://:5/shop",
        ] {
            assert!(Address::parse(POSTGRESQL, text).is_err(), "{text}");
        }
        for text in ["mariadb:///shop", "mariadb:///shop?socket=m", "mariadb://db/shop?socket=/m"] {
            assert!(Address::parse(MARIADB, text).is_err(), "{text}");
        }
    }
}
