//! The attestation key of a machine's TPM, by which its node joins.
//!
//! Room      `connect`. The other side, which judges what is signed here, is `trust::attestation`.
//! Source    docs/formats/node-attestation.md; TCG TPM 2.0 Library, part 3: 24.1
//!           (CreatePrimary), 18.4 (Quote).
//! Holds     nothing is stored: the TPM makes the same key each time, also after its owner cleared
//!           it. The key is restricted, so it signs nothing but what the TPM says itself.

use super::commands::{ECC, ECDSA, NONE, P256, SHA256, make_primary};
use super::device::{Auth, Call, Entity, Tpm, code};
use super::{Tcti, TpmError};
use crate::seal::wire::{In, Out};

const ENDORSEMENT: u32 = 0x4000_000b;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign.
const ATTESTATION_KEY: u32 = 0x0005_0472;
/// Makes the key another one than whatever else is made of the same template.
const UNIQUE: &[u8] = b"lastkey node attestation key 1";

/// What a TPM has signed, and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The public area of the key (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
    /// What was signed (`TPMS_ATTEST`).
    pub attestation: Vec<u8>,
    /// The signature (`TPMT_SIGNATURE`).
    pub signature: Vec<u8>,
}

/// The public area (`TPMT_PUBLIC`) of the attestation key.
///
/// # Errors
/// [`TpmError`].
pub fn attestation_key(tcti: &Tcti) -> Result<Vec<u8>, TpmError> {
    make_key(&mut Tpm::connect(tcti)?).map(|(_, public)| public)
}

/// Has the TPM sign these bytes, as a quote of no registers.
///
/// # Errors
/// [`TpmError`].
pub fn attest(tcti: &Tcti, data: &[u8; 32]) -> Result<Attested, TpmError> {
    let mut tpm = Tpm::connect(tcti)?;
    let (handle, public) = make_key(&mut tpm)?;
    // By the scheme of the key; no bank of registers.
    let parameters = Out::default().sized(data).u16(NONE).u32(0).done();
    let handles = [Entity::permanent(handle)];
    let call = Call { code: code::QUOTE, handles: &handles, parameters };
    let answer = tpm.run(call, Auth::Empty)?;
    let mut reader = In::new(&answer);
    let attestation = reader.sized()?.to_vec();
    Ok(Attested { public, attestation, signature: reader.rest().to_vec() })
}

fn make_key(tpm: &mut Tpm) -> Result<(u32, Vec<u8>), TpmError> {
    let template = Out::default()
        .u16(ECC)
        .u16(SHA256)
        .u32(ATTESTATION_KEY)
        .sized(&[])
        .u16(NONE)
        .u16(ECDSA)
        .u16(SHA256)
        .u16(P256)
        .u16(NONE)
        .sized(UNIQUE)
        .sized(&[])
        .done();
    make_primary(tpm, ENDORSEMENT, &template)
}
