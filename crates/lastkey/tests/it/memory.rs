//! What a server keeps of its keys in memory: all of them while it is unsealed, none afterwards.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use lastkey_core::seal_record::{RootWrap, SealKind};
use lastkey_crypto::hpke::{HpkePrivateKey, SharedKey};
use lastkey_crypto::kdf::{Argon2Params, derive, derive_from_passphrase};
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_store::record::bootstrap;
use rusqlite::{Connection, OpenFlags};

use crate::process::until;
use crate::world::{Installation, PASSPHRASE};

/// The keys of an installation, as a thief of disk and passphrase would work them out.
fn keys(installation: &Installation) -> Vec<(&'static str, [u8; 32])> {
    let database = installation.data.join("records.db");
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let select = "SELECT value FROM records WHERE path = '!bootstrap'";
    let bytes: Vec<u8> = database.query_row(select, [], |row| row.get(0)).unwrap();
    let bootstrap = bootstrap::decode(&bytes).unwrap();
    let (instance, seal) = (bootstrap.instance.id, &bootstrap.seals[0]);
    let SealKind::Passphrase { memory_kib, passes, lanes, salt } = seal.kind else { panic!() };
    let RootWrap::Keyed { public, wrapped_seed, sealed_root, .. } = &seal.root else { panic!() };
    let costs = Argon2Params::parse(memory_kib, passes, lanes).unwrap();
    let passphrase = SecretVec::copy_of(PASSPHRASE.as_bytes());
    let seal_key = derive_from_passphrase(&passphrase, &salt, costs).unwrap();
    let costs_of = [memory_kib, passes, lanes].map(u32::to_be_bytes);
    let kind = [&[1], costs_of.as_flattened(), &salt].concat();
    let aad = [b"lastkey/seal-seed/v1", &instance.0[..], &seal.id, &kind, public].concat();
    let seed = WrapKey::new(&seal_key).unwrap().unwrap(&aad, wrapped_seed).unwrap();
    let seed = seed.to_array::<32>().unwrap();
    let private = derive(&seed, b"lastkey/seal-private/v1").unwrap();
    let shared = derive(&seed, b"lastkey/seal-shared/v1").unwrap();
    let bytes = |secret: &SecretArray<32>| secret.expose(|bytes| *bytes);
    let mut keys = vec![
        ("seal key", bytes(&seal_key)),
        ("seed", bytes(&seed)),
        ("private half", bytes(&private)),
        ("shared key", bytes(&shared)),
    ];
    let root = HpkePrivateKey::of(private);
    let info = [b"lastkey/for-seal/v2", &instance.0[..], &seal.id, b"root"].concat();
    let root = root.open(SharedKey { key: &shared, id: &seal.id }, &info, &[], sealed_root);
    let root = root.unwrap();
    let root = root.to_array::<32>().unwrap();
    keys.push(("root key", bytes(&root)));
    let keyring_key = derive(&root, b"lastkey/keyring/v1").unwrap();
    keys.push(("keyring key", bytes(&keyring_key)));
    for entry in &bootstrap.keyring {
        let aad = [b"lastkey/keyring/v1", &instance.0[..], &entry.epoch.to_be_bytes()].concat();
        let secret = WrapKey::new(&keyring_key).unwrap().unwrap(&aad, &entry.wrapped).unwrap();
        let secret = secret.to_array::<32>().unwrap();
        keys.push(("secret of an epoch", bytes(&secret)));
        let named: [(&str, &[u8]); 2] = [
            ("record key", b"lastkey/record-key/v1"),
            ("material key", b"lastkey/material-key/v1"),
        ];
        keys.extend(named.map(|(name, label)| (name, bytes(&derive(&secret, label).unwrap()))));
    }
    keys
}

/// Which of the keys lie anywhere in the memory of a process.
fn found(process: u32, keys: &[(&'static str, [u8; 32])]) -> Vec<&'static str> {
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut names = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let at = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = (at(from), at(to));
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // A guard page, or one that went away since the list was read.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for (name, key) in keys {
            // Keys are uniform: the first four bytes sort out nearly everything.
            let first = &key[..4];
            let is_there = bytes
                .windows(4)
                .enumerate()
                .any(|(at, part)| part == first && bytes[at..].starts_with(key));
            if is_there {
                names.push(*name);
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn sealed_server_has_no_key_left_in_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("");
    server.cli("key create --alias alias/app").ok();
    server.cli_with("blob encrypt --key alias/app", b"x").ok();
    if fs::File::open(format!("/proc/{}/mem", server.process.id())).is_err() {
        let text = b"\nSKIPPED sealed_server_has_no_key_left_in_its_memory: needs root\n";
        return std::io::stderr().write_all(text).unwrap();
    }
    let keys = keys(&installation);
    // What it works with is there, or this test would find nothing anywhere.
    let unsealed = found(server.process.id(), &keys);
    assert!(unsealed.contains(&"secret of an epoch"), "{unsealed:?}");
    server.cli("seal").ok();
    // What was under way when it was sealed ends first.
    until("no key is left", || found(server.process.id(), &keys).is_empty());
}

/// What the kernel says of the mappings of a process whose line ends so: the lengths in a field.
fn kib(smaps: &str, mapping: &str, field: &str) -> Vec<u64> {
    let mut is_it = false;
    let mut lengths = Vec::new();
    for line in smaps.lines() {
        if let Some(length) = line.strip_prefix(field) {
            let length = length.trim_matches([':', ' ', 'k', 'B']);
            lengths.extend(is_it.then(|| length.parse::<u64>().unwrap()));
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_it = line.ends_with(mapping);
        }
    }
    lengths
}

#[test]
fn server_locks_its_memory_but_not_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("");
    let process = format!("/proc/{}", server.process.id());
    let smaps = fs::read_to_string(format!("{process}/smaps")).unwrap_or_default();
    let heap = kib(&smaps, "[heap]", "Locked");
    if heap.iter().sum::<u64>() == 0 {
        let text = b"\nSKIPPED server_locks_its_memory_but_not_its_code: needs root\n";
        return std::io::stderr().write_all(text).unwrap();
    }
    assert_eq!(heap, kib(&smaps, "[heap]", "Rss"));
    let program = fs::read_link(format!("{process}/exe")).unwrap();
    let code = smaps.lines().filter(|line| line.ends_with(program.to_str().unwrap()));
    let code: Vec<_> = code.filter(|line| line.contains(" r-xp ")).collect();
    assert_eq!(code.len(), 1, "{code:?}");
    assert_eq!(kib(&smaps, code[0], "Locked"), [0]);
}
