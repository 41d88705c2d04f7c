//! Scan packs: the values that a key service keeps, to be recognised by who must not know them.
//!
//! Room      `checks`, inside `scan`. Making a pack, reading one ([`Matcher`]), and judging what a
//!           reader claims to have seen ([`ProofKey`]).
//! Source    docs/formats/scan-pack.md. AES is FIPS 197, Ed25519 RFC 8032.
//! Holds     A pack holds no value and no part of one: for a few stretches of 16 bytes of each, a
//!           truncated AES of it under a key of the pack. What could be guessed is refused by
//!           [`Builder::add`].

mod matcher;
mod proof;
mod stretch;

use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};

use self::stretch::{Kind, STRETCH_LEN, stretches};
pub use self::{
    matcher::{Claim, Match, Matcher, confirmed, rule_infos},
    proof::{PROOF_LEN, ProofKey},
};

const MAGIC: &[u8; 8] = b"LKSPACK\x02";
const HEADER_LEN: usize = 80;
const ENTRY_LEN: usize = 12;
const VALUE_LEN: usize = 20;
const SIGNATURE_LEN: usize = 64;
/// Widths of tags that a pack may have, in bits.
const WIDTHS: std::ops::RangeInclusive<u8> = 16..=64;
/// From this width of tags on, what matches is a finding; below it has to be confirmed.
const CERTAIN_BITS: u8 = 40;

/// What a pack says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Names the pack, and with a label the value.
    pub id: [u8; 16],
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub created: u64,
    /// From then on it must not be used any more; same unit.
    pub expires: u64,
    /// Width of its tags in bits, 16 to 64.
    pub tag_bits: u8,
}

/// How sure a match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Tags of so many bits, 16 to 64.
    Bits(u8),
    /// As narrow as it may be when at most one place in a million matches by chance: whoever has
    /// the pack cannot tell a good guess from that either, and has to ask the service.
    Narrow,
}

/// Which version of which secret a value is, as the service knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// Identity of the secret: random, and says nothing to others.
    // secrets: allow, the identity of a secret, which is none
    pub secret: [u8; 16],
    /// Number of the version.
    pub version: u32,
}

/// Why bytes are no pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Not a scan pack, or of another version.
    #[error("this is no scan pack of a version that is known here; make a new one")]
    Unknown,
    /// It has another length than it says, or is not in order.
    #[error("the scan pack is damaged")]
    Damaged,
    /// The signature is not that of the key in it, or that key is not the expected one.
    #[error("the scan pack is not signed by the key service it should come from")]
    Signature,
    /// Its time is over.
    #[error("the scan pack has expired; fetch a new one")]
    Expired,
    /// A width of tags or a count that no pack may have.
    #[error("a scan pack has tags of 16 to 64 bits, and fewer than 2^32 of them")]
    Shape,
}

/// A pack that is being made.
pub struct Builder {
    about: About,
    keys: Keys,
    values: Vec<ValueId>,
    /// Whole tags, each with the label of its value.
    entries: Vec<(u64, u32)>,
}

/// The two keys of a pack: of raw stretches and of decoded ones.
struct Keys {
    raw: EncryptingKey,
    decoded: EncryptingKey,
    /// As the pack carries them: whoever has a pack has them, they protect nothing alone.
    carried: [u8; 32],
}

impl Keys {
    fn new(carried: [u8; 32]) -> Result<Self, PackError> {
        let (raw, decoded) = carried.split_at(STRETCH_LEN);
        let key = |bytes| {
            let key = UnboundCipherKey::new(&AES_128, bytes).map_err(|_| PackError::Shape)?;
            EncryptingKey::ecb(key).map_err(|_| PackError::Shape)
        };
        Ok(Self { raw: key(raw)?, decoded: key(decoded)?, carried })
    }

    const fn of(&self, kind: Kind) -> &EncryptingKey {
        match kind {
            Kind::Raw => &self.raw,
            Kind::Decoded => &self.decoded,
        }
    }
}

/// The tag of an encrypted block, whole.
fn tag(block: &[u8; STRETCH_LEN]) -> u64 {
    u64::from_be_bytes(block.first_chunk().copied().unwrap_or_default())
}

/// The first bits of a tag.
fn narrowed(tag: u64, bits: u8) -> u64 {
    tag >> (u64::BITS - u32::from(bits))
}

impl Builder {
    /// Begins a pack under fresh random keys, `keys`, drawn by the caller for this pack alone. It
    /// is good from `created` to `expires`, in seconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`PackError::Shape`] when the keys are none.
    pub fn new(
        id: [u8; 16],
        (created, expires): (u64, u64),
        keys: [u8; 32],
    ) -> Result<Self, PackError> {
        let about = About { id, created, expires, tag_bits: *WIDTHS.end() };
        Ok(Self { about, keys: Keys::new(keys)?, values: Vec::new(), entries: Vec::new() })
    }

    /// Adds a value, to be found as it is, with `%`, with JSON escapes, in hexadecimal and in
    /// base64. Answers the label that stands for it; none when all of it could be guessed: then
    /// it may only be looked for inside the service.
    ///
    /// # Errors
    /// [`PackError::Shape`] when there are more values than labels.
    pub fn add(&mut self, value: &[u8], id: ValueId) -> Result<Option<u32>, PackError> {
        let label = u32::try_from(self.values.len()).map_err(|_| PackError::Shape)?;
        let stretches = stretches(value);
        if stretches.is_empty() {
            return Ok(None);
        }
        for mut stretch in stretches {
            // INVARIANT: a whole block under a valid key always encrypts.
            let encrypted = self.keys.of(stretch.kind).encrypt(stretch.bytes.as_mut_slice());
            encrypted.map_err(|_| PackError::Shape)?;
            self.entries.push((tag(&stretch.bytes), label));
        }
        self.values.push(id);
        Ok(Some(label))
    }

    /// The pack. `sign` makes an Ed25519 signature, `signer` is its public key.
    ///
    /// # Errors
    /// [`PackError::Shape`] when there are too many entries, or for a width that there is not.
    pub fn finish(
        self,
        width: Width,
        signer: [u8; 32],
        sign: &mut dyn FnMut(&[u8]) -> [u8; SIGNATURE_LEN],
    ) -> Result<Vec<u8>, PackError> {
        let bits = match width {
            Width::Bits(bits) => bits,
            Width::Narrow => narrow_bits(self.entries.len()),
        };
        if !WIDTHS.contains(&bits) {
            return Err(PackError::Shape);
        }
        let shorten = |(tag, label): &(u64, u32)| (narrowed(*tag, bits), *label);
        let mut entries: Vec<(u64, u32)> = self.entries.iter().map(shorten).collect();
        entries.sort_unstable();
        entries.dedup();
        let count = |len: usize| u32::try_from(len).map_err(|_| PackError::Shape);
        let mut pack = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN);
        pack.extend_from_slice(MAGIC);
        pack.extend_from_slice(&self.about.id);
        pack.extend_from_slice(&self.about.created.to_be_bytes());
        pack.extend_from_slice(&self.about.expires.to_be_bytes());
        pack.extend_from_slice(&u16::from(bits).to_be_bytes());
        pack.extend_from_slice(&[0; 2]);
        pack.extend_from_slice(&count(entries.len())?.to_be_bytes());
        pack.extend_from_slice(&self.keys.carried);
        for (tag, label) in &entries {
            pack.extend_from_slice(&tag.to_be_bytes());
            pack.extend_from_slice(&label.to_be_bytes());
        }
        pack.extend_from_slice(&count(self.values.len())?.to_be_bytes());
        for ValueId { secret, version } in &self.values {
            pack.extend_from_slice(secret);
            pack.extend_from_slice(&version.to_be_bytes());
        }
        pack.extend_from_slice(&signer);
        let signature = sign(&pack);
        pack.extend_from_slice(&signature);
        Ok(pack)
    }
}

/// The narrowest width with which at most one place in 2^20 matches one of so many entries by
/// chance.
fn narrow_bits(entries: usize) -> u8 {
    const RARE_BITS: u32 = 20;
    let bits = entries.max(1).next_power_of_two().ilog2() + RARE_BITS;
    u8::try_from(bits).unwrap_or(CERTAIN_BITS).min(CERTAIN_BITS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE},
    };

    use super::{Builder, Matcher, PackError, ProofKey, ValueId, Width, narrow_bits};
    use crate::finding::Location;

    const VALUE: &[u8] = b"kT9vQ2xL+mZ7wRb4NpY3c/8sHd";
    const ID: ValueId = ValueId { secret: [5; 16], version: 3 };
    const NOW: u64 = 1_000;

    fn sign(body: &[u8]) -> [u8; 64] {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        pair.sign(body).as_ref().try_into().unwrap()
    }

    fn signer() -> [u8; 32] {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        pair.public_key().as_ref().try_into().unwrap()
    }

    fn pack_of(values: &[&[u8]], width: Width) -> Vec<u8> {
        let keys = std::array::from_fn(|at| at as u8);
        let mut builder = Builder::new([7; 16], (900, 2_000), keys).unwrap();
        for (label, value) in (0..).zip(values) {
            assert_eq!(builder.add(value, ID), Ok(Some(label)));
        }
        builder.finish(width, signer(), &mut sign).unwrap()
    }

    fn matcher(value: &[u8]) -> Matcher {
        Matcher::parse(&pack_of(&[value], Width::Bits(48)), NOW, Some(&signer())).unwrap()
    }

    fn places(matcher: &Matcher, text: &[u8]) -> Vec<usize> {
        matcher.search(text, 0..text.len()).iter().map(|found| found.span.start).collect()
    }

    #[test]
    fn value_is_found_however_it_is_written() {
        let matcher = matcher(VALUE);
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02X}")).collect();
        let plain = String::from_utf8(VALUE.to_vec()).unwrap();
        let percent = plain.replace('+', "%2B").replace('/', "%2F");
        for way in [plain.clone(), percent, hex.clone(), STANDARD.encode(&hex)] {
            for text in [format!("x=\"{way}\";\n"), way.clone()] {
                assert_eq!(places(&matcher, text.as_bytes()).len(), 1, "{text}");
            }
        }
        for lead in ["", "a", "ab", "abc"] {
            let whole = format!("{lead}{plain}tail");
            for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                // Letters of a word before it are letters of base64, too.
                for text in [format!("k: {text}"), format!("key/{text}"), format!("x{text}")] {
                    assert_eq!(places(&matcher, text.as_bytes()).len(), 1, "{text}");
                }
            }
        }
        assert!(places(&matcher, b"kT9vQ2xL+mZ7wRb and nothing more of it").is_empty());
        assert_eq!(places(&matcher, format!("0123 {plain}").as_bytes()).len(), 1);
    }

    #[test]
    fn place_in_base64_is_told_by_the_letters_that_hold_it() {
        let matcher = matcher(VALUE);
        let text = format!("1234567 {}", STANDARD.encode([b"abcdef", VALUE].concat()));
        let [found] = &matcher.search(text.as_bytes(), 0..text.len())[..] else { panic!() };
        assert!(found.span.start >= 8 + 8 && found.span.end <= text.len(), "{found:?}");
        assert!(matcher.search(text.as_bytes(), 0..10).is_empty(), "it begins in another part");
    }

    #[test]
    fn hex_value_is_found_in_both_cases() {
        let matcher = matcher(b"9f86d081884c7d659a2feaa0c55ad015");
        for text in ["9f86d081884c7d659a2feaa0c55ad015", "9F86D081884C7D659A2FEAA0C55AD015"] {
            assert_eq!(places(&matcher, format!("key: {text}").as_bytes()), [5]);
            assert_eq!(places(&matcher, STANDARD.encode(text).as_bytes()).len(), 1);
        }
        assert!(places(&matcher, b"key: 9f86d081884c7d659a2feaa0c55ad016").is_empty());
    }

    #[test]
    fn value_of_any_bytes_is_found_where_it_is_encoded() {
        let value: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(83) ^ 0x1f).collect();
        let matcher = matcher(&value);
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [hex, STANDARD.encode(&value), URL_SAFE.encode(&value)] {
            assert_eq!(places(&matcher, text.as_bytes()).len(), 1, "{text}");
        }
    }

    #[test]
    fn long_base64_is_searched_where_it_begins_and_a_part_of_it_anywhere() {
        let matcher = matcher(VALUE);
        let whole = [&[b'-'; 3_000][..], VALUE, &[b'-'; 3_000]].concat();
        let text = STANDARD.encode(whole);
        assert_eq!(places(&matcher, format!("k: {text}").as_bytes()).len(), 1);
        // As at the edge of a window, where nobody knows how it began.
        assert_eq!(places(&matcher, &text.as_bytes()[3..]).len(), 1);
    }

    /// The vector of docs/formats/scan-pack.md, written by tests/python/scan_pack.py.
    pub(super) fn vector() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/vectors/scan_pack.json")).unwrap()
    }

    /// Bytes of a field in hexadecimal.
    pub(super) fn bytes(field: &serde_json::Value) -> Vec<u8> {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
        let pairs = field.as_str().unwrap().as_bytes().chunks(2);
        pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn pack_of_another_program_finds_what_it_found_there() {
        let vector = vector();
        let signer: [u8; 32] = bytes(&vector["signer"]).try_into().unwrap();
        let now = vector["now"].as_u64().unwrap();
        let matcher = Matcher::parse(&bytes(&vector["pack"]), now, Some(&signer)).unwrap();
        for case in vector["texts"].as_array().unwrap() {
            let text = bytes(&case["text"]);
            let found = matcher.search(&text, 0..text.len());
            let labels: BTreeSet<u64> = found.iter().map(|found| found.label.into()).collect();
            let expected: BTreeSet<u64> = case["labels"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_u64().unwrap())
                .collect();
            assert_eq!(labels, expected, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn pack_that_was_touched_is_refused() {
        let pack = pack_of(&[VALUE], Width::Bits(16));
        let signer = signer();
        assert_eq!(Matcher::parse(&pack, 2_000, None).unwrap_err(), PackError::Expired);
        assert_eq!(Matcher::parse(&pack, NOW, Some(&[0; 32])).unwrap_err(), PackError::Signature);
        assert_eq!(Matcher::parse(b"LKSPACK\x01", NOW, None).unwrap_err(), PackError::Unknown);
        for at in 8..pack.len() {
            let mut other = pack.clone();
            other[at] ^= 1;
            assert!(Matcher::parse(&other, NOW, Some(&signer)).is_err(), "{at}");
            assert!(Matcher::parse(&pack[..at], NOW, None).is_err(), "{at}");
        }
    }

    #[test]
    fn signed_pack_that_does_not_hold_together_is_damaged() {
        let pack = pack_of(&[VALUE, b"Zr4Lw8Kp2Vn6Qx0Ty3Hs"], Width::Bits(48));
        let signed = |mut body: Vec<u8>| {
            let signature = sign(&body);
            body.extend_from_slice(&signature);
            Matcher::parse(&body, NOW, None).unwrap_err()
        };
        let body = pack[..pack.len() - 64].to_vec();
        let (entries, count) = (80, u32::from_be_bytes(body[44..48].try_into().unwrap()) as usize);
        // A label without a value, entries out of order, counts that are too large.
        let mut other = body.clone();
        other[entries + 8] = 1;
        assert_eq!(signed(other), PackError::Damaged);
        let mut other = body.clone();
        other[entries..entries + 24].rotate_left(12);
        assert_eq!(signed(other), PackError::Damaged);
        for at in [44, entries + 12 * count] {
            let mut other = body.clone();
            other[at] = 0xff;
            assert_eq!(signed(other), PackError::Damaged);
        }
    }

    #[test]
    fn pack_holds_no_stretch_of_a_value() {
        let pack = pack_of(&[VALUE], Width::Bits(48));
        for stretch in VALUE.windows(4) {
            assert!(!pack.windows(4).any(|window| window == stretch));
        }
    }

    #[test]
    fn narrow_packs_are_as_wide_as_their_number_of_entries_asks_for() {
        assert_eq!([1, 2, 3, 1_000, 1 << 30].map(narrow_bits), [20, 21, 22, 30, 39]);
        let pack = pack_of(&[VALUE], Width::Narrow);
        let matcher = Matcher::parse(&pack, NOW, None).unwrap();
        let [found] = &matcher.search(VALUE, 0..VALUE.len())[..] else { panic!() };
        let finding = matcher.finding(found, Location::file("f"));
        assert_eq!(finding.rule, "managed-secret-candidate");
        assert_eq!(matcher.claim(found), None, "nobody asked for proofs");
    }

    #[test]
    fn what_was_found_is_proven_to_who_has_the_value() {
        let key = [9; 32];
        let matcher = matcher(VALUE).with_proofs(ProofKey::new(&key));
        for text in [VALUE.to_vec(), STANDARD.encode(VALUE).into_bytes()] {
            let [found] = &matcher.search(&text, 0..text.len())[..] else { panic!() };
            let claim = matcher.claim(found).unwrap();
            assert_eq!(claim.value, ID);
            assert!(ProofKey::new(&key).holds(&claim.proof, &ID, VALUE));
            assert!(!ProofKey::new(&key).holds(&claim.proof, &ID, b"Zr4Lw8Kp2Vn6Qx0Ty3Hs"));
        }
    }
}
