//! One event as one line of JSON.
//!
//! Room      `store`.
//! Source    docs/formats/audit-log.md.

use std::io::Write as _;

use lastkey_core::audit::Event;

/// Appends an event. Names of actions, results and phases are constants of the code; the name of
/// the principal is the one text that may need escapes.
pub(super) fn write_line(out: &mut Vec<u8>, event: &Event<'_>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"{{"at":{},"request":"{}","who":"#, event.at.0, event.request);
    write_text(out, event.who.name());
    let _ = write!(out, r#","action":"{}","phase":"{}""#, event.action, event.phase.as_str());
    if let Some(key) = event.key {
        let _ = write!(out, r#","key":"{key}""#);
    }
    if let Some(version) = event.version {
        let _ = write!(out, r#","version":{version}"#);
    }
    if let Some(hash) = &event.context_hash {
        out.extend_from_slice(br#","context_sha256":""#);
        for byte in hash {
            let _ = write!(out, "{byte:02x}");
        }
        out.push(b'"');
    }
    let _ = write!(out, r#","result":"{}""#, event.result);
    if !event.reason.is_empty() {
        out.extend_from_slice(br#","reason":"#);
        write_text(out, event.reason);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a JSON string (RFC 8259, section 7).
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
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
    use lastkey_core::principal::Principal;
    use lastkey_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_line_has_what_is_known_and_escapes_what_must_be() {
        let mut out = Vec::new();
        write_line(
            &mut out,
            &Event {
                at: Timestamp(5),
                request: RequestId([0xab; 16]),
                who: &Principal::named("a\"b\\c\nd"),
                action: "kms:Decrypt",
                phase: Phase::Whole,
                key: Some(KeyId::from_random([0; 16])),
                version: VersionNo::new(2),
                context_hash: Some([0xcd; 32]),
                result: "Undecryptable",
                reason: "changed",
            },
        );
        let line = format!(
            concat!(
                r#"{{"at":5,"request":"{}","who":"a\"b\\c\u000ad","action":"kms:Decrypt","#,
                r#""phase":"whole","key":"00000000-0000-4000-8000-000000000000","version":2,"#,
                r#""context_sha256":"{}","result":"Undecryptable","reason":"changed"}}"#,
                "\n"
            ),
            "ab".repeat(16),
            "cd".repeat(32)
        );
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }
}
