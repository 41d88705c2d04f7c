//! What the header of an envelope says, without any key.
//!
//! Room      `python`.

use lastkey_client::{Header, RecipientName, key_id_text, read_header};
use pyo3::{Bound, PyAny, PyResult, Python, pyfunction};
use serde_json::{Map, Value, json};

use crate::{errors::OrRaise, files::PyFile};

/// The header of what a file object holds, as JSON. Nothing in it is authenticated.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, file: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut file = PyFile(file.clone().unbind());
    let header = py.detach(|| read_header(&mut file));
    let header = header.map_err(lastkey_client::EnvelopeError::from).or_raise(py)?;
    Ok(header_json(&header).to_string())
}

fn header_json(header: &Header) -> Value {
    let context: Map<String, Value> =
        header.context().pairs().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let recipients: Vec<Value> =
        header.recipients().iter().map(|one| recipient_json(&one.name())).collect();
    json!({
        "suite": header.suite().name(),
        "segment_len": header.segment_len(),
        "header_len": header.len(),
        "sequence": header.sequence(),
        "context": context,
        "recipients": recipients,
    })
}

fn recipient_json(name: &RecipientName) -> Value {
    match name {
        RecipientName::Lastkey { key_id, version } => {
            json!({ "kind": "key", "key": key_id_text(key_id), "version": version })
        }
        RecipientName::Age(recipient) => json!({ "kind": "age", "key": recipient.to_string() }),
        RecipientName::Passphrase(_) => json!({ "kind": "passphrase" }),
        RecipientName::Unknown => json!({ "kind": "unknown" }),
    }
}
