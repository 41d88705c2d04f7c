//! `audit tail`, `audit search`: records of a server, or of a directory.
//!
//! Room      `lastkey`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use lastkey_client::Client;
use lastkey_core::audit::archive::{Filter, Search};
use lastkey_core::audit::record::Field;
use lastkey_store::audit_log::verify::LogDir;
use lastkey_wire::native::audit::{AuditField, AuditQuery, AuditRecord, AuditRecordsReply};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::{
    args::{Format, Span},
    failure::{Failure, printable},
    session::Session,
};

/// The longest page that the server gives.
pub(super) const PAGE_LEN: u32 = 1_000;
/// How long the server may wait for new records.
const WAIT_SECONDS: u64 = 20;

/// Where records come from.
pub(super) enum Reader {
    /// A server.
    Server(Box<Client>),
    /// A directory.
    Offline(LogDir),
}

impl Reader {
    /// A directory when one is given, else the server.
    pub(super) fn open(offline: Option<PathBuf>, session: &Session) -> Result<Self, Failure> {
        match offline {
            Some(dir) => Ok(Self::Offline(LogDir(dir))),
            None => Ok(Self::Server(Box::new(session.client()?))),
        }
    }

    /// One page of records.
    pub(super) async fn page(&self, query: &AuditQuery) -> Result<AuditRecordsReply, Failure> {
        match self {
            Self::Server(client) => Ok(client.audit_records(query).await?),
            Self::Offline(dir) => offline_page(dir, query),
        }
    }
}

fn offline_page(dir: &LogDir, query: &AuditQuery) -> Result<AuditRecordsReply, Failure> {
    let AuditQuery { key, who, action, result, request, since, until, .. } = query.clone();
    let filter = Filter { key, who, action, result, request, since, until };
    let limit = query.limit.unwrap_or(PAGE_LEN).try_into().unwrap_or(usize::MAX);
    let search = Search { from: query.from, limit, newest_first: query.newest_first, filter };
    let found = dir.search(&search)?;
    let records = found.entries.into_iter().map(|entry| {
        let fields = entry.record.fields();
        let record = fields.map(|(name, value)| (name.to_owned(), field(value))).collect();
        AuditRecord { index: entry.index, record }
    });
    Ok(AuditRecordsReply { records: records.collect(), next: found.next, end: found.end })
}

fn field(field: &Field) -> AuditField {
    match field {
        Field::Number(number) => AuditField::Number(*number),
        Field::Flag(flag) => AuditField::Flag(*flag),
        Field::Text(text) => AuditField::Text(text.clone()),
        Field::List(texts) => AuditField::List(texts.clone()),
    }
}

/// Arguments of `audit tail`.
#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    /// Records to begin with, the newest ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Go on with records as they come
    #[arg(short, long, conflicts_with = "offline")]
    follow: bool,
    /// Read this directory and ask no server
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
}

/// Shows the newest records, oldest of them first.
pub(crate) async fn tail(args: TailArgs, session: &Session) -> Result<(), Failure> {
    let reader = Reader::open(args.offline, session)?;
    let newest =
        AuditQuery { limit: Some(args.lines), newest_first: true, ..AuditQuery::default() };
    let mut page = reader.page(&newest).await?;
    page.records.reverse();
    print(&page.records, session.format())?;
    if !args.follow {
        return Ok(());
    }
    let mut from = page.end;
    loop {
        let query = AuditQuery {
            from: Some(from),
            limit: Some(PAGE_LEN),
            wait_seconds: Some(WAIT_SECONDS),
            ..AuditQuery::default()
        };
        let page = reader.page(&query).await?;
        print(&page.records, session.format())?;
        from = page.next.unwrap_or(page.end);
    }
}

/// Which records are wanted.
#[derive(Args, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Id of the key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Principal; with * at the end, how the name begins
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Action, such as kms:Decrypt; with * at the end, how it begins
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// ok, pending, or the code of an error
    #[arg(long, value_name = "CODE")]
    result: Option<String>,
    /// Id of the request, as every answer carries it
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Not before this moment: RFC 3339, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Before this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

impl FilterArgs {
    /// The query of these arguments.
    pub(super) fn query(&self) -> AuditQuery {
        AuditQuery {
            key: self.key.clone(),
            who: self.who.clone(),
            action: self.action.clone(),
            result: self.result.clone(),
            request: self.request.clone(),
            since: self.since,
            until: self.until,
            ..AuditQuery::default()
        }
    }
}

/// A moment in seconds since 1970: RFC 3339, or a span before now.
fn moment(text: &str) -> Result<u64, String> {
    let expected = "expected a time such as 2026-11-18T11:06:40Z, or a span such as 2h";
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return at.unix_timestamp().try_into().map_err(|_| expected.to_owned());
    }
    let span: Span = text.parse().map_err(|_| expected.to_owned())?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    Ok(u64::try_from(now).unwrap_or(0).saturating_sub(span.seconds))
}

/// Arguments of `audit search`.
#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many records, the newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Read this directory and ask no server
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
}

/// Shows the newest records that match, newest first.
pub(crate) async fn search(args: SearchArgs, session: &Session) -> Result<(), Failure> {
    let reader = Reader::open(args.offline, session)?;
    let (mut left, mut from) = (args.limit, None);
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_LEN);
        let query =
            AuditQuery { from, limit: Some(limit), newest_first: true, ..args.filter.query() };
        let page = reader.page(&query).await?;
        print(&page.records, session.format())?;
        left -= page.records.len().min(left);
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    Ok(())
}

/// Prints records: a line each, for people or as JSON.
fn print(records: &[AuditRecord], format: Format) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let line = |record| match format {
        Format::Json => serde_json::to_string(record).unwrap_or_default(),
        Format::Table => for_people(record),
    };
    records
        .iter()
        .try_for_each(|record| writeln!(stdout, "{}", line(record)))
        .and_then(|()| stdout.flush())
        .map_err(|cause| Failure::io("write to standard output", cause))
}

/// A text field of a record.
pub(super) fn text<'a>(record: &'a AuditRecord, name: &str) -> Option<&'a str> {
    match record.record.get(name)? {
        AuditField::Text(text) => Some(text),
        AuditField::Number(_) | AuditField::Flag(_) | AuditField::List(_) => None,
    }
}

/// When a record was written, in seconds since 1970.
pub(super) fn at(record: &AuditRecord) -> u64 {
    match record.record.get("at") {
        Some(AuditField::Number(at)) => *at,
        Some(AuditField::Text(_) | AuditField::Flag(_) | AuditField::List(_)) | None => 0,
    }
}

/// A moment as RFC 3339 writes it.
pub(super) fn rfc3339(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// `INDEX TIME RESULT WHO ACTION KEY REASON`.
fn for_people(record: &AuditRecord) -> String {
    let part = |name| text(record, name).unwrap_or("-");
    let phase = match part("phase") {
        "intent" => " (intent)",
        _ => "",
    };
    let on = text(record, "key").or_else(|| text(record, "target")).unwrap_or("-");
    let line = format!(
        "{:>8}  {}  {:<14}  {}  {}{phase}  {on}  {}",
        record.index,
        rfc3339(at(record)),
        part("result"),
        part("who"),
        part("action"),
        text(record, "reason").unwrap_or_default(),
    );
    printable(line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_span_before_now() {
        assert_eq!(moment("2026-11-18T11:06:40Z"), Ok(1_795_000_000));
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap();
        assert!(moment("2h").unwrap() <= now - 7_199);
        assert!(moment("yesterday").is_err() && moment("").is_err());
    }
}
