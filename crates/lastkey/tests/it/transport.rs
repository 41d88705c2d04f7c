//! How clients reach a server: TLS by its own CA or the operator's, and unix sockets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;

use crate::http::Http;
use crate::process::{Ended, run};
use crate::world::{Installation, Server};

/// `lastkey status` with these variables, over TLS.
fn status(server: &Server, variables: &[(&str, &str)]) -> Ended {
    let mut command = server.client(["status"]);
    crate::process::run(command.envs(variables.iter().copied()), b"")
}

#[test]
fn self_made_ca_is_trusted_by_file_or_by_fingerprint_and_by_nothing_else() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let installation = Installation::found(folder.path());
    let stranger = Installation::found(other.path());
    let server = installation.serve("");
    assert!(server.addr.starts_with("https://127.0.0.1:"), "{}", server.addr);
    let ca = |of: &Installation| of.data.join("tls/ca.pem").to_str().unwrap().to_owned();
    status(&server, &[("LASTKEY_CA", &ca(&installation))]).ok();
    status(&server, &[("LASTKEY_CA_FINGERPRINT", &installation.fingerprint)]).ok();

    assert!(status(&server, &[]).failed(2).contains("--ca"));
    status(&server, &[("LASTKEY_CA", &ca(&stranger))]).failed(3);
    status(&server, &[("LASTKEY_CA_FINGERPRINT", &stranger.fingerprint)]).failed(3);
    let clear = server.addr.replace("https://", "http://");
    status(&server, &[("LASTKEY_ADDR", &clear)]).failed(3);
    // The name in the address counts, too.
    let by_name = server.addr.replace("127.0.0.1", "localhost");
    let trusting = ("LASTKEY_CA", ca(&installation));
    status(&server, &[("LASTKEY_ADDR", &by_name), (trusting.0, &trusting.1)]).ok();
    let by_other_name = server.addr.replace("127.0.0.1", "127.0.0.2");
    let refused = status(&server, &[("LASTKEY_ADDR", &by_other_name), (trusting.0, &trusting.1)]);
    refused.failed(3);
}

#[test]
fn key_of_the_ca_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let key = installation.data.join("tls/ca.key");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn hangup_renews_the_certificate_and_keeps_serving() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let mut server = installation.serve("");
    let ca = installation.data.join("tls/ca.pem").to_str().unwrap().to_owned();
    server.env.push(("LASTKEY_CA".to_owned(), ca));
    installation.unseal(&server);
    server.cli("key create --alias alias/app").ok();
    server.process.signal(Signal::HUP);
    server.process.logs("the TLS certificate was read again");
    server.cli("key show alias/app").ok();
    server.process.stop();
}

/// A CA of an operator and a certificate of it for loopback, as files.
fn operator_files(folder: &Path, name: &str) -> String {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    let path = folder.join(name);
    fs::write(&path, ca.pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn operators_certificate_is_read_again_on_hangup_and_kept_when_it_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    let first = operator_files(folder.path(), "first.pem");
    let here = folder.path().display();
    let files = format!(
        "tls.mode = 'files'\n\
         tls.certificate = '{here}/server.pem'\ntls.private_key = '{here}/server.key'"
    );
    let server = Installation::found(folder.path()).serve(&files);
    status(&server, &[("LASTKEY_CA", &first)]).ok();

    let second = operator_files(folder.path(), "second.pem");
    status(&server, &[("LASTKEY_CA", &first)]).ok();
    server.process.signal(Signal::HUP);
    server.process.logs("the TLS certificate was read again");
    status(&server, &[("LASTKEY_CA", &second)]).ok();
    status(&server, &[("LASTKEY_CA", &first)]).failed(3);

    fs::write(folder.path().join("server.pem"), "no certificate").unwrap();
    server.process.signal(Signal::HUP);
    server.process.logs("the old one stays");
    status(&server, &[("LASTKEY_CA", &second)]).ok();
}

#[test]
fn unix_socket_serves_its_user_alone_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let lines = format!("listen.tcp = []\nlisten.unix = '{}'", socket.display());
    let installation = Installation::found(folder.path());
    let mut server = installation.serve(&lines);
    assert_eq!(server.addr, format!("unix://{}", socket.display()));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    installation.unseal(&server);
    server.cli("key create --alias alias/app").ok();
    let mut http = Http::unix(&socket).unwrap().with_token(&server.token);
    assert_eq!(http.done("GET", "/v1/keys/alias%2Fapp", "")["state"], "Enabled");
    drop(http);
    server.process.stop();
    assert!(!socket.exists());
}

#[test]
fn clear_text_on_an_address_that_others_reach_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let config = folder.path().join("open.toml");
    let data = installation.data.display();
    fs::write(&config, format!("data = '{data}'\nlisten.tcp = ['0.0.0.0:0']\ntls.mode = 'off'"))
        .unwrap();
    let mut command = crate::process::lastkey(["server", "--config"]);
    let said = crate::process::run(command.arg(&config), b"");
    assert!(said.failed(1).contains("loopback"), "{}", said.stderr);
}

/// What `whoami` says on a socket, without a token, as another user.
fn who_am_i_as(server: &Server, uid: u32) -> Ended {
    let mut command = server.client(["whoami", "--output", "json"]);
    run(command.env_remove("LASTKEY_TOKEN").uid(uid).current_dir("/"), b"")
}

#[test]
fn user_on_the_unix_socket_is_known_by_the_kernel_and_has_what_policies_give_him() {
    let own = rustix::process::geteuid();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let installation = Installation::found(folder.path());
    let socket = folder.path().join("s");
    // Without root, the only user that can be tried is this one.
    let (known, strangers) =
        if own.is_root() { (1_234, vec![1_235, 0]) } else { (own.as_raw(), Vec::new()) };
    let server = installation.serve_unsealed(&format!(
        "listen.tcp = []\nlisten.unix = '{}'\nlisten.unix_users = [{known}]",
        socket.display()
    ));
    let me = who_am_i_as(&server, known).json();
    assert_eq!(me["principal"], format!("unix:{known}"));
    let mut random = server.client(["random", "--bytes", "1", "--format", "hex"]);
    random.env_remove("LASTKEY_TOKEN").uid(known).current_dir("/");
    assert_eq!(run(&mut random, b"").code, Some(4));
    let policy = folder.path().join("p");
    let text = format!(
        "permit (principal == Subject::\"unix/{known}\", \
         action == Action::\"kms:GenerateRandom\", resource);"
    );
    fs::write(&policy, text).unwrap();
    server.cli(&format!("policy put local {}", policy.display())).ok();
    run(&mut random, b"").ok();
    // Who shows a token is who the token says.
    assert_eq!(server.cli("whoami --output json").json()["principal"], "admin");
    for stranger in strangers {
        assert_ne!(who_am_i_as(&server, stranger).code, Some(0), "{stranger}");
    }
    let add =
        "provider add unix --issuer https://i.example --audience a --jwks-url https://i.example";
    assert!(server.cli(add).failed(1).contains("kept for users"));
}
