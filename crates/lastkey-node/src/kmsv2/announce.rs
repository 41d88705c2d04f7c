//! What operators are told of a provider, when it changes.
//!
//! Room      `node`. Told to a port: as events of Kubernetes, where the binary is told how.
//! Holds     Each thing is told once, until it is over. Nothing waits for the telling.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ports::{Happening, Herald};

/// Tells what happens to one provider.
pub(super) struct Announcer {
    provider: String,
    herald: Option<Arc<dyn Herald>>,
    /// What is wrong, as it was told last.
    wrong: Mutex<Option<Happening>>,
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Announcer({})", self.provider)
    }
}

impl Announcer {
    pub(super) fn new(provider: &str, herald: Option<Arc<dyn Herald>>) -> Self {
        Self { provider: provider.to_owned(), herald, wrong: Mutex::default() }
    }

    /// Tells it, unless it was told and nothing has changed since.
    pub(super) fn tell(&self, happening: Happening) {
        let Some(herald) = &self.herald else { return };
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        match &happening {
            Happening::Promoted { .. } => {}
            Happening::Answers if wrong.is_none() => return,
            Happening::Answers => *wrong = None,
            Happening::Silent { .. }
            | Happening::SilentTooLong
            | Happening::Refused { .. }
            | Happening::RolledBack { .. } => {
                if wrong.as_ref().is_some_and(|told| told.reason() == happening.reason()) {
                    return;
                }
                *wrong = Some(happening.clone());
            }
        }
        herald.tell(&self.provider, happening);
    }
}
