//! From the domain to the wire.
//!
//! Room      `http`.

use lastkey_core::ids::VersionNo;
use lastkey_core::time::Timestamp;
use lastkey_service::error::Error;
use lastkey_service::view::{KeyView, VersionView};
use lastkey_wire::native::error::{DryRun, DryRunReply};
use lastkey_wire::native::{keys, versions};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decode::Ask;
use super::holdings::holding_view;
use super::words::{key_state, origin_out, spec_out, usage_out, version_state};
use crate::answer::Answer;
use crate::problem::Problem;

/// What became of a call.
pub(super) enum Outcome<T> {
    /// Done.
    Done(T),
    /// Asked only.
    DryRun(DryRun),
}

/// Answers a call; `json` writes its reply.
///
/// # Errors
/// The problem, if it is to be told as one.
pub(super) fn answer<T>(
    ask: &Ask,
    reply: Result<T, Problem>,
    json: impl FnOnce(&T) -> Vec<u8>,
) -> Result<Answer, Problem> {
    Ok(Answer::json(match settle(ask, reply)? {
        Outcome::Done(reply) => json(&reply),
        Outcome::DryRun(dry_run) => to_json(&DryRunReply { dry_run }),
    }))
}

/// Turns the end of a dry run into its answer. A request that cannot be read, a caller who is
/// not known and a service that is away stay problems.
///
/// # Errors
/// The problem, if it is to be told as one.
pub(super) fn settle<T>(ask: &Ask, reply: Result<T, Problem>) -> Result<Outcome<T>, Problem> {
    if !ask.call().dry_run {
        return reply.map(Outcome::Done);
    }
    let refusal = match reply {
        Ok(_) | Err(Problem::Service(Error::DryRun)) => {
            return Ok(Outcome::DryRun(DryRun { allowed: true, why: None }));
        }
        Err(Problem::Service(error)) => error,
        Err(other) => return Err(other),
    };
    match refusal {
        Error::PlaintextTooLarge
        | Error::Denied
        | Error::KeyState { .. }
        | Error::SecretState { .. }
        | Error::NoRotation
        | Error::KeyUsage
        | Error::Undecryptable
        | Error::Conflict
        | Error::AlreadyExists
        | Error::LimitExceeded(_)
        | Error::DeletionProtected
        | Error::KeyNeeded { .. }
        | Error::ClockHeld
        | Error::DryRun => {
            let why = ask.engine().may_explain(ask.call()).then(|| refusal.code().to_owned());
            Ok(Outcome::DryRun(DryRun { allowed: false, why }))
        }
        Error::Invalid { .. }
        | Error::Unauthenticated
        | Error::SealRefused(_)
        | Error::Outside(_)
        | Error::Sealed
        | Error::Throttled { .. }
        | Error::Unavailable(_)
        | Error::Internal(_) => Err(refusal.into()),
    }
}

/// JSON of a reply.
pub(crate) fn to_json<T: Serialize>(reply: &T) -> Vec<u8> {
    let mut body = Vec::with_capacity(USUAL_LEN);
    // Writing wire types to memory fails only for text that is not UTF-8, which the service has
    // none of.
    match serde_json::to_writer(&mut body, reply) {
        Ok(()) => body,
        Err(_) => Vec::new(),
    }
}

/// Holds most answers, so that their buffer does not grow and leave copies behind.
const USUAL_LEN: usize = 512;

/// A moment as RFC 3339 writes it, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| END_OF_TIME.to_owned())
}

/// The last moment that RFC 3339 can write.
const END_OF_TIME: &str = "9999-12-31T23:59:59Z";

/// A key.
pub(super) fn key_view(view: KeyView) -> keys::KeyView {
    let rotation = rotation_view(&view);
    let KeyView { key, last_used_at, deletion_at, holdings, .. } = view;
    let tags = key.tags.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    keys::KeyView {
        id: key.id.to_string(),
        spec: spec_out(key.spec),
        usage: usage_out(key.usage),
        origin: origin_out(key.origin),
        state: key_state(&key),
        description: key.description.as_str().to_owned(),
        tags: tags.collect(),
        aliases: key.aliases.iter().map(ToString::to_string).collect(),
        primary_version: key.primary.map(VersionNo::number),
        newest_version: key.newest.map(VersionNo::number),
        activation: key.activation,
        created_at: rfc3339(key.created_at),
        destroyed_at: key.destroyed_at.map(rfc3339),
        deletion_protection: key.deletion_protection,
        deletion: key.destruction.map(|destruction| keys::DeletionView {
            at: deletion_at.map(rfc3339),
            scheduled_at: rfc3339(destruction.scheduled_at),
            window_days: destruction.window.days(),
        }),
        rotation,
        last_used_at: last_used_at.map(rfc3339),
        holdings: holdings.into_iter().map(holding_view).collect(),
    }
}

/// Automatic rotation of a key.
pub(super) fn rotation_view(view: &KeyView) -> Option<keys::RotationView> {
    view.key.rotation.map(|rotation| keys::RotationView {
        period_seconds: rotation.period.as_secs(),
        next_at: view.next_rotation_at.map(rfc3339),
        last_at: rotation.last.map(rfc3339),
    })
}

/// A version.
pub(super) fn version_view(view: &VersionView) -> versions::VersionView {
    let VersionView { version, primary, usage } = view;
    versions::VersionView {
        version: version.number.number(),
        state: version_state(version.state),
        primary: *primary,
        activation: version.activation,
        origin: origin_out(version.origin),
        created_at: rfc3339(version.created_at),
        destroyed_at: version.destroyed_at.map(rfc3339),
        erased_at: version.erased_at.map(rfc3339),
        usage: versions::VersionUsage {
            protected: usage.protected,
            processed: usage.processed,
            refused: usage.refused,
            last_used_at: usage.last_used_at.map(rfc3339),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_and_never_fail() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp(1_795_000_000)), "2026-11-18T11:06:40Z");
        assert_eq!(rfc3339(Timestamp(253_402_300_799)), END_OF_TIME);
        assert_eq!(rfc3339(Timestamp(253_402_300_800)), END_OF_TIME);
        assert_eq!(rfc3339(Timestamp(u64::MAX)), END_OF_TIME);
    }
}
