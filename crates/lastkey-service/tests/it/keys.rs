//! Key sets that are published: how often their issuers are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::access::RoleHolders;
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::outside::Issuers;
use lastkey_core::ports::Cause;
use lastkey_core::principal::Peer;
use lastkey_secret::SecretVec;
use lastkey_service::ops::exchange_token::Request;
use lastkey_service::ops::fetch_keys::KeysFrom;
use lastkey_service::ops::set_access::{ClusterRequest, RoleRequest};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::world::{admin, world_asking};

/// An issuer that answers once, and then only when it is let.
struct Slow {
    reads: AtomicUsize,
    asked: Notify,
    turns: Semaphore,
}

#[async_trait]
impl Issuers for Slow {
    async fn read(&self, _: &str, _: Option<&str>) -> Result<Vec<u8>, Cause> {
        if self.reads.fetch_add(1, Ordering::SeqCst) > 0 {
            self.asked.notify_one();
            self.turns.acquire().await?.forget();
        }
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}"#);
        Ok(format!(r#"{{"keys":[{key}]}}"#).into_bytes())
    }
}

/// A token under a key that nobody knows.
fn request(now: u64) -> Request {
    let claims = format!(
        r#"{{"iss":"https://id.example","aud":["lastkey"],"iat":{now},"nbf":{now},"exp":{},
        "jti":"j","sub":"system:serviceaccount:shop:api","kubernetes.io":{{"namespace":"shop",
        "pod":{{"name":"p","uid":"u"}},"serviceaccount":{{"name":"api","uid":"s"}}}}}}"#,
        now + 3_000
    );
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encode(r#"{"alg":"EdDSA","kid":"unknown"}"#);
    let signature = URL_SAFE_NO_PAD.encode([1; 64]);
    Request {
        token: SecretVec::take_text(format!("{header}.{}.{signature}", encode(&claims))),
        role: Name::parse("shop").unwrap(),
        duration: None,
        policy: None,
        nonce: None,
    }
}

#[tokio::test]
async fn caller_who_goes_away_ends_neither_the_fetch_nor_the_pause_after_it() {
    let (reads, asked, turns) = (AtomicUsize::new(0), Notify::new(), Semaphore::new(0));
    let slow = Arc::new(Slow { reads, asked, turns });
    let world = world_asking(slow.clone()).await;
    let name = Name::parse("shop").unwrap();
    let cluster = ClusterRequest {
        issuers: vec!["https://id.example".to_owned()],
        audiences: vec!["lastkey".to_owned()],
        keys: KeysFrom::Published {
            url: Some("https://id.example/keys".to_owned()),
            authority: None,
        },
        max_token_secs: None,
        kubelet_authorities: None,
    };
    world.engine.set_cluster(admin(), name.clone(), cluster).await.unwrap();
    let holders = RoleHolders::ServiceAccounts {
        cluster: name.clone(),
        namespaces: vec!["shop".to_owned()],
        service_accounts: vec!["*".to_owned()],
        allow_without_pod: false,
    };
    let policy = "permit(principal in Role::\"shop\", action, resource);".to_owned();
    let role = RoleRequest { holders, policy, max_session_secs: None, by_node_agent: false };
    world.engine.set_role(admin(), name, role).await.unwrap();

    let now = world.ports.clock.read().wall.0;
    let (id, peer) = (RequestId([7; 16]), Peer::default());
    let engine = Arc::clone(&world.engine);
    let caller = tokio::spawn(async move {
        let peer = Peer::default();
        drop(engine.exchange_token(id, &peer, request(now)).await);
    });
    timeout(Duration::from_secs(30), slow.asked.notified()).await.expect("the issuer is asked");
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    slow.turns.add_permits(9);
    assert!(world.engine.exchange_token(id, &peer, request(now)).await.is_err());
    assert_eq!(slow.reads.load(Ordering::SeqCst), 2, "once when it was named, and once since");
}
