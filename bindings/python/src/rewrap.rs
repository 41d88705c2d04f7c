//! Changing who can open a file.
//!
//! Room      `python`.

use std::path::PathBuf;

use lastkey_client::{SecretVec, blocking::Rewrap};
use pyo3::{Bound, PyAny, PyRef, PyResult, Python, pyfunction};

use crate::{
    bytes::secret, client::Client, decryptor::Decryptor, encryptor::age_recipient, errors::OrRaise,
};

/// Changes the recipients of a file in place; the decryptor recovers its data key.
#[pyfunction]
#[pyo3(signature = (
    decryptor, path, *, add_keys, remove_keys, add_recipients, remove_recipients,
    add_passphrase=None, remove_passphrases=false, refresh=None, rewrite=false,
))]
#[expect(clippy::too_many_arguments, reason = "Python names them")]
pub(crate) fn rewrap(
    py: Python<'_>,
    decryptor: PyRef<'_, Decryptor>,
    path: PathBuf,
    add_keys: Vec<(PyRef<'_, Client>, String)>,
    remove_keys: Vec<String>,
    add_recipients: Vec<String>,
    remove_recipients: Vec<String>,
    add_passphrase: Option<&Bound<'_, PyAny>>,
    remove_passphrases: bool,
    refresh: Option<PyRef<'_, Client>>,
    rewrite: bool,
) -> PyResult<()> {
    let mut change = Rewrap::new();
    for (client, key) in add_keys {
        change = change.add_key(&client.inner, key);
    }
    change = remove_keys.into_iter().fold(change, Rewrap::remove_key);
    for text in add_recipients {
        change = change.add_age(age_recipient(&text)?);
    }
    for text in remove_recipients {
        change = change.remove_age(age_recipient(&text)?);
    }
    let passphrase: Option<SecretVec> = add_passphrase.map(secret).transpose()?;
    change = passphrase.into_iter().fold(change, |change, one| change.add_passphrase(one));
    if remove_passphrases {
        change = change.remove_passphrases();
    }
    if let Some(client) = refresh {
        change = change.refresh(&client.inner);
    }
    if rewrite {
        change = change.rewrite();
    }
    let inner = decryptor.inner.clone();
    py.detach(|| change.file(&inner, &path)).map(drop).or_raise(py)
}
