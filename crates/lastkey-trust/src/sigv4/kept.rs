//! Signing keys of a day, kept: to derive one costs more than the rest of a check.
//!
//! Room      `trust`, inside.
//! Holds     no more keys than there are places; a newer one takes the place of an older one. A
//!           key is found under everything that it was derived from, and whoever finds it has still
//!           to show its session.

use core::fmt;
use core::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use lastkey_secret::SecretArray;

/// Places for keys.
const PLACES: usize = 1_024;

/// A signing key, ready.
pub(super) struct SigningKey(hmac::Key);

impl SigningKey {
    pub(super) fn of(key: &SecretArray<32>) -> Self {
        Self(key.expose(|key| hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    pub(super) fn sign(&self, text: &str) -> hmac::Tag {
        hmac::sign(&self.0, text.as_bytes())
    }
}

/// What a key is derived from, the secret aside: credential, day, region, service.
type Name<'a> = [&'a str; 4];

struct Kept {
    name: [String; 4],
    key: SigningKey,
}

/// Signing keys that were used.
pub struct KeptKeys {
    places: Box<[Mutex<Option<Box<Kept>>>]>,
    state: RandomState,
}

impl Default for KeptKeys {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| Mutex::default()).collect();
        Self { places, state: RandomState::new() }
    }
}

impl fmt::Debug for KeptKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptKeys(..)")
    }
}

impl KeptKeys {
    /// Uses the key of this name, if it is kept.
    pub(super) fn with<R>(
        &self,
        name: Name<'_>,
        using: impl FnOnce(&SigningKey) -> R,
    ) -> Option<R> {
        let place = self.place(name)?.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = place.as_ref()?;
        (kept.name == name).then(|| using(&kept.key))
    }

    /// Keeps a key.
    pub(super) fn keep(&self, name: Name<'_>, key: SigningKey) {
        if let Some(place) = self.place(name) {
            let name = name.map(str::to_owned);
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Some(Box::new(Kept { name, key }));
        }
    }

    fn place(&self, name: Name<'_>) -> Option<&Mutex<Option<Box<Kept>>>> {
        let number = usize::try_from(self.state.hash_one(name) % (PLACES as u64)).ok()?;
        self.places.get(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of(&SecretArray::copy_of(&[byte; 32]))
    }

    #[test]
    fn key_is_found_under_its_whole_name_only() {
        let kept = KeptKeys::default();
        let name = ["LKTA1", "20261129", "eu-west-1", "lastkey"];
        kept.keep(name, key(1));
        let signs = |name| kept.with(name, |key| key.sign("x").as_ref().to_vec());
        assert_eq!(signs(name).unwrap(), key(1).sign("x").as_ref());
        for place in 0..4 {
            let mut other = name;
            other[place] = "other";
            assert_eq!(signs(other), None, "{other:?}");
        }
        // Parts do not run into each other.
        assert_eq!(signs(["LKTA12", "0261129", "eu-west-1", "lastkey"]), None);
    }

    #[test]
    fn keys_take_no_more_than_their_places() {
        let kept = KeptKeys::default();
        for number in 0..2 * PLACES {
            kept.keep([&number.to_string(), "", "", ""], key(2));
        }
        let count = |one: &Mutex<Option<Box<Kept>>>| usize::from(one.lock().unwrap().is_some());
        assert!(kept.places.iter().map(count).sum::<usize>() <= PLACES);
    }
}
