//! Permits: proof, as a value, that policy allowed one action by one caller on one resource.
//!
//! Room      `core`. Only [`authorize`] can build a [`Permit`]; whatever touches a key asks for
//!           one and takes the key id from it, so "forgot to check" does not compile.
//! Holds     the default is no: a [`DecisionPoint`] that fails or does not know denies.

use core::marker::PhantomData;
use std::sync::Arc;

use lastkey_crypto::context::EncryptionContext;

use crate::ids::{AliasName, KeyId};
use crate::key::Tags;
use crate::principal::{Principal, Source};
use crate::secret_item::{SecretName, SecretPath};
use crate::time::Timestamp;

/// Something that a caller may do. Its name is what policies and the audit log write.
pub trait Action: Send + Sync + 'static {
    /// Name in policies and in the audit log, for example `kms:Encrypt`.
    const NAME: &'static str;
    /// Whether it changes state. Such an action is audited before and after.
    const CHANGES_STATE: bool;
}

/// Declares the actions; [`ALL_ACTIONS`] lists them all.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $changes:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}
            impl Action for $name {
                const NAME: &'static str = $text;
                const CHANGES_STATE: bool = $changes;
            }
        )*
        /// Every action: its name, and whether it changes state.
        pub const ALL_ACTIONS: &[(&str, bool)] = &[$(($text, $changes)),*];
    };
}

actions! {
    /// Protect data under a key.
    Encrypt = "kms:Encrypt", false;
    /// Process data protected before.
    Decrypt = "kms:Decrypt", false;
    /// The source side of a re-encryption.
    ReEncryptFrom = "kms:ReEncryptFrom", false;
    /// The target side of a re-encryption.
    ReEncryptTo = "kms:ReEncryptTo", false;
    /// Draw a data key.
    GenerateDataKey = "kms:GenerateDataKey", false;
    /// Draw a data key and answer only its wrapped form.
    GenerateDataKeyWithoutPlaintext = "kms:GenerateDataKeyWithoutPlaintext", false;
    /// Draw a key pair.
    GenerateDataKeyPair = "kms:GenerateDataKeyPair", false;
    /// Draw random bytes.
    GenerateRandom = "kms:GenerateRandom", false;
    /// Sign a message.
    Sign = "kms:Sign", false;
    /// Verify a signature.
    Verify = "kms:Verify", false;
    /// Generate a MAC.
    GenerateMac = "kms:GenerateMac", false;
    /// Verify a MAC.
    VerifyMac = "kms:VerifyMac", false;
    /// Read the public half of a key.
    GetPublicKey = "kms:GetPublicKey", false;
    /// Create a key.
    CreateKey = "kms:CreateKey", true;
    /// Read a key's metadata.
    DescribeKey = "kms:DescribeKey", false;
    /// List keys and aliases.
    ListKeys = "kms:ListKeys", false;
    /// Change description or deletion protection.
    UpdateKey = "kms:UpdateKey", true;
    /// Make a new primary version, or an older one primary again.
    RotateKey = "kms:RotateKey", true;
    /// Set or remove automatic rotation.
    UpdateRotation = "kms:UpdateRotation", true;
    /// Put a key back into use.
    EnableKey = "kms:EnableKey", true;
    /// Hold a key back, or retire it.
    DisableKey = "kms:DisableKey", true;
    /// Mark a key or a version as compromised.
    MarkCompromised = "kms:MarkCompromised", true;
    /// Schedule the destruction of a key.
    ScheduleKeyDeletion = "kms:ScheduleKeyDeletion", true;
    /// Call off a scheduled destruction.
    CancelKeyDeletion = "kms:CancelKeyDeletion", true;
    /// Destroy a key whose window has passed. The scheduler alone does this.
    DestroyKey = "kms:DestroyKey", true;
    /// Forget import parameters whose time is over. The scheduler alone does this.
    ExpireImport = "kms:ExpireImport", true;
    /// Note that no copy of destroyed material is left. The scheduler alone does this.
    RecordErasure = "kms:RecordErasure", true;
    /// Shadow-disable or reinstate a version.
    UpdateKeyVersion = "kms:UpdateKeyVersion", true;
    /// Destroy a version that is shadow-disabled.
    DestroyKeyVersion = "kms:DestroyKeyVersion", true;
    /// Report what a place holds under a key.
    ReportHolding = "kms:ReportHolding", true;
    /// Forget what a place was reported to hold, or destroy in spite of it.
    OverrideHolding = "kms:OverrideHolding", true;
    /// Ask for import parameters.
    GetImportParameters = "kms:GetParametersForImport", true;
    /// Import material.
    ImportKeyMaterial = "kms:ImportKeyMaterial", true;
    /// Set or remove tags.
    TagKey = "kms:TagKey", true;
    /// Set or remove an alias.
    UpdateAlias = "kms:UpdateAlias", true;
    /// Learn why a call would be allowed or refused.
    ExplainDecision = "kms:ExplainDecision", false;
    /// Seal the server.
    SealServer = "sys:Seal", true;
    /// Read which seals there are and what is known of them.
    ReadSeals = "sys:ReadSeals", false;
    /// Add, change or remove a seal, or draw a new root or storage key.
    UpdateSeals = "sys:UpdateSeals", true;
    /// Prove that seals open.
    DrillSeals = "sys:DrillSeals", true;
    /// Make a backup.
    CreateBackup = "sys:CreateBackup", true;
    /// Read which backups there are and what is known of them.
    ReadBackups = "sys:ReadBackups", false;
    /// Take a backup away, or say that one is gone.
    RemoveBackup = "sys:RemoveBackup", true;
    /// End a hold of the clock.
    ConfirmClock = "sys:ConfirmClock", true;
    /// Name a Kubernetes cluster whose tokens are taken, or change or remove it.
    UpdateCluster = "sys:UpdateCluster", true;
    /// Read clusters.
    ReadClusters = "sys:ReadClusters", false;
    /// Take over the keys that a cluster or provider has published. The scheduler alone does this.
    RefreshKeys = "sys:RefreshKeys", true;
    /// Let a machine join, or change or remove it.
    UpdateNode = "sys:UpdateNode", true;
    /// Read nodes.
    ReadNodes = "sys:ReadNodes", false;
    /// Let another authority sign the certificates of nodes.
    RotateNodeAuthority = "sys:RotateNodeAuthority", true;
    /// Name another provider of identities, or change or remove it.
    UpdateProvider = "iam:UpdateProvider", true;
    /// Read providers of identities.
    ReadProviders = "iam:ReadProviders", false;
    /// Write, change or remove a role.
    UpdateRole = "iam:UpdateRole", true;
    /// Read roles.
    ReadRoles = "iam:ReadRoles", false;
    /// Write, change or remove a policy.
    UpdatePolicy = "iam:UpdatePolicy", true;
    /// Read policies, and ask who can do what.
    ReadPolicies = "iam:ReadPolicies", false;
    /// Make, change or remove a person.
    UpdateUser = "iam:UpdateUser", true;
    /// Read who the people are.
    ReadUsers = "iam:ReadUsers", false;
    /// End sessions of others before their time.
    RevokeSessions = "iam:RevokeSessions", true;
    /// Read the audit log.
    ReadAudit = "audit:Read", false;
    /// Name a witness of the audit log, or remove it.
    UpdateWitness = "audit:UpdateWitness", true;
    /// Write a version of a secret, and make the secret if there is none.
    PutSecret = "secrets:PutSecret", true;
    /// Read a value.
    GetSecret = "secrets:GetSecret", false;
    /// Read what is known of a secret and its versions; never a value.
    DescribeSecret = "secrets:DescribeSecret", false;
    /// List secrets in a path, and learn of their changes; never a value.
    ListSecrets = "secrets:ListSecrets", false;
    /// Say which pods on a node hold which version of a secret. Agents of nodes do this.
    ReportHolders = "secrets:ReportHolders", false;
    /// Learn whether a value that was seen elsewhere is one of a secret.
    ConfirmLeak = "secrets:ConfirmLeak", false;
    /// Change description, tags, stages or limits of a secret.
    UpdateSecret = "secrets:UpdateSecret", true;
    /// Delete a secret; it can be restored until its window ends.
    DeleteSecret = "secrets:DeleteSecret", true;
    /// Restore a deleted secret.
    RestoreSecret = "secrets:RestoreSecret", true;
    /// Destroy a version, or a whole secret at once.
    DestroySecret = "secrets:DestroySecret", true;
    /// Destroy a secret whose window has passed. The scheduler alone does this.
    ExpireSecret = "secrets:ExpireSecret", true;
    /// Say how and when a secret rotates.
    UpdateSecretRotation = "secrets:UpdateSecretRotation", true;
    /// Make a new value by the strategy of the secret.
    RotateSecret = "secrets:RotateSecret", true;
    /// Revoke an old version whose overlap has ended. The scheduler alone does this.
    RevokeSecretVersion = "secrets:RevokeVersion", true;
    /// Name a database and its root account, or change or remove it.
    UpdateDatabase = "secrets:UpdateDatabase", true;
    /// Read databases; never a password.
    ReadDatabases = "secrets:ReadDatabases", false;
    /// Say what accounts of a database are made like, or remove that.
    UpdateDatabaseRole = "secrets:UpdateDatabaseRole", true;
    /// Read roles of databases and their leases; never a password.
    ReadDatabaseRoles = "secrets:ReadDatabaseRoles", false;
    /// Have an account of a database made, and its lease renewed or ended.
    GetDatabaseCredentials = "secrets:GetDatabaseCredentials", true;
    /// End leases of others.
    RevokeDatabaseCredentials = "secrets:RevokeDatabaseCredentials", true;
    /// Renew and end leases when that is due, and mend what is amiss. The scheduler alone does this.
    KeepDatabaseCredentials = "secrets:KeepDatabaseCredentials", true;
}

/// What an action is done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// One key.
    Key(KeyId),
    /// The installation as a whole.
    Instance,
    /// One of the things that administrators make.
    Named(ResourceKind, String),
    /// One secret.
    Secret(SecretName),
    /// A path that secrets lie in.
    SecretPath(SecretPath),
}

/// Things that administrators make and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// A Kubernetes cluster whose tokens are taken.
    Cluster,
    /// Another provider of identities.
    Provider,
    /// A role that sessions are opened for.
    Role,
    /// A policy.
    Policy,
    /// A person.
    User,
    /// A machine that agents run on.
    Node,
    /// A database.
    Database,
    /// What accounts of a database are made like.
    DatabaseRole,
}

/// What is known of a question beside who, what and to what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// When it is asked, by the wall clock.
    pub now: Timestamp,
    /// Where the call came from.
    pub source: Source,
    /// The encryption context, for actions that take one.
    pub context: Option<&'a EncryptionContext>,
    /// Names and tags of the key, when the resource is one that exists; tags of the secret, when it
    /// is a secret.
    pub key: Option<KeyFacts<'a>>,
}

/// What policy may know of a key, or of a secret.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<'a> {
    /// Its aliases; a secret has none.
    pub aliases: &'a [AliasName],
    /// Its tags; the tag `group` names its key group.
    pub tags: &'a Tags,
}

/// One question to policy.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub who: &'a Principal,
    /// What he wants to do.
    pub action: &'static str,
    /// To what.
    pub resource: &'a Resource,
    /// What else is known.
    pub facts: &'a Facts<'a>,
}

/// Which rule decided, in words for those who may read them. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Fixed words.
    Fixed(&'static str),
    /// Words that name policies.
    Named(Arc<str>),
}

impl Why {
    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fixed(words) => words,
            Self::Named(words) => words,
        }
    }
}

impl From<&'static str> for Why {
    fn from(words: &'static str) -> Self {
        Self::Fixed(words)
    }
}

/// Policy's answer, with words for those who may read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// Which rule decided.
    pub why: Why,
}

/// Answers questions of policy. Asked by [`authorize`] alone.
pub trait DecisionPoint: Send + Sync {
    /// Decides one question. Must deny what it does not know.
    fn decide(&self, question: &Question<'_>) -> Decision;
}

/// Policy said yes to action `A`. Not `Clone`: one permit, one use.
#[derive(Debug)]
pub struct Permit<A: Action> {
    who: Principal,
    resource: Resource,
    why: Why,
    action: PhantomData<A>,
}

impl<A: Action> Permit<A> {
    /// What this permit is for. Key use takes the id from here and from nowhere else.
    #[must_use]
    pub const fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The caller this permit was given to.
    #[must_use]
    pub const fn who(&self) -> &Principal {
        &self.who
    }

    /// Which rule gave it, for the audit log.
    #[must_use]
    pub const fn why(&self) -> &Why {
        &self.why
    }
}

/// Policy said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access denied")]
pub struct Denied {
    /// For the audit log, never for the caller.
    pub why: Why,
}

/// Asks policy. The one place where permission is decided.
///
/// # Errors
/// [`Denied`] unless policy says yes.
pub fn authorize<A: Action>(
    policy: &dyn DecisionPoint,
    who: &Principal,
    resource: Resource,
    facts: &Facts<'_>,
) -> Result<Permit<A>, Denied> {
    let question = Question { who, action: A::NAME, resource: &resource, facts };
    let Decision { allowed, why } = policy.decide(&question);
    if allowed {
        Ok(Permit { who: who.clone(), resource, why, action: PhantomData })
    } else {
        Err(Denied { why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy in which the administrator may do everything, the scheduler what is due, and
    /// everybody else nothing.
    struct AdministratorOnly;

    impl DecisionPoint for AdministratorOnly {
        fn decide(&self, question: &Question<'_>) -> Decision {
            let by_time = [DestroyKey::NAME, ExpireImport::NAME, RecordErasure::NAME];
            let by_time = by_time.contains(&question.action);
            let (allowed, why) = match question.who.name() {
                Principal::ADMIN if !by_time => (true, "the administrator may do everything"),
                Principal::SCHEDULER if by_time || question.action == RotateKey::NAME => {
                    (true, "the scheduler may do what is due")
                }
                _ => (false, "no rule allows it"),
            };
            Decision { allowed, why: why.into() }
        }
    }

    fn key() -> Resource {
        Resource::Key(KeyId::from_random([1; 16]))
    }

    fn ask<A: Action>(who: &Principal) -> Result<Permit<A>, Denied> {
        authorize(&AdministratorOnly, who, key(), &Facts::default())
    }

    #[test]
    fn a_stranger_gets_no_permit_for_any_action() {
        for (action, _) in ALL_ACTIONS {
            let who = Principal::named("stranger");
            let (resource, facts) = (key(), Facts::default());
            let question = Question { who: &who, action, resource: &resource, facts: &facts };
            assert!(!AdministratorOnly.decide(&question).allowed, "{action}");
        }
    }

    #[test]
    fn the_administrator_cannot_skip_the_deletion_window() {
        let admin = Principal::named(Principal::ADMIN);
        assert!(ask::<Encrypt>(&admin).is_ok());
        assert!(ask::<DestroyKey>(&admin).is_err());
    }

    #[test]
    fn the_scheduler_may_do_what_is_due_and_cannot_read() {
        let scheduler = Principal::named(Principal::SCHEDULER);
        assert!(ask::<RotateKey>(&scheduler).is_ok());
        assert!(ask::<Decrypt>(&scheduler).is_err());
    }

    #[test]
    fn a_permit_carries_the_resource_it_was_asked_for() {
        let admin = Principal::named(Principal::ADMIN);
        let permit = ask::<Encrypt>(&admin).unwrap();
        assert_eq!((permit.resource(), permit.who()), (&key(), &admin));
    }

    #[test]
    fn action_names_are_unique() {
        let mut names: Vec<_> = ALL_ACTIONS.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL_ACTIONS.len());
    }
}
