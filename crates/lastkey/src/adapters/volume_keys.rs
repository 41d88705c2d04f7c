//! The key service of encrypted volumes, over the network.
//!
//! Room      the binary: `volumes::ports::VolumeKeys` by `client`.
//! Holds     Called from threads that may block, never from the runtime's own.

use lastkey_client::SecretVec;
use lastkey_node::ports::KeyOps as _;
use lastkey_volumes::ports::{Context, KeyError, KeyInfo, VolumeKeys};
use lastkey_wire::native::keys::{CreateKeyRequest, KeyView};
use lastkey_wire::words::KeyState;
use tokio::runtime::Handle;

use super::remote_keys::RemoteKeys;

/// Tag of a lineage's key, with the id of the first volume.
const TAG: &str = "lastkey-volume";

/// Servers that hold the same keys, for callers that block.
#[derive(Debug)]
pub(crate) struct VolumeKeyService {
    keys: RemoteKeys,
    runtime: Handle,
}

impl VolumeKeyService {
    /// Calls run on `runtime`, which somebody else drives.
    pub(crate) fn new(keys: RemoteKeys, runtime: Handle) -> Self {
        Self { keys, runtime }
    }

    fn view(&self, key: &str) -> Result<Option<KeyView>, KeyError> {
        let ask = self.keys.ask(|client| async move { client.describe_key(key).await });
        match self.runtime.block_on(ask) {
            Ok(view) => Ok(Some(view)),
            // The service does not tell a key that is not there from one that is not for us.
            Err(KeyError::Refused { code, .. }) if code == "AccessDenied" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl VolumeKeys for VolumeKeyService {
    fn describe(&self, key: &str) -> Result<Option<KeyInfo>, KeyError> {
        let view = self.view(key)?;
        Ok(view.map(|view| KeyInfo { usable: view.state == KeyState::Enabled, id: view.id }))
    }

    fn make_lineage(&self, alias: &str, volume: &str) -> Result<String, KeyError> {
        if let Some(view) = self.view(alias)? {
            return Ok(view.id);
        }
        let request = CreateKeyRequest {
            alias: Some(alias.to_owned()),
            description: Some("key of an encrypted volume and its copies".to_owned()),
            tags: Some([(TAG.to_owned(), volume.to_owned())].into_iter().collect()),
            ..CreateKeyRequest::default()
        };
        let request = &request;
        let ask = self.keys.ask(|client| async move { client.create_key(request).await });
        match self.runtime.block_on(ask) {
            Ok(view) => Ok(view.id),
            // An earlier attempt was heard, and its answer was not.
            Err(KeyError::Refused { code, message }) if code == "AlreadyExists" => {
                let view = self.view(alias)?;
                view.map(|view| view.id).ok_or(KeyError::Refused { code, message })
            }
            Err(error) => Err(error),
        }
    }

    fn end_lineage(&self, key: &str) -> Result<(), KeyError> {
        let Some(view) = self.view(key)? else {
            return Err(KeyError::Refused {
                code: "AccessDenied".to_owned(),
                message: "the lineage's key cannot be seen".to_owned(),
            });
        };
        if view.deletion.is_some() || view.destroyed_at.is_some() {
            return Ok(());
        }
        let ask = self
            .keys
            .ask(|client| async move { client.schedule_deletion(key, None, None).send().await });
        self.runtime.block_on(ask).map(drop)
    }

    fn wrap(&self, key: &str, secret: &SecretVec, context: &Context) -> Result<Vec<u8>, KeyError> {
        self.runtime.block_on(self.keys.wrap(key, secret, context))
    }

    fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        self.runtime.block_on(self.keys.unwrap(wrapped, context))
    }
}
