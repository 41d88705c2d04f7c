//! What happens to the plugin, as events of Kubernetes about its node.
//!
//! Room      the binary: `node::ports::Herald` by `kube`.
//! Source    k8s.io/api/events/v1.
//! Holds     Nothing waits for them. An API server that is away, which is what the plugin has to
//!           outlive, costs the event after some attempts and nothing else. The kubeconfig is read
//!           for each attempt: what it names may be renewed, or come later.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lastkey_connect::guard::{Allowed, Guard};
use lastkey_kube::{Access, Cluster};
use lastkey_node::ports::{Happening, Herald};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// More are dropped while the API server is away: the log has them all.
const MOST_WAITING: usize = 32;
/// Pauses between attempts, in seconds: two minutes in all.
const PAUSES: [u64; 10] = [2, 5, 10, 15, 15, 15, 15, 15, 15, 15];
/// Longest note that an API server takes, in characters that may be four bytes long.
const MAX_NOTE: usize = 1_024 / 4;
/// Events about nodes, which have no namespace, lie in this one.
const PATH: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// Where events go.
#[derive(Clone, Debug)]
pub(super) struct EventsTo {
    pub(super) kubeconfig: PathBuf,
    /// The node that they are about.
    pub(super) node: String,
}

/// Takes up what is to be told.
pub(super) struct Post(mpsc::Sender<Letter>);

/// What waits to be written.
pub(super) struct Letter {
    at: OffsetDateTime,
    provider: String,
    happening: Happening,
}

/// A place for what is to be told, and what [`write()`] takes out of it.
pub(super) fn post() -> (Post, mpsc::Receiver<Letter>) {
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    (Post(sender), receiver)
}

impl Herald for Post {
    fn tell(&self, provider: &str, happening: Happening) {
        let (at, provider) = (OffsetDateTime::now_utc(), provider.to_owned());
        if self.0.try_send(Letter { at, provider, happening }).is_err() {
            tracing::debug!("an event is dropped: too many wait for the API server");
        }
    }
}

/// Writes events until the end of the process.
pub(super) async fn write(to: EventsTo, mut waiting: mpsc::Receiver<Letter>) {
    while let Some(letter) = waiting.recv().await {
        let event = letter.event(&to.node);
        let mut pauses = PAUSES.iter();
        while let Err(error) = send(&to.kubeconfig, &event).await {
            let (reason, error) = (letter.happening.reason(), format!("{error:#}"));
            let Some(pause) = pauses.next() else {
                tracing::warn!(reason, error, "an event is not written");
                break;
            };
            tracing::debug!(reason, error, "an event is not written yet");
            sleep(Duration::from_secs(*pause)).await;
        }
    }
}

async fn send(kubeconfig: &Path, event: &Value) -> anyhow::Result<()> {
    let access = Access::from_kubeconfig(kubeconfig, None)
        .with_context(|| kubeconfig.display().to_string())?;
    let cluster = Cluster::new(&Guard::new(Allowed::Any), access)?;
    cluster.create(PATH, event).await?;
    Ok(())
}

impl Letter {
    fn event(&self, node: &str) -> Value {
        let note = format!("{}: {}", self.provider, self.happening);
        let note: String = note.chars().take(MAX_NOTE).collect();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "generateName": format!("{node}.lastkey-kms-plugin-"),
                "namespace": "default",
            },
            "eventTime": written(self.at),
            "reportingController": "lastkey.dev/kms-plugin",
            "reportingInstance": node,
            "action": "ProtectSeeds",
            "reason": self.happening.reason(),
            // As the kubelet names its node.
            "regarding": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
            "note": note,
            "type": if self.happening.is_warning() { "Warning" } else { "Normal" },
        })
    }
}

/// RFC 3339 with the microseconds that Kubernetes wants.
fn written(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_about_the_node_and_short_enough() {
        let at = OffsetDateTime::from_unix_timestamp(1_790_000_001).unwrap();
        let refused = |message: String| Letter {
            at,
            provider: "etcd".to_owned(),
            happening: Happening::Refused { code: "KeyState".to_owned(), message },
        };
        let event = refused("the key is disabled".to_owned()).event("cp-1");
        assert_eq!(event["eventTime"], "2026-09-21T14:13:21.000000Z");
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("KeyRefused")));
        assert_eq!(event["regarding"]["name"], "cp-1");
        assert!(event["note"].as_str().unwrap().starts_with("etcd: the key service refuses"));
        let long = refused("\u{1F511}".repeat(2_000)).event("cp-1");
        assert!(long["note"].as_str().unwrap().len() <= 1_024);
    }

    #[tokio::test]
    async fn more_than_can_wait_is_dropped_and_nobody_waits() {
        let (post, mut waiting) = post();
        for _ in 0..MOST_WAITING + 5 {
            post.tell("etcd", Happening::Answers);
        }
        drop(post);
        let mut count = 0;
        while waiting.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, MOST_WAITING);
    }
}
