//! Events of Kubernetes that a process of a node writes.
//!
//! Room      the binary, over `kube`.
//! Source    k8s.io/api/events/v1.
//! Holds     Nothing waits for them. An API server that is away costs the event after some attempts
//!           and nothing else; one that refuses it, at once. What leads to it is read for each attempt:
//!           it may be renewed, or come later.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lastkey_connect::guard::{Allowed, Guard};
use lastkey_kube::{Access, Cluster, KubeError};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::in_cluster;

/// Pauses between attempts, in seconds: two minutes in all.
const PAUSES: [u64; 10] = [2, 5, 10, 15, 15, 15, 15, 15, 15, 15];
/// Longest note that an API server takes, in characters that may be four bytes long.
const MAX_NOTE: usize = 1_024 / 4;

/// In whose name events are written.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// That of a kubeconfig.
    Kubeconfig(PathBuf),
    /// The account of the pod that this process runs in.
    Account,
}

/// What is told, but for when and by which node.
pub(super) struct Event<'a> {
    /// Where it is kept: that of what it is about, or `default`.
    pub(super) namespace: &'a str,
    /// What it is about, as Kubernetes refers to objects.
    pub(super) regarding: Value,
    /// What the names of such events begin with.
    pub(super) name: String,
    /// Who writes them, such as `lastkey.dev/kms-plugin`.
    pub(super) controller: &'static str,
    /// What was done or tried, in one word.
    pub(super) action: &'static str,
    /// What came of it, in one word.
    pub(super) reason: &'static str,
    /// The same for people; cut where an API server would refuse it.
    pub(super) note: &'a str,
    /// Whether somebody should look after it.
    pub(super) is_warning: bool,
}

/// Takes up what is to be told.
pub(super) struct Post {
    node: String,
    sender: mpsc::Sender<Letter>,
}

/// What waits to be written.
pub(super) struct Letter {
    path: String,
    reason: &'static str,
    body: Value,
}

/// A place of a node for what is to be told, with room for so many; and what [`write()`] takes out
/// of it.
pub(super) fn post(node: String, room: usize) -> (Post, mpsc::Receiver<Letter>) {
    let (sender, receiver) = mpsc::channel(room);
    (Post { node, sender }, receiver)
}

impl Post {
    /// Takes an event up at once. One for which there is no room is dropped: the log has them all.
    pub(super) fn send(&self, event: &Event<'_>) {
        if self.sender.try_send(self.letter(event, OffsetDateTime::now_utc())).is_err() {
            tracing::debug!("an event is dropped: too many wait for the API server");
        }
    }

    pub(super) fn letter(&self, event: &Event<'_>, at: OffsetDateTime) -> Letter {
        let note: String = event.note.chars().take(MAX_NOTE).collect();
        let body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "generateName": event.name,
                "namespace": event.namespace,
            },
            "eventTime": written(at),
            "reportingController": event.controller,
            "reportingInstance": self.node,
            "action": event.action,
            "reason": event.reason,
            "regarding": event.regarding,
            "note": note,
            "type": if event.is_warning { "Warning" } else { "Normal" },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", event.namespace);
        Letter { path, reason: event.reason, body }
    }
}

impl Letter {
    /// What is written.
    #[cfg(test)]
    pub(super) const fn body(&self) -> &Value {
        &self.body
    }
}

/// Writes events until the end of the process.
pub(super) async fn write(by: By, mut waiting: mpsc::Receiver<Letter>) {
    while let Some(letter) = waiting.recv().await {
        let mut pauses = PAUSES.iter();
        while let Err(error) = send(&by, &letter).await {
            let is_final = is_final(&error);
            let (reason, error) = (letter.reason, format!("{error:#}"));
            let pause = pauses.next().filter(|_| !is_final);
            let Some(pause) = pause else {
                tracing::warn!(reason, error, "an event is not written");
                break;
            };
            tracing::debug!(reason, error, "an event is not written yet");
            sleep(Duration::from_secs(*pause)).await;
        }
    }
}

async fn send(by: &By, letter: &Letter) -> anyhow::Result<()> {
    let access = match by {
        By::Kubeconfig(file) => {
            Access::from_kubeconfig(file, None).with_context(|| file.display().to_string())?
        }
        By::Account => in_cluster::access()?,
    };
    let cluster = Cluster::new(&Guard::new(Allowed::Any), access)?;
    cluster.create(&letter.path, &letter.body).await?;
    Ok(())
}

/// Whether the API server means it: a credential may be renewed, one that has too much to do or is
/// being restarted may take the event later, and nothing else changes by itself.
fn is_final(error: &anyhow::Error) -> bool {
    let Some(KubeError::Refused { status, .. }) = error.downcast_ref() else { return false };
    !matches!(status, 401 | 429 | 500..)
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

    fn event(note: &str) -> Event<'_> {
        Event {
            namespace: "shop",
            regarding: json!({ "kind": "Pod" }),
            name: "api-".to_owned(),
            controller: "lastkey.dev/test",
            action: "Test",
            reason: "Tested",
            note,
            is_warning: true,
        }
    }

    #[test]
    fn event_is_dated_and_short_enough() {
        let (post, _) = post("cp-1".to_owned(), 1);
        let at = OffsetDateTime::from_unix_timestamp(1_790_000_001).unwrap();
        let long = "\u{1F511}".repeat(2_000);
        let letter = post.letter(&event(&long), at);
        assert_eq!(letter.path, "/apis/events.k8s.io/v1/namespaces/shop/events");
        assert_eq!(letter.body["eventTime"], "2026-09-21T14:13:21.000000Z");
        assert_eq!(
            (&letter.body["type"], &letter.body["reportingInstance"]),
            (&json!("Warning"), &json!("cp-1"))
        );
        assert!(letter.body["note"].as_str().unwrap().len() <= 1_024);
    }

    #[test]
    fn what_an_api_server_refuses_on_purpose_is_not_tried_again() {
        let of = |status| {
            let (reason, message) = ("Why".to_owned(), "no".to_owned());
            is_final(&KubeError::Refused { status, reason, message }.into())
        };
        assert!([400, 403, 404, 409, 422].into_iter().all(of));
        assert!(![401, 429, 500, 503].into_iter().any(of));
        assert!(!is_final(&anyhow::anyhow!("no connection")));
    }

    #[tokio::test]
    async fn more_than_can_wait_is_dropped_and_nobody_waits() {
        let (post, mut waiting) = post("cp-1".to_owned(), 3);
        for _ in 0..5 {
            post.send(&event("x"));
        }
        drop(post);
        let mut count = 0;
        while waiting.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
    }
}
