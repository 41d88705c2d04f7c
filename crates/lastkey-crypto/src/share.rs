//! A secret split into shares: any `threshold` of them give it back, fewer say nothing.
//!
//! Room      `crypto`.
//! Source    `docs/formats/share.md`; Shamir (1979) over GF(2^8) with the polynomial of AES, one
//!           polynomial for each byte of the secret.
//! Holds     No branch and no table lookup depends on a share or on the secret. Each share
//!           carries where it belongs, and a share that was mistyped does not parse. Whoever
//!           knows its check value can tell the right share from a wrong one, and nobody can
//!           learn the share from it.

use core::fmt;

use lastkey_secret::{SecretArray, SecretVec, ct_eq};
use zeroize::Zeroizing;

use crate::{bech32, digest::sha256, entropy::Entropy, kdf::derive};

/// What the text of a share begins with.
const PART: &str = "lastkey-share-";
const FORMAT: u8 = 1;
const LEN: usize = 1 + 16 + 16 + 3 + 32;

/// Why there are no shares, or no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// A threshold below 2, above the number of shares, or too many shares.
    #[error("the threshold is 2 to the number of shares, of which there are at most 255")]
    Counts,
    /// No randomness for the polynomials.
    #[error("no randomness available")]
    Entropy,
    /// Not the text of a share, or mistyped.
    #[error("this is not a share (lastkey-share-1...), or it was mistyped")]
    Malformed,
    /// Written by a later version.
    #[error("this share was made by a newer version")]
    Newer,
    /// Fewer shares than the threshold, one twice, or shares of different secrets.
    #[error("these shares do not belong together or are too few")]
    DoNotCombine,
}

/// Where a share belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePlace {
    /// The installation.
    pub instance: [u8; 16],
    /// The seal.
    pub seal: [u8; 16],
    /// How many shares give the secret back.
    pub threshold: u8,
    /// How many there are.
    pub shares: u8,
}

/// One share.
pub struct Share {
    place: SharePlace,
    index: u8,
    value: SecretArray<32>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {})", self.index, self.place.shares)
    }
}

impl Share {
    /// Where it belongs.
    #[must_use]
    pub const fn place(&self) -> &SharePlace {
        &self.place
    }

    /// Its number, from 1.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Reads the text of a share; space around it does not matter.
    ///
    /// # Errors
    /// [`ShareError::Malformed`], [`ShareError::Newer`].
    pub fn parse(text: &SecretVec) -> Result<Self, ShareError> {
        let bytes = text.expose(|text| {
            let text = core::str::from_utf8(text).ok()?;
            bech32::decode(PART, text.trim())
        });
        Self::of_bytes(&bytes.ok_or(ShareError::Malformed)?)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, ShareError> {
        let malformed = ShareError::Malformed;
        let (format, rest) = bytes.split_first().ok_or(malformed)?;
        match *format {
            FORMAT => {}
            0 => return Err(malformed),
            _ => return Err(ShareError::Newer),
        }
        let (instance, rest) = rest.split_first_chunk::<16>().ok_or(malformed)?;
        let (seal, rest) = rest.split_first_chunk::<16>().ok_or(malformed)?;
        let ([threshold, shares, index], value) = rest.split_first_chunk::<3>().ok_or(malformed)?;
        let place =
            SharePlace { instance: *instance, seal: *seal, threshold: *threshold, shares: *shares };
        if !place.is_possible() || !(1..=place.shares).contains(index) {
            return Err(malformed);
        }
        let value = SecretArray::try_copy_of(value).ok_or(malformed)?;
        Ok(Self { place, index: *index, value })
    }

    /// The text: what a holder keeps, and types or pastes.
    #[must_use]
    pub fn to_text(&self) -> SecretVec {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN));
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.place.instance);
        bytes.extend_from_slice(&self.place.seal);
        bytes.extend_from_slice(&[self.place.threshold, self.place.shares, self.index]);
        self.value.expose(|value| bytes.extend_from_slice(value));
        SecretVec::copy_of(bech32::encode(PART, &bytes).as_bytes())
    }

    /// What a holder shows to prove that he has this share. It does not tell the share.
    ///
    /// # Errors
    /// [`ShareError::Malformed`] when the library refuses, which it has no reason to.
    pub fn proof(&self) -> Result<[u8; 32], ShareError> {
        let proof = derive(&self.value, b"lastkey/share-proof/v1");
        proof.map(|proof| proof.expose(|bytes| *bytes)).map_err(|_| ShareError::Malformed)
    }

    /// What is kept of this share, to check it by.
    ///
    /// # Errors
    /// As [`Share::proof`].
    pub fn check_value(&self) -> Result<[u8; 32], ShareError> {
        self.proof().map(|proof| sha256(&proof))
    }
}

/// Whether a proof is that of the share with this check value.
#[must_use]
pub fn is_proof(proof: &[u8; 32], check_value: &[u8; 32]) -> bool {
    ct_eq(&sha256(proof), check_value)
}

impl SharePlace {
    const fn is_possible(&self) -> bool {
        self.threshold >= 2 && self.threshold <= self.shares
    }
}

/// Splits a secret.
///
/// # Errors
/// [`ShareError::Counts`], [`ShareError::Entropy`].
pub fn split(
    secret: &SecretArray<32>,
    place: SharePlace,
    entropy: &mut dyn Entropy,
) -> Result<Vec<Share>, ShareError> {
    if !place.is_possible() {
        return Err(ShareError::Counts);
    }
    // The coefficients above the secret, lowest power first.
    let draw = |_| SecretArray::<32>::try_fill(|bytes| entropy.fill(bytes));
    let coefficients = (1..place.threshold).map(draw).collect::<Result<Vec<_>, _>>();
    let coefficients = coefficients.map_err(|_| ShareError::Entropy)?;
    let share = |index| {
        let value = SecretArray::try_fill(|value: &mut [u8; 32]| {
            for coefficient in coefficients.iter().rev().chain([secret]) {
                coefficient.expose(|coefficient| {
                    for (to, from) in value.iter_mut().zip(coefficient) {
                        *to = multiply(*to, index) ^ from;
                    }
                });
            }
            Ok(())
        });
        value.map(|value| Share { place, index, value })
    };
    (1..=place.shares).map(share).collect()
}

/// Gives the secret back. All shares are used; there must be at least as many as the threshold
/// says.
///
/// # Errors
/// [`ShareError::DoNotCombine`].
pub fn combine<'a>(
    shares: impl IntoIterator<Item = &'a Share>,
) -> Result<SecretArray<32>, ShareError> {
    let refused = ShareError::DoNotCombine;
    let shares: Vec<&Share> = shares.into_iter().collect();
    let place = shares.first().ok_or(refused)?.place;
    let mut indexes: Vec<u8> = shares.iter().map(|share| share.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let belong = shares.iter().all(|share| share.place == place);
    if !belong || indexes.len() != shares.len() || shares.len() < usize::from(place.threshold) {
        return Err(refused);
    }
    SecretArray::try_fill(|secret: &mut [u8; 32]| {
        for share in &shares {
            let weight = weight_at_zero(share.index, &indexes);
            share.value.expose(|value| {
                for (to, from) in secret.iter_mut().zip(value) {
                    *to ^= multiply(weight, *from);
                }
            });
        }
        Ok(())
    })
}

/// The Lagrange coefficient of one index at zero: the product of x / (x - index) over the others.
fn weight_at_zero(index: u8, indexes: &[u8]) -> u8 {
    indexes
        .iter()
        .filter(|other| **other != index)
        .fold(1, |product, other| multiply(product, multiply(*other, invert(*other ^ index))))
}

/// The product in GF(2^8) with x^8 + x^4 + x^3 + x + 1, in a time that depends on nothing.
const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut shifted, mut bit) = (0, a, 0);
    while bit < 8 {
        product ^= (b >> bit & 1).wrapping_neg() & shifted;
        shifted = (shifted << 1) ^ ((shifted >> 7).wrapping_neg() & 0x1b);
        bit += 1;
    }
    product
}

/// The inverse, a^254; of zero it is zero.
const fn invert(a: u8) -> u8 {
    let (mut power, mut inverse, mut step) = (a, 1, 0);
    while step < 7 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
        step += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use lastkey_secret::{SecretArray, SecretVec};
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{Share, ShareError, SharePlace, combine, invert, is_proof, multiply, split};
    use crate::{entropy::SystemEntropy, testing::FixedEntropy};

    fn place(threshold: u8, shares: u8) -> SharePlace {
        SharePlace { instance: [1; 16], seal: [2; 16], threshold, shares }
    }

    fn secret() -> SecretArray<32> {
        SecretArray::copy_of(&core::array::from_fn(|at| at as u8 * 7))
    }

    fn shares(threshold: u8, count: u8) -> Vec<Share> {
        split(&secret(), place(threshold, count), &mut SystemEntropy).unwrap()
    }

    fn parse(text: &[u8]) -> Result<Share, ShareError> {
        Share::parse(&SecretVec::copy_of(text))
    }

    /// FIPS 197, 4.2, and every inverse.
    #[test]
    fn field_is_the_one_of_aes() {
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
        for a in 1..=255 {
            assert_eq!(multiply(a, invert(a)), 1, "{a}");
        }
        assert_eq!(invert(0), 0);
    }

    #[test]
    fn any_threshold_of_the_shares_gives_the_secret_back_in_any_order() {
        let all = shares(3, 5);
        for a in 0..5 {
            for b in 0..5 {
                for c in 0..5 {
                    let combined = combine([&all[a], &all[b], &all[c]]);
                    match combined {
                        Ok(back) => assert!(back.ct_eq(&secret())),
                        Err(error) => {
                            assert_eq!(error, ShareError::DoNotCombine);
                            assert!(a == b || b == c || a == c);
                        }
                    }
                }
            }
        }
        assert!(combine(&all).unwrap().ct_eq(&secret()));
        assert_eq!(combine([&all[0], &all[1]]).err(), Some(ShareError::DoNotCombine));
        assert!(combine(&shares(255, 255)).unwrap().ct_eq(&secret()));
    }

    /// One share less fits every secret: with the polynomial of degree one through the secret,
    /// each value of the other share is as likely.
    #[test]
    fn one_share_less_says_nothing() {
        let value = |first: u8| {
            let coefficients = FixedEntropy(vec![first; 32]);
            let shares = split(&secret(), place(2, 2), &mut { coefficients }).unwrap();
            shares[0].value.expose(|bytes| bytes[5])
        };
        let mut seen: Vec<u8> = (0..=255).map(value).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<_>>());
    }

    #[test]
    fn shares_of_different_secrets_do_not_combine() {
        let (one, mut other) = (shares(2, 3), shares(2, 3));
        other[1].place.seal = [9; 16];
        assert_eq!(combine([&one[0], &other[1]]).err(), Some(ShareError::DoNotCombine));
    }

    #[test]
    fn text_of_a_share_reads_back_and_bears_no_mistake() {
        let share = &shares(2, 3)[1];
        let text = share.to_text().expose(<[u8]>::to_vec);
        assert!(text.starts_with(b"lastkey-share-1"));
        let padded = [b" \n", &text[..], b"\r\n"].concat();
        let back = parse(&padded).unwrap();
        assert!(back.value.ct_eq(&share.value));
        assert_eq!((back.index(), back.place()), (2, &place(2, 3)));
        for at in 0..text.len() {
            let mut typed = text.clone();
            typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
            assert_eq!(parse(&typed).err(), Some(ShareError::Malformed), "letter {at}");
            assert_eq!(parse(&text[..at]).err(), Some(ShareError::Malformed), "{at} letters");
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        for (threshold, count) in [(0, 3), (1, 3), (4, 3), (0, 0), (1, 1)] {
            let made = split(&secret(), place(threshold, count), &mut SystemEntropy);
            assert_eq!(made.err(), Some(ShareError::Counts), "{threshold} of {count}");
        }
        let dry = split(&secret(), place(2, 3), &mut FixedEntropy(vec![0; 31]));
        assert_eq!(dry.err(), Some(ShareError::Entropy));
    }

    #[test]
    fn check_value_knows_its_share_and_no_other() {
        let all = shares(2, 3);
        let value = all[0].check_value().unwrap();
        assert!(is_proof(&all[0].proof().unwrap(), &value));
        assert!(!is_proof(&all[1].proof().unwrap(), &value));
        assert!(!is_proof(&value, &value));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_share_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let read = Share::of_bytes(&bytes);
            prop_assert!(read.is_err() || bytes.len() == super::LEN);
        }

        #[test]
        fn any_text_is_a_share_or_refused(text in "\\PC{0,160}") {
            prop_assert!(parse(text.as_bytes()).is_err());
        }
    }
}
