//! Roles of databases and leases: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ids::Name;
use lastkey_core::lease::{
    DEFAULT_MAX_LEASES, DEFAULT_MAX_TTL_SECS, DEFAULT_TTL_SECS, DatabaseRole, LeaseId,
};
use lastkey_service::ops::leases::{self, DatabaseRoleRequest, Ending};
use lastkey_wire::SecretText;
use lastkey_wire::native::Empty;
use lastkey_wire::native::databases::{
    AddDatabaseRoleRequest, DatabaseCredentialsReply, DatabaseRoleView, EndLeaseRequest, LeaseView,
    ListDatabaseRolesReply, ListLeasesReply, MendReply,
};
use lastkey_wire::native::query::{DryRunQuery, PageQuery};

use super::access::{marker, page};
use super::decode::{Ask, RequestBody, page_len, parse};
use super::encode::rfc3339;
use crate::problem::{Problem, Syntax};

impl RequestBody for AddDatabaseRoleRequest {}
impl RequestBody for EndLeaseRequest {}

fn role_view(role: DatabaseRole) -> DatabaseRoleView {
    DatabaseRoleView {
        name: role.name.to_string(),
        database: role.database.to_string(),
        group: role.group,
        statements: role.statements,
        ttl_seconds: role.ttl_secs,
        max_ttl_seconds: role.max_ttl_secs,
        max_leases: role.max_leases,
        created_at: rfc3339(role.created_at),
    }
}

fn lease_view(view: leases::LeaseView) -> LeaseView {
    let leases::LeaseView { lease, ends_at, lives, ask_after } = view;
    LeaseView {
        id: lease.id.to_string(),
        role: lease.role.to_string(),
        database: lease.database.to_string(),
        username: lease.account,
        holder: lease.holder,
        pod: lease.pod.map(|pod| pod.name),
        state: lease.step.as_str().to_owned(),
        created_at: rfc3339(lease.created_at),
        expires_at: rfc3339(ends_at),
        expires_in: lives.as_secs(),
        renew_in: ask_after.as_secs(),
        problem: lease.problem,
    }
}

fn lease_id(field: &str, text: &str) -> Result<LeaseId, Syntax> {
    let expected = "a lease is named by 32 hexadecimal digits";
    LeaseId::parse(text).ok_or_else(|| Syntax::field(field, expected))
}

fn lease(ask: &Ask) -> Result<LeaseId, Syntax> {
    lease_id("lease", &ask.second("lease")?)
}

/// `GET /v1/database-roles`
pub(super) async fn list_roles(
    ask: &Ask,
    query: PageQuery,
) -> Result<ListDatabaseRolesReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<DatabaseRole>(ask.call(), after, limit).await?;
    let roles: Vec<_> = page.items.into_iter().map(role_view).collect();
    let next_marker = marker(roles.last().map(|last| &last.name), page.more);
    Ok(ListDatabaseRolesReply { roles, next_marker })
}

/// `GET /v1/database-roles/{name}`
pub(super) async fn describe_role(ask: &Ask, _: DryRunQuery) -> Result<DatabaseRoleView, Problem> {
    Ok(role_view(ask.engine().read_named::<DatabaseRole>(ask.call(), &ask.name()?).await?))
}

/// `PUT /v1/database-roles/{name}`
pub(super) async fn add_role(
    ask: &Ask,
    body: AddDatabaseRoleRequest,
) -> Result<DatabaseRoleView, Problem> {
    let ttl_secs = body.ttl_seconds.unwrap_or(DEFAULT_TTL_SECS);
    let request = DatabaseRoleRequest {
        database: parse("database", &body.database, Name::parse)?,
        group: body.group,
        statements: body.statements,
        ttl_secs,
        max_ttl_secs: body.max_ttl_seconds.unwrap_or(DEFAULT_MAX_TTL_SECS.max(ttl_secs)),
        max_leases: body.max_leases.unwrap_or(DEFAULT_MAX_LEASES),
    };
    Ok(role_view(ask.engine().add_database_role(ask.call(), ask.name()?, request).await?))
}

/// `DELETE /v1/database-roles/{name}`
pub(super) async fn remove_role(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_database_role(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `POST /v1/database-roles/{name}/credentials`
pub(super) async fn issue(ask: &Ask, _: Empty) -> Result<DatabaseCredentialsReply, Problem> {
    let issued = ask.engine().issue_credentials(ask.call(), ask.name()?).await?;
    Ok(DatabaseCredentialsReply {
        lease: lease_view(issued.lease),
        address: issued.address,
        password: SecretText(issued.password),
    })
}

/// `GET /v1/database-roles/{name}/leases`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListLeasesReply, Problem> {
    let after = query.marker.as_deref().map(|text| lease_id("marker", text)).transpose()?;
    let (role, limit) = (ask.name()?, page_len(query.limit)?);
    let page = ask.engine().list_leases(ask.call(), &role, after, limit).await?;
    let leases: Vec<_> = page.items.into_iter().map(lease_view).collect();
    let next_marker = marker(leases.last().map(|last| &last.id), page.more);
    Ok(ListLeasesReply { leases, next_marker })
}

/// `POST /v1/database-roles/{name}/leases/{lease}/renew`
pub(super) async fn renew(ask: &Ask, _: Empty) -> Result<LeaseView, Problem> {
    let (role, id) = (ask.name()?, lease(ask)?);
    Ok(lease_view(ask.engine().renew_credentials(ask.call(), role, id).await?))
}

/// `DELETE /v1/database-roles/{name}/leases/{lease}`
pub(super) async fn end(ask: &Ask, body: EndLeaseRequest) -> Result<Empty, Problem> {
    let ending = if body.forget { Ending::Forget } else { Ending::Drop };
    let (role, id) = (ask.name()?, lease(ask)?);
    ask.engine().end_credentials(ask.call(), role, id, ending).await?;
    Ok(Empty {})
}

/// `POST /v1/databases/{name}/mend`
pub(super) async fn mend(ask: &Ask, _: Empty) -> Result<MendReply, Problem> {
    let mended = ask.engine().mend_database(ask.call(), ask.name()?).await?;
    let leases::Mended { dropped, made_again, ended } = mended;
    Ok(MendReply { dropped, made_again, ended })
}
