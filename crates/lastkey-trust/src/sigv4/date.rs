//! Dates of Signature Version 4: `20150830T123600Z`.
//!
//! Room      `trust`, inside.
//! Source    ISO 8601, basic form; days by H. Hinnant, "chrono-compatible low-level date
//!           algorithms".

use lastkey_core::time::Timestamp;

const DAY: u64 = 86_400;

/// The text of a moment, for `x-amz-date`.
#[must_use]
pub fn format_date(at: Timestamp) -> String {
    let (days, seconds) = (at.0 / DAY, at.0 % DAY);
    // Days since 0000-03-01, so that the odd day of leap years comes last.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The moment of a text; `None` for anything that [`format_date`] would not write.
pub(super) fn parse_date(text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let (date, time) = digits.split_once('T')?;
    if date.len() != 8
        || time.len() != 6
        || !date.bytes().chain(time.bytes()).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let number = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(date, 0, 4)?, number(date, 4, 6)?, number(date, 6, 8)?);
    let (hour, minute, second) = (number(time, 0, 2)?, number(time, 2, 4)?, number(time, 4, 6)?);
    let shifted_year = year.checked_sub(u64::from(month <= 2))?;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = (era * 146_097 + of_era).checked_sub(719_468)?;
    let at = Timestamp(days * DAY + hour * 3_600 + minute * 60 + second);
    // What is out of range was carried over and comes back as another text.
    (format_date(at) == text).then_some(at)
}

#[cfg(test)]
mod tests {
    use lastkey_core::time::Timestamp;

    use super::{format_date, parse_date};

    #[test]
    fn date_goes_both_ways() {
        for (text, seconds) in [
            ("19700101T000000Z", 0),
            ("20150830T123600Z", 1_440_938_160),
            ("20000229T235959Z", 951_868_799),
            ("20240229T000000Z", 1_709_164_800),
            ("21000301T000000Z", 4_107_542_400),
        ] {
            assert_eq!(parse_date(text), Some(Timestamp(seconds)), "{text}");
            assert_eq!(format_date(Timestamp(seconds)), text);
        }
    }

    #[test]
    fn date_refuses_what_is_no_moment() {
        for bad in [
            "",
            "20150830T123600",
            "20150830123600Z",
            "2015-08-30T12:36:00Z",
            "20150229T000000Z",
            "20151301T000000Z",
            "20150001T000000Z",
            "20150100T000000Z",
            "20150830T240000Z",
            "20150830T126000Z",
            "20150830T120060Z",
            "+2150830T123600Z",
            "19691231T235959Z",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
