//! Databases: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::database::{Database, DatabaseKind};
use lastkey_service::ops::databases::DatabaseRequest;
use lastkey_wire::native::Empty;
use lastkey_wire::native::databases::{AddDatabaseRequest, DatabaseView, ListDatabasesReply};
use lastkey_wire::native::query::{DryRunQuery, PageQuery};

use super::access::{marker, page};
use super::decode::{Ask, RequestBody};
use super::encode::rfc3339;
use crate::problem::{Problem, Syntax};

impl RequestBody for AddDatabaseRequest {}

fn view(database: Database) -> DatabaseView {
    DatabaseView {
        name: database.name.to_string(),
        address: database.address,
        authority: database.authority,
        user: database.root,
        root_rotated_at: database.root_rotated_at.map(rfc3339),
        created_at: rfc3339(database.created_at),
    }
}

/// `GET /v1/databases`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListDatabasesReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Database>(ask.call(), after, limit).await?;
    let databases: Vec<_> = page.items.into_iter().map(view).collect();
    let next_marker = marker(databases.last().map(|last| &last.name), page.more);
    Ok(ListDatabasesReply { databases, next_marker })
}

/// `GET /v1/databases/{name}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<DatabaseView, Problem> {
    Ok(view(ask.engine().read_named::<Database>(ask.call(), &ask.name()?).await?))
}

/// `PUT /v1/databases/{name}`
pub(super) async fn add(ask: &Ask, body: AddDatabaseRequest) -> Result<DatabaseView, Problem> {
    let (kind, _) = DatabaseKind::of_address(&body.address).ok_or_else(|| {
        let expected = "expected postgresql://HOST/NAME, mariadb://HOST/NAME or mysql://HOST/NAME";
        Syntax::field("address", expected)
    })?;
    let request = DatabaseRequest {
        kind,
        address: body.address,
        authority: body.authority,
        root: body.user,
        password: body.password.0,
        keeps_password: body.keep_password,
    };
    Ok(view(ask.engine().add_database(ask.call(), ask.name()?, request).await?))
}

/// `POST /v1/databases/{name}/rotate-root`
pub(super) async fn rotate_root(ask: &Ask, _: Empty) -> Result<DatabaseView, Problem> {
    Ok(view(ask.engine().rotate_database_root(ask.call(), ask.name()?).await?))
}

/// `DELETE /v1/databases/{name}`
pub(super) async fn remove(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_database(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}
