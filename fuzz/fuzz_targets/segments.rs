//! The segments behind a good header, as a stranger changes them: every way to read agrees.
#![no_main]

use std::{io, num::NonZeroUsize, sync::LazyLock, sync::Mutex};

use lastkey_crypto::{
    entropy::{Entropy, EntropyError},
    envelope::{EnvelopeOptions, Header, Recipient},
    stream::{
        ReadAt, WriteAt, decrypt_at, decrypt_range, decrypt_slice, decrypt_stream, encrypt_slice,
    },
};
use lastkey_secret::SecretArray;
use libfuzzer_sys::fuzz_target;

const SEALED_LEN: usize = 4_096 + 16;

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(0);
        Ok(())
    }
}

struct Held(Mutex<Vec<u8>>);

impl ReadAt for Held {
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().expect("nobody panics");
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(dest.len());
        dest[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl WriteAt for Held {
    fn write_all_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().expect("nobody panics");
        let (at, end) = (offset as usize, offset as usize + written.len());
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[at..end].copy_from_slice(written);
        Ok(())
    }
}

fn data_key() -> SecretArray<32> {
    SecretArray::copy_of(&[7; 32])
}

/// A good envelope of four segments, and its plaintext.
static GOOD: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let plaintext: Vec<u8> = (0..3 * 4_096 + 100_u32).map(|at| (at % 251) as u8).collect();
    let options =
        EnvelopeOptions { segment_log2: 12, slot_len: 512, ..EnvelopeOptions::default() };
    let (to, mut envelope) = ([Recipient::lastkey(vec![1; 8])], Vec::new());
    encrypt_slice(&plaintext, &options, &data_key(), &to, &mut Zeros, &mut envelope)
        .expect("options are right");
    (envelope, plaintext)
});

/// Each three bytes of the input change the envelope once.
fn changed(good: &[u8], header_len: usize, changes: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for change in changes.chunks_exact(3) {
        let (what, number) = (change[0], usize::from(u16::from_be_bytes([change[1], change[2]])));
        let at = |len: usize| header_len + number % len.saturating_sub(header_len).max(1);
        match what % 5 {
            0 if bytes.len() > header_len => {
                let at = at(bytes.len());
                bytes[at] ^= what | 1;
            }
            1 => bytes.truncate(at(bytes.len())),
            2 => bytes.push(what),
            3 => {
                let (one, other) = (number % 3, number / 3 % 3);
                for offset in 0..SEALED_LEN {
                    let place = |index: usize| header_len + index * SEALED_LEN + offset;
                    if place(one).max(place(other)) < bytes.len() {
                        bytes.swap(place(one), place(other));
                    }
                }
            }
            _ => {
                let part = bytes[at(bytes.len()).min(bytes.len())..].to_vec();
                bytes.extend_from_slice(&part[..part.len().min(SEALED_LEN)]);
            }
        }
    }
    bytes
}

fuzz_target!(|changes: &[u8]| {
    let (good, plaintext) = &*GOOD;
    let header_len = 512 + 2 * 512;
    let envelope = changed(good, header_len, &changes[..changes.len().min(30)]);
    let header = Header::parse(&envelope[..header_len]).expect("the header was left alone");
    let (key, is_good) = (data_key(), envelope == *good);

    let mut streamed = Vec::new();
    let outcome = decrypt_stream(&header, &key, &mut &envelope[header_len..], &mut streamed);
    assert_eq!(outcome.is_ok(), is_good);
    assert!(plaintext.starts_with(&streamed), "only authentic bytes leave");

    let sliced = decrypt_slice(&header, &key, &envelope);
    assert_eq!(sliced.is_ok(), is_good);

    let (input, out) = (Held(Mutex::new(envelope.clone())), Held(Mutex::new(Vec::new())));
    let len = envelope.len() as u64;
    let threads = NonZeroUsize::MIN;
    assert_eq!(decrypt_at(&header, &key, &input, len, &out, threads).is_ok(), is_good);

    let mut part = Vec::new();
    let range = 4_000..4_200;
    if decrypt_range(&header, &key, &input, len, range, &mut part).is_ok() {
        assert_eq!(part, plaintext[4_000..4_200]);
    }
});
