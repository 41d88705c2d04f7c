//! The value of a secret: bytes, or fields with names in one run of bytes.
//!
//! Room      `core`.
//! Source    `docs/formats/secret.md`, "Fields".
//! Holds     one list of fields has one encoding: [`Fields::parse`] refuses bytes that
//!           [`Fields::encode`] would not have written. What it takes is never longer than its
//!           input.

use lastkey_secret::SecretVec;

/// Most fields of one value.
pub const MAX_FIELDS: usize = 1_000;

/// Longest name of a field, in bytes.
pub const MAX_FIELD_NAME_LEN: usize = 256;

/// Fields with names, by rising name.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, SecretVec)>);

/// Why fields cannot be so. `Display` names the limit, never a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFields {
    /// A name.
    #[error("the name of a field has 1 to 256 bytes, none of them a control character")]
    Name,
    /// A name stands twice.
    #[error("a field stands there twice")]
    Twice,
    /// None, or too many.
    #[error("a value has 1 to 1000 fields")]
    Number,
    /// Bytes that are no fields.
    #[error("these bytes are no fields")]
    Malformed,
}

impl Fields {
    /// Puts fields in order.
    ///
    /// # Errors
    /// [`BadFields`].
    pub fn new(mut fields: Vec<(String, SecretVec)>) -> Result<Self, BadFields> {
        if !(1..=MAX_FIELDS).contains(&fields.len()) {
            return Err(BadFields::Number);
        }
        if !fields.iter().all(|(name, _)| is_name(name)) {
            return Err(BadFields::Name);
        }
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        if fields.is_sorted_by(|(a, _), (b, _)| a < b) {
            Ok(Self(fields))
        } else {
            Err(BadFields::Twice)
        }
    }

    /// The fields.
    #[must_use]
    pub fn into_inner(self) -> Vec<(String, SecretVec)> {
        self.0
    }

    /// Encodes: for each field the length of its name u16, the name, the length of its value u32,
    /// the value. `None` when a value is longer than four bytes can say.
    #[must_use]
    pub fn encode(&self) -> Option<SecretVec> {
        let len = |(name, value): &(String, SecretVec)| 6 + name.len() + value.len();
        let mut out = Vec::with_capacity(self.0.iter().map(len).sum());
        for (name, value) in &self.0 {
            out.extend_from_slice(&u16::try_from(name.len()).ok()?.to_be_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
            value.expose(|bytes| out.extend_from_slice(bytes));
        }
        Some(SecretVec::take(out))
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`BadFields`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFields> {
        let (mut rest, mut fields) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (field, after) = take_field(rest).ok_or(BadFields::Malformed)?;
            let rises = fields.last().is_none_or(|(last, _): &(String, _)| *last < field.0);
            if !rises || fields.len() == MAX_FIELDS {
                return Err(BadFields::Malformed);
            }
            fields.push(field);
            rest = after;
        }
        Self::new(fields)
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_FIELD_NAME_LEN).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn take_field(bytes: &[u8]) -> Option<((String, SecretVec), &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    let name = core::str::from_utf8(name).ok()?.to_owned();
    Some(((name, SecretVec::copy_of(value)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Result<Fields, BadFields> {
        let field = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), SecretVec::copy_of(value.as_bytes()))
        };
        Fields::new(pairs.iter().map(field).collect())
    }

    fn bytes(fields: &Fields) -> Vec<u8> {
        fields.encode().unwrap().expose(<[u8]>::to_vec)
    }

    #[test]
    fn fields_come_back_in_one_order() {
        let encoded = bytes(&fields(&[("user", "app"), ("password", "")]).unwrap());
        assert_eq!(encoded, b"\x00\x08password\x00\x00\x00\x00\x00\x04user\x00\x00\x00\x03app");
        assert_eq!(bytes(&Fields::parse(&encoded).unwrap()), encoded);
    }

    #[test]
    fn names_stand_once_and_can_be_printed() {
        assert_eq!(fields(&[("a", "1"), ("a", "2")]).err(), Some(BadFields::Twice));
        assert_eq!(fields(&[("", "1")]).err(), Some(BadFields::Name));
        assert_eq!(fields(&[("a\n", "1")]).err(), Some(BadFields::Name));
        assert_eq!(fields(&[]).err(), Some(BadFields::Number));
    }

    #[test]
    fn bytes_that_encode_would_not_have_written_are_refused() {
        let good = bytes(&fields(&[("a", "1"), ("b", "2")]).unwrap());
        for cut in 1..good.len() {
            assert!(Fields::parse(&good[..cut]).is_err() || cut == 8, "{cut}");
        }
        let turned = [&good[8..], &good[..8]].concat();
        assert_eq!(Fields::parse(&turned).err(), Some(BadFields::Malformed));
        let twice = [&good[..8], &good[..8]].concat();
        assert_eq!(Fields::parse(&twice).err(), Some(BadFields::Malformed));
        let claim = b"\x00\x01a\xff\xff\xff\xff";
        assert_eq!(Fields::parse(claim).err(), Some(BadFields::Malformed));
    }
}
