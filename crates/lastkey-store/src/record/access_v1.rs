//! Version 1 of the records that say who may come in, and as what.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use std::collections::BTreeMap;

use lastkey_core::access::{
    Cluster, Enrolment, PasswordHash, Policy, Provider, Revocation, RevokedWhat, Role, RoleHolders,
    SessionEpoch, TokenKeys, User,
};
use lastkey_core::ids::Name;
use lastkey_core::time::{Elapsed, Timestamp};
use minicbor::{Decode, Encode};

use super::DecodeError;
use super::v1::WrappedV1;

pub(super) fn name(text: &str) -> Result<Name, DecodeError> {
    Name::parse(text).or(Err(DecodeError::Malformed))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

#[derive(Encode, Decode)]
struct TokenKeysV1<'a> {
    #[b(0)]
    jwks: &'a str,
    #[b(1)]
    url: Option<&'a str>,
    #[b(2)]
    authority: Option<&'a str>,
}

impl<'a> From<&'a TokenKeys> for TokenKeysV1<'a> {
    fn from(keys: &'a TokenKeys) -> Self {
        let (url, authority) = (keys.url.as_deref(), keys.authority.as_deref());
        Self { jwks: &keys.jwks, url, authority }
    }
}

impl From<TokenKeysV1<'_>> for TokenKeys {
    fn from(keys: TokenKeysV1<'_>) -> Self {
        Self {
            jwks: keys.jwks.to_owned(),
            url: keys.url.map(str::to_owned),
            authority: keys.authority.map(str::to_owned),
        }
    }
}

#[derive(Encode, Decode)]
pub(super) struct ClusterV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    issuers: Vec<&'a str>,
    #[b(2)]
    audiences: Vec<&'a str>,
    #[b(3)]
    keys: TokenKeysV1<'a>,
    #[n(4)]
    max_token_secs: u64,
    #[n(5)]
    created_at: u64,
    #[b(6)]
    kubelet_authorities: Option<&'a str>,
}

impl<'a> From<&'a Cluster> for ClusterV1<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self {
            name: cluster.name.as_str(),
            issuers: borrowed(&cluster.issuers),
            audiences: borrowed(&cluster.audiences),
            keys: TokenKeysV1::from(&cluster.keys),
            max_token_secs: cluster.max_token_secs,
            created_at: cluster.created_at.0,
            kubelet_authorities: cluster.kubelet_authorities.as_deref(),
        }
    }
}

impl TryFrom<ClusterV1<'_>> for Cluster {
    type Error = DecodeError;

    fn try_from(cluster: ClusterV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(cluster.name)?,
            issuers: owned(&cluster.issuers),
            audiences: owned(&cluster.audiences),
            keys: cluster.keys.into(),
            max_token_secs: cluster.max_token_secs,
            created_at: Timestamp(cluster.created_at),
            kubelet_authorities: cluster.kubelet_authorities.map(str::to_owned),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct ProviderV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    issuer: &'a str,
    #[b(2)]
    audiences: Vec<&'a str>,
    #[b(3)]
    keys: TokenKeysV1<'a>,
    #[b(4)]
    subject_claim: &'a str,
    #[b(5)]
    groups_claim: &'a str,
    #[n(6)]
    created_at: u64,
    #[b(7)]
    trust_domain: Option<&'a str>,
}

impl<'a> From<&'a Provider> for ProviderV1<'a> {
    fn from(provider: &'a Provider) -> Self {
        Self {
            name: provider.name.as_str(),
            issuer: &provider.issuer,
            audiences: borrowed(&provider.audiences),
            keys: TokenKeysV1::from(&provider.keys),
            subject_claim: &provider.subject_claim,
            groups_claim: &provider.groups_claim,
            created_at: provider.created_at.0,
            trust_domain: provider.trust_domain.as_deref(),
        }
    }
}

impl TryFrom<ProviderV1<'_>> for Provider {
    type Error = DecodeError;

    fn try_from(provider: ProviderV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(provider.name)?,
            issuer: provider.issuer.to_owned(),
            audiences: owned(&provider.audiences),
            keys: provider.keys.into(),
            subject_claim: provider.subject_claim.to_owned(),
            groups_claim: provider.groups_claim.to_owned(),
            created_at: Timestamp(provider.created_at),
            trust_domain: provider.trust_domain.map(str::to_owned),
        })
    }
}

/// Who may take a role: one of the three, told apart by which list is there.
#[derive(Encode, Decode)]
struct HoldersV1<'a> {
    #[b(0)]
    of: &'a str,
    #[b(1)]
    accounts: Option<AccountsV1<'a>>,
    #[b(2)]
    claims: Option<Vec<(&'a str, &'a str)>>,
    #[b(3)]
    ids: Option<Vec<&'a str>>,
}

#[derive(Encode, Decode)]
struct AccountsV1<'a> {
    #[b(0)]
    namespaces: Vec<&'a str>,
    #[b(1)]
    names: Vec<&'a str>,
    /// There when it is true.
    #[n(2)]
    allow_without_pod: Option<bool>,
}

impl<'a> From<&'a RoleHolders> for HoldersV1<'a> {
    fn from(holders: &'a RoleHolders) -> Self {
        match holders {
            RoleHolders::ServiceAccounts {
                cluster,
                namespaces,
                service_accounts,
                allow_without_pod,
            } => Self {
                of: cluster.as_str(),
                accounts: Some(AccountsV1 {
                    namespaces: borrowed(namespaces),
                    names: borrowed(service_accounts),
                    allow_without_pod: allow_without_pod.then_some(true),
                }),
                claims: None,
                ids: None,
            },
            RoleHolders::Claims { provider, claims } => Self {
                of: provider.as_str(),
                accounts: None,
                claims: Some(claims.iter().map(|(c, v)| (c.as_str(), v.as_str())).collect()),
                ids: None,
            },
            RoleHolders::Spiffe { provider, ids } => Self {
                of: provider.as_str(),
                accounts: None,
                claims: None,
                ids: Some(borrowed(ids)),
            },
        }
    }
}

impl TryFrom<HoldersV1<'_>> for RoleHolders {
    type Error = DecodeError;

    fn try_from(holders: HoldersV1<'_>) -> Result<Self, DecodeError> {
        let of = name(holders.of)?;
        match (holders.accounts, holders.claims, holders.ids) {
            // What is not so has one spelling: it is left out.
            (Some(AccountsV1 { allow_without_pod: Some(false), .. }), None, None) => {
                Err(DecodeError::Malformed)
            }
            (Some(accounts), None, None) => Ok(Self::ServiceAccounts {
                cluster: of,
                namespaces: owned(&accounts.namespaces),
                service_accounts: owned(&accounts.names),
                allow_without_pod: accounts.allow_without_pod.is_some(),
            }),
            (None, Some(pairs), None) => {
                let rising = pairs.is_sorted_by(|(a, _), (b, _)| a < b);
                let pairs = pairs.iter().map(|(c, v)| ((*c).to_owned(), (*v).to_owned()));
                let claims: BTreeMap<_, _> = pairs.collect();
                let holders = Self::Claims { provider: of, claims };
                if rising { Ok(holders) } else { Err(DecodeError::Malformed) }
            }
            (None, None, Some(ids)) => Ok(Self::Spiffe { provider: of, ids: owned(&ids) }),
            (Some(_) | None, _, _) => Err(DecodeError::Malformed),
        }
    }
}

#[derive(Encode, Decode)]
pub(super) struct RoleV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    holders: HoldersV1<'a>,
    #[b(2)]
    policy: &'a str,
    #[n(3)]
    policy_version: u32,
    #[n(4)]
    max_session_secs: u64,
    #[n(5)]
    by_node_agent: bool,
    #[n(6)]
    created_at: u64,
}

impl<'a> From<&'a Role> for RoleV1<'a> {
    fn from(role: &'a Role) -> Self {
        Self {
            name: role.name.as_str(),
            holders: HoldersV1::from(&role.holders),
            policy: &role.policy,
            policy_version: role.policy_version,
            max_session_secs: role.max_session_secs,
            by_node_agent: role.by_node_agent,
            created_at: role.created_at.0,
        }
    }
}

impl TryFrom<RoleV1<'_>> for Role {
    type Error = DecodeError;

    fn try_from(role: RoleV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(role.name)?,
            holders: role.holders.try_into()?,
            policy: role.policy.to_owned(),
            policy_version: role.policy_version,
            max_session_secs: role.max_session_secs,
            by_node_agent: role.by_node_agent,
            created_at: Timestamp(role.created_at),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct PolicyV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    text: &'a str,
    #[n(2)]
    version: u32,
    #[n(3)]
    changed_at: u64,
    #[b(4)]
    changed_by: &'a str,
}

impl<'a> From<&'a Policy> for PolicyV1<'a> {
    fn from(policy: &'a Policy) -> Self {
        Self {
            name: policy.name.as_str(),
            text: &policy.text,
            version: policy.version,
            changed_at: policy.changed_at.0,
            changed_by: &policy.changed_by,
        }
    }
}

impl TryFrom<PolicyV1<'_>> for Policy {
    type Error = DecodeError;

    fn try_from(policy: PolicyV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(policy.name)?,
            text: policy.text.to_owned(),
            version: policy.version,
            changed_at: Timestamp(policy.changed_at),
            changed_by: policy.changed_by.to_owned(),
        })
    }
}

#[derive(Encode, Decode)]
struct PasswordV1 {
    #[n(0)]
    memory_kib: u32,
    #[n(1)]
    passes: u32,
    #[n(2)]
    lanes: u32,
    #[cbor(n(3), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[cbor(n(4), with = "minicbor::bytes")]
    hash: [u8; 32],
}

impl From<&PasswordHash> for PasswordV1 {
    fn from(password: &PasswordHash) -> Self {
        let (memory_kib, passes, lanes) = password.costs;
        Self { memory_kib, passes, lanes, salt: password.salt, hash: password.hash }
    }
}

impl From<PasswordV1> for PasswordHash {
    fn from(password: PasswordV1) -> Self {
        let costs = (password.memory_kib, password.passes, password.lanes);
        Self { costs, salt: password.salt, hash: password.hash }
    }
}

#[derive(Encode, Decode)]
pub(super) struct EnrolmentV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    code_hash: [u8; 32],
    #[n(1)]
    expires: u64,
}

impl From<&Enrolment> for EnrolmentV1 {
    fn from(enrolment: &Enrolment) -> Self {
        Self { code_hash: enrolment.code_hash, expires: enrolment.expires.0 }
    }
}

impl From<EnrolmentV1> for Enrolment {
    fn from(enrolment: EnrolmentV1) -> Self {
        Self { code_hash: enrolment.code_hash, expires: Elapsed(enrolment.expires) }
    }
}

#[derive(Encode, Decode)]
pub(super) struct UserV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    groups: Vec<&'a str>,
    #[n(2)]
    password: Option<PasswordV1>,
    #[b(3)]
    second_factor: Option<WrappedV1<'a>>,
    #[n(4)]
    last_step: u64,
    #[n(5)]
    enrolment: Option<EnrolmentV1>,
    #[n(6)]
    disabled: bool,
    #[n(7)]
    created_at: u64,
}

impl<'a> From<&'a User> for UserV1<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            name: user.name.as_str(),
            groups: user.groups.iter().map(Name::as_str).collect(),
            password: user.password.as_ref().map(PasswordV1::from),
            second_factor: user.second_factor.as_ref().map(WrappedV1::from),
            last_step: user.last_step,
            enrolment: user.enrolment.as_ref().map(EnrolmentV1::from),
            disabled: user.disabled,
            created_at: user.created_at.0,
        }
    }
}

impl TryFrom<UserV1<'_>> for User {
    type Error = DecodeError;

    fn try_from(user: UserV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(user.name)?,
            groups: user.groups.iter().map(|group| name(group)).collect::<Result<_, _>>()?,
            password: user.password.map(PasswordHash::from),
            second_factor: user.second_factor.map(Into::into),
            last_step: user.last_step,
            enrolment: user.enrolment.map(Enrolment::from),
            disabled: user.disabled,
            created_at: Timestamp(user.created_at),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct RevocationV1<'a> {
    #[b(0)]
    kind: &'a str,
    #[b(1)]
    value: &'a str,
    #[n(2)]
    issued_until: u64,
    #[n(3)]
    needed_until: u64,
}

impl<'a> From<&'a Revocation> for RevocationV1<'a> {
    fn from(revocation: &'a Revocation) -> Self {
        Self {
            kind: revocation.what.kind(),
            value: revocation.what.value(),
            issued_until: revocation.issued_until.0,
            needed_until: revocation.needed_until.0,
        }
    }
}

impl TryFrom<RevocationV1<'_>> for Revocation {
    type Error = DecodeError;

    fn try_from(revocation: RevocationV1<'_>) -> Result<Self, DecodeError> {
        let what = RevokedWhat::of(revocation.kind, revocation.value);
        Ok(Self {
            what: what.ok_or(DecodeError::Malformed)?,
            issued_until: Timestamp(revocation.issued_until),
            needed_until: Timestamp(revocation.needed_until),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct SessionEpochV1<'a> {
    #[n(0)]
    number: u32,
    #[b(1)]
    secret: WrappedV1<'a>,
    #[n(2)]
    created_at: u64,
}

impl<'a> From<&'a SessionEpoch> for SessionEpochV1<'a> {
    fn from(epoch: &'a SessionEpoch) -> Self {
        let secret = WrappedV1::from(&epoch.secret);
        Self { number: epoch.number, secret, created_at: epoch.created_at.0 }
    }
}

impl From<SessionEpochV1<'_>> for SessionEpoch {
    fn from(epoch: SessionEpochV1<'_>) -> Self {
        let created_at = Timestamp(epoch.created_at);
        Self { number: epoch.number, secret: epoch.secret.into(), created_at }
    }
}

#[derive(Encode, Decode)]
pub(super) struct AccessV1 {
    #[n(0)]
    pub(super) changes: u64,
}
