//! What protects the values of secrets: a data key for each version, under a key of choice.
//!
//! Room      `service`.
//! Source    `docs/formats/secret.md`.
//! Holds     a data key opens for its secret's name and version number and for no others, a value
//!           with its own data key and nowhere else. The key itself is used in the name of
//!           [`Principal::SECRETS`], which policies may shut out from a key.

use std::sync::Arc;

use lastkey_core::ids::{AliasName, KeyId, VersionNo};
use lastkey_core::key::{Description, Tags};
use lastkey_core::permit::{Action, Decrypt, Encrypt, Facts, Permit, Resource, authorize};
use lastkey_core::principal::{Caller, Principal, Source};
use lastkey_core::rotation::Period;
use lastkey_core::secret_item::{SecretId, SecretName, SecretVersion, ValueKind};
use lastkey_core::version::Origin;
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::{create_key, decrypt};

/// The alias of the key that protects secrets for which nobody chose another.
pub const DEFAULT_KEY_ALIAS: &str = "alias/lastkey/secrets";

/// How often that key rotates, in seconds: once a year.
const DEFAULT_KEY_PERIOD: u64 = 365 * 86_400;

/// A value, and what it is.
#[derive(Debug)]
pub struct Value {
    /// What it is.
    pub kind: ValueKind,
    /// Its bytes.
    pub bytes: SecretVec,
}

/// Which version of which secret.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) id: SecretId,
    pub(crate) name: &'a SecretName,
    pub(crate) number: VersionNo,
}

/// A value, protected.
pub(crate) struct Sealed {
    /// Its data key, as a blob.
    pub(crate) data_key_blob: Vec<u8>,
    /// The value under the data key.
    pub(crate) value: Vec<u8>,
}

impl Slot<'_> {
    /// What the data key is bound to.
    fn context(&self) -> Result<EncryptionContext, Error> {
        let number = self.number.to_string();
        let pairs = [("lastkey:secret", self.name.as_str()), ("lastkey:version", &number)];
        EncryptionContext::from_pairs(pairs).map_err(|error| Error::Internal(error.into()))
    }

    /// What the value is bound to.
    fn aad(&self, kind: ValueKind) -> Vec<u8> {
        let mut aad = b"lastkey/secret-value/v1".to_vec();
        aad.extend_from_slice(&self.id.0);
        aad.extend_from_slice(&self.number.number().to_be_bytes());
        aad.push(match kind {
            ValueKind::Opaque => 1,
            ValueKind::Fields => 2,
        });
        aad
    }
}

impl Engine {
    /// Protects a value under a fresh data key, and that under a key.
    ///
    /// # Errors
    /// [`Error::Denied`] when the key is closed to secrets; [`Error::KeyState`],
    /// [`Error::KeyUsage`], [`Error::Invalid`] for a key that cannot; [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn seal_value(
        &self,
        trail: &mut Trail<'_>,
        key: KeyId,
        slot: Slot<'_>,
        value: &Value,
    ) -> Result<Sealed, Error> {
        let mut entropy = self.ports.entropy.open();
        let internal = |error: lastkey_core::ports::Cause| Error::Internal(error);
        let data_key = crate::root::draw_secret(&mut *entropy).map_err(|e| internal(e.into()))?;
        let aad = slot.aad(value.kind);
        let sealed = WrapKey::new(&data_key)
            .and_then(|data_key| {
                value.bytes.expose(|bytes| data_key.wrap(&aad, bytes, &mut *entropy))
            })
            .map_err(|error| internal(error.into()))?;
        let data_key_blob = self.protect_data_key(trail, key, slot, &data_key).await?;
        Ok(Sealed { data_key_blob, value: sealed })
    }

    async fn protect_data_key(
        &self,
        trail: &mut Trail<'_>,
        key: KeyId,
        slot: Slot<'_>,
        data_key: &SecretArray<32>,
    ) -> Result<Vec<u8>, Error> {
        let context = slot.context()?;
        let permit = self.own_permit::<Encrypt>(trail, key, &context).await?;
        let data_key = SecretVec::take(data_key.expose(|bytes| bytes.to_vec()));
        Ok(self.protect(trail, &permit, &data_key, &context).await?.ciphertext)
    }

    /// Recovers a value.
    ///
    /// # Errors
    /// [`Error::SecretState`] for a version that is destroyed; [`Error::Denied`],
    /// [`Error::KeyState`]; [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn open_value(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        version: &SecretVersion,
        sealed: &[u8],
    ) -> Result<Value, Error> {
        let slot = Slot { id: version.secret, name, number: version.number };
        let data_key = self.open_data_key(trail, slot, version).await?;
        let opened = WrapKey::new(&data_key).map_err(|error| Error::Internal(error.into()))?;
        let bytes = opened.unwrap(&slot.aad(version.kind), sealed);
        let bytes = bytes.map_err(|error| Error::Internal(error.into()))?;
        Ok(Value { kind: version.kind, bytes })
    }

    async fn open_data_key(
        &self,
        trail: &mut Trail<'_>,
        slot: Slot<'_>,
        version: &SecretVersion,
    ) -> Result<SecretArray<32>, Error> {
        let Some(blob) = &version.data_key_blob else {
            return Err(Error::SecretState { state: "destroyed" });
        };
        let context = slot.context()?;
        let permit = self.own_permit::<Decrypt>(trail, version.key, &context).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let (ciphertext, key, version) = (blob.clone(), None, None);
        let request = decrypt::Request { ciphertext, context, key, version };
        let opened = match self.decrypt_blob(trail, &loaded, &request).await {
            Err(Error::Undecryptable) => {
                return Err(Error::Internal("a data key is damaged".into()));
            }
            other => other?,
        };
        let data_key = opened.plaintext.to_array::<32>();
        data_key.ok_or_else(|| Error::Internal("a data key has another length".into()))
    }

    /// Protects a data key anew: for another name, or under another key.
    ///
    /// # Errors
    /// As [`Engine::seal_value`] and [`Engine::open_value`].
    pub(crate) async fn rewrap_version(
        &self,
        trail: &mut Trail<'_>,
        (from, to): (&SecretName, &SecretName),
        version: &SecretVersion,
        key: KeyId,
    ) -> Result<SecretVersion, Error> {
        let (id, number) = (version.secret, version.number);
        let data_key = self.open_data_key(trail, Slot { id, name: from, number }, version).await?;
        let slot = Slot { id, name: to, number };
        let data_key_blob = Some(self.protect_data_key(trail, key, slot, &data_key).await?);
        Ok(SecretVersion { data_key_blob, key, ..version.clone() })
    }

    /// Asks policy whether the service itself may use a key for this secret.
    async fn own_permit<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        id: KeyId,
        context: &EncryptionContext,
    ) -> Result<Permit<A>, Error> {
        trail.key = Some(id);
        let known = self.known_key(id).await?;
        let who = Principal::named(Principal::SECRETS);
        let facts = Facts {
            now: trail.at(),
            source: Source::default(),
            context: Some(context),
            key: known.as_ref().map(|known| known.key.facts()),
        };
        let asked = authorize::<A>(&*self.access.get(), &who, Resource::Key(id), &facts);
        trail.known = known;
        asked.map_err(|_| {
            trail.reason = "the key of the secret is closed to system:secrets".into();
            Error::Denied
        })
    }

    /// The key for secrets for which nobody chose one. It is made when it is needed first.
    ///
    /// # Errors
    /// [`Error::DryRun`] when it would have to be made in a dry run; [`Error::Denied`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn default_key(self: &Arc<Self>, call: &Call) -> Result<KeyId, Error> {
        let alias = AliasName::parse(DEFAULT_KEY_ALIAS)?;
        if let Some(id) = self.alias_target(&alias).await? {
            return Ok(id);
        }
        call.go_on()?;
        let principal = Principal::named(Principal::SECRETS);
        let caller = Caller { principal, ..call.caller.clone() };
        let request = create_key::Request {
            spec: MaterialSpec::Aes256,
            usage: None,
            origin: Origin::Generated,
            alias: Some(alias.clone()),
            description: Description::parse("protects secrets for which nobody chose a key")?,
            tags: Tags::default(),
            deletion_protection: true,
            rotation: Some(Period::from_secs(DEFAULT_KEY_PERIOD)?),
        };
        // Boxed: this is done once in the life of an installation.
        let made = Box::pin(self.create_key(&Call { caller, dry_run: false }, request)).await;
        match made {
            Ok(view) => Ok(view.key.id),
            Err(Error::AlreadyExists) => self.alias_target(&alias).await?.ok_or(Error::Conflict),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::blob::{self, BlobKey};
    use serde_json::Value as Json;

    use super::*;

    fn bytes(vector: &Json, field: &str) -> Vec<u8> {
        let digit = |hex: u8| char::from(hex).to_digit(16).unwrap() as u8;
        let pairs = vector[field].as_str().unwrap().as_bytes().chunks(2);
        pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// Opens a vector as the service opens what it reads from the store.
    fn open(vector: &Json) -> Option<SecretVec> {
        let name = SecretName::parse(vector["name"].as_str()?).ok()?;
        let id = SecretId(bytes(vector, "id").try_into().ok()?);
        let number = VersionNo::new(u32::try_from(vector["version"].as_u64()?).ok()?)?;
        let kind = match vector["kind"].as_str()? {
            "opaque" => ValueKind::Opaque,
            "fields" => ValueKind::Fields,
            _ => return None,
        };
        let slot = Slot { id, name: &name, number };
        let material = SecretVec::take(bytes(vector, "material"));
        let key = BlobKey::new(MaterialSpec::Aes256, &material).ok()?;
        let hash = slot.context().ok()?.hash();
        let data_key = blob::open(&key, &bytes(vector, "data_key"), &hash).ok()?;
        let data_key = WrapKey::new(&data_key.to_array()?).ok()?;
        data_key.unwrap(&slot.aad(kind), &bytes(vector, "sealed")).ok()
    }

    fn vectors() -> Json {
        serde_json::from_str(include_str!("../tests/vectors/secret.json")).unwrap()
    }

    #[test]
    fn values_sealed_by_another_program_open_and_no_other_ones() {
        let vectors = vectors();
        for vector in vectors["good"].as_array().unwrap() {
            let value = open(vector).unwrap();
            if vector["kind"] == "opaque" {
                assert!(value.expose(|value| value == bytes(vector, "value")), "{vector}");
                continue;
            }
            let fields = value.expose(lastkey_core::secret_value::Fields::parse).unwrap();
            let fields = fields.into_inner();
            assert_eq!(fields.len(), vector["fields"].as_object().unwrap().len());
            for (name, value) in fields {
                assert!(value.expose(|value| value == bytes(&vector["fields"], &name)), "{name}");
            }
        }
        for vector in vectors["bad"].as_array().unwrap() {
            assert!(open(vector).is_none(), "{vector}");
        }
    }
}
