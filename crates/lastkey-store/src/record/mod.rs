//! Records as bytes: version, kind, CBOR.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`; CBOR (RFC 8949).
//! Holds     one record has one encoding: [`decode`] refuses bytes that [`encode`] would not
//!           have written. It never panics, and takes memory in proportion to its input, of
//!           which it reads at most [`MAX_RECORD_LEN`] bytes.

mod access_v1;
mod backup_v1;
pub mod bootstrap;
mod codes;
mod database_v1;
mod holding_v1;
mod lease_v1;
mod node_v1;
mod rotation_v1;
mod seals_v1;
mod secret_v1;
mod v1;

use lastkey_core::record::Record;

/// Longest encoded record, in bytes: the longest value of a secret, and an eighth more.
pub const MAX_RECORD_LEN: usize = 1_179_648;

const VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not what [`encode`] writes.
    #[error("a record is malformed")]
    Malformed,
    /// A version, a kind or a code that this version of Lastkey does not know.
    #[error("a record was written by a newer version")]
    Newer,
}

/// Why a record has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Longer than [`MAX_RECORD_LEN`].
    #[error("a record is longer than 1179648 bytes")]
    TooLong,
    /// A bootstrap record that is half of one version and half of another.
    #[error("a bootstrap record mixes two versions")]
    Mixed,
    /// The encoder failed.
    #[error("a record cannot be encoded")]
    Failed,
}

/// Encodes a record in the newest version.
///
/// # Errors
/// [`EncodeError::TooLong`].
pub fn encode(record: &Record) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![VERSION];
    v1::encode(record, &mut bytes)?;
    if bytes.len() <= MAX_RECORD_LEN { Ok(bytes) } else { Err(EncodeError::TooLong) }
}

/// Decodes a record of any version.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    if bytes.len() > MAX_RECORD_LEN {
        return Err(DecodeError::Malformed);
    }
    match bytes.split_first() {
        Some((&VERSION, rest)) => v1::decode(rest),
        Some((0, _)) | None => Err(DecodeError::Malformed),
        Some((_, _)) => Err(DecodeError::Newer),
    }
}

#[cfg(test)]
mod tests {
    use lastkey_testkit::fixtures;
    use proptest::prelude::*;

    use super::*;

    fn encoded() -> Vec<Vec<u8>> {
        fixtures::every_record().iter().map(|record| encode(record).unwrap()).collect()
    }

    #[test]
    fn every_kind_of_record_comes_back_as_it_was() {
        for record in fixtures::every_record() {
            assert_eq!(decode(&encode(&record).unwrap()), Ok(record));
        }
    }

    #[test]
    fn records_have_the_bytes_of_the_golden_file() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut lines: Vec<_> = encoded().iter().map(|bytes| hex(bytes)).collect();
        for record in [fixtures::bootstrap_v1(), fixtures::bootstrap()] {
            lines.push(hex(&bootstrap::encode(&record).unwrap()));
        }
        assert_eq!(lines.join("\n") + "\n", include_str!("../../tests/golden/records-v1.txt"));
    }

    #[test]
    fn unknown_versions_kinds_and_codes_are_newer_and_zero_is_malformed() {
        let mut key = encoded().remove(0);
        // Version, kind, array of so many, bytes of 16, id; then the code of the spec.
        let spec = 2 + 1 + 1 + 16;
        assert_eq!(key[spec], 2);
        for (place, code) in [(0, 2), (1, 24), (1, 0x7f), (spec, 15)] {
            let before = std::mem::replace(&mut key[place], code);
            assert_eq!(decode(&key), Err(DecodeError::Newer), "{place}");
            key[place] = 0;
            assert_eq!(decode(&key), Err(DecodeError::Malformed), "{place}");
            key[place] = before;
        }
    }

    #[test]
    fn record_is_malformed_when_cut_or_followed_by_anything() {
        for bytes in encoded() {
            for len in 0..bytes.len() {
                assert!(decode(&bytes[..len]).is_err(), "{len} of {bytes:02x?}");
            }
            assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Malformed));
        }
    }

    #[test]
    fn record_is_malformed_when_a_name_or_number_is_out_of_range() {
        let swap = |from: &[u8], to: &[u8]| {
            let mut bytes = encoded().remove(1);
            let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to);
            decode(&bytes)
        };
        assert!(swap(b"alias/app", b"alias/app").is_ok());
        assert_eq!(swap(b"alias/app", b"alias/a p"), Err(DecodeError::Malformed));
        assert_eq!(swap(b"\x64team", b"\x64zone"), Err(DecodeError::Malformed));
        // The rotation period of a day, as CBOR, made a second.
        assert_eq!(
            swap(&[0x1a, 0, 1, 0x51, 0x80], &[0x1a, 0, 0, 0, 1]),
            Err(DecodeError::Malformed)
        );
        // The window of 30 days, before the end of the destruction.
        assert_eq!(swap(&[0x18, 30, 0x01], &[0x18, 250, 0x00]), Err(DecodeError::Malformed));
    }

    #[test]
    fn record_is_malformed_in_any_other_encoding_than_ours() {
        let usage = |cbor: &[u8]| decode(&[&[VERSION, 3], cbor].concat());
        assert!(usage(&[0x83, 1, 2, 3]).is_ok());
        for other in [
            &[0x9f, 1, 2, 3, 0xff][..],
            &[0x84, 1, 2, 3, 0xf6],
            &[0x85, 1, 2, 3, 4, 5],
            &[0x83, 0x18, 1, 2, 3],
            &[0x82, 1, 2],
        ] {
            assert_eq!(usage(other), Err(DecodeError::Malformed), "{other:02x?}");
        }
    }

    #[test]
    fn claimed_lengths_take_no_memory() {
        // An array and byte strings of 2^63 members.
        for claim in [[0x9b, 0x7f], [0x5b, 0x7f], [0x7b, 0x7f], [0xbb, 0x7f]] {
            for kind in 1..=8 {
                let bytes = [&[VERSION, kind][..], &claim, &[0xff; 7]].concat();
                assert_eq!(decode(&bytes), Err(DecodeError::Malformed));
            }
        }
        assert_eq!(decode(&vec![VERSION; MAX_RECORD_LEN + 1]), Err(DecodeError::Malformed));
    }

    #[test]
    fn record_that_is_too_long_is_not_encoded() {
        let mut version = fixtures::key_version(1, 1);
        version.public_key = Some(vec![0; MAX_RECORD_LEN]);
        assert_eq!(encode(&Record::Version(version)), Err(EncodeError::TooLong));
    }

    proptest! {
        #[test]
        fn what_decodes_is_what_encode_writes(bytes in any_record_like()) {
            if let Ok(record) = decode(&bytes) {
                prop_assert_eq!(encode(&record), Ok(bytes));
            }
        }

        #[test]
        fn bootstrap_that_decodes_is_what_encode_writes(bytes in any_bootstrap_like()) {
            if let Ok(record) = bootstrap::decode(&bytes) {
                prop_assert_eq!(bootstrap::encode(&record), Ok(bytes));
            }
        }
    }

    fn any_bootstrap_like() -> impl Strategy<Value = Vec<u8>> {
        let records = [fixtures::bootstrap_v1(), fixtures::bootstrap()];
        let encoded = records.map(|record| bootstrap::encode(&record).unwrap());
        prop::sample::select(encoded.to_vec()).prop_flat_map(mutated)
    }

    fn any_record_like() -> impl Strategy<Value = Vec<u8>> {
        let noise = (1..=8_u8, prop::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(kind, rest)| [&[VERSION, kind][..], &rest].concat());
        prop_oneof![noise, prop::sample::select(encoded()).prop_flat_map(mutated)]
    }

    /// A few bytes replaced by others.
    fn mutated(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((0..bytes.len(), any::<u8>()), 0..4);
        changes.prop_map(move |changes| {
            let mut bytes = bytes.clone();
            for (place, byte) in changes {
                bytes[place] = byte;
            }
            bytes
        })
    }
}
