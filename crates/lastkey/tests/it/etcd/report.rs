//! `etcd verify --report`: what etcd still needs is not destroyed.

use super::store::Etcd;
use crate::process::{Ended, run};
use crate::world::Server;

/// An object that a version of a key seals, as its plugin notes it; what is in it is not asked.
fn sealed(key: &str, version: u32) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).unwrap();
        assert!(len < 0x80);
        [&[number << 3 | 2, len], bytes].concat()
    };
    let name = field(1, b"key-version.lastkey.dev");
    let value = field(2, format!("{key}/{version}").as_bytes());
    let body = [
        field(1, &[7; 100]),
        field(2, format!("lk1.version{version}").as_bytes()),
        field(3, &[8; 100]),
        field(4, &[name, value].concat()),
        vec![5 << 3, 1],
    ];
    [b"k8s:enc:kms:v2:lastkey:".to_vec(), body.concat()].concat()
}

fn lastkey(server: &Server, line: &str) -> Ended {
    run(&mut server.client(line.split_whitespace()), b"")
}

#[test]
fn a_version_that_etcd_still_needs_is_not_destroyed() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::dev(&folder.path().join("data"));
    let key = server.create(r#"{"alias": "alias/etcd"}"#);
    let lastkey = |line: &str| lastkey(&server, &line.replace("URL", &etcd.url));
    lastkey("key rotate alias/etcd").ok();
    etcd.put("/registry/secrets/shop/old", &sealed(&key, 1));
    etcd.put("/registry/secrets/shop/new", &sealed(&key, 2));
    let report = "etcd verify --endpoints URL --report prod";
    let told = lastkey(report);
    assert!(told.stderr.contains(&format!("prod holds 2 objects under {key}")), "{}", told.stderr);

    let warned = lastkey("key version shadow-disable alias/etcd 1");
    assert!(warned.stderr.contains("prod was reported at"), "{}", warned.stderr);
    warned.ok();
    let destroy = "key version destroy alias/etcd 1 --yes";
    let refused = lastkey(destroy);
    let complaint = refused.failed(1);
    assert!(complaint.contains("KeyNeeded") && complaint.contains("prod"), "{complaint}");
    let impact = lastkey("key impact alias/etcd --output json").json();
    let held = &impact["holdings"][0];
    assert_eq!((held["place"].as_str(), held["count"].as_u64()), (Some("prod"), Some(2)));
    assert_eq!(held["versions"][0]["version"], 1);
    assert!(lastkey("key impact alias/etcd").ok().contains("1: 1, 2: 1"));

    // Rewritten, and reported once more.
    etcd.put("/registry/secrets/shop/old", &sealed(&key, 2));
    lastkey(report).ok();
    lastkey(destroy).ok();
    assert!(lastkey("key show alias/etcd").ok().contains("prod (2 etcd-objects"));

    let delete = "key delete alias/etcd --yes --window-days 7";
    let refused = lastkey(delete);
    assert!(refused.failed(1).contains("to hold 2 objects under this key"), "{}", refused.stderr);
    lastkey("key forget-holding alias/etcd stage --reason gone").failed(1);
    let in_spite = format!("{delete} --in-spite-of-reports decommissioned");
    lastkey(&in_spite).ok();
    let audited =
        lastkey("audit search --action kms:ScheduleKeyDeletion --output json").ok().to_owned();
    assert!(audited.contains("in spite of prod: decommissioned"), "{audited}");
}

#[test]
fn what_cannot_be_ascribed_is_not_reported_and_an_empty_place_is_by_name() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::dev(&folder.path().join("data"));
    let key = server.create(r#"{"alias": "alias/etcd"}"#);
    let lastkey = |line: &str| lastkey(&server, &line.replace("URL", &etcd.url));
    etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
    let report = "etcd verify --endpoints URL --report prod";
    let nothing = lastkey(report);
    assert!(nothing.failed(1).contains("nothing here is under a key of Lastkey"));
    let told = lastkey(&format!("{report} --report-key alias/etcd"));
    assert!(told.stderr.contains(&format!("prod holds 0 objects under {key}")), "{}", told.stderr);
    etcd.put("/registry/secrets/shop/odd", &sealed("no-key", 1));
    assert!(lastkey(report).failed(1).contains("do not tell which version"));
    lastkey("etcd verify --endpoints URL --report-key alias/etcd").failed(2);
}
