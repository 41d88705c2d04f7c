//! Signals that ask to end, while there is something to tidy up.
//!
//! Room      `lastkey`. Until somebody listens, a signal ends the process at once: a prompt or
//!           a read that waits is interrupted as everywhere else.
//! Holds     From the moment an output file is begun, a signal only ends the work on it, and
//!           dropping that removes the temporary file.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

const HANG_UP: u8 = 1;
const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// From its creation on, the process does not end by signals any more.
pub(crate) struct Interrupts {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|cause| Failure::io("listen for signals", cause));
        Ok(Self {
            hang_up: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The outcome of `work`, unless a signal comes first.
    pub(crate) async fn or_outcome<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            _ = self.hang_up.recv() => Err(Failure::Interrupted(HANG_UP)),
            _ = self.interrupt.recv() => Err(Failure::Interrupted(INTERRUPT)),
            _ = self.terminate.recv() => Err(Failure::Interrupted(TERMINATE)),
            outcome = work => outcome.map_err(Into::into),
        }
    }
}
