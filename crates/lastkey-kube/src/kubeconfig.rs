//! The kubeconfig: how `kubectl` reaches a cluster.
//!
//! Room      `kube`, inside.
//! Source    `client.authentication.k8s.io` and "Organizing Cluster Access Using kubeconfig
//!           Files".
//! Holds     What would switch checks off, or start a program, is refused by name.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_checks::snapshot::yaml::{self, Node};
use lastkey_connect::guard::{Identity, Trust};
use lastkey_secret::SecretVec;

use crate::KubeError;
use crate::access::{Access, Credential, read};

/// Longest kubeconfig that is read, in bytes.
const MAX_LEN: usize = 4 << 20;

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// No YAML, or too long.
    #[error("the kubeconfig cannot be read: {0}")]
    Syntax(String),
    /// A context, cluster, user or member that is not there.
    #[error("the kubeconfig has no {0}")]
    Missing(String),
    /// Something that is not done here.
    #[error("the kubeconfig has `{0}`, which is not supported: {1}")]
    Unsupported(&'static str, &'static str),
    /// Not base64.
    #[error("`{0}` in the kubeconfig is not base64")]
    Base64(&'static str),
}

impl Access {
    /// From a kubeconfig file, by a context or by the current one. Files that it names are beside
    /// it.
    ///
    /// # Errors
    /// [`KubeError::File`], [`KubeError::Kubeconfig`].
    pub fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, KubeError> {
        let text = read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse_kubeconfig(&text, context, folder)
    }

    /// From the text of a kubeconfig; `folder` is where its relative paths begin.
    ///
    /// # Errors
    /// As [`Access::from_kubeconfig`].
    pub fn parse_kubeconfig(
        text: &[u8],
        context: Option<&str>,
        folder: &Path,
    ) -> Result<Self, KubeError> {
        let syntax = |why: String| KubeError::from(KubeconfigError::Syntax(why));
        if text.len() > MAX_LEN {
            return Err(syntax("it is too long".to_owned()));
        }
        let text = std::str::from_utf8(text).map_err(|error| syntax(error.to_string()))?;
        let config = yaml::parse(text, 1).map_err(|error| syntax(error.to_string()))?;
        let context = context.unwrap_or_else(|| config.get("current-context").str());
        let context = entry(&config, "contexts", "context", context)?;
        let cluster = entry(&config, "clusters", "cluster", context.get("cluster").str())?;
        let user = match context.get("user").str() {
            "" => &ANONYMOUS,
            name => entry(&config, "users", "user", name)?,
        };
        refuse(cluster, CLUSTER_REFUSED)?;
        refuse(user, USER_REFUSED)?;
        let server = cluster.get("server").text();
        let server = server.ok_or_else(|| missing("server of the cluster"))?.to_owned();
        let authority =
            data(cluster, "certificate-authority-data", "certificate-authority", folder)?;
        Ok(Self {
            server,
            trust: authority.map_or(Trust::System, Trust::Authority),
            credential: credential(user, folder),
            identity: identity(user, folder)?,
        })
    }
}

/// A user who shows nothing.
static ANONYMOUS: Node = Node { value: yaml::Value::Null, line: 0, column: 0 };

const CLUSTER_REFUSED: &[(&str, &str)] = &[
    ("insecure-skip-tls-verify", "the certificate of the server is always checked"),
    ("proxy-url", "no proxy is asked"),
    ("tls-server-name", "the name in the address is checked"),
];

const USER_REFUSED: &[(&str, &str)] = &[
    ("exec", "no program is started; use a token or a client certificate"),
    ("auth-provider", "use a token or a client certificate"),
    ("username", "use a token or a client certificate"),
    ("as", "nobody is impersonated"),
];

fn refuse(node: &Node, list: &[(&'static str, &'static str)]) -> Result<(), KubeconfigError> {
    let found = list.iter().find(|(name, _)| {
        let value = node.get(name);
        value.is_there() && value.bool() != Some(false)
    });
    match found {
        Some((name, why)) => Err(KubeconfigError::Unsupported(name, why)),
        None => Ok(()),
    }
}

fn missing(what: impl Into<String>) -> KubeconfigError {
    KubeconfigError::Missing(what.into())
}

/// The entry of a name in one of the three lists.
fn entry<'a>(
    config: &'a Node,
    list: &str,
    member: &str,
    name: &str,
) -> Result<&'a Node, KubeconfigError> {
    let found = config.get(list).items().iter().find(|item| item.get("name").str() == name);
    match found {
        Some(item) if !name.is_empty() => Ok(item.get(member)),
        Some(_) | None => Err(missing(format!("{member} of the name {name:?}"))),
    }
}

/// What lies in the file itself in base64, or in another file.
fn data(
    node: &Node,
    inline: &'static str,
    file: &str,
    folder: &Path,
) -> Result<Option<Vec<u8>>, KubeError> {
    match (node.get(inline).text(), node.get(file).text()) {
        (Some(text), _) => {
            let decoded = STANDARD.decode(text.trim_ascii());
            Ok(Some(decoded.map_err(|_| KubeconfigError::Base64(inline))?))
        }
        (None, Some(path)) => Ok(Some(read(&folder.join(path))?)),
        (None, None) => Ok(None),
    }
}

fn credential(user: &Node, folder: &Path) -> Credential {
    // kubectl, too, prefers the file, which is renewed.
    match (user.get("tokenFile").text(), user.get("token").text()) {
        (Some(path), _) => Credential::TokenFile(PathBuf::from(folder).join(path)),
        (None, Some(token)) => Credential::Token(SecretVec::copy_of(token.as_bytes())),
        (None, None) => Credential::None,
    }
}

fn identity(user: &Node, folder: &Path) -> Result<Option<Identity>, KubeError> {
    let chain = data(user, "client-certificate-data", "client-certificate", folder)?;
    let private_key = data(user, "client-key-data", "client-key", folder)?.map(SecretVec::take);
    match (chain, private_key) {
        (Some(chain), Some(private_key)) => Ok(Some(Identity { chain, private_key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing("client-key beside the client certificate").into()),
        (None, Some(_)) => Err(missing("client-certificate beside the client key").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r"
apiVersion: v1
kind: Config
current-context: prod
contexts:
- {name: prod, context: {cluster: c1, user: u1}}
- {name: anonymous, context: {cluster: c1}}
- {name: lost, context: {cluster: c2, user: u1}}
clusters:
- name: c1
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: Q0E=}
users:
- name: u1
  user: {token: t0}
";

    fn parse(text: &str, context: Option<&str>) -> Result<Access, KubeError> {
        Access::parse_kubeconfig(text.as_bytes(), context, Path::new("/x"))
    }

    #[test]
    fn kubeconfig_says_server_authority_and_credential() {
        let access = parse(CONFIG, None).unwrap();
        assert_eq!(access.server, "https://10.0.0.1:6443");
        assert_eq!(access.trust, Trust::Authority(b"CA".to_vec()));
        let token = access.credential.token().unwrap().unwrap();
        assert!(token.expose(|token| token == b"t0"));
        let anonymous = parse(CONFIG, Some("anonymous")).unwrap();
        assert!(matches!(anonymous.credential, Credential::None));
        let file = CONFIG.replace("token: t0", "tokenFile: t");
        let Credential::TokenFile(path) = parse(&file, None).unwrap().credential else { panic!() };
        assert_eq!(path, Path::new("/x/t"));
    }

    #[test]
    fn kubeconfig_that_is_not_whole_or_not_safe_is_refused() {
        let refused = |text: &str, context| parse(text, context).unwrap_err().to_string();
        assert!(refused(CONFIG, Some("none")).contains("context"));
        assert!(refused(CONFIG, Some("lost")).contains("cluster"));
        assert!(refused("a: [", None).contains("cannot be read"));
        assert!(refused("", None).contains("context"));
        let with = |from: &str, to: &str| refused(&CONFIG.replace(from, to), None);
        assert!(with("token: t0", "exec: {command: aws}").contains("exec"));
        assert!(with("Q0E=", "'?'").contains("base64"));
        assert!(with("Q0E=", "Q0E=, insecure-skip-tls-verify: true").contains("always checked"));
        assert!(with("token: t0", "client-key-data: Q0E=").contains("client-certificate"));
        let off = CONFIG.replace("Q0E=", "Q0E=, insecure-skip-tls-verify: false");
        assert!(parse(&off, None).is_ok());
    }
}
