//! Zstandard as a stream of frames.
//!
//! Room      `checks`, inside `scan`.
//! Source    RFC 8878, 3: frames follow one another, and those between them that can be skipped
//!           are no content.

use std::io::{self, BufRead as _, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Whether a file begins with a frame, or with one that can be skipped.
pub(super) fn is_one(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// What all frames of an input hold, one after the other.
pub(super) struct Frames<R> {
    inner: BufReader<R>,
    decoder: FrameDecoder,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner: BufReader::new(inner), decoder: FrameDecoder::new() }
    }

    /// Begins the next frame, if there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.inner.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.inner) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.inner.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.inner, one).map_err(io::Error::other)?;
            } else if !self.begin()? {
                return Ok(0);
            }
        }
        self.decoder.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::{Frames, is_one};

    #[test]
    fn all_frames_are_read_and_those_to_be_skipped_are_not() {
        let frame = |text: &[u8]| compress_to_vec(text, CompressionLevel::Fastest);
        let skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
        let whole =
            [&skipped[..], &frame(b"one "), &frame(b""), skipped, &frame(b"two"), skipped].concat();
        assert!(is_one(&whole) && is_one(&frame(b"")) && !is_one(b"\x28\xb5\x2f"));
        let mut text = String::new();
        Frames::new(whole.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        for cut in [whole.len() - skipped.len() - 1, skipped.len() + 6] {
            assert!(Frames::new(&whole[..cut]).read_to_end(&mut Vec::new()).is_err(), "{cut}");
        }
        let more = [&frame(b"one")[..], b"and something else"].concat();
        assert!(Frames::new(more.as_slice()).read_to_end(&mut Vec::new()).is_err());
    }
}
