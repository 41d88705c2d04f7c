//! Use cases: who may come in, and as what, is written down.
//!
//! Room      `service`.
//! Holds     what is written was read before: key sets parse, policies compile, a role is for a
//!           cluster or provider that there is.

use std::sync::Arc;

use lastkey_core::access::{
    Cluster, DEFAULT_TOKEN_SECS, MAX_JWKS_LEN, MAX_POLICY_LEN, MAX_SESSION_SECS, MIN_SESSION_SECS,
    Policy, Provider, Role, RoleHolders, TokenKeys,
};
use lastkey_core::ids::Name;
use lastkey_core::permit::{ReadPolicies, Resource, ResourceKind};
use lastkey_core::ports::{Expected, StoreError, Write};
use lastkey_core::principal::SPIFFE;
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_policy::{AUDIT_ADMINISTRATOR, SECURITY_ADMINISTRATOR, SYSTEM_ADMINISTRATOR};
use lastkey_trust::jwks::KeySet;
use lastkey_trust::svid::{Bundle, is_trust_domain};
use lastkey_trust::x509::fingerprint;

use crate::access::kubelet_authorities;
use crate::audited::Trail;
use crate::authenticate::LOCAL_USERS;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::fetch_keys::KeysFrom;
use crate::ops::named::{Named, Planned};

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct ClusterRequest {
    /// What `iss` may be.
    pub issuers: Vec<String>,
    /// What `aud` must be; `lastkey://` and the id of the installation when empty.
    pub audiences: Vec<String>,
    /// Its key set.
    pub keys: KeysFrom,
    /// Longest lifetime of a token, in seconds.
    pub max_token_secs: Option<u64>,
    /// The authorities of its kubelets, in PEM.
    pub kubelet_authorities: Option<String>,
}

/// What a provider shall be.
#[derive(Clone, Debug)]
pub struct ProviderRequest {
    /// What `iss` must be; a trust domain need not sign tokens.
    pub issuer: Option<String>,
    /// What `aud` must be.
    pub audiences: Vec<String>,
    /// Its key set; of a trust domain its bundle.
    pub keys: KeysFrom,
    /// The SPIFFE trust domain that it speaks for.
    pub trust_domain: Option<String>,
    /// The claim of the subject.
    pub subject_claim: Option<String>,
    /// The claim of the groups.
    pub groups_claim: Option<String>,
}

/// What a role shall be.
#[derive(Clone, Debug)]
pub struct RoleRequest {
    /// Who may take it.
    pub holders: RoleHolders,
    /// What it may do, in Cedar.
    pub policy: String,
    /// Longest session, in seconds.
    pub max_session_secs: Option<u64>,
    /// Whether only a node agent may present its sessions.
    pub by_node_agent: bool,
}

/// Longest session of a role that says nothing, in seconds.
const USUAL_MAX_SESSION_SECS: u64 = 3_600;

/// Most issuers, audiences, namespaces or accounts in one list.
const MAX_LIST: usize = 64;

/// Longest text in such a list, in bytes.
const MAX_TEXT: usize = 1_024;

impl Engine {
    /// Names a cluster, or changes it.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn set_cluster(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        request: ClusterRequest,
    ) -> Result<Cluster, Error> {
        let ours = format!("lastkey://{}", self.instance);
        check_list("issuers", &request.issuers, 1)?;
        check_list("audiences", &request.audiences, 0)?;
        if request.kubelet_authorities.as_ref().is_some_and(|pem| pem.len() > MAX_JWKS_LEN) {
            let message = format!("expected at most {MAX_JWKS_LEN} bytes");
            return Err(Error::invalid("kubelet_ca", message));
        }
        let max_token_secs = request.max_token_secs.unwrap_or(DEFAULT_TOKEN_SECS);
        if !(600..=90_000).contains(&max_token_secs) {
            return Err(Error::invalid("max_token_seconds", "expected 600 to 90000"));
        }
        let audiences = if request.audiences.is_empty() { vec![ours] } else { request.audiences };
        let issuer = request.issuers.first().map_or("", String::as_str);
        let keys = self.keys_of::<Cluster>(call, &name, request.keys, issuer).await?;
        let named = name.clone();
        let set = self.change_named::<Cluster>(call, name, move |before| {
            let created_at = before.current.map_or(before.now, |cluster| cluster.created_at);
            Ok(Planned::put(Cluster {
                name: named,
                issuers: request.issuers,
                audiences,
                keys,
                max_token_secs,
                created_at,
                kubelet_authorities: request.kubelet_authorities,
            }))
        });
        set.await?.ok_or_else(nothing_written)
    }

    /// Names a provider, or changes it.
    ///
    /// # Errors
    /// As [`Engine::set_cluster`].
    pub async fn set_provider(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        request: ProviderRequest,
    ) -> Result<Provider, Error> {
        // Nobody else may speak for the users of this machine, or for workloads.
        if [LOCAL_USERS, SPIFFE].contains(&name.as_str()) {
            let message = "this name is kept for users on the unix socket, or for SPIFFE ids";
            return Err(Error::invalid("name", message));
        }
        let trust_domain = request.trust_domain;
        self.check_trust_domain(trust_domain.as_deref())?;
        // What signs no tokens has neither issuer nor audience.
        let signs = trust_domain.is_none() || request.issuer.is_some();
        let issuer = request.issuer.unwrap_or_default();
        if signs {
            check_list("issuer", std::slice::from_ref(&issuer), 1)?;
        }
        check_list("audiences", &request.audiences, usize::from(signs))?;
        let subject_claim = request.subject_claim.unwrap_or_else(|| "sub".to_owned());
        let groups_claim = request.groups_claim.unwrap_or_else(|| "groups".to_owned());
        check_list("subject_claim", std::slice::from_ref(&subject_claim), 1)?;
        check_list("groups_claim", std::slice::from_ref(&groups_claim), 1)?;
        let keys = self.keys_of::<Provider>(call, &name, request.keys, &issuer).await?;
        let named = name.clone();
        let set = self.change_named::<Provider>(call, name, move |before| {
            let created_at = before.current.map_or(before.now, |provider| provider.created_at);
            let audiences = request.audiences;
            Ok(Planned::put(Provider {
                name: named,
                issuer,
                audiences,
                keys,
                subject_claim,
                groups_claim,
                created_at,
                trust_domain,
            }))
        });
        set.await?.ok_or_else(nothing_written)
    }

    fn check_trust_domain(&self, name: Option<&str>) -> Result<(), Error> {
        let Some(name) = name else { return Ok(()) };
        if !is_trust_domain(name) {
            let message = "expected 1 to 255 characters of a-z 0-9 . _ -";
            return Err(Error::invalid("trust_domain", message));
        }
        // Nodes have names of it.
        if name == self.instance.to_string() {
            return Err(Error::invalid("trust_domain", "this is the one of this installation"));
        }
        Ok(())
    }

    /// The keys of a cluster or provider. Nothing is fetched for a caller who may not write it
    /// down: he is refused, and recorded, when it comes to that.
    async fn keys_of<T: Named>(
        &self,
        call: &Call,
        name: &Name,
        from: KeysFrom,
        issuer: &str,
    ) -> Result<TokenKeys, Error> {
        let resource = Resource::Named(T::KIND, name.as_str().to_owned());
        let from = match from {
            KeysFrom::Published { .. } if !self.may::<T::Update>(call, resource) => {
                KeysFrom::Given(String::new())
            }
            KeysFrom::Given(_) | KeysFrom::Published { .. } => from,
        };
        let cluster = (T::KIND == ResourceKind::Cluster).then_some(name);
        self.keys_from(from, cluster, issuer).await
    }

    /// Makes a role, or changes it.
    ///
    /// # Errors
    /// As [`Engine::set_cluster`]; [`Error::Invalid`] names line and column of a policy.
    pub async fn set_role(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        request: RoleRequest,
    ) -> Result<Role, Error> {
        // Who takes these is said by the groups of people, and by nothing else.
        if [SYSTEM_ADMINISTRATOR, SECURITY_ADMINISTRATOR, AUDIT_ADMINISTRATOR]
            .contains(&name.as_str())
        {
            return Err(Error::invalid("name", "this name is kept for a role of administrators"));
        }
        check_policy_len(&request.policy)?;
        check_holders(&request.holders, request.by_node_agent)?;
        let max_session_secs = request.max_session_secs.unwrap_or(USUAL_MAX_SESSION_SECS);
        if !(MIN_SESSION_SECS..=MAX_SESSION_SECS).contains(&max_session_secs) {
            return Err(Error::invalid("max_session_seconds", "expected 60 to 43200"));
        }
        let named = name.clone();
        let set = self.change_named::<Role>(call, name, move |before| {
            let created_at = before.current.map_or(before.now, |role| role.created_at);
            let policy_version = match before.current {
                Some(role) if role.policy == request.policy => role.policy_version,
                Some(role) => role.policy_version.saturating_add(1),
                None => 1,
            };
            Ok(Planned::put(Role {
                name: named,
                holders: request.holders,
                policy: request.policy,
                policy_version,
                max_session_secs,
                by_node_agent: request.by_node_agent,
                created_at,
            }))
        });
        set.await?.ok_or_else(nothing_written)
    }

    /// Writes a policy. The text before stays readable as a version, and no version has the number
    /// of another one, also when the policy was removed in between.
    ///
    /// # Errors
    /// As [`Engine::set_role`]; [`Error::Conflict`] when the policy has another version than
    /// `expected_version`.
    pub async fn set_policy(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        text: String,
        expected_version: Option<u32>,
    ) -> Result<Policy, Error> {
        check_policy_len(&text)?;
        let named = name.clone();
        let set = self.change_named::<Policy>(call, name, move |before| {
            let seen = before.current.map_or(0, |policy| policy.version);
            if expected_version.is_some_and(|expected| expected != seen) {
                return Err(Error::Conflict);
            }
            let keeping = before.current.map(|policy| kept(policy, before.kept));
            let last = keeping.as_ref().map_or(before.kept, |policy| policy.version);
            let policy = Policy {
                name: named,
                text,
                version: last.saturating_add(1),
                changed_at: before.now,
                changed_by: before.by.to_owned(),
            };
            Ok(Planned { beside: keep(keeping), ..Planned::put(policy) })
        });
        set.await?.ok_or_else(nothing_written)
    }

    /// Removes a policy; its text stays readable as a version. Nothing happens if there is none.
    ///
    /// # Errors
    /// As [`Engine::remove_named`].
    pub async fn remove_policy(self: &Arc<Self>, call: &Call, name: Name) -> Result<(), Error> {
        let removed = self.change_named::<Policy>(call, name, |before| {
            let keeping = before.current.map(|policy| kept(policy, before.kept));
            Ok(Planned { beside: keep(keeping), ..Planned::remove() })
        });
        removed.await.map(|_| ())
    }

    /// What a policy was before, the oldest first.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn policy_versions(&self, call: &Call, name: &Name) -> Result<Vec<Policy>, Error> {
        let mut trail = Trail::of::<ReadPolicies>(self, call);
        trail.target = Some(format!("policy/{name}"));
        let outcome = self.try_policy_versions(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_policy_versions(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
    ) -> Result<Vec<Policy>, Error> {
        let resource = Resource::Named(ResourceKind::Policy, name.as_str().to_owned());
        self.permit::<ReadPolicies>(trail, resource)?;
        trail.call().go_on()?;
        self.kept_policies(name).await
    }

    async fn kept_policies(&self, name: &Name) -> Result<Vec<Policy>, Error> {
        let kind = format!("policy-version/{name}");
        let stored = self.store.scan(&PathRange::kind(&kind, None, usize::MAX)).await?;
        let each = stored.into_iter().map(|stored| {
            let Record::Policy(policy) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            Ok(policy)
        });
        each.collect()
    }

    /// Version of the newest text of a policy that is kept; 0 when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn newest_kept(&self, name: &Name) -> Result<u32, Error> {
        let kept = self.kept_policies(name).await?;
        Ok(kept.last().map_or(0, |policy| policy.version))
    }

    /// Removes one of the things that administrators name, of which nothing is kept. Nothing
    /// happens if there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] while something needs it; [`Error::Denied`], [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn remove_named<T: Named>(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
    ) -> Result<(), Error> {
        self.change_named::<T>(call, name, |_| Ok(Planned::remove())).await.map(|_| ())
    }
}

/// Ids of the keys in a key set that is known to be one.
#[must_use]
pub fn key_ids(jwks: &str) -> Vec<String> {
    KeySet::parse(jwks.as_bytes()).map(|keys| ids_of(&keys)).unwrap_or_default()
}

/// SHA-256 of the certificates of the authorities of a cluster's kubelets.
#[must_use]
pub fn kubelet_fingerprints(cluster: &Cluster) -> Vec<[u8; 32]> {
    let authorities = kubelet_authorities(cluster).ok().flatten().unwrap_or_default();
    authorities.certificates().map(fingerprint).collect()
}

/// Ids of the keys of a provider, and SHA-256 of the certificates of its authorities.
#[must_use]
pub fn provider_keys(provider: &Provider) -> (Vec<String>, Vec<[u8; 32]>) {
    if provider.trust_domain.is_none() {
        return (key_ids(&provider.keys.jwks), Vec::new());
    }
    let Ok(bundle) = Bundle::parse(&provider.keys.jwks) else { return Default::default() };
    let authorities = bundle.authorities.unwrap_or_default();
    let authorities = authorities.certificates().map(fingerprint).collect();
    (bundle.tokens.as_ref().map(ids_of).unwrap_or_default(), authorities)
}

fn ids_of(keys: &KeySet) -> Vec<String> {
    keys.key_ids().map(str::to_owned).collect()
}

/// A plan that writes something always gives it back.
pub(crate) fn nothing_written() -> Error {
    Error::Internal("a plan wrote nothing".into())
}

/// Whether a list has so many texts, none of them empty or too long.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_list(field: &'static str, list: &[String], least: usize) -> Result<(), Error> {
    let long = list.iter().any(|text| text.is_empty() || text.len() > MAX_TEXT);
    if long || list.len() < least || list.len() > MAX_LIST {
        let message = format!("expected {least} to {MAX_LIST} texts of 1 to {MAX_TEXT} bytes");
        return Err(Error::invalid(field, message));
    }
    Ok(())
}

/// A policy that is replaced or removed, as it is kept. A policy that was removed and made again
/// began at 1 once: its text is kept after those that there are.
fn kept(policy: &Policy, newest: u32) -> Policy {
    Policy { version: policy.version.max(newest.saturating_add(1)), ..policy.clone() }
}

fn keep(policy: Option<Policy>) -> Vec<Write> {
    let write = policy.map(|policy| Write {
        path: RecordPath::policy_version(&policy.name, policy.version),
        expected: Expected::Absent,
        record: Some(Record::Policy(policy)),
    });
    write.into_iter().collect()
}

fn check_policy_len(text: &str) -> Result<(), Error> {
    if text.len() > MAX_POLICY_LEN {
        return Err(Error::invalid(
            "policy",
            format!("a policy has at most {MAX_POLICY_LEN} bytes"),
        ));
    }
    Ok(())
}

fn check_holders(holders: &RoleHolders, by_node_agent: bool) -> Result<(), Error> {
    match holders {
        RoleHolders::ServiceAccounts { allow_without_pod: true, .. } if by_node_agent => {
            let message = "with `by_node_agent` a session is good on the node of its pod alone, and \
                           who has no pod has no node; make a role of its own for them";
            Err(Error::invalid("allow_without_pod", message))
        }
        RoleHolders::ServiceAccounts { namespaces, service_accounts, .. } => {
            check_list("namespaces", namespaces, 1)?;
            check_list("service_accounts", service_accounts, 1)
        }
        RoleHolders::Claims { claims, .. } => {
            let texts: Vec<String> =
                claims.iter().flat_map(|(c, v)| [c.clone(), v.clone()]).collect();
            check_list("claims", &texts, 2)
        }
        RoleHolders::Spiffe { ids, .. } => check_list("spiffe_ids", ids, 1),
    }
}
