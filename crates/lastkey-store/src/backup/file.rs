//! The file of a backup: head, envelope, signature; how it is written and read.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md.
//! Holds     the hash that is signed is of what was written, and is taken again of what is read.
//!           Memory does not grow with the file.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use lastkey_core::audit::checkpoint::{hash_from_base64, hash_to_base64};
use lastkey_core::audit::note::{self, NoteKey};
use lastkey_core::backup::{BackupError, BackupHead, BackupOrder, Stop, Written};
use lastkey_core::backup_folder::{BackupFolder, NewFile, StoredFile};
use lastkey_core::ports::Cause;
use lastkey_crypto::digest::Sha256;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::envelope::{EnvelopeOptions, KIND_BACKUP, Recipient};
use lastkey_crypto::stream::{StreamError, decrypt_stream, encrypt_stream, read_header};
use lastkey_secret::SecretArray;

use super::directory::Directory;
use super::failure::{damaged, failed, io_error, of_io, of_stream};
use super::format::{Manifest, PREFIX_LEN, decode_head, encode_head, envelope_key, head_len};
use super::sink::{Receive, Sink};
use super::source::Source;
use crate::audit_log::LogCopy;
use crate::sqlite::Snapshot;

/// First line of what is signed.
const LABEL: &str = "lastkey-backup/v1";
/// Longest signature with what it signs, in bytes.
const MAX_NOTE_LEN: u32 = 4_096;

/// What a file is written of.
pub(super) struct Contents<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) data: &'a Path,
    pub(super) log: LogCopy,
}

/// Writes a backup into a folder.
pub(super) fn write(
    folder: &dyn BackupFolder,
    contents: Contents<'_>,
    order: &BackupOrder,
    entropy: &mut dyn Entropy,
) -> Result<Written, BackupError> {
    let mut file = folder.begin(&order.place.name)?;
    let written = write_file(&mut *file, contents, order, entropy)?;
    file.finish()?;
    Ok(written)
}

fn write_file(
    file: &mut dyn NewFile,
    contents: Contents<'_>,
    order: &BackupOrder,
    entropy: &mut dyn Entropy,
) -> Result<Written, BackupError> {
    let name = &order.place.name;
    let make = |cause: Cause| failed("make", name.clone())(cause);
    let unwritten = |error: io::Error| of_io(error, "write", name.clone());
    let head = encode_head(&order.head).map_err(|error| make(error.into()))?;
    let data_key = envelope_key(&order.key, &head).map_err(|error| make(error.into()))?;
    let mut out = Hashing::new(BufWriter::with_capacity(1 << 20, file));
    out.write_all(&head).map_err(unwritten)?;
    let mut values = contents.snapshot.values().map_err(|error| make(error.into()))?;
    let rows = values.query([]).map_err(|error| make(error.into()))?;
    let (data, stop) = (contents.data, order.stop.clone());
    let source = Source::new(rows, data, contents.log, stop);
    let mut source = source.map_err(io_error("read", data))?;
    let recipient = Recipient { kind: KIND_BACKUP, body: order.head.id.0.to_vec() };
    let options = EnvelopeOptions::default();
    encrypt_stream(&mut source, &mut out, &options, &data_key, &[recipient], entropy)
        .map_err(|error| of_stream(error, name))?;
    let manifest = source.manifest();
    let (mut out, len, sha256) = out.finish();
    let text = signed_text(&order.head, len, &sha256);
    let signature = order.signer.sign(&text, order.head.begun_at).map_err(make)?;
    let note = format!("{text}\n{signature}");
    let note_len = u32::try_from(note.len()).unwrap_or(u32::MAX).to_be_bytes();
    let ended = out.write_all(note.as_bytes()).and_then(|()| out.write_all(&note_len));
    ended.and_then(|()| out.flush()).map_err(unwritten)?;
    let len = len.saturating_add(note.len() as u64).saturating_add(4);
    let Manifest { records, records_sha256, audit, .. } = manifest;
    Ok(Written { len, sha256, records, records_sha256, audit })
}

/// What the key of the audit log signs of a backup.
fn signed_text(head: &BackupHead, len: u64, sha256: &[u8; 32]) -> String {
    let hash = hash_to_base64(sha256);
    format!("{LABEL}\n{}\n{}\n{len}\n{hash}\n", head.instance(), head.id)
}

/// Hashes and counts what is written or read.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    len: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), len: 0 }
    }

    fn saw(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
    }

    fn finish(self) -> (T, u64, [u8; 32]) {
        (self.inner, self.len, self.hash.finish())
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.saw(bytes.get(..len).unwrap_or_default());
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(dest)?;
        self.saw(dest.get(..len).unwrap_or_default());
        Ok(len)
    }
}

/// A backup that was found.
#[derive(Debug)]
pub struct BackupFile {
    name: String,
    file: Box<dyn StoredFile>,
    head: BackupHead,
    head_bytes: Vec<u8>,
    /// Bytes that are signed: all before the note.
    signed_len: u64,
    sha256: [u8; 32],
    note: String,
}

impl BackupFile {
    /// Opens a file of this machine, as [`Self::open_in`] does.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::open_in(&Directory::at(path.parent().unwrap_or(path)), &name)
    }

    /// Opens a file of a folder. Its parts were found and fit each other; nothing else is sure
    /// yet.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open_in(folder: &dyn BackupFolder, name: &str) -> Result<Self, BackupError> {
        let (file, name) = (folder.open(name)?, name.to_owned());
        let head_bytes = read_head(&*file, &name)?;
        let head = decode_head(&head_bytes, &name)?;
        let note = read_note(&*file, &name)?;
        let signed_len = file.len().saturating_sub(note.len() as u64).saturating_sub(4);
        let sha256 = hash_of(&note, &head, signed_len);
        let sha256 =
            sha256.ok_or_else(|| damaged(&name, "its end is not that of its beginning"))?;
        Ok(Self { name, file, head, head_bytes, signed_len, sha256, note })
    }

    /// Who can open it, and when it was begun.
    #[must_use]
    pub const fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Its file name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.signed_len.saturating_add(self.note.len() as u64).saturating_add(4)
    }

    /// Whether it is empty, which it never is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The hash that is signed.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Whether a key has signed it. Says nothing of the bytes before [`Self::check_hash`] or
    /// `open_with`.
    ///
    /// # Errors
    /// [`BackupError::Damaged`].
    pub fn check_signature(&self, key: &NoteKey) -> Result<(), BackupError> {
        let opened = note::open(&self.note, std::slice::from_ref(key));
        opened.map(|_| ()).map_err(|error| damaged(&self.name, format!("its signature: {error}")))
    }

    /// Whether its bytes are those that were signed. Needs no key.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn check_hash(&mut self) -> Result<(), BackupError> {
        let mut hashing = Hashing::new(io::sink());
        let mut bytes = self.from(0)?;
        let copied = io::copy(&mut bytes, &mut hashing);
        copied.map_err(|error| of_io(error, "read", self.name.clone()))?;
        let (_, len, sha256) = hashing.finish();
        self.compare(len, sha256)
    }

    /// Whether a key is the one of this backup.
    ///
    /// # Errors
    /// [`BackupError::WrongKey`]; others.
    pub fn check_key(&mut self, key: &SecretArray<32>) -> Result<(), BackupError> {
        let data_key = self.data_key(key)?;
        let name = self.name.clone();
        let mut bytes = self.from(self.head_bytes.len() as u64)?;
        let header = read_header(&mut bytes).map_err(|error| of_stream(error, &name))?;
        header.unlock(&data_key).map(|_| ()).map_err(|_| BackupError::WrongKey(name))
    }

    /// Opens all of it and hands on what is in it; compares its bytes with what was signed.
    ///
    /// # Errors
    /// [`BackupError`]; what was handed on by then counts for nothing.
    pub(super) fn open_with(
        &mut self,
        key: &SecretArray<32>,
        to: &mut dyn Receive,
        stop: &Stop,
    ) -> Result<Manifest, BackupError> {
        self.check_key(key)?;
        let (data_key, name) = (self.data_key(key)?, self.name.clone());
        let start = self.head_bytes.len() as u64;
        let head = self.head_bytes.clone();
        let mut bytes = Hashing::new(self.from(start)?);
        bytes.saw(&head);
        let mut sink = Sink::new(&name, to, stop.clone());
        let opened = read_header(&mut bytes)
            .and_then(|header| decrypt_stream(&header, &data_key, &mut bytes, &mut sink));
        opened.map_err(|error: StreamError| of_stream(error, &name))?;
        let manifest = sink.finish()?;
        let (_, len, sha256) = bytes.finish();
        self.compare(len, sha256)?;
        Ok(manifest)
    }

    fn data_key(&self, key: &SecretArray<32>) -> Result<SecretArray<32>, BackupError> {
        let derived = envelope_key(key, &self.head_bytes);
        derived.map_err(|error| failed("open", self.name.clone())(error.into()))
    }

    /// Reads what is signed, from an offset on.
    fn from(&self, start: u64) -> Result<impl Read + use<>, BackupError> {
        let rest = self.signed_len.saturating_sub(start);
        Ok(read_from(&*self.file, start, &self.name)?.take(rest))
    }

    fn compare(&self, len: u64, sha256: [u8; 32]) -> Result<(), BackupError> {
        if len == self.signed_len && sha256 == self.sha256 {
            Ok(())
        } else {
            Err(damaged(&self.name, "its bytes are not those that were signed"))
        }
    }
}

fn read_from(
    file: &dyn StoredFile,
    start: u64,
    name: &str,
) -> Result<Box<dyn Read + Send>, BackupError> {
    file.read_from(start).map_err(|error| of_io(error, "read", name.to_owned()))
}

fn read_head(file: &dyn StoredFile, name: &str) -> Result<Vec<u8>, BackupError> {
    let not_one = || BackupError::NotABackup(name.to_owned());
    let unread = |error: io::Error| of_io(error, "read", name.to_owned());
    let mut file = read_from(file, 0, name)?;
    let mut prefix = [0; PREFIX_LEN];
    match file.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(not_one()),
        read => read.map_err(unread)?,
    }
    let len = head_len(&prefix, name)?;
    let mut head = prefix.to_vec();
    let rest = (len - PREFIX_LEN) as u64;
    file.take(rest).read_to_end(&mut head).map_err(unread)?;
    Ok(head)
}

fn read_note(file: &dyn StoredFile, name: &str) -> Result<String, BackupError> {
    let cut = || damaged(name, "its end is missing");
    let most = u64::from(MAX_NOTE_LEN) + 4;
    let mut end = Vec::new();
    let read = read_from(file, file.len().saturating_sub(most), name)?;
    read.take(most).read_to_end(&mut end).map_err(|e| of_io(e, "read", name.to_owned()))?;
    let (rest, note_len) = end.split_last_chunk::<4>().ok_or_else(cut)?;
    let note_len = usize::try_from(u32::from_be_bytes(*note_len)).map_err(|_| cut())?;
    let at = rest.len().checked_sub(note_len).ok_or_else(cut)?;
    let note = rest.get(at..).unwrap_or_default().to_vec();
    String::from_utf8(note).map_err(|_| cut())
}

/// The hash in a note, when the note tells of this head and length.
fn hash_of(note: &str, head: &BackupHead, signed_len: u64) -> Option<[u8; 32]> {
    let (text, _) = note::split(note).ok()?;
    let sha256 = hash_from_base64(text.lines().nth(4)?)?;
    (signed_text(head, signed_len, &sha256) == text).then_some(sha256)
}
