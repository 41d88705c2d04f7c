//! Trees of files.
//!
//! Room      `lastkey`.
//! Holds     Links are not followed, so a loop of them ends nowhere; what is no regular file is
//!           not opened. The folder `.git` is left to `--git`.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ignore::{DirEntry, Error as WalkError, WalkBuilder, WalkState};
use lastkey_checks::scan::{Outcome, Scanner, Workspace};

use super::super::{failure::Failure, progress::Spinner};

/// Scans files and folders.
///
/// # Errors
/// When one of `paths` itself is not there. What cannot be read below is in the outcome.
pub(super) fn scan(
    scanner: &Scanner,
    paths: &[PathBuf],
    honours_gitignore: bool,
    threads: usize,
    spinner: &Spinner,
) -> Result<Outcome, Failure> {
    for path in paths {
        path.metadata().map_err(|cause| super::reading(path, cause))?;
    }
    let Some((first, others)) = paths.split_first() else { return Ok(Outcome::default()) };
    let mut walk = WalkBuilder::new(first);
    others.iter().for_each(|path| {
        walk.add(path);
    });
    walk.standard_filters(false)
        .git_ignore(honours_gitignore)
        .parents(honours_gitignore)
        .require_git(false)
        .follow_links(false)
        .threads(threads)
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git");
    let total = Mutex::new(Outcome::default());
    walk.build_parallel().run(|| {
        let mut part = Part {
            scanner,
            spinner,
            total: &total,
            outcome: Outcome::default(),
            workspace: Workspace::default(),
        };
        Box::new(move |entry| {
            part.visit(entry);
            WalkState::Continue
        })
    });
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What one thread finds; added to the whole when the thread ends.
struct Part<'s> {
    scanner: &'s Scanner,
    spinner: &'s Spinner,
    total: &'s Mutex<Outcome>,
    outcome: Outcome,
    workspace: Workspace,
}

impl Part<'_> {
    fn visit(&mut self, entry: Result<DirEntry, WalkError>) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = path_of(&error).map(|path| path.display().to_string());
                let reason = error.io_error().map_or_else(|| error.to_string(), reason_of);
                self.outcome.miss(&path.unwrap_or_default(), reason);
                return;
            }
        };
        // A path that was named on the command line may be a link; others are not followed.
        let is_file = match entry.depth() {
            0 => entry.path().is_file(),
            _ => entry.file_type().is_some_and(|kind| kind.is_file()),
        };
        let shown = shown(entry.path());
        if !is_file || self.scanner.skips(&shown) {
            return;
        }
        match File::open(entry.path()) {
            Ok(mut file) => {
                let before = self.outcome.bytes;
                let (workspace, outcome) = (&mut self.workspace, &mut self.outcome);
                self.scanner.scan(&shown, None, &mut file, workspace, outcome);
                self.spinner.add(self.outcome.bytes - before);
            }
            Err(error) => self.outcome.miss(&shown, format!("it cannot be opened: {error}")),
        }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.absorb(std::mem::take(&mut self.outcome));
    }
}

fn path_of(error: &WalkError) -> Option<&Path> {
    match error {
        WalkError::WithPath { path, .. } => Some(path),
        WalkError::WithDepth { err, .. } | WalkError::WithLineNumber { err, .. } => path_of(err),
        WalkError::Loop { child, .. } => Some(child),
        WalkError::Partial(_)
        | WalkError::Io(_)
        | WalkError::Glob { .. }
        | WalkError::UnrecognizedFileType(_)
        | WalkError::InvalidDefinition => None,
    }
}

fn reason_of(error: &io::Error) -> String {
    format!("it cannot be opened: {error}")
}

/// A path as reports show it: without a leading `./`.
fn shown(path: &Path) -> String {
    path.strip_prefix("./").unwrap_or(path).display().to_string()
}
