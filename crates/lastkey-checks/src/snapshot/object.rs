//! One Kubernetes object, or one configuration file of a component.
//!
//! Room      `checks`.
//! Holds     A Secret's values and a kubeconfig's credentials are replaced by a word for what they
//!           are before the object is kept.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::yaml::{Node, Value};

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Path as it was given, or `cluster` and a path of the API.
    pub path: Arc<str>,
    /// Line from 1; 0 for the whole file.
    pub line: u32,
    /// Column from 1; 0 when not known.
    pub column: u32,
}

impl Place {
    /// A whole file.
    #[must_use]
    pub fn whole(path: &Arc<str>) -> Self {
        Self { path: Arc::clone(path), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

/// An object with its tree.
#[derive(Clone, Debug)]
pub struct Object {
    /// For example `rbac.authorization.k8s.io/v1`.
    pub api_version: String,
    /// For example `ClusterRole`.
    pub kind: String,
    /// `metadata.name`, or `metadata.generateName`; empty for configuration files.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// All of it, secret values replaced.
    pub root: Node,
    namespace: String,
}

/// What replaces a value that is a kubeconfig.
pub const KUBECONFIG: &str = "(a kubeconfig)";
/// What replaces a value that is a private key.
pub const PRIVATE_KEY: &str = "(a private key)";
/// What replaces any other secret value.
pub const HIDDEN: &str = "(hidden)";

/// The annotation in which `kubectl apply` keeps a copy of the object.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Object {
    /// The namespace; `default` when the manifest names none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }

    /// The API group without its version; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// `Kind/name`, with the namespace where there is one.
    #[must_use]
    pub fn subject(&self) -> String {
        match (self.namespace.as_str(), self.name.as_str()) {
            (_, "") => self.kind.clone(),
            ("", name) => format!("{}/{name}", self.kind),
            (namespace, name) => format!("{}/{namespace}/{name}", self.kind),
        }
    }

    /// The place of a value of this object; the object's own when the value is not there.
    #[must_use]
    pub fn place_of(&self, node: &Node) -> Place {
        if node.line == 0 {
            return self.place.clone();
        }
        Place { path: Arc::clone(&self.place.path), line: node.line, column: node.column }
    }

    /// A label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.root.at("metadata.labels").get(name).text()
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.root.at("metadata.annotations").get(name).text()
    }

    /// Kind and name of the controller that made it.
    #[must_use]
    pub fn owner(&self) -> Option<(String, String)> {
        let owners = self.root.at("metadata.ownerReferences").items();
        let owner = owners.iter().find(|owner| owner.get("controller").is_true())?;
        Some((owner.get("kind").text()?.to_owned(), owner.get("name").text()?.to_owned()))
    }
}

/// Keeps the objects of a document: itself, or the items of a list.
pub(super) fn collect(root: Node, path: &Arc<str>, into: &mut Vec<Object>) {
    let (Some(kind), Some(api_version)) = (root.get("kind").text(), root.get("apiVersion").text())
    else {
        return;
    };
    let (kind, api_version) = (kind.to_owned(), api_version.to_owned());
    if let (Some(of), Value::Map(entries)) = (kind.strip_suffix("List"), &root.value)
        && root.get("items").is_there()
    {
        let items = entries.iter().find(|(name, _)| &**name == "items");
        for item in items.into_iter().flat_map(|(_, items)| items.items()) {
            collect(with_type(item, of, &api_version), path, into);
        }
        return;
    }
    into.push(object(root, kind, api_version, path));
}

/// An item of a typed list: the API server leaves out kind and version of each.
fn with_type(item: &Node, kind: &str, api_version: &str) -> Node {
    let mut item = item.clone();
    if !kind.is_empty()
        && let Value::Map(entries) = &mut item.value
    {
        for (name, text) in [("kind", kind), ("apiVersion", api_version)] {
            if !entries.iter().any(|(known, _)| &**known == name) {
                let value = Value::Text(text.to_owned());
                entries.push((name.into(), Node { value, line: item.line, column: item.column }));
            }
        }
    }
    item
}

pub(super) fn object(mut root: Node, kind: String, api_version: String, path: &Arc<str>) -> Object {
    hide(&mut root, &kind, &api_version);
    let metadata = root.get("metadata");
    let name = metadata.get("name").text().or_else(|| metadata.get("generateName").text());
    Object {
        name: name.unwrap_or_default().to_owned(),
        namespace: metadata.get("namespace").str().to_owned(),
        place: Place { path: Arc::clone(path), line: root.line, column: root.column },
        api_version,
        kind,
        root,
    }
}

/// Replaces what must not be kept.
fn hide(root: &mut Node, kind: &str, api_version: &str) {
    match (kind, api_version) {
        ("Secret", "v1") => {
            for name in ["data", "stringData"] {
                entries_mut(root, &[name]).for_each(|(_, value)| hide_value(value));
            }
            entries_mut(root, &["metadata", "annotations"])
                .filter(|(name, _)| &**name == LAST_APPLIED)
                .for_each(|(_, value)| value.value = Value::Text(HIDDEN.to_owned()));
        }
        ("Config", "v1") => {
            if let Some(Value::List(users)) = value_mut(root, &["users"]) {
                users.iter_mut().for_each(hide_user);
            }
        }
        ("EncryptionConfiguration" | "EncryptionConfig", _) => hide_keys(root),
        _ => {}
    }
}

fn hide_user(user: &mut Node) {
    entries_mut(user, &["user"])
        .filter(|(name, _)| matches!(&**name, "token" | "password" | "client-key-data"))
        .for_each(|(_, value)| value.value = Value::Text(HIDDEN.to_owned()));
}

/// The keys of local providers (`secret: BASE64`), at any depth.
fn hide_keys(node: &mut Node) {
    match &mut node.value {
        Value::Map(entries) => {
            for (name, value) in entries {
                if &**name == "secret" {
                    value.value = Value::Text(HIDDEN.to_owned());
                } else {
                    hide_keys(value);
                }
            }
        }
        Value::List(items) => items.iter_mut().for_each(hide_keys),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) => {}
    }
}

fn hide_value(node: &mut Node) {
    let Some(text) = node.text() else { return };
    let decoded = decode_base64(text);
    let clear = decoded.as_deref().unwrap_or(text);
    let word = if clear.contains("client-key-data:")
        || (clear.contains("clusters:") && clear.contains("users:"))
    {
        KUBECONFIG
    } else if clear.contains("PRIVATE KEY-----") {
        PRIVATE_KEY
    } else {
        HIDDEN
    };
    node.value = Value::Text(word.to_owned());
}

fn value_mut<'a>(root: &'a mut Node, path: &[&str]) -> Option<&'a mut Value> {
    let mut at = &mut root.value;
    for name in path {
        let Value::Map(entries) = at else { return None };
        at = &mut entries.iter_mut().rev().find(|(known, _)| &**known == *name)?.1.value;
    }
    Some(at)
}

fn entries_mut<'a>(
    root: &'a mut Node,
    path: &[&str],
) -> impl Iterator<Item = &'a mut (Arc<str>, Node)> {
    let found = value_mut(root, path);
    found.into_iter().flat_map(|value| match value {
        Value::Map(entries) => entries.iter_mut(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => {
            [].iter_mut()
        }
    })
}

/// Standard base64 to text; nothing when it is neither.
fn decode_base64(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Snapshot;
    use super::{HIDDEN, KUBECONFIG, LAST_APPLIED};

    #[test]
    fn secret_values_do_not_enter_the_snapshot() {
        let mut snapshot = Snapshot::default();
        let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: {kubectl.kubernetes.io/last-applied-configuration: 'hunter2'}\ndata: {a: aHVudGVyMg==, k: Y2x1c3RlcnM6CnVzZXJzOgo=}\nstringData: {b: hunter2}\n---\napiVersion: v1\nkind: Config\nusers: [{name: u, user: {token: hunter2, client-key-data: hunter2}}]\n---\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [{aescbc: {keys: [{name: k, secret: hunter2}]}}]}]\n";
        snapshot.add_file("s.yaml", text.as_bytes());
        let shown = format!("{:?}", snapshot.objects);
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        let secret = &snapshot.objects[0];
        assert_eq!(secret.root.at("data.a").text(), Some(HIDDEN));
        assert_eq!(secret.root.at("data.k").text(), Some(KUBECONFIG));
        assert_eq!(secret.annotation(LAST_APPLIED), Some(HIDDEN));
    }
}
