//! The peer of the HTTP benchmark: a bare axum handler that does one AES-256-GCM operation.
//!
//! Room      `http`, measurements. No authentication, audit, limits, metrics or request ids:
//!           what is left is axum, JSON, base64 and one encryption or decryption.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

struct Key {
    key: LessSafeKey,
    next_nonce: AtomicU64,
}

#[derive(Deserialize, Serialize)]
struct Plain {
    // secrets: allow, the peer is measured as people write it
    plaintext: String,
}

#[derive(Deserialize, Serialize)]
struct Sealed {
    ciphertext: String,
}

async fn encrypt(
    State(key): State<Arc<Key>>,
    Json(body): Json<Plain>,
) -> Result<Json<Sealed>, StatusCode> {
    let plain = STANDARD.decode(body.plaintext).map_err(|_| StatusCode::BAD_REQUEST)?;
    let sealed = seal(&key, plain).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Sealed { ciphertext: STANDARD.encode(sealed) }))
}

fn seal(key: &Key, mut plain: Vec<u8>) -> Option<Vec<u8>> {
    let mut nonce = [0; 12];
    let number = key.next_nonce.fetch_add(1, Ordering::Relaxed);
    nonce.first_chunk_mut::<8>()?.copy_from_slice(&number.to_be_bytes());
    let unique = Nonce::assume_unique_for_key(nonce);
    key.key.seal_in_place_append_tag(unique, Aad::empty(), &mut plain).ok()?;
    Some([&nonce[..], &plain].concat())
}

async fn decrypt(
    State(key): State<Arc<Key>>,
    Json(body): Json<Sealed>,
) -> Result<Json<Plain>, StatusCode> {
    let sealed = STANDARD.decode(body.ciphertext).map_err(|_| StatusCode::BAD_REQUEST)?;
    let plain = open(&key, &sealed).ok_or(StatusCode::BAD_REQUEST)?;
    Ok(Json(Plain { plaintext: STANDARD.encode(plain) }))
}

fn open(key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<12>()?;
    let mut plain = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let len = key.key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
    plain.truncate(len);
    Some(plain)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let unbound = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?;
    let key = Arc::new(Key { key: LessSafeKey::new(unbound), next_nonce: AtomicU64::new(0) });
    let sealed = seal(&key, vec![42; 32]).ok_or("seal")?;
    let app = Router::new()
        .route("/v1/encrypt", post(encrypt))
        .route("/v1/decrypt", post(decrypt))
        .with_state(key);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let ready = serde_json::json!({
        "addr": format!("http://{}", listener.local_addr()?),
        "token": "none",
        "encrypt": serde_json::to_string(&Plain { plaintext: STANDARD.encode([42; 32]) })?,
        "decrypt": serde_json::to_string(&Sealed { ciphertext: STANDARD.encode(sealed) })?,
    });
    println!("{ready}");
    axum::serve(listener, app).await?;
    Ok(())
}
