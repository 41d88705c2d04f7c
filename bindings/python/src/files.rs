//! File objects of Python as readers and writers.
//!
//! Room      `python`. What they raise comes back as it was.

use std::io::{self, Read, Seek, SeekFrom, Write};

use pyo3::{
    Py, PyAny, PyErr, Python,
    exceptions::PyTypeError,
    types::{PyAnyMethods, PyBytes, PyBytesMethods},
};

use crate::bytes::buffer;

/// A Python object with `read`, `write` or `seek`, as needed.
pub(crate) struct PyFile(pub(crate) Py<PyAny>);

impl Read for PyFile {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        Python::attach(|py| {
            let given = self.0.bind(py).call_method1("read", (dest.len(),))?;
            if given.is_none() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let given = buffer(&given)?;
            let given = given.as_bytes();
            // A `read` that gives more than was asked for has taken it from the file for good.
            let place = dest.get_mut(..given.len()).ok_or_else(|| too_much("read"))?;
            place.copy_from_slice(given);
            Ok(given.len())
        })
    }
}

impl Write for PyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Python::attach(|py| {
            let taken = self.0.bind(py).call_method1("write", (PyBytes::new(py, bytes),))?;
            // Some `write` answer nothing when they took everything.
            let taken = if taken.is_none() { bytes.len() } else { taken.extract()? };
            if taken > bytes.len() { Err(too_much("write")) } else { Ok(taken) }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Python::attach(|py| {
            let file = self.0.bind(py);
            if file.hasattr("flush")? {
                file.call_method0("flush")?;
            }
            Ok(())
        })
    }
}

impl Seek for PyFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        Python::attach(|py| {
            let file = self.0.bind(py);
            let position = match to {
                SeekFrom::Start(offset) => file.call_method1("seek", (offset, 0))?,
                SeekFrom::Current(offset) => file.call_method1("seek", (offset, 1))?,
                SeekFrom::End(offset) => file.call_method1("seek", (offset, 2))?,
            };
            Ok(position.extract()?)
        })
    }
}

fn too_much(method: &str) -> io::Error {
    let text = format!("{method}() of the file object answered more than it was asked for");
    PyErr::new::<PyTypeError, _>(text).into()
}
