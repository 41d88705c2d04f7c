//! Use case: enable, disable, retire a key, or mark it as compromised.
//!
//! Room      `service`.

use std::sync::Arc;

use lastkey_core::ids::KeyRef;
use lastkey_core::permit::{DisableKey, EnableKey, MarkCompromised};
use lastkey_core::state::{KeyEvent, State};

use crate::call::Call;
use crate::change::{Draft, Plan, StateChange};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::KeyView;

impl Engine {
    /// Changes the state of a key.
    ///
    /// # Errors
    /// [`Error::KeyState`] when the table of states refuses; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn change_state(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        change: StateChange,
    ) -> Result<KeyView, Error> {
        let plan = Plan::State(change);
        match change {
            StateChange::Enable => self.change::<EnableKey>(call, key, plan).await,
            StateChange::Disable | StateChange::Deactivate => {
                self.change::<DisableKey>(call, key, plan).await
            }
            StateChange::MarkCompromised => self.change::<MarkCompromised>(call, key, plan).await,
        }
    }
}

impl Draft {
    pub(crate) fn plan_state(&mut self, change: StateChange) -> Result<(), Error> {
        self.happen(match change {
            StateChange::Enable => KeyEvent::Enable,
            StateChange::Disable => KeyEvent::Disable,
            StateChange::Deactivate => KeyEvent::Deactivate,
            StateChange::MarkCompromised => KeyEvent::MarkCompromised,
        })
    }

    /// Lets an event happen to the key, if the table of states allows it.
    ///
    /// # Errors
    /// [`Error::KeyState`].
    pub(crate) fn happen(&mut self, event: KeyEvent) -> Result<(), Error> {
        let phase = self.key.phase();
        let after = phase.after(event).map_err(|refused| {
            if phase.destruction_scheduled {
                Error::KeyState { state: "pending deletion" }
            } else {
                Error::refused(phase.state)(refused)
            }
        })?;
        self.key.state = after.state;
        if !after.destruction_scheduled {
            self.key.destruction = None;
        }
        if after.state == State::Destroyed {
            self.key.primary = None;
        }
        Ok(())
    }
}
