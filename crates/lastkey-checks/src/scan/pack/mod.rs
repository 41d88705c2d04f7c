//! Scan packs: the values that a key service keeps, to be recognised by who must not know them.
//!
//! Room      `checks`, inside `scan`. Building is a pure function for the service; matching is
//!           part of every scan that is given a pack.
//! Source    docs/formats/scan-pack.md. AES is FIPS 197, Ed25519 RFC 8032.
//! Holds     A pack holds no value and no part of one: for one stretch of 16 bytes of each, a
//!           truncated AES of it under a key of the pack. Values that could be guessed are
//!           refused by [`Builder::add`].

use std::{fmt, ops::Range};

use aws_lc_rs::{
    cipher::{AES_128, EncryptingKey, UnboundCipherKey},
    signature::{ED25519, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

use crate::{
    finding::{Finding, Fingerprinter, Location, Mapping, Severity},
    report::RuleInfo,
};

const MAGIC: &[u8; 8] = b"LKSPACK\x01";
const HEADER_LEN: usize = 80;
const ENTRY_LEN: usize = 12;
const SIGNATURE_LEN: usize = 64;
/// Bytes of text that one entry stands for.
pub const STRETCH_LEN: usize = 16;
/// Hex digits that one entry of the second kind stands for.
const HEX_LEN: usize = 2 * STRETCH_LEN;
/// From this width of tags on, what matches is a finding; below it has to be confirmed.
const CERTAIN_BITS: u8 = 40;
/// A stretch that could be found by fewer guesses than two to this is not put into a pack.
const MIN_STRENGTH_BITS: f64 = 80.0;

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

/// Why bytes are no pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Not a scan pack, or of a later version.
    #[error("this is no scan pack of a version that is known here")]
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

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It stands in the pack, with this many ways to write it.
    Ways(usize),
    /// It could be guessed: it may only be looked for inside the service.
    Guessable,
}

/// A pack that is being made.
pub struct Builder {
    about: About,
    keys: Keys,
    entries: Vec<(u64, u32)>,
}

/// The two keys of a pack: of raw stretches and of stretches written in hex.
struct Keys {
    raw: EncryptingKey,
    hex: EncryptingKey,
    /// As the pack carries them: whoever has a pack has them, they protect nothing alone.
    carried: [u8; 32],
}

impl Keys {
    fn new(carried: [u8; 32]) -> Result<Self, PackError> {
        let (raw, hex) = carried.split_at(16);
        let key = |bytes| {
            let key = UnboundCipherKey::new(&AES_128, bytes).map_err(|_| PackError::Shape)?;
            EncryptingKey::ecb(key).map_err(|_| PackError::Shape)
        };
        Ok(Self { raw: key(raw)?, hex: key(hex)?, carried })
    }
}

/// Truncates the first bytes of each block to tags.
fn tags(key: &EncryptingKey, blocks: &mut [u8], tag_bits: u8) -> Vec<u64> {
    // INVARIANT: whole blocks under a valid key always encrypt.
    if key.encrypt(blocks).is_err() {
        return Vec::new();
    }
    let (blocks, _) = blocks.as_chunks::<STRETCH_LEN>();
    blocks.iter().map(|block| truncate(block, tag_bits)).collect()
}

fn truncate(block: &[u8; STRETCH_LEN], tag_bits: u8) -> u64 {
    let head = block.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(head) >> (64 - u32::from(tag_bits))
}

impl Builder {
    /// Begins a pack under fresh random keys, `keys`, drawn by the caller for this pack alone.
    ///
    /// # Errors
    /// [`PackError::Shape`] for a width of tags that no pack may have.
    pub fn new(about: About, keys: [u8; 32]) -> Result<Self, PackError> {
        if !(16..=64).contains(&about.tag_bits) {
            return Err(PackError::Shape);
        }
        Ok(Self { about, keys: Keys::new(keys)?, entries: Vec::new() })
    }

    /// Adds a value in all the ways in which it may be written: as it is, in hex, in base64 at
    /// each of three offsets, with `%` and with JSON escapes. `label` names it to the service.
    pub fn add(&mut self, value: &[u8], label: u32) -> Added {
        let before = self.entries.len();
        if strongest(value).is_none() && hex_run(value).is_none() {
            return Added::Guessable;
        }
        for way in ways(value) {
            if let Some(stretch) = strongest(&way) {
                self.push(stretch, label, false, before);
            } else if let Some(bytes) = hex_run(&way) {
                self.push(bytes, label, true, before);
            }
        }
        if let Some(head) = value.first_chunk::<STRETCH_LEN>() {
            self.push(*head, label, true, before);
        }
        Added::Ways(self.entries.len() - before)
    }

    /// `before`: where the entries of this value begin, among which none stands twice.
    fn push(&mut self, mut stretch: [u8; STRETCH_LEN], label: u32, is_hex: bool, before: usize) {
        let key = if is_hex { &self.keys.hex } else { &self.keys.raw };
        for tag in tags(key, &mut stretch, self.about.tag_bits) {
            if !self.entries.iter().skip(before).any(|known| *known == (tag, label)) {
                self.entries.push((tag, label));
            }
        }
    }

    /// The pack. `sign` makes an Ed25519 signature, `signer` is its public key.
    ///
    /// # Errors
    /// [`PackError::Shape`] when there are too many entries.
    pub fn finish(
        mut self,
        signer: [u8; 32],
        sign: &mut dyn FnMut(&[u8]) -> [u8; SIGNATURE_LEN],
    ) -> Result<Vec<u8>, PackError> {
        self.entries.sort_unstable();
        self.entries.dedup();
        let count = u32::try_from(self.entries.len()).map_err(|_| PackError::Shape)?;
        let mut pack = Vec::with_capacity(HEADER_LEN + self.entries.len() * ENTRY_LEN + 64);
        pack.extend_from_slice(MAGIC);
        pack.extend_from_slice(&self.about.id);
        pack.extend_from_slice(&self.about.created.to_be_bytes());
        pack.extend_from_slice(&self.about.expires.to_be_bytes());
        pack.extend_from_slice(&u16::from(self.about.tag_bits).to_be_bytes());
        pack.extend_from_slice(&[0; 2]);
        pack.extend_from_slice(&count.to_be_bytes());
        pack.extend_from_slice(&self.keys.carried);
        for (tag, label) in &self.entries {
            pack.extend_from_slice(&tag.to_be_bytes());
            pack.extend_from_slice(&label.to_be_bytes());
        }
        pack.extend_from_slice(&signer);
        let signature = sign(&pack);
        pack.extend_from_slice(&signature);
        Ok(pack)
    }
}

/// All ways to write a value that scanned files may hold.
fn ways(value: &[u8]) -> Vec<Vec<u8>> {
    let mut ways = vec![value.to_vec()];
    for offset in 0..3_usize {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(value);
        // Characters that depend on what stands before or behind are cut off.
        let first = (offset * 8).div_ceil(6);
        let whole = shifted.len() * 8 / 6;
        for text in [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)] {
            ways.extend(text.get(first..whole).map(|text| text.as_bytes().to_vec()));
        }
    }
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let percent = value.iter().flat_map(|byte| match byte {
        byte if is_unreserved(*byte) => vec![*byte],
        byte => format!("%{byte:02X}").into_bytes(),
    });
    ways.push(percent.collect());
    let json = serde_json::to_string(&String::from_utf8_lossy(value)).unwrap_or_default();
    ways.push(json.trim_matches('"').as_bytes().to_vec());
    ways.sort();
    ways.dedup();
    ways
}

/// The 16 bytes that are hardest to guess, if they are hard enough and hold no white space.
fn strongest(text: &[u8]) -> Option<[u8; STRETCH_LEN]> {
    let (stretches, best) = (text.windows(STRETCH_LEN), MIN_STRENGTH_BITS);
    let mut chosen = (best, None);
    for stretch in stretches.filter(|stretch| stretch.iter().all(|byte| *byte > b' ')) {
        let strength = strength(stretch);
        if strength >= chosen.0 && (chosen.1.is_none() || strength > chosen.0) {
            chosen = (strength, stretch.try_into().ok());
        }
    }
    chosen.1
}

/// An estimate from below of how many guesses a stretch takes, as a power of two: what the
/// kinds of its characters allow, less what repeats and what reads like words.
#[expect(clippy::cast_precision_loss, reason = "a stretch has sixteen bytes")]
fn strength(stretch: &[u8]) -> f64 {
    let has = |is_kind: &dyn Fn(u8) -> bool| stretch.iter().any(|byte| is_kind(*byte));
    let is_hex = stretch.iter().all(u8::is_ascii_hexdigit);
    let kinds: [(bool, f64); 5] = [
        (has(&|byte| byte.is_ascii_digit()), 10.0),
        (has(&|byte| byte.is_ascii_lowercase()), 26.0),
        (has(&|byte| byte.is_ascii_uppercase()), 26.0),
        (has(&|byte| byte.is_ascii_punctuation()), 8.0),
        (has(&|byte| !byte.is_ascii()), 128.0),
    ];
    let alphabet: f64 = kinds.iter().filter(|(is_there, _)| *is_there).map(|(_, size)| size).sum();
    let alphabet = if is_hex { 16.0 } else { alphabet };
    let mut different = stretch.to_vec();
    different.sort_unstable();
    different.dedup();
    let variety = different.len() as f64 / stretch.len() as f64;
    let words = super::entropy::wordiness(stretch).unwrap_or(0.0);
    let word_share = if words > 0.45 { 0.4 } else { 1.0 };
    stretch.len() as f64 * alphabet.max(1.0).log2() * variety.clamp(0.4, 1.0).sqrt() * word_share
}

/// The first 32 hex digits of a text that are not few different ones, as the bytes they mean.
fn hex_run(text: &[u8]) -> Option<[u8; STRETCH_LEN]> {
    const FEWEST_DIFFERENT: usize = 9;
    let digits = text.windows(HEX_LEN).find(|window| window.iter().all(u8::is_ascii_hexdigit))?;
    let mut different = digits.to_ascii_lowercase();
    different.sort_unstable();
    different.dedup();
    (different.len() >= FEWEST_DIFFERENT).then(|| unhex(digits)).flatten()
}

fn unhex(digits: &[u8]) -> Option<[u8; STRETCH_LEN]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, _) = digits.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok())
        .collect();
    bytes?.try_into().ok()
}

/// A place in a text that a pack knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where, in bytes.
    pub span: Range<usize>,
    /// The value, by the label that the service gave it.
    pub label: u32,
}

/// A pack, ready to be matched against text.
pub struct Matcher {
    about: About,
    keys: Keys,
    entries: Vec<(u64, u32)>,
    /// One bit for each value of the first bits of a tag: most tags are not in here.
    sieve: Vec<u64>,
    sieve_bits: u32,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher {{ about: {:?}, entries: {} }}", self.about, self.entries.len())
    }
}

impl Matcher {
    /// Reads a pack. `now` is in seconds since 1970-01-01 UTC; `signer` is the public key that
    /// must have signed it, when it is known here.
    ///
    /// # Errors
    /// [`PackError`], by what is wrong.
    pub fn parse(pack: &[u8], now: u64, signer: Option<&[u8; 32]>) -> Result<Self, PackError> {
        let body = pack.strip_prefix(MAGIC).ok_or(PackError::Unknown)?;
        let (signed, signature) =
            pack.split_last_chunk::<SIGNATURE_LEN>().ok_or(PackError::Damaged)?;
        let (_, carried_signer) = signed.split_last_chunk::<32>().ok_or(PackError::Damaged)?;
        if signer.is_some_and(|expected| expected != carried_signer) {
            return Err(PackError::Signature);
        }
        UnparsedPublicKey::new(&ED25519, carried_signer)
            .verify(signed, signature)
            .map_err(|_| PackError::Signature)?;
        let mut fields = Fields(body);
        let about = About {
            id: fields.array()?,
            created: u64::from_be_bytes(fields.array()?),
            expires: u64::from_be_bytes(fields.array()?),
            tag_bits: u8::try_from(u16::from_be_bytes(fields.array()?))
                .map_err(|_| PackError::Shape)?,
        };
        let _reserved: [u8; 2] = fields.array()?;
        let count = u32::from_be_bytes(fields.array()?);
        let keys = Keys::new(fields.array()?)?;
        if !(16..=64).contains(&about.tag_bits) {
            return Err(PackError::Shape);
        }
        let entries = fields.entries(count)?;
        if about.expires <= now {
            return Err(PackError::Expired);
        }
        Ok(Self::new(about, keys, entries))
    }

    fn new(about: About, keys: Keys, entries: Vec<(u64, u32)>) -> Self {
        /// Bits of the sieve for each entry: one tag in this many gets through by chance.
        const SPARSENESS: usize = 64;
        let wanted = (entries.len().max(1) * SPARSENESS).next_power_of_two().ilog2();
        let sieve_bits = wanted.clamp(6, u32::from(about.tag_bits).min(26));
        let mut sieve = vec![0_u64; 1 << (sieve_bits - 6)];
        for (tag, _) in &entries {
            let (word, bit) = Self::sieve_place(*tag, about.tag_bits, sieve_bits);
            if let Some(word) = sieve.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        Self { about, keys, entries, sieve, sieve_bits }
    }

    fn sieve_place(tag: u64, tag_bits: u8, sieve_bits: u32) -> (usize, u32) {
        let place = tag >> (u32::from(tag_bits) - sieve_bits);
        ((place >> 6) as usize, (place & 63) as u32)
    }

    /// What the pack says about itself.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// The places of a text that the pack knows and that begin within `part`.
    #[must_use]
    pub fn search(&self, text: &[u8], part: Range<usize>) -> Vec<Match> {
        /// Blocks that are encrypted in one call.
        const BATCH: usize = 1_024;
        let mut found = Vec::new();
        let mut raw = Batch { starts: Vec::with_capacity(BATCH), blocks: Vec::new() };
        let mut hex = Batch { starts: Vec::new(), blocks: Vec::new() };
        let (mut dense, mut digits) = (0_usize, 0_usize);
        for (at, byte) in text.iter().enumerate() {
            dense = if *byte > b' ' { dense + 1 } else { 0 };
            digits = if byte.is_ascii_hexdigit() { digits + 1 } else { 0 };
            if dense >= STRETCH_LEN {
                raw.push(text, at + 1 - STRETCH_LEN, &part);
            }
            if digits >= HEX_LEN {
                let start = at + 1 - HEX_LEN;
                if part.contains(&start)
                    && let Some(bytes) = text.get(start..=at).and_then(unhex)
                {
                    hex.starts.push(start);
                    hex.blocks.extend_from_slice(&bytes);
                }
            }
            if raw.starts.len() >= BATCH {
                self.look_up(&self.keys.raw, &mut raw, STRETCH_LEN, &mut found);
            }
            if hex.starts.len() >= BATCH {
                self.look_up(&self.keys.hex, &mut hex, HEX_LEN, &mut found);
            }
        }
        self.look_up(&self.keys.raw, &mut raw, STRETCH_LEN, &mut found);
        self.look_up(&self.keys.hex, &mut hex, HEX_LEN, &mut found);
        found.sort_by_key(|found| (found.label, found.span.start));
        found.dedup_by(|next, kept| next.label == kept.label && next.span.start < kept.span.end);
        found.sort_by_key(|found| found.span.start);
        found
    }

    fn look_up(&self, key: &EncryptingKey, batch: &mut Batch, len: usize, found: &mut Vec<Match>) {
        if key.encrypt(&mut batch.blocks).is_ok() {
            let (blocks, _) = batch.blocks.as_chunks::<STRETCH_LEN>();
            for (start, block) in batch.starts.iter().zip(blocks) {
                let tag = truncate(block, self.about.tag_bits);
                let (word, bit) = Self::sieve_place(tag, self.about.tag_bits, self.sieve_bits);
                if self.sieve.get(word).is_some_and(|word| (word >> bit) & 1 == 1) {
                    let first = self.entries.partition_point(|(known, _)| *known < tag);
                    let same =
                        self.entries.iter().skip(first).take_while(|(known, _)| *known == tag);
                    let spans =
                        same.map(|(_, label)| Match { span: *start..start + len, label: *label });
                    found.extend(spans);
                }
            }
        }
        batch.starts.clear();
        batch.blocks.clear();
    }

    /// A match as a finding.
    #[must_use]
    pub fn finding(&self, found: &Match, location: Location) -> Finding {
        let [certain, candidate] = rule_infos();
        let rule = if self.about.tag_bits >= CERTAIN_BITS { certain } else { candidate };
        let id: String = self.about.id.iter().map(|byte| format!("{byte:02x}")).collect();
        let label = found.label.to_be_bytes();
        Finding {
            fingerprint: Fingerprinter::unkeyed().of(&[rule.id.as_bytes(), &self.about.id, &label]),
            rule: rule.id,
            severity: rule.severity,
            title: rule.title,
            subject: Some(format!("ScanPack/{id}/{}", found.label)),
            evidence: format!("entry {} of scan pack {id}", found.label),
            location,
            why: rule.why.into(),
            fix: rule.fix.into(),
            mappings: rule.mappings,
        }
    }
}

struct Batch {
    starts: Vec<usize>,
    blocks: Vec<u8>,
}

impl Batch {
    fn push(&mut self, text: &[u8], start: usize, part: &Range<usize>) {
        if part.contains(&start)
            && let Some(stretch) = text.get(start..start + STRETCH_LEN)
        {
            self.starts.push(start);
            self.blocks.extend_from_slice(stretch);
        }
    }
}

struct Fields<'p>(&'p [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(PackError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The entries; what is left must be the key of the signer and the signature.
    fn entries(&mut self, count: u32) -> Result<Vec<(u64, u32)>, PackError> {
        let count = usize::try_from(count).map_err(|_| PackError::Shape)?;
        let len = count.checked_mul(ENTRY_LEN).ok_or(PackError::Shape)?;
        if self.0.len() != len + 32 + SIGNATURE_LEN {
            return Err(PackError::Damaged);
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((u64::from_be_bytes(self.array()?), u32::from_be_bytes(self.array()?)));
        }
        if entries.is_sorted() { Ok(entries) } else { Err(PackError::Damaged) }
    }
}

/// The rules under which matches are reported: what is certain, and what is to be confirmed.
#[must_use]
pub fn rule_infos() -> [RuleInfo; 2] {
    let rule = |id: &str, title: &str, severity, fix: &str| RuleInfo {
        id: id.to_owned(),
        title: title.to_owned(),
        severity,
        why: "the key service keeps this value so that it lies nowhere else; here it can be read \
              by whoever reads the file"
            .to_owned(),
        fix: fix.to_owned(),
        mappings: vec![Mapping::new("CWE", "798")],
    };
    [
        rule(
            "managed-secret",
            "A secret of the key service lies here in the clear",
            Severity::Critical,
            "rotate the secret with this label in the key service, then remove it here",
        ),
        rule(
            "managed-secret-candidate",
            "Perhaps a secret of the key service lies here in the clear",
            Severity::Medium,
            "let the key service confirm it; if it is one, rotate it, then remove it here",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::{About, Added, Builder, Matcher, PackError, ways};

    const VALUE: &[u8] = b"kT9vQ2xL+mZ7wRb4NpY3c/8sHd";
    const NOW: u64 = 1_000;

    fn pack_of(values: &[&[u8]], tag_bits: u8) -> (Vec<u8>, [u8; 32]) {
        let about = About { id: [7; 16], created: 900, expires: 2_000, tag_bits };
        let mut builder = Builder::new(about, std::array::from_fn(|at| at as u8)).unwrap();
        for (label, value) in (1..).zip(values) {
            assert!(matches!(builder.add(value, label), Added::Ways(_)));
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let signer: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let mut sign = |body: &[u8]| pair.sign(body).as_ref().try_into().unwrap();
        (builder.finish(signer, &mut sign).unwrap(), signer)
    }

    fn labels(matcher: &Matcher, text: &[u8]) -> Vec<u32> {
        matcher.search(text, 0..text.len()).iter().map(|found| found.label).collect()
    }

    #[test]
    fn value_is_found_however_it_is_written() {
        let (pack, signer) = pack_of(&[VALUE], 48);
        let matcher = Matcher::parse(&pack, NOW, Some(&signer)).unwrap();
        let text = |way: &[u8]| [b"x=\"".as_slice(), way, b"\";\n"].concat();
        for way in ways(VALUE) {
            assert_eq!(labels(&matcher, &text(&way)), [1], "{}", String::from_utf8_lossy(&way));
        }
        let hex: String = VALUE.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(labels(&matcher, hex.as_bytes()), [1]);
        for lead in ["", "a", "ab", "abc"] {
            let whole = [lead.as_bytes(), VALUE, b"tail"].concat();
            assert_eq!(labels(&matcher, STANDARD.encode(whole).as_bytes()), [1], "{lead}");
        }
        assert!(labels(&matcher, b"kT9vQ2xL+mZ7wRb and nothing more of it").is_empty());
    }

    #[test]
    fn hex_value_is_found_in_both_cases() {
        let value = b"9f86d081884c7d659a2feaa0c55ad015";
        let (pack, _) = pack_of(&[value], 48);
        let matcher = Matcher::parse(&pack, NOW, None).unwrap();
        assert_eq!(labels(&matcher, b"key: 9f86d081884c7d659a2feaa0c55ad015"), [1]);
        assert_eq!(labels(&matcher, b"key: 9F86D081884C7D659A2FEAA0C55AD015"), [1]);
        assert!(labels(&matcher, b"key: 9f86d081884c7d659a2feaa0c55ad016").is_empty());
    }

    #[test]
    fn guessable_values_stay_out() {
        let about = About { id: [0; 16], created: 0, expires: 1, tag_bits: 48 };
        let mut builder = Builder::new(about, [0; 32]).unwrap();
        for value in [
            &b"short"[..],
            b"correct-horse-battery-staple",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"00000000000000000000000000000000",
            b"20261123-20261123-20261123",
            b"my database password is this",
        ] {
            assert_eq!(
                builder.add(value, 1),
                Added::Guessable,
                "{}",
                String::from_utf8_lossy(value)
            );
        }
    }

    #[test]
    fn pack_that_was_touched_is_refused() {
        let (pack, signer) = pack_of(&[VALUE], 16);
        assert_eq!(Matcher::parse(&pack, 2_000, None).unwrap_err(), PackError::Expired);
        assert_eq!(Matcher::parse(&pack, NOW, Some(&[0; 32])).unwrap_err(), PackError::Signature);
        assert_eq!(Matcher::parse(b"LKSPACK\x02", NOW, None).unwrap_err(), PackError::Unknown);
        for at in 8..pack.len() {
            let mut other = pack.clone();
            other[at] ^= 1;
            assert!(Matcher::parse(&other, NOW, Some(&signer)).is_err(), "{at}");
            assert!(Matcher::parse(&pack[..at], NOW, None).is_err(), "{at}");
        }
    }

    #[test]
    fn pack_holds_no_stretch_of_a_value() {
        let (pack, _) = pack_of(&[VALUE], 48);
        for stretch in VALUE.windows(4) {
            assert!(!pack.windows(4).any(|window| window == stretch));
        }
    }
}
