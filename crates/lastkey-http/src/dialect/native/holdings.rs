//! Holdings: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::holding::{HeldThing, Holding, Inventory, Reason};
use lastkey_core::ids::{Name, VersionNo};
use lastkey_service::ops::holdings::Report;
use lastkey_service::view::Impact;
use lastkey_wire::native::Empty;
use lastkey_wire::native::holdings::{
    self as wire, DestroyVersionRequest, ForgetHoldingRequest, HeldVersion, HoldingView,
    ImpactReply, ReportHoldingRequest,
};
use lastkey_wire::native::query::DryRunQuery;

use super::decode::{Ask, RequestBody, parse};
use super::encode::{key_view, rfc3339};
use super::words::{held_in, held_out};
use crate::problem::{Problem, Syntax};

impl RequestBody for ReportHoldingRequest {}
impl RequestBody for ForgetHoldingRequest {}
impl RequestBody for DestroyVersionRequest {}

/// `PUT /v1/keys/{key}/holdings/{place}`
pub(super) async fn report(ask: &Ask, body: ReportHoldingRequest) -> Result<Empty, Problem> {
    let version = |held: &HeldVersion| {
        let number = VersionNo::new(held.version);
        let wrong = || Syntax::field("versions", "versions count from 1");
        number.ok_or_else(wrong).map(|number| (number, held.count))
    };
    let versions = body.versions.iter().map(version).collect::<Result<_, _>>()?;
    let things = body.things.into_iter().map(thing_in).collect::<Result<_, _>>()?;
    let report = Report { place: place(ask)?, what: held_in(body.what), versions, things };
    ask.engine().report_holding(ask.call(), ask.key()?, report).await?;
    Ok(Empty {})
}

/// `DELETE /v1/keys/{key}/holdings/{place}`
pub(super) async fn forget(ask: &Ask, body: ForgetHoldingRequest) -> Result<Empty, Problem> {
    let why = parse("reason", &body.reason, Reason::parse)?;
    ask.engine().forget_holding(ask.call(), ask.key()?, place(ask)?, why).await?;
    Ok(Empty {})
}

/// `GET /v1/keys/{key}/impact`
pub(super) async fn impact(ask: &Ask, _: DryRunQuery) -> Result<ImpactReply, Problem> {
    let Impact { key, inventories, secrets, secret_versions } =
        ask.engine().impact(ask.call(), ask.key()?).await?;
    let mut key = key_view(key);
    for Inventory { place, things, .. } in inventories {
        if let Some(holding) = key.holdings.iter_mut().find(|one| one.place == place.as_str()) {
            holding.things = things.into_iter().map(thing_out).collect();
        }
    }
    Ok(ImpactReply {
        key: key.id,
        state: key.state,
        primary_version: key.primary_version,
        last_used_at: key.last_used_at,
        holdings: key.holdings,
        secrets,
        secret_versions,
    })
}

/// Why something is destroyed in spite of what was reported.
///
/// # Errors
/// [`Syntax`].
pub(super) fn in_spite(text: Option<&str>) -> Result<Option<Reason>, Syntax> {
    text.map(|text| parse("in_spite_of_reports", text, Reason::parse)).transpose()
}

fn place(ask: &Ask) -> Result<Name, Syntax> {
    parse("place", &ask.second("place")?, Name::parse)
}

fn thing_in(thing: wire::HeldThing) -> Result<HeldThing, Syntax> {
    let wrong = || Syntax::field("things", "versions count from 1");
    let version = VersionNo::new(thing.version).ok_or_else(wrong)?;
    Ok(HeldThing { name: thing.name, version, about: thing.about.0.into_iter().collect() })
}

fn thing_out(thing: HeldThing) -> wire::HeldThing {
    let version = thing.version.number();
    wire::HeldThing { name: thing.name, version, about: thing.about.into_iter().collect() }
}

/// A report of a place.
pub(super) fn holding_view(holding: Holding) -> HoldingView {
    let held = |(version, count): &(VersionNo, u64)| {
        let version = version.number();
        HeldVersion { version, count: *count }
    };
    HoldingView {
        place: holding.place.to_string(),
        what: held_out(holding.what),
        count: holding.count(None),
        versions: holding.versions.iter().map(held).collect(),
        things: Vec::new(),
        reported_at: rfc3339(holding.reported_at),
        reported_by: holding.reported_by,
        overridden: holding.overridden,
    }
}
