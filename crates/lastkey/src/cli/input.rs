//! Input: files and standard input, whole or as a stream.
//!
//! Room      `lastkey`. `-` and a missing name mean standard input.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use lastkey_crypto::blob::MAX_PLAINTEXT_LEN;
use lastkey_secret::SecretVec;

use super::{
    args::{Encoding, is_dash},
    failure::Failure,
};
use crate::node_key::{self, Keeping};
use crate::passphrase;

/// One byte more than the server takes: a longer input is refused by the server, with its
/// own code, and costs no memory here.
pub(crate) const MESSAGE_LIMIT: usize = MAX_PLAINTEXT_LEN + 1;
/// Enough for every ciphertext, signature, token and wrapped material, in any encoding.
const TEXT_LIMIT: usize = 1 << 20;
const TOKEN_LIMIT: usize = 4_096;
/// Enough for a chain of certificates and a key.
const IDENTITY_LIMIT: usize = 64 << 10;

/// An input that is read as a stream.
pub(crate) struct Source {
    /// Unbuffered: what reads it brings its own buffer.
    pub(crate) file: File,
    /// In bytes, when it is known before the end.
    pub(crate) len: Option<u64>,
    /// Opened here by its name, so that nobody else moves its position.
    pub(crate) is_named: bool,
    /// Permissions of a file, for the file that is made of it.
    pub(crate) mode: Option<u32>,
    name: String,
}

impl Source {
    /// Opens a file, or standard input.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let path = path.filter(|path| !is_dash(path));
        let (file, name) = match path {
            Some(path) => (File::open(path), path.display().to_string()),
            None => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                (stdin.map(File::from), "standard input".to_owned())
            }
        };
        let file = file.map_err(|cause| Failure::io(format!("open {name}"), cause))?;
        let about = file.metadata().map_err(|cause| Failure::io(format!("open {name}"), cause))?;
        if about.is_dir() {
            return Err(Failure::Input(format!("{name} is a folder; this takes one file")));
        }
        let is_file = about.is_file();
        Ok(Self {
            file,
            len: is_file.then_some(about.len()),
            is_named: path.is_some(),
            mode: is_file.then_some(about.permissions().mode()),
            name,
        })
    }

    /// At most `limit` bytes, in memory that is wiped.
    pub(crate) fn read_secret(self, limit: usize) -> Result<SecretVec, Failure> {
        // Full size from the start: a buffer that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(limit);
        let outcome = self.file.take(limit as u64).read_to_end(&mut bytes);
        let bytes = SecretVec::take(bytes);
        outcome.map_err(|cause| Failure::io(format!("read {}", self.name), cause))?;
        Ok(bytes)
    }

    /// All bytes of an input that is no secret.
    pub(crate) fn read_plain(self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let limit = TEXT_LIMIT as u64 + 1;
        self.file
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|cause| Failure::io(format!("read {}", self.name), cause))?;
        if bytes.len() > TEXT_LIMIT {
            return Err(Failure::Input(format!("{} is too long", self.name)));
        }
        Ok(bytes)
    }
}

/// The message of an operation: given as text, or read.
pub(crate) fn message(text: Option<&str>, path: Option<&Path>) -> Result<SecretVec, Failure> {
    match text {
        Some(text) => Ok(SecretVec::copy_of(text.as_bytes())),
        None => Source::open(path)?.read_secret(MESSAGE_LIMIT),
    }
}

/// Bytes that are no secret, in some encoding.
pub(crate) fn encoded(path: Option<&Path>, encoding: Encoding) -> Result<Vec<u8>, Failure> {
    decode(&Source::open(path)?.read_plain()?, encoding)
}

/// Undoes an encoding; white space around and between lines does not count.
pub(crate) fn decode(text: &[u8], encoding: Encoding) -> Result<Vec<u8>, Failure> {
    let compact = || text.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    match encoding {
        Encoding::Raw => Ok(text.to_vec()),
        Encoding::Base64 => STANDARD.decode(compact().collect::<Vec<u8>>()).map_err(|_| {
            Failure::Input("the input is not padded standard base64 (see --format)".to_owned())
        }),
        Encoding::Hex => decode_hex(&compact().collect::<Vec<u8>>())
            .ok_or_else(|| Failure::Input("the input is not hex (see --format)".to_owned())),
    }
}

fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |letter: u8| char::from(letter).to_digit(16);
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

/// A token from a file: its first line.
pub(crate) fn token_file(path: &Path) -> Result<SecretVec, Failure> {
    Source::open(Some(path))?.read_secret(TOKEN_LIMIT).map(|text| first_line(&text))
}

/// A certificate and its key from a file, and how the key lies there.
pub(crate) fn identity_file(path: &Path) -> Result<(SecretVec, Keeping), Failure> {
    let file = Source::open(Some(path))?.read_secret(IDENTITY_LIMIT)?;
    Ok(node_key::open(file, None)?)
}

/// A passphrase: from a file, typed without echo, or from standard input.
pub(crate) fn passphrase(file: Option<&Path>) -> Result<SecretVec, Failure> {
    let is_piped = file.is_none() && !io::stdin().is_terminal();
    let file = if is_piped { Some(Path::new("-")) } else { file };
    passphrase::read(file, "Passphrase: ")
        .map_err(|error| Failure::Input(format!("no passphrase: {error:#}")))
}

/// A secret: from a file (`-` is standard input), or typed without echo. `option` names the file
/// to whoever has no terminal.
pub(crate) fn typed(file: Option<&Path>, prompt: &str, option: &str) -> Result<SecretVec, Failure> {
    if file.is_none() && !io::stdin().is_terminal() {
        return Err(Failure::Input(format!("no terminal to ask on: use {option}")));
    }
    passphrase::read(file, prompt).map_err(|error| Failure::Input(format!("{error:#}")))
}

/// A new secret, typed twice.
pub(crate) fn typed_twice(prompt: &str, option: &str) -> Result<SecretVec, Failure> {
    let first = typed(None, prompt, option)?;
    if first.ct_eq(&typed(None, "The same again: ", option)?) {
        Ok(first)
    } else {
        Err(Failure::Input("the two differ; nothing was done".to_owned()))
    }
}

/// A one-time code: typed without echo, or from standard input.
pub(crate) fn one_time_code(from_stdin: bool) -> Result<SecretVec, Failure> {
    let file = from_stdin.then_some(Path::new("-"));
    typed(file, "One-time code: ", "--otp-stdin")
}

fn first_line(text: &SecretVec) -> SecretVec {
    text.expose(|bytes| {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        SecretVec::copy_of(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{Source, decode, first_line, message};
    use crate::cli::args::Encoding;

    #[test]
    fn decode_ignores_white_space_in_text() {
        assert_eq!(decode(b" Zm9v\n YmFy\r\n", Encoding::Base64).unwrap(), b"foobar");
        assert_eq!(decode(b"66 6F\n6f\n", Encoding::Hex).unwrap(), b"foo");
        assert_eq!(decode(b" x\n", Encoding::Raw).unwrap(), b" x\n");
    }

    #[test]
    fn decode_rejects_what_is_not_in_its_encoding() {
        for (text, encoding) in [
            ("Zg", Encoding::Base64),
            ("Z!==", Encoding::Base64),
            ("6", Encoding::Hex),
            ("zz", Encoding::Hex),
        ] {
            assert!(decode(text.as_bytes(), encoding).is_err(), "{text}");
        }
    }

    #[test]
    fn first_line_ends_before_its_newline() {
        for text in ["pass phrase\n", "pass phrase\r\nsecond\n", "pass phrase"] {
            let line = first_line(&SecretVec::copy_of(text.as_bytes()));
            assert!(line.expose(|bytes| bytes == b"pass phrase"), "{text:?}");
        }
    }

    #[test]
    fn source_reads_no_more_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        std::fs::write(&path, b"12345").unwrap();
        let read = Source::open(Some(&path)).unwrap().read_secret(3).unwrap();
        assert!(read.expose(|bytes| bytes == b"123"));
    }

    #[test]
    fn source_refuses_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Source::open(Some(folder.path())).is_err());
    }

    #[test]
    fn message_prefers_the_text() {
        let text = message(Some("abc"), None).unwrap();
        assert!(text.expose(|bytes| bytes == b"abc"));
    }
}
