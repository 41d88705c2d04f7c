//! An API server by a kubeconfig, and what it refuses, in words.
//!
//! Room      `lastkey`.

use std::{error::Error as _, path::Path};

use lastkey_connect::guard::{Allowed, Guard};
use lastkey_kube::{Access, Cluster, KubeError};

use super::failure::{Failure, RemoteEnd, printable};

/// Prepares calls, at an address of its own where one is given.
pub(super) fn connect(
    kubeconfig: &Path,
    context: Option<&str>,
    server: Option<&str>,
) -> Result<Cluster, Failure> {
    let access = Access::from_kubeconfig(kubeconfig, context);
    let mut access = access.map_err(|error| {
        Failure::Usage(printable(&format!("{}: {}", kubeconfig.display(), said(&error))))
    })?;
    if let Some(server) = server {
        server.clone_into(&mut access.server);
    }
    Cluster::new(&Guard::new(Allowed::Any), access).map_err(|error| refused(&error))
}

/// A refusal of the API server, or a way to it that is closed.
pub(super) fn refused(error: &KubeError) -> Failure {
    let end = match error {
        KubeError::Refused { status: 401 | 403, .. } => RemoteEnd::Denied,
        KubeError::Outbound(_) => RemoteEnd::Unreachable,
        KubeError::File(..)
        | KubeError::Kubeconfig(_)
        | KubeError::Refused { .. }
        | KubeError::Malformed
        | KubeError::Expired
        | KubeError::TooMany => RemoteEnd::Refused,
    };
    Failure::Remote { said: printable(&said(error)), end }
}

/// What went wrong, and each cause behind it.
fn said(error: &KubeError) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !said.ends_with(&part) {
            said.push_str(": ");
            said.push_str(&part);
        }
        cause = error.source();
    }
    said
}
