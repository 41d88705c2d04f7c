//! The canonical request of Signature Version 4.
//!
//! Room      `trust`, inside.
//! Source    AWS General Reference, "Create a canonical request".

use super::{Request, SignatureError};

/// The canonical request, whose hash is signed.
pub(super) fn request(request: &Request<'_>, signed: &[&str]) -> Result<String, SignatureError> {
    let method = request.method;
    let path = path(request.path).ok_or(SignatureError::BadPath)?;
    let query = query(request.query).ok_or(SignatureError::BadPath)?;
    let headers: String =
        signed.iter().map(|name| format!("{name}:{}\n", header(request, name))).collect();
    let signed = signed.join(";");
    let body = hex(request.body_sha256);
    Ok(format!("{method}\n{path}\n{query}\n{headers}\n{signed}\n{body}"))
}

/// The path, encoded once more. What another reader could take for another path is refused.
fn path(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let mut segments = rest.split('/').peekable();
    let mut out = String::with_capacity(path.len());
    while let Some(segment) = segments.next() {
        let is_end = segments.peek().is_none();
        let meant = decode(segment)?;
        let leads_elsewhere = meant.split(|b| *b == b'/').any(|one| one == b"." || one == b"..");
        if leads_elsewhere || (segment.is_empty() && !is_end) {
            return None;
        }
        out.push('/');
        encode(segment.as_bytes(), &mut out);
    }
    Some(out)
}

/// The query, decoded, encoded anew, sorted by name and value.
fn query(query: &str) -> Option<String> {
    if query.is_empty() {
        return Some(String::new());
    }
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((encoded(&decode(name)?), encoded(&decode(value)?)));
    }
    pairs.sort_unstable();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Some(pairs.join("&"))
}

/// All values of a header, trimmed, with runs of spaces made one, in their order.
fn header(request: &Request<'_>, name: &str) -> String {
    let values = request.headers.iter().filter(|(one, _)| one.eq_ignore_ascii_case(name));
    let values: Vec<String> = values
        .map(|(_, value)| {
            value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    values.join(",")
}

/// Percent-decodes; `None` for a percent sign without two hexadecimal digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    encode(bytes, &mut out);
    out
}

/// Percent-encodes all but the unreserved characters of RFC 3986, digits in capitals.
fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            out.push(hex_digit(byte >> 4).to_ascii_uppercase());
            out.push(hex_digit(byte & 15).to_ascii_uppercase());
        }
    }
}

/// Hexadecimal in small letters.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::{path, query};

    #[test]
    fn path_is_encoded_once_more() {
        assert_eq!(path("/").as_deref(), Some("/"));
        assert_eq!(path("/v1/keys/").as_deref(), Some("/v1/keys/"));
        assert_eq!(path("/a%20b/c").as_deref(), Some("/a%2520b/c"));
        assert_eq!(path("/alias:x").as_deref(), Some("/alias%3Ax"));
    }

    #[test]
    fn path_refuses_what_could_lead_elsewhere() {
        for bad in [
            "",
            "a",
            "//",
            "/a//b",
            "/.",
            "/a/../b",
            "/%2e%2e/b",
            "/a/.%2E",
            "/a%2f..",
            "/%zz",
            "/%2",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn query_is_sorted_by_name_and_value() {
        assert_eq!(query("b=2&a=%20x&a=1&c").as_deref(), Some("a=%20x&a=1&b=2&c="));
        assert_eq!(query("a=b=c").as_deref(), Some("a=b%3Dc"));
        assert_eq!(query("a=%7e").as_deref(), Some("a=~"));
        assert_eq!(query("a=%g0"), None);
    }
}
