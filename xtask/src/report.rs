//! How a check ends: silently good, or a list of faults and a failure.
//!
//! Room      `xtask`.

use anyhow::{Result, bail};

/// Prints each fault on a line of its own and fails when there is one.
///
/// # Errors
/// When `faults` is not empty; the message names the check and says what to do next.
pub(crate) fn finish(check: &str, faults: &[String], advice: &str) -> Result<()> {
    if faults.is_empty() {
        println!("xtask {check}: ok");
        return Ok(());
    }
    for fault in faults {
        eprintln!("{fault}");
    }
    bail!("{check}: {} fault(s); {advice}", faults.len())
}

#[cfg(test)]
mod tests {
    use super::finish;

    #[test]
    fn finish_fails_when_there_is_a_fault() {
        assert!(finish("x", &[], "").is_ok());
        let message = finish("x", &["a".to_owned()], "do b").unwrap_err().to_string();
        assert_eq!(message, "x: 1 fault(s); do b");
    }
}
