//! What scanners claim to have seen: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ids::VersionNo;
use lastkey_core::leak::Claim;
use lastkey_core::secret_item::SecretId;
use lastkey_service::ops::secrets::{Leaked, Verdict};
use lastkey_wire::Base64Bytes;
use lastkey_wire::native::leaks::{
    ConfirmLeaksReply, ConfirmLeaksRequest, LeakClaim, LeakVerdictView,
};
use lastkey_wire::words::LeakVerdict;

use super::decode::{Ask, RequestBody, parse};
use crate::problem::{Problem, Syntax};

impl RequestBody for ConfirmLeaksRequest {}

/// `POST /v1/confirm/leaks`
pub(super) async fn confirm(
    ask: &Ask,
    body: ConfirmLeaksRequest,
) -> Result<ConfirmLeaksReply, Problem> {
    let key = bytes("proof_key", body.proof_key)?;
    let claims = body.claims.into_iter().map(claim).collect::<Result<Vec<_>, _>>()?;
    let verdicts = ask.engine().confirm_leaks(ask.call(), &key, &claims).await?;
    Ok(ConfirmLeaksReply { verdicts: verdicts.into_iter().map(view).collect() })
}

fn claim(claim: LeakClaim) -> Result<Claim, Syntax> {
    let version = VersionNo::new(claim.version);
    Ok(Claim {
        secret: parse("claims.id", &claim.id, SecretId::parse)?,
        version: version
            .ok_or_else(|| Syntax::field("claims.version", "expected a number from 1"))?,
        proof: bytes("claims.proof", claim.proof)?,
    })
}

fn bytes(field: &str, Base64Bytes(bytes): Base64Bytes) -> Result<[u8; 32], Syntax> {
    bytes.try_into().map_err(|_| Syntax::field(field, "expected 32 bytes in base64"))
}

fn view(verdict: Verdict) -> LeakVerdictView {
    let bare = |verdict| LeakVerdictView { verdict, name: None, version: None, stages: Vec::new() };
    match verdict {
        Verdict::Refuted => bare(LeakVerdict::Refuted),
        Verdict::Untold => bare(LeakVerdict::Untold),
        Verdict::Confirmed(None) => bare(LeakVerdict::Confirmed),
        Verdict::Confirmed(Some(Leaked { name, version, stages })) => LeakVerdictView {
            verdict: LeakVerdict::Confirmed,
            name: Some(name.to_string()),
            version: Some(version.number()),
            stages: stages.iter().map(ToString::to_string).collect(),
        },
    }
}
