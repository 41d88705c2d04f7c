//! The devices that seal, one folder or file each, and what they have in common.
//!
//! Room      `connect`.
//! Source    docs/formats/device-seals.md.
//! Holds     a device wraps a fresh key and never a secret of the server; that key wraps the
//!           secret, bound to its place and to all that is stored beside it.

pub mod kms;
pub mod pkcs11;
pub mod tpm;
mod wire;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lastkey_core::ports::{DeviceKind, SealDeviceError};
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::SecretArray;

/// A fresh key, for one wrap.
fn draw_key(entropy: &mut dyn Entropy) -> Result<SecretArray<32>, SealDeviceError> {
    SecretArray::try_fill(|bytes| entropy.fill(bytes)).map_err(failed)
}

/// What is stored: `front`, by which the device finds the key again, and the secret under it.
fn close(
    front: Vec<u8>,
    aad: &[u8],
    key: &SecretArray<32>,
    secret: &SecretArray<32>,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, SealDeviceError> {
    let bound = [aad, &front].concat();
    let key = WrapKey::new(key).map_err(failed)?;
    let wrapped = secret.expose(|secret| key.wrap(&bound, secret, entropy)).map_err(failed)?;
    Ok([front, wrapped].concat())
}

/// The secret of [`close`], with the key that the device found.
fn open(
    front: &[u8],
    wrapped: &[u8],
    aad: &[u8],
    key: &SecretArray<32>,
) -> Result<SecretArray<32>, SealDeviceError> {
    let secret = WrapKey::new(key).map_err(failed)?.unwrap(&[aad, front].concat(), wrapped);
    secret.ok().and_then(|secret| secret.to_array()).ok_or(SealDeviceError::NotThisDevice)
}

/// Devices answer when they like to, so they are asked on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealDeviceError> + Send + 'static,
) -> Result<T, SealDeviceError> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// Refuses a file that somebody else than root could have put there: its path is kept in the
/// storage of a sealed server, which is not authenticated. Those of `trusted` are exceptions, and
/// `setting` is where the operator names them; `what` is for the message. Answers the path that
/// was looked at, without links, which is the one to use.
fn check_path(
    path: &Path,
    trusted: &[PathBuf],
    (what, setting): (&str, &str),
) -> Result<PathBuf, SealDeviceError> {
    let shown = path.display();
    let real = path
        .canonicalize()
        .map_err(|error| refused(format!("the {what} {shown} cannot be found: {error}")))?;
    if trusted.iter().any(|known| known == path) {
        return Ok(real);
    }
    for above in real.ancestors() {
        let about = std::fs::metadata(above).map_err(failed)?;
        if about.uid() != 0 || about.mode() & 0o022 != 0 {
            let above = above.display();
            return Err(refused(format!(
                "the {what} {shown} is not used: others than root can change {above}; \
                 name it in {setting} to use it all the same"
            )));
        }
    }
    Ok(real)
}

/// The devices that can have wrapped these bytes, by their form alone.
#[must_use]
pub fn devices_of(stored: &[u8]) -> Vec<DeviceKind> {
    let forms = [
        (DeviceKind::Tpm2, tpm::is_stored(stored)),
        (DeviceKind::Pkcs11, pkcs11::is_stored(stored)),
        (DeviceKind::Kms, kms::is_stored(stored)),
    ];
    forms.into_iter().filter(|(_, is_its)| *is_its).map(|(kind, _)| kind).collect()
}

fn refused(problem: String) -> SealDeviceError {
    SealDeviceError::Settings { problem }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> SealDeviceError {
    SealDeviceError::Failed(error.into())
}

/// Exactly `N` bytes from hexadecimal digits.
#[must_use]
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_wrapped_has_a_form_and_a_shorter_one_has_none() {
        let tpm = [&[1, 0, 2, 7, 7, 0, 1, 8][..], &[9; 72]].concat();
        assert!(devices_of(&tpm).contains(&DeviceKind::Tpm2));
        let kms = [&[1, 0, 3, 7, 7, 7][..], &[9; 72]].concat();
        assert!(devices_of(&kms).contains(&DeviceKind::Kms));
        for bytes in [&[][..], &[1], &[1, 0, 2, 7], &[2, 0, 0, 0, 0]] {
            assert_eq!(devices_of(bytes), [], "{bytes:?}");
        }
    }

    #[test]
    fn hexadecimal_comes_back_and_other_text_is_refused() {
        assert_eq!(parse_hex(&hex_of(&[0, 0x7f, 0xff])), Some([0, 0x7f, 0xff]));
        for text in ["", "00", "0000", "00000g", "+1+1+1", "é0000"] {
            assert_eq!(parse_hex::<3>(text), None, "{text}");
        }
    }
}
