//! A secret as a key store: PKCS#12.
//!
//! Room      `node`. The format is that of `p12-keystore`.
//! Source    RFC 7292; PBES2 with AES-256-CBC and PBKDF2-HMAC-SHA-256, MAC with HMAC-SHA-256: what
//!           OpenSSL 3 and Java 8u301 and later write and read.
//! Holds     Fields have the names that Kubernetes gives them in Secrets of TLS. A key store without
//!           a password is not made.

use std::collections::BTreeMap;

use lastkey_secret::SecretVec;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

const KEY: &str = "tls.key";
const CERTIFICATE: &str = "tls.crt";
const AUTHORITY: &str = "ca.crt";
const PASSWORD: &str = "password";

/// Why there is no key store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyStoreError {
    #[error("a key store needs the field `password`, which is text and not empty")]
    Password,
    #[error("a key store needs the fields `tls.key` and `tls.crt`, or `ca.crt`, or all of them")]
    Nothing,
    #[error(
        "the field `tls.key` is no private key in PEM of PKCS#8 (BEGIN PRIVATE KEY); `openssl pkcs8 \
         -topk8 -nocrypt` makes one"
    )]
    Key,
    #[error("the field `{0}` has no certificates in PEM, or one that cannot be read")]
    Certificates(&'static str),
    #[error("the key store cannot be written")]
    Failed,
}

/// Key, certificate and chain under an alias, and each authority under a number of it.
pub(super) fn pkcs12(
    alias: &str,
    fields: &BTreeMap<String, SecretVec>,
) -> Result<Vec<u8>, KeyStoreError> {
    let password = fields.get(PASSWORD).ok_or(KeyStoreError::Password)?;
    let password = password
        .expose(|bytes| std::str::from_utf8(bytes).map(|text| Zeroizing::new(text.to_owned())));
    let password = password.ok().filter(|text| !text.is_empty()).ok_or(KeyStoreError::Password)?;
    let authorities = certificates(fields, AUTHORITY)?;
    let mut store = KeyStore::new();
    match (fields.get(KEY), fields.get(CERTIFICATE)) {
        (Some(key), Some(_)) => {
            let key = key.expose(PrivatePkcs8KeyDer::from_pem_slice);
            let key = key.map_err(|_| KeyStoreError::Key)?;
            let key = PrivateKey::from_der(key.secret_pkcs8_der());
            let key = key.map_err(|_| KeyStoreError::Key)?;
            let chain = certificates(fields, CERTIFICATE)?.unwrap_or_default();
            let chain = PrivateKeyChain::new(alias, key, chain);
            store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(chain));
        }
        (None, None) if authorities.is_some() => {}
        (_, _) => return Err(KeyStoreError::Nothing),
    }
    for (number, one) in authorities.into_iter().flatten().enumerate() {
        store.add_entry(&format!("{alias}-ca-{number}"), KeyStoreEntry::Certificate(one));
    }
    store.writer(&password).write().map_err(|_| KeyStoreError::Failed)
}

/// The certificates of a field, if there is one.
fn certificates(
    fields: &BTreeMap<String, SecretVec>,
    name: &'static str,
) -> Result<Option<Vec<Certificate>>, KeyStoreError> {
    let Some(field) = fields.get(name) else { return Ok(None) };
    let wrong = KeyStoreError::Certificates(name);
    let read = field.expose(|pem| {
        let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|_| wrong)?;
        let read = all.iter().map(|der| Certificate::from_der(der).map_err(|_| wrong));
        read.collect::<Result<Vec<_>, _>>()
    });
    let read = read?;
    if read.is_empty() { Err(wrong) } else { Ok(Some(read)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(fields: &[(&str, &str)]) -> KeyStoreError {
        let field = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), SecretVec::copy_of(value.as_bytes()))
        };
        pkcs12("a", &fields.iter().map(field).collect()).unwrap_err()
    }

    #[test]
    fn what_makes_no_key_store_is_told_by_its_field() {
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let of_ca = KeyStoreError::Certificates(AUTHORITY);
        for (fields, error) in [
            (&[][..], KeyStoreError::Password),
            (&[(PASSWORD, "")], KeyStoreError::Password),
            (&[(PASSWORD, "p")], KeyStoreError::Nothing),
            (&[(PASSWORD, "p"), (KEY, "k")], KeyStoreError::Nothing),
            (&[(PASSWORD, "p"), (KEY, "k"), (CERTIFICATE, pem)], KeyStoreError::Key),
            (&[(PASSWORD, "p"), (AUTHORITY, "none")], of_ca),
            (&[(PASSWORD, "p"), (AUTHORITY, pem)], of_ca),
        ] {
            assert_eq!(refused(fields), error);
        }
    }
}
