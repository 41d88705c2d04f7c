//! The configuration as YAML, with comments for who reads it on the node.
//!
//! Room      `checks`.

use super::{Block, Provider, Stage, Wanted, endpoint_of};
use crate::snapshot::yaml::{Node, Value};

pub(super) fn text(wanted: &Wanted, blocks: &[Block]) -> String {
    let note = match wanted.stage {
        Stage::Start => {
            "# New writes are sealed by the first provider of a block; the others only read.\n\
             # Rewrite everything, prove it (lastkey etcd verify), then make the last step\n\
             # (lastkey etcd enable --finish).\n"
        }
        Stage::Finish => "# Nothing but the plugin: what is in the clear is refused.\n",
        Stage::Back => {
            "# The way back: new writes are in the clear, the plugin only reads. Rewrite\n\
             # everything, prove it, then take the configuration and the plugin away.\n"
        }
    };
    let mut text = format!(
        "# Belongs to root, mode 0600, the same on every control plane node.\n{note}\
         apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
    );
    for block in blocks {
        text.push_str("- resources:\n");
        for resource in &block.resources {
            text.push_str(&format!("  - {}\n", quoted(resource)));
        }
        text.push_str("  providers:\n");
        for provider in &block.providers {
            text.push_str(&match provider {
                Provider::Identity => "  - identity: {}\n".to_owned(),
                Provider::Kept(line) => format!("  - {line}\n"),
                Provider::Ours(name) => format!(
                    "  - kms:\n      apiVersion: v2\n      name: {name}\n      endpoint: {}\n      timeout: 3s\n",
                    quoted(&endpoint_of(wanted))
                ),
            });
        }
    }
    text
}

/// Plain where YAML reads it as text, else in quotes.
fn quoted(text: &str) -> String {
    let is_plain = text.chars().all(|letter| {
        letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '/' | ':' | '_')
    });
    // A colon before a blank would end a name; there are no blanks.
    if is_plain && !text.starts_with('*') { text.to_owned() } else { json(text) }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A node in one line of JSON, which is YAML too.
pub(super) fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Text(text) => json(text),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(name, node)| format!("{}: {}", json(name), flow(node)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}
