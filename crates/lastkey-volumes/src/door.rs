//! gRPC: requests to the driver, answers and codes.
//!
//! Room      `volumes`. Connections and framing are `node::grpc`.
//! Source    CSI 1.13.
//! Holds     A call runs on a thread of its own and to its end, also when its caller hangs up. No
//!           part of a request reaches the log but ids and the name of the method.

use std::io;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use lastkey_node::grpc::{self, Body, Door, Line, unary};
use lastkey_node::socket::Socket;
use lastkey_wire::grpc::csi::{
    CONTROLLER, Flag, IDENTITY, Kind as Number, NODE, Nothing, PluginCapabilities,
    PluginCapability, PluginCapabilityKind, PluginInfo, ProbeReply, ServiceCapabilities,
    ServiceCapability,
};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::driver::Driver;
use crate::fault::{Fault, Kind};

/// Longer than any request of Kubernetes: names, paths and parameters, in bytes.
const MAX_MESSAGE_LEN: usize = 1 << 20;
/// Numbers of ControllerServiceCapability.RPC.Type: create and delete, list, capacity, snapshots,
/// list of snapshots, clones. Not expansion: one resizer serves all nodes, and reaches the driver of
/// one. It then leaves expansion to kubelet, which asks the node that has the volume.
const CONTROLLER_CAN: [i32; 6] = [1, 3, 4, 5, 6, 7];
/// Numbers of NodeServiceCapability.RPC.Type: stage, statistics, expansion, condition, several
/// pods of a node.
const NODE_CAN: [i32; 5] = [1, 2, 3, 4, 5];

/// Serves a socket until `stop` says so.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve(
    socket: Socket,
    driver: Arc<Driver>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    grpc::serve(socket.listener, socket.peers, Arc::new(CsiDoor(driver)), stop).await
}

struct CsiDoor(Arc<Driver>);

struct CsiLine(Arc<Driver>);

impl Door for CsiDoor {
    type Line = CsiLine;

    fn name(&self) -> &str {
        &self.0.config.name
    }

    fn line(self: Arc<Self>) -> CsiLine {
        CsiLine(Arc::clone(&self.0))
    }

    fn refused_stream(&self) {
        tracing::warn!("HTTP/2 refused a request before it was read");
    }
}

/// One arm for each method: its path, and the function of the driver.
macro_rules! methods {
    ($self:ident, $request:ident, $($service:ident $method:literal => $call:expr;)*) => {
        match path($request.uri().path()) {
            $(Some(($service, $method)) => {
                let driver = Arc::clone(&$self.0);
                unary($request, MAX_MESSAGE_LEN, move |request| run($method, driver, request, $call)).await
            })*
            Some(_) | None => Status::unimplemented("this method is not served here").into_http(),
        }
    };
}

impl Line for CsiLine {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        methods! { self, request,
            IDENTITY "GetPluginInfo" => |driver, _: Nothing| Ok(driver.plugin_info());
            IDENTITY "GetPluginCapabilities" => |_, _: Nothing| Ok(plugin_capabilities());
            IDENTITY "Probe" => |_, _: Nothing| Ok(ProbeReply { ready: Some(Flag { value: true }) });
            CONTROLLER "ControllerGetCapabilities" => |_, _: Nothing| Ok(can(&CONTROLLER_CAN));
            CONTROLLER "CreateVolume" => |driver, request| driver.create_volume(&request);
            CONTROLLER "DeleteVolume" => |driver, request| nothing(driver.delete_volume(&request));
            CONTROLLER "ValidateVolumeCapabilities" =>
                |driver, request| driver.validate_volume(&request);
            CONTROLLER "ListVolumes" => |driver, request| driver.list_volumes(&request);
            CONTROLLER "GetCapacity" => |driver, request| driver.capacity(&request);
            CONTROLLER "CreateSnapshot" => |driver, request| driver.create_snapshot(&request);
            CONTROLLER "DeleteSnapshot" =>
                |driver, request| nothing(driver.delete_snapshot(&request));
            CONTROLLER "ListSnapshots" => |driver, request| driver.list_snapshots(&request);
            NODE "NodeStageVolume" => |driver, request| nothing(driver.stage(&request));
            NODE "NodeUnstageVolume" => |driver, request| nothing(driver.unstage(&request));
            NODE "NodePublishVolume" => |driver, request| nothing(driver.publish(request));
            NODE "NodeUnpublishVolume" => |driver, request| nothing(driver.unpublish(&request));
            NODE "NodeGetVolumeStats" => |driver, request| driver.stats(&request);
            NODE "NodeExpandVolume" => |driver, request| driver.expand_on_node(&request);
            NODE "NodeGetCapabilities" => |_, _: Nothing| Ok(can(&NODE_CAN));
            NODE "NodeGetInfo" => |driver, _: Nothing| Ok(driver.node_info());
        }
    }
}

/// Service and method of a request path.
fn path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

async fn run<Q, A>(
    method: &'static str,
    driver: Arc<Driver>,
    request: Q,
    call: fn(&Driver, Q) -> Result<A, Fault>,
) -> Result<A, Status>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    let called = tokio::task::spawn_blocking(move || call(&driver, request));
    let outcome = called.await.map_err(|_| Status::internal("the driver has failed"))?;
    outcome.map_err(|fault| {
        let cause = fault.cause.as_ref().map(ToString::to_string);
        tracing::warn!(method, kind = ?fault.kind, cause, "{fault}");
        Status::new(code(fault.kind), fault.message)
    })
}

fn nothing(done: Result<(), Fault>) -> Result<Nothing, Fault> {
    done.map(|()| Nothing {})
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Denied => Code::PermissionDenied,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Busy => Code::Aborted,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Away => Code::Unavailable,
        Kind::Internal => Code::Internal,
    }
}

impl Driver {
    fn plugin_info(&self) -> PluginInfo {
        let Self { config, .. } = self;
        PluginInfo { name: config.name.clone(), vendor_version: config.version.clone() }
    }
}

/// The controller, topology, and expansion while a volume is in use.
fn plugin_capabilities() -> PluginCapabilities {
    let kinds = [
        PluginCapabilityKind::Service(Number { number: 1 }),
        PluginCapabilityKind::Service(Number { number: 2 }),
        PluginCapabilityKind::Expansion(Number { number: 1 }),
    ];
    let capabilities = kinds.map(|kind| PluginCapability { kind: Some(kind) });
    PluginCapabilities { capabilities: capabilities.to_vec() }
}

fn can(numbers: &[i32]) -> ServiceCapabilities {
    let one = |number: &i32| ServiceCapability { rpc: Some(Number { number: *number }) };
    ServiceCapabilities { capabilities: numbers.iter().map(one).collect() }
}
