//! Which servers are trusted, one test for each way to be wrong.

use lastkey_client::{Client, ClientConfig, Error, Fingerprint, Trust};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::scripted::Scripted;

const STATUS: &str = r#"{"server_version":"1","initialised":true,"sealed":false,"seals":[]}"#;

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    fn pinned(&self) -> Trust {
        Trust::Pinned(Fingerprint::of(&self.der()))
    }

    fn named(&self) -> Trust {
        Trust::Authority(self.certificate.pem().into_bytes())
    }

    /// A server with a certificate of this authority for `name`, which sends `also` along.
    fn server(&self, name: &str, also: &[CertificateDer<'static>]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![leaf.der().clone()];
        chain.extend_from_slice(also);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// Asks a server for its status, trusting as told.
async fn ask(config: ServerConfig, trust: Trust) -> Result<Scripted, Error> {
    let server = Scripted::answering(200, STATUS);
    let addr = server.on_tls(config).await;
    let mut client = ClientConfig::new(format!("https://{addr}").parse().unwrap());
    client.trust = trust;
    Client::new(&client)?.status().await?;
    Ok(server)
}

async fn is_refused(config: ServerConfig, trust: Trust) -> bool {
    matches!(ask(config, trust).await, Err(Error::Connect { .. }))
}

#[tokio::test]
async fn authority_vouches_for_its_server() {
    let ours = Authority::new();
    ask(ours.server("127.0.0.1", &[]), ours.named()).await.unwrap();
}

#[tokio::test]
async fn fingerprint_vouches_for_a_server_that_sends_its_authority() {
    let ours = Authority::new();
    ask(ours.server("127.0.0.1", &[ours.der()]), ours.pinned()).await.unwrap();
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_offers_it() {
    let ours = Authority::new();
    let server = ask(ours.server("127.0.0.1", &[]), ours.named()).await.unwrap();
    assert!(server.seen()[0].is_http2);
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert!(is_refused(theirs.server("127.0.0.1", &[theirs.der()]), ours.named()).await);
    assert!(is_refused(theirs.server("127.0.0.1", &[theirs.der()]), ours.pinned()).await);
}

#[tokio::test]
async fn pinned_authority_sent_along_by_another_ones_server_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert!(is_refused(theirs.server("127.0.0.1", &[ours.der()]), ours.pinned()).await);
}

#[tokio::test]
async fn fingerprint_without_the_authority_in_the_chain_is_refused() {
    let ours = Authority::new();
    assert!(is_refused(ours.server("127.0.0.1", &[]), ours.pinned()).await);
}

#[tokio::test]
async fn certificate_for_another_name_is_refused() {
    let ours = Authority::new();
    let server = || ours.server("keys.example", &[ours.der()]);
    assert!(is_refused(server(), ours.named()).await);
    assert!(is_refused(server(), ours.pinned()).await);
}

#[tokio::test]
async fn https_without_trust_is_refused_before_connecting() {
    let config = ClientConfig::new("https://127.0.0.1:1".parse().unwrap());
    assert!(matches!(Client::new(&config), Err(Error::Trust(_))));
}
