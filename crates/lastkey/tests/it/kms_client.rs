//! A client of the KMS v2 plugin, as the API server is one: one connection, gRPC, `localhost` as
//! authority.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastkey_wire::grpc::kmsv2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::process::HANG;

/// The API server waits no longer.
const LIMIT: Duration = Duration::from_secs(3);

/// One call as clients make it whose `:authority` is the percent-encoded path of the socket: API
/// servers before 1.32, drivers before 1.5.5. The connection stays open as long as it is kept.
#[track_caller]
pub(crate) fn call_by_path(socket: &Path, method: &str) -> std::os::unix::net::UnixStream {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let len = |text: &str| u8::try_from(text.len()).unwrap();
    let authority = "%2Frun%2Fkms.s";
    let mut block = vec![0x83, 0x86, 0x44, len(method)];
    block.extend_from_slice(method.as_bytes());
    block.extend_from_slice(&[0x41, len(authority)]);
    block.extend_from_slice(authority.as_bytes());
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    frames.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    frames.extend_from_slice(&block);
    stream.write_all(&frames).unwrap();
    stream
}

/// A connection to a plugin, for tests that do one thing after the other.
pub(crate) struct KmsClient {
    runtime: Runtime,
    connection: Connection,
}

/// A connection inside a runtime; a clone shares it.
#[derive(Clone)]
pub(crate) struct Connection(hyper::client::conn::http2::SendRequest<Body>);

impl Connection {
    pub(crate) async fn open(path: &Path) -> std::io::Result<Self> {
        let stream = TokioIo::new(UnixStream::connect(path).await?);
        let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
        let (send, driver) = opened.map_err(std::io::Error::other)?;
        tokio::spawn(driver);
        Ok(Self(send))
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let service = Service(self.0.clone());
        let mut grpc = Grpc::with_origin(service, "http://localhost".parse().unwrap());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = format!("/v2.KeyManagementService/{method}");
        let path: PathAndQuery = path.parse().unwrap();
        let call = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default());
        let answer = timeout(LIMIT, call).await;
        answer.map_err(|_| Status::deadline_exceeded("3 s"))?.map(tonic::Response::into_inner)
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        self.call("Status", StatusRequest {}).await
    }

    pub(crate) async fn encrypt(&self, plaintext: &[u8]) -> Result<EncryptResponse, Status> {
        let (plaintext, uid) = (plaintext.to_vec(), "a-uid".to_owned());
        self.call("Encrypt", EncryptRequest { plaintext, uid }).await
    }

    /// As the API server: the answer itself, so that its drop wipes the seed.
    pub(crate) async fn decrypt(
        &self,
        sealed: &EncryptResponse,
    ) -> Result<DecryptResponse, Status> {
        let request = DecryptRequest {
            ciphertext: sealed.ciphertext.clone(),
            uid: "a-uid".to_owned(),
            key_id: sealed.key_id.clone(),
            annotations: sealed.annotations.clone(),
        };
        self.call("Decrypt", request).await
    }
}

impl KmsClient {
    #[track_caller]
    pub(crate) fn connect(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(Connection::open(path)).unwrap();
        Self { runtime, connection }
    }

    pub(crate) fn status(&self) -> Result<StatusResponse, Status> {
        self.runtime.block_on(self.connection.status())
    }

    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Result<EncryptResponse, Status> {
        self.runtime.block_on(self.connection.encrypt(plaintext))
    }

    pub(crate) fn decrypt(&self, sealed: &EncryptResponse) -> Result<Vec<u8>, Status> {
        let answer = self.runtime.block_on(self.connection.decrypt(sealed))?;
        Ok(answer.plaintext.clone())
    }

    /// Encrypts; asks again, as the API server does, while the answer takes too long.
    #[track_caller]
    pub(crate) fn seals(&self, plaintext: &[u8]) -> EncryptResponse {
        patiently(|| self.encrypt(plaintext))
    }

    /// The same of what is to be decrypted.
    #[track_caller]
    pub(crate) fn opens(&self, sealed: &EncryptResponse) -> Vec<u8> {
        patiently(|| self.decrypt(sealed))
    }

    /// Asks until Status is as wished.
    #[track_caller]
    pub(crate) fn wait(
        &self,
        what: &str,
        wished: impl Fn(&Result<StatusResponse, Status>) -> bool,
    ) -> Result<StatusResponse, Status> {
        self.runtime.block_on(async {
            let asking = async {
                loop {
                    let status = self.connection.status().await;
                    if wished(&status) {
                        return status;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let found = timeout(HANG, asking).await;
            found.unwrap_or_else(|_| panic!("never {what}"))
        })
    }

    /// Asks until the plugin is healthy, and answers the key id.
    #[track_caller]
    pub(crate) fn ready(&self) -> String {
        let is_ok = |status: &Result<StatusResponse, Status>| {
            status.as_ref().is_ok_and(|status| status.healthz == "ok")
        };
        let status = self.wait("healthy", is_ok).unwrap();
        assert_eq!(status.version, "v2");
        status.key_id
    }
}

#[track_caller]
fn patiently<T>(call: impl Fn() -> Result<T, Status>) -> T {
    let begun = Instant::now();
    loop {
        match call() {
            Err(status)
                if matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable)
                    && begun.elapsed() < HANG => {}
            answer => return answer.unwrap(),
        }
    }
}

/// The sender of hyper as a service of tower.
pub(crate) struct Service(hyper::client::conn::http2::SendRequest<Body>);

impl Service {
    pub(crate) fn over(send: hyper::client::conn::http2::SendRequest<Body>) -> Self {
        Self(send)
    }
}

impl GrpcService<Body> for Service {
    type ResponseBody = hyper::body::Incoming;
    type Error = hyper::Error;
    type Future = std::pin::Pin<
        Box<
            dyn Future<Output = Result<http::Response<hyper::body::Incoming>, hyper::Error>> + Send,
        >,
    >;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// An answer with something changed.
pub(crate) fn changed(
    sealed: &EncryptResponse,
    change: impl FnOnce(&mut EncryptResponse),
) -> EncryptResponse {
    let mut other = sealed.clone();
    change(&mut other);
    other
}

/// Annotations of one name.
pub(crate) fn annotation(name: &str, value: &[u8]) -> BTreeMap<String, Vec<u8>> {
    [(name.to_owned(), value.to_vec())].into()
}
