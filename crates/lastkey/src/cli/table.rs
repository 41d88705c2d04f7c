//! Replies as tables for people.
//!
//! Room      `lastkey`. Programs read the JSON; nothing here is stable.
//! Holds     Text from the server is shown without control characters.

use comfy_table::{Table, presets};
use lastkey_wire::native::{
    aliases::ListAliasesReply,
    backups::BackupStatus,
    error::DryRunReply,
    holdings::HoldingView,
    keys::{DeletionView, KeyView, ListKeysReply, RotationReply, RotationView},
    operations::{EncryptReply, MacReply, ReencryptReply, SignReply, VerifyMacReply, VerifyReply},
    system::{ConfirmClockReply, SealReply, StatusReply, UnsealReply},
    versions::{ListVersionsReply, VersionView},
};

use super::{args::Encoding, failure::printable, output::encode};

/// Something that a person can read.
pub(crate) trait Show {
    /// Lines of text, each with its newline.
    fn table(&self) -> String;
}

/// Names and values, one pair on each line; pairs without a value are left out.
#[derive(Default)]
pub(crate) struct Fields {
    rows: Vec<(&'static str, String)>,
}

impl Fields {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.rows.push((name, value.to_string()));
        self
    }

    pub(crate) fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn with_base64(self, name: &'static str, bytes: &[u8]) -> Self {
        let text = encode(bytes, Encoding::Base64);
        self.with(name, String::from_utf8_lossy(text.trim_ascii_end()))
    }
}

impl Show for Fields {
    fn table(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let line = |(name, value): &(&str, String)| {
            format!("{name:width$}  {}\n", printable(value)).trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// Rows under a header; says so when there are none.
pub(crate) fn grid(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    let mut is_empty = true;
    for row in rows {
        is_empty = false;
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<String>>());
    }
    if is_empty {
        return "none\n".to_owned();
    }
    table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned() + "\n").collect()
}

impl Show for KeyView {
    fn table(&self) -> String {
        let tags = self.tags.0.iter().map(|(name, value)| format!("{name}={value}"));
        let protection = if self.deletion_protection { "on" } else { "off" };
        Fields::new()
            .with("Key", &self.id)
            .with_some("Aliases", join(self.aliases.iter().cloned()))
            .with("State", self.state)
            .with("Spec", self.spec)
            .with("Usage", self.usage)
            .with("Origin", self.origin)
            .with_some("Description", Some(&self.description).filter(|text| !text.is_empty()))
            .with_some("Tags", join(tags))
            .with_some("Primary version", self.primary_version)
            .with_some("Newest version", self.newest_version)
            .with("Created", &self.created_at)
            .with("Last used", last_use(self.last_used_at.as_deref()))
            .with("Rotation", rotation(self.rotation.as_ref()))
            .with("Deletion protection", protection)
            .with_some("Deletion", self.deletion.as_ref().map(deletion))
            .with_some("Destroyed", self.destroyed_at.as_ref())
            .with_some("Held by", join(self.holdings.iter().map(holding)))
            .table()
    }
}

impl Show for ListKeysReply {
    fn table(&self) -> String {
        let header = ["KEY", "ALIASES", "STATE", "SPEC", "VERSION", "LAST USED"];
        let rows = self.keys.iter().map(|key| {
            vec![
                key.id.clone(),
                or_dash(join(key.aliases.iter().cloned())),
                key.state.to_string(),
                key.spec.to_string(),
                or_dash(key.primary_version),
                last_use(key.last_used_at.as_deref()),
            ]
        });
        grid(&header, rows)
    }
}

impl Show for RotationReply {
    fn table(&self) -> String {
        let by_itself = self.rotation.as_ref();
        Fields::new()
            .with("Key", &self.key)
            .with("Rotation", rotation(by_itself))
            .with_some("Next", by_itself.and_then(|rotation| rotation.next_at.as_ref()))
            .with_some("Last", by_itself.and_then(|rotation| rotation.last_at.as_ref()))
            .table()
    }
}

impl Show for VersionView {
    fn table(&self) -> String {
        Fields::new()
            .with("Version", self.version)
            .with("State", self.state)
            .with("Primary", yes_no(self.primary))
            .with("Origin", self.origin)
            .with("Created", &self.created_at)
            .with("Protected", format!("{} times", self.usage.protected))
            .with("Processed", format!("{} times", self.usage.processed))
            .with("Refused", format!("{} times", self.usage.refused))
            .with("Last used", last_use(self.usage.last_used_at.as_deref()))
            .with_some("Destroyed", self.destroyed_at.as_ref())
            .with_some("Erased everywhere", self.erased_at.as_ref())
            .table()
    }
}

impl Show for ListVersionsReply {
    fn table(&self) -> String {
        let header =
            ["VERSION", "STATE", "PRIMARY", "CREATED", "PROTECTED", "PROCESSED", "LAST USED"];
        let rows = self.versions.iter().map(|version| {
            vec![
                version.version.to_string(),
                version.state.to_string(),
                yes_no(version.primary).to_owned(),
                version.created_at.clone(),
                version.usage.protected.to_string(),
                version.usage.processed.to_string(),
                last_use(version.usage.last_used_at.as_deref()),
            ]
        });
        grid(&header, rows)
    }
}

impl Show for ListAliasesReply {
    fn table(&self) -> String {
        let rows = self.aliases.iter().map(|view| vec![view.alias.clone(), view.key.clone()]);
        grid(&["ALIAS", "KEY"], rows)
    }
}

impl Show for StatusReply {
    fn table(&self) -> String {
        let seals = self.seals.iter().map(|seal| {
            let known = seal.health.as_ref().map_or_else(String::new, |h| format!(", {h}"));
            let brought = match (seal.shares_brought, seal.shares_needed) {
                (Some(brought), Some(needed)) if self.sealed => {
                    format!(", {brought} of {needed} shares are here")
                }
                (_, _) => String::new(),
            };
            let problem = seal.problem.as_ref().map_or_else(String::new, |p| format!(", {p}"));
            format!("{} {}{known}{brought}{problem}", seal.kind, seal.id)
        });
        let hold = self.clock_hold.as_ref().map(|hold| {
            format!(
                "jumped by {} s, seen {}: check, then `lastkey confirm-clock`",
                hold.jump_seconds, hold.seen_at
            )
        });
        Fields::new()
            .with("Server", format!("lastkey {}", self.server_version))
            .with("Initialised", yes_no(self.initialised))
            .with("Sealed", yes_no(self.sealed))
            .with_some("Instance", self.instance.as_ref())
            .with_some("Seals", join(seals))
            .with_some("Backup", self.backup.as_ref().map(backup))
            .with_some("Older state", self.rollback.as_ref())
            .with_some("Audit log", self.audit_problem.as_deref().map(audit_problem))
            .with_some("Clock", hold)
            .table()
    }
}

fn audit_problem(word: &str) -> String {
    match word {
        "refusing" => "takes no records, so nothing is done; the server's log says why",
        "tiles-behind" => {
            "its disk did not take tiles; they are written again, and segments stay until then"
        }
        "space-short" => "space is getting short",
        other => other,
    }
    .to_owned()
}

fn backup(status: &BackupStatus) -> String {
    let known = match &status.newest {
        Some(newest) => format!("of {newest}, proven"),
        None => "none; make one: `lastkey backup create --to DIR`".to_owned(),
    };
    let failed = "; the last attempt failed, see `lastkey backup list`";
    if status.last_failed { known + failed } else { known }
}

impl Show for UnsealReply {
    fn table(&self) -> String {
        let shares = self.shares_brought.zip(self.shares_needed);
        let did = match shares {
            _ if self.sealed => "Waits for",
            // The server was open already, and this share opens nothing yet.
            Some((brought, needed)) if brought < needed => "Brought to",
            Some(_) | None => "Opened by",
        };
        Fields::new()
            .with("Sealed", yes_no(self.sealed))
            .with(did, &self.seal_kind)
            .with_some("Shares", shares.map(|(brought, needed)| format!("{brought} of {needed}")))
            .with("Attempt", &self.attempt)
            .table()
    }
}

impl Show for SealReply {
    fn table(&self) -> String {
        Fields::new().with("Sealed", yes_no(self.sealed)).table()
    }
}

impl Show for ConfirmClockReply {
    fn table(&self) -> String {
        Fields::new().with("Clock confirmed", yes_no(self.confirmed)).table()
    }
}

impl Show for DryRunReply {
    fn table(&self) -> String {
        let verdict = if self.dry_run.allowed { "would be done" } else { "would be refused" };
        Fields::new().with("Dry run", verdict).with_some("Why", self.dry_run.why.as_ref()).table()
    }
}

impl Show for EncryptReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Key", &self.key)
            .with("Version", self.version)
            .with_base64("Ciphertext", &self.ciphertext.0)
            .table()
    }
}

impl Show for ReencryptReply {
    fn table(&self) -> String {
        Fields::new()
            .with("From", format!("{} version {}", self.source_key, self.source_version))
            .with("To", format!("{} version {}", self.key, self.version))
            .with_base64("Ciphertext", &self.ciphertext.0)
            .table()
    }
}

impl Show for SignReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Key", &self.key)
            .with("Version", self.version)
            .with("Algorithm", self.algorithm)
            .with_base64("Signature", &self.signature.0)
            .table()
    }
}

impl Show for VerifyReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Signature", valid(self.valid))
            .with("Key", &self.key)
            .with("Version", self.version)
            .with("Algorithm", self.algorithm)
            .table()
    }
}

impl Show for MacReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Key", &self.key)
            .with("Version", self.version)
            .with_base64("MAC", &self.mac.0)
            .table()
    }
}

impl Show for VerifyMacReply {
    fn table(&self) -> String {
        Fields::new()
            .with("MAC", valid(self.valid))
            .with("Key", &self.key)
            .with("Version", self.version)
            .table()
    }
}

/// When something was used last, in words.
pub(crate) fn last_use(at: Option<&str>) -> String {
    at.unwrap_or("never").to_owned()
}

fn rotation(by_itself: Option<&RotationView>) -> String {
    match by_itself {
        None => "off".to_owned(),
        Some(rotation) => {
            let next = rotation.next_at.as_ref().map(|at| format!(", next {at}"));
            format!("every {}{}", span(rotation.period_seconds), next.unwrap_or_default())
        }
    }
}

fn holding(holding: &HoldingView) -> String {
    let HoldingView { place, what, count, reported_at, .. } = holding;
    format!("{place} ({count} {what}, reported {reported_at})")
}

fn deletion(deletion: &DeletionView) -> String {
    let at = deletion.at.as_deref().unwrap_or("when the clock is confirmed");
    format!("{at} (window of {} days)", deletion.window_days)
}

/// A number of seconds in the largest unit that divides it.
fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.iter().find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(size, name)| format!("{}{name}", seconds / size))
}

fn join(parts: impl Iterator<Item = String>) -> Option<String> {
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn valid(is_valid: bool) -> &'static str {
    if is_valid { "valid" } else { "NOT VALID" }
}

#[cfg(test)]
mod tests {
    use super::{Fields, Show, grid, span};

    #[test]
    fn fields_line_up_and_leave_out_what_is_not_there() {
        let fields = Fields::new().with("A", 1).with_some("B", None::<u8>).with("Long", "x");
        assert_eq!(fields.table(), "A     1\nLong  x\n");
    }

    #[test]
    fn fields_escape_control_characters() {
        assert_eq!(Fields::new().with("A", "x\u{1b}[0m\ny").table(), "A  x\\u{1b}[0m\\u{a}y\n");
    }

    #[test]
    fn grid_lines_up_columns() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(grid(&["X", "Y"], rows), "X     Y\na     b\nlong  c\n");
        assert_eq!(grid(&["X"], []), "none\n");
    }

    #[test]
    fn span_uses_the_largest_unit_that_divides() {
        for (seconds, text) in
            [(90, "90s"), (120, "2m"), (3_600, "1h"), (90_000, "25h"), (86_400, "1d")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
