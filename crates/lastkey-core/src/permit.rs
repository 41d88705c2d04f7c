//! Permits: proof, as a value, that policy allowed one action by one caller on one resource.
//!
//! Room      `core`. Only [`authorize`] can build a [`Permit`]; whatever touches a key asks for
//!           one and takes the key id from it, so "forgot to check" does not compile.
//! Holds     the default is no: a [`DecisionPoint`] that fails or does not know denies.

use core::marker::PhantomData;

use crate::ids::KeyId;
use crate::principal::Principal;

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
    /// End a hold of the clock.
    ConfirmClock = "sys:ConfirmClock", true;
}

/// What an action is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One key.
    Key(KeyId),
    /// The installation as a whole.
    Instance,
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
}

/// Policy's answer, with words for those who may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// Which rule decided.
    pub why: &'static str,
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
}

/// Policy said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access denied")]
pub struct Denied {
    /// For the audit log, never for the caller.
    pub why: &'static str,
}

/// Asks policy. The one place where permission is decided.
///
/// # Errors
/// [`Denied`] unless policy says yes.
pub fn authorize<A: Action>(
    policy: &dyn DecisionPoint,
    who: &Principal,
    resource: Resource,
) -> Result<Permit<A>, Denied> {
    let decision = policy.decide(&Question { who, action: A::NAME, resource: &resource });
    if decision.allowed {
        Ok(Permit { who: who.clone(), resource, action: PhantomData })
    } else {
        Err(Denied { why: decision.why })
    }
}

/// The policy of an installation that has no policies yet: its administrator may do everything,
/// the scheduler what is due, everybody else nothing.
#[derive(Debug)]
pub struct AdministratorOnly;

impl DecisionPoint for AdministratorOnly {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let by_time = [DestroyKey::NAME, ExpireImport::NAME, RecordErasure::NAME];
        let by_time = by_time.contains(&question.action);
        match question.who.name() {
            Principal::ADMIN if !by_time => {
                Decision { allowed: true, why: "the administrator may do everything" }
            }
            Principal::SCHEDULER if by_time || question.action == RotateKey::NAME => {
                Decision { allowed: true, why: "the scheduler may do what is due" }
            }
            _ => Decision { allowed: false, why: "no rule allows it" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Resource {
        Resource::Key(KeyId::from_random([1; 16]))
    }

    #[test]
    fn a_stranger_gets_no_permit_for_any_action() {
        for (action, _) in ALL_ACTIONS {
            let who = Principal::named("stranger");
            let question = Question { who: &who, action, resource: &key() };
            assert!(!AdministratorOnly.decide(&question).allowed, "{action}");
        }
    }

    #[test]
    fn the_administrator_cannot_skip_the_deletion_window() {
        let admin = Principal::named(Principal::ADMIN);
        assert!(authorize::<Encrypt>(&AdministratorOnly, &admin, key()).is_ok());
        assert!(authorize::<DestroyKey>(&AdministratorOnly, &admin, key()).is_err());
    }

    #[test]
    fn the_scheduler_may_do_what_is_due_and_cannot_read() {
        let scheduler = Principal::named(Principal::SCHEDULER);
        assert!(authorize::<RotateKey>(&AdministratorOnly, &scheduler, key()).is_ok());
        assert!(authorize::<Decrypt>(&AdministratorOnly, &scheduler, key()).is_err());
    }

    #[test]
    fn a_permit_carries_the_resource_it_was_asked_for() {
        let admin = Principal::named(Principal::ADMIN);
        let permit = authorize::<Encrypt>(&AdministratorOnly, &admin, key()).unwrap();
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
