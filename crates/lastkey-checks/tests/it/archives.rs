//! Archives: what lies in them is found, and what is wrong with them is said.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder},
};
use lastkey_checks::{
    finding::Fingerprinter,
    scan::{Limits, Options, Outcome, Rules, Scanner, Workspace},
};

use crate::made::{fill, scan, scanner};

fn secret() -> Vec<u8> {
    fill("token = ghp_[=crc62]\n", 11).into_bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn tar_member(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    header[154] = 0;
    let mut member = [header.as_slice(), content].concat();
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive: Vec<u8> = Vec::new();
    for (name, content) in members {
        archive.extend(tar_member(name, content, b'0'));
    }
    archive.extend([0; 1024]);
    archive
}

/// A zip of stored and deflated members; `later` writes lengths behind the data.
fn zip(members: &[(&str, &[u8], bool)], later: bool) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content, is_packed) in members {
        let body = if *is_packed {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.to_vec()
        };
        let (flags, method) = (u16::from(later) * 8, if *is_packed { 8_u16 } else { 0 });
        let len = if later { 0 } else { body.len() as u32 };
        archive.extend(b"PK\x03\x04\x14\0");
        archive.extend(flags.to_le_bytes());
        archive.extend(method.to_le_bytes());
        archive.extend([0; 8]);
        archive.extend(len.to_le_bytes());
        archive.extend((content.len() as u32).to_le_bytes());
        archive.extend((name.len() as u16).to_le_bytes());
        archive.extend([0; 2]);
        archive.extend(name.as_bytes());
        archive.extend(&body);
        if later {
            archive.extend(b"PK\x07\x08");
            archive.extend([0; 12]);
        }
    }
    archive.extend(b"PK\x01\x02");
    archive
}

fn paths(outcome: &Outcome) -> Vec<&str> {
    outcome.findings.iter().map(|finding| finding.location.path.as_str()).collect()
}

#[test]
fn members_of_every_archive_are_scanned() {
    let (scanner, secret) = (scanner(), secret());
    let plain: (&str, &[u8]) = ("etc/app.conf", &secret);
    let layer = tar(&[("readme", b"nothing"), plain]);
    let image = tar(&[("manifest.json", b"[]"), ("blobs/sha256/ab", &gzip(&layer))]);
    for (content, path) in [
        (gzip(&secret), "f"),
        (layer.clone(), "f!/etc/app.conf"),
        (gzip(&layer), "f!/etc/app.conf"),
        (image, "f!/blobs/sha256/ab!/etc/app.conf"),
        (zip(&[("a", b"x", true), ("b/c", &secret, true)], false), "f!/b/c"),
        (zip(&[("a", b"x", false), ("b/c", &secret, false)], false), "f!/b/c"),
        (zip(&[("in.tar", &layer, true)], false), "f!/in.tar!/etc/app.conf"),
    ] {
        let outcome = scan(&scanner, "f", &content);
        assert_eq!(paths(&outcome), [path]);
        assert!(outcome.not_checked.is_empty(), "{:?}", outcome.not_checked);
    }
}

#[test]
fn zip_that_was_written_as_a_stream_is_read_in_part_and_says_so() {
    let secret = secret();
    let archive = zip(&[("a", &secret, true), ("b", &secret, true)], true);
    let outcome = scan(&scanner(), "f", &archive);
    assert_eq!(paths(&outcome), ["f!/a", "f!/b"]);
    assert!(outcome.not_checked.is_empty(), "{:?}", outcome.not_checked);
}

#[test]
fn long_names_of_tar_are_read() {
    let secret = secret();
    let long = format!("{}/app.conf", "folder/".repeat(30));
    let mut archive = tar_member("././@LongLink", format!("{long}\0").as_bytes(), b'L');
    archive.extend(tar(&[("cut", &secret)]));
    assert_eq!(paths(&scan(&scanner(), "f", &archive)), [format!("f!/{long}")]);
    let record = format!("{} path={long}\n", long.len() + 10);
    let mut archive = tar_member("PaxHeaders/x", record.as_bytes(), b'x');
    archive.extend(tar(&[("cut", &secret)]));
    assert_eq!(paths(&scan(&scanner(), "f", &archive)), [format!("f!/{long}")]);
}

#[test]
fn bomb_ends_at_the_limit_and_says_so() {
    let rules = Rules::builtin().unwrap();
    let limits = Limits { depth: 8, unpacked_len: 4 << 20 };
    let options = Options { limits, binaries: false };
    let scanner = Scanner::new(rules, Fingerprinter::unkeyed(), None, options).unwrap();
    let spaces = vec![b' '; 64 << 20];
    let bomb = gzip(&gzip(&spaces));
    for content in
        [bomb.clone(), zip(&[("b", &spaces, true)], false), zip(&[("b", &bomb, false)], false)]
    {
        assert!(content.len() < 1 << 20);
        let mut outcome = Outcome::default();
        scanner.scan("f", None, &mut content.as_slice(), &mut Workspace::default(), &mut outcome);
        assert!(outcome.bytes <= 5 << 20, "{}", outcome.bytes);
        assert_eq!(outcome.failures, outcome.not_checked.len() as u64);
        let reasons = format!("{:?}", outcome.not_checked);
        assert!(reasons.contains("more than the limit"), "{reasons}");
    }
}

#[test]
fn archives_deep_in_each_other_are_left_and_named() {
    let mut nested = secret();
    for _ in 0..12 {
        nested = gzip(&nested);
    }
    let outcome = scan(&scanner(), "f", &nested);
    assert!(outcome.findings.is_empty());
    assert!(outcome.not_checked[0].reason.contains("deep"), "{:?}", outcome.not_checked);
}

#[test]
fn damage_is_named_and_what_comes_before_it_is_found() {
    let secret = secret();
    let noise = crate::made::Letters::new(3).bytes(5_000);
    let whole = tar(&[("a", &secret), ("b", &noise)]);
    let outcome = scan(&scanner(), "f", &whole[..whole.len() - 2_000]);
    assert_eq!(paths(&outcome), ["f!/a"]);
    assert_eq!(outcome.failures, 1);
    let mut packed = gzip(&[secret.as_slice(), &noise].concat());
    packed.truncate(packed.len() - 1_000);
    assert_eq!(scan(&scanner(), "f", &packed).failures, 1);
    let whole = zip(&[("a", &secret, true), ("b", &noise, true)], false);
    let outcome = scan(&scanner(), "f", &whole[..whole.len() - 2_000]);
    assert_eq!(paths(&outcome), ["f!/a"]);
    assert!(outcome.failures >= 1);
}

#[test]
fn archives_that_are_never_opened_are_named() {
    let outcome = scan(&scanner(), "f", &[0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2, 3]);
    assert_eq!(outcome.not_checked[0].reason, "xz archives are not opened");
    assert_eq!(outcome.failures, 0);
}
