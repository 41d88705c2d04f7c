//! The audit log: decode, one use case, encode.
//!
//! Room      `http`.
//! Source    C2SP tlog-tiles for what lies under `/v1/audit/tlog/`.

use std::time::Duration;

use lastkey_core::audit::archive::{Filter, Search, Witness, Witnesses};
use lastkey_core::audit::note::{KeyKind, NoteKey};
use lastkey_core::audit::record::{Field, Record};
use lastkey_core::audit::tile::TileName;
use lastkey_core::ids::RequestId;
use lastkey_service::ops::read_audit::RecordName;
use lastkey_service::ops::witness::WitnessChange;
use lastkey_wire::native::audit::{
    AddWitnessRequest, AuditCheckpointReply, AuditField, AuditQuery, AuditReceiptReply,
    AuditRecord, AuditRecordsReply, RemoveWitnessRequest, WitnessView, WitnessesReply,
};
use lastkey_wire::native::query::DryRunQuery;

use super::decode::{Ask, RequestBody, page_len, parse};
use super::nodes::{fingerprint, parse_fingerprint};
use super::query::{Query, switch};
use crate::answer::{Answer, Content};
use crate::problem::{Problem, Syntax};

impl Query for AuditQuery {
    const NAMES: &'static [&'static str] = &[
        "from",
        "limit",
        "newest_first",
        "key",
        "who",
        "action",
        "result",
        "request",
        "since",
        "until",
        "wait_seconds",
        "dry_run",
    ];

    fn take(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        let number = || value.parse().map_err(|_| "expected a whole number").map(Some);
        match name {
            "from" => self.from = number()?,
            "since" => self.since = number()?,
            "until" => self.until = number()?,
            "wait_seconds" => self.wait_seconds = number()?,
            "limit" => {
                self.limit = Some(value.parse().map_err(|_| "expected a number from 1 to 1000")?);
            }
            "newest_first" => self.newest_first = switch(&value)?,
            "key" => self.key = Some(value),
            "who" => self.who = Some(value),
            "action" => self.action = Some(value),
            "result" => self.result = Some(value),
            "request" => self.request = Some(value),
            _ => self.dry_run = switch(&value)?,
        }
        Ok(())
    }

    fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// `GET /v1/audit/records`
pub(super) async fn records(ask: &Ask, query: AuditQuery) -> Result<AuditRecordsReply, Problem> {
    let AuditQuery { from, newest_first, key, who, action, result, request, since, until, .. } =
        query;
    let filter = Filter { key, who, action, result, request, since, until };
    let search = Search { from, limit: page_len(query.limit)?, newest_first, filter };
    let wait = query.wait_seconds.map(Duration::from_secs);
    let found = ask.engine().search_audit(ask.call(), search, wait).await?;
    let view = |entry: &lastkey_core::audit::archive::Entry| AuditRecord {
        index: entry.index,
        record: fields(&entry.record),
    };
    let records = found.entries.iter().map(view).collect();
    Ok(AuditRecordsReply { records, next: found.next, end: found.end })
}

fn fields(record: &Record) -> std::collections::BTreeMap<String, AuditField> {
    let field = |field: &Field| match field {
        Field::Number(number) => AuditField::Number(*number),
        Field::Flag(flag) => AuditField::Flag(*flag),
        Field::Text(text) => AuditField::Text(text.clone()),
        Field::List(texts) => AuditField::List(texts.clone()),
    };
    record.fields().map(|(name, value)| (name.to_owned(), field(value))).collect()
}

/// `GET /v1/audit/records/{record}/receipt`
pub(super) async fn receipt(ask: &Ask, _: DryRunQuery) -> Result<AuditReceiptReply, Problem> {
    let name = parse("record", &ask.text("record")?, record_name)?;
    let proven = ask.engine().audit_receipt(ask.call(), name).await?;
    let proven = proven.ok_or(Problem::NotFound)?;
    Ok(AuditReceiptReply {
        index: proven.receipt.index,
        record: String::from_utf8_lossy(&proven.record).into_owned(),
        receipt: proven.receipt.to_string(),
    })
}

/// A number, or the identity of a request.
fn record_name(text: &str) -> Result<RecordName, &'static str> {
    let expected = "expected the number of a record, or a request id of 32 hexadecimal digits";
    if text.len() < 32 {
        return text.parse().map(RecordName::Index).map_err(|_| expected);
    }
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(expected)?;
    Ok(RecordName::Request(RequestId(number.to_be_bytes())))
}

/// `GET /v1/audit/checkpoint`
pub(super) async fn checkpoint(ask: &Ask, _: DryRunQuery) -> Result<AuditCheckpointReply, Problem> {
    let signed = ask.engine().audit_checkpoint(ask.call()).await?;
    let key = |key: Option<NoteKey>| key.map(|key| key.to_string()).unwrap_or_default();
    Ok(AuditCheckpointReply {
        checkpoint: signed.checkpoint,
        public_key: key(signed.state.log_key),
        witness_key: key(signed.state.witness_key),
        size: signed.state.signed,
        first: signed.state.first,
    })
}

/// `GET /v1/audit/tlog/{+file}`: the log as static files.
pub(super) async fn tlog(ask: &Ask) -> Result<Answer, Problem> {
    let file = ask.text("file")?;
    if file == "checkpoint" {
        let signed = ask.engine().audit_checkpoint(ask.call()).await?;
        return Ok(Answer { content: Content::Text, ..Answer::json(signed.checkpoint) });
    }
    let name = TileName::parse(&file).ok_or(Problem::NotFound)?;
    let tile = ask.engine().audit_tile(ask.call(), name).await?.ok_or(Problem::NotFound)?;
    Ok(Answer { content: Content::Octets, ..Answer::json(tile) })
}

impl RequestBody for AddWitnessRequest {}
impl RequestBody for RemoveWitnessRequest {}

/// `GET /v1/audit/witnesses`
pub(super) async fn witnesses(ask: &Ask, _: DryRunQuery) -> Result<WitnessesReply, Problem> {
    Ok(witnesses_view(&ask.engine().list_witnesses(ask.call()).await?))
}

/// `POST /v1/audit/witnesses`
pub(super) async fn add_witness(
    ask: &Ask,
    body: AddWitnessRequest,
) -> Result<WitnessesReply, Problem> {
    let key = parse("key", &body.key, NoteKey::parse)?;
    let change = match body.url {
        Some(url) if key.kind() == KeyKind::Cosignature => {
            let url = checked_url(url)?;
            let pinned = body.ca_fingerprint;
            let pinned = pinned.map(|text| parse("ca_fingerprint", &text, parse_fingerprint));
            let ca_fingerprint = pinned.transpose()?.as_ref().map(fingerprint);
            WitnessChange::Ask(Witness { key, url, ca_fingerprint })
        }
        None if key.kind() == KeyKind::Ed25519 => WitnessChange::Accept(key),
        Some(_) => return Err(Syntax::field("key", "expected the key of a witness").into()),
        None => return Err(Syntax::field("key", "expected the key of a log").into()),
    };
    Ok(witnesses_view(&ask.engine().change_witnesses(ask.call(), change).await?))
}

/// An address that the server would call: the rest is judged when it does.
fn checked_url(url: String) -> Result<String, Syntax> {
    let host = |scheme: &str| url.strip_prefix(scheme).and_then(|rest| rest.split('/').next());
    let is_loopback = |host: &str| {
        ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|name| {
            let port = host.strip_prefix(name);
            port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
        })
    };
    let is_called = host("https://").is_some_and(|host| !host.is_empty())
        || host("http://").is_some_and(is_loopback);
    if is_called && url.len() <= 2_048 && url.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(url)
    } else {
        Err(Syntax::field("url", "expected an https:// URL, or http:// for loopback"))
    }
}

/// `DELETE /v1/audit/witnesses`
pub(super) async fn remove_witness(
    ask: &Ask,
    body: RemoveWitnessRequest,
) -> Result<WitnessesReply, Problem> {
    let change = WitnessChange::Remove(parse("key", &body.key, NoteKey::parse)?);
    Ok(witnesses_view(&ask.engine().change_witnesses(ask.call(), change).await?))
}

fn witnesses_view(witnesses: &Witnesses) -> WitnessesReply {
    let ours = witnesses.ours.iter().map(|witness| WitnessView {
        key: witness.key.to_string(),
        url: witness.url.clone(),
        ca_fingerprint: witness.ca_fingerprint.clone(),
    });
    let logs = witnesses.theirs.iter().map(ToString::to_string);
    WitnessesReply { witnesses: ours.collect(), logs: logs.collect() }
}

#[cfg(test)]
mod tests {
    use super::checked_url;

    #[test]
    fn witnesses_have_addresses_of_https_or_loopback() {
        for url in
            ["https://w.example/a", "http://127.0.0.1:1/a", "http://localhost", "http://[::1]:9"]
        {
            assert!(checked_url(url.to_owned()).is_ok(), "{url}");
        }
        for url in [
            "http://w.example",
            "http://127.0.0.1.example/",
            "http://localhost.example",
            "https://",
            "https://w.example/a b",
            "https://w.example/\n",
            "w.example",
        ] {
            assert!(checked_url(url.to_owned()).is_err(), "{url}");
        }
    }
}
