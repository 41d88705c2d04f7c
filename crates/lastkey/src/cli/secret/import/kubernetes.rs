//! Secrets of Kubernetes.
//!
//! Room      `lastkey`.
//! Source    `v1/Secret` (`data` in base64, `stringData` in clear, which wins), alone, in several
//!           documents of YAML, or in a `List`.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use lastkey_checks::snapshot::yaml::{self, Node, Value};
use lastkey_secret::SecretVec;

use super::{Found, FoundValue};

/// Reads manifests, in YAML or JSON.
pub(super) fn read(text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for (line, document) in yaml::documents(text) {
        // What the reader says may repeat the text.
        let tree = yaml::parse(document, line)
            .map_err(|_| format!("the document at line {line} is no YAML or JSON"))?;
        add(&tree, &mut found)?;
    }
    if found.is_empty() { Err("holds no Secret".to_owned()) } else { Ok(found) }
}

fn add(object: &Node, found: &mut Vec<Found>) -> Result<(), String> {
    match object.get("kind").str() {
        "List" | "SecretList" => object.get("items").items().iter().try_for_each(|item| {
            // Items of a SecretList need not say what they are.
            if item.get("kind").is_there() { add(item, found) } else { add_object(item, found) }
        }),
        "Secret" => add_object(object, found),
        _other_kind => Ok(()),
    }
}

fn add_object(object: &Node, found: &mut Vec<Found>) -> Result<(), String> {
    let (line, name) = (object.line, object.at("metadata.name").str());
    if name.is_empty() {
        return Err(format!("the Secret at line {line} has no name"));
    }
    let namespace = Some(object.at("metadata.namespace").str()).filter(|text| !text.is_empty());
    let mut fields = BTreeMap::new();
    for (key, value) in object.get("data").entries() {
        let text = text_of(key, value, name)?;
        let compact: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(SecretBytes(compact).as_slice());
        let bytes = bytes.map_err(|_| format!("{key:?} of Secret {name} is not base64"))?;
        fields.insert(key.to_string(), SecretVec::take(bytes));
    }
    for (key, value) in object.get("stringData").entries() {
        let text = text_of(key, value, name)?;
        fields.insert(key.to_string(), SecretVec::copy_of(text.as_bytes()));
    }
    if fields.is_empty() {
        return Err(format!("Secret {name} holds nothing"));
    }
    let kind = Some(object.get("type").str()).filter(|kind| !kind.is_empty());
    let tags = kind.map(|kind| ("kubernetes-type".to_owned(), kind.to_owned()));
    let full = namespace.map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let value = FoundValue::Fields(fields);
    found.push(Found { name: Some(full), value, tags: tags.into_iter().collect() });
    Ok(())
}

/// A value as it stands there. A number or a truth is not what was meant: YAML has read it already.
fn text_of<'a>(key: &str, value: &'a Node, name: &str) -> Result<&'a str, String> {
    match &value.value {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(""),
        Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Map(_) => {
            Err(format!("{key:?} of Secret {name} is no text; put it into quotes"))
        }
    }
}

/// Text of a secret that is wiped again.
struct SecretBytes(Vec<u8>);

impl SecretBytes {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::FoundValue;
    use super::read;

    const TWO: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\ntype: Opaque\ndata: {user: YXBw, pw: AP8=}\nstringData: {user: root}\n---\nkind: ConfigMap\nmetadata: {name: other}\n---\nkind: List\nitems:\n- kind: Secret\n  metadata: {name: tls}\n  data: {tls.crt: |\n    Zm9v\n    YmFy\n    }\n";

    #[test]
    fn secrets_are_found_in_documents_and_lists() {
        let text = TWO.replace("{tls.crt: |\n    Zm9v\n    YmFy\n    }", "{tls.crt: Zm9vYmFy}");
        let found = read(&text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name.as_deref(), Some("shop/db"));
        assert_eq!(found[0].tags["kubernetes-type"], "Opaque");
        let FoundValue::Fields(fields) = &found[0].value else { panic!("no fields") };
        assert!(fields["user"].expose(|value| value == b"root"));
        assert!(fields["pw"].expose(|value| value == b"\x00\xff"));
        let FoundValue::Fields(fields) = &found[1].value else { panic!("no fields") };
        assert!(fields["tls.crt"].expose(|value| value == b"foobar"));
    }

    #[test]
    fn what_is_wrong_is_told_without_a_value() {
        for (text, part) in [
            ("kind: Secret\nmetadata: {name: db}\ndata: {pw: 'hunter2!'}", "not base64"),
            ("kind: Secret\ndata: {pw: aHVudGVyMg==}", "no name"),
            ("kind: Secret\nmetadata: {name: db}", "holds nothing"),
            ("kind: Secret\nmetadata: {name: db}\nstringData: {pin: 0042}", "no text"),
            ("kind: Secret\nmetadata: {name: db}\ndata: {pin: 1234}", "no text"),
            ("kind: Secret\nmetadata: {name: db}\ndata: {on: true}", "no text"),
            ("kind: Secret\nmetadata: {name: db}\nstringData: {a: [hunter2]}", "no text"),
            ("kind: ConfigMap", "no Secret"),
            ("kind: Secret\n hunter2: [", "no YAML"),
        ] {
            let told = read(text).err().unwrap();
            assert!(told.contains(part) && !told.contains("hunter2"), "{text}: {told}");
        }
    }
}
