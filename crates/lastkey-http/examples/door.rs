//! The door of the HTTP benchmark: the real door and the real service over a store in memory,
//! with an audit log that keeps nothing. Says on its first line how to call it.
//!
//! Room      `http`, measurements.

use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::audit::Event;
use lastkey_core::ids::RequestId;
use lastkey_core::outside::Nobody;
use lastkey_core::ports::{Audit, Cause, EntropySource};
use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use lastkey_http::{Limits, Listen, MetricsAccess, Server, ServerConfig};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_service::engine::Ports;
use lastkey_service::sealing::{Gate, NewSeal, initialise};
use lastkey_store::MemorySealedStore;
use lastkey_testkit::clock::FixedClock;

struct NoAudit;

#[async_trait]
impl Audit for NoAudit {
    fn append(&self, _: &Event<'_>) -> Result<(), Cause> {
        Ok(())
    }

    async fn append_durably(&self, _: &Event<'_>) -> Result<(), Cause> {
        Ok(())
    }
}

struct System;

impl EntropySource for System {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let entropy: Arc<dyn EntropySource> = Arc::new(System);
    let ports = Ports {
        audit: Arc::new(NoAudit),
        clock: Arc::new(FixedClock::default()),
        entropy: Arc::clone(&entropy),
        issuers: Arc::new(Nobody),
        clusters: Arc::new(Nobody),
        databases: Arc::new(Nobody),
        webhooks: Arc::new(Nobody),
        claims: Arc::new(Nobody),
    };
    let store = Arc::new(MemorySealedStore::in_memory(entropy));
    let seal = NewSeal::Keyfile(SecretArray::copy_of(&[7; 32]));
    let made = initialise(&*store, &ports, &seal).await?;
    let gate = Arc::new(Gate::new(store, ports, 20_000));
    gate.unseal(RequestId([0; 16]), SecretVec::copy_of(&[7; 32])).await?;
    let config = ServerConfig {
        listeners: vec![Listen::Tcp { addr: ([127, 0, 0, 1], 0).into(), tls: None }],
        limits: Limits::default(),
        metrics_access: MetricsAccess::Public,
        registry: prometheus_client::registry::Registry::default(),
        request_id_prefix: [1; 8],
        server_version: "bench".to_owned(),
    };
    let server = Server::bind(config, gate).await?;
    let addr = server.local_addrs().first().map(ToString::to_string);
    let token = made.admin_token.expose(|bytes| String::from_utf8(bytes.to_vec()))?;
    println!("{}", serde_json::json!({ "addr": addr, "token": token }));
    server.run(std::future::pending()).await;
    Ok(())
}
