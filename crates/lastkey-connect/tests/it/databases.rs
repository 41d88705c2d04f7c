//! Databases that are none: somebody else listens at the socket.

use lastkey_connect::database::GuardedDatabases;
use lastkey_connect::guard::Guard;
use lastkey_core::database::{DatabaseKind, Endpoint, Login};
use lastkey_core::outside::{DatabaseError, Databases as _};
use lastkey_secret::SecretVec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// Answers the first message of a login, and keeps what is said after that.
async fn heard_after(answer: &[u8]) -> (DatabaseError, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let address = format!("postgresql:///shop?host={}", folder.path().display());
    let at = Endpoint { kind: DatabaseKind::PostgreSql, address: &address, authority: None };
    let password = SecretVec::copy_of(b"hunter2");
    let databases = GuardedDatabases::behind(Guard::default());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let len = stream.read_u32().await.unwrap();
        let mut startup = vec![0; usize::try_from(len).unwrap() - 4];
        stream.read_exact(&mut startup).await.unwrap();
        stream.write_all(answer).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let login = Login { account: "root", password: &password };
    let (refused, heard) = tokio::join!(databases.log_in(at, login), server);
    (refused.unwrap_err(), heard)
}

/// Let in without a password, asked for it in the clear, and as MD5.
#[tokio::test]
async fn a_server_that_does_not_ask_by_scram_is_told_nothing() {
    for answer in [
        &b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"[..],
        b"R\0\0\0\x08\0\0\0\x03",
        b"R\0\0\0\x0c\0\0\0\x05salt",
    ] {
        let (refused, heard) = heard_after(answer).await;
        assert!(matches!(&refused, DatabaseError::Refused(why) if why.contains("SCRAM")));
        assert_eq!(heard, b"");
    }
}

/// A rule of the database says no, which says nothing about the password.
#[tokio::test]
async fn only_a_wrong_password_is_a_login_that_failed() {
    for (code, is_login) in [("28P01", true), ("28000", false)] {
        let said = format!("SFATAL\0C{code}\0Mno\0\0");
        let len = u32::try_from(said.len()).unwrap() + 4;
        let answer = [b"E", &len.to_be_bytes()[..], said.as_bytes()].concat();
        let (refused, _) = heard_after(&answer).await;
        assert_eq!(matches!(refused, DatabaseError::Login(_)), is_login, "{refused}");
    }
}

/// What a MySQL says first. Whoever says it is asked for nothing, and is shown no answer to his challenge.
#[tokio::test]
async fn a_mysql_where_a_mariadb_is_named_is_told_nothing() {
    let capabilities = 0x000a_8201_u32.to_le_bytes();
    let (low, high) = capabilities.split_at(2);
    let body = [
        &b"\x0a8.4.4\0\x01\0\0\0"[..],
        b"12345678\0",
        low,
        &[45, 2, 0],
        high,
        &[21],
        &[0; 10],
        b"901234567890\0caching_sha2_password\0",
    ]
    .concat();
    let greeting = [&[u8::try_from(body.len()).unwrap(), 0, 0, 0][..], &body].concat();
    for (scheme, is_heard) in [("mariadb", false), ("mysql", true)] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let address = format!("{scheme}:///shop?socket={}", socket.display());
        let at = Endpoint { kind: DatabaseKind::MariaDb, address: &address, authority: None };
        let password = SecretVec::copy_of(b"hunter2");
        let databases = GuardedDatabases::behind(Guard::default());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&greeting).await.unwrap();
            let mut first = [0];
            // It hangs up, or logs in.
            stream.read(&mut first).await.unwrap()
        };
        let login = Login { account: "root", password: &password };
        let (refused, heard) = tokio::join!(databases.log_in(at, login), server);
        assert_eq!(heard == 1, is_heard, "{scheme}");
        let is_named =
            matches!(&refused, Err(DatabaseError::Refused(why)) if why.contains("mysql:"));
        assert_eq!(is_named, !is_heard, "{scheme}: {refused:?}");
    }
}
