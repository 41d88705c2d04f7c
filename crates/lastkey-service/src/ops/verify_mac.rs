//! Use case: verify a MAC.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::permit::VerifyMac;
use lastkey_core::state::Purpose;
use lastkey_secret::SecretVec;

use super::sign::check_message;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::OpenMaterial;

/// What is to be verified.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub key: KeyRef,
    /// The version that generated it; default the primary one.
    pub version: Option<VersionNo>,
    /// The message, at most 65,536 bytes.
    pub message: SecretVec,
    /// The MAC.
    pub mac: Vec<u8>,
}

/// Whether it holds.
#[derive(Debug)]
pub struct Reply {
    /// Whether the MAC is the one of this message by this version.
    pub valid: bool,
    /// The key.
    pub key: KeyId,
    /// The version.
    pub version: VersionNo,
}

impl Engine {
    /// Verifies a MAC, in constant time.
    ///
    /// # Errors
    /// As [`Engine::generate_mac`]; a MAC that does not hold is no error.
    pub async fn verify_mac(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<VerifyMac>(self, call);
        let outcome = self.try_verify_mac(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_verify_mac(
        &self,
        trail: &mut Trail<'_>,
        request: &Request,
    ) -> Result<Reply, Error> {
        check_message(&request.message)?;
        let permit = self.permit_key::<VerifyMac>(trail, &request.key).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let key_use = KeyUse::of(KeyUsage::GenerateVerifyMac, Purpose::Process, request.version);
        let open = self.open_for_use(trail, &loaded, key_use).await?;
        let Some(OpenMaterial::Mac(key)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let valid = request.message.expose(|bytes| key.verify(bytes, &request.mac));
        if !valid {
            trail.reason = "the MAC does not hold".into();
        }
        Ok(Reply { valid, key: loaded.key.id, version: open.number })
    }
}
