//! Operations in the server: each one does what it says, and its counterpart undoes it.

use super::house::House;

#[test]
fn blob_comes_back_with_its_context_only() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let (_, sealed) = house.pipe("blob encrypt --key alias/app --context a=b", b"text");
    let (_, opened) = house.pipe("blob decrypt --context a=b", &sealed);
    assert_eq!(opened, b"text");
    let (done, opened) = house.pipe("blob decrypt --context a=c", &sealed);
    assert_eq!((done.code, opened.len()), (5, 0));
    let (_, raw) = house.pipe("blob encrypt --key alias/app --format raw", b"\x00\xff");
    let (_, opened) = house.pipe("blob decrypt --format raw", &raw);
    assert_eq!((raw.len(), opened.as_slice()), (106, &b"\x00\xff"[..]));
}

#[test]
fn rsa_ciphertext_is_opened_by_key_and_version() {
    let house = House::open();
    house.ok("key create --alias alias/rsa --spec RSA_2048 --usage ENCRYPT_DECRYPT");
    let (done, sealed) = house.pipe("blob encrypt --key alias/rsa", b"text");
    assert_eq!(done.code, 0, "{}", done.err);
    let (done, opened) = house.pipe("blob decrypt --key alias/rsa --version 1", &sealed);
    assert_eq!((done.code, opened.as_slice()), (0, &b"text"[..]), "{}", done.err);
}

#[test]
fn ciphertext_moves_to_another_key_and_context() {
    let house = House::open();
    house.ok("key create --alias alias/a");
    house.ok("key create --alias alias/b");
    let (_, sealed) = house.pipe("blob encrypt --key alias/a --context x=1", b"text");
    let (done, moved) =
        house.pipe("reencrypt --to-key alias/b --context x=1 --to-context y=2", &sealed);
    assert_eq!(done.code, 0, "{}", done.err);
    let (_, opened) = house.pipe("blob decrypt --key alias/b --context y=2", &moved);
    assert_eq!(opened, b"text");
}

#[test]
fn data_key_is_what_its_protected_form_opens_to() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("data-key --key alias/app --plaintext-out dek --ciphertext-out dek.sealed");
    let sealed = house.read("dek.sealed");
    let (_, opened) = house.pipe("blob decrypt --format raw", &sealed);
    assert_eq!((opened.len(), opened), (32, house.read("dek")));
    let protected = house.json("data-key --key alias/app --bytes 7 --without-plaintext");
    assert!(protected.get("plaintext").is_none() && protected.get("ciphertext").is_some());
}

#[test]
fn data_key_is_not_printed_when_it_goes_to_a_file() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let reply = house.json("data-key --key alias/app --plaintext-out dek");
    assert!(reply.get("plaintext").is_none());
    let pair = "data-key-pair --key alias/app --spec ED25519 --private-out private";
    assert!(house.json(pair).get("private_key").is_none());
}

#[test]
fn signature_holds_for_its_message_only() {
    let house = House::open();
    house.ok("key create --alias alias/sig --spec ECC_NIST_P256");
    house.write("message", "text");
    house.ok("sign --key alias/sig message -o signature");
    house.ok("verify --key alias/sig message --signature-file signature");
    let done = house.run("verify --key alias/sig --text other --signature-file signature");
    assert_eq!(done.code, 5);
    assert!(done.out.contains("NOT VALID"), "{}", done.out);
    house.write("digest", [3; 32]);
    let signature = house.ok("sign --key alias/sig --digest digest");
    house.ok(&format!("verify --key alias/sig --digest digest --signature {signature}"));
}

#[test]
fn mac_holds_for_its_message_only() {
    let house = House::open();
    house.ok("key create --alias alias/mac --spec HMAC_256");
    let mac = house.ok("mac --key alias/mac --text one --format hex");
    assert_eq!(mac.trim().len(), 64);
    house.ok(&format!("verify-mac --key alias/mac --text one --format hex --mac {mac}"));
    let done =
        house.run(&format!("verify-mac --key alias/mac --text two --format hex --mac {mac}"));
    assert_eq!(done.code, 5);
}

#[test]
fn random_bytes_are_as_many_as_asked_for_and_differ() {
    let house = House::open();
    let hex = || house.ok("random --bytes 16 --format hex");
    let (one, two) = (hex(), hex());
    assert_eq!((one.len(), two.len()), (33, 33));
    assert_ne!(one, two);
    assert_eq!(house.pipe("random --bytes 5000 --format raw", b"").1.len(), 5_000);
}

#[test]
fn batch_answers_each_item_in_its_place() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let body = r#"{"items":[{"key":"alias/none","plaintext":"Zm9v"},{"key":"alias/app","plaintext":"Zm9v"}]}"#;
    let (done, reply) = house.pipe("batch encrypt", body.as_bytes());
    assert_eq!(done.code, 0, "{}", done.err);
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(reply["results"][0]["error"]["code"], "AccessDenied");
    assert_eq!(reply["results"][1]["ok"]["version"], 1);
    let (done, _) = house.pipe("batch encrypt", b"{}");
    assert_eq!(done.code, 1);
}

#[test]
fn dry_run_answers_and_does_nothing() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key rotate alias/app --dry-run");
    assert_eq!(house.json("key show alias/app")["primary_version"], 1);
    let verdict = house.json("blob encrypt --key alias/app --text x --dry-run");
    assert_eq!(verdict["dry_run"]["allowed"], true);
    house.ok("key disable alias/app");
    for line in ["blob encrypt --key alias/app --text x", "encrypt --key alias/app"] {
        let done = house.run(&format!("{line} --dry-run"));
        assert_eq!((done.code, done.err.as_str()), (1, ""), "{line}: {}", done.out);
    }
    house.ok("key create --alias alias/new --dry-run");
    assert_eq!(house.json("key list")["keys"].as_array().unwrap().len(), 1);
}
