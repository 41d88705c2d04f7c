//! Keys: created, listed, rotated, deleted, imported.

use super::house::House;

#[test]
fn key_is_shown_as_the_api_shows_it() {
    let house = House::open();
    house.ok("key create --alias alias/app --description text --tag team=blue --rotate-every 90d");
    let key = house.json("key show alias/app");
    assert_eq!(key["aliases"][0], "alias/app");
    assert_eq!(key["tags"]["team"], "blue");
    assert_eq!(key["rotation"]["period_seconds"], 7_776_000);
    assert_eq!(key["primary_version"], 1);
    let id = key["id"].as_str().unwrap();
    assert!(house.ok(&format!("key show {id}")).contains("alias/app"));
}

#[test]
fn rotation_makes_a_version_and_can_be_undone() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key rotate alias/app");
    assert_eq!(house.json("key show alias/app")["primary_version"], 2);
    house.ok("key version make-primary alias/app 1");
    assert_eq!(house.json("key show alias/app")["primary_version"], 1);
    let versions = house.json("key versions alias/app");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
}

#[test]
fn rotation_by_itself_is_set_shown_and_stopped() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key rotation set alias/app 12h");
    assert_eq!(house.json("key rotation get alias/app")["rotation"]["period_seconds"], 43_200);
    house.ok("key rotation off alias/app");
    assert!(house.json("key rotation get alias/app").get("rotation").is_none());
    assert_eq!(house.run("key rotation set alias/app 59m").code, 1);
}

#[test]
fn list_has_all_keys_or_one_page() {
    let house = House::open();
    for name in ["a", "b", "c"] {
        house.ok(&format!("key create --alias alias/{name}"));
    }
    assert_eq!(house.json("key list")["keys"].as_array().unwrap().len(), 3);
    let page = house.json("key list --limit 2");
    assert_eq!(page["keys"].as_array().unwrap().len(), 2);
    let marker = page["next_marker"].as_str().unwrap();
    let rest = house.json(&format!("key list --limit 2 --marker {marker}"));
    assert_eq!(rest["keys"].as_array().unwrap().len(), 1);
    let table = house.ok("key list");
    assert!(["alias/a", "alias/b", "alias/c"].iter().all(|name| table.contains(name)), "{table}");
}

#[test]
fn state_changes_show_in_what_the_key_does() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    let (_, sealed) = house.pipe("blob encrypt --key alias/app", b"text");
    house.ok("key disable alias/app");
    assert_eq!(house.run("blob encrypt --key alias/app --text x").code, 1);
    house.ok("key enable alias/app");
    house.ok("key retire alias/app");
    assert_eq!(house.run("blob encrypt --key alias/app --text x").code, 1);
    let (done, opened) = house.pipe("blob decrypt", &sealed);
    assert_eq!((done.code, opened.as_slice()), (0, &b"text"[..]), "{}", done.err);
    house.ok("key compromise alias/app");
    assert_eq!(house.json("key show alias/app")["state"], "Compromised");
}

#[test]
fn deletion_shows_the_last_use_and_how_to_cancel() {
    let house = House::open();
    house.ok("key create --alias alias/used");
    house.ok("key create --alias alias/idle");
    house.ok("blob encrypt --key alias/used --text x");
    let done = house.run("key delete alias/used alias/idle --window-days 7");
    assert_eq!(done.code, 0, "{}", done.err);
    let line = |name: &str| done.err.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("alias/idle").contains("never"), "{}", done.err);
    assert!(!line("alias/used").contains("never"), "{}", done.err);
    assert!(done.err.contains("lastkey key cancel-deletion"), "{}", done.err);
    assert_eq!(house.json("key show alias/used")["deletion"]["window_days"], 7);
    house.ok("key cancel-deletion alias/used");
    assert_eq!(house.json("key show alias/used")["state"], "Disabled");
}

#[test]
fn protected_key_is_not_deleted() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key protect alias/app");
    let done = house.run("key delete alias/app --yes");
    assert_eq!(done.code, 1);
    assert!(done.err.contains("DeletionProtected"), "{}", done.err);
    house.ok("key unprotect alias/app");
    house.ok("key delete alias/app --yes");
}

#[test]
fn version_is_destroyed_only_when_that_was_confirmed() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key rotate alias/app");
    assert_eq!(house.run("key version destroy alias/app 1 --yes").code, 1);
    house.ok("key version shadow-disable alias/app 1");
    house.ok("key version reinstate alias/app 1");
    house.ok("key version shadow-disable alias/app 1");
    assert_eq!(house.run("key version destroy alias/app 1").code, 2);
    assert_eq!(house.json("key version show alias/app 1")["state"], "ShadowDisabled");
    house.ok("key version destroy alias/app 1 --yes");
    assert_eq!(house.json("key version show alias/app 1")["state"], "Destroyed");
}

#[test]
fn tags_and_aliases_come_and_go() {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house.ok("key tag alias/app a=1 b=2");
    house.ok("key untag alias/app a");
    house.ok("key update alias/app --description words");
    let key = house.json("key show alias/app");
    assert_eq!(key["tags"], serde_json::json!({ "b": "2" }));
    assert_eq!(key["description"], "words");
    house.ok("key alias set alias/other alias/app");
    assert_eq!(house.json("key alias list")["aliases"].as_array().unwrap().len(), 2);
    house.ok("key alias delete alias/other");
    assert_eq!(house.run("key show alias/other").code, 4);
}

#[test]
fn material_is_imported_in_one_step() {
    let house = House::open();
    house.ok("key create --alias alias/own --imported");
    house.write("material", [7; 32]);
    house.ok("key import alias/own --material-file material");
    let key = house.json("key show alias/own");
    assert_eq!(
        (key["state"].as_str(), key["origin"].as_str()),
        (Some("Enabled"), Some("imported"))
    );
}

#[test]
fn material_is_imported_in_three_steps_and_signs_as_its_owner() {
    let house = House::open();
    // A pair of this installation serves as somebody's own: private half out, protected half unused.
    house.ok("key create --alias alias/kek");
    house.ok("data-key-pair --key alias/kek --spec ECC_NIST_P256 --private-out own.der --public-out own.pem");
    house.ok("key create --alias alias/own --spec ECC_NIST_P256 --imported");
    house
        .ok("key import-parameters alias/own --wrapping-key-out wrap.der --import-token-out token");
    let wrap = "key wrap-material --wrapping-key wrap.der --material-file own.der -o wrapped";
    let done = house.command(wrap).env_clear().output().unwrap();
    assert!(done.status.success(), "wrapping needs no server: {done:?}");
    house.ok("key import alias/own --wrapped-file wrapped --import-token-file token");
    assert_eq!(house.ok("public-key alias/own").as_bytes(), house.read("own.pem"));
}
