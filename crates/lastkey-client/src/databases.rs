//! Databases, one method for each route.
//!
//! Room      `client`.

use http::Method;
use lastkey_wire::native::{
    Empty,
    databases::{
        AddDatabaseRequest, AddDatabaseRoleRequest, DatabaseCredentialsReply, DatabaseRoleView,
        DatabaseView, EndLeaseRequest, LeaseView, ListDatabaseRolesReply, ListDatabasesReply,
        ListLeasesReply, MendReply,
    },
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

fn role_path(name: &str, rest: &str) -> String {
    format!("/v1/database-roles/{}{rest}", escape(name))
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

    /// Compares a database with its leases, and mends what is amiss.
    pub fn mend_database(&self, name: &str) -> Bare<'_, MendReply> {
        Call::route(self.transport(), Method::POST, path(name, "/mend"))
    }

    /// Makes a role of a database.
    pub fn add_database_role<'a>(
        &'a self,
        name: &str,
        request: &'a AddDatabaseRoleRequest,
    ) -> Call<'a, &'a AddDatabaseRoleRequest, DatabaseRoleView> {
        Call::route(self.transport(), Method::PUT, role_path(name, "")).once().with_body(request)
    }

    /// One role of a database.
    pub fn describe_database_role(&self, name: &str) -> Bare<'_, DatabaseRoleView> {
        Call::route(self.transport(), Method::GET, role_path(name, ""))
    }

    /// One page of the roles of databases.
    pub fn list_database_roles(&self, page: &PageQuery) -> Bare<'_, ListDatabaseRolesReply> {
        Call::route(self.transport(), Method::GET, "/v1/database-roles".to_owned())
            .with_query("limit", page.limit)
            .with_query("marker", page.marker.as_ref())
    }

    /// Removes a role of a database; its leases end.
    pub fn remove_database_role(&self, name: &str) -> Bare<'_, Empty> {
        Call::route(self.transport(), Method::DELETE, role_path(name, "")).once()
    }

    /// An account of a database, by a role. Sent once: whoever is no pod is given another one each
    /// time.
    pub fn database_credentials(&self, role: &str) -> Bare<'_, DatabaseCredentialsReply> {
        Call::route(self.transport(), Method::POST, role_path(role, "/credentials"))
    }

    /// One page of the leases of a role.
    pub fn list_leases(&self, role: &str, page: &PageQuery) -> Bare<'_, ListLeasesReply> {
        Call::route(self.transport(), Method::GET, role_path(role, "/leases"))
            .with_query("limit", page.limit)
            .with_query("marker", page.marker.as_ref())
    }

    /// Lets a lease of the caller's own live on.
    pub fn renew_lease(&self, role: &str, lease: &str) -> Bare<'_, LeaseView> {
        let rest = format!("/leases/{}/renew", escape(lease));
        Call::route(self.transport(), Method::POST, role_path(role, &rest))
    }

    /// Ends a lease and drops its account.
    pub fn end_lease<'a>(
        &'a self,
        role: &str,
        lease: &str,
        request: &'a EndLeaseRequest,
    ) -> Call<'a, &'a EndLeaseRequest, Empty> {
        let rest = format!("/leases/{}", escape(lease));
        let call = Call::route(self.transport(), Method::DELETE, role_path(role, &rest));
        call.once().with_body(request)
    }
}
