//! Where a server listens, as a person writes it.
//!
//! Room      `client`. Parsed once; everything below works with the parts.

use std::{fmt, path::PathBuf, str::FromStr};

const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// The address of a server: `https://host[:port]`, `http://host[:port]` or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    /// TLS over TCP.
    Https {
        /// DNS name or IP address, without brackets; the certificate must name it.
        host: String,
        /// TCP port; the scheme's own when the address names none.
        port: u16,
    },
    /// Plain TCP: for loopback and for tests, since the token crosses the wire readable.
    Http {
        /// DNS name or IP address, without brackets.
        host: String,
        /// TCP port; the scheme's own when the address names none.
        port: u16,
    },
    /// A unix socket; the kernel protects it, no TLS.
    Unix(PathBuf),
}

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a server address; use https://host:port, http://host:port or unix:///path")]
pub struct AddrError;

impl Addr {
    /// Whether requests leave this machine unencrypted.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Https { .. } | Self::Unix(_) => false,
            Self::Http { host, .. } => {
                host != "localhost"
                    && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// Scheme and authority of request targets. A unix socket has no authority of its own.
    pub(crate) fn base(&self) -> String {
        match self {
            Self::Https { host, port } => format!("https://{}:{port}", bracketed(host)),
            Self::Http { host, port } => format!("http://{}:{port}", bracketed(host)),
            Self::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { .. } | Self::Http { .. } => f.write_str(&self.base()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(AddrError) };
        }
        let uri: http::Uri = text.parse().map_err(|_| AddrError)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(AddrError);
        }
        let authority = uri.authority().ok_or(AddrError)?;
        let after_host = authority.as_str().strip_prefix(authority.host()).ok_or(AddrError)?;
        let named_port = match after_host.strip_prefix(':') {
            Some(digits) => Some(digits.parse::<u16>().map_err(|_| AddrError)?),
            None if after_host.is_empty() => None,
            None => return Err(AddrError),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(AddrError);
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self::Https { host, port: named_port.unwrap_or(HTTPS_PORT) }),
            Some("http") => Ok(Self::Http { host, port: named_port.unwrap_or(HTTP_PORT) }),
            Some(_) | None => Err(AddrError),
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Addr, AddrError};

    fn parse(text: &str) -> Result<Addr, AddrError> {
        text.parse()
    }

    #[test]
    fn addr_parses_each_scheme() {
        let host = || "keys.example".to_owned();
        assert_eq!(parse("https://keys.example:99"), Ok(Addr::Https { host: host(), port: 99 }));
        assert_eq!(parse("http://keys.example/"), Ok(Addr::Http { host: host(), port: 80 }));
        assert_eq!(parse("unix:///run/lastkey.sock"), Ok(Addr::Unix("/run/lastkey.sock".into())));
    }

    #[test]
    fn addr_keeps_ip_literals_without_brackets() {
        let addr = parse("https://[::1]:8").unwrap();
        assert_eq!(addr, Addr::Https { host: "::1".to_owned(), port: 8 });
        assert_eq!(addr.to_string(), "https://[::1]:8");
    }

    #[test]
    fn addr_rejects_what_is_no_server() {
        for text in [
            "",
            "keys.example",
            "keys.example:99",
            "ftp://keys.example",
            "https://",
            "https://user@keys.example",
            "https://keys.example/path",
            "https://keys.example?x=1",
            "https://keys.example:99999",
            "unix://relative",
        ] {
            assert_eq!(parse(text), Err(AddrError), "{text}");
        }
    }

    #[test]
    fn addr_is_exposed_only_without_tls_beyond_loopback() {
        for (text, exposed) in [
            ("http://keys.example:1", true),
            ("http://10.0.0.1:1", true),
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://localhost:1", false),
            ("https://keys.example:1", false),
            ("unix:///s", false),
        ] {
            assert_eq!(parse(text).unwrap().is_exposed(), exposed, "{text}");
        }
    }
}
