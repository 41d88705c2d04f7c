//! The stream of a backup, taken apart again.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md, "Stream".
//! Holds     records come in the order of their paths, each once; after the manifest comes
//!           nothing, and what came is what it says. Nobody may rely on anything before
//!           [`Sink::finish`].

use std::io::{self, Write};

use lastkey_core::backup::{BackupError, Stop};
use lastkey_crypto::digest::Sha256;
use lastkey_secret::SecretVec;

use super::failure::damaged;
use super::format::{
    FILE, MANIFEST, MAX_FILE_LEN, MAX_MANIFEST_LEN, MAX_NAME_LEN, Manifest, RECORD, is_file_name,
};
use crate::backend::{MAX_PATH_LEN, MAX_VALUE_LEN};

/// Room for a segment and a small item, so that the buffer grows for large ones alone, and those
/// hold no secret.
const BUFFER_LEN: usize = 1 << 20;

/// Who is handed what was in a backup.
pub(super) trait Receive {
    /// A record.
    fn record(&mut self, path: &str, revision: u64, value: &[u8]) -> Result<(), BackupError>;

    /// A file of the data directory; its name was checked.
    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackupError>;
}

/// Takes a stream apart.
pub(super) struct Sink<'a> {
    name: &'a str,
    to: &'a mut dyn Receive,
    stop: Stop,
    pending: Vec<u8>,
    last_path: String,
    records: Sha256,
    files: Sha256,
    seen: (u64, u64, u64),
    manifest: Option<Manifest>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(name: &'a str, to: &'a mut dyn Receive, stop: Stop) -> Self {
        Self {
            name,
            to,
            stop,
            pending: Vec::with_capacity(BUFFER_LEN),
            last_path: String::new(),
            records: Sha256::new(),
            files: Sha256::new(),
            seen: (0, 0, 0),
            manifest: None,
        }
    }

    /// The manifest, when what came is what it says.
    pub(super) fn finish(mut self) -> Result<Manifest, BackupError> {
        let bad = |what: &str| damaged(self.name, what);
        let manifest = self.manifest.take().filter(|_| self.pending.is_empty());
        let manifest = manifest.ok_or_else(|| bad("it ends too early"))?;
        let came = Manifest {
            records: self.seen.0,
            records_sha256: self.records.clone().finish(),
            files: self.seen.1,
            files_sha256: self.files.clone().finish(),
            tombstones: self.seen.2,
            ..manifest.clone()
        };
        if came == manifest {
            Ok(manifest)
        } else {
            Err(bad("its manifest tells of other records"))
        }
    }

    /// Takes whole items from the buffer.
    fn take_items(&mut self) -> Result<(), BackupError> {
        // Moved out, so that an item can be lent while the rest of this is changed.
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        let taken = loop {
            match self.take_item(rest) {
                Ok(Some(after)) => rest = after,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let used = pending.len() - rest.len();
        self.pending = pending;
        self.pending.drain(..used);
        taken
    }

    /// Takes one item off the front; `None` when it is not all there yet.
    fn take_item<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, BackupError> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        if self.manifest.is_some() {
            return Err(self.bad("something comes after its manifest"));
        }
        if self.stop.is_set() {
            return Err(BackupError::Stopped);
        }
        let after = match *kind {
            RECORD => self.take_record(rest)?,
            FILE => self.take_file(rest)?,
            MANIFEST => self.take_manifest(rest)?,
            _ => return Err(BackupError::Newer(self.name.to_owned())),
        };
        let Some(after) = after else { return Ok(None) };
        let item = bytes.get(..bytes.len() - after.len()).unwrap_or_default();
        match *kind {
            RECORD => self.records.update(item),
            FILE => self.files.update(item),
            _ => {}
        }
        Ok(Some(after))
    }

    fn take_record<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, BackupError> {
        let Some((path, rest)) = self.short(bytes, MAX_PATH_LEN)? else { return Ok(None) };
        let Some((revision, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let Some((value, rest)) = self.long(rest, MAX_VALUE_LEN)? else { return Ok(None) };
        let path = core::str::from_utf8(path).map_err(|_| self.bad("a path is no text"))?;
        if path <= self.last_path.as_str() {
            return Err(self.bad("its records are out of order"));
        }
        self.last_path.clear();
        self.last_path.push_str(path);
        self.to.record(path, u64::from_be_bytes(*revision), value)?;
        self.seen.0 = self.seen.0.saturating_add(1);
        self.seen.2 = self.seen.2.saturating_add(path.starts_with("tombstone/").into());
        Ok(Some(rest))
    }

    fn take_file<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, BackupError> {
        let Some((name, rest)) = self.short(bytes, MAX_NAME_LEN)? else { return Ok(None) };
        let Some((content, rest)) = self.long(rest, MAX_FILE_LEN)? else { return Ok(None) };
        let name = core::str::from_utf8(name).ok().filter(|name| is_file_name(name));
        let name = name.ok_or_else(|| self.bad("a file in it has a name that there is not"))?;
        self.to.file(name, content)?;
        self.seen.1 = self.seen.1.saturating_add(1);
        Ok(Some(rest))
    }

    fn take_manifest<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, BackupError> {
        let Some((cbor, rest)) = self.long(bytes, MAX_MANIFEST_LEN)? else { return Ok(None) };
        let manifest = Manifest::decode(cbor);
        self.manifest = Some(manifest.ok_or_else(|| self.bad("its manifest is malformed"))?);
        Ok(Some(rest))
    }

    /// Bytes after their length in two bytes.
    fn short<'b>(&self, bytes: &'b [u8], most: usize) -> Result<Split<'b>, BackupError> {
        let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        self.split(rest, usize::from(u16::from_be_bytes(*len)), most)
    }

    /// Bytes after their length in four bytes.
    fn long<'b>(&self, bytes: &'b [u8], most: usize) -> Result<Split<'b>, BackupError> {
        let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        self.split(rest, len, most)
    }

    fn split<'b>(&self, rest: &'b [u8], len: usize, most: usize) -> Result<Split<'b>, BackupError> {
        if len > most {
            return Err(self.bad("an item in it is longer than any may be"));
        }
        Ok(rest.split_at_checked(len))
    }

    fn bad(&self, what: &str) -> BackupError {
        damaged(self.name, what)
    }
}

type Split<'b> = Option<(&'b [u8], &'b [u8])>;

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        self.take_items().map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        // Files in it may be secret.
        drop(SecretVec::take(std::mem::take(&mut self.pending)));
    }
}

/// Takes a stream apart that was opened elsewhere, and keeps nothing of it.
///
/// # Errors
/// [`BackupError::Damaged`], [`BackupError::Newer`].
pub fn scan_stream(stream: &[u8]) -> Result<Manifest, BackupError> {
    let mut nobody = Nobody;
    let mut sink = Sink::new("the stream", &mut nobody, Stop::default());
    sink.pending.extend_from_slice(stream);
    sink.take_items()?;
    sink.finish()
}

struct Nobody;

impl Receive for Nobody {
    fn record(&mut self, _: &str, _: u64, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }

    fn file(&mut self, _: &str, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::digest::sha256;
    use proptest::prelude::*;

    use super::super::format::{file_item, manifest_item, record_item};
    use super::*;

    fn manifest(records: &[Vec<u8>], files: &[Vec<u8>]) -> Manifest {
        Manifest {
            records: records.len() as u64,
            records_sha256: sha256(&records.concat()),
            files: files.len() as u64,
            files_sha256: sha256(&files.concat()),
            tombstones: 1,
            audit: None,
        }
    }

    fn parts() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let record = |path, value: &[u8]| record_item(path, 7, value).unwrap();
        let records = vec![record("!bootstrap", b"x"), record("tombstone/a", &[9; 300])];
        (records, vec![file_item("tls/ca.pem", b"pem").unwrap()])
    }

    fn stream() -> Vec<u8> {
        let (records, files) = parts();
        let end = manifest_item(&manifest(&records, &files)).unwrap();
        [records.concat(), files.concat(), end].concat()
    }

    #[test]
    fn a_stream_is_taken_apart_in_pieces_of_any_length() {
        let expected = scan_stream(&stream()).unwrap();
        assert_eq!((expected.records, expected.files, expected.tombstones), (2, 1, 1));
        for len in 1..40 {
            let mut nobody = Nobody;
            let mut sink = Sink::new("s", &mut nobody, Stop::default());
            stream().chunks(len).for_each(|piece| sink.write_all(piece).unwrap());
            assert_eq!(sink.finish().unwrap(), expected, "{len}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_goes_on_or_is_out_of_order_is_refused() {
        let whole = stream();
        for len in 0..whole.len() {
            assert!(scan_stream(&whole[..len]).is_err(), "{len}");
        }
        assert!(scan_stream(&[&whole[..], b"\x01"].concat()).is_err());
        let (records, files) = parts();
        let end = manifest_item(&manifest(&records, &files)).unwrap();
        let swapped = [&records[1][..], &records[0], &files[0], &end].concat();
        assert!(scan_stream(&swapped).is_err());
        let twice = [&records[0][..], &records[0], &files[0], &end].concat();
        assert!(scan_stream(&twice).is_err());
        let missing = [&records[0][..], &files[0], &end].concat();
        assert!(scan_stream(&missing).is_err());
    }

    #[test]
    fn claimed_lengths_take_no_memory() {
        for item in [
            &b"\x01\xff\xff"[..],
            b"\x01\x00\x01a\0\0\0\0\0\0\0\x01\xff\xff\xff\xff",
            b"\x02\x00\x01a\xff\xff\xff\xff",
            b"\x03\xff\xff\xff\xff",
            b"\x04",
        ] {
            assert!(scan_stream(item).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_fail(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        ) {
            let mut bytes = stream();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let changed = bytes != stream();
            prop_assert!(scan_stream(&bytes).is_err() || !changed);
        }
    }
}
