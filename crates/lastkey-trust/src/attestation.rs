//! What the TPM of a node says: that it holds a key, and that it signed now, for one request.
//!
//! Room      `trust`. Which key is trusted, and for which node, is the business of the caller.
//! Source    `docs/formats/node-attestation.md`; TCG TPM 2.0 Library, part 2: 10.12 (attestation),
//!           11.3 (signatures), 12.2 (public areas).
//! Holds     the key is one that signs only what its TPM made, and never left it; its name covers
//!           that. What it signed has the challenge in it, the node and the request for a
//!           certificate, so it is good for nothing else and for two minutes.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use lastkey_core::ids::Name;
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::{sha256, sha256_of};
use lastkey_secret::ct_eq;

use crate::refusal::Refusal;
use crate::session::{EpochKeys, EpochRing};

/// How long a challenge is good, in seconds.
pub const CHALLENGE_SECS: u64 = 120;

/// Longest part of an evidence that is read, in bytes.
pub const MAX_PART_LEN: usize = 1_024;

/// Clocks of servers may be apart by this much, in seconds.
pub const CLOCK_SKEW_SECS: u64 = 5;

/// Length of a challenge: number of the epoch, time, tag.
const CHALLENGE_LEN: usize = 4 + 8 + 32;

const LABEL: &[u8] = b"lastkey node attestation v1\0";

const ECC: u16 = 0x23;
const SHA256: u16 = 0x0b;
const NONE: u16 = 0x10;
const ECDSA: u16 = 0x18;
const P256: u16 = 0x03;
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const SIGN: u32 = 1 << 18;
/// Made in the TPM, cannot leave it, signs nothing but what the TPM says itself; opened by a
/// password, and not locked by wrong ones. Nothing else: a key is one of the template.
const ATTRIBUTES: u32 =
    FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN;

/// `TPM_GENERATED`, with which everything begins that a TPM says itself.
const GENERATED: u32 = 0xff54_4347;
const QUOTE: u16 = 0x8018;

/// What a node shows.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The public area of the key (`TPMT_PUBLIC`).
    pub public: &'a [u8],
    /// What was signed (`TPMS_ATTEST`).
    pub attestation: &'a [u8],
    /// The signature (`TPMT_SIGNATURE`).
    pub signature: &'a [u8],
}

/// What a TPM is given to sign for a request for a certificate (PKCS #10, in DER).
#[must_use]
pub fn bound_to(challenge: &[u8], node: &Name, request: &[u8]) -> [u8; 32] {
    let node = node.as_str().as_bytes();
    sha256_of(&[LABEL, &sha256(challenge), &sha256(node), &sha256(request)])
}

/// The name of the key of a public area, without the algorithm in front: SHA-256 of it.
#[must_use]
pub fn name_of(public: &[u8]) -> [u8; 32] {
    sha256(public)
}

/// The name of the key that has signed a quote over `bound`.
///
/// # Errors
/// [`Refusal::TooLong`], [`Refusal::Malformed`]; [`Refusal::UsageNotAllowed`] for a key that is not
/// of the template, or a quote of registers; [`Refusal::NonceMismatch`] for a quote over something else;
/// [`Refusal::BadSignature`].
pub fn verify(evidence: &Evidence<'_>, bound: &[u8; 32]) -> Result<[u8; 32], Refusal> {
    let Evidence { public, attestation, signature } = *evidence;
    if [public, attestation, signature].iter().any(|part| part.len() > MAX_PART_LEN) {
        return Err(Refusal::TooLong);
    }
    let point = point_of(public)?;
    let said = data_of(attestation)?;
    let signature = signature_of(signature)?;
    if said != bound {
        return Err(Refusal::NonceMismatch);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(attestation, &signature)
        .map_err(|_| Refusal::BadSignature)?;
    Ok(name_of(public))
}

/// The point of a key, uncompressed, from its public area.
fn point_of(public: &[u8]) -> Result<[u8; 65], Refusal> {
    let mut reader = Reader(public);
    if (reader.u16()?, reader.u16()?) != (ECC, SHA256) {
        return Err(Refusal::AlgorithmNotAllowed);
    }
    let (attributes, policy) = (reader.u32()?, reader.sized()?);
    if attributes != ATTRIBUTES || !policy.is_empty() {
        return Err(Refusal::UsageNotAllowed);
    }
    // No symmetric algorithm; scheme and its hash; curve; no key derivation.
    let kind = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if kind != [NONE, ECDSA, SHA256, P256, NONE] {
        return Err(Refusal::AlgorithmNotAllowed);
    }
    let (x, y) = (reader.number()?, reader.number()?);
    reader.end()?;
    let mut point = [4; 65];
    let (_, both) = point.split_at_mut(1);
    both.copy_from_slice(&join(&x, &y));
    Ok(point)
}

/// What the TPM was given to sign.
fn data_of(attestation: &[u8]) -> Result<&[u8], Refusal> {
    let mut reader = Reader(attestation);
    if (reader.u32()?, reader.u16()?) != (GENERATED, QUOTE) {
        return Err(Refusal::UsageNotAllowed);
    }
    let _signer = reader.sized()?;
    let data = reader.sized()?;
    // Clock: milliseconds, resets, restarts, whether it is safe; version of the firmware.
    reader.take(8 + 4 + 4 + 1 + 8)?;
    // Which registers: none. A quote of some was asked for by somebody else.
    if reader.u32()? != 0 {
        return Err(Refusal::UsageNotAllowed);
    }
    let _registers = reader.sized()?;
    reader.end()?;
    Ok(data)
}

/// r ‖ s.
fn signature_of(signature: &[u8]) -> Result<[u8; 64], Refusal> {
    let mut reader = Reader(signature);
    if (reader.u16()?, reader.u16()?) != (ECDSA, SHA256) {
        return Err(Refusal::AlgorithmNotAllowed);
    }
    let (r, s) = (reader.number()?, reader.number()?);
    reader.end()?;
    Ok(join(&r, &s))
}

fn join(front: &[u8; 32], back: &[u8; 32]) -> [u8; 64] {
    let mut both = [0; 64];
    let (left, right) = both.split_at_mut(32);
    left.copy_from_slice(front);
    right.copy_from_slice(back);
    both
}

/// Structures of a TPM being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_be_bytes)
    }

    /// A buffer with its length in front (`TPM2B`).
    fn sized(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A number of 256 bits; older TPMs leave leading zeros out.
    fn number(&mut self) -> Result<[u8; 32], Refusal> {
        let bytes = self.sized()?;
        let mut number = [0; 32];
        let pad = number.len().checked_sub(bytes.len()).ok_or(Refusal::Malformed)?;
        number.get_mut(pad..).ok_or(Refusal::Malformed)?.copy_from_slice(bytes);
        Ok(number)
    }

    fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::Malformed) }
    }
}

impl EpochKeys {
    /// A challenge for the TPM of a node. It is kept nowhere: every server of these epochs knows
    /// it again.
    #[must_use]
    pub fn challenge(&self, node: &Name, now: Timestamp) -> Vec<u8> {
        let (epoch, at) = (self.number().to_be_bytes(), now.0.to_be_bytes());
        let tag = self.challenge_tag(node, &at);
        [&epoch[..], &at, tag.as_ref()].concat()
    }

    fn challenge_tag(&self, node: &Name, at: &[u8; 8]) -> hmac::Tag {
        hmac::sign(self.challenges(), &[&at[..], node.as_str().as_bytes()].concat())
    }
}

impl EpochRing {
    /// Whether a challenge was made here, for this node, and is not over.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::Expired`], [`Refusal::NotYetValid`]; and
    /// [`Refusal::NonceMismatch`] for one that was made elsewhere, or for another node.
    pub fn check_challenge(
        &self,
        node: &Name,
        challenge: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if challenge.len() != CHALLENGE_LEN {
            return Err(Refusal::Malformed);
        }
        let mut reader = Reader(challenge);
        let (epoch, at) = (reader.u32()?, reader.array::<8>()?);
        let keys = self.find(epoch).ok_or(Refusal::NonceMismatch)?;
        if !ct_eq(keys.challenge_tag(node, &at).as_ref(), reader.0) {
            return Err(Refusal::NonceMismatch);
        }
        let at = u64::from_be_bytes(at);
        if now.0 >= at.saturating_add(CHALLENGE_SECS) {
            return Err(Refusal::Expired);
        }
        if at > now.0.saturating_add(CLOCK_SKEW_SECS) { Err(Refusal::NotYetValid) } else { Ok(()) }
    }
}
