//! Certificates of nodes in the handshake, while their authority changes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lastkey_http::{Listen, TlsHandle};
use lastkey_secret::SecretVec;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Client;
use crate::world::{Setup, World};

/// A server with TLS, and what its clients trust.
struct Site {
    world: World,
    roots: Arc<RootCertStore>,
}

/// Key and certificate of a node, in PEM.
struct Identity {
    key: String,
    certificate: String,
}

impl Site {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = SecretVec::take_text(made.signing_key.serialize_pem());
        let tls = TlsHandle::from_pem(made.cert.pem().as_bytes(), &key).unwrap();
        let listen = Listen::Tcp { addr: ([127, 0, 0, 1], 0).into(), tls: Some(tls) };
        let setup = Setup { listeners: vec![listen], ..Setup::default() };
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { world: World::with(setup).await, roots: Arc::new(roots) }
    }

    /// A connection that shows this identity, or none.
    async fn connect(&self, identity: Option<&Identity>) -> io::Result<Client> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(Identity { key, certificate }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.world.addr()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Client::over(stream).await)
    }

    async fn admin(&self) -> Client {
        self.connect(None).await.unwrap().with_token(&self.world.admin)
    }

    async fn join(&self, node: &str) -> Identity {
        let path = format!("/v1/sys/nodes/{node}");
        let mut admin = self.admin().await;
        let invited = admin.done("PUT", &path, r#"{"cluster":"here"}"#).await;
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let body = json!({ "name": node, "token": invited["join_token"],
            "csr": request.pem().unwrap() });
        let joined = admin.done("POST", "/v1/nodes/join", &body.to_string()).await;
        let certificate = joined["certificate"].as_str().unwrap().to_owned();
        Identity { key: key.serialize_pem(), certificate }
    }

    /// Who a client of this identity is; `None` when there is no connection. The server judges a
    /// certificate of TLS 1.3 when the client is through with the handshake.
    async fn who(&self, identity: &Identity) -> Option<Value> {
        let mut client = self.connect(Some(identity)).await.ok()?;
        let answer = client.try_send("GET", "/v1/sts/whoami", None, b"").await.ok()?;
        Some(answer.json()["principal"].clone())
    }
}

#[tokio::test]
async fn certificate_of_the_authority_before_is_good_in_the_overlap_and_not_after() {
    const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let site = Site::start().await;
    let mut admin = site.admin().await;
    let cluster = json!({ "issuers": ["https://k"], "jwks": JWKS }).to_string();
    admin.done("PUT", "/v1/sys/clusters/here", &cluster).await;
    let first = site.join("a").await;
    assert_eq!(site.who(&first).await, Some(json!("node:a")));
    let rotate = "/v1/sys/node-authority/rotate";
    let rotated = admin.done("POST", rotate, "").await;
    assert_eq!(rotated["previous_until"], "2025-01-02T00:00:00Z");
    // Both count, whoever signed.
    assert_eq!(site.who(&first).await, Some(json!("node:a")));
    let second = site.join("b").await;
    assert_eq!(site.who(&second).await, Some(json!("node:b")));
    // A third would put the first out while nodes have certificates of it.
    admin.send("POST", rotate, "").await.error(400, "InvalidRequest");
    site.world.clock.pass(Duration::from_secs(86_399));
    assert_eq!(site.who(&first).await, Some(json!("node:a")));
    site.world.clock.pass(Duration::from_secs(1));
    assert_eq!(site.who(&first).await, None);
    let third = site.join("c").await;
    assert_eq!(site.who(&third).await, Some(json!("node:c")));
    let again = admin.done("POST", rotate, "").await;
    assert_eq!(again["previous"], rotated["authority"]);
    assert_eq!(site.who(&third).await, Some(json!("node:c")));
}
