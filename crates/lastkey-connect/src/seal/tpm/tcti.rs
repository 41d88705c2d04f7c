//! The way to a TPM: a device node, or the socket of a software TPM.
//!
//! Room      `connect`.
//! Source    the words follow tpm2-tss (`device:PATH`, `swtpm:host=H,port=N`, `swtpm:path=P`).
//! Holds     what is written to is a device or a socket, never a file: the path comes from a seal,
//!           which nothing authenticates yet. An answer is at most 4 KiB, whatever it says of
//!           itself; a socket that does not answer is given up after half a minute.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Longest command or answer. The limit of the PC client profile.
const MAX_LEN: usize = 4_096;
const HEADER_LEN: usize = 10;
/// A TPM may take long for a single command; half a minute is above what any profile allows.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tcti {
    /// A device node, with a resource manager in the kernel: `/dev/tpmrm0`.
    Device(PathBuf),
    /// The data socket of swtpm.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The data socket of swtpm, as a unix socket.
    Unix(PathBuf),
}

/// No such way to a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TPM is device:/dev/tpmrm0, swtpm:host=127.0.0.1,port=N or swtpm:path=SOCKET")]
pub struct TctiError;

impl FromStr for Tcti {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, TctiError> {
        let absolute = |path: &str| path.starts_with('/').then(|| PathBuf::from(path));
        let parsed = match text.split_once(':') {
            Some(("device", path)) => absolute(path).map(Self::Device),
            Some(("swtpm", socket)) => match socket.split_once('=') {
                Some(("path", path)) => absolute(path).map(Self::Unix),
                Some(("host", rest)) => rest.split_once(",port=").and_then(|(host, port)| {
                    let port = port.parse().ok()?;
                    (!host.is_empty()).then(|| Self::Tcp { host: host.to_owned(), port })
                }),
                Some(_) | None => None,
            },
            Some(_) | None => None,
        };
        parsed.ok_or(TctiError)
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "swtpm:host={host},port={port}"),
            Self::Unix(path) => write!(f, "swtpm:path={}", path.display()),
        }
    }
}

impl Tcti {
    /// Whether somebody on the way looks after slots that a killed process left full.
    pub(super) fn has_resource_manager(&self) -> bool {
        match self {
            Self::Device(_) => true,
            Self::Tcp { .. } | Self::Unix(_) => false,
        }
    }

    /// Opens the way.
    pub(super) fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Device(path) => open_device(path).map(Link::Device),
            Self::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for addr in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&addr, Duration::from_secs(5)) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(PATIENCE))?;
                            stream.set_write_timeout(Some(PATIENCE))?;
                            return Ok(Link::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Link::Unix(stream))
            }
        }
    }
}

/// Opens a character device, and looks before as well as after: some files do something when
/// they are opened, and the path may lead elsewhere meanwhile.
fn open_device(path: &Path) -> io::Result<File> {
    let check = |about: Metadata| {
        let no_device = || io::Error::new(io::ErrorKind::InvalidInput, "this is no device");
        about.file_type().is_char_device().then_some(()).ok_or_else(no_device)
    };
    check(path.metadata()?)?;
    let file = File::options().read(true).write(true).open(path)?;
    check(file.metadata()?)?;
    Ok(file)
}

/// An open way.
pub(super) enum Link {
    Device(File),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Link {
    /// Sends a command and waits for its answer.
    pub(super) fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            // The driver takes a command by one write and gives its answer by one read.
            Self::Device(file) => {
                file.write_all(command)?;
                let mut answer = vec![0; MAX_LEN];
                let len = file.read(&mut answer)?;
                answer.truncate(len);
                Ok(answer)
            }
            Self::Tcp(stream) => exchange_by(stream, command),
            Self::Unix(stream) => exchange_by(stream, command),
        }
    }
}

fn exchange_by(stream: &mut (impl Read + Write), command: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(command)?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let [_, _, len @ .., _, _, _, _] = header;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if !(HEADER_LEN..=MAX_LEN).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no answer of a TPM"));
    }
    let mut answer = header.to_vec();
    answer.resize(len, 0);
    stream.read_exact(answer.get_mut(HEADER_LEN..).unwrap_or_default())?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::{Tcti, TctiError};

    #[test]
    fn ways_to_a_tpm_are_written_as_by_tpm2_tss() {
        let parse = |text: &str| text.parse::<Tcti>();
        assert_eq!(parse("device:/dev/tpmrm0"), Ok(Tcti::Device("/dev/tpmrm0".into())));
        assert_eq!(parse("swtpm:path=/run/tpm.sock"), Ok(Tcti::Unix("/run/tpm.sock".into())));
        for text in ["device:/dev/tpmrm0", "swtpm:path=/run/t", "swtpm:host=::1,port=1"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        let host = "127.0.0.1".to_owned();
        assert_eq!(parse("swtpm:host=127.0.0.1,port=2321"), Ok(Tcti::Tcp { host, port: 2_321 }));
    }

    #[test]
    fn a_file_is_no_device_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.db");
        std::fs::write(&path, b"records").unwrap();
        for path in [path.clone(), folder.path().to_owned()] {
            assert!(Tcti::Device(path).connect().is_err());
        }
        assert_eq!(std::fs::read(path).unwrap(), b"records");
        assert!(Tcti::Device("/dev/null".into()).connect().is_ok());
    }

    #[test]
    fn other_words_are_no_way_to_a_tpm() {
        for text in [
            "",
            "device",
            "device:",
            "device:tpmrm0",
            "tabrmd:",
            "swtpm:",
            "swtpm:path=",
            "swtpm:host=,port=1",
            "swtpm:host=h",
            "swtpm:host=h,port=70000",
            "/dev/tpmrm0",
        ] {
            assert_eq!(text.parse::<Tcti>(), Err(TctiError), "{text}");
        }
    }
}
