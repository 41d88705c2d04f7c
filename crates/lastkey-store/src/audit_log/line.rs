//! One event as one line of JSON.
//!
//! Room      `store`. Written for every operation, so by hand and not by `core::fmt`.
//! Source    docs/formats/audit-log.md.

use lastkey_core::audit::Event;

/// Appends an event. Names of actions, results and phases are constants of the code; the name of
/// the principal is the one text that may need escapes.
pub(super) fn write_line(out: &mut Vec<u8>, event: &Event<'_>) {
    out.extend_from_slice(br#"{"at":"#);
    write_number(out, event.at.0);
    out.extend_from_slice(br#","request":""#);
    write_hex(out, &event.request.0);
    out.extend_from_slice(br#"","who":"#);
    write_text(out, event.who.name());
    write_word(out, r#","action":""#, event.action);
    write_word(out, r#","phase":""#, event.phase.as_str());
    if let Some(key) = event.key {
        out.extend_from_slice(br#","key":""#);
        write_uuid(out, key.as_bytes());
        out.push(b'"');
    }
    if let Some(version) = event.version {
        out.extend_from_slice(br#","version":"#);
        write_number(out, version.number().into());
    }
    if let Some(hash) = &event.context_hash {
        out.extend_from_slice(br#","context_sha256":""#);
        write_hex(out, hash);
        out.push(b'"');
    }
    write_word(out, r#","result":""#, event.result);
    if !event.reason.is_empty() {
        out.extend_from_slice(br#","reason":"#);
        write_text(out, event.reason);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a word that needs no escapes, and the quote that ends it.
fn write_word(out: &mut Vec<u8>, before: &str, word: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

/// Appends a UUID with its hyphens (RFC 9562, section 4).
fn write_uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write_hex(out, std::slice::from_ref(byte));
    }
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

/// Appends a JSON string (RFC 8259, section 7).
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                out.extend_from_slice(br"\u00");
                write_hex(out, &[byte]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::Phase;
    use lastkey_core::ids::{KeyId, RequestId, VersionNo};
    use lastkey_core::principal::{Principal, Source};
    use lastkey_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_line_has_what_is_known_and_escapes_what_must_be() {
        let mut out = Vec::new();
        write_line(
            &mut out,
            &Event {
                at: Timestamp(1_000_000_005),
                request: RequestId([0xab; 16]),
                who: &Principal::named("a\"b\\c\nd"),
                action: "kms:Decrypt",
                phase: Phase::Whole,
                key: Some(KeyId::from_random([0; 16])),
                version: VersionNo::new(2),
                context_hash: Some([0xcd; 32]),
                result: "Undecryptable",
                reason: "changed",
                source: Source::default(),
                target: None,
            },
        );
        let line = format!(
            concat!(
                r#"{{"at":1000000005,"request":"{}","who":"a\"b\\c\u000ad","action":"kms:Decrypt","#,
                r#""phase":"whole","key":"00000000-0000-4000-8000-000000000000","version":2,"#,
                r#""context_sha256":"{}","result":"Undecryptable","reason":"changed"}}"#,
                "\n"
            ),
            "ab".repeat(16),
            "cd".repeat(32)
        );
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_764_000_000, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
