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
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::dialect::Personality;
use super::provider::Provider;
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
    provider: Arc<Provider>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    grpc::serve(listener, peers, Arc::new(Desk { personality, provider }), stop).await
}

/// A provider as one of its personalities.
struct Desk {
    personality: Personality,
    provider: Arc<Provider>,
}

/// A connection of a driver.
struct Line {
    personality: Personality,
    provider: Arc<Provider>,
}

impl grpc::Door for Desk {
    type Line = Line;

    fn name(&self) -> &str {
        self.personality.name()
    }

    fn line(self: Arc<Self>) -> Line {
        Line { personality: self.personality, provider: Arc::clone(&self.provider) }
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
        match method_of(&request, SERVICE) {
            Some("Version") => {
                unary(request, limit, async move |_: VersionRequest| Ok(self.version())).await
            }
            Some("Mount") => {
                unary(request, limit, async move |asked| self.mount(asked).await).await
            }
            Some(_) | None => {
                Status::unimplemented("only v1alpha1.CSIDriverProvider is served here").into_http()
            }
        }
    }
}

impl Line {
    fn version(&self) -> VersionResponse {
        VersionResponse {
            version: VERSION.to_owned(),
            runtime_name: self.personality.name().to_owned(),
            runtime_version: self.provider.config.version.clone(),
        }
    }

    /// In a task of its own: a driver that hangs up does not leave a volume half made.
    async fn mount(&self, asked: MountRequest) -> Result<MountResponse, Status> {
        let started = Instant::now();
        let (provider, personality) = (Arc::clone(&self.provider), self.personality);
        let mounting = tokio::spawn(async move { provider.mount(personality, &asked).await });
        match mounting.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => {
                let took = started.elapsed().as_millis();
                tracing::warn!(reason = %refusal, took, "a volume was refused");
                Err(refusal.status())
            }
            Err(_) => Err(Status::internal("the provider has failed; look at its log")),
        }
    }
}
