//! A login by redirect: state, nonce and PKCE, drawn together and checked together.
//!
//! Room      `trust`, inside.
//! Source    RFC 6749, section 10.12 (state); OpenID Connect Core 1.0, section 15.5.2 (nonce);
//!           RFC 7636 (PKCE, S256); RFC 9207 (issuer).
//! Holds     A callback that does not belong to a login that began here is refused.

use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::{SecretArray, SecretVec};

use crate::b64;
use crate::refusal::Refusal;

/// The proof that who redeems the code is who asked for it.
#[derive(Debug)]
pub struct Pkce {
    /// `code_verifier`: 43 characters, sent when the code is redeemed.
    pub verifier: SecretVec,
    /// `code_challenge` of the method S256, sent when the login begins.
    pub challenge: String,
}

impl Pkce {
    /// Draws a verifier.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn draw(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        draw_text(entropy).map(Self::of)
    }

    fn of(verifier: SecretVec) -> Self {
        let challenge = b64::encode(&verifier.expose(sha256));
        Self { verifier, challenge }
    }
}

/// What one login has to remember until its callback.
#[derive(Debug)]
pub struct LoginSecrets {
    /// `state`: ties the callback to the browser that began.
    pub state: SecretVec,
    /// `nonce`: ties the ID token to this login.
    pub nonce: SecretVec,
    /// PKCE.
    pub pkce: Pkce,
}

/// A login that has begun.
#[derive(Debug)]
pub struct Login {
    issuer: String,
    secrets: LoginSecrets,
}

impl Login {
    /// Begins a login at an issuer.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn begin(issuer: String, entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let (state, nonce) = (draw_text(entropy)?, draw_text(entropy)?);
        Ok(Self { issuer, secrets: LoginSecrets { state, nonce, pkce: Pkce::draw(entropy)? } })
    }

    /// What goes into the address of the issuer: state, nonce and challenge.
    #[must_use]
    pub const fn secrets(&self) -> &LoginSecrets {
        &self.secrets
    }

    /// Judges the callback: its `state` is ours and its `iss`, where there is one, is the issuer.
    /// A login is good for one callback; the nonce and verifier come out of it.
    ///
    /// # Errors
    /// [`Refusal::NonceMismatch`]; [`Refusal::IssuerNotTrusted`].
    pub fn accept_callback(
        self,
        state: &SecretVec,
        issuer: Option<&str>,
    ) -> Result<LoginSecrets, Refusal> {
        if !self.secrets.state.ct_eq(state) {
            return Err(Refusal::NonceMismatch);
        }
        if issuer.is_some_and(|issuer| issuer != self.issuer) {
            return Err(Refusal::IssuerNotTrusted);
        }
        Ok(self.secrets)
    }
}

/// 32 random bytes as 43 characters.
fn draw_text(entropy: &mut dyn Entropy) -> Result<SecretVec, EntropyError> {
    let bytes: SecretArray<32> = SecretArray::try_fill(|bytes| entropy.fill(bytes))?;
    Ok(SecretVec::take_text(bytes.expose(|bytes| b64::encode(bytes))))
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;
    use lastkey_secret::SecretVec;

    use super::{Login, Pkce};
    use crate::refusal::Refusal;

    /// RFC 7636, appendix B.
    #[test]
    fn challenge_matches_the_vector_of_the_standard() {
        let verifier = SecretVec::copy_of(b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(Pkce::of(verifier).challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn callback_of_another_login_is_refused() {
        let begin = || Login::begin("https://id.example".to_owned(), &mut SystemEntropy).unwrap();
        let ours = begin();
        let state = SecretVec::copy_of(&ours.secrets().state.expose(<[u8]>::to_vec));
        assert_eq!(begin().accept_callback(&state, None).err(), Some(Refusal::NonceMismatch));
        assert!(ours.accept_callback(&state, Some("https://id.example")).is_ok());
    }

    #[test]
    fn callback_of_another_issuer_is_refused() {
        let login = Login::begin("https://id.example".to_owned(), &mut SystemEntropy).unwrap();
        let state = SecretVec::copy_of(&login.secrets().state.expose(<[u8]>::to_vec));
        let refused = login.accept_callback(&state, Some("https://evil.example")).err();
        assert_eq!(refused, Some(Refusal::IssuerNotTrusted));
    }
}
