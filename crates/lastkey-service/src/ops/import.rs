//! Use cases: hand out import parameters, and take in the material of a key's owner.
//!
//! Room      `service`.
//! Holds     parameters are good for one import, for one key and for a day; the key pair that
//!           unwraps is drawn for them and is gone afterwards.

use std::sync::Arc;

use lastkey_core::ids::{KeyId, KeyRef};
use lastkey_core::key::Key;
use lastkey_core::limits::IMPORT_TOKEN_LIFETIME;
use lastkey_core::permit::{GetImportParameters, ImportKeyMaterial};
use lastkey_core::ports::{Expected, Revision};
use lastkey_core::record::{DueWhat, ImportSession, Record, RecordPath};
use lastkey_core::state::KeyEvent;
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_core::version::Origin;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::import::{ImportAlgorithm, ImportError, unwrap_material};
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::oaep::OaepKey;
use lastkey_secret::{SecretVec, ct_eq};

use super::describe::corrupt;
use crate::audited::Trail;
use crate::authenticate::mint_token;
use crate::call::Call;
use crate::change::{Draft, Plan};
use crate::engine::Engine;
use crate::error::Error;
use crate::root::MaterialPlace;
use crate::view::KeyView;

/// The spec of the key pair that material is wrapped with.
const WRAPPING_SPEC: MaterialSpec = MaterialSpec::Rsa4096;

/// Import parameters.
#[derive(Debug)]
pub struct Parameters {
    /// Comes back with the material.
    pub token: SecretVec,
    /// The RSA public key to wrap the material with, as SubjectPublicKeyInfo in DER.
    pub wrapping_key: Vec<u8>,
    /// When they expire, by the wall clock.
    pub expires_at: Timestamp,
}

impl Engine {
    /// Hands out import parameters; those handed out before for this key are void.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key whose material is generated; [`Error::KeyState`],
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn import_parameters(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        algorithm: ImportAlgorithm,
    ) -> Result<Parameters, Error> {
        let mut trail = Trail::of::<GetImportParameters>(self, call);
        let drafted = match self.import_target(&mut trail, &key).await {
            Ok(target) => self.draft_parameters(target, algorithm).await,
            Err(error) => Err(error),
        };
        let (target, parameters, session) = match drafted {
            Ok(drafted) => drafted,
            Err(error) => return trail.close(self, Err(error)).await,
        };
        let plan = Plan::OfferImport(session);
        self.change::<GetImportParameters>(call, KeyRef::Id(target), plan).await?;
        Ok(parameters)
    }

    async fn draft_parameters(
        &self,
        target: KeyId,
        algorithm: ImportAlgorithm,
    ) -> Result<(KeyId, Parameters, ImportSession), Error> {
        let pair = self.generate_material(WRAPPING_SPEC).await?;
        let wrapping_key = material::public_key_der(WRAPPING_SPEC, &pair)
            .map_err(|error| Error::Internal(error.into()))?;
        let mut entropy = self.ports.entropy.open();
        let token = mint_token("lastkey_import", &mut *entropy)
            .map_err(|error| Error::Internal(error.into()))?;
        let place = MaterialPlace { key: target, version: None, spec: WRAPPING_SPEC };
        let wrapped = self.keyring.materials.wrap(place, &pair, &mut *entropy);
        let clock = self.clock.observe();
        let session = ImportSession {
            token_hash: token.expose(sha256),
            wrapping_key: wrapped.map_err(Error::Internal)?,
            algorithm,
            expires: clock.elapsed.after(IMPORT_TOKEN_LIFETIME),
        };
        let expires_at = clock.wall_at(session.expires);
        Ok((target, Parameters { token, wrapping_key, expires_at }, session))
    }

    /// The key that parameters are asked for, if it may have them. Making them takes long.
    async fn import_target(&self, trail: &mut Trail<'_>, name: &KeyRef) -> Result<KeyId, Error> {
        let permit = self.permit_key::<GetImportParameters>(trail, name).await?;
        let key = self.stored_key(trail, &permit).await?;
        check_importable(&key)?;
        trail.call().go_on()?;
        Ok(key.id)
    }

    /// Takes in material. It becomes the primary version of its key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a token that is not the one handed out last or has expired, or
    /// material that does not unwrap; and those of [`Engine::import_parameters`].
    pub async fn import_material(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        token: SecretVec,
        wrapped: Vec<u8>,
    ) -> Result<KeyView, Error> {
        self.change::<ImportKeyMaterial>(call, key, Plan::Import { token, wrapped }).await
    }

    pub(crate) async fn plan_import_offer(
        &self,
        draft: &mut Draft,
        session: &ImportSession,
    ) -> Result<(), Error> {
        check_importable(&draft.key)?;
        let before = self.read_import(draft).await?;
        let expected = before.as_ref().map_or(Expected::Absent, |(_, rev)| Expected::At(*rev));
        let old = before.map(|(session, _)| session.expires);
        draft.write(
            RecordPath::import(draft.key.id),
            expected,
            Some(Record::Import(session.clone())),
        );
        draft.move_due(DueWhat::ExpireImport, old, Some(session.expires));
        Ok(())
    }

    pub(crate) async fn plan_import(
        &self,
        draft: &mut Draft,
        token: &SecretVec,
        wrapped: &[u8],
    ) -> Result<(), Error> {
        let bad_token =
            || Error::invalid("token", "not the import token handed out last, or it has expired");
        let (session, revision) = self.read_import(draft).await?.ok_or_else(bad_token)?;
        let expired = session.expires <= draft.clock.elapsed && draft.clock.hold.is_none();
        if expired || !ct_eq(&token.expose(sha256), &session.token_hash) {
            return Err(bad_token());
        }
        let place = MaterialPlace { key: draft.key.id, version: None, spec: WRAPPING_SPEC };
        let pair = self.keyring.materials.unwrap(place, &session.wrapping_key);
        let pair = OaepKey::new(WRAPPING_SPEC, &pair.map_err(Error::Internal)?)
            .map_err(|error| Error::Internal(error.into()))?;
        let material = unwrap_material(&pair, session.algorithm, wrapped, draft.key.spec)?;
        draft.happen(KeyEvent::ImportMaterial)?;
        self.add_primary(draft, &material).await?;
        draft.write(RecordPath::import(draft.key.id), Expected::At(revision), None);
        draft.move_due(DueWhat::ExpireImport, Some(session.expires), None);
        Ok(())
    }

    pub(crate) async fn plan_import_expiry(
        &self,
        draft: &mut Draft,
        at: Elapsed,
    ) -> Result<(), Error> {
        let session = self.read_import(draft).await?;
        if let Some((_, revision)) = session.filter(|(session, _)| session.expires == at) {
            draft.write(RecordPath::import(draft.key.id), Expected::At(revision), None);
        }
        draft.move_due(DueWhat::ExpireImport, Some(at), None);
        Ok(())
    }

    /// Forgets the import parameters of a key that is destroyed.
    pub(crate) async fn drop_import(&self, draft: &mut Draft) -> Result<(), Error> {
        if let Some((session, revision)) = self.read_import(draft).await? {
            draft.write(RecordPath::import(draft.key.id), Expected::At(revision), None);
            draft.move_due(DueWhat::ExpireImport, Some(session.expires), None);
        }
        Ok(())
    }

    async fn read_import(&self, draft: &Draft) -> Result<Option<(ImportSession, Revision)>, Error> {
        let Some(stored) = self.store.get(&RecordPath::import(draft.key.id)).await? else {
            return Ok(None);
        };
        let Record::Import(session) = stored.record else {
            return Err(corrupt(stored.path));
        };
        Ok(Some((session, stored.revision)))
    }
}

/// Whether material may be imported into a key.
fn check_importable(key: &Key) -> Result<(), Error> {
    if key.origin != Origin::Imported {
        let problem = "its material is generated; create a key with origin imported";
        return Err(Error::invalid("key", problem));
    }
    let phase = key.phase();
    phase.after(KeyEvent::ImportMaterial).map(|_| ()).map_err(Error::refused(phase.state))
}

impl From<ImportError> for Error {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Unwrap => {
                Self::invalid("wrapped_material", "it does not unwrap with these parameters")
            }
            ImportError::Material(_) => {
                Self::invalid("wrapped_material", "what it holds is not material of the key's spec")
            }
            ImportError::TooLong => Self::invalid(
                "wrapped_material",
                "too long for this algorithm; use RSA_AES_KEY_WRAP_SHA_256",
            ),
            ImportError::Entropy | ImportError::Failed => Self::Internal(error.into()),
        }
    }
}
