//! Who may open a data directory, and who may read its files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use lastkey_core::ports::Expected;
use lastkey_store::sqlite::OpenError;
use lastkey_testkit::conformance::store::put;

use crate::open;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn directory_and_files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let (_sealed, store) = open(&dir).unwrap();
    store.commit(vec![put(1, Expected::Absent)]).await.unwrap();
    assert_eq!(mode(&dir), 0o700);
    for file in ["lock", "format", "records.db", "records.db-wal", "records.db-shm"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}

#[test]
fn second_opening_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::InUse(_))));
    drop(first);
    assert!(open(dir.path()).is_ok());
}

const OTHER_PROCESS: &str = "LASTKEY_TEST_OPEN_DIR";

#[test]
#[ignore = "run by the test below as another process"]
fn other_process() {
    let Some(dir) = std::env::var_os(OTHER_PROCESS) else { return };
    let refused = matches!(open(Path::new(&dir)), Err(OpenError::InUse(_)));
    std::process::exit(if refused { 42 } else { 43 });
}

#[test]
fn another_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let exit_code = || {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", "directory::other_process", "--ignored"]);
        other.env(OTHER_PROCESS, dir.path()).output().unwrap().status.code()
    };
    let first = open(dir.path()).unwrap();
    assert_eq!(exit_code(), Some(42));
    drop(first);
    assert_eq!(exit_code(), Some(43));
}

#[tokio::test]
async fn records_are_there_after_closing_and_the_journal_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (sealed, store) = open(dir.path()).unwrap();
    let first = store.commit(vec![put(1, Expected::Absent)]).await.unwrap();
    drop((sealed, store));
    assert!(!dir.path().join("records.db-wal").exists());
    let (_sealed, store) = open(dir.path()).unwrap();
    assert!(store.get(&put(1, Expected::Absent).path).await.unwrap().is_some());
    assert!(store.commit(vec![put(2, Expected::Absent)]).await.unwrap() > first);
}

#[test]
fn newer_data_directory_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::write(dir.path().join("format"), "lastkey data format 2\n").unwrap();
    let before = fs::read(dir.path().join("records.db")).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Newer(_)));
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(fs::read(dir.path().join("records.db")).unwrap(), before);
}

#[test]
fn newer_database_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let database = rusqlite::Connection::open(dir.path().join("records.db")).unwrap();
    database.pragma_update(None, "user_version", 3).unwrap();
    drop(database);
    assert!(matches!(open(dir.path()), Err(OpenError::Newer(_))));
}

#[test]
fn making_of_a_store_that_was_interrupted_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("records.db"), "").unwrap();
    drop(open(dir.path()).unwrap());
    fs::remove_file(dir.path().join("format")).unwrap();
    drop(open(dir.path()).unwrap());
    assert!(dir.path().join("format").exists());
}

#[test]
fn directory_without_its_database_is_damaged_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::remove_file(dir.path().join("records.db")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged(_))));
    assert!(!dir.path().join("records.db").exists());
}

#[test]
fn foreign_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.db");
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE other (a); PRAGMA user_version = 1;").unwrap();
    drop(foreign);
    let before = fs::read(&path).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn file_in_place_of_a_directory_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
}
