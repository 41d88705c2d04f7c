//! Who may come in, and as what: clusters, providers, roles, policies, and questions about them.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;
use crate::StringMap;

/// `PUT /v1/sys/clusters/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetClusterRequest {
    /// What `iss` may be, compared byte by byte; several during a change of issuer.
    pub issuers: Vec<String>,
    /// What `aud` must be; `lastkey://` and the id of the installation when it is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The cluster's key set (RFC 7517), as text. `kubectl get --raw /openid/v1/jwks` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Instead of `jwks`: where it is published. Without either, it is asked for where the issuer
    /// says (OpenID Connect Discovery), or at the API server of a cluster that this server watches. It is fetched again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// With a key set that is fetched: the authority of the server there, in PEM; those of the
    /// machine when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_ca: Option<String>,
    /// Longest lifetime of a token that is taken, in seconds: 600 to 90,000; a day when it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_seconds: Option<u64>,
    /// The authorities that sign for its kubelets, in PEM: its nodes may join by their certificates
    /// then, without a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_ca: Option<String>,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// What `iss` may be.
    pub issuers: Vec<String>,
    /// What `aud` must be.
    pub audiences: Vec<String>,
    /// Ids of the keys that its tokens may be signed by.
    pub key_ids: Vec<String>,
    /// Where they are fetched from again; left out when they are given by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Longest lifetime of a token that is taken, in seconds.
    pub max_token_seconds: u64,
    /// The authorities of its kubelets: SHA-256 of each certificate, as `sha256:` and hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kubelet_authorities: Vec<String>,
    /// When it was named first (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/sys/clusters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListClustersReply {
    /// One page, sorted by name.
    pub clusters: Vec<ClusterView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// `PUT /v1/iam/providers/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetProviderRequest {
    /// What `iss` must be, byte by byte; left out for a trust domain that signs no tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What `aud` must be, one of these; left out together with `issuer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The SPIFFE trust domain that it speaks for. Certificates of its workloads are taken then, and
    /// its key set is a bundle: JSON as SPIFFE has it, or certificates in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// The provider's key set (RFC 7517), as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Instead of `jwks`: where it is published. Without either, it is asked for where the issuer
    /// says (OpenID Connect Discovery). It is fetched again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// With a key set that is fetched: the authority of the server there, in PEM; those of the
    /// machine when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_ca: Option<String>,
    /// The claim that names the subject; `sub` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_claim: Option<String>,
    /// The claim that lists the subject's groups; `groups` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
}

/// Another provider of identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// What `iss` must be; left out when it signs no tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What `aud` must be.
    pub audiences: Vec<String>,
    /// The SPIFFE trust domain that it speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Its authorities: SHA-256 of each certificate, as `sha256:` and hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// Ids of the keys that its tokens may be signed by.
    pub key_ids: Vec<String>,
    /// Where they are fetched from again; left out when they are given by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The claim that names the subject.
    pub subject_claim: String,
    /// The claim that lists the subject's groups.
    pub groups_claim: String,
    /// When it was named first (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/iam/providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListProvidersReply {
    /// One page, sorted by name.
    pub providers: Vec<ProviderView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// `PUT /v1/iam/roles/{name}`: for ServiceAccounts of a cluster, or for subjects of a provider.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRoleRequest {
    /// The cluster whose ServiceAccounts may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// With `cluster`: namespaces, `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// With `cluster`: ServiceAccounts, `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// The provider whose subjects may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// With `provider`: claims and the values they must have; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<StringMap>,
    /// Instead of `claims`: SPIFFE ids of the trust domain of `provider`. One that ends with `/*`
    /// stands for all below its path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spiffe_ids: Vec<String>,
    /// What it may do, in Cedar.
    pub policy: String,
    /// Longest session in seconds, 60 to 43,200; an hour when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_seconds: Option<u64>,
    /// Good only when a node agent on the pod's own node presents it.
    #[serde(default, skip_serializing_if = "is_off")]
    pub by_node_agent: bool,
    /// With `cluster`: tokens that are bound to no pod count as well, such as those that a controller
    /// asks for.
    #[serde(default, skip_serializing_if = "is_off")]
    pub allow_without_pod: bool,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleView {
    /// Its name.
    pub name: String,
    /// The cluster whose ServiceAccounts may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Namespaces of that cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// ServiceAccounts of that cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// The provider whose subjects may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Claims and values that those subjects must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<StringMap>,
    /// SPIFFE ids that those subjects must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spiffe_ids: Vec<String>,
    /// What it may do, in Cedar.
    pub policy: String,
    /// How often the policy was written.
    pub policy_version: u32,
    /// Longest session in seconds.
    pub max_session_seconds: u64,
    /// Good only when a node agent on the pod's own node presents it.
    pub by_node_agent: bool,
    /// Tokens that are bound to no pod count as well.
    #[serde(default, skip_serializing_if = "is_off")]
    pub allow_without_pod: bool,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/iam/roles`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRolesReply {
    /// One page, sorted by name.
    pub roles: Vec<RoleView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// `PUT /v1/iam/policies/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPolicyRequest {
    /// The policy, in Cedar, at most 32,768 bytes.
    pub text: String,
    /// Write only if the policy has this version now (0: only if there is none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u32>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyView {
    /// Its name.
    pub name: String,
    /// Its text, in Cedar.
    pub text: String,
    /// How often it was written.
    pub version: u32,
    /// When (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub changed_at: String,
    /// By whom.
    pub changed_by: String,
}

/// Answer to `GET /v1/iam/policies` and `GET /v1/iam/policies/{name}/versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListPoliciesReply {
    /// One page, sorted by name, or by version.
    pub policies: Vec<PolicyView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// `POST /v1/iam/can`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanRequest {
    /// Whose rights: `k8s:CLUSTER/NAMESPACE/NAME`, `user:NAME`, `node:NAME`,
    /// `oidc:PROVIDER/SUBJECT`, `spiffe://TRUST-DOMAIN/PATH`; the caller's own when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The role he acts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Groups he is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The action, such as `kms:Decrypt`.
    pub action: String,
    /// The key, by id or alias; the installation as a whole when this and `secret` are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The secret, by name; a path of secrets when it ends with `/`. Never together with `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // secrets: allow, the name of one
    pub secret: Option<String>,
    /// The encryption context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
}

/// Answer to `POST /v1/iam/can`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CanReply {
    /// Yes or no.
    pub allowed: bool,
    /// Which policies decided, or what came nearest, in words.
    pub why: Vec<String>,
}

/// `POST /v1/iam/replay`: what a policy would have said to the calls of the last days.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Name of the policy that would be written or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Instead of `policy`: the role whose policy would be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The text, in Cedar; left out to remove the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many days back, 1 to 366; 7 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u64>,
}

/// A call that would have been decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayedCall {
    /// Number of its record in the audit log.
    pub index: u64,
    /// When (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// Its request id.
    pub request: String,
    /// Who called.
    pub who: String,
    /// What he did, or was refused.
    pub action: String,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What would be decided; it was the contrary.
    pub would_allow: bool,
    /// By which policies, in words.
    pub why: String,
}

/// Answer to `POST /v1/iam/replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayReply {
    /// Calls that were looked at.
    pub calls: u64,
    /// Of those, calls that cannot be decided again from what the log has.
    pub not_judged: u64,
    /// Calls that would have been refused.
    pub would_refuse: u64,
    /// Calls that would have been allowed.
    pub would_allow: u64,
    /// The newest of them, at most 100.
    pub changes: Vec<ReplayedCall>,
    /// Whether older calls were not looked at.
    pub cut: bool,
}

/// `POST /v1/iam/who-can`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoCanRequest {
    /// The action, such as `kms:Decrypt`.
    pub action: String,
    /// The key, by id or alias; the installation as a whole when this and `secret` are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The secret, by name; a path of secrets when it ends with `/`. Never together with `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // secrets: allow, the name of one
    pub secret: Option<String>,
}

/// Answer to `POST /v1/iam/who-can`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoCanReply {
    /// Those whom a policy permits it.
    pub may: Vec<WhoCanAnswer>,
    /// Those whom a policy forbids it, permitted or not.
    pub may_not: Vec<WhoCanAnswer>,
    /// Who can become one of those in `may` by what he may do in a Kubernetes cluster, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_kubernetes: Vec<String>,
}

/// One way to be allowed, or forbidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoCanAnswer {
    /// Who, in words.
    pub principal: String,
    /// Under which conditions, in words; empty when there are none.
    pub conditions: Vec<String>,
    /// The policy.
    pub policy: String,
}
