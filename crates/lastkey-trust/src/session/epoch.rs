//! Epoch keys: what seals sessions, and what opens them on any replica.
//!
//! Room      `trust`, inside.
//! Source    `docs/formats/session.md`, "Keys"; HKDF is RFC 5869, the AEAD is XAES-256-GCM.
//! Holds     Secret of the triple, session token, bearer, caveats and challenges have separate keys,
//!           and the form is in the associated data too: no part of one credential stands for
//!           another.

use core::fmt;
use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::ids::SessionId;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_crypto::wrap::{WrapError, WrapKey};
use lastkey_secret::{SecretArray, SecretVec};

use super::caveat::{BearerParts, fresh_body};
use super::form::{
    self, BEARER_PREFIX, MAX_BEARER_LEN, MAX_SESSION_TOKEN_LEN, SESSION_TOKEN_PREFIX,
};
use super::kept::{Kept, KeptBearers};
use super::present::check;
use super::{
    MAX_ENCODED_LEN, MAX_LIFETIME, MAX_POLICY_LEN, Narrowing, NotAccepted, Opened, Presentation,
    Session, decode_session, encode_session,
};

/// Length of the secret of a triple, in characters: 240 bits.
const SECRET_LEN: usize = 40;

/// The cryptographic library refused, which it has no reason to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the epoch key cannot be derived")]
pub struct EpochError;

/// Why a session was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The id of the session is of another epoch.
    #[error("the session belongs to another epoch")]
    OtherEpoch,
    /// It ends before it begins, or lasts longer than 12 hours.
    #[error("the lifetime of the session is out of range")]
    Lifetime,
    /// The session policy is longer than 2,048 bytes.
    #[error("the session policy is longer than {MAX_POLICY_LEN} bytes")]
    PolicyTooLong,
    /// The facts take more than 4,096 bytes.
    #[error("the facts of the session are too long")]
    TooLong,
    /// No randomness, or the library refused.
    #[error("sealing failed")]
    Failed,
}

impl From<WrapError> for SealError {
    fn from(_: WrapError) -> Self {
        Self::Failed
    }
}

/// A credential for programs that sign their requests.
#[derive(Debug)]
pub struct Triple {
    /// Names the credential; public.
    pub access_key_id: String,
    /// Signs requests; never on the wire. 40 characters.
    pub secret: SecretVec,
    /// Travels with each request; opens nothing without the signature.
    pub session_token: SecretVec,
}

/// The keys of one epoch, prepared.
pub struct EpochKeys {
    number: u32,
    secrets: hmac::Key,
    session_tokens: WrapKey,
    bearers: WrapKey,
    caveats: hmac::Key,
    challenges: hmac::Key,
}

impl EpochKeys {
    /// Derives the keys of epoch `number` from its 32 random bytes.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn derive(number: u32, secret: &SecretArray<32>) -> Result<Self, EpochError> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"lastkey/session/v1");
        let prk = secret.expose(|bytes| salt.extract(bytes));
        let expand = |what: &[u8]| {
            SecretArray::<32>::try_fill(|okm| {
                let info = [what, &number.to_be_bytes()];
                let out = prk.expand(&info, hkdf::HKDF_SHA256).map_err(|_| EpochError)?;
                out.fill(okm).map_err(|_| EpochError)
            })
        };
        let mac_key =
            |key: SecretArray<32>| key.expose(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        let wrap_key = |key: SecretArray<32>| WrapKey::new(&key).map_err(|_| EpochError);
        Ok(Self {
            number,
            secrets: mac_key(expand(b"secret")?),
            session_tokens: wrap_key(expand(b"session-token")?)?,
            bearers: wrap_key(expand(b"bearer")?)?,
            caveats: mac_key(expand(b"caveats")?),
            challenges: mac_key(expand(b"node-challenge")?),
        })
    }

    /// Number of the epoch.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// What challenges for the TPMs of nodes are known by.
    pub(crate) const fn challenges(&self) -> &hmac::Key {
        &self.challenges
    }

    /// Draws the id of a new session.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn draw_id(&self, entropy: &mut dyn Entropy) -> Result<SessionId, EntropyError> {
        SessionId::draw(self.number, entropy)
    }

    /// Seals a session as a triple.
    ///
    /// # Errors
    /// [`SealError`] by variant.
    pub fn seal_triple(
        &self,
        session: &Session,
        entropy: &mut dyn Entropy,
    ) -> Result<Triple, SealError> {
        let encoded = self.encode(session)?;
        let access_key_id = form::access_key_id(session.id);
        let aad = session_token_aad(&access_key_id);
        let sealed = self.session_tokens.wrap(&aad, &encoded, entropy)?;
        Ok(Triple {
            secret: self.secret_of(&access_key_id),
            session_token: form::armor(SESSION_TOKEN_PREFIX, sealed),
            access_key_id,
        })
    }

    /// Seals a session as a bearer.
    ///
    /// # Errors
    /// [`SealError`] by variant.
    pub fn seal_bearer(
        &self,
        session: &Session,
        entropy: &mut dyn Entropy,
    ) -> Result<SecretVec, SealError> {
        let encoded = self.encode(session)?;
        let sealed = self.bearers.wrap(&bearer_aad(self.number), &encoded, entropy)?;
        Ok(form::armor(BEARER_PREFIX, fresh_body(self.number, &sealed, &self.caveats)))
    }

    fn encode(&self, session: &Session) -> Result<Vec<u8>, SealError> {
        if session.id.epoch() != self.number {
            return Err(SealError::OtherEpoch);
        }
        let lifetime = session.expires_at.seconds_since(session.issued_at);
        if !u64::try_from(lifetime).is_ok_and(|one| (1..=MAX_LIFETIME.as_secs()).contains(&one)) {
            return Err(SealError::Lifetime);
        }
        if session.policy.as_ref().is_some_and(|policy| policy.len() > MAX_POLICY_LEN) {
            return Err(SealError::PolicyTooLong);
        }
        let encoded = encode_session(session);
        if encoded.len() > MAX_ENCODED_LEN { Err(SealError::TooLong) } else { Ok(encoded) }
    }

    fn secret_of(&self, access_key_id: &str) -> SecretVec {
        let mut text = URL_SAFE_NO_PAD.encode(hmac::sign(&self.secrets, access_key_id.as_bytes()));
        text.truncate(SECRET_LEN);
        SecretVec::take_text(text)
    }
}

impl fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochKeys").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The epochs whose sessions may still be good, the newest last.
#[derive(Debug, Default)]
pub struct EpochRing(Vec<Arc<EpochKeys>>);

impl EpochRing {
    /// Takes up an epoch; one of the same number is replaced.
    pub fn insert(&mut self, keys: EpochKeys) {
        self.0.retain(|one| one.number != keys.number);
        self.0.push(Arc::new(keys));
        self.0.sort_by_key(|one| one.number);
    }

    /// Forgets every epoch before `number`: its sessions open no more.
    pub fn forget_before(&mut self, number: u32) {
        self.0.retain(|one| one.number >= number);
    }

    /// The epoch that seals new sessions.
    #[must_use]
    pub fn newest(&self) -> Option<&EpochKeys> {
        self.0.last().map(|keys| &**keys)
    }

    pub(crate) fn find(&self, number: u32) -> Option<&Arc<EpochKeys>> {
        self.0.iter().rev().find(|one| one.number == number)
    }

    /// Opens a bearer for a request.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong.
    pub fn open_bearer(
        &self,
        bearer: &SecretVec,
        request: &Presentation<'_>,
    ) -> Result<Opened, NotAccepted> {
        let opened = self.authentic_bearer(bearer)?;
        check(&opened.session, request)?;
        Ok(opened)
    }

    /// As [`Self::open_bearer`], for bearers that are shown again and again: what one says is read
    /// once, and what `make` makes of it is kept. Whether it is good is asked each time.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong.
    pub fn open_kept<T: Clone>(
        &self,
        kept: &KeptBearers<T>,
        bearer: &SecretVec,
        request: &Presentation<'_>,
        make: impl FnOnce(Opened) -> T,
    ) -> Result<T, NotAccepted> {
        let hash = bearer.expose(sha256);
        let same = |kept: &Kept<T>| {
            let keys = self.find(kept.session.id.epoch());
            keys.is_some_and(|keys| core::ptr::eq(kept.keys.as_ptr(), Arc::as_ptr(keys)))
        };
        if let Some(found) = kept.find(&hash).filter(|found| same(found)) {
            check(&found.session, request)?;
            return Ok(found.made.clone());
        }
        let opened = self.open_bearer(bearer, request)?;
        let keys = self.find(opened.session.id.epoch()).map(Arc::downgrade).unwrap_or_default();
        let session = opened.session.clone();
        let made = make(opened);
        kept.keep(hash, Kept { keys, session, made: made.clone() });
        Ok(made)
    }

    /// Opens a triple for a request that `verify` finds signed by the secret; it answers with the
    /// word for the audit log when the signature is another one.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong.
    pub fn open_triple(
        &self,
        access_key_id: &str,
        session_token: &SecretVec,
        request: &Presentation<'_>,
        verify: impl FnOnce(&dyn Fn() -> SecretVec) -> Result<(), &'static str>,
    ) -> Result<Opened, NotAccepted> {
        let id = form::parse_access_key_id(access_key_id).ok_or(NotAccepted("malformed"))?;
        let keys = self.find(id.epoch()).ok_or(NotAccepted("unknown_epoch"))?;
        verify(&|| keys.secret_of(access_key_id)).map_err(NotAccepted)?;
        let sealed = session_token
            .expose(|text| form::dearmor(SESSION_TOKEN_PREFIX, MAX_SESSION_TOKEN_LEN, text));
        let sealed = sealed.ok_or(NotAccepted("malformed"))?;
        let session = keys
            .session_tokens
            .unwrap(&session_token_aad(access_key_id), &sealed)
            .ok()
            .and_then(|encoded| encoded.expose(decode_session))
            .filter(|session| session.id == id)
            .ok_or(NotAccepted("not_authentic"))?;
        check(&session, request)?;
        Ok(Opened::of(session, Narrowing::default()))
    }

    /// The session whose bearer this is, good or not: whoever holds it may end it.
    #[must_use]
    pub fn holder_of_bearer(&self, bearer: &SecretVec) -> Option<Session> {
        self.authentic_bearer(bearer).ok().map(|opened| opened.session)
    }

    /// The session whose triple this is, proven by its secret: whoever holds it may end it.
    #[must_use]
    pub fn holder_of_triple(&self, access_key_id: &str, secret: &SecretVec) -> Option<SessionId> {
        let id = form::parse_access_key_id(access_key_id)?;
        let ours = self.find(id.epoch())?.secret_of(access_key_id);
        ours.ct_eq(secret).then_some(id)
    }

    fn authentic_bearer(&self, bearer: &SecretVec) -> Result<Opened, NotAccepted> {
        let body = bearer.expose(|text| form::dearmor(BEARER_PREFIX, MAX_BEARER_LEN, text));
        let body = SecretVec::take(body.ok_or(NotAccepted("malformed"))?);
        body.expose(|body| {
            let parts = BearerParts::parse(body).ok_or(NotAccepted("malformed"))?;
            let keys = self.find(parts.epoch).ok_or(NotAccepted("unknown_epoch"))?;
            let narrowing = parts.verify(&keys.caveats).ok_or(NotAccepted("not_authentic"))?;
            let session = keys
                .bearers
                .unwrap(&bearer_aad(parts.epoch), parts.sealed)
                .ok()
                .and_then(|encoded| encoded.expose(decode_session))
                .filter(|session| session.id.epoch() == parts.epoch)
                .ok_or(NotAccepted("not_authentic"))?;
            Ok(Opened::of(session, narrowing))
        })
    }
}

fn session_token_aad(access_key_id: &str) -> Vec<u8> {
    [SESSION_TOKEN_PREFIX.as_bytes(), access_key_id.as_bytes()].concat()
}

fn bearer_aad(epoch: u32) -> Vec<u8> {
    [BEARER_PREFIX.as_bytes(), &epoch.to_be_bytes()].concat()
}
