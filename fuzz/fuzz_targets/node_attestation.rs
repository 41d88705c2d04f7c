//! What the TPM of a node says, from nodes that are not known yet: three parts, each with its
//! length in front.
#![no_main]

use lastkey_trust::attestation::{Evidence, MAX_PART_LEN, verify};
use libfuzzer_sys::fuzz_target;

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk::<2>()?;
    let (taken, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = tail;
    Some(taken)
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let parts = [part(&mut rest), part(&mut rest), part(&mut rest)];
    let [Some(public), Some(attestation), Some(signature)] = parts else { return };
    // What the seed was signed over; anything else that passes would be a forgery.
    let bound = attestation.get(44..76).and_then(|bound| bound.try_into().ok()).unwrap_or([0; 32]);
    if verify(&Evidence { public, attestation, signature }, &bound).is_ok() {
        assert!(public.len() <= MAX_PART_LEN && attestation.len() <= MAX_PART_LEN);
    }
});
