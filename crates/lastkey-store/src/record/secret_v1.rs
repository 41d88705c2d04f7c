//! Version 1 of the records of managed secrets.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1"; `docs/formats/secret.md`.

use lastkey_core::ids::KeyId;
use lastkey_core::key::{Description, Destruction};
use lastkey_core::secret_item::{
    SecretDue, SecretId, SecretItem, SecretName, SecretVersion, Stage,
};
use lastkey_core::time::{Elapsed, Timestamp};
use minicbor::{Decode, Encode};

use super::v1::{DestructionV1, tags, version_no};
use super::{DecodeError, codes};

#[derive(Encode, Decode)]
pub(super) struct SecretV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[b(1)]
    name: &'a str,
    #[cbor(n(2), with = "minicbor::bytes")]
    key: [u8; 16],
    #[b(3)]
    description: &'a str,
    #[b(4)]
    tags: Vec<(&'a str, &'a str)>,
    #[n(5)]
    newest: u32,
    #[n(6)]
    kept: Vec<u32>,
    #[n(7)]
    keep: u32,
    #[b(8)]
    stages: Vec<(&'a str, u32)>,
    #[n(9)]
    deletion: Option<DestructionV1>,
    #[n(10)]
    created_at: u64,
    #[n(11)]
    written_at: u64,
}

impl<'a> From<&'a SecretItem> for SecretV1<'a> {
    fn from(item: &'a SecretItem) -> Self {
        Self {
            id: item.id.0,
            name: item.name.as_str(),
            key: *item.key.as_bytes(),
            description: item.description.as_str(),
            tags: item.tags.iter().collect(),
            newest: item.newest.number(),
            kept: item.kept.iter().map(|number| number.number()).collect(),
            keep: item.keep,
            stages: item.stages.iter().map(|(stage, at)| (stage.as_str(), at.number())).collect(),
            deletion: item.deletion.as_ref().map(DestructionV1::from),
            created_at: item.created_at.0,
            written_at: item.written_at.0,
        }
    }
}

impl TryFrom<SecretV1<'_>> for SecretItem {
    type Error = DecodeError;

    fn try_from(item: SecretV1<'_>) -> Result<Self, DecodeError> {
        let kept: Vec<_> = item.kept.into_iter().map(version_no).collect::<Result<_, _>>()?;
        let stages = item.stages.iter().map(|(stage, at)| {
            let stage = Stage::parse(stage).or(Err(DecodeError::Malformed))?;
            Ok((stage, version_no(*at)?))
        });
        let rising =
            kept.is_sorted_by(|a, b| a < b) && item.stages.is_sorted_by(|(a, _), (b, _)| a < b);
        let stages = stages.collect::<Result<_, DecodeError>>()?;
        let item = Self {
            id: SecretId(item.id),
            name: name(item.name)?,
            key: KeyId::from_bytes(item.key),
            description: Description::parse(item.description).or(Err(DecodeError::Malformed))?,
            tags: tags(&item.tags)?,
            newest: version_no(item.newest)?,
            kept,
            keep: item.keep,
            stages,
            deletion: item.deletion.map(Destruction::try_from).transpose()?,
            created_at: Timestamp(item.created_at),
            written_at: Timestamp(item.written_at),
        };
        if rising { Ok(item) } else { Err(DecodeError::Malformed) }
    }
}

fn name(text: &str) -> Result<SecretName, DecodeError> {
    SecretName::parse(text).or(Err(DecodeError::Malformed))
}

#[derive(Encode, Decode)]
pub(super) struct SecretVersionV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    of: [u8; 16],
    #[n(1)]
    number: u32,
    #[n(2)]
    kind: u8,
    #[n(3)]
    length: u32,
    #[cbor(n(4), with = "minicbor::bytes")]
    key: [u8; 16],
    #[cbor(b(5), with = "minicbor::bytes")]
    data_key_blob: Option<&'a [u8]>,
    #[n(6)]
    created_at: u64,
    #[b(7)]
    created_by: &'a str,
    #[n(8)]
    destroyed_at: Option<u64>,
}

impl<'a> From<&'a SecretVersion> for SecretVersionV1<'a> {
    fn from(version: &'a SecretVersion) -> Self {
        Self {
            of: version.secret.0,
            number: version.number.number(),
            kind: codes::value_kind_code(version.kind),
            length: version.length,
            key: *version.key.as_bytes(),
            data_key_blob: version.data_key_blob.as_deref(),
            created_at: version.created_at.0,
            created_by: &version.created_by,
            destroyed_at: version.destroyed_at.map(|at| at.0),
        }
    }
}

impl TryFrom<SecretVersionV1<'_>> for SecretVersion {
    type Error = DecodeError;

    fn try_from(version: SecretVersionV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            secret: SecretId(version.of),
            number: version_no(version.number)?,
            kind: codes::value_kind(version.kind)?,
            length: version.length,
            key: KeyId::from_bytes(version.key),
            data_key_blob: version.data_key_blob.map(<[u8]>::to_vec),
            created_at: Timestamp(version.created_at),
            created_by: version.created_by.to_owned(),
            destroyed_at: version.destroyed_at.map(Timestamp),
        })
    }
}

/// The value of a version, as its data key sealed it.
#[derive(Encode, Decode)]
pub(super) struct SecretValueV1<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    pub(super) sealed: &'a [u8],
}

#[derive(Encode, Decode)]
pub(super) struct SecretDueV1<'a> {
    #[n(0)]
    at: u64,
    #[n(1)]
    what: u8,
    #[b(2)]
    name: &'a str,
}

impl<'a> From<&'a SecretDue> for SecretDueV1<'a> {
    fn from(due: &'a SecretDue) -> Self {
        let what = codes::secret_due_code(due.what);
        Self { at: due.at.0, what, name: due.name.as_str() }
    }
}

impl TryFrom<SecretDueV1<'_>> for SecretDue {
    type Error = DecodeError;

    fn try_from(due: SecretDueV1<'_>) -> Result<Self, DecodeError> {
        let (at, what) = (Elapsed(due.at), codes::secret_due(due.what)?);
        Ok(Self { at, what, name: name(due.name)? })
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::record::Record;
    use lastkey_testkit::fixtures;

    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn a_value_of_the_longest_length_has_a_record() {
        let longest = lastkey_core::secret_item::MAX_VALUE_LEN + 40;
        let record = Record::SecretValue(vec![7; longest]);
        assert_eq!(decode(&encode(&record).unwrap()), Ok(record));
    }

    #[test]
    fn a_secret_whose_versions_or_stages_are_in_disorder_is_malformed() {
        let mut item = fixtures::secret_item("a/b");
        item.kept.reverse();
        let bytes = encode(&Record::Secret(item)).unwrap();
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed));
    }
}
