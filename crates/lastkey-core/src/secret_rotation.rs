//! Rotation of managed secrets: by which strategy, when, and how far one has come.
//!
//! Room      `core`.
//! Holds     what is under way is in the record, so a server that stops in the middle goes on or
//!           takes back. A value that is drawn has at least 64 bits that nobody can guess.

use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::SecretVec;

use crate::cron::Cron;
use crate::ids::{Name, VersionNo};
use crate::rotation::Period;
use crate::secret_item::{SecretId, SecretName};
use crate::time::{ClockRecord, Elapsed, Timestamp};
use crate::version::WrappedKey;

/// Longest overlap, and longest window, in seconds: 90 days, and a day.
pub const MAX_OVERLAP_SECS: u64 = 90 * 86_400;
/// See [`MAX_OVERLAP_SECS`].
pub const MAX_WINDOW_SECS: u32 = 86_400;

/// How long both accounts of a database can log in when nobody says otherwise, in seconds: a day.
pub const DEFAULT_OVERLAP_SECS: u64 = 86_400;

/// The field that names the account, in secrets of databases.
pub const USERNAME_FIELD: &str = "username";
/// The field that holds its password.
pub const PASSWORD_FIELD: &str = "password";

/// How a new value comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The service draws it.
    Generated(Recipe),
    /// Two accounts of a database take turns.
    Accounts(Accounts),
    /// A program of somebody's makes, sets and tests it.
    Webhook(Webhook),
}

impl Strategy {
    /// The word of the doors.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Generated(_) => "generated",
            Self::Accounts(_) => "database",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Characters, 8 to 1,024.
    length: u32,
    /// The characters that it is made of: printable ASCII, each once.
    alphabet: String,
    /// The field that takes it; `None` when it is the whole value.
    field: Option<String>,
}

/// Why nothing can be drawn so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipe {
    /// The length.
    #[error("a generated value has 8 to 1024 characters")]
    Length,
    /// The alphabet.
    #[error("an alphabet has 2 to 94 printable ASCII characters other than the blank, each once")]
    Alphabet,
    /// Both together.
    #[error("so short a value of so few characters can be guessed; make one of them longer")]
    Guessable,
    /// The field.
    #[error("the name of a field has 1 to 256 bytes, none of them a control character")]
    Field,
}

impl Recipe {
    /// Letters and digits.
    pub const ALPHANUMERIC: &'static str =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    /// Characters when nothing else is said.
    pub const DEFAULT_LENGTH: u32 = 32;

    /// A recipe.
    ///
    /// # Errors
    /// [`BadRecipe`].
    pub fn new(length: u32, alphabet: &str, field: Option<&str>) -> Result<Self, BadRecipe> {
        if !(8..=1_024).contains(&length) {
            return Err(BadRecipe::Length);
        }
        let mut letters: Vec<u8> = alphabet.bytes().collect();
        letters.sort_unstable();
        let each_once = letters.is_sorted_by(|a, b| a < b);
        if letters.len() < 2 || !each_once || !letters.iter().all(u8::is_ascii_graphic) {
            return Err(BadRecipe::Alphabet);
        }
        if length.saturating_mul(letters.len().ilog2()) < 64 {
            return Err(BadRecipe::Guessable);
        }
        let is_name =
            |field: &str| (1..=256).contains(&field.len()) && !field.chars().any(char::is_control);
        if !field.is_none_or(is_name) {
            return Err(BadRecipe::Field);
        }
        let field = field.map(str::to_owned);
        Ok(Self { length, alphabet: alphabet.to_owned(), field })
    }

    /// Characters of a value.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// What a value is made of.
    #[must_use]
    pub fn alphabet(&self) -> &str {
        &self.alphabet
    }

    /// The field that takes it; `None` when it is the whole value.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Draws a value: every character as likely as any other, and one at least of each class that
    /// the alphabet has (small and capital letters, digits, others).
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn draw(&self, entropy: &mut dyn Entropy) -> Result<SecretVec, EntropyError> {
        let letters = self.alphabet.as_bytes();
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        loop {
            let drawn = SecretVec::try_fill(length, |value| {
                value.iter_mut().try_for_each(|place| {
                    *place = one_of(letters, entropy)?;
                    Ok(())
                })
            })?;
            // What lacks a class is drawn anew as a whole, which prefers no place and no character.
            if drawn.expose(|value| classes(value) == classes(letters)) {
                return Ok(drawn);
            }
        }
    }
}

/// One of some letters, each as likely as any other.
fn one_of(letters: &[u8], entropy: &mut dyn Entropy) -> Result<u8, EntropyError> {
    let count = u8::try_from(letters.len()).unwrap_or(u8::MAX);
    // The last numbers, which would make the first letters likelier, are drawn anew.
    let fair = u8::MAX - u8::MAX % count;
    loop {
        let mut byte = [0];
        entropy.fill(&mut byte)?;
        let [number] = byte;
        if number < fair
            && let Some(letter) = letters.get(usize::from(number % count))
        {
            return Ok(*letter);
        }
    }
}

/// A bit for each class that is there.
fn classes(text: &[u8]) -> u8 {
    text.iter().fold(0, |all, letter| {
        all | match letter {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'0'..=b'9' => 4,
            _other => 8,
        }
    })
}

/// Two accounts that take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The database.
    pub database: Name,
    /// The accounts. The one that the current version does not name is on standby.
    pub pair: [String; 2],
}

/// Longest name of an account, in bytes: what every database takes.
const MAX_ACCOUNT_LEN: usize = 32;

/// Whether an account can have this name.
#[must_use]
pub fn is_account(name: &str) -> bool {
    (1..=MAX_ACCOUNT_LEN).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Accounts {
    /// The account that nobody uses while `current` is in use.
    #[must_use]
    pub fn standby(&self, current: Option<&[u8]>) -> &str {
        let [first, second] = &self.pair;
        if current == Some(first.as_bytes()) { second } else { first }
    }
}

/// A program that is called in four steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it listens.
    pub url: String,
    /// Whose certificate it shows, in PEM; without it those that the machine knows count.
    pub authority: Option<String>,
    /// What calls are signed with.
    pub signing: WrappedKey,
    /// What is drawn when the program makes no value of its own.
    pub recipe: Recipe,
}

/// What is due by elapsed time may be earlier by the wall clock, in seconds: both are cut to whole
/// seconds and tick at moments of their own. Less than a minute, the shortest time from one moment
/// of the calendar to the next.
const EARLY_SECS: u64 = 5;

/// When a secret rotates by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So often, up to a twentieth of that earlier.
    Every(Period),
    /// At times of the calendar, each at a random moment of a window that begins then.
    At {
        /// When windows begin.
        cron: Cron,
        /// How long they are, in seconds; 0 when the moment is that of the calendar, and one that
        /// was missed is made up for.
        window_secs: u32,
    },
}

impl Schedule {
    /// When it is due next.
    #[must_use]
    pub fn next(&self, clock: &ClockRecord, random: u32) -> Option<Elapsed> {
        match self {
            Self::Every(period) => Some(period.next_due(clock.elapsed, random)),
            Self::At { cron, window_secs } => {
                let now = clock.last.wall;
                let begins = cron.next_after(now)?;
                let into = u64::from(random).saturating_mul(u64::from(*window_secs)) >> 32;
                let wait = begins.0.saturating_sub(now.0).saturating_add(into);
                Some(Elapsed(clock.elapsed.0.saturating_add(wait)))
            }
        }
    }

    /// Whether it may begin at a moment of the wall clock: within a window, if it has windows, and
    /// not just before a moment of the calendar, with which it would be due once more.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        match self {
            Self::Every(_) => true,
            Self::At { cron, window_secs: 0 } => {
                cron.next_after(now).is_none_or(|next| next.0.saturating_sub(now.0) > EARLY_SECS)
            }
            Self::At { cron, window_secs } => {
                let before = Timestamp(now.0.saturating_sub(u64::from(*window_secs) + 1));
                cron.next_after(before).is_some_and(|begins| begins <= now)
            }
        }
    }
}

/// How far a rotation has come. Each step can be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The new value is kept, at `pending`.
    Created,
    /// It was set where it is to count.
    Set,
    /// It works.
    Tested,
}

impl Step {
    /// The word of the doors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Set => "set",
            Self::Tested => "tested",
        }
    }
}

/// A rotation that has begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Its identity, the same however often a step is done.
    pub id: [u8; 16],
    /// The new version.
    pub version: VersionNo,
    /// The version that was current when it began.
    pub replaces: Option<VersionNo>,
    /// The last step that was done.
    pub step: Step,
    /// When it began, by the wall clock.
    pub began_at: Timestamp,
    /// The old version is revoked when no consumer holds it any more, and not by time.
    pub waits_for_consumers: bool,
}

/// An old version that still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The version.
    pub version: VersionNo,
    /// When it is revoked, or looked at again, in service time.
    pub ends: Elapsed,
    /// It is revoked only when no consumer holds it any more.
    pub waits_for_consumers: bool,
}

/// How the last rotation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRotation {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// The version that it made.
    pub version: Option<VersionNo>,
    /// What went wrong, in words for people; `None` when all went well.
    pub problem: Option<String>,
}

/// The rotation of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRotation {
    /// The secret.
    pub secret: SecretId,
    /// Its name.
    pub name: SecretName,
    /// How a new value comes about.
    pub strategy: Strategy,
    /// When it rotates by itself; `None` when on demand alone.
    pub schedule: Option<Schedule>,
    /// How long the old version counts, in seconds, before it is revoked; `None` when it is kept
    /// like any other.
    pub overlap_secs: Option<u64>,
    /// When it is due, in service time; while one is under way, when that has begun.
    pub due: Option<Elapsed>,
    /// The one that is under way.
    pub under_way: Option<UnderWay>,
    /// The old version, while it still counts.
    pub overlap: Option<Overlap>,
    /// How many have failed since the last one that did not.
    pub failures: u32,
    /// How the last one ended.
    pub last: Option<LastRotation>,
}

/// What is due with a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationDueWhat {
    /// A rotation.
    Rotate,
    /// The end of an overlap.
    Revoke,
}

impl RotationDueWhat {
    /// The word in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
        }
    }
}

/// Something due with a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RotationDue {
    /// When, in service time.
    pub at: Elapsed,
    /// What.
    pub what: RotationDueWhat,
    /// With which secret.
    pub secret: SecretId,
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;

    use super::*;
    use crate::time::Reading;

    fn clock(wall: u64) -> ClockRecord {
        let last = Reading { wall: Timestamp(wall), since_boot: 1, boot: [1; 16] };
        ClockRecord::kept(Elapsed(1_000), last, None)
    }

    #[test]
    fn a_drawn_value_has_its_length_its_letters_and_every_class() {
        let recipe = Recipe::new(12, "ab01XY-_", None);
        assert_eq!(recipe, Err(BadRecipe::Guessable));
        let recipe = Recipe::new(24, "ab01XY-_", None).unwrap();
        for _ in 0..200 {
            let value = recipe.draw(&mut SystemEntropy).unwrap();
            value.expose(|value| {
                assert_eq!((value.len(), classes(value)), (24, 15));
                assert!(value.iter().all(|letter| b"ab01XY-_".contains(letter)));
            });
        }
    }

    /// Gives out the numbers from 0 on, again and again.
    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
            for byte in dest {
                *byte = self.0;
                self.0 = self.0.wrapping_add(1);
            }
            Ok(())
        }
    }

    #[test]
    fn no_letter_is_likelier_than_another() {
        let mut counts = [0_u32; 10];
        let mut entropy = Counting(0);
        for _ in 0..2_500 {
            counts[usize::from(one_of(b"0123456789", &mut entropy).unwrap() - b'0')] += 1;
        }
        assert_eq!(counts, [250; 10]);
    }

    #[test]
    fn what_can_be_guessed_or_is_no_alphabet_is_refused() {
        for (length, alphabet, expected) in [
            (7, Recipe::ALPHANUMERIC, BadRecipe::Length),
            (1_025, Recipe::ALPHANUMERIC, BadRecipe::Length),
            (32, "a", BadRecipe::Alphabet),
            (32, "aa", BadRecipe::Alphabet),
            (32, "a b", BadRecipe::Alphabet),
            (32, "a\u{e9}", BadRecipe::Alphabet),
            (12, Recipe::ALPHANUMERIC, BadRecipe::Guessable),
            (63, "ab", BadRecipe::Guessable),
        ] {
            assert_eq!(Recipe::new(length, alphabet, None), Err(expected), "{length} {alphabet}");
        }
        assert_eq!(Recipe::new(32, "ab", Some("")), Err(BadRecipe::Guessable));
        assert_eq!(Recipe::new(64, "ab", Some("")), Err(BadRecipe::Field));
        assert!(Recipe::new(64, "ab", Some("password")).is_ok());
    }

    #[test]
    fn the_account_on_standby_is_the_one_that_is_not_in_use() {
        let pair = ["a".to_owned(), "b".to_owned()];
        let accounts = Accounts { database: Name::parse("shop").unwrap(), pair };
        for (current, standby) in
            [(Some(&b"a"[..]), "b"), (Some(b"b"), "a"), (Some(b"c"), "a"), (None, "a")]
        {
            assert_eq!(accounts.standby(current), standby);
        }
    }

    #[test]
    fn a_window_opens_at_its_time_and_closes_after_its_length() {
        // 2027-01-15T08:00:00Z.
        let (begins, hour) = (1_800_000_000, 3_600);
        let cron = Cron::parse("0 8 * * *").unwrap();
        let schedule = Schedule::At { cron: cron.clone(), window_secs: 3_600 };
        for (at, open) in
            [(begins - 1, false), (begins, true), (begins + hour, true), (begins + hour + 1, false)]
        {
            assert_eq!(schedule.is_open(Timestamp(at)), open, "{at}");
        }
        let from = clock(begins - hour);
        assert_eq!(schedule.next(&from, 0), Some(Elapsed(1_000 + hour)));
        let latest = schedule.next(&from, u32::MAX).unwrap();
        assert_eq!(latest, Elapsed(1_000 + 2 * hour - 1));
        let without = Schedule::At { cron, window_secs: 0 };
        assert!(without.is_open(Timestamp(begins + 5 * hour)));
        for (at, open) in [(begins - 6, true), (begins - 1, false), (begins, true)] {
            assert_eq!(without.is_open(Timestamp(at)), open, "{at}");
        }
    }
}
