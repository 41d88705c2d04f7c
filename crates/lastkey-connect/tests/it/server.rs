//! A server on loopback that says what it is told to, in the clear or over TLS.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers the same to everybody.
pub(crate) struct Server {
    pub(crate) url: String,
    /// Its own certificate, which is its authority.
    pub(crate) authority: String,
}

impl Server {
    /// Serves in the clear.
    pub(crate) async fn plain(answer: Vec<u8>) -> Self {
        Self::start(answer, None, "http", String::new()).await
    }

    /// Serves over TLS as `localhost`.
    pub(crate) async fn secure(answer: Vec<u8>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(answer, Some(acceptor), "https", chain).await
    }

    async fn start(
        answer: Vec<u8>,
        tls: Option<TlsAcceptor>,
        scheme: &str,
        authority: String,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer) = (tls.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &answer).await,
                        // A client that does not trust us hangs up.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url: format!("{scheme}://localhost:{port}/"), authority }
    }
}

/// Reads a head and answers. An empty answer is silence.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    // The other end may have heard enough.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// An answer with a body.
pub(crate) fn answer(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}
