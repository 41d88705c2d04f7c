//! What people show: passwords, one-time codes, and the code with which they enrol.
//!
//! Room      `service`.
//! Source    RFC 9106 for passwords, RFC 6238 for one-time codes.
//! Holds     a password is kept stretched and a second factor wrapped; a code for enrolment is
//!           kept as its hash, is good for 15 minutes of service time, and once. As much work is
//!           done for a name that nobody has as for any other.

use lastkey_core::access::{Enrolment, PasswordHash, User};
use lastkey_core::ids::Name;
use lastkey_core::ports::Cause;
use lastkey_core::time::{ClockRecord, Elapsed, Timestamp};
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::kdf::{Argon2Params, derive_from_passphrase};
use lastkey_policy::{AUDIT_ADMINISTRATOR, SECURITY_ADMINISTRATOR, SYSTEM_ADMINISTRATOR};
use lastkey_secret::{SecretArray, SecretVec, ct_eq};
use lastkey_trust::totp::{Step, Totp, TotpHash};

use crate::authenticate::mint_token;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::{MaterialKeys, SecretPlace, draw_id};

/// The person who has no name yet: whoever holds the code of `init`.
pub const FIRST_ADMINISTRATOR: &str = "first-administrator";

/// How long a code for enrolment is good, in seconds of service time.
pub const ENROLMENT_SECS: u64 = 900;

/// Shortest password, in bytes.
pub const MIN_PASSWORD_LEN: usize = 12;

/// Longest password, in bytes.
pub const MAX_PASSWORD_LEN: usize = 1_024;

/// Roles that people take by being in the group of the same name.
pub(crate) const ADMINISTRATOR_ROLES: [&str; 3] =
    [SYSTEM_ADMINISTRATOR, SECURITY_ADMINISTRATOR, AUDIT_ADMINISTRATOR];

/// Passwords that are stretched at one time; each takes 64 MiB.
pub(crate) const STRETCHED_AT_ONCE: usize = 2;

/// Somebody new, who is in these groups.
pub(crate) const fn newcomer(name: Name, groups: Vec<Name>, created_at: Timestamp) -> User {
    User {
        name,
        groups,
        password: None,
        second_factor: None,
        last_step: 0,
        enrolment: None,
        disabled: false,
        created_at,
    }
}

/// The person that the first administrator will become.
///
/// # Errors
/// A cause when a name is none, which is never.
pub(crate) fn first_administrator(now: Timestamp) -> Result<User, Cause> {
    let groups = ADMINISTRATOR_ROLES.iter().map(|role| Name::parse(role));
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    Ok(newcomer(Name::parse(FIRST_ADMINISTRATOR)?, groups, now))
}

/// Lets a person enrol: draws the code, and the second factor that he will get by it. Password
/// and second factor that he had are void.
///
/// # Errors
/// A cause when no randomness can be had.
pub(crate) fn offer_enrolment(
    user: User,
    clock: &ClockRecord,
    materials: &MaterialKeys,
    entropy: &mut dyn Entropy,
) -> Result<(User, SecretVec), Cause> {
    let code = mint_token("lastkey_enrol", entropy)?;
    let factor = Totp::draw(TotpHash::Sha1, entropy)?;
    let place = SecretPlace::SecondFactor(&user.name);
    let wrapped = materials.wrap_secret(place, factor.secret(), entropy)?;
    let expires = Elapsed(passed(clock).saturating_add(ENROLMENT_SECS));
    let enrolment = Enrolment { code_hash: code.expose(sha256), expires };
    let user = User {
        password: None,
        second_factor: Some(wrapped),
        last_step: 0,
        enrolment: Some(enrolment),
        ..user
    };
    Ok((user, code))
}

/// Service time as far as a code is concerned: what may have passed, has.
fn passed(clock: &ClockRecord) -> u64 {
    clock.elapsed.0.saturating_add(clock.hold.map_or(0, |hold| hold.pending))
}

/// Whether a person may enrol by this code now.
pub(crate) fn is_code_of(user: &User, code: &SecretVec, clock: &ClockRecord) -> bool {
    user.enrolment.as_ref().is_some_and(|enrolment| {
        let hash = code.expose(sha256);
        ct_eq(&hash, &enrolment.code_hash) && passed(clock) < enrolment.expires.0
    })
}

/// Stands in for the password of a person who is not there or has none. Nothing known stretches
/// to it, and whatever does is refused all the same.
const fn decoy() -> PasswordHash {
    PasswordHash { costs: (65_536, 3, 4), salt: [0; 16], hash: [0; 32] }
}

fn stretch(password: &SecretVec, kept: &PasswordHash) -> Result<SecretArray<32>, Cause> {
    let (memory_kib, passes, lanes) = kept.costs;
    let costs = Argon2Params::parse(memory_kib, passes, lanes)?;
    Ok(derive_from_passphrase(password, &kept.salt, costs)?)
}

impl Engine {
    /// Stretches a new password.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) async fn new_password(&self, password: SecretVec) -> Result<PasswordHash, Error> {
        let salt = draw_id(&mut *self.ports.entropy.open());
        let salt = salt.map_err(|error| Error::Internal(error.into()))?;
        let kept = PasswordHash { salt, ..decoy() };
        let hash = self.stretched(password, kept.clone()).await?;
        Ok(PasswordHash { hash: hash.expose(|hash| *hash), ..kept })
    }

    /// Whether this is a person's password; `None` for somebody who has none, which takes as
    /// long.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) async fn is_password(
        &self,
        password: SecretVec,
        kept: Option<PasswordHash>,
    ) -> Result<bool, Error> {
        let (is_there, kept) = (kept.is_some(), kept.unwrap_or_else(decoy));
        let hash = self.stretched(password, kept.clone()).await?;
        Ok(hash.expose(|hash| ct_eq(hash, &kept.hash)) && is_there)
    }

    /// Stretches a password on a thread of its own, when it is its turn.
    async fn stretched(
        &self,
        password: SecretVec,
        kept: PasswordHash,
    ) -> Result<SecretArray<32>, Error> {
        let turn = self.stretching.acquire().await;
        let turn = turn.map_err(|error| Error::Internal(error.into()))?;
        let done = tokio::task::spawn_blocking(move || stretch(&password, &kept)).await;
        drop(turn);
        done.map_err(|error| Error::Internal(error.into()))?.map_err(Error::Internal)
    }

    /// A person's second factor.
    ///
    /// # Errors
    /// [`Error::Internal`] when he has none or it does not open.
    pub(crate) fn second_factor(&self, user: &User) -> Result<Totp, Error> {
        let wrapped = user.second_factor.as_ref();
        let wrapped = wrapped.ok_or_else(|| Error::Internal("no second factor".into()))?;
        let place = SecretPlace::SecondFactor(&user.name);
        let secret = self.keyring.materials.unwrap_secret(place, wrapped);
        Totp::new(TotpHash::Sha1, secret.map_err(Error::Internal)?)
            .ok_or_else(|| Error::Internal("a second factor is cut".into()))
    }

    /// The step of a person's one-time code; `None` when it is wrong or used.
    ///
    /// # Errors
    /// As [`Engine::second_factor`].
    pub(crate) fn step_of(
        &self,
        user: &User,
        code: &SecretVec,
        now: Timestamp,
    ) -> Result<Option<u64>, Error> {
        let step = self.second_factor(user)?.verify(code, now, Some(Step(user.last_step)));
        Ok(step.map(|Step(number)| number))
    }
}
