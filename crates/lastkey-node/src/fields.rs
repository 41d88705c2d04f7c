//! Fields with their length in front, as the formats of the room have them.
//!
//! Room      `node`.
//! Source    docs/formats/kmsv2.md, docs/formats/node-key.md.

/// With its length in front, so that no two readings of several are the same.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_be_bytes()[..], bytes].concat()
}

/// What stands behind a length of two bytes, and the rest.
pub(crate) fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
