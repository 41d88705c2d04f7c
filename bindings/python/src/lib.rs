//! The client library for Python: what `lastkey` of PyPI loads.
//!
//! Room      `python`, above `client`. Thin: types in and out, and errors; what Python does
//!           better (classes, file objects, types) is in `python/lastkey`.
//! Holds     The interpreter is released wherever something is encrypted, decrypted, waited for
//!           or written to disk. No lock is held while Python code runs, but that of the one
//!           file object that calls it.

mod bytes;
mod cache;
mod client;
mod decryptor;
mod encryptor;
mod errors;
mod files;
mod inspect;
mod operations;
mod rewrap;

/// The extension module; the package `lastkey` gives its content better names.
#[pyo3::pymodule]
mod _lastkey {
    #[pymodule_export]
    use super::{
        cache::DataKeyCache,
        client::Client,
        decryptor::{Decryptor, RangeReader, StreamReader},
        encryptor::{Encryptor, StreamWriter},
        inspect::inspect,
        operations::{
            data_key, decrypt, encrypt, mac, manage, random, reencrypt, sign, verify, verify_mac,
        },
        rewrap::rewrap,
    };
}
