//! Keys of age as recipients: envelopes that open without a server.
//!
//! Room      `crypto`.
//! Source    age-encryption.org/v1, "The X25519 recipient type"; RFC 7748; `docs/formats/
//!           envelope.md`, section "A key of age".
//! Holds     The stanza is age's own, around a data key of 32 bytes in place of a file key of
//!           16. Identities are wiped.

use core::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use lastkey_secret::{SecretArray, SecretVec};
use zeroize::Zeroize;

use super::{
    EnvelopeError,
    recipient::{unwrap_once, wrap_once},
};
use crate::{bech32, entropy::Entropy, hkdf::Prk};

const LABEL: &[u8] = b"age-encryption.org/v1/X25519";
const RECIPIENT_PART: &str = "age";
const IDENTITY_PART: &str = "age-secret-key-";
const KEY_LEN: usize = 32;
/// Bytes of the ephemeral share in front of a stanza.
pub(super) const SHARE_LEN: usize = KEY_LEN;

/// Why a text is not a recipient, or not a file of identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeKeyError {
    /// Not `age1` and 58 more letters and digits, or mistyped.
    #[error("not a recipient of age (age1...), or mistyped")]
    Recipient,
    /// Neither an identity nor a comment.
    #[error("not an identity of age (AGE-SECRET-KEY-1...), or mistyped")]
    Identity,
    /// There is no identity in it.
    #[error("holds no identity of age (AGE-SECRET-KEY-1...)")]
    NoIdentity,
    /// The file is encrypted by age.
    #[error("is encrypted; decrypt it with age first")]
    Encrypted,
    /// An SSH key, damaged or cut.
    #[error("not a public key of SSH (ssh-ed25519 AAAA...), or mistyped")]
    SshRecipient,
    /// An SSH key that is none of Ed25519.
    #[error("only SSH keys of the kind ssh-ed25519 can be used")]
    SshKind,
    /// Of a plugin, or an SSH key.
    #[error("only identities of the X25519 kind (AGE-SECRET-KEY-1...) can be used")]
    OtherKind,
}

/// The public half of a key of age: `age1...`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AgeRecipient([u8; KEY_LEN]);

impl AgeRecipient {
    /// Reads `age1...`.
    ///
    /// # Errors
    /// [`AgeKeyError::Recipient`].
    pub fn parse(text: &str) -> Result<Self, AgeKeyError> {
        let bytes = bech32::decode(RECIPIENT_PART, text).ok_or(AgeKeyError::Recipient)?;
        bytes.as_slice().try_into().map(Self).map_err(|_| AgeKeyError::Recipient)
    }

    /// The public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The recipient that a body names.
    pub(super) fn of_body(body: &[u8]) -> Option<Self> {
        let (public, stanza) = body.split_first_chunk::<KEY_LEN>()?;
        (stanza.len() == KEY_LEN + super::recipient::WRAPPED_LEN).then_some(Self(*public))
    }

    /// Public key ‖ content of a stanza.
    pub(super) fn wrap(
        &self,
        data_key: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let mut body = self.0.to_vec();
        data_key.expose(|bytes| self.wrap_stanza(bytes, entropy, &mut body))?;
        Ok(body)
    }

    /// Appends the ephemeral share and the wrapped secret, the two parts of a stanza.
    pub(super) fn wrap_stanza(
        &self,
        secret: &[u8],
        entropy: &mut dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let ephemeral = SecretArray::<KEY_LEN>::try_fill(|bytes| entropy.fill(bytes))
            .map_err(|_| EnvelopeError::Entropy)?;
        let ephemeral = AgeIdentity::of_secret(&ephemeral).ok_or(EnvelopeError::Failed)?;
        let share = ephemeral.public.0;
        let key = ephemeral.agree(&self.0, &share, &self.0).ok_or(EnvelopeError::Options)?;
        out.extend_from_slice(&share);
        out.extend_from_slice(&wrap_once(&key, secret)?);
        Ok(())
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT_PART, &self.0))
    }
}

impl fmt::Debug for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half of a key of age: `AGE-SECRET-KEY-1...`. Boxed: the key has one home.
pub struct AgeIdentity {
    secret: Box<PrivateKey>,
    public: AgeRecipient,
}

impl fmt::Debug for AgeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgeIdentity({})", self.public)
    }
}

impl AgeIdentity {
    /// Reads the identities of a file as `age-keygen` writes it: one on a line, with empty
    /// lines and lines that begin with `#` between them.
    ///
    /// # Errors
    /// See [`AgeKeyError`].
    pub fn parse_file(content: &SecretVec) -> Result<Vec<Self>, AgeKeyError> {
        content.expose(|bytes| {
            let text = core::str::from_utf8(bytes).map_err(|_| AgeKeyError::Identity)?;
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            let identities = lines.map(Self::parse).collect::<Result<Vec<Self>, _>>()?;
            if identities.is_empty() {
                return Err(AgeKeyError::NoIdentity);
            }
            Ok(identities)
        })
    }

    /// Reads one identity.
    fn parse(line: &str) -> Result<Self, AgeKeyError> {
        if line.starts_with("age-encryption.org/") || line.contains("BEGIN AGE ENCRYPTED") {
            return Err(AgeKeyError::Encrypted);
        }
        if line.starts_with("AGE-PLUGIN-") || line.contains("PRIVATE KEY") {
            return Err(AgeKeyError::OtherKind);
        }
        let bytes = bech32::decode(IDENTITY_PART, line).ok_or(AgeKeyError::Identity)?;
        let secret = SecretArray::try_copy_of(&bytes).ok_or(AgeKeyError::Identity)?;
        Self::of_secret(&secret).ok_or(AgeKeyError::Identity)
    }

    fn of_secret(secret: &SecretArray<KEY_LEN>) -> Option<Self> {
        let secret = secret.expose(|bytes| PrivateKey::from_private_key(&X25519, bytes)).ok()?;
        let public = secret.compute_public_key().ok()?;
        let public = AgeRecipient(public.as_ref().try_into().ok()?);
        Some(Self { secret: Box::new(secret), public })
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> &AgeRecipient {
        &self.public
    }

    /// Recovers the data key from the body of a recipient of age.
    pub(super) fn unwrap(&self, body: &[u8]) -> Result<SecretArray<32>, EnvelopeError> {
        let (_, stanza) =
            body.split_first_chunk::<KEY_LEN>().ok_or(EnvelopeError::Undecryptable)?;
        self.unwrap_stanza(stanza)?.to_array().ok_or(EnvelopeError::Undecryptable)
    }

    fn unwrap_stanza(&self, stanza: &[u8]) -> Result<SecretVec, EnvelopeError> {
        let refused = EnvelopeError::Undecryptable;
        let (share, wrapped) = stanza.split_first_chunk::<KEY_LEN>().ok_or(refused)?;
        let key = self.agree(share, share, &self.public.0).ok_or(refused)?;
        unwrap_once(&key, wrapped)
    }

    /// HKDF(salt = share ‖ recipient) of the shared secret. `None` for a share of low order.
    fn agree(
        &self,
        peer: &[u8; KEY_LEN],
        share: &[u8; KEY_LEN],
        recipient: &[u8; KEY_LEN],
    ) -> Option<SecretArray<32>> {
        let mut salt = [0; 2 * KEY_LEN];
        let (first, second) = salt.split_at_mut(KEY_LEN);
        first.copy_from_slice(share);
        second.copy_from_slice(recipient);
        let peer = &UnparsedPublicKey::new(&X25519, peer);
        agree(self.secret.as_ref(), peer, (), |shared| {
            // The standard wants the result of a share of low order refused.
            if shared.iter().all(|byte| *byte == 0) {
                return Err(());
            }
            let mut okm = Prk::extract(&salt, shared).and_then(|prk| prk.expand::<32>(&[LABEL]));
            let key = okm.as_deref().map(SecretArray::copy_of).ok_or(());
            okm.zeroize();
            key
        })
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use lastkey_secret::{SecretArray, SecretVec};
    use proptest::prelude::proptest;

    use super::{AgeIdentity, AgeKeyError, AgeRecipient, KEY_LEN};
    use crate::{entropy::SystemEntropy, envelope::EnvelopeError, hkdf::Prk, testing::unhex};

    /// Made by `age-keygen` 1.1.1, and the recipient that it printed.
    const IDENTITY: &str =
        "AGE-SECRET-KEY-14VXG8TH7VYUH2GNE8708NKSAXTLFCRYECE60VPGDQW9TCCHT5UVQDA0PCD";
    const RECIPIENT: &str = "age1vz343tt0xwyfag833jkqxtx9pjaxx9kc9ngg404csevtvg4ng5pq2f369f";
    /// What `age` 1.1.1 wrote for that recipient: the content of its stanza, both parts decoded
    /// from base64, and the header with its MAC.
    const STANZA: &str = "b0d2158ad4ed60fc1da7869468e27f049161af92d73499768d7ff867f76d1f34\
                          6d5f29757927cd007cf40303f110204ce94ab2a0303961955f6cf105e8d42635";
    const HEADER: &str = "age-encryption.org/v1\n\
                          -> X25519 sNIVitTtYPwdp4aUaOJ/BJFhr5LXNJl2jX/4Z/dtHzQ\n\
                          bV8pdXknzQB89AMD8RAgTOlKsqAwOWGVX2zxBejUJjU\n\
                          ---";
    const HEADER_MAC: &str = "5613161a73375b79ebb4bdd2954ec25cfb45f5cc3f17846a929439fc97e563c7";

    fn identity() -> AgeIdentity {
        AgeIdentity::parse(IDENTITY).unwrap()
    }

    fn identities(text: &str) -> Result<usize, AgeKeyError> {
        AgeIdentity::parse_file(&SecretVec::copy_of(text.as_bytes())).map(|list| list.len())
    }

    /// age-encryption.org/v1, "Header MAC".
    fn header_mac(file_key: &[u8], header: &str) -> Vec<u8> {
        let key = Prk::extract(&[], file_key).unwrap().expand::<32>(&[b"header"]).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        hmac::sign(&key, header.as_bytes()).as_ref().to_vec()
    }

    #[test]
    fn keys_are_those_that_age_keygen_writes() {
        assert_eq!(identity().recipient().to_string(), RECIPIENT);
        assert_eq!(&AgeRecipient::parse(RECIPIENT).unwrap(), identity().recipient());
    }

    #[test]
    fn stanza_of_age_opens_to_the_file_key_of_its_header() {
        let file_key = identity().unwrap_stanza(&unhex(STANZA)).unwrap();
        assert_eq!(file_key.len(), 16);
        let mac = file_key.expose(|key| header_mac(key, HEADER));
        assert_eq!(mac, unhex(HEADER_MAC));
    }

    #[test]
    fn wrapped_data_key_opens_for_its_identity_only() {
        let data_key = SecretArray::copy_of(&[7; 32]);
        let body = identity().recipient().wrap(&data_key, &mut SystemEntropy).unwrap();
        assert_eq!(AgeRecipient::of_body(&body).as_ref(), Some(identity().recipient()));
        assert!(identity().unwrap(&body).unwrap().ct_eq(&data_key));
        let other = AgeIdentity::of_secret(&SecretArray::copy_of(&[3; 32])).unwrap();
        assert_eq!(other.unwrap(&body).err(), Some(EnvelopeError::Undecryptable));
        for at in KEY_LEN..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert!(identity().unwrap(&bad).is_err(), "byte {at}");
        }
        for len in 0..body.len() {
            assert!(identity().unwrap(&body[..len]).is_err(), "length {len}");
        }
    }

    /// RFC 7748, section 7: points of low order give the zero secret.
    #[test]
    fn share_of_low_order_is_refused() {
        for point in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            let stanza = [&point[..], &[0; 48]].concat();
            assert!(identity().unwrap_stanza(&stanza).is_err());
            let wrapped =
                AgeRecipient(point).wrap(&SecretArray::copy_of(&[7; 32]), &mut SystemEntropy);
            assert_eq!(wrapped.err(), Some(EnvelopeError::Options));
        }
    }

    #[test]
    fn files_of_identities_are_read_as_age_reads_them() {
        let two = format!("# created: today\n\n{IDENTITY}\r\n  {IDENTITY}");
        assert_eq!(identities(&two), Ok(2));
        assert_eq!(identities("# nothing\n\n"), Err(AgeKeyError::NoIdentity));
        assert_eq!(identities(RECIPIENT), Err(AgeKeyError::Identity));
        assert_eq!(identities(&IDENTITY.replace('Q', "P")), Err(AgeKeyError::Identity));
        assert_eq!(identities("AGE-PLUGIN-YUBIKEY-1Q"), Err(AgeKeyError::OtherKind));
        let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc";
        assert_eq!(identities(ssh), Err(AgeKeyError::OtherKind));
        assert_eq!(identities("age-encryption.org/v1\n-> scrypt"), Err(AgeKeyError::Encrypted));
    }

    #[test]
    fn mistyped_recipients_are_refused() {
        for text in [
            "",
            "age1",
            IDENTITY,
            RECIPIENT.trim_end_matches(char::is_alphabetic),
            RECIPIENT.split_at(60).0,
            &format!("{RECIPIENT}q"),
        ] {
            assert_eq!(AgeRecipient::parse(text), Err(AgeKeyError::Recipient), "{text}");
        }
        for at in 4..RECIPIENT.len() {
            let mut typed = RECIPIENT.as_bytes().to_vec();
            typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
            let typed = String::from_utf8(typed).unwrap();
            assert!(AgeRecipient::parse(&typed).is_err(), "{typed}");
        }
    }

    proptest! {
        #[test]
        fn identity_files_never_panic(text in "\\PC{0,200}") {
            let _ = identities(&text);
        }
    }
}
