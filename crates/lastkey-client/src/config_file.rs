//! The configuration file of a client, as it is written.
//!
//! Room      `client`. [`crate::ClientConfig::from_file`] is the way in.
//! Holds     No token stands in the file itself: it may be shown and kept with other settings.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lastkey_secret::SecretVec;
use serde::Deserialize;

use crate::{
    addr::AddrError,
    config::ClientConfig,
    trust::{Trust, TrustError},
};

/// A token is some dozen bytes; a file this long is another one.
const MAX_TOKEN_LEN: usize = 4_096;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// No TOML, a name that means nothing, or a value of the wrong kind.
    #[error("{0}")]
    Syntax(String),
    /// `addr` is no address.
    #[error("addr")]
    Addr(#[source] AddrError),
    /// `ca_fingerprint` is no fingerprint.
    #[error("ca_fingerprint")]
    Fingerprint(#[source] TrustError),
    /// Both `ca` and `ca_fingerprint`.
    #[error("give ca or ca_fingerprint, not both")]
    TwoTrusts,
    /// Somebody besides its owner can read the token file.
    #[error("{} can be read by others; chmod 600 it", path.display())]
    ExposedToken {
        /// The file.
        path: PathBuf,
    },
    /// The token file is empty or far too long.
    #[error("{} holds no token", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    addr: String,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    ca_fingerprint: Option<String>,
    connect_seconds: Option<u32>,
    request_seconds: Option<u32>,
    attempts: Option<u32>,
}

/// Reads a configuration and the files that it names.
pub(crate) fn read(path: &Path) -> Result<ClientConfig, FileProblem> {
    let text = fs::read_to_string(path).map_err(|cause| unreadable(path, cause))?;
    let written: Written =
        toml::from_str(&text).map_err(|error| FileProblem::Syntax(error.message().to_owned()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut config = ClientConfig::new(written.addr.parse().map_err(FileProblem::Addr)?);
    config.trust = trust_of(&written, folder)?;
    config.token = written.token_file.map(|file| read_token(&folder.join(file))).transpose()?;
    let seconds = |value: u32| Duration::from_secs(value.into());
    config.connect_timeout = written.connect_seconds.map_or(config.connect_timeout, seconds);
    config.request_timeout = written.request_seconds.map_or(config.request_timeout, seconds);
    if let Some(attempts) = written.attempts {
        config.retry = config.retry.attempts(attempts);
    }
    Ok(config)
}

fn trust_of(written: &Written, folder: &Path) -> Result<Trust, FileProblem> {
    match (&written.ca, &written.ca_fingerprint) {
        (None, None) => Ok(Trust::Nothing),
        (Some(_), Some(_)) => Err(FileProblem::TwoTrusts),
        (None, Some(text)) => text.parse().map(Trust::Pinned).map_err(FileProblem::Fingerprint),
        (Some(path), None) => {
            let path = folder.join(path);
            let pem = fs::read(&path).map_err(|cause| unreadable(&path, cause))?;
            Ok(Trust::Authority(pem))
        }
    }
}

/// The first line of a file that only its owner can read.
fn read_token(path: &Path) -> Result<SecretVec, FileProblem> {
    let file = File::open(path).map_err(|cause| unreadable(path, cause))?;
    let about = file.metadata().map_err(|cause| unreadable(path, cause))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(FileProblem::ExposedToken { path: path.to_owned() });
    }
    let mut len = 0;
    let text = SecretVec::try_fill(MAX_TOKEN_LEN, |buffer| {
        len = fill(file, buffer)?;
        Ok(())
    })
    .map_err(|cause| unreadable(path, cause))?;
    let line = text.expose(|bytes| {
        let line = bytes.get(..len)?.split(|byte| *byte == b'\n').next()?.trim_ascii();
        (!line.is_empty() && len < MAX_TOKEN_LEN).then(|| SecretVec::copy_of(line))
    });
    line.ok_or_else(|| FileProblem::NoToken { path: path.to_owned() })
}

fn fill(mut file: File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(free) = buffer.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(len)
}

fn unreadable(path: &Path, source: io::Error) -> FileProblem {
    FileProblem::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        time::Duration,
    };

    use super::{FileProblem, read};
    use crate::{ClientConfig, Trust};

    fn config_of(text: &str, token: &[u8], mode: u32) -> Result<ClientConfig, FileProblem> {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        fs::write(&token_file, token).unwrap();
        fs::set_permissions(&token_file, Permissions::from_mode(mode)).unwrap();
        fs::write(folder.path().join("ca.pem"), b"pem").unwrap();
        let path = folder.path().join("client.toml");
        fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn file_tells_server_token_trust_and_limits() {
        let text = "addr = 'https://keys.example:8400'\ntoken_file = 'token'\nca = 'ca.pem'\n\
                    connect_seconds = 1\nrequest_seconds = 9\nattempts = 2";
        let config = config_of(text, b"the-token\r\nnotes\n", 0o600).unwrap();
        assert_eq!(config.addr.to_string(), "https://keys.example:8400");
        assert!(config.token.unwrap().expose(|token| token == b"the-token"));
        assert!(matches!(config.trust, Trust::Authority(pem) if pem == b"pem"));
        assert_eq!(config.connect_timeout, Duration::from_secs(1));
        assert_eq!(config.request_timeout, Duration::from_secs(9));
        assert_eq!(config.retry, ClientConfig::new(config.addr).retry.attempts(2));
    }

    #[test]
    fn file_without_an_address_or_with_an_unknown_name_is_refused() {
        for text in ["", "addr = 1", "addr = 'http://h'\ntoken = 'x'", "addr = "] {
            let problem = config_of(text, b"t", 0o600).unwrap_err();
            assert!(matches!(problem, FileProblem::Syntax(_)), "{text}: {problem:?}");
        }
        let problem = config_of("addr = 'h'", b"t", 0o600).unwrap_err();
        assert!(matches!(problem, FileProblem::Addr(_)));
    }

    #[test]
    fn token_file_that_others_can_read_is_refused() {
        let text = "addr = 'http://h'\ntoken_file = 'token'";
        for mode in [0o640, 0o604, 0o660] {
            let problem = config_of(text, b"t", mode).unwrap_err();
            assert!(matches!(problem, FileProblem::ExposedToken { .. }), "{mode:o}");
        }
    }

    #[test]
    fn token_file_without_a_token_is_refused() {
        let text = "addr = 'http://h'\ntoken_file = 'token'";
        for content in [&b""[..], b"\n", &[b'x'; 5_000]] {
            let problem = config_of(text, content, 0o600).unwrap_err();
            assert!(matches!(problem, FileProblem::NoToken { .. }), "{problem:?}");
        }
    }

    #[test]
    fn file_with_two_trusts_or_a_missing_ca_is_refused() {
        let both = "addr = 'http://h'\nca = 'ca.pem'\nca_fingerprint = 'x'";
        assert!(matches!(config_of(both, b"t", 0o600), Err(FileProblem::TwoTrusts)));
        let missing = "addr = 'http://h'\nca = 'none.pem'";
        assert!(matches!(config_of(missing, b"t", 0o600), Err(FileProblem::Read { .. })));
        let wrong = "addr = 'http://h'\nca_fingerprint = 'x'";
        assert!(matches!(config_of(wrong, b"t", 0o600), Err(FileProblem::Fingerprint(_))));
    }
}
