//! What an API server keeps in etcd: whose a key is, and how its value is sealed.
//!
//! Room      `checks`.
//! Source    k8s.io/apiserver: storage/value/encrypt (prefixes; `kmsv2/v2/api.proto`:
//!           EncryptedObject), and etcd's `mvccpb.KeyValue`.
//! Holds     Nothing is copied: what is found points into the bytes that were given. Bytes that
//!           contradict themselves are damage, never a panic.

/// How a stored value is protected, by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Protobuf or JSON that everyone can read.
    Clear,
    /// Sealed under a key of the named KMS v2 provider.
    Kms2(String),
    /// Sealed under a key of the named KMS v1 provider.
    Kms1(String),
    /// Sealed under a key that lies in a file: `aescbc`, `aesgcm` or `secretbox`.
    Local(String),
    /// Something else.
    Unknown,
}

/// What all sealed values begin with.
pub const SEALED: &[u8] = b"k8s:enc:";

/// The class of a stored value.
///
/// # Source
/// k8s.io/apiserver: `k8s:enc:PROVIDER:VERSION:NAME:`; `k8s\0` is protobuf in the clear, `{` JSON.
#[must_use]
pub fn classify(stored: &[u8]) -> Class {
    match prefix(stored) {
        Some(prefix) => prefix.class(),
        None if stored.starts_with(b"k8s\0") || stored.starts_with(b"{") => Class::Clear,
        None => Class::Unknown,
    }
}

/// The parts of `k8s:enc:PROVIDER:VERSION:NAME:`, and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<'a> {
    /// `kms`, `aescbc`, `aesgcm`, `secretbox`.
    pub provider: &'a str,
    /// `v1` or `v2`.
    pub version: &'a str,
    /// Of the entry in the configuration, or of the key in it.
    pub name: &'a str,
    /// What is sealed.
    pub body: &'a [u8],
}

/// The prefix of a sealed value; none for one in the clear or cut off before its end.
#[must_use]
pub fn prefix(stored: &[u8]) -> Option<Prefix<'_>> {
    let rest = stored.strip_prefix(SEALED)?;
    let (provider, rest) = part(rest)?;
    let (version, rest) = part(rest)?;
    let (name, body) = part(rest)?;
    Some(Prefix { provider, version, name, body })
}

fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(256).position(|byte| *byte == b':')?;
    let (part, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(part).ok()?, rest.get(1..)?))
}

impl Prefix<'_> {
    /// What the prefix says.
    #[must_use]
    pub fn class(&self) -> Class {
        match (self.provider, self.version) {
            ("kms", "v2") => Class::Kms2(self.name.to_owned()),
            ("kms", "v1") => Class::Kms1(self.name.to_owned()),
            ("aescbc" | "aesgcm" | "secretbox", _) => Class::Local(self.provider.to_owned()),
            _ => Class::Unknown,
        }
    }
}

/// How `encryptedData` of an [`EncryptedObject`] is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceType {
    /// The source is a key of AES-256-GCM, used for many values (Kubernetes 1.27 and 1.28).
    Key,
    /// The source is a seed; each value has a key derived from it (1.29 and later).
    Seed,
}

/// What stands behind `k8s:enc:kms:v2:NAME:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedObject<'a> {
    /// The sealed object.
    pub data: &'a [u8],
    /// The key id that the plugin gave.
    pub key_id: &'a str,
    /// The seed as the plugin sealed it.
    pub source: &'a [u8],
    /// What the plugin wanted to see again.
    pub annotations: Vec<(&'a str, &'a [u8])>,
    /// What the source is.
    pub source_type: SourceType,
}

impl<'a> EncryptedObject<'a> {
    /// Reads the message; none when it is damaged or lacks what the API server always writes.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (mut data, mut key_id, mut source): (&[u8], &str, &[u8]) = (&[], "", &[]);
        let mut annotations = Vec::new();
        let mut source_type = SourceType::Key;
        for field in Fields(body) {
            match field? {
                (1, Field::Bytes(bytes)) => data = bytes,
                (2, Field::Bytes(bytes)) => key_id = std::str::from_utf8(bytes).ok()?,
                (3, Field::Bytes(bytes)) => source = bytes,
                (4, Field::Bytes(bytes)) => annotations.push(annotation(bytes)?),
                (5, Field::Number(0)) => source_type = SourceType::Key,
                (5, Field::Number(1)) => source_type = SourceType::Seed,
                (5, _) => return None,
                _ => {}
            }
        }
        let is_whole = !data.is_empty() && !key_id.is_empty() && !source.is_empty();
        is_whole.then_some(Self { data, key_id, source, annotations, source_type })
    }
}

fn annotation(entry: &[u8]) -> Option<(&str, &[u8])> {
    let (mut name, mut value): (&str, &[u8]) = ("", &[]);
    for field in Fields(entry) {
        match field? {
            (1, Field::Bytes(bytes)) => name = std::str::from_utf8(bytes).ok()?,
            (2, Field::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((name, value))
}

/// A record of etcd: one revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a deletion.
    pub value: &'a [u8],
    /// The revision that wrote it.
    pub revision: u64,
}

impl<'a> KeyValue<'a> {
    /// Reads the message.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut revision = 0;
        for field in Fields(message) {
            match field? {
                (1, Field::Bytes(bytes)) => key = bytes,
                (3, Field::Number(number)) => revision = number,
                (5, Field::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        Some(Self { key, value, revision })
    }
}

/// Whose a key below the API server's prefix is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `secrets`; with its group where the key tells it: `widgets.example.com`.
    pub resource: String,
    /// `namespace/name`, or the name alone.
    pub name: String,
}

/// The owner of a key; none outside of the prefix.
///
/// # Source
/// k8s.io/kubernetes: pkg/kubeapiserver/default_storage_factory_builder.go names what does not
/// lie under its own name.
#[must_use]
pub fn owner(key: &[u8], registry: &str) -> Option<Owner> {
    let path = std::str::from_utf8(key).ok()?.strip_prefix(registry)?.strip_prefix('/')?;
    let mut rest = path.splitn(2, '/');
    let (first, below) = (rest.next()?, rest.next().unwrap_or_default());
    let (second, deeper) = below.split_once('/').unwrap_or((below, ""));
    let (third, deepest) = deeper.split_once('/').unwrap_or((deeper, ""));
    let (resource, name) = match (first, second) {
        ("services", "specs") => ("services".to_owned(), deeper),
        ("services", "endpoints") => ("endpoints".to_owned(), deeper),
        ("minions", _) => ("nodes".to_owned(), below),
        ("controllers", _) => ("replicationcontrollers".to_owned(), below),
        ("ingress", _) => ("ingresses".to_owned(), below),
        // A server for custom resources alone puts its own group before theirs.
        _ if first.contains('.') && second.contains('.') && !third.is_empty() => {
            (format!("{third}.{second}"), deepest)
        }
        _ if first.contains('.') && !deeper.is_empty() => (format!("{second}.{first}"), deeper),
        _ => (first.to_owned(), below),
    };
    Some(Owner { resource, name: name.to_owned() })
}

/// A field of a protobuf message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that nobody here asks for.
    Fixed,
}

/// The fields of a protobuf message in order; `None` where it is damaged, and then the end.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = varint(&mut self.0)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut self.0)?),
            1 => {
                self.0 = self.0.get(8..)?;
                Field::Fixed
            }
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            5 => {
                self.0 = self.0.get(4..)?;
                Field::Fixed
            }
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

/// The number at the front, which is cut off.
pub(crate) fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Class, EncryptedObject, KeyValue, SourceType, classify, owner, prefix};

    #[test]
    fn classes_are_told_by_the_prefix() {
        for (stored, class) in [
            (&b"k8s:enc:kms:v2:lastkey:\x0a\x01x"[..], Class::Kms2("lastkey".into())),
            (b"k8s:enc:kms:v1:old:xx", Class::Kms1("old".into())),
            (b"k8s:enc:aescbc:v1:key1:xx", Class::Local("aescbc".into())),
            (b"k8s:enc:secretbox:v1:k:", Class::Local("secretbox".into())),
            (b"k8s\0\x0a\x0c", Class::Clear),
            (b"{\"kind\":1}", Class::Clear),
            (b"k8s:enc:other:v9:n:", Class::Unknown),
            (b"k8s:enc:kms:v2:cut", Class::Unknown),
            (b"", Class::Unknown),
        ] {
            assert_eq!(classify(stored), class);
        }
    }

    #[test]
    fn owner_is_told_by_the_path() {
        for (key, resource, name) in [
            ("/registry/secrets/shop/db", "secrets", "shop/db"),
            ("/registry/example.com/widgets/shop/w", "widgets.example.com", "shop/w"),
            ("/registry/example.com/widgets/w", "widgets.example.com", "w"),
            ("/registry/services/specs/shop/web", "services", "shop/web"),
            ("/registry/services/endpoints/shop/web", "endpoints", "shop/web"),
            ("/registry/minions/node-1", "nodes", "node-1"),
            ("/registry/controllers/shop/web", "replicationcontrollers", "shop/web"),
            ("/registry/ingress/shop/web", "ingresses", "shop/web"),
            (
                "/registry/apiextensions.k8s.io/customresourcedefinitions/w.example.com",
                "customresourcedefinitions.apiextensions.k8s.io",
                "w.example.com",
            ),
            (
                "/registry/apiextensions.kubernetes.io/example.com/widgets/w2",
                "widgets.example.com",
                "w2",
            ),
            ("/registry/health", "health", ""),
        ] {
            let found = owner(key.as_bytes(), "/registry").unwrap();
            assert_eq!((found.resource.as_str(), found.name.as_str()), (resource, name), "{key}");
        }
        assert!(owner(b"/registryx/secrets/a/b", "/registry").is_none());
        assert!(owner(b"compact_rev_key", "/registry").is_none());
    }

    #[test]
    fn encrypted_object_is_read_and_its_holes_are_damage() {
        let whole = b"\x0a\x02dd\x12\x02k1\x1a\x03src\x22\x0a\x0a\x05a.b.c\x12\x01v\x28\x01";
        let object = EncryptedObject::parse(whole).unwrap();
        assert_eq!((object.data, object.key_id, object.source), (&b"dd"[..], "k1", &b"src"[..]));
        assert_eq!(object.annotations, [("a.b.c", &b"v"[..])]);
        assert_eq!(object.source_type, SourceType::Seed);
        assert!(EncryptedObject::parse(&whole[..whole.len() - 3]).is_none());
        assert!(EncryptedObject::parse(b"\x12\x02k1\x1a\x03src").is_none());
        assert!(EncryptedObject::parse(b"\x0a\x02dd\x12\x02k1\x1a\x03src\x28\x07").is_none());
    }

    #[test]
    fn prefix_ends_at_its_own_colon() {
        let found = prefix(b"k8s:enc:kms:v2:lastkey:a:b").unwrap();
        assert_eq!((found.name, found.body), ("lastkey", &b"a:b"[..]));
    }

    proptest! {
        #[test]
        fn parsers_do_not_panic(bytes: Vec<u8>) {
            let _ = (classify(&bytes), EncryptedObject::parse(&bytes), KeyValue::parse(&bytes));
            let _ = owner(&bytes, "/registry");
        }
    }
}
