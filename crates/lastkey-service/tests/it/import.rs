//! Import of own material.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lastkey_core::ids::{KeyRef, RequestId};
use lastkey_core::ports::EntropySource;
use lastkey_core::state::State;
use lastkey_core::version::Origin;
use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use lastkey_crypto::import::{ImportAlgorithm, wrap_material};
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::oaep::OaepPublicKey;
use lastkey_secret::SecretVec;
use lastkey_service::engine::Ports;
use lastkey_service::ops::create_key::Request;
use lastkey_service::ops::import::Parameters;
use lastkey_service::sealing::Gate;
use lastkey_testkit::entropy::Dry;

use crate::world::{KEYFILE, Named as _, World, admin, code, request, world};

async fn imported(world: &World, spec: MaterialSpec) -> KeyRef {
    world.create_as(Request { origin: Origin::Imported, ..request(spec) }).await.key_ref()
}

async fn parameters(world: &World, key: &KeyRef, algorithm: ImportAlgorithm) -> Parameters {
    world.engine.import_parameters(admin(), key.clone(), algorithm).await.unwrap()
}

fn wrapped(parameters: &Parameters, algorithm: ImportAlgorithm, material: &SecretVec) -> Vec<u8> {
    let key = OaepPublicKey::new(MaterialSpec::Rsa4096, &parameters.wrapping_key).unwrap();
    wrap_material(&key, algorithm, material, &mut SystemEntropy).unwrap()
}

fn token(parameters: &Parameters) -> SecretVec {
    parameters.token.expose(SecretVec::copy_of)
}

#[tokio::test]
async fn imported_material_is_used_and_its_token_works_once() {
    let world = world().await;
    let algorithm = ImportAlgorithm::RsaesOaepSha256;
    let key = imported(&world, MaterialSpec::Aes256).await;
    assert_eq!(code(world.encrypt(&key, b"x").await), "KeyState");
    let offer = parameters(&world, &key, algorithm).await;
    let bytes = wrapped(&offer, algorithm, &SecretVec::copy_of(&[1; 32]));
    let import = |wrapped: Vec<u8>| {
        world.engine.import_material(admin(), key.clone(), token(&offer), wrapped)
    };
    assert_eq!(code(import(vec![0; 512]).await), "InvalidRequest");
    let view = import(bytes.clone()).await.unwrap();
    assert_eq!((view.key.state, view.key.activation), (State::Active, 1));
    let blob = world.encrypt(&key, b"x").await.unwrap();
    assert_eq!(world.decrypt(&blob).await.unwrap(), b"x");
    assert_eq!(code(import(bytes).await), "InvalidRequest");
    assert_eq!(code(world.engine.rotate_key(admin(), key.clone()).await), "InvalidRequest");
}

/// Randomness that runs dry when it is told to.
struct Drying(AtomicBool);

impl EntropySource for Drying {
    fn open(&self) -> Box<dyn Entropy + Send> {
        if self.0.load(Ordering::Relaxed) { Box::new(Dry) } else { Box::new(SystemEntropy) }
    }
}

#[tokio::test]
async fn import_parameters_that_cannot_be_made_leave_a_record() {
    let world = world().await;
    let key = imported(&world, MaterialSpec::Aes256).await;
    world.gate.stop().await;
    let entropy = Arc::new(Drying(AtomicBool::new(false)));
    let World { store, ports, audit, engine, .. } = world;
    drop(engine);
    let gate = Arc::new(Gate::new(store, Ports { entropy: entropy.clone(), ..ports }, 100));
    gate.unseal(RequestId([2; 16]), SecretVec::copy_of(&KEYFILE)).await.unwrap();
    let engine = gate.engine().unwrap();
    entropy.0.store(true, Ordering::Relaxed);
    let before = audit.events().len();
    let asked = engine.import_parameters(admin(), key, ImportAlgorithm::RsaesOaepSha256).await;
    let code = code(asked);
    let events = audit.events();
    let told = events[before..].iter().map(|event| (event.action, event.result));
    assert_eq!(told.collect::<Vec<_>>(), [("kms:GetParametersForImport", code)]);
}

#[tokio::test]
async fn a_private_key_comes_in_by_the_two_step_wrap() {
    let world = world().await;
    let algorithm = ImportAlgorithm::RsaAesKeyWrapSha256;
    let key = imported(&world, MaterialSpec::P256).await;
    let offer = parameters(&world, &key, algorithm).await;
    let own = material::generate(MaterialSpec::P256, &mut SystemEntropy).unwrap();
    let bytes = wrapped(&offer, algorithm, &own);
    world.engine.import_material(admin(), key.clone(), token(&offer), bytes).await.unwrap();
    let public = world.engine.public_key(admin(), key, None).await.unwrap();
    assert_eq!(public.der, material::public_key_der(MaterialSpec::P256, &own).unwrap());
}

#[tokio::test]
async fn new_material_becomes_the_primary_version_and_old_data_still_opens() {
    let world = world().await;
    let algorithm = ImportAlgorithm::RsaesOaepSha256;
    let key = imported(&world, MaterialSpec::Aes256).await;
    let mut blobs = Vec::new();
    for fill in [1, 2] {
        let offer = parameters(&world, &key, algorithm).await;
        let bytes = wrapped(&offer, algorithm, &SecretVec::copy_of(&[fill; 32]));
        world.engine.import_material(admin(), key.clone(), token(&offer), bytes).await.unwrap();
        blobs.push(world.encrypt(&key, &[fill]).await.unwrap());
    }
    for (blob, fill) in blobs.iter().zip([1, 2]) {
        assert_eq!(world.decrypt(blob).await.unwrap(), [fill]);
    }
}

#[tokio::test]
async fn parameters_expire_after_a_day_and_newer_ones_void_older_ones() {
    let world = world().await;
    let algorithm = ImportAlgorithm::RsaesOaepSha256;
    let key = imported(&world, MaterialSpec::Aes256).await;
    let old = parameters(&world, &key, algorithm).await;
    let new = parameters(&world, &key, algorithm).await;
    let import = |offer: &Parameters| {
        let bytes = wrapped(offer, algorithm, &SecretVec::copy_of(&[1; 32]));
        world.engine.import_material(admin(), key.clone(), token(offer), bytes)
    };
    assert_eq!(code(import(&old).await), "InvalidRequest");
    world.clock.pass(Duration::from_secs(86_400));
    assert_eq!(code(import(&new).await), "InvalidRequest");
    assert_eq!(world.engine.run_due().await, None);
}

#[tokio::test]
async fn generated_keys_take_no_import() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let algorithm = ImportAlgorithm::RsaesOaepSha256;
    let refused = world.engine.import_parameters(admin(), key.clone(), algorithm).await;
    assert_eq!(code(refused), "InvalidRequest");
    let dry = lastkey_service::call::Call { dry_run: true, ..crate::world::call_by("admin") };
    let refused = world.engine.import_parameters(&dry, key, algorithm).await;
    assert_eq!(code(refused), "InvalidRequest");
    let own = imported(&world, MaterialSpec::Aes256).await;
    assert_eq!(code(world.engine.import_parameters(&dry, own, algorithm).await), "DryRun");
}
