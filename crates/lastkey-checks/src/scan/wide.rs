//! UTF-16 as UTF-8.
//!
//! Room      `checks`, inside `scan`.
//! Source    The Unicode Standard, D91 (UTF-16), 23.8 (byte order mark).

use std::io::{self, BufRead as _, BufReader, Read};

/// So much is made ready at a time, in bytes.
const READY_LEN: usize = 4 << 10;

/// Which byte of a unit comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// The byte order of UTF-16, when a text begins with its mark.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0xff, 0xfe, 0, 0, ..] => None,
            [0xff, 0xfe, ..] => Some(Self::Little),
            [0xfe, 0xff, ..] => Some(Self::Big),
            _ => None,
        }
    }
}

/// A reader of UTF-16, read as UTF-8. Halves of pairs become U+FFFD.
pub(super) struct Narrow<R> {
    inner: BufReader<R>,
    order: Order,
    /// A unit that was read and belongs to the next letter.
    pending: Option<u16>,
    ready: String,
    /// How much of it was given away.
    given: usize,
}

impl<R: Read> Narrow<R> {
    pub(super) fn new(inner: R, order: Order) -> Self {
        let inner = BufReader::new(inner);
        Self { inner, order, pending: None, ready: String::new(), given: 0 }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.inner.fill_buf()?.first().copied();
        self.inner.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    fn unit(&mut self) -> io::Result<Option<u16>> {
        if let Some(unit) = self.pending.take() {
            return Ok(Some(unit));
        }
        let (Some(first), Some(second)) = (self.byte()?, self.byte()?) else { return Ok(None) };
        Ok(Some(match self.order {
            Order::Little => u16::from_le_bytes([first, second]),
            Order::Big => u16::from_be_bytes([first, second]),
        }))
    }

    fn letter(&mut self) -> io::Result<Option<char>> {
        let Some(first) = self.unit()? else { return Ok(None) };
        if let Some(letter) = char::from_u32(first.into()) {
            return Ok(Some(letter));
        }
        let Some(second) = self.unit()? else { return Ok(Some(char::REPLACEMENT_CHARACTER)) };
        if let Some(Ok(letter)) = char::decode_utf16([first, second]).next() {
            return Ok(Some(letter));
        }
        self.pending = Some(second);
        Ok(Some(char::REPLACEMENT_CHARACTER))
    }
}

impl<R: Read> Read for Narrow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            while self.ready.len() < READY_LEN {
                let Some(letter) = self.letter()? else { break };
                self.ready.push(letter);
            }
        }
        let len = self.ready.as_bytes().get(self.given..).unwrap_or_default().read(buffer)?;
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Narrow, Order};

    fn read(units: &[u16], odd: &[u8]) -> String {
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let mut text = String::new();
        // A byte at a time: letters that do not fit wait.
        let mut narrow = Narrow::new(bytes.chain(odd), Order::Big);
        let mut bytes = Vec::new();
        let mut one = [0];
        while narrow.read(&mut one).unwrap() > 0 {
            bytes.push(one[0]);
        }
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        text
    }

    #[test]
    fn letters_of_every_length_are_read_and_halves_cost_no_neighbour() {
        let text = "kä\u{20ac}\u{1f511}.";
        assert_eq!(read(&text.encode_utf16().collect::<Vec<_>>(), b""), text);
        assert_eq!(read(&[0xd83d, 0x6b, 0xdd11, 0x65], b"\0"), "\u{fffd}k\u{fffd}e");
        assert_eq!(read(&[0x6b, 0xd83d], b""), "k\u{fffd}");
    }
}
