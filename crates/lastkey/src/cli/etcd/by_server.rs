//! Seeds unwrapped by the server itself, without a plugin: a snapshot is proved on any machine that
//! reaches the server.
//!
//! Room      `lastkey`.
//! Source    docs/formats/kmsv2.md.
//! Holds     One call for each local key, not for each seed; what came back is in secret types.

use std::collections::{BTreeMap, HashMap};

use lastkey_checks::snapshot::stored::EncryptedObject;
use lastkey_client::{Client, Error};
use lastkey_crypto::wrap::WrapKey;
use lastkey_node::kmsv2::ciphertext::{Bound, Ciphertext};
use lastkey_secret::SecretArray;
use lastkey_wire::{Base64Bytes, StringMap, native::operations::DecryptRequest};

use crate::cli::{failure::Failure, session::Session};

/// More local keys than any cluster's plugins have drawn.
const MAX_LOCAL_KEYS: usize = 10_000;

/// A server that unwraps local keys.
pub(super) struct ByServer {
    client: Client,
    context: StringMap,
    /// Local keys by what the server protects them as; none for one that it refuses.
    locals: HashMap<Vec<u8>, Option<WrapKey>>,
}

impl ByServer {
    /// `cluster` as the plugin was told it.
    pub(super) fn new(session: &Session, cluster: &str) -> Result<Self, Failure> {
        let mut context = vec![("use".to_owned(), "kubernetes-kms-v2".to_owned())];
        if !cluster.is_empty() {
            context.push(("cluster".to_owned(), cluster.to_owned()));
        }
        let context = context.into_iter().collect();
        Ok(Self { client: session.client()?, context, locals: HashMap::new() })
    }

    /// The seed of an object; none when the server refuses its local key, or it is no ciphertext
    /// of the plugin.
    pub(super) async fn unwrap_seed(
        &mut self,
        object: &EncryptedObject<'_>,
    ) -> Result<Option<SecretArray<32>>, Failure> {
        let Ok(parsed) = Ciphertext::parse(object.source) else { return Ok(None) };
        if !self.locals.contains_key(parsed.by_service) {
            if self.locals.len() >= MAX_LOCAL_KEYS {
                let said = "more than 10,000 local keys: no plugin drew these";
                return Err(Failure::Input(said.to_owned()));
            }
            let local = self.fetch(parsed.by_service).await?;
            self.locals.insert(parsed.by_service.to_vec(), local);
        }
        let Some(Some(local)) = self.locals.get(parsed.by_service) else { return Ok(None) };
        let annotations = object.annotations.iter();
        let annotations: BTreeMap<String, Vec<u8>> =
            annotations.map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let bound = Bound { key_id: object.key_id, annotations: &annotations };
        Ok(parsed.open(local, bound).ok().and_then(|seed| seed.to_array()))
    }

    async fn fetch(&self, by_service: &[u8]) -> Result<Option<WrapKey>, Failure> {
        let request = DecryptRequest {
            ciphertext: Base64Bytes(by_service.to_vec()),
            context: Some(self.context.clone()),
            context_raw: None,
            key: None,
            version: None,
            dry_run: false,
        };
        match self.client.decrypt(&request).await {
            Ok(reply) => {
                let local = reply.plaintext.0.to_array::<32>();
                Ok(local.and_then(|local| WrapKey::new(&local).ok()))
            }
            // About this local key; everything else is about the server or the caller.
            Err(error) if is_about_it(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_about_it(error: &Error) -> bool {
    error.refusal().is_some_and(|refusal| {
        matches!(refusal.detail.code.as_str(), "Undecryptable" | "KeyState" | "KeyUsage")
    })
}
