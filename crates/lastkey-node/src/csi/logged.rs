//! What the log is told of volumes.
//!
//! Room      `node`.
//! Holds     Names of namespaces, pods, classes and parameters; no value of a parameter or a secret.

use super::held::{Held, Slot};
use super::plan::Plan;
use super::render::len_of;

/// A volume with more is worth a word: no Kubernetes Secret holds so much, and the node has it in
/// memory twice.
const LARGE: usize = 1 << 20;

/// What was made, and what of its class nobody heeded.
pub(super) fn made(plan: &Plan, made: &Held) {
    let asked = &made.asked;
    let ignored: Vec<_> = plan.ignored.iter().map(String::as_str).collect();
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        tracing::warn!(
            namespace = asked.namespace,
            pod = asked.pod,
            ignored,
            "parameters of the class are not heeded"
        );
    }
    tracing::info!(
        namespace = asked.namespace,
        service_account = asked.service_account,
        pod = asked.pod,
        pod_uid = asked.pod_uid,
        files = made.files.len(),
        bound_to_pod = made.has_pod,
        "a volume was made"
    );
}

/// That a volume is large, once.
pub(super) fn size(slot: &Slot, held: &Held) {
    let (asked, bytes) = (&held.asked, len_of(&held.files));
    if bytes <= LARGE || !slot.grow_large() {
        return;
    }
    tracing::warn!(
        class = asked.class(),
        namespace = asked.namespace,
        pod = asked.pod,
        bytes,
        "a volume has more than 1 MiB: no Kubernetes Secret holds so much, and the node has it in \
         memory twice"
    );
}
