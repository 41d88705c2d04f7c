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
        next_segment(&self.layout, &self.spare, self.segment_len, group)
    }
}

/// The segment that begins with a group: the spare one where it is long enough, else one of at least
/// this length.
///
/// # Errors
/// An I/O error.
fn next_segment(layout: &Layout, spare: &Spare, len: u64, group: &Group) -> io::Result<Segment> {
    let needed = (HEADER_LEN + group.framed_len()) as u64;
    let wal = layout.wal();
    let fits = |(_, file): &(PathBuf, File)| file.metadata().is_ok_and(|m| m.len() >= needed);
    // Held until the spare one has its new name: the keeper is not to make another of the old name
    // meanwhile.
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, file) = match spare.take().filter(fits) {
        Some(spare) => spare,
        None => {
            let path = wal.join("next");
            let file = zero_filled(&path, len.max(needed))?;
            (path, file)
        }
    };
    Segment::begin(&wal, &path, file, group.first)
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::tile::push_record;

    use super::super::AuditOptions;
    use super::super::builder::make_dirs;
    use super::super::keeper::Keeper;
    use super::super::recover::FIRST_SEGMENT_LEN;
    use super::super::wal::{scan, segments};
    use super::*;

    const LEN: u64 = FIRST_SEGMENT_LEN;

    /// The keeper made a new spare segment, or renamed an old one, while the writer had the spare one
    /// in hand and had not renamed it yet: the writer wrote on into a file of no name.
    #[test]
    fn spare_segment_is_the_writers_alone_once_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { dir: dir.path().to_owned() };
        make_dirs(&layout).unwrap();
        let spare: Spare = Arc::default();
        let first = next_segment(&layout, &spare, LEN, &group(0)).unwrap();
        let current = Arc::new(Mutex::new(Watched::of(&first).unwrap()));
        let options = AuditOptions { segment_len: LEN, ..AuditOptions::default() };
        let mut keeper = Keeper::new(current, Arc::clone(&spare), LEN, &options);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..300 {
                    let mut segment = next_segment(&layout, &spare, LEN, &group(number)).unwrap();
                    segment.append(&group(number)).unwrap();
                    Watched::of(&segment).unwrap().check().unwrap();
                    let written = fs::read(&segment.path).unwrap();
                    assert_eq!(scan(&written, number).unwrap().groups.len(), 1, "{number}");
                }
            });
            while !writer.is_finished() {
                keeper.prepare(&layout).unwrap();
                let mut all = segments(&layout.wal()).unwrap();
                // The newest two are the writer's.
                all.truncate(all.len().saturating_sub(2));
                for (_, path) in all {
                    keeper.reuse(&layout, &path).unwrap();
                }
            }
        });
    }

    fn group(number: u64) -> Group {
        let mut bytes = Vec::new();
        assert!(push_record(&mut bytes, b"a record"));
        Group::of(number, &bytes).unwrap()
    }
}
