//! The private key of a node's certificate, sealed to the TPM of the machine, as it lies on the disk.
//!
//! Room      `node`. Parsed from a file that whoever reaches the disk can write.
//! Source    docs/formats/node-key.md.
//! Holds     A key opens by the key of its file, which the TPM alone gives back, and whole or not
//!           at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::wrap::{WrapError, WrapKey};
use lastkey_secret::SecretVec;

use crate::fields::{field, sized};

const MAGIC: [u8; 4] = *b"LKN\x01";
const DOMAIN: &[u8] = b"lastkey/node-key/v1\0";
const BEGIN: &str = "-----BEGIN LASTKEY SEALED KEY-----";
const END: &str = "-----END LASTKEY SEALED KEY-----";
/// Digits on a line (RFC 7468, 2).
const LINE_LEN: usize = 64;

/// Not a key of this format, or not one that opens. Deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed key of the node is damaged")]
pub struct Damaged;

/// The sealed key in a file of PEM blocks; none when its key is not sealed.
///
/// # Errors
/// [`Damaged`] for a block that is cut or no base64, and for a second one.
pub fn block_in(pem: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
    let mut lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    if !lines.any(|line| line == BEGIN.as_bytes()) {
        return Ok(None);
    }
    let mut digits = Vec::new();
    loop {
        let line = lines.next().ok_or(Damaged)?;
        if line == END.as_bytes() {
            break;
        }
        digits.extend_from_slice(line);
    }
    if lines.any(|line| line == BEGIN.as_bytes()) {
        return Err(Damaged);
    }
    STANDARD.decode(digits).map(Some).map_err(|_| Damaged)
}

/// A sealed key, taken apart. Nothing of it is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedKey<'a> {
    /// Everything before the nonce.
    pub header: &'a [u8],
    /// The way to the TPM.
    pub tpm: &'a str,
    /// The key of the file, as the TPM has sealed it.
    pub sealed: &'a [u8],
    wrapped: &'a [u8],
}

impl<'a> SealedKey<'a> {
    /// Takes the content of a block apart.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Damaged> {
        Self::read(bytes).ok_or(Damaged)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (tpm, rest) = sized(bytes.strip_prefix(&MAGIC)?)?;
        let (sealed, wrapped) = sized(rest)?;
        let header = bytes.get(..bytes.len().checked_sub(wrapped.len())?)?;
        Some(Self { header, tpm: str::from_utf8(tpm).ok()?, sealed, wrapped })
    }

    /// Opens it with the key of its file: the private key, as PEM.
    ///
    /// # Errors
    /// [`Damaged`], whatever is wrong.
    pub fn open(&self, key: &WrapKey) -> Result<SecretVec, Damaged> {
        key.unwrap(&aad(self.header), self.wrapped).map_err(|_| Damaged)
    }
}

/// The header of a key whose file has a key that this TPM sealed; none when one of the two is
/// longer than 65,535 bytes.
#[must_use]
pub fn header_of(tpm: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut header = MAGIC.to_vec();
    for part in [tpm.as_bytes(), sealed] {
        header.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
        header.extend_from_slice(part);
    }
    Some(header)
}

/// Seals a private key (PEM) under the key of its file, with a header by [`header_of`]: a PEM block.
///
/// # Errors
/// [`WrapError`].
pub fn seal(
    header: &[u8],
    key: &WrapKey,
    private: &SecretVec,
    entropy: &mut dyn Entropy,
) -> Result<String, WrapError> {
    let mut bytes = header.to_vec();
    private.expose(|pem| key.wrap_into(&aad(header), pem, entropy, &mut bytes))?;
    let mut text = format!("{BEGIN}\n");
    for (number, digit) in STANDARD.encode(bytes).chars().enumerate() {
        if number > 0 && number % LINE_LEN == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text.push_str(&format!("\n{END}\n"));
    Ok(text)
}

fn aad(header: &[u8]) -> Vec<u8> {
    [DOMAIN, &field(header)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_is_found_whole_between_others_or_refused() {
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(block_in(other.as_bytes()), Ok(None));
        assert_eq!(block_in(b""), Ok(None));
        let block = format!("{BEGIN}\r\nAAEC\nAwQF\n{END}\n");
        let found = Some(vec![0, 1, 2, 3, 4, 5]);
        assert_eq!(block_in(format!("{block}{other}").as_bytes()), Ok(found.clone()));
        assert_eq!(block_in(format!("{other}{block}").as_bytes()), Ok(found));
        for bad in [
            format!("{block}{block}"),
            format!("{BEGIN}\nAAEC\n"),
            format!("{BEGIN}\nAAE\n{END}\n"),
            format!("{BEGIN}\n{BEGIN}\nAAEC\n{END}\n"),
        ] {
            assert_eq!(block_in(bad.as_bytes()), Err(Damaged), "{bad}");
        }
    }

    #[test]
    fn header_holds_what_fits() {
        let header = header_of("device:/dev/tpmrm0", &[7; 65_535]).unwrap();
        let parsed = SealedKey::parse(&header).unwrap();
        assert_eq!((parsed.tpm, parsed.sealed.len()), ("device:/dev/tpmrm0", 65_535));
        assert_eq!(parsed.header, header);
        assert_eq!(header_of("", &[7; 65_536]), None);
    }
}
