//! Seals: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ports::DeviceKind;
use lastkey_core::seal_record::{SealKind, ShareHolder};
use lastkey_crypto::kdf::Argon2Params;
use lastkey_service::ops::seals::{Health, SealReport, SealRequest, SealsReport, WantedSeal};
use lastkey_service::seals::SealDraft;
use lastkey_wire::StringMap;
use lastkey_wire::native::Empty;
use lastkey_wire::native::query::DryRunQuery;
use lastkey_wire::native::seals::{
    AcceptedView, DrillRequest, PassphraseSeal, RotateSealsRequest, SealReport as SealView,
    SealsReply, SetSealRequest, ShamirSeal, ShareView, WeaknessView,
};

use super::decode::{Ask, RequestBody};
use super::encode::rfc3339;
use crate::problem::{Problem, Syntax};

impl RequestBody for SetSealRequest {}
impl RequestBody for RotateSealsRequest {}
impl RequestBody for DrillRequest {}

/// `GET /v1/sys/seals`
pub(super) async fn list(ask: &Ask, _: DryRunQuery) -> Result<SealsReply, Problem> {
    Ok(view(ask.gate().list_seals(ask.call()).await?))
}

/// `POST /v1/sys/seals`
pub(super) async fn add(ask: &Ask, body: SetSealRequest) -> Result<SealsReply, Problem> {
    let request = SealRequest::Add(wanted(body)?);
    Ok(view(ask.gate().change_seals(ask.call(), request).await?))
}

/// `PUT /v1/sys/seals/{seal}`
pub(super) async fn replace(ask: &Ask, body: SetSealRequest) -> Result<SealsReply, Problem> {
    let request = SealRequest::Replace(seal_of(ask)?, wanted(body)?);
    Ok(view(ask.gate().change_seals(ask.call(), request).await?))
}

/// `DELETE /v1/sys/seals/{seal}`
pub(super) async fn remove(ask: &Ask, _: Empty) -> Result<SealsReply, Problem> {
    let request = SealRequest::Remove(seal_of(ask)?);
    let reply = view(ask.gate().change_seals(ask.call(), request).await?);
    Ok(SealsReply { notice: Some(OLDER_BACKUPS.to_owned()), ..reply })
}

/// What removing a seal does not do.
const OLDER_BACKUPS: &str = "backups and copies of the data directory from before can still be opened by the removed seal, until they expire or are destroyed; what is written from now on cannot";

/// `POST /v1/sys/seals/rotate`
pub(super) async fn rotate(ask: &Ask, body: RotateSealsRequest) -> Result<SealsReply, Problem> {
    let request = if body.keyring { SealRequest::RotateKeyring } else { SealRequest::RotateRoot };
    Ok(view(ask.gate().change_seals(ask.call(), request).await?))
}

/// `POST /v1/sys/seals/accept-weakness`
pub(super) async fn accept(ask: &Ask, _: Empty) -> Result<SealsReply, Problem> {
    Ok(view(ask.gate().change_seals(ask.call(), SealRequest::AcceptWeakness).await?))
}

/// `POST /v1/sys/seals/drill`
pub(super) async fn drill(ask: &Ask, body: DrillRequest) -> Result<SealsReply, Problem> {
    let presented = match (body.passphrase, body.keyfile) {
        (passphrase, None) => passphrase.map(|passphrase| passphrase.0),
        (None, keyfile) => keyfile.map(|keyfile| keyfile.0),
        (Some(_), Some(_)) => {
            return Err(Syntax::field("passphrase", "expected `passphrase` or `keyfile`").into());
        }
    };
    Ok(view(ask.gate().drill_seals(ask.call(), presented).await?))
}

fn wanted(body: SetSealRequest) -> Result<WantedSeal, Problem> {
    match (body.passphrase, body.shamir, body.device) {
        (Some(passphrase), None, None) => Ok(of_passphrase(passphrase)?),
        (None, Some(shamir), None) => of_shares(shamir),
        (None, None, Some(device)) => {
            let Some(kind) = DeviceKind::parse(&device.kind) else {
                let words = DeviceKind::ALL.map(|kind| kind.as_str().to_owned());
                let message = "expected one of the allowed kinds".into();
                let field = Some("device.kind".to_owned());
                return Err(Syntax { field, message, allowed: words.to_vec() }.into());
            };
            Ok(WantedSeal::Device { kind, settings: device.settings.0 })
        }
        (_, _, _) => {
            Err(Syntax::field("passphrase", "expected one of `passphrase`, `shamir` and `device`")
                .into())
        }
    }
}

fn of_passphrase(wanted: PassphraseSeal) -> Result<WantedSeal, Syntax> {
    let usual = Argon2Params::default();
    let memory_kib = wanted.memory_kib.unwrap_or(usual.memory_kib());
    let passes = wanted.passes.unwrap_or(Argon2Params::SEAL_PASSES);
    let costs = Argon2Params::parse(memory_kib, passes, usual.lanes());
    let costs = costs.ok().filter(|costs| costs.memory_kib() >= 1_024).ok_or_else(|| {
        Syntax::field("memory_kib", "expected 1024 to 1048576, with 1 to 16 `passes`")
    })?;
    Ok(WantedSeal::Passphrase { passphrase: wanted.passphrase.0, costs })
}

fn of_shares(wanted: ShamirSeal) -> Result<WantedSeal, Problem> {
    let bad = |field| Syntax::field(field, "expected 32 bytes");
    let id = seal_id(&wanted.id)?;
    let public = wanted.public.0.as_slice().try_into().map_err(|_| bad("public"))?;
    let mut holders = Vec::with_capacity(wanted.holders.len());
    for holder in wanted.holders {
        let check_value = holder.check_value.0.as_slice().try_into();
        let check_value = check_value.map_err(|_| bad("check_value"))?;
        let recipient = holder.recipient.unwrap_or_default();
        holders.push(ShareHolder { recipient, check_value });
    }
    let wrapped_seed = wanted.wrapped_seed.0;
    let shared = wanted.shared.0.to_array().ok_or_else(|| bad("shared"))?;
    let draft = SealDraft::received(id, wanted.threshold, holders, public, wrapped_seed, shared)?;
    Ok(WantedSeal::Shamir(draft))
}

fn seal_of(ask: &Ask) -> Result<[u8; 16], Syntax> {
    seal_id(&ask.text("seal")?)
}

fn seal_id(text: &str) -> Result<[u8; 16], Syntax> {
    let bad = || Syntax::field("seal", "expected the id of a seal, 32 hexadecimal digits");
    let number = text.bytes().all(|digit| digit.is_ascii_hexdigit()) && text.len() == 32;
    let number = number.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.map(u128::to_be_bytes).ok_or_else(bad)
}

fn view(report: SealsReport) -> SealsReply {
    let weakness = |weakness: &lastkey_service::weakness::Weakness| WeaknessView {
        code: weakness.as_str().to_owned(),
        message: weakness.to_string(),
        next: weakness.next().to_owned(),
    };
    SealsReply {
        seals: report.seals.into_iter().map(seal_view).collect(),
        weaknesses: report.weaknesses.iter().map(weakness).collect(),
        accepted: report
            .accepted
            .map(|accepted| AcceptedView { by: accepted.by, at: rfc3339(accepted.at) }),
        epoch: report.epoch,
        records_from: report.records_from,
        notice: None,
    }
}

fn seal_view(report: SealReport) -> SealView {
    let SealReport { id, kind, created_at, health, shares: shown } = report;
    let word = kind.as_str().to_owned();
    let (threshold, shares, settings) = match kind {
        SealKind::Shamir { threshold, holders } => {
            let share = |(number, holder): (u8, ShareHolder)| ShareView {
                number,
                recipient: Some(holder.recipient).filter(|recipient| !recipient.is_empty()),
                shown_at: shown.iter().find(|(n, _)| *n == number).map(|(_, at)| rfc3339(*at)),
            };
            (Some(threshold), (1..).zip(holders).map(share).collect(), None)
        }
        SealKind::Device { settings, .. } => (None, Vec::new(), Some(StringMap(settings))),
        SealKind::Passphrase { .. } | SealKind::Keyfile => (None, Vec::new(), None),
    };
    SealView {
        id: id.to_string(),
        kind: word,
        health: health.as_str().to_owned(),
        opened_at: opened_at(&health).map(rfc3339),
        problem: problem(health),
        created_at: rfc3339(created_at),
        threshold,
        shares,
        settings,
    }
}

/// When a seal was last seen to open.
pub(crate) const fn opened_at(health: &Health) -> Option<lastkey_core::time::Timestamp> {
    match health {
        Health::Proven(at) | Health::Stale(at) => Some(*at),
        Health::HolderNeeded | Health::Failed(_) => None,
    }
}

fn problem(health: Health) -> Option<String> {
    match health {
        Health::Failed(problem) => Some(problem),
        Health::Proven(_) | Health::Stale(_) | Health::HolderNeeded => None,
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::ids::RequestId;

    use super::*;

    #[test]
    fn an_id_is_32_hexadecimal_digits() {
        let id = RequestId([0xab; 16]);
        assert_eq!(seal_id(&id.to_string()).ok(), Some(id.0));
        for text in ["", "ab", &"g".repeat(32), &"a".repeat(31), &"+".repeat(32)] {
            assert!(seal_id(text).is_err(), "{text}");
        }
    }
}
