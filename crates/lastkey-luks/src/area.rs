//! The encrypted area of a key slot: AES-XTS over sectors of 512 bytes.
//!
//! Room      `luks`. AWS-LC's interface has no XTS, so this is RustCrypto's AES under `xts-mode`.
//! Source    LUKS2 specification, 3.2.2 (`aes-xts-plain64`); IEEE 1619.

use aes::cipher::KeyInit as _;
use aes::{Aes128, Aes256};
use lastkey_secret::SecretVec;
use xts_mode::{Xts128, get_tweak_default};

use crate::error::Error;

/// The only way in which areas of key slots and data are encrypted here, as dm-crypt names it.
pub const ENCRYPTION: &str = "aes-xts-plain64";
pub(crate) const SECTOR_LEN: usize = 512;

enum Xts {
    Aes128(Box<Xts128<Aes128>>),
    Aes256(Box<Xts128<Aes256>>),
}

impl Xts {
    /// Two keys of one length, one after the other.
    fn of(key: &SecretVec) -> Result<Self, Error> {
        key.expose(|key| {
            let (data, tweak) = key.split_at_checked(key.len() / 2)?;
            if let (Ok(data), Ok(tweak)) =
                (Aes128::new_from_slice(data), Aes128::new_from_slice(tweak))
            {
                return Some(Self::Aes128(Box::new(Xts128::new(data, tweak))));
            }
            let data = Aes256::new_from_slice(data).ok()?;
            let tweak = Aes256::new_from_slice(tweak).ok()?;
            Some(Self::Aes256(Box::new(Xts128::new(data, tweak))))
        })
        .ok_or(Error::Unsupported("a key of another length than AES-XTS has"))
    }
}

/// Encrypts whole sectors in place, the first one with tweak 0.
pub(crate) fn encrypt(key: &SecretVec, area: &mut [u8]) -> Result<(), Error> {
    whole_sectors(area)?;
    match Xts::of(key)? {
        Xts::Aes128(xts) => xts.encrypt_area(area, SECTOR_LEN, 0, get_tweak_default),
        Xts::Aes256(xts) => xts.encrypt_area(area, SECTOR_LEN, 0, get_tweak_default),
    }
    Ok(())
}

/// Decrypts whole sectors in place.
pub(crate) fn decrypt(key: &SecretVec, area: &mut [u8]) -> Result<(), Error> {
    whole_sectors(area)?;
    match Xts::of(key)? {
        Xts::Aes128(xts) => xts.decrypt_area(area, SECTOR_LEN, 0, get_tweak_default),
        Xts::Aes256(xts) => xts.decrypt_area(area, SECTOR_LEN, 0, get_tweak_default),
    }
    Ok(())
}

/// Decrypts the first sector of data, however long it is.
pub(crate) fn decrypt_sector(key: &SecretVec, sector: &mut [u8]) -> Result<(), Error> {
    whole_sectors(sector)?;
    let len = sector.len();
    match Xts::of(key)? {
        Xts::Aes128(xts) => xts.decrypt_area(sector, len, 0, get_tweak_default),
        Xts::Aes256(xts) => xts.decrypt_area(sector, len, 0, get_tweak_default),
    }
    Ok(())
}

fn whole_sectors(area: &[u8]) -> Result<(), Error> {
    if area.len().is_multiple_of(SECTOR_LEN) {
        Ok(())
    } else {
        Err(Error::Unsupported("a key slot that ends within a sector"))
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{decrypt, encrypt};

    /// IEEE 1619-2007, annex B, vector 10: AES-256, 512 bytes, data unit 0xFF; here the sector
    /// with that number is the last of 256, all of the same plaintext 00 01 02 ...
    #[test]
    fn area_is_encrypted_as_the_standard_says() {
        let mut key = unhex("2718281828459045235360287471352662497757247093699959574966967627");
        key.extend(unhex("3141592653589793238462643383279502884197169399375105820974944592"));
        let sector: Vec<u8> = (0..=255).chain(0..=255).collect();
        let plain = sector.repeat(256);
        let mut area = plain.clone();
        let key = SecretVec::take(key);
        encrypt(&key, &mut area).unwrap();
        let expected = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b";
        assert_eq!(area[255 * 512..][..32], unhex(expected));
        decrypt(&key, &mut area).unwrap();
        assert_eq!(area, plain);
    }

    #[test]
    fn area_refuses_other_keys_and_parts_of_a_sector() {
        for len in [0, 16, 33, 48, 63, 96] {
            let key = SecretVec::copy_of(&vec![1; len]);
            assert!(encrypt(&key, &mut [0; 512]).is_err(), "{len}");
        }
        let key = SecretVec::copy_of(&[1; 64]);
        assert!(encrypt(&key, &mut [0; 511]).is_err());
        assert!(decrypt(&key, &mut [0; 513]).is_err());
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }
}
