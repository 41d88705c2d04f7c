//! `lastkey exec`: what a program gets, what it does not get, and what happens when it changes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::process::{Running, names};
use crate::secret_sync::Role;
use crate::world::Server;

/// A server with one secret, and a client that knows it.
struct House {
    server: Server,
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        let house = Self { server, folder };
        house.put("app/db", "one");
        house
    }

    fn put(&self, name: &str, value: &str) {
        let file = self.folder.path().join("value");
        fs::write(&file, value).unwrap();
        let line = format!("secret put {name} --value-file {}", file.display());
        self.server.cli(&line).ok();
    }

    /// Runs this in a shell under `lastkey exec`.
    fn exec(&self, options: &str, script: &str) -> Running {
        let line = format!("exec --secret app/db {options} -- sh -c");
        let mut command = self.server.client(line.split_whitespace());
        Running::start(command.arg(script))
    }

    fn told(&self, options: &str, script: &str) -> (Option<i32>, String, String) {
        let mut running = self.exec(options, script);
        let status = running.ended();
        let (out, err) = running.output();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(out), text(err))
    }
}

/// A name in memory that nobody has.
fn in_memory(folder: &Path) -> PathBuf {
    let own = folder.file_name().unwrap().to_str().unwrap();
    PathBuf::from(format!("/dev/shm/lastkey-test{own}"))
}

#[test]
fn a_program_gets_the_secret_and_not_the_token() {
    let house = House::new();
    let script = "echo \"$DB ${LASTKEY_TOKEN:-no token}\"; exit 7";
    let (code, out, _) = house.told("", script);
    assert_eq!((code, out.as_str()), (Some(7), "one no token\n"));
    let (_, out, _) = house.told("--prefix APP_", "echo $APP_DB");
    assert_eq!(out, "one\n");
    let (_, out, _) = house.told("--secret OTHER=app/db", "echo $OTHER");
    assert_eq!(out, "one\n");
    let (code, _, err) = house.told("--secret app/none", "true");
    assert!(code == Some(4) && err.contains("AccessDenied"), "{err}");
    house.put("app/DB", "again");
    let (code, _, err) = house.told("--secret app/DB", "true");
    assert!(code == Some(2) && err.contains("given twice") && !err.contains("again"), "{err}");
}

#[test]
fn a_field_cannot_choose_what_a_program_loads() {
    let house = House::new();
    let file = house.folder.path().join("field");
    fs::write(&file, "/evil").unwrap();
    let line = format!("secret put app/fields --field-file ld.preload={}", file.display());
    house.server.cli(&line).ok();
    let (code, _, err) = house.told("--secret app/fields", "true");
    assert!(code == Some(2) && err.contains("LD_PRELOAD") && err.contains("--prefix"), "{err}");
    let (_, out, err) = house.told("--secret app/fields --prefix APP_", "echo $APP_LD_PRELOAD");
    assert_eq!(out, "/evil\n", "{err}");
}

#[test]
fn files_lie_in_memory_and_go_when_the_program_ends() {
    let house = House::new();
    let folder = in_memory(house.folder.path());
    let options = format!("--files {}", folder.display());
    let script =
        "cat $LASTKEY_SECRETS_DIR/app/db; stat -c ' %a' $LASTKEY_SECRETS_DIR/app/db; exit 3";
    let (code, out, err) = house.told(&options, script);
    assert_eq!((code, out.as_str()), (Some(3), "one 400\n"), "{err}");
    assert!(!folder.exists());
    // One that is there may be somebody's: it is left alone.
    fs::create_dir(&folder).unwrap();
    let (code, _, err) = house.told(&options, "true");
    assert!(code == Some(2) && err.contains("is there already"), "{err}");
    fs::remove_dir(&folder).unwrap();
    // Cargo's own folder is on a disk.
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("exec-on-disk");
    let (code, _, err) = house.told(&format!("--files {}", disk.display()), "true");
    assert!(code == Some(2) && err.contains("tmpfs"), "{err}");
    assert!(!disk.exists());
}

#[test]
fn a_program_starts_anew_when_its_secret_changes_and_ends_by_a_signal() {
    let house = House::new();
    let mut running = house.exec(
        "--on-change restart",
        "trap 'exit 9' TERM; echo \"has $DB\"; while :; do sleep 0.1; done",
    );
    running.says("has one").unwrap();
    house.put("app/db", "two");
    running.says("has two").unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(9));
}

#[test]
fn a_version_that_cannot_be_delivered_leaves_the_program_alone() {
    let house = House::new();
    let script = "trap 'exit 9' TERM; echo \"has $DB\"; while :; do sleep 0.1; done";
    let mut running = house.exec("--on-change restart", script);
    running.says("has one").unwrap();
    house.put("app/db", "a zero\0byte");
    let told = running.logs("the program keeps what it has");
    assert!(told.contains("zero byte") && running.lives(), "{told}");
    house.put("app/db", "two");
    running.says("has two").unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(9));
}

#[test]
fn a_signal_to_end_is_heard_while_the_program_ends_for_a_restart() {
    let house = House::new();
    let script = "end=0; trap 'end=$((end+1)); echo \"ending $end\"' TERM; echo \"has $DB\"; \
                  while [ $end -lt 2 ]; do sleep 0.1; done; exit 9";
    let mut running = house.exec("--on-change restart", script);
    running.says("has one").unwrap();
    house.put("app/db", "two");
    running.says("ending 1").unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(9));
    assert!(!running.said().contains("has two"), "{}", running.said());
}

#[test]
fn a_program_is_told_by_hangup_and_finds_the_new_value_in_its_file() {
    let house = House::new();
    let folder = in_memory(house.folder.path());
    let options = format!("--on-change hangup --files {}", folder.display());
    let script = "trap 'echo \"has $(cat $LASTKEY_SECRETS_DIR/app/db)\"' HUP; echo ready; while :; do sleep 0.1; done";
    let mut running = house.exec(&options, script);
    running.says("ready").unwrap();
    house.put("app/db", "two");
    running.says("has two").unwrap();
    assert_eq!(names(&folder.join("app")), ["db"]);
    running.signal(Signal::QUIT);
    assert_eq!(running.ended().code(), Some(128 + 3));
    assert!(!folder.exists());
}

#[test]
fn a_program_outlives_the_token_that_it_was_started_with() {
    let role = Role::made();
    role.put(b"one");
    let token = role.log_in();
    let mut command = role.client("exec --secret prod/db --on-change restart -- sh -c", &token);
    let script = "trap 'exit 9' TERM; echo \"has $DB\"; while :; do sleep 0.1; done";
    let mut running = Running::start(command.arg(script));
    running.says("has one").unwrap();
    role.server.cli(&format!("burn {token}")).ok();
    role.put(b"two");
    running.logs("warning: the secrets cannot be watched now");
    assert!(running.lives() && !running.said().contains("has two"));
    role.log_in();
    running.says("has two").unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code(), Some(9));
}
