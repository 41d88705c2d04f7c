//! What an unsealed server holds of its hierarchy, so that seals and keys can be changed without
//! their holders.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Changes".
//! Holds     every change of the seals draws a new root key, which lives until it is wrapped. The
//!           next bootstrap record is whole before anything is written, is written at once, and
//!           has a seal.

use std::sync::Arc;

use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{Cause, EntropySource, StoreError};
use lastkey_core::seal_record::{Bootstrap, KeyringEntry, RootWrap, SealRecord};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretArray;

use crate::engine::Engine;
use crate::error::Error;
use crate::root::{KeyringKeys, RootKey, SealHalves, SharedKeys, draw_secret};
use crate::seal_authority::{CHANGED, SealAuthority};
use crate::seals::{NOTHING_SHARED, SealDraft};

/// What is changed.
#[derive(Clone, Debug)]
pub(crate) enum SealChange {
    /// One more seal.
    Add(SealDraft),
    /// A seal takes the place of one.
    Replace([u8; 16], SealDraft),
    /// A seal goes, and what is written from now on is under keys that it never had.
    Remove([u8; 16]),
    /// A new root key for the same seals.
    RotateRoot,
    /// A new secret for records and material as well.
    RotateKeyring,
    /// No record is under an older epoch than this any more.
    Renewed(u32),
}

impl SealChange {
    const fn adds_epoch(&self) -> bool {
        match self {
            Self::Remove(_) | Self::RotateKeyring => true,
            Self::Add(_) | Self::Replace(..) | Self::RotateRoot | Self::Renewed(_) => false,
        }
    }

    /// The seal that must be there.
    const fn of_seal(&self) -> Option<[u8; 16]> {
        match self {
            Self::Remove(id) | Self::Replace(id, _) => Some(*id),
            Self::Add(_) | Self::RotateRoot | Self::RotateKeyring | Self::Renewed(_) => None,
        }
    }
}

/// The secrets of the keyring by epoch, and what authenticates the seals.
pub(crate) struct Custody {
    /// More than one after a write whose outcome is not known.
    authorities: Vec<SealAuthority>,
    /// What the seals share with the server; also of seals that may be there after such a write.
    shared: SharedKeys,
    secrets: Vec<(u32, SecretArray<32>)>,
}

impl Custody {
    /// Takes over what the root key opened.
    ///
    /// # Errors
    /// A cause when an entry of the keyring does not open.
    pub(crate) fn of(root: &RootKey, bootstrap: &Bootstrap) -> Result<Self, Cause> {
        let authorities = vec![SealAuthority::of(root)?];
        let (shared, secrets) = (root.open_shared(bootstrap)?, root.open_secrets(bootstrap)?);
        Ok(Self { authorities, shared, secrets })
    }

    /// The secrets of the keyring, by epoch.
    pub(crate) fn secrets(&self) -> &[(u32, SecretArray<32>)] {
        &self.secrets
    }

    /// What the seals share with the server.
    pub(crate) const fn shared(&self) -> &SharedKeys {
        &self.shared
    }

    /// Whether the seals are those that the root key authenticated.
    pub(crate) fn has_written(&self, bootstrap: &Bootstrap) -> bool {
        self.authorities.iter().any(|authority| authority.has_written(bootstrap))
    }

    /// Whether a root key is the one of this record.
    pub(crate) fn is_root_of(root: &RootKey, bootstrap: &Bootstrap) -> bool {
        SealAuthority::of(root).is_ok_and(|authority| authority.has_written(bootstrap))
    }

    /// The record after a change, under a new root key, and what is held then.
    ///
    /// # Errors
    /// A cause when no randomness can be had, or no seal would be left.
    pub(crate) fn plan(
        &self,
        before: &Bootstrap,
        change: &SealChange,
        now: Timestamp,
        source: &dyn EntropySource,
    ) -> Result<(Bootstrap, Self), Cause> {
        let mut entropy = source.open();
        let root = RootKey::of(draw_secret(&mut *entropy)?);
        let secrets = self.next_secrets(change, &mut *entropy)?;
        let keyring = wrap_secrets(&root, before, &secrets, now, &mut *entropy)?;
        let seals = self.next_seals(&root, before, change, now, &mut *entropy)?;
        if seals.is_empty() {
            return Err("no seal would be left".into());
        }
        let records_from = match change {
            SealChange::Renewed(epoch) => before.records_from.max(*epoch),
            SealChange::Add(_)
            | SealChange::Remove(_)
            | SealChange::Replace(..)
            | SealChange::RotateRoot
            | SealChange::RotateKeyring => before.records_from,
        };
        let after = Bootstrap {
            instance: before.instance.clone(),
            keyring,
            records_from,
            seals,
            authentication: None,
        };
        let authority = SealAuthority::of(&root)?;
        let authentication = Some(authority.authenticate(&after)?);
        let held = Self { authorities: vec![authority], shared: self.next_shared(change), secrets };
        Ok((Bootstrap { authentication, ..after }, held))
    }

    /// After a write of which nobody knows whether it happened: both records are believed until
    /// the next change.
    pub(crate) fn remember(&mut self, other: Self) {
        self.authorities.extend(other.authorities);
        self.shared.extend(other.shared);
    }

    fn next_shared(&self, change: &SealChange) -> SharedKeys {
        let mut shared = self.shared.clone();
        if let SealChange::Remove(id) | SealChange::Replace(id, _) = change {
            shared.remove(id);
        }
        if let SealChange::Add(draft) | SealChange::Replace(_, draft) = change {
            shared.insert(draft.id, Arc::clone(&draft.shared));
        }
        shared
    }

    fn next_seals(
        &self,
        root: &RootKey,
        before: &Bootstrap,
        change: &SealChange,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<SealRecord>, Cause> {
        let instance = before.instance.id;
        let mut seals = Vec::with_capacity(before.seals.len().saturating_add(1));
        for seal in &before.seals {
            match change {
                SealChange::Remove(id) if *id == seal.id => {}
                SealChange::Replace(id, draft) if *id == seal.id => {
                    seals.push(draft.clone().receive(instance, root, now, entropy)?);
                }
                SealChange::Add(_)
                | SealChange::Remove(_)
                | SealChange::Replace(..)
                | SealChange::RotateRoot
                | SealChange::RotateKeyring
                | SealChange::Renewed(_) => {
                    seals.push(self.rewrap(root, instance, seal, entropy)?);
                }
            }
        }
        if let SealChange::Add(draft) = change {
            seals.push(draft.clone().receive(instance, root, now, entropy)?);
        }
        Ok(seals)
    }

    /// The same seal with another root key in it.
    fn rewrap(
        &self,
        root: &RootKey,
        instance: InstanceId,
        seal: &SealRecord,
        entropy: &mut dyn Entropy,
    ) -> Result<SealRecord, Cause> {
        let RootWrap::Keyed { public, wrapped_seed, .. } = &seal.root else {
            return Err("a seal of version 1 cannot receive a new root key".into());
        };
        let shared = self.shared.get(&seal.id).ok_or(NOTHING_SHARED)?;
        let root = root.wrap_for(
            instance,
            &seal.id,
            SealHalves { public, wrapped_seed, shared },
            entropy,
        )?;
        Ok(SealRecord { root, ..seal.clone() })
    }

    fn next_secrets(
        &self,
        change: &SealChange,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<(u32, SecretArray<32>)>, Cause> {
        let copy = |(epoch, secret): &(u32, SecretArray<32>)| {
            (*epoch, secret.expose(SecretArray::copy_of))
        };
        let mut secrets: Vec<_> = self.secrets.iter().map(copy).collect();
        if change.adds_epoch() {
            let newest = secrets.last().map_or(0, |(epoch, _)| *epoch);
            let next = newest.checked_add(1).ok_or("the epochs of the keyring are used up")?;
            secrets.push((next, draw_secret(entropy)?));
        }
        Ok(secrets)
    }
}

fn wrap_secrets(
    root: &RootKey,
    before: &Bootstrap,
    secrets: &[(u32, SecretArray<32>)],
    now: Timestamp,
    entropy: &mut dyn Entropy,
) -> Result<Vec<KeyringEntry>, Cause> {
    let mut keyring = Vec::with_capacity(secrets.len());
    for (epoch, secret) in secrets {
        let known = before.keyring.iter().find(|entry| entry.epoch == *epoch);
        let created_at = known.map_or(now, |entry| entry.created_at);
        keyring.push(root.wrap_entry(before.instance.id, *epoch, secret, created_at, entropy)?);
    }
    Ok(keyring)
}

impl Engine {
    /// Writes a change and takes up what it brings.
    pub(crate) async fn apply_change(&self, change: &SealChange) -> Result<Bootstrap, Error> {
        let mut custody = self.custody.lock().await;
        let before = self.stored_bootstrap().await?;
        if !custody.has_written(&before) {
            return Err(Error::SealRefused(CHANGED.into()));
        }
        if change.of_seal().is_some_and(|id| before.seals.iter().all(|seal| seal.id != id)) {
            return Err(Error::Conflict);
        }
        let now = self.clock.wall();
        let planned = custody.plan(&before, change, now, &*self.ports.entropy);
        let (after, held) = planned.map_err(Error::Internal)?;
        let keys = KeyringKeys::derive(before.instance.id, held.secrets());
        let keys = keys.map_err(Error::Internal)?;
        match self.sealed_store.replace_bootstrap(&before, &after).await {
            Ok(()) => {}
            Err(error @ (StoreError::Conflict | StoreError::Full)) => return Err(error.into()),
            // Whether it was written is not known until it is read.
            Err(error) if self.stored_bootstrap().await.ok().as_ref() != Some(&after) => {
                custody.remember(held);
                return Err(error.into());
            }
            Err(_) => {}
        }
        let grew = held.secrets().len() > custody.secrets().len();
        *custody = held;
        if grew {
            self.store.adopt(&keys.records)?;
            self.keyring.materials.adopt(keys.materials);
            self.epoch_began.notify_one();
        }
        Ok(after)
    }

    /// What lies outside the root key.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn stored_bootstrap(&self) -> Result<Bootstrap, Error> {
        let stored = self.sealed_store.bootstrap().await?;
        stored.ok_or_else(|| Error::Internal("the bootstrap record is gone".into()))
    }
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;

    use super::*;
    use crate::root::found;
    use crate::seals::NewSeal;

    struct RealEntropy;

    impl EntropySource for RealEntropy {
        fn open(&self) -> Box<dyn Entropy + Send> {
            Box::new(SystemEntropy)
        }
    }

    #[test]
    fn records_are_renewed_up_to_the_epoch_that_was_looked_for() {
        let (seal, now) = (NewSeal::Keyfile(SecretArray::copy_of(&[9; 32])), Timestamp(1));
        let (mut bootstrap, _) = found(&seal, now, &RealEntropy).unwrap();
        let presented = lastkey_secret::SecretVec::copy_of(&[9; 32]);
        let open = crate::seals::open_any(&bootstrap, &presented).unwrap();
        let mut custody = Custody::of(open.root(), &bootstrap).unwrap();
        for _ in 0..2 {
            let rotate = SealChange::RotateKeyring;
            (bootstrap, custody) = custody.plan(&bootstrap, &rotate, now, &RealEntropy).unwrap();
        }
        for (epoch, records_from) in [(2, 2), (1, 2), (3, 3)] {
            let renewed = SealChange::Renewed(epoch);
            (bootstrap, custody) = custody.plan(&bootstrap, &renewed, now, &RealEntropy).unwrap();
            assert_eq!(bootstrap.records_from, records_from, "{epoch}");
        }
    }

    #[test]
    fn a_change_that_leaves_no_seal_is_not_planned() {
        let (seal, now) = (NewSeal::Keyfile(SecretArray::copy_of(&[9; 32])), Timestamp(1));
        let (bootstrap, _) = found(&seal, now, &RealEntropy).unwrap();
        let presented = lastkey_secret::SecretVec::copy_of(&[9; 32]);
        let open = crate::seals::open_any(&bootstrap, &presented).unwrap();
        let custody = Custody::of(open.root(), &bootstrap).unwrap();
        let plan = |change| custody.plan(&bootstrap, &change, now, &RealEntropy);
        assert!(plan(SealChange::Remove(bootstrap.seals[0].id)).is_err());
        assert!(plan(SealChange::RotateRoot).is_ok());
    }
}
