//! The operations: what they answer, and what they refuse.

use lastkey_core::ids::{KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::ops::{
    decrypt, encrypt, generate_data_key, generate_data_key_pair, generate_mac, reencrypt, sign,
    verify, verify_mac,
};

use crate::world::{World, admin, alias, call_by, code, context, none, world};

#[tokio::test]
async fn what_was_encrypted_decrypts_without_naming_the_key() {
    let world = world().await;
    for spec in [MaterialSpec::Aes256, MaterialSpec::Aes128] {
        let key = world.create(spec).await;
        for plaintext in [&b""[..], b"x", &[7; 65_536]] {
            let blob = world.encrypt(&key, plaintext).await.unwrap();
            assert_eq!(blob.len(), plaintext.len() + 104);
            assert_eq!(world.decrypt(&blob).await.unwrap(), plaintext);
        }
    }
}

#[tokio::test]
async fn every_failure_of_a_ciphertext_is_the_same() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt_in(&key, b"secret", context(&[("app", "shop")])).await.unwrap();
    let right = || context(&[("app", "shop")]);
    assert!(world.decrypt_in(&blob, right()).await.is_ok());
    assert_eq!(code(world.decrypt_in(&blob, none()).await), "Undecryptable");
    assert_eq!(code(world.decrypt_in(&blob, context(&[("app", "x")])).await), "Undecryptable");
    for len in 0..blob.len() {
        assert_eq!(code(world.decrypt_in(&blob[..len], right()).await), "Undecryptable", "{len}");
    }
    for position in 0..blob.len() {
        let mut changed = blob.clone();
        changed[position] ^= 1;
        let names_another_key = (4..20).contains(&position);
        let expected = if names_another_key { "AccessDenied" } else { "Undecryptable" };
        assert_eq!(code(world.decrypt_in(&changed, right()).await), expected, "{position}");
    }
}

#[tokio::test]
async fn a_ciphertext_of_another_key_is_undecryptable_when_the_key_is_named() {
    let world = world().await;
    let (a, b) =
        (world.create(MaterialSpec::Aes256).await, world.create(MaterialSpec::Aes256).await);
    let ciphertext = world.encrypt(&a, b"x").await.unwrap();
    let named = |key: &KeyRef| decrypt::Request {
        ciphertext: ciphertext.clone(),
        context: none(),
        key: Some(key.clone()),
        version: None,
    };
    assert!(world.engine.decrypt(admin(), named(&a)).await.is_ok());
    assert_eq!(code(world.engine.decrypt(admin(), named(&b)).await), "Undecryptable");
}

#[tokio::test]
async fn an_unknown_key_and_a_forbidden_one_look_the_same() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let unknown = KeyRef::Id(lastkey_core::ids::KeyId::from_random([8; 16]));
    let ask = |key: &KeyRef| encrypt::Request {
        key: key.clone(),
        plaintext: SecretVec::copy_of(b"x"),
        context: none(),
    };
    let stranger = call_by("stranger");
    let texts = [
        world.engine.encrypt(&stranger, ask(&key)).await.unwrap_err().to_string(),
        world.engine.encrypt(admin(), ask(&unknown)).await.unwrap_err().to_string(),
        world.engine.encrypt(admin(), ask(&alias("alias/none"))).await.unwrap_err().to_string(),
    ];
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test]
async fn plaintext_over_the_limit_is_refused() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    assert_eq!(code(world.encrypt(&key, &[0; 65_537]).await), "PlaintextTooLarge");
}

#[tokio::test]
async fn a_key_serves_only_its_usage() {
    let world = world().await;
    let mac = world.create(MaterialSpec::Hmac256).await;
    let aes = world.create(MaterialSpec::Aes256).await;
    assert_eq!(code(world.encrypt(&mac, b"x").await), "KeyUsage");
    let request =
        generate_mac::Request { key: aes, version: None, message: SecretVec::copy_of(b"x") };
    assert_eq!(code(world.engine.generate_mac(admin(), request).await), "KeyUsage");
}

#[tokio::test]
async fn reencrypt_moves_between_keys_and_contexts() {
    let world = world().await;
    let (from, to) =
        (world.create(MaterialSpec::Aes256).await, world.create(MaterialSpec::Aes128).await);
    let ciphertext = world.encrypt_in(&from, b"data", context(&[("a", "1")])).await.unwrap();
    let request = |context| reencrypt::Request {
        ciphertext: ciphertext.clone(),
        context,
        from_key: None,
        from_version: None,
        to_key: to.clone(),
        to_context: self::context(&[("b", "2")]),
    };
    let moved = world.engine.reencrypt(admin(), request(context(&[("a", "1")]))).await.unwrap();
    assert_eq!(KeyRef::Id(moved.key), to);
    let opened = world.decrypt_in(&moved.ciphertext, context(&[("b", "2")])).await.unwrap();
    assert_eq!(opened, b"data");
    assert_eq!(code(world.engine.reencrypt(admin(), request(none())).await), "Undecryptable");
}

#[tokio::test]
async fn a_data_key_decrypts_to_itself() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let request = |length| generate_data_key::Request { key: key.clone(), length, context: none() };
    for length in [1, 32, 1_024] {
        let drawn = world.engine.generate_data_key(admin(), request(length)).await.unwrap();
        let opened = world.decrypt(&drawn.ciphertext).await.unwrap();
        assert_eq!(opened.len(), length);
        assert!(drawn.plaintext.expose(|bytes| bytes == opened));
    }
    for length in [0, 1_025] {
        let refused = world.engine.generate_data_key(admin(), request(length)).await;
        assert_eq!(code(refused), "InvalidRequest");
    }
    let wrapped =
        world.engine.generate_data_key_without_plaintext(admin(), request(16)).await.unwrap();
    assert_eq!(world.decrypt(&wrapped.ciphertext).await.unwrap().len(), 16);
}

#[tokio::test]
async fn a_data_key_pair_is_wrapped_whole() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let request = |pair_spec, without_private| generate_data_key_pair::Request {
        key: key.clone(),
        pair_spec,
        context: none(),
        without_private,
    };
    let pair = world.engine.generate_data_key_pair(admin(), request(MaterialSpec::P256, false));
    let pair = pair.await.unwrap();
    let private = world.decrypt(&pair.private_ciphertext).await.unwrap();
    assert!(pair.private.unwrap().expose(|bytes| bytes == private));
    let without = world.engine.generate_data_key_pair(admin(), request(MaterialSpec::P256, true));
    assert!(without.await.unwrap().private.is_none());
    let symmetric =
        world.engine.generate_data_key_pair(admin(), request(MaterialSpec::Aes256, false));
    assert_eq!(code(symmetric.await), "InvalidRequest");
}

#[tokio::test]
async fn every_signing_spec_signs_and_refuses_another_message() {
    let world = world().await;
    for spec in [
        MaterialSpec::Rsa2048,
        MaterialSpec::P256,
        MaterialSpec::P384,
        MaterialSpec::Secp256k1,
        MaterialSpec::Ed25519,
    ] {
        let key = world.create_for(spec, KeyUsage::SignVerify).await;
        let signed = world.engine.sign(
            admin(),
            sign::Request {
                key: key.clone(),
                version: None,
                message: SecretVec::copy_of(b"message"),
                message_type: sign::MessageType::Raw,
                algorithm: None,
            },
        );
        let signed = signed.await.unwrap();
        for (message, valid) in [(&b"message"[..], true), (b"another", false)] {
            let request = verify::Request {
                key: key.clone(),
                version: None,
                message: SecretVec::copy_of(message),
                message_type: sign::MessageType::Raw,
                algorithm: None,
                signature: signed.signature.clone(),
            };
            let answer = world.engine.verify(admin(), request).await.unwrap();
            assert_eq!(answer.valid, valid, "{}", spec.name());
        }
        assert!(world.engine.public_key(admin(), key, None).await.unwrap().der.len() > 40);
    }
}

#[tokio::test]
async fn a_mac_names_its_version_and_an_older_one_still_verifies() {
    let world = world().await;
    let key = world.create(MaterialSpec::Hmac256).await;
    let message = || SecretVec::copy_of(b"message");
    let request = generate_mac::Request { key: key.clone(), version: None, message: message() };
    let made = world.engine.generate_mac(admin(), request).await.unwrap();
    assert_eq!(made.version, VersionNo::FIRST);
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    for (version, valid) in [(Some(VersionNo::FIRST), true), (None, false)] {
        let request = verify_mac::Request {
            key: key.clone(),
            version,
            message: message(),
            mac: made.mac.clone(),
        };
        assert_eq!(world.engine.verify_mac(admin(), request).await.unwrap().valid, valid);
    }
    let old = generate_mac::Request { key, version: Some(VersionNo::FIRST), message: message() };
    assert_eq!(code(world.engine.generate_mac(admin(), old).await), "KeyState");
}

#[tokio::test]
async fn an_rsa_key_encrypts_raw_and_takes_no_context() {
    let world = world().await;
    let key = world.create_for(MaterialSpec::Rsa2048, KeyUsage::EncryptDecrypt).await;
    let ciphertext = world.encrypt(&key, b"small").await.unwrap();
    assert_eq!(ciphertext.len(), 256);
    let request = |version| decrypt::Request {
        ciphertext: ciphertext.clone(),
        context: none(),
        key: Some(key.clone()),
        version,
    };
    let opened = world.engine.decrypt(admin(), request(None)).await.unwrap();
    assert!(opened.plaintext.expose(|bytes| bytes == b"small"));
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    assert_eq!(code(world.engine.decrypt(admin(), request(None)).await), "Undecryptable");
    assert!(world.engine.decrypt(admin(), request(Some(VersionNo::FIRST))).await.is_ok());
    assert_eq!(code(world.encrypt_in(&key, b"x", context(&[("a", "b")])).await), "InvalidRequest");
    assert_eq!(code(world.encrypt(&key, &[0; 191]).await), "InvalidRequest");
}

#[tokio::test]
async fn random_bytes_come_in_any_allowed_length() {
    let world = world().await;
    for (length, good) in [(0, false), (1, true), (65_536, true), (65_537, false)] {
        let drawn = world.engine.generate_random(admin(), length).await;
        assert_eq!(drawn.map(|bytes| bytes.len()).ok(), good.then_some(length));
    }
}

#[tokio::test]
async fn a_dry_run_answers_and_does_nothing() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let dry = |name| Call { dry_run: true, ..call_by(name) };
    let ask = || encrypt::Request {
        key: key.clone(),
        plaintext: SecretVec::copy_of(b"x"),
        context: none(),
    };
    assert_eq!(code(world.engine.encrypt(&dry("admin"), ask()).await), "DryRun");
    assert_eq!(code(world.engine.encrypt(&dry("stranger"), ask()).await), "AccessDenied");
    assert_eq!(code(world.engine.rotate_key(&dry("admin"), key.clone()).await), "DryRun");
    let wanted = crate::world::request(MaterialSpec::Aes256);
    assert_eq!(code(world.engine.create_key(&dry("admin"), wanted).await), "DryRun");
    assert_eq!(world.show(&key).await.key.newest, Some(VersionNo::FIRST));
    let keys = world.engine.list_keys(admin(), None, 10).await.unwrap();
    assert_eq!(keys.items.len(), 1);
    assert!(world.engine.may_explain(admin()) && !world.engine.may_explain(&call_by("stranger")));
}

#[tokio::test]
async fn nobody_but_the_server_has_aliases_in_its_space() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let own = || lastkey_core::ids::AliasName::parse("alias/lastkey/secrets").unwrap();
    let squat = crate::world::request(MaterialSpec::Aes256);
    let squat = lastkey_service::ops::create_key::Request { alias: Some(own()), ..squat };
    assert_eq!(code(world.engine.create_key(admin(), squat).await), "InvalidRequest");
    assert_eq!(code(world.engine.set_alias(admin(), own(), key).await), "InvalidRequest");
    let value = lastkey_service::ops::secrets::Value {
        kind: lastkey_core::secret_item::ValueKind::Opaque,
        bytes: SecretVec::copy_of(b"x"),
    };
    let put = lastkey_service::ops::secrets::PutRequest {
        value,
        key: None,
        description: None,
        tags: None,
        expected_version: None,
        stage: None,
        keep: None,
    };
    let name = lastkey_core::secret_item::SecretName::parse("a").unwrap();
    world.engine.put_secret(admin(), name, put).await.unwrap();
    assert_eq!(code(world.engine.delete_alias(admin(), own()).await), "InvalidRequest");
    let key = alias("alias/lastkey/secrets");
    assert_eq!(code(world.engine.set_alias(admin(), own(), key).await), "InvalidRequest");
}

#[tokio::test]
async fn a_dry_run_of_reencrypt_asks_about_both_sides() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let ciphertext = world.encrypt(&key, b"x").await.unwrap();
    let request = |to_key| reencrypt::Request {
        ciphertext: ciphertext.clone(),
        context: none(),
        from_key: None,
        from_version: None,
        to_key,
        to_context: none(),
    };
    let dry = Call { dry_run: true, ..call_by("admin") };
    assert_eq!(code(world.engine.reencrypt(&dry, request(key)).await), "DryRun");
    let unknown = request(alias("alias/none"));
    assert_eq!(code(world.engine.reencrypt(&dry, unknown).await), "AccessDenied");
}

#[tokio::test]
async fn uses_are_counted_by_version() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = use_twice(&world, &key).await;
    world.decrypt(&blob).await.unwrap();
    let version = world.engine.describe_version(admin(), key.clone(), VersionNo::FIRST);
    let usage = version.await.unwrap().usage;
    assert_eq!((usage.protected, usage.processed), (2, 1));
    assert_eq!(world.show(&key).await.last_used_at, usage.last_used_at);
    assert!(usage.last_used_at.is_some());
}

async fn use_twice(world: &World, key: &KeyRef) -> Vec<u8> {
    world.encrypt(key, b"x").await.unwrap();
    world.encrypt(key, b"x").await.unwrap()
}
