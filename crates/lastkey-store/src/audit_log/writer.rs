//! The one thread that makes records durable.
//!
//! Room      `store`.
//! Holds     records are written in the order of their numbers; those who wait for one go on only
//!           after it is on the disk and on its way into the tree.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::builder::ToBuilder;
use super::files::Layout;
use super::pending::Buffer;
use super::wal::{Group, HEADER_LEN, Segment, zero_filled};

/// How long the writer waits before it tries a failing disk again.
const RETRY: Duration = Duration::from_millis(500);

/// The segment that is prepared for when the one in use is full. It is also the ballast: while
/// there is none, nothing but what is essential is recorded.
pub(super) type Spare = Arc<Mutex<Option<(PathBuf, File)>>>;

/// The segment that is written, for those who watch over it.
pub(super) type Current = Arc<Mutex<Watched>>;

/// A file that must stay where it is and as long as it is.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
}

impl Watched {
    /// Whether it is still the file of its name, as long as it was made.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let name = self.path.display();
        let held = self.file.metadata().map_err(|error| format!("{name}: {error}"))?;
        let named = fs::symlink_metadata(&self.path).ok();
        let is_same = named.is_some_and(|m| m.ino() == held.ino() && m.dev() == held.dev());
        if held.nlink() == 0 || !is_same {
            return Err(format!("{name} was removed or replaced"));
        }
        if held.len() != self.len {
            return Err(format!("{name} has {} bytes and not {}", held.len(), self.len));
        }
        Ok(())
    }

    /// A handle of its own on a segment.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn of(segment: &Segment) -> io::Result<Self> {
        let file = segment.file.try_clone()?;
        Ok(Self { path: segment.path.clone(), file, len: segment.len() })
    }
}

/// What the writer works with.
pub(super) struct Writer {
    pub(super) buffer: Arc<Buffer>,
    pub(super) layout: Layout,
    pub(super) segment: Segment,
    pub(super) current: Current,
    pub(super) spare: Spare,
    pub(super) builder: SyncSender<ToBuilder>,
    /// Length of the next segment, when it has to be made here.
    pub(super) segment_len: u64,
}

impl Writer {
    /// Writes until the buffer is closed.
    pub(super) fn run(mut self) {
        let (mut expected, mut last_sync) = (0, Duration::ZERO);
        loop {
            let batch = self.buffer.take(expected, last_sync);
            let group = Group::in_place(batch.first, batch.framed);
            if let Some(group) = group.filter(|group| !group.leaves.is_empty()) {
                let started = Instant::now();
                if !self.write(&group, batch.closed) {
                    return;
                }
                last_sync = started.elapsed();
                let end = group.end();
                // The builder ends after the writer.
                let _ = self.builder.send(ToBuilder::Group(group));
                expected = self.buffer.settle(end);
            }
            if batch.closed {
                return;
            }
        }
    }

    /// Writes a group, as often as it takes. Gives up only when the log is closed as well.
    fn write(&mut self, group: &Group, closed: bool) -> bool {
        loop {
            match self.append(group) {
                Ok(()) => return true,
                Err(error) => self.complain(&error),
            }
            if closed {
                return false;
            }
            std::thread::sleep(RETRY);
        }
    }

    fn complain(&self, error: &dyn std::error::Error) {
        tracing::error!(%error, "the audit log cannot be written; operations are refused");
        let reason = error.to_string();
        self.buffer.trouble(|troubles| troubles.failing = Some(reason));
    }

    fn append(&mut self, group: &Group) -> io::Result<()> {
        if !self.segment.has_room(group) {
            let current = Arc::clone(&self.current);
            // Held until the next one is watched: nobody is to miss this one meanwhile.
            let mut watched = current.lock().unwrap_or_else(PoisonError::into_inner);
            // The last look at it, before the next one is made: where this one is still empty, and too
            // short for the group, the next one takes its name.
            if let Err(reason) = watched.check() {
                self.buffer.trouble(|troubles| troubles.tampered = Some(reason));
            }
            self.segment = self.next_segment(group)?;
            *watched = Watched::of(&self.segment)?;
            drop(watched);
            // The builder ends after the writer.
            let _ = self.builder.send(ToBuilder::NewSegment(group.first));
        }
        self.segment.append(group)
    }

    fn next_segment(&self, group: &Group) -> io::Result<Segment> {
        let needed = (HEADER_LEN + group.framed_len()) as u64;
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wal = self.layout.wal();
        let fits = |(_, file): &(PathBuf, File)| file.metadata().is_ok_and(|m| m.len() >= needed);
        let (path, file) = match spare.filter(fits) {
            Some(spare) => spare,
            None => {
                let path = wal.join("next");
                let file = zero_filled(&path, self.segment_len.max(needed))?;
                (path, file)
            }
        };
        Segment::begin(&wal, &path, file, group.first)
    }
}
