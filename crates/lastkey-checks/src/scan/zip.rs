//! Members of a zip archive, in the order in which they lie in the stream.
//!
//! Room      `checks`, inside `scan`.
//! Source    APPNOTE.TXT 6.3.10 by PKWARE.
//! Holds     Reads local headers, not the directory at the end: what the directory hides is
//!           seen as well. Takes no memory for claimed lengths.

use std::io::{BufRead, Read};

use flate2::bufread::DeflateDecoder;

/// What lies at the next place of the stream.
pub(super) enum Found<'m> {
    Member {
        name: &'m str,
        content: &'m mut dyn Read,
    },
    /// A member that cannot be read here.
    Closed {
        name: &'m str,
        reason: &'static str,
    },
}

const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const FIXED_LEN: usize = 26;

/// Calls `visit` for each member.
pub(super) fn members(
    mut reader: impl BufRead,
    visit: &mut dyn FnMut(Found<'_>),
) -> Result<(), String> {
    while next_signature(&mut reader)? == Some(LOCAL_HEADER) {
        let Some(header) = Header::read(&mut reader)? else {
            return Err("it ends too early".to_owned());
        };
        member(&mut reader, &header, visit)?;
    }
    Ok(())
}

/// Reads on to the next signature and over it. Between members lie data descriptors.
fn next_signature(reader: &mut impl BufRead) -> Result<Option<[u8; 4]>, String> {
    /// A data descriptor is at most this long.
    const NEAR: usize = 64;
    let mut last = [0; 4];
    for _ in 0..NEAR {
        let mut byte = [0];
        if reader.read(&mut byte).map_err(|error| unreadable(&error))? == 0 {
            return Ok(None);
        }
        let [_, b, c, d] = last;
        last = [b, c, d, byte[0]];
        if last == LOCAL_HEADER || last == *b"PK\x01\x02" || last == *b"PK\x05\x06" {
            return Ok(Some(last));
        }
    }
    Err("it is damaged: no member begins where one should".to_owned())
}

fn unreadable(error: &std::io::Error) -> String {
    format!("it cannot be read to its end: {error}")
}

struct Header {
    flags: u16,
    method: u16,
    /// In bytes; `None` when it stands behind the member.
    packed_len: Option<u64>,
    name: String,
}

impl Header {
    fn read(reader: &mut impl Read) -> Result<Option<Self>, String> {
        let mut fixed = [0; FIXED_LEN];
        if reader.read_exact(&mut fixed).is_err() {
            return Ok(None);
        }
        let [_, _, f0, f1, m0, m1, _, _, _, _, _, _, _, _, p0, p1, p2, p3, .., n0, n1, e0, e1] =
            fixed;
        let (name_len, extra_len) = (u16::from_le_bytes([n0, n1]), u16::from_le_bytes([e0, e1]));
        let mut part = |len: u16| {
            let mut bytes = vec![0; usize::from(len)];
            reader.read_exact(&mut bytes).map(|()| bytes).map_err(|error| unreadable(&error))
        };
        let name = String::from_utf8_lossy(&part(name_len)?).into_owned();
        let extra = part(extra_len)?;
        let flags = u16::from_le_bytes([f0, f1]);
        let short_len = u32::from_le_bytes([p0, p1, p2, p3]);
        let comes_later = flags & 8 != 0 && short_len == 0;
        let packed_len = match short_len {
            _ if comes_later => None,
            u32::MAX => wide_len(&extra),
            len => Some(u64::from(len)),
        };
        Ok(Some(Self { flags, method: u16::from_le_bytes([m0, m1]), packed_len, name }))
    }
}

/// The packed length in the extra field of zip64.
fn wide_len(mut extra: &[u8]) -> Option<u64> {
    while let [i0, i1, l0, l1, rest @ ..] = extra {
        let len = usize::from(u16::from_le_bytes([*l0, *l1]));
        let (field, more) = rest.split_at_checked(len)?;
        if (*i0, *i1) == (1, 0) {
            return field.get(8..16)?.try_into().ok().map(u64::from_le_bytes);
        }
        extra = more;
    }
    None
}

fn member(
    reader: &mut impl BufRead,
    header: &Header,
    visit: &mut dyn FnMut(Found<'_>),
) -> Result<(), String> {
    const STORED: u16 = 0;
    const DEFLATED: u16 = 8;
    let name = header.name.as_str();
    let is_encrypted = header.flags & 1 != 0;
    let mut packed = reader.take(header.packed_len.unwrap_or(u64::MAX));
    match header.method {
        _ if is_encrypted => visit(Found::Closed { name, reason: "it is encrypted" }),
        DEFLATED => {
            let mut content = DeflateDecoder::new(&mut packed);
            visit(Found::Member { name, content: &mut content });
            if header.packed_len.is_none() {
                // Only the end of its data says where the next member begins.
                std::io::copy(&mut content, &mut std::io::sink()).map_err(|e| unreadable(&e))?;
                return Ok(());
            }
        }
        STORED if header.packed_len.is_some() => {
            visit(Found::Member { name, content: &mut packed });
        }
        STORED => visit(Found::Closed { name, reason: "it does not say how long it is" }),
        _ => visit(Found::Closed { name, reason: "its compression is not known here" }),
    }
    match header.packed_len {
        None => Err(format!("nothing behind the member {name} was looked at")),
        Some(_) => {
            std::io::copy(&mut packed, &mut std::io::sink()).map_err(|error| unreadable(&error))?;
            if packed.limit() > 0 { Err("it ends too early".to_owned()) } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wide_len;

    #[test]
    fn wide_length_is_read_from_its_field_alone() {
        let mut extra = vec![0x55, 0x54, 1, 0, 9, 1, 0, 16, 0];
        extra.extend(7_u64.to_le_bytes());
        extra.extend(5_u64.to_le_bytes());
        assert_eq!(wide_len(&extra), Some(5));
        assert_eq!(wide_len(&extra[..12]), None);
        assert_eq!(wide_len(&[]), None);
    }
}
