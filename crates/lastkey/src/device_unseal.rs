//! Unsealing at start by the devices of seals, without a person.
//!
//! Room      the binary.
//! Holds     devices are asked again, less and less often, until the server is unsealed in
//!           whatever way: one that was away comes back, and what a person has mended (a PIN file,
//!           an approval) works without a restart. What must not be tried twice, a wrong PIN, the
//!           adapters remember. A server that an operator seals stays sealed: the gate tells.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::ids::RequestId;
use lastkey_core::ports::DeviceKind;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_service::sealing::Gate;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long the start of the server waits for the first try.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// First pause between two tries; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Asks the devices until the server is unsealed. Returns after the first try or a short while,
/// so that a device that does not answer does not keep the server from listening.
pub(crate) async fn start(gate: &Arc<Gate>) -> Option<JoinHandle<()>> {
    let seals = gate.status().await.ok()?.seals;
    if !seals.iter().any(|seal| DeviceKind::parse(seal.kind).is_some()) {
        return None;
    }
    let gate = Arc::clone(gate);
    let (tried, first_try) = oneshot::channel();
    let trying = tokio::spawn(async move {
        let mut is_over = try_once(&gate).await;
        // The start of the server may have gone on without.
        let _ = tried.send(());
        let mut pause = FIRST_PAUSE;
        while !is_over {
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause.saturating_mul(2));
            is_over = gate.engine().is_ok() || try_once(&gate).await;
        }
    });
    // Either way the server starts.
    let _ = tokio::time::timeout(FIRST_TRY, first_try).await;
    Some(trying)
}

/// One try; whether it was the last one: the server is unsealed, or somebody has sealed it.
async fn try_once(gate: &Arc<Gate>) -> bool {
    let mut request = [0; 16];
    if SystemEntropy.fill(&mut request).is_err() {
        return false;
    }
    match gate.unseal_by_devices(RequestId(request)).await {
        Ok(unsealed) => {
            if let Some(unsealed) = unsealed {
                tracing::info!(seal = unsealed.seal_kind, "unsealed by a device");
            }
            true
        }
        // What each device said is in the log and in the status.
        Err(_) => false,
    }
}
