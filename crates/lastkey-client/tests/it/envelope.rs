//! Envelopes with data keys from a server that keeps them in plain sight.

use std::{
    io::{self, Cursor, Write},
    sync::{Arc, Mutex},
};

use http::Response;
use lastkey_client::{Client, ClientConfig, Error, envelope::EnvelopeError};
use lastkey_crypto::{
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Recipient},
    stream,
};
use lastkey_secret::SecretArray;

use crate::scripted::{Scripted, Seen};

/// 32 bytes of 7 in base64: the data key of every call.
const DATA_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// `blob` in base64: what stands for it in the header.
const BLOB: &str = "YmxvYg==";

/// Where a thread writes and a test reads.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

fn answer(seen: &Seen) -> Response<String> {
    let (status, body) = match seen.target.as_str() {
        "/v1/data-key" => (
            200,
            format!(r#"{{"plaintext":"{DATA_KEY}","ciphertext":"{BLOB}","key":"k","version":1}}"#),
        ),
        "/v1/decrypt" if seen.body.contains(BLOB) => {
            (200, format!(r#"{{"plaintext":"{DATA_KEY}","key":"k","version":1}}"#))
        }
        _ => {
            let body = r#"{"error":{"code":"AccessDenied","message":"m","request_id":"r"}}"#;
            (403, body.to_owned())
        }
    };
    Response::builder().status(status).body(body).unwrap()
}

async fn start() -> (Scripted, Client) {
    let server = Scripted::new(answer);
    let addr = server.on_tcp().await;
    let config = ClientConfig::new(format!("http://{addr}").parse().unwrap());
    (server, Client::new(&config).unwrap())
}

fn options() -> EnvelopeOptions {
    EnvelopeOptions {
        segment_log2: 12,
        context: EncryptionContext::from_pairs([("app", "web")]).unwrap(),
        ..EnvelopeOptions::default()
    }
}

#[tokio::test]
async fn envelope_comes_back_and_the_context_goes_with_both_calls() {
    let (server, client) = start().await;
    let plaintext: Vec<u8> = (0..20_000_u32).map(|value| value as u8).collect();
    let envelope = Shared::default();
    let reader = Cursor::new(plaintext.clone());
    let stats =
        client.encrypt_envelope("alias/app", options(), reader, envelope.clone()).await.unwrap();
    assert_eq!(stats.plaintext_len, 20_000);
    assert_eq!(stats.envelope_len, envelope.bytes().len() as u64);

    let mut reader = Cursor::new(envelope.bytes());
    let header = stream::read_header(&mut reader).unwrap();
    let opened = Shared::default();
    client.decrypt_envelope(header, reader, opened.clone()).await.unwrap();
    assert_eq!(opened.bytes(), plaintext);
    for seen in server.seen() {
        assert!(seen.body.contains(r#""context":{"app":"web"}"#), "{seen:?}");
    }
}

#[tokio::test]
async fn next_recipient_is_tried_when_one_is_denied() {
    let (server, client) = start().await;
    let recipients = [
        Recipient { kind: 200, body: b"unknown".to_vec() },
        Recipient::lastkey(b"of another server".to_vec()),
        Recipient::lastkey(b"blob".to_vec()),
    ];
    let mut envelope = Vec::new();
    stream::encrypt_stream(
        &mut &b"text"[..],
        &mut envelope,
        &options(),
        &SecretArray::copy_of(&[7; 32]),
        &recipients,
        &mut SystemEntropy,
    )
    .unwrap();
    let mut reader = Cursor::new(envelope);
    let header = stream::read_header(&mut reader).unwrap();
    let opened = Shared::default();
    client.decrypt_envelope(header, reader, opened.clone()).await.unwrap();
    assert_eq!(opened.bytes(), b"text");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn refusal_of_the_only_recipient_is_passed_on() {
    let (_, client) = start().await;
    let mut envelope = Vec::new();
    stream::encrypt_stream(
        &mut &b"text"[..],
        &mut envelope,
        &options(),
        &SecretArray::copy_of(&[7; 32]),
        &[Recipient::lastkey(b"of another server".to_vec())],
        &mut SystemEntropy,
    )
    .unwrap();
    let mut reader = Cursor::new(envelope);
    let header = stream::read_header(&mut reader).unwrap();
    let opened = Shared::default();
    let outcome = client.decrypt_envelope(header, reader, opened.clone()).await;
    let Err(EnvelopeError::Server(Error::Refused(refusal))) = outcome else {
        panic!("not refused")
    };
    assert_eq!(refusal.detail.code, "AccessDenied");
    assert_eq!(opened.bytes(), b"");
}

#[tokio::test]
async fn envelope_without_a_lastkey_recipient_asks_nobody() {
    let (server, client) = start().await;
    let mut envelope = Vec::new();
    stream::encrypt_stream(
        &mut &b"text"[..],
        &mut envelope,
        &options(),
        &SecretArray::copy_of(&[7; 32]),
        &[Recipient { kind: 200, body: b"unknown".to_vec() }],
        &mut SystemEntropy,
    )
    .unwrap();
    let mut reader = Cursor::new(envelope);
    let header = stream::read_header(&mut reader).unwrap();
    let outcome = client.decrypt_envelope(header, reader, io::sink()).await;
    assert!(matches!(outcome, Err(EnvelopeError::NoRecipient)));
    assert!(server.seen().is_empty());
}
