//! From managed secrets to a scan pack to a finding: the values are found in whatever way they are
//! written, nobody who has the pack has them, and the service confirms what was found.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_checks::scan::pack::{Builder, ValueId, Width};
use lastkey_core::secret_item::SecretId;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use serde_json::Value;

use crate::issuer::{ISSUER, Issuer};
use crate::process::{Ended, lastkey, run};
use crate::world::{Server, audit_records, text};

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

const AUDIENCE: &str = "lastkey-test";

/// A server with two secrets, a narrow pack of them, and a pipeline that may confirm one.
struct Shop {
    folder: tempfile::TempDir,
    server: Server,
    issuer: Issuer,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        let shop = Self { folder, server, issuer: Issuer::new() };
        shop.server.cli_with("secret put prod/api --value-file -", TOKEN.as_bytes()).ok();
        shop.server.cli_with("secret put pay/api --value-file -", NESTED.as_bytes()).ok();
        let (jwks, policy) = (shop.path("jwks.json"), shop.path("scan.cedar"));
        fs::write(&jwks, shop.issuer.jwks()).unwrap();
        let text = "permit(principal, action == Action::\"secrets:ConfirmLeak\", \
                    resource in SecretPath::\"prod\");";
        fs::write(&policy, text).unwrap();
        let cluster = format!("--issuer {ISSUER} --audience {AUDIENCE} --jwks {jwks}");
        shop.server.cli(&format!("cluster add ci {cluster}")).ok();
        let role = "--cluster ci --namespace build --service-account scan";
        shop.server.cli(&format!("role create scan {role} --policy {policy}")).ok();
        shop.make_pack();
        shop
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn make_pack(&self) {
        let pack = self.path("pack");
        self.server.cli(&format!("secret scan-pack --narrow --force -o {pack}")).ok();
    }

    /// The token of the pipeline.
    fn pipeline(&self) -> String {
        let token = self.issuer.pod_token(AUDIENCE, "build", "scan");
        let body = serde_json::json!({ "subject_token": token, "role": "scan" }).to_string();
        text(&self.server.anybody().done("POST", "/v1/sts/token", &body)["access_token"])
    }

    fn scan(&self, token: &str, more: &[&str]) -> Ended {
        let (tree, pack) = (self.path("tree"), self.path("pack"));
        let line = ["scan", &tree, "--pack", &pack, "--output", "json"];
        let mut command = self.server.client([&line, more].concat());
        run(command.env("LASTKEY_TOKEN", token), b"")
    }
}

/// File, rule and subject of what a pack found.
fn by_pack(ended: &Ended) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let of_pack = findings.filter(|found| text(&found["rule"]).starts_with("managed-secret"));
    let last = |place: &str| place.rsplit('/').next().unwrap().to_owned();
    let shown = of_pack.map(|found| {
        let subject = text(&found["subject"]);
        let subject = subject.split('/').next().unwrap().to_owned() + "/" + &last(&subject);
        (last(&text(&found["location"]["path"])), text(&found["rule"]), subject)
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    shown
}

fn row(file: &str, rule: &str, subject: &str) -> (String, String, String) {
    (file.to_owned(), rule.to_owned(), subject.to_owned())
}

const CERTAIN: &str = "managed-secret";
const CANDIDATE: &str = "managed-secret-candidate";

#[test]
fn candidates_are_confirmed_by_the_service_without_being_sent() {
    let shop = Shop::open();
    let tree = shop.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(format!("{tree}/one.txt"), format!("x = {TOKEN}\n")).unwrap();
    fs::write(format!("{tree}/two.txt"), STANDARD.encode(format!("y={NESTED}"))).unwrap();
    let admin = shop.server.token.clone();
    let in_doubt =
        [row("one.txt", CANDIDATE, "ScanPack/1"), row("two.txt", CANDIDATE, "ScanPack/0")];

    assert_eq!(by_pack(&shop.scan(&admin, &[])), in_doubt, "nobody was asked");
    let ended = shop.scan(&admin, &["--confirm"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let named = [
        row("one.txt", CERTAIN, "ManagedSecret/api"),
        row("two.txt", CERTAIN, "ManagedSecret/api"),
    ];
    assert_eq!(by_pack(&ended), named, "the administrator may know everything");
    assert!(ended.text().contains("version 1, current"), "{}", ended.text());
    // The pipeline may ask about one and learns no name; the other one stays in doubt.
    let ended = shop.scan(&shop.pipeline(), &["--confirm"]);
    let half = [row("one.txt", CERTAIN, "ScanPack/1"), row("two.txt", CANDIDATE, "ScanPack/0")];
    assert_eq!(by_pack(&ended), half);
    assert!(ended.text().contains("secrets:ConfirmLeak"), "{}", ended.text());
    // Nobody: everything stays in doubt, and that is said.
    let ended = shop.scan("wrong", &["--confirm"]);
    assert_eq!((ended.code, &by_pack(&ended)[..]), (Some(1), &in_doubt[..]));
    assert!(ended.text().contains("the key service does not confirm it"), "{}", ended.text());
    // So does a version that is gone.
    shop.server.cli_with("secret put prod/api --value-file -", b"Jd5Gm1Xc7Bn3Vk9Rf2Wq").ok();
    shop.server.cli("secret destroy prod/api --version 1 --yes").ok();
    let found = by_pack(&shop.scan(&admin, &["--confirm"]));
    assert_eq!(found, [in_doubt[0].clone(), named[1].clone()]);

    let records = audit_records(&shop.folder.path().join("data"), "--action secrets:ConfirmLeak");
    let told = serde_json::to_string(&records).unwrap();
    assert!(told.contains("secret/prod/api#1") && told.contains("seen where it should not be"));
    assert!(!told.contains(TOKEN) && !told.contains(NESTED), "{told}");
    // Whom to ask has to be said before anything is read.
    let pack = shop.path("pack");
    let mut command = lastkey(["scan", &tree, "--pack", &pack, "--confirm"]);
    assert!(run(&mut command, b"").failed(2).contains("LASTKEY_ADDR"));
}

#[test]
fn what_only_looks_like_a_value_is_refuted_and_counted() {
    let shop = Shop::open();
    let tree = shop.path("tree");
    fs::create_dir(&tree).unwrap();
    let other = "Jd5Gm1Xc7Bn3Vk9Rf2Wq"; // lastkey:allow made for this test
    fs::write(format!("{tree}/one.txt"), format!("x {other}\n")).unwrap();
    // A pack that stands for another value than the service has there, as a chance match would.
    let shown = shop.server.admin().done("GET", "/v1/secrets/prod%2Fapi", "");
    let secret = SecretId::parse(&text(&shown["id"])).unwrap().0;
    let material = material::generate(MaterialSpec::Ed25519, &mut SystemEntropy).unwrap();
    let key = SigningKey::new(MaterialSpec::Ed25519, &material).unwrap();
    let public = *key.public_key_der().unwrap().last_chunk::<32>().unwrap();
    let mut builder = Builder::new([1; 16], (0, u64::MAX), [2; 32]).unwrap();
    builder.add(other.as_bytes(), ValueId { secret, version: 1 }).unwrap();
    let pack = builder.finish(Width::Narrow, public, &mut |body| {
        key.sign(SignAlgorithm::Ed25519, Message::Raw(body)).unwrap().try_into().unwrap()
    });
    fs::write(shop.path("pack"), pack.unwrap()).unwrap();
    let admin = shop.server.token.clone();
    assert_eq!(by_pack(&shop.scan(&admin, &[])), [row("one.txt", CANDIDATE, "ScanPack/0")]);
    let ended = shop.scan(&admin, &["--confirm"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let refuted = figures.iter().find(|one| one["name"] == "refuted by the key service").unwrap();
    assert_eq!(refuted["value"], 1);
}
