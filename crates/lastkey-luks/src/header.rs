//! A LUKS2 header in its two copies: made, read, changed.
//!
//! Room      `luks`.
//! Source    LUKS2 specification, 2 and 4.
//! Holds     A change writes one copy, makes it durable, then the other, the damaged one first:
//!           whatever happens in between, one copy is whole. A slot's area is durable before the
//!           header that names it, and is wiped after the header that does not.

use lastkey_crypto::entropy::Entropy;
use lastkey_secret::{SecretVec, ct_eq};
use serde_json::Value;
use uuid::{Builder, Uuid};

use crate::area::decrypt_sector;
use crate::binary::{BINARY_LEN, Binary, COPY_LENS, Which, claimed_len, has_magic, padded, text};
use crate::error::{Error, io_while};
use crate::kdf::{ROUNDS, pbkdf2};
use crate::medium::Medium;
use crate::metadata::{Digest, Metadata, Number, Segment};
use crate::slot::{Bounds, Slot, free_place};
use crate::token::{KmsToken, Stored, TOKEN_TYPE};
use crate::{DATA_OFFSET, RESERVED_LEN, VOLUME_KEY_LEN};

const COPY_LEN: u64 = 16_384;
const BINARY_LEN_U64: u64 = 4_096;
const DIGEST_LEN: usize = 32;
const DATA_SECTOR_LEN: usize = 4_096;
const ANOTHER_LENGTH: Error = Error::Unsupported("a volume key of another length");

/// The key that encrypts the sectors.
#[derive(Debug)]
pub struct VolumeKey(SecretVec);

impl VolumeKey {
    /// A volume key that was kept elsewhere.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another length than ours.
    pub fn take(key: SecretVec) -> Result<Self, Error> {
        if key.len() == VOLUME_KEY_LEN { Ok(Self(key)) } else { Err(ANOTHER_LENGTH) }
    }

    /// The first sector of the data behind a header of ours, decrypted: by it a person or a program
    /// sees whether key and device belong together.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`].
    pub fn first_sector(&self, medium: &dyn Medium) -> Result<SecretVec, Error> {
        SecretVec::try_fill(DATA_SECTOR_LEN, |sector| {
            medium.read_at(sector, DATA_OFFSET).map_err(io_while("read the data"))?;
            decrypt_sector(&self.0, sector)
        })
    }

    /// Lends the bytes for the length of one call.
    pub fn expose<R>(&self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        self.0.expose(use_bytes)
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes; never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the same, in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0)
    }
}

/// What a fresh header is to say.
#[derive(Clone, Copy, Debug)]
pub struct Format<'a> {
    /// Shown by other tools; at most 47 bytes.
    pub label: &'a str,
    /// Shown by other tools; at most 47 bytes.
    pub subsystem: &'a str,
    /// In bytes, 512 or 4,096.
    pub sector_size: u32,
}

/// Which copies were whole when the header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Both, and both say the same.
    Both,
    /// The second one alone, or it is newer: the first was damaged, or a change was cut short.
    Secondary,
    /// The first one alone, or it is newer.
    Primary,
}

/// A header, as it will be written.
#[derive(Clone, Debug)]
pub struct Header {
    binary: Box<Binary>,
    metadata: Metadata,
    copies: Copies,
}

/// What lies where a copy should be.
enum Copy {
    Absent,
    Damaged,
    Whole(Box<Binary>, Metadata),
}

impl Header {
    /// Makes a header for all of the medium, with one key slot for `secret`, and writes it with
    /// the token that `token` makes of the slot's number.
    ///
    /// # Errors
    /// [`Error::TooShort`]; [`Error::Unsupported`] for another sector size or too long a label.
    pub fn format(
        medium: &dyn Medium,
        format: Format<'_>,
        secret: &SecretVec,
        token: impl FnOnce(u32) -> KmsToken,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, VolumeKey), Error> {
        let volume_key = VolumeKey(SecretVec::try_fill(VOLUME_KEY_LEN, |key| {
            entropy.fill(key).map_err(|_| Error::Primitive)
        })?);
        let made = Self::make(medium, format, None, &volume_key, secret, token, entropy)?;
        Ok((made, volume_key))
    }

    /// The same for a volume that is there, and whose header is lost: with its key and its UUID.
    ///
    /// # Errors
    /// As [`Header::format`]; also for a UUID that is none.
    pub fn restore(
        medium: &dyn Medium,
        format: Format<'_>,
        uuid: &str,
        volume_key: &VolumeKey,
        secret: &SecretVec,
        token: impl FnOnce(u32) -> KmsToken,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Error> {
        let uuid = Uuid::try_parse(uuid).map_err(|_| Error::Unsupported("a UUID that is none"))?;
        Self::make(medium, format, Some(uuid), volume_key, secret, token, entropy)
    }

    fn make(
        medium: &dyn Medium,
        format: Format<'_>,
        uuid: Option<Uuid>,
        volume_key: &VolumeKey,
        secret: &SecretVec,
        token: impl FnOnce(u32) -> KmsToken,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Error> {
        let len = medium.len().map_err(io_while("tell the length of the device"))?;
        let sectors = u64::from(format.sector_size);
        if !matches!(format.sector_size, 512 | 4_096) {
            return Err(Error::Unsupported("sectors of another size than 512 or 4096 bytes"));
        }
        if len < DATA_OFFSET.saturating_add(sectors) || !len.is_multiple_of(sectors) {
            return Err(Error::TooShort);
        }
        let mut header = Self {
            binary: Box::new(fresh_binary(format, uuid, entropy)?),
            metadata: Metadata::fresh(
                COPY_LEN - BINARY_LEN_U64,
                DATA_OFFSET - 2 * COPY_LEN - RESERVED_LEN,
                DATA_OFFSET,
                format.sector_size,
            ),
            copies: Copies::Both,
        };
        let mut salt = vec![0; DIGEST_LEN];
        entropy.fill(&mut salt).map_err(|_| Error::Primitive)?;
        let digest = pbkdf2("sha256", ROUNDS, &salt, &volume_key.0, DIGEST_LEN)?;
        let digest = Digest::new(ROUNDS, salt, digest.expose(<[u8]>::to_vec));
        header.metadata.put("digests", 0, &digest)?;
        let slot = header.add_slot(medium, volume_key, secret, entropy)?;
        header.put_token(None, &token(slot))?;
        header.store(medium)?;
        Ok(header)
    }

    /// Reads the newest whole copy; `None` when there is no LUKS2 header at all.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] when there is a header and no copy of it is whole;
    /// [`Error::Unsupported`].
    pub fn read(medium: &dyn Medium) -> Result<Option<Self>, Error> {
        let len = medium.len().map_err(io_while("tell the length of the device"))?;
        let primary = read_copy(medium, 0, len, Which::Primary)?;
        let places: &[u64] = match &primary {
            Copy::Whole(binary, _) => &[binary.copy_len],
            Copy::Absent | Copy::Damaged => &COPY_LENS,
        };
        let mut secondary = Copy::Absent;
        for place in places {
            match read_copy(medium, *place, len, Which::Secondary)? {
                Copy::Absent => {}
                Copy::Damaged => secondary = Copy::Damaged,
                whole @ Copy::Whole(..) => {
                    secondary = whole;
                    break;
                }
            }
        }
        let Some(header) = newest(primary, secondary)? else { return Ok(None) };
        header.metadata.require_plain()?;
        Ok(Some(header))
    }

    /// Writes both copies, durably, and reads them again.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Full`] when the JSON has become too long; [`Error::Damaged`] when
    /// the medium does not give back what was written.
    pub fn store(&mut self, medium: &dyn Medium) -> Result<(), Error> {
        self.binary.sequence = self.binary.sequence.saturating_add(1);
        let json = self.metadata.encode()?;
        let order = match self.copies {
            // INVARIANT: the copy that is whole is overwritten last.
            Copies::Both | Copies::Secondary => [Which::Primary, Which::Secondary],
            Copies::Primary => [Which::Secondary, Which::Primary],
        };
        for which in order {
            let copy = self.binary.encode(&json, which).ok_or(Error::Full("JSON"))?;
            let place = match which {
                Which::Primary => 0,
                Which::Secondary => self.binary.copy_len,
            };
            medium.write_at(&copy, place).map_err(io_while("write the header"))?;
            medium.sync().map_err(io_while("make the header durable"))?;
            let mut again = vec![0; copy.len()];
            medium.read_at(&mut again, place).map_err(io_while("read the header again"))?;
            if again != copy {
                return Err(Error::Damaged("the device does not keep what is written to it"));
            }
        }
        self.copies = Copies::Both;
        Ok(())
    }

    /// Which copies were whole.
    #[must_use]
    pub fn copies(&self) -> Copies {
        self.copies
    }

    /// The UUID of the volume, as text.
    #[must_use]
    pub fn uuid(&self) -> &str {
        text(&self.binary.uuid).unwrap_or_default()
    }

    /// Where the data lies.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn segment(&self) -> Result<Segment, Error> {
        self.metadata.segment()
    }

    /// Numbers of the key slots.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn slots(&self) -> Result<Vec<u32>, Error> {
        Ok(self.metadata.slots()?.into_iter().map(|(number, _)| number).collect())
    }

    /// The volume key, from the first of `slots` that opens with `secret`; from any slot when
    /// none is named.
    ///
    /// # Errors
    /// [`Error::WrongKey`]; [`Error::Io`]; [`Error::Unsupported`], for a volume key of another length
    /// than ours too.
    pub fn open(
        &self,
        medium: &dyn Medium,
        slots: &[u32],
        secret: &SecretVec,
    ) -> Result<VolumeKey, Error> {
        let bounds = self.bounds()?;
        let (_, digest) = self.metadata.digest()?;
        for (number, slot) in self.metadata.slots()? {
            if !slots.is_empty() && !slots.contains(&number) {
                continue;
            }
            let key = slot.read(medium, bounds, secret)?;
            let len = digest.digest.0.len();
            let found = pbkdf2(&digest.hash, digest.iterations, &digest.salt.0, &key, len)?;
            let is_bound = digest.keyslots.contains(&Number(u64::from(number)));
            if is_bound && len >= DIGEST_LEN && found.expose(|found| ct_eq(found, &digest.digest.0))
            {
                // A shorter one is of a weaker cipher than ours.
                if key.len() != VOLUME_KEY_LEN {
                    return Err(ANOTHER_LENGTH);
                }
                return Ok(VolumeKey(key));
            }
        }
        Err(Error::WrongKey)
    }

    /// Writes one more key slot; it counts once the header is stored.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Io`]; [`Error::Unsupported`] for a volume key of another length
    /// than ours.
    pub fn add_slot(
        &mut self,
        medium: &dyn Medium,
        volume_key: &VolumeKey,
        secret: &SecretVec,
        entropy: &mut dyn Entropy,
    ) -> Result<u32, Error> {
        if volume_key.len() != VOLUME_KEY_LEN {
            return Err(ANOTHER_LENGTH);
        }
        let number = self.metadata.free_number("keyslots")?;
        let place = free_place(self.metadata.areas()?, self.bounds()?)?;
        let slot = Slot::new(place, entropy)?;
        slot.write(medium, &volume_key.0, secret, entropy)?;
        medium.sync().map_err(io_while("make a key slot durable"))?;
        self.metadata.put("keyslots", number, &slot)?;
        let (digest_number, mut digest) = self.metadata.digest()?;
        digest.keyslots.push(Number(u64::from(number)));
        self.metadata.put("digests", digest_number, &digest)?;
        Ok(number)
    }

    /// Takes a key slot out of the header, durably, and wipes its area.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the last slot, or one that is not there; [`Error::Io`].
    pub fn remove_slot(
        &mut self,
        medium: &dyn Medium,
        number: u32,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Error> {
        let slots = self.metadata.slots()?;
        let (Some((_, slot)), true) =
            (slots.iter().find(|(slot, _)| *slot == number), slots.len() > 1)
        else {
            return Err(Error::Unsupported("the removal of a last or missing key slot"));
        };
        self.metadata.remove("keyslots", number)?;
        self.metadata.forget_slot(number)?;
        self.store(medium)?;
        slot.wipe(medium, self.bounds()?, entropy)?;
        medium.sync().map_err(io_while("wipe a key slot"))
    }

    /// The tokens of this product, with their numbers. Others are left alone.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for one of ours that is not of this version.
    pub fn tokens(&self) -> Result<Vec<(u32, KmsToken)>, Error> {
        let is_ours = |token: &Value| token.get("type").and_then(Value::as_str) == Some(TOKEN_TYPE);
        let stored: Vec<(u32, Stored)> = self.metadata.each("tokens", is_ours)?;
        let parsed = stored.into_iter().map(|(number, token)| Some((number, token.parse()?)));
        parsed.collect::<Option<_>>().ok_or(Error::Unsupported("the version of a lastkey token"))
    }

    /// Puts a token under a number, or the lowest free one; it counts once the header is stored.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn put_token(&mut self, number: Option<u32>, token: &KmsToken) -> Result<u32, Error> {
        let number = number.map_or_else(|| self.metadata.free_number("tokens"), Ok)?;
        self.metadata.put("tokens", number, &token.store())?;
        Ok(number)
    }

    /// Takes a token away; counts once the header is stored.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a header of another shape.
    pub fn remove_token(&mut self, number: u32) -> Result<bool, Error> {
        self.metadata.remove("tokens", number)
    }

    fn bounds(&self) -> Result<Bounds, Error> {
        let begin = self.binary.copy_len.saturating_mul(2);
        let end = begin.checked_add(self.metadata.slots_len()?);
        let data = self.metadata.segment()?.offset;
        let end = end.filter(|end| *end <= data);
        let end = end.ok_or(Error::Unsupported("key slots behind the beginning of the data"))?;
        Ok(Bounds { begin, end })
    }
}

fn fresh_binary(
    format: Format<'_>,
    uuid: Option<Uuid>,
    entropy: &mut dyn Entropy,
) -> Result<Binary, Error> {
    let (mut salt, mut id) = ([0; 64], [0; 16]);
    entropy.fill(&mut salt).map_err(|_| Error::Primitive)?;
    entropy.fill(&mut id).map_err(|_| Error::Primitive)?;
    let uuid = uuid.unwrap_or_else(|| Builder::from_random_bytes(id).into_uuid()).to_string();
    let too_long = Error::Unsupported("a label of more than 47 bytes");
    let (Some(label), Some(subsystem), Some(uuid)) =
        (padded(format.label), padded(format.subsystem), padded(&uuid))
    else {
        return Err(too_long);
    };
    Ok(Binary { copy_len: COPY_LEN, sequence: 0, label, salt, uuid, subsystem })
}

fn read_copy(medium: &dyn Medium, place: u64, len: u64, which: Which) -> Result<Copy, Error> {
    let read = |len: usize| {
        let mut bytes = vec![0; len];
        medium.read_at(&mut bytes, place).map_err(io_while("read the header"))?;
        Ok(bytes)
    };
    let room = len.saturating_sub(place);
    if room < BINARY_LEN_U64 {
        return Ok(Copy::Absent);
    }
    let start = read(BINARY_LEN)?;
    if !has_magic(&start, which) {
        return Ok(Copy::Absent);
    }
    let Some(copy_len) = claimed_len(&start, which).filter(|copy_len| *copy_len <= room) else {
        return Ok(Copy::Damaged);
    };
    let copy = read(usize::try_from(copy_len).map_err(|_| Error::TooShort)?)?;
    let json = copy.get(BINARY_LEN..).and_then(Metadata::parse);
    Ok(match (Binary::parse(&copy, which), json) {
        (Some(binary), Some(metadata)) => Copy::Whole(Box::new(binary), metadata),
        _ => Copy::Damaged,
    })
}

fn newest(primary: Copy, secondary: Copy) -> Result<Option<Header>, Error> {
    match (primary, secondary) {
        (Copy::Whole(binary, metadata), Copy::Whole(other, other_metadata)) => {
            Ok(Some(match binary.sequence.cmp(&other.sequence) {
                std::cmp::Ordering::Less => {
                    Header { binary: other, metadata: other_metadata, copies: Copies::Secondary }
                }
                std::cmp::Ordering::Equal => Header { binary, metadata, copies: Copies::Both },
                std::cmp::Ordering::Greater => Header { binary, metadata, copies: Copies::Primary },
            }))
        }
        (Copy::Whole(binary, metadata), Copy::Absent | Copy::Damaged) => {
            Ok(Some(Header { binary, metadata, copies: Copies::Primary }))
        }
        (Copy::Absent | Copy::Damaged, Copy::Whole(binary, metadata)) => {
            Ok(Some(Header { binary, metadata, copies: Copies::Secondary }))
        }
        (Copy::Absent, Copy::Absent) => Ok(None),
        (Copy::Damaged, Copy::Absent | Copy::Damaged) | (Copy::Absent, Copy::Damaged) => {
            Err(Error::Damaged("restore it from a backup of the header"))
        }
    }
}
