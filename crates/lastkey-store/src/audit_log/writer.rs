//! The one thread that makes records durable.
//!
//! Room      `store`.
//! Holds     records are written in the order of their numbers; those who wait for one go on only
//!           after it is on the disk and on its way into the tree.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
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
    pub(super) builder: Sender<ToBuilder>,
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
                // Before it is written: once it is durable, nothing holds up those who wait for it.
                self.buffer.await_builder(group.framed_len());
                let started = Instant::now();
                if !self.write(&group) {
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
    fn write(&mut self, group: &Group) -> bool {
        loop {
            match self.append(group) {
                Ok(()) => return true,
                Err(error) => self.complain(&error),
            }
            if self.buffer.is_closed() {
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
            self.begin_segment(group)?;
        }
        self.segment.append(group)
    }

    fn begin_segment(&mut self, group: &Group) -> io::Result<()> {
        // Held until the next one is watched: nobody is to miss this one meanwhile.
        let mut watched = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // The last look at it, before the next one is made: where this one is still empty, and too
        // short for the group, the next one takes its name.
        if let Err(reason) = watched.check() {
            self.buffer.trouble(|troubles| troubles.tampered = Some(reason));
        }
        let (segment, watch) = next_segment(&self.layout, &self.spare, self.segment_len, group)?;
        *watched = watch;
        drop(watched);
        self.segment = segment;
        // The builder ends after the writer.
        let _ = self.builder.send(ToBuilder::NewSegment(group.first));
        Ok(())
    }
}

/// The segment that begins with a group: the spare one where it is long enough, else one of at least
/// this length; and what watches over it.
///
/// # Errors
/// An I/O error; there is no segment then.
fn next_segment(
    layout: &Layout,
    spare: &Spare,
    len: u64,
    group: &Group,
) -> io::Result<(Segment, Watched)> {
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
    let handle = file.try_clone()?;
    let segment = Segment::begin(&wal, &path, file, group.first)?;
    let watched = Watched { path: segment.path.clone(), file: handle, len: segment.len() };
    Ok((segment, watched))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    use lastkey_core::audit::tile::push_record;
    use lastkey_core::principal::Principal;

    use super::super::AuditOptions;
    use super::super::builder::make_dirs;
    use super::super::keeper::Keeper;
    use super::super::recover::FIRST_SEGMENT_LEN;
    use super::super::tests::event;
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
        let (_first, watched) = next_segment(&layout, &spare, LEN, &group(0)).unwrap();
        let current = Arc::new(Mutex::new(watched));
        let options = AuditOptions { segment_len: LEN, ..AuditOptions::default() };
        let mut keeper = Keeper::new(current, Arc::clone(&spare), LEN, &options);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..300 {
                    let (mut segment, watched) =
                        next_segment(&layout, &spare, LEN, &group(number)).unwrap();
                    segment.append(&group(number)).unwrap();
                    watched.check().unwrap();
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

    /// The writer took whether it was closed from before it began to write: one that could not write
    /// tried for ever, and whoever closed the log waited for it.
    #[test]
    fn writer_that_cannot_write_ends_when_the_log_is_closed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, _inbox) = writer(dir.path());
        let buffer = Arc::clone(&writer.buffer);
        // The next segment cannot be made where a directory is.
        fs::create_dir(writer.layout.wal().join("next")).unwrap();
        buffer.push(&event(&Principal::named(&"p".repeat(300)))).unwrap();
        let writing = std::thread::spawn(move || writer.run());
        while buffer.troubles().failing.is_none() {
            std::thread::yield_now();
        }
        buffer.close();
        writing.join().unwrap();
    }

    /// Where the next segment had the name of the one before and its directory could not be synced,
    /// the log took what it had made itself for tampering when it tried again.
    #[test]
    fn next_segment_of_the_same_name_is_gone_on_with_after_a_fault_of_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _inbox) = writer(dir.path());
        let mut bytes = Vec::new();
        assert!(push_record(&mut bytes, &[b'r'; 300]));
        let long = Group::of(0, &bytes).unwrap();
        writer.begin_segment(&long).unwrap();
        let (wal, away) = (writer.layout.wal(), dir.path().join("away"));
        fs::rename(&wal, &away).unwrap();
        assert!(writer.append(&long).is_err());
        fs::rename(&away, &wal).unwrap();
        writer.append(&long).unwrap();
        writer.current.lock().unwrap().check().unwrap();
        assert_eq!(writer.buffer.troubles().tampered, None);
        let written = fs::read(&writer.segment.path).unwrap();
        assert_eq!(scan(&written, 0).unwrap().groups.len(), 1);
    }

    /// Two hundred and fifty-six groups, however short, filled the way to the builder: whatever held
    /// that up for a second refused every operation.
    #[test]
    fn short_groups_are_durable_while_the_builder_is_held_up() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, inbox) = writer(dir.path());
        let buffer = Arc::clone(&writer.buffer);
        let writing = std::thread::spawn(move || writer.run());
        for number in 0..300 {
            buffer.push(&event(&Principal::named("p"))).unwrap();
            while buffer.durable() <= number {
                std::thread::yield_now();
            }
        }
        buffer.close();
        writing.join().unwrap();
        let groups = inbox.iter().filter(|message| matches!(message, ToBuilder::Group(_)));
        assert_eq!(groups.count(), 300);
    }

    /// A writer whose segment is empty and has room for 160 bytes.
    fn writer(dir: &Path) -> (Writer, Receiver<ToBuilder>) {
        let layout = Layout { dir: dir.to_owned() };
        make_dirs(&layout).unwrap();
        let spare = Spare::default();
        let (segment, watched) = next_segment(&layout, &spare, 200, &group(0)).unwrap();
        let (builder, inbox) = channel();
        let writer = Writer {
            buffer: Arc::new(Buffer::new(0)),
            layout,
            segment,
            current: Arc::new(Mutex::new(watched)),
            spare,
            builder,
            segment_len: LEN,
        };
        (writer, inbox)
    }

    fn group(number: u64) -> Group {
        let mut bytes = Vec::new();
        assert!(push_record(&mut bytes, b"a record"));
        Group::of(number, &bytes).unwrap()
    }
}
