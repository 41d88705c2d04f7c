//! Commands about encrypted volumes, over a driver's reports; a driver itself is in `volumes`.

use std::fs;

use lastkey_luks::{Content, Format, Header, KmsToken, State};
use lastkey_secret::SecretVec;
use lastkey_volumes::Disk;
use serde_json::{Value, json};

use super::Shell;

const VOLUME: &str = "lkv-0123456789abcdef0123456789abcdef";

pub(super) fn commands(s: &mut Shell) {
    let class = s.server.create(r#"{"alias": "alias/class"}"#);
    let lineage = json!({
        "alias": format!("alias/lastkey-volume/{VOLUME}"), "tags": { "lastkey-volume": VOLUME }
    });
    let lineage = s.server.create(&lineage.to_string());
    report(s, &class, 1, 0);
    report(s, &lineage, 1, 0);
    let listed = s.json("volume list");
    assert_eq!(listed["volumes"][0]["volume"], VOLUME);
    assert_eq!(listed["volumes"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(s.json("volume list --key alias/class")["volumes"][0]["claim"], "shop/data");
    assert!(s.ok("key impact alias/class").contains(VOLUME));
    rotation(s, &class);
    proof_of_erasure(s, &lineage);
    header(s, &class);
}

/// What the driver of a node would say.
fn report(s: &Shell, key: &str, version: u32, data_key: u32) {
    let about = json!({ "kind": "volume", "claim": "shop/data", "data-key": data_key.to_string() });
    let report = json!({
        "what": "volumes",
        "versions": [{ "version": version, "count": 1 }],
        "things": [{ "name": VOLUME, "version": version, "about": about }],
    });
    let target = format!("/v1/keys/{key}/holdings/volumes.lastkey.dev@node-1");
    s.server.admin().done("PUT", &target, &report.to_string());
}

fn rotation(s: &mut Shell, class: &str) {
    assert_eq!(s.json("volume rotate alias/class")["keys"][0]["done"], 1);
    let asked = s.json("volume rotate alias/class --new-version --data-keys --no-wait");
    let asked = &asked["keys"][0];
    assert_eq!((&asked["version"], &asked["data_keys"]), (&json!(2), &json!(1)));
    assert_eq!((&asked["done"], &asked["left"][0]["volume"]), (&json!(0), &json!(VOLUME)));
    let waited = s.run("volume rotate --all --timeout 1s", b"");
    assert!(waited.failed(1).contains("1 volumes are not done"), "{}", waited.stderr);
    report(s, class, 2, 1);
    let done = s.run("volume rotate alias/class", b"");
    done.ok();
    assert!(done.stderr.contains("1 of 1 volumes"), "{}", done.stderr);
}

fn proof_of_erasure(s: &mut Shell, lineage: &str) {
    let prove = format!("volume erase-proof {VOLUME} --output json");
    let in_use = s.run(&prove, b"");
    assert!(in_use.failed(1).contains("have its key"), "{}", in_use.stderr);
    let refused = s.run(&format!("key delete {lineage} --yes"), b"");
    assert!(refused.failed(1).contains(VOLUME), "{}", refused.stderr);
    let target = format!("/v1/keys/{lineage}/holdings/volumes.lastkey.dev@node-1");
    let nothing = json!({ "what": "volumes", "versions": [] }).to_string();
    s.server.admin().done("PUT", &target, &nothing);
    s.ok(&format!("key delete {lineage} --yes"));
    let held = s.run(&prove, b"");
    assert!(held.failed(1).contains("cancel-deletion"), "{}", held.stderr);
    let proof: Value = serde_json::from_slice(&held.stdout).unwrap();
    assert_eq!((&proof["erased"], &proof["lineage"]), (&json!(false), &json!(lineage)));
    // Each record is proven by the signed log, the first by whom the key was made.
    fs::write(s.folder.path().join("log.pub"), s.ok("audit checkpoint --public-key")).unwrap();
    let records = proof["records"].as_array().unwrap();
    let actions: Vec<_> = records.iter().map(|record| &record["action"]).collect();
    assert_eq!(actions, ["kms:CreateKey", "kms:ScheduleKeyDeletion"]);
    for record in records {
        fs::write(s.folder.path().join("receipt.json"), record.to_string()).unwrap();
        s.ok("audit verify --receipt receipt.json --public-key log.pub");
    }
    assert_eq!(proof["made_by"], "admin");
    assert!(records[0]["record"].as_str().unwrap().contains(lineage));
    // A key that somebody else tagged is not taken for the volume's.
    let tagged = json!({ "tags": { "lastkey-volume": VOLUME } });
    let planted = s.server.create(&tagged.to_string());
    let refused = s.run(&prove, b"");
    assert!(refused.failed(1).contains("2 keys have the tag"), "{}", refused.stderr);
    s.ok(&format!("key untag {planted} lastkey-volume"));
    let unknown = s.run("volume erase-proof lkv-none", b"");
    assert!(unknown.failed(1).contains("knows no key"), "{}", unknown.stderr);
}

/// A volume whose header is lost, on a file in place of a device.
fn header(s: &mut Shell, class: &str) {
    let lineage = s.server.create("{}");
    let file = s.folder.path().join("disk");
    fs::File::create(&file).unwrap().set_len(17 << 20).unwrap();
    let token = |slot| KmsToken {
        slots: vec![slot],
        cluster: String::new(),
        volume: VOLUME.to_owned(),
        lineage: lineage.clone(),
        key: class.to_owned(),
        wrapped: vec![1],
        state: State::Ready,
        content: Content::Block,
    };
    let format = Format { label: "", subsystem: "", sector_size: 4_096 };
    let disk = Disk::open(&file).unwrap();
    let secret = SecretVec::copy_of(&[1; 64]);
    let noise = &mut lastkey_crypto::entropy::SystemEntropy;
    let (whole, key) = Header::format(&disk, format, &secret, token, noise).unwrap();
    let context = json!({
        "use": "lastkey-volume-key", "cluster": "", "volume": VOLUME, "lineage": lineage
    });
    let wrap = |key: &str, bytes: &[u8]| {
        let plaintext = crate::http::base64(bytes);
        let body = json!({ "key": key, "plaintext": plaintext, "context": context });
        let sealed = s.server.admin().done("POST", "/v1/encrypt", &body.to_string());
        crate::http::bytes(&sealed["ciphertext"])
    };
    let wrapped = wrap(class, &wrap(&lineage, &key.expose(<[u8]>::to_vec)));
    let hex: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = json!({
        "type": "lastkey-volume-header", "version": 1, "uuid": whole.uuid(), "cluster": "",
        "volume": VOLUME, "lineage": lineage, "key": class, "content": "block", "volume_key": hex
    });
    fs::write(s.folder.path().join("kept"), kept.to_string()).unwrap();
    s.ok(&format!("secret put lastkey-volume/{VOLUME}/header --key alias/class --value-file kept"));
    let escrow = s.run(&format!("volume escrow {VOLUME}"), b"");
    assert_eq!(serde_json::from_slice::<Value>(&escrow.stdout).unwrap(), kept);

    let restore = format!("volume restore-header {VOLUME} --device disk");
    assert!(s.run(&restore, b"").failed(1).contains("whole header"));
    lastkey_luks::Medium::write_at(&disk, &[0; 32_768], 0).unwrap();
    assert!(s.run(&restore, b"").failed(1).contains("--unseen"));
    assert!(s.run("volume restore-header lkv-x --device disk --escrow kept", b"").code == Some(1));
    s.ok(&format!("{restore} --unseen"));
    let again = Header::read(&disk).unwrap().unwrap();
    assert_eq!(again.uuid(), whole.uuid());
    assert_eq!(again.tokens().unwrap()[0].1.content, Content::Block);
    assert!(again.open(&disk, &[], &secret).is_err(), "it has a data key of its own");
}
