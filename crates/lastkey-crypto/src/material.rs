//! Key material: what kinds there are, how it is made, checked and shown in public.
//!
//! Room      `crypto`. Symmetric material is raw bytes; a key pair is its private half as
//!           PKCS#8 DER, from which the public half follows.
//! Source    FIPS 186-5, SP 800-56B; RFC 5958 (PKCS#8), RFC 5280 (SubjectPublicKeyInfo),
//!           RFC 7468 (PEM).
//! Holds     Material that `generate` made passes `validate`, and so does nothing of another
//!           kind or size.

use lastkey_secret::SecretVec;

use crate::{entropy::Entropy, pair::KeyPair};

/// Why material cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// The operation does not exist for this kind of key.
    #[error("the key is of another kind")]
    WrongSpec,
    /// Not material of this kind: wrong length, structure, curve, size or exponent.
    #[error("the key material is malformed or of another kind")]
    Malformed,
    /// This build lacks the algorithm.
    #[error("this build does not support the algorithm")]
    Unsupported,
    /// No randomness.
    #[error("no randomness available")]
    Entropy,
    /// The primitive refused, which it has no reason to.
    #[error("the cryptographic operation failed")]
    Failed,
}

/// A kind of key material. `Sm4` and `Sm2` are usable only with the cargo feature `sm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MaterialSpec {
    /// AES with a 128-bit key.
    Aes128,
    /// AES with a 256-bit key.
    Aes256,
    /// SM4, a 128-bit key.
    Sm4,
    /// HMAC-SHA-256 with a 256-bit key.
    Hmac256,
    /// HMAC-SHA-384 with a 384-bit key.
    Hmac384,
    /// HMAC-SHA-512 with a 512-bit key.
    Hmac512,
    /// RSA with a modulus of 2,048 bits.
    Rsa2048,
    /// RSA with a modulus of 3,072 bits.
    Rsa3072,
    /// RSA with a modulus of 4,096 bits.
    Rsa4096,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// SECG secp256k1.
    Secp256k1,
    /// Ed25519.
    Ed25519,
    /// SM2.
    Sm2,
}

impl MaterialSpec {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Aes128,
        Self::Aes256,
        Self::Sm4,
        Self::Hmac256,
        Self::Hmac384,
        Self::Hmac512,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
        Self::Secp256k1,
        Self::Ed25519,
        Self::Sm2,
    ];

    /// The name in labels, records and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "AES_128",
            Self::Aes256 => "AES_256",
            Self::Sm4 => "SM4",
            Self::Hmac256 => "HMAC_256",
            Self::Hmac384 => "HMAC_384",
            Self::Hmac512 => "HMAC_512",
            Self::Rsa2048 => "RSA_2048",
            Self::Rsa3072 => "RSA_3072",
            Self::Rsa4096 => "RSA_4096",
            Self::P256 => "ECC_NIST_P256",
            Self::P384 => "ECC_NIST_P384",
            Self::Secp256k1 => "ECC_SECG_P256K1",
            Self::Ed25519 => "ED25519",
            Self::Sm2 => "SM2",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|spec| spec.name() == name)
    }

    /// Length of symmetric material in bytes; `None` for key pairs.
    #[must_use]
    pub const fn symmetric_len(self) -> Option<usize> {
        match self {
            Self::Aes128 | Self::Sm4 => Some(16),
            Self::Aes256 | Self::Hmac256 => Some(32),
            Self::Hmac384 => Some(48),
            Self::Hmac512 => Some(64),
            Self::Rsa2048
            | Self::Rsa3072
            | Self::Rsa4096
            | Self::P256
            | Self::P384
            | Self::Secp256k1
            | Self::Ed25519
            | Self::Sm2 => None,
        }
    }

    /// Length of an RSA modulus in bits; `None` for every other kind.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2_048),
            Self::Rsa3072 => Some(3_072),
            Self::Rsa4096 => Some(4_096),
            Self::Aes128
            | Self::Aes256
            | Self::Sm4
            | Self::Hmac256
            | Self::Hmac384
            | Self::Hmac512
            | Self::P256
            | Self::P384
            | Self::Secp256k1
            | Self::Ed25519
            | Self::Sm2 => None,
        }
    }

    /// Whether this build can use the kind.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        !matches!(self, Self::Sm4 | Self::Sm2) || cfg!(feature = "sm")
    }
}

/// Makes fresh material: raw bytes, or a private key as PKCS#8 DER.
///
/// Symmetric material comes from `entropy`; key pairs come from the generator of the
/// cryptographic library, which samples by itself. RSA takes seconds at 4,096 bits.
///
/// # Errors
/// [`MaterialError::Unsupported`]; [`MaterialError::Entropy`]; [`MaterialError::Failed`].
pub fn generate(spec: MaterialSpec, entropy: &mut dyn Entropy) -> Result<SecretVec, MaterialError> {
    if !spec.is_supported() {
        return Err(MaterialError::Unsupported);
    }
    match spec.symmetric_len() {
        Some(len) => SecretVec::try_fill(len, |bytes| entropy.fill(bytes))
            .map_err(|_| MaterialError::Entropy),
        None => KeyPair::generate(spec, entropy),
    }
}

/// Checks material that somebody else made.
///
/// # Errors
/// [`MaterialError::Unsupported`]; [`MaterialError::Malformed`] unless the bytes are material
/// of exactly this kind and size. The only RSA exponent is 65,537.
pub fn validate(spec: MaterialSpec, material: &SecretVec) -> Result<(), MaterialError> {
    if !spec.is_supported() {
        return Err(MaterialError::Unsupported);
    }
    match spec.symmetric_len() {
        Some(len) if len == material.len() => Ok(()),
        Some(_) => Err(MaterialError::Malformed),
        None => KeyPair::parse(spec, material).map(drop),
    }
}

/// The public half of a key pair as SubjectPublicKeyInfo in DER.
///
/// # Errors
/// [`MaterialError::WrongSpec`] for symmetric kinds; else as [`validate`].
pub fn public_key_der(spec: MaterialSpec, material: &SecretVec) -> Result<Vec<u8>, MaterialError> {
    if spec.symmetric_len().is_some() {
        return Err(MaterialError::WrongSpec);
    }
    KeyPair::parse(spec, material)?.public_key_der()
}

/// The PEM form of a public key: label `PUBLIC KEY`, lines of 64, a newline at the end.
#[must_use]
pub fn public_key_pem(spki_der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (at, group) in spki_der.chunks(3).enumerate() {
        if at > 0 && at % 16 == 0 {
            pem.push('\n');
        }
        push_base64(&mut pem, group);
    }
    pem.push_str("\n-----END PUBLIC KEY-----\n");
    pem
}

fn push_base64(text: &mut String, group: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
        let digit = usize::try_from(bits >> shift & 63).ok().and_then(|digit| ALPHABET.get(digit));
        text.push(if at > group.len() { '=' } else { digit.copied().map_or('=', char::from) });
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{MaterialError, MaterialSpec, generate, public_key_der, public_key_pem, validate};
    use crate::{
        entropy::SystemEntropy,
        testing::{FixedEntropy, sample_material, sample_specs},
    };

    #[test]
    fn names_are_unique_and_parse_back() {
        for spec in MaterialSpec::ALL {
            assert_eq!(MaterialSpec::parse(spec.name()), Some(spec));
        }
        assert_eq!(MaterialSpec::parse("aes_256"), None);
        assert_eq!(MaterialSpec::parse(""), None);
    }

    #[test]
    fn generated_material_is_valid_for_its_own_kind_only() {
        for spec in sample_specs() {
            let material = sample_material(spec);
            for other in MaterialSpec::ALL.into_iter().filter(|other| other.is_supported()) {
                // Symmetric kinds take any bytes of their length; Ed25519 in PKCS#8 has 48.
                let alike = other.symmetric_len() == Some(material.len());
                assert_eq!(validate(other, &material).is_ok(), other == spec || alike, "{other:?}");
            }
        }
    }

    #[test]
    fn symmetric_material_is_what_the_entropy_gave() {
        let material = generate(MaterialSpec::Aes256, &mut FixedEntropy(vec![7; 32])).unwrap();
        assert!(material.expose(|bytes| bytes == [7; 32]));
        let starved = generate(MaterialSpec::Aes256, &mut FixedEntropy(vec![7; 31]));
        assert_eq!(starved.err(), Some(MaterialError::Entropy));
    }

    #[test]
    fn key_pairs_differ_from_one_another() {
        let one = generate(MaterialSpec::P256, &mut SystemEntropy).unwrap();
        assert!(!one.ct_eq(&generate(MaterialSpec::P256, &mut SystemEntropy).unwrap()));
    }

    #[test]
    fn damaged_material_is_refused() {
        for spec in sample_specs() {
            let mut bytes = sample_material(spec).expose(<[u8]>::to_vec);
            bytes.pop();
            assert_eq!(
                validate(spec, &SecretVec::take(bytes)),
                Err(MaterialError::Malformed),
                "{spec:?}"
            );
        }
    }

    #[test]
    fn symmetric_material_has_no_public_half() {
        let material = SecretVec::copy_of(&[0; 32]);
        let outcome = public_key_der(MaterialSpec::Hmac256, &material);
        assert_eq!(outcome, Err(MaterialError::WrongSpec));
    }

    #[cfg(not(feature = "sm"))]
    #[test]
    fn kinds_outside_this_build_are_refused_everywhere() {
        for spec in [MaterialSpec::Sm4, MaterialSpec::Sm2] {
            let bytes = SecretVec::copy_of(&[0; 16]);
            let made = generate(spec, &mut SystemEntropy);
            assert_eq!(made.err(), Some(MaterialError::Unsupported));
            assert_eq!(validate(spec, &bytes), Err(MaterialError::Unsupported));
        }
    }

    #[test]
    fn pem_pads_and_breaks_lines_at_sixty_four() {
        let frame =
            |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        assert_eq!(public_key_pem(b"f"), frame("Zg=="));
        assert_eq!(public_key_pem(b"fo"), frame("Zm8="));
        assert_eq!(public_key_pem(b"foo"), frame("Zm9v"));
        assert_eq!(public_key_pem(&[0xff; 48]), frame(&"/".repeat(64)));
        let two_lines = format!("{}\n//8=", "/".repeat(64));
        assert_eq!(public_key_pem(&[0xff; 50]), frame(&two_lines));
    }
}
