//! Clusters, providers, roles, policies and sessions, for people.
//!
//! Room      `lastkey`.
//! Holds     a credential is printed where it was asked for and nowhere else.

use lastkey_wire::native::{
    access::{
        CanReply, ClusterView, ListClustersReply, ListPoliciesReply, ListProvidersReply,
        ListRolesReply, PolicyView, ProviderView, ReplayReply, ReplayedCall, RoleView,
        WhoCanAnswer, WhoCanReply,
    },
    audit::{AuditField, AuditRecord},
    nodes::{JoinTokenReply, ListNodesReply, NodeAuthorityView, NodeCertificateReply, NodeView},
    sessions::{
        BurnReply, EnrolReply, ListRevocationsReply, RevocationView, RevokeKind, TokenReply,
        WhoAmIReply,
    },
    users::{EnrolmentReply, ListUsersReply, UserView},
};

use serde::Serialize;

use crate::cli::{
    failure::printable,
    table::{Fields, Show, grid},
};

impl Show for ClusterView {
    fn table(&self) -> String {
        Fields::new()
            .with("Cluster", &self.name)
            .with("Issuers", self.issuers.join(", "))
            .with("Audiences", self.audiences.join(", "))
            .with("Keys", self.key_ids.join(", "))
            .with_some("Fetched from", self.jwks_url.as_deref())
            .with("Longest token", format!("{} s", self.max_token_seconds))
            .with_some(
                "Kubelets by",
                (!self.kubelet_authorities.is_empty()).then(|| self.kubelet_authorities.join(", ")),
            )
            .with("Created", &self.created_at)
            .table()
    }
}

impl Show for ListClustersReply {
    fn table(&self) -> String {
        let row = |one: &ClusterView| {
            vec![one.name.clone(), one.issuers.join(", "), one.audiences.join(", ")]
        };
        grid(&["CLUSTER", "ISSUERS", "AUDIENCES"], self.clusters.iter().map(row))
    }
}

impl Show for NodeView {
    fn table(&self) -> String {
        Fields::new()
            .with("Node", &self.name)
            .with_some("Cluster", self.cluster.as_deref())
            .with_some("Certificate", self.certificate.as_deref())
            .with_some("Signed", self.issued_at.as_deref())
            .with_some("Ends", self.expires_at.as_deref())
            .with("Join token", if self.may_join { "not used yet" } else { "none" })
            .with_some("TPM", self.tpm_key.as_deref())
            .with("Created", &self.created_at)
            .table()
    }
}

impl Show for ListNodesReply {
    fn table(&self) -> String {
        let row = |one: &NodeView| {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            vec![one.name.clone(), or_none(&one.cluster), or_none(&one.expires_at)]
        };
        grid(&["NODE", "CLUSTER", "CERTIFICATE ENDS"], self.nodes.iter().map(row))
    }
}

impl Show for JoinTokenReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Node", &self.node.name)
            .with_some("Cluster", self.node.cluster.as_deref())
            .with_some("TPM", self.node.tpm_key.as_deref())
            .with_some("Join token", self.join_token.as_ref().map(text))
            .with_some("Good for", self.expires_in.map(|all| format!("{} minutes, once", all / 60)))
            .table()
    }
}

impl Show for NodeAuthorityView {
    fn table(&self) -> String {
        Fields::new()
            .with("Authority", &self.authority)
            .with("Made", &self.created_at)
            .with_some("Before it", self.previous.as_deref())
            .with_some("Which counts until", self.previous_until.as_deref())
            .table()
    }
}

impl Show for NodeCertificateReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Node", &self.name)
            .with("SPIFFE id", &self.spiffe_id)
            .with("Ends", &self.expires_at)
            .table()
    }
}

impl Show for ProviderView {
    fn table(&self) -> String {
        Fields::new()
            .with("Provider", &self.name)
            .with_some("Issuer", self.issuer.as_deref())
            .with("Audiences", self.audiences.join(", "))
            .with_some("Trust domain", self.trust_domain.as_deref())
            .with("Keys", [&self.key_ids[..], &self.authorities].concat().join(", "))
            .with_some("Fetched from", self.jwks_url.as_deref())
            .with("Claim of the subject", &self.subject_claim)
            .with("Claim of the groups", &self.groups_claim)
            .with("Created", &self.created_at)
            .table()
    }
}

impl Show for ListProvidersReply {
    fn table(&self) -> String {
        let row = |one: &ProviderView| {
            let whose = one.issuer.as_ref().or(one.trust_domain.as_ref());
            let whose = whose.cloned().unwrap_or_default();
            vec![one.name.clone(), whose, one.audiences.join(", ")]
        };
        grid(&["PROVIDER", "ISSUER OR TRUST DOMAIN", "AUDIENCES"], self.providers.iter().map(row))
    }
}

/// Who may take a role, in words.
fn holders(role: &RoleView) -> String {
    match (&role.cluster, &role.provider) {
        (Some(cluster), _) => {
            let (namespaces, accounts) =
                (role.namespaces.join(", "), role.service_accounts.join(", "));
            let bound = if role.allow_without_pod { ", also without a pod" } else { "" };
            format!("ServiceAccounts {accounts} of {namespaces} in cluster {cluster}{bound}")
        }
        (None, Some(_)) if !role.spiffe_ids.is_empty() => role.spiffe_ids.join(", "),
        (None, Some(provider)) => {
            let claims = role.claims.iter().flat_map(|claims| &claims.0);
            let claims: Vec<_> = claims.map(|(claim, value)| format!("{claim}={value}")).collect();
            format!("{provider} with {}", claims.join(", "))
        }
        (None, None) => String::new(),
    }
}

impl Show for RoleView {
    fn table(&self) -> String {
        let agent = self.by_node_agent.then_some("only by the agent on the pod's own node");
        let about = Fields::new()
            .with("Role", &self.name)
            .with("For", holders(self))
            .with("Longest session", format!("{} s", self.max_session_seconds))
            .with_some("Presented", agent)
            .with("Created", &self.created_at)
            .with("Policy version", self.policy_version)
            .table();
        format!("{about}\n{}", self.policy)
    }
}

impl Show for ListRolesReply {
    fn table(&self) -> String {
        let row = |one: &RoleView| {
            let longest = format!("{} s", one.max_session_seconds);
            vec![one.name.clone(), holders(one), longest]
        };
        grid(&["ROLE", "FOR", "LONGEST SESSION"], self.roles.iter().map(row))
    }
}

impl Show for PolicyView {
    fn table(&self) -> String {
        Fields::new()
            .with("Policy", &self.name)
            .with("Version", self.version)
            .with("Changed", &self.changed_at)
            .with("By", &self.changed_by)
            .table()
    }
}

impl Show for ListPoliciesReply {
    fn table(&self) -> String {
        let row = |one: &PolicyView| {
            let version = one.version.to_string();
            vec![one.name.clone(), version, one.changed_at.clone(), one.changed_by.clone()]
        };
        grid(&["POLICY", "VERSION", "CHANGED", "BY"], self.policies.iter().map(row))
    }
}

impl Show for CanReply {
    fn table(&self) -> String {
        let verdict = if self.allowed { "yes" } else { "no" };
        let mut lines = format!("{verdict}\n");
        for line in &self.why {
            lines.push_str(&printable(line));
            lines.push('\n');
        }
        lines
    }
}

/// What became of a request.
#[derive(Serialize)]
pub(super) struct Explained {
    /// Its records, the oldest first.
    pub(super) records: Vec<AuditRecord>,
    /// What policy says of such a call now; for refused ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy_says_now: Option<Vec<String>>,
}

impl Show for Explained {
    fn table(&self) -> String {
        let mut all = String::new();
        for AuditRecord { index, record } in &self.records {
            let field = |name: &str| match record.get(name) {
                Some(AuditField::Text(text)) => Some(text.clone()),
                Some(AuditField::Number(number)) => Some(number.to_string()),
                Some(_) | None => None,
            };
            all.push_str(
                &Fields::new()
                    .with("Record", index)
                    .with_some("Who", field("who"))
                    .with_some("Role", field("role"))
                    .with_some("From", field("from"))
                    .with_some("Action", field("action"))
                    .with_some("Key", field("key"))
                    .with_some("Version", field("version"))
                    .with_some("On", field("target"))
                    .with_some("Result", field("result"))
                    .with_some("Why", field("reason"))
                    .table(),
            );
            all.push('\n');
        }
        if let Some(lines) = &self.policy_says_now {
            all.push_str("As policies stand now, without an encryption context:\n");
            for line in lines {
                all.push_str(&printable(line));
                all.push('\n');
            }
        }
        all
    }
}

impl Show for WhoCanReply {
    fn table(&self) -> String {
        let row = |one: &WhoCanAnswer| {
            vec![one.principal.clone(), one.conditions.join("; "), one.policy.clone()]
        };
        let mut text = grid(&["WHO MAY", "WHEN", "POLICY"], self.may.iter().map(row));
        if !self.may_not.is_empty() {
            let may_not = grid(&["WHO MAY NOT", "WHEN", "POLICY"], self.may_not.iter().map(row));
            text.push_str(&format!("\n{may_not}"));
        }
        if !self.by_kubernetes.is_empty() {
            text.push_str("\nBeside these, as Kubernetes has it:\n");
            self.by_kubernetes.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text
    }
}

impl Show for ReplayReply {
    fn table(&self) -> String {
        let count = |calls: u64, what: &str| match calls {
            1 => format!("1 call would have been {what}"),
            calls => format!("{calls} calls would have been {what}"),
        };
        let mut text = format!(
            "Of {} calls, {}, and {}.\n",
            self.calls,
            count(self.would_refuse, "refused"),
            count(self.would_allow, "allowed")
        );
        if self.not_judged > 0 {
            let left = self.not_judged;
            text.push_str(&format!("{left} cannot be decided again from what the log has.\n"));
        }
        if self.cut {
            text.push_str("Older calls were not looked at.\n");
        }
        if self.changes.is_empty() {
            return text;
        }
        let row = |one: &ReplayedCall| {
            let would = if one.would_allow { "allow" } else { "refuse" };
            let key = one.key.clone().unwrap_or_default();
            let (at, who, action) = (one.at.clone(), one.who.clone(), one.action.clone());
            vec![at, who, action, key, would.to_owned(), one.why.clone()]
        };
        let head = ["AT", "WHO", "ACTION", "KEY", "WOULD", "WHY"];
        format!("{text}{}", grid(&head, self.changes.iter().map(row)))
    }
}

/// How far a person has come.
const fn standing(user: &UserView) -> &'static str {
    match (user.disabled, user.enrolled) {
        (true, _) => "kept out",
        (false, true) => "enrolled",
        (false, false) => "not enrolled",
    }
}

impl Show for UserView {
    fn table(&self) -> String {
        Fields::new()
            .with("Person", &self.name)
            .with("Groups", self.groups.join(", "))
            .with("Standing", standing(self))
            .with("Made known", &self.created_at)
            .table()
    }
}

impl Show for ListUsersReply {
    fn table(&self) -> String {
        let row = |one: &UserView| {
            vec![one.name.clone(), standing(one).to_owned(), one.groups.join(", ")]
        };
        grid(&["PERSON", "STANDING", "GROUPS"], self.users.iter().map(row))
    }
}

impl Show for EnrolmentReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Person", &self.user.name)
            .with("Groups", self.user.groups.join(", "))
            .with("Enrolment code", text(&self.enrolment_code))
            .with("Good for", format!("{} s", self.expires_in))
            .table()
    }
}

impl Show for EnrolReply {
    fn table(&self) -> String {
        let groups = self.enrolled.then(|| self.groups.join(", "));
        Fields::new()
            .with("Person", &self.user)
            .with("Enrolled", if self.enrolled { "yes" } else { "not yet" })
            .with_some("For the authenticator", self.otpauth_uri.as_ref().map(text))
            .with_some("Groups", groups)
            .table()
    }
}

/// A secret that is printed because it was asked for.
fn text(secret: &lastkey_wire::SecretText) -> String {
    secret.0.expose(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

impl Show for TokenReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Principal", &self.principal)
            .with_some("Role", self.role.as_ref())
            .with("Expires", &self.expiration)
            .with("Token", text(&self.access_token))
            .with("Access key id", &self.access_key_id)
            .with("Secret access key", text(&self.secret_access_key))
            .with("Session token", text(&self.session_token))
            .table()
    }
}

impl Show for WhoAmIReply {
    fn table(&self) -> String {
        Fields::new()
            .with("Principal", &self.principal)
            .with_some("Role", self.role.as_ref())
            .with_some("Session", self.session.as_ref())
            .with_some("Expires", self.expiration.as_ref())
            .table()
    }
}

const fn kind(kind: RevokeKind) -> &'static str {
    match kind {
        RevokeKind::Session => "session",
        RevokeKind::Pod => "pod",
        RevokeKind::ServiceAccount => "ServiceAccount",
        RevokeKind::Node => "node",
        RevokeKind::Role => "role",
        RevokeKind::Cluster => "cluster",
        RevokeKind::User => "person",
        RevokeKind::Everything => "everything",
    }
}

impl Show for RevocationView {
    fn table(&self) -> String {
        Fields::new()
            .with("Revoked", kind(self.kind))
            .with_some("Which", self.value.as_ref())
            .with("Opened until", &self.issued_until)
            .table()
    }
}

impl Show for ListRevocationsReply {
    fn table(&self) -> String {
        let row = |one: &RevocationView| {
            let which = one.value.clone().unwrap_or_default();
            vec![kind(one.kind).to_owned(), which, one.issued_until.clone()]
        };
        grid(&["REVOKED", "WHICH", "OPENED UNTIL"], self.revocations.iter().map(row))
    }
}

impl Show for BurnReply {
    fn table(&self) -> String {
        let said = if self.burned {
            "The credential is void."
        } else {
            "This is no credential of this server, or it is void already."
        };
        format!("{said}\n")
    }
}
