//! What the scheduler does with secrets when its time has come.
//!
//! Room      `service`.
//! Holds     a due time is used once: the work and the removal of its due record are one commit.
//!           While the clock is on hold nothing is destroyed.

use std::sync::Arc;

use lastkey_core::ports::{Expected, Stored, Write};
use lastkey_core::record::{PathRange, Record};
use lastkey_core::secret_item::{SecretDue, SecretDueWhat};
use lastkey_core::time::Elapsed;

use super::SecretChange;
use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;

/// Due records looked at in one scan.
const DUE_PAGE: usize = 256;

impl Engine {
    /// Does everything that is due with secrets, and answers when the next thing is.
    pub async fn run_secrets_due(self: &Arc<Self>) -> Option<Elapsed> {
        let mut after = None;
        loop {
            let range = PathRange { after: after.take(), ..PathRange::secrets_due(DUE_PAGE) };
            let page = match self.store.scan(&range).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "what is due with secrets could not be read");
                    return None;
                }
            };
            let last = page.last().map(|stored| stored.path.clone());
            for stored in &page {
                let Record::SecretDue(due) = &stored.record else { continue };
                if due.at > self.clock.observe().elapsed {
                    return Some(due.at);
                }
                self.do_secret_due(stored, due).await;
            }
            after = Some(last?);
        }
    }

    async fn do_secret_due(self: &Arc<Self>, stored: &Stored, due: &SecretDue) {
        let change = match due.what {
            SecretDueWhat::Destroy => SecretChange::Expire(due.at),
        };
        let call = scheduled_call(self);
        match self.change_secret(&call, due.name.clone(), change).await {
            Ok(_) => tracing::info!(what = due.what.as_str(), "a secret: done as due"),
            // Tried again with the next round.
            Err(Error::ClockHeld) => {}
            Err(Error::Denied) => self.drop_secret_orphan(stored, due).await,
            Err(error) => {
                tracing::error!(what = due.what.as_str(), %error, "a secret: due, but failed");
            }
        }
    }

    /// Removes a due record that no secret speaks of any more.
    async fn drop_secret_orphan(&self, stored: &Stored, due: &SecretDue) {
        let item = match self.stored_secret(&due.name).await {
            Ok(secret) => secret.map(|secret| secret.item),
            Err(_) => return,
        };
        if item.and_then(|item| item.deletion).is_some_and(|deletion| deletion.due == due.at) {
            tracing::error!(what = due.what.as_str(), "a secret: due, but refused");
            return;
        }
        let expected = Expected::At(stored.revision);
        let write = Write { path: stored.path.clone(), expected, record: None };
        if let Err(error) = self.store.commit(vec![write]).await {
            tracing::warn!(%error, "a due record without secret stays");
        }
    }
}
