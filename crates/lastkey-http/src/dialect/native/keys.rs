//! Keys: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ids::KeyId;
use lastkey_core::key::{DeletionWindow, Description, Tags};
use lastkey_core::limits::DEFAULT_DELETION_DAYS;
use lastkey_core::rotation::Period;
use lastkey_core::version::Origin;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::sign::SignAlgorithm;
use lastkey_service::ops::{self, StateChange};
use lastkey_wire::native::Empty;
use lastkey_wire::native::keys::{
    CreateKeyRequest, ImportParametersReply, ImportParametersRequest, ImportRequest, KeyView,
    ListKeysReply, PublicKeyReply, RemoveTagsRequest, RotationReply, ScheduleDeletionRequest,
    SetRotationRequest, SetTagsRequest, UpdateKeyRequest,
};
use lastkey_wire::native::query::{DryRunQuery, PageQuery, VersionQuery};
use lastkey_wire::words::KeySpec;
use lastkey_wire::{Base64Bytes, SecretText};

use super::decode::{Ask, RequestBody, alias, optional_version, page_len, parse, spec};
use super::encode::{key_view, rfc3339, rotation_view};
use super::holdings::in_spite;
use super::words::{algorithm_out, import_algorithm_in, origin_in, spec_out, usage_in, usage_out};
use crate::problem::{Problem, Syntax};

impl RequestBody for Empty {}
impl RequestBody for CreateKeyRequest {}
impl RequestBody for UpdateKeyRequest {}
impl RequestBody for SetRotationRequest {}
impl RequestBody for ScheduleDeletionRequest {}
impl RequestBody for ImportParametersRequest {}
impl RequestBody for ImportRequest {}
impl RequestBody for SetTagsRequest {}
impl RequestBody for RemoveTagsRequest {}

/// `POST /v1/keys`
pub(super) async fn create(ask: &Ask, body: CreateKeyRequest) -> Result<KeyView, Problem> {
    let request = create_request(body)?;
    let view = ask.engine().create_key(ask.call(), request).await?;
    Ok(key_view(view))
}

fn create_request(body: CreateKeyRequest) -> Result<ops::create_key::Request, Syntax> {
    let tags = body.tags.unwrap_or_default().0;
    Ok(ops::create_key::Request {
        spec: spec("spec", body.spec.unwrap_or(KeySpec::Aes256))?,
        usage: body.usage.map(usage_in),
        origin: body.origin.map_or(Origin::Generated, origin_in),
        alias: body.alias.map(|name| alias("alias", &name)).transpose()?,
        description: description(&body.description.unwrap_or_default())?,
        tags: Tags::default()
            .with(tags)
            .map_err(|error| Syntax::field("tags", error.to_string()))?,
        deletion_protection: body.deletion_protection,
        rotation: body
            .rotation_period_seconds
            .map(|seconds| period("rotation_period_seconds", seconds))
            .transpose()?,
    })
}

fn description(text: &str) -> Result<Description, Syntax> {
    parse("description", text, Description::parse)
}

fn period(field: &str, seconds: u64) -> Result<Period, Syntax> {
    Period::from_secs(seconds).map_err(|error| Syntax::field(field, error.to_string()))
}

/// `GET /v1/keys`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListKeysReply, Problem> {
    let limit = page_len(query.limit)?;
    let after = query.marker.map(|marker| parse("marker", &marker, KeyId::parse)).transpose()?;
    let page = ask.engine().list_keys(ask.call(), after, limit).await?;
    let keys: Vec<_> = page.items.into_iter().map(key_view).collect();
    let next_marker = keys.last().filter(|_| page.more).map(|key| key.id.clone());
    Ok(ListKeysReply { keys, next_marker })
}

/// `GET /v1/keys/{key}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<KeyView, Problem> {
    let view = ask.engine().describe_key(ask.call(), ask.key()?).await?;
    Ok(key_view(view))
}

/// `PATCH /v1/keys/{key}`
pub(super) async fn update(ask: &Ask, body: UpdateKeyRequest) -> Result<KeyView, Problem> {
    let new = body.description.as_deref().map(description).transpose()?;
    let protection = body.deletion_protection;
    let view = ask.engine().update_key(ask.call(), ask.key()?, new, protection).await?;
    Ok(key_view(view))
}

/// `POST /v1/keys/{key}/rotate`
pub(super) async fn rotate(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    let view = ask.engine().rotate_key(ask.call(), ask.key()?).await?;
    Ok(key_view(view))
}

/// `GET /v1/keys/{key}/rotation`
pub(super) async fn rotation(ask: &Ask, _: DryRunQuery) -> Result<RotationReply, Problem> {
    let view = ask.engine().describe_key(ask.call(), ask.key()?).await?;
    Ok(RotationReply { key: view.key.id.to_string(), rotation: rotation_view(&view) })
}

/// `PUT /v1/keys/{key}/rotation`
pub(super) async fn set_rotation(
    ask: &Ask,
    body: SetRotationRequest,
) -> Result<RotationReply, Problem> {
    let period = period("period_seconds", body.period_seconds)?;
    change_rotation(ask, Some(period)).await
}

/// `DELETE /v1/keys/{key}/rotation`
pub(super) async fn stop_rotation(ask: &Ask, _: Empty) -> Result<RotationReply, Problem> {
    change_rotation(ask, None).await
}

async fn change_rotation(ask: &Ask, period: Option<Period>) -> Result<RotationReply, Problem> {
    let view = ask.engine().set_rotation(ask.call(), ask.key()?, period).await?;
    Ok(RotationReply { key: view.key.id.to_string(), rotation: rotation_view(&view) })
}

/// `POST /v1/keys/{key}/enable`
pub(super) async fn enable(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    change_state(ask, StateChange::Enable).await
}

/// `POST /v1/keys/{key}/disable`
pub(super) async fn disable(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    change_state(ask, StateChange::Disable).await
}

/// `POST /v1/keys/{key}/deactivate`
pub(super) async fn deactivate(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    change_state(ask, StateChange::Deactivate).await
}

/// `POST /v1/keys/{key}/compromise`
pub(super) async fn compromise(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    change_state(ask, StateChange::MarkCompromised).await
}

async fn change_state(ask: &Ask, change: StateChange) -> Result<KeyView, Problem> {
    let view = ask.engine().change_state(ask.call(), ask.key()?, change).await?;
    Ok(key_view(view))
}

/// `POST /v1/keys/{key}/schedule-deletion`
pub(super) async fn schedule_deletion(
    ask: &Ask,
    body: ScheduleDeletionRequest,
) -> Result<KeyView, Problem> {
    let window = DeletionWindow::from_days(body.window_days.unwrap_or(DEFAULT_DELETION_DAYS))
        .map_err(|error| Syntax::field("window_days", error.to_string()))?;
    let in_spite = in_spite(body.in_spite_of_reports.as_deref())?;
    let view = ask.engine().schedule_deletion(ask.call(), ask.key()?, window, in_spite).await?;
    Ok(key_view(view))
}

/// `POST /v1/keys/{key}/cancel-deletion`
pub(super) async fn cancel_deletion(ask: &Ask, _: Empty) -> Result<KeyView, Problem> {
    let view = ask.engine().cancel_deletion(ask.call(), ask.key()?).await?;
    Ok(key_view(view))
}

/// `GET /v1/keys/{key}/public-key`
pub(super) async fn public_key(ask: &Ask, query: VersionQuery) -> Result<PublicKeyReply, Problem> {
    let version = optional_version("version", query.version)?;
    let reply = ask.engine().public_key(ask.call(), ask.key()?, version).await?;
    Ok(PublicKeyReply {
        public_key: Base64Bytes(reply.der),
        spec: spec_out(reply.spec),
        usage: usage_out(reply.usage),
        signing_algorithms: signing_algorithms(reply.usage, reply.spec),
        key: reply.key.to_string(),
        version: reply.version.number(),
    })
}

fn signing_algorithms(
    usage: lastkey_core::key::KeyUsage,
    spec: MaterialSpec,
) -> Vec<lastkey_wire::words::SigningAlgorithm> {
    if usage != lastkey_core::key::KeyUsage::SignVerify {
        return Vec::new();
    }
    SignAlgorithm::for_spec(spec).iter().copied().map(algorithm_out).collect()
}

/// `POST /v1/keys/{key}/import-parameters`
pub(super) async fn import_parameters(
    ask: &Ask,
    body: ImportParametersRequest,
) -> Result<ImportParametersReply, Problem> {
    let algorithm = import_algorithm_in(body.algorithm);
    let reply = ask.engine().import_parameters(ask.call(), ask.key()?, algorithm).await?;
    Ok(ImportParametersReply {
        token: SecretText(reply.token),
        wrapping_key: Base64Bytes(reply.wrapping_key),
        algorithm: body.algorithm,
        expires_at: rfc3339(reply.expires_at),
    })
}

/// `POST /v1/keys/{key}/import`
pub(super) async fn import(ask: &Ask, body: ImportRequest) -> Result<KeyView, Problem> {
    let (token, wrapped) = (body.token.0, body.wrapped_material.0);
    let view = ask.engine().import_material(ask.call(), ask.key()?, token, wrapped).await?;
    Ok(key_view(view))
}

/// `PUT /v1/keys/{key}/tags`
pub(super) async fn set_tags(ask: &Ask, body: SetTagsRequest) -> Result<KeyView, Problem> {
    let tags = body.tags.0.into_iter().collect();
    let view = ask.engine().tag_key(ask.call(), ask.key()?, tags).await?;
    Ok(key_view(view))
}

/// `DELETE /v1/keys/{key}/tags`
pub(super) async fn remove_tags(ask: &Ask, body: RemoveTagsRequest) -> Result<KeyView, Problem> {
    let view = ask.engine().untag_key(ask.call(), ask.key()?, body.names).await?;
    Ok(key_view(view))
}
