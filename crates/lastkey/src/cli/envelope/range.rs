//! Ranges of bytes of an encrypted file.
//!
//! Room      `lastkey`.
//! Source    RFC 9110, section 14.1.2: both ends belong to a range, and an end behind the data
//!           is the end of the data.

use std::{io::Write, num::NonZeroUsize, ops::Range, str::FromStr, sync::Arc};

use lastkey_client::{ProtectedKey, file::SharedFile};
use lastkey_crypto::{
    envelope::{Header, Layout},
    stream,
};

use super::keys::failed;
use crate::cli::{args::BadValue, failure::Failure, input::Source, progress::Progress};

/// What was asked for, before the length of the data is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// From the first byte to the last one, or to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

impl FromStr for ByteRange {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = BadValue("expected A-B, A- or -N, the first byte is 0");
        let number = |digits: &str| {
            let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|_| is_number).ok_or(bad)
        };
        match text.split_once('-').ok_or(bad)? {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(|first| Self::From(first, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last))).ok_or(bad)
            }
        }
    }
}

impl ByteRange {
    /// The bytes of data of this length; empty when it begins behind them.
    fn of(self, len: u64) -> Range<u64> {
        match self {
            Self::From(first, last) => {
                let end = last.map_or(len, |last| last.saturating_add(1)).min(len);
                first.min(end)..end
            }
            Self::Last(count) => len.saturating_sub(count)..len,
        }
    }
}

/// A file that is ready to be read.
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) key: Arc<ProtectedKey>,
    pub(super) source: Source,
    pub(super) progress: Progress,
}

impl Opened {
    /// Decrypts a range after the end of the envelope was verified.
    pub(super) fn decrypt(
        self,
        range: ByteRange,
        output: Option<&SharedFile>,
        writer: &mut dyn Write,
        threads: NonZeroUsize,
    ) -> Result<stream::StreamStats, Failure> {
        let Self { header, key, source, progress } = self;
        let Some(envelope_len) = source.len else {
            return Err(Failure::Usage("--range needs a file, not a pipe".to_owned()));
        };
        let layout = Layout::of_envelope(header.len(), header.segment_len(), envelope_len);
        let range = range.of(layout.map_err(failed)?.plaintext_len());
        let from = progress.counted(source.file);
        let plaintext_len = match output {
            Some(to) => stream::decrypt_range_at(
                &header,
                &key.data_key,
                &from,
                envelope_len,
                range,
                to,
                threads,
            ),
            None => {
                stream::decrypt_range(&header, &key.data_key, &from, envelope_len, range, writer)
            }
        }?;
        if plaintext_len == 0 {
            return Err(Failure::Input("the range begins behind the end of the data".to_owned()));
        }
        Ok(stream::StreamStats { plaintext_len, envelope_len })
    }
}

#[cfg(test)]
mod tests {
    use super::ByteRange;

    #[test]
    fn range_is_read_in_its_three_forms() {
        for (text, len, range) in [
            ("0-0", 10, 0..1),
            ("2-5", 10, 2..6),
            ("2-50", 10, 2..10),
            ("7-", 10, 7..10),
            ("-3", 10, 7..10),
            ("-30", 10, 0..10),
            ("0-18446744073709551615", 10, 0..10),
            ("12-20", 10, 10..10),
            ("-0", 10, 10..10),
        ] {
            assert_eq!(text.parse::<ByteRange>().unwrap().of(len), range, "{text}");
        }
    }

    #[test]
    fn range_that_makes_no_sense_is_refused() {
        for text in ["", "-", "5", "5-2", "a-b", "1-2-3", "+1-2", "1-+2", "18446744073709551616-"] {
            assert!(text.parse::<ByteRange>().is_err(), "{text}");
        }
    }
}
