//! What happens to the plugin, as events of Kubernetes about its node.
//!
//! Room      the binary: `node::ports::Herald` by `roles::events`.
//! Holds     An API server that is away is what the plugin has to outlive.

use std::path::PathBuf;

use lastkey_node::ports::{Happening, Herald};
use serde_json::json;
use tokio::sync::mpsc;

use crate::roles::events::{self, Event, Letter, Post};

/// More are dropped while the API server is away: the log has them all.
const MOST_WAITING: usize = 32;
/// Events about nodes, which have no namespace, lie in this one.
const NAMESPACE: &str = "default";

/// Where events go.
#[derive(Clone, Debug)]
pub(super) struct EventsTo {
    pub(super) kubeconfig: PathBuf,
    /// The node that they are about.
    pub(super) node: String,
}

/// Takes up what is to be told.
pub(super) struct Announcer {
    post: Post,
    node: String,
}

/// For a node, with what is to be written.
pub(super) fn announcer(node: &str) -> (Announcer, mpsc::Receiver<Letter>) {
    let (post, letters) = events::post(node.to_owned(), MOST_WAITING);
    (Announcer { post, node: node.to_owned() }, letters)
}

impl Herald for Announcer {
    fn tell(&self, provider: &str, happening: Happening) {
        let note = format!("{provider}: {happening}");
        self.post.send(&self.event(&note, &happening));
    }
}

impl Announcer {
    fn event<'a>(&self, note: &'a str, happening: &Happening) -> Event<'a> {
        let node = &self.node;
        Event {
            namespace: NAMESPACE,
            // As the kubelet names its node.
            regarding: json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node }),
            name: format!("{node}.lastkey-kms-plugin-"),
            controller: "lastkey.dev/kms-plugin",
            action: "ProtectSeeds",
            reason: happening.reason(),
            note,
            is_warning: happening.is_warning(),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn event_is_about_the_node() {
        let (announcer, _) = announcer("cp-1");
        let refused = Happening::Refused {
            code: "KeyState".to_owned(),
            message: "the key is disabled".to_owned(),
        };
        let note = format!("etcd: {refused}");
        let event = announcer.event(&note, &refused);
        let letter = announcer.post.letter(&event, OffsetDateTime::UNIX_EPOCH);
        let body = letter.body();
        assert_eq!((&body["type"], &body["reason"]), (&json!("Warning"), &json!("KeyRefused")));
        assert_eq!(body["regarding"]["name"], "cp-1");
        assert_eq!(body["metadata"]["namespace"], "default");
        assert!(body["note"].as_str().unwrap().starts_with("etcd: the key service refuses"));
    }
}
