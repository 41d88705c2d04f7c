//! A real MariaDB: two accounts in turn, and accounts that come and go.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::{base64, bytes};
use crate::postgres::{NOBODY, is_root, unprivileged};
use crate::process::{Running, not_run, until};
use crate::rotation::rotates_under_load;
use crate::world::{Server, text};

/// A server of a test's own: a folder, a socket in it, and no port. It ends when it is dropped.
struct MariaDb {
    folder: tempfile::TempDir,
    _server: Running,
}

impl MariaDb {
    /// Starts one; says loudly that the test did not run when there is none.
    fn start() -> Option<Self> {
        let (server, install) = ("/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db");
        if ![server, install, "/usr/bin/mariadb"].iter().all(|path| Path::new(path).exists()) {
            not_run("MariaDB is not installed (scripts/setup)");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("lk-my").tempdir_in("/tmp").unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let data = format!("--datadir={}", place("data"));
        let mut made = unprivileged(Path::new(install));
        made.args(["--no-defaults", &data, "--auth-root-authentication-method=normal"]);
        made.env("PATH", "/usr/sbin:/usr/bin:/bin");
        let made = made.args(["--skip-test-db", "--skip-log-bin"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut start = unprivileged(Path::new(server));
        start.args(["--no-defaults", &data, "--skip-networking", "--skip-log-bin"]);
        start.args(["--innodb-flush-log-at-trx-commit=0", "--general-log=1"]);
        for (setting, name) in [("socket", "s"), ("pid-file", "pid"), ("general-log-file", "log")] {
            start.arg(format!("--{setting}={}", place(name)));
        }
        let server = Running::start(&mut start);
        server.logs("ready for connections");
        let this = Self { folder, _server: server };
        this.sql("CREATE DATABASE shop; CREATE ROLE shop_rw; GRANT ALL ON shop.* TO shop_rw");
        this.sql("CREATE USER lastkey@'%' IDENTIFIED BY 'first'");
        this.sql("GRANT CREATE USER, CONNECTION ADMIN ON *.* TO lastkey@'%'");
        this.sql("GRANT SELECT, UPDATE ON mysql.* TO lastkey@'%'");
        this.sql("GRANT shop_rw TO lastkey@'%' WITH ADMIN OPTION");
        Some(this)
    }

    fn address(&self) -> String {
        format!("mariadb:///shop?socket={}", self.folder.path().join("s").display())
    }

    fn client(&self, (user, password): (&str, &str), sql: &str) -> Command {
        let mut client = Command::new("/usr/bin/mariadb");
        client.args(["--no-defaults", "-N", "-B", "-u", user, "-S"]);
        client.arg(self.folder.path().join("s")).args(["-e", sql]).env("MYSQL_PWD", password);
        client.stdin(Stdio::null());
        client
    }

    /// What a statement of its administrator answers.
    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        let done = self.client(("root", ""), sql).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn lets_in(&self, user: &str, password: &str) -> bool {
        self.client((user, password), "SELECT 1").output().unwrap().status.success()
    }

    fn accounts(&self) -> String {
        self.sql("SELECT User FROM mysql.user WHERE User LIKE 'lk\\_%'")
    }
}

/// A development server that knows the database as `shop`.
fn house() -> Option<(MariaDb, Server, tempfile::TempDir)> {
    let database = MariaDb::start()?;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::dev(&folder.path().join("data"));
    let first = folder.path().join("first");
    fs::write(&first, "first\n").unwrap();
    let add = format!("database add shop --address {} --user lastkey", database.address());
    server.cli(&format!("{add} --password-file {}", first.display())).ok();
    assert!(!database.lets_in("lastkey", "first"), "the root password is another one");
    Some((database, server, folder))
}

/// The secret `db`, whose two accounts take turns.
fn take_turns(database: &MariaDb, server: &Server) {
    // One account from two places: both forms of it are meant.
    database.sql("CREATE USER shop_a@'%' IDENTIFIED BY 'first'");
    database.sql("CREATE USER shop_a@'127.0.0.1' IDENTIFIED BY 'first'");
    database.sql("CREATE USER shop_b@'localhost' ACCOUNT LOCK");
    let fields = json!({ "username": base64(b"shop_a"), "password": base64(b"first") });
    let mut http = server.admin();
    http.done("PUT", "/v1/secrets/db", &json!({ "fields": fields }).to_string());
    server.cli("secret rotation set db --database shop --accounts shop_a,shop_b").ok();
}

#[test]
fn rotation_of_a_mariadb_under_load_fails_no_login() {
    let Some((database, server, _folder)) = house() else { return };
    take_turns(&database, &server);
    rotates_under_load(&server, |account, password| database.lets_in(account, password));
}

#[test]
fn two_accounts_take_turns_in_a_real_mariadb() {
    let Some((database, server, _folder)) = house() else { return };
    take_turns(&database, &server);
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
    let log = fs::read_to_string(database.folder.path().join("log")).unwrap();
    assert!(!log.contains(&before.1) && log.contains("ALTER USER"), "the server logged a password");
}

#[test]
fn account_of_a_mariadb_comes_and_goes() {
    let Some((database, server, _folder)) = house() else { return };
    database.sql("CREATE TABLE shop.t (a INT)");
    let create = "database role create app --database shop --member-of";
    for (rest, why) in [("nobody", "nobody"), ("shop_rw --statement GRUNT", "syntax")] {
        let refused = server.cli(&format!("{create} {rest}"));
        assert!(refused.failed(1).contains(why), "{rest}: {}", refused.stderr);
        assert_eq!(database.accounts(), "");
    }
    server.cli(&format!("{create} shop_rw --ttl 5m")).ok();
    let issued: Value = server.cli("database creds app --output json").json();
    let (user, password) = (text(&issued["lease"]["username"]), text(&issued["password"]));
    let own = (user.as_str(), password.as_str());
    let insert = database.client(own, "INSERT INTO shop.t VALUES (1)").status().unwrap();
    assert!(insert.success());
    let mut long = database.client(own, "SELECT SLEEP(600)").spawn().unwrap();
    let sleeps = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(6%'";
    let sleeps = format!("{sleeps} AND USER = '{user}'");
    until("a connection that lasts", || database.sql(&sleeps) == "1");
    let lease = text(&issued["lease"]["id"]);
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
    let log = fs::read_to_string(database.folder.path().join("log")).unwrap();
    assert!(!log.contains(&password), "the server logged a password");
}
