//! One key slot: a volume key, split and encrypted under what a secret derives.
//!
//! Room      `luks`.
//! Source    LUKS2 specification, 3.2.
//! Holds     A slot reads and writes its own area alone, and that lies within the area for slots.

use aws_lc_rs::digest::Algorithm;
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretVec;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::VOLUME_KEY_LEN;
use crate::anti_forensic::{self, STRIPES};
use crate::area::{self, ENCRYPTION, SECTOR_LEN};
use crate::error::{Error, io_while};
use crate::kdf::{Kdf, ROUNDS};
use crate::medium::Medium;
use crate::metadata::{Base64, Number};

/// Areas begin and end at multiples of this.
const ALIGNMENT: u64 = 4_096;
/// No cipher of dm-crypt has a longer key.
const MAX_KEY_LEN: u32 = 512;
const SALT_LEN: usize = 32;

/// What the header says of a key slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slot {
    #[serde(rename = "type")]
    kind: String,
    key_size: u32,
    af: Split,
    area: Area,
    kdf: Kdf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Split {
    #[serde(rename = "type")]
    kind: String,
    stripes: u32,
    hash: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Area {
    #[serde(rename = "type")]
    kind: String,
    offset: Number,
    size: Number,
    encryption: String,
    key_size: u32,
}

/// From where to where areas of key slots may lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

impl Slot {
    /// A slot whose area lies at `offset`; nothing is written yet.
    pub(crate) fn new(offset: u64, entropy: &mut dyn Entropy) -> Result<Self, Error> {
        let mut salt = vec![0; SALT_LEN];
        entropy.fill(&mut salt).map_err(|_| Error::Primitive)?;
        let key_size = u32::try_from(VOLUME_KEY_LEN).map_err(|_| Error::Primitive)?;
        let hash = "sha256".to_owned();
        Ok(Self {
            kind: "luks2".to_owned(),
            key_size,
            af: Split { kind: "luks1".to_owned(), stripes: 4_000, hash: hash.clone() },
            area: Area {
                kind: "raw".to_owned(),
                offset: Number(offset),
                size: Number(area_len()),
                encryption: ENCRYPTION.to_owned(),
                key_size,
            },
            kdf: Kdf::Pbkdf2 { hash, iterations: ROUNDS, salt: Base64(salt) },
            priority: None,
        })
    }

    /// Puts a volume key into the area. Not durable yet.
    pub(crate) fn write(
        &self,
        medium: &dyn Medium,
        volume_key: &SecretVec,
        secret: &SecretVec,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Error> {
        let hash = self.hash()?;
        let parts = anti_forensic::split(volume_key, hash, entropy)?;
        let key = self.kdf.derive(secret, self.area_key_len()?)?;
        let mut bytes = Zeroizing::new(vec![0; self.sectors_len()?]);
        parts
            .expose(|parts| bytes.get_mut(..parts.len()).map(|place| place.copy_from_slice(parts)))
            .ok_or(Error::Primitive)?;
        area::encrypt(&key, &mut bytes)?;
        medium.write_at(&bytes, self.area.offset.0).map_err(io_while("write a key slot"))
    }

    /// What the slot gives for a secret: any secret gives something, so it is to be compared with
    /// the digest.
    pub(crate) fn read(
        &self,
        medium: &dyn Medium,
        bounds: Bounds,
        secret: &SecretVec,
    ) -> Result<SecretVec, Error> {
        let hash = self.hash()?;
        let key_len = usize::try_from(self.key_size).map_err(|_| BAD)?;
        let mut bytes = Zeroizing::new(vec![0; self.sectors_len()?]);
        self.require_within(bounds)?;
        medium.read_at(&mut bytes, self.area.offset.0).map_err(io_while("read a key slot"))?;
        let key = self.kdf.derive(secret, self.area_key_len()?)?;
        area::decrypt(&key, &mut bytes)?;
        anti_forensic::merge(&SecretVec::take(std::mem::take(&mut *bytes)), key_len, hash)
    }

    /// Overwrites the area with random bytes. Not durable yet.
    pub(crate) fn wipe(
        &self,
        medium: &dyn Medium,
        bounds: Bounds,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Error> {
        self.require_within(bounds)?;
        let len = self.area.size.0.min(bounds.end - bounds.begin);
        let mut noise = vec![0; usize::try_from(len).map_err(|_| BAD)?];
        entropy.fill(&mut noise).map_err(|_| Error::Primitive)?;
        medium.write_at(&noise, self.area.offset.0).map_err(io_while("wipe a key slot"))
    }

    fn hash(&self) -> Result<&'static Algorithm, Error> {
        let usual = self.af.kind == "luks1"
            && usize::try_from(self.af.stripes) == Ok(STRIPES)
            && self.area.kind == "raw"
            && self.area.encryption == ENCRYPTION;
        if !usual || !(1..=MAX_KEY_LEN).contains(&self.key_size) {
            return Err(BAD);
        }
        anti_forensic::hash(&self.af.hash)
    }

    fn area_key_len(&self) -> Result<usize, Error> {
        usize::try_from(self.area.key_size).ok().filter(|len| [32, 64].contains(len)).ok_or(BAD)
    }

    /// The split key in whole sectors.
    fn sectors_len(&self) -> Result<usize, Error> {
        let key_len = usize::try_from(self.key_size).map_err(|_| BAD)?;
        Ok(key_len.saturating_mul(STRIPES).next_multiple_of(SECTOR_LEN))
    }

    fn require_within(&self, bounds: Bounds) -> Result<(), Error> {
        let needed = u64::try_from(self.sectors_len()?).map_err(|_| BAD)?;
        let (offset, size) = (self.area.offset.0, self.area.size.0);
        let end = offset.checked_add(size).ok_or(BAD)?;
        if size < needed || offset < bounds.begin || end > bounds.end {
            return Err(BAD);
        }
        Ok(())
    }
}

const BAD: Error = Error::Unsupported("the shape of a key slot");

/// Length of the area of a slot for a volume key of [`VOLUME_KEY_LEN`].
pub(crate) fn area_len() -> u64 {
    let len = VOLUME_KEY_LEN.saturating_mul(STRIPES);
    u64::try_from(len).unwrap_or(u64::MAX / 2).next_multiple_of(ALIGNMENT)
}

/// The first place between other areas where a new one fits.
pub(crate) fn free_place(mut taken: Vec<(u64, u64)>, bounds: Bounds) -> Result<u64, Error> {
    taken.sort_unstable();
    let mut place = bounds.begin.next_multiple_of(ALIGNMENT);
    for (offset, size) in taken {
        if offset >= place.saturating_add(area_len()) {
            break;
        }
        place = place
            .max(offset.saturating_add(size))
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or(BAD)?;
    }
    if place.saturating_add(area_len()) > bounds.end {
        return Err(Error::Full("key slot areas"));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::{Bounds, area_len, free_place};
    use crate::error::Error;

    #[test]
    fn new_areas_lie_between_others_and_within_bounds() {
        let len = area_len();
        let bounds = Bounds { begin: 32_768, end: 32_768 + 3 * len };
        assert_eq!(free_place(vec![], bounds).unwrap(), 32_768);
        let first = (32_768, len);
        assert_eq!(free_place(vec![first], bounds).unwrap(), 32_768 + len);
        let third = (32_768 + 2 * len, len);
        assert_eq!(free_place(vec![third, first], bounds).unwrap(), 32_768 + len);
        let close = (32_768 + len + 4_096, len);
        let full = free_place(vec![first, close], bounds);
        assert!(matches!(full, Err(Error::Full(_))));
        assert!(free_place(vec![(u64::MAX - 1, 1), (40_960, u64::MAX)], bounds).is_err());
    }
}
