//! Version 1 of the records of a holding: what was counted, and what was named.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::holding::{HeldThing, Holding, Inventory, check_versions};
use lastkey_core::ids::{KeyId, Name};
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

use super::v1::version_no;
use super::{DecodeError, codes};

#[derive(Encode, Decode)]
pub(super) struct HoldingV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 16],
    #[b(1)]
    place: &'a str,
    #[n(2)]
    what: u8,
    #[n(3)]
    versions: Vec<(u32, u64)>,
    #[n(4)]
    reported_at: u64,
    #[b(5)]
    reported_by: &'a str,
    #[n(6)]
    overridden: bool,
}

impl<'a> From<&'a Holding> for HoldingV1<'a> {
    fn from(holding: &'a Holding) -> Self {
        let versions = holding.versions.iter().map(|(version, count)| (version.number(), *count));
        Self {
            key: *holding.key.as_bytes(),
            place: holding.place.as_str(),
            what: codes::held_code(holding.what),
            versions: versions.collect(),
            reported_at: holding.reported_at.0,
            reported_by: &holding.reported_by,
            overridden: holding.overridden,
        }
    }
}

impl TryFrom<HoldingV1<'_>> for Holding {
    type Error = DecodeError;

    fn try_from(holding: HoldingV1<'_>) -> Result<Self, DecodeError> {
        let counted = |(version, count)| version_no(version).map(|version| (version, count));
        let versions = holding.versions.into_iter().map(counted).collect::<Result<Vec<_>, _>>()?;
        check_versions(&versions).or(Err(DecodeError::Malformed))?;
        Ok(Self {
            key: KeyId::from_bytes(holding.key),
            place: Name::parse(holding.place).or(Err(DecodeError::Malformed))?,
            what: codes::held(holding.what)?,
            versions,
            reported_at: Timestamp(holding.reported_at),
            reported_by: holding.reported_by.to_owned(),
            overridden: holding.overridden,
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct InventoryV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 16],
    #[b(1)]
    place: &'a str,
    #[b(2)]
    things: Vec<ThingV1<'a>>,
}

#[derive(Encode, Decode)]
struct ThingV1<'a> {
    #[b(0)]
    name: &'a str,
    #[n(1)]
    version: u32,
    #[b(2)]
    about: Vec<(&'a str, &'a str)>,
}

impl<'a> From<&'a Inventory> for InventoryV1<'a> {
    fn from(inventory: &'a Inventory) -> Self {
        let thing = |thing: &'a HeldThing| ThingV1 {
            name: &thing.name,
            version: thing.version.number(),
            about: thing.about.iter().map(|(name, word)| (name.as_str(), word.as_str())).collect(),
        };
        Self {
            key: *inventory.key.as_bytes(),
            place: inventory.place.as_str(),
            things: inventory.things.iter().map(thing).collect(),
        }
    }
}

impl TryFrom<InventoryV1<'_>> for Inventory {
    type Error = DecodeError;

    fn try_from(inventory: InventoryV1<'_>) -> Result<Self, DecodeError> {
        let owned = |(name, word): (&str, &str)| (name.to_owned(), word.to_owned());
        let thing = |thing: ThingV1<'_>| {
            Ok(HeldThing {
                name: thing.name.to_owned(),
                version: version_no(thing.version)?,
                about: thing.about.into_iter().map(owned).collect(),
            })
        };
        Ok(Self {
            key: KeyId::from_bytes(inventory.key),
            place: Name::parse(inventory.place).or(Err(DecodeError::Malformed))?,
            things: inventory.things.into_iter().map(thing).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::record::Record;
    use lastkey_testkit::fixtures;

    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn a_holding_whose_versions_are_in_disorder_is_malformed() {
        let mut holding = fixtures::holding(1, "prod");
        holding.versions.reverse();
        let bytes = encode(&Record::Holding(holding)).unwrap();
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed));
    }
}
