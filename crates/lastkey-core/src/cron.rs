//! Times by the calendar: the five fields of cron, in UTC.
//!
//! Room      `core`.
//! Source    POSIX.1-2017, `crontab`: minute, hour, day of the month, month, day of the week; a day
//!           matches when either day field does, if both are restricted. Steps (`*/5`) as every
//!           cron has them. Days of the calendar: H. Hinnant, "chrono-Compatible Low-Level Date
//!           Algorithms", `civil_from_days`.
//! Holds     whatever was parsed comes again within 41 years.

use crate::time::Timestamp;

/// Longest text, in bytes.
const MAX_LEN: usize = 256;

/// A time that comes within this many days comes at all: the longest gap is that of February 29 on
/// one day of the week, over a century without a leap year.
const SEARCHED_DAYS: u64 = 41 * 366;

const DAY: u64 = 86_400;

/// Times by the calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either day field will do: both are restricted.
    either_day: bool,
}

/// Why a text is no times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected five fields in UTC, minute hour day month weekday, such as \"30 3 * * 1-5\", that \
     stand for a time that comes"
)]
pub struct BadCron;

impl Cron {
    /// Parses five fields: `*`, numbers, `a-b`, `*/n`, `a-b/n`, and lists of these. Weekdays are 0
    /// to 7, both ends Sunday.
    ///
    /// # Errors
    /// [`BadCron`], also for what never comes, such as February 30.
    pub fn parse(text: &str) -> Result<Self, BadCron> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else { return Err(BadCron) };
        if text.len() > MAX_LEN {
            return Err(BadCron);
        }
        let weekdays = bits(weekday, 0, 7)?;
        let cron = Self {
            text: fields.join(" "),
            minutes: bits(minute, 0, 59)?,
            hours: bits(hour, 0, 23)?,
            days: bits(day, 1, 31)?,
            months: bits(month, 1, 12)?,
            weekdays: weekdays | (weekdays >> 7 & 1),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        cron.next_after(Timestamp(0)).map(|_| cron).ok_or(BadCron)
    }

    /// The text, with single blanks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after a moment; `None` when none comes for years.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let first = now.0.checked_add(1)?;
        let (today, since) = (first / DAY, first % DAY);
        let last = today.checked_add(SEARCHED_DAYS)?;
        (today..last).filter(|day| self.has_day(*day)).find_map(|day| {
            let from = if day == today { since.div_ceil(60) } else { 0 };
            let minute = (from..1_440).find(|minute| self.has_minute(*minute))?;
            day.checked_mul(DAY)?.checked_add(minute.checked_mul(60)?).map(Timestamp)
        })
    }

    fn has_minute(&self, of_day: u64) -> bool {
        self.hours >> (of_day / 60) & 1 == 1 && self.minutes >> (of_day % 60) & 1 == 1
    }

    fn has_day(&self, since_epoch: u64) -> bool {
        let (month, day) = month_and_day(since_epoch);
        // The first day of all was a Thursday.
        let weekday = since_epoch.wrapping_add(4) % 7;
        let (by_day, by_week) = (self.days >> day & 1 == 1, self.weekdays >> weekday & 1 == 1);
        let hit = if self.either_day { by_day || by_week } else { by_day && by_week };
        self.months >> month & 1 == 1 && hit
    }
}

/// One field as a bit for each number.
fn bits(field: &str, low: u64, high: u64) -> Result<u64, BadCron> {
    field.split(',').try_fold(0, |all, part| Ok(all | range(part, low, high)?))
}

fn range(part: &str, low: u64, high: u64) -> Result<u64, BadCron> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, number(step, 1, high)?),
        None => (part, 1),
    };
    let (from, to) = match span.split_once('-') {
        _any if span == "*" => (low, high),
        Some((from, to)) => (number(from, low, high)?, number(to, low, high)?),
        None if part.contains('/') => return Err(BadCron),
        None => (number(span, low, high)?, number(span, low, high)?),
    };
    let step = usize::try_from(step).or(Err(BadCron))?;
    let all = (from..=to).step_by(step).fold(0, |all, one| all | 1 << one);
    if all == 0 { Err(BadCron) } else { Ok(all) }
}

fn number(text: &str, low: u64, high: u64) -> Result<u64, BadCron> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_plain);
    number.filter(|number| (low..=high).contains(number)).ok_or(BadCron)
}

/// Month (from 1) and day (from 1) of a day since 1970-01-01.
const fn month_and_day(since_epoch: u64) -> (u64, u64) {
    // Days since 0000-03-01, so that the leap day is the last one of its year.
    let days = since_epoch.saturating_add(719_468);
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    (if from_march < 10 { from_march + 3 } else { from_march - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z, a Friday.
    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn after(text: &str, now: Timestamp) -> u64 {
        Cron::parse(text).unwrap().next_after(now).unwrap().0 - now.0
    }

    #[test]
    fn the_next_time_is_the_first_one_after_now() {
        for (text, expected) in [
            ("* * * * *", 60),
            ("30 8 * * *", 1_800),
            ("0 8 * * *", DAY),
            ("*/20 * * * *", 1_200),
            ("5-10/5 9 * * *", 3_900),
            ("0 0 * * 1", 2 * DAY + 57_600),
            ("0 0 * * 7", DAY + 57_600),
            ("0 8 1 2 *", 17 * DAY),
            ("0 8 * * 1-5", 3 * DAY),
            // Either day: the 20th is a Wednesday, the next Sunday is the 17th.
            ("0 8 20 * 0", 2 * DAY),
            ("0 8 29 2 *", 410 * DAY),
        ] {
            assert_eq!(after(text, NOW), expected, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_has_its_month_and_number() {
        let mut expected = (1, 1);
        let mut year = 1970;
        for day in 0..146_097 {
            assert_eq!(month_and_day(day), expected, "{day}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let len = match expected.0 {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match expected {
                (12, 31) => {
                    year += 1;
                    (1, 1)
                }
                (month, day) if day == len => (month + 1, 1),
                (month, day) => (month, day + 1),
            };
        }
    }

    #[test]
    fn what_is_no_time_or_never_comes_is_refused() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5/2 * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1, * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "0 0 30 2 *",
            "0 0 31 4,6 *",
        ] {
            assert_eq!(Cron::parse(bad), Err(BadCron), "{bad:?}");
        }
        assert_eq!(Cron::parse(&"1,".repeat(200)), Err(BadCron));
        assert_eq!(Cron::parse(" 0   3 * * * ").unwrap().as_str(), "0 3 * * *");
    }
}
