//! The key service of encrypted volumes, over the network.
//!
//! Room      the binary: `volumes::ports::VolumeKeys` by `client`.
//! Holds     Called from threads that may block, never from the runtime's own.

use std::collections::BTreeMap;

use lastkey_client::SecretVec;
use lastkey_crypto::blob;
use lastkey_node::ports::KeyOps as _;
use lastkey_volumes::ports::{Context, KeyError, KeyInfo, Thing, VolumeKeys};
use lastkey_wire::SecretBase64;
use lastkey_wire::native::holdings::{HeldThing, HeldVersion, ReportHoldingRequest};
use lastkey_wire::native::keys::{CreateKeyRequest, KeyView};
use lastkey_wire::native::secrets::PutSecretRequest;
use lastkey_wire::words::{HeldWhat, KeyState};
use tokio::runtime::Handle;

use super::remote_keys::RemoteKeys;

/// Tag of a lineage's key, with the id of the first volume.
pub(crate) const LINEAGE_TAG: &str = "lastkey-volume";
/// Tag of a class's key: how many times new data keys were asked for.
pub(crate) const DATA_KEYS_TAG: &str = "lastkey-volume-data-keys";
/// Aliases of lineages' keys begin so.
pub(crate) const LINEAGE_ALIAS: &str = "alias/lastkey-volume/";
/// Most things that a report names.
const MAX_THINGS: usize = 1_000;
/// Versions of a header that are kept in escrow: one to go back to.
const KEPT_HEADERS: u32 = 2;

/// The secret that is a volume's header in escrow.
pub(crate) fn escrow_name(volume: &str) -> String {
    format!("lastkey-volume/{volume}/header")
}

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

    fn send(&self, key: &str, place: &str, report: &ReportHoldingRequest) -> Result<(), KeyError> {
        let ask = self
            .keys
            .ask(|client| async move { client.report_holding(key, place, report.clone()).await });
        self.runtime.block_on(ask).map(drop)
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
        Ok(view.map(|view| KeyInfo {
            usable: view.state == KeyState::Enabled,
            primary: view.primary_version,
            data_keys: data_keys(&view),
            id: view.id,
        }))
    }

    fn make_lineage(&self, alias: &str, volume: &str) -> Result<String, KeyError> {
        if let Some(view) = self.view(alias)? {
            return Ok(view.id);
        }
        let request = CreateKeyRequest {
            alias: Some(alias.to_owned()),
            description: Some("key of an encrypted volume and its copies".to_owned()),
            tags: Some([(LINEAGE_TAG.to_owned(), volume.to_owned())].into_iter().collect()),
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
        if is_ending(&view) {
            return Ok(());
        }
        let ask = self
            .keys
            .ask(|client| async move { client.schedule_deletion(key, None, None).send().await });
        match self.runtime.block_on(ask) {
            // An earlier attempt was heard, and its answer was not.
            Err(KeyError::Refused { code, .. })
                if code == "KeyState" && self.view(key)?.as_ref().is_some_and(is_ending) =>
            {
                Ok(())
            }
            done => done.map(drop),
        }
    }

    fn wrap(&self, key: &str, secret: &SecretVec, context: &Context) -> Result<Vec<u8>, KeyError> {
        self.runtime.block_on(self.keys.wrap(key, secret, context))
    }

    fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        self.runtime.block_on(self.keys.unwrap(wrapped, context))
    }

    fn open_session(&self, token: &SecretVec, role: &str) -> Result<SecretVec, KeyError> {
        self.runtime.block_on(self.keys.open_session(token, role))
    }

    fn unwrap_in(
        &self,
        session: &SecretVec,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<SecretVec, KeyError> {
        self.runtime.block_on(self.keys.unwrap_in(session, wrapped, context))
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u32> {
        blob::peek(wrapped).ok().map(|header| header.version)
    }

    fn report(&self, key: &str, place: &str, things: &[Thing]) -> Result<(), KeyError> {
        let whole = report(things);
        match self.send(key, place, &whole) {
            // Counts alone keep the key as well.
            Err(KeyError::Refused { code, .. })
                if code == "LimitExceeded" && !whole.things.is_empty() =>
            {
                let counts = ReportHoldingRequest { things: Vec::new(), ..whole };
                self.send(key, place, &counts)
            }
            sent => sent,
        }
    }

    fn keep_header(&self, volume: &str, key: &str, header: &SecretVec) -> Result<(), KeyError> {
        let name = escrow_name(volume);
        let request = PutSecretRequest {
            value: Some(SecretBase64(header.expose(SecretVec::copy_of))),
            key: Some(key.to_owned()),
            description: Some("header of an encrypted volume, in escrow".to_owned()),
            keep_versions: Some(KEPT_HEADERS),
            ..PutSecretRequest::default()
        };
        let (name, request) = (name.as_str(), &request);
        let ask = self.keys.ask(|client| async move { client.put_secret(name, request).await });
        self.runtime.block_on(ask).map(drop)
    }

    fn drop_header(&self, volume: &str) -> Result<(), KeyError> {
        let name = escrow_name(volume);
        let name = name.as_str();
        let ask =
            self.keys.ask(|client| async move { client.delete_secret(name, None).send().await });
        match self.runtime.block_on(ask) {
            // An earlier attempt was heard, and its answer was not.
            Err(KeyError::Refused { code, .. }) if code == "SecretState" => Ok(()),
            done => done.map(drop),
        }
    }
}

fn is_ending(view: &KeyView) -> bool {
    view.deletion.is_some() || view.destroyed_at.is_some()
}

/// How many times new data keys were asked for, for all volumes under a key.
pub(crate) fn data_keys(view: &KeyView) -> u32 {
    view.tags.0.get(DATA_KEYS_TAG).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Counts, and names where the service takes so many.
fn report(things: &[Thing]) -> ReportHoldingRequest {
    let mut counts = BTreeMap::<u32, u64>::new();
    for thing in things {
        let count = counts.entry(thing.version).or_default();
        *count = count.saturating_add(1);
    }
    let versions = counts.into_iter().map(|(version, count)| HeldVersion { version, count });
    let named = if things.len() > MAX_THINGS { &[] } else { things };
    let named = named.iter().map(|thing| HeldThing {
        name: thing.name.clone(),
        version: thing.version,
        about: thing.about.iter().map(|(name, word)| ((*name).to_owned(), word.clone())).collect(),
    });
    ReportHoldingRequest {
        what: HeldWhat::Volumes,
        versions: versions.collect(),
        things: named.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(number: usize, version: u32) -> Thing {
        Thing { name: format!("lkv-{number:04}"), version, about: BTreeMap::new() }
    }

    #[test]
    fn report_counts_each_version_and_names_what_the_service_takes() {
        let report = super::report(&[thing(1, 2), thing(2, 1), thing(3, 2)]);
        let counted: Vec<_> =
            report.versions.iter().map(|held| (held.version, held.count)).collect();
        assert_eq!(counted, [(1, 1), (2, 2)]);
        assert_eq!(report.things.len(), 3);
        let many: Vec<Thing> = (0..1_001).map(|number| thing(number, 1)).collect();
        let report = super::report(&many);
        assert_eq!((report.versions[0].count, report.things.len()), (1_001, 0));
        assert!(super::report(&[]).versions.is_empty());
    }
}
