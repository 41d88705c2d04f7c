//! Words on standard output.
//!
//! Room      the binary.

use std::io::Write as _;

/// Prints text and ends the line.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}
