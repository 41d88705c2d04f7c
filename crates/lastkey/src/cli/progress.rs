//! A progress bar for long work, shown to people only.
//!
//! Room      `lastkey`.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
};

use indicatif::{ProgressBar, ProgressStyle};

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

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
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
