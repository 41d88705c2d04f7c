//! Passphrases, from a prompt without echo, from a file, or from standard input. Never from an
//! argument: the list of processes shows those to everybody.
//!
//! Room      the binary.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use lastkey_secret::SecretVec;

/// Shortest passphrase of a new seal, in bytes.
const MIN_LEN: usize = 12;
/// Longest passphrase, in bytes.
const MAX_LEN: u64 = 4_096;

/// Reads a passphrase: from `file` (`-` is standard input), else from a prompt.
///
/// # Errors
/// When it cannot be read, or there is neither a file nor a terminal.
pub(crate) fn read(file: Option<&Path>, prompt: &str) -> anyhow::Result<SecretVec> {
    match file {
        Some(path) if path.as_os_str() == "-" => {
            read_text(std::io::stdin().lock(), "standard input")
        }
        Some(path) => {
            let name = path.display().to_string();
            let opened = std::fs::File::open(path);
            read_text(opened.with_context(|| format!("cannot open {name}"))?, &name)
        }
        None if std::io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password(prompt).context("cannot read the passphrase")?;
            Ok(SecretVec::take_text(typed))
        }
        None => bail!("no terminal to ask on: name a file by --passphrase-file (- for stdin)"),
    }
}

/// Reads the passphrase of a new seal; at a prompt it is asked for twice.
///
/// # Errors
/// As [`read`]; also when it is too short or the two differ.
pub(crate) fn read_new(file: Option<&Path>) -> anyhow::Result<SecretVec> {
    let first = read(file, "New passphrase: ")?;
    ensure!(first.len() >= MIN_LEN, "a passphrase has at least {MIN_LEN} bytes");
    if file.is_none() {
        let second = read(None, "The same again: ")?;
        ensure!(first.ct_eq(&second), "the two passphrases differ; nothing was done");
    }
    Ok(first)
}

/// Reads to the end, without the line end that editors leave.
fn read_text(source: impl std::io::Read, name: &str) -> anyhow::Result<SecretVec> {
    let mut text = String::with_capacity(4_098);
    let read = source.take(MAX_LEN + 1).read_to_string(&mut text);
    if read.is_ok() {
        let kept = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(kept);
    }
    let text = SecretVec::take_text(text);
    read.with_context(|| format!("cannot read the passphrase from {name}"))?;
    ensure!(text.len() as u64 <= MAX_LEN, "a passphrase has at most {MAX_LEN} bytes");
    ensure!(!text.is_empty(), "the passphrase from {name} is empty");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_does_not_belong_to_the_passphrase() {
        let text = read_text(&b"correct horse\r\n"[..], "test").unwrap();
        assert!(text.ct_eq(&SecretVec::copy_of(b"correct horse")));
    }

    #[test]
    fn an_empty_or_endless_passphrase_is_refused() {
        assert!(read_text(&b"\n"[..], "test").is_err());
        assert!(read_text(std::io::repeat(b'x'), "test").is_err());
    }
}
