//! Managed secrets: versions, stages, limits, life; and that nobody learns more than policy says.

mod confirm;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::ids::{InstanceId, KeyRef, VersionNo};
use lastkey_core::key::{DeletionWindow, Tags};
use lastkey_core::ports::{Expected, RecordKeys, SealedStore as _, Store, StoreError, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::secret_item::{SecretName, SecretPath, Stage, ValueKind};
use lastkey_core::secret_value::Fields;
use lastkey_core::time::Timestamp;
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::StateChange;
use lastkey_service::ops::ask_policy::{About, Whose};
use lastkey_service::ops::secrets::{
    Listed, PutRequest, Search, SecretChange, SecretView, Transfer, Value, Which,
};
use lastkey_testkit::fixtures;

use crate::world::{Named as _, World, admin, alias, call_by, code, none, request, world};

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn no(number: u32) -> VersionNo {
    VersionNo::new(number).unwrap()
}

fn put_request(value: &[u8]) -> PutRequest {
    PutRequest {
        value: Value { kind: ValueKind::Opaque, bytes: SecretVec::copy_of(value) },
        key: None,
        description: None,
        tags: None,
        expected_version: None,
        stage: None,
        keep: None,
    }
}

impl World {
    async fn put(&self, at: &str, value: &[u8]) -> Result<SecretView, Error> {
        self.engine.put_secret(admin(), name(at), put_request(value)).await
    }

    async fn get(&self, at: &str, which: Which) -> Result<Vec<u8>, Error> {
        let read = self.engine.get_secret(admin(), &name(at), &which).await?;
        Ok(read.value.bytes.expose(<[u8]>::to_vec))
    }

    async fn current(&self, at: &str) -> Result<Vec<u8>, Error> {
        self.get(at, Which::Stage(Stage::current())).await
    }

    async fn change_secret(&self, at: &str, change: SecretChange) -> Result<SecretView, Error> {
        self.engine.change_secret(admin(), name(at), change).await
    }

    fn records(&self) -> Arc<dyn Store> {
        let keys = RecordKeys { instance: InstanceId([0; 16]), by_epoch: Vec::new() };
        self.store.open(keys).unwrap()
    }

    async fn paths(&self, prefix: &str) -> Vec<String> {
        let range = PathRange { prefix: prefix.to_owned(), after: None, limit: usize::MAX };
        let found = self.records().scan(&range).await.unwrap();
        found.iter().map(|stored| stored.path.as_str().to_owned()).collect()
    }

    /// Puts the first two records with a prefix each in the other's place.
    async fn swap_first_two(&self, prefix: &str) {
        let range = PathRange { prefix: prefix.to_owned(), after: None, limit: 2 };
        let found = self.records().scan(&range).await.unwrap();
        let swapped = found.iter().zip(found.iter().rev()).map(|(at, other)| Write {
            path: at.path.clone(),
            expected: Expected::At(at.revision),
            record: Some(other.record.clone()),
        });
        self.records().commit(swapped.collect()).await.unwrap();
    }

    async fn names(&self, search: &Search) -> Vec<String> {
        let page = self.engine.list_secrets(admin(), search, None, 100).await.unwrap();
        assert_eq!(page.next, None);
        page.entries.into_iter().map(told).collect()
    }
}

fn told(entry: Listed) -> String {
    match entry {
        Listed::Secret(view) => view.item.name.to_string(),
        Listed::Path(path) => path,
    }
}

#[tokio::test]
async fn a_value_comes_back_by_number_and_by_stage() {
    let world = world().await;
    world.put("a/b", b"one").await.unwrap();
    let view = world.put("a/b", b"two").await.unwrap();
    assert_eq!((view.item.newest, view.item.current()), (no(2), Some(no(2))));
    assert_eq!(world.current("a/b").await.unwrap(), b"two");
    assert_eq!(world.get("a/b", Which::Number(no(1))).await.unwrap(), b"one");
    let previous = Which::Stage(Stage::parse("previous").unwrap());
    assert_eq!(world.get("a/b", previous).await.unwrap(), b"one");
    let absent = Which::Number(no(3));
    assert_eq!(code(world.get("a/b", absent).await), "SecretState");
}

#[tokio::test]
async fn a_value_survives_a_seal() {
    let world = world().await;
    world.put("a/b", b"one").await.unwrap();
    world.gate.seal(admin()).await.unwrap();
    let world = world.unseal_again().await;
    assert_eq!(world.current("a/b").await.unwrap(), b"one");
}

#[tokio::test]
async fn a_stale_compare_and_set_writes_nothing() {
    let world = world().await;
    let put = |expected| {
        let request = PutRequest { expected_version: Some(expected), ..put_request(b"x") };
        world.engine.put_secret(admin(), name("a"), request)
    };
    assert_eq!(code(put(1).await), "Conflict");
    put(0).await.unwrap();
    assert_eq!(code(put(0).await), "Conflict");
    put(1).await.unwrap();
    assert_eq!(code(put(1).await), "Conflict");
    let (_, versions) = world.engine.secret_versions(admin(), &name("a")).await.unwrap();
    assert_eq!(versions.len(), 2);
}

#[tokio::test]
async fn of_two_writers_at_once_each_gets_a_version_or_a_conflict() {
    let world = world().await;
    world.put("a", b"0").await.unwrap();
    let put = |expected| {
        let request = PutRequest { expected_version: expected, ..put_request(b"x") };
        world.engine.put_secret(admin(), name("a"), request)
    };
    let (one, two) = tokio::join!(put(Some(1)), put(Some(1)));
    assert_ne!(one.is_ok(), two.is_ok());
    let (one, two) = tokio::join!(put(None), put(None));
    assert_ne!(one.unwrap().item.newest, two.unwrap().item.newest);
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_and_the_limit_is_named() {
    let world = world().await;
    world.put("a", &[7; 65_536]).await.unwrap();
    let refused = world.put("a", &[7; 65_537]).await.unwrap_err();
    assert!(refused.to_string().contains("65536"), "{refused}");
    let garbled = Value { kind: ValueKind::Fields, bytes: SecretVec::copy_of(b"hunter2") };
    let request = PutRequest { value: garbled, ..put_request(b"") };
    let refused = world.engine.put_secret(admin(), name("a"), request).await.unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn fields_come_back_as_fields() {
    let world = world().await;
    let fields = Fields::new(vec![("user".to_owned(), SecretVec::copy_of(b"app"))]).unwrap();
    let value = Value { kind: ValueKind::Fields, bytes: fields.encode().unwrap() };
    let request = PutRequest { value, ..put_request(b"") };
    world.engine.put_secret(admin(), name("a"), request).await.unwrap();
    let current = Which::Stage(Stage::current());
    let read = world.engine.get_secret(admin(), &name("a"), &current).await.unwrap();
    assert_eq!(read.version.kind, ValueKind::Fields);
    let fields = read.value.bytes.expose(Fields::parse).unwrap().into_inner();
    assert!(fields[0].0 == "user" && fields[0].1.expose(|value| value == b"app"));
}

#[tokio::test]
async fn old_versions_go_and_their_values_with_them() {
    let world = world().await;
    let request = PutRequest { keep: Some(2), ..put_request(b"1") };
    world.engine.put_secret(admin(), name("a"), request).await.unwrap();
    for value in [b"2", b"3", b"4"] {
        world.put("a", value).await.unwrap();
    }
    let (item, versions) = world.engine.secret_versions(admin(), &name("a")).await.unwrap();
    assert_eq!(item.kept, [no(3), no(4)]);
    assert_eq!(versions.len(), 2);
    let values = world.paths("secret-value/").await;
    assert_eq!(values.len(), 2, "{values:?}");
}

#[tokio::test]
async fn current_can_go_back_to_an_older_version() {
    let world = world().await;
    world.put("a", b"good").await.unwrap();
    world.put("a", b"bad").await.unwrap();
    world.change_secret("a", SecretChange::Place(Stage::current(), no(1))).await.unwrap();
    assert_eq!(world.current("a").await.unwrap(), b"good");
    let gone = SecretChange::Place(Stage::current(), no(9));
    assert_eq!(code(world.change_secret("a", gone).await), "InvalidRequest");
    let current = SecretChange::Unplace(Stage::current());
    assert_eq!(code(world.change_secret("a", current).await), "InvalidRequest");
}

#[tokio::test]
async fn a_destroyed_version_cannot_be_read_or_made_current() {
    let world = world().await;
    world.put("a", b"old").await.unwrap();
    world.put("a", b"new").await.unwrap();
    assert_eq!(
        code(world.change_secret("a", SecretChange::DestroyVersion(no(2))).await),
        "InvalidRequest"
    );
    let view = world.change_secret("a", SecretChange::DestroyVersion(no(1))).await.unwrap();
    assert!(!view.item.stages.values().any(|at| *at == no(1)));
    assert_eq!(code(world.get("a", Which::Number(no(1))).await), "SecretState");
    let back = SecretChange::Place(Stage::current(), no(1));
    assert_eq!(code(world.change_secret("a", back).await), "SecretState");
    assert_eq!(world.paths("secret-value/").await.len(), 1);
}

/// A plan that was made before another one of the same secret was carried out must be made anew.
#[tokio::test]
async fn a_version_is_destroyed_or_made_current_and_never_both() {
    let world = world().await;
    world.put("a", b"old").await.unwrap();
    world.put("a", b"mid").await.unwrap();
    world.put("a", b"new").await.unwrap();
    let path = RecordPath::secret(&name("a"));
    let read = world.records().get(&path).await.unwrap().unwrap();
    // Nothing stands at the first version, so that its end leaves the stages as they are.
    world.change_secret("a", SecretChange::DestroyVersion(no(1))).await.unwrap();
    let late = Write {
        path: path.clone(),
        expected: Expected::At(read.revision),
        record: Some(read.record),
    };
    let refused = world.records().commit(vec![late]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict), "{refused}");
    let back = SecretChange::Place(Stage::current(), no(1));
    assert_eq!(code(world.change_secret("a", back).await), "SecretState");
    world.change_secret("a", SecretChange::Place(Stage::current(), no(2))).await.unwrap();
    let end = SecretChange::DestroyVersion(no(2));
    assert_eq!(code(world.change_secret("a", end).await), "InvalidRequest");
    assert_eq!(world.current("a").await.unwrap(), b"mid");
}

#[tokio::test]
async fn a_deleted_secret_is_used_by_nobody_and_comes_back_whole() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    let window = DeletionWindow::from_days(7).unwrap();
    let view = world.change_secret("a", SecretChange::Delete(window)).await.unwrap();
    assert_eq!(view.deletion_at, Some(Timestamp(1_800_000_000 + 7 * 86_400)));
    assert_eq!(code(world.current("a").await), "SecretState");
    assert_eq!(code(world.put("a", b"two").await), "SecretState");
    assert_eq!(code(world.change_secret("a", SecretChange::Delete(window)).await), "SecretState");
    let all = Search { recursive: true, ..Search::default() };
    assert_eq!(world.names(&all).await, Vec::<String>::new());
    assert_eq!(world.names(&Search { deleted: true, ..all }).await, ["a"]);
    world.change_secret("a", SecretChange::Restore).await.unwrap();
    assert_eq!(world.current("a").await.unwrap(), b"one");
    assert_eq!(code(world.change_secret("a", SecretChange::Restore).await), "SecretState");
    assert_eq!(world.paths("secret-due/").await.len(), 0);
}

#[tokio::test]
async fn a_deleted_secret_is_destroyed_when_its_window_has_passed_and_not_before() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    let window = DeletionWindow::from_days(7).unwrap();
    world.change_secret("a", SecretChange::Delete(window)).await.unwrap();
    world.clock.pass(Duration::from_secs(7 * 86_400 - 1));
    world.engine.run_secrets_due().await;
    assert_eq!(world.paths("secret/").await.len(), 1);
    world.clock.pass(Duration::from_secs(1));
    world.engine.run_secrets_due().await;
    assert_eq!(world.paths("secret").await.len(), 0, "{:?}", world.paths("secret").await);
    world.put("a", b"again").await.unwrap();
}

#[tokio::test]
async fn destroy_leaves_nothing_and_frees_the_name() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    world.put("a", b"two").await.unwrap();
    world.change_secret("a", SecretChange::Destroy).await.unwrap();
    assert_eq!(world.paths("secret").await.len(), 0);
    assert_eq!(code(world.current("a").await), "AccessDenied");
    assert_eq!(world.put("a", b"new").await.unwrap().item.newest, no(1));
}

#[tokio::test]
async fn a_moved_secret_takes_its_versions_along_and_leaves_nothing_behind() {
    let world = world().await;
    world.put("a/b", b"one").await.unwrap();
    world.put("a/b", b"two").await.unwrap();
    let both = (name("a/b"), name("c/d"));
    let moved = world.engine.transfer_secret(admin(), both, Transfer::Move).await.unwrap();
    assert_eq!((moved.item.name.as_str(), moved.item.newest), ("c/d", no(2)));
    assert_eq!(world.get("c/d", Which::Number(no(1))).await.unwrap(), b"one");
    assert_eq!(world.current("c/d").await.unwrap(), b"two");
    assert_eq!(code(world.current("a/b").await), "AccessDenied");
    world.put("a/b", b"other").await.unwrap();
    let both = (name("a/b"), name("c/d"));
    for transfer in [Transfer::Move, Transfer::Copy] {
        let refused = world.engine.transfer_secret(admin(), both.clone(), transfer).await;
        assert_eq!(code(refused), "AlreadyExists");
    }
}

#[tokio::test]
async fn a_copy_is_a_secret_of_its_own() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    world.put("a", b"two").await.unwrap();
    let both = (name("a"), name("b"));
    let copy = world.engine.transfer_secret(admin(), both, Transfer::Copy).await.unwrap();
    assert_eq!(copy.item.newest, no(1));
    world.put("a", b"three").await.unwrap();
    assert_eq!(world.current("b").await.unwrap(), b"two");
}

#[tokio::test]
async fn a_copy_keeps_the_key_of_its_source() {
    let world = world().await;
    let key = world.create_as(request(MaterialSpec::Aes256)).await.key_ref();
    let chosen = PutRequest { key: Some(key.clone()), ..put_request(b"one") };
    world.engine.put_secret(admin(), name("a"), chosen).await.unwrap();
    let both = (name("a"), name("b"));
    let copy = world.engine.transfer_secret(admin(), both, Transfer::Copy).await.unwrap();
    assert_eq!(KeyRef::Id(copy.item.key), key);
    world.put("a", b"two").await.unwrap();
    let impact = world.engine.impact(admin(), key.clone()).await.unwrap();
    assert_eq!((impact.secrets, impact.secret_versions), (2, 3));
    world.engine.change_state(admin(), key, StateChange::Disable).await.unwrap();
    assert_eq!(code(world.current("b").await), "KeyState");
}

#[tokio::test]
async fn why_somebody_may_not_have_a_secret_does_not_tell_him_whether_it_is_there() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    let ask = |by: Call, whose: Whose, at: &str| {
        let (engine, about) = (world.engine.clone(), About::Secret(name(at)));
        async move { engine.can(&by, whose, "secrets:GetSecret", about, none()).await.unwrap() }
    };
    for at in ["a", "none"] {
        let verdict = ask(call_by("stranger"), Whose::default(), at).await;
        assert!(!verdict.allowed && verdict.why.is_empty(), "{verdict:?}");
        let himself = ask(admin().clone(), Whose::default(), at).await;
        assert!(himself.allowed && !himself.why.is_empty(), "{himself:?}");
        let eve = Whose { principal: Some("user:eve".to_owned()), ..Whose::default() };
        let other = ask(admin().clone(), eve, at).await;
        assert!(!other.allowed && !other.why.is_empty(), "{other:?}");
    }
}

#[tokio::test]
async fn a_value_does_not_open_at_another_name_or_number() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    world.put("b", b"two").await.unwrap();
    // The record of one secret's version, put at the place of the other's.
    world.swap_first_two("secret-value/").await;
    assert_eq!(code(world.current("a").await), "Internal");
    world.swap_first_two("secret-value/").await;
    world.swap_first_two("secret-version/").await;
    assert_eq!(code(world.current("a").await), "Internal");
}

#[tokio::test]
async fn the_key_of_a_secret_decides_over_it() {
    let world = world().await;
    let key = world.create_as(request(MaterialSpec::Aes256)).await.key_ref();
    let chosen = PutRequest { key: Some(key.clone()), ..put_request(b"one") };
    world.engine.put_secret(admin(), name("a"), chosen).await.unwrap();
    world.engine.change_state(admin(), key.clone(), StateChange::Disable).await.unwrap();
    assert_eq!(code(world.current("a").await), "KeyState");
    assert_eq!(code(world.put("a", b"two").await), "KeyState");
    world.engine.change_state(admin(), key, StateChange::Enable).await.unwrap();
    assert_eq!(world.current("a").await.unwrap(), b"one");
    let mac = world.create_as(request(MaterialSpec::Hmac256)).await.key_ref();
    let wrong = PutRequest { key: Some(mac), ..put_request(b"one") };
    assert_eq!(code(world.engine.put_secret(admin(), name("b"), wrong).await), "KeyUsage");
}

#[tokio::test]
async fn the_key_of_all_secrets_is_made_once() {
    let world = world().await;
    let (one, two) = tokio::join!(world.put("a", b"1"), world.put("b", b"2"));
    let (one, two) = (one.unwrap().item.key, two.unwrap().item.key);
    assert_eq!(one, two);
    assert_eq!(world.show(&alias("alias/lastkey/secrets")).await.key.id, one);
    assert_eq!(world.put("c", b"3").await.unwrap().item.key, one);
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_a_secret_that_is_not_there_looks_the_same() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    let stranger = call_by("stranger");
    let current = Which::Stage(Stage::current());
    for at in ["a", "none"] {
        let at = name(at);
        let engine = &world.engine;
        assert_eq!(code(engine.get_secret(&stranger, &at, &current).await), "AccessDenied");
        assert_eq!(code(engine.describe_secret(&stranger, &at).await), "AccessDenied");
        assert_eq!(code(engine.secret_versions(&stranger, &at).await), "AccessDenied");
        let put = engine.put_secret(&stranger, at.clone(), put_request(b"x")).await;
        assert_eq!(code(put), "AccessDenied");
        for change in [SecretChange::Restore, SecretChange::Destroy] {
            let changed = engine.change_secret(&stranger, at.clone(), change).await;
            assert_eq!(code(changed), "AccessDenied");
        }
    }
    let listed = world.engine.list_secrets(&stranger, &Search::default(), None, 10).await;
    assert_eq!(code(listed), "AccessDenied");
}

#[tokio::test]
async fn a_list_is_by_path_and_finds_by_name_tag_and_age() {
    let world = world().await;
    for at in ["prod/a", "prod/b/c", "prod/b/d", "prod-2", "test/a"] {
        world.put(at, b"x").await.unwrap();
    }
    world.clock.pass(Duration::from_secs(100));
    let tags = Tags::default().with([("team".to_owned(), "shop".to_owned())]).unwrap();
    let tagged = PutRequest { tags: Some(tags), ..put_request(b"x") };
    world.engine.put_secret(admin(), name("prod/z"), tagged).await.unwrap();
    let path = |path: &str| Search { path: SecretPath::parse(path).unwrap(), ..Search::default() };
    assert_eq!(world.names(&path("")).await, ["prod-2", "prod/", "test/"]);
    assert_eq!(world.names(&path("prod")).await, ["prod/a", "prod/b/", "prod/z"]);
    let below = Search { recursive: true, ..path("prod/") };
    assert_eq!(world.names(&below).await, ["prod/a", "prod/b/c", "prod/b/d", "prod/z"]);
    let named = Search { name: Some("b/".to_owned()), ..below.clone() };
    assert_eq!(world.names(&named).await, ["prod/b/c", "prod/b/d"]);
    let tagged = Search { tag: Some(("team".to_owned(), None)), ..below.clone() };
    assert_eq!(world.names(&tagged).await, ["prod/z"]);
    let other = Search { tag: Some(("team".to_owned(), Some("x".to_owned()))), ..below.clone() };
    assert_eq!(world.names(&other).await, Vec::<String>::new());
    let old = Search { written_before: Some(Timestamp(1_800_000_050)), ..below };
    assert_eq!(world.names(&old).await, ["prod/a", "prod/b/c", "prod/b/d"]);
}

#[tokio::test]
async fn pages_of_a_list_meet_without_gap_or_overlap() {
    let world = world().await;
    let mut all: Vec<String> = (0..25).map(|n| format!("p/{}/{n:02}", n % 3)).collect();
    for at in &all {
        world.put(at, b"x").await.unwrap();
    }
    all.sort();
    let search = Search { recursive: true, ..Search::default() };
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = world.engine.list_secrets(admin(), &search, after, 7).await.unwrap();
        assert!(page.entries.len() <= 7);
        found.extend(page.entries.into_iter().map(told));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, all);
    let below = Search { path: SecretPath::parse("p/1").unwrap(), recursive: true, ..search };
    let early = Some("a".to_owned());
    let page = world.engine.list_secrets(admin(), &below, early, 100).await.unwrap();
    assert_eq!(page.entries.len(), 8);
}

/// What lies below a path is passed over, and not read to name the path.
#[tokio::test]
async fn paths_of_many_secrets_are_one_page() {
    let world = world().await;
    let records = world.records();
    for team in 0..25 {
        let put = |number: u32| {
            let item = fixtures::secret_item(&format!("team-{team:02}/{number:04}"));
            let (path, record) = (RecordPath::secret(&item.name), Some(Record::Secret(item)));
            Write { path, expected: Expected::Absent, record }
        };
        records.commit((0..1_000).map(put).collect()).await.unwrap();
    }
    let top = Search::default();
    let page = world.engine.list_secrets(admin(), &top, None, 1_000).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (25, None));
}

#[tokio::test]
async fn no_secret_is_read_or_written_when_the_audit_log_is_away() {
    let world = world().await;
    world.put("a", b"one").await.unwrap();
    world.audit.set_away(true);
    assert_eq!(code(world.current("a").await), "Unavailable");
    assert_eq!(code(world.put("a", b"two").await), "Unavailable");
    world.audit.set_away(false);
    assert_eq!(world.current("a").await.unwrap(), b"one");
}

#[tokio::test]
async fn a_dry_run_has_no_effect() {
    let world = world().await;
    let dry = Call { dry_run: true, ..admin().clone() };
    let put = |call: &Call| {
        let call = call.clone();
        let engine = world.engine.clone();
        async move { engine.put_secret(&call, name("a"), put_request(b"x")).await }
    };
    assert_eq!(code(put(&dry).await), "DryRun");
    assert_eq!(world.paths("alias/").await.len(), 0);
    put(admin()).await.unwrap();
    assert_eq!(code(put(&dry).await), "DryRun");
    let current = Which::Stage(Stage::current());
    assert_eq!(code(world.engine.get_secret(&dry, &name("a"), &current).await), "DryRun");
    for change in
        [SecretChange::Destroy, SecretChange::Delete(DeletionWindow::from_days(7).unwrap())]
    {
        assert_eq!(code(world.engine.change_secret(&dry, name("a"), change).await), "DryRun");
    }
    let both = (name("a"), name("b"));
    for transfer in [Transfer::Move, Transfer::Copy] {
        let dried = world.engine.transfer_secret(&dry, both.clone(), transfer).await;
        assert_eq!(code(dried), "DryRun");
    }
    for transfer in [Transfer::Move, Transfer::Copy] {
        let itself = (name("a"), name("a"));
        let dried = world.engine.transfer_secret(&dry, itself, transfer).await;
        assert_eq!(code(dried), "AlreadyExists");
    }
    assert_eq!(world.paths("secret/").await, ["secret/a"]);
    let key = KeyRef::Id(world.show(&alias("alias/lastkey/secrets")).await.key.id);
    assert_eq!(world.show(&key).await.key.newest, Some(no(1)));
}

#[tokio::test]
async fn the_audit_log_names_secret_and_version_and_never_a_value() {
    let world = world().await;
    world.put("prod/db", b"hunter2").await.unwrap();
    world.current("prod/db").await.unwrap();
    let told = format!("{:?}", world.audit.events());
    assert!(told.contains("secret/prod/db#1"), "{told}");
    assert!(told.contains("secrets:GetSecret") && !told.contains("hunter2"), "{told}");
}
