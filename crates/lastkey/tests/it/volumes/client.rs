//! A client of the driver, as kubelet and the provisioner are clients.

use std::path::Path;
use std::time::Instant;

use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastkey_wire::grpc::csi::{
    AccessType, CapacityRange, ContentSource, ContentSourceKind, CreateSnapshotRequest,
    CreateVolumeReply, CreateVolumeRequest, ExpandReply, Id, Kind, MountVolume, NodeExpandRequest,
    Nothing, PublishRequest, SnapshotReply, StageRequest, StatsReply, StatsRequest, UndoRequest,
    VolumeCapability,
};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::life::PATIENCE;
use crate::kms_client::Service;

/// A connection to the driver.
pub(super) struct Csi {
    runtime: Runtime,
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
}

impl Csi {
    pub(super) fn connect(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = TokioIo::new(UnixStream::connect(path).await.unwrap());
            let (sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(driver);
            sender
        });
        Self { runtime, sender }
    }

    /// Calls, and calls again while the key service does not answer, as kubelet and the provisioner do.
    pub(super) fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let began = Instant::now();
        loop {
            match self.call_once(path, request.clone()) {
                Err(status) if status.code() == Code::Unavailable && began.elapsed() < PATIENCE => {
                }
                answer => return answer,
            }
        }
    }

    fn call_once<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let service = Service::over(self.sender.clone());
        let mut grpc = Grpc::with_origin(service, "http://localhost".parse().unwrap());
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(path);
            let answer =
                grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await;
            answer.map(tonic::Response::into_inner)
        })
    }

    pub(super) fn create(
        &self,
        name: &str,
        bytes: i64,
        parameters: &[(&str, &str)],
    ) -> Result<String, Status> {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            capabilities: vec![mount("")],
            parameters: parameters.collect(),
            ..CreateVolumeRequest::default()
        };
        let reply: CreateVolumeReply = self.call("/csi.v1.Controller/CreateVolume", request)?;
        Ok(reply.volume.unwrap().id)
    }

    /// The same of a volume or snapshot.
    pub(super) fn create_of(
        &self,
        name: &str,
        source: ContentSourceKind,
        parameters: &[(&str, &str)],
    ) -> Result<String, Status> {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capabilities: vec![mount("")],
            parameters: parameters.collect(),
            content_source: Some(ContentSource { kind: Some(source) }),
            ..CreateVolumeRequest::default()
        };
        let reply: CreateVolumeReply = self.call("/csi.v1.Controller/CreateVolume", request)?;
        Ok(reply.volume.unwrap().id)
    }

    pub(super) fn snapshot(&self, id: &str, name: &str) -> Result<String, Status> {
        let (source_volume_id, name) = (id.to_owned(), name.to_owned());
        let request = CreateSnapshotRequest { source_volume_id, name };
        let reply: SnapshotReply = self.call("/csi.v1.Controller/CreateSnapshot", request)?;
        Ok(reply.snapshot.unwrap().id)
    }

    pub(super) fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = Id { id: id.to_owned() };
        self.call::<_, Nothing>("/csi.v1.Controller/DeleteSnapshot", request).map(drop)
    }

    pub(super) fn publish_inline(
        &self,
        id: &str,
        target: &Path,
        attributes: &[(&str, &str)],
    ) -> Result<(), Status> {
        let context = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let ephemeral = ("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
        let request = PublishRequest {
            volume_id: id.to_owned(),
            target_path: text(target),
            capability: Some(mount("")),
            context: context.chain([ephemeral]).collect(),
            ..PublishRequest::default()
        };
        self.call::<_, Nothing>("/csi.v1.Node/NodePublishVolume", request).map(drop)
    }

    pub(super) fn delete(&self, id: &str) -> Result<(), Status> {
        let request = Id { id: id.to_owned() };
        self.call::<_, Nothing>("/csi.v1.Controller/DeleteVolume", request).map(drop)
    }

    pub(super) fn stage(&self, id: &str, at: &Path, fs: &str) -> Result<(), Status> {
        let request = StageRequest {
            volume_id: id.to_owned(),
            staging_path: text(at),
            capability: Some(mount(fs)),
            ..StageRequest::default()
        };
        self.call::<_, Nothing>("/csi.v1.Node/NodeStageVolume", request).map(drop)
    }

    pub(super) fn unstage(&self, id: &str, at: &Path) -> Result<(), Status> {
        let request = UndoRequest { volume_id: id.to_owned(), path: text(at) };
        self.call::<_, Nothing>("/csi.v1.Node/NodeUnstageVolume", request).map(drop)
    }

    pub(super) fn publish(&self, id: &str, staging: &Path, target: &Path) -> Result<(), Status> {
        self.publish_with(id, staging, target, None)
    }

    /// The same with a token of the pod, as kubelet sends it.
    pub(super) fn publish_as(
        &self,
        id: &str,
        staging: &Path,
        target: &Path,
        token: &str,
    ) -> Result<(), Status> {
        let tokens = json!({ "lastkey": { "token": token, "expirationTimestamp": "x" } });
        let name = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
        self.publish_with(id, staging, target, Some((name, tokens.to_string())))
    }

    fn publish_with(
        &self,
        id: &str,
        staging: &Path,
        target: &Path,
        attribute: Option<(String, String)>,
    ) -> Result<(), Status> {
        let request = PublishRequest {
            volume_id: id.to_owned(),
            staging_path: text(staging),
            target_path: text(target),
            capability: Some(mount("")),
            context: attribute.into_iter().collect(),
            ..PublishRequest::default()
        };
        self.call::<_, Nothing>("/csi.v1.Node/NodePublishVolume", request).map(drop)
    }

    pub(super) fn unpublish(&self, id: &str, target: &Path) -> Result<(), Status> {
        let request = UndoRequest { volume_id: id.to_owned(), path: text(target) };
        self.call::<_, Nothing>("/csi.v1.Node/NodeUnpublishVolume", request).map(drop)
    }

    pub(super) fn stats(&self, id: &str, at: &Path) -> Result<StatsReply, Status> {
        let request = StatsRequest { volume_id: id.to_owned(), volume_path: text(at) };
        self.call("/csi.v1.Node/NodeGetVolumeStats", request)
    }

    /// An expansion as kubelet asks for it.
    pub(super) fn expand(&self, id: &str, at: &Path, bytes: i64) -> Result<i64, Status> {
        let range = Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 });
        let (volume_id, volume_path) = (id.to_owned(), text(at));
        let request = NodeExpandRequest { volume_id, volume_path, capacity_range: range };
        let reply: ExpandReply = self.call("/csi.v1.Node/NodeExpandVolume", request)?;
        Ok(reply.capacity_bytes)
    }
}

/// A file system for pods of one node.
fn mount(fs: &str) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(Kind { number: 1 }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: fs.to_owned(),
            ..MountVolume::default()
        })),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The code of a call that must have been refused.
#[track_caller]
pub(super) fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}
