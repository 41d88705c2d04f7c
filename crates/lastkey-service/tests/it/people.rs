//! People: the first hour, enrolment, login, and the end of both.

use std::time::Duration;

use lastkey_core::access::{RevokedWhat, User};
use lastkey_core::audit::Phase;
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::ports::Clock as _;
use lastkey_core::principal::{Caller, Peer, Presented, Principal, Source};
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::Opening;
use lastkey_service::ops::enrol::{Chosen, Enrolled, Request as Enrol};
use lastkey_service::ops::fetch_keys::KeysFrom;
use lastkey_service::ops::log_in::Request as LogIn;
use lastkey_service::ops::set_access::ProviderRequest;
use lastkey_service::ops::set_user::Change;
use lastkey_service::people::FIRST_ADMINISTRATOR;
use lastkey_service::sealing::{WayIn, replace_admin_token};
use lastkey_testkit::authenticator::Authenticator;

use crate::world::{KEYFILE, World, admin, code, world};

const PASSWORD: &str = "correct horse battery";
const SECURITY: &str = "security-administrator";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn secret(text: &str) -> SecretVec {
    SecretVec::copy_of(text.as_bytes())
}

fn copy(text: &SecretVec) -> SecretVec {
    text.expose(SecretVec::copy_of)
}

fn by(principal: &Principal) -> Call {
    let (principal, source) = (principal.clone(), Source::default());
    Call { caller: Caller { principal, source, request: RequestId([6; 16]) }, dry_run: false }
}

impl World {
    fn now(&self) -> u64 {
        self.clock.read().wall.0
    }

    /// Lets the next step of one-time codes begin.
    fn next_step(&self) {
        self.clock.pass(Duration::from_secs(30));
    }

    async fn enrol_with(
        &self,
        user: &str,
        code: &SecretVec,
        chosen: Option<(&str, String)>,
    ) -> Result<Enrolled, Error> {
        let chosen = chosen.map(|(password, one_time_code)| Chosen {
            password: secret(password),
            one_time_code: secret(&one_time_code),
        });
        let request = Enrol { name: name(user), code: copy(code), chosen };
        self.engine.enrol(RequestId([7; 16]), &Peer::default(), request).await
    }

    async fn offer(&self, user: &str, code: &SecretVec) -> Authenticator {
        let Enrolled::Offered(address) = self.enrol_with(user, code, None).await.unwrap() else {
            panic!("enrolled without a password");
        };
        address.expose(|address| Authenticator::scan(std::str::from_utf8(address).unwrap()))
    }

    /// Enrols somebody; then the next step begins, so that he can log in.
    async fn enrol(&self, user: &str, code: &SecretVec) -> Authenticator {
        let authenticator = self.offer(user, code).await;
        let chosen = (PASSWORD, authenticator.code_at(self.now()));
        let done = self.enrol_with(user, code, Some(chosen)).await.unwrap();
        assert!(matches!(done, Enrolled::Done(_)));
        self.next_step();
        authenticator
    }

    async fn log_in_with(
        &self,
        user: &str,
        (password, code): (&str, String),
        role: Option<&str>,
    ) -> Result<Opening, Error> {
        let request = LogIn {
            name: name(user),
            password: secret(password),
            code: secret(&code),
            role: role.map(name),
            duration: None,
            policy: None,
        };
        self.engine.log_in(RequestId([8; 16]), &Peer::default(), request).await
    }

    async fn log_in(
        &self,
        user: &str,
        authenticator: &Authenticator,
        role: Option<&str>,
    ) -> Result<Opening, Error> {
        let shown = (PASSWORD, authenticator.code_at(self.now()));
        self.log_in_with(user, shown, role).await
    }

    async fn add(&self, call: &Call, user: &str, groups: &[&str]) -> SecretVec {
        let groups = groups.iter().map(|group| name(group)).collect();
        self.engine.add_user(call, name(user), groups).await.unwrap().1
    }

    async fn is_let_in(&self, token: &SecretVec) -> bool {
        let presented = Presented::Bearer(copy(token));
        self.engine.authenticate(&presented, &Peer::default()).await.is_ok()
    }

    fn last_word(&self) -> (&'static str, &'static str, String, Option<String>) {
        let event = self.audit.events().pop().unwrap();
        (event.action, event.result, event.reason, event.target)
    }
}

#[tokio::test]
async fn first_administrator_enrols_by_the_code_of_init_and_no_token_remains() {
    let world = world().await;
    assert!(world.is_let_in(&world.token).await);
    let alice = world.enrol("alice", &world.enrolment_code).await;
    assert!(!world.is_let_in(&world.token).await);
    // Whoever was let in by it a moment ago may do nothing any more.
    let users = world.engine.list_named::<User>(admin(), None, 10).await;
    assert_eq!(code(users), "AccessDenied");
    for role in ["system-administrator", SECURITY, "audit-administrator"] {
        let opened = world.log_in("alice", &alice, Some(role)).await.unwrap();
        assert_eq!((opened.principal.name(), opened.principal.role()), ("user:alice", Some(role)));
        world.next_step();
    }
    let opened = world.log_in("alice", &alice, Some(SECURITY)).await.unwrap();
    let session = opened.principal.session().unwrap();
    assert_eq!(session.methods, ["pwd", "otp", "mfa"]);
    assert_eq!(session.second_factor_at.unwrap().0, world.now());
    let call = by(&opened.principal);
    world.add(&call, "bob", &["developers"]).await;
    let first = world.engine.read_named::<User>(&call, &name(FIRST_ADMINISTRATOR)).await;
    assert_eq!(code(first), "AccessDenied");
}

#[tokio::test]
async fn enrolment_code_is_good_once() {
    let world = world().await;
    world.enrol("alice", &world.enrolment_code).await;
    assert_eq!(
        code(world.enrol_with("alice", &world.enrolment_code, None).await),
        "Unauthenticated"
    );
    assert_eq!(
        code(world.enrol_with("mallory", &world.enrolment_code, None).await),
        "Unauthenticated"
    );
    let (action, result, reason, target) = world.last_word();
    assert_eq!(
        (action, result, reason.as_str()),
        ("sts:Enrol", "Unauthenticated", "enrolment_code")
    );
    assert_eq!(target.as_deref(), Some("user/mallory"));
}

#[tokio::test]
async fn enrolment_code_of_init_is_void_after_fifteen_minutes() {
    let world = world().await;
    world.clock.pass(Duration::from_secs(899));
    world.offer("alice", &world.enrolment_code).await;
    world.clock.pass(Duration::from_secs(1));
    assert_eq!(
        code(world.enrol_with("alice", &world.enrolment_code, None).await),
        "Unauthenticated"
    );
    let renewed = world.engine.renew_enrolment(admin(), name(FIRST_ADMINISTRATOR)).await.unwrap().1;
    world.enrol("alice", &renewed).await;
}

#[tokio::test]
async fn enrolment_code_does_not_outlive_a_jump_of_the_clock() {
    let world = world().await;
    world.clock.reboot(Duration::from_secs(3 * 86_400));
    assert_eq!(
        code(world.enrol_with("alice", &world.enrolment_code, None).await),
        "Unauthenticated"
    );
}

#[tokio::test]
async fn enrolment_with_a_wrong_first_code_changes_nothing() {
    let world = world().await;
    let authenticator = world.offer("alice", &world.enrolment_code).await;
    let wrong = (PASSWORD, authenticator.code_at(world.now() + 3_600));
    let refused = world.enrol_with("alice", &world.enrolment_code, Some(wrong)).await;
    assert_eq!(code(refused), "Unauthenticated");
    assert!(world.is_let_in(&world.token).await);
    let again = world.offer("alice", &world.enrolment_code).await;
    assert_eq!(again.code_at(0), authenticator.code_at(0));
    world.enrol("alice", &world.enrolment_code).await;
}

#[tokio::test]
async fn enrolment_is_recorded_before_it_is_done() {
    let world = world().await;
    let authenticator = world.offer("alice", &world.enrolment_code).await;
    let chosen = (PASSWORD, authenticator.code_at(world.now()));
    world.enrol_with("alice", &world.enrolment_code, Some(chosen)).await.unwrap();
    let events = world.audit.events();
    let [.., intent, outcome] = &events[..] else { panic!("not two records") };
    assert_eq!((intent.action, intent.phase, intent.durable), ("sts:Enrol", Phase::Intent, true));
    assert_eq!(
        (outcome.action, outcome.phase, outcome.result),
        ("sts:Enrol", Phase::Outcome, "ok")
    );
}

#[tokio::test]
async fn password_has_twelve_bytes_or_more() {
    let world = world().await;
    for password in ["eleven byte", &"x".repeat(1_025)] {
        let chosen = Some((password, "123456".to_owned()));
        let refused = world.enrol_with("alice", &world.enrolment_code, chosen).await;
        assert_eq!(code(refused), "InvalidRequest");
    }
}

#[tokio::test]
async fn name_of_somebody_else_is_not_to_be_had_by_the_code_of_init() {
    let world = world().await;
    world.add(admin(), "bob", &[]).await;
    let refused = world.enrol_with("bob", &world.enrolment_code, None).await;
    assert_eq!(code(refused), "AlreadyExists");
    let refused = world.enrol_with(FIRST_ADMINISTRATOR, &world.enrolment_code, None).await;
    assert_eq!(code(refused), "InvalidRequest");
}

#[tokio::test]
async fn code_of_one_person_does_not_enrol_another() {
    let world = world().await;
    let bob = world.add(admin(), "bob", &[]).await;
    world.add(admin(), "carol", &[SECURITY]).await;
    assert_eq!(code(world.enrol_with("carol", &bob, None).await), "Unauthenticated");
    assert_eq!(code(world.enrol_with("dave", &bob, None).await), "Unauthenticated");
}

#[tokio::test]
async fn login_refuses_whatever_is_wrong_in_the_same_way() {
    let world = world().await;
    let alice = world.enrol("alice", &world.enrolment_code).await;
    let good = alice.code_at(world.now());
    let late = alice.code_at(world.now() + 90);
    let wrong = [
        ("alice", ("wrong horse battery", good.clone()), None, "password"),
        ("alice", (PASSWORD, late), None, "one_time_code"),
        ("alice", (PASSWORD, String::new()), None, "one_time_code"),
        ("alice", (PASSWORD, good.clone()), Some("developers"), "role"),
        ("nobody", (PASSWORD, good.clone()), None, "no_such_user"),
    ];
    for (user, shown, role, word) in wrong {
        let Err(error) = world.log_in_with(user, shown, role).await else { panic!("{word}") };
        assert!(matches!(error, Error::Unauthenticated), "{word}: {error}");
        let (action, result, reason, target) = world.last_word();
        assert_eq!((action, result, reason.as_str()), ("sts:OpenSession", "Unauthenticated", word));
        assert_eq!(target, Some(format!("user/{user}")));
    }
    world.log_in_with("alice", (PASSWORD, good), None).await.unwrap();
    assert_eq!(world.last_word().1, "ok");
}

#[tokio::test]
async fn person_who_is_not_enrolled_cannot_log_in() {
    let world = world().await;
    world.add(admin(), "bob", &[]).await;
    let refused = world.log_in_with("bob", ("", String::new()), None).await;
    assert_eq!(code(refused), "Unauthenticated");
    assert_eq!(world.last_word().2, "not_enrolled");
}

#[tokio::test]
async fn one_time_code_lets_in_once() {
    let world = world().await;
    let alice = world.enrol("alice", &world.enrolment_code).await;
    let shown = || (PASSWORD, alice.code_at(world.now()));
    let (one, other) = tokio::join!(
        world.log_in_with("alice", shown(), None),
        world.log_in_with("alice", shown(), None)
    );
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(code(world.log_in_with("alice", shown(), None).await), "Unauthenticated");
    world.next_step();
    world.log_in("alice", &alice, None).await.unwrap();
}

#[tokio::test]
async fn code_of_the_enrolment_does_not_let_in() {
    let world = world().await;
    let authenticator = world.offer("alice", &world.enrolment_code).await;
    let shown = authenticator.code_at(world.now());
    let chosen = Some((PASSWORD, shown.clone()));
    world.enrol_with("alice", &world.enrolment_code, chosen).await.unwrap();
    let refused = world.log_in_with("alice", (PASSWORD, shown), None).await;
    assert_eq!(code(refused), "Unauthenticated");
}

#[tokio::test]
async fn attempts_are_limited_for_people_who_are_there_and_who_are_not() {
    let world = world().await;
    world.enrol("alice", &world.enrolment_code).await;
    for user in ["alice", "nobody"] {
        let wrong = || ("wrong horse battery", "000000".to_owned());
        for _ in 0..5 {
            assert_eq!(code(world.log_in_with(user, wrong(), None).await), "Unauthenticated");
        }
        let Err(Error::Throttled { retry_after }) = world.log_in_with(user, wrong(), None).await
        else {
            panic!("a sixth attempt was let through");
        };
        assert!(retry_after <= Duration::from_secs(60));
        assert_eq!(world.last_word().1, "Throttled");
    }
}

#[tokio::test]
async fn who_is_not_known_fills_no_log_and_guesses_and_successes_are_in_it() {
    let world = world().await;
    let provider = ProviderRequest {
        issuer: Some("https://id.example".to_owned()),
        audiences: vec!["lastkey".to_owned()],
        // The public key of RFC 8037, appendix A.2.
        keys: KeysFrom::Given(
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
                .to_owned(),
        ),
        trust_domain: None,
        subject_claim: None,
        groups_claim: None,
    };
    world.engine.set_provider(admin(), name("id"), provider).await.unwrap();
    let alice = world.enrol("alice", &world.enrolment_code).await;
    // Where people log in is told to anybody, which is no way around the limit.
    for _ in 0..75 {
        let ask =
            async |of| world.engine.login_place(RequestId([8; 16]), &Peer::default(), of).await;
        assert_eq!(code(ask(name("nobody")).await), "Unauthenticated");
        assert_eq!(ask(name("id")).await.unwrap().client_id, "lastkey");
    }
    let recorded = |action: &str| {
        world.audit.events().into_iter().filter(|event| event.action == action).count()
    };
    assert_eq!(recorded("sts:ReadProvider"), 100);
    let wrong = ("wrong horse battery", "000000".to_owned());
    assert_eq!(code(world.log_in_with("alice", wrong, None).await), "Unauthenticated");
    assert_eq!((world.last_word().0, &*world.last_word().2), ("sts:OpenSession", "password"));
    world.log_in("alice", &alice, None).await.unwrap();
    assert_eq!((world.last_word().0, world.last_word().1), ("sts:OpenSession", "ok"));
    world.gate.stop().await;
    let sum = world.audit.events().into_iter().find(|event| event.action == "audit:Sum").unwrap();
    assert_eq!(sum.who, Principal::named("system:audit"));
    assert_eq!(
        sum.reason,
        "50 attempts to come in have no record of their own: 50 sts:ReadProvider"
    );
}

#[tokio::test]
async fn person_who_is_kept_out_loses_his_sessions_and_opens_none() {
    let world = world().await;
    let code_of_bob = world.add(admin(), "bob", &["developers"]).await;
    let bob = world.enrol("bob", &code_of_bob).await;
    let opened = world.log_in("bob", &bob, None).await.unwrap();
    assert!(world.is_let_in(&opened.bearer).await);
    let change = |disabled| Change { groups: None, disabled: Some(disabled) };
    world.engine.set_user(admin(), name("bob"), change(true)).await.unwrap();
    assert!(!world.is_let_in(&opened.bearer).await);
    world.next_step();
    assert_eq!(code(world.log_in("bob", &bob, None).await), "Unauthenticated");
    assert_eq!(world.last_word().2, "disabled");
    world.engine.set_user(admin(), name("bob"), change(false)).await.unwrap();
    world.next_step();
    world.log_in("bob", &bob, None).await.unwrap();
    assert!(!world.is_let_in(&opened.bearer).await);
}

#[tokio::test]
async fn change_of_groups_and_removal_end_sessions() {
    let world = world().await;
    let code_of_bob = world.add(admin(), "bob", &["developers"]).await;
    let bob = world.enrol("bob", &code_of_bob).await;
    let opened = world.log_in("bob", &bob, None).await.unwrap();
    assert_eq!(opened.principal.identity().groups, ["developers"]);
    let change = Change { groups: Some(vec![name("operators")]), disabled: None };
    world.engine.set_user(admin(), name("bob"), change).await.unwrap();
    assert!(!world.is_let_in(&opened.bearer).await);
    world.next_step();
    let opened = world.log_in("bob", &bob, None).await.unwrap();
    assert_eq!(opened.principal.identity().groups, ["operators"]);
    world.engine.remove_user(admin(), name("bob")).await.unwrap();
    assert!(!world.is_let_in(&opened.bearer).await);
    let revoked = world.engine.list_revocations(admin()).await.unwrap();
    assert_eq!(revoked[0].what, RevokedWhat::User("bob".to_owned()));
    // The revocation outlives the engine.
    let world = world.unseal_again().await;
    assert!(!world.is_let_in(&opened.bearer).await);
}

#[tokio::test]
async fn new_enrolment_code_makes_password_and_second_factor_void() {
    let world = world().await;
    let first = world.add(admin(), "bob", &[]).await;
    let bob = world.enrol("bob", &first).await;
    let opened = world.log_in("bob", &bob, None).await.unwrap();
    let second = world.engine.renew_enrolment(admin(), name("bob")).await.unwrap().1;
    assert!(!world.is_let_in(&opened.bearer).await);
    world.next_step();
    assert_eq!(code(world.log_in("bob", &bob, None).await), "Unauthenticated");
    let again = world.enrol("bob", &second).await;
    world.log_in("bob", &again, None).await.unwrap();
    assert_eq!(code(world.engine.renew_enrolment(admin(), name("nobody")).await), "AccessDenied");
}

/// Whoever had seen the code enrolled with it after everything had been revoked.
#[tokio::test]
async fn enrolment_code_of_before_a_revocation_enrols_nobody_and_the_next_one_does() {
    for what in [RevokedWhat::User("bob".to_owned()), RevokedWhat::Everything] {
        let world = world().await;
        let [bob, carol] = ["bob", "carol"].map(|who| world.add(admin(), who, &[]));
        let (bob, carol) = (bob.await, carol.await);
        let is_all = what == RevokedWhat::Everything;
        world.engine.revoke(admin(), what).await.unwrap();
        assert_eq!(code(world.enrol_with("bob", &bob, None).await), "Unauthenticated");
        assert_eq!(world.last_word().2, "enrolment_code");
        assert_eq!(world.enrol_with("carol", &carol, None).await.is_err(), is_all);
        let first = world.enrol_with("alice", &world.enrolment_code, None).await;
        assert_eq!(first.is_err(), is_all);
        let again = world.engine.renew_enrolment(admin(), name("bob")).await.unwrap().1;
        world.enrol("bob", &again).await;
    }
}

#[tokio::test]
async fn last_administrator_of_policies_cannot_be_locked_out() {
    let world = world().await;
    let alice = world.enrol("alice", &world.enrolment_code).await;
    let opened = world.log_in("alice", &alice, Some(SECURITY)).await.unwrap();
    let call = by(&opened.principal);
    let engine = &world.engine;
    let out = Change { groups: None, disabled: Some(true) };
    let plain = Change { groups: Some(vec![name("developers")]), disabled: None };
    assert_eq!(code(engine.set_user(&call, name("alice"), out.clone()).await), "InvalidRequest");
    assert_eq!(code(engine.set_user(&call, name("alice"), plain).await), "InvalidRequest");
    assert_eq!(code(engine.remove_user(&call, name("alice")).await), "InvalidRequest");
    assert_eq!(code(engine.renew_enrolment(&call, name("alice")).await), "InvalidRequest");
    assert!(world.is_let_in(&opened.bearer).await);
    // Somebody who was only made known is nobody who could.
    let bob = world.add(&call, "bob", &[SECURITY]).await;
    assert_eq!(code(engine.remove_user(&call, name("alice")).await), "InvalidRequest");
    world.enrol("bob", &bob).await;
    engine.set_user(&call, name("alice"), out).await.unwrap();
}

#[tokio::test]
async fn whoever_opens_a_seal_finds_a_way_in_again() {
    let world = world().await;
    let keyfile = SecretVec::copy_of(&KEYFILE);
    let way = replace_admin_token(&*world.store, &world.ports, &keyfile).await.unwrap();
    let WayIn::Token(token) = way else { panic!("nobody is enrolled") };
    assert!(world.is_let_in(&token).await);
    world.enrol("alice", &world.enrolment_code).await;
    let way = replace_admin_token(&*world.store, &world.ports, &keyfile).await.unwrap();
    let WayIn::EnrolmentCode(way) = way else { panic!("a token beside an administrator") };
    let bob = world.enrol("bob", &way).await;
    world.log_in("bob", &bob, Some(SECURITY)).await.unwrap();
}

#[tokio::test]
async fn people_are_made_known_by_administrators_only() {
    let world = world().await;
    let code_of_bob = world.add(admin(), "bob", &["developers"]).await;
    let bob = world.enrol("bob", &code_of_bob).await;
    let opened = world.log_in("bob", &bob, None).await.unwrap();
    let call = by(&opened.principal);
    assert_eq!(code(world.engine.add_user(&call, name("eve"), Vec::new()).await), "AccessDenied");
    assert_eq!(
        code(world.engine.add_user(admin(), name("bob"), Vec::new()).await),
        "AlreadyExists"
    );
    let (first, groups) = (name(FIRST_ADMINISTRATOR), Vec::new());
    assert_eq!(code(world.engine.add_user(admin(), first, groups).await), "InvalidRequest");
}
