//! Shares that holders have brought, until there are enough of them.
//!
//! Room      `service`.
//! Holds     a share that is not the one that its seal expects is refused when it comes, so that
//!           enough shares always open. Shares are forgotten when the seal has opened and its
//!           server has started, and after an hour.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastkey_core::seal_record::{Bootstrap, SealKind, ShareHolder};
use lastkey_crypto::share::{Share, is_proof};
use lastkey_secret::SecretVec;

use crate::error::Error;
use crate::seals::{DoesNotOpen, OpenSeal, open_by_shares};

/// How long shares wait for the others, in seconds.
const PATIENCE_SECS: u64 = 3_600;

/// How many shares of a seal are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The seal.
    pub seal: [u8; 16],
    /// Shares that have been brought.
    pub have: u8,
    /// Shares that open it.
    pub need: u8,
}

/// The shares of each seal, by number.
#[derive(Default)]
pub(crate) struct Gathering {
    by_seal: Mutex<BTreeMap<[u8; 16], Waiting>>,
}

struct Waiting {
    first_at: u64,
    shares: BTreeMap<u8, Share>,
}

impl Gathering {
    /// Adds a share; answers how many there are, and its number. Where there are enough already
    /// and the server did not start, any of them is as good as a new one: it is tried again.
    ///
    /// # Errors
    /// [`Error::SealRefused`] for one that is there, or [`Error::Invalid`] for one that does not
    /// belong here.
    pub(crate) fn add(
        &self,
        bootstrap: &Bootstrap,
        text: &SecretVec,
        since_boot: u64,
    ) -> Result<(Gathered, u8), Error> {
        let share =
            Share::parse(text).map_err(|error| Error::invalid("share", error.to_string()))?;
        let holder = holder_of(bootstrap, &share)?;
        let proof = share.proof().map_err(|error| Error::Internal(error.into()))?;
        if !is_proof(&proof, &holder.check_value) {
            return Err(Error::invalid("share", WRONG));
        }
        let (seal, number, need) = (share.place().seal, share.index(), share.place().threshold);
        let mut by_seal = self.lock(since_boot);
        let waiting = by_seal
            .entry(seal)
            .or_insert_with(|| Waiting { first_at: since_boot, shares: BTreeMap::new() });
        let is_enough = waiting.shares.len() >= usize::from(need);
        if !is_enough && waiting.shares.contains_key(&number) {
            let have = waiting.shares.len();
            let problem = format!(
                "share {number} is here already ({have} of {need}); the next must come from another holder"
            );
            return Err(Error::SealRefused(problem.into()));
        }
        if !is_enough {
            waiting.shares.insert(number, share);
        }
        let have = u8::try_from(waiting.shares.len()).unwrap_or(u8::MAX);
        Ok((Gathered { seal, have, need }, number))
    }

    /// Opens a seal of which there are enough shares. Those that open nothing are forgotten.
    ///
    /// # Errors
    /// [`DoesNotOpen`].
    pub(crate) fn open(
        &self,
        bootstrap: &Bootstrap,
        seal: &[u8; 16],
        since_boot: u64,
    ) -> Result<OpenSeal, DoesNotOpen> {
        let mut by_seal = self.lock(since_boot);
        let waiting = by_seal.get(seal).ok_or(DoesNotOpen)?;
        let opened = open_by_shares(bootstrap, waiting.shares.values());
        if opened.is_err() {
            by_seal.remove(seal);
        }
        opened
    }

    /// How many there are of each seal.
    pub(crate) fn state(&self, since_boot: u64) -> Vec<([u8; 16], usize)> {
        self.lock(since_boot).iter().map(|(seal, waiting)| (*seal, waiting.shares.len())).collect()
    }

    /// Forgets them all.
    pub(crate) fn forget(&self) {
        drop(self.lock(u64::MAX));
    }

    /// Without those that have waited too long.
    fn lock(&self, since_boot: u64) -> MutexGuard<'_, BTreeMap<[u8; 16], Waiting>> {
        let mut by_seal = self.by_seal.lock().unwrap_or_else(PoisonError::into_inner);
        by_seal.retain(|_, waiting| since_boot.saturating_sub(waiting.first_at) < PATIENCE_SECS);
        by_seal
    }
}

/// The holder that a share was made for.
pub(crate) fn holder_of<'a>(
    bootstrap: &'a Bootstrap,
    share: &Share,
) -> Result<&'a ShareHolder, Error> {
    let place = share.place();
    if place.instance != bootstrap.instance.id.0 {
        return Err(Error::invalid(
            "share",
            "it belongs to another installation; ask its holder for the share of this one",
        ));
    }
    let seal = bootstrap.seals.iter().find(|seal| seal.id == place.seal);
    let Some(SealKind::Shamir { threshold, holders }) = seal.map(|seal| &seal.kind) else {
        return Err(Error::invalid(
            "share",
            "its seal was removed or made anew; ask for the share that came with the new one",
        ));
    };
    if *threshold != place.threshold || holders.len() != usize::from(place.shares) {
        return Err(Error::invalid("share", WRONG));
    }
    let place = usize::from(share.index()).saturating_sub(1);
    holders.get(place).ok_or_else(|| Error::invalid("share", WRONG))
}

const WRONG: &str = "it is not the share that was made for this seal; look for the original, or let another holder bring his";
