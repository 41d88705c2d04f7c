//! From managed secrets to a scan pack to a finding: the values are found in whatever way they are
//! written, and nobody who has the pack has them.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::process::{lastkey, run};
use crate::world::{Server, audit_records};

const TOKEN: &str = "kX7vQ2mR9tLp4WzN8sBd"; // lastkey:allow made for this test
const NESTED: &str = "Zr4Lw8Kp2Vn6Qx0Ty3Hs"; // lastkey:allow made for this test
const WEAK: &str = "hunter2hunter2hunter2";

/// Values in the ways in which they get lost, and what is none of them.
fn plant(tree: &Path) {
    fs::create_dir(tree).unwrap();
    let hex: String = NESTED.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (name, text) in [
        ("plain.txt", format!("x = {TOKEN};\n")),
        ("base64.txt", STANDARD.encode(format!("ab{TOKEN}cd"))),
        ("hex.txt", format!("0x{hex}\n")),
        ("weak.txt", format!("it is {WEAK}\n")),
        ("other.txt", "kX7vQ2mR9tLq4WzN8sBd and Zr4Lw8Kp2Vn6Qx0\n".to_owned()),
    ] {
        fs::write(tree.join(name), text).unwrap();
    }
}

/// Files and entries of what was found by the pack.
fn managed(report: &Value) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().unwrap().iter();
    let managed = findings.filter(|finding| finding["rule"] == "managed-secret");
    let last = |text: &Value| text.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let places =
        managed.map(|finding| (last(&finding["location"]["path"]), last(&finding["subject"])));
    let mut places: Vec<_> = places.collect();
    places.sort();
    places.dedup();
    places
}

#[test]
fn managed_values_are_found_by_a_pack_that_does_not_hold_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let data = folder.path().join("data");
    let server = Server::dev(&data);
    server.cli_with("secret put prod/api --value-file -", TOKEN.as_bytes()).ok();
    let nested = format!("{{\"db\": {{\"password\": \"{NESTED}\"}}}}\n");
    server.cli_with("secret put prod/shop/db --field-file json=-", nested.as_bytes()).ok();
    server.cli_with("secret put prod/weak --value-file -", WEAK.as_bytes()).ok();
    server.cli_with("secret put test/api --value-file -", b"Jd5Gm1Xc7Bn3Vk9Rf2Wq").ok();

    let (pack, index) = (path("pack"), path("index"));
    let made = server.cli(&format!("secret scan-pack prod -o {pack} --index {index}"));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(made.stderr.contains("2 values in the pack; 1 can be guessed and 0 may not be read"));
    let signer = made.stderr.lines().find_map(|line| line.split_once("--pack-signer`: "));
    let signer = signer.unwrap().1.trim().to_owned();
    let bytes = fs::read(&pack).unwrap();
    for value in [TOKEN, NESTED] {
        let is_in = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!value.as_bytes().windows(6).any(is_in), "a part of a value is in the pack");
    }
    let entries: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    assert_eq!(entries[0]["name"], "prod/api");
    assert_eq!(
        (&entries[1]["name"], &entries[1]["field"]),
        (&"prod/shop/db".into(), &"json".into())
    );
    // Each value was read by a permit of its own, and recorded.
    assert_eq!(audit_records(&data, "--action secrets:GetSecret").len(), 3);

    let tree = folder.path().join("tree");
    plant(&tree);
    let tree = tree.to_str().unwrap();
    let scan = |more: &[&str]| {
        let line = [&["scan", tree, "--pack", &pack, "--output", "json"], more].concat();
        run(&mut lastkey(line), b"")
    };
    let found = scan(&["--pack-signer", &signer]);
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    let places = managed(&report);
    let at = |name: &str, entry: &str| (name.to_owned(), entry.to_owned());
    assert_eq!(places, [at("base64.txt", "0"), at("hex.txt", "1"), at("plain.txt", "0")]);
    assert!(!found.text().contains(TOKEN) && !found.text().contains(NESTED));
    // Signed by somebody else.
    let other = STANDARD.encode([7; 32]);
    assert!(scan(&["--pack-signer", &other]).failed(2).contains("not signed"));
}
