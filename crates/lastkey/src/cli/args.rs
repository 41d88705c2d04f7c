//! Flags that many commands share, and how their values are read.
//!
//! Room      `lastkey`. What was typed; nothing here opens a file or asks a server.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use lastkey_crypto::context::{ContextError, EncryptionContext};
use lastkey_wire::StringMap;

/// How to reach the server. Secrets come by environment or file, never as an argument.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Server: https://host:port, http://host:port or unix:///path [env: LASTKEY_ADDR]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) addr: Option<String>,
    /// File with the token, in place of the variable LASTKEY_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the CA of the server's certificate [env: LASTKEY_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// SHA-256 of that CA certificate, as `lastkey init` printed it [env: LASTKEY_CA_FINGERPRINT]
    #[arg(long, global = true, value_name = "sha256:HEX", conflicts_with = "ca")]
    pub(crate) ca_fingerprint: Option<String>,
    /// PEM file with a client certificate and its key, as `lastkey node join` wrote it
    /// [env: LASTKEY_IDENTITY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

/// What `--output` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// SARIF 2.1.0, of findings
    Sarif,
    /// JUnit XML, of findings
    Junit,
    /// One HTML page, of findings
    Html,
}

impl OutputForm {
    /// The format of a command whose output is no report of findings; none when that has no
    /// such form.
    pub(crate) const fn plain(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Sarif | Self::Junit | Self::Html => None,
        }
    }
}

/// For whom to print: people, or programs (the JSON of the API).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// How bytes are written: padded standard base64 or lower-case hex, each with a newline, or
/// as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Base64,
    Hex,
    Raw,
}

/// `--context`, as often as needed.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ContextArgs {
    /// Encryption context: a name and value that decryption must repeat (repeatable)
    #[arg(long = "context", value_name = "NAME=VALUE")]
    pub(crate) context: Vec<Pair>,
}

impl ContextArgs {
    /// The context as the local formats know it.
    pub(crate) fn encryption_context(&self) -> Result<EncryptionContext, ContextError> {
        EncryptionContext::from_pairs(self.context.iter().map(|pair| (&pair.name, &pair.value)))
    }

    /// The context as requests carry it.
    pub(crate) fn wire(&self) -> Result<Option<StringMap>, ContextError> {
        wire_map(&self.context)
    }
}

/// Pairs as a map of the wire; `None` when there are none.
pub(crate) fn wire_map(pairs: &[Pair]) -> Result<Option<StringMap>, ContextError> {
    // The check for names that stand twice and for the length is the format's own.
    EncryptionContext::from_pairs(pairs.iter().map(|pair| (&pair.name, &pair.value)))?;
    let map: StringMap = pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    Ok((!map.0.is_empty()).then_some(map))
}

/// `--dry-run`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct DryRunArgs {
    /// Only ask the server whether it would do this
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where bytes go.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OutArgs {
    /// Write to this file (`-`: standard output, the default); it appears whole or not at all
    #[arg(short = 'o', long = "out", value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Pair {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err(BadValue("expected NAME=VALUE")),
        }
    }
}

/// A span of time such as `90d`, `12h`, `45m` or `3600` (seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// In seconds.
    pub(crate) seconds: u64,
}

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = BadValue("expected a number and s, m, h, d or y, such as 90d");
        let (number, unit) = match text.find(|letter: char| !letter.is_ascii_digit()) {
            Some(at) => text.split_at(at),
            None => (text, "s"),
        };
        let unit_seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "y" => 365 * 86_400,
            _ => return Err(bad),
        };
        let number: u64 = number.parse().map_err(|_| bad)?;
        number.checked_mul(unit_seconds).map(|seconds| Self { seconds }).ok_or(bad)
    }
}

/// Why a value on the command line is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadValue(pub(super) &'static str);

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadValue {}

/// A parser for one of the closed lists of the wire; help and completions show the words.
pub(crate) fn one_of<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word: String| word.parse::<T>())
}

/// Whether a path means standard input or output.
pub(crate) fn is_dash(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::{ContextArgs, Pair, Span};

    #[test]
    fn pair_splits_at_the_first_equals_sign() {
        let pair: Pair = "a=b=c".parse().unwrap();
        assert_eq!((pair.name.as_str(), pair.value.as_str()), ("a", "b=c"));
        assert_eq!("a=".parse::<Pair>().unwrap().value, "");
    }

    #[test]
    fn pair_rejects_a_missing_name() {
        assert!("=b".parse::<Pair>().is_err());
        assert!("ab".parse::<Pair>().is_err());
    }

    #[test]
    fn span_reads_each_unit() {
        for (text, seconds) in [
            ("3600", 3_600),
            ("3600s", 3_600),
            ("90m", 5_400),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("10y", 315_360_000),
        ] {
            assert_eq!(text.parse::<Span>().map(|span| span.seconds), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn span_rejects_what_is_no_time() {
        for text in ["", "d", "-1d", "1w", "1.5h", "1 d", "99999999999999999999d", "1dd"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn context_rejects_a_name_that_stands_twice() {
        let pair = |text: &str| text.parse::<Pair>().unwrap();
        let twice = ContextArgs { context: vec![pair("a=1"), pair("a=2")] };
        assert!(twice.wire().is_err());
        assert!(twice.encryption_context().is_err());
        assert_eq!(ContextArgs::default().wire(), Ok(None));
    }
}
