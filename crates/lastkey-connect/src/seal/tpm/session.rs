//! Salted sessions: what passes on the wire to the TPM can be read and changed by whoever sits on
//! it, so commands that matter carry an HMAC and their secret parameter is encrypted.
//!
//! Room      `connect`.
//! Source    TCG TPM 2.0 Library, part 1: 11.4.10 (KDFa, KDFe), 17.6 (sessions), 19.6.5
//!           (session key), 21.2 (parameter encryption by AES-128-CFB), C.6 (ECDH of the salt).
//! Holds     the session key comes from a salt that only the TPM with the pinned primary key can
//!           read; an answer without the right HMAC ends the conversation.

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::{SecretArray, ct_eq};
use zeroize::Zeroizing;

use super::device::{Auth, Call, Entity, Tpm, code};
use super::error::TpmError;
use crate::seal::wire::{In, Malformed, Out};

/// The session goes on after the command.
pub(super) const CONTINUE: u8 = 0x01;
/// The first parameter of the command is encrypted.
pub(super) const ENCRYPT_COMMAND: u8 = 0x20;
/// The first parameter of the answer is encrypted.
pub(super) const ENCRYPT_ANSWER: u8 = 0x40;

const NOTHING: u32 = 0x4000_0007;

/// What a session is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To authorise by (the empty) password, without showing it.
    Password = 0,
    /// To gather what a policy asks for.
    Policy = 1,
}

/// A session.
pub(super) struct Session {
    handle: u32,
    key: SecretArray<32>,
    ours: [u8; 32],
    theirs: [u8; 32],
}

impl Session {
    /// Starts a session that is salted to the ECC key `point` (x ‖ y) behind `handle`.
    pub(super) fn start(
        tpm: &mut Tpm,
        handle: u32,
        point: &[u8; 64],
        purpose: Purpose,
    ) -> Result<Self, TpmError> {
        let ours = random()?;
        let (salt, share) = salt(point)?;
        let parameters = Out::default()
            .sized(&ours)
            .sized(&share)
            .u8(purpose as u8)
            .raw(&[0, 0x06, 0, 128, 0, 0x43])
            .u16(0x0b)
            .done();
        let handles = [Entity::permanent(handle), Entity::permanent(NOTHING)];
        let call = Call { code: code::START_AUTH_SESSION, handles: &handles, parameters };
        let (handle, answer) = tpm.make(call, Auth::None)?;
        let mut reader = In::new(&answer);
        let theirs: [u8; 32] = reader.sized()?.try_into().map_err(|_| Malformed)?;
        reader.end()?;
        let key = salt.expose(|salt| kdf_a(salt, b"ATH\0", &theirs, &ours))?;
        Ok(Self { handle, key, ours, theirs })
    }

    pub(super) fn entity(&self) -> Entity<'static> {
        Entity::permanent(self.handle)
    }

    /// Takes a fresh nonce for the next command and encrypts its first parameter when asked to.
    pub(super) fn protect(
        &mut self,
        parameters: &mut [u8],
        attributes: u8,
    ) -> Result<(), TpmError> {
        self.ours = random()?;
        if attributes & ENCRYPT_COMMAND == 0 {
            return Ok(());
        }
        let (key, iv) = self.cipher(&self.ours, &self.theirs)?;
        let key = UnboundCipherKey::new(&AES_128, &*key).and_then(EncryptingKey::cfb128);
        let key = key.map_err(|_| TpmError::Crypto)?;
        let context = EncryptionContext::Iv128((*iv).into());
        key.less_safe_encrypt(first_buffer(parameters)?, context)
            .map(|_| ())
            .map_err(|_| TpmError::Crypto)
    }

    /// Decrypts the first parameter of an answer when it was asked for.
    pub(super) fn reveal(&self, parameters: &mut [u8], attributes: u8) -> Result<(), TpmError> {
        if attributes & ENCRYPT_ANSWER == 0 {
            return Ok(());
        }
        let (key, iv) = self.cipher(&self.theirs, &self.ours)?;
        let key = UnboundCipherKey::new(&AES_128, &*key).and_then(DecryptingKey::cfb128);
        let key = key.map_err(|_| TpmError::Crypto)?;
        let context = DecryptionContext::Iv128((*iv).into());
        key.decrypt(first_buffer(parameters)?, context).map(|_| ()).map_err(|_| TpmError::Crypto)
    }

    /// The authorisation area of a command with this hash.
    pub(super) fn authorise(&self, hash: &[u8; 32], attributes: u8) -> Vec<u8> {
        let mac = self.mac(hash, &self.ours, &self.theirs, attributes);
        Out::default().u32(self.handle).sized(&self.ours).u8(attributes).sized(mac.as_ref()).done()
    }

    /// Checks the authorisation area of the answer, and takes the TPM's new nonce.
    pub(super) fn verify(&mut self, hash: &[u8; 32], mut area: In<'_>) -> Result<(), TpmError> {
        let theirs: [u8; 32] = area.sized()?.try_into().map_err(|_| Malformed)?;
        let (attributes, mac) = (area.u8()?, area.sized()?);
        area.end()?;
        if !ct_eq(self.mac(hash, &theirs, &self.ours, attributes).as_ref(), mac) {
            return Err(TpmError::Forged);
        }
        self.theirs = theirs;
        Ok(())
    }

    /// The entities used here have the empty password, which adds nothing to the key.
    fn mac(&self, hash: &[u8; 32], newer: &[u8; 32], older: &[u8; 32], bits: u8) -> hmac::Tag {
        self.key.expose(|key| mac_of(key, &[hash, newer, older, &[bits]]))
    }

    fn cipher(&self, newer: &[u8; 32], older: &[u8; 32]) -> Result<CipherParts, TpmError> {
        let both = self.key.expose(|key| kdf_a(key, b"CFB\0", newer, older))?;
        let (mut key, mut iv) = (Zeroizing::new([0; 16]), Zeroizing::new([0; 16]));
        both.expose(|both| {
            let (front, back) = both.split_at(16);
            key.copy_from_slice(front);
            iv.copy_from_slice(back);
        });
        Ok((key, iv))
    }
}

/// Key and first block of a cipher.
type CipherParts = (Zeroizing<[u8; 16]>, Zeroizing<[u8; 16]>);

/// The content of the buffer that parameters begin with; its length stays readable.
fn first_buffer(parameters: &mut [u8]) -> Result<&mut [u8], Malformed> {
    let (len, rest) = parameters.split_first_chunk_mut::<2>().ok_or(Malformed)?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*len))).ok_or(Malformed)
}

/// KDFa for 256 bits of SHA-256: one block of SP 800-108 in counter mode. `label` ends in zero.
fn kdf_a(
    key: &[u8; 32],
    label: &[u8],
    left: &[u8; 32],
    right: &[u8; 32],
) -> Result<SecretArray<32>, TpmError> {
    let (counter, bits) = (1_u32.to_be_bytes(), 256_u32.to_be_bytes());
    let tag = mac_of(key, &[&counter, label, left, right, &bits]);
    SecretArray::try_copy_of(tag.as_ref()).ok_or(TpmError::Crypto)
}

fn mac_of(key: &[u8; 32], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

/// A salt, and the point by which the TPM finds it too.
fn salt(point: &[u8; 64]) -> Result<(SecretArray<32>, Vec<u8>), TpmError> {
    let own = PrivateKey::generate(&ECDH_P256).map_err(|_| TpmError::Crypto)?;
    let public = own.compute_public_key().map_err(|_| TpmError::Crypto)?;
    let (x, y) = public
        .as_ref()
        .split_first_chunk::<1>()
        .and_then(|(_, point)| point.split_at_checked(32))
        .ok_or(TpmError::Crypto)?;
    let peer: Vec<u8> = [&[4][..], point].concat();
    let (peer_x, _) = point.split_at(32);
    let peer = UnparsedPublicKey::new(&ECDH_P256, &peer);
    let salt = agreement::agree(&own, peer, TpmError::Forged, |z| {
        let counter = 1_u32.to_be_bytes();
        Ok(SecretArray::copy_of(&sha256_of(&[&counter, z, b"SECRET\0", x, peer_x])))
    })?;
    Ok((salt, Out::default().sized(x).sized(y).done()))
}

/// Nonces; they need not stay secret.
fn random() -> Result<[u8; 32], TpmError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| TpmError::Crypto)?;
    Ok(nonce)
}
