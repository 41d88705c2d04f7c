//! gRPC: the two methods of `v1alpha1.CSIDriverProvider`, and the health of the process.
//!
//! Room      `node`.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use lastkey_wire::grpc::csi_provider::{
    MountRequest, MountResponse, SERVICE, VersionRequest, VersionResponse,
};
use lastkey_wire::grpc::health::{self, HealthCheckRequest, HealthCheckResponse, SERVING};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status};

use super::dialect::Personality;
use super::servers::Providers;
use crate::grpc::{self, method_of, unary};
use crate::socket::Peers;

const VERSION: &str = "v1alpha1";
/// Above what an API server stores as one class.
const MAX_MESSAGE_LEN: usize = 4 << 20;

/// Serves the socket of a personality until `stop` says so.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve(
    listener: UnixListener,
    peers: Peers,
    personality: Personality,
    providers: Arc<Providers>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    grpc::serve(listener, peers, Arc::new(Desk { personality, providers }), stop).await
}

/// The providers as one of their personalities.
struct Desk {
    personality: Personality,
    providers: Arc<Providers>,
}

/// A connection of a driver.
struct Line {
    personality: Personality,
    providers: Arc<Providers>,
}

impl grpc::Door for Desk {
    type Line = Line;

    fn name(&self) -> &str {
        self.personality.name()
    }

    fn line(self: Arc<Self>) -> Line {
        Line { personality: self.personality, providers: Arc::clone(&self.providers) }
    }

    fn refused_stream(&self) {
        tracing::warn!(
            socket = self.personality.name(),
            "HTTP/2 refused a request before it was read. A Secrets Store CSI driver before 1.5.5 \
             sends the percent-encoded socket path as :authority, which is no valid one: 1.5.5 or \
             later is needed"
        );
    }
}

impl grpc::Line for Line {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let limit = MAX_MESSAGE_LEN;
        if method_of(&request, health::SERVICE) == Some("Check") {
            return unary(request, limit, async |asked| health_of(&asked)).await;
        }
        match method_of(&request, SERVICE) {
            Some("Version") => {
                unary(request, limit, async move |_: VersionRequest| Ok(self.version())).await
            }
            Some("Mount") => {
                unary(request, limit, async move |asked| self.mount(asked).await).await
            }
            Some(_) | None => {
                let served = "v1alpha1.CSIDriverProvider and grpc.health.v1.Health/Check";
                Status::unimplemented(format!("only {served} are served here")).into_http()
            }
        }
    }
}

impl Line {
    fn version(&self) -> VersionResponse {
        VersionResponse {
            version: VERSION.to_owned(),
            runtime_name: self.personality.name().to_owned(),
            runtime_version: self.providers.own().config.version.clone(),
        }
    }

    /// In a task of its own: a driver that hangs up does not leave a volume half made.
    async fn mount(&self, asked: MountRequest) -> Result<MountResponse, Status> {
        let started = Instant::now();
        let (providers, personality) = (Arc::clone(&self.providers), self.personality);
        let mounting = tokio::spawn(async move { providers.mount(personality, &asked).await });
        let mounted = mounting.await;
        let took = started.elapsed();
        let answer = match mounted {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => {
                let took = took.as_millis();
                tracing::warn!(reason = %refusal, took, "a volume was refused");
                Err(refusal.status())
            }
            Err(_) => Err(Status::internal("the provider has failed; look at its log")),
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.providers.own().metrics.mounted(personality.name(), word_of(code), took);
        answer
    }
}

/// Whether a service is served here.
fn health_of(asked: &HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    match asked.service.as_str() {
        "" | SERVICE => Ok(HealthCheckResponse { status: SERVING }),
        _ => Err(Status::not_found("no such service is served here")),
    }
}

/// What a volume can end with, as the documents of gRPC write it.
fn word_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::NotFound => "NOT_FOUND",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => "INTERNAL",
    }
}
