//! Tokens of Kubernetes service accounts: one function, every check.
//!
//! Room      `trust`.
//! Source    Kubernetes enhancements 1205 (bound tokens) and 4193 (node and token id);
//!           RFC 1123 for names.
//! Holds     The cluster is the caller's choice and never the token's: many clusters share one
//!           issuer name. Whether the pod still lives is asked elsewhere.

use core::time::Duration;

use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use serde_json::{Map, Value};

use crate::glob;
use crate::jwks::KeySet;
use crate::jwt::{self, Claims};
use crate::refusal::Refusal;

/// Longest lifetime of a token unless a cluster says less: a day, and the jitter of the kubelet.
pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400 + 3_600);
/// Difference of clocks that is tolerated.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// What is trusted about one cluster. The caller chose it by role or path before it saw a token.
#[derive(Debug)]
pub struct ClusterTrust {
    /// Name of the cluster in our configuration.
    pub cluster: String,
    /// Issuers, compared byte by byte; several while a cluster moves from one to another.
    pub issuers: Vec<String>,
    /// Audiences that mean us. An issuer is never one of them, whatever is written here: by
    /// default it is the audience of the API server.
    pub audiences: Vec<String>,
    /// The keys of this cluster and of no other.
    pub keys: KeySet,
    /// Longest time between `iat` and `exp`.
    pub max_lifetime: Duration,
    /// Difference of clocks that is tolerated.
    pub leeway: Duration,
    /// Whether a token may have audiences beside ours.
    pub allow_other_audiences: bool,
    /// Whether a token may be bound to no pod; a [`ServiceAccountBinding`] has a say of its own.
    pub allow_without_pod: bool,
    /// Whether a token may be bound to a Secret object; it never expires with a pod.
    pub allow_secret_bound: bool,
}

impl ClusterTrust {
    /// Trust with the strict settings: [`MAX_LIFETIME`], [`LEEWAY`], one audience, bound to a pod.
    #[must_use]
    pub fn strict(cluster: String, issuer: String, audience: String, keys: KeySet) -> Self {
        Self {
            cluster,
            issuers: vec![issuer],
            audiences: vec![audience],
            keys,
            max_lifetime: MAX_LIFETIME,
            leeway: LEEWAY,
            allow_other_audiences: false,
            allow_without_pod: false,
            allow_secret_bound: false,
        }
    }
}

/// An object of the cluster by name and by identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Its name, which another object may have later.
    pub name: String,
    /// Its uid, which no other object ever has.
    pub uid: String,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountClaims {
    /// The cluster whose keys verified it.
    pub cluster: String,
    /// Namespace of the service account and of its pod.
    pub namespace: String,
    /// The service account.
    pub service_account: ObjectRef,
    /// The pod it is bound to; always there unless the cluster allows otherwise.
    pub pod: Option<ObjectRef>,
    /// The node of the pod, from Kubernetes 1.32.
    pub node: Option<ObjectRef>,
    /// `jti`, by which the API server's audit log knows the token; from Kubernetes 1.32.
    pub token_id: Option<String>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// Judges a token of one cluster.
///
/// # Errors
/// [`Refusal`]: for the audit log, never for the caller.
pub fn verify(
    token: &SecretVec,
    trust: &ClusterTrust,
    now: Timestamp,
) -> Result<ServiceAccountClaims, Refusal> {
    let claims = jwt::verify(token, &trust.keys)?;
    let issuer = claims.text("iss").ok_or(Refusal::IssuerNotTrusted)?;
    if !trust.issuers.iter().any(|one| one == issuer) {
        return Err(Refusal::IssuerNotTrusted);
    }
    let validity = claims.validity(true)?;
    validity.check(now, trust.max_lifetime, trust.leeway)?;
    check_audience(&claims, trust)?;
    let bound = bound_claims(&claims)?;
    let (namespace, name) = parse_subject(claims.text("sub").ok_or(Refusal::SubjectMalformed)?)?;
    let service_account =
        object(bound, "serviceaccount", is_subdomain)?.ok_or(Refusal::ClaimMissing)?;
    if bound.get("namespace").and_then(Value::as_str) != Some(namespace)
        || service_account.name != name
    {
        return Err(Refusal::SubjectMismatch);
    }
    let pod = object(bound, "pod", is_subdomain)?;
    check_binding(bound, pod.is_some(), trust)?;
    Ok(ServiceAccountClaims {
        cluster: trust.cluster.clone(),
        namespace: namespace.to_owned(),
        service_account,
        pod,
        node: object(bound, "node", is_subdomain)?,
        token_id: token_id(&claims)?,
        issued_at: validity.issued_at,
        expires_at: validity.expires_at,
    })
}

fn check_audience(claims: &Claims, trust: &ClusterTrust) -> Result<(), Refusal> {
    let named = claims.audiences()?;
    if named.iter().any(|one| trust.issuers.iter().any(|issuer| issuer == one)) {
        return Err(Refusal::AudienceForeign);
    }
    claims.check_audience(&trust.audiences, trust.allow_other_audiences)
}

fn bound_claims(claims: &Claims) -> Result<&Map<String, Value>, Refusal> {
    if claims.value("kubernetes.io/serviceaccount/namespace").is_some() {
        return Err(Refusal::LegacyToken);
    }
    claims.value("kubernetes.io").and_then(Value::as_object).ok_or(Refusal::ClaimMissing)
}

fn check_binding(
    bound: &Map<String, Value>,
    has_pod: bool,
    trust: &ClusterTrust,
) -> Result<(), Refusal> {
    let has_secret = bound.contains_key("secret");
    if has_secret && !trust.allow_secret_bound {
        return Err(Refusal::SecretBound);
    }
    if has_pod || has_secret {
        return Ok(());
    }
    // It lives as long as the node object, and would open sessions in the name of that node.
    if bound.contains_key("node") {
        return Err(Refusal::NodeBound);
    }
    if trust.allow_without_pod { Ok(()) } else { Err(Refusal::PodMissing) }
}

/// `system:serviceaccount:NAMESPACE:NAME`, exactly.
fn parse_subject(subject: &str) -> Result<(&str, &str), Refusal> {
    let rest = subject.strip_prefix("system:serviceaccount:").ok_or(Refusal::SubjectMalformed)?;
    let (namespace, name) = rest.split_once(':').ok_or(Refusal::SubjectMalformed)?;
    if is_label(namespace) && is_subdomain(name) {
        Ok((namespace, name))
    } else {
        Err(Refusal::SubjectMalformed)
    }
}

fn object(
    bound: &Map<String, Value>,
    kind: &str,
    is_name: fn(&str) -> bool,
) -> Result<Option<ObjectRef>, Refusal> {
    let Some(value) = bound.get(kind) else {
        return Ok(None);
    };
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    let (Some(name), Some(uid)) = (field("name"), field("uid")) else {
        return Err(Refusal::ClaimMissing);
    };
    if !is_name(name) || !is_uid(uid) {
        return Err(Refusal::SubjectMalformed);
    }
    Ok(Some(ObjectRef { name: name.to_owned(), uid: uid.to_owned() }))
}

fn token_id(claims: &Claims) -> Result<Option<String>, Refusal> {
    let Some(value) = claims.value("jti") else {
        return Ok(None);
    };
    let id = value.as_str().filter(|id| is_uid(id)).ok_or(Refusal::Malformed)?;
    Ok(Some(id.to_owned()))
}

/// A DNS label (RFC 1123): 1 to 63 of `a-z 0-9 -`, no dash at an end.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS subdomain (RFC 1123): labels of any length between dots, 1 to 253 bytes in all.
fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// 1 to 128 of `A-Z a-z 0-9 -`: more than a UUID, nothing that could be taken for syntax.
fn is_uid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Which service accounts of a cluster a role is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountBinding {
    /// Name of the cluster.
    pub cluster: String,
    /// Namespaces, as patterns with `*`.
    pub namespaces: Vec<String>,
    /// Service accounts, as patterns with `*`.
    pub service_accounts: Vec<String>,
    /// Whether the role is also for whoever has a token of the account that is bound to no pod.
    pub allow_without_pod: bool,
}

impl ServiceAccountBinding {
    /// Whether the role is for the bearer of `claims`.
    ///
    /// # Errors
    /// [`Refusal::ClaimMismatch`]; when all else fits, [`Refusal::PodMissing`] without a pod.
    pub fn admit(&self, claims: &ServiceAccountClaims) -> Result<(), Refusal> {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|p| glob::matches(p, text));
        if self.cluster != claims.cluster
            || !any(&self.namespaces, &claims.namespace)
            || !any(&self.service_accounts, &claims.service_account.name)
        {
            return Err(Refusal::ClaimMismatch);
        }
        let is_bound_enough = claims.pod.is_some() || self.allow_without_pod;
        if is_bound_enough { Ok(()) } else { Err(Refusal::PodMissing) }
    }
}
