//! The route table of the native dialect.
//!
//! Room      `http`. Router, OpenAPI document and coverage test all come from [`ROUTES`].
//! Holds     every handler here takes an `Admitted`, which only `auth_layer` makes. The types of
//!           request and reply in a row are the ones of its handler: the compiler compares.

use std::pin::Pin;

use http::Method;
use lastkey_wire::native::Empty;
use lastkey_wire::native::access::{
    CanReply, CanRequest, ClusterView, ListClustersReply, ListPoliciesReply, ListProvidersReply,
    ListRolesReply, PolicyView, ProviderView, ReplayReply, ReplayRequest, RoleView,
    SetClusterRequest, SetPolicyRequest, SetProviderRequest, SetRoleRequest, WhoCanReply,
    WhoCanRequest,
};
use lastkey_wire::native::aliases::{ListAliasesReply, SetAliasRequest};
use lastkey_wire::native::audit::{
    AddWitnessRequest, AuditCheckpointReply, AuditQuery, AuditReceiptReply, AuditRecordsReply,
    RemoveWitnessRequest, WitnessesReply,
};
use lastkey_wire::native::backups::{
    BackupView, CreateBackupRequest, ListBackupsReply, RemoveBackupRequest,
};
use lastkey_wire::native::batch::{BatchReply, BatchRequest};
use lastkey_wire::native::databases::{
    AddDatabaseRequest, AddDatabaseRoleRequest, DatabaseCredentialsReply, DatabaseRoleView,
    DatabaseView, EndLeaseRequest, LeaseView, ListDatabaseRolesReply, ListDatabasesReply,
    ListLeasesReply, MendReply,
};
use lastkey_wire::native::holdings::{
    DestroyVersionRequest, ForgetHoldingRequest, ImpactReply, ReportHoldingRequest,
};
use lastkey_wire::native::keys::{
    CreateKeyRequest, ImportParametersReply, ImportParametersRequest, ImportRequest, KeyView,
    ListKeysReply, PublicKeyReply, RemoveTagsRequest, RotationReply, ScheduleDeletionRequest,
    SetRotationRequest, SetTagsRequest, UpdateKeyRequest,
};
use lastkey_wire::native::leaks::{ConfirmLeaksReply, ConfirmLeaksRequest};
use lastkey_wire::native::nodes::{
    JoinTokenReply, ListNodesReply, NodeAuthorityView, NodeView, SetNodeRequest,
};
use lastkey_wire::native::operations::{
    DataKeyPairReply, DataKeyPairRequest, DataKeyReply, DataKeyRequest, DecryptReply,
    DecryptRequest, EncryptReply, EncryptRequest, MacReply, MacRequest, RandomReply, RandomRequest,
    ReencryptReply, ReencryptRequest, SignReply, SignRequest, VerifyMacReply, VerifyMacRequest,
    VerifyReply, VerifyRequest,
};
use lastkey_wire::native::query::{DryRunQuery, PageQuery, VersionQuery};
use lastkey_wire::native::rotation::{
    RotateSecretRequest, SecretRotationView, SetSecretRotationReply, SetSecretRotationRequest,
};
use lastkey_wire::native::seals::{DrillRequest, RotateSealsRequest, SealsReply, SetSealRequest};
use lastkey_wire::native::secrets::{
    DeleteSecretRequest, ListSecretVersionsReply, ListSecretsQuery, ListSecretsReply,
    PlaceStageRequest, PutSecretRequest, SecretConsumersReply, SecretValueQuery, SecretValueReply,
    SecretView, TransferSecretRequest, UpdateSecretRequest, WatchSecretsReply, WatchSecretsRequest,
};
use lastkey_wire::native::sessions::{
    ListRevocationsReply, RevocationView, RevokeRequest, WhoAmIReply,
};
use lastkey_wire::native::system::{ConfirmClockReply, SealReply};
use lastkey_wire::native::users::{
    AddUserRequest, EnrolmentReply, ListUsersReply, UpdateUserRequest, UserView,
};
use lastkey_wire::native::versions::{ListVersionsReply, VersionView};
use schemars::{Schema, SchemaGenerator};

use super::decode::{Input, RequestBody as _, with_body, with_query};
use super::encode::{answer, to_json};
use super::operations::{item_result, items};
use super::{
    access, aliases, audit, backups, busy, databases, holdings, keys, leaks, leases, nodes,
    operations, rotation, seals, secrets, sessions, system, users, versions,
};
use crate::answer::Answer;
use crate::auth_layer::Admitted;
use crate::problem::Problem;
use crate::router::Routed;

/// One route.
pub(crate) struct Route {
    /// Its method.
    pub(crate) method: Method,
    /// Its path, with parameters in braces.
    pub(crate) path: &'static str,
    /// The action that policy is asked about, as `core::permit` names it.
    pub(crate) action: &'static str,
    /// One sentence for the documents.
    pub(crate) summary: &'static str,
    /// What it reads.
    pub(crate) request: Source,
    /// What it answers.
    pub(crate) reply: Reply,
    /// Decodes, calls one use case, encodes.
    pub(crate) handler: Handler,
}

/// Gives the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Where a request comes from, besides the path.
pub(crate) enum Source {
    /// A JSON body, and `dry_run` in the query.
    Body(SchemaOf),
    /// The query string.
    Query(SchemaOf),
}

/// What an answer is, besides that to a dry run.
pub(crate) enum Reply {
    /// JSON.
    Json(SchemaOf),
    /// A file of the audit log: text, or a tile.
    LogFile,
}

/// Decodes at once, so that the future which does the rest stays small.
type Handler = fn(Admitted, Input) -> Result<Pending, Problem>;
type Pending = Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>>;

impl Routed for Route {
    fn method(&self) -> &Method {
        &self.method
    }

    fn path(&self) -> &'static str {
        self.path
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A route with a JSON body; `as` names the writer of a busy one's reply.
macro_rules! body {
    ($method:ident $path:literal, $action:literal, $handler:path, $body:ty => $reply:ty, $summary:literal) => {
        body!($method $path, $action, $handler, $body => $reply as to_json, $summary)
    };
    ($method:ident $path:literal, $action:literal, $handler:path, $body:ty => $reply:ty as $json:path, $summary:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            action: $action,
            summary: $summary,
            request: Source::Body(SchemaGenerator::subschema_for::<$body>),
            reply: Reply::Json(SchemaGenerator::subschema_for::<$reply>),
            handler: |admitted, input| {
                let (ask, body) = with_body::<$body>(admitted, input)?;
                Ok(Box::pin(async move {
                    let reply: Result<$reply, Problem> = $handler(&ask, body).await;
                    answer(&ask, reply, $json)
                }))
            },
        }
    };
}

/// A route without a body.
macro_rules! query {
    ($path:literal, $action:literal, $handler:path, $query:ty => $reply:ty, $summary:literal) => {
        Route {
            method: Method::GET,
            path: $path,
            action: $action,
            summary: $summary,
            request: Source::Query(SchemaGenerator::subschema_for::<$query>),
            reply: Reply::Json(SchemaGenerator::subschema_for::<$reply>),
            handler: |admitted, input| {
                let (ask, query) = with_query::<$query>(admitted, input)?;
                Ok(Box::pin(async move {
                    let reply: Result<$reply, Problem> = $handler(&ask, query).await;
                    answer(&ask, reply, to_json)
                }))
            },
        }
    };
}

/// Many operations of one kind in one request, done one after the other.
macro_rules! batch {
    ($path:literal, $action:literal, $handler:path, $body:ty => $reply:ty, $summary:literal) => {
        Route {
            method: Method::POST,
            path: $path,
            action: $action,
            summary: $summary,
            request: Source::Body(SchemaGenerator::subschema_for::<BatchRequest<$body>>),
            reply: Reply::Json(SchemaGenerator::subschema_for::<BatchReply<$reply>>),
            handler: |admitted, input| {
                let (ask, batch) = with_body::<BatchRequest<$body>>(admitted, input)?;
                let items = items(batch)?;
                Ok(Box::pin(async move {
                    let mut results = Vec::with_capacity(items.len());
                    for body in items {
                        let item = ask.item(body.is_dry());
                        let reply: Result<$reply, Problem> = $handler(&item, body).await;
                        results.push(item_result(&item, reply));
                        // A batch may take long: others get their turn, and so does the deadline.
                        tokio::task::yield_now().await;
                    }
                    Ok(Answer::json(to_json(&BatchReply { results })))
                }))
            },
        }
    };
}

/// All routes of the native dialect that need a token, the busiest first.
#[rustfmt::skip]
pub(crate) static ROUTES: &[Route] = &[
    body!(POST "/v1/encrypt", "kms:Encrypt", operations::encrypt, EncryptRequest => EncryptReply as busy::encrypt_reply,
        "Protects up to 65,536 bytes."),
    body!(POST "/v1/decrypt", "kms:Decrypt", operations::decrypt, DecryptRequest => DecryptReply as busy::decrypt_reply,
        "Recovers what was protected; the ciphertext names its key."),
    body!(POST "/v1/data-key", "kms:GenerateDataKey", operations::data_key, DataKeyRequest => DataKeyReply as busy::data_key_reply,
        "Draws a data key, in the clear and protected."),
    body!(POST "/v1/data-key-without-plaintext", "kms:GenerateDataKeyWithoutPlaintext", operations::data_key_without_plaintext, DataKeyRequest => EncryptReply as busy::encrypt_reply,
        "Draws a data key and answers its protected form only."),
    body!(POST "/v1/data-key-pair", "kms:GenerateDataKeyPair", operations::data_key_pair, DataKeyPairRequest => DataKeyPairReply,
        "Draws a key pair with its private half protected."),
    body!(POST "/v1/reencrypt", "kms:ReEncryptTo", operations::reencrypt, ReencryptRequest => ReencryptReply,
        "Moves a ciphertext to another key or context; the plaintext stays inside."),
    body!(POST "/v1/random", "kms:GenerateRandom", operations::random, RandomRequest => RandomReply,
        "Draws random bytes."),
    body!(POST "/v1/sign", "kms:Sign", operations::sign, SignRequest => SignReply,
        "Signs a message or its digest."),
    body!(POST "/v1/verify", "kms:Verify", operations::verify, VerifyRequest => VerifyReply,
        "Verifies a signature."),
    body!(POST "/v1/mac", "kms:GenerateMac", operations::mac, MacRequest => MacReply,
        "Generates a MAC."),
    body!(POST "/v1/verify-mac", "kms:VerifyMac", operations::verify_mac, VerifyMacRequest => VerifyMacReply,
        "Verifies a MAC."),
    batch!("/v1/batch/encrypt", "kms:Encrypt", operations::encrypt, EncryptRequest => EncryptReply,
        "Encrypts 1 to 256 items."),
    batch!("/v1/batch/decrypt", "kms:Decrypt", operations::decrypt, DecryptRequest => DecryptReply,
        "Decrypts 1 to 256 items."),
    batch!("/v1/batch/reencrypt", "kms:ReEncryptTo", operations::reencrypt, ReencryptRequest => ReencryptReply,
        "Re-encrypts 1 to 256 items."),
    batch!("/v1/batch/data-key", "kms:GenerateDataKey", operations::data_key, DataKeyRequest => DataKeyReply,
        "Draws 1 to 256 data keys."),
    batch!("/v1/batch/data-key-without-plaintext", "kms:GenerateDataKeyWithoutPlaintext", operations::data_key_without_plaintext, DataKeyRequest => EncryptReply,
        "Draws 1 to 256 data keys and answers their protected forms only."),
    body!(POST "/v1/keys", "kms:CreateKey", keys::create, CreateKeyRequest => KeyView,
        "Creates a key."),
    query!("/v1/keys", "kms:ListKeys", keys::list, PageQuery => ListKeysReply,
        "Lists keys."),
    query!("/v1/keys/{key}", "kms:DescribeKey", keys::describe, DryRunQuery => KeyView,
        "Describes a key."),
    body!(PATCH "/v1/keys/{key}", "kms:UpdateKey", keys::update, UpdateKeyRequest => KeyView,
        "Changes description or deletion protection."),
    body!(POST "/v1/keys/{key}/rotate", "kms:RotateKey", keys::rotate, Empty => KeyView,
        "Makes a new primary version."),
    query!("/v1/keys/{key}/rotation", "kms:DescribeKey", keys::rotation, DryRunQuery => RotationReply,
        "Shows automatic rotation."),
    body!(PUT "/v1/keys/{key}/rotation", "kms:UpdateRotation", keys::set_rotation, SetRotationRequest => RotationReply,
        "Sets automatic rotation."),
    body!(DELETE "/v1/keys/{key}/rotation", "kms:UpdateRotation", keys::stop_rotation, Empty => RotationReply,
        "Switches automatic rotation off."),
    body!(POST "/v1/keys/{key}/enable", "kms:EnableKey", keys::enable, Empty => KeyView,
        "Puts a disabled key back into use."),
    body!(POST "/v1/keys/{key}/disable", "kms:DisableKey", keys::disable, Empty => KeyView,
        "Holds a key back until it is enabled again."),
    body!(POST "/v1/keys/{key}/deactivate", "kms:DisableKey", keys::deactivate, Empty => KeyView,
        "Retires a key for good: it processes, and protects no more."),
    body!(POST "/v1/keys/{key}/compromise", "kms:MarkCompromised", keys::compromise, Empty => KeyView,
        "Marks a key as known to others."),
    body!(POST "/v1/keys/{key}/schedule-deletion", "kms:ScheduleKeyDeletion", keys::schedule_deletion, ScheduleDeletionRequest => KeyView,
        "Schedules the destruction of a key; nothing may use it until then."),
    body!(POST "/v1/keys/{key}/cancel-deletion", "kms:CancelKeyDeletion", keys::cancel_deletion, Empty => KeyView,
        "Calls a scheduled destruction off."),
    query!("/v1/keys/{key}/versions", "kms:DescribeKey", versions::list, PageQuery => ListVersionsReply,
        "Lists the versions of a key."),
    query!("/v1/keys/{key}/versions/{version}", "kms:DescribeKey", versions::describe, DryRunQuery => VersionView,
        "Describes a version."),
    body!(POST "/v1/keys/{key}/versions/{version}/make-primary", "kms:RotateKey", versions::make_primary, Empty => VersionView,
        "Makes a version the primary one again, in a new activation generation."),
    body!(POST "/v1/keys/{key}/versions/{version}/shadow-disable", "kms:UpdateKeyVersion", versions::shadow_disable, Empty => VersionView,
        "Refuses and counts any use of a version; can be undone."),
    body!(POST "/v1/keys/{key}/versions/{version}/enable", "kms:UpdateKeyVersion", versions::enable, Empty => VersionView,
        "Undoes a shadow-disable."),
    body!(POST "/v1/keys/{key}/versions/{version}/compromise", "kms:MarkCompromised", versions::compromise, Empty => VersionView,
        "Marks a version as known to others."),
    body!(POST "/v1/keys/{key}/versions/{version}/destroy", "kms:DestroyKeyVersion", versions::destroy, DestroyVersionRequest => VersionView,
        "Destroys a version that is shadow-disabled or compromised."),
    query!("/v1/keys/{key}/impact", "kms:DescribeKey", holdings::impact, DryRunQuery => ImpactReply,
        "Tells what depends on a key, as far as the server knows."),
    body!(PUT "/v1/keys/{key}/holdings/{place}", "kms:ReportHolding", holdings::report, ReportHoldingRequest => Empty,
        "Reports what a place outside holds under a key; that is not destroyed then."),
    body!(DELETE "/v1/keys/{key}/holdings/{place}", "kms:OverrideHolding", holdings::forget, ForgetHoldingRequest => Empty,
        "Forgets what a place was reported to hold under a key."),
    query!("/v1/keys/{key}/public-key", "kms:GetPublicKey", keys::public_key, VersionQuery => PublicKeyReply,
        "Answers the public half of a key."),
    body!(POST "/v1/keys/{key}/import-parameters", "kms:GetParametersForImport", keys::import_parameters, ImportParametersRequest => ImportParametersReply,
        "Hands out a wrapping key and a token for import, good for 24 hours."),
    body!(POST "/v1/keys/{key}/import", "kms:ImportKeyMaterial", keys::import, ImportRequest => KeyView,
        "Imports wrapped material."),
    body!(PUT "/v1/keys/{key}/tags", "kms:TagKey", keys::set_tags, SetTagsRequest => KeyView,
        "Sets tags; others stay."),
    body!(DELETE "/v1/keys/{key}/tags", "kms:TagKey", keys::remove_tags, RemoveTagsRequest => KeyView,
        "Removes tags."),
    query!("/v1/aliases", "kms:ListKeys", aliases::list, PageQuery => ListAliasesReply,
        "Lists aliases."),
    body!(PUT "/v1/aliases/{alias}", "kms:UpdateAlias", aliases::set, SetAliasRequest => KeyView,
        "Lets an alias name a key."),
    body!(DELETE "/v1/aliases/{alias}", "kms:UpdateAlias", aliases::delete, Empty => Empty,
        "Removes an alias."),
    query!("/v1/secrets", "secrets:ListSecrets", secrets::list, ListSecretsQuery => ListSecretsReply,
        "Lists the secrets in a path; searches by name, tag and age."),
    query!("/v1/secrets/{secret}", "secrets:DescribeSecret", secrets::describe, DryRunQuery => SecretView,
        "Describes a secret, without its values."),
    body!(PUT "/v1/secrets/{secret}", "secrets:PutSecret", secrets::put, PutSecretRequest => SecretView,
        "Writes a version of a secret, and makes the secret if there is none."),
    body!(PATCH "/v1/secrets/{secret}", "secrets:UpdateSecret", secrets::update, UpdateSecretRequest => SecretView,
        "Changes description, tags or the number of versions that are kept."),
    body!(DELETE "/v1/secrets/{secret}", "secrets:DeleteSecret", secrets::delete, DeleteSecretRequest => SecretView,
        "Deletes a secret; it can be restored until its window ends."),
    query!("/v1/secrets/{secret}/value", "secrets:GetSecret", secrets::read, SecretValueQuery => SecretValueReply,
        "Reads the value of a version."),
    query!("/v1/secrets/{secret}/versions", "secrets:DescribeSecret", secrets::versions, DryRunQuery => ListSecretVersionsReply,
        "Lists the versions of a secret, without their values."),
    query!("/v1/secrets/{secret}/consumers", "secrets:DescribeSecret", secrets::consumers, DryRunQuery => SecretConsumersReply,
        "Lists the pods that hold a version of a secret, as their nodes say."),
    body!(POST "/v1/secrets/{secret}/versions/{version}/destroy", "secrets:DestroySecret", secrets::destroy_version, Empty => SecretView,
        "Destroys the value of a version that is not current."),
    body!(PUT "/v1/secrets/{secret}/stages/{stage}", "secrets:UpdateSecret", secrets::place, PlaceStageRequest => SecretView,
        "Puts a version at a stage; what was current becomes previous."),
    body!(DELETE "/v1/secrets/{secret}/stages/{stage}", "secrets:UpdateSecret", secrets::unplace, Empty => SecretView,
        "Takes a stage away from the version that stands there."),
    body!(POST "/v1/secrets/{secret}/restore", "secrets:RestoreSecret", secrets::restore, Empty => SecretView,
        "Restores a deleted secret."),
    body!(POST "/v1/secrets/{secret}/destroy", "secrets:DestroySecret", secrets::destroy, Empty => Empty,
        "Destroys a secret with all its versions, at once."),
    body!(POST "/v1/secrets/{secret}/copy", "secrets:PutSecret", secrets::copy, TransferSecretRequest => SecretView,
        "Copies the current value to another name; it stays in the server."),
    body!(POST "/v1/secrets/{secret}/move", "secrets:DeleteSecret", secrets::rename, TransferSecretRequest => SecretView,
        "Moves a secret with all its versions to another name."),
    query!("/v1/secrets/{secret}/rotation", "secrets:DescribeSecret", rotation::describe, DryRunQuery => SecretRotationView,
        "How a secret rotates, and how the last rotation ended."),
    body!(PUT "/v1/secrets/{secret}/rotation", "secrets:UpdateSecretRotation", rotation::set, SetSecretRotationRequest => SetSecretRotationReply,
        "Says how and when a secret rotates."),
    body!(DELETE "/v1/secrets/{secret}/rotation", "secrets:UpdateSecretRotation", rotation::remove, Empty => Empty,
        "Ends the rotation of a secret; versions stay as they are."),
    body!(POST "/v1/secrets/{secret}/rotate", "secrets:RotateSecret", rotation::rotate, RotateSecretRequest => SecretRotationView,
        "Rotates a secret now."),
    query!("/v1/databases", "secrets:ReadDatabases", databases::list, PageQuery => ListDatabasesReply,
        "Lists the databases whose accounts are managed."),
    query!("/v1/databases/{name}", "secrets:ReadDatabases", databases::describe, DryRunQuery => DatabaseView,
        "Describes a database; never a password."),
    body!(PUT "/v1/databases/{name}", "secrets:UpdateDatabase", databases::add, AddDatabaseRequest => DatabaseView,
        "Makes a database known; its root account gets a password that nobody else knows."),
    body!(POST "/v1/databases/{name}/rotate-root", "secrets:UpdateDatabase", databases::rotate_root, Empty => DatabaseView,
        "Draws a new password for the root account of a database."),
    body!(DELETE "/v1/databases/{name}", "secrets:UpdateDatabase", databases::remove, Empty => Empty,
        "Forgets a database; its accounts stay as they are."),
    body!(POST "/v1/databases/{name}/mend", "secrets:UpdateDatabase", leases::mend, Empty => MendReply,
        "Compares a database with its leases, and mends what is amiss."),
    query!("/v1/database-roles", "secrets:ReadDatabaseRoles", leases::list_roles, PageQuery => ListDatabaseRolesReply,
        "Lists what accounts of databases are made like."),
    query!("/v1/database-roles/{name}", "secrets:ReadDatabaseRoles", leases::describe_role, DryRunQuery => DatabaseRoleView,
        "Describes a role of a database."),
    body!(PUT "/v1/database-roles/{name}", "secrets:UpdateDatabaseRole", leases::add_role, AddDatabaseRoleRequest => DatabaseRoleView,
        "Makes a role of a database, after the database has tried it."),
    body!(DELETE "/v1/database-roles/{name}", "secrets:UpdateDatabaseRole", leases::remove_role, Empty => Empty,
        "Removes a role of a database; its leases end and their accounts are dropped."),
    body!(POST "/v1/database-roles/{name}/credentials", "secrets:GetDatabaseCredentials", leases::issue, Empty => DatabaseCredentialsReply,
        "An account of the database for the caller; a pod is given the same one again, and that lives on."),
    query!("/v1/database-roles/{name}/leases", "secrets:ReadDatabaseRoles", leases::list, PageQuery => ListLeasesReply,
        "Lists the leases of a role; never a password."),
    body!(POST "/v1/database-roles/{name}/leases/{lease}/renew", "secrets:GetDatabaseCredentials", leases::renew, Empty => LeaseView,
        "Lets a lease of the caller's own live on."),
    body!(DELETE "/v1/database-roles/{name}/leases/{lease}", "secrets:RevokeDatabaseCredentials", leases::end, EndLeaseRequest => Empty,
        "Ends a lease and drops its account; a holder may end his own."),
    body!(POST "/v1/watch/secrets", "secrets:ListSecrets", secrets::watch, WatchSecretsRequest => WatchSecretsReply,
        "Waits until one of these secrets has another current version."),
    body!(POST "/v1/confirm/leaks", "secrets:ConfirmLeak", leaks::confirm, ConfirmLeaksRequest => ConfirmLeaksReply,
        "Says whether what a scanner has seen is a value of a secret."),
    body!(POST "/v1/sys/seal", "sys:Seal", system::seal, Empty => SealReply,
        "Seals the server: every key leaves its memory."),
    body!(POST "/v1/sys/clock/confirm", "sys:ConfirmClock", system::confirm_clock, Empty => ConfirmClockReply,
        "Says that the wall clock is right after a jump."),
    query!("/v1/sys/seals", "sys:ReadSeals", seals::list, DryRunQuery => SealsReply,
        "Lists the seals, what is known of each, and what one loss would cost."),
    body!(POST "/v1/sys/seals", "sys:UpdateSeals", seals::add, SetSealRequest => SealsReply,
        "Adds a seal."),
    body!(PUT "/v1/sys/seals/{seal}", "sys:UpdateSeals", seals::replace, SetSealRequest => SealsReply,
        "Puts a seal in the place of one, for example of a passphrase that changes."),
    body!(DELETE "/v1/sys/seals/{seal}", "sys:UpdateSeals", seals::remove, Empty => SealsReply,
        "Removes a seal; root and storage keys are drawn anew."),
    body!(POST "/v1/sys/seals/rotate", "sys:UpdateSeals", seals::rotate, RotateSealsRequest => SealsReply,
        "Draws a new root key, and a new storage key when asked to."),
    body!(POST "/v1/sys/seals/drill", "sys:DrillSeals", seals::drill, DrillRequest => SealsReply,
        "Opens every seal that can be opened now."),
    body!(POST "/v1/sys/seals/accept-weakness", "sys:UpdateSeals", seals::accept, Empty => SealsReply,
        "Records that a configuration in which one loss is fatal is meant."),
    query!("/v1/sys/backups", "sys:ReadBackups", backups::list, DryRunQuery => ListBackupsReply,
        "Lists the backups, newest first."),
    body!(POST "/v1/sys/backups", "sys:CreateBackup", backups::create, CreateBackupRequest => BackupView,
        "Begins a backup; it counts when its state is `proven`."),
    query!("/v1/sys/backups/{backup}", "sys:ReadBackups", backups::describe, DryRunQuery => BackupView,
        "Describes a backup."),
    body!(DELETE "/v1/sys/backups/{backup}", "sys:RemoveBackup", backups::remove, RemoveBackupRequest => Empty,
        "Takes a backup away, or forgets one that is gone."),
    query!("/v1/sys/clusters", "sys:ReadClusters", access::list_clusters, PageQuery => ListClustersReply,
        "Lists the clusters whose tokens are taken."),
    query!("/v1/sys/clusters/{name}", "sys:ReadClusters", access::describe_cluster, DryRunQuery => ClusterView,
        "Describes a cluster."),
    body!(PUT "/v1/sys/clusters/{name}", "sys:UpdateCluster", access::set_cluster, SetClusterRequest => ClusterView,
        "Names a cluster whose tokens are taken, or changes it."),
    body!(DELETE "/v1/sys/clusters/{name}", "sys:UpdateCluster", access::remove_cluster, Empty => Empty,
        "Takes no more tokens of a cluster."),
    query!("/v1/sys/nodes", "sys:ReadNodes", nodes::list, PageQuery => ListNodesReply,
        "Lists nodes."),
    query!("/v1/sys/nodes/{name}", "sys:ReadNodes", nodes::describe, DryRunQuery => NodeView,
        "Describes a node."),
    body!(PUT "/v1/sys/nodes/{name}", "sys:UpdateNode", nodes::invite, SetNodeRequest => JoinTokenReply,
        "Makes a node known, and hands out the token that it joins with."),
    body!(DELETE "/v1/sys/nodes/{name}", "sys:UpdateNode", nodes::remove, Empty => Empty,
        "Removes a node; its certificate is void at once."),
    body!(POST "/v1/sys/node-authority/rotate", "sys:RotateNodeAuthority", nodes::rotate_authority, Empty => NodeAuthorityView,
        "Lets a new authority sign the certificates of nodes; those of the one before are good until they end."),
    query!("/v1/iam/providers", "iam:ReadProviders", access::list_providers, PageQuery => ListProvidersReply,
        "Lists other providers of identities."),
    query!("/v1/iam/providers/{name}", "iam:ReadProviders", access::describe_provider, DryRunQuery => ProviderView,
        "Describes a provider of identities."),
    body!(PUT "/v1/iam/providers/{name}", "iam:UpdateProvider", access::set_provider, SetProviderRequest => ProviderView,
        "Names a provider of identities, or changes it."),
    body!(DELETE "/v1/iam/providers/{name}", "iam:UpdateProvider", access::remove_provider, Empty => Empty,
        "Takes no more tokens of a provider."),
    query!("/v1/iam/roles", "iam:ReadRoles", access::list_roles, PageQuery => ListRolesReply,
        "Lists roles."),
    query!("/v1/iam/roles/{name}", "iam:ReadRoles", access::describe_role, DryRunQuery => RoleView,
        "Describes a role."),
    body!(PUT "/v1/iam/roles/{name}", "iam:UpdateRole", access::set_role, SetRoleRequest => RoleView,
        "Makes a role, or changes it."),
    body!(DELETE "/v1/iam/roles/{name}", "iam:UpdateRole", access::remove_role, Empty => Empty,
        "Removes a role."),
    query!("/v1/iam/policies", "iam:ReadPolicies", access::list_policies, PageQuery => ListPoliciesReply,
        "Lists policies."),
    query!("/v1/iam/policies/{name}", "iam:ReadPolicies", access::describe_policy, DryRunQuery => PolicyView,
        "Describes a policy."),
    query!("/v1/iam/policies/{name}/versions", "iam:ReadPolicies", access::policy_versions, DryRunQuery => ListPoliciesReply,
        "Lists what a policy was before."),
    body!(PUT "/v1/iam/policies/{name}", "iam:UpdatePolicy", access::set_policy, SetPolicyRequest => PolicyView,
        "Writes a policy."),
    body!(DELETE "/v1/iam/policies/{name}", "iam:UpdatePolicy", access::remove_policy, Empty => Empty,
        "Removes a policy."),
    query!("/v1/iam/users", "iam:ReadUsers", users::list_users, PageQuery => ListUsersReply,
        "Lists people."),
    body!(POST "/v1/iam/users", "iam:UpdateUser", users::add_user, AddUserRequest => EnrolmentReply,
        "Makes a person known; answers the code with which he enrols."),
    query!("/v1/iam/users/{name}", "iam:ReadUsers", users::describe_user, DryRunQuery => UserView,
        "Describes a person."),
    body!(PATCH "/v1/iam/users/{name}", "iam:UpdateUser", users::update_user, UpdateUserRequest => UserView,
        "Changes a person's groups, keeps him out or lets him in again."),
    body!(DELETE "/v1/iam/users/{name}", "iam:UpdateUser", users::remove_user, Empty => Empty,
        "Forgets a person and ends his sessions."),
    body!(POST "/v1/iam/users/{name}/enrolment", "iam:UpdateUser", users::renew_enrolment, Empty => EnrolmentReply,
        "Lets a person enrol anew; his password and second factor are void."),
    body!(POST "/v1/iam/can", "iam:ReadPolicies", access::can, CanRequest => CanReply,
        "Whether somebody may do something, and why."),
    body!(POST "/v1/iam/who-can", "iam:ReadPolicies", access::who_can, WhoCanRequest => WhoCanReply,
        "Everybody who may do something."),
    body!(POST "/v1/iam/replay", "iam:ReadPolicies", access::replay, ReplayRequest => ReplayReply,
        "Puts the calls of the last days to a policy before it is written."),
    query!("/v1/sts/whoami", "iam:ReadPolicies", sessions::who_am_i, DryRunQuery => WhoAmIReply,
        "Tells the caller who he is."),
    body!(POST "/v1/sts/revoke", "iam:RevokeSessions", sessions::revoke, RevokeRequest => RevocationView,
        "Ends sessions before their time."),
    query!("/v1/sts/revocations", "iam:ReadRoles", sessions::revocations, DryRunQuery => ListRevocationsReply,
        "Lists the revocations that are in force."),
    query!("/v1/audit/records", "audit:Read", audit::records, AuditQuery => AuditRecordsReply,
        "Searches the audit log."),
    query!("/v1/audit/records/{record}/receipt", "audit:Read", audit::receipt, DryRunQuery => AuditReceiptReply,
        "Proves that a record is in the audit log."),
    query!("/v1/audit/checkpoint", "audit:Read", audit::checkpoint, DryRunQuery => AuditCheckpointReply,
        "Signs a checkpoint of the audit log, and names the key that signs."),
    Route {
        method: Method::GET,
        path: "/v1/audit/tlog/{+file}",
        action: "audit:Read",
        summary: "The audit log as static files: `checkpoint`, `tile/...` (C2SP tlog-tiles).",
        request: Source::Query(SchemaGenerator::subschema_for::<DryRunQuery>),
        reply: Reply::LogFile,
        handler: |admitted, input| {
            let (ask, _) = with_query::<DryRunQuery>(admitted, input)?;
            Ok(Box::pin(async move {
                match audit::tlog(&ask).await {
                    Ok(answer) => Ok(answer),
                    Err(problem) => answer(&ask, Err::<String, _>(problem), to_json),
                }
            }))
        },
    },
    query!("/v1/audit/witnesses", "audit:Read", audit::witnesses, DryRunQuery => WitnessesReply,
        "Lists who witnesses this log, and which logs it witnesses."),
    body!(POST "/v1/audit/witnesses", "audit:UpdateWitness", audit::add_witness, AddWitnessRequest => WitnessesReply,
        "Names a witness of this log, or a log to be witnessed here."),
    body!(DELETE "/v1/audit/witnesses", "audit:UpdateWitness", audit::remove_witness, RemoveWitnessRequest => WitnessesReply,
        "Removes a witness, or a log that is witnessed here."),
];

#[cfg(test)]
mod tests {
    use lastkey_core::permit::ALL_ACTIONS;

    use super::*;

    #[test]
    fn every_route_asks_policy_about_an_action_that_there_is() {
        for route in ROUTES {
            assert!(ALL_ACTIONS.iter().any(|(name, _)| *name == route.action), "{route:?}");
        }
    }

    #[test]
    fn no_route_stands_twice() {
        for (place, route) in ROUTES.iter().enumerate() {
            let same = |r: &&Route| r.method == route.method && r.path == route.path;
            assert_eq!(ROUTES.iter().position(|r| same(&r)), Some(place), "{route:?}");
        }
    }
}
