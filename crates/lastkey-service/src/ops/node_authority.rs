//! Use case: another authority of nodes takes the place of the one that there is.
//!
//! Room      `service`. What an authority signs is the business of `trust`, for whom that of
//!           `ops::nodes`.
//! Source    `docs/identity.md`, "The authority of nodes".
//! Holds     what the authority before has signed is good until it ends. Only one is kept, so no
//!           third takes the place of the second while that still counts: nodes would be cut off.

use std::sync::Arc;

use lastkey_core::access::NodeAuthority;
use lastkey_core::permit::{Resource, RotateNodeAuthority};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_crypto::material;
use lastkey_secret::SecretVec;
use lastkey_trust::node_authority::{self, Authority};

use crate::access::read_authority;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::SecretPlace;
use crate::sealing::detached;

impl Engine {
    /// Lets a new authority sign the certificates of nodes from now on. Runs to its end even when
    /// the caller goes away.
    ///
    /// # Errors
    /// [`Error::Invalid`] while certificates of the one before the last are good;
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn rotate_node_authority(
        self: &Arc<Self>,
        call: &Call,
    ) -> Result<Arc<NodeAuthority>, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<RotateNodeAuthority>(&engine, &call);
            let outcome = engine.try_rotate_node_authority(&mut trail).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_rotate_node_authority(
        &self,
        trail: &mut Trail<'_>,
    ) -> Result<Arc<NodeAuthority>, Error> {
        self.permit::<RotateNodeAuthority>(trail, Resource::Instance)?;
        let changing = self.access_changes.lock().await;
        let before = self.nodes.authority();
        if before.as_ref().is_some_and(|before| before.overlaps(trail.at())) {
            let message = "the authority before this one still counts, for a day after it was \
                           replaced: nodes with a certificate of it would be cut off";
            return Err(Error::invalid("authority", message));
        }
        let (_, fresh) = self.make_authority(before.as_deref(), trail.at())?;
        trail.call().go_on()?;
        trail.intend(self).await?;
        let write = self.authority_write(fresh).await?;
        let committed = self.store.commit(vec![write]).await;
        self.reload_authority().await;
        committed?;
        let now = self.nodes.authority();
        drop(changing);
        now.ok_or_else(|| Error::Internal("an authority was written and is not there".into()))
    }

    /// A new authority, which is not written yet, and its private key.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn make_authority(
        &self,
        before: Option<&NodeAuthority>,
        now: Timestamp,
    ) -> Result<(SecretVec, NodeAuthority), Error> {
        let mut entropy = self.ports.entropy.open();
        let key = material::generate(node_authority::KEY_SPEC, &mut *entropy)
            .map_err(|error| Error::Internal(error.into()))?;
        let place = SecretPlace::NodeAuthority;
        let private_key = self.keyring.materials.wrap_secret(place, &key, &mut *entropy);
        let private_key = private_key.map_err(Error::Internal)?;
        let certificate = Authority::open(&key)
            .and_then(|one| one.certificate(self.instance, now, &mut *entropy))
            .map_err(|error| Error::Internal(error.into()))?;
        let previous = before.map(|before| before.certificate.clone());
        Ok((key, NodeAuthority { private_key, certificate, created_at: now, previous }))
    }

    /// The write of an authority in the place of the one that is known here.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another server has made one meanwhile; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn authority_write(&self, authority: NodeAuthority) -> Result<Write, Error> {
        let stored = read_authority(&*self.store).await?;
        // What the other one signed counts there.
        if stored.as_ref().map(|(stored, _)| stored) != self.nodes.authority().as_ref() {
            self.reload_authority().await;
            return Err(Error::Conflict);
        }
        let expected = stored.map_or(Expected::Absent, |(_, revision)| Expected::At(revision));
        let record = Some(Record::NodeAuthority(authority));
        Ok(Write { path: RecordPath::node_authority(), expected, record })
    }
}
