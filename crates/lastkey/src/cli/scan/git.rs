//! Git: every version of every file, each once, and the commit that brought it.
//!
//! Room      `lastkey`. Asks the `git` of this machine; a library of our own would be many times
//!           as much code as the rest of the scanner.
//! Holds     Git runs with nothing that could execute a program of the repository or reach the
//!           network: no hooks, no file monitor, no lazy fetching, no transport.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use lastkey_checks::scan::{Outcome, Scanner, Workspace};

use super::super::{failure::Failure, progress::Spinner};

/// Which objects are scanned.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    /// All that any reference reaches.
    All,
    /// What the commits of a range brought.
    Range(&'a str),
    /// What is staged.
    Staged,
}

/// An object, and a path under which it was committed.
struct Object {
    id: String,
    path: String,
}

/// Objects up to this size are handed to another thread whole, in bytes.
const HANDED_OVER: u64 = 4 << 20;

/// Scans objects of a repository.
///
/// # Errors
/// When git is not there, or the folder is no repository. Missing objects are in the outcome.
pub(super) fn scan(
    scanner: &Scanner,
    repository: &Path,
    part: Part<'_>,
    threads: usize,
    spinner: &Spinner,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let objects = match part {
        Part::Staged => staged(repository)?,
        Part::All => reachable(repository, "--all", &mut outcome)?,
        Part::Range(range) if range.starts_with('-') => {
            return Err(Failure::Usage("--range is no range of commits".to_owned()));
        }
        Part::Range(range) => reachable(repository, range, &mut outcome)?,
    };
    let found = scan_objects(scanner, repository, objects, threads, spinner)?;
    attribute(repository, part, found, &mut outcome);
    Ok(outcome)
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(repository)
        .args(["--no-replace-objects", "--no-optional-locks", "--literal-pathspecs"])
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "protocol.allow=never", "-c", "core.quotePath=false"])
        .args(["-c", "log.showSignature=false", "-c", "diff.external="])
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn asking(cause: io::Error) -> Failure {
    if cause.kind() == io::ErrorKind::NotFound {
        return Failure::Input("git is not installed; `lastkey scan PATH` needs none".to_owned());
    }
    Failure::io("ask git", cause)
}

fn refused(stderr: &[u8]) -> Failure {
    Failure::Input(format!("git refuses: {}", String::from_utf8_lossy(stderr).trim()))
}

/// The objects of a listing, `ID PATH` a line; `?ID` is one that is missing.
fn reachable(repository: &Path, what: &str, outcome: &mut Outcome) -> Result<Vec<Object>, Failure> {
    let listing = git(repository)
        .args(["rev-list", "--objects", "--missing=print", what, "--"])
        .output()
        .map_err(asking)?;
    if !listing.status.success() {
        // A commit that is missing ends the walk; what is there can still be looked at.
        let all = git(repository)
            .args(["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"])
            .output()
            .map_err(asking)?;
        if !all.status.success() || all.stdout.is_empty() || matches!(what, w if w != "--all") {
            return Err(refused(&listing.stderr));
        }
        let reason = String::from_utf8_lossy(&listing.stderr).trim().to_owned();
        outcome.miss(&repository.display().to_string(), format!("history is not whole: {reason}"));
        return Ok(objects(&all.stdout, outcome));
    }
    Ok(objects(&listing.stdout, outcome))
}

fn objects(listing: &[u8], outcome: &mut Outcome) -> Vec<Object> {
    let mut objects = Vec::new();
    for line in String::from_utf8_lossy(listing).lines() {
        if let Some(missing) = line.strip_prefix('?') {
            outcome.miss(&format!("git object {missing}"), "it is missing from the repository");
            continue;
        }
        let (id, path) = line.split_once(' ').unwrap_or((line, ""));
        objects.push(Object { id: id.to_owned(), path: path.to_owned() });
    }
    objects
}

/// What differs between the index and the last commit.
fn staged(repository: &Path) -> Result<Vec<Object>, Failure> {
    let listing = git(repository)
        .args(["diff", "--cached", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff"])
        .args(["--diff-filter=ACMT", "-z"])
        .output()
        .map_err(asking)?;
    if !listing.status.success() {
        return Err(refused(&listing.stderr));
    }
    let text = String::from_utf8_lossy(&listing.stdout);
    let mut fields = text.split('\0');
    let mut objects = Vec::new();
    while let (Some(about), Some(path)) = (fields.next(), fields.next()) {
        let mut words = about.split(' ');
        let mode = words.nth(1).unwrap_or_default();
        let id = words.nth(1).unwrap_or_default();
        let is_submodule = mode == "160000";
        if !is_submodule {
            objects.push(Object { id: id.to_owned(), path: path.to_owned() });
        }
    }
    Ok(objects)
}

/// Findings by the object in which they are.
type Found = Vec<(Object, Outcome)>;

fn scan_objects(
    scanner: &Scanner,
    repository: &Path,
    objects: Vec<Object>,
    threads: usize,
    spinner: &Spinner,
) -> Result<Found, Failure> {
    let mut child = git(repository)
        .args(["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(asking)?;
    let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::Input("git took no input".to_owned()));
    };
    let found = Mutex::new(Vec::new());
    let (sender, receiver) = sync_channel::<(Object, Vec<u8>)>(threads * 4);
    let receiver = Mutex::new(receiver);
    let read = thread::scope(|scope| {
        let ids: Vec<String> = objects.iter().map(|object| object.id.clone()).collect();
        scope.spawn(move || ask(requests, &ids));
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(scanner, &receiver, &found, spinner));
        }
        let mut answers = Answers { scanner, from: BufReader::with_capacity(1 << 18, answers) };
        let outcome = answers.read_all(objects, &sender, &found);
        drop(sender);
        outcome
    });
    end(&mut child);
    read.map_err(|cause| Failure::io("read what git answers", cause))?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn end(child: &mut Child) {
    // It has nothing more to say; if it is still there, it waits for us.
    let _ = child.kill();
    let _ = child.wait();
}

fn ask(mut requests: ChildStdin, ids: &[String]) {
    for id in ids {
        // Git is gone: the reader of its answers notices and says so.
        if writeln!(requests, "{id}").is_err() {
            return;
        }
    }
}

fn work(
    scanner: &Scanner,
    receiver: &Mutex<Receiver<(Object, Vec<u8>)>>,
    found: &Mutex<Found>,
    spinner: &Spinner,
) {
    let mut workspace = Workspace::default();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((object, content)) = next else { return };
        let mut outcome = Outcome::default();
        scanner.scan(name_of(&object), None, &mut content.as_slice(), &mut workspace, &mut outcome);
        spinner.add(outcome.bytes);
        found.lock().unwrap_or_else(PoisonError::into_inner).push((object, outcome));
    }
}

fn name_of(object: &Object) -> &str {
    if object.path.is_empty() { "commit message" } else { &object.path }
}

struct Answers<'s> {
    scanner: &'s Scanner,
    from: BufReader<ChildStdout>,
}

impl Answers<'_> {
    fn read_all(
        &mut self,
        objects: Vec<Object>,
        sender: &SyncSender<(Object, Vec<u8>)>,
        found: &Mutex<Found>,
    ) -> io::Result<()> {
        let mut workspace = Workspace::default();
        for object in objects {
            let mut header = String::new();
            if self.from.read_line(&mut header)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut words = header.split_whitespace();
            let (kind, len) = (words.nth(1).unwrap_or_default(), words.next());
            let Some(len) = len.and_then(|len| len.parse::<u64>().ok()) else {
                let mut outcome = Outcome::default();
                outcome.miss(&format!("git object {}", object.id), "it is missing or damaged");
                found.lock().unwrap_or_else(PoisonError::into_inner).push((object, outcome));
                continue;
            };
            let is_wanted = kind != "tree" && !self.scanner.skips(name_of(&object));
            self.read_one(object, len, is_wanted, sender, found, &mut workspace)?;
            self.from.read_exact(&mut [0])?;
        }
        Ok(())
    }

    fn read_one(
        &mut self,
        object: Object,
        len: u64,
        is_wanted: bool,
        sender: &SyncSender<(Object, Vec<u8>)>,
        found: &Mutex<Found>,
        workspace: &mut Workspace,
    ) -> io::Result<()> {
        let mut content = (&mut self.from).take(len);
        if !is_wanted {
            io::copy(&mut content, &mut io::sink())?;
        } else if len <= HANDED_OVER {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            if bytes.len() as u64 != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // The workers end only after this side.
            let _ = sender.send((object, bytes));
        } else {
            let mut outcome = Outcome::default();
            self.scanner.scan(name_of(&object), None, &mut content, workspace, &mut outcome);
            io::copy(&mut content, &mut io::sink())?;
            found.lock().unwrap_or_else(PoisonError::into_inner).push((object, outcome));
        }
        Ok(())
    }
}

/// Adds all up, and names for each finding the first commit that has it.
fn attribute(repository: &Path, part: Part<'_>, found: Found, total: &mut Outcome) {
    let has_findings =
        |outcome: &Outcome| !(outcome.findings.is_empty() && outcome.accepted.is_empty());
    let wanted: BTreeSet<&str> = found
        .iter()
        .filter(|(_, outcome)| has_findings(outcome))
        .map(|(object, _)| object.id.as_str())
        .collect();
    let commits = match part {
        Part::Staged => BTreeMap::new(),
        Part::All => first_commits(repository, "--all", &wanted),
        Part::Range(range) => first_commits(repository, range, &wanted),
    };
    for (object, mut outcome) in found {
        let name = match (commits.get(&object.id), part) {
            (Some(commit), _) => commit.clone(),
            (None, Part::Staged) => "staged".to_owned(),
            (None, Part::All | Part::Range(_)) => short(&object.id),
        };
        let accepted = outcome.accepted.iter_mut().map(|accepted| &mut accepted.finding);
        for finding in outcome.findings.iter_mut().chain(accepted) {
            finding.location.path = format!("{name}:{}", finding.location.path);
        }
        total.absorb(outcome);
    }
}

fn short(id: &str) -> String {
    const LEN: usize = 12;
    id.chars().take(LEN).collect()
}

/// For each object the oldest commit that has it, by one walk through the history.
fn first_commits(
    repository: &Path,
    what: &str,
    wanted: &BTreeSet<&str>,
) -> BTreeMap<String, String> {
    let mut commits = BTreeMap::new();
    if wanted.is_empty() {
        return commits;
    }
    let log = git(repository)
        .args(["log", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--root"])
        .args(["--diff-merges=first-parent", "--format=commit %H", what, "--"])
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut log) = log else { return commits };
    let mut current = String::new();
    for line in
        log.stdout.take().map(BufReader::new).into_iter().flat_map(|lines| lines.split(b'\n'))
    {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        if let Some(id) = line.strip_prefix("commit ") {
            current = short(id);
        } else if let Some(id) = line.split(' ').nth(3).filter(|id| wanted.contains(id)) {
            // From the newest to the oldest: the last one that is seen brought it.
            commits.insert(id.to_owned(), current.clone());
        }
    }
    end(&mut log);
    commits
}
