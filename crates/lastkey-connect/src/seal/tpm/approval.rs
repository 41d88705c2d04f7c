//! Approvals: a person's signed word that a seal may open in this state of the machine.
//!
//! Room      `connect`. Made and signed on a machine that never sees the TPM.
//! Source    docs/formats/device-seals.md; TCG TPM 2.0 Library, part 3: PolicyPCR, PolicyNV,
//!           PolicyAuthorize (how each extends the policy digest).
//! Holds     an approval is public, and worth nothing for another seal, TPM or state: the TPM
//!           checks the signature, the registers and the counter itself.

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretVec;
use serde::{Deserialize, Serialize};

use super::commands::{NameBytes, UNSIGNED_LE, counter_name, name_of, selection_of, verifying_key};
use super::device::code;
use crate::seal::wire::Out;
use crate::seal::{hex_of, parse_hex};

const STATE_FORMAT: &str = "lastkey-tpm2-state/1";
const APPROVAL_FORMAT: &str = "lastkey-tpm2-approval/1";
/// The registers of a PC (PCR); 16 and 23 can be reset by any program.
const REGISTERS: u8 = 24;
const RESETTABLE: [u8; 2] = [16, 23];
/// How far one approval may raise the minimum; the counter is raised step by step.
const MAX_RAISE: u64 = 256;
/// The same, as a number of steps.
pub(super) const MAX_STEPS: usize = 256;

/// Why there is no approval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// It does not parse.
    #[error("this is no {0}: {1}")]
    Malformed(&'static str, String),
    /// No such registers.
    #[error("PCRs are numbers from 0 to 23; 16 and 23 can be reset by any program")]
    Registers,
    /// A value was given for a register that is not among the bound ones.
    #[error("PCR {0} is not among the PCRs of this state")]
    NotBound(u8),
    /// The version lies below the counter, or far above.
    #[error("the version must be {0} to {1}: the TPM's counter, and not far above it")]
    Version(u64, u64),
    /// The key is no P-256 key in PKCS#8.
    #[error("the approval key must be a P-256 private key in PKCS#8")]
    Key,
    /// The signature does not hold.
    #[error("the signature of the approval does not hold")]
    Signature,
}

/// What stays the same for all approvals of a seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Name of the TPM's storage key, to which sessions are pinned: 34 bytes in hexadecimal.
    parent: Hex<34>,
    /// NV index of the counter of the minimum approved version.
    counter_index: u32,
    /// Random, so that two seals of one TPM have approvals of their own.
    salt: Hex<16>,
}

impl Anchor {
    pub(super) fn new(parent: NameBytes, counter_index: u32, salt: [u8; 16]) -> Self {
        Self { parent: Hex(parent), counter_index, salt: Hex(salt) }
    }

    pub(super) fn parent(&self) -> &NameBytes {
        &self.parent.0
    }

    pub(super) fn counter_index(&self) -> u32 {
        self.counter_index
    }

    /// What signatures are bound to beside a policy (`policyRef`).
    pub(super) fn reference(&self) -> [u8; 32] {
        let index = self.counter_index.to_be_bytes();
        sha256_of(&[b"lastkey/tpm2-seal/v1", &self.parent.0, &index, &self.salt.0])
    }
}

/// The state of a machine, as its TPM reports it: what is approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: String,
    anchor: Anchor,
    /// The counter now.
    counter: u64,
    /// Registers of the SHA-256 bank by number.
    pcrs: BTreeMap<u8, Hex<32>>,
}

impl State {
    pub(super) fn new(anchor: Anchor, counter: u64, pcrs: BTreeMap<u8, [u8; 32]>) -> Self {
        let pcrs = pcrs.into_iter().map(|(number, value)| (number, Hex(value))).collect();
        Self { format: STATE_FORMAT.to_owned(), anchor, counter, pcrs }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// [`ApprovalError::Malformed`], [`ApprovalError::Registers`].
    pub fn parse(json: &str) -> Result<Self, ApprovalError> {
        let state: Self = parse("state of a TPM", json)?;
        if state.format != STATE_FORMAT {
            return Err(ApprovalError::Malformed("state of a TPM", state.format));
        }
        check_registers(state.pcrs.keys().copied())?;
        Ok(state)
    }

    /// Expects another value of a register, for a system that was not booted yet.
    ///
    /// # Errors
    /// [`ApprovalError::NotBound`].
    pub fn expect(&mut self, register: u8, value: [u8; 32]) -> Result<(), ApprovalError> {
        let slot = self.pcrs.get_mut(&register).ok_or(ApprovalError::NotBound(register))?;
        *slot = Hex(value);
        Ok(())
    }

    /// The TPM's counter of the minimum approved version.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// What stays the same for all approvals of this seal.
    #[must_use]
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    fn digest(&self) -> [u8; 32] {
        let values: Vec<&[u8]> = self.pcrs.values().map(|value| &value.0[..]).collect();
        sha256_of(&values)
    }
}

/// Refuses registers that do not exist or that prove nothing.
pub(super) fn check_registers(numbers: impl IntoIterator<Item = u8>) -> Result<(), ApprovalError> {
    let mut some = false;
    for number in numbers {
        if number >= REGISTERS || RESETTABLE.contains(&number) {
            return Err(ApprovalError::Registers);
        }
        some = true;
    }
    if some { Ok(()) } else { Err(ApprovalError::Registers) }
}

/// The key that approves. It belongs on a machine that is offline, or into a safe.
pub struct ApprovalKey(EcdsaKeyPair);

impl ApprovalKey {
    /// Draws a key; answers it and its PKCS#8.
    ///
    /// # Errors
    /// [`ApprovalError::Key`] when no randomness can be had.
    pub fn generate() -> Result<(Self, SecretVec), ApprovalError> {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
            .map_err(|_| ApprovalError::Key)?;
        let pkcs8 = SecretVec::copy_of(document.as_ref());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Reads a key in PKCS#8, DER.
    ///
    /// # Errors
    /// [`ApprovalError::Key`].
    pub fn from_pkcs8(der: &SecretVec) -> Result<Self, ApprovalError> {
        der.expose(|der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der))
            .map(Self)
            .map_err(|_| ApprovalError::Key)
    }

    /// Approves a state. The seal opens in it while the TPM's counter is at most `version`; when
    /// it has opened, the counter is raised to `minimum`, and approvals below are void.
    ///
    /// # Errors
    /// [`ApprovalError::Version`], [`ApprovalError::Key`].
    pub fn approve(
        &self,
        state: &State,
        version: u64,
        minimum: u64,
    ) -> Result<Approval, ApprovalError> {
        let limit = state.counter.saturating_add(MAX_RAISE);
        if version < state.counter || minimum > version || version > limit {
            return Err(ApprovalError::Version(state.counter, limit));
        }
        let public = self.0.public_key().as_ref();
        let (_, point) = public.split_first_chunk::<1>().ok_or(ApprovalError::Key)?;
        let mut approval = Approval {
            format: APPROVAL_FORMAT.to_owned(),
            anchor: state.anchor.clone(),
            key: Hex(point.try_into().map_err(|_| ApprovalError::Key)?),
            pcrs: state.pcrs.keys().copied().collect(),
            pcr_digest: Hex(state.digest()),
            version,
            minimum,
            signature: Hex([0; 64]),
        };
        let message = [approval.policy(), approval.anchor.reference()].concat();
        let signature = self.0.sign(&SystemRandom::new(), &message);
        let signature = signature.map_err(|_| ApprovalError::Key)?;
        approval.signature.0 = signature.as_ref().try_into().map_err(|_| ApprovalError::Key)?;
        Ok(approval)
    }
}

impl std::fmt::Debug for ApprovalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApprovalKey(..)")
    }
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    format: String,
    anchor: Anchor,
    /// The public key (x ‖ y).
    key: Hex<64>,
    pcrs: Vec<u8>,
    pcr_digest: Hex<32>,
    version: u64,
    minimum: u64,
    /// r ‖ s, over the policy and the reference.
    signature: Hex<64>,
}

impl Approval {
    /// Reads an approval and checks its signature.
    ///
    /// # Errors
    /// [`ApprovalError::Malformed`], [`ApprovalError::Registers`], [`ApprovalError::Version`],
    /// [`ApprovalError::Signature`].
    pub fn parse(json: &str) -> Result<Self, ApprovalError> {
        let approval: Self = parse("approval", json)?;
        if approval.format != APPROVAL_FORMAT {
            return Err(ApprovalError::Malformed("approval", approval.format));
        }
        check_registers(approval.pcrs.iter().copied())?;
        if approval.minimum > approval.version {
            return Err(ApprovalError::Version(approval.minimum, approval.version));
        }
        let message = [approval.policy(), approval.anchor.reference()].concat();
        let point = [&[4][..], &approval.key.0].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(&message, &approval.signature.0)
            .map_err(|_| ApprovalError::Signature)?;
        Ok(approval)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// Whether it is of the same seal and by the same key.
    pub(super) fn is_of_same_seal(&self, other: &Self) -> bool {
        self.anchor == other.anchor && self.key == other.key
    }

    /// What stays the same for all approvals of this seal.
    #[must_use]
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// The registers it is about.
    #[must_use]
    pub fn pcrs(&self) -> &[u8] {
        &self.pcrs
    }

    /// Its version; the TPM's counter may not be above.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn minimum(&self) -> u64 {
        self.minimum
    }

    pub(super) fn key(&self) -> &[u8; 64] {
        &self.key.0
    }

    pub(super) fn signature(&self) -> &[u8; 64] {
        &self.signature.0
    }

    pub(super) fn pcr_digest(&self) -> &[u8; 32] {
        &self.pcr_digest.0
    }

    pub(super) fn selection(&self) -> Vec<u8> {
        selection_of(self.pcrs.iter().fold(0, |bits, number| bits | 1 << number))
    }

    /// What is approved: the digest of PolicyPCR, then PolicyNV.
    pub(super) fn policy(&self) -> [u8; 32] {
        let pcr = Out::default()
            .raw(&[0; 32])
            .u32(code::POLICY_PCR)
            .raw(&self.selection())
            .raw(&self.pcr_digest.0)
            .done();
        let pcr = sha256_of(&[&pcr]);
        let operand = Out::default().raw(&self.version.to_be_bytes()).u16(0).u16(UNSIGNED_LE);
        let arguments = sha256_of(&[&operand.done()]);
        let counter = Out::default()
            .raw(&pcr)
            .u32(code::POLICY_NV)
            .raw(&arguments)
            .raw(&counter_name(self.anchor.counter_index));
        sha256_of(&[&counter.done()])
    }

    /// The policy of the sealed object: whatever this key approves for this seal.
    pub(super) fn seal_policy(&self) -> [u8; 32] {
        let key = self.key_name();
        let by = Out::default().raw(&[0; 32]).u32(code::POLICY_AUTHORIZE).raw(&key).done();
        sha256_of(&[&sha256_of(&[&by]), &self.anchor.reference()])
    }

    pub(super) fn key_name(&self) -> NameBytes {
        name_of(&verifying_key(&self.key.0))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(what: &'static str, json: &str) -> Result<T, ApprovalError> {
    serde_json::from_str(json).map_err(|error| ApprovalError::Malformed(what, error.to_string()))
}

/// Serialising plain fields to text cannot fail.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Bytes that are hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex_of(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("expected {} hexadecimal digits", 2 * N))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let pcrs = BTreeMap::from([(7, [1; 32]), (11, [2; 32])]);
        State::new(Anchor::new([3; 34], 0x0181_0001, [4; 16]), 5, pcrs)
    }

    fn approval() -> Approval {
        ApprovalKey::generate().unwrap().0.approve(&state(), 6, 6).unwrap()
    }

    #[test]
    fn states_and_approvals_come_back_from_json() {
        assert_eq!(State::parse(&state().to_json()), Ok(state()));
        let approval = approval();
        assert_eq!(Approval::parse(&approval.to_json()), Ok(approval));
    }

    #[test]
    fn approval_with_a_changed_field_is_refused() {
        let good: serde_json::Value = serde_json::from_str(&approval().to_json()).unwrap();
        let changed = |field: &str, value: serde_json::Value| {
            let mut bad = good.clone();
            bad[field] = value;
            Approval::parse(&bad.to_string())
        };
        for (field, value) in [
            ("version", 7.into()),
            ("pcrs", serde_json::json!([7])),
            ("pcr_digest", "00".repeat(32).into()),
            ("key", "11".repeat(64).into()),
        ] {
            assert_eq!(changed(field, value), Err(ApprovalError::Signature), "{field}");
        }
        assert_eq!(changed("pcrs", serde_json::json!([16])), Err(ApprovalError::Registers));
        assert!(matches!(changed("other", 1.into()), Err(ApprovalError::Malformed(..))));
        let mut bad = good.clone();
        bad["anchor"]["counter_index"] = 1.into();
        assert_eq!(Approval::parse(&bad.to_string()), Err(ApprovalError::Signature));
    }

    #[test]
    fn versions_keep_to_the_counter() {
        let (key, _) = ApprovalKey::generate().unwrap();
        for (version, minimum) in [(4, 4), (6, 7), (5 + MAX_RAISE + 1, 5)] {
            let refused = key.approve(&state(), version, minimum);
            assert_eq!(refused, Err(ApprovalError::Version(5, 5 + MAX_RAISE)));
        }
        key.approve(&state(), 5, 0).unwrap();
    }

    #[test]
    fn only_bound_registers_can_be_expected() {
        let mut state = state();
        let before = state.digest();
        assert_eq!(state.expect(8, [0; 32]), Err(ApprovalError::NotBound(8)));
        state.expect(7, [9; 32]).unwrap();
        assert_ne!(state.digest(), before);
    }

    #[test]
    fn registers_that_prove_nothing_are_refused() {
        for numbers in [vec![], vec![16], vec![7, 23], vec![24]] {
            assert_eq!(check_registers(numbers), Err(ApprovalError::Registers));
        }
        assert_eq!(check_registers([0, 7, 15, 22]), Ok(()));
    }
}
