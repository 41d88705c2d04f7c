//! Envelopes for keys of age and passphrases: with a server beside them, and without any.

use std::io::{Cursor, Read, Write};

use lastkey_client::{
    AgeIdentity, CacheLimits, DataKeyCache, Decryptor, Encryptor, EnvelopeError, SecretVec, Suite,
    blocking,
};

use crate::keeper::Keeper;

/// Made by age-keygen for this test.
const IDENTITY: &str = "AGE-SECRET-KEY-1NHJKXCKV03SNME4X46R7D70GLMSGKHCM4HLF5J72LNGXW8CULP7SW5LYY3";
/// Another one.
const OTHER: &str = "AGE-SECRET-KEY-1SQR9DYHNG3X8XHRD0H9ZK936CSW675A3ZFNAJ8WMRVAU92AVVD4S89U3LY";

fn identities(text: &str) -> Vec<AgeIdentity> {
    AgeIdentity::parse_file(&SecretVec::copy_of(text.as_bytes())).unwrap()
}

fn recipient(identity: &str) -> lastkey_client::AgeRecipient {
    identities(identity)[0].recipient().clone()
}

fn passphrase(text: &str) -> SecretVec {
    SecretVec::copy_of(text.as_bytes())
}

#[test]
fn key_of_age_needs_no_server_and_no_runtime() {
    let encryptor = blocking::Encryptor::for_age(recipient(IDENTITY)).segment_log2(12);
    let decryptor = blocking::Decryptor::offline(identities(IDENTITY));
    let envelope = encryptor.encrypt(b"text").unwrap();
    assert!(decryptor.decrypt(&envelope).unwrap().expose(|text| text == b"text"));

    let mut writer = encryptor.writer(Vec::new()).unwrap();
    writer.write_all(&[7; 9_000]).unwrap();
    let envelope = writer.finish().unwrap();
    let mut opened = Vec::new();
    decryptor.reader(&envelope[..]).unwrap().read_to_end(&mut opened).unwrap();
    assert_eq!(opened, [7; 9_000]);
    assert_eq!(decryptor.seekable(Cursor::new(envelope)).unwrap().len(), 9_000);

    let envelope = encryptor.encrypt(b"text").unwrap();
    let other = blocking::Decryptor::offline(identities(OTHER)).decrypt(&envelope);
    assert!(matches!(other, Err(EnvelopeError::NoRecipient)));
}

#[test]
fn threads_without_a_server_share_one_data_key_and_one_derivation() {
    let cache = DataKeyCache::new(CacheLimits::default());
    let encryptor = blocking::Encryptor::for_passphrase(passphrase("correct horse")).cache(&cache);
    let envelopes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| encryptor.encrypt(b"text").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(cache.stats().misses, 1);
    let decryptor = blocking::Decryptor::with_passphrase(passphrase("correct horse"));
    assert!(decryptor.decrypt(&envelopes[3]).unwrap().expose(|text| text == b"text"));
    let wrong = blocking::Decryptor::with_passphrase(passphrase("wrong horse"));
    assert!(wrong.decrypt(&envelopes[0]).is_err());
}

#[tokio::test]
async fn each_recipient_of_an_envelope_opens_it_by_itself() {
    let keeper = Keeper::start().await;
    let encryptor = Encryptor::new(&keeper.client(), "alias/app")
        .add_age(recipient(IDENTITY))
        .add_age(recipient(OTHER))
        .suite(Suite::ChaCha20Poly1305);
    let envelope = encryptor.encrypt(b"text").await.unwrap();
    for decryptor in [
        Decryptor::offline(identities(IDENTITY)),
        Decryptor::offline(identities(OTHER)),
        Decryptor::new(&keeper.client()),
    ] {
        let opened = decryptor.decrypt(&envelope).await.unwrap();
        assert!(opened.expose(|text| text == b"text"), "{decryptor:?}");
    }
    assert_eq!(keeper.asked("/v1/decrypt"), 1);
    // What opens here asks nobody.
    let both = Decryptor::new(&keeper.client()).identities(identities(OTHER));
    both.decrypt(&envelope).await.unwrap();
    assert_eq!(keeper.asked("/v1/decrypt"), 1);
}

#[tokio::test]
async fn passphrase_that_does_not_fit_leaves_it_to_the_server() {
    let keeper = Keeper::start().await;
    let encryptor = Encryptor::new(&keeper.client(), "alias/app").add_passphrase(passphrase("one"));
    let envelope = encryptor.encrypt(b"text").await.unwrap();
    let decryptor = Decryptor::new(&keeper.client()).passphrase(passphrase("two"));
    decryptor.decrypt(&envelope).await.unwrap();
    assert_eq!(keeper.asked("/v1/decrypt"), 1);
}

#[tokio::test]
async fn second_server_opens_what_the_first_cannot() {
    let (near, far) = (Keeper::start().await, Keeper::start().await);
    let envelope = Encryptor::new(&near.client(), "alias/theirs")
        .add_key(&far.client(), "alias/app")
        .encrypt(b"text")
        .await
        .unwrap();
    assert_eq!((near.asked("/v1/data-key"), far.asked("/v1/encrypt")), (1, 1));
    let decryptor = Decryptor::new(&near.client()).add_client(&far.client());
    assert!(decryptor.decrypt(&envelope).await.unwrap().expose(|text| text == b"text"));
}

#[test]
fn encryptor_prints_no_passphrase() {
    let encryptor = Encryptor::for_passphrase(passphrase("correct horse"));
    assert!(!format!("{encryptor:?}").contains("horse"));
    let decryptor = Decryptor::with_passphrase(passphrase("correct horse"));
    assert!(!format!("{decryptor:?}").contains("horse"));
}
