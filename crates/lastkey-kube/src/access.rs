//! How a cluster is reached: server, authority, credential.
//!
//! Room      `kube`, inside.
//! Source    "Accessing the Kubernetes API from a Pod" for what lies in a pod.

use std::path::{Path, PathBuf};

use lastkey_connect::guard::{Identity, Trust};
use lastkey_secret::SecretVec;

use crate::KubeError;

/// Where a pod finds what it needs to reach its own cluster.
pub const IN_CLUSTER_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How a cluster is reached.
#[derive(Debug)]
pub struct Access {
    /// URL of the API server.
    pub server: String,
    /// Who vouches for it.
    pub trust: Trust,
    /// What is shown to it.
    pub credential: Credential,
    /// A client certificate.
    pub identity: Option<Identity>,
}

/// What is shown to an API server.
#[derive(Debug)]
pub enum Credential {
    /// Nothing, or the client certificate alone.
    None,
    /// A bearer token.
    Token(SecretVec),
    /// A file with a bearer token, read for each request.
    TokenFile(PathBuf),
}

impl Access {
    /// From inside a pod: `dir` is [`IN_CLUSTER_DIR`], `host` and `port` are the variables
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
    ///
    /// # Errors
    /// [`KubeError::File`] when the authority cannot be read.
    pub fn in_cluster(dir: &Path, host: &str, port: &str) -> Result<Self, KubeError> {
        let authority = read(&dir.join("ca.crt"))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Self {
            server: format!("https://{host}:{port}"),
            trust: Trust::Authority(authority),
            credential: Credential::TokenFile(dir.join("token")),
            identity: None,
        })
    }

    /// With a token in a file and the authority in another; without one, the machine's
    /// authorities count.
    ///
    /// # Errors
    /// [`KubeError::File`] when the authority cannot be read.
    pub fn with_token_file(
        server: String,
        authority: Option<&Path>,
        token: PathBuf,
    ) -> Result<Self, KubeError> {
        let trust = match authority {
            Some(path) => Trust::Authority(read(path)?),
            None => Trust::System,
        };
        let credential = Credential::TokenFile(token);
        Ok(Self { server, trust, credential, identity: None })
    }
}

impl Credential {
    /// The token, if there is one.
    ///
    /// # Errors
    /// [`KubeError::File`].
    pub(crate) fn token(&self) -> Result<Option<SecretVec>, KubeError> {
        match self {
            Self::None => Ok(None),
            Self::Token(token) => Ok(Some(token.expose(SecretVec::copy_of))),
            Self::TokenFile(path) => {
                let text = SecretVec::take(read(path)?);
                Ok(Some(text.expose(|text| SecretVec::copy_of(text.trim_ascii()))))
            }
        }
    }
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KubeError> {
    std::fs::read(path).map_err(|error| KubeError::File(path.to_owned(), error))
}
