//! The binary header of one copy, 4,096 bytes, and the checksum over it and its JSON.
//!
//! Room      `luks`. Parsed from bytes of strangers.
//! Source    LUKS2 specification, 2.1.

use lastkey_crypto::digest::sha256_of;

/// Length of the binary header.
pub(crate) const BINARY_LEN: usize = 4_096;
const PRIMARY: [u8; 6] = *b"LUKS\xba\xbe";
const SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";
const VERSION: u16 = 2;
const CHECKSUM_AT: usize = 448;
const CHECKSUM_LEN: usize = 64;
/// Lengths that a copy can have, JSON included; the second copy begins where the first ends.
pub(crate) const COPY_LENS: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// Which of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Primary,
    Secondary,
}

/// What a binary header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    /// Length of a copy.
    pub(crate) copy_len: u64,
    /// Raised with each change.
    pub(crate) sequence: u64,
    pub(crate) label: [u8; 48],
    pub(crate) salt: [u8; 64],
    pub(crate) uuid: [u8; 40],
    pub(crate) subsystem: [u8; 48],
}

/// Whether bytes begin as a copy does.
pub(crate) fn has_magic(bytes: &[u8], which: Which) -> bool {
    bytes.starts_with(magic(which))
}

fn magic(which: Which) -> &'static [u8; 6] {
    match which {
        Which::Primary => &PRIMARY,
        Which::Secondary => &SECONDARY,
    }
}

/// The length that a copy claims, from its first bytes; none when it is no LUKS2 header.
pub(crate) fn claimed_len(bytes: &[u8], which: Which) -> Option<u64> {
    let is_ours = has_magic(bytes, which) && number(bytes, 6)? == u16::to_be_bytes(VERSION);
    let len = u64::from_be_bytes(number(bytes, 8)?);
    (is_ours && COPY_LENS.contains(&len)).then_some(len)
}

impl Binary {
    /// Reads a whole copy and compares its checksum; none when anything is wrong.
    pub(crate) fn parse(copy: &[u8], which: Which) -> Option<Self> {
        let copy_len = claimed_len(copy, which)?;
        let place = u64::from_be_bytes(number(copy, 256)?);
        let expected = match which {
            Which::Primary => 0,
            Which::Secondary => copy_len,
        };
        let algorithm: [u8; 32] = number(copy, 72)?;
        let known = text(&algorithm) == Some("sha256");
        let whole = u64::try_from(copy.len()).ok()? == copy_len && place == expected;
        if !known || !whole || number(copy, CHECKSUM_AT)? != checksum(copy)? {
            return None;
        }
        Some(Self {
            copy_len,
            sequence: u64::from_be_bytes(number(copy, 16)?),
            label: number(copy, 24)?,
            salt: number(copy, 104)?,
            uuid: number(copy, 168)?,
            subsystem: number(copy, 208)?,
        })
    }

    /// Writes a whole copy; none when the JSON does not fit.
    pub(crate) fn encode(&self, json: &[u8], which: Which) -> Option<Vec<u8>> {
        let place = match which {
            Which::Primary => 0,
            Which::Secondary => self.copy_len,
        };
        let mut copy = Vec::with_capacity(BINARY_LEN);
        copy.extend_from_slice(magic(which));
        copy.extend_from_slice(&VERSION.to_be_bytes());
        copy.extend_from_slice(&self.copy_len.to_be_bytes());
        copy.extend_from_slice(&self.sequence.to_be_bytes());
        copy.extend_from_slice(&self.label);
        copy.extend_from_slice(&padded::<32>("sha256")?);
        copy.extend_from_slice(&self.salt);
        copy.extend_from_slice(&self.uuid);
        copy.extend_from_slice(&self.subsystem);
        copy.extend_from_slice(&place.to_be_bytes());
        copy.resize(BINARY_LEN, 0);
        copy.extend_from_slice(json);
        let copy_len = usize::try_from(self.copy_len).ok()?;
        // The JSON ends with a zero byte.
        if copy.len() >= copy_len {
            return None;
        }
        copy.resize(copy_len, 0);
        let sum = checksum(&copy)?;
        copy.get_mut(CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_LEN)?.copy_from_slice(&sum);
        Some(copy)
    }
}

/// SHA-256 of the copy with zeros in place of the checksum, filled up with zeros.
fn checksum(copy: &[u8]) -> Option<[u8; CHECKSUM_LEN]> {
    let (before, rest) = copy.split_at_checked(CHECKSUM_AT)?;
    let (_, after) = rest.split_at_checked(CHECKSUM_LEN)?;
    let digest = sha256_of(&[before, &[0; CHECKSUM_LEN], after]);
    let mut sum = [0; CHECKSUM_LEN];
    sum.get_mut(..digest.len())?.copy_from_slice(&digest);
    Some(sum)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// A text in a field, up to its first zero byte.
pub(crate) fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(field.get(..end)?).ok()
}

/// A field that holds a text and at least one zero byte; none when it is too long.
pub(crate) fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [0; N];
    if text.len() >= N {
        return None;
    }
    field.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::{Binary, Which, claimed_len, padded, text};

    fn sample() -> Binary {
        Binary {
            copy_len: 0x4000,
            sequence: 7,
            label: padded("label").unwrap(),
            salt: [3; 64],
            uuid: padded("0e6a5c9e-6f0e-4a8c-9a7e-0123456789ab").unwrap(),
            subsystem: [0; 48],
        }
    }

    #[test]
    fn copy_is_read_as_it_was_written_and_in_its_place_alone() {
        let first = sample().encode(b"{}", Which::Primary).unwrap();
        assert_eq!(first.len(), 0x4000);
        assert_eq!(Binary::parse(&first, Which::Primary), Some(sample()));
        assert_eq!(Binary::parse(&first, Which::Secondary), None);
        let second = sample().encode(b"{}", Which::Secondary).unwrap();
        assert_eq!(Binary::parse(&second, Which::Secondary), Some(sample()));
    }

    #[test]
    fn copy_with_any_changed_byte_is_refused() {
        let good = sample().encode(br#"{"a":1}"#, Which::Primary).unwrap();
        for at in [0, 7, 15, 16, 24, 72, 104, 168, 208, 263, 448, 479, 480, 511, 512, 4_096, 0x3fff]
        {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Binary::parse(&bad, Which::Primary), None, "byte {at}");
        }
        assert_eq!(Binary::parse(&good[..0x3fff], Which::Primary), None);
    }

    #[test]
    fn copy_has_one_of_nine_lengths() {
        let mut copy = sample().encode(b"{}", Which::Primary).unwrap();
        assert_eq!(claimed_len(&copy, Which::Primary), Some(0x4000));
        copy[14] = 0x50;
        assert_eq!(claimed_len(&copy, Which::Primary), None);
        assert_eq!(claimed_len(&copy[..12], Which::Primary), None);
    }

    #[test]
    fn copy_has_room_for_its_json_and_one_zero() {
        assert!(sample().encode(&[b' '; 0x3000 - 1], Which::Primary).is_some());
        assert!(sample().encode(&[b' '; 0x3000], Which::Primary).is_none());
    }

    #[test]
    fn texts_end_within_their_field() {
        assert_eq!(text(b"ab\0cd"), Some("ab"));
        assert_eq!(text(b"abcd"), None);
        assert_eq!(padded::<4>("abcd"), None);
    }
}
