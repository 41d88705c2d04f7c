//! The envelope as a format: header, slots, single segments.
//!
//! Room      `crypto`, tests.

use lastkey_crypto::{
    context::EncryptionContext,
    digest::sha256,
    entropy::SystemEntropy,
    envelope::{
        AgeIdentity, EnvelopeError, EnvelopeOptions, Header, KIND_PASSPHRASE, Opener, PREFIX_LEN,
        RandomAccess, Recipient, RecipientName, Sealer, Span, build,
    },
    kdf::Argon2Params,
};
use lastkey_secret::SecretVec;
use proptest::prelude::{any, prop_assert, proptest};

use crate::support::{
    HEADER_LEN, SEALED_LEN, SEGMENT_LEN, SLOT_LEN, data_key, envelope_of, options, recipients,
    sample,
};

fn header_bytes() -> Vec<u8> {
    build(&options(), &data_key(1), &recipients(), &mut SystemEntropy).unwrap().0
}

#[test]
fn header_gives_back_what_it_was_built_from() {
    let bytes = header_bytes();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((bytes.len(), header.len()), (HEADER_LEN, HEADER_LEN));
    let prefix = bytes[..PREFIX_LEN].try_into().unwrap();
    assert_eq!(Header::len_from_prefix(prefix), Ok(HEADER_LEN));
    assert_eq!(header.recipients(), recipients());
    assert_eq!(header.context(), &options().context);
    assert_eq!((header.sequence(), header.segment_len()), (1, SEGMENT_LEN));
    assert!(header.unlock(&data_key(1)).is_ok());
}

#[test]
fn header_is_aligned_whatever_the_context() {
    for len in [0, 1, 411, 412, 413, 900, 8_187] {
        let context = EncryptionContext::from_raw(&vec![1; len]).unwrap();
        let options = EnvelopeOptions { context, ..EnvelopeOptions::default() };
        let built = build(&options, &data_key(1), &recipients(), &mut SystemEntropy).unwrap();
        assert_eq!(built.0.len() % 512, 0, "context of {len}");
        let header = Header::parse(&built.0).unwrap();
        assert_eq!(header.context(), &options.context);
        assert!(header.unlock(&data_key(1)).is_ok());
    }
}

#[test]
fn header_refuses_another_data_key() {
    let header = Header::parse(&header_bytes()).unwrap();
    assert_eq!(header.unlock(&data_key(2)).err(), Some(EnvelopeError::Undecryptable));
    let rewrapped = header.rewrap(&data_key(2), &recipients());
    assert_eq!(rewrapped, Err(EnvelopeError::Undecryptable));
}

#[test]
fn header_refuses_every_bit_flip_outside_the_unused_slot() {
    let bytes = header_bytes();
    for bit in 0..(HEADER_LEN - SLOT_LEN) * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let outcome = Header::parse(&bad).and_then(|header| header.unlock(&data_key(1)));
        assert!(outcome.is_err(), "bit {bit}");
    }
}

#[test]
fn header_ignores_a_damaged_slot_beside_a_whole_one() {
    let bytes = header_bytes();
    for bit in (HEADER_LEN - SLOT_LEN) * 8..HEADER_LEN * 8 {
        let mut torn = bytes.clone();
        torn[bit / 8] ^= 1 << (bit % 8);
        let header = Header::parse(&torn).unwrap();
        assert!(header.unlock(&data_key(1)).is_ok(), "bit {bit}");
    }
}

#[test]
fn header_refuses_truncation_and_extra_bytes() {
    let mut bytes = header_bytes();
    for len in 0..bytes.len() {
        let refused = Header::parse(&bytes[..len]).err();
        assert_eq!(refused, Some(EnvelopeError::Truncated), "len {len}");
    }
    bytes.push(0);
    assert_eq!(Header::parse(&bytes).err(), Some(EnvelopeError::Malformed));
}

#[test]
fn header_refuses_lengths_outside_their_limits() {
    let bytes = header_bytes();
    let with = |at: usize, field: &[u8]| {
        let mut bad = bytes.clone();
        bad[at..at + field.len()].copy_from_slice(field);
        Header::len_from_prefix(bad[..PREFIX_LEN].try_into().unwrap()).err()
    };
    let (malformed, newer) =
        (Some(EnvelopeError::Malformed), Some(EnvelopeError::UnsupportedVersion));
    assert_eq!(with(0, b"X"), malformed, "magic");
    assert_eq!(with(8, &[2]), newer, "format");
    assert_eq!(with(9, &[4]), newer, "suite");
    assert_eq!(with(10, &[11]), malformed, "segment too short");
    assert_eq!(with(10, &[25]), malformed, "segment too long");
    assert_eq!(with(11, &[1]), newer, "flags");
    assert_eq!(with(12, &0_u32.to_be_bytes()), malformed, "no slot");
    assert_eq!(with(12, &513_u32.to_be_bytes()), malformed, "slot not aligned");
    assert_eq!(with(12, &0x0010_0200_u32.to_be_bytes()), malformed, "slot too long");
    assert_eq!(with(16, &0_u32.to_be_bytes()), malformed, "no context");
    assert_eq!(with(16, &8_193_u32.to_be_bytes()), malformed, "context too long");
    assert_eq!(with(31, &[1]), newer, "reserved");
    assert_eq!(with(12, &1_048_576_u32.to_be_bytes()), None, "longest slot");
}

#[test]
fn options_outside_their_limits_build_nothing() {
    let refuse = |options: EnvelopeOptions, recipients: &[Recipient]| {
        build(&options, &data_key(1), recipients, &mut SystemEntropy).err()
    };
    let out = Some(EnvelopeError::Options);
    assert_eq!(refuse(EnvelopeOptions { segment_log2: 11, ..options() }, &recipients()), out);
    assert_eq!(refuse(EnvelopeOptions { segment_log2: 25, ..options() }, &recipients()), out);
    assert_eq!(refuse(EnvelopeOptions { slot_len: 0, ..options() }, &recipients()), out);
    assert_eq!(refuse(EnvelopeOptions { slot_len: 1_000, ..options() }, &recipients()), out);
    assert_eq!(refuse(EnvelopeOptions { slot_len: u32::MAX, ..options() }, &recipients()), out);
    assert_eq!(refuse(options(), &[]), out);
}

#[test]
fn recipients_fill_a_slot_to_the_byte() {
    let build = |len: usize| {
        build(&options(), &data_key(1), &[Recipient::lastkey(vec![1; len])], &mut SystemEntropy)
    };
    // 76 bytes of frame, 2 of count, 3 of recipient.
    let fits = SLOT_LEN - 81;
    let (bytes, _) = build(fits).unwrap();
    assert_eq!(Header::parse(&bytes).unwrap().recipients()[0].body.len(), fits);
    assert_eq!(build(fits + 1).err(), Some(EnvelopeError::RecipientsTooLong));
    assert_eq!(build(70_000).err(), Some(EnvelopeError::RecipientsTooLong));
}

#[test]
fn rewrapping_alternates_between_the_slots() {
    let mut bytes = header_bytes();
    for round in 2..6_u64 {
        let header = Header::parse(&bytes).unwrap();
        let body = vec![u8::try_from(round).unwrap(); 20];
        let update = header.rewrap(&data_key(1), &[Recipient::lastkey(body.clone())]).unwrap();
        let slot = if round % 2 == 0 { 512 + SLOT_LEN } else { 512 };
        assert_eq!((update.offset, update.bytes.len()), (slot as u64, SLOT_LEN));
        bytes[slot..slot + SLOT_LEN].copy_from_slice(&update.bytes);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.sequence(), round);
        assert_eq!(header.recipients(), [Recipient::lastkey(body)]);
        assert!(header.unlock(&data_key(1)).is_ok());
    }
}

#[test]
fn crash_while_rewrapping_leaves_the_old_recipients_or_the_new() {
    let bytes = header_bytes();
    let new = [Recipient::lastkey(vec![7; 20])];
    let update = Header::parse(&bytes).unwrap().rewrap(&data_key(1), &new).unwrap();
    let at = usize::try_from(update.offset).unwrap();
    let written = update.bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for len in 0..=update.bytes.len() {
        let mut torn = bytes.clone();
        torn[at..at + len].copy_from_slice(&update.bytes[..len]);
        let header = Header::parse(&torn).unwrap();
        assert!(header.unlock(&data_key(1)).is_ok());
        let expected = if len < written { recipients() } else { new.to_vec() };
        assert_eq!(header.recipients(), expected, "torn after {len}");
    }
}

#[test]
fn slot_of_another_envelope_is_refused_although_it_is_whole() {
    let (mut bytes, other) = (header_bytes(), header_bytes());
    bytes[512..512 + SLOT_LEN].copy_from_slice(&other[512..512 + SLOT_LEN]);
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header.unlock(&data_key(1)).err(), Some(EnvelopeError::Undecryptable));
}

#[test]
fn slot_with_a_new_checksum_but_no_new_mac_is_refused() {
    let mut bytes = header_bytes();
    let body_len = u32::from_be_bytes(bytes[520..524].try_into().unwrap());
    let checksum = 524 + usize::try_from(body_len).unwrap() + 32;
    for at in [519, 530, checksum - 1] {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let sum = sha256(&forged[512..checksum]);
        forged[checksum..checksum + 32].copy_from_slice(&sum);
        if let Ok(header) = Header::parse(&forged) {
            assert_eq!(header.unlock(&data_key(1)).err(), Some(EnvelopeError::Undecryptable));
        }
    }
    bytes[512..512 + 2 * SLOT_LEN].fill(0);
    assert_eq!(Header::parse(&bytes).err(), Some(EnvelopeError::NoSlot));
}

#[test]
fn slots_with_one_sequence_are_refused() {
    let mut bytes = header_bytes();
    let slot = bytes[512..512 + SLOT_LEN].to_vec();
    bytes[512 + SLOT_LEN..].copy_from_slice(&slot);
    assert_eq!(Header::parse(&bytes).err(), Some(EnvelopeError::Malformed));
}

#[test]
fn sealer_and_opener_refuse_segments_of_impossible_length() {
    let (_, keys) = build(&options(), &data_key(1), &recipients(), &mut SystemEntropy).unwrap();
    let wrong = Err(EnvelopeError::WrongSegment);
    let mut sealer = Sealer::new(&keys).unwrap();
    assert_eq!(sealer.seal(&mut vec![0; SEGMENT_LEN - 1]), wrong);
    assert_eq!(sealer.seal(&mut vec![0; SEGMENT_LEN + 1]), wrong);
    sealer.seal(&mut vec![0; SEGMENT_LEN]).unwrap();
    assert_eq!(sealer.seal_last(&mut Vec::new()), wrong);
    let last_too_long = Sealer::new(&keys).unwrap().seal_last(&mut vec![0; SEGMENT_LEN + 1]);
    assert_eq!(last_too_long, wrong);
    let mut opener = Opener::new(&keys).unwrap();
    assert_eq!(opener.open(&mut vec![0; SEALED_LEN - 1]), wrong);
    assert_eq!(opener.open_last(&mut vec![0; 15]), Err(EnvelopeError::Truncated));
}

#[test]
fn opener_leaves_nothing_in_the_buffer_of_a_bad_segment() {
    let (_, keys) = build(&options(), &data_key(1), &recipients(), &mut SystemEntropy).unwrap();
    let mut segment = b"plaintext".to_vec();
    Sealer::new(&keys).unwrap().seal_last(&mut segment).unwrap();
    segment[0] ^= 1;
    let outcome = Opener::new(&keys).unwrap().open_last(&mut segment);
    assert_eq!((outcome, segment), (Err(EnvelopeError::Undecryptable), Vec::new()));
}

fn piece(envelope: &[u8], span: Span) -> Vec<u8> {
    let at = usize::try_from(span.offset).unwrap();
    envelope[at..at + span.len].to_vec()
}

#[test]
fn single_segments_open_once_the_last_one_is_verified() {
    for len in [0, 1, SEGMENT_LEN, SEGMENT_LEN + 1, 2 * SEGMENT_LEN, 3 * SEGMENT_LEN - 1] {
        let plaintext = sample(len);
        let envelope = envelope_of(&plaintext);
        let keys = Header::parse(&envelope[..HEADER_LEN]).unwrap().unlock(&data_key(1)).unwrap();
        let total = envelope.len() as u64;
        let last = RandomAccess::locate_last(&keys, total).unwrap();
        let access = RandomAccess::new(&keys, total, piece(&envelope, last)).unwrap();
        assert_eq!(access.plaintext_len(), len as u64);
        let mut read = Vec::new();
        for index in 0..access.segment_count() {
            let span = access.span(index).unwrap();
            let segment = access.open(index, piece(&envelope, span)).unwrap();
            segment.expose(|bytes| read.extend_from_slice(bytes));
        }
        assert_eq!(read, plaintext, "{len}");
        assert_eq!(access.span(access.segment_count()), None);
    }
}

#[test]
fn random_access_refuses_a_shortened_envelope_and_exchanged_segments() {
    let envelope = envelope_of(&sample(3 * SEGMENT_LEN));
    let keys = Header::parse(&envelope[..HEADER_LEN]).unwrap().unlock(&data_key(1)).unwrap();
    for cut in [1, 16, SEALED_LEN, SEALED_LEN + 1] {
        let shorter = &envelope[..envelope.len() - cut];
        let total = shorter.len() as u64;
        let refused = RandomAccess::locate_last(&keys, total)
            .and_then(|last| RandomAccess::new(&keys, total, piece(shorter, last)));
        assert!(refused.is_err(), "cut {cut}");
    }
    let total = envelope.len() as u64;
    let last = RandomAccess::locate_last(&keys, total).unwrap();
    let access = RandomAccess::new(&keys, total, piece(&envelope, last)).unwrap();
    let first = piece(&envelope, access.span(0).unwrap());
    let exchanged = access.open(1, first.clone());
    assert_eq!(exchanged.err(), Some(EnvelopeError::Undecryptable));
    assert_eq!(access.open(9, first).err(), Some(EnvelopeError::WrongSegment));
    for len in [0, HEADER_LEN as u64, HEADER_LEN as u64 + 15] {
        let located = RandomAccess::locate_last(&keys, len);
        assert_eq!(located, Err(EnvelopeError::Truncated));
    }
}

fn identity(secret: &str) -> Vec<AgeIdentity> {
    AgeIdentity::parse_file(&SecretVec::copy_of(secret.as_bytes())).unwrap()
}

/// Two identities of `age-keygen`.
const ALICE: &str = "AGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y";
const BOB: &str = "AGE-SECRET-KEY-14VXG8TH7VYUH2GNE8708NKSAXTLFCRYECE60VPGDQW9TCCHT5UVQDA0PCD";

fn cheap() -> Argon2Params {
    Argon2Params::parse(32, 1, 1).unwrap()
}

fn passphrase(text: &str) -> SecretVec {
    SecretVec::copy_of(text.as_bytes())
}

#[test]
fn data_key_comes_back_by_identity_and_by_passphrase() {
    let (alice, bob) = (identity(ALICE), identity(BOB));
    let (key, entropy) = (data_key(1), &mut SystemEntropy);
    let to = [
        Recipient::age(alice[0].recipient(), &key, entropy).unwrap(),
        Recipient::passphrase(&passphrase("one"), cheap(), &key, entropy).unwrap(),
        Recipient::passphrase(&passphrase("two"), cheap(), &key, entropy).unwrap(),
    ];
    let (bytes, _) = build(&options(), &key, &to, entropy).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert!(header.data_key_by_age(&alice).unwrap().ct_eq(&key));
    assert_eq!(header.data_key_by_age(&bob).err(), Some(EnvelopeError::NoRecipient));
    for (text, opens) in [("one", true), ("two", true), ("three", false)] {
        let opened = header.data_key_by_passphrase(&passphrase(text));
        assert_eq!(opened.is_ok_and(|opened| opened.ct_eq(&key)), opens, "{text}");
    }
    let names: Vec<RecipientName> = header.recipients().iter().map(Recipient::name).collect();
    assert_eq!(names[0], RecipientName::Age(alice[0].recipient().clone()));
    assert_eq!(names[1], RecipientName::Passphrase(cheap()));
}

#[test]
fn data_key_that_is_not_the_one_of_the_header_is_not_given_out() {
    let (alice, entropy) = (identity(ALICE), &mut SystemEntropy);
    let to = [
        Recipient::age(alice[0].recipient(), &data_key(2), entropy).unwrap(),
        Recipient::passphrase(&passphrase("one"), cheap(), &data_key(2), entropy).unwrap(),
    ];
    let (bytes, _) = build(&options(), &data_key(1), &to, entropy).unwrap();
    let header = Header::parse(&bytes).unwrap();
    let refused = Some(EnvelopeError::Undecryptable);
    assert_eq!(header.data_key_by_age(&alice).err(), refused);
    assert_eq!(header.data_key_by_passphrase(&passphrase("one")).err(), refused);
}

#[test]
fn passphrase_that_costs_too_much_is_refused_before_it_is_tried() {
    let key = data_key(1);
    for (memory, passes, lanes) in [
        (1_048_576, 16, 1),
        (1_048_577, 1, 1),
        (u32::MAX, 1, 1),
        (524_288, 9, 1),
        (64, 0, 1),
        (64, 1, 0),
        (64, u32::MAX, 1),
        (64, 1, u32::MAX),
    ] {
        let mut body: Vec<u8> = Vec::new();
        for number in [memory, passes, lanes] {
            body.extend_from_slice(&u32::to_be_bytes(number));
        }
        body.resize(12 + 16 + 48, 1);
        let to = [Recipient { kind: KIND_PASSPHRASE, body }];
        let (bytes, _) = build(&options(), &key, &to, &mut SystemEntropy).unwrap();
        let outcome = Header::parse(&bytes).unwrap().data_key_by_passphrase(&passphrase("x"));
        assert_eq!(outcome.err(), Some(EnvelopeError::PassphraseCost), "{memory} {passes}");
        assert_eq!(to[0].name(), RecipientName::Unknown);
    }
    let dear = Argon2Params::parse(1_048_576, 16, 1).unwrap();
    let made = Recipient::passphrase(&passphrase("x"), dear, &key, &mut SystemEntropy);
    assert_eq!(made.err(), Some(EnvelopeError::PassphraseCost));
}

#[test]
fn only_so_many_passphrases_of_an_envelope_are_tried() {
    let (key, entropy) = (data_key(1), &mut SystemEntropy);
    let made = |text: &str, entropy: &mut SystemEntropy| {
        Recipient::passphrase(&passphrase(text), cheap(), &key, entropy).unwrap()
    };
    let mut to: Vec<Recipient> = (0..4).map(|_| made("other", entropy)).collect();
    to.push(made("last", entropy));
    let (bytes, _) = build(&options(), &key, &to, entropy).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert!(header.data_key_by_passphrase(&passphrase("last")).is_err());
    assert!(header.data_key_by_passphrase(&passphrase("other")).is_ok());
}

#[test]
fn ten_thousand_recipients_are_refused_in_writing_and_in_reading() {
    let many = vec![Recipient { kind: 9, body: Vec::new() }; 10_000];
    let wide = EnvelopeOptions { slot_len: 1 << 20, ..options() };
    let refused = Some(EnvelopeError::TooManyRecipients);
    assert_eq!(build(&wide, &data_key(1), &many, &mut SystemEntropy).err(), refused);
    let most = &many[..1_024];
    let (mut bytes, _) = build(&wide, &data_key(1), most, &mut SystemEntropy).unwrap();
    assert_eq!(Header::parse(&bytes).unwrap().recipients().len(), 1_024);
    // The same with another count, and a checksum that is right.
    let slot = &mut bytes[512..512 + (1 << 20)];
    slot[12..14].copy_from_slice(&10_000_u16.to_be_bytes());
    let covered = 12 + 2 + 3 * 1_024 + 32;
    let sum = sha256(&slot[..covered]);
    slot[covered..covered + 32].copy_from_slice(&sum);
    assert_eq!(Header::parse(&bytes).err(), refused);
}

#[test]
fn slots_grow_for_recipients_and_keep_room_for_more() {
    let mut options = EnvelopeOptions::default();
    options.fit(&recipients()).unwrap();
    assert_eq!(options.slot_len, 1_024);
    let twenty = vec![Recipient::lastkey(vec![1; 136]); 20];
    options.fit(&twenty).unwrap();
    assert_eq!((options.slot_len % 512, options.slot_len), (0, 4_608));
    let built = build(&options, &data_key(1), &twenty, &mut SystemEntropy).unwrap();
    let update = Header::parse(&built.0)
        .unwrap()
        .rewrap(&data_key(1), &vec![Recipient::lastkey(vec![1; 136]); 28]);
    assert!(update.is_ok());
    let huge = vec![Recipient::lastkey(vec![1; 60_000]); 20];
    assert_eq!(options.fit(&huge), Err(EnvelopeError::RecipientsTooLong));
    assert_eq!(options.fit(&[]), Err(EnvelopeError::Options));
}

proptest! {
    #[test]
    fn header_parser_never_panics(
        front in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((0..HEADER_LEN, any::<u8>()), 0..8),
    ) {
        let _ = Header::parse(&front);
        let mut bytes = header_bytes();
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(!header.recipients().is_empty());
            let _ = header.unlock(&data_key(1));
        }
    }
}

#[test]
fn sealing_from_one_buffer_into_another_is_sealing_in_place() {
    let (_, keys) = build(&options(), &data_key(1), &recipients(), &mut SystemEntropy).unwrap();
    let (mut from, mut in_place) = (Sealer::new(&keys).unwrap(), Sealer::new(&keys).unwrap());
    let (text, rest) = (sample(SEGMENT_LEN), sample(10));

    let (mut sealed, mut segment) = (vec![0; SEALED_LEN], text.clone());
    for len in [0, SEGMENT_LEN, SEALED_LEN - 1, SEALED_LEN + 1] {
        assert_eq!(from.seal_from(&text, &mut vec![0; len]), Err(EnvelopeError::WrongSegment));
    }
    assert_eq!(from.seal_from(&text[1..], &mut sealed), Err(EnvelopeError::WrongSegment));
    from.seal_from(&text, &mut sealed).unwrap();
    in_place.seal(&mut segment).unwrap();
    assert_eq!(sealed, segment);

    let (mut sealed, mut segment) = (vec![0; 26], rest.clone());
    from.seal_last_from(&rest, &mut sealed).unwrap();
    in_place.seal_last(&mut segment).unwrap();
    assert_eq!(sealed, segment);
    let again = Sealer::new(&keys).unwrap().seal_last_from(&rest, &mut [0; 25]);
    assert_eq!(again, Err(EnvelopeError::WrongSegment));
}
