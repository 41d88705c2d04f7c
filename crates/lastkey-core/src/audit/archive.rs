//! What is asked of an audit log that keeps its records, and what it answers.
//!
//! Room      `core`. The port is [`crate::ports::AuditArchive`].

use super::merkle::Hash;
use super::note::{NoteKey, NoteSigner};
use super::record::{Field, Record};

/// The keys that a log signs with.
#[derive(Debug)]
pub struct LogSigners {
    /// Signs checkpoints; its name is the log's origin.
    pub log: NoteSigner,
    /// Cosigns the checkpoints of other logs.
    pub witness: NoteSigner,
}

/// Whose log it is, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Records that are durable.
    pub durable: u64,
    /// Records that the newest checkpoint covers.
    pub signed: u64,
    /// Number of the oldest record that is kept.
    pub first: u64,
    /// The key that signs checkpoints, once the server was unsealed.
    pub log_key: Option<NoteKey>,
    /// The key that cosigns those of others.
    pub witness_key: Option<NoteKey>,
    /// Whether records are taken; the reason if not.
    pub refusing: Option<String>,
    /// Free bytes of the disk under the log, where that is known.
    pub free_bytes: Option<u64>,
    /// Whether space is getting short.
    pub is_alarming: bool,
    /// Whether the disk has not taken tiles, which are written again from the segments; those stay
    /// until then.
    pub has_unsynced_tiles: bool,
}

/// Where a log stood once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Records that it had.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// A search. What is `None` matches every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Records from this number on; before it when `newest_first`.
    pub from: Option<u64>,
    /// Most records that are answered, 1 to 1,000.
    pub limit: usize,
    /// From the newest to the oldest.
    pub newest_first: bool,
    /// Only records that match.
    pub filter: Filter,
}

/// Which records are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Id of the key.
    pub key: Option<String>,
    /// Name of the principal; with a `*` at its end, how it begins.
    pub who: Option<String>,
    /// The action; with a `*` at its end, how it begins.
    pub action: Option<String>,
    /// How it ended.
    pub result: Option<String>,
    /// Identity of the request.
    pub request: Option<String>,
    /// Not before this second since 1970.
    pub since: Option<u64>,
    /// Before this second since 1970.
    pub until: Option<u64>,
}

impl Filter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let text = |name, wanted: &Option<String>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| record.text(name).is_some_and(|is| fits(is, wanted)))
        };
        let at = record.number("at");
        text("key", &self.key)
            && text("who", &self.who)
            && text("action", &self.action)
            && text("result", &self.result)
            && text("request", &self.request)
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }

    /// Bytes that stand in every record that matches, so that others need not be read as JSON.
    #[must_use]
    pub fn needle(&self) -> Option<Vec<u8>> {
        let texts = [("request", &self.request), ("key", &self.key), ("who", &self.who)];
        let exact = |(name, text): (&str, &Option<String>)| {
            let text = text.as_deref().filter(|text| !text.ends_with('*'))?;
            let value = serde_json::to_string(&Field::Text(text.to_owned())).ok()?;
            Some(format!("\"{name}\":{value}").into_bytes())
        };
        texts.into_iter().find_map(exact)
    }
}

fn fits(is: &str, wanted: &str) -> bool {
    wanted.strip_suffix('*').map_or(is == wanted, |start| is.starts_with(start))
}

/// A record and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 0.
    pub index: u64,
    /// The record.
    pub record: Record,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The records.
    pub entries: Vec<Entry>,
    /// Where to go on; `None` when everything there is was looked at.
    pub next: Option<u64>,
    /// Records in the log that can be read by now; to wait for more, go on from here.
    pub end: u64,
}

/// Who witnesses this log, and which logs it witnesses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witnesses {
    /// Those who cosign this log's checkpoints.
    pub ours: Vec<Witness>,
    /// Keys of the logs whose checkpoints are cosigned here.
    pub theirs: Vec<NoteKey>,
}

/// One who cosigns checkpoints of this log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its key.
    pub key: NoteKey,
    /// Where `add-checkpoint` is found.
    pub url: String,
    /// SHA-256 fingerprint (`sha256:...`) of its certificate authority, where that is no public
    /// one.
    pub ca_fingerprint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_filter_takes_what_matches_in_every_part() {
        let record = record(r#"{"action":"kms:Encrypt","at":100,"key":"k1","who":"sa:prod/x"}"#);
        let all = Filter {
            key: Some("k1".into()),
            who: Some("sa:prod/*".into()),
            action: Some("kms:*".into()),
            since: Some(100),
            until: Some(101),
            ..Filter::default()
        };
        assert!(all.matches(&record) && Filter::default().matches(&record));
        for other in [
            Filter { key: Some("k".into()), ..all.clone() },
            Filter { who: Some("sa:prod".into()), ..all.clone() },
            Filter { action: Some("sys:*".into()), ..all.clone() },
            Filter { request: Some("r".into()), ..all.clone() },
            Filter { since: Some(101), ..all.clone() },
            Filter { until: Some(100), ..all.clone() },
        ] {
            assert!(!other.matches(&record), "{other:?}");
        }
    }

    #[test]
    fn the_needle_stands_in_every_record_that_matches() {
        let text = r#"{"key":"k1","who":"a\"b"}"#;
        for filter in [
            Filter { key: Some("k1".into()), ..Filter::default() },
            Filter { who: Some("a\"b".into()), ..Filter::default() },
        ] {
            assert!(filter.matches(&record(text)));
            let needle = String::from_utf8(filter.needle().unwrap()).unwrap();
            assert!(text.contains(&needle), "{needle}");
        }
        assert_eq!(Filter { who: Some("a*".into()), ..Filter::default() }.needle(), None);
    }
}
