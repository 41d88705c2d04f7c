//! Version 1 of the records of database roles and of leases.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::ids::Name;
use lastkey_core::lease::{DatabaseRole, Lease, LeaseId, LeasePod};
use lastkey_core::time::{Elapsed, Timestamp};
use minicbor::{Decode, Encode};

use super::v1::WrappedV1;
use super::{DecodeError, codes};

#[derive(Encode, Decode)]
pub(super) struct DatabaseRoleV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    database: &'a str,
    #[b(2)]
    group: &'a str,
    #[b(3)]
    statements: Vec<&'a str>,
    #[n(4)]
    ttl_secs: u64,
    #[n(5)]
    max_ttl_secs: u64,
    #[n(6)]
    max_leases: u32,
    #[n(7)]
    created_at: u64,
}

impl<'a> From<&'a DatabaseRole> for DatabaseRoleV1<'a> {
    fn from(role: &'a DatabaseRole) -> Self {
        Self {
            name: role.name.as_str(),
            database: role.database.as_str(),
            group: &role.group,
            statements: role.statements.iter().map(String::as_str).collect(),
            ttl_secs: role.ttl_secs,
            max_ttl_secs: role.max_ttl_secs,
            max_leases: role.max_leases,
            created_at: role.created_at.0,
        }
    }
}

impl TryFrom<DatabaseRoleV1<'_>> for DatabaseRole {
    type Error = DecodeError;

    fn try_from(role: DatabaseRoleV1<'_>) -> Result<Self, DecodeError> {
        let role = Self {
            name: name(role.name)?,
            database: name(role.database)?,
            group: role.group.to_owned(),
            statements: role.statements.iter().map(|text| (*text).to_owned()).collect(),
            ttl_secs: role.ttl_secs,
            max_ttl_secs: role.max_ttl_secs,
            max_leases: role.max_leases,
            created_at: Timestamp(role.created_at),
        };
        role.check().or(Err(DecodeError::Malformed))?;
        Ok(role)
    }
}

#[derive(Encode, Decode)]
pub(super) struct LeaseV1<'a> {
    #[b(0)]
    role: &'a str,
    #[cbor(n(1), with = "minicbor::bytes")]
    id: [u8; 16],
    #[b(2)]
    database: &'a str,
    #[b(3)]
    group: &'a str,
    #[b(4)]
    account: &'a str,
    #[b(5)]
    password: WrappedV1<'a>,
    #[b(6)]
    holder: &'a str,
    #[b(7)]
    pod: Option<LeasePodV1<'a>>,
    #[n(8)]
    step: u8,
    #[n(9)]
    ttl_secs: u64,
    #[n(10)]
    ends: u64,
    #[n(11)]
    last_end: Option<u64>,
    #[n(12)]
    due: u64,
    #[n(13)]
    created_at: u64,
    #[n(14)]
    failures: u32,
    #[b(15)]
    problem: Option<&'a str>,
}

#[derive(Encode, Decode)]
struct LeasePodV1<'a> {
    #[b(0)]
    cluster: &'a str,
    #[b(1)]
    uid: &'a str,
    #[b(2)]
    name: &'a str,
    #[b(3)]
    account_uid: &'a str,
}

impl<'a> From<&'a Lease> for LeaseV1<'a> {
    fn from(lease: &'a Lease) -> Self {
        Self {
            role: lease.role.as_str(),
            id: lease.id.0,
            database: lease.database.as_str(),
            group: &lease.group,
            account: &lease.account,
            password: WrappedV1::from(&lease.password),
            holder: &lease.holder,
            pod: lease.pod.as_ref().map(|pod| LeasePodV1 {
                cluster: &pod.cluster,
                uid: &pod.uid,
                name: &pod.name,
                account_uid: &pod.account_uid,
            }),
            step: codes::lease_step_code(lease.step),
            ttl_secs: lease.ttl_secs,
            ends: lease.ends.0,
            last_end: lease.last_end.map(|at| at.0),
            due: lease.due.0,
            created_at: lease.created_at.0,
            failures: lease.failures,
            problem: lease.problem.as_deref(),
        }
    }
}

impl TryFrom<LeaseV1<'_>> for Lease {
    type Error = DecodeError;

    fn try_from(lease: LeaseV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            role: name(lease.role)?,
            id: LeaseId(lease.id),
            database: name(lease.database)?,
            group: lease.group.to_owned(),
            account: lease.account.to_owned(),
            password: lease.password.into(),
            holder: lease.holder.to_owned(),
            pod: lease.pod.map(|pod| LeasePod {
                cluster: pod.cluster.to_owned(),
                uid: pod.uid.to_owned(),
                name: pod.name.to_owned(),
                account_uid: pod.account_uid.to_owned(),
            }),
            step: codes::lease_step(lease.step)?,
            ttl_secs: lease.ttl_secs,
            ends: Elapsed(lease.ends),
            last_end: lease.last_end.map(Elapsed),
            due: Elapsed(lease.due),
            created_at: Timestamp(lease.created_at),
            failures: lease.failures,
            problem: lease.problem.map(str::to_owned),
        })
    }
}

fn name(text: &str) -> Result<Name, DecodeError> {
    Name::parse(text).or(Err(DecodeError::Malformed))
}
