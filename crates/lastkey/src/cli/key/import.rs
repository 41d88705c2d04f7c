//! `key import`, and the same in steps: `key import-parameters`, `key wrap-material`.
//!
//! Room      `lastkey`.
//! Holds     The material leaves this program only under the server's wrapping key.

use std::path::{Path, PathBuf};

use clap::Args;
use lastkey_crypto::{
    entropy::SystemEntropy,
    import::{ImportAlgorithm as LocalAlgorithm, wrap_material},
    material::MaterialSpec,
    oaep::OaepPublicKey,
};
use lastkey_secret::SecretVec;
use lastkey_wire::{
    Base64Bytes, SecretText,
    native::keys::{ImportParametersReply, ImportRequest},
    words::ImportAlgorithm,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::cli::{
    args::{DryRunArgs, OutArgs, one_of},
    failure::Failure,
    input::{self, Source},
    output::{self, Content},
    session::Session,
    table::{Fields, Show},
};

/// Longer than any material: RSA-4096 as PKCS#8 in PEM is about 3,300 bytes.
const MATERIAL_LIMIT: usize = 16 << 10;

/// Where the material is.
#[derive(Args, Debug)]
struct MaterialArgs {
    /// Material: raw bytes, or PKCS#8 in DER
    #[arg(long, value_name = "FILE")]
    material_file: PathBuf,
    /// The material is PKCS#8 in PEM
    #[arg(long)]
    pem: bool,
}

/// Arguments of `key import`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["material_file", "wrapped_file"]))]
pub(crate) struct ImportArgs {
    /// Key: id or alias
    key: String,
    /// Material to wrap and send: raw bytes, or PKCS#8 in DER
    #[arg(long, value_name = "FILE")]
    material_file: Option<PathBuf>,
    /// The material is PKCS#8 in PEM
    #[arg(long, requires = "material_file")]
    pem: bool,
    /// How to wrap it
    #[arg(
        long,
        requires = "material_file",
        default_value = "RSA_AES_KEY_WRAP_SHA_256",
        value_parser = one_of::<ImportAlgorithm>(ImportAlgorithm::WORDS)
    )]
    algorithm: ImportAlgorithm,
    /// Material that was wrapped elsewhere
    #[arg(long, value_name = "FILE", requires = "import_token_file")]
    wrapped_file: Option<PathBuf>,
    /// Import token that came with the wrapping key
    #[arg(long, value_name = "FILE", requires = "wrapped_file")]
    import_token_file: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `key import-parameters`.
#[derive(Args, Debug)]
pub(crate) struct ParametersArgs {
    /// Key: id or alias
    key: String,
    /// How the material will be wrapped
    #[arg(
        long,
        default_value = "RSA_AES_KEY_WRAP_SHA_256",
        value_parser = one_of::<ImportAlgorithm>(ImportAlgorithm::WORDS)
    )]
    algorithm: ImportAlgorithm,
    /// Write the wrapping key to this file, DER
    #[arg(long, value_name = "FILE")]
    wrapping_key_out: PathBuf,
    /// Write the import token to this file, mode 0600
    #[arg(long, value_name = "FILE")]
    import_token_out: PathBuf,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `key wrap-material`.
#[derive(Args, Debug)]
pub(crate) struct WrapArgs {
    /// Wrapping key, DER
    #[arg(long, value_name = "FILE")]
    wrapping_key: PathBuf,
    #[command(flatten)]
    material: MaterialArgs,
    /// How to wrap it; as `key import-parameters` was told
    #[arg(
        long,
        default_value = "RSA_AES_KEY_WRAP_SHA_256",
        value_parser = one_of::<ImportAlgorithm>(ImportAlgorithm::WORDS)
    )]
    algorithm: ImportAlgorithm,
    #[command(flatten)]
    out: OutArgs,
}

/// Gives a key its material: wraps it here, or takes what was wrapped elsewhere.
pub(crate) async fn import(args: ImportArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let request = match (&args.material_file, &args.wrapped_file, &args.import_token_file) {
        (Some(file), _, _) => {
            let material = read_material(file, args.pem)?;
            let parameters = client.import_parameters(&args.key, args.algorithm).await?;
            let wrapped = wrapped(&parameters.wrapping_key.0, &material, parameters.algorithm)?;
            ImportRequest { token: parameters.token, wrapped_material: Base64Bytes(wrapped) }
        }
        (None, Some(wrapped), Some(token)) => ImportRequest {
            token: SecretText(input::token_file(token)?),
            wrapped_material: Base64Bytes(Source::open(Some(wrapped))?.read_plain()?),
        },
        (None, _, _) => return Err(Failure::Usage("give --material-file".to_owned())),
    };
    session.settle_and_show(client.import_material(&args.key, &request), args.dry_run).await
}

/// Fetches what is needed to wrap elsewhere.
pub(crate) async fn parameters(args: ParametersArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let call = client.import_parameters(&args.key, args.algorithm);
    let Some(reply) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    let to = |file: &PathBuf| OutArgs { out: Some(file.clone()), force: false };
    let wrapping_key = &reply.wrapping_key.0;
    output::write_whole(&to(&args.wrapping_key_out), wrapping_key, Content::Binary)?;
    reply.token.0.expose(|token| {
        output::write_whole(&to(&args.import_token_out), token, Content::Unknown)
    })?;
    session.show(&reply)
}

/// Wraps material without a server.
pub(crate) fn wrap(args: &WrapArgs) -> Result<(), Failure> {
    let wrapping_key = Source::open(Some(&args.wrapping_key))?.read_plain()?;
    let material = read_material(&args.material.material_file, args.material.pem)?;
    let wrapped = wrapped(&wrapping_key, &material, args.algorithm)?;
    output::write_whole(&args.out, &wrapped, Content::Binary)
}

impl Show for ImportParametersReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Wrap with", self.algorithm)
            .with("Token good until", &self.expires_at)
            .table()
    }
}

fn read_material(file: &Path, is_pem: bool) -> Result<SecretVec, Failure> {
    let bytes = Source::open(Some(file))?.read_secret(MATERIAL_LIMIT)?;
    if bytes.len() == MATERIAL_LIMIT {
        return Err(Failure::Input("the material file is too long".to_owned()));
    }
    if !is_pem {
        return Ok(bytes);
    }
    bytes
        .expose(PrivatePkcs8KeyDer::from_pem_slice)
        .map(|key| SecretVec::copy_of(key.secret_pkcs8_der()))
        .map_err(|_| Failure::Input("the material file holds no PKCS#8 key in PEM".to_owned()))
}

fn wrapped(
    wrapping_key: &[u8],
    material: &SecretVec,
    algorithm: ImportAlgorithm,
) -> Result<Vec<u8>, Failure> {
    let algorithm = match algorithm {
        ImportAlgorithm::RsaesOaepSha256 => LocalAlgorithm::RsaesOaepSha256,
        ImportAlgorithm::RsaAesKeyWrapSha256 => LocalAlgorithm::RsaAesKeyWrapSha256,
    };
    let wrapping_key = OaepPublicKey::new(MaterialSpec::Rsa4096, wrapping_key)
        .map_err(|_| Failure::Input("the wrapping key is no RSA-4096 key in DER".to_owned()))?;
    wrap_material(&wrapping_key, algorithm, material, &mut SystemEntropy)
        .map_err(|error| Failure::Input(format!("the material cannot be wrapped: {error}")))
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::{
        entropy::SystemEntropy,
        import::{ImportAlgorithm as LocalAlgorithm, unwrap_material},
        material::{MaterialSpec, generate, public_key_der},
        oaep::OaepKey,
    };
    use lastkey_secret::SecretVec;
    use lastkey_wire::words::ImportAlgorithm;

    use super::{read_material, wrapped};

    #[test]
    fn wrapped_material_opens_with_the_private_half() {
        let pair = generate(MaterialSpec::Rsa4096, &mut SystemEntropy).unwrap();
        let public = public_key_der(MaterialSpec::Rsa4096, &pair).unwrap();
        let material = SecretVec::copy_of(&[5; 32]);
        let key = OaepKey::new(MaterialSpec::Rsa4096, &pair).unwrap();
        for (name, algorithm) in [
            (ImportAlgorithm::RsaesOaepSha256, LocalAlgorithm::RsaesOaepSha256),
            (ImportAlgorithm::RsaAesKeyWrapSha256, LocalAlgorithm::RsaAesKeyWrapSha256),
        ] {
            let wrapped = wrapped(&public, &material, name).unwrap();
            let opened = unwrap_material(&key, algorithm, &wrapped, MaterialSpec::Aes256).unwrap();
            assert!(opened.ct_eq(&material));
        }
    }

    #[test]
    fn wrapping_rejects_what_is_no_wrapping_key() {
        let material = SecretVec::copy_of(&[5; 32]);
        assert!(wrapped(b"no key", &material, ImportAlgorithm::RsaesOaepSha256).is_err());
    }

    #[test]
    fn material_in_pem_is_read_as_der() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n")
            .unwrap();
        assert!(read_material(&path, true).unwrap().expose(|der| der == [1, 2, 3]));
        std::fs::write(&path, "AQID").unwrap();
        assert!(read_material(&path, true).is_err());
    }
}
