//! Use cases: which seals there are, add, change and remove them, new root and storage keys.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Changes"; docs/operations/recovery.md.
//! Holds     a change is one durable write: before it the old seals open, after it the new ones.
//!           Nothing is wrapped to a seal that the root key has not authenticated. The last seal
//!           that is known to open stays.

use std::sync::Arc;

use lastkey_core::ids::RequestId;
use lastkey_core::permit::{ReadSeals, Resource, UpdateSeals};
use lastkey_core::ports::{DeviceKind, DeviceSettings};
use lastkey_core::seal_record::{
    AcceptedWeakness, Bootstrap, SealBook, SealKind, SealProof, SealRecord,
};
use lastkey_core::time::Timestamp;
use lastkey_crypto::kdf::Argon2Params;
use lastkey_secret::{SecretArray, SecretVec};

use crate::audited::Trail;
use crate::call::Call;
use crate::custody::{Custody, SealChange};
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::backups::NewestBackup;
use crate::root::draw_id;
use crate::seal_authority::CHANGED;
use crate::sealing::{Gate, detached};
use crate::seals::{
    NewSeal, OpenSeal, Opener, SealDraft, SealSeed, WrappedForSeal, open, open_by_device,
    wrap_for_all,
};
use crate::unsealing::is_of_a_device;
use crate::weakness::{Weakness, weaknesses};

/// Most seals of an installation.
const MAX_SEALS: usize = 16;

/// How long a proof counts, in seconds: 90 days.
const PROOF_SECS: u64 = 90 * 86_400;

/// What is known of a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It opened the root key, not long ago.
    Proven(Timestamp),
    /// It opened the root key, but long ago.
    Stale(Timestamp),
    /// It was never seen to open; its holder must take part.
    HolderNeeded,
    /// It does not open. Says why.
    Failed(String),
}

impl Health {
    /// What the book says of a seal.
    pub(crate) fn known(proof: Option<&SealProof>, now: Timestamp) -> Self {
        match proof.and_then(|proof| proof.opened_at) {
            Some(at) if now.0.saturating_sub(at.0) <= PROOF_SECS => Self::Proven(at),
            Some(at) => Self::Stale(at),
            None => Self::HolderNeeded,
        }
    }

    /// The word in answers.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Proven(_) => "proven",
            Self::Stale(_) => "stale",
            Self::HolderNeeded => "holder-needed",
            Self::Failed(_) => "failed",
        }
    }
}

/// A seal, with what is known of it.
#[derive(Clone, Debug)]
pub struct SealReport {
    /// Its id.
    pub id: RequestId,
    /// What opens it.
    pub kind: SealKind,
    /// When it was made.
    pub created_at: Timestamp,
    /// What is known of it.
    pub health: Health,
    /// When the holders of its shares last showed them, by number.
    pub shares: Vec<(u8, Timestamp)>,
}

/// All seals.
#[derive(Clone, Debug)]
pub struct SealsReport {
    /// The seals.
    pub seals: Vec<SealReport>,
    /// Why one loss would be fatal.
    pub weaknesses: Vec<Weakness>,
    /// Who accepted that, if anybody has accepted all of it.
    pub accepted: Option<AcceptedWeakness>,
    /// The newest epoch of the keyring.
    pub epoch: u32,
    /// No record is under an older epoch than this.
    pub records_from: u32,
}

/// A seal that is wanted.
#[derive(Debug)]
pub enum WantedSeal {
    /// A passphrase.
    Passphrase {
        /// The passphrase, 12 to 4,096 bytes.
        passphrase: SecretVec,
        /// What a guess costs.
        costs: Argon2Params,
    },
    /// Shares, which the caller has made and handed out.
    Shamir(SealDraft),
    /// A device that this server reaches.
    Device {
        /// What it is.
        kind: DeviceKind,
        /// Where it is.
        settings: DeviceSettings,
    },
}

/// What is to be done to the seals.
#[derive(Debug)]
pub enum SealRequest {
    /// One more.
    Add(WantedSeal),
    /// Another in the place of one.
    Replace([u8; 16], WantedSeal),
    /// One less.
    Remove([u8; 16]),
    /// A new root key.
    RotateRoot,
    /// A new root key, and a new secret for records and material.
    RotateKeyring,
    /// The configuration stays as it is, although one loss would be fatal.
    AcceptWeakness,
}

/// What opens the new seal once more, to prove that it does.
enum Proof {
    Passphrase(SecretVec),
    Device,
    Nothing,
}

impl Gate {
    /// The seals and what is known of them.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn list_seals(&self, call: &Call) -> Result<SealsReport, Error> {
        let engine = self.engine()?;
        let mut trail = Trail::of::<ReadSeals>(&engine, call);
        let outcome = self.try_list_seals(&engine, &mut trail).await;
        trail.close(&engine, outcome).await
    }

    async fn try_list_seals(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
    ) -> Result<SealsReport, Error> {
        engine.permit::<ReadSeals>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let bootstrap = engine.stored_bootstrap().await?;
        Ok(report(&bootstrap, &engine.seal_book.read().await, engine.clock.wall()))
    }

    /// Changes the seals or the keys under them. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::SealRefused`] says why not and what to do instead; [`Error::Invalid`],
    /// [`Error::Sealed`], [`Error::Denied`], [`Error::Conflict`], [`Error::LimitExceeded`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn change_seals(
        self: &Arc<Self>,
        call: &Call,
        request: SealRequest,
    ) -> Result<SealsReport, Error> {
        let (gate, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let engine = gate.engine()?;
            let mut trail = Trail::of::<UpdateSeals>(&engine, &call);
            trail.target = target(&request);
            let outcome = gate.try_change_seals(&engine, &mut trail, request).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_change_seals(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
        request: SealRequest,
    ) -> Result<SealsReport, Error> {
        engine.permit::<UpdateSeals>(trail, Resource::Instance)?;
        if matches!(request, SealRequest::AcceptWeakness) {
            trail.call().go_on()?;
            trail.intend(engine).await?;
            return self.accept(engine, trail).await;
        }
        // INVARIANT: what a change was checked against holds until it is made.
        let _changing = engine.seal_changes.lock().await;
        let bootstrap = engine.stored_bootstrap().await?;
        check_change(&bootstrap, &engine.seal_book.read().await, &request)?;
        trail.call().go_on()?;
        trail.intend(engine).await?;
        let (change, proof) = self.draft(&bootstrap, request).await?;
        let after = engine.apply_change(&change).await?;
        forget_gone(engine, &after).await;
        if let SealChange::Add(draft) | SealChange::Replace(_, draft) = &change {
            self.prove(engine, &after, draft.id, proof).await?;
        }
        Ok(report(&after, &engine.seal_book.read().await, engine.clock.wall()))
    }

    /// Makes the seal that is wanted.
    async fn draft(
        &self,
        bootstrap: &Bootstrap,
        request: SealRequest,
    ) -> Result<(SealChange, Proof), Error> {
        Ok(match request {
            SealRequest::Add(wanted) => {
                let (draft, proof) = self.draft_seal(bootstrap, wanted).await?;
                (SealChange::Add(draft), proof)
            }
            SealRequest::Replace(id, wanted) => {
                let (draft, proof) = self.draft_seal(bootstrap, wanted).await?;
                (SealChange::Replace(id, draft), proof)
            }
            SealRequest::Remove(id) => (SealChange::Remove(id), Proof::Nothing),
            SealRequest::RotateRoot => (SealChange::RotateRoot, Proof::Nothing),
            SealRequest::RotateKeyring => (SealChange::RotateKeyring, Proof::Nothing),
            SealRequest::AcceptWeakness => {
                return Err(Error::Internal("what is accepted changes no seal".into()));
            }
        })
    }

    async fn draft_seal(
        &self,
        bootstrap: &Bootstrap,
        wanted: WantedSeal,
    ) -> Result<(SealDraft, Proof), Error> {
        let instance = bootstrap.instance.id;
        match wanted {
            WantedSeal::Shamir(draft) => Ok((draft, Proof::Nothing)),
            WantedSeal::Passphrase { passphrase, costs } => {
                let source = Arc::clone(&self.ports.entropy);
                let made = tokio::task::spawn_blocking(move || {
                    let seal = NewSeal::Passphrase { passphrase, costs };
                    let draft = SealDraft::of(instance, &seal, &mut *source.open())?;
                    let NewSeal::Passphrase { passphrase, .. } = seal else {
                        return Ok((draft, Proof::Nothing));
                    };
                    // It may take the place of the only seal that opens.
                    draft.check_opens(instance, &Opener::Bytes(&passphrase))?;
                    Ok((draft, Proof::Passphrase(passphrase)))
                });
                let made = made.await.map_err(|error| Error::Internal(error.into()))?;
                made.map_err(Error::Internal)
            }
            WantedSeal::Device { kind, settings } => {
                let device = self.devices.open(kind, &settings).await?;
                let (id, seed) = self.draw_seed()?;
                let draft = SealDraft::on_device(instance, id, &*device, settings, seed).await?;
                Ok((draft, Proof::Device))
            }
        }
    }

    fn draw_seed(&self) -> Result<([u8; 16], SealSeed), Error> {
        let mut entropy = self.ports.entropy.open();
        let id = draw_id(&mut *entropy).map_err(|error| Error::Internal(error.into()))?;
        Ok((id, SealSeed::draw(&mut *entropy).map_err(Error::Internal)?))
    }

    /// Opens a new seal once, so that nobody relies on one that was never seen to open.
    async fn prove(
        &self,
        engine: &Engine,
        bootstrap: &Bootstrap,
        id: [u8; 16],
        proof: Proof,
    ) -> Result<(), Error> {
        let presented = match proof {
            Proof::Nothing => return Ok(()),
            Proof::Passphrase(passphrase) => Some(Arc::new(passphrase)),
            Proof::Device => None,
        };
        let opened = match bootstrap.seals.iter().find(|seal| seal.id == id) {
            Some(seal) => {
                self.try_seal_now(engine, bootstrap, seal, presented.as_ref(), None).await
            }
            None => None,
        };
        let problem = match opened {
            Some(Ok(())) => return self.note_opened(engine, id).await,
            Some(Err(problem)) => {
                format!("the new seal does not open ({problem}); remove it again")
            }
            None => "the new seal does not open; remove it again".to_owned(),
        };
        Err(Error::SealRefused(problem.into()))
    }

    pub(crate) async fn note_opened(&self, engine: &Engine, id: [u8; 16]) -> Result<(), Error> {
        let now = engine.clock.wall();
        Ok(engine.seal_book.change(&*engine.store, |book| book.opened(id, now)).await?)
    }

    /// Opens a seal by its device or what was presented; `None` when its holder is not here.
    pub(crate) async fn try_seal_now(
        &self,
        engine: &Engine,
        bootstrap: &Bootstrap,
        seal: &SealRecord,
        presented: Option<&Arc<SecretVec>>,
        newest: Option<&NewestBackup>,
    ) -> Option<Result<(), String>> {
        let instance = bootstrap.instance.id;
        let open: Result<OpenSeal, String> = if is_of_a_device(seal) {
            let opened = open_by_device(instance, seal, &*self.devices).await;
            self.device_problem(seal.id, opened.as_ref().err());
            opened.map_err(|error| error.to_string())
        } else {
            let (seal, presented) = (seal.clone(), Arc::clone(presented?));
            let turn = engine.stretching.acquire().await.ok()?;
            let opened = tokio::task::spawn_blocking(move || {
                open(instance, &seal, &Opener::Bytes(&presented))
            });
            let opened = opened.await;
            drop(turn);
            // What was presented may be for another seal, so this is no failure of this one.
            Ok(opened.ok()?.ok()?)
        };
        let open = match open {
            Ok(open) => open,
            Err(problem) => return Some(Err(problem)),
        };
        if !Custody::is_root_of(open.root(), bootstrap) {
            return Some(Err("it opens, but not to the root key of this installation".to_owned()));
        }
        match newest {
            None => Some(Ok(())),
            Some(newest) => Some(self.opens_backup(&open, newest).await),
        }
    }

    async fn accept(&self, engine: &Engine, trail: &Trail<'_>) -> Result<SealsReport, Error> {
        let bootstrap = engine.stored_bootstrap().await?;
        let found = weaknesses(&bootstrap.seals);
        let accepted = (!found.is_empty()).then(|| AcceptedWeakness {
            by: trail.call().caller.principal.name().to_owned(),
            at: trail.at(),
            weaknesses: found.iter().map(|weakness| weakness.as_str().to_owned()).collect(),
        });
        for weakness in found {
            tracing::warn!(weakness = weakness.as_str(), "accepted: one loss is fatal");
        }
        engine.seal_book.change(&*engine.store, |book| book.accepted = accepted).await?;
        Ok(report(&bootstrap, &engine.seal_book.read().await, engine.clock.wall()))
    }

    /// Wraps 32 bytes so that every seal can open them, with the bootstrap record that the seals
    /// are of. [`OpenSeal::unwrap`] recovers them.
    ///
    /// # Errors
    /// [`Error::Sealed`]; [`Error::SealRefused`] when the seals were tampered with;
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn wrap_for_seals(
        &self,
        purpose: &str,
        aad: &[u8],
        secret: &SecretArray<32>,
    ) -> Result<(Bootstrap, Vec<WrappedForSeal>), Error> {
        let engine = self.engine()?;
        let custody = engine.custody.lock().await;
        let bootstrap = engine.stored_bootstrap().await?;
        if !custody.has_written(&bootstrap) {
            return Err(Error::SealRefused(CHANGED.into()));
        }
        let mut entropy = self.ports.entropy.open();
        let shared = custody.shared();
        let wrapped = wrap_for_all(&bootstrap, shared, purpose, aad, secret, &mut *entropy);
        Ok((bootstrap, wrapped.map_err(Error::Internal)?))
    }
}

/// What a request is about, for the audit log.
fn target(request: &SealRequest) -> Option<String> {
    let seal = |id: &[u8; 16]| format!("seal/{}", RequestId(*id));
    Some(match request {
        SealRequest::Add(WantedSeal::Passphrase { .. }) => "add/passphrase".to_owned(),
        SealRequest::Add(WantedSeal::Shamir(_)) => "add/shamir".to_owned(),
        SealRequest::Add(WantedSeal::Device { kind, .. }) => format!("add/{}", kind.as_str()),
        SealRequest::Replace(id, _) => format!("replace/{}", seal(id)),
        SealRequest::Remove(id) => format!("remove/{}", seal(id)),
        SealRequest::RotateRoot => "rotate/root".to_owned(),
        SealRequest::RotateKeyring => "rotate/keyring".to_owned(),
        SealRequest::AcceptWeakness => "accept-weakness".to_owned(),
    })
}

/// Whether a change may be made.
fn check_change(
    bootstrap: &Bootstrap,
    book: &SealBook,
    request: &SealRequest,
) -> Result<(), Error> {
    let is_there = |id: &[u8; 16]| {
        let found = bootstrap.seals.iter().any(|seal| seal.id == *id);
        if found { Ok(()) } else { Err(Error::invalid("seal", "there is no seal of this id")) }
    };
    match request {
        SealRequest::Add(wanted) => {
            check_wanted(bootstrap, book, wanted)?;
            if bootstrap.seals.len() >= MAX_SEALS {
                return Err(Error::LimitExceeded("an installation has at most 16 seals"));
            }
            Ok(())
        }
        SealRequest::Replace(id, wanted) => {
            is_there(id)?;
            check_wanted(bootstrap, book, wanted)?;
            match wanted {
                // It is seen to open before it takes the place.
                WantedSeal::Passphrase { .. } => Ok(()),
                WantedSeal::Shamir(_) | WantedSeal::Device { .. } => {
                    check_another_is_proven(bootstrap, book, id)
                }
            }
        }
        SealRequest::Remove(id) => {
            is_there(id)?;
            check_another_is_proven(bootstrap, book, id)
        }
        SealRequest::RotateRoot | SealRequest::RotateKeyring | SealRequest::AcceptWeakness => {
            Ok(())
        }
    }
}

const LAST_PROVEN: &str = "no seal would be left that was ever seen to open; prove another one first: `lastkey seal drill`, or let its holders bring their shares by `lastkey unseal --share`";

/// Whether another seal than this one was seen to open.
fn check_another_is_proven(
    bootstrap: &Bootstrap,
    book: &SealBook,
    id: &[u8; 16],
) -> Result<(), Error> {
    let opened =
        |seal: &SealRecord| book.proof(&seal.id).is_some_and(|proof| proof.opened_at.is_some());
    if bootstrap.seals.iter().any(|seal| seal.id != *id && opened(seal)) {
        return Ok(());
    }
    Err(Error::SealRefused(LAST_PROVEN.into()))
}

/// Forgets what is known of seals that are gone, so that nothing else passes for them.
async fn forget_gone(engine: &Engine, bootstrap: &Bootstrap) {
    let is_there = |id: &[u8; 16]| bootstrap.seals.iter().any(|seal| seal.id == *id);
    let forget = |book: &mut SealBook| book.proofs.retain(|proof| is_there(&proof.seal));
    if let Err(error) = engine.seal_book.change(&*engine.store, forget).await {
        tracing::warn!(%error, "what was known of a seal that is gone could not be forgotten");
    }
}

fn check_wanted(bootstrap: &Bootstrap, book: &SealBook, wanted: &WantedSeal) -> Result<(), Error> {
    match wanted {
        WantedSeal::Passphrase { passphrase, .. } if !(12..=4_096).contains(&passphrase.len()) => {
            Err(Error::invalid("passphrase", "expected 12 to 4096 bytes"))
        }
        // The caller has drawn its id; with that of another seal it would inherit its proof.
        WantedSeal::Shamir(draft)
            if book.proof(&draft.id).is_some()
                || bootstrap.seals.iter().any(|seal| seal.id == draft.id) =>
        {
            Err(Error::invalid("id", "a seal has this id, or had it; make the shares anew"))
        }
        WantedSeal::Passphrase { .. } | WantedSeal::Shamir(_) | WantedSeal::Device { .. } => Ok(()),
    }
}

pub(crate) fn report(bootstrap: &Bootstrap, book: &SealBook, now: Timestamp) -> SealsReport {
    let weaknesses = weaknesses(&bootstrap.seals);
    let accepts = |accepted: &&AcceptedWeakness| {
        weaknesses.iter().all(|w| accepted.weaknesses.iter().any(|a| a == w.as_str()))
    };
    let accepted = book.accepted.as_ref().filter(accepts).filter(|_| !weaknesses.is_empty());
    let seal = |seal: &SealRecord| {
        let proof = book.proof(&seal.id);
        SealReport {
            id: RequestId(seal.id),
            kind: seal.kind.clone(),
            created_at: seal.created_at,
            health: Health::known(proof, now),
            shares: proof.map(|proof| proof.shares.clone()).unwrap_or_default(),
        }
    };
    SealsReport {
        seals: bootstrap.seals.iter().map(seal).collect(),
        accepted: accepted.cloned(),
        weaknesses,
        epoch: bootstrap.keyring.last().map_or(0, |entry| entry.epoch),
        records_from: bootstrap.records_from,
    }
}
