//! The JSON of a header. Kept as it was read, so that what others put there survives a change;
//! what is needed of it is read through typed views.
//!
//! Room      `luks`. Parsed from bytes of strangers.
//! Source    LUKS2 specification, 3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::MAX_SLOTS;
use crate::area::ENCRYPTION;
use crate::error::Error;
use crate::slot::Slot;

/// The JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata(Map<String, Value>);

/// Where the data of a volume lies. It is encrypted by [`ENCRYPTION`], the first sector with tweak 0,
/// or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes; none for all of the device behind the beginning.
    pub size: Option<u64>,
    /// In bytes, 512 to 4,096.
    pub sector_size: u32,
}

/// The digest that a volume key is recognised by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Digest {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) hash: String,
    pub(crate) iterations: u32,
    pub(crate) salt: Base64,
    pub(crate) digest: Base64,
    pub(crate) keyslots: Vec<Number>,
    segments: Vec<Number>,
}

impl Digest {
    pub(crate) fn new(iterations: u32, salt: Vec<u8>, digest: Vec<u8>) -> Self {
        Self {
            kind: "pbkdf2".to_owned(),
            hash: "sha256".to_owned(),
            iterations,
            salt: Base64(salt),
            digest: Base64(digest),
            keyslots: Vec::new(),
            segments: vec![Number(0)],
        }
    }
}

impl Metadata {
    /// The JSON of a fresh header without key slots.
    pub(crate) fn fresh(json_len: u64, slots_len: u64, offset: u64, sector_size: u32) -> Self {
        let value = json!({
            "keyslots": {},
            "tokens": {},
            "segments": {"0": {
                "type": "crypt",
                "offset": offset.to_string(),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": ENCRYPTION,
                "sector_size": sector_size,
            }},
            "digests": {},
            "config": {"json_size": json_len.to_string(), "keyslots_size": slots_len.to_string()},
        });
        let Value::Object(map) = value else { return Self(Map::new()) };
        Self(map)
    }

    /// Reads the JSON area of a copy: text, then zeros.
    pub(crate) fn parse(area: &[u8]) -> Option<Self> {
        let end = area.iter().position(|byte| *byte == 0)?;
        let (text, rest) = area.split_at_checked(end)?;
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        serde_json::from_slice(text).ok().map(Self)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        // By name, whatever order this build of the library keeps.
        let mut value = Value::Object(self.0.clone());
        value.sort_all_objects();
        serde_json::to_vec(&value).map_err(|_| Error::Primitive)
    }

    /// Refuses headers that only a newer or cleverer reader may touch.
    pub(crate) fn require_plain(&self) -> Result<(), Error> {
        let mandatory =
            self.0.get("config").and_then(|config| config.pointer("/requirements/mandatory"));
        match mandatory {
            None => Ok(()),
            Some(Value::Array(names)) if names.is_empty() => Ok(()),
            Some(_) => Err(Error::Unsupported("a requirement, such as a re-encryption under way")),
        }
    }

    /// Length of the area for key slots, in bytes.
    pub(crate) fn slots_len(&self) -> Result<u64, Error> {
        let text = self.0.get("config").and_then(|config| config.get("keyslots_size"));
        text.and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or(MALFORMED)
    }

    /// The key slots of the kind that every volume has; others are left alone.
    pub(crate) fn slots(&self) -> Result<Vec<(u32, Slot)>, Error> {
        self.each("keyslots", |value| value.get("type").and_then(Value::as_str) == Some("luks2"))
    }

    /// Offset and length of every key slot, those of other kinds too.
    pub(crate) fn areas(&self) -> Result<Vec<(u64, u64)>, Error> {
        let object = self.object("keyslots")?;
        let areas = object.values().map(|slot| {
            let field = |name| slot.get("area")?.get(name)?.as_str()?.parse().ok();
            Some((field("offset")?, field("size")?))
        });
        areas.collect::<Option<_>>().ok_or(MALFORMED)
    }

    /// The one segment of the volume. It stands in nothing that a key covers, so that who writes to
    /// the disk chooses it: what would weaken the encryption is refused, whatever slots open.
    pub(crate) fn segment(&self) -> Result<Segment, Error> {
        let segments = self.object("segments")?;
        let mut each = segments.values();
        let (Some(segment), None) = (each.next(), each.next()) else {
            return Err(Error::Unsupported("more than one segment"));
        };
        if segment.get("integrity").is_some() {
            return Err(Error::Unsupported("integrity of sectors"));
        }
        let text = |name| segment.get(name).and_then(Value::as_str);
        if text("type") != Some("crypt") {
            return Err(Error::Unsupported("the kind of its segment"));
        }
        let number = |name| text(name).and_then(|text| text.parse::<u64>().ok()).ok_or(MALFORMED);
        let sector_size = segment.get("sector_size").and_then(Value::as_u64).ok_or(MALFORMED)?;
        if ![512, 1_024, 2_048, 4_096].contains(&sector_size) {
            return Err(MALFORMED);
        }
        if text("encryption") != Some(ENCRYPTION) {
            return Err(Error::Unsupported("another cipher than aes-xts-plain64"));
        }
        if number("iv_tweak")? != 0 {
            return Err(Error::Unsupported("sectors that are not counted from 0"));
        }
        let offset = number("offset")?;
        let size = if text("size") == Some("dynamic") { None } else { Some(number("size")?) };
        if !offset.is_multiple_of(sector_size) || !size.unwrap_or(0).is_multiple_of(sector_size) {
            return Err(Error::Unsupported("data that begins or ends within a sector"));
        }
        Ok(Segment {
            offset,
            size,
            sector_size: u32::try_from(sector_size).map_err(|_| MALFORMED)?,
        })
    }

    /// The digest of the segment's key.
    pub(crate) fn digest(&self) -> Result<(u32, Digest), Error> {
        let digests: Vec<(u32, Digest)> = self.each("digests", |_| true)?;
        let found = digests.into_iter().find(|(_, digest)| !digest.segments.is_empty());
        let (number, digest) = found.ok_or(MALFORMED)?;
        if digest.kind != "pbkdf2" {
            return Err(Error::Unsupported("the kind of a digest"));
        }
        Ok((number, digest))
    }

    /// Values of an object of the header whose names are numbers.
    pub(crate) fn each<T: DeserializeOwned>(
        &self,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<(u32, T)>, Error> {
        let mut found = Vec::new();
        for (number, value) in self.object(name)?.iter().filter(|(_, value)| wanted(value)) {
            let number = number.parse().ok().filter(|number| *number < MAX_SLOTS);
            let value = T::deserialize(value).map_err(|_| MALFORMED)?;
            found.push((number.ok_or(MALFORMED)?, value));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// Puts a value under a number.
    pub(crate) fn put(
        &mut self,
        name: &str,
        number: u32,
        value: &impl Serialize,
    ) -> Result<(), Error> {
        let value = serde_json::to_value(value).map_err(|_| Error::Primitive)?;
        self.object_mut(name)?.insert(number.to_string(), value);
        Ok(())
    }

    /// Takes a value away; whether there was one.
    pub(crate) fn remove(&mut self, name: &str, number: u32) -> Result<bool, Error> {
        Ok(self.object_mut(name)?.remove(&number.to_string()).is_some())
    }

    /// The lowest number that is free.
    pub(crate) fn free_number(&self, name: &'static str) -> Result<u32, Error> {
        let object = self.object(name)?;
        let mut numbers = 0..MAX_SLOTS;
        numbers.find(|number| !object.contains_key(&number.to_string())).ok_or(Error::Full(name))
    }

    /// Takes the number of a key slot out of every list of them.
    pub(crate) fn forget_slot(&mut self, number: u32) -> Result<(), Error> {
        let number = Value::String(number.to_string());
        for name in ["digests", "tokens"] {
            for value in self.object_mut(name)?.values_mut() {
                if let Some(Value::Array(slots)) = value.get_mut("keyslots") {
                    slots.retain(|slot| *slot != number);
                }
            }
        }
        Ok(())
    }

    fn object(&self, name: &str) -> Result<&Map<String, Value>, Error> {
        self.0.get(name).and_then(Value::as_object).ok_or(MALFORMED)
    }

    fn object_mut(&mut self, name: &str) -> Result<&mut Map<String, Value>, Error> {
        self.0.get_mut(name).and_then(Value::as_object_mut).ok_or(MALFORMED)
    }
}

/// Its checksum is right, so it was written so.
const MALFORMED: Error = Error::Unsupported("its JSON has another shape");

/// Bytes as base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// A number as decimal text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("not a decimal number"))
    }
}
