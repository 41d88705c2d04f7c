//! Reading one file as a stream: windows that overlap, archives, encodings.
//!
//! Room      `checks`, inside `scan`.
//! Holds     One window of [`WINDOW`] bytes for each thread, whatever the file. A secret that
//!           begins before the last [`RIGHT`] bytes of a window is seen whole.

use std::{io, io::Read, ops::Range};

use super::{
    archive::{self, Kind},
    decode,
    engine::{Engine, Hit, Scratch, View, line_around},
    pack::{Claim, Matcher},
    rules::{Rule, Rules, RulesError},
    wide::{Narrow, Order},
};
use crate::{
    finding::{Finding, Fingerprinter, Location, mask},
    report::{Accepted, NotChecked, RuleInfo},
};

/// What of a file is in memory at a time, in bytes.
const WINDOW: usize = 256 << 10;
/// What a window repeats of the one before it, to the left of what it reports.
const LEFT: usize = 2 << 10;
/// How far a window looks beyond what it reports.
const RIGHT: usize = super::compile::LONGEST_MATCH;

/// How far archives are followed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Archives inside archives; 0 opens none.
    pub depth: usize,
    /// What one file on disk may unpack to in all, in bytes.
    pub unpacked_len: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 8, unpacked_len: 16 << 30 }
    }
}

/// What to look at beside plain text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How far archives are followed.
    pub limits: Limits,
    /// Look into files that are no text, too.
    pub binaries: bool,
}

/// What came of scanning: add up over files.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Secrets.
    pub findings: Vec<Finding>,
    /// Values of the scan pack that the service is to be asked about, each with what to ask.
    pub claimed: Vec<(Finding, Claim)>,
    /// Secrets that the line itself says are meant to be there.
    pub accepted: Vec<Accepted>,
    /// What could not be looked into.
    pub not_checked: Vec<NotChecked>,
    /// Files looked into, members of archives included.
    pub files: u64,
    /// Files that are no text and were left.
    pub binaries: u64,
    /// Bytes looked into, after unpacking.
    pub bytes: u64,
    /// Of [`Outcome::not_checked`], those that should have been readable: broken, or over a
    /// limit, and not only of a form that is never opened.
    pub failures: u64,
}

impl Outcome {
    /// Adds the outcome of other files.
    pub fn absorb(&mut self, mut other: Self) {
        self.findings.append(&mut other.findings);
        self.claimed.append(&mut other.claimed);
        self.accepted.append(&mut other.accepted);
        self.not_checked.append(&mut other.not_checked);
        self.files += other.files;
        self.binaries += other.binaries;
        self.bytes += other.bytes;
        self.failures += other.failures;
    }

    /// Something that should have been readable was not.
    pub fn miss(&mut self, subject: &str, reason: impl Into<String>) {
        self.failures += 1;
        self.leave(subject, reason);
    }

    /// Something is never opened here.
    pub(super) fn leave(&mut self, subject: &str, reason: impl Into<String>) {
        let subject = subject.to_owned();
        self.not_checked.push(NotChecked { rule: None, subject, reason: reason.into() });
    }
}

/// Rules and options, ready for many threads.
#[derive(Debug)]
pub struct Scanner {
    engine: Engine,
    fingerprinter: Fingerprinter,
    pack: Option<Matcher>,
    options: Options,
}

/// Memory of one thread: about half a megabyte.
#[derive(Default)]
pub struct Workspace {
    window: Vec<u8>,
    scratch: Scratch,
}

/// What a file is and how deep it lies.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) path: &'p str,
    pub(super) commit: Option<&'p str>,
    pub(super) depth: usize,
}

impl<'p> Place<'p> {
    pub(super) const fn inside(self, path: &'p str) -> Self {
        Self { path, commit: self.commit, depth: self.depth + 1 }
    }
}

impl Scanner {
    /// Makes a scanner.
    ///
    /// # Errors
    /// [`RulesError`] when the rules have too many keywords.
    pub fn new(
        rules: Rules,
        fingerprinter: Fingerprinter,
        pack: Option<Matcher>,
        options: Options,
    ) -> Result<Self, RulesError> {
        Ok(Self { engine: Engine::new(rules)?, fingerprinter, pack, options })
    }

    /// Whether no rule looks into a file of this path, so that it need not be opened.
    #[must_use]
    pub fn skips(&self, path: &str) -> bool {
        self.engine.rules.skips(path)
    }

    /// The rules as reports explain them.
    #[must_use]
    pub fn rule_infos(&self) -> Vec<RuleInfo> {
        let pack = self.pack.iter().flat_map(|_| super::pack::rule_infos());
        self.engine.rules.infos().into_iter().chain(pack).collect()
    }

    /// Scans one file. `path` is what findings call it; `commit` is set for files of a history.
    ///
    /// What cannot be read is in [`Outcome::not_checked`].
    pub fn scan(
        &self,
        path: &str,
        commit: Option<&str>,
        reader: &mut dyn Read,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
    ) {
        self.judge_path(path, outcome);
        let mut budget = self.options.limits.unpacked_len;
        let place = Place { path, commit, depth: 0 };
        self.scan_nested(place, reader, workspace, outcome, &mut budget);
    }

    /// Rules about paths alone.
    fn judge_path(&self, path: &str, outcome: &mut Outcome) {
        for rule in &self.engine.rules.rules {
            let is_about_paths = rule.regex.is_none() && rule.assignment.is_none();
            let matches = rule.path.as_ref().is_some_and(|regex| regex.is_match(path));
            if is_about_paths && matches && !rule.allowlists.iter().any(|list| list.has_path(path))
            {
                let fingerprint = self.fingerprinter.of(&[rule.id.as_bytes(), path.as_bytes()]);
                let location = Location::file(path);
                outcome.findings.push(Finding {
                    evidence: "the name of the file says so".to_owned(),
                    ..finding(rule, String::new(), location, fingerprint)
                });
            }
        }
    }

    pub(super) fn scan_nested(
        &self,
        place: Place<'_>,
        reader: &mut dyn Read,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
        budget: &mut u64,
    ) {
        let mut window = std::mem::take(&mut workspace.window);
        window.resize(WINDOW, 0);
        match fill(reader, &mut window, 0) {
            Err(error) => outcome.miss(place.path, format!("it cannot be read: {error}")),
            Ok(len) => {
                let head = window.get(..len).unwrap_or_default();
                match archive::kind(head) {
                    Some(kind) => {
                        // The window is needed again for what lies inside.
                        let head = head.to_vec();
                        workspace.window = window;
                        let mut whole = head.chain(reader);
                        self.open(kind, place, &mut whole, workspace, outcome, budget);
                        return;
                    }
                    None => self.read_text(place, reader, &mut window, len, workspace, outcome),
                }
            }
        }
        workspace.window = window;
    }

    fn open(
        &self,
        kind: Kind,
        place: Place<'_>,
        reader: &mut dyn Read,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
        budget: &mut u64,
    ) {
        let limits = &self.options.limits;
        if limits.depth == 0 {
            outcome.binaries += 1;
        } else if place.depth >= limits.depth {
            let reason = format!("archives lie {} deep in each other", limits.depth);
            outcome.miss(place.path, reason);
        } else if let Err(reason) =
            archive::walk(self, kind, place, reader, workspace, outcome, budget)
        {
            outcome.miss(place.path, reason);
        }
    }

    /// Scans text; the first `len` bytes of the window are read already.
    fn read_text(
        &self,
        place: Place<'_>,
        reader: &mut dyn Read,
        window: &mut [u8],
        len: usize,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
    ) {
        let head = window.get(..len).unwrap_or_default();
        let outcome_of_reading = match Order::of(head) {
            Some(order) => {
                let whole = io::Cursor::new(head.to_vec()).chain(reader);
                let mut narrow = Narrow::new(whole, order);
                let first = fill(&mut narrow, window, 0);
                first.and_then(|len| {
                    self.read_windows(place, &mut narrow, window, len, workspace, outcome)
                })
            }
            None if !self.options.binaries && is_binary(head) => {
                outcome.binaries += 1;
                return;
            }
            None => self.read_windows(place, reader, window, len, workspace, outcome),
        };
        outcome.files += 1;
        if let Err(error) = outcome_of_reading {
            outcome.miss(place.path, format!("it cannot be read to its end: {error}"));
        }
    }

    fn read_windows(
        &self,
        place: Place<'_>,
        reader: &mut dyn Read,
        window: &mut [u8],
        mut len: usize,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let mut cut = Cut { from: 0, to: 0, first_line: 1, is_start: true };
        loop {
            let is_last = len < window.len();
            cut.to = if is_last { len } else { len - RIGHT };
            let text = window.get(..len).unwrap_or_default();
            outcome.bytes += (cut.to - cut.from) as u64;
            self.search(place, text, &cut, workspace, outcome);
            if is_last {
                return Ok(());
            }
            let shift = cut.to - LEFT;
            let passed = window.get(..shift).unwrap_or_default();
            cut.first_line += memchr::memchr_iter(b'\n', passed).count() as u64;
            cut.is_start = false;
            cut.from = LEFT;
            window.copy_within(shift..len, 0);
            len = fill(reader, window, len - shift)?;
        }
    }

    fn search(
        &self,
        place: Place<'_>,
        text: &[u8],
        cut: &Cut,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
    ) {
        let view =
            View { text, from: cut.from, to: cut.to, path: place.path, commit: place.commit };
        for hit in self.engine.search(&view, &mut workspace.scratch) {
            let secret = text.get(hit.span.clone()).unwrap_or_default();
            self.report(&hit, secret, hit.span.clone(), &view, cut, outcome);
        }
        for (span, decoded) in decode::texts(text) {
            if (cut.from..cut.to).contains(&span.start) {
                self.search_decoded(&decoded, &span, &view, cut, workspace, outcome, 1);
            }
        }
        if let Some(pack) = &self.pack {
            for found in pack.search(text, cut.from..cut.to) {
                let location = cut.location(place, text, &found.span);
                let finding = pack.finding(&found, location);
                match pack.claim(&found) {
                    Some(claim) => outcome.claimed.push((finding, claim)),
                    None => outcome.findings.push(finding),
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "where the text lies inside which other text")]
    fn search_decoded(
        &self,
        decoded: &[u8],
        outer: &Range<usize>,
        view: &View<'_>,
        cut: &Cut,
        workspace: &mut Workspace,
        outcome: &mut Outcome,
        depth: usize,
    ) {
        const MAX_DEPTH: usize = 2;
        let inner = View { text: decoded, from: 0, to: decoded.len(), ..*view };
        for hit in self.engine.search(&inner, &mut workspace.scratch) {
            let secret = decoded.get(hit.span.clone()).unwrap_or_default();
            self.report(&hit, secret, outer.clone(), view, cut, outcome);
        }
        if depth < MAX_DEPTH {
            for (_, deeper) in decode::texts(decoded) {
                self.search_decoded(&deeper, outer, view, cut, workspace, outcome, depth + 1);
            }
        }
    }

    fn report(
        &self,
        hit: &Hit,
        secret: &[u8],
        span: Range<usize>,
        view: &View<'_>,
        cut: &Cut,
        outcome: &mut Outcome,
    ) {
        let Some(rule) = self.engine.rules.rules.get(hit.rule) else { return };
        let place = Place { path: view.path, commit: view.commit, depth: 0 };
        let location = cut.location(place, view.text, &span);
        let fingerprint = self.fingerprinter.of(&[rule.id.as_bytes(), secret]);
        let found = finding(rule, mask(secret), location, fingerprint);
        match excuse(line_around(view.text, span.start)) {
            Some(reason) => outcome.accepted.push(Accepted { finding: found, reason }),
            None => outcome.findings.push(found),
        }
    }
}

fn finding(
    rule: &Rule,
    evidence: String,
    location: Location,
    fingerprint: crate::finding::Fingerprint,
) -> Finding {
    Finding {
        rule: rule.id.clone(),
        severity: rule.severity,
        title: rule.title.clone(),
        subject: None,
        evidence,
        location,
        fingerprint,
        why: Rule::why().into(),
        fix: rule.fix().into(),
        mappings: rule.mappings(),
    }
}

/// Which part of a file a window is.
struct Cut {
    from: usize,
    to: usize,
    /// Number of the line on which the window begins.
    first_line: u64,
    /// It begins where the file begins, so columns of its first line are known.
    is_start: bool,
}

impl Cut {
    fn location(&self, place: Place<'_>, text: &[u8], span: &Range<usize>) -> Location {
        let (line, column) = self.position(text, span.start);
        let (end_line, end_column) = self.position(text, span.end);
        let path = match place.commit {
            Some(commit) => format!("{commit}:{}", place.path),
            None => place.path.to_owned(),
        };
        let known = column > 0 && end_column > 0;
        let (column, end_column) = if known { (column, end_column) } else { (0, 0) };
        Location { path, line, column, end_line, end_column }
    }

    fn position(&self, text: &[u8], at: usize) -> (u64, u64) {
        let before = text.get(..at).unwrap_or_default();
        let line = self.first_line + memchr::memchr_iter(b'\n', before).count() as u64;
        let start = memchr::memrchr(b'\n', before).map(|found| found + 1);
        let column = match (start, self.is_start) {
            (None, false) => 0,
            (start, _) => {
                let line = before.get(start.unwrap_or(0)..).unwrap_or_default();
                String::from_utf8_lossy(line).chars().count() as u64 + 1
            }
        };
        (line, column)
    }
}

/// Why a line says itself that its secret is meant to be there.
fn excuse(line: &[u8]) -> Option<String> {
    const OURS: &[u8] = b"lastkey:allow ";
    const THEIRS: &[u8] = b"gitleaks:allow";
    if let Some(at) = memchr::memmem::find(line, OURS) {
        let reason = String::from_utf8_lossy(line.get(at + OURS.len()..)?).trim().to_owned();
        return (!reason.is_empty()).then(|| format!("the line says: {reason}"));
    }
    memchr::memmem::find(line, THEIRS).map(|_| "the line says gitleaks:allow".to_owned())
}

/// Reads until the buffer is full or the input ends; how much is in it then.
fn fill(reader: &mut dyn Read, buffer: &mut [u8], mut len: usize) -> io::Result<usize> {
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => len += count.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A zero byte near the beginning: no text.
fn is_binary(head: &[u8]) -> bool {
    const NEAR: usize = 8 << 10;
    memchr::memchr(0, head.get(..NEAR).unwrap_or(head)).is_some()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{LEFT, Options, Outcome, RIGHT, Scanner, WINDOW, Workspace};
    use crate::{finding::Fingerprinter, scan::Rules};

    const RULE: &str =
        "[[rules]]\nid = 'r'\nregex = '''\\bkey_([a-z0-9]{8})\\b'''\nkeywords = ['key_']\n";

    fn scan(mut content: impl Read) -> Outcome {
        let rules = Rules::import(RULE, &mut |_| Err(String::new())).unwrap();
        let scanner =
            Scanner::new(rules, Fingerprinter::unkeyed(), None, Options::default()).unwrap();
        let mut outcome = Outcome::default();
        scanner.scan("f", None, &mut content, &mut Workspace::default(), &mut outcome);
        outcome
    }

    #[test]
    fn secret_is_found_once_wherever_windows_meet() {
        let step = WINDOW - RIGHT;
        for near in [step - 20, step, WINDOW - 6, WINDOW, step + LEFT, 2 * step] {
            for at in near - 12..near + 4 {
                let mut text = vec![b'\n'; 3 * WINDOW];
                text[at..at + 12].copy_from_slice(b"key_ab12cd34");
                let outcome = scan(text.as_slice());
                assert_eq!(outcome.findings.len(), 1, "{at}");
                let location = &outcome.findings[0].location;
                assert_eq!((location.line, location.column), (at as u64 + 1, 5), "{at}");
                assert_eq!(outcome.bytes, 3 * WINDOW as u64);
            }
        }
    }

    #[test]
    fn two_gigabytes_cost_one_window() {
        // 64 MiB stand for them: the window is the only buffer whatever the length.
        let zeros = std::io::repeat(b'.').take(64 << 20);
        let outcome = scan(zeros.chain(&b"\nkey_ab12cd34"[..]));
        assert_eq!(outcome.findings.len(), 1);
        assert_eq!(outcome.bytes, (64 << 20) + 13);
    }

    #[test]
    fn binary_is_left_and_counted() {
        let outcome = scan(&b"\x7fELF\0\0\0 key_ab12cd34"[..]);
        assert!(outcome.findings.is_empty());
        assert_eq!((outcome.binaries, outcome.files), (1, 0));
    }

    #[test]
    fn wide_text_is_read() {
        let text = "\u{feff}pair \u{1f511}\nkey_ab12cd34\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [little, big] {
            let outcome = scan(bytes.as_slice());
            assert_eq!(outcome.findings.len(), 1);
            assert_eq!(outcome.findings[0].location.line, 2);
        }
    }

    #[test]
    fn wide_text_is_read_to_its_end() {
        let text = format!("\u{feff}{}key_ab12cd34\n", "\u{20ac}.\n".repeat(WINDOW / 2));
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let outcome = scan(wide.as_slice());
        assert_eq!(outcome.findings.len(), 1);
        assert_eq!(outcome.bytes, text.len() as u64);
    }

    #[test]
    fn line_may_excuse_its_secret_with_a_reason() {
        let outcome = scan(&b"key_ab12cd34 # lastkey:allow a test vector\n"[..]);
        assert!(outcome.findings.is_empty());
        assert_eq!(outcome.accepted[0].reason, "the line says: a test vector");
        assert_eq!(scan(&b"key_ab12cd34 # lastkey:allow  \n"[..]).findings.len(), 1);
        assert_eq!(scan(&b"key_ab12cd34 # gitleaks:allow\n"[..]).accepted.len(), 1);
    }

    #[test]
    fn broken_reader_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("disk on fire"))
            }
        }
        let outcome = scan(Broken);
        assert!(outcome.not_checked[0].reason.contains("disk on fire"));
        let outcome = scan((&b"key_ab12cd34 "[..]).chain(Broken));
        assert_eq!(outcome.not_checked.len(), 1);
    }

    #[test]
    fn finding_never_holds_the_secret() {
        let outcome = scan(&b"key_ab12cd34"[..]);
        assert!(!format!("{:?}", outcome.findings).contains("ab12cd34"));
    }
}
