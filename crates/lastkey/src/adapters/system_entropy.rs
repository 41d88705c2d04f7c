//! Randomness of the library's generator, which the kernel seeds.
//!
//! Room      the binary.

use lastkey_core::ports::EntropySource;
use lastkey_crypto::entropy::{Entropy, SystemEntropy};

/// The generator of aws-lc. Free to open.
#[derive(Debug)]
pub(crate) struct SystemEntropySource;

impl EntropySource for SystemEntropySource {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}
