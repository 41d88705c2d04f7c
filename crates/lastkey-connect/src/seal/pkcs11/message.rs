//! What the server and the host of a module say to each other, over a pair of pipes: one
//! question, one answer.
//!
//! Room      `connect`.
//! Holds     both ends are of one release; the version is checked all the same.

use lastkey_secret::SecretVec;

use crate::seal::wire::{In, Malformed, Out};

const VERSION: u8 = 1;
/// Longest message, in bytes.
pub(super) const MAX_LEN: u64 = 65_536;
/// Longer than what is usually said, in bytes.
pub(super) const USUAL_LEN: usize = 4_096;

/// How a token wraps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// AES key wrap (RFC 3394; 32 bytes need no padding), key of 256 bits.
    AesKeyWrap = 1,
    /// RSA-OAEP with SHA-256, key of 3,072 bits.
    RsaOaepSha256 = 2,
    /// RSA-OAEP with SHA-1, for tokens that have no other.
    RsaOaepSha1 = 3,
    /// AES-256-GCM.
    AesGcm = 4,
}

impl Mechanism {
    /// In the order in which they are tried.
    pub const ALL: [Self; 4] =
        [Self::AesKeyWrap, Self::RsaOaepSha256, Self::RsaOaepSha1, Self::AesGcm];

    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| *mechanism as u8 == number)
    }

    /// The word in settings and commands.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AesKeyWrap => "aes-key-wrap",
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::RsaOaepSha1 => "rsa-oaep-sha1",
            Self::AesGcm => "aes-gcm",
        }
    }

    /// The mechanism of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.as_str() == word)
    }
}

/// What is asked.
pub(super) enum Task {
    /// Wrap these 32 bytes, by this mechanism or by the first that works.
    Wrap(Option<Mechanism>, SecretVec),
    /// Unwrap what was wrapped by this mechanism.
    Unwrap(Mechanism, Vec<u8>),
}

/// A question.
pub(super) struct Question {
    pub(super) module: String,
    /// The label of the token.
    pub(super) label: String,
    pub(super) pin: SecretVec,
    /// `CKA_ID` of the key.
    pub(super) id: [u8; 16],
    pub(super) task: Task,
}

impl Question {
    pub(super) fn encode(&self) -> SecretVec {
        let front = Out::default().u8(VERSION).sized(self.module.as_bytes());
        let front = front.sized(self.label.as_bytes()).raw(&self.id);
        let front = self.pin.expose(|pin| front.sized(pin));
        let whole = match &self.task {
            Task::Wrap(mechanism, key) => {
                let front = front.u8(0).u8(mechanism.map_or(0, |mechanism| mechanism as u8));
                key.expose(|key| front.sized(key))
            }
            Task::Unwrap(mechanism, wrapped) => front.u8(1).u8(*mechanism as u8).sized(wrapped),
        };
        SecretVec::take(whole.done())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = In::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Malformed);
        let (module, label) = (text(reader.sized()?)?, text(reader.sized()?)?);
        let (id, pin) = (reader.array()?, SecretVec::copy_of(reader.sized()?));
        let (verb, number, payload) = (reader.u8()?, reader.u8()?, reader.sized()?);
        reader.end()?;
        let mechanism = Mechanism::of(number);
        let task = match (verb, mechanism) {
            (0, mechanism) => Task::Wrap(mechanism, SecretVec::copy_of(payload)),
            (1, Some(mechanism)) => Task::Unwrap(mechanism, payload.to_vec()),
            (_, _) => return Err(Malformed),
        };
        Ok(Self { module, label, pin, id, task })
    }
}

/// Why a token did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The module cannot be loaded.
    Module = 1,
    /// There is no token of this label now, or it was taken away.
    Away = 2,
    /// The PIN is wrong.
    PinWrong = 3,
    /// The PIN is locked.
    PinLocked = 4,
    /// One more wrong PIN locks it: it is not tried by itself.
    FinalTry = 5,
    /// The token has no such key, or did not wrap this.
    NotHere = 6,
    /// The token offers none of the mechanisms.
    NoMechanism = 7,
    /// Anything else.
    Failed = 8,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Module,
        Self::Away,
        Self::PinWrong,
        Self::PinLocked,
        Self::FinalTry,
        Self::NotHere,
        Self::NoMechanism,
        Self::Failed,
    ];
}

/// An answer: the mechanism and what came out, or why not and what the token said.
pub(super) type Answer = Result<(Mechanism, SecretVec), (Fault, String)>;

pub(super) fn encode_answer(answer: &Answer) -> SecretVec {
    let whole = match answer {
        Ok((mechanism, bytes)) => {
            bytes.expose(|bytes| Out::default().u8(0).u8(*mechanism as u8).sized(bytes))
        }
        Err((fault, said)) => Out::default().u8(1).u8(*fault as u8).sized(said.as_bytes()),
    };
    SecretVec::take(whole.done())
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, Malformed> {
    let mut reader = In::new(bytes);
    let (verdict, number, content) = (reader.u8()?, reader.u8()?, reader.sized()?);
    reader.end()?;
    if verdict == 0 {
        let mechanism = Mechanism::of(number).ok_or(Malformed)?;
        return Ok(Ok((mechanism, SecretVec::copy_of(content))));
    }
    let fault = Fault::ALL.into_iter().find(|fault| *fault as u8 == number).ok_or(Malformed)?;
    Ok(Err((fault, String::from_utf8_lossy(content).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(task: Task) -> Question {
        let (module, label) = ("/usr/lib/m.so".to_owned(), "seal".to_owned());
        Question { module, label, pin: SecretVec::copy_of(b"1234"), id: [7; 16], task }
    }

    #[test]
    fn questions_arrive_as_they_were_asked() {
        let asked = question(Task::Wrap(Some(Mechanism::AesGcm), SecretVec::copy_of(&[1; 32])));
        let heard = asked.encode().expose(Question::decode).unwrap();
        assert_eq!((heard.module, heard.label, heard.id), (asked.module, asked.label, asked.id));
        assert!(heard.pin.ct_eq(&asked.pin));
        assert!(matches!(heard.task, Task::Wrap(Some(Mechanism::AesGcm), key) if key.len() == 32));
        let asked = question(Task::Unwrap(Mechanism::RsaOaepSha1, vec![9; 384]));
        let heard = asked.encode().expose(Question::decode).unwrap();
        assert!(
            matches!(heard.task, Task::Unwrap(Mechanism::RsaOaepSha1, wrapped) if wrapped == [9; 384])
        );
    }

    #[test]
    fn broken_questions_are_refused() {
        let whole = question(Task::Wrap(None, SecretVec::copy_of(&[1; 32]))).encode();
        whole.expose(|bytes| {
            for len in 0..bytes.len() {
                assert!(Question::decode(&bytes[..len]).is_err(), "{len}");
            }
        });
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let good = encode_answer(&Ok((Mechanism::AesKeyWrap, SecretVec::copy_of(&[3; 40]))));
        let heard = good.expose(decode_answer).unwrap().unwrap();
        assert_eq!((heard.0, heard.1.len()), (Mechanism::AesKeyWrap, 40));
        for fault in Fault::ALL {
            let bad = encode_answer(&Err((fault, "why".to_owned())));
            assert_eq!(bad.expose(decode_answer).unwrap().err(), Some((fault, "why".to_owned())));
        }
        assert!(decode_answer(&[1, 99, 0, 0]).is_err());
        assert!(decode_answer(&[]).is_err());
    }

    #[test]
    fn mechanisms_are_known_by_word_and_number() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(mechanism.as_str()), Some(mechanism));
            assert_eq!(Mechanism::of(mechanism as u8), Some(mechanism));
        }
    }
}
