//! A million secrets in one store: a page of their list reads that page alone.

use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_testkit::fixtures;

use crate::open;

const SECRETS: u32 = 1_000_000;

fn name(number: u32) -> SecretName {
    SecretName::parse(&format!("prod/team-{:03}/{number:07}", number / 1_000)).unwrap()
}

fn put(number: u32) -> Write {
    let name = name(number);
    let item = fixtures::secret_item(name.as_str());
    let record = Some(Record::Secret(item));
    Write { path: RecordPath::secret(&name), expected: Expected::Absent, record }
}

#[tokio::test]
#[ignore = "heavy: writes a million records"]
async fn a_page_of_a_million_secrets_costs_what_a_page_costs() {
    let dir = tempfile::tempdir().unwrap();
    let (_sealed, store) = open(dir.path()).unwrap();
    for first in (0..SECRETS).step_by(20_000) {
        store.commit((first..first + 20_000).map(put).collect()).await.unwrap();
    }
    let all = SecretPath::default();
    for after in [None, Some(name(SECRETS / 2)), Some(name(SECRETS - 1_001))] {
        let begun = std::time::Instant::now();
        let range = PathRange::secrets(&all, after.as_ref().map(SecretName::as_str), 1_000);
        let page = store.scan(&range).await.unwrap();
        // A figure for people; nothing is asserted of it.
        eprintln!("1,000 of {SECRETS} after {after:?}: {:?}", begun.elapsed());
        assert_eq!(page.len(), 1_000);
        let first = after.map_or(0, |_| SECRETS / 2 + 1);
        let is_middle = page[0].path == RecordPath::secret(&name(first));
        let is_end = page[0].path == RecordPath::secret(&name(SECRETS - 1_000));
        assert!(is_middle || is_end, "{:?}", page[0].path);
    }
}
