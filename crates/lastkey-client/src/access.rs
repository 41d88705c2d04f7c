//! Who may come in, and as what; sessions. One method for each route.
//!
//! Room      `client`.

use http::Method;
use lastkey_wire::native::{
    Empty,
    access::{
        CanReply, CanRequest, ClusterView, ListClustersReply, ListPoliciesReply,
        ListProvidersReply, ListRolesReply, PolicyView, ProviderView, ReplayReply, ReplayRequest,
        RoleView, SetClusterRequest, SetPolicyRequest, SetProviderRequest, SetRoleRequest,
        WhoCanReply, WhoCanRequest,
    },
    nodes::{
        ChallengeReply, ChallengeRequest, JoinRequest, JoinTokenReply, ListNodesReply,
        NodeAuthorityView, NodeCertificateReply, NodeView, RenewRequest, SetNodeRequest,
    },
    query::PageQuery,
    sessions::{
        BurnReply, BurnRequest, CertificateRequest, EnrolReply, EnrolRequest, ListRevocationsReply,
        LoginRequest, ProviderReply, ProviderRequest, RevocationView, RevokeRequest, TokenReply,
        TokenRequest, WhoAmIReply,
    },
    users::{AddUserRequest, EnrolmentReply, ListUsersReply, UpdateUserRequest, UserView},
};

use crate::{
    call::{Call, escape},
    client::Client,
    keys::paged,
};

/// A call without a body.
type Bare<'a, R> = Call<'a, (), R>;

/// Methods for one kind of thing that administrators name.
macro_rules! named {
    ($path:literal, $what:literal, $set:ident($request:ty => $reply:ty), $describe:ident, $list:ident, $remove:ident, $view:ty, $page:ty) => {
        impl Client {
            #[doc = concat!("Writes down a ", $what, ".")]
            pub fn $set<'a>(
                &'a self,
                name: &str,
                request: &'a $request,
            ) -> Call<'a, &'a $request, $reply> {
                self.named(Method::PUT, $path, name).with_body(request)
            }

            #[doc = concat!("One ", $what, ".")]
            pub fn $describe(&self, name: &str) -> Bare<'_, $view> {
                self.named(Method::GET, $path, name)
            }

            #[doc = concat!("One page of each ", $what, ".")]
            pub fn $list(&self, page: &PageQuery) -> Bare<'_, $page> {
                paged(Call::route(self.transport(), Method::GET, $path.to_owned()), page)
            }

            #[doc = concat!("Removes a ", $what, ".")]
            pub fn $remove(&self, name: &str) -> Bare<'_, Empty> {
                self.named(Method::DELETE, $path, name)
            }
        }
    };
}

named!(
    "/v1/sys/clusters",
    "cluster",
    set_cluster(SetClusterRequest => ClusterView),
    describe_cluster,
    list_clusters,
    remove_cluster,
    ClusterView,
    ListClustersReply
);
named!(
    "/v1/iam/providers",
    "provider of identities",
    set_provider(SetProviderRequest => ProviderView),
    describe_provider,
    list_providers,
    remove_provider,
    ProviderView,
    ListProvidersReply
);
named!(
    "/v1/iam/roles",
    "role",
    set_role(SetRoleRequest => RoleView),
    describe_role,
    list_roles,
    remove_role,
    RoleView,
    ListRolesReply
);
named!(
    "/v1/iam/policies",
    "policy",
    set_policy(SetPolicyRequest => PolicyView),
    describe_policy,
    list_policies,
    remove_policy,
    PolicyView,
    ListPoliciesReply
);

named!(
    "/v1/sys/nodes",
    "node",
    invite_node(SetNodeRequest => JoinTokenReply),
    describe_node,
    list_nodes,
    remove_node,
    NodeView,
    ListNodesReply
);

impl Client {
    fn named<B: serde::Serialize, R: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        name: &str,
    ) -> Call<'_, B, R> {
        Call::route(self.transport(), method, format!("{path}/{}", escape(name)))
    }

    /// What a policy was before, the oldest first.
    pub fn policy_versions(&self, name: &str) -> Bare<'_, ListPoliciesReply> {
        let path = format!("/v1/iam/policies/{}/versions", escape(name));
        Call::route(self.transport(), Method::GET, path)
    }

    /// Whether somebody may do something, and why.
    pub fn can<'a>(&'a self, request: &'a CanRequest) -> Call<'a, &'a CanRequest, CanReply> {
        self.post("/v1/iam/can", request)
    }

    /// Everybody who may do something.
    pub fn who_can<'a>(
        &'a self,
        request: &'a WhoCanRequest,
    ) -> Call<'a, &'a WhoCanRequest, WhoCanReply> {
        self.post("/v1/iam/who-can", request)
    }

    /// Who the caller is.
    pub fn who_am_i(&self) -> Bare<'_, WhoAmIReply> {
        Call::route(self.transport(), Method::GET, "/v1/sts/whoami".to_owned())
    }

    /// What a policy would have said to the calls of the last days.
    pub fn replay_policy<'a>(
        &'a self,
        request: &'a ReplayRequest,
    ) -> Call<'a, &'a ReplayRequest, ReplayReply> {
        self.post("/v1/iam/replay", request)
    }

    /// Opens a session for the holder of a token. Needs no other credential.
    pub fn exchange_token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> Call<'a, &'a TokenRequest, TokenReply> {
        self.post("/v1/sts/token", request)
    }

    /// Opens a session for the workload whose certificate is the identity of this client. Needs no
    /// other credential.
    pub fn present_certificate<'a>(
        &'a self,
        request: &'a CertificateRequest,
    ) -> Call<'a, &'a CertificateRequest, TokenReply> {
        self.post("/v1/sts/certificate", request)
    }

    /// Where people of a provider log in. Needs no credential.
    pub fn login_provider<'a>(
        &'a self,
        request: &'a ProviderRequest,
    ) -> Call<'a, &'a ProviderRequest, ProviderReply> {
        self.post("/v1/sts/provider", request)
    }

    /// Opens a session for a person. Needs no other credential.
    pub fn log_in<'a>(
        &'a self,
        request: &'a LoginRequest,
    ) -> Call<'a, &'a LoginRequest, TokenReply> {
        self.post("/v1/sts/login", request)
    }

    /// Sets a person's password and second factor. Needs no other credential than his code.
    pub fn enrol<'a>(
        &'a self,
        request: &'a EnrolRequest,
    ) -> Call<'a, &'a EnrolRequest, EnrolReply> {
        self.post("/v1/sts/enrol", request)
    }

    /// Makes a person known.
    pub fn add_user<'a>(
        &'a self,
        request: &'a AddUserRequest,
    ) -> Call<'a, &'a AddUserRequest, EnrolmentReply> {
        self.post("/v1/iam/users", request)
    }

    /// Lets a person enrol anew.
    pub fn renew_enrolment(&self, name: &str) -> Bare<'_, EnrolmentReply> {
        let path = format!("/v1/iam/users/{}/enrolment", escape(name));
        Call::route(self.transport(), Method::POST, path)
    }

    /// Changes a person.
    pub fn update_user<'a>(
        &'a self,
        name: &str,
        request: &'a UpdateUserRequest,
    ) -> Call<'a, &'a UpdateUserRequest, UserView> {
        self.named(Method::PATCH, "/v1/iam/users", name).with_body(request)
    }

    /// One person.
    pub fn describe_user(&self, name: &str) -> Bare<'_, UserView> {
        self.named(Method::GET, "/v1/iam/users", name)
    }

    /// One page of people.
    pub fn list_users(&self, page: &PageQuery) -> Bare<'_, ListUsersReply> {
        paged(Call::route(self.transport(), Method::GET, "/v1/iam/users".to_owned()), page)
    }

    /// Forgets a person.
    pub fn remove_user(&self, name: &str) -> Bare<'_, Empty> {
        self.named(Method::DELETE, "/v1/iam/users", name)
    }

    /// Ends the session of whoever shows its credential. Needs no other credential.
    pub fn burn<'a>(&'a self, request: &'a BurnRequest) -> Call<'a, &'a BurnRequest, BurnReply> {
        self.post("/v1/sts/burn", request)
    }

    /// Ends sessions before their time.
    pub fn revoke<'a>(
        &'a self,
        request: &'a RevokeRequest,
    ) -> Call<'a, &'a RevokeRequest, RevocationView> {
        self.post("/v1/sts/revoke", request)
    }

    /// Lets a new authority sign the certificates of nodes.
    pub fn rotate_node_authority(&self) -> Bare<'_, NodeAuthorityView> {
        let path = "/v1/sys/node-authority/rotate".to_owned();
        Call::route(self.transport(), Method::POST, path)
    }

    /// What the TPM of a node has to sign for it to join. Needs no credential.
    pub fn challenge_node<'a>(
        &'a self,
        request: &'a ChallengeRequest,
    ) -> Call<'a, &'a ChallengeRequest, ChallengeReply> {
        self.post("/v1/nodes/challenge", request)
    }

    /// Exchanges a node's one-time token, what its TPM says, or the certificate of its kubelet as the identity of this
    /// client, for its certificate. Needs no other credential.
    pub fn join_node<'a>(
        &'a self,
        request: &'a JoinRequest,
    ) -> Call<'a, &'a JoinRequest, NodeCertificateReply> {
        self.post("/v1/nodes/join", request)
    }

    /// The next certificate of the node whose certificate is the identity of this client.
    pub fn renew_node<'a>(
        &'a self,
        request: &'a RenewRequest,
    ) -> Call<'a, &'a RenewRequest, NodeCertificateReply> {
        self.post("/v1/nodes/renew", request)
    }

    /// The revocations in force.
    pub fn revocations(&self) -> Bare<'_, ListRevocationsReply> {
        Call::route(self.transport(), Method::GET, "/v1/sts/revocations".to_owned())
    }

    fn post<'a, B: serde::Serialize, R: serde::de::DeserializeOwned>(
        &'a self,
        path: &str,
        body: &'a B,
    ) -> Call<'a, &'a B, R> {
        Call::route(self.transport(), Method::POST, path.to_owned()).with_body(body)
    }
}
