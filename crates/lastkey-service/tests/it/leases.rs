//! Accounts of databases: made once, renewed while their pods live, and dropped, from wherever the
//! making or the dropping stood.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::database::DatabaseKind;
use lastkey_core::ids::Name;
use lastkey_core::lease::{DatabaseRole, LeaseId, LeasePod, LeaseStep};
use lastkey_core::outside::{Bound, Clusters, Nobody, Reviewed, Standing};
use lastkey_core::permit::{Action as _, GetDatabaseCredentials, KeepDatabaseCredentials};
use lastkey_core::ports::Cause;
use lastkey_core::principal::{self, Identity, Kind, Principal, Session, Workload};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::databases::DatabaseRequest;
use lastkey_service::ops::leases::{Credentials, DatabaseRoleRequest, Ending, LeaseView, Mended};
use lastkey_testkit::fakes::Fault;

use crate::world::{World, admin, call_by, code, world_among};

/// A cluster of which a test says where its pods are.
struct Stand(Mutex<Standing>);

#[async_trait]
impl Clusters for Stand {
    fn standing(&self, _: &Bound<'_>, _: Timestamp) -> Standing {
        *self.0.lock().unwrap()
    }

    fn is_required(&self, _: &str) -> bool {
        false
    }

    async fn review(
        &self,
        _: &str,
        _: &SecretVec,
        _: &[String],
    ) -> Result<Option<Reviewed>, Cause> {
        Err("not here".into())
    }

    async fn key_set(&self, _: &str) -> Result<Option<Vec<u8>>, Cause> {
        Ok(None)
    }
}

/// A database `shop` with the role `app`; nothing runs beside the calls.
struct House {
    world: World,
    stand: Arc<Stand>,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn role(max_leases: u32) -> DatabaseRoleRequest {
    DatabaseRoleRequest {
        database: name("shop"),
        group: "shop_rw".to_owned(),
        statements: Vec::new(),
        ttl_secs: 600,
        max_ttl_secs: 900,
        max_leases,
    }
}

/// The lease that a pod has under the role `app`.
fn lease_of(uid: &str) -> LeaseId {
    let (cluster, uid) = ("prod".to_owned(), uid.to_owned());
    let pod = LeasePod { cluster, uid, name: String::new(), account_uid: String::new() };
    LeaseId::of_pod(&name("app"), &pod)
}

/// A call by a pod of the role `shop`.
fn pod(uid: &str) -> Call {
    workload(Some(principal::Bound { name: "api-0".to_owned(), uid: uid.to_owned() }))
}

/// A call of the role `shop` by a token that is bound to this pod, or to none.
fn workload(pod: Option<principal::Bound>) -> Call {
    let workload = Workload {
        cluster: "prod".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "api".to_owned(),
        service_account_uid: "sa".to_owned(),
        pod,
        node: None,
    };
    let session = Session {
        id: lastkey_core::ids::SessionId([7; 16]),
        role: Some("shop".to_owned()),
        issued_at: Timestamp(1),
        expires_at: Timestamp(u64::MAX),
        token_id: None,
        methods: Vec::new(),
        second_factor_at: None,
        policy: None,
        limits: Vec::new(),
    };
    let mut call = call_by("nobody");
    call.caller.principal = Principal::verified(Identity {
        name: "k8s:prod/shop/api".to_owned(),
        kind: Kind::Workload(workload),
        groups: Vec::new(),
        session: Some(session),
    });
    call
}

impl House {
    async fn new() -> Self {
        let stand = Arc::new(Stand(Mutex::new(Standing::There)));
        let world = world_among(Arc::new(Nobody), stand.clone()).await;
        world.gate.stop().await;
        world.databases.put("root", b"first");
        let request = DatabaseRequest {
            kind: DatabaseKind::PostgreSql,
            address: "postgresql://db.example/shop".to_owned(),
            authority: None,
            root: "root".to_owned(),
            password: SecretVec::copy_of(b"first"),
            keeps_password: true,
        };
        world.engine.add_database(admin(), name("shop"), request).await.unwrap();
        world.engine.add_database_role(admin(), name("app"), role(6)).await.unwrap();
        let text = "permit(principal in Role::\"shop\", \
                    action == Action::\"secrets:GetDatabaseCredentials\", \
                    resource == DatabaseRole::\"app\");";
        world.engine.set_policy(admin(), name("pods"), text.to_owned(), None).await.unwrap();
        Self { world, stand }
    }

    fn stands(&self, standing: Standing) {
        *self.stand.0.lock().unwrap() = standing;
    }

    async fn ask(&self, call: &Call) -> Result<Credentials, Error> {
        self.world.engine.issue_credentials(call, name("app")).await
    }

    async fn end(&self, call: &Call, id: LeaseId) -> Result<(), Error> {
        self.world.engine.end_credentials(call, name("app"), id, Ending::Drop).await
    }

    fn opens(&self, issued: &Credentials) -> bool {
        let account = &issued.lease.lease.account;
        issued.password.expose(|password| self.world.databases.lets_in(account, password))
    }

    async fn leases(&self) -> Vec<LeaseView> {
        self.world.engine.list_leases(admin(), &name("app"), None, 100).await.unwrap().items
    }

    /// The accounts that were made and not dropped.
    fn accounts(&self) -> BTreeSet<String> {
        self.world.databases.names().into_iter().filter(|name| name.starts_with("lk_")).collect()
    }

    /// Some time later, with everything done that is due.
    async fn later(&self, seconds: u64) {
        self.world.clock.pass(Duration::from_secs(seconds));
        self.world.engine.tend_leases().await;
    }

    fn told(&self, action: &str) -> Vec<String> {
        let events = self.world.audit.events();
        let of_it = events.iter().filter(|event| event.action == action);
        of_it.map(|event| format!("{:?} {}", event.phase, event.result)).collect()
    }
}

#[tokio::test]
async fn whoever_asks_is_given_an_account_that_opens_and_ends() {
    let house = House::new().await;
    let (one, two) = (house.ask(admin()).await.unwrap(), house.ask(admin()).await.unwrap());
    assert!(house.opens(&one) && house.opens(&two));
    assert_ne!(one.lease.lease.account, two.lease.lease.account);
    assert_eq!(house.told(GetDatabaseCredentials::NAME)[..2], ["Intent pending", "Outcome ok"]);
    // It is renewed to the end of its longest life, and no further.
    house.later(500).await;
    let id = one.lease.lease.id;
    let renewed = house.world.engine.renew_credentials(admin(), name("app"), id).await.unwrap();
    assert_eq!(renewed.lives, Duration::from_secs(400));
    house.later(100).await;
    assert!(house.opens(&one) && !house.opens(&two));
    house.later(300).await;
    assert!(house.accounts().is_empty() && house.leases().await.is_empty());
    assert_eq!(house.told(KeepDatabaseCredentials::NAME).last().unwrap(), "Outcome ok");
}

/// Nobody would say when such an account is not needed any more, and each would be another one.
#[tokio::test]
async fn token_that_is_bound_to_no_pod_has_no_account() {
    let house = House::new().await;
    let refused = house.ask(&workload(None)).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid { field: "token", .. }), "{refused}");
    assert!(refused.to_string().contains("bound to no pod"), "{refused}");
    assert!(house.accounts().is_empty() && house.leases().await.is_empty());
    assert_eq!(house.told(GetDatabaseCredentials::NAME), ["Outcome InvalidRequest"]);
    house.ask(&pod("u1")).await.unwrap();
}

#[tokio::test]
async fn pod_is_given_the_same_account_however_often_it_asks() {
    let house = House::new().await;
    let call = pod("u1");
    let first = house.ask(&call).await.unwrap();
    let (again, other) = (house.ask(&call).await.unwrap(), house.ask(&pod("u2")).await.unwrap());
    assert_eq!(first.lease.lease.account, again.lease.lease.account);
    assert!(again.password.expose(|a| first.password.expose(|b| a == b)) && house.opens(&again));
    assert_ne!(first.lease.lease.account, other.lease.lease.account);
    // Many at once: one account.
    let call = pod("u3");
    let (a, b, c) = tokio::join!(house.ask(&call), house.ask(&call), house.ask(&call));
    let names = [a, b, c].map(|issued| issued.unwrap().lease.lease.account);
    assert!(names[0] == names[1] && names[1] == names[2]);
    assert_eq!(house.accounts().len(), 3);
    // A fourth lease is one too many of one workload, and not of everybody.
    let refused = house.ask(&pod("u4")).await.unwrap_err();
    assert!(refused.to_string().contains("half of the leases"), "{refused}");
    assert_eq!(house.leases().await.len(), 3);
    // Many at once are no more than there may be.
    let (a, b) = tokio::join!(house.ask(admin()), house.ask(admin()));
    let (c, d) = tokio::join!(house.ask(admin()), house.ask(admin()));
    let all = [a, b, c, d].map(|issued| issued.err().map(|error| error.code()));
    assert_eq!(all.iter().filter(|refused| refused.is_none()).count(), 3, "{all:?}");
    assert_eq!((code(house.ask(admin()).await), house.leases().await.len()), ("LimitExceeded", 6));
}

#[tokio::test]
async fn account_of_a_pod_lives_with_it_and_goes_with_it() {
    let house = House::new().await;
    let issued = house.ask(&pod("u1")).await.unwrap();
    for _ in 0..5 {
        house.later(300).await;
        assert!(house.opens(&issued));
    }
    assert_eq!(house.leases().await[0].lives, Duration::from_secs(600));
    // What nobody knows of ends by time; what is not known to be gone does not end before.
    house.stands(Standing::Unknown);
    house.later(599).await;
    assert!(house.opens(&issued));
    house.stands(Standing::Gone);
    house.later(0).await;
    assert!(house.accounts().is_empty() && house.leases().await.is_empty());
    // Where the cluster is not asked, the pod's own asking renews.
    house.stands(Standing::NotAsked);
    let issued = house.ask(&pod("u1")).await.unwrap();
    for _ in 0..3 {
        house.later(400).await;
        house.ask(&pod("u1")).await.unwrap();
    }
    assert!(house.opens(&issued));
    house.later(600).await;
    assert!(house.accounts().is_empty());
}

#[tokio::test]
async fn nothing_ends_by_time_while_the_clock_is_on_hold() {
    let house = House::new().await;
    let issued = house.ask(admin()).await.unwrap();
    house.world.clock.jump_wall(100_000);
    house.later(700).await;
    assert!(house.opens(&issued));
    house.world.engine.confirm_clock(admin()).await.unwrap();
    house.later(0).await;
    assert!(!house.opens(&issued));
}

/// Whatever commit is the last one of a server, and whether it was written: in the end there are
/// the accounts of the leases, no others, and the pod gets one that opens.
#[tokio::test]
async fn server_that_stops_anywhere_leaves_nothing_behind() {
    for fault in [Fault::Before, Fault::After] {
        for well in 0..4 {
            let house = House::new().await;
            house.world.store.fail_later(well, fault);
            // Two commits make it, two end it.
            let made = house.ask(&pod("u1")).await;
            let ended = house.end(&pod("u1"), lease_of("u1")).await;
            assert!(made.is_err() || ended.is_err(), "{fault:?} {well}");
            house.later(121).await;
            house.later(121).await;
            let leased: BTreeSet<_> =
                house.leases().await.into_iter().map(|view| view.lease.account).collect();
            assert_eq!(house.accounts(), leased, "{fault:?} {well}");
            let issued = house.ask(&pod("u1")).await.unwrap();
            assert!(house.opens(&issued), "{fault:?} {well}");
            assert_eq!(house.accounts().len(), 1, "{fault:?} {well}");
        }
    }
}

#[tokio::test]
async fn answers_that_are_lost_lose_no_account() {
    let house = House::new().await;
    house.world.databases.lose(Some("make_account"));
    assert_eq!(code(house.ask(&pod("u1")).await), "OutsideFailed");
    assert_eq!(house.accounts().len(), 1);
    assert_eq!(house.leases().await[0].lease.step, LeaseStep::Making);
    house.world.databases.lose(None);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    // The next question takes it up.
    let issued = house.ask(&pod("u1")).await.unwrap();
    assert!(house.opens(&issued) && house.accounts().len() == 1);
    house.world.databases.lose(Some("drop_account"));
    assert_eq!(code(house.end(admin(), issued.lease.lease.id).await), "OutsideFailed");
    let view = house.leases().await.remove(0);
    assert_eq!(view.lease.step, LeaseStep::Ending);
    assert!(view.lease.problem.unwrap().contains("did not answer"));
    house.world.databases.lose(None);
    tokio::time::advance(Duration::from_secs(5)).await;
    house.later(10).await;
    assert!(house.leases().await.is_empty());
}

#[tokio::test]
async fn database_that_refuses_leaves_neither_lease_nor_account() {
    let house = House::new().await;
    house.world.databases.fail(Some("make_account"));
    let refused = house.ask(admin()).await.unwrap_err();
    assert!(refused.to_string().contains("no make_account today"), "{refused}");
    assert!(house.leases().await.is_empty() && house.accounts().is_empty());
    // Made, and nobody is let in by it: a rule of the database.
    house.world.databases.fail(Some("log_in"));
    assert_eq!(code(house.ask(admin()).await), "OutsideFailed");
    assert!(house.leases().await.is_empty() && house.accounts().is_empty());
    house.world.databases.fail(Some("try_account"));
    let added = house.world.engine.add_database_role(admin(), name("other"), role(1)).await;
    assert_eq!(code(added), "OutsideFailed");
    house.world.databases.fail(None);
    house.world.audit.set_away(true);
    assert_eq!(code(house.ask(admin()).await), "Unavailable");
    house.world.audit.set_away(false);
    assert!(house.accounts().is_empty());
}

#[tokio::test]
async fn renewal_that_fails_does_not_take_what_has_time_left() {
    let house = House::new().await;
    let issued = house.ask(&pod("u1")).await.unwrap();
    house.world.databases.fail(Some("extend_account"));
    house.world.clock.pass(Duration::from_secs(400));
    let again = house.ask(&pod("u1")).await.unwrap();
    assert!(house.opens(&again));
    assert!(again.lease.lease.problem.is_some());
    // While its pod is there, it does not end, however long that lasts.
    house.later(10_000).await;
    assert!(house.opens(&issued));
    house.world.databases.fail(None);
    house.later(1_000).await;
    assert_eq!(house.leases().await[0].lease.problem, None);
}

#[tokio::test]
async fn database_and_leases_that_differ_are_mended() {
    let house = House::new().await;
    let (of_pod, of_admin) =
        (house.ask(&pod("u1")).await.unwrap(), house.ask(admin()).await.unwrap());
    let account = |issued: &Credentials| issued.lease.lease.account.clone();
    // Somebody dropped both, one is left of a lease that is not known here, and others are not ours.
    let of_pods = account(&of_pod);
    let stray = format!("{}0123456789abcdef01", of_pods.split_at(14).0);
    for name in [stray.as_str(), "lk_0000000000_0123456789abcdef01"] {
        house.world.databases.put(name, b"x");
    }
    house.world.databases.remove(&account(&of_pod));
    house.world.databases.remove(&account(&of_admin));
    let mended = house.world.engine.mend_database(admin(), name("shop")).await.unwrap();
    assert_eq!(mended.dropped, [stray]);
    assert_eq!((mended.made_again.len(), mended.ended.len()), (1, 1));
    assert!(house.opens(&of_pod) && !house.opens(&of_admin));
    assert_eq!(house.leases().await.len(), 1);
    assert!(house.accounts().contains("lk_0000000000_0123456789abcdef01"));
    // The same by itself, in time.
    house.world.databases.put("lk_x", b"x");
    house.world.databases.remove(&account(&of_pod));
    house.later(700).await;
    assert!(house.opens(&of_pod) && house.accounts().contains("lk_x"));
}

/// A lease of somebody who is no pod was ended when its account was made after the accounts had
/// been listed and before the leases were read.
#[tokio::test]
async fn account_that_was_made_since_accounts_were_listed_is_not_amiss() {
    let house = House::new().await;
    house.world.databases.list_early();
    let (fresh, of_pod) = (house.ask(admin()).await.unwrap(), house.ask(&pod("u1")).await.unwrap());
    let mended = house.world.engine.mend_database(admin(), name("shop")).await.unwrap();
    assert_eq!(mended, Mended::default());
    assert!(house.opens(&fresh) && house.opens(&of_pod));
}

/// A pod that comes back has the same account as before: a stray of that name is taken over by its
/// new lease, and not dropped any more.
#[tokio::test]
async fn a_role_is_not_written_down_for_a_database_that_was_removed_meanwhile() {
    let house = House::new().await;
    let engine = &house.world.engine;
    engine.remove_database_role(admin(), name("app")).await.unwrap();
    let go_on = house.world.databases.hold_next_drop();
    let removing = async {
        while house.world.databases.awaits_drop() {
            tokio::task::yield_now().await;
        }
        let removed = engine.remove_database(admin(), name("shop")).await;
        go_on.send(()).unwrap();
        removed
    };
    let adding = engine.add_database_role(admin(), name("app"), role(6));
    let (added, removed) = tokio::join!(adding, removing);
    removed.unwrap();
    assert_eq!(code(added), "AccessDenied");
    assert_eq!(
        code(engine.read_named::<DatabaseRole>(admin(), &name("app")).await),
        "AccessDenied"
    );
}

#[tokio::test]
async fn stray_that_a_pod_asks_for_again_is_not_dropped() {
    let house = House::new().await;
    let (engine, id) = (&house.world.engine, lease_of("u1"));
    let account = house.ask(&pod("u1")).await.unwrap().lease.lease.account;
    engine.end_credentials(admin(), name("app"), id, Ending::Forget).await.unwrap();
    let first = format!("{}000000000000000000", account.split_at(14).0);
    house.world.databases.put(&first, b"x");
    let go_on = house.world.databases.hold_next_drop();
    let asking = async {
        while house.world.databases.awaits_drop() {
            tokio::task::yield_now().await;
        }
        let call = pod("u1");
        let asked = house.ask(&call);
        let written = async {
            while house.leases().await.is_empty() {
                tokio::task::yield_now().await;
            }
            go_on.send(()).unwrap();
        };
        tokio::join!(asked, written).0
    };
    let (mended, asked) = tokio::join!(engine.mend_database(admin(), name("shop")), asking);
    assert_eq!(mended.unwrap().dropped, [first]);
    assert!(house.opens(&asked.unwrap()));
}

#[tokio::test]
async fn role_that_is_removed_takes_its_accounts_along_and_a_database_waits_for_it() {
    let house = House::new().await;
    house.ask(&pod("u1")).await.unwrap();
    let engine = &house.world.engine;
    assert_eq!(code(engine.remove_database(admin(), name("shop")).await), "InvalidRequest");
    engine.remove_database_role(admin(), name("app")).await.unwrap();
    assert_eq!(code(engine.remove_database(admin(), name("shop")).await), "InvalidRequest");
    // Its leases are not taken over by another role of the same name.
    assert_eq!(
        code(engine.add_database_role(admin(), name("app"), role(3)).await),
        "InvalidRequest"
    );
    house.later(0).await;
    assert!(house.accounts().is_empty());
    engine.add_database_role(admin(), name("app"), role(3)).await.unwrap();
    engine.remove_database_role(admin(), name("app")).await.unwrap();
    engine.remove_database(admin(), name("shop")).await.unwrap();
}

#[tokio::test]
async fn lease_of_somebody_else_is_not_for_everybody() {
    let house = House::new().await;
    let id = house.ask(&pod("u1")).await.unwrap().lease.lease.id;
    let engine = &house.world.engine;
    let (eve, other) = (call_by("eve"), pod("u2"));
    assert_eq!(code(house.ask(&eve).await), "AccessDenied");
    for call in [&eve, &other] {
        assert_eq!(code(house.end(call, id).await), "AccessDenied");
        assert_eq!(code(engine.renew_credentials(call, name("app"), id).await), "AccessDenied");
        assert_eq!(code(engine.list_leases(call, &name("app"), None, 9).await), "AccessDenied");
    }
    assert_eq!(code(house.end(admin(), LeaseId([0; 16])).await), "AccessDenied");
    // A database that is gone for good is forgotten by who may end leases of others.
    house.world.databases.fail(Some("drop_account"));
    assert_eq!(code(house.end(&pod("u1"), id).await), "OutsideFailed");
    let own = pod("u1");
    let refused = engine.end_credentials(&own, name("app"), id, Ending::Forget).await;
    assert_eq!(code(refused), "AccessDenied");
    engine.end_credentials(admin(), name("app"), id, Ending::Forget).await.unwrap();
    assert!(house.leases().await.is_empty());
}

#[tokio::test]
async fn pod_is_not_taken_for_gone_before_its_cluster_could_speak() {
    let house = House::new().await;
    let issued = house.ask(&pod("u1")).await.unwrap();
    // The server was away for longer than the lease lives: its first look comes now.
    house.stands(Standing::Unknown);
    house.later(10_000).await;
    house.later(899).await;
    assert!(house.opens(&issued));
    house.later(1).await;
    assert!(house.accounts().is_empty());
}
