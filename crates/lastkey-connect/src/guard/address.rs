//! Addresses as they are written, and which of them may be called.
//!
//! Room      `connect`, inside.
//! Source    RFC 3986; RFC 3927 and RFC 4291, section 2.5.6 (link-local); RFC 6052, RFC 3056 and
//!           RFC 4291, section 2.5.5 (IPv4 inside IPv6).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use http::Uri;
use http::uri::Scheme;

use super::{OutboundError, Trust};

/// Longest address that is read, in bytes.
const MAX_ADDRESS_LEN: usize = 2_048;

/// An address of the web: `https://HOST[:PORT][/PATH]`, or `http://` for loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it is https.
    pub(super) is_secure: bool,
    /// Name or IP address, in lower case, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// Path and query; `/` when there is none.
    path: String,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`OutboundError::Address`]: not http or https, a user in it, no host.
    pub fn parse(text: &str) -> Result<Self, OutboundError> {
        let refuse = OutboundError::Address;
        if text.len() > MAX_ADDRESS_LEN || text.contains('#') {
            return Err(refuse("it is too long, or has a fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| refuse("it is malformed"))?;
        let is_secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return Err(refuse("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or(refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it names a user"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(refuse("it has no host"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match (authority.port_u16(), has_port, is_secure) {
            (Some(port), _, _) => port,
            (None, true, _) => return Err(refuse("its port is none")),
            (None, false, true) => 443,
            (None, false, false) => 80,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let this = Self { is_secure, host: host.to_ascii_lowercase(), port, path };
        if !is_secure && !this.is_named_loopback() {
            return Err(refuse("http:// is for loopback only; use https://"));
        }
        Ok(this)
    }

    /// A host and a port, of another protocol than that of the web; with TLS unless it is loopback and
    /// nobody said whose certificate is to be shown.
    pub(super) fn of(host: &str, port: u16, trust: &Trust) -> Self {
        let (host, path) = (host.to_ascii_lowercase(), "/".to_owned());
        let this = Self { is_secure: false, host, port, path };
        let is_secure = *trust != Trust::System || !this.is_named_loopback();
        Self { is_secure, ..this }
    }

    fn is_named_loopback(&self) -> bool {
        let by_number = self.host.parse::<IpAddr>().is_ok_and(|ip| unmapped(ip).is_loopback());
        self.host == "localhost" || by_number
    }

    /// Whether the host may stand for this IP address.
    pub(super) fn may_stand_for(&self, ip: IpAddr) -> bool {
        let ip = unmapped(ip);
        if !self.is_secure {
            return ip.is_loopback();
        }
        match ip {
            IpAddr::V4(ip) => may_call(ip),
            IpAddr::V6(ip) => {
                !(ip.is_unicast_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || METADATA_V6.contains(&ip))
                    && carried(ip).is_none_or(may_call)
            }
        }
    }

    /// This path and query, below the path of the address; an empty one is the address itself.
    pub(super) fn join(&self, path: &str) -> String {
        match path {
            "" => self.path.clone(),
            path => format!("{}{path}", self.path.trim_end_matches('/')),
        }
    }

    /// Host and port as a `Host` header has them.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => self.host.clone(),
        };
        match (self.is_secure, self.port) {
            (true, 443) | (false, 80) => host,
            (true | false, port) => format!("{host}:{port}"),
        }
    }
}

/// Metadata services that are not on a link-local address: of Alibaba Cloud and of Azure.
const METADATA_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The same of AWS and of Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn may_call(ip: Ipv4Addr) -> bool {
    !(ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_broadcast()
        || METADATA_V4.contains(&ip))
}

/// The IPv4 address to which a network may lead an IPv6 one: by NAT64, by 6to4, and in the old
/// form without a prefix. `::1` is none.
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    if ip.is_unspecified() || ip.is_loopback() {
        return None;
    }
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

/// An IPv4 address inside an IPv6 one is the IPv4 address.
fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Hosts that may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// All that are not forbidden for everybody.
    #[default]
    Any,
    /// These.
    Only(Vec<Pattern>),
}

impl Allowed {
    /// Whether the operator allows this host.
    #[must_use]
    pub fn allows(&self, address: &Address) -> bool {
        match self {
            Self::Any => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.is_for(address)),
        }
    }
}

/// `HOST`, `HOST:PORT`, or either with `*.` before it for every name below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    is_below: bool,
    host: String,
    port: Option<u16>,
}

impl Pattern {
    fn is_for(&self, address: &Address) -> bool {
        let is_host = match self.is_below {
            true => address.host.strip_suffix(&self.host).is_some_and(|left| left.ends_with('.')),
            false => address.host == self.host,
        };
        is_host && self.port.is_none_or(|port| port == address.port)
    }
}

impl FromStr for Pattern {
    type Err = OutboundError;

    fn from_str(text: &str) -> Result<Self, OutboundError> {
        let (is_below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, port) = match rest.parse::<Ipv6Addr>() {
            Ok(_) => (rest, None),
            Err(_) => match rest.rsplit_once(':') {
                Some((host, port)) => {
                    let port = port.parse().map_err(|_| OutboundError::Address("a bad port"))?;
                    (host.trim_start_matches('[').trim_end_matches(']'), Some(port))
                }
                None => (rest, None),
            },
        };
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || !host.bytes().all(is_plain) {
            return Err(OutboundError::Address("expected HOST, HOST:PORT or *.HOST"));
        }
        Ok(Self { is_below, host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_https_or_loopback() {
        for good in [
            "https://id.example/realm?x=1",
            "https://10.0.0.1:6443",
            "https://[fd00::1]/",
            "http://127.0.0.1:8080/keys",
            "http://localhost/",
            "http://[::1]:1",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.example",
            "ftp://id.example/",
            "file:///etc/passwd",
            "http://id.example/",
            "http://10.0.0.1/",
            "http://localhost.example/",
            "https://user@id.example/",
            "https://127.0.0.1@evil.example/",
            "https://id.example/#x",
            "https:///x",
            "https://id.example:99999/",
            "https://id.example:/",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_services_are_called_under_no_name() {
        let secure = Address::parse("https://any.example/").unwrap();
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "fd20:ce::254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::100.100.100.200",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
        ] {
            assert!(!secure.may_stand_for(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "::10.0.0.1", "::1"] {
            assert!(secure.may_stand_for(ip.parse().unwrap()), "{ip}");
        }
        let plain = Address::parse("http://localhost/").unwrap();
        assert!(plain.may_stand_for("::1".parse().unwrap()));
        assert!(!plain.may_stand_for("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn pattern_allows_its_host_and_no_other() {
        let allows = |pattern: &str, url: &str| {
            let allowed = Allowed::Only(vec![pattern.parse().unwrap()]);
            allowed.allows(&Address::parse(url).unwrap())
        };
        assert!(allows("id.example", "https://ID.example/x"));
        assert!(allows("id.example:8443", "https://id.example:8443/"));
        assert!(!allows("id.example:8443", "https://id.example/"));
        assert!(allows("*.example", "https://a.b.example/"));
        assert!(!allows("*.example", "https://example/"));
        assert!(!allows("*.example", "https://evilexample/"));
        assert!(!allows("id.example", "https://id.example.evil/"));
        assert!(allows("fd00::1", "https://[fd00::1]/"));
        assert!(allows("[fd00::1]:443", "https://[fd00::1]/"));
        for bad in ["", "*.", "a b", "id.example:x", "https://id.example"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_joined_below_the_address() {
        let root = Address::parse("https://k.example").unwrap();
        assert_eq!((root.join(""), root.join("/api")), ("/".to_owned(), "/api".to_owned()));
        let below = Address::parse("https://k.example/k8s/c1/").unwrap();
        assert_eq!(below.join("/api?x=1"), "/k8s/c1/api?x=1");
        assert_eq!(below.join(""), "/k8s/c1/");
    }
}
