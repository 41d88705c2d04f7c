//! Small helpers for the unit tests of this room.
//!
//! Room      `crypto`, tests only.

use lastkey_secret::SecretVec;

use crate::{
    entropy::{Entropy, EntropyError},
    material::MaterialSpec,
};

/// Bytes of a hexadecimal text.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap())
        .collect()
}

/// Hands out the given bytes and fails when they are used up.
pub(crate) struct FixedEntropy(pub(crate) Vec<u8>);

impl Entropy for FixedEntropy {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        if self.0.len() < dest.len() {
            return Err(EntropyError);
        }
        dest.copy_from_slice(&self.0[..dest.len()]);
        self.0.drain(..dest.len());
        Ok(())
    }
}

/// One of each family that this build has and that is quick to make.
pub(crate) fn sample_specs() -> impl Iterator<Item = MaterialSpec> {
    MaterialSpec::ALL
        .into_iter()
        .filter(|spec| spec.is_supported())
        .filter(|spec| !matches!(spec, MaterialSpec::Rsa3072 | MaterialSpec::Rsa4096))
}

/// Fresh material.
pub(crate) fn sample_material(spec: MaterialSpec) -> SecretVec {
    crate::material::generate(spec, &mut crate::entropy::SystemEntropy).unwrap()
}
