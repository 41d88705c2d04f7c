//! The server's own certificate authority, for who brings no certificate.
//!
//! Room      the binary.
//! Holds     the CA lies outside the root key, so a sealed server can already be trusted. The
//!           server's own key is drawn anew at each start and never written.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretVec;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// How long the CA is good for.
const CA_LIFETIME: Duration = Duration::days(3_650);
/// How long a server certificate is good for; it is renewed long before.
const SERVER_LIFETIME: Duration = Duration::days(90);
/// Clocks of clients may be behind by this much.
const CLOCK_SKEW: Duration = Duration::days(1);

/// A certificate chain and its private key, both in PEM.
pub(crate) struct ServerIdentity {
    pub(crate) chain: Vec<u8>,
    pub(crate) private_key: SecretVec,
}

/// Where the CA certificate of a data directory lies.
pub(crate) fn ca_path(data: &Path) -> PathBuf {
    data.join("tls").join("ca.pem")
}

fn ca_key_path(data: &Path) -> PathBuf {
    data.join("tls").join("ca.key")
}

/// Makes the CA of a new installation and answers the SHA-256 fingerprint of its certificate.
/// What an `init` that did not come to its end has left is replaced.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn create_ca(data: &Path) -> anyhow::Result<String> {
    let key = KeyPair::generate().context("cannot draw the key of the CA")?;
    let certificate = ca_params().self_signed(&key).context("cannot sign the CA")?;
    let dir = data.join("tls");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    for left in [ca_key_path(data), ca_path(data)] {
        if left.exists() {
            fs::remove_file(&left).with_context(|| format!("cannot replace {}", left.display()))?;
        }
    }
    let key_pem = SecretVec::take_text(key.serialize_pem());
    key_pem.expose(|pem| write_new(&ca_key_path(data), pem, 0o600))?;
    write_new(&ca_path(data), certificate.pem().as_bytes(), 0o644)?;
    Ok(fingerprint(certificate.der()))
}

/// Issues a certificate for this server, for the names and addresses by which clients reach it.
/// The CA's own follows in the chain, because a client may know it by its fingerprint alone.
///
/// # Errors
/// When the CA of the data directory cannot be read.
pub(crate) fn issue(data: &Path, names: &[String]) -> anyhow::Result<ServerIdentity> {
    let path = ca_key_path(data);
    let pem = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {} (made by `lastkey init`)", path.display()))?;
    let ca_key = KeyPair::from_pem(&pem).with_context(|| format!("in {}", path.display()));
    drop(SecretVec::take_text(pem));
    let issuer = Issuer::new(ca_params(), ca_key?);
    let path = ca_path(data);
    let ca = fs::read(&path)
        .with_context(|| format!("cannot read {} (made by `lastkey init`)", path.display()))?;

    let mut params = CertificateParams::new(names.to_vec()).context("in tls.names")?;
    params.distinguished_name.push(DnType::CommonName, "Lastkey server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, SERVER_LIFETIME);
    let key = KeyPair::generate().context("cannot draw the server's key")?;
    let certificate = params.signed_by(&key, &issuer).context("cannot sign the server")?;
    Ok(ServerIdentity {
        chain: [certificate.pem().into_bytes(), ca].concat(),
        private_key: SecretVec::take_text(key.serialize_pem()),
    })
}

/// The names that a server certificate carries without being told.
pub(crate) fn own_names(addresses: impl Iterator<Item = IpAddr>) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if !host.is_empty() && host.bytes().all(is_name) {
        names.push(host);
    }
    names.extend(addresses.filter(|a| !a.is_unspecified()).map(|a| a.to_string()));
    names.sort_unstable();
    names.dedup();
    names
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Lastkey CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_LIFETIME);
    params
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + lifetime;
}

/// SHA-256 of a certificate in DER, as `sha256:` and hexadecimal.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    use std::fmt::Write as _;
    sha256(der).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a file that must not be there yet, durably.
///
/// # Errors
/// An error that names the file.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| anyhow!("cannot make {}: {error}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_signs_servers_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let fingerprint = create_ca(dir.path()).unwrap();
        assert_eq!(fingerprint.len(), "sha256:".len() + 64);
        let mode = fs::metadata(ca_key_path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(create_ca(dir.path()).unwrap(), fingerprint);
        let names = own_names([IpAddr::from([192, 0, 2, 7])].into_iter());
        assert!(names.contains(&"192.0.2.7".to_owned()) && names.contains(&"localhost".to_owned()));
        let chain = String::from_utf8(issue(dir.path(), &names).unwrap().chain).unwrap();
        let ca = fs::read_to_string(ca_path(dir.path())).unwrap();
        assert_eq!(chain.matches("-----BEGIN CERTIFICATE-----").count(), 2);
        assert!(chain.ends_with(&ca) && chain != ca);
    }
}
