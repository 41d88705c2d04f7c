//! What becomes of mounted volumes, as events of Kubernetes about their pods.
//!
//! Room      the binary: `node::ports::VolumeHerald` by `roles::events`.
//! Holds     The driver tells nobody when a mounted volume cannot be renewed. No value and no name of
//!           a file of the node is in an event.

use lastkey_node::ports::{VolumeHerald, VolumeNews};
use serde_json::json;
use tokio::sync::mpsc;

use crate::roles::events::{self, Event, Letter, Post};

/// All pods of a full node may be renewed at once.
const MOST_WAITING: usize = 256;
/// Longest part of a pod's name in that of an event.
const MAX_NAME: usize = 200;

/// Takes up what is to be told.
pub(super) struct Announcer(Post);

/// For this node, with what is to be written.
pub(super) fn announcer() -> (Announcer, mpsc::Receiver<Letter>) {
    let node = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let (post, letters) = events::post(node, MOST_WAITING);
    (Announcer(post), letters)
}

impl VolumeHerald for Announcer {
    fn tell(&self, news: VolumeNews) {
        // Both become part of a path: what no API server has is not asked for.
        if is_name(&news.namespace) && is_name(&news.pod) {
            self.0.send(&event(&news));
        }
    }
}

fn event(news: &VolumeNews) -> Event<'_> {
    let VolumeNews { namespace, pod, pod_uid, kept_because } = news;
    let name: String = pod.chars().take(MAX_NAME).collect();
    Event {
        namespace,
        regarding: json!({ "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod,
            "uid": pod_uid }),
        name: format!("{}.lastkey-secrets-", name.trim_end_matches(['-', '.'])),
        controller: "lastkey.dev/secrets-provider",
        action: "RenewSecrets",
        reason: if kept_because.is_some() { "SecretsNotRenewed" } else { "SecretsRenewed" },
        note: kept_because.as_deref().unwrap_or("the new secrets are in the volume"),
        is_warning: kept_because.is_some(),
    }
}

/// Whether Kubernetes has such names of namespaces and pods.
fn is_name(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn news(namespace: &str, pod: &str, kept_because: Option<&str>) -> VolumeNews {
        VolumeNews {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            pod_uid: "u".to_owned(),
            kept_because: kept_because.map(str::to_owned),
        }
    }

    #[test]
    fn event_is_about_the_pod_and_has_a_name_that_fits() {
        let (announcer, _) = announcer();
        let long = "a".repeat(199) + &"-b".repeat(20);
        for (pod, kept, reason, kind) in [
            ("api-0", None, "SecretsRenewed", "Normal"),
            (&*long, Some("no policy"), "SecretsNotRenewed", "Warning"),
        ] {
            let news = news("shop", pod, kept);
            let letter = announcer.0.letter(&event(&news), OffsetDateTime::UNIX_EPOCH);
            let body = letter.body();
            assert_eq!((&body["reason"], &body["type"]), (&json!(reason), &json!(kind)));
            assert_eq!(body["regarding"]["name"], pod);
            let name = body["metadata"]["generateName"].as_str().unwrap();
            assert!(name.len() <= 240 && !name.contains("-.lastkey"), "{name}");
        }
    }

    #[test]
    fn what_no_namespace_or_pod_is_called_reaches_no_path() {
        let (announcer, mut letters) = announcer();
        for (namespace, pod) in [("", "a"), ("a/b", "c"), ("..", "c"), ("a", "?x"), ("A", "b")] {
            announcer.tell(news(namespace, pod, None));
        }
        assert!(letters.try_recv().is_err());
        announcer.tell(news("shop", "api-0", None));
        assert!(letters.try_recv().is_ok());
    }
}
