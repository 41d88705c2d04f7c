//! RBA-16: grants to nobody, to what is not there, and to accounts as which nothing runs.
//!
//! Room      `checks`.
//! Holds     What is not among the files may be elsewhere: only a cluster, or files of the same
//!           namespace, tell that something is not there.

use std::collections::BTreeSet;

use crate::{finding::Severity, snapshot::object::Object};

use super::{
    super::{Fault, Judge, World},
    grant::{Grant, Subject},
};

/// ServiceAccounts, by namespace and name.
type Accounts<'a> = BTreeSet<(&'a str, &'a str)>;

/// What is known of ServiceAccounts.
pub(super) struct Known<'a> {
    is_live: bool,
    /// A cluster gave all ServiceAccounts and pods.
    is_whole: bool,
    /// It did not give Secrets.
    lacks_tokens: bool,
    there: Accounts<'a>,
    /// Those as which a pod runs.
    running: Accounts<'a>,
    /// Those that somebody outside may use, by a token that is kept in a Secret.
    with_token: Accounts<'a>,
}

/// Whether something of this namespace is in a set.
fn has_namespace(accounts: &Accounts<'_>, namespace: &str) -> bool {
    accounts.range((namespace, "")..).next().is_some_and(|(own, _)| *own == namespace)
}

impl<'a> Known<'a> {
    pub(super) fn of(world: &World<'a>) -> Self {
        let accounts = world.snapshot.of_kind("ServiceAccount");
        let secrets = world.snapshot.of_kind("Secret");
        let token = |secret: &'a Object| {
            let account = secret.annotation("kubernetes.io/service-account.name")?;
            Some((secret.namespace(), account))
        };
        let (is_live, withheld) = (world.snapshot.origin.live, &world.snapshot.withheld);
        Self {
            is_live,
            is_whole: is_live && !withheld.iter().any(|list| list.checks.contains(&"RBA-16")),
            lacks_tokens: withheld.iter().any(|list| list.subject.contains("/v1/secrets")),
            there: accounts.map(|one| (one.namespace(), one.name.as_str())).collect(),
            running: world
                .pods
                .iter()
                .map(|pod| (pod.object.namespace(), pod.service_account()))
                .collect(),
            with_token: secrets.filter_map(token).collect(),
        }
    }

    fn is_missing(&self, subject: &Subject<'_>) -> bool {
        let knows = self.is_whole || has_namespace(&self.there, subject.namespace);
        knows && !self.there.contains(&(subject.namespace, subject.name))
    }

    /// Controllers of Kubernetes run as accounts of kube-system without a pod.
    fn is_unused(&self, subject: &Subject<'_>) -> bool {
        let account = (subject.namespace, subject.name);
        let knows =
            self.is_whole || !self.is_live && has_namespace(&self.running, subject.namespace);
        knows
            && subject.namespace != "kube-system"
            && self.there.contains(&account)
            && !self.running.contains(&account)
            && !self.with_token.contains(&account)
    }
}

/// Judges a grant.
pub(super) fn judge(known: &Known<'_>, grant: &Grant<'_>, judge: &mut Judge) {
    let Some(binding) = grant.binding else { return };
    let fault = |title: String| {
        Fault::new(binding.subject(), binding.place.clone(), title).fix(grant.unbind())
    };
    if grant.is_unresolved {
        if known.is_live {
            let title = format!("binds {}, which does not exist", grant.role_name);
            judge.fail("RBA-16", fault(title));
        } else {
            let reason = format!("its role {} is not among the files", grant.role_name);
            judge.unknown("RBA-01", binding.subject(), reason);
        }
    }
    if grant.subjects.is_empty() {
        judge.fail("RBA-16", fault("binds nobody".to_owned()));
    }
    for subject in
        grant.subjects.iter().filter(|s| s.kind == "ServiceAccount" && s.name != "default")
    {
        if known.is_missing(subject) {
            judge.fail("RBA-16", fault(format!("grants to {subject}, which does not exist")));
        } else if known.is_unused(subject) && known.lacks_tokens {
            let reason = "no pod runs as it; whether a Secret holds a token of it was not told";
            judge.unknown("RBA-16", subject.to_string(), reason);
        } else if known.is_unused(subject) {
            let title = format!("grants to {subject}, as which nothing runs");
            let unused = fault(title).severity(Severity::Low).evidence(format!(
                "{}; no pod names the account, and no Secret holds a token of it",
                grant.describe()
            ));
            judge.fail("RBA-16", unused);
        }
    }
}
