//! Managed secrets: their names, their versions, their stages, and what a write does to them.
//!
//! Room      `core`. Values are not here; what protects one is its [`SecretVersion`].
//! Holds     a name cannot leave its path; a stage stands at one version that is kept; the newest
//!           version and every version with a stage are kept, whatever the limit.

use core::fmt;
use std::collections::BTreeMap;

use crate::ids::{BadName, KeyId, VersionNo};
use crate::key::{Description, Destruction, Tags};
use crate::time::{Elapsed, Timestamp};

/// Longest value when the configuration says nothing, in bytes.
pub const DEFAULT_VALUE_LEN: usize = 65_536;

/// Longest value that can be configured, in bytes.
pub const MAX_VALUE_LEN: usize = 1 << 20;

/// Versions kept when nobody says otherwise.
pub const DEFAULT_KEPT: u32 = 20;

/// Most versions kept of one secret.
pub const MAX_KEPT: u32 = 100;

/// Most stages of one secret.
pub const MAX_STAGES: usize = 24;

/// Longest name, in bytes.
const MAX_NAME_LEN: usize = 400;

/// Most segments of a name.
const MAX_SEGMENTS: usize = 16;

/// Name of a secret: segments with `/` between them, such as `prod/shop/db`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(String);

impl SecretName {
    /// Sorts after every character that a name may have.
    pub const AFTER: char = '~';

    /// Parses a name. Names are compared byte by byte, so there is one spelling of each.
    ///
    /// # Errors
    /// [`BadName::Secret`] when empty, longer than 400 bytes or 16 segments, with an empty segment
    /// or one that is `.` or `..`, or with a character outside `A-Z a-z 0-9 . _ @ + = -`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if is_path(text) { Ok(Self(text.to_owned())) } else { Err(BadName::Secret) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The paths that it lies in, the outermost first: `prod` and `prod/shop`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        paths_above(&self.0)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What lies around a name or a path, the outermost first.
pub fn paths_above(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('/').filter_map(|(place, _)| text.get(..place))
}

fn is_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@+=-".contains(&b);
    let segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed);
    text.len() <= MAX_NAME_LEN
        && text.split('/').count() <= MAX_SEGMENTS
        && text.split('/').all(segment)
}

/// A path that secrets lie in; empty for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(String);

impl SecretPath {
    /// Parses a path; one `/` at the end is left out of account.
    ///
    /// # Errors
    /// [`BadName::Secret`] as for a name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() || is_path(bare) {
            Ok(Self(bare.to_owned()))
        } else {
            Err(BadName::Secret)
        }
    }

    /// The text, without a `/` at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the names in it begin with: the path and a `/`, or nothing.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("{}/", self.0) }
    }
}

/// Identity of one secret: stays when it is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecretId(pub [u8; 16]);

impl SecretId {
    /// Parses the text form: 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`BadName::SecretId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let is_simple = text.len() == 32;
        let parsed = uuid::Uuid::try_parse(text).ok().filter(|_| is_simple);
        parsed.map(|id| Self(id.into_bytes())).ok_or(BadName::SecretId)
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).as_simple().fmt(f)
    }
}

/// Name of a stage: `current`, `previous`, `pending`, or a label of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stage(String);

impl Stage {
    /// The version that is handed out when nobody asks for another.
    pub const CURRENT: &'static str = "current";
    /// The version that was current before.
    pub const PREVIOUS: &'static str = "previous";
    /// A version that is made and not tested yet.
    pub const PENDING: &'static str = "pending";

    /// Parses a stage.
    ///
    /// # Errors
    /// [`BadName::Stage`] when empty, longer than 64 bytes, or with a character outside
    /// `A-Z a-z 0-9 . _ -`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName::Stage)
        }
    }

    /// The stage `current`.
    #[must_use]
    pub fn current() -> Self {
        Self(Self::CURRENT.to_owned())
    }

    /// The stage `pending`.
    #[must_use]
    pub fn pending() -> Self {
        Self(Self::PENDING.to_owned())
    }

    fn previous() -> Self {
        Self(Self::PREVIOUS.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Bytes that mean nothing to the service.
    Opaque,
    /// Fields with names (`docs/formats/secret.md`).
    Fields,
}

/// A secret and everything about it but its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretItem {
    /// Its identity.
    pub id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// The key that new versions are protected under.
    pub key: KeyId,
    /// Free text.
    pub description: Description,
    /// Tags.
    pub tags: Tags,
    /// The last number that was given to a version.
    pub newest: VersionNo,
    /// The versions that are kept, rising.
    pub kept: Vec<VersionNo>,
    /// How many versions are kept at most, those with a stage aside.
    pub keep: u32,
    /// Which version stands at which stage.
    pub stages: BTreeMap<Stage, VersionNo>,
    /// Its destruction, while one is scheduled: it is deleted, and can be restored.
    pub deletion: Option<Destruction>,
    /// When it was made, by the wall clock.
    pub created_at: Timestamp,
    /// When a version was written last, by the wall clock.
    pub written_at: Timestamp,
}

/// Why stages cannot be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStage {
    /// No such version.
    #[error("there is no such version")]
    NoSuchVersion,
    /// Only another version can take this stage over.
    #[error("the stage 'current' can be given to another version, and cannot be removed")]
    Current,
    /// Too many.
    #[error("a secret has at most 24 stages")]
    TooMany,
}

impl SecretItem {
    /// Gives a number to a new version and puts it at a stage. Answers the versions that are not
    /// kept any more; `None` when there are no numbers left.
    ///
    /// # Errors
    /// [`BadStage::TooMany`].
    pub fn write(
        &mut self,
        stage: Stage,
        now: Timestamp,
    ) -> Result<Option<Vec<VersionNo>>, BadStage> {
        let Some(number) = self.newest.next() else { return Ok(None) };
        self.newest = number;
        self.kept.push(number);
        self.written_at = now;
        self.place(stage, number)?;
        Ok(Some(self.prune()))
    }

    /// Puts a version at a stage. What was current becomes previous.
    ///
    /// # Errors
    /// [`BadStage::NoSuchVersion`], [`BadStage::TooMany`].
    pub fn place(&mut self, stage: Stage, number: VersionNo) -> Result<(), BadStage> {
        if self.kept.binary_search(&number).is_err() {
            return Err(BadStage::NoSuchVersion);
        }
        if stage.as_str() == Stage::CURRENT {
            let before = self.stages.get(&stage).copied().filter(|before| *before != number);
            if let Some(before) = before {
                self.stages.insert(Stage::previous(), before);
            }
            if self.stages.get(&Stage::pending()) == Some(&number) {
                self.stages.remove(&Stage::pending());
            }
        }
        self.stages.insert(stage, number);
        if self.stages.len() <= MAX_STAGES { Ok(()) } else { Err(BadStage::TooMany) }
    }

    /// Takes a stage away from the version that stands there, if there is one.
    ///
    /// # Errors
    /// [`BadStage::Current`].
    pub fn unplace(&mut self, stage: &Stage) -> Result<(), BadStage> {
        if stage.as_str() == Stage::CURRENT {
            return Err(BadStage::Current);
        }
        self.stages.remove(stage);
        Ok(())
    }

    /// The stages of a version.
    pub fn stages_of(&self, number: VersionNo) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |(_, at)| **at == number).map(|(stage, _)| stage)
    }

    /// The version that is current; `None` before the first one that was not written elsewhere.
    #[must_use]
    pub fn current(&self) -> Option<VersionNo> {
        self.stages.get(&Stage::current()).copied()
    }

    /// Lets go of the oldest versions without a stage that are too many, and answers them.
    pub fn prune(&mut self) -> Vec<VersionNo> {
        let limit = usize::try_from(self.keep).unwrap_or(usize::MAX);
        let too_many = self.kept.len().saturating_sub(limit);
        let free = |number: &&VersionNo| {
            **number != self.newest && self.stages_of(**number).next().is_none()
        };
        let gone: Vec<_> = self.kept.iter().filter(free).take(too_many).copied().collect();
        self.kept.retain(|number| !gone.contains(number));
        gone
    }
}

/// One version of a secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    /// The secret.
    pub secret: SecretId,
    /// Its number.
    pub number: VersionNo,
    /// What the value is.
    pub kind: ValueKind,
    /// Length of the value, in bytes.
    pub length: u32,
    /// The key that protects the data key.
    pub key: KeyId,
    /// The data key of the value, as a ciphertext blob; `None` when the version is destroyed.
    pub data_key_blob: Option<Vec<u8>>,
    /// When it was written, by the wall clock.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was destroyed, by the wall clock.
    pub destroyed_at: Option<Timestamp>,
}

/// What the scheduler does to a secret when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretDueWhat {
    /// Its deletion window ends.
    Destroy,
}

impl SecretDueWhat {
    /// The word in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
        }
    }
}

/// Something due with a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretDue {
    /// When, in service time.
    pub at: Elapsed,
    /// What.
    pub what: SecretDueWhat,
    /// With which secret.
    pub name: SecretName,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(number: u32) -> VersionNo {
        VersionNo::new(number).unwrap()
    }

    fn item(keep: u32) -> SecretItem {
        SecretItem {
            id: SecretId([1; 16]),
            name: SecretName::parse("a/b").unwrap(),
            key: KeyId::from_random([1; 16]),
            description: Description::default(),
            tags: Tags::default(),
            newest: VersionNo::FIRST,
            kept: vec![VersionNo::FIRST],
            keep,
            stages: [(Stage::current(), VersionNo::FIRST)].into(),
            deletion: None,
            created_at: Timestamp(1),
            written_at: Timestamp(1),
        }
    }

    #[test]
    fn name_cannot_leave_its_path_and_has_one_spelling() {
        for good in ["a", "prod/shop/db", "a.b/c_d@e+f=g-h", "..a/b.."] {
            assert_eq!(SecretName::parse(good).unwrap().as_str(), good);
        }
        let (long, deep) = ("x".repeat(401), vec!["a"; 17].join("/"));
        let bad =
            ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a~", "\u{e9}", &long, &deep];
        for bad in bad {
            assert_eq!(SecretName::parse(bad), Err(BadName::Secret), "{bad}");
        }
    }

    #[test]
    fn id_is_32_hexadecimal_digits_and_nothing_else() {
        let id = SecretId([0xab; 16]);
        assert_eq!(SecretId::parse(&id.to_string()), Ok(id));
        let hyphens = "abababab-abab-abab-abab-abababababab";
        for bad in ["", "ab", &"z".repeat(32), &"a".repeat(33), hyphens] {
            assert_eq!(SecretId::parse(bad), Err(BadName::SecretId), "{bad}");
        }
    }

    #[test]
    fn paths_of_a_name_are_what_lies_around_it() {
        let name = SecretName::parse("prod/shop/db").unwrap();
        assert_eq!(name.paths().collect::<Vec<_>>(), ["prod", "prod/shop"]);
        assert_eq!(SecretPath::parse("prod/shop/").unwrap().prefix(), "prod/shop/");
        assert_eq!(SecretPath::parse("").unwrap().prefix(), "");
        assert_eq!(SecretPath::parse("/"), Err(BadName::Secret));
    }

    #[test]
    fn a_write_makes_the_current_version_previous() {
        let mut item = item(5);
        assert_eq!(item.write(Stage::current(), Timestamp(2)), Ok(Some(Vec::new())));
        assert_eq!((item.current(), item.newest), (Some(no(2)), no(2)));
        assert_eq!(item.stages.get(&Stage::previous()), Some(&no(1)));
        item.place(Stage::current(), no(1)).unwrap();
        assert_eq!(item.stages.get(&Stage::previous()), Some(&no(2)));
    }

    #[test]
    fn a_pending_version_is_pending_no_more_when_it_is_current() {
        let mut item = item(5);
        item.write(Stage::pending(), Timestamp(2)).unwrap();
        assert_eq!(item.current(), Some(no(1)));
        item.place(Stage::current(), no(2)).unwrap();
        assert!(!item.stages.contains_key(&Stage::pending()));
    }

    #[test]
    fn versions_with_a_stage_and_the_newest_are_kept() {
        let mut item = item(2);
        item.place(Stage::parse("mine").unwrap(), no(1)).unwrap();
        for _ in 0..4 {
            item.write(Stage::current(), Timestamp(2)).unwrap();
        }
        assert_eq!(item.kept, [no(1), no(4), no(5)]);
        item.unplace(&Stage::parse("mine").unwrap()).unwrap();
        assert_eq!(item.prune(), [no(1)]);
    }

    #[test]
    fn current_is_never_without_a_version() {
        let mut item = item(2);
        assert_eq!(item.unplace(&Stage::current()), Err(BadStage::Current));
        assert_eq!(item.place(Stage::current(), no(9)), Err(BadStage::NoSuchVersion));
    }
}
