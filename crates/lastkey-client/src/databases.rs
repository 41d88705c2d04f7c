//! Databases, one method for each route.
//!
//! Room      `client`.

use http::Method;
use lastkey_wire::native::{
    Empty,
    databases::{AddDatabaseRequest, DatabaseView, ListDatabasesReply},
    query::PageQuery,
};

use crate::{
    call::{Call, escape},
    client::Client,
};

/// A call without a body.
type Bare<'a, R> = Call<'a, (), R>;

fn path(name: &str, rest: &str) -> String {
    format!("/v1/databases/{}{rest}", escape(name))
}

impl Client {
    /// Makes a database known. Sent once: the password of the root account is another one then.
    pub fn add_database<'a>(
        &'a self,
        name: &str,
        request: &'a AddDatabaseRequest,
    ) -> Call<'a, &'a AddDatabaseRequest, DatabaseView> {
        Call::route(self.transport(), Method::PUT, path(name, "")).once().with_body(request)
    }

    /// One database.
    pub fn describe_database(&self, name: &str) -> Bare<'_, DatabaseView> {
        Call::route(self.transport(), Method::GET, path(name, ""))
    }

    /// One page of the databases.
    pub fn list_databases(&self, page: &PageQuery) -> Bare<'_, ListDatabasesReply> {
        Call::route(self.transport(), Method::GET, "/v1/databases".to_owned())
            .with_query("limit", page.limit)
            .with_query("marker", page.marker.as_ref())
    }

    /// Gives the root account of a database a new password, which nobody knows but the server.
    pub fn rotate_database_root(&self, name: &str) -> Bare<'_, DatabaseView> {
        Call::route(self.transport(), Method::POST, path(name, "/rotate-root")).once()
    }

    /// Forgets a database.
    pub fn remove_database(&self, name: &str) -> Bare<'_, Empty> {
        Call::route(self.transport(), Method::DELETE, path(name, ""))
    }
}
