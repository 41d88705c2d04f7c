//! `can`, `who-can`, `whoami`: what policy says, and who one is.
//!
//! Room      `lastkey`.

use clap::Args;
use lastkey_core::permit::ALL_ACTIONS;
use lastkey_wire::native::{
    access::{CanRequest, WhoCanRequest},
    audit::{AuditField, AuditQuery, AuditRecord},
};

use super::show::Explained;

use crate::cli::{args::ContextArgs, failure::Failure, session::Session};

/// Arguments of `can`.
#[derive(Args, Debug)]
pub(crate) struct CanArgs {
    /// What is to be done: decrypt, rotate-key, kms:Decrypt, ...
    action: String,
    /// Key (id or alias), secret, or path of secrets (prod/shop/); the installation when left out
    #[arg(value_name = "KEY|SECRET")]
    thing: Option<String>,
    /// Whose rights: k8s:CLUSTER/NAMESPACE/NAME, user:NAME, ... [default: your own]
    #[arg(long = "as", value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Role that he acts in
    #[arg(long, value_name = "ROLE", requires = "principal")]
    role: Option<String>,
    /// Group that he is in; repeat for several
    #[arg(long = "group", value_name = "GROUP", requires = "principal")]
    groups: Vec<String>,
    #[command(flatten)]
    context: ContextArgs,
}

/// Arguments of `who-can`.
#[derive(Args, Debug)]
pub(crate) struct WhoCanArgs {
    /// What is to be done: decrypt, rotate-key, kms:Decrypt, ...
    action: String,
    /// Key (id or alias), secret, or path of secrets (prod/shop/); the installation when left out
    #[arg(value_name = "KEY|SECRET")]
    thing: Option<String>,
}

/// Asks whether somebody may do something. The exit code says no as well.
pub(crate) async fn can(args: CanArgs, session: &Session) -> Result<(), Failure> {
    let action = action(&args.action)?;
    let (key, secret) = about(&action, args.thing);
    let request = CanRequest {
        principal: args.principal,
        role: args.role,
        groups: args.groups,
        action,
        key,
        secret,
        context: args.context.wire()?,
    };
    let reply = session.client()?.can(&request).await?;
    session.show(&reply)?;
    if reply.allowed { Ok(()) } else { Err(Failure::WouldRefuse) }
}

/// Asks who may do something.
pub(crate) async fn who_can(args: WhoCanArgs, session: &Session) -> Result<(), Failure> {
    let action = action(&args.action)?;
    let (key, secret) = about(&action, args.thing);
    let request = WhoCanRequest { action, key, secret };
    let reply = session.client()?.who_can(&request).await?;
    session.show(&reply)
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Id of the request, as every answer and error shows it
    request: String,
}

/// Says what became of a request and why, from the audit log; for a refusal also what policy says
/// of such a call now.
pub(crate) async fn explain(args: ExplainArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let mut query = AuditQuery {
        request: Some(args.request.clone()),
        limit: Some(1_000),
        newest_first: true,
        ..AuditQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.audit_records(&query).await?;
        found.extend(page.records);
        // Records of one request stand close together.
        match page.next {
            Some(next) if found.is_empty() => query.from = Some(next),
            Some(_) | None => break,
        }
    }
    let Some(newest) = found.first() else {
        let message = format!("the audit log has no request {}", args.request);
        return Err(Failure::Usage(message));
    };
    let now = match denied_call(newest) {
        // Whoever may read the log need not be one who may read policies.
        Some(request) => client.can(&request).await.ok().map(|reply| reply.why),
        None => None,
    };
    found.reverse();
    session.show(&Explained { records: found, policy_says_now: now })
}

/// What was asked for by a call that policy refused; `None` for other records.
fn denied_call(record: &AuditRecord) -> Option<CanRequest> {
    let text = |name: &str| match record.record.get(name) {
        Some(AuditField::Text(text)) => Some(text.clone()),
        Some(_) | None => None,
    };
    if text("result").as_deref() != Some("AccessDenied") {
        return None;
    }
    Some(CanRequest {
        principal: text("who"),
        role: text("role"),
        secret: secret_of(&text("action")?, text("target")),
        key: text("key").filter(|_| !text("action").is_some_and(|a| a.starts_with("secrets:"))),
        action: text("action")?,
        ..CanRequest::default()
    })
}

/// The secret that a record of the audit log names as its target.
fn secret_of(action: &str, target: Option<String>) -> Option<String> {
    let target = target.filter(|_| action.starts_with("secrets:"))?;
    let named = target.strip_prefix("secret/")?;
    let name = named.split_once('#').map_or(named, |(name, _)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Asks who the caller is.
pub(crate) async fn whoami(session: &Session) -> Result<(), Failure> {
    let reply = session.client()?.who_am_i().await?;
    session.show(&reply)
}

/// The key or the secret that an action is asked about.
fn about(action: &str, thing: Option<String>) -> (Option<String>, Option<String>) {
    if action.starts_with("secrets:") { (None, thing) } else { (thing, None) }
}

/// The action's full name: as it was typed, or found by its words (`decrypt`, `rotate-key`).
fn action(typed: &str) -> Result<String, Failure> {
    let found = ALL_ACTIONS.iter().map(|(name, _)| *name).find(|name| {
        let short = name.split_once(':').map_or(*name, |(_, short)| short);
        *name == typed || kebab(short) == typed
    });
    found.map(str::to_owned).ok_or_else(|| {
        let words: Vec<_> = ALL_ACTIONS
            .iter()
            .map(|(name, _)| kebab(name.split_once(':').map_or(name, |(_, short)| short)))
            .collect();
        Failure::Usage(format!("there is no action {typed:?}; there are {}", words.join(", ")))
    })
}

/// `RotateKey` as `rotate-key`.
fn kebab(name: &str) -> String {
    let mut words = String::new();
    for (place, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && place > 0 {
            words.push('-');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn action_is_found_by_its_words_and_by_its_name() {
        assert_eq!(action("decrypt").unwrap(), "kms:Decrypt");
        assert_eq!(action("rotate-key").unwrap(), "kms:RotateKey");
        assert_eq!(action("sys:Seal").unwrap(), "sys:Seal");
        assert!(action("Decrypt").is_err());
    }

    #[test]
    fn no_two_actions_have_the_same_words() {
        let words: HashSet<_> = ALL_ACTIONS
            .iter()
            .filter_map(|(name, _)| name.split_once(':').map(|(_, short)| kebab(short)))
            .collect();
        assert_eq!(words.len(), ALL_ACTIONS.len());
    }
}
