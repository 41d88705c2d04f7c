//! Folders: every file of a tree, in place or into another tree, on all cores.
//!
//! Room      `lastkey`. The walk is in `tree/walk.rs`, what happens to one file in
//!           `tree/work.rs`, the data keys in `tree/data_keys.rs`.
//! Holds     Each name leads to the old file or the new one, whole, at every moment: a file is
//!           written without a name, synced, then takes its place. A run that was cut short is
//!           simply run again. Memory does not grow with the number of files, but with the
//!           longest folder.

mod data_keys;
mod walk;
mod work;

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use clap::Args;
use lastkey_client::{CacheLimits, DataKeyCache, Decryptor, Encryptor, file::Replace};
use lastkey_crypto::context::EncryptionContext;
use rustix::{
    fs::{FlockOperation, flock, syncfs},
    process::{getegid, geteuid},
};

use self::{
    data_keys::{Known, Supply},
    walk::Filter,
    work::{Action, Worker},
};
use super::{glob::Glob, on_a_thread, threads};
use crate::cli::{
    args::{OutArgs, is_dash},
    failure::Failure,
    output,
    progress::TreeProgress,
    signals::Interrupts,
};

/// Arguments for folders.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Folders")]
pub(super) struct TreeArgs {
    /// Replace each file, or the one file, by its new form
    #[arg(long, conflicts_with = "out")]
    in_place: bool,
    /// Only files of this name or path, such as '*.csv' (repeatable)
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Glob>,
    /// No files or folders of this name or path (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Glob>,
    /// Leave files alone that are in the other folder already
    #[arg(long, conflicts_with = "in_place")]
    skip_existing: bool,
}

impl TreeArgs {
    /// Whether this is work for a tree and not for one file.
    pub(super) fn is_for(&self, file: Option<&Path>) -> bool {
        self.in_place || file.is_some_and(Path::is_dir)
    }

    /// One file has no use for the flags of a folder.
    pub(super) fn refuse_for_file(&self) -> Result<(), Failure> {
        if self.include.is_empty() && self.exclude.is_empty() && !self.skip_existing {
            return Ok(());
        }
        Err(Failure::Usage("--include, --exclude and --skip-existing are for folders".to_owned()))
    }

    /// What is to be done, checked.
    pub(super) fn job(
        self,
        source: PathBuf,
        out: OutArgs,
        jobs: Option<NonZeroUsize>,
    ) -> Result<Job, Failure> {
        if source.as_os_str().is_empty() || is_dash(&source) {
            return Err(Failure::Usage("--in-place needs a file or folder".to_owned()));
        }
        let target = match out.out.filter(|_| !self.in_place) {
            Some(target) if is_dash(&target) => {
                return Err(Failure::Usage("a folder does not fit into a pipe".to_owned()));
            }
            Some(target) => Some(target),
            None if self.in_place => None,
            None => {
                return Err(Failure::Usage(format!(
                    "{} is a folder: give -o FOLDER, or --in-place",
                    source.display()
                )));
            }
        };
        let replace = if self.in_place || out.force { Replace::Allow } else { Replace::Refuse };
        let filter = Filter { include: self.include, exclude: self.exclude };
        let threads = threads(jobs);
        Ok(Job { source, target, filter, replace, skip_existing: self.skip_existing, threads })
    }
}

/// A tree, and where it goes.
pub(super) struct Job {
    source: PathBuf,
    /// `None` for in place.
    target: Option<PathBuf>,
    filter: Filter,
    replace: Replace,
    skip_existing: bool,
    threads: NonZeroUsize,
}

/// Encrypts a tree. Files that are encrypted already, which their header must prove, stay.
pub(super) async fn encrypt(
    job: Job,
    opener: Option<Decryptor>,
    encryptor: Encryptor,
) -> Result<(), Failure> {
    let cache = DataKeyCache::new(CacheLimits::default());
    let supply = Supply::new(encryptor, &cache);
    let known = Known::new(opener, &cache);
    run(job, Action::Encrypt { supply, known }).await
}

/// Decrypts a tree. In place, files that are not encrypted stay.
pub(super) async fn decrypt(
    job: Job,
    decryptor: Decryptor,
    context: EncryptionContext,
) -> Result<(), Failure> {
    let known = Known::new(Some(decryptor), &DataKeyCache::new(CacheLimits::default()));
    run(job, Action::Decrypt { known, context }).await
}

async fn run(job: Job, action: Action) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let run = Arc::new(Run::begin(job, action)?);
    let worker = Arc::clone(&run);
    let work = tokio::spawn(on_a_thread(move || worker.to_end()));
    let mut work = std::pin::pin!(work);
    let outcome = interrupts.or_outcome(async { Ok::<_, Failure>(work.as_mut().await) }).await;
    let interrupted = match outcome {
        Ok(ended) => return run.report(ended.unwrap_or_else(|_| Err(lost()))),
        Err(interrupted) => interrupted,
    };
    // What was begun is finished, so that nothing half done is left.
    run.should_stop.store(true, Ordering::Relaxed);
    let _ = work.await;
    let _ = run.report(Ok(()));
    Err(interrupted)
}

fn lost() -> Failure {
    Failure::from(lastkey_client::envelope::EnvelopeError::Thread)
}

/// A run of a job: what its threads share.
struct Run {
    job: Job,
    action: Action,
    /// Keeps a second run in place out; the lock goes with the file.
    _lock: Option<File>,
    /// User and group of this process.
    user: (u32, u32),
    progress: TreeProgress,
    should_stop: AtomicBool,
    /// What ends the whole run.
    fatal: Mutex<Option<Failure>>,
    done: AtomicU64,
    skipped: AtomicU64,
    passed_over: AtomicU64,
    failed: AtomicU64,
    exit_code: AtomicU64,
}

impl Run {
    fn begin(job: Job, action: Action) -> Result<Self, Failure> {
        let about = fs::metadata(&job.source)
            .map_err(|cause| Failure::io(format!("open {}", job.source.display()), cause))?;
        let lock = match &job.target {
            None => Some(lock(&job.source)?),
            Some(target) => {
                refuse_nested(&job.source, target)?;
                None
            }
        };
        let progress = TreeProgress::new(action.doing(), || {
            if about.is_dir() { walk::total(&job.source, &job.filter) } else { (1, about.len()) }
        });
        Ok(Self {
            job,
            action,
            _lock: lock,
            user: (geteuid().as_raw(), getegid().as_raw()),
            progress,
            should_stop: AtomicBool::new(false),
            fatal: Mutex::new(None),
            done: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            passed_over: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            exit_code: AtomicU64::new(0),
        })
    }

    /// Walks and works on all threads; answers what ended the run early.
    fn to_end(&self) -> Result<(), Failure> {
        let (sender, entries) = walk::channel();
        let entries = Mutex::new(entries);
        thread::scope(|scope| {
            for _ in 1..self.job.threads.get() {
                // Where the system gives no thread, the others do its work.
                let _ = thread::Builder::new()
                    .spawn_scoped(scope, || Worker::new(self).take_part(&entries));
            }
            let walker = scope.spawn(move || walk::walk(self, &sender));
            Worker::new(self).take_part(&entries);
            if let Ok(Err(failure)) = walker.join() {
                self.end_by(failure);
            }
        });
        let fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        fatal.map_or_else(|| self.sync(), Err)
    }

    /// Makes the names durable; the content is already.
    fn sync(&self) -> Result<(), Failure> {
        let root = self.job.target.as_ref().unwrap_or(&self.job.source);
        let synced = File::open(root).and_then(|root| Ok(syncfs(root)?));
        synced.map_err(|cause| Failure::io(format!("sync {}", root.display()), cause))
    }

    fn should_stop(&self) -> bool {
        self.should_stop.load(Ordering::Relaxed)
    }

    /// Ends the run: the next file would fail in the same way.
    fn end_by(&self, failure: Failure) {
        self.should_stop.store(true, Ordering::Relaxed);
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// Notes a file that could not be done; the others go on.
    fn fail(&self, path: &Path, failure: Failure) {
        if work::is_fatal(&failure) {
            return self.end_by(failure);
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let code = u64::from(failure.exit_code());
        // The first one decides.
        let _ = self.exit_code.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
        self.progress.say(&format!("error: {}: {}", path.display(), failure.chain()));
    }

    fn report(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        self.progress.finish();
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (done, failed) = (count(&self.done), count(&self.failed));
        let mut text = format!("files: {done} {}", self.action.done());
        for (number, what) in [
            (count(&self.skipped), self.action.skipped()),
            (count(&self.passed_over), "that are no files left alone"),
            (failed, "failed"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        output::note(&text);
        outcome?;
        if failed > 0 {
            let code = u8::try_from(count(&self.exit_code)).unwrap_or(1);
            return Err(Failure::SomeFiles { failed, code });
        }
        Ok(())
    }
}

fn lock(source: &Path) -> Result<File, Failure> {
    let open = || File::open(source);
    let file = open().map_err(|cause| Failure::io(format!("open {}", source.display()), cause))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Failure::Input(format!("another run is at work in {}", source.display())))?;
    Ok(file)
}

/// A tree that is written into itself would never end.
fn refuse_nested(source: &Path, target: &Path) -> Result<(), Failure> {
    let at = |path: &Path| {
        fs::canonicalize(path)
            .map_err(|cause| Failure::io(format!("open {}", path.display()), cause))
    };
    let source_place = at(source)?;
    // The target may be about to be made; then its nearest folder that is there counts.
    let there = target.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if at(there)?.starts_with(&source_place) {
        return Err(Failure::Usage(format!(
            "{} lies within {}; to replace the files give --in-place",
            target.display(),
            source.display()
        )));
    }
    Ok(())
}
