//! A key: the named, policy-carrying object that owns versions.
//!
//! Room      `core`.
//! Holds     spec, usage and origin never change after creation; the primary version is the one
//!           whose state is active, and each change of primary raises the activation generation.

use std::collections::BTreeMap;

use lastkey_crypto::material::MaterialSpec;

use crate::ids::{AliasName, KeyId, VersionNo};
use crate::limits::{
    MAX_ALIASES, MAX_DELETION_DAYS, MAX_DESCRIPTION_LEN, MAX_TAG_NAME_LEN, MAX_TAG_VALUE_LEN,
    MAX_TAGS, MIN_DELETION_DAYS,
};
use crate::permit::KeyFacts;
use crate::rotation::Rotation;
use crate::state::{Phase, State};
use crate::time::{Elapsed, Timestamp};
use crate::version::Origin;

/// What a key is for; fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUsage {
    /// Encrypt, decrypt and wrap.
    EncryptDecrypt,
    /// Sign and verify.
    SignVerify,
    /// Generate and verify MACs.
    GenerateVerifyMac,
}

impl KeyUsage {
    /// All usages.
    pub const ALL: [Self; 3] = [Self::EncryptDecrypt, Self::SignVerify, Self::GenerateVerifyMac];

    /// The word in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EncryptDecrypt => "ENCRYPT_DECRYPT",
            Self::SignVerify => "SIGN_VERIFY",
            Self::GenerateVerifyMac => "GENERATE_VERIFY_MAC",
        }
    }

    /// The usage of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.name() == name)
    }

    /// The usages that material of this kind can serve; the first is the default.
    #[must_use]
    pub const fn for_spec(spec: MaterialSpec) -> &'static [Self] {
        use MaterialSpec as M;
        match spec {
            M::Aes128 | M::Aes256 | M::Sm4 => &[Self::EncryptDecrypt],
            M::Hmac256 | M::Hmac384 | M::Hmac512 => &[Self::GenerateVerifyMac],
            M::Rsa2048 | M::Rsa3072 | M::Rsa4096 => &[Self::SignVerify, Self::EncryptDecrypt],
            M::P256 | M::P384 | M::Secp256k1 | M::Ed25519 | M::Sm2 => &[Self::SignVerify],
        }
    }
}

/// Why a piece of metadata is refused. `Display` names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMetadata {
    /// Longer than 8,192 bytes.
    #[error("a description is at most 8192 bytes")]
    Description,
    /// Name or value too long, or a name that is empty.
    #[error("a tag has a name of 1 to 128 bytes and a value of at most 256 bytes")]
    Tag,
    /// More than 50 tags.
    #[error("a key has at most 50 tags")]
    TooManyTags,
    /// More than 50 aliases.
    #[error("a key has at most 50 aliases")]
    TooManyAliases,
    /// Outside 7 to 366 days.
    #[error("a deletion window is 7 to 366 days")]
    Window,
}

/// Free text about a key, at most 8,192 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description(String);

impl Description {
    /// Checks the length.
    ///
    /// # Errors
    /// [`BadMetadata::Description`] over the limit.
    pub fn parse(text: &str) -> Result<Self, BadMetadata> {
        if text.len() <= MAX_DESCRIPTION_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadMetadata::Description)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names and values attached to a key, at most 50.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Adds tags; a name that is there already gets the new value.
    ///
    /// # Errors
    /// [`BadMetadata::Tag`] or [`BadMetadata::TooManyTags`]; then nothing is changed.
    pub fn with(
        &self,
        tags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, BadMetadata> {
        let mut all = self.0.clone();
        for (name, value) in tags {
            if !(1..=MAX_TAG_NAME_LEN).contains(&name.len()) || value.len() > MAX_TAG_VALUE_LEN {
                return Err(BadMetadata::Tag);
            }
            all.insert(name, value);
        }
        if all.len() <= MAX_TAGS { Ok(Self(all)) } else { Err(BadMetadata::TooManyTags) }
    }

    /// Removes tags; a name that is not there is left out of account.
    #[must_use]
    pub fn without<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut left = self.0.clone();
        for name in names {
            left.remove(name);
        }
        Self(left)
    }

    /// The tags, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Days between the request to delete a key and its destruction: 7 to 366.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionWindow(u32);

impl DeletionWindow {
    /// A window of this many days.
    ///
    /// # Errors
    /// [`BadMetadata::Window`] outside 7 to 366.
    pub fn from_days(days: u32) -> Result<Self, BadMetadata> {
        if (MIN_DELETION_DAYS..=MAX_DELETION_DAYS).contains(&days) {
            Ok(Self(days))
        } else {
            Err(BadMetadata::Window)
        }
    }

    /// The days.
    #[must_use]
    pub const fn days(self) -> u32 {
        self.0
    }
}

/// A destruction that is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destruction {
    /// When, in service time.
    pub due: Elapsed,
    /// When it was asked for, by the wall clock.
    pub scheduled_at: Timestamp,
    /// The window.
    pub window: DeletionWindow,
}

/// A key and everything about it but its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its identity.
    pub id: KeyId,
    /// What its material is.
    pub spec: MaterialSpec,
    /// What it is for.
    pub usage: KeyUsage,
    /// Where its material comes from.
    pub origin: Origin,
    /// Its state.
    pub state: State,
    /// Its destruction, while one is scheduled.
    pub destruction: Option<Destruction>,
    /// The version that protects; `None` before the first one and after destruction.
    pub primary: Option<VersionNo>,
    /// The newest version; `None` before the first one.
    pub newest: Option<VersionNo>,
    /// Raised by each change of primary.
    pub activation: u32,
    /// Automatic rotation, if it is on.
    pub rotation: Option<Rotation>,
    /// While true, destruction cannot be scheduled.
    pub deletion_protection: bool,
    /// Free text.
    pub description: Description,
    /// Tags.
    pub tags: Tags,
    /// Aliases, sorted.
    pub aliases: Vec<AliasName>,
    /// When it was created, by the wall clock.
    pub created_at: Timestamp,
    /// When it was destroyed, by the wall clock.
    pub destroyed_at: Option<Timestamp>,
}

impl Key {
    /// What policy may know of it.
    #[must_use]
    pub fn facts(&self) -> KeyFacts<'_> {
        KeyFacts { aliases: &self.aliases, tags: &self.tags }
    }

    /// Where the key is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        Phase { state: self.state, destruction_scheduled: self.destruction.is_some() }
    }

    /// Whether the service can make new versions of it: imported material only its owner has.
    #[must_use]
    pub fn can_rotate(&self) -> bool {
        self.origin == Origin::Generated
    }

    /// Adds an alias.
    ///
    /// # Errors
    /// [`BadMetadata::TooManyAliases`] at the limit.
    pub fn add_alias(&mut self, alias: AliasName) -> Result<(), BadMetadata> {
        match self.aliases.binary_search(&alias) {
            Ok(_) => Ok(()),
            Err(_) if self.aliases.len() >= MAX_ALIASES => Err(BadMetadata::TooManyAliases),
            Err(place) => {
                self.aliases.insert(place, alias);
                Ok(())
            }
        }
    }

    /// Removes an alias, if it is there.
    pub fn remove_alias(&mut self, alias: &AliasName) {
        self.aliases.retain(|a| a != alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_has_a_usage_and_only_rsa_has_two() {
        for spec in MaterialSpec::ALL {
            let expected = if spec.name().starts_with("RSA") { 2 } else { 1 };
            assert_eq!(KeyUsage::for_spec(spec).len(), expected, "{}", spec.name());
        }
    }

    #[test]
    fn tags_are_limited_in_number_and_size() {
        let many = |n: usize| (0..n).map(|i| (format!("tag{i}"), String::new()));
        assert!(Tags::default().with(many(50)).is_ok());
        assert_eq!(Tags::default().with(many(51)), Err(BadMetadata::TooManyTags));
        let long = [("x".repeat(129), String::new())];
        assert_eq!(Tags::default().with(long), Err(BadMetadata::Tag));
        assert_eq!(Tags::default().with([(String::new(), String::new())]), Err(BadMetadata::Tag));
    }

    #[test]
    fn tags_can_be_replaced_and_removed() {
        let tag = |value: &str| [("team".to_owned(), value.to_owned())];
        let tags = Tags::default().with(tag("a")).unwrap().with(tag("b")).unwrap();
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("team", "b")]);
        assert_eq!(tags.without(["team", "none"]).iter().count(), 0);
    }

    #[test]
    fn deletion_window_is_7_to_366_days() {
        for (days, good) in [(6, false), (7, true), (366, true), (367, false)] {
            assert_eq!(DeletionWindow::from_days(days).is_ok(), good, "{days}");
        }
    }
}
