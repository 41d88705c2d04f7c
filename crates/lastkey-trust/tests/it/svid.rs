//! Certificates of workloads: who is let in, and each way to be somebody else.
//!
//! Room      `trust`, tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_core::time::Timestamp;
use lastkey_trust::authorities::{Authorities, AuthoritiesError};
use lastkey_trust::refusal::Refusal;
use lastkey_trust::svid::{Bundle, BundleError, IdPattern, TrustDomain, is_trust_domain};
use lastkey_trust::x509::{SpiffeId, fingerprint};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::{Value, json};

use crate::support::{NOW, P256};

const DOMAIN: &str = "prod.example";
const API: &str = "spiffe://prod.example/ns/shop/sa/api";

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(name)];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 6, 1);
    params
}

/// What is made of an authority before it is signed.
fn authority_params(domain: &str) -> CertificateParams {
    let mut params = params(&format!("spiffe://{domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(domain: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_params(domain), KeyPair::generate().unwrap()).unwrap()
}

/// What a SPIRE server signs for a workload.
fn workload(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn sign(params: &CertificateParams, issuer: &Issuer) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &**issuer).unwrap().der().to_vec()
}

fn domain(issuers: &[&Issuer]) -> TrustDomain {
    let pem: String = issuers.iter().map(|one| one.pem()).collect();
    let authorities = Authorities::from_pem(&pem).unwrap();
    TrustDomain { name: DOMAIN.to_owned(), authorities }
}

fn refused(domain: &TrustDomain, chain: &[Vec<u8>]) -> Option<Refusal> {
    domain.verify(chain, NOW).err()
}

#[test]
fn workload_is_let_in_by_an_authority_of_its_domain() {
    let root = authority(DOMAIN);
    let leaf = sign(&workload(API), &root);
    let peer = domain(&[&root]).verify(std::slice::from_ref(&leaf), NOW).unwrap();
    assert_eq!((peer.id.as_str(), peer.fingerprint), (API, fingerprint(&leaf)));
    assert_eq!(peer.expires_at, Timestamp(1_811_808_000));
}

#[test]
fn workload_is_let_in_by_way_of_authorities_that_it_shows() {
    let root = authority(DOMAIN);
    let between =
        CertifiedIssuer::signed_by(authority_params(DOMAIN), KeyPair::generate().unwrap(), &root)
            .unwrap();
    let leaf = sign(&workload(API), &between);
    let chain = [leaf.clone(), between.der().to_vec()];
    assert_eq!(refused(&domain(&[&root]), &chain), None);
    assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::IssuerNotTrusted));
    let long = vec![chain[0].clone(); 9];
    assert_eq!(refused(&domain(&[&root]), &long), Some(Refusal::TooLong));
    assert_eq!(refused(&domain(&[&root]), &[]), Some(Refusal::Malformed));
}

/// A certificate says `prod.example`; another trust domain's authority has signed it.
#[test]
fn attack_authority_of_another_trust_domain() {
    let (ours, theirs) = (authority(DOMAIN), authority("evil.example"));
    let forged = sign(&workload(API), &theirs);
    // Their authority shown along with it changes nothing.
    let chain = [forged, theirs.der().to_vec()];
    for shown in [&chain[..1], &chain] {
        assert_eq!(refused(&domain(&[&ours]), shown), Some(Refusal::IssuerNotTrusted));
    }
}

/// An authority of ours, which we share with another domain, signs for that one.
#[test]
fn attack_name_of_another_trust_domain() {
    let root = authority(DOMAIN);
    for name in ["spiffe://evil.example/ns/shop/sa/api", "spiffe://prod.example.evil/ns/shop"] {
        let leaf = sign(&workload(name), &root);
        assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::TrustDomainMismatch));
    }
    let whole = sign(&workload("spiffe://prod.example"), &root);
    assert_eq!(refused(&domain(&[&root]), &[whole]), Some(Refusal::SubjectMalformed));
}

#[test]
fn attack_two_uri_names() {
    let root = authority(DOMAIN);
    let mut two = workload(API);
    two.subject_alt_names.push(uri("spiffe://prod.example/ns/shop/sa/admin"));
    let mut none = workload(API);
    none.subject_alt_names = vec![SanType::DnsName("api.shop".try_into().unwrap())];
    for params in [two, none] {
        let leaf = sign(&params, &root);
        assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::NameMissing));
    }
}

#[test]
fn attack_authority_as_a_workload() {
    let root = authority(DOMAIN);
    let mut params = workload(API);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let leaf = sign(&params, &root);
    assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::NameMissing));
    let itself = root.der().to_vec();
    assert_eq!(refused(&domain(&[&root]), &[itself]), Some(Refusal::NameMissing));
}

/// A workload signs a certificate for another one.
#[test]
fn attack_workload_as_an_authority() {
    let root = authority(DOMAIN);
    let api =
        CertifiedIssuer::signed_by(workload(API), KeyPair::generate().unwrap(), &root).unwrap();
    let leaf = sign(&workload("spiffe://prod.example/ns/shop/sa/admin"), &api);
    let chain = [leaf, api.der().to_vec()];
    assert!(refused(&domain(&[&root]), &chain).is_some());
    assert!(Authorities::from_pem(&api.pem()).is_err());
}

#[test]
fn attack_certificate_out_of_its_time() {
    let root = authority(DOMAIN);
    let leaf = [sign(&workload(API), &root)];
    let domain = domain(&[&root]);
    let end = domain.verify(&leaf, NOW).unwrap().expires_at;
    assert!(domain.verify(&leaf, Timestamp(end.0 - 1)).is_ok());
    assert_eq!(domain.verify(&leaf, end).err(), Some(Refusal::Expired));
    let mut early = workload(API);
    early.not_before = date_time_ymd(2027, 5, 1);
    assert_eq!(refused(&domain, &[sign(&early, &root)]), Some(Refusal::NotYetValid));
}

/// The authority is over, and somebody has its key.
#[test]
fn attack_authority_out_of_its_time() {
    let mut params = authority_params(DOMAIN);
    params.not_after = date_time_ymd(2026, 12, 1);
    let old = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = [sign(&workload(API), &old)];
    let domain = domain(&[&old]);
    assert!(domain.verify(&leaf, Timestamp(1_790_000_000)).is_ok());
    assert_eq!(domain.verify(&leaf, NOW).err(), Some(Refusal::IssuerNotTrusted));
}

#[test]
fn attack_key_for_another_use() {
    let root = authority(DOMAIN);
    let mut servers = workload(API);
    servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut signer = workload(API);
    signer.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let mut unsaid = workload(API);
    unsaid.key_usages.clear();
    for params in [servers, signer, unsaid] {
        let leaf = sign(&params, &root);
        assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::UsageNotAllowed));
    }
}

#[test]
fn attack_path_with_tricks() {
    let root = authority(DOMAIN);
    for path in [
        "spiffe://prod.example/ns/shop//sa/api",
        "spiffe://prod.example/ns/shop/../shop/sa/api",
        "spiffe://prod.example/ns/./shop/sa/api",
        "spiffe://prod.example/ns/shop%2Fsa/api",
        "spiffe://prod.example/ns/shop/sa/api/",
        "spiffe://prod.example/ns/shop/sa/api?x",
        "spiffe://prod.example:8443/ns/shop/sa/api",
        "spiffe://root@prod.example/ns/shop/sa/api",
        "spiffe://PROD.example/ns/shop/sa/api",
        "SPIFFE://prod.example/ns/shop/sa/api",
        "https://prod.example/ns/shop/sa/api",
    ] {
        let leaf = sign(&workload(path), &root);
        assert_eq!(refused(&domain(&[&root]), &[leaf]), Some(Refusal::Malformed), "{path}");
    }
}

#[test]
fn attack_changed_certificate() {
    let root = authority(DOMAIN);
    let (leaf, domain) = (sign(&workload(API), &root), domain(&[&root]));
    for place in 0..leaf.len() {
        let mut changed = leaf.clone();
        changed[place] ^= 1;
        assert!(domain.verify(&[changed], NOW).is_err(), "byte {place}");
    }
}

fn admits(pattern: &str, id: &str) -> bool {
    IdPattern::parse(pattern).unwrap().admits(&SpiffeId::parse(id).unwrap())
}

#[test]
fn pattern_is_one_id_or_all_below_a_path() {
    assert!(admits(API, API));
    for other in ["spiffe://prod.example/ns/shop/sa/API", "spiffe://prod.example/ns/shop/sa/api/x"]
    {
        assert!(!admits(API, other), "{other}");
    }
    let below = "spiffe://prod.example/ns/shop/*";
    assert!(admits(below, API) && admits(below, "spiffe://prod.example/ns/shop/x"));
    for other in [
        "spiffe://prod.example/ns/shop",
        "spiffe://prod.example/ns/shopping/sa/api",
        "spiffe://prod.example/ns/SHOP/sa/api",
        "spiffe://prod.examples/ns/shop/sa/api",
        "spiffe://other.example/ns/shop/sa/api",
    ] {
        assert!(!admits(below, other), "{other}");
    }
    assert!(admits("spiffe://prod.example/*", API));
    assert!(!admits("spiffe://prod.example/*", "spiffe://prod.example.org/x"));
    for bad in [
        "",
        "*",
        "spiffe://prod.example",
        "spiffe://*",
        "spiffe://prod.example/ns/*/sa/api",
        "spiffe://prod.example/ns/shop*",
        "spiffe://prod.example/ns//*",
        "spiffe://prod.example/../*",
        "spiffe://prod.example/%6es/*",
        "spiffe://Prod.example/*",
    ] {
        assert!(IdPattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn name_of_a_trust_domain_has_one_spelling() {
    assert!(is_trust_domain("prod.example") && is_trust_domain("a_b-c.1"));
    for bad in ["", "Prod", "a/b", "a:1", "a b", "spiffe://a", "a%20b", &"a".repeat(256)] {
        assert!(!is_trust_domain(bad), "{bad}");
    }
}

fn x5c(der: &[u8]) -> Value {
    json!({ "use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(der)] })
}

fn bundle(keys: &[Value]) -> Result<Bundle, BundleError> {
    Bundle::parse(&json!({ "keys": keys, "spiffe_sequence": 1 }).to_string())
}

#[test]
fn bundle_has_authorities_and_keys_and_passes_over_the_rest() {
    let root = authority(DOMAIN);
    let mut token = P256.jwk.clone();
    token["use"] = json!("jwt-svid");
    let unknown = json!({ "use": "later", "kty": "EC" });
    let both = bundle(&[x5c(root.der()), token.clone(), unknown, P256.jwk.clone()]).unwrap();
    assert_eq!(both.authorities.unwrap().certificates().collect::<Vec<_>>(), [&root.der()[..]]);
    // A key for anything but the tokens of the domain is none of its keys.
    assert_eq!(both.tokens.unwrap().len(), 1);
    assert!(bundle(&[x5c(root.der())]).unwrap().tokens.is_none());
    assert!(bundle(&[token]).unwrap().authorities.is_none());
    let pem = Bundle::parse(&root.pem()).unwrap();
    assert_eq!(pem.authorities.unwrap().certificates().count(), 1);
}

#[test]
fn bundle_is_refused_whole() {
    let root = authority(DOMAIN);
    let leaf = sign(&workload(API), &root);
    for keys in [
        json!({ "use": "x509-svid", "kty": "EC" }),
        json!({ "use": "x509-svid", "x5c": [] }),
        json!({ "use": "x509-svid", "x5c": [STANDARD.encode(root.der()), "x"] }),
        json!({ "use": "x509-svid", "x5c": ["no base64"] }),
        x5c(&leaf),
        x5c(b"no certificate"),
    ] {
        assert!(bundle(&[x5c(root.der()), keys.clone()]).is_err(), "{keys}");
    }
    assert_eq!(bundle(&[]).err(), Some(BundleError::Empty));
    assert_eq!(bundle(std::slice::from_ref(&P256.jwk)).err(), Some(BundleError::Empty));
    let refused = |pem: &str| match Bundle::parse(pem).err() {
        Some(BundleError::Authorities(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(""), AuthoritiesError::Empty);
    let with_key = root.pem() + &KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(refused(&with_key), AuthoritiesError::PrivateKey);
    assert_eq!(refused(&root.pem().repeat(65)), AuthoritiesError::TooMany);
    assert_eq!(refused(&root.pem().replace("MII", "!!!")), AuthoritiesError::Malformed);
}

proptest! {
    #[test]
    fn any_bytes_are_no_bundle_and_no_chain(bytes: Vec<u8>, text: String) {
        prop_assert!(Bundle::parse(&text).is_err());
        let none = TrustDomain { name: DOMAIN.to_owned(), authorities: Authorities::default() };
        prop_assert!(none.verify(&[bytes], NOW).is_err());
    }
}
