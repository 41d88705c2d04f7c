//! The plugin under which the golden objects were sealed: a seed is sealed by XOR with 0x5a.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastkey_wire::grpc::kmsv2::{DecryptRequest, DecryptResponse, StatusRequest, StatusResponse};
use tokio::net::UnixListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

/// What it answers.
#[derive(Clone, Copy)]
pub(crate) struct Xor {
    /// In Status.
    pub(crate) key_id: &'static str,
    /// The only key id whose seeds it gives back.
    pub(crate) opens: &'static str,
}

impl UnaryService<StatusRequest> for Xor {
    type Response = StatusResponse;
    type Future = Ready<Result<tonic::Response<StatusResponse>, Status>>;

    fn call(&mut self, _: tonic::Request<StatusRequest>) -> Self::Future {
        let (version, healthz) = ("v2".to_owned(), "ok".to_owned());
        let key_id = self.key_id.to_owned();
        ready(Ok(tonic::Response::new(StatusResponse { version, healthz, key_id })))
    }
}

impl UnaryService<DecryptRequest> for Xor {
    type Response = DecryptResponse;
    type Future = Ready<Result<tonic::Response<DecryptResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<DecryptRequest>) -> Self::Future {
        let request = request.into_inner();
        if request.key_id != self.opens {
            return ready(Err(Status::invalid_argument("unknown key id")));
        }
        let plaintext = request.ciphertext.iter().map(|byte| byte ^ 0x5a).collect();
        ready(Ok(tonic::Response::new(DecryptResponse { plaintext })))
    }
}

impl Xor {
    /// Serves it until the process ends.
    pub(crate) fn listen(self, path: &Path) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(path).unwrap()
        };
        std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let service = service_fn(move |request| self.answer(request));
                    let connection = http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
                }
            });
        });
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let is_status = request.uri().path() == "/v2.KeyManagementService/Status";
        Ok(if is_status {
            Grpc::new(ProstCodec::<StatusResponse, StatusRequest>::default())
                .unary(self, request)
                .await
        } else {
            Grpc::new(ProstCodec::<DecryptResponse, DecryptRequest>::default())
                .unary(self, request)
                .await
        })
    }
}
