//! `etcd verify --report`: the service learns which versions of its keys etcd still needs.
//!
//! Room      `lastkey`.
//! Source    docs/formats/kmsv2.md, "Annotations".
//! Holds     What cannot be ascribed to a version of a key is not left out: then nothing is
//!           reported.

use std::collections::BTreeMap;

use lastkey_checks::coverage::CoverageReport;
use lastkey_node::kmsv2::{KEY_ID_PREFIX, KEY_VERSION_ANNOTATION};
use lastkey_wire::{
    native::holdings::{HeldVersion, ReportHoldingRequest},
    words::HeldWhat,
};

use crate::cli::{
    failure::{Failure, printable},
    output,
    session::Session,
};

/// Objects under each version of each key of Lastkey.
type Held = BTreeMap<String, BTreeMap<u32, u64>>;

/// Reports what was counted as what `place` holds; of `also` that nothing is under them, when
/// nothing is.
pub(super) async fn send(
    place: &str,
    also: &[String],
    report: &CoverageReport,
    session: &Session,
) -> Result<(), Failure> {
    let client = session.client()?;
    let mut held = held(report)?;
    for key in also {
        held.entry(client.describe_key(key).await?.id).or_default();
    }
    if held.is_empty() {
        let advice = "nothing here is under a key of Lastkey, so there is nothing to report; name a key that was in use with --report-key";
        return Err(Failure::Input(advice.to_owned()));
    }
    for (key, versions) in held {
        let versions: Vec<_> =
            versions.into_iter().map(|(version, count)| HeldVersion { version, count }).collect();
        let count: u64 = versions.iter().map(|held| held.count).sum();
        let what = HeldWhat::EtcdObjects;
        let report = ReportHoldingRequest { what, versions, things: Vec::new() };
        client.report_holding(&key, place, report).await?;
        output::note(&format!("reported: {} holds {count} objects under {key}", printable(place)));
    }
    Ok(())
}

fn held(report: &CoverageReport) -> Result<Held, Failure> {
    let mut held = Held::new();
    for key in &report.keys {
        let noted = key.annotations.get(KEY_VERSION_ANNOTATION);
        let is_ours = noted.is_some() || key.key_id.starts_with(KEY_ID_PREFIX);
        if !is_ours || key.objects == 0 {
            continue;
        }
        let one = noted.filter(|values| values.len() == 1).and_then(|values| values.first());
        let Some((id, version)) = one.and_then(|value| key_version(value)) else {
            return Err(Failure::Input(format!(
                "{} objects under the key id {} do not tell which version of a key they need; nothing was reported",
                key.objects,
                printable(&key.key_id)
            )));
        };
        let count = held.entry(id.to_owned()).or_default().entry(version).or_default();
        *count = count.saturating_add(key.objects);
    }
    Ok(held)
}

/// `UUID/NUMBER`.
fn key_version(value: &str) -> Option<(&str, u32)> {
    let (id, version) = value.split_once('/')?;
    let version = version.parse().ok().filter(|version| *version > 0)?;
    let is_id = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_id.then_some((id, version))
}

#[cfg(test)]
mod tests {
    use lastkey_checks::coverage::Key;

    use super::*;

    const ID: &str = "c386ff10-56b3-45c9-b0b9-de2402426adb";

    fn key(key_id: &str, objects: u64, noted: &[&str]) -> Key {
        let noted: std::collections::BTreeSet<_> =
            noted.iter().map(|value| (*value).to_owned()).collect();
        let annotations = (!noted.is_empty()).then(|| (KEY_VERSION_ANNOTATION.to_owned(), noted));
        Key {
            key_id: key_id.to_owned(),
            objects,
            annotations: annotations.into_iter().collect(),
            ..Key::default()
        }
    }

    fn counted(keys: &[Key]) -> Result<Held, Failure> {
        held(&CoverageReport { keys: keys.to_vec(), ..CoverageReport::default() })
    }

    #[test]
    fn objects_of_all_key_ids_of_a_version_are_counted_together() {
        let (first, second) = (format!("{ID}/1"), format!("{ID}/2"));
        let keys = [
            key("lk1.a", 3, &[&first]),
            key("lk1.b", 4, &[&second]),
            key("lk1.c", 5, &[&first]),
            key("vault", 9, &[]),
        ];
        let held = counted(&keys).unwrap();
        assert_eq!(held[ID], BTreeMap::from([(1, 8), (2, 4)]));
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn objects_that_do_not_tell_their_version_are_not_left_out() {
        let (first, second) = (format!("{ID}/1"), format!("{ID}/2"));
        let zero = format!("{ID}/0");
        for noted in [vec![], vec![&*first, &*second], vec!["x/1"], vec![&*zero], vec![ID]] {
            assert!(counted(&[key("lk1.a", 1, &noted)]).is_err(), "{noted:?}");
        }
        // History alone needs nothing.
        assert!(counted(&[key("lk1.a", 0, &[])]).unwrap().is_empty());
    }
}
