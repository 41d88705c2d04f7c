//! Recipients change, data stays.

use std::{fs, sync::Arc};

use lastkey_client::{
    AgeIdentity, Decryptor, Encryptor, EnvelopeError, Rewrap, SecretVec, StreamError, blocking,
};
use lastkey_crypto::envelope::EnvelopeError as FormatError;

use crate::keeper::Keeper;

/// Made by age-keygen for this test.
const IDENTITY: &str = "AGE-SECRET-KEY-1NHJKXCKV03SNME4X46R7D70GLMSGKHCM4HLF5J72LNGXW8CULP7SW5LYY3";

fn identities() -> Vec<AgeIdentity> {
    AgeIdentity::parse_file(&SecretVec::copy_of(IDENTITY.as_bytes())).unwrap()
}

#[tokio::test]
async fn recipient_comes_and_goes_and_no_segment_is_touched() {
    let keeper = Keeper::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let before = Encryptor::new(&keeper.client(), "alias/app").encrypt(b"text").await.unwrap();
    fs::write(&path, &before).unwrap();

    let decryptor = Decryptor::new(&keeper.client());
    Rewrap::new().add_age(recipient.clone()).file(&decryptor, &path).await.unwrap();
    let after = fs::read(&path).unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after[after.len() - 20..], before[before.len() - 20..]);
    let offline = Decryptor::offline(identities());
    assert!(offline.decrypt(&after).await.unwrap().expose(|text| text == b"text"));

    // The key of age alone can change it back.
    let removal = Rewrap::new().remove_age(recipient.clone());
    removal.file(&offline, &path).await.unwrap();
    let back = fs::read(&path).unwrap();
    assert!(matches!(offline.decrypt(&back).await, Err(EnvelopeError::NoRecipient)));
    assert!(decryptor.decrypt(&back).await.unwrap().expose(|text| text == b"text"));
    let again = removal.file(&decryptor, &path).await;
    assert!(matches!(again, Err(EnvelopeError::NotFound(who)) if who == recipient.to_string()));
    assert_eq!(fs::read(&path).unwrap(), back);
}

#[tokio::test]
async fn last_recipient_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let envelope = Encryptor::for_age(recipient.clone()).encrypt(b"text").await.unwrap();
    fs::write(&path, &envelope).unwrap();
    let offline = Decryptor::offline(identities());
    let refused = Rewrap::new().remove_age(recipient).file(&offline, &path).await;
    assert!(matches!(refused, Err(EnvelopeError::Nobody)));
    assert_eq!(fs::read(&path).unwrap(), envelope);
}

#[tokio::test]
async fn header_without_room_says_so_and_stays_as_it_is() {
    let keeper = Keeper::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let envelope = Encryptor::for_age(recipient).encrypt(b"text").await.unwrap();
    fs::write(&path, &envelope).unwrap();
    let offline = Decryptor::offline(identities());
    let add = |change: Rewrap, number| change.add_key(&keeper.client(), format!("key{number}"));
    let many = (0..40).fold(Rewrap::new(), add);
    let refused = many.file(&offline, &path).await;
    let expected = FormatError::RecipientsTooLong;
    assert!(
        matches!(refused, Err(EnvelopeError::Stream(StreamError::Envelope(e))) if e == expected)
    );
    assert_eq!(fs::read(&path).unwrap(), envelope);
    assert!(offline.decrypt(&envelope).await.is_ok());
    // Encrypted anew there is room.
    many.rewrite().file(&offline, &path).await.unwrap();
}

#[test]
fn recipient_that_is_there_already_is_replaced_and_not_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let encryptor = blocking::Encryptor::for_age(recipient.clone());
    fs::write(&path, encryptor.encrypt(b"text").unwrap()).unwrap();
    let offline = blocking::Decryptor::offline(identities());
    let change = blocking::Rewrap::new().add_age(recipient.clone()).add_age(recipient);
    let changed = change.file(&offline, &path).unwrap();
    assert_eq!((changed.sequence, changed.recipients.len()), (2, 1));
    assert!(offline.decrypt(&fs::read(&path).unwrap()).is_ok());
}

#[test]
fn rewritten_file_has_another_data_key_and_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let text = vec![7; 3_000_000];
    let passphrase = || Arc::new(SecretVec::copy_of(b"a passphrase of two"));
    let encryptor = blocking::Encryptor::for_age(identities()[0].recipient().clone());
    let before = encryptor.add_passphrase(passphrase()).encrypt(&text).unwrap();
    fs::write(&path, &before).unwrap();
    let by_passphrase = blocking::Decryptor::with_passphrase(passphrase());
    let rewritten = blocking::Rewrap::new().rewrite().file(&by_passphrase, &path).unwrap();
    assert_eq!((rewritten.sequence, rewritten.recipients.len()), (1, 2));
    let after = fs::read(&path).unwrap();
    assert_ne!(after[after.len() - 1_000..], before[before.len() - 1_000..]);
    for decryptor in [by_passphrase, blocking::Decryptor::offline(identities())] {
        assert!(decryptor.decrypt(&after).unwrap().expose(|opened| opened == text));
    }
    // Who cannot name the passphrase cannot make its owner a recipient of another data key.
    let offline = blocking::Decryptor::offline(identities());
    let refused = blocking::Rewrap::new().rewrite().file(&offline, &path);
    assert!(matches!(refused, Err(EnvelopeError::NotRenewed(_))), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), after);
}

#[test]
fn file_that_another_process_changes_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let envelope = blocking::Encryptor::for_age(recipient.clone()).encrypt(b"text").unwrap();
    fs::write(&path, &envelope).unwrap();
    let other = fs::File::open(&path).unwrap();
    other.lock().unwrap();
    let offline = blocking::Decryptor::offline(identities());
    let refused = blocking::Rewrap::new().add_age(recipient).file(&offline, &path);
    assert!(matches!(refused, Err(EnvelopeError::Busy)), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), envelope);
}
