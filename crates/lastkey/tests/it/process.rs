//! Child processes: the command line to its end, and servers that are watched while they run.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_lastkey");

/// Longer than anything here takes on a machine that does much else; only what hangs is caught by it.
pub(crate) const HANG: Duration = Duration::from_secs(300);

/// Until something is so. Looks so seldom that those who are waited for get on.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANG, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The text of a command that must have succeeded, without its line end.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.text(), self.stderr);
        self.text().trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The complaint of a command that must have failed with this exit code.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}\n{}", self.text(), self.stderr);
        assert!(!self.stderr.trim().is_empty(), "it failed and said nothing");
        &self.stderr
    }
}

/// A command without anything that the environment of the tests says of a server.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in ["LASTKEY_ADDR", "LASTKEY_TOKEN", "LASTKEY_CA", "LASTKEY_CA_FINGERPRINT"] {
        command.env_remove(name);
    }
    command
}

/// `lastkey` with arguments.
pub(crate) fn lastkey<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = command(BINARY);
    command.args(arguments);
    command
}

/// Runs a command to its end with these bytes on standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let id = child.id();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that needs no input, or refuses it, closes the pipe early.
            let _ = stdin.write_all(input);
        });
        let (sender, ended) = mpsc::channel();
        scope.spawn(move || {
            // Nobody listens any more to a command that was given up.
            let _ = sender.send(child.wait_with_output().unwrap());
        });
        let in_time = ended.recv_timeout(HANG);
        if in_time.is_err() {
            kill(id, Signal::KILL);
        }
        Ended::of(in_time.unwrap_or_else(|_| panic!("{command:?} does not end")))
    })
}

fn kill(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

/// What a process has said so far on one of its outputs.
#[derive(Clone, Default)]
struct Said(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    closed: bool,
}

impl Said {
    fn listen(mut source: impl Read + Send + 'static) -> Self {
        let said = Self::default();
        let heard = said.clone();
        std::thread::spawn(move || {
            let mut part = [0; 8_192];
            loop {
                let len = source.read(&mut part).unwrap_or(0);
                let mut state = heard.0.0.lock().unwrap();
                state.bytes.extend_from_slice(&part[..len]);
                state.closed = len == 0;
                heard.0.1.notify_all();
                if len == 0 {
                    return;
                }
            }
        });
        said
    }

    fn all(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().bytes.clone()
    }

    /// Waits for the end of the output, and answers all of it.
    fn to_end(&self, within: Duration) -> Vec<u8> {
        let state = self.0.0.lock().unwrap();
        let (state, wait) = self.0.1.wait_timeout_while(state, within, |s| !s.closed).unwrap();
        assert!(!wait.timed_out(), "the output does not end");
        state.bytes.clone()
    }

    /// Waits for a line that holds these words; `None` when the output ended without.
    fn line_with(&self, words: &str) -> Option<String> {
        let found = |heard: &Heard| {
            let text = String::from_utf8_lossy(&heard.bytes);
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().find(|line| line.contains(words)).map(str::to_owned)
        };
        let state = self.0.0.lock().unwrap();
        let waiting = |s: &mut Heard| found(s).is_none() && !s.closed;
        let (state, wait) = self.0.1.wait_timeout_while(state, HANG, waiting).unwrap();
        assert!(!wait.timed_out(), "no line with {words:?}");
        found(&state)
    }
}

/// A process that runs until it is stopped; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Said,
    stderr: Said,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// The same with something as its standard input.
    pub(crate) fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Said::listen(child.stdout.take().unwrap());
        let stderr = Said::listen(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output; `None` when the process ended without.
    pub(crate) fn says(&self, words: &str) -> Option<String> {
        self.stdout.line_with(words)
    }

    /// What stands on standard output by now.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.stdout.all()).into_owned()
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub(crate) fn logs(&self, words: &str) -> String {
        let line = self.stderr.line_with(words);
        line.unwrap_or_else(|| panic!("no {words:?} in {}", self.complaint()))
    }

    /// What stands on standard error by now.
    pub(crate) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr.all()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Whether it is still there.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.ended_within(HANG)
    }

    /// The same of one that takes its time.
    pub(crate) fn ended_within(&mut self, most: Duration) -> ExitStatus {
        self.stdout.to_end(most);
        self.child.wait().unwrap()
    }

    /// Everything that it wrote on standard output and standard error, once it has ended.
    pub(crate) fn output(&self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.to_end(HANG), self.stderr.to_end(HANG))
    }

    /// SIGTERM, and a clean end.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{}", self.complaint());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says that a test cannot run here, past the harness, which hides what a passing test prints.
pub(crate) fn not_run(why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {why}");
}

/// Below the folder of the build: where scripts/setup puts things.
pub(crate) fn set_up(name: &str) -> Option<PathBuf> {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let path = build.join(name);
    path.exists().then_some(path)
}

/// Names of what lies in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Builds a program of Go in a folder of the repository; a sentence when that cannot be here.
pub(crate) fn go_build(module: &str, path: &Path) -> Result<(), String> {
    go_build_package(module, ".", path)
}

/// The same of a package that the module names.
pub(crate) fn go_build_package(module: &str, package: &str, path: &Path) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(module);
    let mut go = Command::new("go");
    // Whoever finds it finds all of it.
    let new = path.with_extension("new");
    go.args(["build", "-ldflags=-s -w", "-o"]).arg(&new).arg(package).current_dir(folder);
    match go.output() {
        Err(error) => Err(format!("needs Go 1.26 or later ({error})")),
        Ok(ended) if ended.status.success() => {
            std::fs::rename(new, path).unwrap();
            Ok(())
        }
        Ok(ended) => {
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            // Without its modules, or with an older Go, there is nothing to test.
            let missing = [
                "dial tcp",
                "requires go >=",
                "no such host",
                "handshake timeout",
                "i/o timeout",
                "unexpected EOF",
                "connection reset",
                "Bad Gateway",
            ];
            assert!(missing.iter().any(|it| said.contains(it)), "{module}: {said}");
            Err(said)
        }
    }
}
