//! The envelope as a stream.
//!
//! Room      `crypto`, tests.

use std::{
    io::{self, Read, Write},
    num::NonZeroUsize,
    sync::Mutex,
};

use lastkey_crypto::{
    entropy::SystemEntropy,
    envelope::{EnvelopeError, EnvelopeOptions, Suite, build},
    stream::{
        ReadAt, StreamError, StreamStats, WriteAt, decrypt_at, decrypt_range, decrypt_range_at,
        decrypt_slice, decrypt_slice_into, decrypt_stream, encrypt_at, encrypt_slice,
        encrypt_stream, read_header,
    },
};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::support::{
    FixedEntropy, HEADER_LEN, SEALED_LEN, SEGMENT_LEN, SLOT_LEN, data_key, envelope_of, options,
    recipients, sample,
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
        Ok(_) | Err(StreamError::Read(_) | StreamError::Write(_) | StreamError::Changed) => None,
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

#[test]
fn each_suite_and_each_way_gives_one_envelope() {
    for suite in Suite::ALL {
        let options = EnvelopeOptions { suite, ..options() };
        if !suite.is_supported() {
            let built = build(&options, &data_key(1), &recipients(), &mut SystemEntropy);
            assert_eq!(built.err(), Some(EnvelopeError::UnsupportedSuite));
            continue;
        }
        for len in [0, 1, SEGMENT_LEN, 2 * SEGMENT_LEN + 5] {
            let plaintext = sample(len);
            let made = three_ways(&plaintext, &options);
            assert!(made[0] == made[1] && made[0] == made[2], "{suite:?} {len}");
            let header = read_header(&mut made[0].as_slice()).unwrap();
            assert_eq!(header.suite(), suite);
            let opened = decrypt_slice(&header, &data_key(1), &made[0]).unwrap();
            assert!(opened.expose(|bytes| bytes == plaintext));
            assert!(decrypt(&made[0]).1 == plaintext);
        }
    }
}

/// As a stream, in memory, and on threads; with one salt.
fn three_ways(plaintext: &[u8], options: &EnvelopeOptions) -> [Vec<u8>; 3] {
    let (key, to) = (data_key(1), recipients());
    let salt = || FixedEntropy(vec![7; 32]);
    let (mut streamed, mut sliced, file) = (Vec::new(), vec![9; 3], Held::default());
    encrypt_stream(&mut &*plaintext, &mut streamed, options, &key, &to, &mut salt()).unwrap();
    encrypt_slice(plaintext, options, &key, &to, &mut salt(), &mut sliced).unwrap();
    let input = Held::of(plaintext);
    let len = plaintext.len() as u64;
    let stats =
        encrypt_at(&input, len, &file, options, &key, &to, &mut salt(), threads(3)).unwrap();
    assert_eq!(stats.envelope_len, streamed.len() as u64);
    [streamed, sliced, file.bytes()]
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// A file in memory.
#[derive(Default)]
struct Held(Mutex<Vec<u8>>);

impl Held {
    fn of(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl ReadAt for Held {
    /// Gives less than was asked for, as files may.
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(dest.len()).min(1_000);
        dest[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl WriteAt for Held {
    fn write_all_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let (mut bytes, at) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let end = bytes.len().max(at + written.len());
        bytes.resize(end, 0);
        bytes[at..at + written.len()].copy_from_slice(written);
        Ok(())
    }
}

#[test]
fn threads_decrypt_what_one_reader_does() {
    let plaintext = sample(9 * SEGMENT_LEN + 77);
    let envelope = envelope_of(&plaintext);
    let header = read_header(&mut envelope.as_slice()).unwrap();
    for count in [1, 2, 7, 100] {
        let out = Held::default();
        let (input, len) = (Held::of(&envelope), envelope.len() as u64);
        let stats = decrypt_at(&header, &data_key(1), &input, len, &out, threads(count)).unwrap();
        assert_eq!(stats.plaintext_len, plaintext.len() as u64);
        assert!(out.bytes() == plaintext);
    }
}

#[test]
fn input_that_changes_its_length_is_no_envelope() {
    let input = Held::of(&sample(SEGMENT_LEN));
    for len in [0, 1, SEGMENT_LEN - 1, SEGMENT_LEN + 1, 3 * SEGMENT_LEN] {
        let (out, to) = (Held::default(), recipients());
        let outcome = encrypt_at(
            &input,
            len as u64,
            &out,
            &options(),
            &data_key(1),
            &to,
            &mut SystemEntropy,
            threads(2),
        );
        assert!(matches!(outcome, Err(StreamError::Changed)), "{len}");
    }
}

#[test]
fn ranges_are_the_bytes_of_the_whole() {
    let plaintext = sample(3 * SEGMENT_LEN + 9);
    let envelope = envelope_of(&plaintext);
    let header = read_header(&mut envelope.as_slice()).unwrap();
    let (input, len) = (Held::of(&envelope), envelope.len() as u64);
    let edges = [0, 1, SEGMENT_LEN - 1, SEGMENT_LEN, 2 * SEGMENT_LEN + 1, plaintext.len(), 99_999];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end >= start) {
            let range = start as u64..end as u64;
            let expected = plaintext.get(start..end.min(plaintext.len())).unwrap_or_default();
            let mut one = Vec::new();
            let read = decrypt_range(&header, &data_key(1), &input, len, range.clone(), &mut one);
            assert_eq!(read.unwrap(), expected.len() as u64, "{start} to {end}");
            let many = Held::default();
            decrypt_range_at(&header, &data_key(1), &input, len, range, &many, threads(3)).unwrap();
            assert!(one == expected && many.bytes() == expected, "{start} to {end}");
        }
    }
}

#[test]
fn range_of_a_damaged_envelope_gives_nothing_unless_its_end_and_the_range_are_right() {
    let plaintext = sample(3 * SEGMENT_LEN);
    let good = envelope_of(&plaintext);
    let header = read_header(&mut good.as_slice()).unwrap();
    let read = |envelope: &[u8]| {
        let (input, len) = (Held::of(envelope), envelope.len() as u64);
        let mut out = Vec::new();
        let outcome = decrypt_range(&header, &data_key(1), &input, len, 0..10, &mut out);
        (outcome.is_ok(), out)
    };
    assert_eq!(read(&good), (true, plaintext[..10].to_vec()));
    for cut in 1..=SEALED_LEN {
        assert_eq!(read(&good[..good.len() - cut]), (false, Vec::new()), "{cut}");
    }
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        read(&bad)
    };
    assert_eq!(flipped(good.len() - 1), (false, Vec::new()), "the last segment");
    assert_eq!(flipped(HEADER_LEN), (false, Vec::new()), "the segment of the range");
    assert!(flipped(HEADER_LEN + SEALED_LEN).0, "a segment that was not asked for");
}

#[test]
fn damage_is_noticed_in_memory_and_on_threads_as_well() {
    let plaintext = sample(SEGMENT_LEN + 100);
    let good = envelope_of(&plaintext);
    let header = read_header(&mut good.as_slice()).unwrap();
    for at in (HEADER_LEN..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(decrypt_slice(&header, &data_key(1), &bad).is_err(), "{at}");
        let mut out = vec![1; plaintext.len()];
        assert!(decrypt_slice_into(&header, &data_key(1), &bad, &mut out).is_err());
        assert!(out.iter().all(|byte| *byte == 0), "{at}");
        let (input, len) = (Held::of(&bad), bad.len() as u64);
        let outcome = decrypt_at(&header, &data_key(1), &input, len, &Held::default(), threads(2));
        assert!(outcome.is_err(), "{at}");
    }
    for len in HEADER_LEN..good.len() {
        assert!(decrypt_slice(&header, &data_key(1), &good[..len]).is_err(), "{len}");
    }
    let mut short = vec![0; plaintext.len() - 1];
    let outcome = decrypt_slice_into(&header, &data_key(1), &good, &mut short);
    assert_eq!(outcome, Err(EnvelopeError::WrongSegment));
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
