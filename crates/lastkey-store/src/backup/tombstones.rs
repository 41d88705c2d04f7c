//! The list of what was destroyed, as it lies beside backups.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md, "Tombstones".
//! Holds     a list is believed only when the log's key has signed it. A list that is older than a
//!           backup is not taken with it.

use std::collections::BTreeMap;

use lastkey_core::audit::checkpoint::hash_to_base64;
use lastkey_core::audit::note::{self, NoteKey, NoteSigner};
use lastkey_core::backup::{BackupError, Tombstone};
use lastkey_core::ids::{InstanceId, KeyId, VersionNo};
use lastkey_core::ports::Cause;
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;

use super::failure::damaged;

const LABEL: &str = "lastkey-tombstones/v1";
/// Between the lines and their signature.
const MARK: &str = "\nsigned\n";

/// Name of the list of an installation.
#[must_use]
pub fn list_name(instance: InstanceId) -> String {
    format!("lastkey-{instance}.tombstones")
}

/// Writes a list and signs it.
///
/// # Errors
/// A cause when the library refuses, which it has no reason to.
pub fn write_list(
    instance: InstanceId,
    tombstones: &[Tombstone],
    signer: &NoteSigner,
) -> Result<String, Cause> {
    let mut lines = String::new();
    for Tombstone { key, version, destroyed_at } in tombstones {
        let version = version.map_or_else(|| "*".to_owned(), |v| v.number().to_string());
        lines.push_str(&format!("{key} {version} {}\n", destroyed_at.0));
    }
    let text = signed_text(instance, tombstones.len(), &lines);
    let signature = signer.sign(&text, Timestamp(0))?;
    Ok(format!("{lines}{MARK}{text}\n{signature}"))
}

fn signed_text(instance: InstanceId, count: usize, lines: &str) -> String {
    let hash = hash_to_base64(&sha256(lines.as_bytes()));
    format!("{LABEL}\n{instance}\n{count}\n{hash}\n")
}

/// Reads a list that a key has signed.
///
/// # Errors
/// [`BackupError::Damaged`].
pub fn read_list(
    list: &str,
    instance: InstanceId,
    key: &NoteKey,
) -> Result<Vec<Tombstone>, BackupError> {
    let name = list_name(instance);
    let bad = |what: &str| damaged(&name, what);
    let (lines, note) = list.rsplit_once(MARK).ok_or_else(|| bad("it is no list"))?;
    let opened = note::open(note, std::slice::from_ref(key));
    let (text, _) = opened.map_err(|error| damaged(&name, error.to_string()))?;
    let tombstones: Option<Vec<_>> = lines.lines().map(parse).collect();
    let tombstones = tombstones.ok_or_else(|| bad("a line in it is malformed"))?;
    if text == signed_text(instance, tombstones.len(), lines) {
        Ok(tombstones)
    } else {
        Err(bad("it is not what was signed"))
    }
}

/// What two lists tell, each key and version once, with the later time.
pub(super) fn union(one: Vec<Tombstone>, other: Vec<Tombstone>) -> Vec<Tombstone> {
    let mut all = BTreeMap::new();
    for Tombstone { key, version, destroyed_at } in one.into_iter().chain(other) {
        let latest = all.entry((key, version)).or_insert(destroyed_at);
        *latest = destroyed_at.max(*latest);
    }
    let tombstone = |((key, version), destroyed_at)| Tombstone { key, version, destroyed_at };
    all.into_iter().map(tombstone).collect()
}

fn parse(line: &str) -> Option<Tombstone> {
    let mut words = line.split(' ');
    let (key, version, at) = (words.next()?, words.next()?, words.next()?);
    let version = match version {
        "*" => None,
        number => Some(VersionNo::new(number.parse().ok()?)?),
    };
    let key: KeyId = key.parse().ok()?;
    let tombstone = Tombstone { key, version, destroyed_at: Timestamp(at.parse().ok()?) };
    words.next().is_none().then_some(tombstone)
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::note::KeyKind;
    use lastkey_secret::SecretArray;

    use super::*;

    fn signer(seed: u8) -> NoteSigner {
        NoteSigner::from_seed("lastkey/x", KeyKind::Ed25519, &SecretArray::copy_of(&[seed; 32]))
            .unwrap()
    }

    fn some() -> Vec<Tombstone> {
        let tombstone = |n: u8, version| Tombstone {
            key: KeyId::from_random([n; 16]),
            version: VersionNo::new(version),
            destroyed_at: Timestamp(7),
        };
        vec![tombstone(1, 0), tombstone(2, 3)]
    }

    #[test]
    fn a_list_reads_back_under_the_key_that_signed_it_and_no_other() {
        let instance = InstanceId([7; 16]);
        for tombstones in [Vec::new(), some()] {
            let list = write_list(instance, &tombstones, &signer(1)).unwrap();
            let read = |instance, key: &NoteSigner| read_list(&list, instance, key.key()).ok();
            assert_eq!(read(instance, &signer(1)), Some(tombstones));
            assert_eq!(read(instance, &signer(2)), None);
            assert_eq!(read(InstanceId([8; 16]), &signer(1)), None);
        }
    }

    #[test]
    fn a_list_with_a_line_more_or_less_is_refused() {
        let instance = InstanceId([7; 16]);
        let list = write_list(instance, &some(), &signer(1)).unwrap();
        let first = list.lines().next().unwrap().to_owned() + "\n";
        for changed in [list.replacen(&first, "", 1), first + &list, String::new()] {
            assert!(read_list(&changed, instance, signer(1).key()).is_err(), "{changed}");
        }
    }
}
