//! Managed secrets: decode, one use case, encode.
//!
//! Room      `http`.

use std::collections::BTreeMap;
use std::time::Duration;

use lastkey_core::ids::VersionNo;
use lastkey_core::key::{DeletionWindow, Description, Tags};
use lastkey_core::limits::DEFAULT_DELETION_DAYS;
use lastkey_core::secret_item::{
    SecretItem, SecretName, SecretPath, SecretVersion, Stage, ValueKind,
};
use lastkey_core::secret_value::Fields;
use lastkey_core::time::Timestamp;
use lastkey_service::error::Error;
use lastkey_service::ops::secrets::{
    self as ops, Holder, Listed, PutRequest, Search, SecretChange, SecretPage, Seen, Statement,
    Transfer, Value, Which,
};
use lastkey_wire::native::Empty;
use lastkey_wire::native::query::DryRunQuery;
use lastkey_wire::native::secrets::{
    DeleteSecretRequest, ListSecretVersionsReply, ListSecretsQuery, ListSecretsReply,
    PlaceStageRequest, PutSecretRequest, SecretConsumer, SecretConsumersReply, SecretHolder,
    SecretValueQuery, SecretValueReply, SecretVersionView, SecretView, SeenSecret,
    TransferSecretRequest, UpdateSecretRequest, WatchSecretsReply, WatchSecretsRequest,
};
use lastkey_wire::{SecretBase64, StringMap};

use super::decode::{Ask, RequestBody, optional_key, optional_version, page_len, parse};
use super::encode::rfc3339;
use crate::problem::{Problem, Syntax};

impl RequestBody for PutSecretRequest {}
impl RequestBody for UpdateSecretRequest {}
impl RequestBody for PlaceStageRequest {}
impl RequestBody for DeleteSecretRequest {}
impl RequestBody for TransferSecretRequest {}
impl RequestBody for WatchSecretsRequest {}

/// The secret in the path.
pub(super) fn name(ask: &Ask) -> Result<SecretName, Syntax> {
    parse("secret", &ask.text("secret")?, SecretName::parse)
}

fn stage(text: &str) -> Result<Stage, Syntax> {
    parse("stage", text, Stage::parse)
}

fn number(version: u32) -> Result<VersionNo, Syntax> {
    VersionNo::new(version).ok_or_else(|| Syntax::field("version", "expected a number from 1"))
}

fn description(text: Option<&str>) -> Result<Option<Description>, Problem> {
    text.map(|text| parse("description", text, Description::parse)).transpose().map_err(Into::into)
}

fn value(body: &mut PutSecretRequest) -> Result<Value, Syntax> {
    match (body.value.take(), body.fields.take()) {
        (Some(SecretBase64(bytes)), None) => Ok(Value { kind: ValueKind::Opaque, bytes }),
        (None, Some(fields)) => {
            let fields = fields.into_iter().map(|(name, SecretBase64(value))| (name, value));
            let encoded = Fields::new(fields.collect()).map(|fields| fields.encode());
            let bytes = encoded.map_err(|error| Syntax::field("fields", error.to_string()))?;
            let bytes = bytes.ok_or_else(|| Syntax::field("fields", "a field is too long"))?;
            Ok(Value { kind: ValueKind::Fields, bytes })
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(Syntax::field("value", "expected either `value` or `fields`"))
        }
    }
}

fn view(view: ops::SecretView) -> SecretView {
    let ops::SecretView { item, deletion_at } = view;
    SecretView {
        name: item.name.to_string(),
        id: item.id.to_string(),
        key: item.key.to_string(),
        description: item.description.as_str().to_owned(),
        tags: item.tags.iter().map(|(tag, held)| (tag.to_owned(), held.to_owned())).collect(),
        newest_version: item.newest.number(),
        stages: item.stages.iter().map(|(stage, at)| (stage.to_string(), at.number())).collect(),
        keep_versions: item.keep,
        created_at: rfc3339(item.created_at),
        written_at: rfc3339(item.written_at),
        destroyed_at: deletion_at.map(rfc3339),
    }
}

fn stages_of(item: &SecretItem, number: VersionNo) -> Vec<String> {
    item.stages_of(number).map(ToString::to_string).collect()
}

/// `PUT /v1/secrets/{secret}`
pub(super) async fn put(ask: &Ask, mut body: PutSecretRequest) -> Result<SecretView, Problem> {
    let tags = body.tags.take().map(|StringMap(tags)| Tags::default().with(tags));
    let request = PutRequest {
        value: value(&mut body)?,
        key: optional_key("key", body.key.as_deref())?,
        description: description(body.description.as_deref())?,
        tags: tags.transpose().map_err(Error::from)?,
        expected_version: body.expected_version,
        stage: body.stage.as_deref().map(stage).transpose()?,
        keep: body.keep_versions,
    };
    Ok(view(ask.engine().put_secret(ask.call(), name(ask)?, request).await?))
}

/// `GET /v1/secrets/{secret}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<SecretView, Problem> {
    Ok(view(ask.engine().describe_secret(ask.call(), &name(ask)?).await?))
}

/// `GET /v1/secrets/{secret}/value`
pub(super) async fn read(ask: &Ask, query: SecretValueQuery) -> Result<SecretValueReply, Problem> {
    let which = match (query.version, query.stage) {
        (Some(version), None) => Which::Number(number(version)?),
        (None, Some(text)) => Which::Stage(stage(&text)?),
        (None, None) => Which::Stage(Stage::current()),
        (Some(_), Some(_)) => {
            return Err(Syntax::field("version", "expected `version` or `stage`, not both").into());
        }
    };
    let read = ask.engine().get_secret(ask.call(), &name(ask)?, &which).await?;
    let (value, fields) = told(read.value)?;
    Ok(SecretValueReply {
        name: read.item.name.to_string(),
        version: read.version.number.number(),
        stages: stages_of(&read.item, read.version.number),
        created_at: rfc3339(read.version.created_at),
        value,
        fields,
    })
}

type Told = (Option<SecretBase64>, Option<BTreeMap<String, SecretBase64>>);

fn told(value: Value) -> Result<Told, Error> {
    match value.kind {
        ValueKind::Opaque => Ok((Some(SecretBase64(value.bytes)), None)),
        ValueKind::Fields => {
            let fields = value.bytes.expose(Fields::parse);
            let fields = fields.map_err(|error| Error::Internal(error.into()))?.into_inner();
            let fields = fields.into_iter().map(|(name, value)| (name, SecretBase64(value)));
            Ok((None, Some(fields.collect())))
        }
    }
}

/// `GET /v1/secrets/{secret}/versions`
pub(super) async fn versions(
    ask: &Ask,
    _: DryRunQuery,
) -> Result<ListSecretVersionsReply, Problem> {
    let (item, versions) = ask.engine().secret_versions(ask.call(), &name(ask)?).await?;
    let versions = versions.into_iter().map(|version| version_view(&item, version)).collect();
    Ok(ListSecretVersionsReply { name: item.name.to_string(), versions })
}

fn version_view(item: &SecretItem, version: SecretVersion) -> SecretVersionView {
    SecretVersionView {
        version: version.number.number(),
        stages: stages_of(item, version.number),
        has_fields: version.kind == ValueKind::Fields,
        length: version.length,
        key: version.key.to_string(),
        created_at: rfc3339(version.created_at),
        created_by: version.created_by,
        destroyed_at: version.destroyed_at.map(rfc3339),
    }
}

/// `GET /v1/secrets`
pub(super) async fn list(ask: &Ask, query: ListSecretsQuery) -> Result<ListSecretsReply, Problem> {
    let limit = page_len(query.limit)?;
    let path = query.path.as_deref().unwrap_or_default();
    let older = |seconds| Timestamp(ask.engine().now().0.saturating_sub(seconds));
    let tag = query.tag.map(|tag| match tag.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (tag, None),
    });
    let search = Search {
        path: parse("path", path, SecretPath::parse)?,
        recursive: query.recursive,
        name: query.name,
        tag,
        written_before: query.older_than_seconds.map(older),
        deleted: query.deleted,
    };
    let page = ask.engine().list_secrets(ask.call(), &search, query.marker, limit).await?;
    let SecretPage { entries, next } = page;
    let (mut secrets, mut paths) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Listed::Secret(secret) => secrets.push(view(*secret)),
            Listed::Path(path) => paths.push(path),
        }
    }
    Ok(ListSecretsReply { secrets, paths, next_marker: next })
}

async fn change(ask: &Ask, change: SecretChange) -> Result<SecretView, Problem> {
    Ok(view(ask.engine().change_secret(ask.call(), name(ask)?, change).await?))
}

/// `PATCH /v1/secrets/{secret}`
pub(super) async fn update(ask: &Ask, body: UpdateSecretRequest) -> Result<SecretView, Problem> {
    let update = SecretChange::Update {
        description: description(body.description.as_deref())?,
        tags: body.tags.map(|StringMap(tags)| tags.into_iter().collect()).unwrap_or_default(),
        remove_tags: body.remove_tags,
        keep: body.keep_versions,
    };
    change(ask, update).await
}

/// `PUT /v1/secrets/{secret}/stages/{stage}`
pub(super) async fn place(ask: &Ask, body: PlaceStageRequest) -> Result<SecretView, Problem> {
    let (stage, version) = (stage(&ask.second("stage")?)?, number(body.version)?);
    change(ask, SecretChange::Place(stage, version)).await
}

/// `DELETE /v1/secrets/{secret}/stages/{stage}`
pub(super) async fn unplace(ask: &Ask, _: Empty) -> Result<SecretView, Problem> {
    change(ask, SecretChange::Unplace(stage(&ask.second("stage")?)?)).await
}

/// `DELETE /v1/secrets/{secret}`
pub(super) async fn delete(ask: &Ask, body: DeleteSecretRequest) -> Result<SecretView, Problem> {
    let days = body.window_days.unwrap_or(DEFAULT_DELETION_DAYS);
    let window = DeletionWindow::from_days(days).map_err(Error::from)?;
    change(ask, SecretChange::Delete(window)).await
}

/// `POST /v1/secrets/{secret}/restore`
pub(super) async fn restore(ask: &Ask, _: Empty) -> Result<SecretView, Problem> {
    change(ask, SecretChange::Restore).await
}

/// `POST /v1/secrets/{secret}/destroy`
pub(super) async fn destroy(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    change(ask, SecretChange::Destroy).await.map(|_| Empty {})
}

/// `POST /v1/secrets/{secret}/versions/{version}/destroy`
pub(super) async fn destroy_version(ask: &Ask, _: Empty) -> Result<SecretView, Problem> {
    change(ask, SecretChange::DestroyVersion(ask.version()?)).await
}

/// `POST /v1/secrets/{secret}/copy`
pub(super) async fn copy(ask: &Ask, body: TransferSecretRequest) -> Result<SecretView, Problem> {
    transfer(ask, &body.to, Transfer::Copy).await
}

/// `POST /v1/secrets/{secret}/move`
pub(super) async fn rename(ask: &Ask, body: TransferSecretRequest) -> Result<SecretView, Problem> {
    transfer(ask, &body.to, Transfer::Move).await
}

async fn transfer(ask: &Ask, to: &str, transfer: Transfer) -> Result<SecretView, Problem> {
    let names = (name(ask)?, parse("to", to, SecretName::parse)?);
    Ok(view(ask.engine().transfer_secret(ask.call(), names, transfer).await?))
}

/// `POST /v1/watch/secrets`
pub(super) async fn watch(
    ask: &Ask,
    body: WatchSecretsRequest,
) -> Result<WatchSecretsReply, Problem> {
    let seen = body.secrets.iter().map(|one| {
        let name = parse("secrets.name", &one.name, SecretName::parse)?;
        let version = optional_version("secrets.version", one.version)?;
        Ok(Seen { name, version })
    });
    let seen = seen.collect::<Result<Vec<_>, Syntax>>()?;
    let wait = Duration::from_secs(body.wait_seconds.unwrap_or_default().into());
    let statement = statement(body.holders_digest, body.holders, body.holders_incomplete)?;
    let news = ask.engine().watch_for_node(ask.call(), (&seen, statement), wait).await?;
    let changed = news.changed.into_iter().map(|one| SeenSecret {
        name: one.name.to_string(),
        version: one.version.map(VersionNo::number),
    });
    let holders_wanted = news.holders_wanted;
    Ok(WatchSecretsReply { changed: changed.collect(), holders_wanted })
}

fn statement(
    digest: Option<String>,
    holders: Option<Vec<SecretHolder>>,
    is_incomplete: bool,
) -> Result<Option<Statement>, Syntax> {
    let Some(digest) = digest else {
        return match holders {
            None => Ok(None),
            Some(_) => Err(Syntax::field("holders_digest", "holders have a digest")),
        };
    };
    if digest.len() > MAX_DIGEST_LEN {
        return Err(Syntax::field("holders_digest", "longer than 128 bytes"));
    }
    let holders = holders.map(|holders| holders.into_iter().map(holder).collect());
    Ok(Some(Statement { digest, holders: holders.transpose()?, is_incomplete }))
}

const MAX_DIGEST_LEN: usize = 128;
/// Kubernetes has no longer names.
const MAX_OBJECT_NAME_LEN: usize = 253;

fn holder(one: SecretHolder) -> Result<Holder, Syntax> {
    let texts = [&one.namespace, &one.service_account, &one.pod, &one.pod_uid];
    if texts.into_iter().any(|text| text.len() > MAX_OBJECT_NAME_LEN) {
        return Err(Syntax::field("holders", "a name of Kubernetes has at most 253 bytes"));
    }
    Ok(Holder {
        secret: parse("holders.secret", &one.secret, SecretName::parse)?,
        version: number(one.version)?,
        namespace: one.namespace,
        service_account: one.service_account,
        pod: one.pod,
        pod_uid: one.pod_uid,
        given_in_outage: one.given_in_outage,
    })
}

/// `GET /v1/secrets/{secret}/consumers`
pub(super) async fn consumers(ask: &Ask, _: DryRunQuery) -> Result<SecretConsumersReply, Problem> {
    let name = name(ask)?;
    let found = ask.engine().secret_consumers(ask.call(), &name).await?;
    let consumers = found.consumers.into_iter().map(|one| SecretConsumer {
        version: one.holder.version.number(),
        namespace: one.holder.namespace,
        pod: one.holder.pod,
        pod_uid: one.holder.pod_uid,
        service_account: one.holder.service_account,
        node: one.node.to_string(),
        cluster: one.cluster.map(|cluster| cluster.to_string()),
        since: rfc3339(one.since),
        heard_at: rfc3339(one.heard_at),
    });
    let heard_since = rfc3339(found.heard_since);
    Ok(SecretConsumersReply { name: name.to_string(), heard_since, consumers: consumers.collect() })
}
