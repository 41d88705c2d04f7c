//! A real MariaDB and a real MySQL: two accounts in turn, and accounts that come and go.

use std::fs;

use serde_json::{Value, json};

use crate::http::{base64, bytes};
use crate::mysqld::Mysqld;
use crate::process::{Ended, not_run, until};
use crate::rotation::rotates_under_load;
use crate::world::{Server, text};

/// A development server that knows a database as `shop`.
struct House {
    database: Mysqld,
    server: Server,
    folder: tempfile::TempDir,
}

impl House {
    fn of(database: Mysqld) -> Self {
        let house = Self::empty(database);
        let add = format!("database add shop --address {}", house.database.address());
        house.server.cli(&format!("{add} {}", house.as_root())).ok();
        assert!(!house.database.lets_in("lastkey", "first"), "the root password is another one");
        house
    }

    /// One that does not know it yet.
    fn empty(database: Mysqld) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        fs::write(folder.path().join("first"), "first\n").unwrap();
        Self { database, server, folder }
    }

    /// The root account and its first password, as `database add` takes them.
    fn as_root(&self) -> String {
        format!("--user lastkey --password-file {}", self.folder.path().join("first").display())
    }

    /// The secret `db`, whose two accounts take turns.
    fn take_turns(&self) {
        // One account from two places: both forms of it are meant.
        self.database.sql("CREATE USER shop_a@'%' IDENTIFIED BY 'first'");
        self.database.sql("CREATE USER shop_a@'127.0.0.1' IDENTIFIED BY 'first'");
        self.database.sql("CREATE USER shop_b@'localhost' ACCOUNT LOCK");
        let fields = json!({ "username": base64(b"shop_a"), "password": base64(b"first") });
        let mut http = self.server.admin();
        http.done("PUT", "/v1/secrets/db", &json!({ "fields": fields }).to_string());
        self.server.cli("secret rotation set db --database shop --accounts shop_a,shop_b").ok();
    }

    /// A new account of the role `app`: its lease, name and password.
    fn account(&self) -> (String, String, String) {
        let issued: Value = self.server.cli("database creds app --output json").json();
        let lease = &issued["lease"];
        (text(&lease["id"]), text(&lease["username"]), text(&issued["password"]))
    }
}

const CREATE: &str = "database role create app --database shop --member-of";

#[test]
fn rotation_of_a_mariadb_under_load_fails_no_login() {
    let Some(database) = Mysqld::mariadb() else { return };
    rotation_under_load_fails_no_login(database);
}

#[test]
#[ignore = "heavy: initialises a MySQL"]
fn rotation_of_a_mysql_under_load_fails_no_login() {
    let Some(database) = Mysqld::mysql() else { return };
    rotation_under_load_fails_no_login(database);
}

fn rotation_under_load_fails_no_login(database: Mysqld) {
    let house = House::of(database);
    house.take_turns();
    rotates_under_load(&house.server, |account, password| {
        house.database.lets_in(account, password)
    });
}

#[test]
fn two_accounts_take_turns_in_a_real_mariadb() {
    let Some(database) = Mysqld::mariadb() else { return };
    two_accounts_take_turns(database);
}

#[test]
#[ignore = "heavy: initialises a MySQL"]
fn two_accounts_take_turns_in_a_real_mysql() {
    let Some(database) = Mysqld::mysql() else { return };
    two_accounts_take_turns(database);
}

fn two_accounts_take_turns(database: Mysqld) {
    let house = House::of(database);
    house.take_turns();
    let House { database, server, .. } = &house;
    let mut http = server.admin();
    let mut login = || {
        let read = http.done("GET", "/v1/secrets/db/value", "");
        let field = |name: &str| String::from_utf8(bytes(&read["fields"][name])).unwrap();
        (field("username"), field("password"))
    };
    let mut before = ("shop_a".to_owned(), "first".to_owned());
    for _ in 0..3 {
        server.cli("secret rotate db --end-overlap").ok();
        let (user, password) = login();
        assert_ne!(user, before.0);
        assert!(database.lets_in(&user, &password));
        assert!(database.lets_in(&before.0, &before.1), "the old account counts for a day");
        before = (user, password);
    }
    let forms = "SELECT COUNT(*), COUNT(DISTINCT authentication_string) FROM mysql.user \
                 WHERE User = 'shop_a'";
    assert_eq!(database.sql(forms), "2\t1");
    server.cli("database rotate-root shop").ok();
    server.cli("secret rotate db --end-overlap").ok();
    assert!(!database.lets_in(&before.0, "first"));
    // The one that would be next.
    database.sql("DROP USER shop_b@'localhost'");
    let refused = server.cli("secret rotate db --end-overlap");
    assert!(refused.failed(1).contains("shop_b"), "{}", refused.stderr);
    let log = database.log();
    assert!(!log.contains(&before.1) && log.contains("ALTER USER"), "the server logged a password");
}

#[test]
fn account_of_a_mariadb_comes_and_goes() {
    let Some(database) = Mysqld::mariadb() else { return };
    account_comes_and_goes(database);
}

#[test]
#[ignore = "heavy: initialises a MySQL"]
fn account_of_a_mysql_comes_and_goes() {
    let Some(database) = Mysqld::mysql() else { return };
    account_comes_and_goes(database);
}

fn account_comes_and_goes(database: Mysqld) {
    let house = House::of(database);
    let House { database, server, .. } = &house;
    database.sql("CREATE TABLE shop.t (a INT)");
    for (rest, why) in [("nobody", "nobody"), ("shop_rw --statement GRUNT", "syntax")] {
        let refused = server.cli(&format!("{CREATE} {rest}"));
        assert!(refused.failed(1).contains(why), "{rest}: {}", refused.stderr);
        assert_eq!(database.accounts(), "");
    }
    server.cli(&format!("{CREATE} shop_rw --ttl 5m")).ok();
    let (lease, user, password) = house.account();
    let own = (user.as_str(), password.as_str());
    let insert = database.client(own, "INSERT INTO shop.t VALUES (1)").status().unwrap();
    assert!(insert.success());
    let mut long = database.client(own, "SELECT SLEEP(600)").spawn().unwrap();
    let sleeps = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(6%'";
    let sleeps = format!("{sleeps} AND USER = '{user}'");
    until("a connection that lasts", || database.sql(&sleeps) == "1");
    server.cli(&format!("database lease revoke app {lease}")).ok();
    assert!(!long.wait().unwrap().success(), "its connections end");
    assert_eq!(
        (database.accounts(), database.sql("SELECT a FROM shop.t")),
        ("".into(), "1".into())
    );
    // An account without a lease goes.
    let stray = format!("{}0123456789abcdef01", user.split_at(14).0);
    database.sql(&format!("CREATE USER {stray}@'%', {stray}@localhost"));
    database.sql("CREATE USER lk_of_somebody_else@'%'");
    let mended = server.cli("database mend shop --output json").json();
    assert_eq!(mended["dropped"], json!([stray]));
    assert_eq!(database.accounts(), "lk_of_somebody_else");
    assert!(!database.log().contains(&password), "the server logged a password");
}

/// Neither what it may not see nor what would stop working is taken for nothing.
#[test]
#[ignore = "heavy: initialises a MySQL"]
fn account_of_a_mysql_that_cannot_be_dropped_is_locked_and_told() {
    let Some(database) = Mysqld::mysql() else { return };
    let house = House::of(database);
    let House { database, server, .. } = &house;
    let create = || server.cli(&format!("{CREATE} shop_rw --ttl 5m"));
    database.sql("REVOKE PROCESS ON *.* FROM lastkey@'%'");
    let refused = create();
    assert!(refused.failed(1).contains("PROCESS"), "{}", refused.stderr);
    assert_eq!(database.accounts(), "", "nothing was tried");
    database.sql("GRANT PROCESS ON *.* TO lastkey@'%'");
    create().ok();
    let (lease, user, password) = house.account();
    let refused = |why: &str| {
        server.cli(&format!("database lease revoke app {lease}"));
        let list = server.cli("database lease list app").ok();
        assert!(list.contains(why), "{why}: {list}");
        assert!(database.accounts() == user && !database.lets_in(&user, &password), "{why}");
    };
    database.sql("REVOKE PROCESS ON *.* FROM lastkey@'%'");
    refused("PROCESS");
    database.sql("GRANT PROCESS ON *.* TO lastkey@'%'");
    let definer = format!("CREATE DEFINER = {user}@'%' VIEW shop.v AS SELECT 1");
    database.sql(&definer);
    // The server itself says so where the root account does not see it.
    refused("definer");
    database.sql("GRANT SHOW VIEW ON shop.* TO lastkey@'%'");
    refused("the view shop.v has the account");
    database.sql("DROP VIEW shop.v");
    server.cli(&format!("database lease revoke app {lease}")).ok();
    until("the account is dropped", || database.accounts().is_empty());
}

/// Its root account would be locked out by the password that it is given.
#[test]
#[ignore = "heavy: initialises a MySQL"]
fn mysql_that_takes_no_password_of_ours_keeps_the_ones_that_it_has() {
    let Some(database) = Mysqld::mysql() else { return };
    let setting = "SHOW VARIABLES LIKE 'caching_sha2_password_enforce_storage_format'";
    if database.sql(setting).is_empty() {
        not_run("this MySQL is older than 9.7");
        return;
    }
    let house = House::empty(database);
    let House { database, server, .. } = &house;
    let format = "PBKDF2_SHA512";
    database.sql(&format!(
        "SET GLOBAL caching_sha2_password_storage_format = {format}; \
         SET GLOBAL caching_sha2_password_enforce_storage_format = ON; \
         ALTER USER lastkey@'%' IDENTIFIED BY 'first'"
    ));
    let address = database.address();
    let refused = server.cli(&format!("database add shop --address {address} {}", house.as_root()));
    assert!(refused.failed(1).contains("enforce_storage_format"), "{}", refused.stderr);
    assert!(database.lets_in("lastkey", "first"), "the root account was changed");
    let refused = server.cli(&format!("{CREATE} shop_rw"));
    assert!(refused.failed(1).contains("enforce_storage_format"), "{}", refused.stderr);
    assert!(database.lets_in("lastkey", "first") && database.accounts().is_empty());
    // What was drawn is set when it may be.
    database.sql("SET GLOBAL caching_sha2_password_enforce_storage_format = OFF");
    server.cli(&format!("{CREATE} shop_rw")).ok();
    assert!(!database.lets_in("lastkey", "first"));
}

/// Adds a database by a port on loopback, with the root account of the house.
fn add(house: &House, (name, port): (&str, u16), more: &str) -> Ended {
    let address = format!("--address mysql://localhost:{port}/shop {}", house.as_root());
    house.server.cli(&format!("database add {name} {address} --keep-password {more}"))
}

/// The authority of somebody else is not the one of this server, whichever it is.
fn is_spoken_to_by_tls(house: &House, port: u16) {
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_file = house.folder.path().join("other");
    fs::write(&other_file, other.cert.pem()).unwrap();
    let refused = add(house, ("other", port), &format!("--database-ca {}", other_file.display()));
    assert!(refused.failed(1).contains("certificate"), "{}", refused.stderr);
    let ours = house.database.path("certificate");
    add(house, ("shop", port), &format!("--database-ca {}", ours.display())).ok();
}

#[test]
fn mariadb_on_loopback_speaks_tls_when_its_authority_is_named() {
    let Some(database) = Mysqld::mariadb() else { return };
    let house = House::empty(database);
    let port = house.database.port();
    is_spoken_to_by_tls(&house, port);
    add(&house, ("clear", port), "").ok();
}

/// A server that has just been told a password asks for the password itself.
#[test]
#[ignore = "heavy: initialises a MySQL"]
fn mysql_is_given_the_password_itself_over_tls_and_not_in_the_clear() {
    let Some(database) = Mysqld::mysql() else { return };
    let house = House::empty(database);
    let port = house.database.port();
    let in_the_clear = || {
        let refused = add(&house, ("clear", port), "");
        assert!(refused.failed(1).contains("?socket=/FILE"), "{}", refused.stderr);
    };
    in_the_clear();
    is_spoken_to_by_tls(&house, port);
    // It knows the password now and would let in by an answer to its challenge, until there is another one.
    assert!(house.database.lets_in("lastkey", "first"));
    in_the_clear();
    house.server.cli("database rotate-root shop").ok();
    assert!(!house.database.lets_in("lastkey", "first"));
}
