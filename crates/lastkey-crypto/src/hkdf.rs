//! HKDF-SHA-256 with the extracted key kept ready.
//!
//! Room      `crypto`, inside. One expand call of the library is faster than single HMACs
//!           under a prepared key, although it prepares the key again.
//! Source    RFC 5869.
//! Holds     Every intermediate key is wiped.

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

/// An extracted pseudorandom key. Boxed: the bytes have one home and are wiped there.
pub(crate) struct Prk(Box<hkdf::Prk>);

impl Prk {
    /// HKDF-Extract of `secret`, the input keying material.
    pub(crate) fn extract(salt: &[u8], secret: &[u8]) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
        let mut prk = Zeroizing::new([0; 32]);
        hmac::sign_to_buffer(&key, secret, prk.as_mut()).ok()?;
        Some(Self(Box::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk.as_ref()))))
    }

    /// A key that is uniformly random already, taken as it is (RFC 5869, 3.3).
    pub(crate) fn ready(key: &[u8; 32]) -> Self {
        Self(Box::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)))
    }

    /// HKDF-Expand to `N` bytes, at most 8,160.
    pub(crate) fn expand<const N: usize>(&self, info: &[&[u8]]) -> Option<Zeroizing<[u8; N]>> {
        let mut okm = Zeroizing::new([0; N]);
        self.0.expand(info, OutputLen(N)).ok()?.fill(okm.as_mut()).ok()?;
        Some(okm)
    }
}

struct OutputLen(usize);

impl hkdf::KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Prk;
    use crate::testing::unhex;

    /// RFC 5869, appendix A: basic, longer inputs, zero-length salt and info.
    #[test]
    fn expansion_matches_the_vectors_of_the_standard() {
        let long: Vec<u8> = (0x00..=0x4f).collect();
        let long_salt: Vec<u8> = (0x60..=0xaf).collect();
        let long_info: Vec<u8> = (0xb0..=0xff).collect();
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let basic = Prk::extract(&salt, &[0x0b; 22]).unwrap().expand::<42>(&[&info]).unwrap();
        assert_eq!(
            basic.to_vec(),
            unhex(
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf\
                 34007208d5b887185865"
            )
        );
        let longer = Prk::extract(&long_salt, &long).unwrap().expand::<82>(&[&long_info]).unwrap();
        assert_eq!(
            longer.to_vec(),
            unhex(
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c\
                 59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71\
                 cc30c58179ec3e87c14c01d5c1f3434f1d87"
            )
        );
        let bare = Prk::extract(&[], &[0x0b; 22]).unwrap().expand::<42>(&[]).unwrap();
        assert_eq!(
            bare.to_vec(),
            unhex(
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d\
                 9d201395faa4b61a96c8"
            )
        );
    }
}
