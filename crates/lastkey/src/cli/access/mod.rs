//! Who may come in, and as what: `cluster`, `provider`, `role`, `policy`, `user`, and questions.
//!
//! Room      `lastkey`.

pub(crate) mod ask;
pub(crate) mod cluster;
pub(crate) mod login;
pub(crate) mod node;
mod oidc;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod role;
mod show;
pub(crate) mod user;

use std::path::{Path, PathBuf};

use super::{failure::Failure, input};

/// Where a key set comes from.
#[derive(clap::Args, Debug)]
struct KeysArgs {
    /// File with the key set: kubectl get --raw /openid/v1/jwks [default: fetched from where the
    /// issuer publishes it]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jwks_url", "jwks_ca"])]
    jwks: Option<PathBuf>,
    /// Where the key set is published; it is fetched again when it changes
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// Authority of the server that publishes it [default: those that the server's machine knows]
    #[arg(long, value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
}

/// The text of a file, or of standard input for `-`.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    let bytes = input::Source::open(Some(path))?.read_plain()?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("{} is not UTF-8 text", path.display())))
}
