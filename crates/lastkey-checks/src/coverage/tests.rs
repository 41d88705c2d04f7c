//! Coverage over values made here, and over those that a real API server wrote.

use super::{Coverage, CoverageReport, Expected, REGISTRY, Requirement};

/// A value as KMS v2 stores it.
fn sealed(provider: &str, key_id: &str, source: &str, seed_type: u8) -> Vec<u8> {
    let mut value = format!("k8s:enc:kms:v2:{provider}:").into_bytes();
    for (tag, part) in [(0x0a, "sealed data"), (0x12, key_id), (0x1a, source)] {
        value.push(tag);
        value.push(u8::try_from(part.len()).unwrap());
        value.extend_from_slice(part.as_bytes());
    }
    value.extend_from_slice(&[0x28, seed_type]);
    value
}

fn report(objects: &[(&str, Vec<u8>, u64)], expected: &Expected) -> CoverageReport {
    let mut coverage = Coverage::new(REGISTRY);
    for (key, value, revision) in objects {
        coverage.take(key.as_bytes(), value, *revision).unwrap();
    }
    coverage.report(expected)
}

fn holds(text: &str, report: &CoverageReport) -> bool {
    text.parse::<Requirement>().unwrap().broken(report).is_none()
}

fn mixed() -> Vec<(&'static str, Vec<u8>, u64)> {
    vec![
        ("/registry/secrets/a/clear", b"k8s\0x".to_vec(), 3),
        ("/registry/secrets/a/json", b"{}".to_vec(), 4),
        ("/registry/secrets/a/odd", b"neither".to_vec(), 4),
        ("/registry/secrets/a/local", b"k8s:enc:aescbc:v1:k1:xx".to_vec(), 5),
        ("/registry/secrets/a/v1", b"k8s:enc:kms:v1:old:xx".to_vec(), 5),
        ("/registry/secrets/a/foreign", sealed("vault", "v", "s0", 1), 6),
        ("/registry/secrets/a/old", sealed("lastkey", "k1", "s1", 1), 7),
        ("/registry/secrets/a/form", sealed("lastkey", "k2", "s2", 0), 8),
        ("/registry/secrets/a/new", sealed("lastkey", "k2", "s2", 1), 9),
        ("/registry/secrets/a/cut", b"k8s:enc:kms:v2:lastkey:\x0a\x7f".to_vec(), 9),
        ("/registry/pods/a/p", b"k8s\0x".to_vec(), 10),
        ("compact_rev_key", b"12".to_vec(), 11),
    ]
}

#[test]
fn every_object_is_counted_once_where_it_belongs() {
    let report = report(&mixed(), &Expected::default());
    let totals = report.totals;
    assert_eq!((totals.objects, totals.clear, totals.other), (10, 3, 3));
    assert_eq!((totals.old, totals.current, totals.damaged), (2, 1, 1));
    assert_eq!((totals.stale(), totals.unopened), (6, None));
    let pods = report.resources.iter().find(|row| row.resource == "pods").unwrap();
    assert!(!pods.required && pods.counts.clear == 1);
    let keys: Vec<_> = report.keys.iter().map(|key| (key.key_id.as_str(), key.current)).collect();
    assert_eq!(keys, [("k1", false), ("k2", true), ("v", false)]);
}

#[test]
fn named_keys_win_over_the_newest_write() {
    let mut objects = mixed();
    objects.push(("/registry/secrets/a/late", sealed("lastkey", "k1", "s1", 1), 99));
    assert_eq!(report(&objects, &Expected::default()).totals.current, 2);
    let expected = Expected { key_ids: vec!["k2".into()], ..Expected::default() };
    let named = report(&objects, &expected);
    assert_eq!((named.totals.current, named.totals.old), (1, 3));
    assert_eq!(named.current_by, "named");
    let expected = Expected { providers: vec!["other".into()], ..Expected::default() };
    assert_eq!(report(&objects, &expected).totals.current, 0);
}

#[test]
fn resources_are_required_when_named_or_sealed_in_part() {
    let objects = vec![
        ("/registry/configmaps/a/x", b"k8s\0".to_vec(), 1),
        ("/registry/example.com/widgets/a", sealed("p", "k", "s", 1), 2),
        ("/registry/example.com/widgets/b", b"{}".to_vec(), 2),
    ];
    let found = report(&objects, &Expected::default());
    assert_eq!((found.totals.objects, found.totals.clear), (2, 1));
    for named in ["configmaps", "*"] {
        let expected = Expected { resources: vec![named.into()], ..Expected::default() };
        assert_eq!(report(&objects, &expected).totals.clear, 2, "{named}");
    }
}

#[test]
fn resource_that_is_named_with_its_group_is_found_where_etcd_has_none() {
    let objects = vec![
        ("/registry/deployments/a/x", b"k8s\0".to_vec(), 1),
        ("/registry/example.com/widgets/a", b"{}".to_vec(), 2),
        ("/registry/secrets/a/b", sealed("p", "k", "s", 1), 3),
    ];
    for (named, clear) in [("deployments.apps", 1), ("widgets.example.com", 1), ("secrets", 0)] {
        let expected = Expected { resources: vec![named.into()], ..Expected::default() };
        let found = report(&objects, &expected);
        assert_eq!((found.totals.clear, &found.missing[..]), (clear, &[][..]), "{named}");
    }
}

#[test]
fn resource_that_is_named_and_not_there_is_missing() {
    for named in ["deployment", "secrets.", "widgets.exmaple.com"] {
        let expected = Expected { resources: vec![named.into()], ..Expected::default() };
        let missing = report(&mixed(), &expected).missing;
        let is_plain = named == "secrets.";
        assert_eq!(missing.is_empty(), is_plain, "{named}: {missing:?}");
    }
}

#[test]
fn requirements_hold_or_say_what_is_there() {
    let found = report(&mixed(), &Expected::default());
    assert!(holds("clear=3", &found) && holds("stale=6", &found) && holds("damaged=1", &found));
    assert!(!holds("clear=2", &found) && !holds("stale=0", &found) && !holds("old=1", &found));
    assert!(!holds("unopened=0", &found), "nobody looked");
    for bad in ["", "clear", "clear=", "clear=-1", "current=0", "clear=0 "] {
        assert!(bad.parse::<Requirement>().is_err(), "{bad:?}");
    }
    let broken = "clear=0".parse::<Requirement>().unwrap().broken(&found).unwrap();
    assert_eq!(broken, "clear=0 does not hold: there are 3");
}

#[test]
fn seeds_are_told_apart_by_all_that_a_plugin_is_asked_with() {
    let mut coverage = Coverage::new(REGISTRY);
    let mut ids = Vec::new();
    for (provider, key_id, source) in
        [("p", "k", "s"), ("p", "k", "s"), ("p", "k", "t"), ("p", "l", "s"), ("q", "k", "s")]
    {
        let value = sealed(provider, key_id, source, 1);
        ids.push(coverage.take(b"/registry/secrets/a/b", &value, 1).unwrap().unwrap().seed);
    }
    assert_eq!(ids[0], ids[1]);
    ids.dedup();
    assert_eq!(ids.len(), 4);
    coverage.unwrapped("p", "k", true);
    coverage.unwrapped("q", "k", false);
    let report = coverage.report(&Expected::default());
    assert_eq!(report.totals.unopened, Some(1));
    let seeds: Vec<u64> = report.keys.iter().map(|key| key.seeds).collect();
    assert_eq!(seeds, [2, 1, 1]);
}

#[test]
fn findings_name_what_is_wrong_and_carry_names_alone() {
    let report =
        report(&mixed(), &Expected::default()).findings("etcd", "lastkey etcd verify", "0");
    let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(rules, ["etcd-clear", "etcd-damaged", "etcd-other-provider", "etcd-old-key"]);
    assert_eq!(report.findings[0].title, "3 secrets stored in the clear");
    assert_eq!(report.findings[0].evidence, "for example a/clear, a/json, a/odd");
}

#[test]
fn values_of_a_real_api_server_are_current_under_its_key() {
    let text = include_str!("../../tests/data/kmsv2.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut coverage = Coverage::new(REGISTRY);
    for vector in vectors["vectors"].as_array().unwrap() {
        let unhex = |name: &str| -> Vec<u8> {
            let digits = vector[name].as_str().unwrap().as_bytes().chunks(2);
            digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        let key = vector["etcd_key"].as_str().unwrap();
        let value = unhex("etcd_value_hex");
        let sealed = coverage.take(key.as_bytes(), &value, 1).unwrap().unwrap();
        assert_eq!(sealed.object.key_id, vector["key_id"].as_str().unwrap());
        assert_eq!(sealed.object.source, unhex("dek_source_hex"));
    }
    let report = coverage.report(&Expected::default());
    assert_eq!((report.totals.current, report.totals.objects), (2, 2));
    assert_eq!(report.resources[0].resource, "widgets.example.com");
    let key = &report.keys[0];
    assert_eq!((key.provider.as_str(), key.seeds), ("lastkey-b", 1));
    assert!(key.annotations["kek-version.lastkey.dev"].contains("1"));
}
