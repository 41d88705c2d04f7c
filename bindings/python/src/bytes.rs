//! Bytes and contexts as Python gives them.
//!
//! Room      `python`.

use std::collections::BTreeMap;

use lastkey_client::{EncryptionContext, SecretVec};
use pyo3::{
    Bound, PyAny, PyResult, Python,
    exceptions::PyValueError,
    types::{PyAnyMethods, PyBytes, PyBytesMethods, PyMemoryView},
};

/// Bytes of any object that has a buffer: `bytes` as they are, others copied. Text and numbers
/// are refused, as everywhere in Python.
pub(crate) fn buffer<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    let copy = PyMemoryView::from(object)?.call_method0("tobytes")?;
    Ok(copy.cast_into::<PyBytes>()?)
}

/// A secret: text counts as its UTF-8.
pub(crate) fn secret(object: &Bound<'_, PyAny>) -> PyResult<SecretVec> {
    if let Ok(text) = object.extract::<String>() {
        return Ok(SecretVec::take_text(text));
    }
    Ok(SecretVec::copy_of(buffer(object)?.as_bytes()))
}

/// Gives a secret to Python, where nobody wipes it.
pub(crate) fn reveal<'py>(py: Python<'py>, secret: &SecretVec) -> Bound<'py, PyBytes> {
    secret.expose(|bytes| PyBytes::new(py, bytes))
}

/// A context from a `dict`; none of it is none.
pub(crate) fn context(pairs: Option<BTreeMap<String, String>>) -> PyResult<EncryptionContext> {
    EncryptionContext::from_pairs(pairs.unwrap_or_default())
        .map_err(|error| PyValueError::new_err(error.to_string()))
}
