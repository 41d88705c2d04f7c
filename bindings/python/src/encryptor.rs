//! Encryption: bytes, file objects, files.
//!
//! Room      `python`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use lastkey_client::{
    AgeRecipient, EncryptWriter, Suite, blocking,
    file::{FileError, PendingFile, Replace},
};
use pyo3::{
    Bound, Py, PyAny, PyRef, PyResult, Python,
    exceptions::{PyFileExistsError, PyOSError, PyValueError},
    pyclass, pymethods,
    types::{PyBytes, PyBytesMethods},
};
use zeroize::Zeroizing;

use crate::{
    bytes::{buffer, secret},
    cache::DataKeyCache,
    client::Client,
    errors::{OrRaise, chain},
    files::PyFile,
};

/// Large enough that a segment goes from here straight into its envelope.
const COPY_LEN: usize = 1 << 20;

/// As `lastkey_client::blocking::Encryptor`.
#[pyclass(frozen, subclass, module = "lastkey._lastkey")]
pub(crate) struct Encryptor {
    inner: blocking::Encryptor,
}

#[pymethods]
impl Encryptor {
    #[new]
    #[pyo3(signature = (
        keys, recipients, *, passphrase=None, context=None, cache=None, suite=None,
        segment_log2=None,
    ))]
    fn new(
        keys: Vec<(PyRef<'_, Client>, String)>,
        recipients: Vec<String>,
        passphrase: Option<&Bound<'_, PyAny>>,
        context: Option<BTreeMap<String, String>>,
        cache: Option<PyRef<'_, DataKeyCache>>,
        suite: Option<&str>,
        segment_log2: Option<u8>,
    ) -> PyResult<Self> {
        let passphrase = passphrase.map(secret).transpose()?;
        let recipients = recipients.iter().map(|text| age_recipient(text));
        let recipients = recipients.collect::<PyResult<Vec<_>>>()?;
        let mut keys = keys.into_iter();
        let mut recipients = recipients.into_iter();
        let mut inner = match (keys.next(), recipients.next(), passphrase) {
            (Some((client, key)), first, rest) => {
                let inner = blocking::Encryptor::new(&client.inner, key);
                let inner = first.into_iter().fold(inner, blocking::Encryptor::add_age);
                rest.into_iter().fold(inner, blocking::Encryptor::add_passphrase)
            }
            (None, Some(first), rest) => {
                let inner = blocking::Encryptor::for_age(first);
                rest.into_iter().fold(inner, blocking::Encryptor::add_passphrase)
            }
            (None, None, Some(passphrase)) => blocking::Encryptor::for_passphrase(passphrase),
            (None, None, None) => return Err(PyValueError::new_err("nobody could decrypt it")),
        };
        inner = keys.fold(inner, |inner, (client, key)| inner.add_key(&client.inner, key));
        inner = recipients.fold(inner, blocking::Encryptor::add_age);
        inner = inner.context(crate::bytes::context(context)?);
        if let Some(cache) = cache {
            inner = inner.cache(&cache.inner);
        }
        if let Some(name) = suite {
            let suite = Suite::from_name(name);
            inner = inner.suite(suite.ok_or_else(|| PyValueError::new_err("no such suite"))?);
        }
        if let Some(log2) = segment_log2 {
            inner = inner.segment_log2(log2);
        }
        Ok(Self { inner })
    }

    /// Encrypts bytes.
    fn encrypt<'py>(
        &self,
        py: Python<'py>,
        plaintext: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let plaintext = buffer(plaintext)?;
        let bytes = plaintext.as_bytes();
        let envelope = py.detach(|| self.inner.encrypt(bytes)).or_raise(py)?;
        Ok(PyBytes::new(py, &envelope))
    }

    /// A writer to a file object.
    fn writer(&self, py: Python<'_>, file: Py<PyAny>) -> PyResult<StreamWriter> {
        let writer = py.detach(|| self.inner.writer(PyFile(file))).or_raise(py)?;
        Ok(StreamWriter { writer: Mutex::new(Some(writer)) })
    }

    /// Encrypts a file; answers the length of the plaintext.
    #[pyo3(signature = (source, destination, *, overwrite=false))]
    fn encrypt_file(
        &self,
        py: Python<'_>,
        source: PathBuf,
        destination: PathBuf,
        overwrite: bool,
    ) -> PyResult<u64> {
        py.detach(|| {
            let mut from = open(&source)?;
            let pending = pending(&destination, overwrite)?;
            let to = pending.handle().map_err(file_failed)?;
            let writer = self.inner.writer(to);
            let mut writer = Python::attach(|py| writer.or_raise(py))?;
            copy(&mut from, &mut writer)?;
            writer.try_finish()?;
            let len = writer.stats().plaintext_len;
            keep(pending, &from).map(|()| len)
        })
    }
}

/// A writer of an envelope to a file object.
#[pyclass(frozen, module = "lastkey._lastkey")]
pub(crate) struct StreamWriter {
    /// Gone once it is finished or given up.
    writer: Mutex<Option<EncryptWriter<PyFile>>>,
}

#[pymethods]
impl StreamWriter {
    /// Takes all of it.
    fn write(&self, py: Python<'_>, plaintext: &Bound<'_, PyAny>) -> PyResult<usize> {
        let plaintext = buffer(plaintext)?;
        let bytes = plaintext.as_bytes();
        self.with(py, |writer| writer.write_all(bytes).map(|()| bytes.len()))
    }

    /// Hands on what is sealed.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Write::flush)
    }

    /// Writes the last segment. Does nothing the second time.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(writer) = place.as_mut() {
                writer.try_finish()?;
                *place = None;
            }
            Ok::<(), io::Error>(())
        })
        .or_raise(py)
    }

    /// Leaves the envelope without its end, so that it does not open.
    fn abort(&self, py: Python<'_>) {
        // Dropped without the lock: it lets a Python object go.
        let writer =
            py.detach(|| self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(writer);
    }
}

impl StreamWriter {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut EncryptWriter<PyFile>) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| {
            let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            place.as_mut().map(work)
        });
        done.ok_or_else(|| PyValueError::new_err("write to a finished envelope"))?.or_raise(py)
    }
}

/// Copies in pieces that go straight into their segments.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> PyResult<()> {
    let mut piece = Zeroizing::new(vec![0; COPY_LEN]);
    loop {
        let len = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Python::attach(|py| Err(cause).or_raise(py)),
        };
        let written = to.write_all(piece.get(..len).unwrap_or_default());
        Python::attach(|py| written.or_raise(py))?;
    }
}

/// Opens an input file.
pub(crate) fn open(path: &Path) -> PyResult<File> {
    Ok(File::open(path)?)
}

/// An output file that appears whole or not at all.
pub(crate) fn pending(destination: &Path, overwrite: bool) -> PyResult<PendingFile> {
    let replace = if overwrite { Replace::Allow } else { Replace::Refuse };
    PendingFile::create(destination, replace).map_err(file_failed)
}

/// Gives an output file its name, and the permissions of the input.
pub(crate) fn keep(pending: PendingFile, source: &File) -> PyResult<()> {
    let mode = source.metadata().map(|about: fs::Metadata| about.permissions().mode())?;
    pending.keep(Some(mode)).map_err(file_failed)
}

pub(crate) fn file_failed(error: FileError) -> pyo3::PyErr {
    match &error {
        FileError::Exists { .. } => PyFileExistsError::new_err(error.to_string()),
        FileError::Io { .. } => PyOSError::new_err(chain(&error)),
    }
}

/// Reads `age1...`.
pub(crate) fn age_recipient(text: &str) -> PyResult<AgeRecipient> {
    AgeRecipient::parse(text).map_err(|error| PyValueError::new_err(error.to_string()))
}
