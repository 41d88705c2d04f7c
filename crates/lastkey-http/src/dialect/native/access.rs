//! Who may come in, and as what: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::access::{Cluster, Policy, Provider, Role, RoleHolders};
use lastkey_core::ids::Name;
use lastkey_core::secret_item::{SecretName, SecretPath};
use lastkey_core::time::Timestamp;
use lastkey_service::ops::ask_policy::{About, Answer, WhoCan, Whose};
use lastkey_service::ops::fetch_keys::KeysFrom;
use lastkey_service::ops::replay_policy::{ChangedCall, PolicyOf, Rewritten};
use lastkey_service::ops::set_access::{
    ClusterRequest, ProviderRequest, RoleRequest, key_ids, kubelet_fingerprints, provider_keys,
};
use lastkey_wire::native::Empty;
use lastkey_wire::native::access::{
    CanReply, CanRequest, ClusterView, ListClustersReply, ListPoliciesReply, ListProvidersReply,
    ListRolesReply, PolicyView, ProviderView, ReplayReply, ReplayRequest, ReplayedCall, RoleView,
    SetClusterRequest, SetPolicyRequest, SetProviderRequest, SetRoleRequest, WhoCanAnswer,
    WhoCanReply, WhoCanRequest,
};
use lastkey_wire::native::query::{DryRunQuery, PageQuery};

use super::decode::{Ask, RequestBody, context, key, page_len, parse};
use super::encode::rfc3339;
use super::nodes::fingerprint;
use crate::problem::{Problem, Syntax};

impl RequestBody for SetClusterRequest {}
impl RequestBody for SetProviderRequest {}
impl RequestBody for SetRoleRequest {}
impl RequestBody for SetPolicyRequest {}
impl RequestBody for CanRequest {}
impl RequestBody for WhoCanRequest {}
impl RequestBody for ReplayRequest {}

/// A name of a field.
///
/// # Errors
/// [`Syntax`].
pub(super) fn name(field: &str, text: &str) -> Result<Name, Syntax> {
    parse(field, text, Name::parse)
}

/// Where a page begins, and how long it is.
///
/// # Errors
/// [`Syntax`].
pub(super) fn page(query: &PageQuery) -> Result<(Option<Name>, usize), Syntax> {
    let after = query.marker.as_deref().map(|marker| name("marker", marker)).transpose()?;
    Ok((after, page_len(query.limit)?))
}

/// Where the next page begins, if there is one.
pub(super) fn marker(last: Option<&String>, more: bool) -> Option<String> {
    last.filter(|_| more).cloned()
}

fn cluster_view(cluster: Cluster) -> ClusterView {
    let kubelet_authorities = kubelet_fingerprints(&cluster).iter().map(fingerprint).collect();
    ClusterView {
        name: cluster.name.to_string(),
        issuers: cluster.issuers,
        audiences: cluster.audiences,
        key_ids: key_ids(&cluster.keys.jwks),
        jwks_url: cluster.keys.url,
        max_token_seconds: cluster.max_token_secs,
        kubelet_authorities,
        created_at: rfc3339(cluster.created_at),
    }
}

/// Where a key set comes from: it is given, or it is published.
fn keys_from(
    jwks: Option<String>,
    url: Option<String>,
    authority: Option<String>,
) -> Result<KeysFrom, Syntax> {
    match (jwks, url, authority) {
        (Some(jwks), None, None) => Ok(KeysFrom::Given(jwks)),
        (None, url, authority) => Ok(KeysFrom::Published { url, authority }),
        (Some(_), _, _) => {
            Err(Syntax::field("jwks", "expected `jwks` alone, or `jwks_url` and `jwks_ca`"))
        }
    }
}

/// `PUT /v1/sys/clusters/{name}`
pub(super) async fn set_cluster(
    ask: &Ask,
    body: SetClusterRequest,
) -> Result<ClusterView, Problem> {
    let request = ClusterRequest {
        issuers: body.issuers,
        audiences: body.audiences,
        keys: keys_from(body.jwks, body.jwks_url, body.jwks_ca)?,
        max_token_secs: body.max_token_seconds,
        kubelet_authorities: body.kubelet_ca,
    };
    Ok(cluster_view(ask.engine().set_cluster(ask.call(), ask.name()?, request).await?))
}

/// `GET /v1/sys/clusters/{name}`
pub(super) async fn describe_cluster(ask: &Ask, _: DryRunQuery) -> Result<ClusterView, Problem> {
    Ok(cluster_view(ask.engine().read_named::<Cluster>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/sys/clusters/{name}`
pub(super) async fn remove_cluster(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_named::<Cluster>(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/sys/clusters`
pub(super) async fn list_clusters(
    ask: &Ask,
    query: PageQuery,
) -> Result<ListClustersReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Cluster>(ask.call(), after, limit).await?;
    let clusters: Vec<_> = page.items.into_iter().map(cluster_view).collect();
    let next_marker = marker(clusters.last().map(|last| &last.name), page.more);
    Ok(ListClustersReply { clusters, next_marker })
}

fn provider_view(provider: Provider) -> ProviderView {
    let (key_ids, authorities) = provider_keys(&provider);
    ProviderView {
        name: provider.name.to_string(),
        issuer: Some(provider.issuer).filter(|issuer| !issuer.is_empty()),
        audiences: provider.audiences,
        trust_domain: provider.trust_domain,
        authorities: authorities.iter().map(fingerprint).collect(),
        key_ids,
        jwks_url: provider.keys.url,
        subject_claim: provider.subject_claim,
        groups_claim: provider.groups_claim,
        created_at: rfc3339(provider.created_at),
    }
}

/// `PUT /v1/iam/providers/{name}`
pub(super) async fn set_provider(
    ask: &Ask,
    body: SetProviderRequest,
) -> Result<ProviderView, Problem> {
    let request = ProviderRequest {
        issuer: body.issuer,
        audiences: body.audiences,
        trust_domain: body.trust_domain,
        keys: keys_from(body.jwks, body.jwks_url, body.jwks_ca)?,
        subject_claim: body.subject_claim,
        groups_claim: body.groups_claim,
    };
    Ok(provider_view(ask.engine().set_provider(ask.call(), ask.name()?, request).await?))
}

/// `GET /v1/iam/providers/{name}`
pub(super) async fn describe_provider(ask: &Ask, _: DryRunQuery) -> Result<ProviderView, Problem> {
    Ok(provider_view(ask.engine().read_named::<Provider>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/iam/providers/{name}`
pub(super) async fn remove_provider(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_named::<Provider>(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/iam/providers`
pub(super) async fn list_providers(
    ask: &Ask,
    query: PageQuery,
) -> Result<ListProvidersReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Provider>(ask.call(), after, limit).await?;
    let providers: Vec<_> = page.items.into_iter().map(provider_view).collect();
    let next_marker = marker(providers.last().map(|last| &last.name), page.more);
    Ok(ListProvidersReply { providers, next_marker })
}

fn role_view(role: Role) -> RoleView {
    let mut view = RoleView {
        name: role.name.to_string(),
        cluster: None,
        namespaces: Vec::new(),
        service_accounts: Vec::new(),
        provider: None,
        claims: None,
        spiffe_ids: Vec::new(),
        policy: role.policy,
        policy_version: role.policy_version,
        max_session_seconds: role.max_session_secs,
        by_node_agent: role.by_node_agent,
        allow_without_pod: false,
        created_at: rfc3339(role.created_at),
    };
    match role.holders {
        RoleHolders::ServiceAccounts {
            cluster,
            namespaces,
            service_accounts,
            allow_without_pod,
        } => {
            view.cluster = Some(cluster.to_string());
            (view.namespaces, view.service_accounts) = (namespaces, service_accounts);
            view.allow_without_pod = allow_without_pod;
        }
        RoleHolders::Claims { provider, claims } => {
            view.provider = Some(provider.to_string());
            view.claims = Some(claims.into_iter().collect());
        }
        RoleHolders::Spiffe { provider, ids } => {
            view.provider = Some(provider.to_string());
            view.spiffe_ids = ids;
        }
    }
    view
}

fn holders(body: &SetRoleRequest) -> Result<RoleHolders, Syntax> {
    let of_provider = body.claims.is_some() || !body.spiffe_ids.is_empty();
    let of_cluster =
        !body.namespaces.is_empty() || !body.service_accounts.is_empty() || body.allow_without_pod;
    match (&body.cluster, &body.provider) {
        (Some(cluster), None) if !of_provider => Ok(RoleHolders::ServiceAccounts {
            cluster: name("cluster", cluster)?,
            namespaces: body.namespaces.clone(),
            service_accounts: body.service_accounts.clone(),
            allow_without_pod: body.allow_without_pod,
        }),
        (None, Some(provider)) if !of_cluster && body.spiffe_ids.is_empty() => {
            Ok(RoleHolders::Claims {
                provider: name("provider", provider)?,
                claims: body.claims.clone().unwrap_or_default().0.into_iter().collect(),
            })
        }
        (None, Some(provider)) if !of_cluster && body.claims.is_none() => Ok(RoleHolders::Spiffe {
            provider: name("provider", provider)?,
            ids: body.spiffe_ids.clone(),
        }),
        _neither_or_mixed => Err(Syntax::field(
            "cluster",
            "expected `cluster`, `namespaces` and `service_accounts`, or `provider` and either \
             `claims` or `spiffe_ids`",
        )),
    }
}

/// `PUT /v1/iam/roles/{name}`
pub(super) async fn set_role(ask: &Ask, body: SetRoleRequest) -> Result<RoleView, Problem> {
    let request = RoleRequest {
        holders: holders(&body)?,
        policy: body.policy,
        max_session_secs: body.max_session_seconds,
        by_node_agent: body.by_node_agent,
    };
    Ok(role_view(ask.engine().set_role(ask.call(), ask.name()?, request).await?))
}

/// `GET /v1/iam/roles/{name}`
pub(super) async fn describe_role(ask: &Ask, _: DryRunQuery) -> Result<RoleView, Problem> {
    Ok(role_view(ask.engine().read_named::<Role>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/iam/roles/{name}`
pub(super) async fn remove_role(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_named::<Role>(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/iam/roles`
pub(super) async fn list_roles(ask: &Ask, query: PageQuery) -> Result<ListRolesReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Role>(ask.call(), after, limit).await?;
    let roles: Vec<_> = page.items.into_iter().map(role_view).collect();
    let next_marker = marker(roles.last().map(|last| &last.name), page.more);
    Ok(ListRolesReply { roles, next_marker })
}

fn policy_view(policy: Policy) -> PolicyView {
    PolicyView {
        name: policy.name.to_string(),
        text: policy.text,
        version: policy.version,
        changed_at: rfc3339(policy.changed_at),
        changed_by: policy.changed_by,
    }
}

/// `PUT /v1/iam/policies/{name}`
pub(super) async fn set_policy(ask: &Ask, body: SetPolicyRequest) -> Result<PolicyView, Problem> {
    let SetPolicyRequest { text, expected_version } = body;
    let set = ask.engine().set_policy(ask.call(), ask.name()?, text, expected_version);
    Ok(policy_view(set.await?))
}

/// `GET /v1/iam/policies/{name}`
pub(super) async fn describe_policy(ask: &Ask, _: DryRunQuery) -> Result<PolicyView, Problem> {
    Ok(policy_view(ask.engine().read_named::<Policy>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/iam/policies/{name}`
pub(super) async fn remove_policy(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_policy(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/iam/policies`
pub(super) async fn list_policies(
    ask: &Ask,
    query: PageQuery,
) -> Result<ListPoliciesReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Policy>(ask.call(), after, limit).await?;
    let policies: Vec<_> = page.items.into_iter().map(policy_view).collect();
    let next_marker = marker(policies.last().map(|last| &last.name), page.more);
    Ok(ListPoliciesReply { policies, next_marker })
}

/// `GET /v1/iam/policies/{name}/versions`
pub(super) async fn policy_versions(
    ask: &Ask,
    _: DryRunQuery,
) -> Result<ListPoliciesReply, Problem> {
    let versions = ask.engine().policy_versions(ask.call(), &ask.name()?).await?;
    let policies = versions.into_iter().map(policy_view).collect();
    Ok(ListPoliciesReply { policies, next_marker: None })
}

/// What a question is about.
fn about(key_text: Option<&str>, secret: Option<&str>) -> Result<About, Syntax> {
    match (key_text, secret) {
        (None, None) => Ok(About::Instance),
        (Some(text), None) => key("key", text).map(About::Key),
        (None, Some(path)) if path.ends_with('/') => {
            parse("secret", path, SecretPath::parse).map(About::SecretPath)
        }
        (None, Some(name)) => parse("secret", name, SecretName::parse).map(About::Secret),
        (Some(_), Some(_)) => Err(Syntax::field("secret", "expected `key` or `secret`, not both")),
    }
}

/// `POST /v1/iam/can`
pub(super) async fn can(ask: &Ask, body: CanRequest) -> Result<CanReply, Problem> {
    let whose = Whose { principal: body.principal, role: body.role, groups: body.groups };
    let about = about(body.key.as_deref(), body.secret.as_deref())?;
    let context = context("context", body.context.as_ref(), None)?;
    let verdict = ask.engine().can(ask.call(), whose, &body.action, about, context).await?;
    Ok(CanReply { allowed: verdict.allowed, why: verdict.why })
}

/// `POST /v1/iam/who-can`
pub(super) async fn who_can(ask: &Ask, body: WhoCanRequest) -> Result<WhoCanReply, Problem> {
    let about = about(body.key.as_deref(), body.secret.as_deref())?;
    let asked = ask.engine().who_can(ask.call(), &body.action, about);
    let (WhoCan { may, may_not }, by_kubernetes) = asked.await?;
    let told =
        |answers: Vec<Answer>| {
            let each = answers.into_iter().map(|Answer { policy, who, conditions, .. }| {
                WhoCanAnswer { principal: who, conditions, policy }
            });
            each.collect()
        };
    Ok(WhoCanReply { may: told(may), may_not: told(may_not), by_kubernetes })
}

/// `POST /v1/iam/replay`
pub(super) async fn replay(ask: &Ask, body: ReplayRequest) -> Result<ReplayReply, Problem> {
    let of = match (&body.policy, &body.role, &body.text) {
        (Some(policy), None, _) => PolicyOf::Policy(name("policy", policy)?),
        (None, Some(role), Some(_)) => PolicyOf::Role(name("role", role)?),
        (None | Some(_), _, _) => {
            let message = "expected `policy`, or `role` and `text`";
            return Err(Syntax::field("policy", message).into());
        }
    };
    let rewritten = Rewritten { of, text: body.text, days: body.days.unwrap_or(USUAL_DAYS) };
    let replayed = ask.engine().replay_policy(ask.call(), rewritten).await?;
    Ok(ReplayReply {
        calls: replayed.calls as u64,
        not_judged: replayed.unjudged as u64,
        would_refuse: replayed.refused as u64,
        would_allow: replayed.allowed as u64,
        changes: replayed.changes.into_iter().map(replayed_call).collect(),
        cut: replayed.is_cut,
    })
}

/// How far a dry run goes back when nobody says, in days.
const USUAL_DAYS: u64 = 7;

fn replayed_call(changed: ChangedCall) -> ReplayedCall {
    let record = &changed.entry.record;
    let text = |name| record.text(name).unwrap_or_default().to_owned();
    ReplayedCall {
        index: changed.entry.index,
        at: rfc3339(Timestamp(record.number("at").unwrap_or_default())),
        request: text("request"),
        who: text("who"),
        action: text("action"),
        key: record.text("key").map(str::to_owned),
        would_allow: changed.allowed,
        why: changed.why,
    }
}
