//! Nothing that a server writes holds a secret: not its log at any level, not its audit log, not
//! its data directory.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::http::{base64, bytes};
use crate::process::{BINARY, command, run};
use crate::world::{Installation, PASSPHRASE, Server, dev_command, text};

/// Secrets, each in the forms in which it might be written.
#[derive(Default)]
struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    /// A secret in every form in which it might be written.
    fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 12, "{name} might turn up by chance");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = format!("{secret:?}");
        let mut forms = vec![
            secret.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            numbers.trim_matches(['[', ']']).as_bytes().to_vec(),
        ];
        // Base64 at each of the three places where it may begin in a longer text; the letters at
        // both ends depend on the neighbours.
        for skipped in 0..3 {
            let whole = (secret.len() - skipped) / 3 * 3;
            forms.push(base64(&secret[skipped..skipped + whole]).into_bytes());
        }
        self.0.extend(forms.into_iter().map(|form| (name.to_owned(), form)));
    }

    fn in_bytes(&self, haystack: &[u8]) -> Vec<&str> {
        let is_in = |form: &[u8]| haystack.windows(form.len()).any(|part| part == form);
        let found = self.0.iter().filter(|(_, form)| is_in(form)).map(|(name, _)| name.as_str());
        let mut found: Vec<_> = found.collect();
        found.dedup();
        found
    }
}

#[test]
fn needle_is_found_in_each_form_and_place() {
    let secret = b"0123456789 a secret of some length";
    let mut needles = Needles::default();
    needles.add("it", secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut texts = vec![hex.to_uppercase(), hex, format!("{secret:?}")];
    texts.extend((0..6).map(|len| base64(&[&vec![b'x'; len], &secret[..], b"y"].concat())));
    texts.push(String::from_utf8_lossy(secret).into_owned());
    for text in texts {
        assert_eq!(needles.in_bytes(format!("before {text} after").as_bytes()), ["it"], "{text}");
    }
    assert_eq!(needles.in_bytes(b"0123456789 a secret of SOME length"), [""; 0]);
}

/// Every file under a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// Does everything that has a secret in it, and notes the secrets.
fn do_everything(server: &Server, folder: &Path, needles: &mut Needles) {
    let mut http = server.admin();
    let mut post = |path: &str, body: &Value| http.done("POST", path, &body.to_string());
    let plain = b"PLAINTEXT of a person who trusts us";
    needles.add("plaintext", plain);
    needles.add("description", b"DESCRIPTION of a secret project");
    let key =
        text(&post("/v1/keys", &json!({ "description": "DESCRIPTION of a secret project" }))["id"]);
    let context = json!({ "patient": "CONTEXT of one patient" });
    needles.add("context", b"CONTEXT of one patient");
    let body = json!({ "key": key, "plaintext": base64(plain), "context": context });
    let sealed = post("/v1/encrypt", &body)["ciphertext"].clone();
    let body = json!({ "ciphertext": sealed, "context": context });
    assert_eq!(bytes(&post("/v1/decrypt", &body)["plaintext"]), plain);
    post("/v1/reencrypt", &json!({ "ciphertext": sealed, "context": context, "to_key": key }));
    post("/v1/batch/encrypt", &json!({ "items": [{ "key": key, "plaintext": base64(plain) }] }));
    let made = post("/v1/data-key", &json!({ "key": key }));
    needles.add("data key", &bytes(&made["plaintext"]));
    let made = post("/v1/batch/data-key", &json!({ "items": [{ "key": key }] }));
    needles.add("data key of a batch", &bytes(&made["results"][0]["ok"]["plaintext"]));
    let pair = post("/v1/data-key-pair", &json!({ "key": key, "pair_spec": "ED25519" }));
    needles.add("private key", &bytes(&pair["private_key"])[16..48]);
    needles.add("random bytes", &bytes(&post("/v1/random", &json!({ "bytes": 32 }))["bytes"]));

    let message = b"MESSAGE that is signed in confidence";
    needles.add("message", message);
    for (spec, operation) in [("ED25519", "sign"), ("HMAC_256", "mac")] {
        let key = text(&post("/v1/keys", &json!({ "spec": spec }))["id"]);
        let body = json!({ "key": key, "message": base64(message) });
        let made = post(&format!("/v1/{operation}"), &body);
        let (check, field) =
            if operation == "sign" { ("verify", "signature") } else { ("verify-mac", "mac") };
        let body = json!({ "key": key, "message": base64(message), field: made[field] });
        assert_eq!(post(&format!("/v1/{check}"), &body)["valid"], true);
    }

    let material: [u8; 32] = *b"IMPORTED material of its owner..";
    needles.add("imported material", &material);
    fs::write(folder.join("material"), material).unwrap();
    let key = text(&post("/v1/keys", &json!({ "origin": "imported" }))["id"]);
    let parameters = json!({ "algorithm": "RSAES_OAEP_SHA_256" });
    let parameters = post(&format!("/v1/keys/{key}/import-parameters"), &parameters);
    needles.add("import token", text(&parameters["token"]).as_bytes());
    let mut import = server.client(["key", "import", &key, "--material-file"]);
    run(import.arg(folder.join("material")), b"").ok();
}

/// Sends secrets to where they do not belong.
fn misplace(server: &Server, needles: &mut Needles) {
    let secret = "MISPLACED-secret-of-a-confused-client";
    needles.add("misplaced secret", secret.as_bytes());
    needles.add("wrong token", b"WRONG-token-of-somebody-else");
    let body = |field: &str| json!({ field: secret, "plaintext": base64(secret.as_bytes()) });
    for (method, target, body) in [
        ("GET", format!("/{secret}?token={secret}"), Value::Null),
        ("GET", format!("/v1/keys?marker={secret}"), Value::Null),
        ("GET", format!("/v1/keys/{secret}"), Value::Null),
        ("PUT", format!("/v1/aliases/{secret}"), json!({ "key": secret })),
        ("POST", format!("/v1/encrypt?plaintext={secret}"), body("key")),
        ("POST", "/v1/decrypt".to_owned(), json!({ "ciphertext": secret })),
        ("POST", "/v1/decrypt".to_owned(), json!({ "ciphertext": base64(secret.as_bytes()) })),
        ("POST", "/v1/keys".to_owned(), json!({ "spec": secret })),
        ("POST", "/v1/sys/unseal".to_owned(), json!({ "passphrase": secret })),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = server.admin().answer(method, &target, &body);
        let answered = answer.text();
        assert!(!answered.contains(secret), "{method} {target}: {answered}");
    }
    let mut wrong = server.anybody().with_token("WRONG-token-of-somebody-else");
    wrong.answer("GET", "/v1/keys", "").refused(401, "Unauthenticated");
}

#[test]
fn nothing_that_a_server_writes_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let mut server = installation.serve_unsealed("log.filter = 'trace'\nlog.format = 'json'");
    let mut needles = Needles::default();
    needles.add("administrator's token", server.token.as_bytes());
    needles.add("passphrase", PASSPHRASE.as_bytes());
    do_everything(&server, folder.path(), &mut needles);
    misplace(&server, &mut needles);
    server.cli("seal").ok();
    installation.unseal(&server);

    // Once as it lies beside a running server, with the journal, and once after its end.
    search(&installation.data, &needles);
    server.process.stop();
    search(&installation.data, &needles);
    let (stdout, stderr) = server.process.output();
    assert_eq!(needles.in_bytes(&stdout), [""; 0]);
    assert_eq!(needles.in_bytes(&stderr), [""; 0]);
    // The log was on: each request left a line of JSON with its id.
    let log = String::from_utf8(stderr).unwrap();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(log.contains(r#""level":"DEBUG""#) && log.matches("request_id").count() > 20, "{log}");
}

fn search(data: &Path, needles: &Needles) {
    let mut all = Vec::new();
    files(data, &mut all);
    assert!(all.iter().any(|path| path.ends_with("records.db")), "{all:?}");
    assert!(all.iter().any(|path| path.ends_with("audit/wal/00000000000000000000.wal")), "{all:?}");
    for path in all {
        // Not there any more: written beside and renamed since the list was made.
        let bytes = match fs::read(&path) {
            Err(gone) if gone.kind() == ErrorKind::NotFound => continue,
            read => read.unwrap(),
        };
        let found = needles.in_bytes(&bytes);
        assert_eq!(found, [""; 0], "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with("core"), "{name}");
    }
}

#[test]
fn token_of_a_development_server_lies_in_its_two_private_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let mut server = Server::dev(&data);
    server.cli("key create").ok();
    server.process.stop();
    let mut needles = Needles::default();
    needles.add("token", server.token.as_bytes());
    let mut all = Vec::new();
    files(&data, &mut all);
    all.retain(|path| !needles.in_bytes(&fs::read(path).unwrap()).is_empty());
    all.sort_unstable();
    assert_eq!(all, [data.join("dev.token"), data.join("env")]);
    for path in all {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let (stdout, stderr) = server.process.output();
    assert!(needles.in_bytes(&stdout).is_empty() && needles.in_bytes(&stderr).is_empty());
}

#[test]
fn server_leaves_no_core_dump_and_cannot_be_read_by_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    // Root reads everything, so as root the server runs as somebody else.
    let user = rustix::process::getuid().as_raw();
    let mut start = if user == 0 {
        let binary = folder.path().join("lastkey");
        // By another process: a program that this one has open to write cannot be started.
        assert!(command("cp").arg(BINARY).arg(&binary).status().unwrap().success());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut start = command(binary);
        start.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(&data).uid(NOBODY).gid(NOBODY);
        start
    } else {
        dev_command(&data)
    };
    let server = Server::dev_by(&mut start, &data);
    let process = PathBuf::from(format!("/proc/{}", server.process.id()));
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(words, ["0", "0"], "{core}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    let runs_as = if user == 0 { NOBODY } else { user };
    assert!(status.contains(&format!("Uid:\t{runs_as}\t")), "{status}");
    // The kernel gives the memory of a process that is not dumpable to root.
    assert_eq!(fs::metadata(process.join("mem")).unwrap().uid(), 0);
}

const NOBODY: u32 = 65_534;
