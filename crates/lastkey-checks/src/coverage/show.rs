//! Coverage as a table for people, and as findings.
//!
//! Room      `checks`.

use super::{CoverageReport, Resource};
use crate::{
    finding::{Finding, Fingerprinter, Location, Severity},
    report::{Figure, Report, RuleInfo},
};

impl CoverageReport {
    /// One finding for each resource and each thing that is wrong with some of its objects.
    #[must_use]
    pub fn findings(&self, place: &str, tool: &str, version: &str) -> Report {
        let mut report = Report {
            tool: tool.to_owned(),
            version: version.to_owned(),
            rules: RULES.iter().map(Rule::info).collect(),
            figures: vec![
                Figure::new("objects", self.resources.iter().map(|row| row.counts.objects).sum()),
                Figure::new("objects that have to be sealed", self.totals.objects),
                Figure::new("current", self.totals.current),
            ],
            ..Report::default()
        };
        for row in self.resources.iter().filter(|row| row.required) {
            let counts = &row.counts;
            for (kind, count) in [
                ("clear", counts.clear),
                ("other", counts.other),
                ("old", counts.old),
                ("damaged", counts.damaged),
            ] {
                if let Some(rule) = RULES.iter().find(|rule| rule.kind == kind && count > 0) {
                    report.findings.push(rule.finding(row, count, place));
                }
            }
        }
        for key in self.keys.iter().filter(|key| key.refused + key.not_opened > 0) {
            if let Some(rule) = RULES.iter().find(|rule| rule.kind == "unopened") {
                let subject = format!("{} {}", key.provider, key.key_id);
                let seen = format!(
                    "{} of {} seeds refused, {} objects not opened",
                    key.refused, key.seeds, key.not_opened
                );
                let title = "objects that are kept cannot be decrypted".to_owned();
                report.findings.push(rule.made(subject, title, seen, place));
            }
        }
        self.residue_findings(place, &mut report);
        report.sort();
        report
    }
}

impl CoverageReport {
    fn residue_findings(&self, place: &str, report: &mut Report) {
        let Some(residue) = &self.residue else { return };
        let parts = [
            ("history", Some(residue.history)),
            ("free pages", Some(residue.free_pages)),
            ("write-ahead log", residue.wal),
        ];
        for (part, totals) in parts {
            let Some(totals) = totals else { continue };
            let count = totals.clear + totals.stale();
            if let Some(rule) = RULES.iter().find(|rule| rule.kind == "residue" && count > 0) {
                let seen = format!(
                    "{} in the clear, {} of other providers, {} under old keys, {} damaged",
                    totals.clear, totals.other, totals.old, totals.damaged
                );
                let title = format!("{count} old values lie in the {part}");
                report.findings.push(rule.made(part.to_owned(), title, seen, place));
            }
        }
    }
}

/// What can be wrong with objects.
struct Rule {
    id: &'static str,
    kind: &'static str,
    severity: Severity,
    title: &'static str,
    why: &'static str,
    fix: &'static str,
}

const RULES: [Rule; 6] = [
    Rule {
        id: "etcd-clear",
        kind: "clear",
        severity: Severity::Critical,
        title: "stored in the clear",
        why: "Whoever reads a disk, a backup or a snapshot of etcd has them.",
        fix: "Name the resource in the encryption configuration with the key provider first (lastkey etcd enable), then rewrite its objects (lastkey etcd rewrite).",
    },
    Rule {
        id: "etcd-other-provider",
        kind: "other",
        severity: Severity::Medium,
        title: "sealed by another provider",
        why: "They stay readable only as long as the other provider and its key are kept.",
        fix: "Rewrite them (lastkey etcd rewrite); then take the other provider out of the configuration.",
    },
    Rule {
        id: "etcd-old-key",
        kind: "old",
        severity: Severity::Low,
        title: "sealed under an older key version",
        why: "The older version cannot be destroyed, and whoever had it can read them.",
        fix: "Rewrite them (lastkey etcd rewrite) once every API server has seen the new key id.",
    },
    Rule {
        id: "etcd-damaged",
        kind: "damaged",
        severity: Severity::High,
        title: "begin like sealed objects and are none",
        why: "One object that cannot be decrypted makes every list of its resource fail.",
        fix: "Restore them from a backup, or delete them by etcdctl after a look at each.",
    },
    Rule {
        id: "etcd-unopened",
        kind: "unopened",
        severity: Severity::Critical,
        title: "cannot be decrypted",
        why: "The key that seals them is gone or refused: a restart of the API server loses them.",
        fix: "Enable the key version, or give the plugin the right to decrypt with it.",
    },
    Rule {
        id: "etcd-residue",
        kind: "residue",
        severity: Severity::Medium,
        title: "still on disk after they were rewritten",
        why: "Rewriting is no erasure: whoever reads the disk or a backup has the old values.",
        fix: "etcdctl compact REVISION (the API server does it every five minutes); then etcdctl defrag on each member; then let the write-ahead log roll away by snapshots; then delete older backups. Only then destroy the old key.",
    },
];

impl Rule {
    fn info(&self) -> RuleInfo {
        RuleInfo {
            id: self.id.to_owned(),
            title: format!("objects are {}", self.title),
            severity: self.severity,
            why: self.why.to_owned(),
            fix: self.fix.to_owned(),
            mappings: Vec::new(),
        }
    }

    fn finding(&self, row: &Resource, count: u64, place: &str) -> Finding {
        let sample = row.samples.get(self.kind).map(|names| names.join(", ")).unwrap_or_default();
        let title = format!("{count} {} {}", row.resource, self.title);
        self.made(row.resource.clone(), title, format!("for example {sample}"), place)
    }

    fn made(&self, subject: String, title: String, evidence: String, place: &str) -> Finding {
        let parts = [self.id.as_bytes(), subject.as_bytes()];
        Finding {
            rule: self.id.to_owned(),
            severity: self.severity,
            title,
            fingerprint: Fingerprinter::unkeyed().of(&parts),
            subject: Some(subject),
            evidence,
            location: Location::file(place),
            why: self.why.into(),
            fix: self.fix.into(),
            mappings: Vec::new(),
        }
    }
}
