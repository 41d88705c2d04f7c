//! Recipients change, data stays.

use std::fs;

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
    assert!(matches!(again, Err(EnvelopeError::NotFound)));
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
    assert!(matches!(refused, Err(EnvelopeError::NoRecipient)));
    assert_eq!(fs::read(&path).unwrap(), envelope);
}

#[test]
fn header_without_room_says_so_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.lk");
    let recipient = identities()[0].recipient().clone();
    let envelope = blocking::Encryptor::for_age(recipient.clone()).encrypt(b"text").unwrap();
    fs::write(&path, &envelope).unwrap();
    let offline = blocking::Decryptor::offline(identities());
    let many = (0..40).fold(blocking::Rewrap::new(), |change, _| change.add_age(recipient.clone()));
    let refused = many.file(&offline, &path);
    let expected = FormatError::RecipientsTooLong;
    assert!(
        matches!(refused, Err(EnvelopeError::Stream(StreamError::Envelope(e))) if e == expected)
    );
    assert_eq!(fs::read(&path).unwrap(), envelope);
    assert!(offline.decrypt(&envelope).is_ok());
}
