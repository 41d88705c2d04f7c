//! `volume erase-proof`: the key of a volume is gone, and with it every copy of the volume.
//!
//! Room      `lastkey`.
//! Holds     Erased is said when the service says so of each version of the lineage's key: no
//!           journal and no backup that it knows of holds one any more. The records that say so are
//!           proven by the signed log, and before them the one that says who made the key: that it
//!           is the volume's only that tells. Where two keys could be the lineage's, nothing is said.

use clap::Args;
use lastkey_client::Client;
use lastkey_wire::native::{
    audit::{AuditQuery, AuditReceiptReply},
    holdings::HoldingView,
    keys::KeyView,
    versions::VersionView,
};
use serde::Serialize;

use crate::adapters::{LINEAGE_ALIAS, LINEAGE_TAG};
use crate::cli::{
    failure::Failure,
    key::paging::{self, listed},
    session::Session,
    table::{Fields, Show},
};

/// What the log has to say, in the order in which it happens.
const ACTIONS: [&str; 4] =
    [MAKING, "kms:ScheduleKeyDeletion", "kms:DestroyKey", "kms:RecordErasure"];
const MAKING: &str = "kms:CreateKey";

/// Arguments of `volume erase-proof`.
#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    /// Id of the volume
    volume: String,
}

/// What is known of the end of a volume.
#[derive(Debug, Serialize)]
struct Proof {
    volume: String,
    /// Whether nothing is left that could open it.
    erased: bool,
    /// Id of the lineage's key.
    lineage: String,
    state: String,
    /// Who made the key, by the record that says so; none when that is not kept any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
    made_at: String,
    /// When its key goes, while that can be called off.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destroyed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<String>,
    /// Volumes and snapshots that share the key and are still there.
    dependants: Vec<String>,
    /// Records of the log that say so, each with its proof.
    records: Vec<Record>,
}

#[derive(Debug, Serialize)]
struct Record {
    action: String,
    #[serde(flatten)]
    receipt: AuditReceiptReply,
}

/// Shows what is proven; fails while something is left.
pub(crate) async fn prove(args: &EraseArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let key = lineage_of(&client, &args.volume).await?;
    let all = paging::ListArgs::everything();
    let versions = listed(all, async |page| client.list_versions(&key.id, &page).await).await?;
    let records = records(&client, &key.id).await?;
    let proof = Proof {
        dependants: dependants(&client, &key).await?,
        made_by: records.iter().find_map(Record::maker),
        records,
        ..Proof::of(&args.volume, key, &versions.versions)
    };
    let proof = proof.judged();
    session.show(&proof)?;
    if proof.erased { Ok(()) } else { Err(Failure::Input(proof.why_not())) }
}

/// The key of a volume's lineage: by its tag, since its alias is gone with it.
async fn lineage_of(client: &Client, volume: &str) -> Result<KeyView, Failure> {
    let alias = format!("{LINEAGE_ALIAS}{volume}");
    let named = match client.describe_key(&alias).await {
        Ok(key) => Some(key),
        // The service does not tell an alias that is gone from one that is not for us.
        Err(error) if error.code() == Some("AccessDenied") => None,
        Err(error) => return Err(error.into()),
    };
    let all = paging::ListArgs::everything();
    let all = listed(all, async |page| client.list_keys(&page).await).await?.keys;
    only_one(volume, named, all)
}

/// The one key that bears the tag of a volume, and its alias while there is one. Whoever may tag
/// another key could have a proof of that one taken for a proof of the volume.
fn only_one(
    volume: &str,
    named: Option<KeyView>,
    mut keys: Vec<KeyView>,
) -> Result<KeyView, Failure> {
    keys.retain(|key| key.tags.0.get(LINEAGE_TAG).is_some_and(|of| of == volume));
    if let Some(named) = named.filter(|named| keys.iter().all(|key| key.id != named.id)) {
        return Err(Failure::Input(format!(
            "nothing is proven: {LINEAGE_ALIAS}{volume} leads to the key {}, which has no tag \
             {LINEAGE_TAG}={volume}",
            named.id
        )));
    }
    match (keys.pop(), keys.as_slice()) {
        (Some(key), []) => Ok(key),
        (None, _) => Err(Failure::Input(format!(
            "the server knows no key of a volume {volume}; a snapshot or clone has the key of the \
             volume that it was made of"
        ))),
        (Some(key), others) => {
            let ids: Vec<&str> = others.iter().chain([&key]).map(|key| key.id.as_str()).collect();
            Err(Failure::Input(format!(
                "nothing is proven: {} keys have the tag {LINEAGE_TAG}={volume}, and one alone is \
                 the volume's: {}. The audit log says which was made by the driver, and who tagged \
                 the others: take the tag off those",
                ids.len(),
                ids.join(", ")
            )))
        }
    }
}

async fn dependants(client: &Client, key: &KeyView) -> Result<Vec<String>, Failure> {
    let impact = client.impact(&key.id).await?;
    Ok(impact.holdings.into_iter().flat_map(under).collect())
}

/// What a place has under the key: by name, and how many that it does not name.
fn under(holding: HoldingView) -> Vec<String> {
    let HoldingView { place, count, things, .. } = holding;
    let named = u64::try_from(things.len()).unwrap_or(u64::MAX);
    let unnamed = count.saturating_sub(named);
    let things = things.into_iter().map(|thing| {
        let kind = thing.about.0.get("kind").map_or("volume", String::as_str);
        format!("{kind} {} on {place}", thing.name)
    });
    let unnamed = (unnamed > 0).then(|| format!("{unnamed} volumes on {place}"));
    things.chain(unnamed).collect()
}

/// The newest record of each action that was done, with its proof.
async fn records(client: &Client, key: &str) -> Result<Vec<Record>, Failure> {
    let mut records = Vec::new();
    for action in ACTIONS {
        let query = AuditQuery {
            key: Some(key.to_owned()),
            action: Some(action.to_owned()),
            result: Some("ok".to_owned()),
            newest_first: true,
            limit: Some(1),
            ..AuditQuery::default()
        };
        let found = client.audit_records(&query).await?.records.into_iter().next();
        let Some(found) = found else { continue };
        let receipt = client.audit_receipt(&found.index.to_string()).await?;
        records.push(Record { action: action.to_owned(), receipt });
    }
    Ok(records)
}

impl Record {
    /// Who made the key, when this is the record of that.
    fn maker(&self) -> Option<String> {
        let record = lastkey_core::audit::record::Record::parse(self.receipt.record.as_bytes());
        let made = record.ok().filter(|_| self.action == MAKING)?;
        made.text("who").map(str::to_owned)
    }
}

impl Proof {
    /// What the key itself says. It is erased when each of its versions is.
    fn of(volume: &str, key: KeyView, versions: &[VersionView]) -> Self {
        let erased: Option<Vec<&String>> =
            versions.iter().map(|version| version.erased_at.as_ref()).collect();
        let erased_at = erased.and_then(|all| all.into_iter().max().cloned());
        Self {
            volume: volume.to_owned(),
            erased: false,
            state: key.state.to_string(),
            made_by: None,
            made_at: key.created_at,
            due_at: key.deletion.and_then(|deletion| deletion.at),
            destroyed_at: key.destroyed_at,
            erased_at,
            dependants: Vec::new(),
            records: Vec::new(),
            lineage: key.id,
        }
    }

    fn judged(self) -> Self {
        let erased = self.destroyed_at.is_some() && self.erased_at.is_some();
        Self { erased: erased && self.dependants.is_empty(), ..self }
    }

    fn why_not(&self) -> String {
        let Self { volume, lineage, dependants, .. } = self;
        if !dependants.is_empty() {
            return format!("{volume} is not erased: {} have its key", dependants.join(", "));
        }
        match (&self.destroyed_at, &self.due_at) {
            (Some(at), _) => format!(
                "{volume} is destroyed since {at} and not erased yet: backups hold its key still"
            ),
            (None, Some(at)) => format!(
                "{volume} is not erased: its key goes at {at}; until then \
                 `lastkey key cancel-deletion {lineage}` keeps it"
            ),
            (None, None) => format!("{volume} is not erased: nobody has deleted it"),
        }
    }
}

/// Stands for who made a key when no record tells.
const NOT_KEPT: &str = "not told: the record of that is not kept any more";

impl Show for Proof {
    fn table(&self) -> String {
        let records = self.records.iter();
        let records: Vec<String> =
            records.map(|one| format!("{} ({})", one.receipt.index, one.action)).collect();
        Fields::new()
            .with("Volume", &self.volume)
            .with("Erased", if self.erased { "yes" } else { "no" })
            .with("Key", &self.lineage)
            .with("State", &self.state)
            .with("Made at", &self.made_at)
            .with("Made by", self.made_by.as_deref().unwrap_or(NOT_KEPT))
            .with_some("Destroyed at", self.destroyed_at.as_ref())
            .with_some("To be destroyed at", self.due_at.as_ref())
            .with_some("Erased everywhere at", self.erased_at.as_ref())
            .with_some("Needed by", some(&self.dependants))
            .with_some("Records of the log", some(&records))
            .table()
    }
}

fn some(parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(destroyed_at: Option<&str>) -> KeyView {
        let key = json!({
            "id": "k", "spec": "AES_256", "usage": "ENCRYPT_DECRYPT", "origin": "generated",
            "state": "Destroyed", "description": "", "tags": {}, "aliases": [], "activation": 1,
            "created_at": "2026-01-01T00:00:00Z", "deletion_protection": false,
            "destroyed_at": destroyed_at,
        });
        serde_json::from_value(key).unwrap()
    }

    fn version(erased_at: Option<&str>) -> VersionView {
        let usage = json!({ "protected": 1, "processed": 1, "refused": 0 });
        let version = json!({
            "version": 1, "state": "Destroyed", "primary": false, "origin": "generated",
            "activation": 1, "created_at": "2026-01-01T00:00:00Z", "usage": usage,
            "erased_at": erased_at,
        });
        serde_json::from_value(version).unwrap()
    }

    #[test]
    fn key_that_is_not_known_to_be_the_volumes_proves_nothing() {
        let tagged = |id: &str, volume: &str| {
            let tags = [(LINEAGE_TAG.to_owned(), volume.to_owned())].into_iter().collect();
            KeyView { id: id.to_owned(), tags, ..key(None) }
        };
        let found = |named: Option<KeyView>, keys: &[KeyView]| {
            only_one("lkv-1", named, keys.to_vec()).map(|key| key.id).map_err(|no| no.to_string())
        };
        let (own, other) = (tagged("a", "lkv-1"), tagged("b", "lkv-2"));
        assert_eq!(found(Some(own.clone()), &[own.clone(), other.clone()]), Ok("a".to_owned()));
        assert_eq!(found(None, &[other.clone(), own.clone()]), Ok("a".to_owned()));
        assert!(found(None, std::slice::from_ref(&other)).unwrap_err().contains("knows no key"));
        // Somebody tagged a key that is gone, or sent the alias elsewhere.
        let planted = tagged("c", "lkv-1");
        for named in [None, Some(own.clone())] {
            let refused = found(named, &[own.clone(), planted.clone()]).unwrap_err();
            assert!(refused.contains("2 keys") && refused.contains("a, c"), "{refused}");
        }
        let refused = found(Some(other.clone()), &[own, other]).unwrap_err();
        assert!(refused.contains("leads to the key b"), "{refused}");
    }

    #[test]
    fn maker_of_a_key_is_told_by_the_record_of_its_making_alone() {
        let record = |action: &str, record: &str| {
            let (action, record) = (action.to_owned(), record.to_owned());
            let receipt = AuditReceiptReply { index: 1, record, receipt: String::new() };
            Record { action, receipt }.maker()
        };
        let made = r#"{"action":"kms:CreateKey","who":"node:worker-1"}"#;
        assert_eq!(record(MAKING, made).as_deref(), Some("node:worker-1"));
        assert_eq!(record("kms:DestroyKey", made), None);
        assert_eq!(record(MAKING, "{"), None);
    }

    #[test]
    fn place_that_names_nothing_counts() {
        let holding = json!({
            "place": "node-1", "what": "volumes", "count": 2, "overridden": false,
            "versions": [{ "version": 1, "count": 2 }], "reported_by": "node:node-1",
            "reported_at": "2026-01-01T00:00:00Z",
        });
        assert_eq!(under(serde_json::from_value(holding).unwrap()), ["2 volumes on node-1"]);
    }

    #[test]
    fn volume_is_erased_when_each_version_is_and_nothing_has_its_key() {
        let (march, april) = (Some("2026-03-01T00:00:00Z"), Some("2026-04-01T00:00:00Z"));
        let of = |destroyed, erased: &[Option<&str>], needed: &[&str]| {
            let versions: Vec<_> = erased.iter().map(|at| version(*at)).collect();
            let dependants = needed.iter().map(|name| (*name).to_owned()).collect();
            Proof { dependants, ..Proof::of("lkv-1", key(destroyed), &versions) }.judged()
        };
        let gone = of(march, &[march, april], &[]);
        assert!(gone.erased);
        assert_eq!(gone.erased_at.as_deref(), april, "the last one");
        let kept = of(march, &[march, None], &[]);
        assert!(!kept.erased && kept.why_not().contains("backups"), "{}", kept.why_not());
        let copied = of(march, &[march], &["snapshot lks-1 on node-1"]);
        assert!(!copied.erased && copied.why_not().contains("lks-1"), "{}", copied.why_not());
        let there = of(None, &[None], &[]);
        assert!(!there.erased && there.why_not().contains("nobody"), "{}", there.why_not());
    }
}
