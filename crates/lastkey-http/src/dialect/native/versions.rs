//! Key versions: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ids::VersionNo;
use lastkey_service::ops::VersionChange;
use lastkey_wire::native::Empty;
use lastkey_wire::native::holdings::DestroyVersionRequest;
use lastkey_wire::native::query::{DryRunQuery, PageQuery};
use lastkey_wire::native::versions::{ListVersionsReply, VersionView};

use super::decode::{Ask, page_len, parse};
use super::encode::version_view;
use super::holdings::in_spite;
use crate::problem::Problem;

/// `GET /v1/keys/{key}/versions`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListVersionsReply, Problem> {
    let limit = page_len(query.limit)?;
    let after = query
        .marker
        .map(|marker| parse("marker", &marker, |text| text.parse::<VersionNo>()))
        .transpose()?;
    let page = ask.engine().list_versions(ask.call(), ask.key()?, after, limit).await?;
    let versions: Vec<_> = page.items.iter().map(version_view).collect();
    let next_marker = versions.last().filter(|_| page.more).map(|last| last.version.to_string());
    Ok(ListVersionsReply { versions, next_marker })
}

/// `GET /v1/keys/{key}/versions/{version}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<VersionView, Problem> {
    let view = ask.engine().describe_version(ask.call(), ask.key()?, ask.version()?).await?;
    Ok(version_view(&view))
}

/// `POST /v1/keys/{key}/versions/{version}/make-primary`
pub(super) async fn make_primary(ask: &Ask, _: Empty) -> Result<VersionView, Problem> {
    change(ask, VersionChange::MakePrimary).await
}

/// `POST /v1/keys/{key}/versions/{version}/shadow-disable`
pub(super) async fn shadow_disable(ask: &Ask, _: Empty) -> Result<VersionView, Problem> {
    change(ask, VersionChange::ShadowDisable).await
}

/// `POST /v1/keys/{key}/versions/{version}/enable`
pub(super) async fn enable(ask: &Ask, _: Empty) -> Result<VersionView, Problem> {
    change(ask, VersionChange::Reinstate).await
}

/// `POST /v1/keys/{key}/versions/{version}/compromise`
pub(super) async fn compromise(ask: &Ask, _: Empty) -> Result<VersionView, Problem> {
    change(ask, VersionChange::MarkCompromised).await
}

/// `POST /v1/keys/{key}/versions/{version}/destroy`
pub(super) async fn destroy(
    ask: &Ask,
    body: DestroyVersionRequest,
) -> Result<VersionView, Problem> {
    let in_spite = in_spite(body.in_spite_of_reports.as_deref())?;
    let (key, version) = (ask.key()?, ask.version()?);
    let view = ask.engine().destroy_key_version(ask.call(), key, version, in_spite).await?;
    Ok(version_view(&view))
}

async fn change(ask: &Ask, change: VersionChange) -> Result<VersionView, Problem> {
    let (key, version) = (ask.key()?, ask.version()?);
    let view = ask.engine().change_version(ask.call(), key, version, change).await?;
    Ok(version_view(&view))
}
