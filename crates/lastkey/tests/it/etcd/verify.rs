//! `etcd verify`: every planted violation is found, and nothing else.

use std::fs;

use serde_json::Value;

use super::store::{Etcd, golden};
use super::xor_plugin::Xor;
use crate::process::{lastkey, run};

const SEALED: Xor = Xor { key_id: "m1", opens: "m1" };

/// Golden objects, and nothing that is wrong.
fn plant_good(etcd: &Etcd) {
    for (key, value) in golden() {
        etcd.put(&key, &value);
    }
    etcd.put("/registry/pods/shop/web", b"k8s\0pod");
    etcd.put("compact_rev_key", b"7");
}

fn row<'a>(report: &'a Value, resource: &str) -> &'a Value {
    let rows = report["resources"].as_array().unwrap();
    rows.iter().find(|row| row["resource"] == resource).unwrap()
}

#[test]
fn objects_of_a_real_api_server_are_proved_and_each_violation_is_found() {
    let Some(etcd) = Etcd::start() else { return };
    SEALED.listen(&etcd.path("kms.sock"));
    plant_good(&etcd);
    let proof = "etcd verify --endpoints URL --socket kms.sock --level decrypt --require clear=0,stale=0,unopened=0";
    let text = etcd.lastkey(proof).ok();
    assert!(text.contains("2 of 2") && text.contains("lastkey-b"), "{text}");
    let (_, value) = golden().pop().unwrap();
    let plants: [(&str, &str, Vec<u8>); 5] = [
        ("secrets/shop/clear", "clear", b"k8s\0secret".to_vec()),
        ("secrets/shop/json", "clear", b"{\"kind\":\"Secret\"}".to_vec()),
        ("secrets/shop/local", "stale", b"k8s:enc:secretbox:v1:key1:xx".to_vec()),
        ("secrets/shop/cut", "damaged", value[..60].to_vec()),
        ("secrets/shop/moved", "unopened", value.clone()),
    ];
    for (path, what, value) in plants {
        let key = format!("/registry/{path}");
        etcd.put(&key, &value);
        let ended = etcd.lastkey(&format!(
            "etcd verify --endpoints URL --socket kms.sock --level decrypt --require {what}=0"
        ));
        assert!(ended.failed(1).contains(&format!("{what}=0 does not hold: there are 1")));
        etcd.delete(&key);
    }
    etcd.lastkey(proof).ok();
}

#[test]
fn old_key_is_told_by_the_plugin_and_by_name() {
    let Some(etcd) = Etcd::start() else { return };
    plant_good(&etcd);
    Xor { key_id: "m2", opens: "m1" }.listen(&etcd.path("next.sock"));
    Xor { key_id: "m1", opens: "another" }.listen(&etcd.path("lost.sock"));
    let line =
        "etcd verify --endpoints URL --output json --require stale=0,unopened=0 --level unwrap";
    let rotated = etcd.lastkey(&format!("{line} --socket next.sock"));
    assert_eq!(rotated.code, Some(1), "{}", rotated.stderr);
    let report: Value = serde_json::from_str(&rotated.text()).unwrap();
    assert_eq!(row(&report, "widgets.example.com")["old"], 2);
    assert_eq!(report["totals"]["unopened"], 0);
    assert_eq!(report["current_by"], "named");
    let lost = etcd.lastkey(&format!("{line} --socket lost.sock"));
    assert!(lost.failed(1).contains("unopened=0 does not hold: there are 1"));
    etcd.lastkey("etcd verify --endpoints URL --key-id m2 --require stale=0").failed(1);
    etcd.lastkey("etcd verify --endpoints URL --key-id m1 --require stale=0").ok();
    etcd.lastkey("etcd verify --endpoints URL --provider other --require stale=0").failed(1);
}

#[test]
fn database_file_says_what_the_running_etcd_said() {
    let Some(etcd) = Etcd::start() else { return };
    plant_good(&etcd);
    etcd.put("/registry/secrets/shop/was", b"k8s\0secret");
    etcd.delete("/registry/secrets/shop/was");
    etcd.put("/registry/secrets/shop/now", b"k8s\0secret");
    let mut live = etcd.lastkey("etcd verify --endpoints URL --output json").json();
    assert!(live["revision"].as_u64().unwrap() > 5);
    let (folder, database) = etcd.stop();
    let line = format!("etcd verify --snapshot {} --output json", database.display());
    let mut file = run(&mut lastkey(line.split_whitespace()), b"").json();
    for report in [&mut live, &mut file] {
        let fields = report.as_object_mut().unwrap();
        fields.remove("revision");
        fields.remove("place");
    }
    assert_eq!(live, file);
    assert_eq!(row(&file, "secrets")["clear"], 1);
    assert_eq!(row(&file, "pods")["required"], false);
    let sarif = line.replace("json", "sarif") + " --require clear=0";
    let ended = run(&mut lastkey(sarif.split_whitespace()), b"");
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().contains("etcd-clear") && ended.text().contains("shop/now"));
    drop(folder);
}

#[test]
fn residue_goes_by_compaction_and_defragmentation_and_stays_in_the_log() {
    let Some(etcd) = Etcd::start() else { return };
    plant_good(&etcd);
    let (_, sealed) = golden().remove(0);
    let clear = [&b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret"[..], &[b'x'; 3_000]].concat();
    for number in 0..50 {
        let key = format!("/registry/secrets/shop/{number}");
        etcd.put(&key, &clear);
        etcd.put(&key, b"k8s:enc:aescbc:v1:key1:xx");
        etcd.put(&key, &sealed);
    }
    let verify = |require: &str| {
        let line = format!(
            "etcd verify --endpoints URL --residue --wal data/member/wal --output json --require {require}"
        );
        let ended = etcd.lastkey(&line);
        (ended.code, serde_json::from_str::<Value>(&ended.text()).unwrap()["residue"].clone())
    };
    let (code, before) = verify("clear=0,stale=0,residue=0");
    assert_eq!(code, Some(1));
    assert_eq!(
        (&before["history"]["clear"], &before["history"]["other"]),
        (&50.into(), &50.into())
    );
    assert_eq!(before["wal"]["clear"], 50);
    let revision =
        etcd.lastkey("etcd verify --endpoints URL --output json").json()["revision"].clone();
    etcd.call("kv/compaction", &serde_json::json!({ "revision": revision, "physical": true }));
    let (_, compacted) = verify("clear=0");
    assert_eq!(compacted["history"]["clear"], 0);
    assert!(compacted["free_pages"]["clear"].as_u64().unwrap() > 0, "{compacted}");
    etcd.call("maintenance/defragment", &serde_json::json!({}));
    let (_, defragmented) = verify("clear=0");
    assert_eq!(defragmented["free_pages"]["clear"], 0, "{defragmented}");
    assert_eq!(defragmented["free_pages"]["other"], 0);
    assert_eq!(defragmented["wal"]["clear"], 50);
    etcd.lastkey("etcd verify --endpoints URL --residue --require residue=0,clear=0").ok();
    etcd.lastkey("etcd verify --endpoints URL --require residue=0").failed(2);
    etcd.lastkey("etcd verify --endpoints URL --residue --wal data").failed(1);
}

#[test]
fn pages_of_many_and_of_large_objects_come_whole() {
    let Some(etcd) = Etcd::start() else { return };
    let large = [b"k8s\0".to_vec(), vec![b'x'; 1 << 20]].concat();
    for number in 0..40 {
        etcd.put(&format!("/registry/secrets/large/{number:02}"), &large);
    }
    for number in 0..300 {
        etcd.put(&format!("/registry/secrets/small/{number:03}"), b"k8s\0small");
    }
    // 40 MiB do not fit into one page, so it has to be cut smaller, and then to grow again.
    let report = etcd.lastkey("etcd verify --endpoints URL --output json").json();
    assert_eq!(row(&report, "secrets")["clear"], 340);
}

#[test]
fn tls_takes_the_authority_and_the_certificate_that_are_named_and_no_other() {
    let Some(etcd) = Etcd::start_with_tls() else { return };
    etcd.put("/registry/secrets/shop/x", b"k8s\0secret");
    let certificates = "--cacert ca.pem --cert cert.pem --key key.pem";
    let line = "etcd verify --endpoints URL --output json";
    let report = etcd.lastkey(&format!("{line} {certificates}")).json();
    assert_eq!(row(&report, "secrets")["clear"], 1);
    assert!(etcd.lastkey(line).failed(2).contains("--cacert"));
    etcd.lastkey(&format!("{line} --cacert ca.pem")).failed(3);
    etcd.lastkey(&format!("{line} --cacert cert.pem --cert cert.pem --key key.pem")).failed(3);
    let second = format!("{line} {certificates}").replace("URL", "https://127.0.0.1:1,URL");
    assert_eq!(etcd.lastkey(&second).json(), report);
}

#[test]
fn named_resource_is_found_with_its_group_and_one_that_is_nowhere_is_no_proof() {
    let Some(etcd) = Etcd::start() else { return };
    plant_good(&etcd);
    etcd.put("/registry/deployments/shop/web", b"k8s\0deployment");
    let line = "etcd verify --endpoints URL --resource";
    let named = etcd.lastkey(&format!("{line} deployments.apps --require clear=0"));
    assert!(named.failed(1).contains("clear=0 does not hold: there are 1"));
    let wrong = etcd.lastkey(&format!("{line} deploymnets.apps --require clear=0"));
    assert!(wrong.failed(1).contains("nothing in etcd is of deploymnets.apps"));
    let counted = etcd.lastkey(&format!("{line} deploymnets.apps"));
    assert!(counted.ok().contains("RESOURCE") && counted.stderr.contains("deploymnets"));
}

#[test]
fn what_cannot_be_read_is_said_and_is_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let verify = |line: &str| {
        run(lastkey(format!("etcd verify {line}").split_whitespace()).current_dir(&folder), b"")
    };
    fs::write(folder.path().join("not.db"), vec![0; 9_000]).unwrap();
    verify("").failed(2);
    verify("--snapshot a --endpoints http://h").failed(2);
    verify("--snapshot nowhere").failed(7);
    assert!(verify("--snapshot not.db").failed(1).contains("no etcd snapshot"));
    verify("--endpoints http://127.0.0.1:1").failed(3);
    verify("--endpoints nonsense").failed(2);
    verify("--snapshot not.db --require clear").failed(2);
    verify("--snapshot not.db --level unwrap").failed(2);
    verify("--snapshot not.db --require unopened=0").failed(2);
    verify("--snapshot not.db --level unwrap --socket nowhere.sock").failed(3);
    let mixed = concat!(env!("CARGO_MANIFEST_DIR"), "/../lastkey-checks/tests/data/etcd-mixed.db");
    let elsewhere = verify(&format!("--snapshot {mixed} --registry /other --require clear=0"));
    assert!(elsewhere.failed(1).contains("nothing is below /other"));
    assert!(verify(&format!("--snapshot {mixed} --require clear=0")).failed(1).contains("clear=0"));
}
