//! Bearers that were opened, kept: to open one costs more than the rest of its admission.
//!
//! Room      `trust`, inside.
//! Holds     what is kept is what an authentic bearer says, which does not change; time, source,
//!           certificate, node and revocations are asked each time. A bearer is found by the hash
//!           of its whole text, so a narrowed one is another, and only while the ring has the very
//!           keys that opened it. There are no more than there are places; a newer one takes the
//!           place of an older one.

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{EpochKeys, Session};

/// Places for bearers.
const PLACES: usize = 4_096;

/// What a bearer says, and what was made of it.
pub(super) struct Kept<T> {
    /// The keys that opened it, which this does not keep alive.
    pub(super) keys: Weak<EpochKeys>,
    pub(super) session: Session,
    pub(super) made: T,
}

type Place<T> = Mutex<Option<([u8; 32], Arc<Kept<T>>)>>;

/// Bearers that were opened. The text of none is in it.
pub struct KeptBearers<T>(Box<[Place<T>]>);

impl<T> Default for KeptBearers<T> {
    fn default() -> Self {
        Self((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl<T> fmt::Debug for KeptBearers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptBearers(..)")
    }
}

impl<T> KeptBearers<T> {
    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<Arc<Kept<T>>> {
        let place = self.place(hash)?.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().filter(|(kept, _)| kept == hash).map(|(_, found)| Arc::clone(found))
    }

    pub(super) fn keep(&self, hash: [u8; 32], kept: Kept<T>) {
        if let Some(place) = self.place(&hash) {
            let kept = Some((hash, Arc::new(kept)));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
    }

    /// Its bits are as good as random: nobody chooses the hash of what was sealed.
    fn place(&self, hash: &[u8; 32]) -> Option<&Place<T>> {
        let number = u64::from_be_bytes(*hash.first_chunk()?) % (PLACES as u64);
        self.0.get(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::ids::SessionId;
    use lastkey_core::time::Timestamp;
    use lastkey_crypto::digest::sha256;

    use super::super::{AuthStrength, Subject};
    use super::*;

    fn kept(made: usize) -> Kept<usize> {
        let session = Session {
            id: SessionId([7; 16]),
            subject: Subject::Node { name: "a".to_owned() },
            role: None,
            issued_at: Timestamp(1),
            expires_at: Timestamp(2),
            via_provider: false,
            policy: None,
            sources: Vec::new(),
            certificate: None,
            strength: AuthStrength::default(),
        };
        Kept { keys: Weak::new(), session, made }
    }

    #[test]
    fn bearer_is_found_by_its_whole_hash_only() {
        let bearers = KeptBearers::default();
        bearers.keep([7; 32], kept(1));
        assert_eq!(bearers.find(&[7; 32]).map(|found| found.made), Some(1));
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert!(bearers.find(&other).is_none(), "{at}");
        }
    }

    #[test]
    fn bearers_take_no_more_than_their_places_however_many_there_are() {
        let bearers = KeptBearers::default();
        for number in 0..100_000 {
            bearers.keep(sha256(&usize::to_be_bytes(number)), kept(number));
        }
        let taken = bearers.0.iter().filter(|place| place.lock().unwrap().is_some()).count();
        assert_eq!((bearers.0.len(), taken), (PLACES, PLACES));
        let last = bearers.find(&sha256(&usize::to_be_bytes(99_999)));
        assert_eq!(last.map(|found| found.made), Some(99_999));
    }
}
