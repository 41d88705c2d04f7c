//! Headers of volumes as whoever can write to the disk makes them. Half of the inputs are the
//! JSON of a copy whose checksum is right, or the fuzzer would never come past it.
#![no_main]

use std::cell::RefCell;
use std::io;

use lastkey_crypto::digest::sha256;
use lastkey_luks::{Header, Medium};
use libfuzzer_sys::fuzz_target;

const COPY_LEN: usize = 16_384;
const LEN: usize = 2 * COPY_LEN + 64 * 1_024;

struct Memory(RefCell<Vec<u8>>);

impl Medium for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(LEN as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.0.borrow();
        let end = offset.checked_add(into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes.get(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = self.0.borrow_mut();
        let end = offset.checked_add(new.len()).ok_or(io::ErrorKind::WriteZero)?;
        bytes.get_mut(offset..end).ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut disk = vec![0; LEN];
    if kind % 2 == 0 {
        let len = bytes.len().min(LEN);
        disk[..len].copy_from_slice(&bytes[..len]);
    } else {
        let json = &bytes[..bytes.len().min(COPY_LEN - 4_097)];
        disk[..COPY_LEN].copy_from_slice(&copy_of(json));
    }
    let memory = Memory(RefCell::new(disk));
    if let Ok(Some(mut header)) = Header::read(&memory) {
        let _ = header.segment();
        let _ = header.slots();
        let tokens = header.tokens();
        if header.store(&memory).is_ok() {
            let again = Header::read(&memory).expect("stored").expect("stored");
            assert_eq!(again.tokens().ok(), tokens.ok());
        }
    }
});

fn copy_of(json: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; COPY_LEN];
    copy[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    copy[8..16].copy_from_slice(&(COPY_LEN as u64).to_be_bytes());
    copy[72..78].copy_from_slice(b"sha256");
    copy[4_096..4_096 + json.len()].copy_from_slice(json);
    let sum = sha256(&copy);
    copy[448..480].copy_from_slice(&sum);
    copy
}
