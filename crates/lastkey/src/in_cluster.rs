//! The API server of the cluster that this process runs in, by the account of its pod.
//!
//! Room      the binary, over `kube`.
//! Source    "Accessing the Kubernetes API from a Pod".

use std::path::Path;

use anyhow::Context as _;
use lastkey_kube::{Access, IN_CLUSTER_DIR};

/// How it is reached; the token is read for each request.
///
/// # Errors
/// When this is no pod, or its account is not mounted.
pub(crate) fn access() -> anyhow::Result<Access> {
    let variable = |name: &str| {
        let found = std::env::var(name).ok().filter(|text| !text.is_empty());
        found.with_context(|| format!("{name} is not set: this is no pod"))
    };
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    Ok(Access::in_cluster(Path::new(IN_CLUSTER_DIR), &host, &port)?)
}
