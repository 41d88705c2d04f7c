//! A secret that opens on this machine, while its registers are as they were when it was sealed.
//!
//! Room      `connect`. For caches that may be lost: nobody approves another state, so an update
//!           of what is measured loses the secret. What must not be lost takes [`super::Tpm2Seal`].
//! Source    docs/formats/kmsv2.md, "Local keys on disk"; TCG TPM 2.0 Library, part 3, 23.7
//!           (PolicyPCR).
//! Holds     the secret leaves the TPM only through a session that this TPM alone can follow.

use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretArray;

use super::approval::check_registers;
use super::commands::{self, Sealed, selection_of};
use super::device::{Tpm, code};
use super::error::RC_POLICY_FAIL;
use super::session::Purpose;
use super::{MeasureError, Tcti, TpmError, digest_of};
use crate::seal::wire::{In, Out};

const VERSION: u8 = 1;

/// Seals 32 bytes to this TPM and the values that these registers have now.
///
/// # Errors
/// [`MeasureError`]; that of the registers when there are none, or some that can be reset.
pub fn seal_here(
    tcti: &Tcti,
    registers: &[u8],
    secret: &SecretArray<32>,
) -> Result<Vec<u8>, MeasureError> {
    check_registers(registers.iter().copied())?;
    let bits = registers.iter().fold(0, |bits, number| bits | 1_u32 << number);
    let mut tpm = Tpm::connect(tcti)?;
    let primary = commands::create_primary(&mut tpm)?;
    let policy = policy_of(bits, &digest_of(&mut tpm, registers)?);
    let (public, private) = commands::create_sealed(&mut tpm, &primary, &policy, secret)?;
    let front = Out::default().u8(VERSION).u32(bits).raw(&primary.name);
    Ok(front.sized(&public).sized(&private).done())
}

/// Opens what [`seal_here`] sealed.
///
/// # Errors
/// [`TpmError::Malformed`] for other bytes, [`TpmError::OtherTpm`], [`TpmError::OtherState`] when
/// a register has another value, and those of the way to the TPM.
pub fn unseal_here(tcti: &Tcti, stored: &[u8]) -> Result<SecretArray<32>, TpmError> {
    let mut reader = In::new(stored);
    if reader.u8()? != VERSION {
        return Err(TpmError::Malformed);
    }
    let (bits, parent) = (reader.u32()?, reader.array::<34>()?);
    let sealed = Sealed { public: reader.sized()?, private: reader.sized()? };
    reader.end()?;
    let registers: Vec<u8> = (0..24).filter(|number| bits >> number & 1 == 1).collect();
    check_registers(registers.iter().copied()).map_err(|_| TpmError::Malformed)?;
    let mut tpm = Tpm::connect(tcti)?;
    let primary = commands::create_primary(&mut tpm)?;
    if primary.name != parent {
        return Err(TpmError::OtherTpm);
    }
    let session = primary.session(&mut tpm, Purpose::Policy)?;
    let digest = digest_of(&mut tpm, &registers)?;
    commands::policy_pcr(&mut tpm, &session, &selection_of(bits), &digest)?;
    commands::unseal(&mut tpm, &primary, &sealed, session).map_err(|error| {
        if error.is_refusal(RC_POLICY_FAIL) { TpmError::OtherState } else { error }
    })
}

/// The policy "these registers have the values of this digest".
fn policy_of(bits: u32, digest: &[u8; 32]) -> [u8; 32] {
    let said = Out::default().raw(&[0; 32]).u32(code::POLICY_PCR).raw(&selection_of(bits));
    sha256_of(&[&said.raw(digest).done()])
}
