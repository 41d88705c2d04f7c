//! From sealed to unsealed: shares, devices, too many attempts, and what the log has of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::ids::RequestId;
use lastkey_core::ports::{
    DeviceKind, DeviceSettings, SealDevice, SealDeviceError, SealDevices, SealedStore as _,
};
use lastkey_core::record::RecordPath;
use lastkey_core::seal_record::RootWrap;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::hpke::{self, SharedKey};
use lastkey_crypto::kdf::derive;
use lastkey_crypto::share::Share;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::error::Error;
use lastkey_service::ops::seals::SealRequest;
use lastkey_service::sealing::Gate;
use lastkey_service::seals::open_by_shares;
use lastkey_testkit::fakes::{DeviceFault, FakeDevices, Fault};
use tokio::sync::Notify;

use crate::seals::device;
use crate::world::{KEYFILE, World, admin, code, world};

#[tokio::test]
async fn shares_unseal_in_any_order_and_bad_ones_are_refused_at_once() {
    let world = world().await;
    let (id, shares) = world.add_shares().await;
    let elsewhere = {
        let other = crate::world::world().await;
        other.add_shares().await.1.remove(0)
    };
    world.gate.seal(admin()).await.unwrap();
    for bad in [&elsewhere, &SecretVec::copy_of(b"lastkey-share-1qqqq"), &SecretVec::copy_of(b"")] {
        assert_eq!(code(world.bring(bad).await), "InvalidRequest");
    }
    assert!(world.bring(&shares[2]).await.unwrap().is_none());
    let status = world.gate.status().await.unwrap();
    let progress = status.seals.iter().find(|seal| seal.id.0 == id).unwrap().shares;
    assert_eq!((status.sealed, progress), (true, Some((1, 2))));
    let twice = world.bring(&shares[2]).await;
    assert!(
        matches!(&twice, Err(Error::SealRefused(why)) if why.contains("share 3 is here already"))
    );
    let World { gate, store, engine, .. } = world;
    drop(engine);
    let text = shares[0].expose(SecretVec::copy_of);
    let (gathered, done) = gate.unseal_by_share(RequestId([3; 16]), text).await.unwrap();
    assert_eq!((gathered.have, gathered.need, done.unwrap().seal_kind), (2, 2, "shamir"));
    assert!(!gate.status().await.unwrap().sealed);
    // The same by hand, as a recovery from a copy of the storage does it.
    let bootstrap = store.bootstrap().await.unwrap().unwrap();
    let parsed: Vec<Share> = shares.iter().map(|text| Share::parse(text).unwrap()).collect();
    assert!(open_by_shares(&bootstrap, &parsed[1..]).is_ok());
    assert!(open_by_shares(&bootstrap, &parsed[1..2]).is_err());
}

/// The shares of a server that did not start once were lost: every holder had to come again.
#[tokio::test]
async fn shares_wait_when_the_server_does_not_start_and_any_of_them_tries_again() {
    let world = world().await;
    let (id, shares) = world.add_shares().await;
    world.gate.seal(admin()).await.unwrap();
    let World { gate, store, engine, audit, .. } = world;
    drop(engine);
    let bring = |share: &SecretVec| {
        let (gate, share) = (Arc::clone(&gate), share.expose(SecretVec::copy_of));
        async move { gate.unseal_by_share(RequestId([3; 16]), share).await.map(|(_, done)| done) }
    };
    let waiting = async || {
        let status = gate.status().await.unwrap();
        (status.sealed, status.seals.iter().find(|seal| seal.id.0 == id).unwrap().shares)
    };
    assert!(bring(&shares[2]).await.unwrap().is_none());
    store.records().fail_at(RecordPath::clock(), Fault::Before);
    assert_eq!(code(bring(&shares[0]).await), "Unavailable");
    assert_eq!(waiting().await, (true, Some((2, 2))));
    // An unseal without a record is undone, and costs no share either.
    audit.set_away(true);
    assert_eq!(code(bring(&shares[1]).await), "Unavailable");
    audit.set_away(false);
    assert_eq!(waiting().await, (true, Some((2, 2))));
    assert_eq!(bring(&shares[0]).await.unwrap().unwrap().seal_kind, "shamir");
    assert_eq!(waiting().await, (false, Some((0, 2))));
}

#[tokio::test]
async fn a_share_of_a_seal_that_was_removed_is_told_so() {
    let world = world().await;
    let (id, shares) = world.add_shares().await;
    world.change(SealRequest::Remove(id)).await.unwrap();
    let refused = world.bring(&shares[0]).await;
    let Err(Error::Invalid { problem, .. }) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("was removed or made anew"), "{problem}");
}

#[tokio::test]
async fn devices_unseal_by_themselves_and_an_outage_is_told_from_a_loss() {
    let devices = FakeDevices::default();
    let world = world().await.with_devices(&devices).await;
    world.add_seal(device()).await;
    world.gate.stop().await;
    let World { gate, engine, .. } = world;
    drop(engine);
    let attempt = || gate.unseal_by_devices(RequestId([6; 16]));
    devices.set_fault(DeviceFault::Away);
    assert_eq!(code(attempt().await), "Unavailable");
    let problem = gate.status().await.unwrap().seals[1].problem.clone();
    assert_eq!(problem.as_deref(), Some("the device is away"));
    for fault in [DeviceFault::Replaced, DeviceFault::PinLocked] {
        devices.set_fault(fault);
        assert_eq!(code(attempt().await), "SealRefused");
    }
    devices.set_fault(DeviceFault::None);
    assert_eq!(attempt().await.unwrap().unwrap().seal_kind, "pkcs11");
    assert_eq!(gate.status().await.unwrap().seals[1].problem, None);
    assert!(attempt().await.unwrap().is_none());
}

#[tokio::test]
async fn a_server_that_somebody_sealed_is_opened_by_no_device_until_somebody_unseals_it() {
    let world = world().await.with_devices(&FakeDevices::default()).await;
    world.add_seal(device()).await;
    let attempt = || world.gate.unseal_by_devices(RequestId([6; 16]));
    world.gate.seal(admin()).await.unwrap();
    // Stopping on top of it changes nothing.
    world.gate.stop().await;
    assert!(attempt().await.unwrap().is_none());
    assert!(matches!(world.gate.engine(), Err(Error::Sealed)));
    drop(world.engine);
    world.gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
    world.gate.stop().await;
    assert_eq!(attempt().await.unwrap().unwrap().seal_kind, "pkcs11");
}

/// Devices that answer when they are told to.
#[derive(Default)]
struct SlowDevices {
    devices: FakeDevices,
    was_asked: Notify,
    may_answer: Notify,
}

#[async_trait]
impl SealDevices for SlowDevices {
    async fn open(
        &self,
        kind: DeviceKind,
        settings: &DeviceSettings,
    ) -> Result<Arc<dyn SealDevice>, SealDeviceError> {
        self.was_asked.notify_one();
        self.may_answer.notified().await;
        self.devices.open(kind, settings).await
    }
}

#[tokio::test]
async fn a_device_that_answers_after_somebody_sealed_the_server_does_not_open_it() {
    let world = world().await.with_devices(&FakeDevices::default()).await;
    world.add_seal(device()).await;
    world.gate.stop().await;
    let World { store, ports, engine, .. } = world;
    drop(engine);
    let slow = Arc::new(SlowDevices::default());
    let gate = Arc::new(Gate::new(store, ports, 100).with_devices(slow.clone()));
    let trying = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.unseal_by_devices(RequestId([6; 16])).await }
    });
    slow.was_asked.notified().await;
    gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
    gate.seal(admin()).await.unwrap();
    slow.may_answer.notify_one();
    assert!(trying.await.unwrap().unwrap().is_none());
    assert!(matches!(gate.engine(), Err(Error::Sealed)));
}

#[tokio::test]
async fn an_unseal_does_not_start_under_seals_that_changed_while_it_waited() {
    let world = world().await;
    world.gate.seal(admin()).await.unwrap();
    let (gate, before) = (Arc::clone(&world.gate), world.store.bootstrap_reads());
    let unsealing =
        tokio::spawn(
            async move { gate.unseal(RequestId([8; 16]), SecretVec::copy_of(&KEYFILE)).await },
        );
    while world.store.bootstrap_reads() == before {
        tokio::task::yield_now().await;
    }
    // It waits for the engine that this test still holds.
    world.store.overwrite_bootstrap(|bootstrap| bootstrap.seals.clear());
    drop(world.engine);
    assert_eq!(code(unsealing.await.unwrap()), "Conflict");
    assert!(world.gate.engine().is_err());
    // The log has what came of it, and not that the passphrase was right.
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.action, last.result), ("sys:Unseal", "Conflict"));
}

#[tokio::test]
async fn an_unseal_that_cannot_be_recorded_is_undone() {
    let devices = FakeDevices::default();
    let world = world().await.with_devices(&devices).await;
    world.add_seal(device()).await;
    let (_, shares) = world.add_shares().await;
    world.gate.stop().await;
    let World { gate, audit, engine, .. } = world;
    drop(engine);
    let bring =
        |n: usize| gate.unseal_by_share(RequestId([3; 16]), shares[n].expose(SecretVec::copy_of));
    bring(0).await.unwrap();
    audit.set_away(true);
    let secret = SecretVec::copy_of(&KEYFILE);
    assert_eq!(code(gate.unseal(RequestId([2; 16]), secret).await), "Unavailable");
    assert!(gate.engine().is_err());
    assert_eq!(code(gate.unseal_by_devices(RequestId([6; 16])).await), "Unavailable");
    assert!(gate.engine().is_err());
    audit.set_away(false);
    assert!(gate.unseal_by_devices(RequestId([6; 16])).await.unwrap().is_some());
}

#[tokio::test]
async fn an_unseal_that_is_undone_leaves_the_seal_of_whoever_sealed() {
    let world = world().await.with_devices(&FakeDevices::default()).await;
    world.add_seal(device()).await;
    world.gate.seal(admin()).await.unwrap();
    let World { gate, audit, engine, .. } = world;
    drop(engine);
    audit.set_away(true);
    let secret = SecretVec::copy_of(&KEYFILE);
    assert_eq!(code(gate.unseal(RequestId([2; 16]), secret).await), "Unavailable");
    audit.set_away(false);
    assert!(gate.unseal_by_devices(RequestId([6; 16])).await.unwrap().is_none());
    assert!(matches!(gate.engine(), Err(Error::Sealed)));
}

#[tokio::test]
async fn shares_take_no_guesses_and_give_none_back() {
    let world = world().await;
    let (_, shares) = world.add_shares().await;
    world.gate.seal(admin()).await.unwrap();
    let guess = || world.gate.unseal(RequestId([2; 16]), SecretVec::copy_of(b"a guess"));
    for _ in 0..20 {
        assert_eq!(code(world.bring(&SecretVec::copy_of(b"no share")).await), "InvalidRequest");
    }
    for _ in 0..5 {
        assert_eq!(code(guess().await), "Unauthenticated");
    }
    assert!(world.bring(&shares[0]).await.unwrap().is_none());
    assert_eq!(code(guess().await), "Throttled");
    // Nor does the noise keep a holder out.
    drop(world.engine);
    let text = shares[1].expose(SecretVec::copy_of);
    let (_, done) = world.gate.unseal_by_share(RequestId([3; 16]), text).await.unwrap();
    assert_eq!(done.unwrap().seal_kind, "shamir");
}

#[tokio::test]
async fn what_is_refused_unseen_is_recorded_once_in_ten_seconds() {
    let world = world().await;
    world.gate.seal(admin()).await.unwrap();
    let results = || {
        let events = world.audit.events().into_iter().filter(|e| e.action == "sys:Unseal");
        events.skip(1).map(|event| event.result).collect::<Vec<_>>()
    };
    let bad = SecretVec::copy_of(b"no share");
    for _ in 0..20 {
        assert_eq!(code(world.bring(&bad).await), "InvalidRequest");
    }
    assert_eq!(results(), ["InvalidRequest"]);
    let guess = || world.gate.unseal(RequestId([2; 16]), SecretVec::copy_of(b"a guess"));
    for _ in 0..20 {
        assert!(guess().await.is_err());
    }
    // Every guess is, and none of those that came too early.
    assert_eq!(results(), [vec!["InvalidRequest"], vec!["Unauthenticated"; 5]].concat());
    world.clock.pass(Duration::from_secs(10));
    assert_eq!(code(guess().await), "Unauthenticated");
    for _ in 0..20 {
        assert_eq!(code(guess().await), "Throttled");
    }
    assert_eq!(results()[6..], ["Unauthenticated", "Throttled"]);
}

/// Somebody who writes to the disk founds an installation of his own in the place of this one, and
/// knows of its seals what lies there: their public halves and wrapped seeds.
#[tokio::test]
async fn a_store_that_somebody_else_founded_is_not_opened_by_our_seals() {
    let world = world().await;
    world.gate.stop().await;
    let before = world.bootstrap().await;
    let (instance, seal) = (before.instance.id.0, before.seals[0].id);
    let RootWrap::Keyed { public, wrapped_seed, .. } = &before.seals[0].root else { panic!() };
    let forge = |shared: &SecretArray<32>| {
        let psk = SharedKey { key: shared, id: &seal };
        let info = [b"lastkey/for-seal/v2", &instance[..], &seal, b"root"].concat();
        let forged = hpke::seal(public, psk, &info, &[], &[7; 32], &mut SystemEntropy).unwrap();
        world.store.overwrite_bootstrap(|bootstrap| {
            if let RootWrap::Keyed { sealed_root, .. } = &mut bootstrap.seals[0].root {
                *sealed_root = forged;
            }
        });
    };
    forge(&SecretArray::copy_of(&[0; 32]));
    assert_eq!(code(world.restart(&KEYFILE).await), "Unauthenticated");
    // With what the seal shares it would have opened, as far as the MAC.
    let kek = derive(&SecretArray::copy_of(&KEYFILE), b"lastkey/keyfile/v1").unwrap();
    let aad = [b"lastkey/seal-seed/v1", &instance[..], &seal, &[2], public].concat();
    let seed = WrapKey::new(&kek).unwrap().unwrap(&aad, wrapped_seed).unwrap();
    forge(&derive(&seed.to_array().unwrap(), b"lastkey/seal-shared/v1").unwrap());
    assert_eq!(code(world.restart(&KEYFILE).await), "SealRefused");
}

#[tokio::test]
async fn a_record_whose_authentication_was_taken_away_is_not_taken_for_one_of_version_1() {
    let world = world().await;
    world.gate.stop().await;
    world.store.overwrite_bootstrap(|bootstrap| bootstrap.authentication = None);
    let before = world.bootstrap().await;
    assert_eq!(code(world.restart(&KEYFILE).await), "SealRefused");
    assert_eq!(world.bootstrap().await, before);
}
