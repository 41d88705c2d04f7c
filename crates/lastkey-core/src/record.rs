//! What the store keeps, and where: one path for each record, one type for each kind.
//!
//! Room      `core`. The bytes of a record are the business of `store`.
//! Holds     paths are built here alone, so two kinds of record can never share one.

use core::fmt;

use crate::access::{
    Cluster, Node, NodeAuthority, Policy, Provider, Revocation, RevokedWhat, Role, SessionEpoch,
    User,
};
use crate::audit::archive::LogHead;
use crate::backup::{BackupId, BackupRecord, Tombstone};
use crate::database::Database;
use crate::holding::{Holding, Inventory};
use crate::ids::{AliasName, KeyId, Name, VersionNo};
use crate::key::Key;
use crate::lease::{DatabaseRole, Lease, LeaseId};
use crate::principal::Principal;
use crate::seal_record::SealBook;
use crate::secret_item::{SecretDue, SecretId, SecretItem, SecretName, SecretPath, SecretVersion};
use crate::secret_rotation::{RotationDue, SecretRotation};
use crate::time::{ClockRecord, Elapsed, Timestamp};
use crate::version::{KeyVersion, Usage, WrappedKey};

/// Where a record lies. Ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPath(String);

impl RecordPath {
    /// A key.
    #[must_use]
    pub fn key(id: KeyId) -> Self {
        Self(format!("key/{id}"))
    }

    /// One version of a key.
    #[must_use]
    pub fn version(id: KeyId, number: VersionNo) -> Self {
        Self(format!("version/{id}/{:010}", number.number()))
    }

    /// The usage of one version.
    #[must_use]
    pub fn usage(id: KeyId, number: VersionNo) -> Self {
        Self(format!("usage/{id}/{:010}", number.number()))
    }

    /// An alias.
    #[must_use]
    pub fn alias(alias: &AliasName) -> Self {
        Self(alias.as_str().to_owned())
    }

    /// A due time. Due records sort by time.
    #[must_use]
    pub fn due(due: Due) -> Self {
        Self(format!("due/{:020}/{}/{}", due.at.0, due.what.as_str(), due.key))
    }

    /// Sorts before everything that is due at this time or later, and after everything earlier.
    #[must_use]
    pub fn due_from(at: Elapsed) -> Self {
        Self(format!("due/{:020}", at.0))
    }

    /// The import parameters of a key.
    #[must_use]
    pub fn import(id: KeyId) -> Self {
        Self(format!("import/{id}"))
    }

    /// A token, by the SHA-256 of its text.
    #[must_use]
    pub fn token(hash: &[u8; 32]) -> Self {
        use fmt::Write as _;
        let mut path = "token/".to_owned();
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(path, "{byte:02x}");
        }
        Self(path)
    }

    /// A cluster whose tokens are taken.
    #[must_use]
    pub fn cluster(name: &Name) -> Self {
        Self(format!("cluster/{name}"))
    }

    /// Another provider of identities.
    #[must_use]
    pub fn provider(name: &Name) -> Self {
        Self(format!("provider/{name}"))
    }

    /// A role.
    #[must_use]
    pub fn role(name: &Name) -> Self {
        Self(format!("role/{name}"))
    }

    /// A policy, as it stands.
    #[must_use]
    pub fn policy(name: &Name) -> Self {
        Self(format!("policy/{name}"))
    }

    /// A policy, as it stood.
    #[must_use]
    pub fn policy_version(name: &Name, version: u32) -> Self {
        Self(format!("policy-version/{name}/{version:010}"))
    }

    /// A person.
    #[must_use]
    pub fn user(name: &Name) -> Self {
        Self(format!("user/{name}"))
    }

    /// A machine that agents run on.
    #[must_use]
    pub fn node(name: &Name) -> Self {
        Self(format!("node/{name}"))
    }

    /// What signs the certificates of nodes.
    #[must_use]
    pub fn node_authority() -> Self {
        Self("node-authority".to_owned())
    }

    /// A revocation of sessions.
    #[must_use]
    pub fn revocation(what: &RevokedWhat) -> Self {
        Self(format!("revocation/{}/{}", what.kind(), what.value()))
    }

    /// The secret of an epoch of sessions.
    #[must_use]
    pub fn session_epoch(number: u32) -> Self {
        Self(format!("session-epoch/{number:010}"))
    }

    /// A secret.
    #[must_use]
    pub fn secret(name: &SecretName) -> Self {
        Self(format!("secret/{name}"))
    }

    /// One version of a secret.
    #[must_use]
    pub fn secret_version(id: SecretId, number: VersionNo) -> Self {
        Self(format!("secret-version/{id}/{:010}", number.number()))
    }

    /// The value of one version of a secret.
    #[must_use]
    pub fn secret_value(id: SecretId, number: VersionNo) -> Self {
        Self(format!("secret-value/{id}/{:010}", number.number()))
    }

    /// Something due with a secret. These sort by time.
    #[must_use]
    pub fn secret_due(due: &SecretDue) -> Self {
        Self(format!("secret-due/{:020}/{}/{}", due.at.0, due.what.as_str(), due.name))
    }

    /// The rotation of a secret.
    #[must_use]
    pub fn secret_rotation(id: SecretId) -> Self {
        Self(format!("secret-rotation/{id}"))
    }

    /// Something due with a rotation. These sort by time.
    #[must_use]
    pub fn rotation_due(due: &RotationDue) -> Self {
        Self(format!("rotation-due/{:020}/{}/{}", due.at.0, due.what.as_str(), due.secret))
    }

    /// A database.
    #[must_use]
    pub fn database(name: &Name) -> Self {
        Self(format!("database/{name}"))
    }

    /// A role of a database.
    #[must_use]
    pub fn database_role(name: &Name) -> Self {
        Self(format!("database-role/{name}"))
    }

    /// A lease of a role.
    #[must_use]
    pub fn lease(role: &Name, id: LeaseId) -> Self {
        Self(format!("lease/{role}/{id}"))
    }

    /// What a place was last reported to hold under a key.
    #[must_use]
    pub fn holding(key: KeyId, place: &Name) -> Self {
        Self(format!("holding/{key}/{place}"))
    }

    /// The same, by name.
    #[must_use]
    pub fn inventory(key: KeyId, place: &Name) -> Self {
        Self(format!("inventory/{key}/{place}"))
    }

    /// Counts the changes of who may come in and as what.
    #[must_use]
    pub fn access() -> Self {
        Self("access".to_owned())
    }

    /// What is remembered of the seals.
    #[must_use]
    pub fn seal_book() -> Self {
        Self("seal-book".to_owned())
    }

    /// Where the audit log stood.
    #[must_use]
    pub fn audit_head() -> Self {
        Self("audit-head".to_owned())
    }

    /// Which rollback was meant.
    #[must_use]
    pub fn rollback() -> Self {
        Self("rollback".to_owned())
    }

    /// What is remembered of a backup.
    #[must_use]
    pub fn backup(id: BackupId) -> Self {
        Self(format!("backup/{id}"))
    }

    /// A key or version that was destroyed.
    #[must_use]
    pub fn tombstone(key: KeyId, version: Option<VersionNo>) -> Self {
        let number = version.map_or(0, VersionNo::number);
        Self(format!("tombstone/{key}/{number:010}"))
    }

    /// The clock.
    #[must_use]
    pub fn clock() -> Self {
        Self("clock".to_owned())
    }

    /// A path as a store gives it back.
    #[must_use]
    pub fn from_stored(path: String) -> Self {
        Self(path)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RecordPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of paths: those with a prefix, after a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRange {
    /// Every path of the range begins so.
    pub prefix: String,
    /// Only paths that sort after this one; `None` for all.
    pub after: Option<RecordPath>,
    /// At most this many records.
    pub limit: usize,
}

impl PathRange {
    /// All keys.
    #[must_use]
    pub fn keys(after: Option<KeyId>, limit: usize) -> Self {
        Self { prefix: "key/".to_owned(), after: after.map(RecordPath::key), limit }
    }

    /// All versions of a key.
    #[must_use]
    pub fn versions(key: KeyId, after: Option<VersionNo>, limit: usize) -> Self {
        let after = after.map(|number| RecordPath::version(key, number));
        Self { prefix: format!("version/{key}/"), after, limit }
    }

    /// The usage of all versions of a key.
    #[must_use]
    pub fn usages(key: KeyId, limit: usize) -> Self {
        Self { prefix: format!("usage/{key}/"), after: None, limit }
    }

    /// All aliases.
    #[must_use]
    pub fn aliases(after: Option<&AliasName>, limit: usize) -> Self {
        Self { prefix: "alias/".to_owned(), after: after.map(RecordPath::alias), limit }
    }

    /// All tokens.
    #[must_use]
    pub fn tokens() -> Self {
        Self { prefix: "token/".to_owned(), after: None, limit: usize::MAX }
    }

    /// All records of a kind: those whose path begins with this word and a slash.
    #[must_use]
    pub fn kind(word: &str, after: Option<RecordPath>, limit: usize) -> Self {
        Self { prefix: format!("{word}/"), after, limit }
    }

    /// Due records, soonest first.
    #[must_use]
    pub fn due(limit: usize) -> Self {
        Self { prefix: "due/".to_owned(), after: None, limit }
    }

    /// Secrets in a path, after a name.
    #[must_use]
    pub fn secrets(path: &SecretPath, after: Option<&str>, limit: usize) -> Self {
        let after = after.map(|name| RecordPath(format!("secret/{name}")));
        Self { prefix: format!("secret/{}", path.prefix()), after, limit }
    }

    /// What places were reported to hold under a key.
    #[must_use]
    pub fn holdings(key: KeyId, limit: usize) -> Self {
        Self { prefix: format!("holding/{key}/"), after: None, limit }
    }

    /// The same, by name.
    #[must_use]
    pub fn inventories(key: KeyId, limit: usize) -> Self {
        Self { prefix: format!("inventory/{key}/"), after: None, limit }
    }

    /// What is due with secrets, soonest first.
    #[must_use]
    pub fn secrets_due(limit: usize) -> Self {
        Self { prefix: "secret-due/".to_owned(), after: None, limit }
    }

    /// What is due with rotations, soonest first.
    #[must_use]
    pub fn rotations_due(limit: usize) -> Self {
        Self { prefix: "rotation-due/".to_owned(), after: None, limit }
    }

    /// Leases of a role, after one of them.
    #[must_use]
    pub fn leases(role: &Name, after: Option<LeaseId>, limit: usize) -> Self {
        let after = after.map(|id| RecordPath::lease(role, id));
        Self { prefix: format!("lease/{role}/"), after, limit }
    }

    /// Whether a path lies in the range, its limit aside.
    #[must_use]
    pub fn contains(&self, path: &RecordPath) -> bool {
        path.as_str().starts_with(&self.prefix) && self.after.as_ref().is_none_or(|a| path > a)
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueWhat {
    /// A key rotates.
    Rotate,
    /// A key's deletion window ends.
    Destroy,
    /// Import parameters expire.
    ExpireImport,
    /// What was destroyed is looked for in every journal, so that it can be called erased.
    Erase,
}

impl DueWhat {
    /// The word in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Destroy => "destroy",
            Self::ExpireImport => "expire-import",
            Self::Erase => "erase",
        }
    }
}

/// Something that the scheduler does when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    /// When, in service time.
    pub at: Elapsed,
    /// What.
    pub what: DueWhat,
    /// To which key.
    pub key: KeyId,
}

/// Import parameters that were handed out: the key pair that unwraps what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSession {
    /// SHA-256 of the import token.
    pub token_hash: [u8; 32],
    /// The RSA private key, wrapped under the keyring.
    pub wrapping_key: WrappedKey,
    /// Name of the algorithm that the material comes wrapped by.
    pub algorithm: lastkey_crypto::import::ImportAlgorithm,
    /// When it expires, in service time.
    pub expires: Elapsed,
}

/// A token that a caller may present. Its text is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Who presents it.
    pub principal: Principal,
    /// When it was minted, by the wall clock.
    pub created_at: Timestamp,
}

/// Everything that lies in a store under the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A key.
    Key(Key),
    /// A version of a key.
    Version(KeyVersion),
    /// The use of a version.
    Usage(Usage),
    /// The key that an alias names.
    Alias(KeyId),
    /// Something due.
    Due(Due),
    /// Import parameters.
    Import(ImportSession),
    /// A token.
    Token(TokenRecord),
    /// The clock.
    Clock(ClockRecord),
    /// A cluster whose tokens are taken.
    Cluster(Cluster),
    /// Another provider of identities.
    Provider(Provider),
    /// A role.
    Role(Role),
    /// A policy.
    Policy(Policy),
    /// A person.
    User(User),
    /// A machine that agents run on.
    Node(Node),
    /// A revocation of sessions.
    Revocation(Revocation),
    /// The secret of an epoch of sessions.
    SessionEpoch(SessionEpoch),
    /// How often it was changed who may come in and as what.
    Access(u64),
    /// What signs the certificates of nodes.
    NodeAuthority(NodeAuthority),
    /// A secret.
    Secret(SecretItem),
    /// A version of a secret.
    SecretVersion(SecretVersion),
    /// The value of a version, sealed under its data key.
    SecretValue(Vec<u8>),
    /// Something due with a secret.
    SecretDue(SecretDue),
    /// The rotation of a secret.
    SecretRotation(Box<SecretRotation>),
    /// Something due with a rotation.
    RotationDue(RotationDue),
    /// A database.
    Database(Database),
    /// What accounts of a database are made like.
    DatabaseRole(DatabaseRole),
    /// An account of a database that was made for one caller.
    Lease(Box<Lease>),
    /// What a place was last reported to hold under a key.
    Holding(Holding),
    /// The same, by name.
    Inventory(Inventory),
    /// What is remembered of the seals.
    SealBook(SealBook),
    /// Where the audit log stood.
    AuditHead(LogHead),
    /// Number of the last rollback that was meant.
    Rollback(u64),
    /// What is remembered of a backup.
    Backup(BackupRecord),
    /// A key or version that was destroyed.
    Tombstone(Tombstone),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_records_sort_by_time() {
        let key = KeyId::from_random([1; 16]);
        let at = |secs| RecordPath::due(Due { at: Elapsed(secs), what: DueWhat::Rotate, key });
        assert!(at(9) < at(10) && at(10) < at(1_000_000));
    }

    #[test]
    fn versions_sort_by_number() {
        let key = KeyId::from_random([1; 16]);
        let path = |n| RecordPath::version(key, VersionNo::new(n).unwrap());
        assert!(path(9) < path(10) && path(10) < path(u32::MAX));
    }

    #[test]
    fn a_range_ends_with_its_prefix_and_starts_after_its_marker() {
        let (a, b) = (KeyId::from_random([1; 16]), KeyId::from_random([2; 16]));
        let range = PathRange::keys(Some(a), 10);
        assert!(range.contains(&RecordPath::key(b)) && !range.contains(&RecordPath::key(a)));
        assert!(!range.contains(&RecordPath::version(b, VersionNo::FIRST)));
    }
}
