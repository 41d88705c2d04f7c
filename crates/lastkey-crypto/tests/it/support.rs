//! What several of these tests need.
//!
//! Room      `crypto`, tests.

use lastkey_crypto::{
    context::EncryptionContext,
    entropy::{Entropy, EntropyError, SystemEntropy},
    envelope::{EnvelopeOptions, Recipient, Suite},
    stream::encrypt_stream,
};
use lastkey_secret::SecretArray;

/// Length of a segment in the small envelopes of these tests: the shortest allowed.
pub(crate) const SEGMENT_LEN: usize = 4_096;
/// Length of a slot in them.
pub(crate) const SLOT_LEN: usize = 512;
/// Length of their header: 512 bytes and two slots.
pub(crate) const HEADER_LEN: usize = 512 + 2 * SLOT_LEN;
/// Length of a sealed full segment.
pub(crate) const SEALED_LEN: usize = SEGMENT_LEN + 16;

pub(crate) fn data_key(byte: u8) -> SecretArray<32> {
    SecretArray::copy_of(&[byte; 32])
}

pub(crate) fn options() -> EnvelopeOptions {
    EnvelopeOptions {
        suite: Suite::Aes256Gcm,
        segment_log2: 12,
        slot_len: 512,
        context: EncryptionContext::from_pairs([("file", "sample")]).unwrap(),
    }
}

pub(crate) fn recipients() -> Vec<Recipient> {
    vec![
        Recipient::lastkey(vec![0xb1; 136]),
        Recipient { kind: 200, body: b"from the future".to_vec() },
    ]
}

/// Bytes that repeat in no segment-sized period.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// An envelope under `data_key(1)`.
pub(crate) fn envelope_of(mut plaintext: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::new();
    encrypt_stream(
        &mut plaintext,
        &mut envelope,
        &options(),
        &data_key(1),
        &recipients(),
        &mut SystemEntropy,
    )
    .unwrap();
    envelope
}

/// Hands out the given bytes and fails when they are used up.
pub(crate) struct FixedEntropy(pub(crate) Vec<u8>);

impl Entropy for FixedEntropy {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        if self.0.len() < dest.len() {
            return Err(EntropyError);
        }
        dest.copy_from_slice(&self.0[..dest.len()]);
        self.0.drain(..dest.len());
        Ok(())
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
