//! POD-04: credentials that stand in manifests.
//!
//! Room      `checks`. The scanner's rules find tokens of known services; here only what is a
//!           credential by its own form or by the name of its place.

use crate::{
    finding::mask,
    snapshot::{
        object::{LAST_APPLIED, Object},
        yaml::Node,
    },
};

use super::super::{Fault, Judge, World};

/// Literal credentials in variables, arguments, annotations and ConfigMaps.
pub(super) fn judge(world: &World<'_>, judge: &mut Judge) {
    if !world.pods.is_empty() || world.snapshot.of_kind("ConfigMap").next().is_some() {
        judge.pass("POD-04");
    }
    for pod in &world.pods {
        for container in pod.containers() {
            for variable in container.node.get("env").items() {
                let (name, value) = (variable.get("name").str(), variable.get("value"));
                if is_credential(name, value.str()) || holds_credential(value.str()) {
                    literal(pod.object, value, &format!("variable {name}"), judge);
                }
            }
            let words = [container.node.get("command"), container.node.get("args")];
            for word in words.into_iter().flat_map(Node::items) {
                if let Some((name, value)) = word.str().trim_start_matches('-').split_once('=')
                    && is_credential(name, value)
                {
                    literal(pod.object, word, &format!("argument {name}"), judge);
                } else if holds_credential(word.str()) {
                    literal(pod.object, word, "an argument", judge);
                }
            }
        }
    }
    for map in world.snapshot.of_kind("ConfigMap") {
        for (name, value) in map.root.get("data").entries() {
            if is_credential(name, value.str()) || holds_credential(value.str()) {
                literal(map, value, &format!("entry {name}"), judge);
            }
        }
    }
    for object in world.snapshot.objects.iter().filter(|object| object.kind != "Secret") {
        for (name, value) in object.root.at("metadata.annotations").entries() {
            if &**name != LAST_APPLIED
                && (is_credential(name, value.str()) || holds_credential(value.str()))
            {
                literal(object, value, &format!("annotation {name}"), judge);
            }
        }
    }
}

fn literal(object: &Object, node: &Node, what: &str, judge: &mut Judge) {
    let fault = Fault::new(
        object.subject(),
        object.place_of(node),
        format!("{what} is a credential in the clear"),
    )
    .evidence(mask(node.str().as_bytes()));
    judge.fail("POD-04", fault);
}

/// A name that says credential, with a value that is one and no reference, path or placeholder.
fn is_credential(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let last = lower.rsplit('/').next().unwrap_or_default();
    let says = [
        "password",
        "passwd",
        "secret_key",
        "api_key",
        "apikey",
        "access_token",
        "auth_token",
        "private_key",
        "secret_access_key",
        "client_secret",
        "accesskeysecret",
        "access_key_secret",
        "db_pass",
        "token",
        "passphrase",
        "credentials",
    ]
    .iter()
    .any(|word| last == *word || last.ends_with(&format!("_{word}")));
    says && is_value(value)
}

fn is_value(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let is_reference = value.starts_with(['/', '$', '{', '<', '.'])
        || value.contains("://") && !value.contains('@')
        || value.contains("${")
        || value.contains("$(");
    let is_placeholder = [
        "changeme",
        "example",
        "placeholder",
        "xxxx",
        "redacted",
        "your-",
        "none",
        "null",
        "true",
        "false",
        "vault:",
        "ref+",
        "lastkey:",
    ]
    .iter()
    .any(|word| lower.starts_with(word))
        || lower.chars().all(|c| c == '*' || c == 'x');
    value.len() >= 6
        && !is_reference
        && !is_placeholder
        && !value.chars().all(|c| c.is_ascii_digit())
        && !value.contains(char::is_whitespace)
}

/// Forms that are credentials whatever they are called.
fn holds_credential(text: &str) -> bool {
    let has_url = text.split_whitespace().any(|word| {
        let Some((_, rest)) = word.split_once("://") else { return false };
        let Some((user, _)) =
            rest.split(['/', '"', '\'']).next().and_then(|host| host.rsplit_once('@'))
        else {
            return false;
        };
        user.split_once(':').is_some_and(|(_, secret)| is_value(secret))
    });
    has_url
        || text.contains("PRIVATE KEY-----")
        || text.contains("client-key-data:")
        || after(text, "AKIA", 16, |c| c.is_ascii_uppercase() || c.is_ascii_digit())
        || after(text, "LTAI", 16, |c| c.is_ascii_alphanumeric())
        || after(text, "ghp_", 36, |c| c.is_ascii_alphanumeric())
}

fn after(text: &str, prefix: &str, len: usize, is_part: impl Fn(char) -> bool) -> bool {
    text.match_indices(prefix).any(|(at, _)| {
        let rest = text.get(at + prefix.len()..).unwrap_or_default();
        rest.chars().take_while(|c| is_part(*c)).count() >= len
    })
}

#[cfg(test)]
mod tests {
    use super::{holds_credential, is_credential};

    #[test]
    fn credentials_are_told_from_references() {
        assert!(is_credential("DB_PASSWORD", "kR9vT2mQx"));
        assert!(!is_credential("DB_PASSWORD_FILE", "/run/secrets/db"));
        assert!(!is_credential("DB_PASSWORD", "$(DB_PASSWORD)"));
        assert!(!is_credential("PASSWORD", "changeme"));
        assert!(!is_credential("TOKEN", "123456789"));
        assert!(holds_credential("postgres://app:kR9vT2mQx@db/x"));
        assert!(!holds_credential("postgres://app@db/x"));
        assert!(!holds_credential("postgres://app:$(PASS)@db/x"));
    }
}
