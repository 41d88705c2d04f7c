//! Unsealing at start by the devices of seals, without a person.
//!
//! Room      the binary.
//! Holds     a device that is away is asked again, less and less often, until the server is
//!           unsealed in whatever way; one that refuses is left to a person. A server that an
//!           operator seals later stays sealed.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::ids::RequestId;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_service::error::Error;
use lastkey_service::sealing::Gate;
use tokio::task::JoinHandle;

/// First pause between two tries; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Tries once, and goes on in the background while that may help.
pub(crate) async fn start(gate: &Arc<Gate>) -> Option<JoinHandle<()>> {
    if !may_pass(gate).await {
        return None;
    }
    let gate = Arc::clone(gate);
    Some(tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            if gate.engine().is_ok() || !may_pass(&gate).await {
                return;
            }
            pause = LONGEST_PAUSE.min(pause.saturating_mul(2));
        }
    }))
}

/// One try; whether another one may help.
async fn may_pass(gate: &Arc<Gate>) -> bool {
    let mut request = [0; 16];
    if SystemEntropy.fill(&mut request).is_err() {
        return true;
    }
    match gate.unseal_by_devices(RequestId(request)).await {
        Ok(_) => false,
        Err(Error::Unavailable(_)) => true,
        Err(_) => false,
    }
}
