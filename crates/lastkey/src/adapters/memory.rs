//! What a node remembers of an installation: enough to know an older state of it.
//!
//! Room      the binary. Under `servers`; the server compares.
//! Source    docs/backup.md, "An older state".
//! Holds     A state that does not continue the remembered one is believed only after an operator has
//!           said that it is meant, and that it was refused outlives the process. The file is whole
//!           at every moment, and holds no secret.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use lastkey_client::file::{PendingFile, Replace};
use lastkey_wire::native::system::{ContinuityReply, RememberedState};
use lastkey_wire::words::Standing;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long a comparison is good for: less than there is between two looks at a key, so that each
/// look begins with one.
const FRESH: Duration = Duration::from_secs(1);
/// Between two writes of the file.
const WRITES: Duration = Duration::from_secs(60);

/// What is remembered, in memory and in a file beside the certificate of the node.
#[derive(Debug)]
pub(super) struct Memory {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The file was read, or is not there.
    is_loaded: bool,
    state: Option<RememberedState>,
    /// What to tell a person of an older state that the servers were last found in.
    refused: Option<String>,
    /// There is a file, as far as is known.
    is_written: bool,
    /// When the servers were last found to continue it; none after a failure.
    compared: Option<Instant>,
    /// When the file was last written, or that was tried.
    written: Option<Instant>,
    /// It was said that the file cannot be written.
    has_complained: bool,
    /// What was said last of servers that do not continue it; none since they did.
    said: Option<Break>,
}

/// Why servers do not continue what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Older,
    Foreign,
    Unreadable,
}

impl Break {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Older => "the key service is in an older state than was known here",
            Self::Foreign => "the key service is another installation than was known here",
            Self::Unreadable => "what was known here of the key service cannot be read",
        }
    }
}

/// The file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    state: RememberedState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// The file of what a node with this certificate remembers.
pub(crate) fn remembered_beside(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".remembered");
    PathBuf::from(name)
}

impl Memory {
    /// What a node with this certificate remembers; without one, nothing outlives the process.
    pub(super) fn beside(identity: Option<&Path>) -> Self {
        Self { file: identity.map(remembered_beside), known: Mutex::default() }
    }

    /// Whether the servers were compared with it a moment ago, and continued it.
    pub(super) fn is_fresh(&self) -> bool {
        self.lock().compared.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// The next call compares again: another server may answer it, or the same one after a restart.
    pub(super) fn doubt(&self) {
        self.lock().compared = None;
    }

    /// What is remembered.
    ///
    /// # Errors
    /// What to tell a person, when the file is there and cannot be read: who wrote it may have
    /// known a newer state.
    pub(super) fn state(&self) -> Result<Option<RememberedState>, String> {
        let mut known = self.lock();
        if !known.is_loaded {
            match self.file.as_deref().map_or(Ok(None), read) {
                Ok(None) => known.is_loaded = true,
                Ok(Some(Written { state, refused })) => {
                    (known.is_loaded, known.is_written) = (true, true);
                    (known.state, known.refused) = (Some(state), refused);
                }
                Err(error) => {
                    return Err(known.refuse(Break::Unreadable, format!("{error:#}")));
                }
            }
        }
        Ok(known.state.clone())
    }

    /// What to tell a person, when the servers were last found in an older state. Nobody has said
    /// since that this is meant, so their silence is no outage.
    pub(super) fn refused(&self) -> Option<String> {
        match self.state() {
            Ok(_) => self.lock().refused.clone(),
            Err(message) => Some(message),
        }
    }

    /// Takes what the servers say of it.
    ///
    /// # Errors
    /// What to tell a person, when their state is an older one, or that of another installation.
    pub(super) async fn take(&self, reply: ContinuityReply) -> Result<(), String> {
        let ContinuityReply { standing, problem, state } = reply;
        let is_accepted = match standing {
            Standing::Continues => false,
            Standing::Accepted => true,
            Standing::Older => {
                let message = older(problem.as_deref());
                if self.lock().refuse_older(&message) {
                    self.write().await;
                }
                return Err(message);
            }
            Standing::Foreign => return Err(self.foreign()),
        };
        if is_accepted {
            let number = state.rollback;
            tracing::warn!(number, "an older state of the key service was said to be meant");
        }
        if self.keep(state, is_accepted) {
            self.write().await;
        }
        Ok(())
    }

    /// Remembers a state; whether it is time to write it down.
    fn keep(&self, state: RememberedState, at_once: bool) -> bool {
        let (mut known, now) = (self.lock(), Instant::now());
        (known.is_loaded, known.state) = (true, Some(state));
        (known.compared, known.said) = (Some(now), None);
        let was_refused = known.refused.take().is_some();
        let at_once = at_once || was_refused;
        let is_due = at_once || known.written.is_none_or(|at| at.elapsed() >= WRITES);
        if is_due {
            known.written = Some(now);
        }
        is_due
    }

    /// It is another installation. That is meant when somebody has removed the file, as joining
    /// again does; then the next question is the first one.
    fn foreign(&self) -> String {
        let mut known = self.lock();
        let (next, is_removed) = match &self.file {
            Some(file) => {
                let is_there = std::fs::exists(file).unwrap_or(true);
                let next = format!("join it again, or remove {}", file.display());
                (next, known.is_written && !is_there)
            }
            None => ("start this again".to_owned(), false),
        };
        let message = format!("it is another installation than before. If that is meant, {next}");
        let message = known.refuse(Break::Foreign, message);
        if is_removed {
            *known = Known::default();
        }
        message
    }

    /// A folder that cannot be written to stops nobody: the process remembers for its own life.
    async fn write(&self) {
        let (Some(file), Ok(Some(state))) = (self.file.clone(), self.state()) else { return };
        let (name, refused) = (file.display().to_string(), self.lock().refused.clone());
        let content = Written { state, refused };
        let written = tokio::task::spawn_blocking(move || write(&file, &content)).await;
        let error = written.map_err(anyhow::Error::from).flatten().err();
        let Some(error) = error else {
            let mut known = self.lock();
            (known.is_written, known.has_complained) = (true, false);
            return;
        };
        if !std::mem::replace(&mut self.lock().has_complained, true) {
            let error = format!("{error:#}");
            tracing::warn!(
                file = name,
                error,
                "cannot be written: an older state of the key service is noticed only until this \
                 is restarted"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Says it in the log, once.
    fn refuse(&mut self, why: Break, message: String) -> String {
        self.compared = None;
        if self.said.replace(why) != Some(why) {
            tracing::error!(message, "{}", why.as_str());
        }
        message
    }

    /// The same, and remembers it; whether that is to be written down.
    fn refuse_older(&mut self, message: &str) -> bool {
        self.refuse(Break::Older, message.to_owned());
        self.refused.replace(message.to_owned()).is_none()
    }
}

fn older(problem: Option<&str>) -> String {
    let problem = problem.unwrap_or("remembers more than there is");
    format!("this node {problem}. If that is meant, start the server with --accept-rollback once")
}

fn read(file: &Path) -> anyhow::Result<Option<Written>> {
    let name = file.display();
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!(
                "{name} is not what this node remembers of the key service. See that the service \
                 is in its newest state, then remove the file"
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {name}")),
    }
}

fn write(file: &Path, content: &Written) -> anyhow::Result<()> {
    let pending = PendingFile::create(file, Replace::Allow)?;
    pending.handle()?.write_all(&serde_json::to_vec(content)?)?;
    Ok(pending.keep(None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(commits: u64, rollback: u64) -> RememberedState {
        RememberedState { checkpoint: "signed\n".to_owned(), commits, rollback }
    }

    fn reply(standing: Standing, state: RememberedState) -> ContinuityReply {
        let problem = Some("remembers 9 records and the log has 8: the log was cut".to_owned());
        ContinuityReply { standing, problem, state }
    }

    #[tokio::test]
    async fn what_continues_is_remembered_beside_the_certificate_and_what_is_older_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let memory = Memory::beside(Some(&identity));
        assert_eq!(memory.state(), Ok(None));
        memory.take(reply(Standing::Continues, state(7, 0))).await.unwrap();
        assert!(memory.is_fresh());
        let again = || Memory::beside(Some(&identity)).state();
        assert_eq!(again(), Ok(Some(state(7, 0))));
        for (standing, words, said) in [
            (Standing::Older, "the log was cut", "an older state"),
            (Standing::Foreign, "remove", "another installation"),
        ] {
            let refused = memory.take(reply(standing, state(3, 0))).await.unwrap_err();
            assert!(refused.contains(words), "{refused}");
            assert!(!memory.is_fresh());
            let known = memory.lock().said.unwrap();
            assert!(known.as_str().contains(said), "{known:?}");
        }
        assert_eq!((again(), memory.state()), (Ok(Some(state(7, 0))), Ok(Some(state(7, 0)))));
        // The word is written down at once, so that it is not needed again.
        memory.take(reply(Standing::Accepted, state(3, 5))).await.unwrap();
        assert_eq!((again(), memory.is_fresh()), (Ok(Some(state(3, 5))), true));
    }

    #[tokio::test]
    async fn an_older_state_that_was_refused_is_remembered_until_one_continues_or_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let memory = Memory::beside(Some(&identity));
        let again = || Memory::beside(Some(&identity)).refused();
        for (standing, now) in
            [(Standing::Continues, state(7, 0)), (Standing::Accepted, state(3, 5))]
        {
            memory.take(reply(Standing::Continues, now.clone())).await.unwrap();
            assert_eq!((again(), memory.refused()), (None, None));
            let older = memory.take(reply(Standing::Older, state(2, 0))).await.unwrap_err();
            assert_eq!((again(), memory.refused()), (Some(older.clone()), Some(older)));
            assert_eq!(Memory::beside(Some(&identity)).state(), Ok(Some(now.clone())));
            memory.take(reply(standing, now)).await.unwrap();
            assert_eq!((again(), memory.refused()), (None, None));
        }
    }

    #[tokio::test]
    async fn another_installation_is_begun_with_once_the_file_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let file = remembered_beside(&identity);
        let memory = Memory::beside(Some(&identity));
        memory.take(reply(Standing::Continues, state(7, 0))).await.unwrap();
        let foreign = async || memory.take(reply(Standing::Foreign, state(1, 0))).await;
        foreign().await.unwrap_err();
        assert_eq!(memory.state(), Ok(Some(state(7, 0))));
        std::fs::remove_file(&file).unwrap();
        // What is older is refused as before.
        memory.take(reply(Standing::Older, state(1, 0))).await.unwrap_err();
        assert_eq!(memory.state(), Ok(Some(state(7, 0))));
        std::fs::remove_file(&file).unwrap();
        foreign().await.unwrap_err();
        assert_eq!((memory.state(), file.exists()), (Ok(None), false));
        memory.take(reply(Standing::Continues, state(1, 0))).await.unwrap();
        assert_eq!(Memory::beside(Some(&identity)).state(), Ok(Some(state(1, 0))));
    }

    #[tokio::test]
    async fn a_file_that_never_was_is_not_one_that_was_removed() {
        for identity in [None, Some(Path::new("/proc/nowhere/node.pem"))] {
            let memory = Memory::beside(identity);
            memory.take(reply(Standing::Continues, state(7, 0))).await.unwrap();
            memory.take(reply(Standing::Foreign, state(1, 0))).await.unwrap_err();
            assert_eq!(memory.state(), Ok(Some(state(7, 0))));
        }
    }

    #[tokio::test]
    async fn what_a_later_version_remembers_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let text = r#"{"checkpoint": "signed\n", "commits": 7, "rollback": 0, "later": [1]}"#;
        std::fs::write(remembered_beside(&identity), text).unwrap();
        assert_eq!(Memory::beside(Some(&identity)).state(), Ok(Some(state(7, 0))));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("node.pem");
        let file = folder.path().join("node.pem.remembered");
        let memory = Memory::beside(Some(&identity));
        for damaged in ["", "{", r#"{"checkpoint": "a", "commits": 1}"#, "[]"] {
            std::fs::write(&file, damaged).unwrap();
            let refused = memory.state().unwrap_err();
            assert!(refused.contains("node.pem.remembered"), "{refused}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(memory.state(), Ok(None));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_to_stops_nobody() {
        let memory = Memory::beside(Some(Path::new("/proc/nowhere/node.pem")));
        memory.take(reply(Standing::Continues, state(7, 0))).await.unwrap();
        assert_eq!(memory.state(), Ok(Some(state(7, 0))));
    }
}
