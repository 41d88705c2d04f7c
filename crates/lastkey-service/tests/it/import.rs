//! Import of own material.

use std::time::Duration;

use lastkey_core::ids::KeyRef;
use lastkey_core::state::State;
use lastkey_core::version::Origin;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::import::{ImportAlgorithm, wrap_material};
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::oaep::OaepPublicKey;
use lastkey_secret::SecretVec;
use lastkey_service::ops::create_key::Request;
use lastkey_service::ops::import::Parameters;

use crate::world::{Named as _, World, admin, code, request, world};

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
