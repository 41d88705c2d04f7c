//! The server itself: decode, one use case, encode. What needs no token is in `sys`.
//!
//! Room      `http`.

use lastkey_wire::native::Empty;
use lastkey_wire::native::system::{ConfirmClockReply, SealReply};

use super::decode::Ask;
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
