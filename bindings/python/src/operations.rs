//! Calls to the server: one function for each operation, with bytes as bytes.
//!
//! Room      `python`. What carries no bytes goes through [`manage`], as JSON.

use std::collections::BTreeMap;

use lastkey_client::{
    SecretVec,
    wire::{
        Base64Bytes, SecretBase64, StringMap,
        native::{
            operations::{
                DataKeyRequest, DecryptRequest, EncryptRequest, MacRequest, RandomRequest,
                ReencryptRequest, SignRequest, VerifyMacRequest, VerifyRequest,
            },
            query::PageQuery,
        },
    },
};
use pyo3::{
    Bound, PyAny, PyRef, PyResult, Python,
    exceptions::PyValueError,
    pyfunction,
    types::{PyBytes, PyBytesMethods},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};

use crate::{
    bytes::{buffer, reveal},
    client::Client,
    errors::OrRaise,
};

type Pairs = Option<BTreeMap<String, String>>;

/// Encrypts in the server; answers the ciphertext.
#[pyfunction]
pub(crate) fn encrypt<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    key: String,
    plaintext: &Bound<'py, PyAny>,
    context: Pairs,
) -> PyResult<Bound<'py, PyBytes>> {
    let plaintext = secret_bytes(plaintext)?;
    let context = context.map(StringMap);
    let request = EncryptRequest { key, plaintext, context, context_raw: None, dry_run: false };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().encrypt(request).send())).or_raise(py)?;
    Ok(PyBytes::new(py, &reply.ciphertext.0))
}

/// Decrypts in the server.
#[pyfunction]
pub(crate) fn decrypt<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    ciphertext: &Bound<'py, PyAny>,
    context: Pairs,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = DecryptRequest {
        ciphertext: plain_bytes(ciphertext)?,
        context: context.map(StringMap),
        context_raw: None,
        key: None,
        version: None,
        dry_run: false,
    };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().decrypt(request).send())).or_raise(py)?;
    Ok(reveal(py, &reply.plaintext.0))
}

/// Moves a ciphertext under another key or context; the plaintext stays in the server.
#[pyfunction]
pub(crate) fn reencrypt<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    ciphertext: &Bound<'py, PyAny>,
    to_key: String,
    context: Pairs,
    to_context: Pairs,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = ReencryptRequest {
        ciphertext: plain_bytes(ciphertext)?,
        context: context.map(StringMap),
        context_raw: None,
        from_key: None,
        from_version: None,
        to_key,
        to_context: to_context.map(StringMap),
        to_context_raw: None,
        dry_run: false,
    };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().reencrypt(request).send())).or_raise(py)?;
    Ok(PyBytes::new(py, &reply.ciphertext.0))
}

/// A data key in the clear and protected, the id and the version of its key.
type DataKey<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, String, u32);

/// Makes a data key of so many bytes.
#[pyfunction]
pub(crate) fn data_key<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    key: String,
    bytes: u32,
    context: Pairs,
) -> PyResult<DataKey<'py>> {
    let request = DataKeyRequest {
        key,
        spec: None,
        bytes: Some(bytes),
        context: context.map(StringMap),
        context_raw: None,
        dry_run: false,
    };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().data_key(request).send())).or_raise(py)?;
    let ciphertext = PyBytes::new(py, &reply.ciphertext.0);
    Ok((reveal(py, &reply.plaintext.0), ciphertext, reply.key, reply.version))
}

/// Random bytes of the server.
#[pyfunction]
pub(crate) fn random<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    bytes: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = RandomRequest { bytes, dry_run: false };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().random(request).send())).or_raise(py)?;
    Ok(reveal(py, &reply.bytes.0))
}

/// Signs a message, or its digest when the type of the message is `DIGEST`.
#[pyfunction]
pub(crate) fn sign<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    key: String,
    message: &Bound<'py, PyAny>,
    message_type: Option<String>,
    algorithm: Option<String>,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = SignRequest {
        key,
        version: None,
        message: secret_bytes(message)?,
        message_type: word(message_type)?,
        algorithm: word(algorithm)?,
        dry_run: false,
    };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().sign(request).send())).or_raise(py)?;
    Ok(PyBytes::new(py, &reply.signature.0))
}

/// Whether a signature is good.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "Python names them")]
pub(crate) fn verify(
    py: Python<'_>,
    client: PyRef<'_, Client>,
    key: String,
    message: &Bound<'_, PyAny>,
    signature: &Bound<'_, PyAny>,
    message_type: Option<String>,
    algorithm: Option<String>,
    version: Option<u32>,
) -> PyResult<bool> {
    let request = VerifyRequest {
        key,
        version,
        message: secret_bytes(message)?,
        message_type: word(message_type)?,
        algorithm: word(algorithm)?,
        signature: plain_bytes(signature)?,
        dry_run: false,
    };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().verify(request).send())).or_raise(py)?;
    Ok(reply.valid)
}

/// Makes a MAC.
#[pyfunction]
pub(crate) fn mac<'py>(
    py: Python<'py>,
    client: PyRef<'_, Client>,
    key: String,
    message: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let message = secret_bytes(message)?;
    let request = MacRequest { key, version: None, message, dry_run: false };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().mac(request).send())).or_raise(py)?;
    Ok(PyBytes::new(py, &reply.mac.0))
}

/// Whether a MAC is good.
#[pyfunction]
pub(crate) fn verify_mac(
    py: Python<'_>,
    client: PyRef<'_, Client>,
    key: String,
    message: &Bound<'_, PyAny>,
    mac: &Bound<'_, PyAny>,
    version: Option<u32>,
) -> PyResult<bool> {
    let (message, mac) = (secret_bytes(message)?, plain_bytes(mac)?);
    let request = VerifyMacRequest { key, version, message, mac, dry_run: false };
    let (client, request) = (&client.inner, &request);
    let reply = py.detach(|| client.wait(client.api().verify_mac(request).send())).or_raise(py)?;
    Ok(reply.valid)
}

/// Calls without bytes: request and reply are JSON, as `docs/api.md` has them.
#[pyfunction]
pub(crate) fn manage(
    py: Python<'_>,
    client: PyRef<'_, Client>,
    call: &str,
    request: &str,
) -> PyResult<String> {
    let client = &client.inner;
    let request: Value = serde_json::from_str(request).map_err(wrong)?;
    let key = request.get("key").and_then(Value::as_str).unwrap_or_default();
    /// Waits for a call and writes its reply as JSON.
    macro_rules! wait {
        ($call:expr) => {{
            let call = $call;
            json!(py.detach(|| client.wait(call.send())).or_raise(py)?)
        }};
    }
    let api = client.api();
    let reply = match call {
        "status" => wait!(api.status()),
        "describe_key" => wait!(api.describe_key(key)),
        "rotate_key" => wait!(api.rotate_key(key)),
        "create_key" => {
            let request = from_value(request).map_err(wrong)?;
            wait!(api.create_key(&request))
        }
        "list_keys" => {
            let page: PageQuery = from_value(request).map_err(wrong)?;
            wait!(api.list_keys(&page))
        }
        _ => return Err(PyValueError::new_err("no such call")),
    };
    Ok(reply.to_string())
}

fn wrong(error: serde_json::Error) -> pyo3::PyErr {
    PyValueError::new_err(error.to_string())
}

/// A word of the API, for instance `DIGEST`.
fn word<T: DeserializeOwned>(text: Option<String>) -> PyResult<Option<T>> {
    text.map(|text| from_value(Value::from(text)).map_err(wrong)).transpose()
}

fn secret_bytes(object: &Bound<'_, PyAny>) -> PyResult<SecretBase64> {
    Ok(SecretBase64(SecretVec::copy_of(buffer(object)?.as_bytes())))
}

fn plain_bytes(object: &Bound<'_, PyAny>) -> PyResult<Base64Bytes> {
    Ok(Base64Bytes(buffer(object)?.as_bytes().to_vec()))
}
