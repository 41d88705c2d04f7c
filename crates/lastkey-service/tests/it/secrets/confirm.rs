//! Claims of scanners: yes, no, or not told; to whom; how often; and what the log says of it.

use lastkey_core::ids::{Name, VersionNo};
use lastkey_core::key::DeletionWindow;
use lastkey_core::leak::{Claim, PROOF_LEN};
use lastkey_core::secret_item::SecretId;
use lastkey_core::secret_item::ValueKind;
use lastkey_core::secret_value::Fields;
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::secrets::{PutRequest, SecretChange, Value, Verdict};
use lastkey_testkit::fakes::FakeClaims;

use super::{name, no, put_request};
use crate::world::{World, admin, call_by, code, world};

const KEY: [u8; PROOF_LEN] = [7; PROOF_LEN];

fn claim(secret: SecretId, version: u32, seen: &[u8]) -> Claim {
    let version = VersionNo::new(version).unwrap();
    Claim { secret, version, proof: FakeClaims::prove(&KEY, seen) }
}

impl World {
    async fn id(&self, at: &str, value: &[u8]) -> SecretId {
        self.put(at, value).await.unwrap().item.id
    }

    async fn confirm(&self, call: &Call, claims: &[Claim]) -> Result<Vec<Verdict>, Error> {
        self.engine.confirm_leaks(call, &KEY, claims).await
    }

    /// Lets the caller `scanner` do this below `a`.
    async fn permit_scanner(&self, action: &str) {
        let text = format!(
            "permit(principal == Service::\"scanner\", action == Action::\"{action}\", \
             resource in SecretPath::\"a\");"
        );
        let policy = Name::parse(&action.replace(':', "-")).unwrap();
        self.engine.set_policy(admin(), policy, text, None).await.unwrap();
    }
}

#[tokio::test]
async fn claim_is_confirmed_for_its_value_and_refuted_for_any_other() {
    let world = world().await;
    let id = world.id("a/b", b"one").await;
    world.put("a/b", b"two").await.unwrap();
    let claims = [claim(id, 1, b"one"), claim(id, 2, b"two"), claim(id, 2, b"one")];
    let verdicts = world.confirm(admin(), &claims).await.unwrap();
    let Verdict::Confirmed(Some(leaked)) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((&leaked.name, leaked.version), (&name("a/b"), no(1)));
    assert_eq!(leaked.stages.iter().map(|stage| stage.as_str()).collect::<Vec<_>>(), ["previous"]);
    assert!(matches!(&verdicts[1], Verdict::Confirmed(Some(leaked)) if leaked.version == no(2)));
    assert_eq!(verdicts[2], Verdict::Refuted);
}

#[tokio::test]
async fn any_field_of_a_value_confirms_it() {
    let world = world().await;
    let fields = [("user", "app"), ("password", "hunter2")];
    let fields =
        fields.map(|(name, value)| (name.to_owned(), SecretVec::copy_of(value.as_bytes())));
    let bytes = Fields::new(fields.into()).unwrap().encode().unwrap();
    let value = Value { kind: ValueKind::Fields, bytes };
    let request = PutRequest { value, ..put_request(b"") };
    let id = world.engine.put_secret(admin(), name("a"), request).await.unwrap().item.id;
    let claims = [claim(id, 1, b"hunter2"), claim(id, 1, b"hunter3")];
    let verdicts = world.confirm(admin(), &claims).await.unwrap();
    assert!(matches!(verdicts[0], Verdict::Confirmed(_)));
    assert_eq!(verdicts[1], Verdict::Refuted);
}

#[tokio::test]
async fn what_is_gone_or_not_there_is_not_told() {
    let world = world().await;
    let (kept, gone) = (world.id("a/kept", b"one").await, world.id("a/gone", b"one").await);
    world.put("a/kept", b"two").await.unwrap();
    world.change_secret("a/kept", SecretChange::DestroyVersion(no(1))).await.unwrap();
    let window = DeletionWindow::from_days(7).unwrap();
    world.change_secret("a/gone", SecretChange::Delete(window)).await.unwrap();
    let claims = [
        claim(kept, 1, b"one"),
        claim(kept, 9, b"one"),
        claim(gone, 1, b"one"),
        claim(SecretId([9; 16]), 1, b"one"),
    ];
    assert_eq!(world.confirm(admin(), &claims).await.unwrap(), [const { Verdict::Untold }; 4]);
}

#[tokio::test]
async fn only_who_may_asks_and_only_who_may_describe_learns_the_name() {
    let world = world().await;
    let (mine, other) = (world.id("a/b", b"one").await, world.id("b/c", b"one").await);
    let scanner = call_by("scanner");
    let claims = [claim(mine, 1, b"one"), claim(other, 1, b"one")];
    assert_eq!(code(world.confirm(&scanner, &claims).await), "AccessDenied");
    // Nothing is looked for.
    let told = world.audit.events().pop().unwrap();
    assert_eq!((told.reason.as_str(), told.result), ("no policy lets him ask", "AccessDenied"));
    // Reading the value is another right.
    world.permit_scanner("secrets:GetSecret").await;
    assert_eq!(code(world.confirm(&scanner, &claims).await), "AccessDenied");
    world.permit_scanner("secrets:ConfirmLeak").await;
    let verdicts = world.confirm(&scanner, &claims).await.unwrap();
    assert_eq!(verdicts, [Verdict::Confirmed(None), Verdict::Untold]);
    world.permit_scanner("secrets:DescribeSecret").await;
    let verdicts = world.confirm(&scanner, &claims).await.unwrap();
    assert!(matches!(&verdicts[0], Verdict::Confirmed(Some(leaked)) if leaked.name == name("a/b")));
}

#[tokio::test]
async fn each_claim_is_a_record_and_none_says_what_was_seen() {
    let world = world().await;
    let id = world.id("a/b", b"hunter2").await;
    let unknown = SecretId([9; 16]);
    let claims = [claim(id, 1, b"hunter2"), claim(id, 1, b"hunter3"), claim(unknown, 4, b"x")];
    world.confirm(admin(), &claims).await.unwrap();
    let events = world.audit.events();
    let probes = events.iter().filter(|event| event.action == "secrets:ConfirmLeak");
    let told: Vec<_> = probes
        .map(|event| (event.target.clone().unwrap(), event.result, event.reason.clone()))
        .collect();
    let record =
        |target: &str, result, reason: &str| (target.to_owned(), result, reason.to_owned());
    assert_eq!(
        told,
        [
            record("secret/a/b#1", "ok", "the value was seen where it should not be"),
            record("secret/a/b#1", "ok", "what was seen is not this value"),
            record(&format!("secret-id/{unknown}#4"), "AccessDenied", "no such secret"),
        ]
    );
    let all = format!("{events:?}");
    assert!(!all.contains("hunter"), "{all}");
}

#[tokio::test]
async fn nothing_is_answered_when_the_audit_log_is_away_or_the_caller_only_asks() {
    let world = world().await;
    let id = world.id("a/b", b"one").await;
    let claims = [claim(id, 1, b"one")];
    world.audit.set_away(true);
    assert_eq!(code(world.confirm(admin(), &claims).await), "Unavailable");
    world.audit.set_away(false);
    let dry = Call { dry_run: true, ..admin().clone() };
    assert_eq!(code(world.confirm(&dry, &claims).await), "DryRun");
    let dry = Call { dry_run: true, ..call_by("scanner") };
    assert_eq!(code(world.confirm(&dry, &claims).await), "AccessDenied");
}

#[tokio::test]
async fn claims_are_counted_and_limited_for_each_caller() {
    let world = world().await;
    let id = world.id("a/b", b"one").await;
    assert_eq!(code(world.confirm(admin(), &[]).await), "InvalidRequest");
    assert_eq!(code(world.confirm(admin(), &[claim(id, 1, b"x"); 65]).await), "InvalidRequest");
    let guesses = [claim(id, 1, b"x"); 64];
    for _ in 0..4 {
        world.confirm(admin(), &guesses).await.unwrap();
    }
    assert_eq!(code(world.confirm(admin(), &guesses).await), "Throttled");
    // Somebody else is refused for what he may not, not for what others asked.
    assert_eq!(code(world.confirm(&call_by("scanner"), &guesses).await), "AccessDenied");
}
