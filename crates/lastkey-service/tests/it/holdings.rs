//! What places report keeps keys from being destroyed.

use std::time::Duration;

use lastkey_core::holding::{HeldThing, HeldWhat, Reason};
use lastkey_core::ids::{KeyRef, Name, VersionNo};
use lastkey_core::key::DeletionWindow;
use lastkey_core::ports::Store as _;
use lastkey_core::record::RecordPath;
use lastkey_core::state::State;
use lastkey_crypto::material::MaterialSpec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::VersionChange;
use lastkey_service::ops::holdings::Report;

use crate::world::{World, admin, call_by, code, world};

const DAY: Duration = Duration::from_secs(86_400);

fn place(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn version(number: u32) -> VersionNo {
    VersionNo::new(number).unwrap()
}

fn why() -> Option<Reason> {
    Some(Reason::parse("the cluster is gone").unwrap())
}

fn week() -> DeletionWindow {
    DeletionWindow::from_days(7).unwrap()
}

/// Counts of a place, by version.
fn counts(what: HeldWhat, from: &str, versions: &[(u32, u64)]) -> Report {
    let versions = versions.iter().map(|(number, count)| (version(*number), *count)).collect();
    Report { place: place(from), what, versions, things: Vec::new() }
}

impl World {
    async fn report(&self, key: &KeyRef, from: &str, versions: &[(u32, u64)]) -> Result<(), Error> {
        let report = counts(HeldWhat::EtcdObjects, from, versions);
        self.engine.report_holding(admin(), key.clone(), report).await.map(drop)
    }

    /// The same of volumes, by whoever calls.
    pub(crate) async fn volumes(
        &self,
        call: &Call,
        key: &KeyRef,
        from: &str,
        versions: &[(u32, u64)],
    ) -> Result<(), Error> {
        let report = counts(HeldWhat::Volumes, from, versions);
        self.engine.report_holding(call, key.clone(), report).await.map(drop)
    }

    /// Lets them report about keys.
    pub(crate) async fn permit_reports(&self, reporters: &[&str]) {
        let text = reporters.iter().map(|who| {
            format!(
                "permit(principal == {who}, action == Action::\"kms:ReportHolding\", resource);"
            )
        });
        let policy = place("reports");
        self.engine.set_policy(admin(), policy, text.collect(), None).await.unwrap();
    }

    /// Lets every service report about keys.
    async fn permit_all_reports(&self) {
        let text =
            "permit(principal is Service, action == Action::\"kms:ReportHolding\", resource);";
        self.engine.set_policy(admin(), place("reports"), text.to_owned(), None).await.unwrap();
    }

    /// A key with a second version, the first one shadow-disabled.
    async fn rotated(&self) -> KeyRef {
        let key = self.create(MaterialSpec::Aes256).await;
        self.engine.rotate_key(admin(), key.clone()).await.unwrap();
        let change = VersionChange::ShadowDisable;
        self.engine.change_version(admin(), key.clone(), version(1), change).await.unwrap();
        key
    }

    fn reasons(&self, action: &str) -> Vec<String> {
        let told = self.audit.events().into_iter().filter(|record| record.action == action);
        told.map(|record| record.reason).collect()
    }
}

#[tokio::test]
async fn a_version_that_the_last_report_shows_is_not_destroyed() {
    let world = world().await;
    let key = world.rotated().await;
    world.report(&key, "prod", &[(1, 3), (2, 9)]).await.unwrap();
    world.report(&key, "stage", &[(2, 1)]).await.unwrap();
    let destroy =
        async |why| world.engine.destroy_key_version(admin(), key.clone(), version(1), why).await;
    let refused = destroy(None).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "still needed: prod was last reported to hold 3 objects under it"
    );
    assert_eq!(refused.code(), "KeyNeeded");
    let held = world.show(&key).await.holdings;
    assert_eq!((held.len(), held[0].count(None), held[0].reported_by.as_str()), (2, 12, "admin"));

    world.report(&key, "prod", &[(2, 12)]).await.unwrap();
    assert_eq!(destroy(None).await.unwrap().version.state, State::Destroyed);
}

#[tokio::test]
async fn things_are_named_in_impact_and_refusals_until_the_next_report() {
    let world = world().await;
    let key = world.rotated().await;
    let thing = |name: &str, number| HeldThing {
        name: name.to_owned(),
        version: version(number),
        about: vec![("claim".to_owned(), "shop/data".to_owned())],
    };
    let report = async |versions: &[(u32, u64)], things: &[HeldThing]| {
        let versions = versions.iter().map(|(number, count)| (version(*number), *count)).collect();
        let (place, what) = (place("node-1"), HeldWhat::Volumes);
        let report = Report { place, what, versions, things: things.to_vec() };
        world.engine.report_holding(admin(), key.clone(), report).await.map(drop)
    };
    let named = async || {
        let impact = world.engine.impact(admin(), key.clone()).await.unwrap();
        let named = impact.inventories.into_iter().flat_map(|one| one.things);
        named.map(|thing| thing.name).collect::<Vec<_>>()
    };
    let both = [thing("lkv-a", 2), thing("lkv-b", 1)];
    report(&[(1, 1), (2, 1)], &both).await.unwrap();
    assert_eq!(named().await, ["lkv-a", "lkv-b"]);
    let destroy =
        async || world.engine.destroy_key_version(admin(), key.clone(), version(1), None).await;
    assert_eq!(
        destroy().await.unwrap_err().to_string(),
        "still needed: node-1 was last reported to hold 1 volumes under it, lkv-b (claim \
         shop/data) among them"
    );
    // Counts and names are of one report.
    assert_eq!(code(report(&[(1, 2)], &both).await), "InvalidRequest");
    report(&[(2, 2)], &[thing("lkv-a", 2), thing("lkv-b", 2)]).await.unwrap();
    destroy().await.unwrap();
    report(&[], &[]).await.unwrap();
    assert!(named().await.is_empty());
    report(&[(2, 1)], &[thing("lkv-a", 2)]).await.unwrap();
    let forgotten =
        world.engine.forget_holding(admin(), key.clone(), place("node-1"), why().unwrap());
    forgotten.await.unwrap();
    assert!(named().await.is_empty());
}

#[tokio::test]
async fn report_and_destruction_both_write_the_key_so_that_one_of_two_at_once_sees_the_other() {
    let world = world().await;
    let key = world.rotated().await;
    let path = RecordPath::key(world.show(&key).await.key.id);
    let revision = async || world.store.records().get(&path).await.unwrap().unwrap().revision.0;
    let before = revision().await;
    world.report(&key, "prod", &[(2, 12)]).await.unwrap();
    assert_eq!(revision().await, before + 1);
    world.engine.destroy_key_version(admin(), key.clone(), version(1), None).await.unwrap();
    assert_eq!(revision().await, before + 2);
}

#[tokio::test]
async fn a_version_is_destroyed_in_spite_of_a_report_with_a_reason_that_is_audited() {
    let world = world().await;
    let key = world.rotated().await;
    world.report(&key, "prod", &[(1, 3)]).await.unwrap();
    let gone = world.engine.destroy_key_version(admin(), key, version(1), why()).await.unwrap();
    assert_eq!(gone.version.state, State::Destroyed);
    let reasons = world.reasons("kms:DestroyKeyVersion");
    assert!(
        reasons.iter().all(|told| told.ends_with("in spite of prod: the cluster is gone")),
        "{reasons:?}"
    );
    assert!(!reasons.is_empty());
}

#[tokio::test]
async fn a_key_that_is_needed_is_not_scheduled_until_the_place_is_forgotten() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.report(&key, "prod", &[(1, 3)]).await.unwrap();
    let schedule =
        async |why| world.engine.schedule_deletion(admin(), key.clone(), week(), why).await;
    assert_eq!(code(schedule(None).await), "KeyNeeded");
    assert!(world.encrypt(&key, b"x").await.is_ok());
    let forget = async |from| {
        let why = why().unwrap();
        world.engine.forget_holding(admin(), key.clone(), place(from), why).await
    };
    assert_eq!(code(forget("stage").await), "InvalidRequest");
    forget("prod").await.unwrap();
    assert!(world.show(&key).await.holdings.is_empty());
    schedule(None).await.unwrap();
}

#[tokio::test]
async fn a_report_after_the_schedule_puts_the_destruction_off() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.engine.schedule_deletion(admin(), key.clone(), week(), None).await.unwrap();
    world.report(&key, "prod", &[(1, 3)]).await.unwrap();
    for _ in 0..3 {
        world.clock.pass(7 * DAY);
        world.engine.run_due().await;
        assert_eq!(world.show(&key).await.key.state, State::Active);
    }
    assert!(world.reasons("kms:DestroyKey")[0].contains("put off by a day: still needed: prod"));

    world.report(&key, "prod", &[]).await.unwrap();
    world.clock.pass(DAY);
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Destroyed);
}

#[tokio::test]
async fn an_override_holds_for_later_reports_until_the_destruction_is_called_off() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.report(&key, "prod", &[(1, 3)]).await.unwrap();
    let schedule =
        async |why| world.engine.schedule_deletion(admin(), key.clone(), week(), why).await;
    schedule(why()).await.unwrap();
    world.engine.cancel_deletion(admin(), key.clone()).await.unwrap();
    assert!(!world.show(&key).await.holdings[0].overridden);
    assert_eq!(code(schedule(None).await), "KeyNeeded");

    schedule(why()).await.unwrap();
    world.report(&key, "prod", &[(1, 2)]).await.unwrap();
    assert!(world.show(&key).await.holdings[0].overridden);
    world.clock.pass(7 * DAY);
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Destroyed);
}

#[tokio::test]
async fn only_who_may_reports_and_overrides_and_a_dry_run_does_neither() {
    let world = world().await;
    let key = world.rotated().await;
    let report = Report {
        place: place("prod"),
        what: HeldWhat::EtcdObjects,
        versions: vec![(version(1), 1)],
        things: Vec::new(),
    };
    let stranger = call_by("stranger");
    let refused = world.engine.report_holding(&stranger, key.clone(), report.clone()).await;
    assert_eq!(code(refused), "AccessDenied");
    let dry = lastkey_service::call::Call { dry_run: true, ..admin().clone() };
    let asked = world.engine.report_holding(&dry, key.clone(), report).await;
    assert_eq!(code(asked), "DryRun");
    assert!(world.show(&key).await.holdings.is_empty());
    let refused = world.engine.destroy_key_version(&stranger, key.clone(), version(1), why()).await;
    assert_eq!(code(refused), "AccessDenied");
    let refused = world.report(&key, "prod", &[(2, 1), (1, 1)]).await.unwrap_err();
    assert_eq!(refused.code(), "InvalidRequest");
}

#[tokio::test]
async fn places_are_counted_and_a_known_one_may_still_report() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.permit_all_reports().await;
    for number in 0..256 {
        let report = counts(HeldWhat::EtcdObjects, &format!("place{number}"), &[]);
        let by = call_by(&format!("r{number}"));
        world.engine.report_holding(&by, key.clone(), report).await.unwrap();
    }
    assert_eq!(world.report(&key, "one-more", &[]).await.unwrap_err().code(), "LimitExceeded");
    world.report(&key, "place7", &[(1, 1)]).await.unwrap();
}

/// One reporter filled all places of a key, and no other place was counted any more.
#[tokio::test]
async fn whoever_reports_for_many_places_leaves_some_for_others() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.permit_all_reports().await;
    // How many new places somebody gets until he is refused.
    let takes = async |who: &str| {
        let by = call_by(who);
        for number in 0.. {
            let report = counts(HeldWhat::EtcdObjects, &format!("{who}{number}"), &[]);
            match world.engine.report_holding(&by, key.clone(), report).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.code(), "LimitExceeded");
                    return number;
                }
            }
        }
        unreachable!("places are counted")
    };
    assert_eq!(takes("a").await, 224);
    let mut others = Vec::new();
    for who in ["b", "c", "d", "e", "f", "g", "h"] {
        others.push(takes(who).await);
    }
    assert_eq!(others, [16, 8, 4, 2, 1, 1, 0]);
    let known = counts(HeldWhat::EtcdObjects, "a7", &[(1, 1)]);
    world.engine.report_holding(&call_by("a"), key.clone(), known).await.unwrap();
}

#[tokio::test]
async fn place_without_volumes_takes_nobody_elses() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.permit_all_reports().await;
    for number in 0..256 {
        let (from, by) = (format!("node-{number}"), call_by(&format!("r{number}")));
        world.volumes(&by, &key, &from, &[(1, 1)]).await.unwrap();
    }
    let one_more = async || world.volumes(admin(), &key, "one-more", &[(1, 1)]).await;
    assert_eq!(code(one_more().await), "LimitExceeded");
    // Nothing is still nothing, and said of no place at all.
    world.volumes(admin(), &key, "one-more", &[]).await.unwrap();
    assert_eq!(code(one_more().await), "LimitExceeded");
    world.volumes(&call_by("r7"), &key, "node-7", &[]).await.unwrap();
    one_more().await.unwrap();
    let held = world.show(&key).await.holdings;
    assert!(held.len() == 256 && held.iter().all(|one| one.place.as_str() != "node-7"));
}

#[tokio::test]
async fn volumes_of_a_place_are_reported_by_one_alone_until_they_are_gone_or_forgotten() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.permit_reports(&["Service::\"a\"", "Service::\"b\""]).await;
    let (a, b) = (call_by("a"), call_by("b"));
    world.volumes(&a, &key, "node-1", &[(1, 3)]).await.unwrap();
    for taken in [&[][..], &[(1, 1)]] {
        assert_eq!(code(world.volumes(&b, &key, "node-1", taken).await), "InvalidRequest");
    }
    // Not under another name of the same thing either.
    let objects = counts(HeldWhat::EtcdObjects, "node-1", &[]);
    let taken = world.engine.report_holding(&b, key.clone(), objects).await;
    assert_eq!(code(taken), "InvalidRequest");
    assert_eq!(world.show(&key).await.holdings[0].count(None), 3);
    let schedule =
        async || world.engine.schedule_deletion(admin(), key.clone(), week(), None).await;
    assert_eq!(code(schedule().await), "KeyNeeded");

    world.volumes(&a, &key, "node-1", &[]).await.unwrap();
    world.volumes(&b, &key, "node-1", &[(1, 1)]).await.unwrap();
    assert_eq!(code(world.volumes(&a, &key, "node-1", &[(1, 1)]).await), "InvalidRequest");
    let forget = world.engine.forget_holding(admin(), key.clone(), place("node-1"), why().unwrap());
    forget.await.unwrap();
    world.volumes(&a, &key, "node-1", &[(1, 1)]).await.unwrap();
    // What is in etcd is counted by whoever looks.
    for call in [&a, &b] {
        let objects = counts(HeldWhat::EtcdObjects, "prod", &[(1, 1)]);
        world.engine.report_holding(call, key.clone(), objects).await.unwrap();
    }
}

#[tokio::test]
async fn impact_counts_secrets_and_what_places_hold() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.report(&key, "prod", &[(1, 3)]).await.unwrap();
    let impact = world.engine.impact(admin(), key.clone()).await.unwrap();
    assert_eq!((impact.secrets, impact.secret_versions), (0, 0));
    assert_eq!(impact.key.holdings[0].count(None), 3);
    assert_eq!(code(world.engine.impact(&call_by("stranger"), key).await), "AccessDenied");
}
