//! Randomness that is the same in every run.
//!
//! Room      `testkit`. Never for data that anybody keeps.
//! Source    output block n of stream s is SHA-256(seed | s | n), all as 8 bytes big-endian.

use core::sync::atomic::{AtomicU64, Ordering};

use lastkey_core::ports::EntropySource;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::{Entropy, EntropyError};

/// A generator whose output depends on its seed and on nothing else.
#[derive(Debug)]
pub struct Seeded {
    seed: u64,
    stream: u64,
    block: u64,
}

impl Seeded {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, stream: 0, block: 0 }
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        for part in dest.chunks_mut(32) {
            let words = [self.seed, self.stream, self.block].map(u64::to_be_bytes);
            let block = sha256(words.as_flattened());
            part.iter_mut().zip(block).for_each(|(to, from)| *to = from);
            self.block = self.block.wrapping_add(1);
        }
        Ok(())
    }
}

/// A source of seeded generators: each one that is opened has a stream of its own.
#[derive(Debug)]
pub struct SeededSource {
    seed: u64,
    opened: AtomicU64,
}

impl SeededSource {
    /// The source of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, opened: AtomicU64::new(0) }
    }
}

impl EntropySource for SeededSource {
    fn open(&self) -> Box<dyn Entropy + Send> {
        let stream = self.opened.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Box::new(Seeded { seed: self.seed, stream, block: 0 })
    }
}

/// A generator and source that never answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dry;

impl Entropy for Dry {
    fn fill(&mut self, _dest: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError)
    }
}

impl EntropySource for Dry {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(entropy: &mut dyn Entropy) -> [u8; 70] {
        let mut bytes = [0; 70];
        entropy.fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn seeded_output_depends_on_the_seed_alone_and_does_not_repeat() {
        let (mut one, mut same, mut other) = (Seeded::new(1), Seeded::new(1), Seeded::new(2));
        let first = draw(&mut one);
        assert_eq!(first, draw(&mut same));
        assert_ne!(first, draw(&mut one));
        assert_ne!(first, draw(&mut other));
        assert_ne!(first[..32], first[32..64]);
    }

    #[test]
    fn source_gives_each_generator_a_stream_of_its_own() {
        let source = SeededSource::new(1);
        assert_ne!(draw(source.open().as_mut()), draw(source.open().as_mut()));
    }
}
