//! Workloads of a SPIFFE trust domain: let in by their certificates, and what that is good for.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::issuer::now;
use crate::process::{Ended, run};
use crate::world::{Installation, Server, audit_records, text};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// What a SPIRE server signs with.
fn authority(domain: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, domain);
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Certificate and key of a workload, in PEM.
fn svid(issuer: &Issuer, names: &[&str]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&key, &**issuer).unwrap().pem() + &key.serialize_pem()
}

const API: &str = "spiffe://prod.example/ns/shop/sa/api";

/// A server that lets in the workloads below `/ns/shop` of `prod.example`.
struct Mesh {
    folder: tempfile::TempDir,
    data: PathBuf,
    server: Server,
    authority: Issuer,
}

impl Mesh {
    fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let mut server = installation.serve("");
        let ca = installation.data.join("tls/ca.pem").to_str().unwrap().to_owned();
        server.env.push(("LASTKEY_CA".to_owned(), ca));
        installation.unseal(&server);
        let data = installation.data.clone();
        let mesh = Self { folder, data, server, authority: authority("prod.example") };
        mesh.write("bundle.pem", &mesh.authority.pem());
        mesh.write("api.pem", &svid(&mesh.authority, &[API]));
        mesh.write(
            "policy",
            "permit(principal in Role::\"mesh\", action == Action::\"kms:GenerateRandom\", \
             resource) when { context.authStrength == 1 };",
        );
        mesh.run("provider add spire --trust-domain prod.example --bundle bundle.pem").ok();
        mesh.run(
            "role create mesh --provider spire --spiffe-id spiffe://prod.example/ns/shop/* \
             --policy policy",
        )
        .ok();
        mesh
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    fn run(&self, line: &str) -> Ended {
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.folder.path()), b"")
    }

    fn log_in(&self, identity: &str) -> Ended {
        let line = format!("login --certificate --role mesh --identity {identity} --output json");
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.folder.path()).env_remove("LASTKEY_TOKEN"), b"")
    }
}

/// Exit codes of a refused credential, and of a connection that came to nothing.
const REFUSED: Option<i32> = Some(4);
const NO_CONNECTION: Option<i32> = Some(3);

#[test]
fn workload_logs_in_by_its_certificate_and_its_session_is_good_with_that_alone() {
    let mesh = Mesh::found();
    let session = mesh.log_in("api.pem").json();
    assert_eq!((&session["principal"], &session["role"]), (&json!(API), &json!("mesh")));
    mesh.write("session", &text(&session["access_token"]));
    let by =
        |identity: &str| mesh.run(&format!("random --bytes 16 --token-file session {identity}"));
    by("--identity api.pem").ok();
    // Neither without it nor with the next one of the same workload.
    assert_eq!(by("").code, REFUSED);
    mesh.write("renewed.pem", &svid(&mesh.authority, &[API]));
    assert_eq!(by("--identity renewed.pem").code, REFUSED);
    // The certificate alone is no session.
    let mut bare = mesh.server.client(["random", "--bytes", "16", "--identity", "api.pem"]);
    let bare = run(bare.current_dir(mesh.folder.path()).env_remove("LASTKEY_TOKEN"), b"");
    assert_eq!(bare.code, REFUSED);
    mesh.run("key list --token-file session --identity api.pem").failed(4);
    let opened = audit_records(&mesh.data, "--action sts:OpenSession");
    assert_eq!((&opened[0]["who"], &opened[0]["result"]), (&json!(API), &json!("ok")));
    // Policies can name it, and its sessions end with those of its role.
    let can = format!("can generate-random --as {API} --role mesh");
    assert!(mesh.run(&can).ok().starts_with("yes"));
    mesh.run("revoke --role mesh").ok();
    assert_eq!(by("--identity api.pem").code, REFUSED);
}

#[test]
fn certificates_of_others_open_no_session() {
    let mesh = Mesh::found();
    let other = authority("other.example");
    // Another trust domain that is known here, and whose authority signs a name of this one.
    mesh.write("other.pem", &other.pem());
    mesh.run("provider add other --trust-domain other.example --bundle other.pem").ok();
    mesh.write("forged.pem", &svid(&other, &[API]));
    assert_eq!(mesh.log_in("forged.pem").code, REFUSED);
    mesh.write("elsewhere.pem", &svid(&mesh.authority, &["spiffe://prod.example/ns/shopping/x"]));
    assert_eq!(mesh.log_in("elsewhere.pem").code, REFUSED);
    mesh.write("two.pem", &svid(&mesh.authority, &[API, "spiffe://prod.example/ns/shop/sa/b"]));
    assert_eq!(mesh.log_in("two.pem").code, REFUSED);
    let words = audit_records(&mesh.data, "--action sts:OpenSession --result Unauthenticated");
    let words: Vec<_> = words.iter().map(|record| text(&record["reason"])).collect();
    assert_eq!(words, ["name_missing", "claim_mismatch", "issuer_not_trusted"]);
    // Whom nobody knows does not get so far.
    mesh.write("unknown.pem", &svid(&authority("prod.example"), &[API]));
    assert_eq!(mesh.log_in("unknown.pem").code, NO_CONNECTION);
    // Nor does an authority that was put out of the bundle.
    mesh.write("bundle.pem", &authority("prod.example").pem());
    mesh.run("provider add spire --trust-domain prod.example --bundle bundle.pem").ok();
    assert_eq!(mesh.log_in("api.pem").code, NO_CONNECTION);
}

#[test]
fn authority_of_a_trust_domain_makes_no_node_of_this_installation() {
    let mesh = Mesh::found();
    let status = mesh.run("status --output json").json();
    let instance = text(&status["instance"]);
    let node = format!("spiffe://{instance}/node/worker-1");
    mesh.write("node.pem", &svid(&mesh.authority, &[&node]));
    mesh.write("jwks", r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#);
    mesh.run("cluster add here --issuer https://k --jwks jwks").ok();
    let token = mesh.run("node add worker-1 --cluster here --output json").json();
    mesh.write("token", &text(&token["join_token"]));
    mesh.run("node join worker-1 --token-file token --out joined").ok();
    let who = |identity: &str| {
        let mut command = mesh.server.client(["whoami", "--identity", identity]);
        run(command.current_dir(mesh.folder.path()).env_remove("LASTKEY_TOKEN"), b"")
    };
    who("joined/node.pem").ok();
    assert_eq!(who("node.pem").code, REFUSED);
    // Nor may anybody speak for the installation's own domain.
    let own = format!("provider add own --trust-domain {instance} --bundle bundle.pem");
    assert!(mesh.run(&own).failed(1).contains("of this installation"));
}

#[test]
fn bad_providers_and_roles_of_a_trust_domain_are_refused() {
    let mesh = Mesh::found();
    let refused = |line: &str, word: &str| {
        let ended = mesh.run(line);
        assert!(ended.failed(1).contains(word), "{line}: {}", ended.stderr);
    };
    refused("provider add b --trust-domain Prod.example --bundle bundle.pem", "a-z 0-9");
    refused("provider add b --trust-domain prod.example --bundle bundle.pem", "both speak for");
    refused("provider add spiffe --trust-domain b.example --bundle bundle.pem", "is kept for");
    refused("provider add b --trust-domain b.example --bundle api.pem", "private key");
    refused("provider add b --trust-domain b.example --bundle policy", "no certificate");
    for (id, word) in [
        ("spiffe://other.example/ns/shop/*", "not of a trust domain"),
        ("spiffe://prod.example/ns/*/sa/api", "no SPIFFE id"),
        ("spiffe://prod.example", "no SPIFFE id"),
        ("prod.example/x", "no SPIFFE id"),
    ] {
        let line = format!("role create r --provider spire --spiffe-id {id} --policy policy");
        refused(&line, word);
    }
    refused("provider remove spire", "which is not there");
    // Without a certificate, or for a role that is none, there is nothing to log in by.
    mesh.run("login --certificate --role mesh").failed(4);
    mesh.run("login --certificate --role none --identity api.pem").failed(4);
}

/// The tokens of a trust domain (JWT-SVID) come the way of other tokens, to the same principal.
#[test]
fn workload_logs_in_by_a_token_of_its_trust_domain() {
    let mesh = Mesh::found();
    let material = generate(MaterialSpec::P256, &mut SystemEntropy).unwrap();
    let key = SigningKey::new(MaterialSpec::P256, &material).unwrap();
    let public = key.public_key_der().unwrap();
    let (x, y) = public[public.len() - 64..].split_at(32);
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let bundle = json!({ "keys": [
        { "use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(mesh.authority.der())] },
        { "use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": "j", "x": b64(x), "y": b64(y) },
    ]});
    mesh.write("bundle.json", &bundle.to_string());
    mesh.run(
        "provider add spire --trust-domain prod.example --bundle bundle.json \
         --issuer https://spire.example --audience lastkey",
    )
    .ok();
    let shown = mesh.run("provider show spire --output json").json();
    assert_eq!(
        (&shown["key_ids"], &shown["trust_domain"]),
        (&json!(["j"]), &json!("prod.example"))
    );
    let log_in = |subject: &str| {
        let claims = json!({ "iss": "https://spire.example", "aud": ["lastkey"], "sub": subject,
            "iat": now(), "exp": now() + 300 });
        let header = json!({ "alg": "ES256", "kid": "j", "typ": "JWT" });
        let part = |value: &Value| b64(value.to_string().as_bytes());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signed = key.sign(SignAlgorithm::EcdsaSha256, Message::Raw(input.as_bytes())).unwrap();
        mesh.write("jwt", &format!("{input}.{}", b64(&fixed(&signed))));
        mesh.run("login --jwt-file jwt --role mesh --output json")
    };
    assert_eq!(log_in(API).json()["principal"], API);
    for other in ["spiffe://prod.example/ns/shopping/x", "spiffe://other.example/ns/shop/x", "api"]
    {
        assert_eq!(log_in(other).code, REFUSED, "{other}");
    }
    mesh.log_in("api.pem").ok();
}

/// An ECDSA signature in DER as JOSE has it: two numbers of 32 bytes.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |from: &[u8]| {
        let len = usize::from(from[1]);
        let digits = &from[2..2 + len];
        let digits = &digits[digits.len().saturating_sub(32)..];
        ([vec![0; 32 - digits.len()], digits.to_vec()].concat(), 2 + len)
    };
    let (r, len) = number(&der[2..]);
    [r, number(&der[2 + len..]).0].concat()
}
