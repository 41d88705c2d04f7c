//! Accounts that are made for one caller, in a real PostgreSQL: what they own stays when they go,
//! wherever the server was killed.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::http::Http;
use crate::postgres::Postgres;
use crate::process::until;
use crate::world::{Server, dev_command, text};

/// A role of the database with a name that has to be quoted.
const GROUP: &str = "shop\"rw";

/// A development server, and a database that it knows as `shop`.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) postgres: Postgres,
    folder: tempfile::TempDir,
}

/// Makes the root account, and the group that owns what accounts make.
pub(crate) fn prepare(postgres: &Postgres) {
    postgres.sql("CREATE ROLE lastkey LOGIN CREATEROLE PASSWORD 'first'");
    postgres.sql(r#"CREATE ROLE "shop""rw"; GRANT "shop""rw" TO lastkey WITH ADMIN OPTION"#);
    postgres.sql(r#"CREATE SCHEMA shop AUTHORIZATION "shop""rw""#);
}

impl House {
    fn new() -> Option<Self> {
        let postgres = Postgres::start()?;
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        prepare(&postgres);
        let house = Self { server, postgres, folder };
        house.write("first", "first\n");
        house.cli(&format!(
            "database add shop --address {} --user lastkey --password-file {}",
            house.postgres.address(),
            house.path("first")
        ));
        Some(house)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    #[track_caller]
    fn cli(&self, line: &str) -> String {
        self.server.cli(line).ok()
    }

    /// The role `app`, whose accounts see the schema of the shop first.
    #[track_caller]
    fn role(&self) {
        self.write("sql", "ALTER ROLE {{user}} SET search_path = shop; -- theirs\n");
        let file = self.path("sql");
        let line = format!("database role create app --database shop --member-of {GROUP} --ttl 5m");
        self.cli(&format!("{line} --statements-file {file}"));
    }

    /// The accounts that there are in the database.
    fn accounts(&self) -> BTreeSet<String> {
        let sql = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'lk\\_%'";
        self.postgres.one(sql).lines().map(str::to_owned).collect()
    }
}

#[test]
fn account_is_made_for_whoever_asks_and_what_it_made_stays() {
    let Some(house) = House::new() else { return };
    let postgres = &house.postgres;
    house.role();
    postgres.sql("CREATE DATABASE other");
    let grant = r#"GRANT CREATE ON SCHEMA public TO "shop""rw""#;
    postgres.sql(grant);
    postgres.one_at("other", grant);
    let issued = house.server.cli("database creds app --output json").json();
    let (user, password) = (text(&issued["lease"]["username"]), text(&issued["password"]));
    let own = (user.as_str(), password.as_str());
    assert!(postgres.lets_in(&user, &password));
    let is_done = |at: &str, sql: &str| postgres.psql(own, at, sql).status().unwrap().success();
    assert!(is_done("shop", "CREATE TABLE mine (a int); INSERT INTO mine VALUES (1)"));
    let owner = |at: &str, table: &str| {
        postgres
            .one_at(at, &format!("SELECT tableowner FROM pg_tables WHERE tablename = '{table}'"))
    };
    assert_eq!(owner("shop", "mine"), GROUP);
    // What it makes as itself, here and in another database, is its own until it goes.
    assert!(is_done("shop", "SET ROLE NONE; CREATE TABLE public.stray (a int)"));
    assert!(is_done("other", "SET ROLE NONE; CREATE TABLE public.far (a int)"));
    assert_eq!((owner("shop", "stray"), owner("other", "far")), (user.clone(), user.clone()));
    // Nor does it choose its heir, or what the root account calls.
    assert!(is_done("shop", "SET ROLE NONE; ALTER ROLE CURRENT_USER SET role = 'none'"));
    let false_one = "CREATE FUNCTION public.make_interval(secs text) RETURNS interval LANGUAGE sql \
                     AS 'SELECT NULL::interval'";
    assert!(is_done("shop", false_one));
    let about = |what: &str| {
        postgres.one(&format!("SELECT {what} FROM pg_authid WHERE rolname = '{user}'"))
    };
    assert!(about("rolpassword").starts_with("SCRAM-SHA-256$4096:"));
    assert_eq!(about("rolvaliduntil BETWEEN now() AND now() + interval '7 min'"), "t");
    let mut long = postgres.psql(own, "shop", "SELECT pg_sleep(600)").spawn().unwrap();
    let asks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(600)'";
    let asks = format!("{asks} AND usename = '{user}'");
    until("a connection that lasts", || postgres.one(&asks) == "1");
    let listed = house.cli("database lease list app");
    assert!(listed.contains(&user) && listed.contains("in_use") && !listed.contains(&password));

    let lease = text(&issued["lease"]["id"]);
    house.cli(&format!("database lease renew app {lease}"));
    house.cli(&format!("database lease revoke app {lease}"));
    assert!(!long.wait().unwrap().success(), "its connections end");
    assert!(!postgres.lets_in(&user, &password));
    assert!(house.accounts().is_empty());
    assert_eq!(owner("shop", "stray"), GROUP);
    assert_eq!((owner("shop", "mine"), owner("other", "far")), (GROUP.into(), GROUP.into()));
    assert_eq!(postgres.one("SELECT a FROM shop.mine"), "1");
    assert!(house.cli("database lease list app").contains("none"));
    assert!(!postgres.log().contains(&password), "the database logged a password");
    let log = house.server.process.complaint();
    assert!(!log.contains(&password), "{log}");
}

#[test]
fn database_that_refuses_says_why_and_nothing_is_left_of_it() {
    let Some(house) = House::new() else { return };
    let create = "database role create bad --database shop --member-of";
    for (rest, why) in [
        ("nobody_there", "does not exist"),
        (&format!("{GROUP} --statement GRUNT"), "syntax error"),
        (&format!("{GROUP} --statement {{{{name}}}}"), "{{user}}"),
        (&format!("{GROUP} --ttl 1m"), "5 minutes"),
    ] {
        let refused = house.server.cli(&format!("{create} {rest}"));
        assert!(refused.failed(1).contains(why), "{rest}: {}", refused.stderr);
    }
    assert!(house.cli("database role list").contains("none"));
    assert!(house.accounts().is_empty());
    house.role();
    assert!(house.server.cli("database remove shop --yes").failed(1).contains("role list"));
    // What is there without a lease goes, and so does a lease whose account somebody dropped.
    let issued = house.server.cli("database creds app --output json").json();
    let user = text(&issued["lease"]["username"]);
    let stray = format!("{}0123456789abcdef01", user.split_at(14).0);
    house.postgres.sql(&format!("CREATE ROLE {stray}; CREATE ROLE lk_of_somebody_else"));
    house.postgres.sql(&format!("DROP ROLE {user}"));
    let mended = house.server.cli("database mend shop --output json").json();
    assert_eq!(mended["dropped"], json!([stray]));
    assert_eq!(mended["ended"].as_array().unwrap().len(), 1);
    assert_eq!(house.accounts(), ["lk_of_somebody_else".to_owned()].into());
    assert!(house.cli("database mend shop").contains("none"));
    // A role that is deleted takes its accounts along, by itself.
    house.cli("database creds app");
    assert_eq!(house.accounts().len(), 2);
    house.cli("database role delete app");
    until("the account of the role is dropped", || house.accounts().len() == 1);
    let metrics = house.server.admin().answer("GET", "/metrics", "").text();
    assert!(metrics.contains("lastkey_database_lease_acts_total{result=\"made\"} 2"), "{metrics}");
}

/// Asks for an account and ends it again, as long as somebody answers.
fn ask_and_end(mut http: Http) {
    let role = "/v1/database-roles/app";
    for round in 0..20 {
        // The connection breaks when the server is killed.
        let issued = http.send("POST", &format!("{role}/credentials"), b"");
        let Ok(issued) = issued else { return };
        let issued: Value = issued.json();
        let Some(id) = issued["lease"]["id"].as_str() else { return };
        let ended = format!("{role}/leases/{id}");
        if round % 2 == 0 && http.send("DELETE", &ended, b"").is_err() {
            return;
        }
    }
}

/// The server is killed while accounts are made and dropped, at a moment that differs each time. No
/// account is ever without a lease, and none that somebody was given is lost.
#[test]
fn server_killed_while_accounts_come_and_go_leaves_none_without_a_lease() {
    let Some(mut house) = House::new() else { return };
    house.role();
    let data = house.folder.path().join("data");
    for round in 1..6_u32 {
        let http = house.server.admin();
        std::thread::scope(|scope| {
            scope.spawn(move || ask_and_end(http));
            (0..round * 3_000_000).for_each(|_| std::hint::spin_loop());
            house.server.process.kill();
        });
        house.server = Server::dev_by(&mut dev_command(&data), &data);
        house.cli("database mend shop");
        // The first one left nothing to do, and does not take its own work for amiss.
        let again = house.server.cli("database mend shop --output json").json();
        let nothing = json!({ "dropped": [], "made_again": [], "ended": [] });
        assert_eq!(again, nothing, "round {round}");
        let leases = house.server.cli("database lease list app --output json").json();
        let leases = leases["leases"].as_array().unwrap().clone();
        let of = |state: &str| -> BTreeSet<String> {
            let of_it = leases.iter().filter(|lease| state.is_empty() || lease["state"] == state);
            of_it.map(|lease| text(&lease["username"])).collect()
        };
        let accounts = house.accounts();
        assert!(accounts.is_subset(&of("")), "round {round}: {accounts:?}, {leases:?}");
        assert!(of("in_use").is_subset(&accounts), "round {round}: {accounts:?}, {leases:?}");
    }
}
