//! Randomness as an argument.
//!
//! Room      `crypto`. Everything that needs random bytes takes `&mut dyn Entropy`, so tests
//!           and vectors can fix them.
//! Source    [`SystemEntropy`] is the generator of AWS-LC (NIST SP 800-90A CTR_DRBG, seeded
//!           by the operating system, reseeded after a fork).

/// A source of bytes that nobody can predict.
///
/// Called by sealing, wrapping and key generation, once for each salt, nonce or key.
pub trait Entropy {
    /// Fills the whole of `dest`.
    ///
    /// # Errors
    /// [`EntropyError`] when the source cannot answer; `dest` is then not to be used.
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError>;
}

/// The source of randomness did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no randomness available")]
pub struct EntropyError;

/// The random generator of the cryptographic library. Stateless here and free to construct.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        aws_lc_rs::rand::fill(dest).map_err(|_| EntropyError)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entropy, SystemEntropy};

    #[test]
    fn system_entropy_does_not_repeat_itself() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        SystemEntropy.fill(&mut one).unwrap();
        SystemEntropy.fill(&mut two).unwrap();
        assert_ne!(one, two);
        assert_ne!(one, [0; 32]);
    }
}
