//! The server itself: decode, one use case, encode. What needs no token is in `sys`.
//!
//! Room      `http`.

use lastkey_core::ports::CommitSeq;
use lastkey_service::rollback::{Remembered, Standing};
use lastkey_service::sealing::Gate;
use lastkey_wire::native::Empty;
use lastkey_wire::native::system::{
    ConfirmClockReply, ContinuityReply, ContinuityRequest, RememberedState, SealReply,
};
use lastkey_wire::words;

use super::decode::Ask;
use super::encode::to_json;
use crate::answer::Answer;
use crate::problem::Problem;

/// `POST /v1/sys/seal`
pub(super) async fn seal(ask: &Ask, _: Empty) -> Result<SealReply, Problem> {
    ask.gate().seal(ask.call()).await?;
    Ok(SealReply { sealed: true })
}

/// `POST /v1/sys/clock/confirm`
pub(super) async fn confirm_clock(ask: &Ask, _: Empty) -> Result<ConfirmClockReply, Problem> {
    ask.engine().confirm_clock(ask.call()).await?;
    Ok(ConfirmClockReply { confirmed: true })
}

/// `POST /v1/sys/continuity`
pub(crate) async fn continuity(gate: &Gate, body: ContinuityRequest) -> Result<Answer, Problem> {
    let remembered = body.remembered.map(|state| Remembered {
        checkpoint: state.checkpoint,
        commits: CommitSeq(state.commits),
        rollback: state.rollback,
    });
    let (standing, now) = gate.compare(remembered.as_ref()).await?;
    let (standing, problem) = match standing {
        Standing::Continues => (words::Standing::Continues, None),
        Standing::Accepted => (words::Standing::Accepted, None),
        Standing::Older(what) => (words::Standing::Older, Some(what.to_string())),
        Standing::Foreign => (words::Standing::Foreign, None),
    };
    let Remembered { checkpoint, commits: CommitSeq(commits), rollback } = now;
    let state = RememberedState { checkpoint, commits, rollback };
    Ok(Answer::json(to_json(&ContinuityReply { standing, problem, state })))
}
