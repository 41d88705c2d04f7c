//! The driver makes itself known to the kubelet, without a sidecar.
//!
//! Room      `volumes`.
//! Source    kubelet `pkg/apis/pluginregistration/v1/api.proto`.

use std::future::ready;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use lastkey_node::grpc::{self, Body, Door, Line, method_of, unary};
use lastkey_node::socket::Socket;
use lastkey_wire::grpc::registration::{
    CSI_PLUGIN, InfoRequest, PluginInfo, REGISTRATION, RegistrationStatus, RegistrationStatusReply,
};
use tokio::sync::watch;
use tonic::Status;

/// Versions of CSI, as the kubelet compares them.
const VERSIONS: [&str; 1] = ["1.0.0"];
/// A name, a path and an error, in bytes.
const MAX_MESSAGE_LEN: usize = 64 * 1_024;

/// Serves the kubelet's questions until `stop` says so.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn register(
    socket: Socket,
    name: String,
    endpoint: PathBuf,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let plugin = Plugin { name, endpoint: endpoint.to_string_lossy().into_owned() };
    grpc::serve(socket.listener, socket.peers, Arc::new(plugin), stop).await
}

#[derive(Clone)]
struct Plugin {
    name: String,
    endpoint: String,
}

impl Door for Plugin {
    type Line = Self;

    fn name(&self) -> &str {
        &self.name
    }

    fn line(self: Arc<Self>) -> Self {
        (*self).clone()
    }

    fn refused_stream(&self) {
        tracing::warn!("HTTP/2 refused a request before it was read");
    }
}

impl Line for Plugin {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match method_of(&request, REGISTRATION) {
            Some("GetInfo") => {
                let info = self.info();
                unary(request, MAX_MESSAGE_LEN, move |_: InfoRequest| ready(Ok(info))).await
            }
            Some("NotifyRegistrationStatus") => {
                let hear = |status: RegistrationStatus| ready(Ok(hear(&status)));
                unary(request, MAX_MESSAGE_LEN, hear).await
            }
            Some(_) | None => Status::unimplemented("this method is not served here").into_http(),
        }
    }
}

impl Plugin {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            kind: CSI_PLUGIN.to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            versions: VERSIONS.map(str::to_owned).to_vec(),
        }
    }
}

/// The kubelet asks again by itself.
fn hear(status: &RegistrationStatus) -> RegistrationStatusReply {
    if status.registered {
        tracing::info!("the kubelet knows this driver now");
    } else {
        tracing::error!(reason = status.error, "the kubelet does not take this driver");
    }
    RegistrationStatusReply {}
}
