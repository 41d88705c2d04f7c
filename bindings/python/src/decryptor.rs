//! Decryption: bytes, file objects, files, ranges.
//!
//! Room      `python`.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lastkey_client::{AgeIdentity, DecryptReader, SecretVec, blocking};
use pyo3::{
    Bound, Py, PyAny, PyRef, PyResult, Python,
    exceptions::PyValueError,
    pyclass, pymethods,
    types::{PyBytes, PyBytesMethods},
};
use zeroize::Zeroizing;

use crate::{
    bytes::{buffer, reveal, secret},
    cache::DataKeyCache,
    client::Client,
    encryptor::{copy, file_failed, keep, open, pending},
    errors::OrRaise,
    files::PyFile,
};

/// As `lastkey_client::blocking::Decryptor`.
#[pyclass(frozen, subclass, module = "lastkey._lastkey")]
pub(crate) struct Decryptor {
    pub(crate) inner: blocking::Decryptor,
}

#[pymethods]
impl Decryptor {
    #[new]
    #[pyo3(signature = (clients, *, identities=None, passphrase=None, context=None, cache=None))]
    fn new(
        clients: Vec<PyRef<'_, Client>>,
        identities: Option<&Bound<'_, PyAny>>,
        passphrase: Option<&Bound<'_, PyAny>>,
        context: Option<BTreeMap<String, String>>,
        cache: Option<PyRef<'_, DataKeyCache>>,
    ) -> PyResult<Self> {
        let inner = blocking::Decryptor::default();
        let mut inner = clients.iter().fold(inner, |inner, client| inner.add_client(&client.inner));
        if let Some(text) = identities {
            let identities = AgeIdentity::parse_file(&secret(text)?);
            inner = inner
                .identities(identities.map_err(|error| PyValueError::new_err(error.to_string()))?);
        }
        if let Some(passphrase) = passphrase {
            inner = inner.passphrase(secret(passphrase)?);
        }
        if let Some(pairs) = context {
            inner = inner.expect_context(crate::bytes::context(Some(pairs))?);
        }
        if let Some(cache) = cache {
            inner = inner.cache(&cache.inner);
        }
        Ok(Self { inner })
    }

    /// Decrypts bytes.
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let envelope = buffer(envelope)?;
        let bytes = envelope.as_bytes();
        let plaintext = py.detach(|| self.inner.decrypt(bytes)).or_raise(py)?;
        Ok(reveal(py, &plaintext))
    }

    /// A reader of what a file object holds.
    fn reader(&self, py: Python<'_>, file: Py<PyAny>) -> PyResult<StreamReader> {
        let reader = py.detach(|| self.inner.reader(PyFile(file))).or_raise(py)?;
        Ok(StreamReader { reader: Mutex::new(reader) })
    }

    /// A reader of any part of what a seekable file object holds.
    fn seekable(&self, py: Python<'_>, file: Py<PyAny>) -> PyResult<RangeReader> {
        let reader = py.detach(|| self.inner.seekable(PyFile(file))).or_raise(py)?;
        Ok(RangeReader { reader: Mutex::new(reader) })
    }

    /// A part of an envelope in memory.
    fn decrypt_range<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
        start: u64,
        end: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let envelope = buffer(envelope)?;
        let bytes = envelope.as_bytes();
        let reader = py.detach(|| self.inner.seekable(Cursor::new(bytes))).or_raise(py)?;
        let mut reader = reader;
        let part = py.detach(|| reader.range(start..end)).or_raise(py)?;
        Ok(reveal(py, &part))
    }

    /// Decrypts a file; answers the length of the plaintext.
    #[pyo3(signature = (source, destination, *, overwrite=false))]
    fn decrypt_file(
        &self,
        py: Python<'_>,
        source: PathBuf,
        destination: PathBuf,
        overwrite: bool,
    ) -> PyResult<u64> {
        py.detach(|| {
            let from = open(&source)?;
            let pending = pending(&destination, overwrite)?;
            let mut to = pending.handle().map_err(file_failed)?;
            let reader = self.inner.reader(&from);
            let mut reader = Python::attach(|py| reader.or_raise(py))?;
            copy(&mut reader, &mut to)?;
            let len = to.stream_position()?;
            keep(pending, &from).map(|()| len)
        })
    }
}

/// A reader of an envelope in a file object.
#[pyclass(frozen, module = "lastkey._lastkey")]
pub(crate) struct StreamReader {
    reader: Mutex<DecryptReader<PyFile>>,
}

#[pymethods]
impl StreamReader {
    /// At most so many bytes; none at the end, which is authentic.
    fn read<'py>(&self, py: Python<'py>, len: usize) -> PyResult<Bound<'py, PyBytes>> {
        let (piece, len) = py.detach(|| read_piece(&mut *lock(&self.reader), len)).or_raise(py)?;
        Ok(PyBytes::new(py, piece.get(..len).unwrap_or_default()))
    }

    /// Everything up to the end.
    fn read_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let rest = py.detach(|| read_rest(&mut *lock(&self.reader))).or_raise(py)?;
        Ok(reveal(py, &rest))
    }

    /// The context that the envelope is bound to.
    fn context(&self, py: Python<'_>) -> BTreeMap<String, String> {
        py.detach(|| pairs(lock(&self.reader).header()))
    }
}

/// A reader of any part of an envelope.
#[pyclass(frozen, module = "lastkey._lastkey")]
pub(crate) struct RangeReader {
    reader: Mutex<lastkey_client::RangeReader<PyFile>>,
}

#[pymethods]
impl RangeReader {
    /// At most so many bytes; none at the end.
    fn read<'py>(&self, py: Python<'py>, len: usize) -> PyResult<Bound<'py, PyBytes>> {
        let (piece, len) = py.detach(|| read_piece(&mut *lock(&self.reader), len)).or_raise(py)?;
        Ok(PyBytes::new(py, piece.get(..len).unwrap_or_default()))
    }

    /// Everything up to the end.
    fn read_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let rest = py.detach(|| read_rest(&mut *lock(&self.reader))).or_raise(py)?;
        Ok(reveal(py, &rest))
    }

    /// As `seek` of Python's files.
    fn seek(&self, py: Python<'_>, offset: i64, whence: u8) -> PyResult<u64> {
        let to = match whence {
            0 => SeekFrom::Start(
                u64::try_from(offset).map_err(|_| PyValueError::new_err("negative position"))?,
            ),
            1 => SeekFrom::Current(offset),
            2 => SeekFrom::End(offset),
            _ => return Err(PyValueError::new_err("whence is 0, 1 or 2")),
        };
        py.detach(|| lock(&self.reader).seek(to))
            .map_err(|_| PyValueError::new_err("negative position"))
    }

    /// Length of the whole plaintext.
    fn len(&self, py: Python<'_>) -> u64 {
        py.detach(|| lock(&self.reader).len())
    }

    /// The context that the envelope is bound to.
    fn context(&self, py: Python<'_>) -> BTreeMap<String, String> {
        py.detach(|| pairs(lock(&self.reader).header()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names and values of a context; none when it is raw bytes.
fn pairs(header: &lastkey_client::Header) -> BTreeMap<String, String> {
    let pairs = header.context().pairs();
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn read_piece(reader: &mut impl Read, len: usize) -> io::Result<(Zeroizing<Vec<u8>>, usize)> {
    // What a caller asks for is no reason to take that much memory.
    let mut piece = Zeroizing::new(vec![0; len.min(1 << 20)]);
    let len = reader.read(&mut piece)?;
    Ok((piece, len))
}

fn read_rest(reader: &mut impl Read) -> io::Result<SecretVec> {
    let mut rest = Vec::new();
    let outcome = reader.read_to_end(&mut rest);
    let rest = SecretVec::take(rest);
    outcome.map(|_| rest)
}
