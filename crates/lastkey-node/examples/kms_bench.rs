//! Measures a KMS plugin over its socket, and what a bare tonic service can do there.
//!
//!     kms_bench bare SOCKET             serves; each call is one AES-256-GCM operation
//!     kms_bench wait SOCKET             until an Encrypt is answered
//!     kms_bench load SOCKET CALLERS SECONDS
//!
//! `load` makes one connection, as an API server does, and prints `name value` lines: calls a
//! second of Encrypt and Decrypt in turn, and the times of a call in microseconds.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise and prints"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastkey_wire::grpc::kmsv2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";
const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";
const SEED: [u8; 32] = [7; 32];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", socket] => bare(Path::new(socket)).await,
        ["wait", socket] => wait(Path::new(socket)).await,
        ["load", socket, callers, seconds] => {
            let callers = callers.parse().expect("a number of callers");
            let seconds = Duration::from_secs(seconds.parse().expect("seconds"));
            load(Path::new(socket), callers, seconds).await;
        }
        _ => println!("kms_bench bare SOCKET | wait SOCKET | load SOCKET CALLERS SECONDS"),
    }
}

/// The service of tonic, by its own transport, with nothing around one AES operation.
#[derive(Clone)]
struct Bare(Arc<LessSafeKey>);

impl tower_service::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let key = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/v2.KeyManagementService/Status" => {
                    let codec = ProstCodec::<StatusResponse, StatusRequest>::default();
                    tonic::server::Grpc::new(codec).unary(Told, request).await
                }
                ENCRYPT => {
                    let codec = ProstCodec::<EncryptResponse, EncryptRequest>::default();
                    tonic::server::Grpc::new(codec).unary(Seals(key), request).await
                }
                _ => {
                    let codec = ProstCodec::<DecryptResponse, DecryptRequest>::default();
                    tonic::server::Grpc::new(codec).unary(Opens(key), request).await
                }
            })
        })
    }
}

impl tonic::server::NamedService for Bare {
    const NAME: &'static str = lastkey_wire::grpc::kmsv2::SERVICE;
}

struct Told;
struct Seals(Arc<LessSafeKey>);
struct Opens(Arc<LessSafeKey>);

type Answer<T> = std::future::Ready<Result<Response<T>, Status>>;

impl UnaryService<StatusRequest> for Told {
    type Response = StatusResponse;
    type Future = Answer<StatusResponse>;

    fn call(&mut self, _: Request<StatusRequest>) -> Self::Future {
        let (version, healthz, key_id) = ("v2".to_owned(), "ok".to_owned(), "bare".to_owned());
        std::future::ready(Ok(Response::new(StatusResponse { version, healthz, key_id })))
    }
}

impl UnaryService<EncryptRequest> for Seals {
    type Response = EncryptResponse;
    type Future = Answer<EncryptResponse>;

    fn call(&mut self, request: Request<EncryptRequest>) -> Self::Future {
        let mut ciphertext = request.get_ref().plaintext.clone();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.0.seal_in_place_append_tag(nonce, Aad::empty(), &mut ciphertext).expect("sealed");
        let answer =
            EncryptResponse { ciphertext, key_id: "bare".to_owned(), ..Default::default() };
        std::future::ready(Ok(Response::new(answer)))
    }
}

impl UnaryService<DecryptRequest> for Opens {
    type Response = DecryptResponse;
    type Future = Answer<DecryptResponse>;

    fn call(&mut self, request: Request<DecryptRequest>) -> Self::Future {
        let mut bytes = request.into_inner().ciphertext;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut bytes).expect("opened");
        let plaintext = opened.to_vec();
        std::future::ready(Ok(Response::new(DecryptResponse { plaintext })))
    }
}

async fn bare(socket: &Path) {
    let key = UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("a key");
    let service = Bare(Arc::new(LessSafeKey::new(key)));
    let listener = UnixListener::bind(socket).expect("a socket");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    println!("bare tonic serves");
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming(incoming).await.expect("served");
}

/// The sender of hyper as the service that tonic's client asks for.
#[derive(Clone)]
struct Connection(hyper::client::conn::http2::SendRequest<Body>);

impl GrpcService<Body> for Connection {
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

async fn connect(socket: &Path) -> Connection {
    let stream = UnixStream::connect(socket).await.expect("a plugin");
    let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (send, driver) = opened.await.expect("HTTP/2");
    tokio::spawn(driver);
    Connection(send)
}

async fn wait(socket: &Path) {
    let connection = connect(socket).await;
    loop {
        let request = EncryptRequest { plaintext: SEED.to_vec(), uid: "uid".to_owned() };
        let answer: Result<EncryptResponse, Status> = call(&connection, ENCRYPT, request).await;
        if answer.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn call<Q, A>(connection: &Connection, method: &'static str, request: Q) -> Result<A, Status>
where
    Q: lastkey_wire::grpc::Message + Send + Sync + 'static,
    A: lastkey_wire::grpc::Message + Default + Send + Sync + 'static,
{
    let origin = http::Uri::from_static("http://localhost");
    let mut grpc = Grpc::with_origin(connection.clone(), origin);
    grpc.ready().await.expect("a connection");
    let path = PathAndQuery::from_static(method);
    let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await;
    answer.map(Response::into_inner)
}

async fn load(socket: &Path, callers: usize, time: Duration) {
    let connection = connect(socket).await;
    caller(&connection, Duration::from_millis(500)).await;
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { caller(&connection, time).await })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.append(&mut task.await.expect("a caller"));
    }
    let seconds = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100] as f64 / 1_000.0;
    println!("kms.per_second {:.0}", times.len() as f64 / seconds);
    println!("kms.p50_us {:.1}\nkms.p99_us {:.1}", at(50), at(99));
}

/// Encrypt and Decrypt in turn; the time of each call in nanoseconds.
async fn caller(connection: &Connection, time: Duration) -> Vec<u64> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < time {
        let before = Instant::now();
        let request = EncryptRequest { plaintext: SEED.to_vec(), uid: "uid".to_owned() };
        let sealed: EncryptResponse = call(connection, ENCRYPT, request).await.expect("sealed");
        times.push(nanos(before));
        let before = Instant::now();
        let request = DecryptRequest {
            ciphertext: sealed.ciphertext,
            uid: "uid".to_owned(),
            key_id: sealed.key_id,
            annotations: sealed.annotations,
        };
        let opened: DecryptResponse = call(connection, DECRYPT, request).await.expect("opened");
        times.push(nanos(before));
        assert!(opened.plaintext == SEED, "another seed");
    }
    times
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
