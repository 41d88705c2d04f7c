//! A process that is killed at any moment loses nothing that it acknowledged, and leaves every
//! batch whole or absent.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lastkey_core::ports::{Expected, Store, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_crypto::entropy::Entropy as _;
use lastkey_testkit::entropy::Seeded;
use lastkey_testkit::fixtures;

use crate::{at, open};

const WRITERS: u64 = 8;
const DIR: &str = "LASTKEY_TEST_CRASH_DIR";

/// Path of the record that each batch of a writer writes once more; its revision counts them.
fn counter(writer: u64) -> RecordPath {
    RecordPath::key(fixtures::key_id(writer))
}

/// Path of one of the three records that only this batch writes.
fn member(writer: u64, batch: u64, part: u64) -> RecordPath {
    let number = fixtures::version_no(u32::try_from(batch * 3 + part + 1).unwrap());
    RecordPath::version(fixtures::key_id(writer), number)
}

/// Batch `n` of a writer, from 0.
fn batch(writer: u64, n: u64) -> Vec<Write> {
    let expected = if n == 0 { Expected::Absent } else { at(n) };
    let record = Some(Record::Key(fixtures::full_key(writer)));
    let mut batch = vec![Write { path: counter(writer), expected, record }];
    batch.extend((0..3).map(|part| {
        let record = Some(Record::Version(fixtures::key_version(writer, 1)));
        Write { path: member(writer, n, part), expected: Expected::Absent, record }
    }));
    batch
}

async fn committed(store: &dyn Store, writer: u64) -> u64 {
    store.get(&counter(writer)).await.unwrap().map_or(0, |stored| stored.revision.0)
}

async fn write_for_ever(store: Arc<dyn Store>, writer: u64) {
    for n in committed(&*store, writer).await.. {
        store.commit(batch(writer, n)).await.unwrap();
        writeln!(std::io::stdout().lock(), "\nacknowledged {writer} {n}").unwrap();
        if writer == 0 && n % 64 == 63 {
            store.erase_residue().await.unwrap();
        }
    }
}

#[test]
#[ignore = "run by the test below as another process"]
fn process_to_be_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let (_sealed, store) = open(Path::new(&dir)).unwrap();
        let writers: Vec<_> =
            (1..=WRITERS).map(|w| tokio::spawn(write_for_ever(store.clone(), w - 1))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::process_to_be_killed", "--ignored", "--nocapture"]);
    command.env(DIR, dir).stdout(Stdio::piped()).spawn().unwrap()
}

/// Kills the process after it acknowledged so many batches; notes all that it acknowledged.
fn kill_after(mut child: Child, acknowledgements: u64, last: &mut [Option<u64>]) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    for line in lines {
        // The last line may be cut short by the kill; it then is no acknowledgement.
        let Ok(line) = line else { break };
        let Some(words) = line.strip_prefix("acknowledged ") else { continue };
        let Some((writer, n)) = words.split_once(' ') else { continue };
        let (Ok(writer), Ok(n)) = (writer.parse::<usize>(), n.parse()) else { continue };
        last[writer] = last[writer].max(Some(n));
        seen += 1;
        if seen == acknowledgements {
            child.kill().unwrap();
        }
    }
    assert!(seen >= acknowledgements, "the process died by itself after {seen}");
    child.wait().unwrap();
}

async fn check(dir: &Path, last: &[Option<u64>], checked: &mut [u64]) {
    let (_sealed, store) = open(dir).unwrap();
    for (writer, last) in (0..).zip(last) {
        let committed = committed(&*store, writer).await;
        let acknowledged = last.map_or(0, |n| n + 1);
        assert!(committed >= acknowledged, "writer {writer}: {committed} of {acknowledged}");
        let from = &mut checked[usize::try_from(writer).unwrap()];
        for n in *from..committed + 2 {
            for part in 0..3 {
                let found = store.get(&member(writer, n, part)).await.unwrap();
                assert_eq!(found.is_some(), n < committed, "writer {writer}, {n} of {committed}");
            }
        }
        *from = committed;
    }
}

#[tokio::test]
async fn killed_process_loses_nothing_acknowledged_and_leaves_batches_whole() {
    let kills = if std::env::var_os("LASTKEY_LONG").is_some() { 500 } else { 10 };
    let dir = tempfile::tempdir().unwrap();
    let mut entropy = Seeded::new(9);
    let mut last = vec![None; WRITERS as usize];
    let mut checked = vec![0; WRITERS as usize];
    for _ in 0..kills {
        let mut random = [0; 1];
        entropy.fill(&mut random).unwrap();
        kill_after(start(dir.path()), u64::from(random[0]) + 1, &mut last);
        check(dir.path(), &last, &mut checked).await;
    }
}
