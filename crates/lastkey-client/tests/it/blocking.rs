//! The same without an async runtime, and the places where waiting is not possible.

use std::io::{Cursor, Read, Write};

use lastkey_client::{
    CacheLimits, DataKeyCache, EncryptionContext, EnvelopeError, Error,
    blocking::{Client, Decryptor, Encryptor},
    wire::native::operations::RandomRequest,
};
use tokio::runtime::Runtime;

use crate::keeper::Keeper;

/// A server on a runtime of its own.
fn keeper() -> (Runtime, Keeper) {
    let runtime = Runtime::new().unwrap();
    let keeper = runtime.block_on(Keeper::start());
    (runtime, keeper)
}

#[test]
fn every_form_works_without_a_runtime() {
    let (_runtime, keeper) = keeper();
    let client = Client::new(&keeper.config("one")).unwrap();
    let context = EncryptionContext::from_pairs([("app", "web")]).unwrap();
    let cache = DataKeyCache::new(CacheLimits::default());
    let encryptor = Encryptor::new(&client, "alias/app")
        .context(context.clone())
        .segment_log2(12)
        .add_key(&client, "alias/backup")
        .cache(&cache);
    let decryptor = Decryptor::new(&client).expect_context(context).cache(&cache);
    let plaintext = vec![7; 10_000];

    let mut envelope = Vec::new();
    encryptor.encrypt_into(&plaintext, &mut envelope).unwrap();
    assert!(decryptor.decrypt(&envelope).unwrap().expose(|bytes| bytes == plaintext));
    let mut opened = Vec::new();
    decryptor.decrypt_into(&encryptor.encrypt(&plaintext).unwrap(), &mut opened).unwrap();
    assert_eq!(opened, plaintext);

    let mut writer = encryptor.writer(Vec::new()).unwrap();
    writer.write_all(&plaintext).unwrap();
    let envelope = writer.finish().unwrap();
    let mut opened = Vec::new();
    decryptor.reader(&envelope[..]).unwrap().read_to_end(&mut opened).unwrap();
    assert_eq!(opened, plaintext);
    let mut seekable = decryptor.seekable(Cursor::new(envelope)).unwrap();
    assert!(seekable.range(5_000..5_010).unwrap().expose(|bytes| bytes == [7; 10]));
    assert_eq!((cache.stats().misses, cache.stats().hits), (2, 5));
}

#[test]
fn threads_share_a_client() {
    let (_runtime, keeper) = keeper();
    let client = Client::new(&keeper.config("one")).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            let client = client.clone();
            scope.spawn(move || {
                let envelope = Encryptor::new(&client, "alias/app").encrypt(&[number]).unwrap();
                let opened = Decryptor::new(&client).decrypt(&envelope).unwrap();
                assert!(opened.expose(|bytes| bytes == [number]));
            });
        }
    });
}

#[test]
fn call_of_the_async_client_is_waited_for() {
    let (_runtime, keeper) = keeper();
    let client = Client::new(&keeper.config("one")).unwrap();
    let request = RandomRequest { bytes: 3, dry_run: false };
    let refused = client.wait(client.api().random(&request).send()).unwrap_err();
    assert_eq!(refused.code(), Some("AccessDenied"));
}

#[tokio::test]
async fn waiting_inside_a_runtime_is_an_error_and_no_panic() {
    let keeper = Keeper::start().await;
    let client = Client::new(&keeper.config("one")).unwrap();
    let refused = Encryptor::new(&client, "alias/app").encrypt(b"text").unwrap_err();
    assert!(matches!(refused, EnvelopeError::Server(Error::CannotWait(_))), "{refused:?}");
    assert!(keeper.scripted.seen().is_empty());
    // So is the end of the client, runtime and all.
    drop(client);
}
