//! Use case: say whether what a scanner has seen elsewhere is a value of a secret.
//!
//! Room      `service`.
//! Source    `docs/formats/scan-pack.md`, "Confirmation".
//! Holds     the answer is yes, no, or that it is not told; a secret that is not there, is deleted
//!           or that the caller may not ask about looks the same. Each claim is a record of its
//!           own, durable before the answer. A caller's claims are counted before anything is read,
//!           and nothing is looked for of one who may ask about no secret.

use std::collections::BTreeMap;

use lastkey_core::ids::VersionNo;
use lastkey_core::leak::{Claim, MAX_CLAIMS, PROOF_LEN};
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{Action as _, ConfirmLeak, DescribeSecret, Why};
use lastkey_core::ports::StoreError;
use lastkey_core::record::{PathRange, Record};
use lastkey_core::secret_item::{SecretItem, SecretName, Stage, ValueKind};
use lastkey_core::secret_value::Fields;

use super::target;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::secret_box::Value;

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a value of that version. Which one is told to who may describe the secret.
    Confirmed(Option<Leaked>),
    /// It is none.
    Refuted,
    /// That is not told: there is no such version any more, or the caller may not ask.
    Untold,
}

/// A value that was seen elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaked {
    /// Its secret.
    pub name: SecretName,
    /// Its version.
    pub version: VersionNo,
    /// Stages of that version.
    pub stages: Vec<Stage>,
}

impl Engine {
    /// Judges what a scanner claims to have seen, one verdict for each claim.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none or more than 64 claims; [`Error::Throttled`] for more than one
    /// a second, 256 at once; [`Error::Denied`] when the caller may ask about none of the secrets;
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn confirm_leaks(
        &self,
        call: &Call,
        key: &[u8; PROOF_LEN],
        claims: &[Claim],
    ) -> Result<Vec<Verdict>, Error> {
        let items = match self.begin_confirming(call, claims).await {
            Ok(items) => items,
            Err(error) => {
                let trail = Trail::of::<ConfirmLeak>(self, call);
                return trail.close(self, Err(error)).await;
            }
        };
        let mut verdicts = Vec::with_capacity(claims.len());
        for claim in claims {
            let item = match &items {
                Some(items) => items.get(&claim.secret.0).ok_or(NO_SUCH_SECRET),
                None => Err("no policy lets him ask"),
            };
            verdicts.push(self.confirm_leak(call, key, claim, item).await?);
        }
        if verdicts.iter().all(Option::is_none) {
            return Err(Error::Denied);
        }
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Untold)).collect())
    }

    /// Counts the claims; answers the secrets that they are about, as far as they are there, and
    /// none to a caller who may ask about no secret at all.
    async fn begin_confirming(
        &self,
        call: &Call,
        claims: &[Claim],
    ) -> Result<Option<BTreeMap<[u8; 16], SecretItem>>, Error> {
        if !(1..=MAX_CLAIMS).contains(&claims.len()) {
            return Err(Error::invalid("claims", "a question has 1 to 64 claims"));
        }
        let now = self.ports.clock.read().since_boot;
        let who = &call.caller.principal;
        self.claimed.take(who.name(), claims.len(), now)?;
        if !self.access.get().policies.permits_somewhere(who, ConfirmLeak::NAME) {
            return Ok(None);
        }
        let mut wanted: BTreeMap<[u8; 16], Option<SecretItem>> =
            claims.iter().map(|claim| (claim.secret.0, None)).collect();
        let (mut missing, mut after) = (wanted.len(), None);
        loop {
            let page = self.store.scan(&PathRange::kind("secret", after, MAX_PAGE_LEN)).await?;
            let is_last = page.len() < MAX_PAGE_LEN;
            after = page.last().map(|stored| stored.path.clone());
            for stored in page {
                let Record::Secret(item) = stored.record else {
                    return Err(StoreError::Corrupt(stored.path).into());
                };
                if let Some(found) = wanted.get_mut(&item.id.0) {
                    *found = Some(item);
                    missing = missing.saturating_sub(1);
                }
            }
            if is_last || missing == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(Some(wanted.into_iter().filter_map(|(id, item)| Some((id, item?))).collect()))
    }

    /// Judges one claim; none when the caller may not make it.
    async fn confirm_leak(
        &self,
        call: &Call,
        key: &[u8; PROOF_LEN],
        claim: &Claim,
        item: Result<&SecretItem, &'static str>,
    ) -> Result<Option<Verdict>, Error> {
        let mut trail = Trail::of::<ConfirmLeak>(self, call);
        trail.target = Some(match item {
            Ok(item) => target(&item.name, Some(claim.version)),
            Err(_) => format!("secret-id/{}#{}", claim.secret, claim.version),
        });
        let outcome = self.try_confirm_leak(&mut trail, key, claim, item).await;
        match trail.close(self, outcome).await {
            Ok(verdict) => Ok(Some(verdict)),
            Err(Error::Denied) => Ok(None),
            Err(Error::SecretState { .. } | Error::KeyState { .. }) => Ok(Some(Verdict::Untold)),
            Err(error) => Err(error),
        }
    }

    async fn try_confirm_leak(
        &self,
        trail: &mut Trail<'_>,
        key: &[u8; PROOF_LEN],
        claim: &Claim,
        item: Result<&SecretItem, &'static str>,
    ) -> Result<Verdict, Error> {
        let name = &item.map_err(|why| denied(trail, why))?.name;
        let (_, stored) = self.permit_secret::<ConfirmLeak>(trail, name).await?;
        let item = stored.in_use()?.item;
        if item.id != claim.secret {
            // Another secret has come to this name.
            return Err(denied(trail, NO_SUCH_SECRET));
        }
        trail.call().go_on()?;
        let (version, value) = self.value_of(trail, &item, claim.version).await?;
        if !self.holds(key, claim, &value)? {
            trail.reason = "what was seen is not this value".into();
            return Ok(Verdict::Refuted);
        }
        trail.reason = Why::Fixed("the value was seen where it should not be");
        let mut asked = Trail::of::<DescribeSecret>(self, trail.call());
        let is_told = self.permit_secret::<DescribeSecret>(&mut asked, name).await.is_ok();
        Ok(Verdict::Confirmed(is_told.then(|| Leaked {
            stages: item.stages_of(version.number).cloned().collect(),
            name: item.name,
            version: version.number,
        })))
    }

    /// Whether a claim is right for a value, or for one of its fields.
    fn holds(&self, key: &[u8; PROOF_LEN], claim: &Claim, value: &Value) -> Result<bool, Error> {
        let holds = |bytes: &[u8]| self.ports.claims.holds(key, claim, bytes);
        match value.kind {
            ValueKind::Opaque => Ok(value.bytes.expose(holds)),
            ValueKind::Fields => {
                let fields = value.bytes.expose(Fields::parse);
                let fields = fields.map_err(|error| Error::Internal(error.into()))?.into_inner();
                Ok(fields.iter().any(|(_, field)| field.expose(holds)))
            }
        }
    }
}

const NO_SUCH_SECRET: &str = "no such secret";

fn denied(trail: &mut Trail<'_>, why: &'static str) -> Error {
    trail.reason = Why::Fixed(why);
    Error::Denied
}
