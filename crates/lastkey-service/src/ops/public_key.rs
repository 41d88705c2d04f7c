//! Use case: read the public half of a key version.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::permit::GetPublicKey;
use lastkey_core::state::State;
use lastkey_crypto::material::MaterialSpec;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

/// A public key.
#[derive(Debug)]
pub struct Reply {
    /// SubjectPublicKeyInfo (RFC 5280) in DER.
    pub der: Vec<u8>,
    /// Spec of the key.
    pub spec: MaterialSpec,
    /// Usage of the key.
    pub usage: KeyUsage,
    /// The key.
    pub key: KeyId,
    /// The version.
    pub version: VersionNo,
}

impl Engine {
    /// Reads a public key. A disabled key still shows it; a destroyed one does not.
    ///
    /// # Errors
    /// [`Error::KeyUsage`] for a symmetric key, [`Error::KeyState`], [`Error::Denied`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn public_key(
        &self,
        call: &Call,
        key: KeyRef,
        version: Option<VersionNo>,
    ) -> Result<Reply, Error> {
        let mut trail = Trail::of::<GetPublicKey>(self, call);
        let outcome = self.try_public_key(&mut trail, &key, version).await;
        trail.close(self, outcome).await
    }

    async fn try_public_key(
        &self,
        trail: &mut Trail<'_>,
        name: &KeyRef,
        version: Option<VersionNo>,
    ) -> Result<Reply, Error> {
        let permit = self.permit_key::<GetPublicKey>(trail, name).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let key = &loaded.key;
        if key.spec.symmetric_len().is_some() {
            return Err(Error::KeyUsage);
        }
        let number = version.or(key.primary).ok_or_else(|| Error::state(key.phase().state))?;
        trail.version = Some(number);
        let Some((stored, _)) = self.read_version(key.id, number).await? else {
            trail.reason = "no such version".into();
            return Err(Error::Denied);
        };
        if stored.state == State::Destroyed {
            return Err(Error::state(stored.state));
        }
        trail.call().go_on()?;
        let der = stored.public_key.ok_or_else(|| Error::Internal("no public key".into()))?;
        Ok(Reply { der, spec: key.spec, usage: key.usage, key: key.id, version: number })
    }
}
