//! The audit log on disk: an append-only Merkle tree of records.
//!
//! Room      `store`. Implements the `Audit` and `AuditArchive` ports of `core`.
//! Source    docs/formats/audit-log.md; C2SP tlog-tiles.
//! Holds     when the log cannot be written, falls too far behind, or is not what was written,
//!           every further event is refused: the caller must then refuse the operation. Nothing is
//!           ever dropped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::audit::Event;
use lastkey_core::ports::{Audit, AuditArchive, Cause};

use self::builder::{Builder, Published, ToBuilder};
use self::files::Layout;
use self::keeper::Keeper;
use self::pending::Buffer;
use self::recover::{FIRST_SEGMENT_LEN, Recovered, recover};
use self::tail::Tail;
use self::writer::{Watched, Writer};

pub use self::copy::{LogCopy, resume_copy};
pub use self::pending::AuditError;
pub use self::recover::OpenLogError;

mod archive;
mod builder;
mod copy;
mod files;
mod keeper;
mod pending;
mod recover;
mod rewrite;
mod tail;
pub mod verify;
mod wal;
mod writer;

/// When an answer may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When its record is on the disk.
    #[default]
    Sync,
    /// When the log has taken its record, which reaches the disk with the next group. A power cut
    /// or a kill can lose the records of the last milliseconds.
    Batched,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// When an answer may leave.
    pub durability: Durability,
    /// Longest segment, in bytes; at least 1 MiB.
    pub segment_len: u64,
    /// Records are kept at least so long.
    pub retention: Duration,
    /// When records take more bytes than this, the oldest go before their time.
    pub retention_len: Option<u64>,
    /// Free bytes of the disk below which there is an alarm; at most a twentieth of the disk.
    pub alarm_free: u64,
    /// Free bytes below which operations are refused; at most a hundredth of the disk.
    pub refuse_free: u64,
}

impl AuditOptions {
    /// Nothing is removed: for commands that do not know the configuration.
    pub const KEEP_ALL: Self = Self {
        durability: Durability::Sync,
        segment_len: 1 << 20,
        retention: Duration::MAX,
        retention_len: None,
        alarm_free: 0,
        refuse_free: 0,
    };
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            segment_len: 16 << 20,
            retention: Duration::from_secs(184 * 86_400),
            retention_len: None,
            alarm_free: 1 << 30,
            refuse_free: 64 << 20,
        }
    }
}

/// The audit log of a data directory.
pub struct AuditLog {
    layout: Layout,
    durability: Durability,
    buffer: Arc<Buffer>,
    published: Arc<Published>,
    to_builder: Sender<ToBuilder>,
    /// Held while what is known of witnesses, or remembered as one, is read, judged and written.
    witnessing: Arc<tokio::sync::Mutex<()>>,
    writer: Option<JoinHandle<()>>,
    builder: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the log in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenLogError`].
    pub fn open(dir: &Path, options: AuditOptions) -> Result<Self, OpenLogError> {
        if recover::has_old_files(dir) {
            tracing::warn!("files of the earlier audit log stay beside the new one");
        }
        let Parts { builder, inbox, writer } = Parts::of(dir, options)?;
        let (layout, to_builder) = (builder.layout.clone(), writer.builder.clone());
        let (buffer, published) = (Arc::clone(&builder.buffer), Arc::clone(&builder.published));
        let writer = thread("audit-writer", &buffer, move || writer.run())?;
        let builder = thread("audit-builder", &buffer, move || builder.run(&inbox))?;
        Ok(Self {
            layout,
            durability: options.durability,
            buffer,
            published,
            to_builder,
            witnessing: Arc::default(),
            writer: Some(writer),
            builder: Some(builder),
        })
    }

    /// The directory of the log.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.layout.dir.clone()
    }
}

/// A log before its threads run.
struct Parts {
    builder: Builder,
    inbox: Receiver<ToBuilder>,
    writer: Writer,
}

impl Parts {
    /// What was recovered from a directory, with its tiles written.
    fn of(dir: &Path, options: AuditOptions) -> Result<Self, OpenLogError> {
        let layout = Layout { dir: dir.to_owned() };
        let Recovered { segment, tree, segments, signed, end } = recover(&layout)?;
        let buffer = Arc::new(Buffer::new(end));
        let published = Arc::new(Published::default());
        *published.tail() = Tail::of(&tree, &[]);
        *published.signed.lock().map_err(|_| io::Error::other("poisoned"))? = signed;
        let current = Arc::new(Mutex::new(Watched::of(&segment)?));
        let spare = Arc::new(Mutex::new(None));
        let keeper = Keeper::new(Arc::clone(&current), Arc::clone(&spare), segment.len(), &options);
        let (to_builder, inbox) = channel();
        let mut builder = Builder {
            layout: layout.clone(),
            options,
            tree,
            bundle: Vec::new(),
            published,
            buffer: Arc::clone(&buffer),
            keeper,
            kept_at: None,
            partials: Vec::new(),
            kept_len: None,
            is_broken: false,
            dir: File::open(&layout.dir)?,
            rewrite: None,
            rewrite_at: None,
        };
        let is_unsynced = layout.unsynced().try_exists()?;
        builder.published.is_unsynced.store(is_unsynced, Ordering::Relaxed);
        let write = if is_unsynced { files::write_file } else { files::write_if_other };
        for found in segments {
            found.read(|group| builder.add(group, write))?;
        }
        if is_unsynced && let Err(error) = builder.end_unsynced() {
            tracing::error!(%error, "the disk does not take tiles of the audit log; segments stay");
        }
        if let Err(error) = keeper::remove_leftovers(&layout) {
            tracing::warn!(%error, "bundles that had been removed from the audit log stay");
        }
        let writer = Writer {
            buffer,
            layout,
            segment,
            current,
            spare,
            builder: to_builder,
            segment_len: FIRST_SEGMENT_LEN,
        };
        Ok(Self { builder, inbox, writer })
    }
}

/// A thread of the log. Should it end before the log is closed, nothing is recorded any more.
fn thread(
    name: &str,
    buffer: &Arc<Buffer>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let needed = Needed(Arc::clone(buffer));
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _needed = needed;
        run();
    })
}

/// Says when it is dropped that a thread has ended that the log needs.
struct Needed(Arc<Buffer>);

impl Drop for Needed {
    fn drop(&mut self) {
        if !self.0.is_closed() {
            tracing::error!("a thread of the audit log has ended; operations are refused");
            self.0.trouble(|troubles| troubles.stopped = true);
        }
    }
}

#[async_trait]
impl Audit for AuditLog {
    fn append(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.buffer.push(event)?;
        Ok(())
    }

    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause> {
        Ok(self.buffer.push_durably(event).await?)
    }

    async fn append_answer(&self, event: &Event<'_>) -> Result<(), Cause> {
        match self.durability {
            Durability::Sync => Ok(self.buffer.push_durably(event).await?),
            Durability::Batched => {
                self.buffer.push(event)?;
                Ok(())
            }
        }
    }

    fn archive(&self) -> Option<&dyn AuditArchive> {
        Some(self)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.buffer.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so itself.
            let _ = writer.join();
        }
        // The builder may be gone already.
        let _ = self.to_builder.send(ToBuilder::Close);
        if let Some(builder) = self.builder.take() {
            let _ = builder.join();
        }
    }
}

#[cfg(test)]
mod tests;
