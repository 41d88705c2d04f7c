//! Use case: authenticate a message by a MAC.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::permit::GenerateMac;
use lastkey_core::state::Purpose;
use lastkey_secret::SecretVec;

use super::sign::check_message;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::OpenMaterial;

/// What is to be authenticated.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub key: KeyRef,
    /// The version; default the primary one. Only the primary version generates.
    pub version: Option<VersionNo>,
    /// At most 65,536 bytes.
    pub message: SecretVec,
}

/// A MAC.
#[derive(Debug)]
pub struct Reply {
    /// The MAC: 32, 48 or 64 bytes by the key's spec.
    pub mac: Vec<u8>,
    /// The key.
    pub key: KeyId,
    /// The version: a verifier may have to name it later.
    pub version: VersionNo,
}

impl Engine {
    /// Generates a MAC.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`], [`Error::KeyState`], [`Error::KeyUsage`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn generate_mac(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<GenerateMac>(self, call);
        let outcome = self.try_generate_mac(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_generate_mac(
        &self,
        trail: &mut Trail<'_>,
        request: &Request,
    ) -> Result<Reply, Error> {
        check_message(&request.message)?;
        let permit = self.permit_key::<GenerateMac>(trail, &request.key).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let key_use = KeyUse::of(KeyUsage::GenerateVerifyMac, Purpose::Protect, request.version);
        let open = self.open_for_use(trail, &loaded, key_use).await?;
        let Some(OpenMaterial::Mac(key)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let mac = request.message.expose(|bytes| key.compute(bytes));
        Ok(Reply { mac, key: loaded.key.id, version: open.number })
    }
}
