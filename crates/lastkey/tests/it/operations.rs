//! Every operation, over HTTP and by the command line. A route or a command that has no place
//! here fails the test.

mod access;
mod audit;
mod backups;
mod holdings;
mod seals;
mod secrets;
mod volumes;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::http::{Answer, Http, base64, bytes};
use crate::people;
use crate::process::{Ended, lastkey, run};
use crate::world::{Installation, PASSPHRASE, Server, routes, text};

/// A connection that remembers which routes it took.
pub(crate) struct Recorder {
    http: Http,
    taken: BTreeSet<String>,
}

impl Recorder {
    /// Calls a route; `{..}` in it are filled in order.
    #[track_caller]
    pub(crate) fn answer(&mut self, route: &str, parameters: &[&str], body: Value) -> Answer {
        self.taken.insert(route.to_owned());
        let (method, pattern) = route.split_once(' ').unwrap();
        let mut parameters = parameters.iter();
        let mut segments = pattern.split('/').map(|segment| match segment.strip_prefix('{') {
            Some(_) => parameters.next().unwrap().replace('/', "%2F"),
            None => segment.to_owned(),
        });
        let mut target = segments.by_ref().collect::<Vec<_>>().join("/");
        if let Some(query) = parameters.next() {
            target = format!("{target}?{query}");
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.http.answer(&method.to_uppercase(), &target, &body)
    }

    #[track_caller]
    pub(crate) fn call(&mut self, route: &str, parameters: &[&str], body: Value) -> Value {
        let answer = self.answer(route, parameters, body);
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn create(&mut self, body: Value) -> String {
        text(&self.call("post /v1/keys", &[], body)["id"])
    }
}

#[test]
fn every_route_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = Installation::found(folder.path()).serve("tls.mode = 'off'");
    let mut recorder = Recorder { http: server.admin(), taken: BTreeSet::new() };
    public_routes(&mut recorder);
    life_of_a_key(&mut recorder);
    versions(&mut recorder);
    encryption(&mut recorder);
    data_keys(&mut recorder);
    signatures_and_macs(&mut recorder);
    batches(&mut recorder);
    import(&mut recorder);
    secrets::routes(&mut recorder);
    access::access(&mut recorder);
    audit::audit(&mut recorder, &server);
    people::routes(&mut recorder);
    seals::routes(&mut recorder);
    backups::routes(&mut recorder);
    holdings::routes(&mut recorder);
    end_of_a_server(&mut recorder);
    let all: BTreeSet<String> =
        routes(&mut server.anybody()).into_iter().map(|(route, _)| route).collect();
    let missing: Vec<_> = all.symmetric_difference(&recorder.taken).collect();
    assert!(
        missing.is_empty(),
        "routes without a journey, or journeys without a route: {missing:?}"
    );
}

fn public_routes(r: &mut Recorder) {
    assert_eq!(r.call("get /healthz", &[], Value::Null)["status"], "ok");
    assert_eq!(r.answer("get /readyz", &[], Value::Null).status, 503);
    assert_eq!(r.call("get /v1/sys/status", &[], Value::Null)["sealed"], true);
    let opened = r.call("post /v1/sys/unseal", &[], json!({ "passphrase": PASSPHRASE }));
    assert_eq!((&opened["sealed"], &opened["seal_kind"]), (&json!(false), &json!("passphrase")));
    assert_eq!(r.call("get /readyz", &[], Value::Null)["ready"], true);
    let first = r.call("post /v1/sys/continuity", &[], json!({}));
    assert_eq!((&first["standing"], &first["state"]["rollback"]), (&"continues".into(), &0.into()));
    let again = r.call("post /v1/sys/continuity", &[], json!({ "remembered": first["state"] }));
    assert_eq!(again["standing"], "continues", "{again}");
    assert_eq!(r.call("get /v1/openapi.json", &[], Value::Null)["openapi"], "3.1.0");
    let page = r.answer("get /metrics", &[], Value::Null).text();
    assert!(page.contains("# TYPE") && page.trim_end().ends_with("# EOF"), "{page}");
}

fn life_of_a_key(r: &mut Recorder) {
    let body = json!({ "alias": "alias/life", "description": "old", "tags": { "a": "1" } });
    let key = r.create(body);
    let id = key.as_str();
    let list = r.call("get /v1/keys", &[], Value::Null);
    assert_eq!(list["keys"][0]["id"], id);
    assert_eq!(r.call("get /v1/keys/{key}", &["alias/life"], Value::Null)["description"], "old");
    let patch = json!({ "description": "new", "deletion_protection": true });
    assert_eq!(r.call("patch /v1/keys/{key}", &[id], patch)["description"], "new");
    let refused = r.answer("post /v1/keys/{key}/schedule-deletion", &[id], json!({}));
    refused.refused(409, "DeletionProtected");
    r.call("patch /v1/keys/{key}", &[id], json!({ "deletion_protection": false }));

    let tags = r.call("put /v1/keys/{key}/tags", &[id], json!({ "tags": { "b": "2" } }));
    assert_eq!(tags["tags"], json!({ "a": "1", "b": "2" }));
    let tags = r.call("delete /v1/keys/{key}/tags", &[id], json!({ "names": ["a"] }));
    assert_eq!(tags["tags"], json!({ "b": "2" }));

    r.call("put /v1/aliases/{alias}", &["alias/second"], json!({ "key": id }));
    let aliases = r.call("get /v1/aliases", &[], Value::Null);
    let names: Vec<_> =
        aliases["aliases"].as_array().unwrap().iter().map(|a| &a["alias"]).collect();
    assert_eq!(names, ["alias/life", "alias/second"]);
    r.call("delete /v1/aliases/{alias}", &["alias/second"], Value::Null);
    r.answer("get /v1/keys/{key}", &["alias/second"], Value::Null).refused(403, "AccessDenied");

    let sets = r.call("put /v1/keys/{key}/rotation", &[id], json!({ "period_seconds": 86_400 }));
    assert_eq!(sets["rotation"]["period_seconds"], 86_400);
    let shows = r.call("get /v1/keys/{key}/rotation", &[id], Value::Null);
    assert_eq!(shows, sets);
    let off = r.call("delete /v1/keys/{key}/rotation", &[id], Value::Null);
    assert!(off.get("rotation").is_none(), "{off}");
    states(r, id);
}

fn states(r: &mut Recorder, id: &str) {
    let mut state = |route: &str, expected: &str| {
        let view = r.call(route, &[id], Value::Null);
        assert_eq!(view["state"], expected, "{route}");
    };
    state("post /v1/keys/{key}/disable", "Disabled");
    state("post /v1/keys/{key}/enable", "Enabled");
    state("post /v1/keys/{key}/deactivate", "Deactivated");
    state("post /v1/keys/{key}/compromise", "Compromised");
    state("post /v1/keys/{key}/schedule-deletion", "PendingDeletion");
    let view = r.call("get /v1/keys/{key}", &[id], Value::Null);
    assert_eq!(view["deletion"]["window_days"], 30);
    assert!(view["deletion"]["at"].is_string(), "{view}");
    let view = r.call("post /v1/keys/{key}/cancel-deletion", &[id], Value::Null);
    assert!(view["state"] != "PendingDeletion" && view.get("deletion").is_none(), "{view}");
}

fn versions(r: &mut Recorder) {
    let key = r.create(json!({}));
    let id = key.as_str();
    let first = r.call("post /v1/encrypt", &[], json!({ "key": id, "plaintext": "Zmlyc3Q=" }));
    let first = json!({ "ciphertext": first["ciphertext"] });
    let rotated = r.call("post /v1/keys/{key}/rotate", &[id], Value::Null);
    assert_eq!((&rotated["primary_version"], &rotated["activation"]), (&json!(2), &json!(2)));
    assert_eq!(text(&r.call("post /v1/decrypt", &[], first.clone())["plaintext"]), "Zmlyc3Q=");
    let list = r.call("get /v1/keys/{key}/versions", &[id], Value::Null);
    let states: Vec<_> = list["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (&v["version"], &v["primary"]))
        .collect();
    assert_eq!(states, [(&json!(1), &json!(false)), (&json!(2), &json!(true))]);

    let base = "/v1/keys/{key}/versions/{version}";
    let route = |verb: &str| format!("post {base}/{verb}");
    let again = r.call(&route("make-primary"), &[id, "1"], Value::Null);
    assert_eq!((&again["primary"], &again["activation"]), (&json!(true), &json!(3)));
    r.call(&route("make-primary"), &[id, "2"], Value::Null);
    let hidden = r.call(&route("shadow-disable"), &[id, "1"], Value::Null);
    assert_eq!(hidden["state"], "ShadowDisabled");
    assert_ne!(r.answer("post /v1/decrypt", &[], first.clone()).status, 200);
    let shown = r.call(&format!("get {base}"), &[id, "1"], Value::Null);
    assert_eq!(shown["usage"]["refused"], 1, "{shown}");
    r.call(&route("enable"), &[id, "1"], Value::Null);
    r.call("post /v1/decrypt", &[], first.clone());
    assert_eq!(r.call(&route("compromise"), &[id, "1"], Value::Null)["state"], "Compromised");
    let gone = r.call(&route("destroy"), &[id, "1"], Value::Null);
    assert!(gone["state"] == "Destroyed" && gone["destroyed_at"].is_string(), "{gone}");
    assert_ne!(r.answer("post /v1/decrypt", &[], first).status, 200);
}

fn encryption(r: &mut Recorder) {
    let (key, other) = (r.create(json!({})), r.create(json!({ "spec": "AES_128" })));
    let context = json!({ "app": "shop" });
    let plain = vec![9; 65_536];
    let body = json!({ "key": key, "plaintext": base64(&plain), "context": context });
    let sealed = r.call("post /v1/encrypt", &[], body);
    assert_eq!(bytes(&sealed["ciphertext"]).len(), plain.len() + 104);
    let open = json!({ "ciphertext": sealed["ciphertext"], "context": context });
    let opened = r.call("post /v1/decrypt", &[], open);
    assert_eq!((bytes(&opened["plaintext"]), &opened["key"]), (plain.clone(), &json!(key)));
    let moved = r.call(
        "post /v1/reencrypt",
        &[],
        json!({ "ciphertext": sealed["ciphertext"], "context": context, "to_key": other,
                "to_context_raw": base64(b"bytes") }),
    );
    assert_eq!((&moved["key"], &moved["source_key"]), (&json!(other), &json!(key)));
    let open = json!({ "ciphertext": moved["ciphertext"], "context_raw": base64(b"bytes") });
    assert_eq!(bytes(&r.call("post /v1/decrypt", &[], open)["plaintext"]), plain);

    let rsa = r.create(json!({ "spec": "RSA_2048", "usage": "ENCRYPT_DECRYPT" }));
    let sealed = r.call("post /v1/encrypt", &[], json!({ "key": rsa, "plaintext": "Zm9v" }));
    let open = json!({ "ciphertext": sealed["ciphertext"], "key": rsa });
    assert_eq!(r.call("post /v1/decrypt", &[], open)["plaintext"], "Zm9v");
    let drawn = bytes(&r.call("post /v1/random", &[], json!({ "bytes": 100 }))["bytes"]);
    let again = bytes(&r.call("post /v1/random", &[], json!({ "bytes": 100 }))["bytes"]);
    assert!(drawn.len() == 100 && drawn != again);
}

fn data_keys(r: &mut Recorder) {
    let key = r.create(json!({}));
    let made = r.call("post /v1/data-key", &[], json!({ "key": key, "context": { "a": "b" } }));
    let plain = bytes(&made["plaintext"]);
    let open = json!({ "ciphertext": made["ciphertext"], "context": { "a": "b" } });
    assert_eq!(
        (plain.len(), &plain),
        (32, &bytes(&r.call("post /v1/decrypt", &[], open)["plaintext"]))
    );
    let body = json!({ "key": key, "bytes": 77 });
    let made = r.call("post /v1/data-key-without-plaintext", &[], body);
    assert!(made.get("plaintext").is_none(), "{made}");
    let open = json!({ "ciphertext": made["ciphertext"] });
    assert_eq!(bytes(&r.call("post /v1/decrypt", &[], open)["plaintext"]).len(), 77);
    let body = json!({ "key": key, "pair_spec": "ECC_NIST_P256" });
    let pair = r.call("post /v1/data-key-pair", &[], body);
    let open = json!({ "ciphertext": pair["private_key_ciphertext"] });
    assert_eq!(r.call("post /v1/decrypt", &[], open)["plaintext"], pair["private_key"]);
}

fn signatures_and_macs(r: &mut Recorder) {
    let (message, other) = (base64(b"message"), base64(b"massage"));
    for spec in ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_SECG_P256K1", "ED25519", "RSA_2048"] {
        let key = r.create(json!({ "spec": spec, "usage": "SIGN_VERIFY" }));
        let made = r.call("post /v1/sign", &[], json!({ "key": key, "message": message }));
        for (message, valid) in [(&message, true), (&other, false)] {
            let body = json!({ "key": key, "message": message, "signature": made["signature"] });
            assert_eq!(r.call("post /v1/verify", &[], body)["valid"], valid, "{spec}");
        }
        let public = r.call("get /v1/keys/{key}/public-key", &[&key, "version=1"], Value::Null);
        let algorithms = public["signing_algorithms"].as_array().unwrap();
        assert!(public["spec"] == spec && algorithms.contains(&made["algorithm"]), "{public}");
    }
    for (spec, len) in [("HMAC_256", 32), ("HMAC_384", 48), ("HMAC_512", 64)] {
        let key = r.create(json!({ "spec": spec }));
        let made = r.call("post /v1/mac", &[], json!({ "key": key, "message": message }));
        assert_eq!(bytes(&made["mac"]).len(), len);
        for (message, valid) in [(&message, true), (&other, false)] {
            let body = json!({ "key": key, "message": message, "mac": made["mac"] });
            assert_eq!(r.call("post /v1/verify-mac", &[], body)["valid"], valid, "{spec}");
        }
    }
}

fn batches(r: &mut Recorder) {
    let key = r.create(json!({}));
    let unknown = "00000000-0000-4000-8000-000000000000";
    let item = |key: &str| json!({ "key": key, "plaintext": "Zm9v" });
    let body = json!({ "items": [item(&key), item(unknown)] });
    let sealed = r.call("post /v1/batch/encrypt", &[], body);
    assert_eq!(sealed["results"][1]["error"]["code"], "AccessDenied");
    let ciphertext = &sealed["results"][0]["ok"]["ciphertext"];
    let body = json!({ "items": [{ "ciphertext": ciphertext, "to_key": key }] });
    let moved = r.call("post /v1/batch/reencrypt", &[], body);
    let body = json!({ "items": [
        { "ciphertext": moved["results"][0]["ok"]["ciphertext"] }, { "ciphertext": "Zm9v" },
    ] });
    let opened = r.call("post /v1/batch/decrypt", &[], body);
    assert_eq!(opened["results"][0]["ok"]["plaintext"], "Zm9v");
    assert_eq!(opened["results"][1]["error"]["code"], "Undecryptable");
    let body = json!({ "items": [{ "key": key }, { "key": key, "bytes": 5 }] });
    let made = r.call("post /v1/batch/data-key", &[], body.clone());
    assert_eq!(bytes(&made["results"][1]["ok"]["plaintext"]).len(), 5);
    let made = r.call("post /v1/batch/data-key-without-plaintext", &[], body);
    let first = &made["results"][0]["ok"];
    assert!(first["ciphertext"].is_string() && first.get("plaintext").is_none(), "{made}");
}

/// Import whose material is wrapped by the command line, which needs no server for it.
fn import(r: &mut Recorder) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let key = r.create(json!({ "origin": "imported" }));
    let body = json!({ "algorithm": "RSAES_OAEP_SHA_256" });
    let given = r.call("post /v1/keys/{key}/import-parameters", &[&key], body);
    fs::write(file("wrapping"), bytes(&given["wrapping_key"])).unwrap();
    fs::write(file("material"), [0x5a; 32]).unwrap();
    let mut wrap = lastkey(["key", "wrap-material", "--algorithm", "RSAES_OAEP_SHA_256"]);
    wrap.arg("--wrapping-key").arg(file("wrapping"));
    wrap.arg("--material-file").arg(file("material")).arg("-o").arg(file("wrapped"));
    run(&mut wrap, b"").ok();
    let wrapped = base64(&fs::read(file("wrapped")).unwrap());
    let body = json!({ "token": given["token"], "wrapped_material": wrapped });
    let view = r.call("post /v1/keys/{key}/import", &[&key], body);
    assert_eq!((&view["state"], &view["origin"]), (&json!("Enabled"), &json!("imported")));
    let body = json!({ "key": key, "plaintext": "Zm9v" });
    r.call("post /v1/encrypt", &[], body);
}

fn end_of_a_server(r: &mut Recorder) {
    assert_eq!(r.call("post /v1/sys/clock/confirm", &[], Value::Null)["confirmed"], true);
    assert_eq!(r.call("post /v1/sys/seal", &[], Value::Null)["sealed"], true);
    r.answer("get /v1/keys", &[], Value::Null).refused(503, "Sealed");
}

/// The command line of a server, remembering which commands were typed.
pub(crate) struct Shell {
    server: Server,
    pub(crate) folder: tempfile::TempDir,
    typed: Vec<String>,
}

impl Shell {
    pub(crate) fn run(&mut self, line: &str, input: &[u8]) -> Ended {
        self.typed.push(line.to_owned());
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.folder.path()), input)
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, line: &str) -> String {
        self.run(line, b"").ok()
    }

    #[track_caller]
    pub(crate) fn json(&mut self, line: &str) -> Value {
        self.run(&format!("{line} --output json"), b"").json()
    }

    /// Commands of the manual's tables that nobody has typed.
    fn untyped(&self) -> Vec<String> {
        let manual = include_str!("../../../../docs/cli.md");
        let rows = manual.lines().filter_map(|line| line.strip_prefix("| `lastkey "));
        let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let commands: BTreeSet<String> = rows
            .map(|row| {
                let words = row.split([' ', '`']).take_while(|w| is_word(w) && !w.is_empty());
                words.take_while(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert!(commands.len() > 50, "{commands:?}");
        let typed = |command: &String| {
            self.typed.iter().any(|line| format!("{line} ").starts_with(&format!("{command} ")))
        };
        commands.into_iter().filter(|command| !typed(command)).collect()
    }
}

#[test]
fn every_command_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve("tls.mode = 'off'");
    let mut shell = Shell { server, folder, typed: Vec::new() };
    server_commands(&mut shell);
    key_commands(&mut shell);
    version_commands(&mut shell);
    blob_commands(&mut shell);
    data_key_commands(&mut shell);
    signature_commands(&mut shell);
    import_commands(&mut shell);
    file_commands(&mut shell);
    secrets::commands(&mut shell);
    access::access_commands(&mut shell);
    audit::audit_commands(&mut shell);
    scan_commands(&mut shell);
    check_commands(&mut shell);
    people::commands(&mut shell);
    seals::commands(&mut shell);
    backups::commands(&mut shell);
    holdings::commands(&mut shell);
    volumes::commands(&mut shell);
    assert_eq!(shell.json("confirm-clock")["confirmed"], true);
    assert_eq!(shell.json("seal")["sealed"], true);
    assert_eq!(shell.run("status --ready", b"").code, Some(6));
    // Those that run a server, need an etcd or a TPM, and a measurement: each has tests of its own.
    let elsewhere = [
        "admin-token",
        "bench",
        "dev",
        "etcd doctor",
        "etcd enable",
        "etcd rewrite",
        "etcd verify",
        "init",
        "kms-plugin",
        "node tpm-key",
        "secret scan-pack",
        "secret sync",
        "secrets-provider",
        "server",
        "volumes",
    ];
    assert_eq!(shell.untyped(), elsewhere);
}

fn server_commands(s: &mut Shell) {
    assert_eq!(s.json("status")["sealed"], true);
    assert_eq!(s.run("key list", b"").code, Some(6));
    s.ok("unseal --passphrase-file passphrase");
    assert_eq!(s.json("status --ready")["sealed"], false);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(s.ok(&format!("completions {shell}")).contains("lastkey"));
    }
    let config = s.ok("config show");
    assert!(config.contains("[limits]") && config.contains("body_bytes"), "{config}");
}

fn scan_commands(s: &mut Shell) {
    let token = format!("lastkey_admin_{}", "0f1e2d3c4b5a".repeat(6));
    let found = s.run("--output json scan --stdin", token.as_bytes());
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(report["findings"][0]["rule"], "lastkey-admin-token");
    assert_eq!(s.run("scan --stdin", b"nothing").code, Some(0));
}

fn key_commands(s: &mut Shell) {
    s.ok("key create --alias alias/k --description one --tag a=1 --rotate-every 90d");
    let shown = s.json("key show alias/k");
    assert_eq!(shown["rotation"]["period_seconds"], 90 * 86_400);
    assert_eq!(s.json("key list")["keys"][0]["id"], shown["id"]);
    assert_eq!(s.json("key list --limit 1")["keys"].as_array().unwrap().len(), 1);
    assert_eq!(s.json("key update alias/k --description two")["description"], "two");
    assert_eq!(s.json("key rotate alias/k")["primary_version"], 2);
    assert_eq!(s.json("key rotation get alias/k")["rotation"]["period_seconds"], 90 * 86_400);
    assert_eq!(s.json("key rotation set alias/k 1h")["rotation"]["period_seconds"], 3_600);
    assert!(s.json("key rotation off alias/k").get("rotation").is_none());
    assert_eq!(s.json("key disable alias/k")["state"], "Disabled");
    assert_eq!(s.json("key enable alias/k")["state"], "Enabled");
    assert_eq!(s.json("key tag alias/k b=2")["tags"], json!({ "a": "1", "b": "2" }));
    assert_eq!(s.json("key untag alias/k a b")["tags"], json!({}));
    assert!(s.ok("key alias set alias/l alias/k").contains("alias/l"));
    assert_eq!(s.json("key alias list")["aliases"].as_array().unwrap().len(), 2);
    s.ok("key alias delete alias/l");
    assert_eq!(s.run("key show alias/l", b"").code, Some(4));
    assert_eq!(s.json("key protect alias/k")["deletion_protection"], true);
    assert_eq!(s.run("key delete alias/k --yes", b"").code, Some(1));
    s.ok("key unprotect alias/k");
    let deleted = s.run("key delete alias/k --window-days 7 --yes", b"");
    deleted.ok();
    assert!(deleted.stderr.contains("never"), "the last use: {}", deleted.stderr);
    assert_eq!(s.json("key show alias/k")["deletion"]["window_days"], 7);
    assert_eq!(s.json("key cancel-deletion alias/k")["state"], "Disabled");
    s.ok("key enable alias/k");
    assert_eq!(s.json("key retire alias/k")["state"], "Deactivated");
    assert_eq!(s.json("key compromise alias/k")["state"], "Compromised");
}

fn version_commands(s: &mut Shell) {
    s.ok("key create --alias alias/v");
    s.ok("key rotate alias/v");
    assert_eq!(s.json("key versions alias/v")["versions"].as_array().unwrap().len(), 2);
    assert_eq!(s.json("key version make-primary alias/v 1")["primary"], true);
    s.ok("key version make-primary alias/v 2");
    assert_eq!(s.json("key version shadow-disable alias/v 1")["state"], "ShadowDisabled");
    assert_eq!(s.json("key version reinstate alias/v 1")["state"], "Deactivated");
    assert_eq!(s.run("key version destroy alias/v 1 --yes", b"").code, Some(1));
    assert_eq!(s.json("key version compromise alias/v 1")["state"], "Compromised");
    assert_eq!(s.json("key version destroy alias/v 1 --yes")["state"], "Destroyed");
    assert_eq!(s.json("key version show alias/v 1")["state"], "Destroyed");
}

fn blob_commands(s: &mut Shell) {
    s.ok("key create --alias alias/b");
    s.ok("key create --alias alias/c --spec AES_128");
    let sealed = s.run("blob encrypt --key alias/b --context a=b", b"some bytes").ok();
    assert_eq!(s.run("blob decrypt", sealed.as_bytes()).code, Some(5));
    let opened = s.run("blob decrypt --context a=b --out -", sealed.as_bytes());
    assert!(opened.ok().contains("some bytes"), "{opened:?}");
    let line = "reencrypt --to-key alias/c --context a=b --to-context c=d";
    let moved = s.run(line, sealed.as_bytes()).ok();
    assert!(s.run("blob decrypt --context c=d", moved.as_bytes()).ok().contains("some bytes"));
    let batch = json!({ "items": [{ "key": "alias/b", "plaintext": "Zm9v" }] }).to_string();
    let results = s.run("batch encrypt", batch.as_bytes()).json();
    let item = json!({ "ciphertext": results["results"][0]["ok"]["ciphertext"] });
    let batch = json!({ "items": [item] }).to_string();
    let results = s.run("batch decrypt", batch.as_bytes()).json();
    assert_eq!(results["results"][0]["ok"]["plaintext"], "Zm9v");
    let dry = s.json("blob encrypt --key alias/b --text x --dry-run");
    assert_eq!(dry["dry_run"]["allowed"], true);
    assert_eq!(s.run("blob encrypt --key alias/none --text x --dry-run", b"").code, Some(1));
}

fn data_key_commands(s: &mut Shell) {
    s.ok("key create --alias alias/d");
    s.ok("data-key --key alias/d --bytes 40 --plaintext-out dk --ciphertext-out dk.lk");
    let there = s.folder.path().to_owned();
    let plain = fs::read(there.join("dk")).unwrap();
    let opened = s.run("blob decrypt --format raw --in dk.lk", b"");
    assert_eq!((plain.len(), opened.stdout), (40, plain));
    let hidden = s.json("data-key --key alias/d --without-plaintext");
    assert!(hidden.get("plaintext").is_none(), "{hidden}");
    let line = "data-key-pair --key alias/d --spec ED25519 --private-out p --public-out P";
    s.ok(line);
    let pem = fs::read_to_string(there.join("P")).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
    assert!(!fs::read(there.join("p")).unwrap().is_empty());
    assert_eq!(s.ok("random --bytes 16 --format hex").len(), 32);
}

fn signature_commands(s: &mut Shell) {
    s.ok("key create --alias alias/s --spec ED25519");
    let made = s.run("sign --key alias/s", b"message").ok();
    let line = format!("verify --key alias/s --signature {made}");
    assert!(s.run(&line, b"message").ok().contains("valid"));
    assert_eq!(s.run(&line, b"massage").code, Some(5));
    assert!(s.ok("public-key alias/s").starts_with("-----BEGIN PUBLIC KEY-----"));
    s.ok("key create --alias alias/m --spec HMAC_256");
    let made = s.run("mac --key alias/m", b"message").ok();
    let line = format!("verify-mac --key alias/m --mac {made}");
    assert!(s.run(&line, b"message").ok().contains("valid"));
    assert_eq!(s.run(&line, b"massage").code, Some(5));
}

fn import_commands(s: &mut Shell) {
    fs::write(s.folder.path().join("material"), [0x5a; 32]).unwrap();
    s.ok("key create --alias alias/i --imported");
    assert_eq!(s.json("key show alias/i")["state"], "PendingImport");
    assert_eq!(s.json("key import alias/i --material-file material")["state"], "Enabled");
    s.ok("key create --alias alias/j --imported");
    s.ok("key import-parameters alias/j --wrapping-key-out W --import-token-out T");
    s.ok("key wrap-material --wrapping-key W --material-file material -o X");
    let done = s.json("key import alias/j --wrapped-file X --import-token-file T");
    assert_eq!(done["state"], "Enabled");
}

fn file_commands(s: &mut Shell) {
    let there = s.folder.path().to_owned();
    fs::write(there.join("f"), "a file").unwrap();
    s.ok("key create --alias alias/f");
    s.ok("encrypt --key alias/f --context a=b f -o f.lk");
    assert_eq!(s.json("inspect f.lk")["context"], json!({ "a": "b" }));
    assert_eq!(s.json("verify f.lk")["plaintext_bytes"], 6);
    assert_eq!(s.run("decrypt --context a=c f.lk", b"").code, Some(5));
    assert_eq!(s.ok("decrypt --context a=b f.lk"), "a file");
    s.ok("key rotate alias/f");
    assert_eq!(s.json("rewrap f.lk")["files"][0]["recipients"][0]["version"], 2);
    assert_eq!(s.ok("decrypt --range 2-3 f.lk"), "fi");
}

fn check_commands(s: &mut Shell) {
    let there = s.folder.path().to_owned();
    fs::write(there.join("c.yaml"), "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}")
        .unwrap();
    assert!(s.ok("check --manifests c.yaml").contains("found: nothing"));
    assert!(s.ok("check policy -o policies").contains("policies/rba-12"));
}
