//! Big-endian numbers, and buffers with a length of two bytes in front: what TPM commands, stored
//! seals and messages to the host of a module are made of.
//!
//! Room      `connect`.
//! Source    TCG TPM 2.0 Library, part 2 (structures): 4 base types, 10.4 sized buffers.
//! Holds     reading never panics and takes no memory for a claimed length.

/// An answer that is shorter than it says, or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end too early or too late")]
pub(crate) struct Malformed;

/// Bytes being written.
pub(crate) struct Out(Vec<u8>);

impl Default for Out {
    /// With room for whatever is written here: a buffer that grows leaves copies of secrets.
    fn default() -> Self {
        Self(Vec::with_capacity(2_048))
    }
}

impl Out {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// As they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// With their length in front (`TPM2B`). Nothing here comes near 64 KiB.
    pub(crate) fn sized(self, bytes: &[u8]) -> Self {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(len).raw(bytes)
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Bytes being read.
#[derive(Clone, Copy)]
pub(crate) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A buffer with its length in front (`TPM2B`).
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::{In, Malformed, Out};

    #[test]
    fn what_was_written_is_read() {
        let bytes = Out::default().u8(1).u16(2).u32(3).sized(b"abc").raw(b"z").done();
        let mut reader = In::new(&bytes);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!((reader.sized(), reader.end()), (Ok(&b"abc"[..]), Err(Malformed)));
        assert_eq!((reader.take(1), reader.end()), (Ok(&b"z"[..]), Ok(())));
        assert_eq!(reader.rest(), b"");
    }

    #[test]
    fn reading_refuses_what_is_too_short() {
        assert_eq!(In::new(&[0, 3, 1, 2]).sized(), Err(Malformed));
        assert_eq!(In::new(&[0; 3]).u32(), Err(Malformed));
        assert_eq!(In::new(&[]).take(1), Err(Malformed));
    }
}
