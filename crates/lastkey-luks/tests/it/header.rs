//! What holds of a header whatever happens to the medium.

use std::sync::LazyLock;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_luks::{
    Content, Copies, DATA_OFFSET, Error, Format, Header, MAX_SLOTS, Medium, State, VolumeKey,
};
use lastkey_secret::SecretVec;
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use crate::media::{Memory, Noise, secret, token};

const FORMAT: Format<'static> =
    Format { label: "volume", subsystem: "lastkey", sector_size: 4_096 };
/// Room for one sector of data.
const LEN: usize = (16 << 20) + 4_096;

fn fresh() -> (Memory, Header) {
    let memory = Memory::new(LEN);
    let made = Header::format(&memory, FORMAT, &secret(1), token, &mut SystemEntropy).unwrap();
    (memory, made.0)
}

#[test]
fn header_gives_the_volume_key_to_its_secret_alone() {
    let memory = Memory::new(LEN);
    let (_, key) = Header::format(&memory, FORMAT, &secret(1), token, &mut SystemEntropy).unwrap();
    let header = Header::read(&memory).unwrap().unwrap();
    assert_eq!(header.copies(), Copies::Both);
    assert_eq!(header.uuid().len(), 36);
    let segment = header.segment().unwrap();
    assert_eq!((segment.offset, segment.sector_size, segment.size), (DATA_OFFSET, 4_096, None));
    assert!(header.open(&memory, &[], &secret(1)).unwrap().ct_eq(&key));
    assert!(header.open(&memory, &[0], &secret(1)).unwrap().ct_eq(&key));
    for (slots, byte) in [(&[][..], 2), (&[1][..], 1)] {
        let refused = header.open(&memory, slots, &secret(byte));
        assert!(matches!(refused, Err(Error::WrongKey)));
    }
    assert_eq!(header.tokens().unwrap(), [(0, token(0))]);
}

#[test]
fn lost_header_is_made_anew_for_the_key_and_identity_that_were_kept() {
    let memory = Memory::new(LEN);
    let (header, key) =
        Header::format(&memory, FORMAT, &secret(1), token, &mut SystemEntropy).unwrap();
    let uuid = header.uuid().to_owned();
    memory.write_at(&vec![0; 32_768], 0).unwrap();
    let kept = VolumeKey::take(key.expose(SecretVec::copy_of)).unwrap();
    let restore = |uuid: &str, medium: &Memory| {
        let noise = &mut SystemEntropy;
        Header::restore(medium, FORMAT, uuid, &kept, &secret(2), token, noise)
    };
    assert!(restore("no uuid", &memory).is_err());
    assert!(Header::read(&memory).unwrap().is_none());
    restore(&uuid, &memory).unwrap();
    let header = Header::read(&memory).unwrap().unwrap();
    assert_eq!(header.uuid(), uuid);
    assert!(header.open(&memory, &[], &secret(2)).unwrap().ct_eq(&key));
    assert!(matches!(header.open(&memory, &[], &secret(1)), Err(Error::WrongKey)));
    for len in [0, 63, 65] {
        assert!(VolumeKey::take(SecretVec::copy_of(&vec![1; len])).is_err(), "{len}");
    }
}

#[test]
fn nothing_is_not_a_header_and_an_unreadable_device_is_not_nothing() {
    assert!(Header::read(&Memory::new(LEN)).unwrap().is_none());
    assert!(Header::read(&Memory::new(0)).unwrap().is_none());
    let mut ext4 = vec![0; LEN];
    ext4[1_080..1_082].copy_from_slice(&[0x53, 0xef]);
    assert!(Header::read(&Memory::of(ext4, 0)).unwrap().is_none());

    struct Broken;
    impl Medium for Broken {
        fn len(&self) -> std::io::Result<u64> {
            Ok(1 << 30)
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("medium error"))
        }
        fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("medium error"))
        }
        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(Header::read(&Broken), Err(Error::Io { .. })));
}

#[test]
fn format_refuses_a_device_that_is_too_short_and_odd_sectors() {
    for len in [0, 16 << 20, (16 << 20) + 512] {
        let memory = Memory::new(len);
        let refused = Header::format(&memory, FORMAT, &secret(1), token, &mut SystemEntropy);
        assert!(matches!(refused, Err(Error::TooShort)), "{len}");
        assert_eq!(memory.spent(), 0);
    }
    let odd = Format { sector_size: 1_000, ..FORMAT };
    let refused = Header::format(&Memory::new(LEN), odd, &secret(1), token, &mut SystemEntropy);
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}

#[test]
fn one_damaged_copy_is_replaced_and_two_are_an_error() {
    for (damage, found) in [(0, Copies::Secondary), (16_384, Copies::Primary)] {
        for byte in [0, 7, 20, 500, 4_100] {
            let (memory, _) = fresh();
            memory.bytes.borrow_mut()[damage + byte] ^= 0xff;
            let mut header = Header::read(&memory).unwrap().unwrap();
            assert_eq!(header.copies(), found);
            assert!(header.open(&memory, &[], &secret(1)).is_ok());
            header.store(&memory).unwrap();
            let header = Header::read(&memory).unwrap().unwrap();
            assert_eq!(header.copies(), Copies::Both);
        }
    }
    let (memory, _) = fresh();
    memory.bytes.borrow_mut()[4_100] ^= 0xff;
    memory.bytes.borrow_mut()[16_384 + 4_100] ^= 0xff;
    assert!(matches!(Header::read(&memory), Err(Error::Damaged(_))));
}

#[test]
fn key_slots_change_places_and_the_old_one_is_gone() {
    let (memory, mut header) = fresh();
    let key = header.open(&memory, &[], &secret(1)).unwrap();
    let number = header.add_slot(&memory, &key, &secret(2), &mut SystemEntropy).unwrap();
    let second = header.put_token(None, &token(number)).unwrap();
    header.store(&memory).unwrap();
    assert_eq!((number, second), (1, 1));
    let old_area = memory.bytes.borrow()[32_768..32_768 + 258_048].to_vec();
    header.remove_token(0).unwrap();
    header.remove_slot(&memory, 0, &mut SystemEntropy).unwrap();
    let header = Header::read(&memory).unwrap().unwrap();
    assert_eq!(header.slots().unwrap(), [1]);
    assert_eq!(header.tokens().unwrap(), [(1, token(1))]);
    assert!(header.open(&memory, &[], &secret(2)).unwrap().ct_eq(&key));
    assert!(matches!(header.open(&memory, &[], &secret(1)), Err(Error::WrongKey)));
    let area = &memory.bytes.borrow()[32_768..32_768 + 258_048];
    assert!(old_area.chunks(512).zip(area.chunks(512)).all(|(old, new)| old != new));
}

#[test]
fn last_and_missing_key_slots_are_not_removed() {
    let (memory, mut header) = fresh();
    for number in [0, 5] {
        let refused = header.remove_slot(&memory, number, &mut SystemEntropy);
        assert!(matches!(refused, Err(Error::Unsupported(_))));
    }
    assert!(header.open(&memory, &[], &secret(1)).is_ok());
}

#[test]
fn header_has_room_for_32_key_slots() {
    let (memory, mut header) = fresh();
    let key = header.open(&memory, &[], &secret(1)).unwrap();
    for number in 1..MAX_SLOTS {
        let added = header.add_slot(&memory, &key, &secret(2), &mut Noise(b"slots", 0)).unwrap();
        assert_eq!(added, number);
    }
    header.store(&memory).unwrap();
    let full = header.add_slot(&memory, &key, &secret(2), &mut Noise(b"slots", 0));
    assert!(matches!(full, Err(Error::Full(_))));
    assert!(header.open(&memory, &[31], &secret(2)).unwrap().ct_eq(&key));
}

/// A crash at every write and sync of a change: the header is the one before or the one after,
/// and one of the two secrets opens.
#[test]
fn header_is_whole_wherever_a_change_is_cut_short() {
    let (memory, header) = fresh();
    let key = header.open(&memory, &[], &secret(1)).unwrap();
    let before = memory.bytes.borrow().clone();
    let change = |memory: &Memory| -> Result<(), Error> {
        let mut header = Header::read(memory)?.unwrap();
        let number = header.add_slot(memory, &key, &secret(2), &mut SystemEntropy)?;
        let mut second = token(number);
        second.state = State::Ready;
        second.content = Content::Ext4;
        header.put_token(None, &second)?;
        header.store(memory)?;
        header.remove_token(0)?;
        header.remove_slot(memory, 0, &mut SystemEntropy)
    };
    let whole = Memory::of(before.clone(), usize::MAX);
    change(&whole).unwrap();
    assert!(whole.spent() >= 12, "the slot, its sync, two headers in two copies, the wipe");
    for budget in 0..whole.spent() {
        let cut = Memory::of(before.clone(), budget);
        assert!(matches!(change(&cut), Err(Error::Io { .. })), "{budget}");
        let after = Memory::of(cut.bytes.take(), usize::MAX);
        let header = Header::read(&after).unwrap().unwrap();
        for (_, token) in header.tokens().unwrap() {
            let byte = if token.state == State::Ready { 2 } else { 1 };
            assert!(header.open(&after, &token.slots, &secret(byte)).unwrap().ct_eq(&key));
        }
        assert!(!header.tokens().unwrap().is_empty());
        // And the next run goes through.
        if header.slots().unwrap() == [0] {
            change(&after).unwrap();
        }
    }
}

static FRESH: LazyLock<Vec<u8>> = LazyLock::new(|| fresh().0.bytes.take());

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Bytes that somebody changed in one of the two copies are refused or read; they do not end
    /// the process, and the other copy is taken.
    #[test]
    fn changed_headers_never_panic(
        copy in 0_usize..2,
        at in 0_usize..16_384,
        noise in any::<[u8; 9]>(),
    ) {
        let memory = Memory::of(FRESH.clone(), usize::MAX);
        let range = copy * 16_384..(copy + 1) * 16_384;
        for (byte, noise) in memory.bytes.borrow_mut()[range][at..].iter_mut().zip(noise) {
            *byte = noise;
        }
        let found = Header::read(&memory);
        prop_assert!(matches!(found, Ok(Some(_))), "one copy is always whole");
    }
}
