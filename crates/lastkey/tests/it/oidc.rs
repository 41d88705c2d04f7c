//! People log in at a provider of OpenID Connect: by PKCE over loopback, and by a device code. The
//! provider is a process of its own kind: TLS, discovery, keys, authorization, tokens; it checks
//! what a provider has to check.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_crypto::digest::sha256;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::issuer::{Issuer, now};
use crate::world::{Installation, Server, text};

const CLIENT: &str = "lastkey-cli";

/// An OpenID Connect provider on loopback.
struct Provider {
    issuer: String,
    authority: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By code: what was asked for at the authorization endpoint.
    codes: HashMap<String, HashMap<String, String>>,
    /// How often a device asked before the person approved.
    polls: usize,
    /// Claims that are put over the usual ones.
    claims: Value,
}

type Fields = HashMap<String, String>;

impl Provider {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State { claims: json!({}), ..State::default() }));
        let signer = Arc::new(Issuer::new());
        let served = (issuer.clone(), Arc::clone(&state));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, signer, (issuer, state)) =
                    (Arc::clone(&config), Arc::clone(&signer), served.clone());
                // Whoever does not trust the certificate hangs up.
                thread::spawn(move || {
                    drop(serve(stream.unwrap(), config, &issuer, &state, &signer))
                });
            }
        });
        Self { issuer, authority: chain, state }
    }

    fn say(&self, claims: Value) {
        self.state.lock().unwrap().claims = claims;
    }

    /// What the person's browser does with the page that the command shows.
    fn browse(&self, page: &str) {
        let (host, state) = self.begin(page);
        // Browsers ask for more than they are sent to.
        assert!(get(&host, "/favicon.ico").starts_with("HTTP/1.1 404"));
        let answer = get(&host, &format!("/callback?code=c0de&state={state}"));
        assert!(answer.contains("close this page"), "{answer}");
    }

    /// Begins a login at the page: where the command listens, and the state of its login.
    fn begin(&self, page: &str) -> (String, String) {
        let query = page.split_once('?').unwrap().1;
        let asked = fields(query);
        assert_eq!((&*asked["response_type"], &*asked["client_id"]), ("code", CLIENT));
        assert_eq!(asked["code_challenge_method"], "S256");
        let (state, back) = (asked["state"].clone(), asked["redirect_uri"].clone());
        self.state.lock().unwrap().codes.insert("c0de".to_owned(), asked);
        (back.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned(), state)
    }
}

/// What a browser gets from the command.
fn get(host: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn fields(query: &str) -> Fields {
    let unescape = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap().to_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), unescape(value))).collect()
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    issuer: &str,
    state: &Mutex<State>,
    signer: &Issuer,
) -> std::io::Result<()> {
    let tls = ServerConnection::new(config).unwrap();
    let mut reader = BufReader::new(StreamOwned::new(tls, stream));
    let (mut target, mut len) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if target.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut target);
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let answer = match target.as_str() {
        "/.well-known/openid-configuration" => json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/keys"),
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "device_authorization_endpoint": format!("{issuer}/device"),
        })
        .to_string(),
        "/keys" => signer.jwks(),
        "/device" => json!({ "device_code": "d3vice", "user_code": "WDJB-MJHT",
            "verification_uri": format!("{issuer}/activate"), "expires_in": 60, "interval": 1 })
        .to_string(),
        "/token" => token(&fields(&body), issuer, &mut state.lock().unwrap(), signer).to_string(),
        other => panic!("nobody asks for {other}"),
    };
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// What a token endpoint answers: a code is good once, for its client, address and verifier.
fn token(asked: &Fields, issuer: &str, state: &mut State, signer: &Issuer) -> Value {
    let refused = json!({ "error": "access_denied" });
    if asked["client_id"] != CLIENT {
        return refused;
    }
    let nonce = match asked["grant_type"].as_str() {
        "authorization_code" => {
            let Some(begun) = state.codes.remove(&asked["code"]) else { return refused };
            let challenge = URL_SAFE_NO_PAD.encode(sha256(asked["code_verifier"].as_bytes()));
            if challenge != begun["code_challenge"]
                || asked["redirect_uri"] != begun["redirect_uri"]
            {
                return refused;
            }
            Some(begun["nonce"].clone())
        }
        "urn:ietf:params:oauth:grant-type:device_code" if asked["device_code"] == "d3vice" => {
            state.polls += 1;
            if state.polls == 1 {
                return json!({ "error": "authorization_pending" });
            }
            None
        }
        _ => return refused,
    };
    let mut claims = json!({ "iss": issuer, "sub": "alice@example.com", "aud": [CLIENT],
        "iat": now(), "nbf": now(), "exp": now() + 300, "groups": ["developers"],
        "amr": ["pwd", "mfa"] });
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    let more = state.claims.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    json!({ "access_token": "of-no-use", "token_type": "Bearer", "id_token": signer.sign(&claims) })
}

struct World {
    folder: tempfile::TempDir,
    server: Server,
    provider: Provider,
}

impl World {
    /// A server that learns the provider's keys by discovery, and a role for its developers.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Installation::found(folder.path()).serve_unsealed("");
        let provider = Provider::start();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("ca.pem"), &provider.authority).unwrap();
        fs::write(path("dev.cedar"), "permit (principal, action, resource);").unwrap();
        let add = format!(
            "provider add corp --issuer {} --audience {CLIENT} --jwks-ca {}",
            provider.issuer,
            path("ca.pem")
        );
        server.cli(&add).ok();
        let role = "role create dev --provider corp --claim groups=developers --policy";
        server.cli(&format!("{role} {}", path("dev.cedar"))).ok();
        Self { folder, server, provider }
    }

    fn login(&self, more: &[&str]) -> Child {
        let mut command = self.server.client(
            [&["login", "--oidc", "corp", "--role", "dev", "--output", "json"], more].concat(),
        );
        command.env_remove("LASTKEY_TOKEN").stdin(Stdio::null());
        spawn(&mut command)
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The line of standard error that begins so, once it is there; the rest goes on.
fn line_of(child: &mut Child, start: &str) -> String {
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended and said only {said}");
        said.push_str(&line);
        if line.trim_start().starts_with(start) {
            child.stderr = Some(errors.into_inner());
            return line.trim().to_owned();
        }
    }
}

#[test]
fn person_logs_in_at_a_provider_by_a_browser() {
    let world = World::new();
    let mut login = world.login(&[]);
    let page = line_of(&mut login, "https://");
    world.provider.browse(&page);
    let ended = login.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let session: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(session["principal"], "oidc:corp/alice@example.com");
    let mut http = world.server.anybody().with_token(&text(&session["access_token"]));
    assert_eq!(http.answer("GET", "/v1/sts/whoami", "").json()["role"], "dev");
}

#[test]
fn person_logs_in_at_a_provider_by_a_device_code() {
    let world = World::new();
    let mut login = world.login(&["--device"]);
    assert!(line_of(&mut login, "and enter the code").contains("WDJB-MJHT"));
    let ended = login.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let session: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(session["principal"], "oidc:corp/alice@example.com");
    assert!(world.provider.state.lock().unwrap().polls >= 2);
}

#[test]
fn token_of_another_login_audience_or_group_opens_nothing() {
    let world = World::new();
    for claims in [
        json!({ "nonce": "of another login" }),
        json!({ "aud": "another client" }),
        json!({ "groups": ["visitors"] }),
        json!({ "exp": 1 }),
        json!({ "iss": "https://evil.example" }),
    ] {
        world.provider.say(claims.clone());
        let mut login = world.login(&[]);
        let page = line_of(&mut login, "https://");
        world.provider.browse(&page);
        let ended = login.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(4), "{claims}");
        assert!(ended.stdout.is_empty(), "{claims}");
    }
}

/// CVE-2026-33757: a code that somebody else obtained is brought to a login that he did not begin.
#[test]
fn attack_login_fixation_by_a_callback_of_another_login() {
    let world = World::new();
    for target in ["/callback?code=c0de&state=other", "/callback?code=c0de"] {
        let mut login = world.login(&[]);
        let (host, _) = world.provider.begin(&line_of(&mut login, "https://"));
        get(&host, target);
        let ended = login.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains("another login"), "{said}");
        // The code was not even redeemed.
        assert!(world.provider.state.lock().unwrap().codes.contains_key("c0de"));
    }
}

/// CVE-2026-33758: what the provider sends as an error is shown by the page or the terminal.
#[test]
fn attack_script_in_the_error_of_a_login() {
    let world = World::new();
    let mut login = world.login(&[]);
    let (host, state) = world.provider.begin(&line_of(&mut login, "https://"));
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    let answer = get(&host, &format!("/callback?error={script}&state={state}"));
    assert!(answer.contains("text/plain") && !answer.contains("script"), "{answer}");
    assert!(!login.wait_with_output().unwrap().status.success());
    let mut login = world.login(&[]);
    let (host, state) = world.provider.begin(&line_of(&mut login, "https://"));
    // What would move a cursor is no callback at all.
    let answer = get(&host, &format!("/callback?error=%1B%5B2J&state={state}"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    login.kill().unwrap();
    login.wait().unwrap();
}

#[test]
fn provider_that_cannot_be_trusted_or_found_is_said() {
    let world = World::new();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = world.folder.path().join("other.pem");
    fs::write(&path, other.cert.pem()).unwrap();
    let refused = world.login(&["--oidc-ca", path.to_str().unwrap()]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("TLS"), "{said}");
    let line = "login --oidc none --role dev";
    assert_eq!(world.server.cli(line).code, Some(4));
}
