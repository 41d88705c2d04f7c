//! Use cases: a place reports what it holds under a key, is forgotten, and keeps a key that it
//! needs from being destroyed; what depends on a key.
//!
//! Room      `service`.
//! Holds     what the last report of any place shows under a key or version is not destroyed,
//!           unless somebody who may override it says why. A report after the schedule counts.
//!           The place of a node's volumes belongs to who reported them, for as long as there are
//!           any, and is kept for as long.
//!           Report and destruction both write the key, so one of two at once sees the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use lastkey_core::holding::{
    BadHolding, HeldThing, HeldWhat, Holding, Inventory, MAX_PLACES, Reason, check_things,
    check_versions,
};
use lastkey_core::ids::{KeyId, KeyRef, Name, VersionNo};
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{DescribeKey, OverrideHolding, ReportHolding};
use lastkey_core::ports::{Expected, Revision, Stored};
use lastkey_core::record::{DueWhat, PathRange, Record, RecordPath};
use lastkey_core::time::Elapsed;

use super::describe::corrupt;
use crate::audited::Trail;
use crate::call::Call;
use crate::change::{Draft, Plan};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::{Impact, KeyView};

/// What a place holds under a key, by its own count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The place.
    pub place: Name,
    /// What it holds.
    pub what: HeldWhat,
    /// How many under each version; a version that is left out has none.
    pub versions: Vec<(VersionNo, u64)>,
    /// The same by name; empty when the place names nothing.
    pub things: Vec<HeldThing>,
}

/// A report, and who brings it.
#[derive(Debug)]
pub(crate) struct Reported {
    report: Report,
    by: String,
}

impl Engine {
    /// Takes the place of what a place was reported to hold under a key before.
    ///
    /// # Errors
    /// [`Error::Invalid`] for versions or things in disorder, or the place of somebody else's
    /// volumes; [`Error::LimitExceeded`] for too many of them, more than 256 places, or more of
    /// the last 32 than are left for others;
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn report_holding(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        report: Report,
    ) -> Result<KeyView, Error> {
        check_versions(&report.versions).map_err(bad_report)?;
        if !report.things.is_empty() {
            check_things(&report.things, &report.versions).map_err(bad_report)?;
        }
        let by = call.caller.principal.name().to_owned();
        let plan = Plan::Report(Reported { report, by });
        self.change::<ReportHolding>(call, key, plan).await
    }

    /// Forgets what a place was reported to hold under a key, as when the cluster is gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the place has reported nothing about the key; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn forget_holding(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        place: Name,
        why: Reason,
    ) -> Result<KeyView, Error> {
        self.change::<OverrideHolding>(call, key, Plan::Forget(place, why)).await
    }

    /// What depends on a key, as far as this service knows: what places reported, values of
    /// secrets, the last use.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn impact(&self, call: &Call, key: KeyRef) -> Result<Impact, Error> {
        let mut trail = Trail::of::<DescribeKey>(self, call);
        let outcome = self.try_impact(&mut trail, &key).await;
        trail.close(self, outcome).await
    }

    async fn try_impact(&self, trail: &mut Trail<'_>, name: &KeyRef) -> Result<Impact, Error> {
        let permit = self.permit_key::<DescribeKey>(trail, name).await?;
        let key = self.stored_key(trail, &permit).await?;
        trail.call().go_on()?;
        let (secrets, secret_versions) = self.secrets_under(key.id).await?;
        let inventories = self.inventories(key.id).await?;
        Ok(Impact { key: self.whole_view(key).await?, inventories, secrets, secret_versions })
    }

    /// How many secrets have values under a key, and how many values that are.
    async fn secrets_under(&self, key: KeyId) -> Result<(u64, u64), Error> {
        let (mut secrets, mut values) = (BTreeSet::new(), 0_u64);
        let mut after = None;
        loop {
            let range = PathRange::kind("secret-version", after, MAX_PAGE_LEN);
            let page = self.store.scan(&range).await?;
            let is_last = page.len() < MAX_PAGE_LEN;
            after = page.last().map(|stored| stored.path.clone());
            for stored in page {
                let Record::SecretVersion(version) = stored.record else {
                    return Err(corrupt(stored.path));
                };
                if version.key == key && version.destroyed_at.is_none() {
                    secrets.insert(version.secret.0);
                    values = values.saturating_add(1);
                }
            }
            if is_last {
                return Ok((u64::try_from(secrets.len()).unwrap_or(u64::MAX), values));
            }
        }
    }

    pub(crate) async fn holdings(&self, key: KeyId) -> Result<Vec<(Holding, Revision)>, Error> {
        let stored = self.store.scan(&PathRange::holdings(key, MAX_PLACES)).await?;
        let holdings = stored.into_iter().map(|stored| {
            let Record::Holding(holding) = stored.record else {
                return Err(corrupt(stored.path));
            };
            Ok((holding, stored.revision))
        });
        holdings.collect()
    }

    async fn inventories(&self, key: KeyId) -> Result<Vec<Inventory>, Error> {
        let stored = self.store.scan(&PathRange::inventories(key, MAX_PLACES)).await?;
        stored.into_iter().map(|stored| Ok(inventory_of(stored)?.0)).collect()
    }

    /// Puts names in the place of those that were reported before.
    async fn put_inventory(
        &self,
        draft: &mut Draft,
        place: &Name,
        things: &[HeldThing],
    ) -> Result<(), Error> {
        let path = RecordPath::inventory(draft.key.id, place);
        let before = self.store.get(&path).await?.map(inventory_of).transpose()?;
        let fresh = (!things.is_empty()).then(|| {
            let (key, place, things) = (draft.key.id, place.clone(), things.to_vec());
            Record::Inventory(Inventory { key, place, things })
        });
        match (before, fresh) {
            (None, None) => {}
            (None, fresh) => draft.write(path, Expected::Absent, fresh),
            (Some((_, revision)), fresh) => draft.write(path, Expected::At(revision), fresh),
        }
        Ok(())
    }

    /// The first thing by name that a place has under a version, or under any.
    async fn example(
        &self,
        holding: &Holding,
        version: Option<VersionNo>,
    ) -> Result<Option<String>, Error> {
        let path = RecordPath::inventory(holding.key, &holding.place);
        let Some(stored) = self.store.get(&path).await? else { return Ok(None) };
        let mut things = inventory_of(stored)?.0.things.into_iter();
        let found = things.find(|thing| version.is_none_or(|version| version == thing.version));
        Ok(found.map(|thing| {
            let claim = thing.about.iter().find(|(name, _)| name == "claim");
            let claim = claim.map(|(_, claim)| format!(" (claim {claim})")).unwrap_or_default();
            format!("{}{claim}", thing.name)
        }))
    }

    /// A refusal that names what is in the way.
    async fn needed(&self, holding: &Holding, version: Option<VersionNo>) -> Result<Error, Error> {
        let example = self.example(holding, version).await?;
        let (count, what) = (holding.count(version), holding.what.noun());
        let among = example.map(|name| format!(", {name} among them")).unwrap_or_default();
        Ok(Error::KeyNeeded { place: holding.place.clone(), count, what, among })
    }

    pub(crate) async fn plan_report(
        &self,
        draft: &mut Draft,
        reported: &Reported,
    ) -> Result<(), Error> {
        draft.is_claimed = true;
        let Reported { report, by } = reported;
        let known = self.holdings(draft.key.id).await?;
        let before = known.iter().find(|(holding, _)| holding.place == report.place);
        if before.is_some_and(|(before, _)| is_taken(before, reported)) {
            return Err(Error::invalid(
                "place",
                "somebody else reports for it: whoever may kms:OverrideHolding forgets it first",
            ));
        }
        let expected = before.map_or(Expected::Absent, |(_, revision)| Expected::At(*revision));
        if report.what == HeldWhat::Volumes && report.versions.is_empty() {
            // Nodes come and go: one without volumes takes nobody's place.
            if before.is_some() {
                draft.write(RecordPath::holding(draft.key.id, &report.place), expected, None);
            }
            return self.put_inventory(draft, &report.place, &[]).await;
        }
        if before.is_none() {
            check_room(&known, by)?;
        }
        let holding = Holding {
            key: draft.key.id,
            place: report.place.clone(),
            what: report.what,
            versions: report.versions.clone(),
            reported_at: draft.clock.last.wall,
            reported_by: by.clone(),
            overridden: before.is_some_and(|(before, _)| before.overridden),
        };
        draft.put_holding(holding, expected);
        self.put_inventory(draft, &report.place, &report.things).await
    }

    pub(crate) async fn plan_forgetting(
        &self,
        draft: &mut Draft,
        place: &Name,
        why: &Reason,
    ) -> Result<(), Error> {
        let path = RecordPath::holding(draft.key.id, place);
        let Some(stored) = self.store.get(&path).await? else {
            return Err(Error::invalid("place", "it has reported nothing about this key"));
        };
        draft.note = Some(format!("forgets {place}: {}", why.as_str()));
        draft.write(path, Expected::At(stored.revision), None);
        self.put_inventory(draft, place, &[]).await
    }

    /// Lets a version go, or a key when none is named, only when no place needs it, or in spite
    /// of that.
    ///
    /// # Errors
    /// [`Error::KeyNeeded`]; [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn check_needed(
        &self,
        draft: &mut Draft,
        version: Option<VersionNo>,
        in_spite: Option<&Reason>,
    ) -> Result<(), Error> {
        draft.is_claimed = true;
        let mut needing = self.holdings(draft.key.id).await?;
        needing.retain(|(holding, _)| holding.count(version) > 0);
        let Some(why) = in_spite else {
            let Some((holding, _)) = needing.first() else { return Ok(()) };
            return Err(self.needed(holding, version).await?);
        };
        let places: Vec<&str> = needing.iter().map(|(one, _)| one.place.as_str()).collect();
        draft.note = Some(format!("in spite of {}: {}", listed(&places), why.as_str()));
        if version.is_none() {
            for (holding, revision) in needing {
                let overridden = Holding { overridden: true, ..holding };
                draft.put_holding(overridden, Expected::At(revision));
            }
        }
        Ok(())
    }

    /// Puts a destruction that is due off, when a place has reported since that it needs the key.
    /// True when it was put off.
    pub(crate) async fn put_off_if_needed(&self, draft: &mut Draft) -> Result<bool, Error> {
        draft.is_claimed = true;
        let holdings = self.holdings(draft.key.id).await?;
        let needing = holdings.iter().map(|(holding, _)| holding);
        let Some(holding) = needing.filter(|one| !one.overridden).find(|one| one.count(None) > 0)
        else {
            return Ok(false);
        };
        let later = Elapsed(draft.clock.elapsed.0.saturating_add(PUT_OFF_SECONDS));
        let note = format!("put off by a day: {}", self.needed(holding, None).await?);
        tracing::error!(key = %draft.key.id, place = %holding.place, "a destruction is {note}");
        draft.note = Some(note);
        if let Some(destruction) = &mut draft.key.destruction {
            destruction.due = later;
        }
        draft.move_due(DueWhat::Destroy, None, Some(later));
        Ok(true)
    }

    /// What was overridden for a destruction counts again when that is called off.
    pub(crate) async fn lift_overrides(&self, draft: &mut Draft) -> Result<(), Error> {
        for (holding, revision) in self.holdings(draft.key.id).await? {
            if holding.overridden {
                let holding = Holding { overridden: false, ..holding };
                draft.put_holding(holding, Expected::At(revision));
            }
        }
        Ok(())
    }
}

/// How long a destruction is put off.
const PUT_OFF_SECONDS: u64 = 86_400;

/// How many places of a key nobody takes who has as many as are left: whoever comes finds one, though
/// somebody else would fill them all.
const SHARED_PLACES: usize = 32;

/// Whether somebody may report for one more place about a key.
fn check_room(known: &[(Holding, Revision)], by: &str) -> Result<(), Error> {
    let left = MAX_PLACES.saturating_sub(known.len());
    let own = known.iter().filter(|(holding, _)| holding.reported_by == by).count();
    if left == 0 {
        return Err(Error::LimitExceeded("at most 256 places report about one key"));
    }
    if left <= SHARED_PLACES && own >= left {
        return Err(Error::LimitExceeded(
            "the last 32 places of a key are for those who report for fewer than are left",
        ));
    }
    Ok(())
}

/// Whether a place with something in it belongs to somebody else than who reports. What is in etcd
/// is counted by whoever looks, and so by many.
fn is_taken(before: &Holding, Reported { report, by }: &Reported) -> bool {
    let is_shared = [before.what, report.what] == [HeldWhat::EtcdObjects; 2];
    !is_shared && before.reported_by != *by && before.count(None) > 0
}

fn inventory_of(stored: Stored) -> Result<(Inventory, Revision), Error> {
    let Record::Inventory(inventory) = stored.record else { return Err(corrupt(stored.path)) };
    Ok((inventory, stored.revision))
}

fn bad_report(bad: BadHolding) -> Error {
    match bad {
        BadHolding::Versions => Error::invalid("versions", bad.to_string()),
        BadHolding::Things => Error::invalid("things", bad.to_string()),
        BadHolding::TooManyVersions => {
            Error::LimitExceeded("a report has at most 4096 versions of a key")
        }
        BadHolding::TooManyThings => {
            Error::LimitExceeded("a report names at most 1000 things, in 512 KiB of text")
        }
    }
}

fn listed(places: &[&str]) -> String {
    if places.is_empty() { "nothing".to_owned() } else { places.join(", ") }
}

impl Draft {
    fn put_holding(&mut self, holding: Holding, expected: Expected) {
        let path = RecordPath::holding(holding.key, &holding.place);
        self.write(path, expected, Some(Record::Holding(holding)));
    }
}
