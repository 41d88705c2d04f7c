//! The planted set of the posture checks: each fault is found, and its safe twin is not.

#![expect(clippy::string_slice, reason = "positions come from searches in the same text")]

use std::collections::BTreeSet;

use lastkey_checks::{
    finding::Severity,
    posture::{CHECKS, Outcome, Settings, State, judge},
    snapshot::{
        Snapshot,
        node::{FileFact, FileKind, NodeFacts},
    },
};

const PODS: &str = include_str!("../../../../tests/planted/posture/pods.txt");
const RBAC: &str = include_str!("../../../../tests/planted/posture/rbac.txt");
const CONTROL_PLANE: &str = include_str!("../../../../tests/planted/posture/control_plane.txt");
const NODES: &str = include_str!("../../../../tests/planted/posture/nodes.txt");
const CLEAN: &[u8] = include_bytes!("../../../../tests/planted/posture/clean.yaml");
/// 2026-11-23.
const NOW: u64 = 1_795_392_000;

struct Case {
    name: String,
    check: String,
    text: String,
}

/// Bases and cases of one file.
fn read(text: &str) -> (Vec<(String, String)>, Vec<Case>) {
    let (mut bases, mut cases) = (Vec::new(), Vec::new());
    for part in text.split_inclusive('\n').fold(Vec::<String>::new(), |mut parts, line| {
        if line.starts_with("base ") || line.starts_with("fault ") {
            parts.push(String::new());
        }
        parts.last_mut().unwrap().push_str(line);
        parts
    }) {
        let (head, body) = part.split_once('\n').unwrap();
        let body = body.trim_end_matches('\n').to_owned() + "\n";
        match head.split_once(' ').unwrap() {
            ("base", name) => bases.push((name.to_owned(), body)),
            (_, name) => {
                let check = name.split(' ').next().unwrap().to_owned();
                cases.push(Case { name: name.to_owned(), check, text: body });
            }
        }
    }
    (bases, cases)
}

/// Takes one side of each `[[fault|twin]]`.
fn side(text: &str, is_fault: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(mut at) = rest.find("[[") {
        while rest[at + 1..].starts_with("[[") {
            at += 1;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        // The end is the first `]]` before which all brackets are closed.
        let is_closed = |end: &usize| {
            let count = |c| inner[..*end].matches(c).count();
            inner[*end..].starts_with("]]") && count('[') == count(']')
        };
        let end =
            (0..inner.len()).filter(|at| inner.is_char_boundary(*at)).find(is_closed).unwrap();
        let (fault, twin) = inner[..end].split_once('|').unwrap();
        out.push_str(if is_fault { fault } else { twin });
        rest = &inner[end + 2..];
    }
    out + rest
}

/// Puts bases in and fills their holes.
fn fill(text: &str, bases: &[(String, String)]) -> String {
    let mut pieces: Vec<String> = Vec::new();
    let mut hole: Option<(String, String)> = None;
    let close = |hole: &mut Option<(String, String)>, pieces: &mut Vec<String>| {
        if let Some((name, value)) = hole.take() {
            let last = pieces.last_mut().unwrap();
            *last = last.replace(&format!("%{name}%"), value.trim_end_matches('\n'));
        }
    };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("use ") {
            close(&mut hole, &mut pieces);
            pieces.push(bases.iter().find(|(known, _)| known == name).unwrap().1.clone());
        } else if let Some(set) = line.strip_prefix("set ") {
            close(&mut hole, &mut pieces);
            let (name, value) = set.split_once(' ').unwrap();
            hole = Some((name.to_owned(), format!("{value}\n")));
        } else if let Some((_, value)) = hole.as_mut().filter(|_| line != "---") {
            value.push_str(&format!("{line}\n"));
        } else {
            close(&mut hole, &mut pieces);
            pieces.push(format!("{line}\n"));
        }
    }
    close(&mut hole, &mut pieces);
    let whole = pieces.concat();
    let is_hole = |line: &&str| line.trim().starts_with('%') && line.trim().ends_with('%');
    whole.lines().filter(|line| !is_hole(line)).map(|line| format!("{line}\n")).collect()
}

fn snapshot(text: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.origin.manifests = true;
    if !text.starts_with("node ") {
        snapshot.add_file("planted.yaml", text.as_bytes());
        snapshot.settle();
        return snapshot;
    }
    let mut facts = NodeFacts::default();
    for part in format!("\n{text}").split("\nnode ").skip(1) {
        let (head, content) = part.split_once('\n').unwrap_or((part, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        let folder = words[1].strip_prefix('d');
        let mode = u32::from_str_radix(folder.unwrap_or(words[1]), 8).unwrap();
        let kind = if folder.is_some() { FileKind::Folder } else { FileKind::File };
        let content = folder.is_none().then(|| content.as_bytes().to_vec());
        facts.add(
            words[0],
            FileFact { kind, mode, uid: words[2].parse().unwrap(), gid: 0, content },
        );
    }
    snapshot.set_node(facts);
    snapshot
}

fn outcome(text: &str, bases: &[(String, String)], is_fault: bool, name: &str) -> Outcome {
    let text = fill(&side(text, is_fault), bases);
    let snapshot = snapshot(&text);
    assert!(snapshot.unreadable.is_empty(), "{name}: {:?}\n{text}", snapshot.unreadable);
    judge(&snapshot, Settings { now: NOW })
}

fn alarms(outcome: &Outcome, check: &str) -> usize {
    let counts = |finding: &&lastkey_checks::finding::Finding| {
        finding.rule == check && finding.severity > Severity::Info
    };
    outcome.findings.iter().filter(counts).count()
}

#[test]
fn planted_faults_are_found_and_their_twins_are_not() {
    let (mut missed, mut false_alarms, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let mut checks = BTreeSet::new();
    for text in [PODS, RBAC, CONTROL_PLANE, NODES] {
        let (bases, cases) = read(text);
        for case in cases {
            let fault = outcome(&case.text, &bases, true, &case.name);
            let twin = outcome(&case.text, &bases, false, &case.name);
            if alarms(&fault, &case.check) == 0 {
                missed.push(case.name.clone());
            }
            if alarms(&twin, &case.check) > 0 {
                false_alarms.push(case.name.clone());
            }
            checks.insert(case.check);
            all.push(case.name);
        }
    }
    assert!(all.len() >= 120, "{}", all.len());
    assert!(missed.is_empty(), "missed: {missed:#?}");
    assert!(false_alarms.len() * 50 <= all.len(), "false alarms: {false_alarms:#?}");
    // Judged from etcd, metrics or certificates, each in tests of its own.
    let elsewhere = ["ENC-06", "ENC-07", "ENC-08", "ETC-04", "HST-04"];
    let unplanted: Vec<&str> = CHECKS
        .iter()
        .map(|check| check.id)
        .filter(|id| !checks.contains(*id) && !elsewhere.contains(id))
        .collect();
    assert!(unplanted.is_empty(), "checks without a planted fault: {unplanted:?}");
}

#[test]
fn a_cluster_in_order_gives_no_finding() {
    let mut snapshot = Snapshot::default();
    snapshot.add_file("clean.yaml", CLEAN);
    snapshot.settle();
    assert!(snapshot.unreadable.is_empty(), "{:?}", snapshot.unreadable);
    let outcome = judge(&snapshot, Settings { now: NOW });
    let found: Vec<String> =
        outcome.findings.iter().map(|f| format!("{} {} {}", f.rule, f.title, f.evidence)).collect();
    assert!(found.is_empty(), "{found:#?}");
    let passed = outcome.states.values().filter(|state| **state == State::Pass).count();
    assert!(passed >= 35, "{passed} of {:?}", outcome.states);
}

#[test]
fn every_finding_has_evidence_a_place_a_fix_and_its_own_fingerprint() {
    let (bases, cases) = read(RBAC);
    let (more_bases, more) = read(PODS);
    let bases = [bases, more_bases].concat();
    for case in cases.into_iter().chain(more) {
        let outcome = outcome(&case.text, &bases, true, &case.name);
        let prints: BTreeSet<&str> =
            outcome.findings.iter().map(|finding| finding.fingerprint.as_str()).collect();
        assert_eq!(prints.len(), outcome.findings.len(), "{}: {:#?}", case.name, outcome.findings);
        for finding in &outcome.findings {
            assert!(finding.location.line > 0, "{}: {finding:?}", case.name);
            assert!(
                !finding.evidence.is_empty() && !finding.fix.is_empty() && !finding.why.is_empty()
            );
        }
    }
}

#[test]
fn fingerprints_do_not_move_with_lines() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nspec: {hostPID: true, containers: [{name: a}]}\n";
    let prints = |text: &str| -> BTreeSet<String> {
        let outcome = judge(&snapshot(text), Settings { now: NOW });
        outcome.findings.into_iter().map(|finding| finding.fingerprint.to_string()).collect()
    };
    assert_eq!(prints(text), prints(&format!("# one\n# two\n\n{text}")));
}
