//! Version 1 of the records of rotation.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::cron::Cron;
use lastkey_core::ids::Name;
use lastkey_core::rotation::Period;
use lastkey_core::secret_item::{SecretId, SecretName};
use lastkey_core::secret_rotation::{
    Accounts, LastRotation, Overlap, Recipe, RotationDue, Schedule, SecretRotation, Strategy,
    UnderWay, Webhook, is_account,
};
use lastkey_core::time::{Elapsed, Timestamp};
use minicbor::{Decode, Encode};

use super::v1::{WrappedV1, version_no};
use super::{DecodeError, codes};

#[derive(Encode, Decode)]
pub(super) struct SecretRotationV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    of: [u8; 16],
    #[b(1)]
    name: &'a str,
    #[b(2)]
    strategy: StrategyV1<'a>,
    #[b(3)]
    schedule: Option<ScheduleV1<'a>>,
    #[n(4)]
    overlap_secs: Option<u64>,
    #[n(5)]
    due: Option<u64>,
    #[n(6)]
    under_way: Option<UnderWayV1>,
    #[n(7)]
    overlap: Option<OverlapV1>,
    #[n(8)]
    failures: u32,
    #[b(9)]
    last: Option<LastV1<'a>>,
}

/// Exactly one of the three is there.
#[derive(Encode, Decode)]
struct StrategyV1<'a> {
    #[b(0)]
    generated: Option<RecipeV1<'a>>,
    #[b(1)]
    accounts: Option<AccountsV1<'a>>,
    #[b(2)]
    webhook: Option<WebhookV1<'a>>,
}

#[derive(Encode, Decode)]
struct RecipeV1<'a> {
    #[n(0)]
    length: u32,
    #[b(1)]
    alphabet: &'a str,
    #[b(2)]
    field: Option<&'a str>,
}

#[derive(Encode, Decode)]
struct AccountsV1<'a> {
    #[b(0)]
    database: &'a str,
    #[b(1)]
    first: &'a str,
    #[b(2)]
    second: &'a str,
}

#[derive(Encode, Decode)]
struct WebhookV1<'a> {
    #[b(0)]
    url: &'a str,
    #[b(1)]
    authority: Option<&'a str>,
    #[b(2)]
    signing: WrappedV1<'a>,
    #[b(3)]
    recipe: RecipeV1<'a>,
}

/// A period, or times of the calendar with their window.
#[derive(Encode, Decode)]
struct ScheduleV1<'a> {
    #[n(0)]
    period_secs: Option<u64>,
    #[b(1)]
    cron: Option<&'a str>,
    #[n(2)]
    window_secs: u32,
}

#[derive(Encode, Decode)]
struct UnderWayV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    version: u32,
    #[n(2)]
    replaces: Option<u32>,
    #[n(3)]
    step: u8,
    #[n(4)]
    began_at: u64,
    #[n(5)]
    waits_for_consumers: bool,
}

#[derive(Encode, Decode)]
struct OverlapV1 {
    #[n(0)]
    version: u32,
    #[n(1)]
    ends: u64,
    #[n(2)]
    waits_for_consumers: bool,
}

#[derive(Encode, Decode)]
struct LastV1<'a> {
    #[n(0)]
    at: u64,
    #[n(1)]
    version: Option<u32>,
    #[b(2)]
    problem: Option<&'a str>,
}

impl<'a> From<&'a SecretRotation> for SecretRotationV1<'a> {
    fn from(rotation: &'a SecretRotation) -> Self {
        Self {
            of: rotation.secret.0,
            name: rotation.name.as_str(),
            strategy: StrategyV1::from(&rotation.strategy),
            schedule: rotation.schedule.as_ref().map(ScheduleV1::from),
            overlap_secs: rotation.overlap_secs,
            due: rotation.due.map(|due| due.0),
            under_way: rotation.under_way.as_ref().map(|one| UnderWayV1 {
                id: one.id,
                version: one.version.number(),
                replaces: one.replaces.map(|number| number.number()),
                step: codes::step_code(one.step),
                began_at: one.began_at.0,
                waits_for_consumers: one.waits_for_consumers,
            }),
            overlap: rotation.overlap.map(|overlap| OverlapV1 {
                version: overlap.version.number(),
                ends: overlap.ends.0,
                waits_for_consumers: overlap.waits_for_consumers,
            }),
            failures: rotation.failures,
            last: rotation.last.as_ref().map(|last| LastV1 {
                at: last.at.0,
                version: last.version.map(|number| number.number()),
                problem: last.problem.as_deref(),
            }),
        }
    }
}

impl TryFrom<SecretRotationV1<'_>> for SecretRotation {
    type Error = DecodeError;

    fn try_from(rotation: SecretRotationV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            secret: SecretId(rotation.of),
            name: SecretName::parse(rotation.name).or(Err(DecodeError::Malformed))?,
            strategy: rotation.strategy.try_into()?,
            schedule: rotation.schedule.map(Schedule::try_from).transpose()?,
            overlap_secs: rotation.overlap_secs,
            due: rotation.due.map(Elapsed),
            under_way: rotation.under_way.map(UnderWay::try_from).transpose()?,
            overlap: rotation.overlap.map(Overlap::try_from).transpose()?,
            failures: rotation.failures,
            last: rotation.last.map(LastRotation::try_from).transpose()?,
        })
    }
}

impl<'a> From<&'a Strategy> for StrategyV1<'a> {
    fn from(strategy: &'a Strategy) -> Self {
        let none = Self { generated: None, accounts: None, webhook: None };
        match strategy {
            Strategy::Generated(recipe) => Self { generated: Some(recipe.into()), ..none },
            Strategy::Accounts(accounts) => {
                let [first, second] = &accounts.pair;
                let database = accounts.database.as_str();
                Self { accounts: Some(AccountsV1 { database, first, second }), ..none }
            }
            Strategy::Webhook(webhook) => Self {
                webhook: Some(WebhookV1 {
                    url: &webhook.url,
                    authority: webhook.authority.as_deref(),
                    signing: WrappedV1::from(&webhook.signing),
                    recipe: (&webhook.recipe).into(),
                }),
                ..none
            },
        }
    }
}

impl TryFrom<StrategyV1<'_>> for Strategy {
    type Error = DecodeError;

    fn try_from(strategy: StrategyV1<'_>) -> Result<Self, DecodeError> {
        match (strategy.generated, strategy.accounts, strategy.webhook) {
            (Some(recipe), None, None) => Ok(Self::Generated(recipe.try_into()?)),
            (None, Some(accounts), None) => Ok(Self::Accounts(accounts.try_into()?)),
            (None, None, Some(webhook)) => Ok(Self::Webhook(Webhook {
                url: webhook.url.to_owned(),
                authority: webhook.authority.map(str::to_owned),
                signing: webhook.signing.into(),
                recipe: webhook.recipe.try_into()?,
            })),
            _none_or_several => Err(DecodeError::Malformed),
        }
    }
}

impl<'a> From<&'a Recipe> for RecipeV1<'a> {
    fn from(recipe: &'a Recipe) -> Self {
        let (length, alphabet) = (recipe.length(), recipe.alphabet());
        Self { length, alphabet, field: recipe.field() }
    }
}

impl TryFrom<RecipeV1<'_>> for Recipe {
    type Error = DecodeError;

    fn try_from(recipe: RecipeV1<'_>) -> Result<Self, DecodeError> {
        Self::new(recipe.length, recipe.alphabet, recipe.field).or(Err(DecodeError::Malformed))
    }
}

impl TryFrom<AccountsV1<'_>> for Accounts {
    type Error = DecodeError;

    fn try_from(accounts: AccountsV1<'_>) -> Result<Self, DecodeError> {
        let pair = [accounts.first, accounts.second];
        if !pair.iter().all(|account| is_account(account)) {
            return Err(DecodeError::Malformed);
        }
        let database = Name::parse(accounts.database).or(Err(DecodeError::Malformed))?;
        Ok(Self { database, pair: pair.map(str::to_owned) })
    }
}

impl<'a> From<&'a Schedule> for ScheduleV1<'a> {
    fn from(schedule: &'a Schedule) -> Self {
        match schedule {
            Schedule::Every(period) => {
                Self { period_secs: Some(period.as_secs()), cron: None, window_secs: 0 }
            }
            Schedule::At { cron, window_secs } => {
                Self { period_secs: None, cron: Some(cron.as_str()), window_secs: *window_secs }
            }
        }
    }
}

impl TryFrom<ScheduleV1<'_>> for Schedule {
    type Error = DecodeError;

    fn try_from(schedule: ScheduleV1<'_>) -> Result<Self, DecodeError> {
        match (schedule.period_secs, schedule.cron, schedule.window_secs) {
            (Some(period), None, 0) => {
                Ok(Self::Every(Period::from_secs(period).or(Err(DecodeError::Malformed))?))
            }
            (None, Some(text), window_secs) => {
                let cron = Cron::parse(text).or(Err(DecodeError::Malformed))?;
                let is_ours = cron.as_str() == text;
                if is_ours {
                    Ok(Self::At { cron, window_secs })
                } else {
                    Err(DecodeError::Malformed)
                }
            }
            _neither_or_both => Err(DecodeError::Malformed),
        }
    }
}

impl TryFrom<UnderWayV1> for UnderWay {
    type Error = DecodeError;

    fn try_from(one: UnderWayV1) -> Result<Self, DecodeError> {
        Ok(Self {
            id: one.id,
            version: version_no(one.version)?,
            replaces: one.replaces.map(version_no).transpose()?,
            step: codes::step(one.step)?,
            began_at: Timestamp(one.began_at),
            waits_for_consumers: one.waits_for_consumers,
        })
    }
}

impl TryFrom<OverlapV1> for Overlap {
    type Error = DecodeError;

    fn try_from(overlap: OverlapV1) -> Result<Self, DecodeError> {
        Ok(Self {
            version: version_no(overlap.version)?,
            ends: Elapsed(overlap.ends),
            waits_for_consumers: overlap.waits_for_consumers,
        })
    }
}

impl TryFrom<LastV1<'_>> for LastRotation {
    type Error = DecodeError;

    fn try_from(last: LastV1<'_>) -> Result<Self, DecodeError> {
        let version = last.version.map(version_no).transpose()?;
        Ok(Self { at: Timestamp(last.at), version, problem: last.problem.map(str::to_owned) })
    }
}

#[derive(Encode, Decode)]
pub(super) struct RotationDueV1 {
    #[n(0)]
    at: u64,
    #[n(1)]
    what: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    of: [u8; 16],
}

impl From<&RotationDue> for RotationDueV1 {
    fn from(due: &RotationDue) -> Self {
        Self { at: due.at.0, what: codes::rotation_due_code(due.what), of: due.secret.0 }
    }
}

impl TryFrom<RotationDueV1> for RotationDue {
    type Error = DecodeError;

    fn try_from(due: RotationDueV1) -> Result<Self, DecodeError> {
        let what = codes::rotation_due(due.what)?;
        Ok(Self { at: Elapsed(due.at), what, secret: SecretId(due.of) })
    }
}
