//! A live cluster, list by list.
//!
//! Room      `lastkey`. What to ask for is `checks::snapshot::live`; who answers is `kube`.
//! Holds     Nothing but lists and metrics is read, of Secrets their metadata alone. What the API
//!           server does not give is told in the snapshot; only a cluster that cannot be
//!           reached, or does not know the caller, ends the check.

use std::path::Path;

use lastkey_checks::snapshot::{
    Snapshot,
    live::{CONSTRAINTS, LISTS, List, METRICS, METRICS_CHECKS},
};
use lastkey_connect::guard::OutboundError;
use lastkey_kube::{Cluster, Form, KubeError};
use serde_json::Value;

use crate::cli::{
    failure::{Failure, printable},
    kubernetes::{self, refused},
    progress::CountProgress,
};

/// Reads what the checks look at.
///
/// # Errors
/// [`Failure::Usage`] for a kubeconfig that cannot be used, [`Failure::Remote`] when the API
/// server cannot be reached or does not take the credential.
pub(super) async fn read(
    kubeconfig: &Path,
    context: Option<&str>,
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    let cluster = kubernetes::connect(kubeconfig, context, None)?;
    let progress = CountProgress::new("asking the cluster", LISTS.len() as u64);
    // Everybody with a credential may read this.
    if let Err(error) = cluster.document("/version").await
        && !is_no(&error)
    {
        return Err(refused(&error));
    }
    snapshot.origin.live = true;
    for list in LISTS {
        take(&cluster, list, list.path, snapshot).await?;
        progress.advance();
    }
    constraints(&cluster, snapshot).await?;
    match cluster.document(METRICS).await {
        Ok(text) => snapshot.metrics = Some(String::from_utf8_lossy(&text).into_owned()),
        Err(error) => withheld(METRICS, &error, METRICS_CHECKS, snapshot)?,
    }
    Ok(())
}

async fn take(
    cluster: &Cluster,
    list: &List,
    path: &str,
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    let form = if list.is_whole { Form::Whole } else { Form::Metadata };
    let outcome = cluster.each_page(path, form, &mut |page| snapshot.add_listed(list, page)).await;
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if list.is_optional && error.is_not_found() => Ok(()),
        Err(error) => withheld(path, &error, list.checks, snapshot),
    }
}

/// Each kind of constraint is a resource of its own.
async fn constraints(cluster: &Cluster, snapshot: &mut Snapshot) -> Result<(), Failure> {
    let group = match cluster.get(CONSTRAINTS.path, Form::Whole).await {
        Ok(group) => group,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return withheld(CONSTRAINTS.path, &error, CONSTRAINTS.checks, snapshot),
    };
    let resources = group.get("resources").and_then(Value::as_array);
    let names = resources.into_iter().flatten().filter_map(|one| one.get("name")?.as_str());
    for name in names.filter(|name| !name.contains('/')) {
        let path = format!("{}/{name}", CONSTRAINTS.path);
        take(cluster, CONSTRAINTS, &path, snapshot).await?;
    }
    Ok(())
}

/// Whether it is a refusal of this one thing.
fn is_no(error: &KubeError) -> bool {
    match error {
        KubeError::Refused { status, .. } => *status != 401,
        KubeError::Outbound(OutboundError::TooLong(..))
        | KubeError::Malformed
        | KubeError::Expired
        | KubeError::TooMany => true,
        KubeError::File(..) | KubeError::Kubeconfig(_) | KubeError::Outbound(_) => false,
    }
}

/// Remembers a refusal; passes on what ends the check.
fn withheld(
    path: &str,
    error: &KubeError,
    checks: &'static [&'static str],
    snapshot: &mut Snapshot,
) -> Result<(), Failure> {
    if !is_no(error) {
        return Err(refused(error));
    }
    snapshot.withhold(path, printable(&error.to_string()), checks);
    Ok(())
}
