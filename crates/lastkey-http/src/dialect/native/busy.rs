//! Replies of the busiest operations, written by hand.
//!
//! Room      `http`.
//! Holds     byte for byte what serde writes of the same reply. Base64 goes straight into the
//!           answer, whose buffer is made large enough first: a secret leaves no copy behind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_wire::native::operations::{DataKeyReply, DecryptReply, EncryptReply};
use serde::Serialize;

/// JSON of the reply to encrypt, and to a data key without its plaintext.
pub(super) fn encrypt_reply(reply: &EncryptReply) -> Vec<u8> {
    let ciphertext = &reply.ciphertext.0;
    let mut json = Object::with_room_for(ciphertext.len());
    json.base64(r#"{"ciphertext":"#, ciphertext);
    json.key_and_version(&reply.key, reply.version)
}

/// JSON of the reply to decrypt.
pub(super) fn decrypt_reply(reply: &DecryptReply) -> Vec<u8> {
    let plaintext = &reply.plaintext.0;
    let mut json = Object::with_room_for(plaintext.len());
    plaintext.expose(|bytes| json.base64(r#"{"plaintext":"#, bytes));
    json.key_and_version(&reply.key, reply.version)
}

/// JSON of the reply to a data key.
pub(super) fn data_key_reply(reply: &DataKeyReply) -> Vec<u8> {
    let (plaintext, ciphertext) = (&reply.plaintext.0, &reply.ciphertext.0);
    let mut json = Object::with_room_for(plaintext.len().saturating_add(ciphertext.len()));
    plaintext.expose(|bytes| json.base64(r#"{"plaintext":"#, bytes));
    json.base64(r#","ciphertext":"#, ciphertext);
    json.key_and_version(&reply.key, reply.version)
}

/// A JSON object under construction.
struct Object(Vec<u8>);

impl Object {
    /// Room for so many bytes in base64 and everything around them.
    fn with_room_for(bytes: usize) -> Self {
        Self(Vec::with_capacity((bytes / 3).saturating_mul(4).saturating_add(AROUND_LEN)))
    }

    fn base64(&mut self, name: &str, bytes: &[u8]) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'"');
        let start = self.0.len();
        let len = base64::encoded_len(bytes.len(), true).unwrap_or_default();
        self.0.resize(start.saturating_add(len), 0);
        // Refused only when the room is too small, and it was made for these bytes.
        let _ = STANDARD.encode_slice(bytes, self.0.get_mut(start..).unwrap_or_default());
        self.0.push(b'"');
    }

    fn value(&mut self, name: &str, value: &impl Serialize) {
        self.0.extend_from_slice(name.as_bytes());
        // Text and numbers go to memory without fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn key_and_version(mut self, key: &str, version: u32) -> Vec<u8> {
        self.value(r#","key":"#, &key);
        self.value(r#","version":"#, &version);
        self.0.push(b'}');
        self.0
    }
}

/// Names, quotes, the id of a key, its version, and the ends of base64: 130 bytes at most.
const AROUND_LEN: usize = 160;

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;
    use lastkey_wire::{Base64Bytes, SecretBase64};
    use proptest::prelude::*;

    use super::super::encode::to_json;
    use super::*;

    fn secret(bytes: &[u8]) -> SecretBase64 {
        SecretBase64(SecretVec::copy_of(bytes))
    }

    proptest! {
        #[test]
        fn replies_by_hand_are_the_ones_of_serde(
            one in proptest::collection::vec(any::<u8>(), 0..300),
            two in proptest::collection::vec(any::<u8>(), 0..300),
            key in ".{0,40}",
            version: u32,
        ) {
            let ciphertext = Base64Bytes(two);
            let encrypted =
                EncryptReply { ciphertext: ciphertext.clone(), key: key.clone(), version };
            prop_assert_eq!(encrypt_reply(&encrypted), to_json(&encrypted));
            let decrypted = DecryptReply { plaintext: secret(&one), key: key.clone(), version };
            prop_assert_eq!(decrypt_reply(&decrypted), to_json(&decrypted));
            let data_key = DataKeyReply { plaintext: secret(&one), ciphertext, key, version };
            prop_assert_eq!(data_key_reply(&data_key), to_json(&data_key));
        }
    }

    #[test]
    fn a_reply_does_not_outgrow_its_buffer() {
        for len in [0, 1, 2, 3, 32, 1_024, 65_536] {
            let key = "3fa85f64-5717-4562-b3fc-2c963f66afa6".to_owned();
            let plaintext = secret(&vec![7; len]);
            let ciphertext = Base64Bytes(vec![7; len + 1]);
            let reply = DataKeyReply { plaintext, ciphertext, key, version: u32::MAX };
            let room = Object::with_room_for(2 * len + 1).0.capacity();
            let json = data_key_reply(&reply);
            assert!(json.len() <= room, "{} in {room}", json.len());
        }
    }
}
