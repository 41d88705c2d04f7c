//! Several seals: added, changed, removed, drilled; crashes in between.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::audit::Event;
use lastkey_core::ids::{InstanceId, RequestId};
use lastkey_core::ports::{Audit, Cause, DeviceKind, SealedStore as _};
use lastkey_core::record::RecordPath;
use lastkey_core::seal_record::{
    Bootstrap, Instance, KeyringEntry, RootWrap, SealKind, SealRecord,
};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::kdf::{Argon2Params, derive};
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::share::Share;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::engine::Ports;
use lastkey_service::error::Error;
use lastkey_service::ops::seals::{SealRequest, SealsReport, WantedSeal};
use lastkey_service::sealing::{Gate, Unsealed, replace_admin_token};
use lastkey_service::seals::{SealDraft, open_any};
use lastkey_service::weakness::Weakness;
use lastkey_testkit::fakes::{DeviceFault, FakeDevices, FakeSealedStore, Fault, MemoryAudit};

use crate::world::{KEYFILE, World, admin, call_by, code, world};

const FIRST: &str = "the first passphrase";
const SECOND: &str = "the second passphrase";

/// Every way in which a write can be cut off.
const FAULTS: [Fault; 4] = [Fault::Before, Fault::After, Fault::Full, Fault::Conflict];

pub(crate) fn passphrase(text: &str) -> WantedSeal {
    let costs = Argon2Params::parse(64, 1, 1).unwrap();
    WantedSeal::Passphrase { passphrase: SecretVec::copy_of(text.as_bytes()), costs }
}

pub(crate) fn device() -> WantedSeal {
    let settings = [("name".to_owned(), "one".to_owned())];
    WantedSeal::Device { kind: DeviceKind::Pkcs11, settings: settings.into() }
}

impl World {
    pub(crate) async fn change(&self, request: SealRequest) -> Result<SealsReport, Error> {
        self.gate.change_seals(admin(), request).await
    }

    pub(crate) async fn add_seal(&self, wanted: WantedSeal) -> [u8; 16] {
        let report = self.change(SealRequest::Add(wanted)).await.unwrap();
        report.seals.last().unwrap().id.0
    }

    pub(crate) async fn add_shares(&self) -> ([u8; 16], Vec<SecretVec>) {
        let instance = self.bootstrap().await.instance.id;
        let holders = ["a", "b", "c"].map(str::to_owned).to_vec();
        let (draft, shares) = SealDraft::split(instance, 2, holders, &mut SystemEntropy).unwrap();
        let id = self.add_seal(WantedSeal::Shamir(draft)).await;
        (id, shares.iter().map(Share::to_text).collect())
    }

    pub(crate) async fn bootstrap(&self) -> Bootstrap {
        self.store.bootstrap().await.unwrap().unwrap()
    }

    pub(crate) fn bring(
        &self,
        share: &SecretVec,
    ) -> impl Future<Output = Result<Option<Unsealed>, Error>> {
        let (gate, share) = (Arc::clone(&self.gate), share.expose(SecretVec::copy_of));
        async move { gate.unseal_by_share(RequestId([3; 16]), share).await.map(|(_, done)| done) }
    }

    async fn words(&self) -> Vec<(&'static str, &'static str)> {
        let report = self.gate.drill_seals(admin(), None).await.unwrap();
        report.seals.iter().map(|seal| (seal.kind.as_str(), seal.health.as_str())).collect()
    }

    /// The same with devices.
    pub(crate) async fn with_devices(self, devices: &FakeDevices) -> Self {
        drop(self.engine);
        self.gate.stop().await;
        let gate = Gate::new(self.store.clone(), self.ports.clone(), 100);
        let gate = Arc::new(gate.with_devices(Arc::new(devices.clone())));
        gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
        let engine = gate.engine().unwrap();
        Self { gate, engine, ..self }
    }

    /// A server that starts anew over the same storage.
    pub(crate) async fn restart(&self, presented: &[u8]) -> Result<Arc<Gate>, Error> {
        let gate = Arc::new(Gate::new(self.store.clone(), self.ports.clone(), 100));
        gate.unseal(RequestId([4; 16]), SecretVec::copy_of(presented)).await?;
        Ok(gate)
    }
}

fn opens(bootstrap: &Bootstrap, presented: &[u8]) -> bool {
    open_any(bootstrap, &SecretVec::copy_of(presented)).is_some()
}

#[tokio::test]
async fn each_of_several_seals_opens_and_records_stay_readable() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    let first = world.add_seal(passphrase(FIRST)).await;
    world.add_seal(passphrase(SECOND)).await;
    let bootstrap = world.bootstrap().await;
    assert!(
        [&KEYFILE[..], FIRST.as_bytes(), SECOND.as_bytes()].iter().all(|p| opens(&bootstrap, p))
    );

    let report = world.change(SealRequest::Remove(first)).await.unwrap();
    assert_eq!((report.seals.len(), report.epoch), (2, 2));
    let after = world.bootstrap().await;
    assert!(!opens(&after, FIRST.as_bytes()));
    // An older copy still opens by it: that is what the words at the removal say.
    assert!(opens(&bootstrap, FIRST.as_bytes()));
    assert_eq!(world.decrypt(&blob).await.unwrap(), b"x");
    let newer = world.create(MaterialSpec::Aes256).await;
    let newer = world.encrypt(&newer, b"y").await.unwrap();
    world.gate.seal(admin()).await.unwrap();
    let world = world.unseal_again().await;
    assert_eq!(world.decrypt(&blob).await.unwrap(), b"x");
    assert_eq!(world.decrypt(&newer).await.unwrap(), b"y");
}

#[tokio::test]
async fn every_change_draws_a_root_key_and_touches_no_record() {
    let world = world().await;
    world.add_seal(passphrase(FIRST)).await;
    let sealed = |bootstrap: &Bootstrap| {
        let wraps = bootstrap.seals.iter().map(|seal| match &seal.root {
            RootWrap::Keyed { public, sealed_root, .. } => (*public, sealed_root.clone()),
            RootWrap::Direct(_) => panic!("version 1"),
        });
        wraps.collect::<Vec<_>>()
    };
    let before = sealed(&world.bootstrap().await);
    world.change(SealRequest::RotateRoot).await.unwrap();
    let after = sealed(&world.bootstrap().await);
    for ((public, root), (same, other)) in before.iter().zip(&after) {
        assert_eq!(public, same);
        assert_ne!(root, other);
    }
    let report = world.change(SealRequest::RotateKeyring).await.unwrap();
    assert_eq!(report.epoch, 2);
    assert!(
        opens(&world.bootstrap().await, &KEYFILE)
            && opens(&world.bootstrap().await, FIRST.as_bytes())
    );
}

#[tokio::test]
async fn a_passphrase_is_changed_in_place() {
    let world = world().await;
    let id = world.add_seal(passphrase(FIRST)).await;
    world.change(SealRequest::Replace(id, passphrase(SECOND))).await.unwrap();
    let bootstrap = world.bootstrap().await;
    assert_eq!(bootstrap.seals.len(), 2);
    assert!(!opens(&bootstrap, FIRST.as_bytes()) && opens(&bootstrap, SECOND.as_bytes()));
    assert_eq!(
        code(world.change(SealRequest::Replace([9; 16], passphrase(FIRST))).await),
        "InvalidRequest"
    );
    let short = WantedSeal::Passphrase {
        passphrase: SecretVec::copy_of(b"short"),
        costs: Argon2Params::default(),
    };
    assert_eq!(code(world.change(SealRequest::Add(short)).await), "InvalidRequest");
}

#[tokio::test]
async fn the_last_seal_that_was_seen_to_open_is_not_removed() {
    let world = world().await;
    let keyfile = world.bootstrap().await.seals[0].id;
    assert_eq!(code(world.change(SealRequest::Remove(keyfile)).await), "SealRefused");
    let (_, shares) = world.add_shares().await;
    // Nobody has seen the shares open anything yet.
    assert_eq!(code(world.change(SealRequest::Remove(keyfile)).await), "SealRefused");
    assert!(world.bring(&shares[0]).await.unwrap().is_none());
    assert!(world.bring(&shares[2]).await.unwrap().is_some());
    world.change(SealRequest::Remove(keyfile)).await.unwrap();
    assert_eq!(code(world.change(SealRequest::Remove(keyfile)).await), "InvalidRequest");
}

#[tokio::test]
async fn the_last_seal_that_was_seen_to_open_is_not_replaced_by_one_that_was_not() {
    let world = world().await.with_devices(&FakeDevices::default()).await;
    let bootstrap = world.bootstrap().await;
    let keyfile = bootstrap.seals[0].id;
    let shares = || {
        let holders = ["a", "b"].map(str::to_owned).to_vec();
        let (draft, _) =
            SealDraft::split(bootstrap.instance.id, 2, holders, &mut SystemEntropy).unwrap();
        WantedSeal::Shamir(draft)
    };
    for wanted in [shares(), device()] {
        let replaced = world.change(SealRequest::Replace(keyfile, wanted)).await;
        assert_eq!(code(replaced), "SealRefused");
    }
    assert_eq!(world.bootstrap().await, bootstrap);
    world.add_seal(passphrase(FIRST)).await;
    world.change(SealRequest::Replace(keyfile, shares())).await.unwrap();
    // By then the passphrase is the last one, and only another passphrase takes its place.
    let last = world.bootstrap().await.seals[1].id;
    let replaced = world.change(SealRequest::Replace(last, device())).await;
    assert_eq!(code(replaced), "SealRefused");
    world.change(SealRequest::Replace(last, passphrase(SECOND))).await.unwrap();
}

#[tokio::test]
async fn a_seal_of_shares_does_not_inherit_the_proof_of_another_seal() {
    let world = world().await;
    let instance = world.bootstrap().await.instance.id;
    let first = world.add_seal(passphrase(FIRST)).await;
    let shares = |id: [u8; 16]| {
        let holders = ["a", "b"].map(str::to_owned).to_vec();
        let (draft, _) = SealDraft::split(instance, 2, holders, &mut SystemEntropy).unwrap();
        let (_, kind, public, wrapped) = draft.parts();
        let SealKind::Shamir { threshold, holders } = kind.clone() else { panic!("{kind:?}") };
        let shared = draft.shared().expose(SecretArray::copy_of);
        SealDraft::received(id, threshold, holders, *public, wrapped.to_vec(), shared).unwrap()
    };
    let wanted = || WantedSeal::Shamir(shares(first));
    assert_eq!(code(world.change(SealRequest::Add(wanted())).await), "InvalidRequest");
    assert_eq!(code(world.change(SealRequest::Replace(first, wanted())).await), "InvalidRequest");
    world.change(SealRequest::Remove(first)).await.unwrap();
    let report = world.change(SealRequest::Add(wanted())).await.unwrap();
    assert_eq!(report.seals[1].health.as_str(), "holder-needed");
    let keyfile = report.seals[0].id.0;
    assert_eq!(code(world.change(SealRequest::Remove(keyfile)).await), "SealRefused");
}

/// An audit log that lets others go on while it writes.
struct SlowAudit(Arc<MemoryAudit>);

#[async_trait]
impl Audit for SlowAudit {
    fn append(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.0.append(event)
    }

    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.0.append_durably(event).await
    }
}

#[tokio::test]
async fn removals_at_the_same_time_leave_a_seal() {
    let world = world().await;
    let first = world.add_seal(passphrase(FIRST)).await;
    let keyfile = world.bootstrap().await.seals[0].id;
    let ports = Ports { audit: Arc::new(SlowAudit(world.audit.clone())), ..world.ports.clone() };
    let gate = Arc::new(Gate::new(world.store.clone(), ports, 100));
    gate.unseal(RequestId([4; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
    let remove = |id| gate.change_seals(admin(), SealRequest::Remove(id));
    let (one, other) = tokio::join!(remove(first), remove(keyfile));
    let refused = if one.is_ok() { other } else { one };
    assert_eq!(code(refused), "SealRefused");
    assert_eq!(world.bootstrap().await.seals.len(), 1);
}

/// The server is unsealed and sealed while a device thinks; what it says then is not asked any more.
#[tokio::test]
async fn a_drill_guesses_no_faster_than_an_unseal() {
    let world = world().await;
    world.add_seal(passphrase(FIRST)).await;
    let drill = |text: &str| {
        let presented = Some(SecretVec::copy_of(text.as_bytes()));
        let gate = Arc::clone(&world.gate);
        async move { gate.drill_seals(admin(), presented).await }
    };
    for _ in 0..5 {
        drill("a guess").await.unwrap();
    }
    assert_eq!(code(drill(FIRST).await), "Throttled");
    let guess = SecretVec::copy_of(b"a guess");
    assert_eq!(code(world.gate.unseal(RequestId([2; 16]), guess).await), "Throttled");
    // Nothing is guessed where nothing is presented.
    world.gate.drill_seals(admin(), None).await.unwrap();
    world.clock.pass(Duration::from_secs(10));
    assert_eq!(drill(FIRST).await.unwrap().seals[1].health.as_str(), "proven");
    for _ in 0..5 {
        drill("a guess").await.unwrap();
    }
    assert_eq!(code(drill("a guess").await), "Throttled");
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.action, last.result), ("sys:DrillSeals", "Throttled"));
}

#[tokio::test]
async fn the_drill_finds_what_opens_what_did_and_what_is_sabotaged() {
    let devices = FakeDevices::default();
    let world = world().await.with_devices(&devices).await;
    world.add_seal(device()).await;
    world.add_shares().await;
    assert_eq!(
        world.words().await,
        [("keyfile", "proven"), ("pkcs11", "proven"), ("shamir", "holder-needed")]
    );
    devices.set_fault(DeviceFault::Replaced);
    world.clock.pass(Duration::from_secs(91 * 86_400));
    assert_eq!(
        world.words().await,
        [("keyfile", "stale"), ("pkcs11", "failed"), ("shamir", "holder-needed")]
    );
    let presented = Some(SecretVec::copy_of(&KEYFILE));
    let report = world.gate.drill_seals(admin(), presented).await.unwrap();
    assert_eq!(report.seals[0].health.as_str(), "proven");
    assert_eq!(code(world.gate.drill_seals(&call_by("stranger"), None).await), "AccessDenied");
}

#[tokio::test]
async fn seals_that_somebody_else_wrote_get_no_root_key() {
    let world = world().await;
    world.add_seal(passphrase(FIRST)).await;
    // A public half of his own, in the place of a seal's.
    world.store.overwrite_bootstrap(|bootstrap| {
        if let RootWrap::Keyed { public, .. } = &mut bootstrap.seals[1].root {
            *public = [9; 32];
        }
    });
    assert_eq!(code(world.change(SealRequest::RotateRoot).await), "SealRefused");
    assert_eq!(code(world.gate.drill_seals(admin(), None).await), "SealRefused");
    let secret = SecretArray::copy_of(&[7; 32]);
    assert_eq!(code(world.gate.wrap_for_seals("backup", b"1", &secret).await), "SealRefused");
    assert_eq!(code(world.restart(&KEYFILE).await), "SealRefused");
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.action, last.result), ("sys:Unseal", "SealRefused"));
    world.gate.stop().await;
    let keyfile = SecretVec::copy_of(&KEYFILE);
    let token = replace_admin_token(&*world.store, &world.ports, &keyfile).await;
    assert_eq!(code(token), "SealRefused");
}

#[tokio::test]
async fn a_secret_for_all_seals_opens_by_each_for_its_purpose_only() {
    let world = world().await;
    world.add_seal(passphrase(FIRST)).await;
    let secret = SecretArray::copy_of(&[7; 32]);
    let (bootstrap, wrapped) = world.gate.wrap_for_seals("backup", b"1", &secret).await.unwrap();
    for (presented, part) in [&KEYFILE[..], FIRST.as_bytes()].into_iter().zip(&wrapped) {
        let open = open_any(&bootstrap, &SecretVec::copy_of(presented)).unwrap();
        assert_eq!(open.id(), part.seal);
        assert!(open.unwrap("backup", b"1", &part.wrapped).unwrap().ct_eq(&secret));
        assert!(open.unwrap("root", b"1", &part.wrapped).is_err());
        assert!(open.unwrap("backup", b"2", &part.wrapped).is_err());
    }
}

/// Every way in which a change can be cut off: before it is written, after, and by a full disk.
/// Afterwards a server that starts anew opens with every seal of the one record or the other.
#[tokio::test]
async fn a_crash_at_any_step_leaves_the_seals_of_before_or_after() {
    for fault in FAULTS {
        for step in 0..5 {
            let world = world().await;
            let first = world.add_seal(passphrase(FIRST)).await;
            let request = match step {
                0 => SealRequest::Add(passphrase(SECOND)),
                1 => SealRequest::Replace(first, passphrase(SECOND)),
                2 => SealRequest::Remove(first),
                3 => SealRequest::RotateRoot,
                _ => SealRequest::RotateKeyring,
            };
            world.store.fail_next_replacement(fault);
            let done = world.change(request).await.is_ok();
            assert!(!world.store.has_faults(), "{fault:?} {step}: it was not met");
            // A failed write that took place counts as done once it was read back.
            assert_eq!(done, fault == Fault::After, "{fault:?} {step}");
            let (has_first, has_second) = match (done, step) {
                (true, 0) => (true, true),
                (true, 1) => (false, true),
                (true, 2) => (false, false),
                _ => (true, false),
            };
            for (presented, has) in [
                (&KEYFILE[..], true),
                (FIRST.as_bytes(), has_first),
                (SECOND.as_bytes(), has_second),
            ] {
                let opened = world.restart(presented).await;
                assert_eq!(opened.is_ok(), has, "{fault:?} {step}");
                if let Ok(gate) = opened {
                    gate.stop().await;
                }
            }
            // The running server is not confused either: the next change goes through.
            world.change(SealRequest::RotateKeyring).await.unwrap();
            assert!(world.restart(&KEYFILE).await.is_ok(), "{fault:?} {step}");
        }
    }
}

/// The one write that a renewal of all records ends with. What is lost of it is done again.
#[tokio::test]
async fn a_crash_at_the_end_of_a_renewal_costs_the_renewal_and_nothing_else() {
    for fault in FAULTS {
        let world = world().await;
        world.add_seal(passphrase(FIRST)).await;
        let key = world.create(MaterialSpec::Aes256).await;
        let blob = world.encrypt(&key, b"x").await.unwrap();
        // The rotation goes well, and what the renewal writes down after it does not.
        world.store.fail_replacement_later(1, fault);
        world.change(SealRequest::RotateKeyring).await.unwrap();
        while world.store.has_faults() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.decrypt(&blob).await.unwrap(), b"x", "{fault:?}");
        world.gate.stop().await;
        let bootstrap = world.bootstrap().await;
        let is_written = fault == Fault::After;
        assert_eq!(bootstrap.records_from, if is_written { 2 } else { 1 }, "{fault:?}");
        world.restart(FIRST.as_bytes()).await.unwrap().stop().await;
        let world = world.unseal_again().await;
        assert_eq!(world.decrypt(&blob).await.unwrap(), b"x", "{fault:?}");
        while world.bootstrap().await.records_from != 2 {
            tokio::task::yield_now().await;
        }
    }
}

/// It was once tried again with the next epoch only, a year later, or when the server was started.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_failed_is_tried_again_after_a_minute() {
    let world = world().await;
    world.store.fail_replacement_later(1, Fault::Before);
    world.change(SealRequest::RotateKeyring).await.unwrap();
    let mut minutes = 0;
    while world.bootstrap().await.records_from != 2 {
        assert!(minutes < 100, "it was not tried again");
        tokio::time::sleep(Duration::from_secs(60)).await;
        minutes += 1;
    }
    assert!(!world.store.has_faults() && minutes > 0);
}

/// What is remembered of the seals is one record: of when they opened, and of what was accepted.
#[tokio::test]
async fn a_crash_at_any_write_of_the_seal_book_loses_no_seal_and_no_proof_of_before() {
    for fault in FAULTS {
        for step in 0..3 {
            let world = world().await;
            let first = world.add_seal(passphrase(FIRST)).await;
            if step == 1 {
                world.change(SealRequest::Remove(first)).await.unwrap();
            }
            world.clock.pass(Duration::from_secs(86_400));
            world.store.records().fail_at(RecordPath::seal_book(), fault);
            let presented = Some(SecretVec::copy_of(FIRST.as_bytes()));
            // Each of these writes the book once; whether it then says that it is done is its own.
            match step {
                0 => drop(world.gate.drill_seals(admin(), presented).await),
                1 => drop(world.change(SealRequest::AcceptWeakness).await),
                _ => drop(world.restart(FIRST.as_bytes()).await),
            }
            assert!(!world.store.records().has_faults(), "{fault:?} {step}: it was not met");
            world.gate.stop().await;
            for presented in [&KEYFILE[..], FIRST.as_bytes()] {
                let opened = world.restart(presented).await;
                assert_eq!(opened.is_ok(), step != 1 || presented == KEYFILE, "{fault:?} {step}");
                if let Ok(gate) = opened {
                    gate.stop().await;
                }
            }
            // The next one is written, and nothing that was known before is forgotten.
            let world = world.unseal_again().await;
            let known = world.words().await;
            assert!(known.iter().all(|(_, health)| *health == "proven"), "{fault:?} {known:?}");
        }
    }
}

#[tokio::test]
async fn nothing_changes_when_the_audit_log_is_away_or_nobody_may() {
    let world = world().await;
    let before = world.bootstrap().await;
    world.audit.set_away(true);
    assert_eq!(code(world.change(SealRequest::Add(passphrase(FIRST))).await), "Unavailable");
    world.audit.set_away(false);
    let stranger = call_by("stranger");
    let refused = world.gate.change_seals(&stranger, SealRequest::RotateRoot).await;
    assert_eq!(code(refused), "AccessDenied");
    assert_eq!(code(world.gate.list_seals(&stranger).await), "AccessDenied");
    let dry = lastkey_service::call::Call { dry_run: true, ..admin().clone() };
    assert_eq!(code(world.gate.change_seals(&dry, SealRequest::RotateKeyring).await), "DryRun");
    assert_eq!(world.bootstrap().await, before);
}

#[tokio::test]
async fn a_weakness_is_found_accepted_by_name_and_forgotten_when_it_changes() {
    let world = world().await;
    let report = world.gate.list_seals(admin()).await.unwrap();
    assert_eq!((report.weaknesses, report.accepted), (vec![Weakness::SingleSeal], None));
    let report = world.change(SealRequest::AcceptWeakness).await.unwrap();
    assert_eq!(report.accepted.unwrap().by, "admin");
    world.add_seal(passphrase(FIRST)).await;
    let report = world.gate.list_seals(admin()).await.unwrap();
    assert_eq!((report.weaknesses, report.accepted), (vec![], None));
}

#[tokio::test]
async fn an_epoch_of_the_keyring_ends_after_a_year() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    world.clock.pass(Duration::from_secs(364 * 86_400));
    world.gate.stop().await;
    assert_eq!(world.bootstrap().await.keyring.len(), 1);
    let world = world.unseal_again().await;
    world.clock.pass(Duration::from_secs(2 * 86_400));
    world.gate.stop().await;
    assert_eq!(world.bootstrap().await.keyring.len(), 2);
    let turned = world.audit.events().into_iter().rfind(|event| event.action == "sys:UpdateSeals");
    assert_eq!(turned.unwrap().result, "ok");
    let world = world.unseal_again().await;
    assert_eq!(world.decrypt(&blob).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_record_of_version_1_is_upgraded_by_the_first_unseal() {
    let ports = world().await.ports;
    let (store, before) = (Arc::new(FakeSealedStore::default()), version_1());
    store.initialise(&before).await.unwrap();
    let keyfile = SecretVec::copy_of(&KEYFILE);
    replace_admin_token(&*store, &ports, &keyfile).await.unwrap();
    let start = async || {
        let gate = Arc::new(Gate::new(store.clone(), ports.clone(), 100));
        gate.unseal(RequestId([4; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
        gate
    };
    start().await.stop().await;
    let after = store.bootstrap().await.unwrap().unwrap();
    assert!(after.authentication.is_some());
    assert_eq!((&after.keyring, after.seals[0].id), (&before.keyring, before.seals[0].id));
    let gate = start().await;
    gate.change_seals(admin(), SealRequest::Add(passphrase(FIRST))).await.unwrap();
    let bootstrap = store.bootstrap().await.unwrap().unwrap();
    assert!(opens(&bootstrap, FIRST.as_bytes()) && opens(&bootstrap, &KEYFILE));
}

/// What version 1 wrote for a key file, put together from `docs/formats/hierarchy.md`.
fn version_1() -> Bootstrap {
    let (instance, id, root) = ([1; 16], [2; 16], SecretArray::copy_of(&[3; 32]));
    let wrap = |key: &SecretArray<32>, parts: &[&[u8]], secret: &[u8]| {
        WrapKey::new(key).unwrap().wrap(&parts.concat(), secret, &mut SystemEntropy).unwrap()
    };
    let kek = derive(&SecretArray::copy_of(&KEYFILE), b"lastkey/keyfile/v1").unwrap();
    let keyring_key = derive(&root, b"lastkey/keyring/v1").unwrap();
    let created_at = Timestamp(1_799_000_000);
    let entry = [b"lastkey/keyring/v1", &instance[..], &1_u32.to_be_bytes()];
    let seal = [b"lastkey/seal/v1", &instance[..], &id, &[2]];
    Bootstrap {
        instance: Instance { id: InstanceId(instance), created_at },
        keyring: vec![KeyringEntry {
            epoch: 1,
            wrapped: wrap(&keyring_key, &entry, &[4; 32]),
            created_at,
        }],
        records_from: 1,
        seals: vec![SealRecord {
            id,
            kind: SealKind::Keyfile,
            root: RootWrap::Direct(wrap(&kek, &seal, &[3; 32])),
            created_at,
        }],
        authentication: None,
    }
}
