//! Hybrid public key encryption of one message: for who is absent, by his public half and a key
//! that he shares with the sender.
//!
//! Room      `crypto`. Seals receive the root key by it while their holders are away.
//! Source    RFC 9180, mode_psk, single-shot: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//!           ChaCha20Poly1305.
//! Holds     Who does not have the shared key makes nothing that opens. Secrets in between are
//!           wiped. An ephemeral key serves one message. A share of low order is refused.

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
const MODE_PSK: u8 = 1;

/// A key that sender and holder share.
#[derive(Clone, Copy, Debug)]
pub struct SharedKey<'a> {
    /// The key.
    pub key: &'a SecretArray<32>,
    /// Which one it is; not empty.
    pub id: &'a [u8],
}

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

/// Wrong keys, wrong info, wrong associated data, or altered bytes: deliberately one value.
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

    /// Opens what [`seal`] sealed for the public half with the same shared key, `info` and `aad`.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open(
        &self,
        psk: SharedKey<'_>,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<SecretVec, OpenError> {
        let (share, ciphertext) = sealed.split_first_chunk::<PUBLIC_LEN>().ok_or(OpenError)?;
        let public = self.public().map_err(|_| OpenError)?;
        let shared = self.decapsulate(share, share, &public).ok_or(OpenError)?;
        let (key, nonce) = schedule(&shared, psk, info).ok_or(OpenError)?;
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
    psk: SharedKey<'_>,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, HpkeError> {
    let refused = HpkeError::BadPublicKey;
    let ephemeral = HpkePrivateKey::generate(entropy)?;
    let share = ephemeral.public()?;
    let shared = ephemeral.decapsulate(recipient, &share, recipient).ok_or(refused)?;
    let (key, nonce) = schedule(&shared, psk, info).ok_or(refused)?;
    let mut sealed = Vec::with_capacity(plaintext.len().saturating_add(OVERHEAD_LEN));
    sealed.extend_from_slice(&share);
    sealed.extend_from_slice(plaintext);
    let ciphertext = sealed.get_mut(PUBLIC_LEN..).ok_or(refused)?;
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), ciphertext);
    sealed.extend_from_slice(tag.map_err(|_| refused)?.as_ref());
    Ok(sealed)
}

/// Key and nonce of the first message: `KeySchedule` with a pre-shared key.
fn schedule(shared: &[u8; 32], psk: SharedKey<'_>, info: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let mut context = vec![MODE_PSK];
    context.extend_from_slice(&labeled_hash(b"psk_id_hash", psk.id));
    context.extend_from_slice(&labeled_hash(b"info_hash", info));
    let secret = psk.key.expose(|psk| labeled_extract(HPKE_SUITE, shared, b"secret", psk))?;
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

    use super::{HpkeError, HpkePrivateKey, OVERHEAD_LEN, SharedKey, seal};
    use crate::{
        entropy::SystemEntropy,
        testing::{FixedEntropy, unhex},
    };

    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const AAD: &str = "436f756e742d30";
    const PLAINTEXT: &str = "4265617574792069732074727574682c20747275746820626561757479";
    const PSK: &str = "0247fd33b913760fa1fa51e1892d9f307fbe65eb171e8132c2af18555a738b82";
    const PSK_ID: &[u8] = b"Ennyn Durin aran Moria";
    const EPHEMERAL: &str = "0c35fdf49df7aa01cd330049332c40411ebba36e0c718ebc3edf5845795f6321";
    const PRIVATE: &str = "77d114e0212be51cb1d76fa99dd41cfd4d0166b08caa09074430a6c59ef17879";
    const PUBLIC: &str = "13640af826b722fc04feaa4de2f28fbd5ecc03623b317834e7ff4120dbe73062";
    const SHARE: &str = "2261299c3f40a9afc133b969a97f05e95be2c514e54f3de26cbe5644ac735b04";
    const CIPHERTEXT: &str = "4a177f9c0d6f15cfdf533fb65bf84aecdc6ab16b8b85b4cf65a370e07fc1d78d\
                              28fb073214525276f4a89608ff";

    fn private(hex: &str) -> HpkePrivateKey {
        HpkePrivateKey::of(SecretArray::try_copy_of(&unhex(hex)).unwrap())
    }

    /// RFC 9180, A.2.2, sequence number 0.
    #[test]
    fn sealing_matches_the_vector_of_the_standard() {
        let public = private(PRIVATE).public().unwrap();
        assert_eq!(public.to_vec(), unhex(PUBLIC));
        let mut ephemeral = FixedEntropy(unhex(EPHEMERAL));
        let key = SecretArray::try_copy_of(&unhex(PSK)).unwrap();
        let (psk, info, aad) = (SharedKey { key: &key, id: PSK_ID }, unhex(INFO), unhex(AAD));
        let sealed = seal(&public, psk, &info, &aad, &unhex(PLAINTEXT), &mut ephemeral).unwrap();
        assert_eq!(sealed, [unhex(SHARE), unhex(CIPHERTEXT)].concat());
        let opened = private(PRIVATE).open(psk, &info, &aad, &sealed).unwrap();
        assert!(opened.expose(|bytes| bytes == unhex(PLAINTEXT)));
    }

    #[test]
    fn sealed_message_opens_for_its_holder_shared_key_info_and_data_only() {
        let holder = HpkePrivateKey::generate(&mut SystemEntropy).unwrap();
        let public = holder.public().unwrap();
        let (key, other) = (SecretArray::copy_of(&[1; 32]), SecretArray::copy_of(&[2; 32]));
        let psk = SharedKey { key: &key, id: b"id" };
        let sealed = seal(&public, psk, b"info", b"aad", &[7; 32], &mut SystemEntropy).unwrap();
        assert_eq!(sealed.len(), 32 + OVERHEAD_LEN);
        let opened = holder.open(psk, b"info", b"aad", &sealed).unwrap();
        assert!(opened.expose(|bytes| bytes == [7; 32]));
        assert!(private(PRIVATE).open(psk, b"info", b"aad", &sealed).is_err());
        for wrong in [SharedKey { key: &other, id: b"id" }, SharedKey { key: &key, id: b"other" }] {
            assert!(holder.open(wrong, b"info", b"aad", &sealed).is_err());
        }
        assert!(holder.open(psk, b"inf", b"aad", &sealed).is_err());
        assert!(holder.open(psk, b"info", b"", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(holder.open(psk, b"info", b"aad", &bad).is_err(), "byte {at}");
            assert!(holder.open(psk, b"info", b"aad", &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    /// RFC 7748, section 7: points of low order give the zero secret.
    #[test]
    fn points_of_low_order_are_refused() {
        let key = SecretArray::copy_of(&[1; 32]);
        let psk = SharedKey { key: &key, id: b"id" };
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            let sealed = seal(&point, psk, b"", b"", b"x", &mut SystemEntropy);
            assert_eq!(sealed.err(), Some(HpkeError::BadPublicKey));
            let bytes = [&point[..], &[0; 48]].concat();
            assert!(private(PRIVATE).open(psk, b"", b"", &bytes).is_err());
        }
    }

    #[test]
    fn nothing_is_sealed_without_randomness() {
        let key = SecretArray::copy_of(&[1; 32]);
        let psk = SharedKey { key: &key, id: b"id" };
        let public = private(PRIVATE).public().unwrap();
        let sealed = seal(&public, psk, b"", b"", b"x", &mut FixedEntropy(vec![0; 31]));
        assert_eq!(sealed.err(), Some(HpkeError::Entropy));
    }
}
