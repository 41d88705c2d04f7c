//! A whole file of age around a short text, for one recipient.
//!
//! Room      `crypto`. Shares of a seal reach their holders so, and `age -d` opens them.
//! Source    age-encryption.org/v1: header, header MAC, payload of one chunk.
//! Holds     The file key serves one file.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use lastkey_secret::{SecretArray, SecretVec};

use core::fmt;

use super::{AgeKeyError, AgeRecipient, EnvelopeError, SshRecipient, age::SHARE_LEN};
use crate::{entropy::Entropy, hkdf::Prk};

/// The longest text, in bytes: one chunk of age.
const MAX_TEXT_LEN: usize = 65_536;

/// Whoever a file of age may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRecipient {
    /// A key of age.
    Age(AgeRecipient),
    /// An SSH key.
    Ssh(SshRecipient),
}

impl FileRecipient {
    /// Reads `age1...` or `ssh-ed25519 AAAA...`.
    ///
    /// # Errors
    /// [`AgeKeyError::Recipient`], [`AgeKeyError::SshRecipient`], [`AgeKeyError::SshKind`].
    pub fn parse(text: &str) -> Result<Self, AgeKeyError> {
        if SshRecipient::is_meant(text) {
            return SshRecipient::parse(text).map(Self::Ssh);
        }
        AgeRecipient::parse(text).map(Self::Age)
    }

    fn stanza(
        &self,
        file_key: &SecretArray<16>,
        entropy: &mut dyn Entropy,
    ) -> Result<String, EnvelopeError> {
        let recipient = match self {
            Self::Age(recipient) => recipient,
            Self::Ssh(recipient) => return recipient.stanza(file_key, entropy),
        };
        let mut stanza = Vec::new();
        file_key.expose(|key| recipient.wrap_stanza(key, entropy, &mut stanza))?;
        let (share, wrapped) = stanza.split_at_checked(SHARE_LEN).ok_or(EnvelopeError::Failed)?;
        Ok(format!("-> X25519 {}\n{}", base64(share), base64(wrapped)))
    }
}

impl fmt::Display for FileRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age(recipient) => recipient.fmt(f),
            Self::Ssh(recipient) => recipient.fmt(f),
        }
    }
}

/// Encrypts a text for one recipient, as age would.
///
/// # Errors
/// [`EnvelopeError::Entropy`]; [`EnvelopeError::Options`] for a recipient of low order or a text
/// over 64 KiB.
pub fn encrypt_for(
    recipient: &FileRecipient,
    text: &SecretVec,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, EnvelopeError> {
    if text.len() > MAX_TEXT_LEN {
        return Err(EnvelopeError::Options);
    }
    let file_key = SecretArray::<16>::try_fill(|bytes| entropy.fill(bytes));
    let file_key = file_key.map_err(|_| EnvelopeError::Entropy)?;
    let mut nonce = [0; 16];
    entropy.fill(&mut nonce).map_err(|_| EnvelopeError::Entropy)?;
    let stanza = recipient.stanza(&file_key, entropy)?;
    let header = format!("age-encryption.org/v1\n{stanza}\n---");
    let mut file = header.clone().into_bytes();
    file.extend_from_slice(format!(" {}\n", base64(&header_mac(&file_key, &header)?)).as_bytes());
    file.extend_from_slice(&nonce);
    let key = derive(&file_key, &nonce, b"payload")?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref());
    let key = LessSafeKey::new(key.map_err(|_| EnvelopeError::Failed)?);
    let start = file.len();
    text.expose(|text| file.extend_from_slice(text));
    let chunk = file.get_mut(start..).ok_or(EnvelopeError::Failed)?;
    let only = Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let tag = key.seal_in_place_separate_tag(only, Aad::empty(), chunk);
    file.extend_from_slice(tag.map_err(|_| EnvelopeError::Failed)?.as_ref());
    Ok(file)
}

fn header_mac(file_key: &SecretArray<16>, header: &str) -> Result<Vec<u8>, EnvelopeError> {
    let key = derive(file_key, &[], b"header")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
    Ok(hmac::sign(&key, header.as_bytes()).as_ref().to_vec())
}

fn derive(
    file_key: &SecretArray<16>,
    salt: &[u8],
    info: &[u8],
) -> Result<zeroize::Zeroizing<[u8; 32]>, EnvelopeError> {
    let prk = file_key.expose(|key| Prk::extract(salt, key)).ok_or(EnvelopeError::Failed)?;
    prk.expand::<32>(&[info]).ok_or(EnvelopeError::Failed)
}

/// Base64 without padding, as age writes it. Of public bytes only.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for at in 0..=three.len() {
            let [.., low] = (bits >> (18 - 6 * at)).to_be_bytes();
            text.push(LETTERS.get(usize::from(low & 63)).copied().map_or('A', char::from));
        }
    }
    text
}

/// Undoes [`base64`] where it is whole groups of four, as in SSH keys of Ed25519.
pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    let value = |letter: &u8| LETTERS.iter().position(|known| known == letter);
    let mut bytes = Vec::with_capacity(text.len());
    for four in text.as_bytes().chunks(4) {
        let [a, b, c, d] = four else { return None };
        let mut bits = 0_u32;
        for letter in [a, b, c, d] {
            bits = bits << 6 | u32::try_from(value(letter)?).ok()?;
        }
        let [_, three @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(&three);
    }
    Some(bytes)
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "age itself is the judge of one test, which says so when it is missing"
)]
mod tests {
    use std::io::{self, Write as _};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use lastkey_secret::SecretVec;

    use super::{FileRecipient, MAX_TEXT_LEN, base64, encrypt_for, unbase64};
    use crate::{entropy::SystemEntropy, envelope::EnvelopeError, testing::FixedEntropy};

    /// Made by `age-keygen` 1.1.1, and the recipient that it printed.
    const IDENTITY: &str =
        "AGE-SECRET-KEY-14VXG8TH7VYUH2GNE8708NKSAXTLFCRYECE60VPGDQW9TCCHT5UVQDA0PCD";
    const RECIPIENT: &str = "age1vz343tt0xwyfag833jkqxtx9pjaxx9kc9ngg404csevtvg4ng5pq2f369f";

    fn recipient() -> FileRecipient {
        FileRecipient::parse(RECIPIENT).unwrap()
    }

    /// RFC 4648, section 10, without the padding.
    #[test]
    fn letters_are_those_of_the_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(unbase64("Zm9vYmFy"), Some(b"foobar".to_vec()));
        assert_eq!(unbase64(&base64(&[0xff; 51])), Some(vec![0xff; 51]));
        for bad in ["Zm9", "Zm9v=", "Zg==", "Zm-v", "Zm9vY"] {
            assert_eq!(unbase64(bad), None, "{bad}");
        }
    }

    #[test]
    fn file_of_ours_is_opened_by_age() {
        if !Path::new("/usr/bin/age").exists() {
            let text = b"\nSKIPPED file_of_ours_is_opened_by_age: apt-get install age\n";
            return io::stderr().write_all(text).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let mut lines = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        writeln!(lines, "{IDENTITY}").unwrap();
        lines.persist(&key).unwrap();
        for text in [&b"a share"[..], b"", &[b'x'; MAX_TEXT_LEN]] {
            let file = encrypt_for(&recipient(), &SecretVec::copy_of(text), &mut SystemEntropy);
            let mut age = Command::new("/usr/bin/age");
            age.args(["-d", "-i"]).arg(&key).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = age.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let writing = std::thread::spawn(move || stdin.write_all(&file.unwrap()).unwrap());
            let output = child.wait_with_output().unwrap();
            writing.join().unwrap();
            assert!(output.status.success());
            assert_eq!(output.stdout, text);
        }
    }

    #[test]
    fn longer_texts_and_missing_randomness_are_refused() {
        let long = SecretVec::take(vec![0; MAX_TEXT_LEN + 1]);
        let refused = encrypt_for(&recipient(), &long, &mut SystemEntropy);
        assert_eq!(refused.err(), Some(EnvelopeError::Options));
        let text = SecretVec::copy_of(b"x");
        let refused = encrypt_for(&recipient(), &text, &mut FixedEntropy(vec![0; 63]));
        assert_eq!(refused.err(), Some(EnvelopeError::Entropy));
    }
}
