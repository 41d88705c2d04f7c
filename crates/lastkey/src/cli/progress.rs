//! A progress bar for long work, shown to people only.
//!
//! Room      `lastkey`.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
};

use indicatif::{ProgressBar, ProgressStyle};
use lastkey_crypto::stream::ReadAt;

/// Shorter inputs are done before a bar could be read, in bytes.
const SHORTEST_LEN: u64 = 64 << 20;

/// Counts what was read of one input.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar when standard error is a terminal and the input is known to be long.
    pub(crate) fn new(len: Option<u64>, doing: &'static str) -> Self {
        let is_shown = io::stderr().is_terminal() && len.is_some_and(|len| len > SHORTEST_LEN);
        let bar = match len {
            Some(len) if is_shown => ProgressBar::new(len),
            Some(_) | None => ProgressBar::hidden(),
        };
        let template = "{msg} [{bar:32}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Self { bar }
    }

    /// The input, counted as it is read.
    pub(crate) fn reader(&self, file: File) -> Counted {
        Counted { file, bar: self.bar.clone() }
    }

    /// The same, read at any place by several threads.
    pub(crate) fn counted(&self, file: File) -> CountedAt {
        CountedAt { file, bar: self.bar.clone() }
    }

    /// Counts bytes that were read otherwise.
    pub(crate) fn advance(&self, len: usize) {
        self.bar.inc(len as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Counts the files of a run.
pub(crate) struct TreeProgress {
    bar: ProgressBar,
    doing: &'static str,
    files: AtomicU64,
    all_files: u64,
}

impl TreeProgress {
    /// A bar when standard error is a terminal. `total` tells the number of files and of their
    /// bytes; it is asked for a bar only.
    pub(crate) fn new(doing: &'static str, total: impl FnOnce() -> (u64, u64)) -> Self {
        if !io::stderr().is_terminal() {
            let bar = ProgressBar::hidden();
            return Self { bar, doing, files: AtomicU64::new(0), all_files: 0 };
        }
        let (all_files, bytes) = total();
        let bar = ProgressBar::new(bytes);
        let template = "{msg}, [{bar:24}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, doing, files: AtomicU64::new(0), all_files }
    }

    /// One more file, of this many bytes.
    pub(crate) fn advance(&self, len: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.set_message(format!("{}: {files} of {} files", self.doing, self.all_files));
        self.bar.inc(len);
    }

    /// A line above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| super::output::note(text));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Counts things that are done one after the other.
pub(crate) struct CountProgress {
    bar: ProgressBar,
}

impl CountProgress {
    /// A bar when standard error is a terminal.
    pub(crate) fn new(doing: &'static str, total: u64) -> Self {
        let is_shown = io::stderr().is_terminal();
        let bar = if is_shown { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = "{msg} [{bar:32}] {pos} of {len}, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Self { bar }
    }

    /// One more.
    pub(crate) fn advance(&self) {
        self.bar.inc(1);
    }

    /// So many in all.
    pub(crate) fn reach(&self, count: u64) {
        self.bar.set_position(count);
    }

    /// A line above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| super::output::note(text));
    }
}

impl Drop for CountProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A sign of life for work whose length is not known before, to be moved by many threads.
pub(crate) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    /// Shown when standard error is a terminal.
    pub(crate) fn new(doing: &'static str) -> Self {
        let is_shown = io::stderr().is_terminal();
        let bar = if is_shown { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes}, {bytes_per_sec}")
        {
            bar.set_style(style);
        }
        bar.set_message(doing);
        Self { bar }
    }

    /// Counts bytes that are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// An input whose bytes move the bar.
pub(crate) struct Counted {
    file: File,
    bar: ProgressBar,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        self.bar.inc(len as u64);
        Ok(len)
    }
}

/// The same for several threads.
pub(crate) struct CountedAt {
    file: File,
    bar: ProgressBar,
}

impl ReadAt for CountedAt {
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.file.read_at(dest, offset)?;
        self.bar.inc(len as u64);
        Ok(len)
    }
}
