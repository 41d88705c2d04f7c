//! The commands of a TPM that a seal is made of.
//!
//! Room      `connect`.
//! Source    TCG TPM 2.0 Library, part 3 (commands); part 2: 12.2 (public areas), 13 (NV).
//! Holds     nothing that guards a secret has a password that could be guessed, so nothing here
//!           is subject to the TPM's dictionary-attack lockout.

use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretArray;

use super::device::{Auth, Call, Entity, Tpm, code};
use super::error::{RC_HANDLE, RC_NV_DEFINED, TpmError};
use super::session::{CONTINUE, ENCRYPT_ANSWER, ENCRYPT_COMMAND, Purpose, Session};
use crate::seal::wire::{In, Malformed, Out};

const OWNER: u32 = 0x4000_0001;
pub(super) const ECC: u16 = 0x23;
const KEYED_HASH: u16 = 0x08;
pub(super) const SHA256: u16 = 0x0b;
pub(super) const NONE: u16 = 0x10;
pub(super) const ECDSA: u16 = 0x18;
pub(super) const P256: u16 = 0x03;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
const STORAGE_KEY: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, noDA; neither userWithAuth nor adminWithPolicy: by policy alone.
const SEALED: u32 = 0x0000_0412;
/// sign, userWithAuth.
const VERIFYING_KEY: u32 = 0x0004_0040;
/// ownerWrite, counter, ownerRead, authRead, noDA.
const COUNTER: u32 = 0x0206_0012;
const WRITTEN: u32 = 0x2000_0000;
/// Compares the counter with an operand: counter <= operand, unsigned.
pub(super) const UNSIGNED_LE: u16 = 0x09;

/// The name of an object or an index: an algorithm and a hash.
pub(super) type NameBytes = [u8; 34];

pub(super) fn name_of(public: &[u8]) -> NameBytes {
    let mut name = [0; 34];
    let (algorithm, hash) = name.split_at_mut(2);
    algorithm.copy_from_slice(&SHA256.to_be_bytes());
    hash.copy_from_slice(&sha256(public));
    name
}

/// The storage key under which a TPM seals. The TPM makes the same one each time, until it is
/// cleared.
pub(super) struct Primary {
    handle: u32,
    pub(super) name: NameBytes,
    point: [u8; 64],
}

impl Primary {
    fn entity(&self) -> Entity<'_> {
        Entity { handle: self.handle, name: &self.name }
    }

    /// A session that only this key can follow.
    pub(super) fn session(&self, tpm: &mut Tpm, purpose: Purpose) -> Result<Session, TpmError> {
        Session::start(tpm, self.handle, &self.point, purpose)
    }
}

/// Makes the storage key.
pub(super) fn create_primary(tpm: &mut Tpm) -> Result<Primary, TpmError> {
    let template = Out::default()
        .u16(ECC)
        .u16(SHA256)
        .u32(STORAGE_KEY)
        .sized(&[])
        .raw(&[0, 0x06, 0, 128, 0, 0x43])
        .u16(NONE)
        .u16(P256)
        .u16(NONE)
        .sized(&[])
        .sized(&[])
        .done();
    let (handle, public) = make_primary(tpm, OWNER, &template)?;
    let point = point_of(&public)?;
    Ok(Primary { handle, name: name_of(&public), point })
}

/// Makes the key of a template, which is the same one each time; answers its public area as well.
pub(super) fn make_primary(
    tpm: &mut Tpm,
    hierarchy: u32,
    template: &[u8],
) -> Result<(u32, Vec<u8>), TpmError> {
    let sensitive = Out::default().sized(&[]).sized(&[]).done();
    let parameters = Out::default().sized(&sensitive).sized(template).sized(&[]).u32(0).done();
    let handles = [Entity::permanent(hierarchy)];
    let call = Call { code: code::CREATE_PRIMARY, handles: &handles, parameters };
    let (handle, answer) = tpm.make(call, Auth::Empty)?;
    let public = In::new(&answer).sized()?.to_vec();
    Ok((handle, public))
}

/// The point (x ‖ y) of an ECC key, from its public area.
fn point_of(public: &[u8]) -> Result<[u8; 64], TpmError> {
    let mut reader = In::new(public);
    if (reader.u16()?, reader.u16()?, reader.u32()?) != (ECC, SHA256, STORAGE_KEY) {
        return Err(TpmError::Malformed);
    }
    reader.sized()?;
    // Symmetric algorithm, size and mode; scheme, curve, key derivation.
    reader.take(12)?;
    let mut point = [0; 64];
    for half in point.chunks_exact_mut(32) {
        let number = reader.sized()?;
        // Older TPMs leave leading zeros out.
        let pad = half.len().checked_sub(number.len()).ok_or(Malformed)?;
        half.get_mut(pad..).ok_or(Malformed)?.copy_from_slice(number);
    }
    reader.end()?;
    Ok(point)
}

/// A sealed object, as it lies outside the TPM.
pub(super) struct Sealed<'a> {
    pub(super) public: &'a [u8],
    pub(super) private: &'a [u8],
}

/// Seals 32 bytes under a policy; answers the public and the private part.
pub(super) fn create_sealed(
    tpm: &mut Tpm,
    primary: &Primary,
    policy: &[u8; 32],
    secret: &SecretArray<32>,
) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let mut session = primary.session(tpm, Purpose::Password)?;
    let template =
        Out::default().u16(KEYED_HASH).u16(SHA256).u32(SEALED).sized(policy).u16(NONE).sized(&[]);
    let sensitive = secret
        .expose(|bytes| zeroize::Zeroizing::new(Out::default().sized(&[]).sized(bytes).done()));
    let parameters =
        Out::default().sized(&sensitive).sized(&template.done()).sized(&[]).u32(0).done();
    let call = Call { code: code::CREATE, handles: &[primary.entity()], parameters };
    let answer = tpm.run(call, Auth::Session(&mut session, CONTINUE | ENCRYPT_COMMAND))?;
    let mut reader = In::new(&answer);
    let (private, public) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
    Ok((public, private))
}

/// Loads a sealed object and opens it by a policy session that has what its policy asks for.
pub(super) fn unseal(
    tpm: &mut Tpm,
    primary: &Primary,
    sealed: &Sealed<'_>,
    mut policy: Session,
) -> Result<SecretArray<32>, TpmError> {
    let mut session = primary.session(tpm, Purpose::Password)?;
    let parameters = Out::default().sized(sealed.private).sized(sealed.public).done();
    let call = Call { code: code::LOAD, handles: &[primary.entity()], parameters };
    let (handle, _) = tpm.make(call, Auth::Session(&mut session, CONTINUE))?;
    let name = name_of(sealed.public);
    let handles = [Entity { handle, name: &name }];
    let call = Call { code: code::UNSEAL, handles: &handles, parameters: Vec::new() };
    let answer = tpm.run(call, Auth::Session(&mut policy, CONTINUE | ENCRYPT_ANSWER))?;
    let answer = zeroize::Zeroizing::new(answer);
    SecretArray::try_copy_of(In::new(&answer).sized()?).ok_or(TpmError::Malformed)
}

/// The public area of a P-256 key (x ‖ y) that signs approvals.
pub(super) fn verifying_key(point: &[u8; 64]) -> Vec<u8> {
    let (x, y) = point.split_at(32);
    Out::default()
        .u16(ECC)
        .u16(SHA256)
        .u32(VERIFYING_KEY)
        .sized(&[])
        .u16(NONE)
        .u16(ECDSA)
        .u16(SHA256)
        .u16(P256)
        .u16(NONE)
        .sized(x)
        .sized(y)
        .done()
}

/// Lets the TPM check a signature (r ‖ s) of an approval; answers its ticket.
pub(super) fn verify_signature(
    tpm: &mut Tpm,
    point: &[u8; 64],
    digest: &[u8; 32],
    signature: &[u8; 64],
) -> Result<Vec<u8>, TpmError> {
    let parameters = Out::default().sized(&[]).sized(&verifying_key(point)).u32(OWNER).done();
    let call = Call { code: code::LOAD_EXTERNAL, handles: &[], parameters };
    let (handle, _) = tpm.make(call, Auth::None)?;
    let (r, s) = signature.split_at(32);
    let parameters = Out::default().sized(digest).u16(ECDSA).u16(SHA256).sized(r).sized(s).done();
    let handles = [Entity::permanent(handle)];
    let call = Call { code: code::VERIFY_SIGNATURE, handles: &handles, parameters };
    tpm.run(call, Auth::None)
}

/// Says in a policy session: the registers have these values.
pub(super) fn policy_pcr(
    tpm: &mut Tpm,
    session: &Session,
    selection: &[u8],
    digest: &[u8; 32],
) -> Result<(), TpmError> {
    let parameters = Out::default().sized(digest).raw(selection).done();
    let call = Call { code: code::POLICY_PCR, handles: &[session.entity()], parameters };
    tpm.run(call, Auth::None).map(|_| ())
}

/// Says in a policy session: the counter is not above `limit`.
pub(super) fn policy_counter(
    tpm: &mut Tpm,
    session: &Session,
    index: u32,
    limit: u64,
) -> Result<(), TpmError> {
    let parameters = Out::default().sized(&limit.to_be_bytes()).u16(0).u16(UNSIGNED_LE).done();
    let handles = [Entity::permanent(index), Entity::permanent(index), session.entity()];
    let call = Call { code: code::POLICY_NV, handles: &handles, parameters };
    tpm.run(call, Auth::Empty).map(|_| ())
}

/// Says in a policy session: what was said so far is approved by this key.
pub(super) fn policy_authorize(
    tpm: &mut Tpm,
    session: &Session,
    (approved, reference): (&[u8; 32], &[u8; 32]),
    (key, ticket): (&NameBytes, &[u8]),
) -> Result<(), TpmError> {
    let parameters = Out::default().sized(approved).sized(reference).sized(key).raw(ticket).done();
    let call = Call { code: code::POLICY_AUTHORIZE, handles: &[session.entity()], parameters };
    tpm.run(call, Auth::None).map(|_| ())
}

/// The selection of registers of the SHA-256 bank (`TPML_PCR_SELECTION`), from bits.
pub(super) fn selection_of(registers: u32) -> Vec<u8> {
    let [low, middle, high, _] = registers.to_le_bytes();
    Out::default().u32(1).u16(SHA256).u8(3).raw(&[low, middle, high]).done()
}

/// The value of one register.
pub(super) fn read_register(tpm: &mut Tpm, register: u8) -> Result<[u8; 32], TpmError> {
    let parameters = selection_of(1 << register);
    let call = Call { code: code::PCR_READ, handles: &[], parameters: parameters.clone() };
    let answer = tpm.run(call, Auth::None)?;
    let mut reader = In::new(&answer);
    reader.u32()?;
    if reader.take(parameters.len())? != parameters || reader.u32()? != 1 {
        return Err(TpmError::NoRegister(register));
    }
    reader.sized()?.try_into().map_err(|_| TpmError::NoRegister(register))
}

/// Defines a counter that nobody can set, only count up, and starts it. `None` when the index is
/// taken.
pub(super) fn define_counter(tpm: &mut Tpm, index: u32) -> Result<Option<()>, TpmError> {
    let public = counter_public(index, COUNTER);
    let parameters = Out::default().sized(&[]).sized(&public).done();
    let handles = [Entity::permanent(OWNER)];
    let call = Call { code: code::NV_DEFINE_SPACE, handles: &handles, parameters };
    match tpm.run(call, Auth::Empty) {
        Ok(_) => increment_counter(tpm, index).map(Some),
        Err(error) if error.is_refusal(RC_NV_DEFINED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes a counter away.
pub(super) fn remove_counter(tpm: &mut Tpm, index: u32) -> Result<(), TpmError> {
    let handles = [Entity::permanent(OWNER), Entity::permanent(index)];
    let call = Call { code: code::NV_UNDEFINE_SPACE, handles: &handles, parameters: Vec::new() };
    tpm.run(call, Auth::Empty).map(|_| ())
}

/// Counts up by one.
pub(super) fn increment_counter(tpm: &mut Tpm, index: u32) -> Result<(), TpmError> {
    let handles = [Entity::permanent(OWNER), Entity::permanent(index)];
    let call = Call { code: code::NV_INCREMENT, handles: &handles, parameters: Vec::new() };
    tpm.run(call, Auth::Empty).map(|_| ())
}

/// The value of a counter; `None` when there is none, or something else, at the index.
pub(super) fn read_counter(tpm: &mut Tpm, index: u32) -> Result<Option<u64>, TpmError> {
    let handles = [Entity::permanent(index)];
    let call = Call { code: code::NV_READ_PUBLIC, handles: &handles, parameters: Vec::new() };
    let answer = match tpm.run(call, Auth::None) {
        Ok(answer) => answer,
        Err(error) if error.is_refusal(RC_HANDLE) => return Ok(None),
        Err(error) => return Err(error),
    };
    if In::new(&answer).sized()? != counter_public(index, COUNTER | WRITTEN) {
        return Ok(None);
    }
    let handles = [Entity::permanent(index), Entity::permanent(index)];
    let parameters = Out::default().u16(8).u16(0).done();
    let call = Call { code: code::NV_READ, handles: &handles, parameters };
    let answer = tpm.run(call, Auth::Empty)?;
    let value = In::new(&answer).sized()?.try_into().map_err(|_| Malformed)?;
    Ok(Some(u64::from_be_bytes(value)))
}

/// The name of a counter that was started.
pub(super) fn counter_name(index: u32) -> NameBytes {
    name_of(&counter_public(index, COUNTER | WRITTEN))
}

fn counter_public(index: u32, attributes: u32) -> Vec<u8> {
    Out::default().u32(index).u16(SHA256).u32(attributes).sized(&[]).u16(8).done()
}
