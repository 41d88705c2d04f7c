//! The canonical request of Signature Version 4.
//!
//! Room      `trust`, inside.
//! Source    AWS General Reference, "Create a canonical request".

use super::{Request, SignatureError};

/// The canonical request, whose hash is signed.
pub(super) fn request(request: &Request<'_>, signed: &[&str]) -> Result<String, SignatureError> {
    // Room for all but a query or path that grows by encoding: no second allocation.
    let headers: usize =
        request.headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum();
    let line = request.method.len() + request.path.len() + request.query.len();
    let mut out = String::with_capacity(headers + line + 80);
    out.push_str(request.method);
    out.push('\n');
    push_path(request.path, &mut out).ok_or(SignatureError::BadPath)?;
    out.push('\n');
    push_query(request.query, &mut out).ok_or(SignatureError::BadPath)?;
    out.push('\n');
    for name in signed {
        out.push_str(name);
        out.push(':');
        push_values(request, name, &mut out);
        out.push('\n');
    }
    out.push('\n');
    for (place, name) in signed.iter().enumerate() {
        if place > 0 {
            out.push(';');
        }
        out.push_str(name);
    }
    out.push('\n');
    push_hex(request.body_sha256, &mut out);
    Ok(out)
}

/// The path, encoded once more. What another reader could take for another path is refused.
fn push_path(path: &str, out: &mut String) -> Option<()> {
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_end = segments.peek().is_none();
        let meant = decode(segment)?;
        let leads_elsewhere = meant.split(|b| *b == b'/').any(|one| one == b"." || one == b"..");
        if leads_elsewhere || (segment.is_empty() && !is_end) {
            return None;
        }
        out.push('/');
        encode(segment.as_bytes(), out);
    }
    Some(())
}

/// The query, decoded, encoded anew, sorted by name and value.
fn push_query(query: &str, out: &mut String) -> Option<()> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((encoded(&decode(name)?), encoded(&decode(value)?)));
    }
    pairs.sort_unstable();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if place > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    Some(())
}

/// All values of a header in their order, trimmed, with runs of spaces made one.
fn push_values(request: &Request<'_>, name: &str, out: &mut String) {
    let values = request.headers.iter().filter(|(one, _)| one.eq_ignore_ascii_case(name));
    for (place, (_, value)) in values.enumerate() {
        if place > 0 {
            out.push(',');
        }
        let words = value.split([' ', '\t']).filter(|word| !word.is_empty());
        for (place, word) in words.enumerate() {
            if place > 0 {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
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

/// Appends hexadecimal in small letters.
pub(super) fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push(hex_digit(byte >> 4));
        out.push(hex_digit(byte & 15));
    }
}

/// Hexadecimal in small letters.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut out);
    out
}

/// The bytes of hexadecimal in small letters; `None` for anything else and any other length.
pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut out = [0; 32];
    if pairs.len() != out.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'a'..=b'f' => byte.checked_sub(b'a').map(|value| value + 10),
        _ => None,
    }
}

const fn hex_digit(nibble: u8) -> char {
    let base = if nibble < 10 { b'0' } else { b'a' - 10 };
    (base + (nibble & 15)) as char
}

#[cfg(test)]
mod tests {
    use super::{push_path, push_query};

    fn path(path: &str) -> Option<String> {
        let mut out = String::new();
        push_path(path, &mut out).map(|()| out)
    }

    fn query(query: &str) -> Option<String> {
        let mut out = String::new();
        push_query(query, &mut out).map(|()| out)
    }

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
