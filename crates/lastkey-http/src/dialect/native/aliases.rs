//! Aliases: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_wire::native::Empty;
use lastkey_wire::native::aliases::{AliasView, ListAliasesReply, SetAliasRequest};
use lastkey_wire::native::keys::KeyView;
use lastkey_wire::native::query::PageQuery;

use super::decode::{Ask, RequestBody, alias, key, page_len};
use super::encode::key_view;
use crate::problem::Problem;

impl RequestBody for SetAliasRequest {}

/// `GET /v1/aliases`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListAliasesReply, Problem> {
    let limit = page_len(query.limit)?;
    let after = query.marker.map(|marker| alias("marker", &marker)).transpose()?;
    let page = ask.engine().list_aliases(ask.call(), after, limit).await?;
    let view = |item: &lastkey_service::view::AliasView| AliasView {
        alias: item.alias.to_string(),
        key: item.key.to_string(),
    };
    let aliases: Vec<_> = page.items.iter().map(view).collect();
    let next_marker = aliases.last().filter(|_| page.more).map(|last| last.alias.clone());
    Ok(ListAliasesReply { aliases, next_marker })
}

/// `PUT /v1/aliases/{alias}`
pub(super) async fn set(ask: &Ask, body: SetAliasRequest) -> Result<KeyView, Problem> {
    let target = key("key", &body.key)?;
    let view = ask.engine().set_alias(ask.call(), ask.alias()?, target).await?;
    Ok(key_view(view))
}

/// `DELETE /v1/aliases/{alias}`
pub(super) async fn delete(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().delete_alias(ask.call(), ask.alias()?).await?;
    Ok(Empty {})
}
