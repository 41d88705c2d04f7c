//! `seal add` for devices: what was typed becomes settings of the device.
//!
//! Room      `lastkey`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lastkey_connect::seal::{hex_of, kms, pkcs11};
use lastkey_core::ports::DeviceKind;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_wire::StringMap;
use lastkey_wire::native::seals::DeviceSeal;

use crate::cli::failure::Failure;

/// Arguments of `seal add pkcs11`. Paths are those of the server's machine.
#[derive(Args, Debug)]
pub(crate) struct Pkcs11Args {
    /// The module of the vendor, a shared library
    #[arg(long, value_name = "LIB")]
    module: PathBuf,
    /// Label of the token
    #[arg(long = "token", value_name = "LABEL")]
    label: String,
    /// File with the PIN of the token's user (mode 0600); read at each unseal
    #[arg(long, value_name = "FILE")]
    pin_file: PathBuf,
    /// How the token wraps; when left out, the first of these that works
    #[arg(long, value_enum, value_name = "NAME")]
    mechanism: Option<Mechanism>,
}

/// How a token wraps.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mechanism {
    AesKeyWrap,
    RsaOaepSha256,
    RsaOaepSha1,
    AesGcm,
}

impl Mechanism {
    const fn known(self) -> pkcs11::Mechanism {
        match self {
            Self::AesKeyWrap => pkcs11::Mechanism::AesKeyWrap,
            Self::RsaOaepSha256 => pkcs11::Mechanism::RsaOaepSha256,
            Self::RsaOaepSha1 => pkcs11::Mechanism::RsaOaepSha1,
            Self::AesGcm => pkcs11::Mechanism::AesGcm,
        }
    }
}

/// Arguments of `seal add kms`. Paths are those of the server's machine.
#[derive(Args, Debug)]
pub(crate) struct KmsArgs {
    /// Configuration file of a client of the other Lastkey: addr, ca or ca_fingerprint, token_file
    #[arg(long, value_name = "FILE")]
    client_config: PathBuf,
    /// The key of the other Lastkey that wraps: id or alias
    #[arg(long, value_name = "KEY")]
    key: String,
}

/// A seal of a security module.
pub(super) fn pkcs11(args: &Pkcs11Args) -> Result<DeviceSeal, Failure> {
    let mut id = [0; 16];
    SystemEntropy.fill(&mut id).map_err(|error| Failure::Input(error.to_string()))?;
    let mut settings = vec![
        (pkcs11::MODULE_SETTING, path_text(&args.module)?),
        (pkcs11::TOKEN_SETTING, args.label.clone()),
        (pkcs11::PIN_FILE_SETTING, path_text(&args.pin_file)?),
        (pkcs11::KEY_SETTING, hex_of(&id)),
    ];
    if let Some(mechanism) = args.mechanism {
        settings.push((pkcs11::MECHANISM_SETTING, mechanism.known().as_str().to_owned()));
    }
    Ok(seal_of(DeviceKind::Pkcs11, settings))
}

/// A seal of another Lastkey.
pub(super) fn kms(args: &KmsArgs) -> Result<DeviceSeal, Failure> {
    let settings = vec![
        (kms::CONFIG_SETTING, path_text(&args.client_config)?),
        (kms::KEY_SETTING, args.key.clone()),
    ];
    Ok(seal_of(DeviceKind::Kms, settings))
}

pub(super) fn seal_of(kind: DeviceKind, settings: Vec<(&str, String)>) -> DeviceSeal {
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    DeviceSeal { kind: kind.as_str().to_owned(), settings: StringMap(settings) }
}

/// The whole path, as the server will look for it.
fn path_text(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let whole = std::path::absolute(path)
        .map_err(|source| Failure::Io { doing: format!("find {shown}"), source })?;
    whole
        .into_os_string()
        .into_string()
        .map_err(|_| Failure::Usage(format!("the path {shown} is not UTF-8")))
}
