//! What a node remembers of an installation: enough to know an older state of it.
//!
//! Room      the binary. Under `servers`; the server compares.
//! Source    docs/backup.md, "An older state".
//! Holds     A state that does not continue the remembered one is believed only after an operator has
//!           said that it is meant. The file is whole at every moment, and holds no secret.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use lastkey_client::file::{PendingFile, Replace};
use lastkey_wire::native::system::{ContinuityReply, RememberedState};
use lastkey_wire::words::Standing;
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
    /// When the servers were last found to continue it; none after a failure.
    compared: Option<Instant>,
    /// When the file was last written, or that was tried.
    written: Option<Instant>,
    /// It was said that the file cannot be written.
    has_complained: bool,
    /// It was said that the servers are in an older state.
    is_older: bool,
}

impl Memory {
    /// What a node with this certificate remembers; without one, nothing outlives the process.
    pub(super) fn beside(identity: Option<&Path>) -> Self {
        let file = identity.map(|identity| {
            let mut name = identity.as_os_str().to_owned();
            name.push(".remembered");
            PathBuf::from(name)
        });
        Self { file, known: Mutex::default() }
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
                Ok(state) => (known.is_loaded, known.state) = (true, state),
                Err(error) => return Err(known.refuse(format!("{error:#}"))),
            }
        }
        Ok(known.state.clone())
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
            Standing::Older => return Err(self.lock().refuse(older(problem.as_deref()))),
            Standing::Foreign => return Err(self.lock().refuse(self.foreign())),
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
        (known.compared, known.is_older) = (Some(now), false);
        let is_due = at_once || known.written.is_none_or(|at| at.elapsed() >= WRITES);
        if is_due {
            known.written = Some(now);
        }
        is_due
    }

    fn foreign(&self) -> String {
        let next = match &self.file {
            Some(file) => format!("remove {} and start this again", file.display()),
            None => "start this again".to_owned(),
        };
        format!("it is another installation than before. If that is meant, {next}")
    }

    /// A folder that cannot be written to stops nobody: the process remembers for its own life.
    async fn write(&self) {
        let (Some(file), Ok(Some(state))) = (self.file.clone(), self.state()) else { return };
        let name = file.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&file, &state)).await;
        let error = written.map_err(anyhow::Error::from).flatten().err();
        let Some(error) = error else {
            self.lock().has_complained = false;
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
    fn refuse(&mut self, message: String) -> String {
        self.compared = None;
        if !std::mem::replace(&mut self.is_older, true) {
            tracing::error!(message, "the key service is in an older state than was known here");
        }
        message
    }
}

fn older(problem: Option<&str>) -> String {
    let problem = problem.unwrap_or("remembers more than there is");
    format!(
        "this node {problem}. If that is meant, start the server with --accept-rollback once, or \
         restore with it"
    )
}

fn read(file: &Path) -> anyhow::Result<Option<RememberedState>> {
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

fn write(file: &Path, state: &RememberedState) -> anyhow::Result<()> {
    let pending = PendingFile::create(file, Replace::Allow)?;
    pending.handle()?.write_all(&serde_json::to_vec(state)?)?;
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
        for (standing, words) in
            [(Standing::Older, "the log was cut"), (Standing::Foreign, "remove")]
        {
            let refused = memory.take(reply(standing, state(3, 0))).await.unwrap_err();
            assert!(refused.contains(words), "{refused}");
            assert!(!memory.is_fresh());
        }
        assert_eq!((again(), memory.state()), (Ok(Some(state(7, 0))), Ok(Some(state(7, 0)))));
        // The word is written down at once, so that it is not needed again.
        memory.take(reply(Standing::Accepted, state(3, 5))).await.unwrap();
        assert_eq!((again(), memory.is_fresh()), (Ok(Some(state(3, 5))), true));
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
