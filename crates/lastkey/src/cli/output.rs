//! Output of bytes: to a file that appears whole or not at all, or to standard output.
//!
//! Room      `lastkey`.
//! Holds     Binary data never reaches a terminal.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use lastkey_client::file::{PendingFile, Replace, SharedFile};
use lastkey_secret::SecretVec;

use super::{
    args::{Encoding, OutArgs, is_dash},
    failure::Failure,
    signals::Interrupts,
};

/// What will be written, as far as it is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Always binary: a terminal is refused at once.
    Binary,
    /// Perhaps text: a terminal is refused at the first byte that is none.
    Unknown,
}

/// Where bytes go. Dropped before [`Output::finish`], it leaves nothing behind.
pub(crate) struct Output {
    target: Target,
    /// There is a temporary file to remove.
    interrupts: Option<Interrupts>,
}

enum Target {
    File(PendingFile),
    /// A device or pipe that is there already; it cannot be replaced, only written to.
    Device(File),
    Stdout(File),
}

impl Output {
    /// Prepares an output; nothing is visible yet.
    pub(crate) fn open(args: &OutArgs, content: Content) -> Result<Self, Failure> {
        match args.out.as_deref().filter(|path| !is_dash(path)) {
            Some(path) => {
                let interrupts = Some(Interrupts::listen()?);
                Ok(Self { target: open_file(path, args.force)?, interrupts })
            }
            None => Ok(Self { target: open_stdout(content)?, interrupts: None }),
        }
    }

    /// Waits for the work on this output; a signal ends the waiting, not the process.
    pub(crate) async fn filled_by<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match &mut self.interrupts {
            Some(interrupts) => interrupts.or_outcome(work).await,
            None => work.await.map_err(Into::into),
        }
    }

    /// Something to write to, on any thread.
    pub(crate) fn writer(&self) -> Result<Guarded, Failure> {
        let (file, is_terminal) = match &self.target {
            Target::File(pending) => (pending.handle()?, false),
            Target::Device(device) => (duplicate(device)?, device.is_terminal()),
            Target::Stdout(stdout) => (duplicate(stdout)?, stdout.is_terminal()),
        };
        Ok(Guarded { file, is_terminal })
    }

    /// The file to be, for several threads; `None` for a device or a pipe.
    pub(crate) fn shared(&self) -> Result<Option<SharedFile>, Failure> {
        match &self.target {
            Target::File(pending) => Ok(Some(SharedFile(pending.handle()?))),
            Target::Device(_) | Target::Stdout(_) => Ok(None),
        }
    }

    /// Makes a file durable and visible, with the permissions of `mode` or else 0600.
    pub(crate) fn finish(self, mode: Option<u32>) -> Result<(), Failure> {
        match self.target {
            Target::File(pending) => Ok(pending.keep(mode)?),
            Target::Device(_) | Target::Stdout(_) => Ok(()),
        }
    }
}

fn open_file(path: &Path, force: bool) -> Result<Target, Failure> {
    let is_device = fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir());
    if is_device {
        return File::options()
            .write(true)
            .open(path)
            .map(Target::Device)
            .map_err(|cause| Failure::io(format!("open {}", path.display()), cause));
    }
    let replace = if force { Replace::Allow } else { Replace::Refuse };
    Ok(Target::File(PendingFile::create(path, replace)?))
}

fn open_stdout(content: Content) -> Result<Target, Failure> {
    let stdout = io::stdout();
    if content == Content::Binary && stdout.is_terminal() {
        return Err(Failure::Usage(
            "binary data does not go to a terminal: give -o FILE, or redirect the output"
                .to_owned(),
        ));
    }
    stdout
        .as_fd()
        .try_clone_to_owned()
        .map(|file| Target::Stdout(File::from(file)))
        .map_err(|cause| Failure::io("open standard output", cause))
}

fn duplicate(file: &File) -> Result<File, Failure> {
    file.try_clone().map_err(|cause| Failure::io("open the output", cause))
}

/// A file that refuses binary data when it is a terminal.
pub(crate) struct Guarded {
    file: File,
    is_terminal: bool,
}

impl Write for Guarded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_terminal && !is_text(bytes) {
            return Err(io::Error::other(
                "binary data does not go to a terminal; give -o FILE, or redirect the output",
            ));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether bytes may stand on a terminal. The end may lie in the middle of a letter.
fn is_text(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
        Err(_) => return false,
    };
    whole.chars().all(|letter| !letter.is_control() || matches!(letter, '\n' | '\r' | '\t'))
}

/// Writes bytes that are no secret.
pub(crate) fn write_encoded(
    args: &OutArgs,
    bytes: &[u8],
    encoding: Encoding,
) -> Result<(), Failure> {
    write_whole(args, &encode(bytes, encoding), content_of(encoding))
}

/// Writes a secret; the encoded form is wiped.
pub(crate) fn write_secret(
    args: &OutArgs,
    secret: &SecretVec,
    encoding: Encoding,
) -> Result<(), Failure> {
    let text = SecretVec::take(secret.expose(|bytes| encode(bytes, encoding)));
    text.expose(|text| write_whole(args, text, content_of(encoding)))
}

/// Writes everything and finishes.
pub(crate) fn write_whole(args: &OutArgs, bytes: &[u8], content: Content) -> Result<(), Failure> {
    let output = Output::open(args, content)?;
    output.writer()?.write_all(bytes).map_err(|cause| Failure::io("write the output", cause))?;
    output.finish(None)
}

/// Lets something write itself, in large pieces, and finishes.
pub(crate) fn write_by(
    args: &OutArgs,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let output = Output::open(args, Content::Unknown)?;
    let mut writer = BufWriter::with_capacity(PIECE_LEN, output.writer()?);
    write(&mut writer)
        .and_then(|()| writer.flush())
        .map_err(|cause| Failure::io("write the output", cause))?;
    output.finish(None)
}

/// Bytes that are written at once.
const PIECE_LEN: usize = 64 << 10;

fn content_of(encoding: Encoding) -> Content {
    // Raw bytes may be a text that somebody protected: the guard looks at them.
    match encoding {
        Encoding::Raw | Encoding::Base64 | Encoding::Hex => Content::Unknown,
    }
}

pub(crate) fn encode(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Raw => bytes.to_vec(),
        Encoding::Base64 => {
            let mut text = STANDARD.encode(bytes).into_bytes();
            text.push(b'\n');
            text
        }
        Encoding::Hex => {
            let mut text = Vec::with_capacity(2 * bytes.len() + 1);
            for byte in bytes {
                text.extend([byte >> 4, byte & 15].map(hex_digit));
            }
            text.push(b'\n');
            text
        }
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|cause| Failure::io("write to standard output", cause))
}

/// Tells a person something beside the output.
pub(crate) fn note(text: &str) {
    // Standard error is for remarks; when it is gone, nobody listens.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::{Content, Encoding, Guarded, OutArgs, Output, encode, is_text, write_whole};

    fn into(path: &std::path::Path, force: bool) -> OutArgs {
        OutArgs { out: Some(path.to_owned()), force }
    }

    #[test]
    fn encode_ends_text_with_a_newline() {
        assert_eq!(encode(b"\x00\xff\x1a", Encoding::Hex), b"00ff1a\n");
        assert_eq!(encode(b"f", Encoding::Base64), b"Zg==\n");
        assert_eq!(encode(b"\x00", Encoding::Raw), b"\x00");
    }

    #[test]
    fn text_is_what_a_terminal_shows_and_nothing_that_steers_it() {
        assert!(is_text("plain\tSchlüssel\r\n".as_bytes()));
        assert!(is_text(&"ü".as_bytes()[..1]));
        assert!(!is_text(b"\x1b[2J"));
        assert!(!is_text(b"a\x00b"));
        assert!(!is_text(b"\xff\xfe"));
        assert!(!is_text(b"ok \x07\xc3"));
    }

    #[test]
    fn guard_lets_binary_data_through_only_when_it_is_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let guarded = |name: &str, is_terminal| {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            Guarded { file, is_terminal }.write_all(b"\x00\x01")
        };
        assert!(guarded("file", false).is_ok());
        assert!(guarded("terminal", true).is_err());
        assert_eq!(fs::read(folder.path().join("terminal")).unwrap(), b"");
    }

    #[tokio::test]
    async fn output_leaves_nothing_behind_when_it_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let output = Output::open(&into(&path, false), Content::Binary).unwrap();
        output.writer().unwrap().write_all(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn output_replaces_a_file_only_when_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, b"before").unwrap();
        assert!(write_whole(&into(&path, false), b"after", Content::Binary).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        write_whole(&into(&path, true), b"after", Content::Binary).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
    }

    #[tokio::test]
    async fn output_writes_to_a_device_in_place() {
        let null = std::path::Path::new("/dev/null");
        write_whole(&into(null, false), b"gone", Content::Binary).unwrap();
        assert!(fs::metadata(null).is_ok_and(|about| !about.is_file()));
    }
}
