//! A resource on the command line, where etcd keeps its objects, and where the API serves them.
//!
//! Room      `lastkey`.

use std::{fmt, str::FromStr};

use lastkey_checks::{enable::SECRETS_LIKE, snapshot::stored::owner};
use lastkey_kube::{Cluster, Form, KubeError};
use serde_json::Value;

use crate::cli::args::BadValue;

/// `secrets`, or with a group `widgets.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    name: String,
    group: String,
}

impl FromStr for Resource {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (name, group) = text.split_once('.').unwrap_or((text, ""));
        let is_plain = |text: &str| {
            text.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter)
            })
        };
        if name.is_empty() || !is_plain(name) || !is_plain(group) {
            return Err(BadValue("expected a resource such as secrets or widgets.example.com"));
        }
        Ok(Self { name: name.to_owned(), group: group.to_owned() })
    }
}

impl Resource {
    pub(super) fn secrets_like() -> Vec<Self> {
        SECRETS_LIKE
            .iter()
            .map(|name| Self { name: (*name).to_owned(), group: String::new() })
            .collect()
    }

    /// Its plural name, such as `secrets`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its group; empty for the core one.
    pub(super) fn group(&self) -> &str {
        &self.group
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, group } = self;
        if group.is_empty() { f.write_str(name) } else { write!(f, "{name}.{group}") }
    }
}

/// A resource, and the path below which the API serves it.
pub(super) struct Served {
    pub(super) resource: Resource,
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    root: String,
}

impl Served {
    /// Asks for the version in which a group is served.
    pub(super) async fn find(cluster: &Cluster, resource: Resource) -> Result<Self, KubeError> {
        if resource.group.is_empty() {
            return Ok(Self { resource, root: "/api/v1".to_owned() });
        }
        let group = cluster.get(&format!("/apis/{}", resource.group), Form::Whole).await?;
        let version = group.pointer("/preferredVersion/groupVersion").and_then(Value::as_str);
        let version = version.ok_or(KubeError::Malformed)?;
        Ok(Self { root: format!("/apis/{version}"), resource })
    }

    /// The path in the API of the object that a key of etcd is of; none for another resource.
    pub(super) fn path(&self, key: &[u8], registry: &str) -> Option<String> {
        let owner = owner(key, registry)?;
        let Resource { name, group } = &self.resource;
        // Built-in resources lie under their name, custom ones under their group.
        let is_ours = owner.resource == *name
            || owner.resource.split_once('.') == Some((name.as_str(), group.as_str()));
        let is_safe = !owner.name.is_empty()
            && owner.name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && !owner.name.contains(['?', '#', '%'])
            && !owner.name.contains(char::is_whitespace);
        if !is_ours || !is_safe {
            return None;
        }
        Some(match owner.name.split_once('/') {
            Some((namespace, object)) => {
                format!("{}/namespaces/{namespace}/{name}/{object}", self.root)
            }
            None => format!("{}/{name}/{}", self.root, owner.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Resource, Served};

    #[test]
    fn keys_of_etcd_become_paths_of_the_api() {
        let served = |resource: &str, root: &str| Served {
            resource: resource.parse().unwrap(),
            root: root.to_owned(),
        };
        let secrets = served("secrets", "/api/v1");
        let widgets = served("widgets.example.com", "/apis/example.com/v1");
        let deployments = served("deployments.apps", "/apis/apps/v1");
        for (served, key, path) in [
            (&secrets, "secrets/a/b", Some("/api/v1/namespaces/a/secrets/b")),
            (&secrets, "configmaps/a/b", None),
            (&secrets, "example.com/secrets/a/b", None),
            (&widgets, "example.com/widgets/b", Some("/apis/example.com/v1/widgets/b")),
            (&widgets, "other.com/widgets/b", None),
            (&deployments, "deployments/a/b", Some("/apis/apps/v1/namespaces/a/deployments/b")),
            (&secrets, "secrets/a/../b", None),
            (&secrets, "secrets/a/b?x", None),
            (&secrets, "secrets", None),
        ] {
            let found = served.path(format!("/registry/{key}").as_bytes(), "/registry");
            assert_eq!(found.as_deref(), path, "{key}");
        }
        for bad in ["", "Secrets", ".x", "a b", "*.*", "a/b"] {
            assert!(bad.parse::<Resource>().is_err(), "{bad:?}");
        }
    }
}
