//! Media for tests: memory that forgets and tears what was not synced, a file, and noise that
//! repeats.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use lastkey_crypto::digest::sha256_of;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_luks::{Content, KmsToken, Medium, State};
use lastkey_secret::SecretVec;

/// Memory. After `budget` writes and syncs it refuses every one; the write at the edge is torn.
pub(crate) struct Memory {
    pub(crate) bytes: RefCell<Vec<u8>>,
    budget: Cell<usize>,
    spent: Cell<usize>,
}

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        Self::of(vec![0; len], usize::MAX)
    }

    pub(crate) fn of(bytes: Vec<u8>, budget: usize) -> Self {
        Self { bytes: RefCell::new(bytes), budget: Cell::new(budget), spent: Cell::new(0) }
    }

    /// How many writes and syncs were done.
    pub(crate) fn spent(&self) -> usize {
        self.spent.get()
    }

    fn spend(&self) -> bool {
        let goes_on = self.spent.get() < self.budget.get();
        self.spent.set(self.spent.get() + 1);
        goes_on
    }
}

fn crashed() -> io::Error {
    io::Error::other("crashed")
}

impl Medium for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let bytes = self.bytes.borrow();
        let found = bytes.get(offset..offset + into.len());
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let goes_on = self.spend();
        let kept = if goes_on { new.len() } else { new.len() / 2 };
        if self.spent.get() <= self.budget.get().saturating_add(1) {
            let offset = usize::try_from(offset).unwrap();
            self.bytes.borrow_mut()[offset..offset + kept].copy_from_slice(&new[..kept]);
        }
        if goes_on { Ok(()) } else { Err(crashed()) }
    }

    fn sync(&self) -> io::Result<()> {
        if self.spend() { Ok(()) } else { Err(crashed()) }
    }
}

pub(crate) struct Disk(pub(crate) File);

impl Medium for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// SHA-256 of a seed and a counter, one block after the other.
pub(crate) struct Noise(pub(crate) &'static [u8], pub(crate) u64);

impl Entropy for Noise {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in dest.chunks_mut(32) {
            let block = sha256_of(&[self.0, &self.1.to_be_bytes()]);
            self.1 += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

pub(crate) fn secret(byte: u8) -> SecretVec {
    SecretVec::take(vec![byte; 64])
}

pub(crate) fn token(slot: u32) -> KmsToken {
    KmsToken {
        slots: vec![slot],
        cluster: "prod".to_owned(),
        volume: "lkv-0123456789abcdef".to_owned(),
        lineage: "0b5e4a52-6a7c-4a55-9e8b-0d2f9a1b3c4d".to_owned(),
        key: "7d0c9d1e-2f3a-4b5c-8d6e-1f2a3b4c5d6e".to_owned(),
        wrapped: vec![7; 272],
        state: State::Luks,
        content: Content::None,
    }
}
