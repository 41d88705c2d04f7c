//! `inspect`: what the header of an encrypted file says.
//!
//! Room      `lastkey`. Needs no key and no server, and checks nothing.

use std::path::PathBuf;

use clap::Args;
use lastkey_client::key_id_text;
use lastkey_crypto::{
    envelope::{Header, Layout, Recipient, RecipientName},
    stream,
};
use serde_json::{Value, json};

use crate::cli::{
    args::Format,
    failure::Failure,
    input::Source,
    output,
    session::Session,
    table::{Fields, Show},
};

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Encrypted file (default: standard input)
    file: Option<PathBuf>,
}

/// Shows what the header of a file says, without any key.
pub(crate) fn inspect(args: &InspectArgs, session: &Session) -> Result<(), Failure> {
    let mut source = Source::open(args.file.as_deref())?;
    let header = stream::read_header(&mut source.file)?;
    match session.format() {
        Format::Json => session.show_json(&header_json(&header, source.len)),
        Format::Table => output::print(&header_table(&header, source.len)),
    }
}

/// Bytes of plaintext by the length of the file, when that is known and possible.
fn plaintext_len(header: &Header, envelope_len: Option<u64>) -> Option<u64> {
    let layout = Layout::of_envelope(header.len(), header.segment_len(), envelope_len?);
    layout.ok().map(|layout| layout.plaintext_len())
}

fn header_table(header: &Header, envelope_len: Option<u64>) -> String {
    let mut fields = Fields::new()
        .with("Format", format!("Lastkey envelope 1, {}", header.suite().name()))
        .with("Segment", format!("{} bytes", header.segment_len()))
        .with("Header", format!("{} bytes, slots of {}", header.len(), header.slot_len()))
        .with("Header written", format!("{} times", header.sequence()));
    if let Some(len) = plaintext_len(header, envelope_len) {
        fields = fields.with("Plaintext", format!("{len} bytes"));
    }
    if let Some(raw) = header.context().raw() {
        fields = fields.with_base64("Context, bytes", raw);
    }
    for (name, value) in header.context().pairs() {
        fields = fields.with("Context", format!("{name}={value}"));
    }
    for recipient in header.recipients() {
        fields = fields.with("Recipient", recipient_text(recipient));
    }
    fields.with("Authentic", "not checked: that takes `lastkey verify`").table()
}

/// One recipient in words.
pub(super) fn recipient_text(recipient: &Recipient) -> String {
    match recipient.name() {
        RecipientName::Lastkey { key_id, version } => {
            format!("Lastkey key {}, version {version}", key_id_text(&key_id))
        }
        RecipientName::Age(key) => format!("age key {key}"),
        RecipientName::Passphrase(cost) => format!(
            "passphrase, Argon2id with {} MiB, {} passes, {} lanes",
            cost.memory_kib() / 1_024,
            cost.passes(),
            cost.lanes()
        ),
        RecipientName::Unknown => {
            format!("type {}, {} bytes", recipient.kind, recipient.body.len())
        }
    }
}

fn header_json(header: &Header, envelope_len: Option<u64>) -> Value {
    let context: serde_json::Map<String, Value> = header
        .context()
        .pairs()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    let raw = header.context().raw().map(|raw| lastkey_wire::Base64Bytes(raw.to_vec()));
    let recipients: Vec<Value> = header.recipients().iter().map(recipient_json).collect();
    json!({
        "format": 1,
        "suite": header.suite().name(),
        "segment_bytes": header.segment_len(),
        "header_bytes": header.len(),
        "slot_bytes": header.slot_len(),
        "plaintext_bytes": plaintext_len(header, envelope_len),
        "sequence": header.sequence(),
        "context": context,
        "context_raw": raw,
        "recipients": recipients,
    })
}

/// One recipient for programs.
pub(super) fn recipient_json(recipient: &Recipient) -> Value {
    let (kind, bytes) = (recipient.kind, recipient.body.len());
    match recipient.name() {
        RecipientName::Lastkey { key_id, version } => json!({
            "type": kind, "bytes": bytes, "key": key_id_text(&key_id), "version": version,
        }),
        RecipientName::Age(key) => {
            json!({ "type": kind, "bytes": bytes, "recipient": key.to_string() })
        }
        RecipientName::Passphrase(cost) => json!({
            "type": kind, "bytes": bytes, "argon2id": {
                "memory_kib": cost.memory_kib(),
                "passes": cost.passes(),
                "lanes": cost.lanes(),
            },
        }),
        RecipientName::Unknown => json!({ "type": kind, "bytes": bytes }),
    }
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::{
        context::EncryptionContext,
        entropy::SystemEntropy,
        envelope::{self, EnvelopeOptions, Header, Recipient},
    };
    use lastkey_secret::SecretArray;

    use super::{header_json, header_table};

    fn header() -> Header {
        let options = EnvelopeOptions {
            context: EncryptionContext::from_pairs([("app", "web\u{1b}")]).unwrap(),
            ..EnvelopeOptions::default()
        };
        let recipients = [Recipient { kind: 9, body: vec![1, 2, 3] }];
        let data_key = SecretArray::copy_of(&[7; 32]);
        let (bytes, _) =
            envelope::build(&options, &data_key, &recipients, &mut SystemEntropy).unwrap();
        Header::parse(&bytes).unwrap()
    }

    #[test]
    fn header_table_shows_context_and_recipients_of_unknown_type() {
        let table = header_table(&header(), Some(2_560 + 16 + 5));
        assert!(table.contains("app=web\\u{1b}"), "{table}");
        assert!(table.contains("type 9, 3 bytes"), "{table}");
        assert!(table.contains("5 bytes"), "{table}");
    }

    #[test]
    fn header_json_has_the_context_as_it_is() {
        let json = header_json(&header(), None);
        assert_eq!(json["context"]["app"], "web\u{1b}");
        assert_eq!(json["recipients"][0]["type"], 9);
        assert_eq!(json["sequence"], 1);
    }
}
