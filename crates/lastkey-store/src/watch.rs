//! Who watches which paths: one broadcast of commits, filtered where it is received.
//!
//! Room      `store`.
//! Holds     a watcher sees every commit after [`Hub::watch`] in order, or [`Change::Missed`]
//!           where it was too slow; nobody waits for a watcher.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::ports::{Change, CommitSeq, Revision, Watch};
use lastkey_core::record::RecordPath;
use tokio::sync::broadcast;

use crate::backend::{OUTSIDE, RawWrite};

/// How many commits a watcher may lag behind before it misses some.
const LONGEST_LAG: usize = 1_024;

/// Where commits are published.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<[Change]>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(LONGEST_LAG) }
    }

    /// Tells watchers of a commit. To be called in the order of commits.
    pub(crate) fn publish(&self, commit: CommitSeq, batch: &[RawWrite]) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let changes: Arc<[Change]> = batch.iter().filter_map(|w| change(commit, w)).collect();
        if !changes.is_empty() {
            // An error means that the last watcher has just gone.
            let _ = self.sender.send(changes);
        }
    }

    pub(crate) fn watch(&self, prefix: &str) -> Box<dyn Watch> {
        let receiver = self.sender.subscribe();
        Box::new(Watcher { receiver, prefix: prefix.to_owned(), pending: VecDeque::new() })
    }
}

fn change(commit: CommitSeq, write: &RawWrite) -> Option<Change> {
    let checked_only = write.expected.is_none() && write.value.is_none();
    let path = RecordPath::from_stored(write.path.clone());
    let revision = write.next_revision().map(Revision);
    (!checked_only).then_some(Change::Record { commit, path, revision })
}

struct Watcher {
    receiver: broadcast::Receiver<Arc<[Change]>>,
    prefix: String,
    pending: VecDeque<Change>,
}

impl Watcher {
    fn concerns(&self, change: &Change) -> bool {
        match change {
            Change::Record { path, .. } => {
                path.as_str().starts_with(&self.prefix) && !path.as_str().starts_with(OUTSIDE)
            }
            Change::Missed => true,
        }
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            match self.receiver.recv().await {
                Ok(changes) => {
                    let mine = changes.iter().filter(|c| self.concerns(c)).cloned().collect();
                    self.pending = mine;
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Some(Change::Missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &str) -> RawWrite {
        RawWrite { path: path.to_owned(), expected: None, value: Some(vec![1]) }
    }

    #[tokio::test]
    async fn watcher_that_lags_is_told_that_it_missed_changes_and_goes_on() {
        let hub = Hub::new();
        let mut watch = hub.watch("key/");
        let last = LONGEST_LAG as u64 + 1;
        for commit in 1..=last {
            hub.publish(CommitSeq(commit), &[put("key/a")]);
        }
        assert_eq!(watch.next().await, Some(Change::Missed));
        let Some(Change::Record { commit, .. }) = watch.next().await else { panic!("no change") };
        assert_eq!(commit, CommitSeq(2));
    }

    #[tokio::test]
    async fn watcher_does_not_see_what_lies_outside_the_root_key() {
        let hub = Hub::new();
        let mut watch = hub.watch("");
        hub.publish(CommitSeq(1), &[put("!bootstrap")]);
        drop(hub);
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn watcher_is_not_told_of_a_mere_check() {
        let hub = Hub::new();
        let mut watch = hub.watch("");
        hub.publish(CommitSeq(1), &[RawWrite { value: None, ..put("key/a") }]);
        drop(hub);
        assert_eq!(watch.next().await, None);
    }
}
