//! Archives as streams: gzip, Zstandard, tar (images of containers too) and zip.
//!
//! Room      `checks`, inside `scan`. A member is scanned while it is unpacked; nothing is
//!           written or kept.
//! Source    RFC 1952 (gzip), RFC 8878 (Zstandard), POSIX.1-2017 pax with the GNU extensions.
//! Holds     What one file unpacks to is bounded in sum and depth. Names of members are only
//!           shown, never opened.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use super::{
    reader::{Outcome, Place, Scanner, Workspace},
    zip, zstd,
};

/// Archives that are known, by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Tar,
    Zip,
    /// Known, but not opened here: its name.
    Closed(&'static str),
}

const TAR_BLOCK: usize = 512;

/// What archive begins like this; none for anything else.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let is_tar = head.get(257..262) == Some(b"ustar");
    match head {
        [0x1f, 0x8b, 8, ..] => Some(Kind::Gzip),
        head if zstd::is_one(head) => Some(Kind::Zstd),
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Kind::Closed("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Some(Kind::Closed("bzip2")),
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Some(Kind::Closed("7z")),
        _ => is_tar.then_some(Kind::Tar),
    }
}

/// Scans all members of an archive.
pub(super) fn walk(
    scanner: &Scanner,
    kind: Kind,
    place: Place<'_>,
    reader: &mut dyn Read,
    workspace: &mut Workspace,
    outcome: &mut Outcome,
    budget: &mut u64,
) -> Result<(), String> {
    let mut visit = |name: &str, member: &mut dyn Read, budget: &mut u64, outcome: &mut Outcome| {
        let path = format!("{}!/{name}", place.path);
        if !scanner.skips(&path) {
            scanner.scan_nested(place.inside(&path), member, workspace, outcome, budget);
        }
    };
    match kind {
        Kind::Gzip => {
            let mut unpacked = MultiGzDecoder::new(reader);
            unwrapped(scanner, place, &mut unpacked, workspace, outcome, budget);
            Ok(())
        }
        Kind::Zstd => {
            let mut unpacked = zstd::Frames::new(reader);
            unwrapped(scanner, place, &mut unpacked, workspace, outcome, budget);
            Ok(())
        }
        Kind::Tar => tar(reader, &mut |name, member| visit(name, member, budget, outcome)),
        Kind::Zip => zip::members(BufReader::new(reader), &mut |found| match found {
            zip::Found::Member { name, content } => {
                let mut bounded = Bounded { inner: content, budget: &mut *budget };
                // Nested archives draw on what is left afterwards.
                let mut nested = *bounded.budget;
                visit(name, &mut bounded, &mut nested, outcome);
                *budget = (*budget).min(nested);
            }
            zip::Found::Closed { name, reason } => {
                outcome.leave(&format!("{}!/{name}", place.path), reason);
            }
        }),
        Kind::Closed(name) => {
            outcome.leave(place.path, format!("{name} archives are not opened"));
            Ok(())
        }
    }
}

/// What a compressor wrapped is one file of the same name.
fn unwrapped(
    scanner: &Scanner,
    place: Place<'_>,
    unpacked: &mut dyn Read,
    workspace: &mut Workspace,
    outcome: &mut Outcome,
    budget: &mut u64,
) {
    let mut bounded = Bounded { inner: unpacked, budget: &mut *budget };
    let mut nested = *bounded.budget;
    scanner.scan_nested(place.inside(place.path), &mut bounded, workspace, outcome, &mut nested);
    *budget = (*budget).min(nested);
}

/// A reader that gives no more than is left of a budget, and says so when that ends it.
struct Bounded<'b, R> {
    inner: R,
    budget: &'b mut u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        *self.budget = self.budget.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other("it unpacks to more than the limit; the rest was not looked at")
        })?;
        Ok(count)
    }
}

/// Calls `visit` for each regular file of a tar archive.
fn tar(reader: &mut dyn Read, visit: &mut dyn FnMut(&str, &mut dyn Read)) -> Result<(), String> {
    let mut long_name: Option<String> = None;
    loop {
        let mut block = [0; TAR_BLOCK];
        match read_block(reader, &mut block)? {
            Block::End => return Ok(()),
            Block::Whole => {}
        }
        let header = Header::parse(&block).ok_or("it is damaged: a header is no header")?;
        let mut member = reader.take(header.len);
        match header.kind {
            b'L' => long_name = Some(text_member(&mut member)?.trim_end_matches('\0').to_owned()),
            b'x' => long_name = pax_path(&text_member(&mut member)?).or(long_name),
            b'0' | 0 | b'7' => visit(&long_name.take().unwrap_or(header.name), &mut member),
            b'g' | b'K' => {}
            _ => long_name = None,
        }
        drain(&mut member)?;
        if member.limit() > 0 {
            return Err("it ends too early".to_owned());
        }
        let padding = (TAR_BLOCK as u64 - header.len % TAR_BLOCK as u64) % TAR_BLOCK as u64;
        drain(&mut reader.take(padding))?;
    }
}

enum Block {
    Whole,
    End,
}

fn read_block(reader: &mut dyn Read, block: &mut [u8; TAR_BLOCK]) -> Result<Block, String> {
    let mut filled = Vec::with_capacity(TAR_BLOCK);
    reader
        .take(TAR_BLOCK as u64)
        .read_to_end(&mut filled)
        .map_err(|error| format!("it cannot be read to its end: {error}"))?;
    if filled.is_empty() || filled.iter().all(|byte| *byte == 0) {
        return Ok(Block::End);
    }
    *block = filled.try_into().map_err(|_| "it ends too early".to_owned())?;
    Ok(Block::Whole)
}

struct Header {
    name: String,
    len: u64,
    kind: u8,
}

impl Header {
    /// `None` unless the checksum is right.
    fn parse(block: &[u8; TAR_BLOCK]) -> Option<Self> {
        let sum: u64 = (0..)
            .zip(block)
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if octal(block.get(148..156)?)? != sum {
            return None;
        }
        let text = |range| block.get(range).map(until_zero);
        let (name, prefix) = (text(0..100)?, text(345..500)?);
        let has_prefix = block.get(257..263)? == b"ustar\0" && !prefix.is_empty();
        let name = if has_prefix { format!("{prefix}/{name}") } else { name };
        Some(Self { name, len: number(block.get(124..136)?)?, kind: *block.get(156)? })
    }
}

fn until_zero(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0));
    digits.into_iter().try_fold(0_u64, |number, digit| {
        let value = (b'0'..=b'7').contains(&digit).then(|| u64::from(digit - b'0'))?;
        number.checked_mul(8)?.checked_add(value)
    })
}

/// Octal, or binary when the highest bit of the first byte is set.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            let head = u64::from(first & 0x7f);
            rest.iter().try_fold(head, |number, byte| {
                number.checked_mul(256).map(|number| number | u64::from(*byte))
            })
        }
        _ => octal(field),
    }
}

/// A member that is a name or a list of them, and so is short.
fn text_member(member: &mut dyn Read) -> Result<String, String> {
    const LONGEST: u64 = 64 << 10;
    let mut bytes = Vec::new();
    member
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("it cannot be read to its end: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The record `path` of a pax header: `LENGTH path=VALUE\n`.
fn pax_path(records: &str) -> Option<String> {
    let records = records.lines().filter_map(|line| line.split_once(' '));
    records
        .map(|(_, record)| record)
        .find_map(|record| record.strip_prefix("path=").map(Into::into))
}

fn drain(reader: &mut dyn Read) -> Result<(), String> {
    io::copy(reader, &mut io::sink())
        .map(|_| ())
        .map_err(|error| format!("it cannot be read to its end: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind, number, pax_path};

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        assert_eq!(kind(&[0x1f, 0x8b, 8, 0]), Some(Kind::Gzip));
        assert_eq!(kind(b"PK\x03\x04"), Some(Kind::Zip));
        assert_eq!(kind(b"BZh91AY&SY"), Some(Kind::Closed("bzip2")));
        assert_eq!(kind(b"BZh is how a sentence may begin"), None);
        let mut tar = vec![b'a'; 512];
        assert_eq!(kind(&tar), None);
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(kind(&tar), Some(Kind::Tar));
    }

    #[test]
    fn sizes_are_octal_or_binary() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(b"0000000009\0\0"), None);
        assert_eq!(number(&[0xff; 12]), None);
    }

    #[test]
    fn pax_header_names_its_member() {
        assert_eq!(pax_path("30 mtime=1\n12 path=a/b\n").as_deref(), Some("a/b"));
        assert_eq!(pax_path("11 size=12\n"), None);
    }
}
