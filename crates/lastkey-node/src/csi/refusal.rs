//! Why a volume is not mounted, as a person reads it in `kubectl describe pod`.
//!
//! Room      `node`.
//! Holds     Only final codes: after any other one a driver 1.6 starts the pod with an empty
//!           volume that never heals. No message has a token or a value.

use tonic::{Code, Status};

use super::plan::{Plan, Source, Wanted};
use super::request::Asked;
use crate::ports::{SecretError, Which};

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

    /// The same, with who asked in front: of what names an object or a place in the class alone.
    pub(super) fn for_whom(self, who: &str) -> Self {
        let named = |problem| format!("{who}: {problem}");
        match self {
            Self::Invalid(problem) => Self::Invalid(named(problem)),
            Self::Denied(problem) => Self::Denied(named(problem)),
            Self::Missing(problem) => Self::Missing(named(problem)),
            Self::Unready(problem) => Self::Unready(named(problem)),
        }
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

/// In whose name is read, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom<'a> {
    pub(super) asked: &'a Asked,
    pub(super) role: &'a str,
}

/// The refusal of an object: what, for whom, why, and what to do.
pub(super) fn of_object(
    object: &str,
    source: &Source,
    whom: Whom<'_>,
    error: &SecretError,
) -> Refusal {
    let (who, name) = (whom.asked.who(), &source.name);
    match error {
        SecretError::Away(_) => Refusal::Unready(format!(
            "object {object} for {who}: Lastkey does not answer; the pod starts when it does. \
             Look at the log of lastkey secrets-provider on this node"
        )),
        SecretError::Refused { code, .. } if code == "SecretState" => Refusal::Missing(format!(
            "object {object} for {who}: the secret {name} has no {}, or is deleted ({code}). \
             `lastkey secret versions {name}` lists what there is; the object may also be marked \
             `optional: true`",
            version(source)
        )),
        SecretError::Refused { code, .. } if code == "AccessDenied" => {
            Refusal::Denied(format!("object {object} for {who}: {code}. {}", remedy(source, whom)))
        }
        // The role was taken a moment ago.
        SecretError::Refused { code, .. } if is_no(code) => Refusal::Denied(format!(
            "object {object} for {who}: the session is not taken from this provider ({code}). \
             `lastkey role show {role}` says whether the role is for the agent of the pod's own \
             node alone: then join the node (`lastkey node join`) and start the provider with its \
             --identity. Else somebody has ended the session",
            role = whom.role
        )),
        SecretError::Refused { code, message } if code == "InvalidRequest" => {
            let problem = "Correct the object in the class";
            Refusal::Invalid(format!("object {object} for {who}: {message} ({code}). {problem}"))
        }
        SecretError::Refused { code, message } => Refusal::Unready(format!(
            "object {object} for {who}: {message} ({code}). `lastkey audit search --action {}` \
             shows what the server was asked",
            action(source)
        )),
    }
}

/// What of a secret is not there.
fn version(source: &Source) -> String {
    match &source.which {
        Which::Stage(stage) => format!("version at the stage {stage}"),
        Which::Number(number) => format!("version {number}"),
        Which::Account => "such account".to_owned(),
    }
}

/// The action that reading a source takes.
fn action(source: &Source) -> &'static str {
    match source.which {
        Which::Account => "secrets:GetDatabaseCredentials",
        Which::Stage(_) | Which::Number(_) => "secrets:GetSecret",
    }
}

/// What to do when a read is denied: the server does not say whether there is such a thing.
fn remedy(source: &Source, Whom { asked, role }: Whom<'_>) -> String {
    let name = &source.name;
    match source.which {
        Which::Account => format!(
            "Either there is no role {name} of a database (`lastkey database role list`), or no \
             policy lets the role {role} have an account by it: permit \
             secrets:GetDatabaseCredentials on DatabaseRole::\"{name}\""
        ),
        Which::Stage(_) | Which::Number(_) => format!(
            "Either there is no secret {name}, or no policy lets the role {role} read it; `lastkey \
             can get-secret {name} --as k8s:CLUSTER/{}/{} --role {role}` says whether it is the \
             policy",
            asked.namespace, asked.service_account
        ),
    }
}

/// The refusal of accounts of databases for a token that is bound to no pod, if a plan has any: each
/// would be another one, and nobody would say when it is not needed any more.
pub(super) fn of_accounts(plan: &Plan, asked: &Asked) -> Option<Refusal> {
    let is_account = |source: &&Source| source.which == Which::Account;
    let account = |file: &Wanted| {
        let source = file.content.sources().into_iter().find(is_account)?;
        Some(Refusal::Invalid(format!(
            "object {} for {}: an account of a database by the role {} lives as long as its pod, \
             and this token is bound to none. Mount it in a pod, or write account and password as \
             a secret",
            file.object,
            asked.class_of_whom(),
            source.name
        )))
    };
    plan.files.iter().find_map(account)
}

/// The refusal of a session in a role, by a token that is bound to a pod or to none.
pub(super) fn of_session(who: &str, (role, has_pod): (&str, bool), error: &SecretError) -> Refusal {
    match error {
        SecretError::Away(_) => Refusal::Unready(format!(
            "{who}: Lastkey does not answer; the pod starts when it does. Look at the log of \
             lastkey secrets-provider on this node"
        )),
        SecretError::Refused { code, .. } if is_no(code) => {
            let unbound = if has_pod {
                ""
            } else {
                " The token is bound to no pod: a role is for such tokens when it was made with \
                 --allow-without-pod."
            };
            Refusal::Denied(format!(
                "{who} may not take the role {role} ({code}).{unbound} `lastkey role show {role}` \
                 says who may, and `lastkey audit search --action sts:OpenSession` why not this one"
            ))
        }
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
    use super::super::plan::current;
    use super::super::tests::{request, token};
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
        let errors = [
            SecretError::Away("x".into()),
            refused("AccessDenied"),
            refused("Unauthenticated"),
            refused("SecretState"),
            refused("InvalidRequest"),
            refused("KeyState"),
        ];
        let request = request("u", &token("u", 1));
        let whom = Whom { asked: &Asked::parse(&request).unwrap(), role: "r" };
        let secret = current("prod/db");
        let account = Source { name: "db-app".to_owned(), which: Which::Account };
        for error in &errors {
            for has_pod in [true, false] {
                let session = of_session("b", ("r", has_pod), error);
                assert!(!not_final.contains(&session.status().code()), "{session}");
            }
            for source in [&secret, &account] {
                let refusal = of_object("the-object", source, whom, error);
                assert!(!not_final.contains(&refusal.status().code()), "{refusal}");
                for part in ["the-object", "service account n/s (pod p)"] {
                    assert!(refusal.to_string().contains(part), "{refusal}");
                }
            }
        }
        let session = of_object("o", &secret, whom, &refused("Unauthenticated")).to_string();
        assert!(session.contains("`lastkey role show r`"), "{session}");
        assert!(session.contains("--identity") && !session.contains("no policy"), "{session}");
        let denied =
            |source: &Source| of_object("o", source, whom, &refused("AccessDenied")).to_string();
        let said = denied(&secret);
        for part in ["AccessDenied", "lastkey can get-secret prod/db --as k8s:CLUSTER/n/s"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(denied(&account).contains("DatabaseRole::\"db-app\""), "{}", denied(&account));
        for (has_pod, is_told) in [(true, false), (false, true)] {
            let said = of_session("b", ("r", has_pod), &refused("Unauthenticated")).to_string();
            assert_eq!(said.contains("--allow-without-pod"), is_told, "{said}");
        }
    }
}
