//! Rotation of managed secrets: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::cron::Cron;
use lastkey_core::ids::Name;
use lastkey_core::rotation::Period;
use lastkey_core::secret_rotation::{Accounts, Recipe, Schedule, Strategy};
use lastkey_service::error::Error;
use lastkey_service::ops::secrets::{Begin, RotationRequest, RotationView, StrategyRequest};
use lastkey_wire::SecretText;
use lastkey_wire::native::Empty;
use lastkey_wire::native::query::DryRunQuery;
use lastkey_wire::native::rotation::{
    DatabaseStrategy, GeneratedStrategy, LastRotationView, OverlapView, RotateSecretRequest,
    SecretRotationView, SetSecretRotationReply, SetSecretRotationRequest, UnderWayView,
    WebhookStrategy,
};

use super::decode::{Ask, RequestBody, parse};
use super::encode::rfc3339;
use super::secrets::name;
use crate::problem::{Problem, Syntax};

impl RequestBody for SetSecretRotationRequest {}
impl RequestBody for RotateSecretRequest {}

fn recipe(generated: &GeneratedStrategy) -> Result<Recipe, Problem> {
    let length = generated.length.unwrap_or(Recipe::DEFAULT_LENGTH);
    let alphabet = generated.alphabet.as_deref().unwrap_or(Recipe::ALPHANUMERIC);
    let recipe = Recipe::new(length, alphabet, generated.field.as_deref());
    recipe.map_err(|error| Error::from(error).into())
}

fn strategy(body: &SetSecretRotationRequest) -> Result<StrategyRequest, Problem> {
    match (&body.generated, &body.database, &body.webhook) {
        (Some(generated), None, None) => Ok(StrategyRequest::Generated(recipe(generated)?)),
        (None, Some(database), None) => {
            let name = parse("database.name", &database.name, Name::parse)?;
            let pair: [String; 2] = database
                .accounts
                .clone()
                .try_into()
                .map_err(|_| Syntax::field("database.accounts", "expected two accounts"))?;
            Ok(StrategyRequest::Accounts(Accounts { database: name, pair }))
        }
        (None, None, Some(webhook)) => Ok(StrategyRequest::Webhook {
            url: webhook.url.clone(),
            authority: webhook.authority.clone(),
            recipe: recipe(&webhook.generated)?,
        }),
        _none_or_several => {
            let expected = "expected one of `generated`, `database` and `webhook`";
            Err(Syntax::field("generated", expected).into())
        }
    }
}

fn schedule(body: &SetSecretRotationRequest) -> Result<Option<Schedule>, Problem> {
    match (body.period_seconds, &body.cron, body.window_seconds) {
        (None, None, None) => Ok(None),
        (Some(seconds), None, None) => {
            let period = Period::from_secs(seconds).map_err(Error::from)?;
            Ok(Some(Schedule::Every(period)))
        }
        (None, Some(text), window) => {
            let cron = parse("cron", text, Cron::parse)?;
            Ok(Some(Schedule::At { cron, window_secs: window.unwrap_or_default() }))
        }
        (_, None, Some(_)) => Err(Syntax::field("window_seconds", "a window needs `cron`").into()),
        (Some(_), Some(_), _) => {
            Err(Syntax::field("cron", "expected `period_seconds` or `cron`, not both").into())
        }
    }
}

fn recipe_view(recipe: &Recipe) -> GeneratedStrategy {
    GeneratedStrategy {
        length: Some(recipe.length()),
        alphabet: Some(recipe.alphabet().to_owned()),
        field: recipe.field().map(str::to_owned),
    }
}

fn view(view: RotationView) -> SecretRotationView {
    let RotationView { rotation, due_at, overlap_ends_at, holders } = view;
    let (mut generated, mut database, mut webhook) = (None, None, None);
    match &rotation.strategy {
        Strategy::Generated(recipe) => generated = Some(recipe_view(recipe)),
        Strategy::Accounts(accounts) => {
            let (name, accounts) = (accounts.database.to_string(), accounts.pair.to_vec());
            database = Some(DatabaseStrategy { name, accounts });
        }
        Strategy::Webhook(one) => {
            webhook = Some(WebhookStrategy {
                url: one.url.clone(),
                authority: one.authority.clone(),
                generated: recipe_view(&one.recipe),
            });
        }
    }
    let (period_seconds, cron, window_seconds) = match &rotation.schedule {
        Some(Schedule::Every(period)) => (Some(period.as_secs()), None, None),
        Some(Schedule::At { cron, window_secs }) => {
            (None, Some(cron.as_str().to_owned()), (*window_secs > 0).then_some(*window_secs))
        }
        None => (None, None, None),
    };
    SecretRotationView {
        name: rotation.name.to_string(),
        generated,
        database,
        webhook,
        period_seconds,
        cron,
        window_seconds,
        overlap_seconds: rotation.overlap_secs,
        due_at: due_at.map(rfc3339),
        under_way: rotation.under_way.map(|one| UnderWayView {
            version: one.version.number(),
            step: one.step.as_str().to_owned(),
            began_at: rfc3339(one.began_at),
        }),
        overlap: rotation.overlap.zip(overlap_ends_at).map(|(overlap, ends_at)| OverlapView {
            version: overlap.version.number(),
            ends_at: rfc3339(ends_at),
            waits_for_consumers: overlap.waits_for_consumers,
            holders,
        }),
        failures: rotation.failures,
        last: rotation.last.map(|last| LastRotationView {
            at: rfc3339(last.at),
            version: last.version.map(|number| number.number()),
            problem: last.problem,
        }),
    }
}

/// `PUT /v1/secrets/{secret}/rotation`
pub(super) async fn set(
    ask: &Ask,
    body: SetSecretRotationRequest,
) -> Result<SetSecretRotationReply, Problem> {
    let request = RotationRequest {
        strategy: strategy(&body)?,
        schedule: schedule(&body)?,
        overlap_secs: body.overlap_seconds,
    };
    let set = ask.engine().set_secret_rotation(ask.call(), name(ask)?, request).await?;
    let signing_key = set.signing.map(SecretText);
    Ok(SetSecretRotationReply { rotation: view(set.view), signing_key })
}

/// `GET /v1/secrets/{secret}/rotation`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<SecretRotationView, Problem> {
    Ok(view(ask.engine().secret_rotation(ask.call(), &name(ask)?).await?))
}

/// `DELETE /v1/secrets/{secret}/rotation`
pub(super) async fn remove(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_secret_rotation(ask.call(), name(ask)?).await?;
    Ok(Empty {})
}

/// `POST /v1/secrets/{secret}/rotate`
pub(super) async fn rotate(
    ask: &Ask,
    body: RotateSecretRequest,
) -> Result<SecretRotationView, Problem> {
    let begin =
        Begin { waits_for_consumers: body.wait_for_consumers, ends_overlap: body.end_overlap };
    Ok(view(ask.engine().rotate_secret(ask.call(), name(ask)?, begin).await?))
}
