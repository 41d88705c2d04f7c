//! The envelope as a stream.
//!
//! Room      `crypto`, tests.

use std::io::{self, Read, Write};

use lastkey_crypto::{
    entropy::SystemEntropy,
    envelope::EnvelopeError,
    stream::{StreamError, StreamStats, decrypt_stream, encrypt_stream, read_header},
};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::support::{
    HEADER_LEN, SEALED_LEN, SEGMENT_LEN, SLOT_LEN, data_key, envelope_of, options, recipients,
    sample,
};

/// The outcome and whatever reached the writer.
fn decrypt(mut envelope: &[u8]) -> (Result<StreamStats, StreamError>, Vec<u8>) {
    let mut out = Vec::new();
    let outcome = read_header(&mut envelope)
        .and_then(|header| decrypt_stream(&header, &data_key(1), &mut envelope, &mut out));
    (outcome, out)
}

fn error_of(envelope: &[u8]) -> Option<EnvelopeError> {
    match decrypt(envelope).0 {
        Err(StreamError::Envelope(error)) => Some(error),
        Ok(_) | Err(StreamError::Read(_) | StreamError::Write(_)) => None,
    }
}

#[test]
fn data_of_every_length_around_a_segment_comes_back() {
    for len in [
        0,
        1,
        SEGMENT_LEN - 1,
        SEGMENT_LEN,
        SEGMENT_LEN + 1,
        2 * SEGMENT_LEN - 1,
        2 * SEGMENT_LEN,
        5 * SEGMENT_LEN + 7,
    ] {
        let plaintext = sample(len);
        let envelope = envelope_of(&plaintext);
        let segments = len.div_ceil(SEGMENT_LEN).max(1);
        assert_eq!(envelope.len(), HEADER_LEN + len + 16 * segments, "{len}");
        let (outcome, out) = decrypt(&envelope);
        let stats = outcome.unwrap();
        assert_eq!(stats.plaintext_len, len as u64);
        assert_eq!(stats.envelope_len, envelope.len() as u64);
        assert!(out == plaintext, "{len}");
    }
}

#[test]
fn two_envelopes_of_one_data_key_share_nothing() {
    let (one, two) = (envelope_of(&sample(100)), envelope_of(&sample(100)));
    assert_ne!(one[32..96], two[32..96]);
    assert_ne!(one[HEADER_LEN..], two[HEADER_LEN..]);
}

#[test]
fn every_truncation_is_refused() {
    let envelope = envelope_of(&sample(SEGMENT_LEN + 100));
    for len in 0..envelope.len() {
        assert!(decrypt(&envelope[..len]).0.is_err(), "len {len}");
    }
}

#[test]
fn truncation_at_a_segment_border_is_refused() {
    let envelope = envelope_of(&sample(3 * SEGMENT_LEN));
    let two_left = &envelope[..HEADER_LEN + 2 * SEALED_LEN];
    assert_eq!(error_of(two_left), Some(EnvelopeError::Undecryptable));
    let header_only = &envelope[..HEADER_LEN];
    assert_eq!(error_of(header_only), Some(EnvelopeError::Truncated));
}

#[test]
fn every_bit_flip_is_refused_or_lies_in_the_unused_slot() {
    let envelope = envelope_of(b"small");
    let unused = HEADER_LEN - SLOT_LEN..HEADER_LEN;
    for bit in 0..envelope.len() * 8 {
        let mut bad = envelope.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (outcome, out) = decrypt(&bad);
        if unused.contains(&(bit / 8)) {
            assert!(outcome.is_ok() && out == b"small", "bit {bit}");
        } else {
            assert!(outcome.is_err() && out.is_empty(), "bit {bit}");
        }
    }
}

#[test]
fn exchanged_repeated_dropped_and_appended_segments_are_refused() {
    let envelope = envelope_of(&sample(3 * SEGMENT_LEN));
    let (header, segments) = envelope.split_at(HEADER_LEN);
    let join = |order: &[usize]| {
        let mut bytes = header.to_vec();
        for index in order {
            bytes.extend_from_slice(&segments[index * SEALED_LEN..(index + 1) * SEALED_LEN]);
        }
        bytes
    };
    assert!(decrypt(&join(&[0, 1, 2])).0.is_ok());
    for order in [&[1, 0, 2][..], &[0, 0, 1, 2], &[0, 2], &[1, 2], &[2], &[0, 1, 2, 2]] {
        let refused = error_of(&join(order));
        assert_eq!(refused, Some(EnvelopeError::Undecryptable), "{order:?}");
    }
    let mut longer = envelope;
    longer.push(0);
    assert_eq!(error_of(&longer), Some(EnvelopeError::Undecryptable));
}

#[test]
fn only_authentic_segments_reach_the_writer() {
    let plaintext = sample(3 * SEGMENT_LEN);
    let mut envelope = envelope_of(&plaintext);
    envelope[HEADER_LEN + 2 * SEALED_LEN] ^= 1;
    let (outcome, out) = decrypt(&envelope);
    assert!(outcome.is_err());
    assert!(out == plaintext[..2 * SEGMENT_LEN]);
}

#[test]
fn another_data_key_writes_nothing() {
    let envelope = envelope_of(b"secret");
    let mut rest = envelope.as_slice();
    let header = read_header(&mut rest).unwrap();
    let mut out = Vec::new();
    let outcome = decrypt_stream(&header, &data_key(2), &mut rest, &mut out);
    assert!(matches!(outcome, Err(StreamError::Envelope(EnvelopeError::Undecryptable))));
    assert!(out.is_empty());
}

#[test]
fn other_files_are_told_from_envelopes() {
    for bytes in [&b""[..], b"LK", &[0; 5_000], &b"text, and more of it. ".repeat(50)] {
        assert_eq!(error_of(bytes), Some(EnvelopeError::Malformed));
    }
}

/// Gives one byte for each read, and is interrupted before every one.
struct Dripping<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Dripping<'_> {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let one = dest.len().min(1);
        self.bytes.read(&mut dest[..one])
    }
}

#[test]
fn short_and_interrupted_reads_change_nothing() {
    let plaintext = sample(2 * SEGMENT_LEN);
    let mut envelope = Vec::new();
    encrypt_stream(
        &mut Dripping { bytes: &plaintext, interrupted: false },
        &mut envelope,
        &options(),
        &data_key(1),
        &recipients(),
        &mut SystemEntropy,
    )
    .unwrap();
    let mut drip = Dripping { bytes: &envelope, interrupted: false };
    let header = read_header(&mut drip).unwrap();
    let mut out = Vec::new();
    decrypt_stream(&header, &data_key(1), &mut drip, &mut out).unwrap();
    assert!(out == plaintext);
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failing_readers_and_writers_are_told_apart() {
    let encrypt = |reader: &mut dyn Read, writer: &mut dyn Write| {
        encrypt_stream(reader, writer, &options(), &data_key(1), &recipients(), &mut SystemEntropy)
    };
    assert!(matches!(encrypt(&mut Broken, &mut io::sink()), Err(StreamError::Read(_))));
    assert!(matches!(encrypt(&mut io::empty(), &mut Broken), Err(StreamError::Write(_))));
    assert!(matches!(read_header(&mut Broken), Err(StreamError::Read(_))));
    let envelope = envelope_of(b"x");
    let header = read_header(&mut envelope.as_slice()).unwrap();
    let mut rest = &envelope[HEADER_LEN..];
    let outcome = decrypt_stream(&header, &data_key(1), &mut rest, &mut Broken);
    assert!(matches!(outcome, Err(StreamError::Write(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_round_trip(
        plaintext in proptest::collection::vec(any::<u8>(), 0..3 * SEGMENT_LEN)
    ) {
        let (outcome, out) = decrypt(&envelope_of(&plaintext));
        prop_assert_eq!(outcome.unwrap().plaintext_len, plaintext.len() as u64);
        prop_assert_eq!(out, plaintext);
    }

    #[test]
    fn damaged_streams_never_panic(
        len in 0..2 * SEGMENT_LEN,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut envelope = envelope_of(&sample(len));
        for (at, byte) in flips {
            let at = at.index(envelope.len());
            envelope[at] = byte;
        }
        let (outcome, out) = decrypt(&envelope);
        if outcome.is_ok() {
            prop_assert_eq!(out, sample(len));
        }
    }
}
