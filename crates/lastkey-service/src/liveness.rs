//! Whether a pod and its account are still there, as their cluster says.
//!
//! Room      `service`. Who listens to clusters is behind the port `core::outside::Clusters`.
//! Holds     a session is over when its pod or account is known to be gone. Nobody's pod is
//!           believed to be there: what was checked, and what was not, is in the audit log.

use lastkey_core::outside::{Bound, Reviewed, Standing};
use lastkey_core::principal::{Kind, Principal};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use lastkey_trust::session::Workload;

use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::Refused;

impl Engine {
    /// Whether the caller is a pod that is known to be gone.
    pub(crate) fn is_gone(&self, who: &Principal, now: Timestamp) -> bool {
        let (Kind::Workload(one), Some(session)) = (&who.identity().kind, who.session()) else {
            return false;
        };
        let bound = Bound {
            cluster: &one.cluster,
            pod: one.pod.as_ref().map(|pod| pod.uid.as_str()),
            account: &one.service_account_uid,
            since: session.issued_at,
        };
        self.ports.clusters.standing(&bound, now) == Standing::Gone
    }

    /// Asks whether the pod of a token is there, or of one that is bound to none its account; what
    /// was found out, for the log.
    ///
    /// # Errors
    /// [`Refused::Token`] when it is gone or its cluster does not take the token;
    /// [`Error::Unavailable`] when the cluster must be asked and cannot be.
    pub(crate) async fn check_alive(
        &self,
        one: &Workload,
        token: &SecretVec,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<&'static str, Refused> {
        let bound = Bound {
            cluster: &one.cluster,
            pod: one.pod.as_ref().map(|pod| pod.uid.as_str()),
            account: &one.service_account.uid,
            since: now,
        };
        let clusters = &self.ports.clusters;
        let standing = clusters.standing(&bound, now);
        // A token without a pod is on record as one.
        let found = |of_pod, of_account| if one.pod.is_some() { of_pod } else { of_account };
        match standing {
            Standing::There => {
                return Ok(found("the pod is there", "bound to no pod; the account is there"));
            }
            Standing::Gone => return Err(Refused::Token("pod_gone")),
            Standing::NotAsked => {
                return Ok(found(
                    "liveness was not checked: the cluster is not asked",
                    "bound to no pod; liveness was not checked: the cluster is not asked",
                ));
            }
            Standing::WasThere | Standing::Unknown => {}
        }
        match clusters.review(&one.cluster, token, audiences).await {
            Ok(Some(reviewed)) if is_about(&reviewed, one, audiences) => Ok(found(
                "the cluster took the token",
                "bound to no pod; the cluster took the token",
            )),
            Ok(Some(_) | None) => Err(Refused::Token("not_taken_by_cluster")),
            Err(_) if standing == Standing::WasThere => Ok(found(
                "the pod was there when the cluster was last heard",
                "bound to no pod; the account was there when the cluster was last heard",
            )),
            Err(cause) if clusters.is_required(&one.cluster) => {
                Err(Refused::Other(Error::Unavailable(cause)))
            }
            Err(_) => Ok(found(
                "liveness was not checked: the cluster is away",
                "bound to no pod; liveness was not checked: the cluster is away",
            )),
        }
    }
}

/// Whether the cluster speaks of the same pod and account.
fn is_about(reviewed: &Reviewed, one: &Workload, audiences: &[String]) -> bool {
    let name = format!("system:serviceaccount:{}:{}", one.namespace, one.service_account.name);
    let pod = one.pod.as_ref().map(|pod| pod.uid.as_str());
    reviewed.username == name
        && reviewed.account == one.service_account.uid
        && reviewed.pod.as_deref() == pod
        && reviewed.audiences.iter().any(|audience| audiences.contains(audience))
}
