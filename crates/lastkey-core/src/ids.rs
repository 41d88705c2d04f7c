//! Names of things: keys, aliases, versions, instances, requests. Each its own type.
//!
//! Room      `core`.
//! Holds     a value of these types is well formed; no later code checks the text again.

use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use lastkey_crypto::entropy::{Entropy, EntropyError};
use uuid::Uuid;

/// The text is not a well-formed name of its kind. `Display` says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a UUID in its hyphenated form.
    #[error("a key id is a UUID such as 3fa85f64-5717-4562-b3fc-2c963f66afa6")]
    KeyId,
    /// Not an alias name.
    #[error("an alias is 'alias/' and 1 to 250 characters of A-Z, a-z, 0-9 and / _ . : -")]
    Alias,
    /// Neither a key id nor an alias.
    #[error("a key is named by its id (a UUID) or by an alias such as alias/app")]
    KeyRef,
    /// Not a version number.
    #[error("a key version is a whole number from 1")]
    Version,
    /// Not the id of a session.
    #[error("a session id has 32 hexadecimal digits")]
    Session,
    /// Not a name.
    #[error(
        "a name has 1 to 128 characters of A-Z a-z 0-9 . _ @ - and begins with a letter or digit"
    )]
    Name,
    /// Not the name of a secret.
    #[error(
        "a secret is named by 1 to 16 segments of A-Z a-z 0-9 . _ @ + = - with / between them, none \
         of them empty, '.' or '..', at most 400 bytes"
    )]
    Secret,
    /// Not the identity of a secret.
    #[error("the id of a secret has 32 hexadecimal digits")]
    SecretId,
    /// Not a stage.
    #[error("a stage has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Stage,
}

/// Identity of one key: a random UUID (RFC 9562, version 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Uuid);

impl KeyId {
    /// Makes an id out of 16 random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// Takes the 16 bytes as they stand, as a ciphertext carries them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, as a ciphertext carries them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Parses the hyphenated form; letters may be of either case.
    ///
    /// # Errors
    /// [`BadName::KeyId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if text.len() != 36 {
            return Err(BadName::KeyId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| BadName::KeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}

/// Identity of one installation, drawn at `init`; part of what every record is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(pub [u8; 16]);

impl InstanceId {
    /// Reads what [`fmt::Display`] writes: a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(|uuid| Self(uuid.into_bytes()))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

/// A second name of a key, for example `alias/app`. The prefix belongs to the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(String);

impl AliasName {
    const PREFIX: &'static str = "alias/";

    /// Parses an alias name.
    ///
    /// # Errors
    /// [`BadName::Alias`] without the prefix, when longer than 256 bytes in all, or with a
    /// character outside `A-Z a-z 0-9 / _ . : -`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(BadName::Alias)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/_.:-".contains(&b);
        if (1..=250).contains(&rest.len()) && rest.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName::Alias)
        }
    }

    /// The whole name, prefix included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a caller names a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// By identity.
    Id(KeyId),
    /// By alias, looked up when the request is handled.
    Alias(AliasName),
}

impl KeyRef {
    /// Parses an id or an alias.
    ///
    /// # Errors
    /// [`BadName::KeyRef`] when the text is neither.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if text.starts_with(AliasName::PREFIX) {
            AliasName::parse(text).map(Self::Alias)
        } else {
            KeyId::parse(text).map(Self::Id).map_err(|_| BadName::KeyRef)
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// Number of a key version; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionNo(NonZeroU32);

impl VersionNo {
    /// The first version of every key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// A version number; there is no version 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// The version after this one; `None` after the last that the format can hold.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for VersionNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VersionNo {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        text.parse().map(Self).map_err(|_| BadName::Version)
    }
}

/// Identity of one request, in every answer, log line and audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).as_simple().fmt(f)
    }
}

/// Identity of one session: the number of the epoch whose keys seal it and 96 random bits. Both
/// forms of one session and the audit log have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Draws an id in an epoch.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn draw(epoch: u32, entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut id = [0; 16];
        entropy.fill(&mut id)?;
        let (front, _) = id.split_at_mut(4);
        front.copy_from_slice(&epoch.to_be_bytes());
        Ok(Self(id))
    }

    /// Number of the epoch whose keys seal the session.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.0.first_chunk().map_or(0, |front| u32::from_be_bytes(*front))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).as_simple().fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let simple = text.len() == 32;
        let parsed = Uuid::try_parse(text).map_err(|_| BadName::Session)?;
        if simple { Ok(Self(parsed.into_bytes())) } else { Err(BadName::Session) }
    }
}

/// Name of something that administrators make: a cluster, a role, a policy, a user, a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Parses a name. Names are compared byte by byte, so there is one spelling of each.
    ///
    /// # Errors
    /// [`BadName::Name`] when empty, longer than 128 bytes, beginning with anything but a letter or
    /// digit, or with a character outside `A-Z a-z 0-9 . _ @ -`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && text.len() <= 128 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName::Name)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_one_spelling_and_cannot_leave_its_path() {
        for good in ["a", "prod-1", "alice@example.com", "0.x_y"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "-x", "a\u{301}", &"x".repeat(129)] {
            assert_eq!(Name::parse(bad), Err(BadName::Name), "{bad}");
        }
    }

    #[test]
    fn key_id_accepts_only_the_hyphenated_form() {
        let id = KeyId::from_random([7; 16]);
        assert_eq!(KeyId::parse(&id.to_string()), Ok(id));
        for bad in [
            "",
            "../etc/passwd",
            "3fa85f6457174562b3fc2c963f66afa6",
            "{3fa85f64-5717-4562-b3fc-2c963f66afa6}",
        ] {
            assert_eq!(KeyId::parse(bad), Err(BadName::KeyId), "{bad}");
        }
    }

    #[test]
    fn alias_accepts_foreign_arns_and_refuses_other_characters() {
        for good in ["alias/app", "alias/arn:aws:kms:eu-west-1:111122223333:key/1234", "alias/a"] {
            assert_eq!(AliasName::parse(good).map(|a| a.to_string()), Ok(good.to_owned()));
        }
        let long = format!("alias/{}", "x".repeat(251));
        for bad in ["app", "alias/", "alias/a b", "alias/é", "alias/a\n", long.as_str()] {
            assert_eq!(AliasName::parse(bad), Err(BadName::Alias), "{bad}");
        }
    }

    #[test]
    fn version_numbers_start_at_one() {
        assert_eq!(VersionNo::new(0), None);
        assert_eq!("0".parse::<VersionNo>(), Err(BadName::Version));
        assert_eq!("7".parse::<VersionNo>().map(VersionNo::number), Ok(7));
        assert_eq!(VersionNo::new(u32::MAX).and_then(VersionNo::next), None);
    }
}
