//! One event as the bytes that the log keeps, and those bytes read again.
//!
//! Room      `core`. Written for every operation, so by hand.
//! Source    docs/formats/audit-log.md; RFC 8785 (JSON with one spelling).
//! Holds     the same event and salt are the same bytes; a record that is read was in that one
//!           spelling.

use core::net::IpAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::Event;
use super::tile::MAX_RECORD_LEN;

/// Version of the record format.
pub const RECORD_VERSION: u64 = 1;
/// Random bytes that keep a record from being guessed from its hash.
pub const SALT_LEN: usize = 32;
/// Most bytes of a text in a record; what is longer is cut, and ends in an ellipsis.
const MAX_TEXT_LEN: usize = 4_096;

/// Appends the record of an event.
pub fn write_record(out: &mut Vec<u8>, event: &Event<'_>, salt: &[u8; SALT_LEN]) {
    let mut object = Object::begin(out);
    object.word("action", event.action);
    object.number("at", event.at.0);
    if let Some(hash) = &event.context_hash {
        object.hex("context_sha256", hash);
    }
    if let Some(address) = event.source.address {
        object.address("from", address);
    }
    if let Some(key) = event.key {
        object.uuid("key", key.as_bytes());
    }
    object.word("phase", event.phase.as_str());
    if let Some(pod) = event.who.pod_uid() {
        object.text("pod", pod);
    }
    if !event.reason.is_empty() {
        object.text("reason", event.reason);
    }
    object.hex("request", &event.request.0);
    object.word("result", event.result);
    let session = event.who.session();
    if let Some(role) = event.who.role() {
        object.text("role", role);
    }
    object.hex("salt", salt);
    if let Some(session) = session {
        object.hex("session", &session.id.0);
    }
    if let Some(target) = event.target {
        object.text("target", target);
    }
    if let Some(token) = session.and_then(|session| session.token_id.as_deref()) {
        object.text("token", token);
    }
    object.number("v", RECORD_VERSION);
    if let Some(version) = event.version {
        object.number("version", version.number().into());
    }
    object.text("who", event.who.name());
    object.end();
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// The name before, to see that names rise (RFC 8785, 3.2.3).
    last: &'static str,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: "" }
    }

    fn name(&mut self, name: &'static str) {
        debug_assert!(self.last < name, "{name} stands in the wrong place");
        self.out.extend_from_slice(if self.last.is_empty() { b"{\"" } else { b",\"" });
        self.last = name;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A text of the code's own that needs no escapes.
    fn word(&mut self, name: &'static str, word: &'static str) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(word.as_bytes());
        self.out.push(b'"');
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        write_text(self.out, text);
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        write_number(self.out, number);
    }

    fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        write_hex(self.out, bytes);
        self.out.push(b'"');
    }

    /// A UUID with its hyphens (RFC 9562, section 4).
    fn uuid(&mut self, name: &'static str, bytes: &[u8; 16]) {
        self.name(name);
        self.out.push(b'"');
        let mut buffer = Uuid::encode_buffer();
        let text = Hyphenated::from_uuid(Uuid::from_bytes(*bytes)).encode_lower(&mut buffer);
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// As `Display` writes it; the usual kind without a heap.
    fn address(&mut self, name: &'static str, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.text(name, &address.to_string()) };
        self.name(name);
        for (separator, octet) in [b'"', b'.', b'.', b'.'].into_iter().zip(address.octets()) {
            self.out.push(separator);
            write_number(self.out, octet.into());
        }
        self.out.push(b'"');
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for bytes in bytes.chunks(SALT_LEN) {
        let mut text = [0; 2 * SALT_LEN];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        out.extend_from_slice(text.get(..2 * bytes.len()).unwrap_or_default());
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    let start = out.len();
    let mut rest = number;
    loop {
        // The remainder is one digit.
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// Appends a JSON string as RFC 8785, 3.2.2.2 spells it.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let (text, rest) = text.split_at(text.floor_char_boundary(MAX_TEXT_LEN));
    out.push(b'"');
    // What needs no escape, which is the rule, is copied at once.
    for piece in text.as_bytes().split_inclusive(needs_escape) {
        match piece.split_last() {
            Some((last, plain)) if needs_escape(last) => {
                out.extend_from_slice(plain);
                write_escaped(out, *last);
            }
            Some(_) | None => out.extend_from_slice(piece),
        }
    }
    out.extend_from_slice(if rest.is_empty() { "\"" } else { "\u{2026}\"" }.as_bytes());
}

const fn needs_escape(byte: &u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\')
}

fn write_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        8 => out.extend_from_slice(br"\b"),
        b'\t' => out.extend_from_slice(br"\t"),
        b'\n' => out.extend_from_slice(br"\n"),
        12 => out.extend_from_slice(br"\f"),
        b'\r' => out.extend_from_slice(br"\r"),
        0..=0x1f => {
            out.extend_from_slice(br"\u00");
            write_hex(out, &[byte]);
        }
        _ => out.extend_from_slice(&[b'\\', byte]),
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
    /// Texts.
    List(Vec<String>),
}

/// A record as it was read. Fields that this version does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Record(BTreeMap<String, Field>);

/// The bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a record of the audit log")]
pub struct BadRecord;

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BadRecord`] when the bytes are too long, are not an object of numbers, flags, texts and
    /// lists of texts, or are not in the one spelling of RFC 8785.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadRecord> {
        if bytes.len() > MAX_RECORD_LEN {
            return Err(BadRecord);
        }
        let fields = serde_json::from_slice(bytes).map_err(|_| BadRecord)?;
        let record = Self(fields);
        if record.to_json() == bytes { Ok(record) } else { Err(BadRecord) }
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Field::Text(text) => Some(text),
            Field::Number(_) | Field::Flag(_) | Field::List(_) => None,
        }
    }

    /// A number field.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Field::Number(number) => Some(*number),
            Field::Text(_) | Field::Flag(_) | Field::List(_) => None,
        }
    }

    /// All fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.0.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// The record in its one spelling.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Writing numbers, flags and texts to memory cannot fail.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::Phase;
    use crate::ids::{KeyId, RequestId, VersionNo};
    use crate::principal::{Principal, Source};
    use crate::time::Timestamp;

    fn written(who: &Principal, reason: &'static str) -> Vec<u8> {
        let event = Event {
            at: Timestamp(1_000_000_005),
            request: RequestId([0xab; 16]),
            who,
            action: "kms:Decrypt",
            phase: Phase::Whole,
            key: Some(KeyId::from_random([0; 16])),
            version: VersionNo::new(2),
            context_hash: Some([0xcd; 32]),
            result: "Undecryptable",
            reason,
            source: Source { address: Some(Ipv4Addr::LOCALHOST.into()), by_node_agent: false },
            target: Some("role/shop"),
        };
        let mut out = Vec::new();
        write_record(&mut out, &event, &[0x5a; 32]);
        out
    }

    #[test]
    fn a_record_has_what_is_known_in_one_spelling() {
        let expected = format!(
            concat!(
                r#"{{"action":"kms:Decrypt","at":1000000005,"context_sha256":"{}","#,
                r#""from":"127.0.0.1","key":"00000000-0000-4000-8000-000000000000","#,
                r#""phase":"whole","#,
                r#""reason":"changed","request":"{}","result":"Undecryptable","salt":"{}","#,
                r#""target":"role/shop","v":1,"version":2,"who":"a\"b\\c\nd"}}"#,
            ),
            "cd".repeat(32),
            "ab".repeat(16),
            "5a".repeat(32)
        );
        let who = Principal::named("a\"b\\c\nd");
        assert_eq!(String::from_utf8(written(&who, "changed")).unwrap(), expected);
    }

    #[test]
    fn an_address_is_spelled_as_addresses_are() {
        for address in ["0.0.0.0", "10.2.30.255", "::1", "2001:db8::10.2.30.255"] {
            let address: IpAddr = address.parse().unwrap();
            let mut out = Vec::new();
            Object::begin(&mut out).address("from", address);
            assert_eq!(out, format!("{{\"from\":\"{address}\"").into_bytes());
        }
    }

    #[test]
    fn a_record_in_another_spelling_is_none() {
        assert!(Record::parse(br#"{"a":1,"b":["x"],"c":true}"#).is_ok());
        for bad in [
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a": 1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":-1}"#,
            r#"{"a":null}"#,
            r#"{"a":{}}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":1} "#,
            r#"["a"]"#,
            "",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), Err(BadRecord), "{bad}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let who = Principal::named(&"é".repeat(MAX_TEXT_LEN));
        let record = Record::parse(&written(&who, "")).unwrap();
        let name = record.text("who").unwrap();
        assert!(name.len() < MAX_TEXT_LEN + 4 && name.ends_with("é\u{2026}"));
    }

    proptest! {
        #[test]
        fn whatever_the_principal_is_called_the_record_reads_back(name: String) {
            let record = Record::parse(&written(&Principal::named(&name), "")).unwrap();
            if name.len() <= MAX_TEXT_LEN {
                prop_assert_eq!(record.text("who"), Some(name.as_str()));
            }
            prop_assert_eq!(record.number("at"), Some(1_000_000_005));
        }

        #[test]
        fn no_bytes_make_the_reader_fail(bytes: Vec<u8>) {
            let _ = Record::parse(&bytes);
        }

        #[test]
        fn numbers_are_written_in_decimal(number: u64) {
            let mut out = Vec::new();
            write_number(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
