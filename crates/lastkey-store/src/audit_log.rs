//! The audit log as a file: one JSON object a line, written in groups.
//!
//! Room      `store`. Implements the `Audit` port of `core`.
//! Source    docs/formats/audit-log.md.
//! Holds     when the log cannot be written, or falls too far behind, every further event is
//!           refused: the caller must then refuse the operation. Nothing is ever dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::audit::Event;
use lastkey_core::ports::{Audit, Cause};
use tokio::sync::oneshot;

use self::line::write_line;

mod line;

/// Limits of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// A file that has grown to this many bytes is closed and a new one begun.
    pub file_len: u64,
    /// So many closed files are kept; older ones are deleted.
    pub closed_files: usize,
}

impl AuditLimits {
    /// Nothing is closed and nothing deleted: for commands that do not know the configuration.
    pub const KEEP_ALL: Self = Self { file_len: u64::MAX, closed_files: usize::MAX };
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { file_len: 64 << 20, closed_files: 64 }
    }
}

/// Why an event was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be written. It is tried again with every group.
    #[error("the audit log cannot be written: {0}")]
    Failing(String),
    /// More events are waiting than memory is kept for.
    #[error("the audit log is too far behind")]
    Behind,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

/// Most bytes that wait for the writer.
const MAX_PENDING_LEN: usize = 16 << 20;
/// How long the writer lets a group grow when nobody waits for it.
const LINGER: Duration = Duration::from_millis(5);
/// How long it waits before it tries a failing file again.
const RETRY: Duration = Duration::from_millis(500);
const CURRENT: &str = "audit.jsonl";

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    waiting: Vec<oneshot::Sender<Result<(), AuditError>>>,
    failing: Option<String>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The audit log of a data directory.
pub struct AuditLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the log in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// An I/O error that names the file.
    pub fn open(dir: &Path, limits: AuditLimits) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = LogFile::open(dir, limits)?;
        let shared = Arc::new(Shared::default());
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || write_groups(&for_writer, file))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    fn push(
        &self,
        event: &Event<'_>,
        waiter: Option<oneshot::Sender<Result<(), AuditError>>>,
    ) -> Result<(), AuditError> {
        let mut pending = self.shared.lock();
        if pending.closed {
            return Err(AuditError::Closed);
        }
        if let Some(reason) = &pending.failing {
            return Err(AuditError::Failing(reason.clone()));
        }
        if pending.bytes.len() > MAX_PENDING_LEN {
            return Err(AuditError::Behind);
        }
        let wake = pending.bytes.is_empty() || waiter.is_some();
        write_line(&mut pending.bytes, event);
        pending.waiting.extend(waiter);
        drop(pending);
        if wake {
            self.shared.news.notify_one();
        }
        Ok(())
    }
}

#[async_trait]
impl Audit for AuditLog {
    fn append(&self, event: &Event<'_>) -> Result<(), Cause> {
        Ok(self.push(event, None)?)
    }

    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause> {
        let (sender, receiver) = oneshot::channel();
        self.push(event, Some(sender))?;
        receiver.await.map_err(|_| AuditError::Closed)??;
        Ok(())
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so itself.
            let _ = writer.join();
        }
    }
}

fn write_groups(shared: &Shared, mut file: LogFile) {
    let mut spare = Vec::new();
    loop {
        let (group, waiting, closed) = next_group(shared, &mut spare);
        let written = file.write_group(&group, !waiting.is_empty() || closed);
        match written {
            Ok(()) => {
                shared.lock().failing = None;
                for waiter in waiting {
                    // A caller that has gone away needs no answer.
                    let _ = waiter.send(Ok(()));
                }
                spare = group;
                spare.clear();
            }
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be written; operations are refused");
                give_back(shared, group, waiting, &error);
                if !closed {
                    std::thread::sleep(RETRY);
                }
            }
        }
        if closed {
            return;
        }
    }
}

type Group = (Vec<u8>, Vec<oneshot::Sender<Result<(), AuditError>>>, bool);

/// Waits for events, lets them gather, and takes them all.
fn next_group(shared: &Shared, spare: &mut Vec<u8>) -> Group {
    let mut pending = shared.lock();
    while pending.bytes.is_empty() && !pending.closed {
        pending = shared.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
    }
    if pending.waiting.is_empty() && !pending.closed {
        let gather = shared.news.wait_timeout_while(pending, LINGER, |pending| {
            pending.waiting.is_empty() && !pending.closed
        });
        pending = gather.unwrap_or_else(PoisonError::into_inner).0;
    }
    let bytes = std::mem::replace(&mut pending.bytes, std::mem::take(spare));
    (bytes, std::mem::take(&mut pending.waiting), pending.closed)
}

/// Keeps what could not be written, before what came meanwhile, and tells those who wait.
fn give_back(
    shared: &Shared,
    mut group: Vec<u8>,
    waiting: Vec<oneshot::Sender<Result<(), AuditError>>>,
    error: &io::Error,
) {
    let reason = error.to_string();
    let mut pending = shared.lock();
    group.extend_from_slice(&pending.bytes);
    pending.bytes = group;
    pending.failing = Some(reason.clone());
    for waiter in waiting.into_iter().chain(std::mem::take(&mut pending.waiting)) {
        // A caller that has gone away needs no answer.
        let _ = waiter.send(Err(AuditError::Failing(reason.clone())));
    }
}

/// The file that is written, and the ones that are closed.
struct LogFile {
    dir: PathBuf,
    limits: AuditLimits,
    file: File,
    len: u64,
}

impl LogFile {
    fn open(dir: &Path, limits: AuditLimits) -> io::Result<Self> {
        let path = dir.join(CURRENT);
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).mode(0o600).open(path)?;
        end_torn_line(&mut file)?;
        let len = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), limits, file, len })
    }

    /// Writes a group whole; after a failure the file ends where it ended before.
    fn write_group(&mut self, group: &[u8], durably: bool) -> io::Result<()> {
        if self.len >= self.limits.file_len && !group.is_empty() {
            self.begin_new_file()?;
        }
        let written = self.file.write_all(group);
        let written = written.and_then(|()| if durably { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len = self.len.saturating_add(group.len() as u64);
        Ok(())
    }

    fn begin_new_file(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let closed = self.closed_files()?;
        let next = closed.last().map_or(1, |(number, _)| number.saturating_add(1));
        let closing = self.dir.join(format!("audit-{next:010}.jsonl"));
        match fs::rename(self.dir.join(CURRENT), closing) {
            // An attempt before came so far and no further.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        *self = Self::open(&self.dir, self.limits)?;
        File::open(&self.dir)?.sync_all()?;
        let surplus = (closed.len() + 1).saturating_sub(self.limits.closed_files);
        for (_, path) in closed.iter().take(surplus) {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(%error, path = %path.display(), "an old audit file stays");
            }
        }
        Ok(())
    }

    /// The closed files, oldest first.
    fn closed_files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| {
                name.to_str()?.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
            });
            closed.extend(number.map(|number| (number, path)));
        }
        closed.sort_unstable();
        Ok(closed)
    }
}

/// Ends a line that a crash has cut short, so that the next one stands by itself.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::Phase;
    use lastkey_core::ids::{KeyId, RequestId, VersionNo};
    use lastkey_core::principal::{Principal, Source};
    use lastkey_core::time::Timestamp;

    use super::*;

    fn event(who: &Principal) -> Event<'_> {
        Event {
            at: Timestamp(1_764_000_000),
            request: RequestId([7; 16]),
            who,
            action: "kms:Encrypt",
            phase: Phase::Whole,
            key: Some(KeyId::from_random([1; 16])),
            version: VersionNo::new(3),
            context_hash: None,
            result: "ok",
            reason: "",
            source: Source::default(),
            target: None,
        }
    }

    fn lines(dir: &Path) -> usize {
        let read = |entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.unwrap().path());
        fs::read_dir(dir).unwrap().map(|e| read(e).unwrap().lines().count()).sum()
    }

    #[tokio::test]
    async fn a_durable_event_is_in_the_file_when_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path(), AuditLimits::default()).unwrap();
        let who = Principal::named("admin");
        log.append(&event(&who)).unwrap();
        log.append_durably(&event(&who)).await.unwrap();
        assert_eq!(lines(dir.path()), 2);
    }

    #[tokio::test]
    async fn closing_writes_what_was_appended() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path(), AuditLimits::default()).unwrap();
        for _ in 0..100 {
            log.append(&event(&Principal::named("admin"))).unwrap();
        }
        drop(log);
        assert_eq!(lines(dir.path()), 100);
    }

    #[tokio::test]
    async fn a_full_file_is_closed_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let limits = AuditLimits { file_len: 1, closed_files: 2 };
        let log = AuditLog::open(dir.path(), limits).unwrap();
        for _ in 0..5 {
            log.append_durably(&event(&Principal::named("admin"))).await.unwrap();
        }
        drop(log);
        assert_eq!((fs::read_dir(dir.path()).unwrap().count(), lines(dir.path())), (3, 3));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_refuses_events_and_keeps_those_it_took() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, away) = (folder.path().join("audit"), folder.path().join("away"));
        let limits = AuditLimits { file_len: 1, closed_files: 2 };
        let log = AuditLog::open(&dir, limits).unwrap();
        let who = Principal::named("admin");
        log.append_durably(&event(&who)).await.unwrap();
        // The next group begins a new file, which a file in place of the directory prevents.
        fs::rename(&dir, &away).unwrap();
        fs::write(&dir, b"").unwrap();
        assert!(log.append_durably(&event(&who)).await.is_err());
        assert!(log.append(&event(&who)).is_err());
        fs::remove_file(&dir).unwrap();
        fs::rename(&away, &dir).unwrap();
        drop(log);
        assert_eq!(lines(&dir), 2);
    }

    #[tokio::test]
    async fn a_line_cut_short_by_a_crash_does_not_take_the_next_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CURRENT), br#"{"at":1,"#).unwrap();
        let log = AuditLog::open(dir.path(), AuditLimits::default()).unwrap();
        log.append_durably(&event(&Principal::named("admin"))).await.unwrap();
        let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert!(text.lines().nth(1).unwrap().starts_with(r#"{"at":1764000000,"#), "{text}");
    }

    #[tokio::test]
    async fn a_rotation_that_was_cut_short_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let limits = AuditLimits { file_len: 1, closed_files: 2 };
        let log = AuditLog::open(dir.path(), limits).unwrap();
        let who = Principal::named("admin");
        log.append_durably(&event(&who)).await.unwrap();
        fs::rename(dir.path().join(CURRENT), dir.path().join("audit-0000000001.jsonl")).unwrap();
        log.append_durably(&event(&who)).await.unwrap();
        assert_eq!(lines(dir.path()), 2);
    }
}
