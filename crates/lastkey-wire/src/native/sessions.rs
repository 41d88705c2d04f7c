//! Sessions: a token of somebody else for a temporary credential of ours, and its early end.
//!
//! Room      `wire`.
//! Source    RFC 8693 for the names of fields in the exchange.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretText;

/// What may be exchanged (RFC 8693, section 3).
pub const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// `POST /v1/sts/token`. Needs no other credential.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// `urn:ietf:params:oauth:grant-type:token-exchange`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    /// The token: of a ServiceAccount, or of another provider that is known here.
    pub subject_token: SecretText,
    /// `urn:ietf:params:oauth:token-type:jwt`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token_type: Option<String>,
    /// The role to open a session for. It says whose tokens are looked at.
    pub role: String,
    /// How long, in seconds, 60 to what the role allows; 900 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// A policy in Cedar that only takes away, at most 2,048 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// With an ID token: the nonce of the login that it came from, which it has to carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<SecretText>,
}

/// `POST /v1/sts/certificate`: a session for the workload whose certificate (X.509-SVID) is on the
/// connection. It is good on connections with that certificate alone, and no longer than it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// The role to open a session for. It says whose certificates are taken.
    pub role: String,
    /// How long, in seconds, 60 to what the role allows; 900 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// A policy in Cedar that only takes away, at most 2,048 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// `POST /v1/sts/provider`: where people of a provider log in.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderRequest {
    /// Name of the provider.
    pub provider: String,
}

/// Answer to `POST /v1/sts/provider`. None of it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderReply {
    /// Its issuer: OpenID Connect Discovery says the rest.
    pub issuer: String,
    /// The client to log in as: the first audience that is taken.
    pub client_id: String,
    /// The authority of its servers, in PEM, where it is no public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// `POST /v1/sts/login`: a person's password and one-time code. Needs no other credential.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// His name.
    pub user: String,
    /// His password.
    pub password: SecretText,
    /// The six digits that his authenticator shows; each is good once.
    pub one_time_code: SecretText,
    /// The administrator's role to take, one of his groups; left out to act by his groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How long, in seconds, 60 to 43,200; 900 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    /// A policy in Cedar that only takes away, at most 2,048 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// `POST /v1/sts/enrol`: a person sets password and second factor. Needs no other credential
/// than the code. Without `password` and `one_time_code` it answers the second factor, as often
/// as it is asked; with both it enrols, once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// His name; the first administrator chooses one.
    pub user: String,
    /// The code that he was given.
    pub enrolment_code: SecretText,
    /// The password, 12 to 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// The first six digits, which show that his authenticator works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_code: Option<SecretText>,
}

/// Answer to `POST /v1/sts/enrol`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct EnrolReply {
    /// His name.
    pub user: String,
    /// Whether he is enrolled now.
    pub enrolled: bool,
    /// Before that: his second factor, as authenticators read it, `otpauth://totp/...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otpauth_uri: Option<SecretText>,
    /// After that: his groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// A session: one bearer token, and a triple for clients that sign.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenReply {
    /// The bearer token.
    pub access_token: SecretText,
    /// What it is.
    pub issued_token_type: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds until it ends.
    pub expires_in: u64,
    /// When it ends (RFC 3339, UTC, whole seconds).
    #[schemars(extend("format" = "date-time"))]
    pub expiration: String,
    /// Names the triple; public.
    pub access_key_id: String,
    /// Signs requests, never sent.
    pub secret_access_key: SecretText,
    /// Goes with each signed request.
    pub session_token: SecretText,
    /// Who the holder is.
    pub principal: String,
    /// The role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// `POST /v1/sts/burn`: whoever holds a credential may end it. Needs no other credential.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurnRequest {
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretText>,
    /// Or the name of a triple,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// with its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<SecretText>,
}

/// Answer to `POST /v1/sts/burn`: the same for every credential that could be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BurnReply {
    /// Whether it was ours and is void now.
    pub burned: bool,
}

/// What sessions a revocation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevokeKind {
    /// One session, by its id.
    Session,
    /// Those of a pod, by UID.
    Pod,
    /// Those of a ServiceAccount, as `CLUSTER/NAMESPACE/NAME`.
    ServiceAccount,
    /// Those of a node and of the pods on it.
    Node,
    /// Those of a role.
    Role,
    /// Those of a cluster.
    Cluster,
    /// Those of a person.
    User,
    /// All.
    Everything,
}

/// `POST /v1/sts/revoke`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Which kind.
    pub kind: RevokeKind,
    /// Which one; left out for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A revocation that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationView {
    /// Which kind.
    pub kind: RevokeKind,
    /// Which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Sessions opened at or before this moment are void (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub issued_until: String,
    /// When no such session can be left (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub needed_until: String,
}

/// Answer to `GET /v1/sts/revocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRevocationsReply {
    /// Those in force.
    pub revocations: Vec<RevocationView>,
}

/// Answer to `GET /v1/sts/whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmIReply {
    /// Who calls.
    pub principal: String,
    /// In which role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// In which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Until when (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expiration: Option<String>,
}
