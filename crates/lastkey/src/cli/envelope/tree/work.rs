//! What happens to one file of a tree.
//!
//! Room      `lastkey`.
//! Holds     Small files are written without a name, many are synced by one call, then each
//!           takes its place. A file that changed meanwhile keeps its place.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    num::NonZeroUsize,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::Receiver},
};

use lastkey_client::{
    ProtectedKey,
    envelope::EnvelopeError as ClientEnvelopeError,
    file::{FileError, PendingFile, SharedFile},
};
use lastkey_crypto::{
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Header, Layout},
    stream::{self, StreamError},
};
use lastkey_secret::SecretArray;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{
    Run,
    data_keys::{Known, Supply},
    walk::Portion,
};
use crate::cli::{envelope::check_context, failure::Failure};

/// Files up to this length are done in memory, in bytes.
const SMALL_LEN: u64 = 1 << 20;
/// Files over this length are done by all threads together, in bytes.
const LARGE_LEN: u64 = 64 << 20;
/// Files that wait to be synced together.
const BATCH_FILES: usize = 128;
/// The first eight bytes of an envelope.
const MAGIC: &[u8] = b"LKENV\r\n\x1a";

/// What is done to each file.
pub(super) enum Action {
    Encrypt { supply: Supply, known: Known },
    Decrypt { known: Known, context: EncryptionContext },
}

impl Action {
    pub(super) fn doing(&self) -> &'static str {
        match self {
            Self::Encrypt { .. } => "encrypting",
            Self::Decrypt { .. } => "decrypting",
        }
    }

    pub(super) fn done(&self) -> &'static str {
        match self {
            Self::Encrypt { .. } => "encrypted",
            Self::Decrypt { .. } => "decrypted",
        }
    }

    pub(super) fn skipped(&self) -> &'static str {
        match self {
            Self::Encrypt { .. } => "encrypted before",
            Self::Decrypt { .. } => "not encrypted or there before",
        }
    }
}

/// Whether the next file would fail in the same way.
pub(super) fn is_fatal(failure: &Failure) -> bool {
    let is_full = |cause: &io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
        )
    };
    if let Failure::File(FileError::Io { source, .. }) | Failure::Io { source, .. } = failure {
        return is_full(source);
    }
    if let Failure::Envelope(ClientEnvelopeError::Stream(StreamError::Write(cause))) = failure {
        return is_full(cause);
    }
    failure.will_repeat()
}

/// One thread of a run.
pub(super) struct Worker<'a> {
    run: &'a Run,
    input: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
    batch: Vec<Written>,
}

/// A new file without its name.
struct Written {
    pending: PendingFile,
    /// Where its source lies, and what that was.
    place: PathBuf,
    source: Metadata,
}

/// What became of a file.
enum Outcome {
    Written(PendingFile),
    Skipped,
}

/// A file that is being done.
struct Source<'p> {
    file: File,
    about: Metadata,
    /// Where it lies.
    place: &'p Path,
    /// Relative to the root.
    path: &'p Path,
    /// Whether nothing is where it goes.
    is_fresh: bool,
}

impl<'a> Worker<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let buffer = || Zeroizing::new(Vec::new());
        Self { run, input: buffer(), output: buffer(), batch: Vec::new() }
    }

    /// Does files until there are no more, or the run ends.
    pub(super) fn take_part(mut self, portions: &Mutex<Receiver<Portion>>) {
        let next = || portions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(portion) = next() {
            for path in portion.files {
                if !self.run.should_stop() {
                    self.take(&path, portion.is_fresh);
                }
            }
        }
        self.flush();
    }

    fn take(&mut self, path: &Path, is_fresh: bool) {
        let place = below(&self.run.job.source, path);
        let (file, about) = match open(&place) {
            Ok(opened) => opened,
            Err(failure) => return self.run.fail(&place, failure),
        };
        let mut source = Source { file, about, place: &place, path, is_fresh };
        let len = source.about.len();
        match self.process(&mut source) {
            Ok(Outcome::Skipped) => {
                self.run.skipped.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Outcome::Written(pending)) => {
                let source = source.about;
                self.batch.push(Written { pending, place, source });
                if self.batch.len() >= BATCH_FILES || len > SMALL_LEN {
                    self.flush();
                }
            }
            Err(failure) => self.run.fail(&place, failure),
        }
        self.run.progress.advance(len);
    }

    fn process(&mut self, source: &mut Source<'_>) -> Result<Outcome, Failure> {
        let header = self.read(source)?;
        let run = self.run;
        match &run.action {
            Action::Encrypt { supply, known } => {
                // Into another tree an envelope goes like any other file, and comes back as one.
                if let Some(header) = header.filter(|_| run.job.target.is_none()) {
                    known.prove(&header)?;
                    return Ok(Outcome::Skipped);
                }
                let Some(pending) =
                    self.pending(source, |target| is_done(target, source, known))?
                else {
                    return Ok(Outcome::Skipped);
                };
                let Some((key, options)) = run.data_key(supply, source.about.len()) else {
                    return Ok(Outcome::Skipped);
                };
                self.encrypt(source, &pending, &key, &options)?;
                Ok(Outcome::Written(pending))
            }
            Action::Decrypt { known, context } => {
                let Some(header) = header else {
                    let is_in_place = run.job.target.is_none();
                    let refused = Failure::NotValid("this is not an encrypted file");
                    return is_in_place.then_some(Outcome::Skipped).ok_or(refused);
                };
                check_context(&header, context)?;
                let key = known.data_key(&header)?;
                let Some(pending) = self.pending(source, |_| Ok(false))? else {
                    return Ok(Outcome::Skipped);
                };
                self.decrypt(source, &pending, &header, &key.data_key)?;
                Ok(Outcome::Written(pending))
            }
        }
    }

    /// Reads a small file whole, and the header of one that has the mark of an envelope.
    fn read(&mut self, source: &mut Source<'_>) -> Result<Option<Header>, Failure> {
        let failed = |cause| Failure::io(format!("read {}", source.place.display()), cause);
        let len = usize::try_from(source.about.len()).unwrap_or(usize::MAX);
        let is_small = source.is_small();
        // One byte more than there should be shows a file that grew.
        let wanted = if is_small { len.saturating_add(1) } else { MAGIC.len() };
        self.input.resize(wanted, 0);
        let read = fill(&mut source.file, &mut self.input, len).map_err(failed)?;
        if is_small && read != len {
            return Err(StreamError::Changed.into());
        }
        self.input.truncate(read);
        if !self.input.starts_with(MAGIC) {
            return Ok(None);
        }
        let mut rest = &source.file;
        let header = stream::read_header(&mut self.input.as_slice().chain(&mut rest))?;
        Ok(Some(header))
    }

    fn encrypt(
        &mut self,
        source: &Source<'_>,
        pending: &PendingFile,
        key: &ProtectedKey,
        options: &EnvelopeOptions,
    ) -> Result<(), Failure> {
        let (data_key, recipients) = (&key.data_key, &key.recipients);
        let entropy = &mut SystemEntropy;
        if source.is_small() {
            let (input, output) = (&self.input, &mut self.output);
            stream::encrypt_slice(input, options, data_key, recipients, entropy, output)
                .map_err(StreamError::from)?;
            return write(pending, &self.output);
        }
        let (from, to) = source.ends(pending)?;
        let (len, threads) = (source.about.len(), self.run.threads_for(source));
        stream::encrypt_at(&from, len, &to, options, data_key, recipients, entropy, threads)?;
        Ok(())
    }

    fn decrypt(
        &mut self,
        source: &Source<'_>,
        pending: &PendingFile,
        header: &Header,
        data_key: &SecretArray<32>,
    ) -> Result<(), Failure> {
        let len = source.about.len();
        if source.is_small() {
            let layout = Layout::of_envelope(header.len(), header.segment_len(), len);
            let layout = layout.map_err(StreamError::from)?;
            self.output.resize(usize::try_from(layout.plaintext_len()).unwrap_or(0), 0);
            stream::decrypt_slice_into(header, data_key, &self.input, &mut self.output)
                .map_err(StreamError::from)?;
            return write(pending, &self.output);
        }
        let (from, to) = source.ends(pending)?;
        stream::decrypt_at(header, data_key, &from, len, &to, self.run.threads_for(source))?;
        Ok(())
    }

    /// The new file; `None` when it is there already and that is right.
    fn pending(
        &self,
        source: &Source<'_>,
        is_done: impl FnOnce(&Path) -> Result<bool, Failure>,
    ) -> Result<Option<PendingFile>, Failure> {
        let job = &self.run.job;
        let target = below(job.target.as_ref().unwrap_or(&job.source), source.path);
        let made = match source.is_fresh {
            true => PendingFile::create_in_fresh_folder(&target),
            false => PendingFile::create(&target, job.replace),
        };
        let pending = match made {
            Err(FileError::Exists { path }) => {
                let is_right = job.skip_existing || is_done(&target)?;
                let exists = FileError::Exists { path };
                return if is_right { Ok(None) } else { Err(exists.into()) };
            }
            made => made?,
        };
        pending.set_mode(source.about.mode())?;
        if job.target.is_none() && !self.run.owns(&source.about) {
            pending.set_owner(source.about.uid(), source.about.gid())?;
        }
        Ok(Some(pending))
    }

    /// Makes what was written durable, then gives it its names.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if let Err(error) = PendingFile::sync_many(batch.iter().map(|written| &written.pending)) {
            return self.run.end_by(error.into());
        }
        for Written { pending, place, source } in batch {
            if self.run.job.target.is_none() && has_changed(&place, &source) {
                self.run.fail(&place, StreamError::Changed.into());
                continue;
            }
            match pending.keep_synced() {
                Ok(()) => {
                    self.run.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.run.fail(&place, error.into()),
            }
        }
    }
}

impl Source<'_> {
    fn is_small(&self) -> bool {
        self.about.len() <= SMALL_LEN
    }

    /// Both ends for threads.
    fn ends(&self, pending: &PendingFile) -> Result<(SharedFile, SharedFile), Failure> {
        let from = self.file.try_clone();
        let from =
            from.map_err(|cause| Failure::io(format!("open {}", self.place.display()), cause))?;
        Ok((SharedFile(from), SharedFile(pending.handle()?)))
    }
}

impl Run {
    /// A data key; without one the run is over.
    fn data_key(&self, supply: &Supply, len: u64) -> Option<(Arc<ProtectedKey>, EnvelopeOptions)> {
        supply.next(len).map_err(|failure| self.end_by(failure)).ok()
    }

    fn threads_for(&self, source: &Source<'_>) -> NonZeroUsize {
        if source.about.len() > LARGE_LEN { self.job.threads } else { NonZeroUsize::MIN }
    }

    fn owns(&self, source: &Metadata) -> bool {
        (source.uid(), source.gid()) == self.user
    }
}

/// Whether an earlier run made this file of that source.
fn is_done(target: &Path, source: &Source<'_>, known: &Known) -> Result<bool, Failure> {
    let (mut file, about) = open(target)?;
    let Ok(header) = stream::read_header(&mut file) else { return Ok(false) };
    let layout = Layout::of_envelope(header.len(), header.segment_len(), about.len());
    let is_as_long = layout.is_ok_and(|layout| layout.plaintext_len() == source.about.len());
    let time = |about: &Metadata| (about.mtime(), about.mtime_nsec());
    if !is_as_long || time(&about) < time(&source.about) {
        return Ok(false);
    }
    known.prove(&header).map(|()| true)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn open(place: &Path) -> Result<(File, Metadata), Failure> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let failed = |cause| Failure::io(format!("open {}", place.display()), cause);
    let file = File::options().read(true).custom_flags(flags).open(place).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Failure::Input("this is not a file".to_owned()));
    }
    Ok((file, about))
}

/// Reads to the end, which a read that stops at the expected length has found.
fn fill(file: &mut File, dest: &mut [u8], expected: usize) -> io::Result<usize> {
    let mut len = 0;
    while let Some(free) = dest.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if len == expected {
            break;
        }
    }
    Ok(len)
}

fn write(pending: &PendingFile, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = pending.file();
    file.write_all(bytes).map_err(|cause| StreamError::Write(cause).into())
}

/// Whether a file is another one than when it was read.
fn has_changed(place: &Path, source: &Metadata) -> bool {
    let state = |about: &Metadata| {
        (about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec())
    };
    !fs::symlink_metadata(place).is_ok_and(|now| state(&now) == state(source))
}
