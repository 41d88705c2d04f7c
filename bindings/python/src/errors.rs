//! Errors of the library as exceptions of the package.
//!
//! Room      `python`. The classes are in `python/lastkey/_errors.py`, where they can have fields.

use std::{error::Error as StdError, io};

use lastkey_client::{EnvelopeError, Error, SetupError, StreamError};
use pyo3::{
    Bound, PyErr, PyResult, Python,
    exceptions::{PyOSError, PyRuntimeError},
    types::{PyAnyMethods, PyDict, PyDictMethods, PyModule},
};

/// An error of the library on its way to Python.
pub(crate) trait OrRaise<T> {
    /// As an exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, Error> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| call_failed(py, &error))
    }
}

impl<T> OrRaise<T> for Result<T, EnvelopeError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| envelope_failed(py, error))
    }
}

impl<T> OrRaise<T> for Result<T, SetupError> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, "ConfigError", &chain(&error), &[]))
    }
}

impl<T> OrRaise<T> for io::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|cause| io_failed(py, cause))
    }
}

fn call_failed(py: Python<'_>, error: &Error) -> PyErr {
    let text = chain(error);
    let Some(refusal) = error.refusal() else {
        let is_unreachable =
            matches!(error, Error::Connect { .. } | Error::Broken { .. } | Error::Timeout { .. });
        let class = if is_unreachable {
            "UnreachableError"
        } else if matches!(error, Error::Trust(_) | Error::Token) {
            "ConfigError"
        } else {
            "LastkeyError"
        };
        return raised(py, class, &text, &[]);
    };
    let class = match refusal.detail.code.as_str() {
        "AccessDenied" | "Unauthenticated" => "DeniedError",
        _ => "ServerError",
    };
    let retry_after = refusal.retry_after.map(|pause| pause.as_secs().to_string());
    raised(
        py,
        class,
        &text,
        &[
            ("code", Some(refusal.detail.code.clone())),
            ("request_id", Some(refusal.detail.request_id.clone())),
            ("retry_after", retry_after),
        ],
    )
}

fn envelope_failed(py: Python<'_>, error: EnvelopeError) -> PyErr {
    if let Some(call) = error.server_error() {
        return call_failed(py, call);
    }
    if let EnvelopeError::Stream(StreamError::Read(cause) | StreamError::Write(cause)) = error {
        return io_failed(py, cause);
    }
    raised(py, "EnvelopeError", &chain(&error), &[])
}

/// What the Python object behind raised is raised again; what is wrong with an envelope is told
/// as that.
pub(crate) fn io_failed(py: Python<'_>, cause: io::Error) -> PyErr {
    let is_ours = cause.get_ref().is_some_and(|inner| inner.is::<PyErr>());
    if is_ours {
        return PyErr::from(cause);
    }
    match cause.get_ref() {
        Some(inner) => raised(py, "EnvelopeError", &chain(inner), &[]),
        None => match cause.raw_os_error() {
            Some(number) => PyOSError::new_err((number, cause.to_string())),
            None => PyOSError::new_err(cause.to_string()),
        },
    }
}

/// What went wrong and each cause behind it.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = inner.source();
    }
    text
}

pub(crate) fn raised(
    py: Python<'_>,
    class: &str,
    text: &str,
    fields: &[(&str, Option<String>)],
) -> PyErr {
    let make = || -> PyResult<Bound<'_, pyo3::PyAny>> {
        let class = PyModule::import(py, "lastkey._errors")?.getattr(class)?;
        let named = PyDict::new(py);
        for (name, value) in fields {
            named.set_item(name, value.as_deref())?;
        }
        class.call((text,), Some(&named))
    };
    match make() {
        Ok(exception) => PyErr::from_value(exception),
        Err(_) => PyRuntimeError::new_err(text.to_owned()),
    }
}
