//! Sealed and unsealed.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::ids::RequestId;
use lastkey_core::key::KeyUsage;
use lastkey_core::principal::{Peer, Presented, Principal};
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretVec;
use lastkey_service::engine::Ports;
use lastkey_service::error::Error;
use lastkey_service::sealing::{Gate, Unsealed, WayIn, replace_admin_token};
use lastkey_testkit::fakes::MemoryAudit;
use tokio::task::JoinHandle;

use crate::world::{KEYFILE, admin, call_by, code, world};

#[tokio::test]
async fn a_sealed_server_has_no_engine_and_keeps_its_keys() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    assert_eq!(code(world.gate.seal(&call_by("stranger")).await), "AccessDenied");
    world.gate.seal(admin()).await.unwrap();
    assert!(matches!(world.gate.engine(), Err(Error::Sealed)));
    assert!(world.gate.status().await.unwrap().sealed);

    let world = world.unseal_again().await;
    assert_eq!(world.decrypt(&blob).await.unwrap(), b"x");
}

#[tokio::test]
async fn wrong_secrets_do_not_unseal_and_run_out() {
    let world = world().await;
    world.gate.seal(admin()).await.unwrap();
    let attempt = || world.gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&[1; 32]));
    for _ in 0..5 {
        assert_eq!(code(attempt().await), "Unauthenticated");
    }
    assert_eq!(code(attempt().await), "Throttled");
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.action, last.result), ("sys:Unseal", "Throttled"));
}

#[tokio::test]
async fn only_the_token_that_was_minted_authenticates() {
    let world = world().await;
    let bearer = |token: SecretVec| Presented::Bearer(token);
    let token = world.token.expose(SecretVec::copy_of);
    let who = world.engine.authenticate(&bearer(token), &Peer::default()).await.unwrap();
    assert_eq!(who.0.name(), Principal::ADMIN);
    for wrong in [&b""[..], b"lastkey_admin_0", &[b'x'; 10_000]] {
        let refused =
            world.engine.authenticate(&bearer(SecretVec::copy_of(wrong)), &Peer::default()).await;
        assert_eq!(code(refused), "Unauthenticated");
    }
    assert_eq!(
        code(world.engine.authenticate(&Presented::Nothing, &Peer::default()).await),
        "Unauthenticated"
    );
}

#[tokio::test]
async fn the_use_of_keys_survives_a_restart() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.encrypt(&key, b"x").await.unwrap();
    world.gate.stop().await;
    let world = world.unseal_again().await;
    assert!(world.show(&key).await.last_used_at.is_some());
}

#[tokio::test]
async fn a_new_admin_token_makes_the_old_one_void() {
    let world = world().await;
    let replace = async |presented: &[u8]| {
        let presented = SecretVec::copy_of(presented);
        replace_admin_token(&*world.store, &world.ports, &presented).await
    };
    assert_eq!(code(replace(&[1; 32]).await), "Unauthenticated");
    world.gate.stop().await;
    let new = replace(&KEYFILE).await.unwrap();
    let world = world.unseal_again().await;
    let old = Presented::Bearer(world.token.expose(SecretVec::copy_of));
    assert_eq!(code(world.engine.authenticate(&old, &Peer::default()).await), "Unauthenticated");
    let WayIn::Token(new) = new else { panic!("nobody is enrolled") };
    assert!(world.engine.authenticate(&Presented::Bearer(new), &Peer::default()).await.is_ok());
}

#[tokio::test]
async fn a_change_that_outlives_a_seal_is_seen_by_the_next_engine() {
    let world = world().await;
    let key = world.create_for(MaterialSpec::Rsa2048, KeyUsage::SignVerify).await;
    let (engine, name) = (world.engine.clone(), key.clone());
    let rotation = tokio::spawn(async move { engine.rotate_key(admin(), name).await });
    tokio::task::yield_now().await;
    world.gate.seal(admin()).await.unwrap();
    let world = world.unseal_again().await;
    let rotated = rotation.await.unwrap().unwrap();
    assert_eq!(world.show(&key).await.key.primary, rotated.key.primary);
}

/// A sealed server whose audit log can be given keys.
async fn sealed_with_archive() -> (Arc<Gate>, Arc<MemoryAudit>) {
    let world = world().await;
    world.gate.stop().await;
    let audit = Arc::new(MemoryAudit::with_archive());
    let ports = Ports { audit: audit.clone(), ..world.ports.clone() };
    (Arc::new(Gate::new(world.store.clone(), ports, 100)), audit)
}

fn unsealing(gate: &Arc<Gate>) -> JoinHandle<Result<Unsealed, Error>> {
    let gate = Arc::clone(gate);
    let attempt =
        async move { gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&KEYFILE)).await };
    tokio::spawn(attempt)
}

/// Waits until nothing goes on by itself: time that is paused passes only then.
async fn until_idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn audit_log_keeps_its_keys_until_the_attempt_to_unseal_that_is_running_has_ended() {
    let (gate, audit) = sealed_with_archive().await;
    let record = audit.hold_next();
    let attempt = unsealing(&gate);
    until_idle().await;
    let sealer = Arc::clone(&gate);
    let sealing = tokio::spawn(async move { sealer.seal(admin()).await });
    until_idle().await;
    assert!(matches!(gate.engine(), Err(Error::Sealed)));
    assert!(!attempt.is_finished() && !sealing.is_finished() && audit.has_keys());
    drop(record);
    attempt.await.unwrap().unwrap();
    sealing.await.unwrap().unwrap();
    assert!(!audit.has_keys());
    unsealing(&gate).await.unwrap().unwrap();
    assert!(audit.has_keys());
}

/// Sealing let go of the engine, and took the keys of the audit log back later: those of whoever had
/// unsealed in between, whose server then signed nothing.
#[tokio::test(start_paused = true)]
async fn audit_log_keeps_the_keys_of_whoever_unseals_before_a_seal_has_ended() {
    let (gate, audit) = sealed_with_archive().await;
    unsealing(&gate).await.unwrap().unwrap();
    let record = audit.hold_next();
    let first = unsealing(&gate);
    until_idle().await;
    let second = unsealing(&gate);
    until_idle().await;
    let stopping = Arc::clone(&gate);
    let stopping = tokio::spawn(async move { stopping.stop().await });
    until_idle().await;
    assert!(matches!(gate.engine(), Err(Error::Sealed)) && !stopping.is_finished());
    drop(record);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    stopping.await.unwrap();
    assert!(gate.engine().is_ok() && audit.has_keys());
}
