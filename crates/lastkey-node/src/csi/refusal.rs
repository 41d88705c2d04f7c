//! Why a volume is not mounted, as a person reads it in `kubectl describe pod`.
//!
//! Room      `node`.
//! Holds     Only final codes: after any other one a driver 1.6 starts the pod with an empty
//!           volume that never heals. No message has a token or a value.

use tonic::{Code, Status};

use crate::ports::SecretError;

/// Why a volume is not mounted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The class, or what the driver sent, is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Lastkey says no to this identity.
    #[error("{0}")]
    Denied(String),
    /// There is no such version or field.
    #[error("{0}")]
    Missing(String),
    /// It can be done when something else is put right.
    #[error("{0}")]
    Unready(String),
}

impl Refusal {
    /// As gRPC says it.
    pub(super) fn status(&self) -> Status {
        Status::new(self.code(), self.to_string())
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
            Self::Missing(_) => Code::NotFound,
            Self::Unready(_) => Code::FailedPrecondition,
        }
    }
}

/// The refusal of an object: what, for whom, why, and what to do.
pub(super) fn of_object(object: &str, who: &str, error: &SecretError) -> Refusal {
    match error {
        SecretError::Away(_) => Refusal::Unready(format!(
            "object {object} for {who}: Lastkey does not answer; the pod starts when it does. \
             Look at the log of lastkey secrets-provider on this node"
        )),
        SecretError::Refused { code, message } if code == "SecretState" => {
            Refusal::Missing(format!(
                "object {object} for {who}: {message}. Look at `lastkey secret versions`, or mark \
                 the object `optional: true`"
            ))
        }
        SecretError::Refused { code, message } if is_no(code) => Refusal::Denied(format!(
            "object {object} for {who}: {message} ({code}). Either there is no such secret or role \
             of a database, or no policy permits secrets:GetSecret or \
             secrets:GetDatabaseCredentials on it; try `lastkey can get-secret`"
        )),
        SecretError::Refused { code, message } => {
            Refusal::Unready(format!("object {object} for {who}: {message} ({code})"))
        }
    }
}

/// The refusal of a session.
pub(super) fn of_session(who: &str, role: &str, error: &SecretError) -> Refusal {
    match error {
        SecretError::Away(_) => Refusal::Unready(format!(
            "{who}: Lastkey does not answer; the pod starts when it does. Look at the log of \
             lastkey secrets-provider on this node"
        )),
        SecretError::Refused { code, .. } if is_no(code) => Refusal::Denied(format!(
            "{who} may not take the role {role} ({code}). `lastkey role show {role}` says who \
             may, and `lastkey audit search --action sts:OpenSession` why not this one"
        )),
        SecretError::Refused { code, message } => {
            Refusal::Unready(format!("{who}, role {role}: {message} ({code})"))
        }
    }
}

/// Whether a code says that this caller may not.
pub(super) fn is_no(code: &str) -> bool {
    matches!(code, "AccessDenied" | "Unauthenticated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_final_code_and_names_object_identity_reason_and_fix() {
        let not_final = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        let refused = |code: &str| SecretError::Refused {
            code: code.to_owned(),
            message: "access denied".to_owned(),
        };
        let errors = [SecretError::Away("x".into()), refused("AccessDenied"), refused("KeyState")];
        for error in &errors {
            for refusal in [of_object("a", "b", error), of_session("b", "r", error)] {
                assert!(!not_final.contains(&refusal.status().code()), "{refusal}");
            }
        }
        let said = of_object("prod/db", "prod/api", &refused("AccessDenied")).to_string();
        for part in ["prod/db", "prod/api", "access denied", "lastkey can"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
