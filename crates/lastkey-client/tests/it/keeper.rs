//! A scripted server that gives data keys and takes them back, as long as the context is right.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::Response;
use lastkey_client::{
    Client, ClientConfig, SecretVec,
    wire::{
        Base64Bytes, SecretBase64,
        native::operations::{DataKeyRequest, DecryptRequest, EncryptRequest},
    },
};
use serde_json::{Value, json};

use crate::scripted::{Scripted, Seen};

/// The server, and how often it was asked for what.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) scripted: Scripted,
    pub(crate) addr: std::net::SocketAddr,
}

impl Keeper {
    pub(crate) async fn start() -> Self {
        let drawn = Arc::new(AtomicU64::new(0));
        let scripted = Scripted::new(move |seen| answer(&drawn, seen));
        let addr = scripted.on_tcp().await;
        Self { scripted, addr }
    }

    pub(crate) fn config(&self, token: &str) -> ClientConfig {
        let mut config = ClientConfig::new(format!("http://{}", self.addr).parse().unwrap());
        config.token = Some(SecretVec::copy_of(token.as_bytes()));
        config
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.config("one")).unwrap()
    }

    /// Calls so far of this route.
    pub(crate) fn asked(&self, route: &str) -> usize {
        self.scripted.seen().iter().filter(|seen| seen.target == route).count()
    }
}

/// The ciphertext of a plaintext names key and context and shows the plaintext: this server
/// keeps no secrets.
fn answer(drawn: &AtomicU64, seen: &Seen) -> Response<String> {
    let reply = match seen.target.as_str() {
        "/v1/data-key" => {
            let request: DataKeyRequest = serde_json::from_str(&seen.body).unwrap();
            let number = drawn.fetch_add(1, Ordering::Relaxed) + 1;
            let data_key = [u8::try_from(number).unwrap(); 32];
            let about = json!({ "key": request.key, "context": request.context });
            Some(sealed(&request.key, about, &data_key))
        }
        "/v1/encrypt" => {
            let request: EncryptRequest = serde_json::from_str(&seen.body).unwrap();
            let about = json!({ "key": request.key, "context": request.context });
            request.plaintext.0.expose(|bytes| Some(sealed(&request.key, about, bytes)))
        }
        "/v1/decrypt" => opened(&serde_json::from_str(&seen.body).unwrap()),
        _ => None,
    };
    let refusal = json!({ "error": { "code": "AccessDenied", "message": "m", "request_id": "r" } });
    let (status, body) = reply.map_or((403, refusal), |reply| (200, reply));
    Response::builder().status(status).body(body.to_string()).unwrap()
}

fn sealed(key: &str, mut about: Value, plaintext: &[u8]) -> Value {
    about["plaintext"] = json!(plaintext);
    let blob = Base64Bytes(about.to_string().into_bytes());
    let plaintext = SecretBase64(SecretVec::copy_of(plaintext));
    json!({ "ciphertext": blob, "plaintext": plaintext, "key": key, "version": 1 })
}

fn opened(request: &DecryptRequest) -> Option<Value> {
    let about: Value = serde_json::from_slice(&request.ciphertext.0).ok()?;
    // The key of somebody else.
    let is_ours = about["key"] != "alias/theirs" && about["context"] == json!(request.context);
    let bytes: Vec<u8> = serde_json::from_value(about["plaintext"].clone()).ok()?;
    let plaintext = SecretBase64(SecretVec::take(bytes));
    is_ours.then(|| json!({ "plaintext": plaintext, "key": about["key"], "version": 1 }))
}
