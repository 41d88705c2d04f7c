//! Use case: who holds which version of a secret.
//!
//! Room      `service`. What nodes say comes with their watch; here it is judged and asked for.
//! Holds     Only the agent of a node says who on it holds what, of secrets for which policy lets
//!           it. Each pod that has come to hold a version is a record in the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastkey_core::ids::{Name, VersionNo};
use lastkey_core::permit::{DescribeSecret, ReportHolders, Why};
use lastkey_core::principal::Kind;
use lastkey_core::secret_item::SecretName;

use super::target;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::holders::{Consumers, Holder, MAX_HOLDERS, Statement};

/// Names of pods in one record.
const PODS_TOLD: usize = 20;

impl Engine {
    /// Everybody who holds a version of a secret.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn secret_consumers(
        &self,
        call: &Call,
        name: &SecretName,
    ) -> Result<Consumers, Error> {
        let mut trail = Trail::of::<DescribeSecret>(self, call);
        trail.target = Some(target(name, None));
        let outcome = self.try_secret_consumers(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_secret_consumers(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<Consumers, Error> {
        self.permit_secret::<DescribeSecret>(trail, name).await?;
        trail.call().go_on()?;
        Ok(self.holders_of(name))
    }

    /// The same for the server itself: a rotation waits until nobody holds the old version.
    pub(crate) fn holders_of(&self, name: &SecretName) -> Consumers {
        self.holders.of(name, |node| self.nodes.get(node).map(|node| node.cluster))
    }

    /// Takes over what the agent of a node says; whether it was understood.
    ///
    /// # Errors
    /// [`Error::Denied`] for anybody else; [`Error::Invalid`] for more than 8,192 holders;
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(super) async fn hear_holders(
        &self,
        call: &Call,
        mut statement: Statement,
    ) -> Result<bool, Error> {
        let node = node_of(call).ok_or(Error::Denied)?;
        if let Some(holders) = &mut statement.holders {
            if holders.len() > MAX_HOLDERS {
                return Err(Error::invalid("holders", "a node names at most 8192 holders"));
            }
            self.keep_permitted(call, holders).await?;
        }
        let Some(news) = self.holders.news(&node, &statement) else { return Ok(false) };
        let mut by_version: BTreeMap<(SecretName, VersionNo), Vec<Holder>> = BTreeMap::new();
        for holder in news {
            by_version.entry((holder.secret.clone(), holder.version)).or_default().push(holder);
        }
        for ((secret, version), holders) in by_version {
            let mut trail = Trail::of::<ReportHolders>(self, call);
            trail.target = Some(target(&secret, Some(version)));
            trail.reason = Why::Named(sentence(&holders));
            trail.close(self, Ok(())).await?;
        }
        // What could not be recorded is news again next time.
        self.holders.hear(&node, statement, self.clock.wall());
        Ok(true)
    }

    /// Leaves those out of whose secrets the node may not speak.
    async fn keep_permitted(&self, call: &Call, holders: &mut Vec<Holder>) -> Result<(), Error> {
        let mut permitted = BTreeMap::new();
        for holder in &*holders {
            if permitted.contains_key(&holder.secret) {
                continue;
            }
            let mut trail = Trail::of::<ReportHolders>(self, call);
            let permit = self.permit_secret::<ReportHolders>(&mut trail, &holder.secret).await;
            let is_permitted = match permit {
                Ok(_) => true,
                Err(Error::Denied) => false,
                Err(error) => return Err(error),
            };
            permitted.insert(holder.secret.clone(), is_permitted);
        }
        holders.retain(|holder| permitted.get(&holder.secret) == Some(&true));
        Ok(())
    }
}

/// The node whose agent calls in its own name.
pub(super) fn node_of(call: &Call) -> Option<Name> {
    let who = &call.caller.principal;
    match who.identity().kind {
        Kind::Node => Name::parse(who.name().strip_prefix("node:")?).ok(),
        Kind::System | Kind::Workload(_) | Kind::User | Kind::Federated { .. } => None,
    }
}

fn sentence(holders: &[Holder]) -> Arc<str> {
    let shown = holders.iter().take(PODS_TOLD);
    let shown = shown.map(|one| {
        let given = if one.given_in_outage { "; given while no server answered" } else { "" };
        format!("{}/{} ({}{given})", one.namespace, one.pod, one.pod_uid)
    });
    let mut text = format!("held by {}", shown.collect::<Vec<_>>().join(", "));
    if holders.len() > PODS_TOLD {
        text.push_str(&format!(" and {} more", holders.len() - PODS_TOLD));
    }
    text.into()
}
