//! Signed notes: a text and the signatures of those who vouch for it.
//!
//! Room      `core`.
//! Source    C2SP signed-note; C2SP tlog-cosignature for signatures that carry a time.
//! Holds     a text is handed out only after a known key has signed it, and one bad signature of
//!           a known key spoils the note.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_crypto::digest::sha256_of;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey, VerifyingKey};
use lastkey_secret::{SecretArray, SecretVec};

use crate::ports::Cause;
use crate::time::Timestamp;

/// Longest note that is read, in bytes.
pub const MAX_NOTE_LEN: usize = 64 << 10;
/// Most signatures that are looked at.
const MAX_SIGNATURES: usize = 64;
const DASH: &str = "\u{2014} ";

/// Why a note is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a signed note.
    #[error("this is no signed note")]
    Malformed,
    /// None of the known keys has signed it.
    #[error("no key that is trusted here has signed this note")]
    Unsigned,
    /// A known key has not made the signature that bears its name.
    #[error("a signature under this note is not by the key that it names")]
    BadSignature,
}

/// The text is not a verifier key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a verifier key is NAME+HASH+KEY, as `lastkey audit checkpoint --public-key` prints it")]
pub struct BadKey;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The text: the key of a log.
    Ed25519 = 1,
    /// The text and a time: the key of a witness.
    Cosignature = 4,
}

/// A public key with its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    public: [u8; 32],
}

impl NoteKey {
    /// The name of its holder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The number by which signatures name it.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] =
            sha256_of(&[self.name.as_bytes(), b"\n", &[self.kind as u8], &self.public]);
        [a, b, c, d]
    }

    /// Reads a key, as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// [`BadKey`] for anything else, also when the number does not belong to the key.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let (name, rest) = text.split_once('+').ok_or(BadKey)?;
        let (_, encoded) = rest.split_once('+').ok_or(BadKey)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadKey)?;
        let (kind, public) = bytes.split_first().ok_or(BadKey)?;
        let kind = match kind {
            1 => KeyKind::Ed25519,
            4 => KeyKind::Cosignature,
            _ => return Err(BadKey),
        };
        let public = public.try_into().map_err(|_| BadKey)?;
        let key = Self { name: name.to_owned(), kind, public };
        if is_name(name) && key.to_string() == text { Ok(key) } else { Err(BadKey) }
    }

    /// Whether this is its signature of the text; the time that it vouches for, if it does.
    fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<Timestamp>> {
        let (message, signature, at) = match self.kind {
            KeyKind::Ed25519 => (text.as_bytes().to_vec(), signature, None),
            KeyKind::Cosignature => {
                let (at, signature) = signature.split_first_chunk()?;
                let at = Timestamp(u64::from_be_bytes(*at));
                (cosigned(text, at), signature, Some(at))
            }
        };
        let spki = [SPKI_PREFIX, &self.public].concat();
        let key = VerifyingKey::new(MaterialSpec::Ed25519, &spki).ok()?;
        let good = key.verify(SignAlgorithm::Ed25519, Message::Raw(&message), signature);
        good.is_ok_and(|good| good).then_some(at)
    }
}

/// SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS#8 of an Ed25519 key, before its 32 bytes (RFC 8410, section 7).
const PKCS8_PREFIX: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = STANDARD.encode([&[self.kind as u8], self.public.as_slice()].concat());
        write!(f, "{}+{id:08x}+{key}", self.name)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// What a witness signs.
fn cosigned(text: &str, at: Timestamp) -> Vec<u8> {
    format!("cosignature/v1\ntime {}\n{text}", at.0).into_bytes()
}

/// A private key with its name.
pub struct NoteSigner {
    key: NoteKey,
    signing: SigningKey,
}

impl NoteSigner {
    /// The key of this seed.
    ///
    /// # Errors
    /// A cause when the name cannot stand in a note, or the library refuses the seed.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &SecretArray<32>) -> Result<Self, Cause> {
        if !is_name(name) {
            return Err(BadKey.into());
        }
        let pkcs8 = seed.expose(|seed| SecretVec::take([PKCS8_PREFIX, seed].concat()));
        let signing = SigningKey::new(MaterialSpec::Ed25519, &pkcs8)?;
        let der = signing.public_key_der()?;
        let public = der.strip_prefix(SPKI_PREFIX).ok_or("not the form of RFC 8410")?;
        let key = NoteKey { name: name.to_owned(), kind, public: public.try_into()? };
        Ok(Self { key, signing })
    }

    /// The public half.
    #[must_use]
    pub const fn key(&self) -> &NoteKey {
        &self.key
    }

    /// The signature line of a text, which ends in a line feed. A witness vouches for `now`.
    ///
    /// # Errors
    /// A cause when the library refuses, which it has no reason to.
    pub fn sign(&self, text: &str, now: Timestamp) -> Result<String, Cause> {
        let sign = |bytes: &[u8]| self.signing.sign(SignAlgorithm::Ed25519, Message::Raw(bytes));
        let mut signature = self.key.id().to_vec();
        match self.key.kind {
            KeyKind::Ed25519 => signature.extend(sign(text.as_bytes())?),
            KeyKind::Cosignature => {
                signature.extend(now.0.to_be_bytes());
                signature.extend(sign(&cosigned(text, now))?);
            }
        }
        Ok(format!("{DASH}{} {}\n", self.key.name, STANDARD.encode(signature)))
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.key.name)
    }
}

/// A good signature of a known key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Name of the key.
    pub name: String,
    /// The time that it vouches for, if it is a witness.
    pub at: Option<Timestamp>,
}

/// Opens a note: its text, with the line feed that ends it, and who of `known` has signed it.
///
/// # Errors
/// [`NoteError`].
pub fn open<'a>(note: &'a str, known: &[NoteKey]) -> Result<(&'a str, Vec<Vouched>), NoteError> {
    let (text, lines) = split(note)?;
    let mut vouched = Vec::new();
    for line in lines.lines() {
        let (name, id, signature) = signature_line(line)?;
        let Some(key) = known.iter().find(|key| key.name == name && key.id() == id) else {
            continue;
        };
        let at = key.verify(text, &signature).ok_or(NoteError::BadSignature)?;
        vouched.push(Vouched { name: name.to_owned(), at });
    }
    if vouched.is_empty() { Err(NoteError::Unsigned) } else { Ok((text, vouched)) }
}

/// The text of a note and its signature lines, none of them checked.
///
/// # Errors
/// [`NoteError::Malformed`].
pub fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let is_control = |c: char| c < ' ' && c != '\n';
    if note.len() > MAX_NOTE_LEN || note.contains(is_control) || !note.ends_with('\n') {
        return Err(NoteError::Malformed);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, lines) = note.split_at_checked(at + 1).ok_or(NoteError::Malformed)?;
    let lines = lines.strip_prefix('\n').ok_or(NoteError::Malformed)?;
    let count = lines.lines().count();
    if count == 0 || count > MAX_SIGNATURES {
        return Err(NoteError::Malformed);
    }
    for line in lines.lines() {
        signature_line(line)?;
    }
    Ok((text, lines))
}

/// Name, number and signature of a line.
fn signature_line(line: &str) -> Result<(&str, [u8; 4], Vec<u8>), NoteError> {
    let parts = line.strip_prefix(DASH).and_then(|rest| rest.split_once(' '));
    let (name, encoded) = parts.filter(|(name, _)| is_name(name)).ok_or(NoteError::Malformed)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| NoteError::Malformed)?;
    let (id, signature) = bytes.split_first_chunk().ok_or(NoteError::Malformed)?;
    if signature.is_empty() {
        return Err(NoteError::Malformed);
    }
    Ok((name, *id, signature.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(kind: KeyKind, seed: u8) -> NoteSigner {
        NoteSigner::from_seed("example.com/log", kind, &SecretArray::copy_of(&[seed; 32])).unwrap()
    }

    fn signed(text: &str, signers: &[&NoteSigner]) -> String {
        let lines = signers.iter().map(|signer| signer.sign(text, Timestamp(7)).unwrap());
        format!("{text}\n{}", lines.collect::<String>())
    }

    #[test]
    fn a_note_opens_to_the_key_that_signed_it_and_to_no_other() {
        let (log, other) = (signer(KeyKind::Ed25519, 1), signer(KeyKind::Ed25519, 2));
        let note = signed("one\n\ntwo\n", &[&log]);
        let (text, vouched) = open(&note, &[log.key().clone()]).unwrap();
        assert_eq!((text, vouched[0].at), ("one\n\ntwo\n", None));
        assert_eq!(open(&note, &[other.key().clone()]), Err(NoteError::Unsigned));
        let changed = note.replace("two", "too");
        assert_eq!(open(&changed, &[log.key().clone()]), Err(NoteError::BadSignature));
    }

    #[test]
    fn a_witness_vouches_for_its_time() {
        let (log, witness) = (signer(KeyKind::Ed25519, 1), signer(KeyKind::Cosignature, 1));
        let note = signed("text\n", &[&log, &witness]);
        let known = [log.key().clone(), witness.key().clone()];
        let (_, vouched) = open(&note, &known).unwrap();
        assert_eq!(vouched.iter().map(|v| v.at).collect::<Vec<_>>(), [None, Some(Timestamp(7))]);
        let mut bytes = STANDARD.decode(note.rsplit(' ').next().unwrap().trim()).unwrap();
        bytes[11] ^= 1;
        let forged = note.replace(note.rsplit(' ').next().unwrap().trim(), &STANDARD.encode(bytes));
        assert_eq!(open(&forged, &known), Err(NoteError::BadSignature));
    }

    /// The key of the example in C2SP signed-note and golang.org/x/mod/sumdb/note.
    #[test]
    fn a_note_of_another_implementation_opens() {
        let key =
            NoteKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
                .unwrap();
        let note = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n\n\
            \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(open(note, &[key]).is_ok());
    }

    #[test]
    fn a_key_has_one_spelling() {
        let key = signer(KeyKind::Ed25519, 1).key().clone();
        let text = key.to_string();
        assert_eq!(NoteKey::parse(&text), Ok(key));
        for bad in [
            text.replace("example", "exbmple"),
            text.replacen('+', "", 1),
            text.to_uppercase(),
            format!("{text}="),
            String::new(),
            "a++".to_owned(),
        ] {
            assert_eq!(NoteKey::parse(&bad), Err(BadKey), "{bad}");
        }
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = signed("text\n", &[&signer(KeyKind::Ed25519, 1)]);
        for bad in [
            String::new(),
            "\n\n".to_owned(),
            "text\n".to_owned(),
            "text\n\n".to_owned(),
            good.replace('\n', "\r\n"),
            good.trim_end().to_owned(),
            good.replace('\u{2014}', "-"),
            good.replace("example.com/log ", "a b "),
            format!("{good}{}", "x".repeat(MAX_NOTE_LEN)),
        ] {
            assert_eq!(split(&bad), Err(NoteError::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text in "[\u{2014}a-z \n+=\\PC]{0,200}") {
            let _ = split(&text);
            let _ = NoteKey::parse(&text);
        }
    }
}
