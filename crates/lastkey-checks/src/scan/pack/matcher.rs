//! Reading a pack, and finding in text what it knows.
//!
//! Room      `checks`, inside `scan`.
//! Source    docs/formats/scan-pack.md.
//! Holds     Nothing of the text leaves: a match says where, and proves to the service, when it
//!           is to be asked, that its text was seen.

use std::{fmt, ops::Range};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::{
    About, CERTAIN_BITS, ENTRY_LEN, Keys, MAGIC, PackError, SIGNATURE_LEN, VALUE_LEN, ValueId,
    WIDTHS, narrowed,
    proof::{PROOF_LEN, ProofKey},
    stretch::{HEX_LEN, Kind, STRETCH_LEN, unhex},
    tag,
};
use crate::{
    finding::{Finding, Fingerprinter, Location, Mapping, Severity},
    report::RuleInfo,
};

/// A place in a text that a pack knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where, in bytes.
    pub span: Range<usize>,
    /// Which value.
    pub label: u32,
    proof: Option<[u8; PROOF_LEN]>,
}

/// What a scanner says to the service that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// Which value.
    pub value: ValueId,
    /// That it was seen.
    pub proof: [u8; PROOF_LEN],
}

/// A pack, ready to be matched against text.
pub struct Matcher {
    about: About,
    keys: Keys,
    entries: Vec<(u64, u32)>,
    values: Vec<ValueId>,
    /// One bit for each value of the first bits of a tag: most tags are not in here.
    sieve: Vec<u64>,
    sieve_bits: u32,
    proofs: Option<ProofKey>,
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
        if !WIDTHS.contains(&about.tag_bits) {
            return Err(PackError::Shape);
        }
        let entries = fields.entries(count)?;
        let values = fields.values()?;
        let is_known = |(_, label): &(u64, u32)| (*label as usize) < values.len();
        if fields.0.len() != 32 + SIGNATURE_LEN || !entries.iter().all(is_known) {
            return Err(PackError::Damaged);
        }
        if about.expires <= now {
            return Err(PackError::Expired);
        }
        Ok(Self::new(about, keys, entries, values))
    }

    fn new(about: About, keys: Keys, entries: Vec<(u64, u32)>, values: Vec<ValueId>) -> Self {
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
        Self { about, keys, entries, values, sieve, sieve_bits, proofs: None }
    }

    fn sieve_place(tag: u64, tag_bits: u8, sieve_bits: u32) -> (usize, u32) {
        let place = tag >> (u32::from(tag_bits) - sieve_bits);
        ((place >> 6) as usize, (place & 63) as u32)
    }

    /// The same, whose matches prove to the service what they have seen.
    #[must_use]
    pub fn with_proofs(self, key: ProofKey) -> Self {
        Self { proofs: Some(key), ..self }
    }

    /// What the pack says about itself.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// The places of a text that the pack knows and that begin within `part`.
    #[must_use]
    pub fn search(&self, text: &[u8], part: Range<usize>) -> Vec<Match> {
        let mut hunt = Hunt::new(self, part);
        hunt.raw(text);
        hunt.hex(text, |span| span);
        let mut letters = 0_usize;
        for (at, byte) in text.iter().enumerate() {
            if sextet(*byte).is_some() {
                letters += 1;
            } else {
                hunt.base64(text, at - letters..at);
                letters = 0;
            }
        }
        hunt.base64(text, text.len() - letters..text.len());
        hunt.end()
    }

    fn look_up(&self, kind: Kind, batch: &mut Batch, found: &mut Vec<Match>) {
        let mut blocks = batch.stretches.concat();
        // INVARIANT: whole blocks under a valid key always encrypt.
        if self.keys.of(kind).encrypt(&mut blocks).is_ok() {
            let (blocks, _) = blocks.as_chunks::<STRETCH_LEN>();
            for ((block, span), stretch) in blocks.iter().zip(&batch.spans).zip(&batch.stretches) {
                let tag = narrowed(tag(block), self.about.tag_bits);
                let (word, bit) = Self::sieve_place(tag, self.about.tag_bits, self.sieve_bits);
                if self.sieve.get(word).is_some_and(|word| (word >> bit) & 1 == 1) {
                    let first = self.entries.partition_point(|(known, _)| *known < tag);
                    let same =
                        self.entries.iter().skip(first).take_while(|(known, _)| *known == tag);
                    found.extend(same.map(|(_, label)| Match {
                        span: span.clone(),
                        label: *label,
                        proof: self.prove(*label, kind, stretch),
                    }));
                }
            }
        }
        batch.spans.clear();
        batch.stretches.clear();
    }

    fn prove(
        &self,
        label: u32,
        kind: Kind,
        stretch: &[u8; STRETCH_LEN],
    ) -> Option<[u8; PROOF_LEN]> {
        let key = self.proofs.as_ref()?;
        self.values.get(label as usize).map(|value| key.prove(value, kind, stretch))
    }

    /// What to ask the service about a match; none unless the matcher makes proofs.
    #[must_use]
    pub fn claim(&self, found: &Match) -> Option<Claim> {
        let value = *self.values.get(found.label as usize)?;
        found.proof.map(|proof| Claim { value, proof })
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

/// A finding that the service has confirmed. `subject` names the secret to who may know it.
#[must_use]
pub fn confirmed(finding: Finding, subject: Option<(String, String)>) -> Finding {
    let [rule, _] = rule_infos();
    let evidence = match &subject {
        Some((_, words)) => format!("{}; the key service confirms it: {words}", finding.evidence),
        None => format!("{}; the key service confirms it", finding.evidence),
    };
    Finding {
        rule: rule.id,
        severity: rule.severity,
        title: rule.title,
        subject: subject.map(|(name, _)| name).or(finding.subject),
        evidence,
        fix: rule.fix.into(),
        ..finding
    }
}

/// One search through a text.
struct Hunt<'m> {
    matcher: &'m Matcher,
    part: Range<usize>,
    raw: Batch,
    decoded: Batch,
    found: Vec<Match>,
}

/// Stretches that wait to be looked up, each with the place that it was read from.
#[derive(Default)]
struct Batch {
    spans: Vec<Range<usize>>,
    stretches: Vec<[u8; STRETCH_LEN]>,
}

impl<'m> Hunt<'m> {
    fn new(matcher: &'m Matcher, part: Range<usize>) -> Self {
        let (raw, decoded) = (Batch::default(), Batch::default());
        Self { matcher, part, raw, decoded, found: Vec::new() }
    }

    fn push(&mut self, kind: Kind, span: Range<usize>, stretch: [u8; STRETCH_LEN]) {
        /// Blocks that are encrypted in one call.
        const BATCH: usize = 1_024;
        if !self.part.contains(&span.start) {
            return;
        }
        let batch = match kind {
            Kind::Raw => &mut self.raw,
            Kind::Decoded => &mut self.decoded,
        };
        batch.spans.push(span);
        batch.stretches.push(stretch);
        if batch.spans.len() >= BATCH {
            self.matcher.look_up(kind, batch, &mut self.found);
        }
    }

    /// Every stretch of the text itself.
    fn raw(&mut self, text: &[u8]) {
        let mut dense = 0_usize;
        for (at, byte) in text.iter().enumerate() {
            dense = if *byte > b' ' { dense + 1 } else { 0 };
            if dense >= STRETCH_LEN {
                let span = at + 1 - STRETCH_LEN..at + 1;
                if let Some(stretch) = text.get(span.clone()).and_then(|text| text.first_chunk()) {
                    self.push(Kind::Raw, span, *stretch);
                }
            }
        }
    }

    /// Every stretch that hexadecimal digits of a text mean; `place` tells where they stand.
    fn hex(&mut self, text: &[u8], place: impl Fn(Range<usize>) -> Range<usize>) {
        let mut digits = 0_usize;
        for (at, byte) in text.iter().enumerate() {
            digits = if byte.is_ascii_hexdigit() { digits + 1 } else { 0 };
            if digits >= HEX_LEN {
                let span = at + 1 - HEX_LEN..at + 1;
                if let Some(stretch) = text.get(span.clone()).and_then(unhex) {
                    self.push(Kind::Decoded, place(span), stretch);
                }
            }
        }
    }

    /// Looks into a run of letters of base64. Where it began nobody knows when other letters
    /// stand before it, or the text begins with it.
    fn base64(&mut self, text: &[u8], run: Range<usize>) {
        /// Letters that hold a stretch, at least.
        const SHORTEST: usize = STRETCH_LEN * 4 / 3 + 1;
        /// Longer runs begin where they seem to.
        const LONGEST_UNSURE: usize = 1_024;
        let Some(letters) = text.get(run.clone()).filter(|run| run.len() >= SHORTEST) else {
            return;
        };
        let beginnings = if letters.len() > LONGEST_UNSURE && run.start > 0 { 1 } else { 4 };
        for skipped in 0..beginnings {
            let bytes = decode(letters.get(skipped..).unwrap_or_default());
            let place = |span: Range<usize>| {
                let letter = |at: usize| run.start + skipped + at * 4 / 3;
                letter(span.start)..(letter(span.end) + 1).min(run.end)
            };
            for (start, window) in bytes.windows(STRETCH_LEN).enumerate() {
                if let Some(stretch) = window.first_chunk() {
                    self.push(Kind::Decoded, place(start..start + STRETCH_LEN), *stretch);
                }
            }
            self.hex(&bytes, place);
        }
    }

    fn end(mut self) -> Vec<Match> {
        self.matcher.look_up(Kind::Raw, &mut self.raw, &mut self.found);
        self.matcher.look_up(Kind::Decoded, &mut self.decoded, &mut self.found);
        let mut found = self.found;
        found.sort_by_key(|found| (found.label, found.span.start));
        found.dedup_by(|next, kept| next.label == kept.label && next.span.start < kept.span.end);
        found.sort_by_key(|found| found.span.start);
        found
    }
}

/// What a letter of base64 stands for, in either alphabet.
const fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// The whole bytes that letters of base64 stand for (RFC 4648, either alphabet).
fn decode(letters: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(letters.len() * 3 / 4);
    let (mut bits, mut waiting) = (0_u32, 0_u32);
    for letter in letters {
        bits = bits << 6 | u32::from(sextet(*letter).unwrap_or_default());
        waiting += 6;
        if waiting >= 8 {
            waiting -= 8;
            let [.., byte] = (bits >> waiting).to_be_bytes();
            bytes.push(byte);
        }
    }
    bytes
}

struct Fields<'p>(&'p [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(PackError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    /// A count of things of this length that are all there.
    fn count(&self, claimed: u32, len: usize) -> Result<usize, PackError> {
        let count = usize::try_from(claimed).map_err(|_| PackError::Shape)?;
        let total = count.checked_mul(len).ok_or(PackError::Shape)?;
        if total <= self.0.len() { Ok(count) } else { Err(PackError::Damaged) }
    }

    fn entries(&mut self, claimed: u32) -> Result<Vec<(u64, u32)>, PackError> {
        let count = self.count(claimed, ENTRY_LEN)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((u64::from_be_bytes(self.array()?), u32::from_be_bytes(self.array()?)));
        }
        if entries.is_sorted() { Ok(entries) } else { Err(PackError::Damaged) }
    }

    fn values(&mut self) -> Result<Vec<ValueId>, PackError> {
        let claimed = u32::from_be_bytes(self.array()?);
        let count = self.count(claimed, VALUE_LEN)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let secret = self.array()?;
            values.push(ValueId { secret, version: u32::from_be_bytes(self.array()?) });
        }
        Ok(values)
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
            "let the key service confirm it (--confirm); if it is one, rotate it, then remove it here",
        ),
    ]
}
