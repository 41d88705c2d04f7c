//! A passphrase as a recipient.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "A passphrase"; RFC 9106 (Argon2id).
//! Holds     A stranger's envelope cannot ask for more memory or time than the limits here.

use lastkey_secret::{SecretArray, SecretVec};

use super::{
    EnvelopeError,
    recipient::{WRAPPED_LEN, unwrap_once, wrap_once},
};
use crate::{
    entropy::Entropy,
    kdf::{Argon2Params, derive_from_passphrase},
};

/// The most memory that a passphrase of an envelope may cost, in KiB: 1 GiB.
pub const MAX_PASSPHRASE_MEMORY_KIB: u32 = 1_048_576;
/// The most memory times passes, in KiB: 4 GiB, some seconds.
pub const MAX_PASSPHRASE_WORK_KIB: u32 = 4_194_304;

const SALT_LEN: usize = 16;

/// Memory in KiB u32 ‖ passes u32 ‖ lanes u32 ‖ salt 16 ‖ wrapped data key 48.
pub(super) struct PassphraseBody<'a> {
    cost: Argon2Params,
    salt: &'a [u8; SALT_LEN],
    wrapped: &'a [u8; WRAPPED_LEN],
}

impl<'a> PassphraseBody<'a> {
    pub(super) fn wrap(
        passphrase: &SecretVec,
        cost: Argon2Params,
        data_key: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, EnvelopeError> {
        check_cost(cost)?;
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt).map_err(|_| EnvelopeError::Entropy)?;
        let key =
            derive_from_passphrase(passphrase, &salt, cost).map_err(|_| EnvelopeError::Failed)?;
        let wrapped = data_key.expose(|bytes| wrap_once(&key, bytes))?;
        let mut body = Vec::with_capacity(12 + SALT_LEN + WRAPPED_LEN);
        for number in [cost.memory_kib(), cost.passes(), cost.lanes()] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&salt);
        body.extend_from_slice(&wrapped);
        Ok(body)
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, EnvelopeError> {
        let malformed = EnvelopeError::Malformed;
        let (memory, rest) = body.split_first_chunk::<4>().ok_or(malformed)?;
        let (passes, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (lanes, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (salt, wrapped) = rest.split_first_chunk::<SALT_LEN>().ok_or(malformed)?;
        let wrapped = wrapped.try_into().map_err(|_| malformed)?;
        let [memory, passes, lanes] = [memory, passes, lanes].map(|n| u32::from_be_bytes(*n));
        let cost = Argon2Params::parse(memory, passes, lanes)
            .map_err(|_| EnvelopeError::PassphraseCost)?;
        check_cost(cost)?;
        Ok(Self { cost, salt, wrapped })
    }

    pub(super) fn cost(&self) -> Argon2Params {
        self.cost
    }

    pub(super) fn unwrap(&self, passphrase: &SecretVec) -> Result<SecretArray<32>, EnvelopeError> {
        let key = derive_from_passphrase(passphrase, self.salt, self.cost)
            .map_err(|_| EnvelopeError::Failed)?;
        unwrap_once(&key, self.wrapped)?.to_array().ok_or(EnvelopeError::Undecryptable)
    }
}

fn check_cost(cost: Argon2Params) -> Result<(), EnvelopeError> {
    let work = cost.memory_kib().checked_mul(cost.passes());
    let fits = cost.memory_kib() <= MAX_PASSPHRASE_MEMORY_KIB
        && work.is_some_and(|work| work <= MAX_PASSPHRASE_WORK_KIB);
    fits.then_some(()).ok_or(EnvelopeError::PassphraseCost)
}
