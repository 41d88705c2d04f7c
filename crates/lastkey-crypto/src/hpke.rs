//! Hybrid public key encryption of one message: for who is absent, by his public half.
//!
//! Room      `crypto`. Seals receive the root key by it while their holders are away.
//! Source    RFC 9180, base mode, single-shot: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//!           ChaCha20Poly1305.
//! Holds     Secrets in between are wiped. An ephemeral key serves one message. A share of low
//!           order is refused.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    hmac,
};
use lastkey_secret::{SecretArray, SecretVec};
use zeroize::{Zeroize, Zeroizing};

use crate::{entropy::Entropy, hkdf::Prk};

/// Bytes of a public half, and of the encapsulated share in front of a ciphertext.
pub const PUBLIC_LEN: usize = 32;

/// Bytes that sealing adds: encapsulated share 32 and tag 16.
pub const OVERHEAD_LEN: usize = PUBLIC_LEN + 16;

/// "KEM" ‖ 0x0020.
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
/// "HPKE" ‖ KEM 0x0020 ‖ KDF 0x0001 ‖ AEAD 0x0003.
const HPKE_SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";
const VERSION: &[u8] = b"HPKE-v1";

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpkeError {
    /// No randomness for the ephemeral key.
    #[error("no randomness available")]
    Entropy,
    /// The public half is a point of low order, or the primitive refused.
    #[error("the public key cannot be used")]
    BadPublicKey,
}

/// Wrong key, wrong info, wrong associated data, or altered bytes: deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be opened")]
pub struct OpenError;

/// The private half. Its 32 bytes may be any.
#[derive(Debug)]
pub struct HpkePrivateKey(SecretArray<32>);

impl HpkePrivateKey {
    /// Draws a private half.
    ///
    /// # Errors
    /// [`HpkeError::Entropy`].
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, HpkeError> {
        let secret = SecretArray::try_fill(|bytes| entropy.fill(bytes));
        secret.map(Self).map_err(|_| HpkeError::Entropy)
    }

    /// Takes over the bytes of a private half.
    #[must_use]
    pub const fn of(secret: SecretArray<32>) -> Self {
        Self(secret)
    }

    /// The bytes, for whatever protects them.
    #[must_use]
    pub const fn secret(&self) -> &SecretArray<32> {
        &self.0
    }

    /// The public half.
    ///
    /// # Errors
    /// [`HpkeError::BadPublicKey`] when the library refuses, which it has no reason to.
    pub fn public(&self) -> Result<[u8; PUBLIC_LEN], HpkeError> {
        let secret = self.0.expose(|bytes| PrivateKey::from_private_key(&X25519, bytes));
        let secret = secret.map_err(|_| HpkeError::BadPublicKey)?;
        let public = secret.compute_public_key().map_err(|_| HpkeError::BadPublicKey)?;
        public.as_ref().try_into().map_err(|_| HpkeError::BadPublicKey)
    }

    /// Opens what [`seal`] sealed for the public half with the same `info` and `aad`.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<SecretVec, OpenError> {
        let (share, ciphertext) = sealed.split_first_chunk::<PUBLIC_LEN>().ok_or(OpenError)?;
        let public = self.public().map_err(|_| OpenError)?;
        let shared = self.decapsulate(share, share, &public).ok_or(OpenError)?;
        let (key, nonce) = schedule(&shared, info).ok_or(OpenError)?;
        let mut buffer = ciphertext.to_vec();
        match key.open_in_place(nonce, Aad::from(aad), &mut buffer).map(|opened| opened.len()) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(SecretVec::take(buffer))
            }
            Err(_) => {
                buffer.zeroize();
                Err(OpenError)
            }
        }
    }

    /// ExtractAndExpand(DH(self, peer), share ‖ recipient): the shared secret of the KEM.
    fn decapsulate(
        &self,
        peer: &[u8; PUBLIC_LEN],
        share: &[u8; PUBLIC_LEN],
        recipient: &[u8; PUBLIC_LEN],
    ) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.0.expose(|bytes| PrivateKey::from_private_key(&X25519, bytes)).ok()?;
        agree(&secret, UnparsedPublicKey::new(&X25519, peer), (), |dh| {
            // RFC 9180, 7.1.4: the all-zero value of a point of low order is refused.
            if dh.iter().fold(0, |any, byte| any | byte) == 0 {
                return Err(());
            }
            let prk = labeled_extract(KEM_SUITE, &[], b"eae_prk", dh).ok_or(())?;
            let label = [&[0, 32], VERSION, KEM_SUITE, b"shared_secret", share, recipient];
            prk.expand::<32>(&label).ok_or(())
        })
        .ok()
    }
}

/// Seals one message for the holder of a public half: encapsulated share 32 ‖ ciphertext ‖ tag 16.
///
/// # Errors
/// [`HpkeError`].
pub fn seal(
    recipient: &[u8; PUBLIC_LEN],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, HpkeError> {
    let refused = HpkeError::BadPublicKey;
    let ephemeral = HpkePrivateKey::generate(entropy)?;
    let share = ephemeral.public()?;
    let shared = ephemeral.decapsulate(recipient, &share, recipient).ok_or(refused)?;
    let (key, nonce) = schedule(&shared, info).ok_or(refused)?;
    let mut sealed = Vec::with_capacity(plaintext.len().saturating_add(OVERHEAD_LEN));
    sealed.extend_from_slice(&share);
    sealed.extend_from_slice(plaintext);
    let ciphertext = sealed.get_mut(PUBLIC_LEN..).ok_or(refused)?;
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), ciphertext);
    sealed.extend_from_slice(tag.map_err(|_| refused)?.as_ref());
    Ok(sealed)
}

/// Key and nonce of the first message: `KeySchedule` without a pre-shared key.
fn schedule(shared: &[u8; 32], info: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let mut context = vec![0];
    context.extend_from_slice(&labeled_hash(b"psk_id_hash", &[]));
    context.extend_from_slice(&labeled_hash(b"info_hash", info));
    let secret = labeled_extract(HPKE_SUITE, shared, b"secret", &[])?;
    let key = secret.expand::<32>(&[&[0, 32], VERSION, HPKE_SUITE, b"key", &context])?;
    let nonce = secret.expand::<12>(&[&[0, 12], VERSION, HPKE_SUITE, b"base_nonce", &context])?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).ok()?;
    Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(*nonce)))
}

/// `LabeledExtract` of the standard.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], secret: &[u8]) -> Option<Prk> {
    let parts = [VERSION, suite, label, secret];
    let len = parts.iter().map(|part| part.len()).sum();
    // Its size is known, so that no copy of the secret is left behind by a growing buffer.
    let mut input = Zeroizing::new(Vec::with_capacity(len));
    for part in parts {
        input.extend_from_slice(part);
    }
    Prk::extract(salt, &input)
}

/// `LabeledExtract` of something public, as bytes.
fn labeled_hash(label: &[u8], public: &[u8]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &[]));
    for part in [VERSION, HPKE_SUITE, label, public] {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::{HpkeError, HpkePrivateKey, OVERHEAD_LEN, seal};
    use crate::{
        entropy::SystemEntropy,
        testing::{FixedEntropy, unhex},
    };

    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const AAD: &str = "436f756e742d30";
    const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";
    const EPHEMERAL: &str = "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600";
    const PRIVATE: &str = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb";
    const PUBLIC: &str = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
    const SHARE: &str = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a";
    const CIPHERTEXT: &str = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db\
                              21993c62ce81883d2dd1b51a28";

    fn private(hex: &str) -> HpkePrivateKey {
        HpkePrivateKey::of(SecretArray::try_copy_of(&unhex(hex)).unwrap())
    }

    /// RFC 9180, A.2.1, sequence number 0.
    #[test]
    fn sealing_matches_the_vector_of_the_standard() {
        let public = private(PRIVATE).public().unwrap();
        assert_eq!(public.to_vec(), unhex(PUBLIC));
        let mut ephemeral = FixedEntropy(unhex(EPHEMERAL));
        let sealed =
            seal(&public, &unhex(INFO), &unhex(AAD), &unhex(PLAINTEXT), &mut ephemeral).unwrap();
        assert_eq!(sealed, [unhex(SHARE), unhex(CIPHERTEXT)].concat());
        let opened = private(PRIVATE).open(&unhex(INFO), &unhex(AAD), &sealed).unwrap();
        assert!(opened.expose(|bytes| bytes == unhex(PLAINTEXT)));
    }

    #[test]
    fn sealed_message_opens_for_its_holder_info_and_data_only() {
        let holder = HpkePrivateKey::generate(&mut SystemEntropy).unwrap();
        let public = holder.public().unwrap();
        let sealed = seal(&public, b"info", b"aad", &[7; 32], &mut SystemEntropy).unwrap();
        assert_eq!(sealed.len(), 32 + OVERHEAD_LEN);
        assert!(holder.open(b"info", b"aad", &sealed).unwrap().expose(|bytes| bytes == [7; 32]));
        assert!(private(PRIVATE).open(b"info", b"aad", &sealed).is_err());
        assert!(holder.open(b"inf", b"aad", &sealed).is_err());
        assert!(holder.open(b"info", b"", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(holder.open(b"info", b"aad", &bad).is_err(), "byte {at}");
            assert!(holder.open(b"info", b"aad", &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    /// RFC 7748, section 7: points of low order give the zero secret.
    #[test]
    fn points_of_low_order_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            let sealed = seal(&point, b"", b"", b"x", &mut SystemEntropy);
            assert_eq!(sealed.err(), Some(HpkeError::BadPublicKey));
            assert!(private(PRIVATE).open(b"", b"", &[&point[..], &[0; 48]].concat()).is_err());
        }
    }

    #[test]
    fn nothing_is_sealed_without_randomness() {
        let public = private(PRIVATE).public().unwrap();
        let sealed = seal(&public, b"", b"", b"x", &mut FixedEntropy(vec![0; 31]));
        assert_eq!(sealed.err(), Some(HpkeError::Entropy));
    }
}
