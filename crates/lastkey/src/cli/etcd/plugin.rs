//! The KMS v2 plugin on this node, asked as the API server asks it.
//!
//! Room      `lastkey`.
//! Source    k8s.io/kms: apis/v2/api.proto.
//! Holds     A seed that the plugin gave back is in a secret type, and is never shown.

use std::path::Path;

use http::uri::PathAndQuery;
use lastkey_checks::snapshot::stored::EncryptedObject;
use lastkey_secret::SecretArray;
use lastkey_wire::grpc::kmsv2::{
    DecryptRequest, DecryptResponse, SERVICE, StatusRequest, StatusResponse,
};
use prost::Message;
use tokio::time::timeout;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::connect::{CALL_LIMIT, Client, failed, unix};
use crate::cli::failure::Failure;

/// A plugin behind its socket.
pub(super) struct Plugin {
    client: Client,
    name: String,
    asked: u64,
}

impl Plugin {
    pub(super) async fn connect(path: &Path) -> Result<Self, Failure> {
        Ok(Self { client: unix(path).await?, name: path.display().to_string(), asked: 0 })
    }

    /// The key id under which new values are sealed.
    pub(super) async fn key_id(&mut self) -> Result<String, Failure> {
        let answer: StatusResponse = self
            .call("Status", StatusRequest {})
            .await
            .map_err(|status| failed(&self.name, &status))?;
        if answer.key_id.is_empty() {
            return Err(Failure::Input(format!("{}: the plugin tells no key id", self.name)));
        }
        Ok(answer.key_id)
    }

    /// Asks for the seed of an object; none when the plugin refuses it.
    pub(super) async fn unwrap_seed(
        &mut self,
        object: &EncryptedObject<'_>,
    ) -> Result<Option<SecretArray<32>>, Failure> {
        self.asked += 1;
        let annotations = object.annotations.iter();
        let request = DecryptRequest {
            ciphertext: object.source.to_vec(),
            uid: format!("lastkey-etcd-verify-{}", self.asked),
            key_id: object.key_id.to_owned(),
            annotations: annotations
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
        };
        let answer: Result<DecryptResponse, Status> = self.call("Decrypt", request).await;
        match answer {
            Ok(answer) => Ok(SecretArray::try_copy_of(&answer.plaintext)),
            // Only silence is the plugin's fault; every other answer is about this seed.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                Err(failed(&self.name, &status))
            }
            Err(_) => Ok(None),
        }
    }

    async fn call<Q, A>(&mut self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{SERVICE}/{method}"))
            .map_err(|_| Status::internal("the name of a method is no path"))?;
        let client = &mut self.client;
        let call = async {
            client.ready().await.map_err(|cause| Status::unavailable(cause.to_string()))?;
            client.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await
        };
        let answer = timeout(CALL_LIMIT, call)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        Ok(answer.into_inner())
    }
}
