//! The authority of nodes: what it signs, and what it does not read.
//!
//! Room      `trust`, tests.

use lastkey_core::ids::{InstanceId, Name};
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_secret::SecretVec;
use lastkey_trust::node_authority::{Authority, KEY_SPEC, Request, SUBJECT_DER};
use lastkey_trust::refusal::Refusal;
use lastkey_trust::x509::read_peer;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::NOW;

const INSTANCE: InstanceId = InstanceId([0x3f; 16]);

fn authority() -> Authority {
    Authority::open(&generate(KEY_SPEC, &mut SystemEntropy).unwrap()).unwrap()
}

fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn node() -> Name {
    Name::parse("node-7").unwrap()
}

#[test]
fn certificate_is_of_the_node_for_a_day_and_for_clients_alone() {
    let key = KeyPair::generate().unwrap();
    // What a request asks for beside its key is not looked at.
    let mut params = CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://x/node/other".try_into().unwrap()));
    let request = Request::parse(&csr(&params, &key)).unwrap();
    let issued = authority().issue(&request, INSTANCE, &node(), NOW, &mut SystemEntropy).unwrap();
    let peer = read_peer(&issued.der, NOW).unwrap();
    assert_eq!(peer.id.node_name(&INSTANCE.to_string()), Some("node-7"));
    assert_eq!(peer.fingerprint, issued.kept.fingerprint);
    assert_eq!((issued.kept.issued_at, peer.expires_at.0), (NOW, NOW.0 + 86_400));
    let (_, leaf) = X509Certificate::from_der(&issued.der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.issuer().as_raw(), SUBJECT_DER);
    assert!(key.public_key_raw().ends_with(leaf.public_key().subject_public_key.data.as_ref()));
}

#[test]
fn authority_is_one_of_its_trust_domain_and_signs_no_other() {
    let der = authority().certificate(INSTANCE, NOW, &mut SystemEntropy).unwrap();
    let (_, own) = X509Certificate::from_der(&der).unwrap();
    assert_eq!((own.subject().as_raw(), own.issuer().as_raw()), (SUBJECT_DER, SUBJECT_DER));
    let limits = own.basic_constraints().unwrap().unwrap().value;
    assert_eq!((limits.ca, limits.path_len_constraint), (true, Some(0)));
    assert_eq!(read_peer(&der, NOW).err(), Some(Refusal::NameMissing));
}

#[test]
fn certificates_of_one_key_differ_in_their_serial_number() {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let request = Request::parse(&csr(&CertificateParams::default(), &key)).unwrap();
    let issue = || authority.issue(&request, INSTANCE, &node(), NOW, &mut SystemEntropy).unwrap();
    assert_ne!(issue().kept.fingerprint, issue().kept.fingerprint);
}

#[test]
fn request_for_another_kind_of_key_is_refused() {
    for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let der = csr(&CertificateParams::default(), &key);
        assert_eq!(Request::parse(&der).err(), Some(Refusal::Malformed));
    }
    let rsa = generate(MaterialSpec::Rsa2048, &mut SystemEntropy).unwrap();
    assert!(Authority::open(&rsa).is_err());
    assert!(Authority::open(&SecretVec::copy_of(b"no key")).is_err());
}

#[test]
fn request_with_a_changed_byte_gives_no_other_key() {
    let der = csr(&CertificateParams::default(), &KeyPair::generate().unwrap());
    let request = Request::parse(&der).unwrap();
    for place in 0..der.len() {
        let mut changed = der.clone();
        changed[place] ^= 1;
        // The tag of the algorithm's name is neither signed nor looked at.
        if let Ok(same) = Request::parse(&changed) {
            assert_eq!((&same, &der[place..][..4]), (&request, &[6, 8, 0x2a, 0x86][..]));
        }
        assert!(Request::parse(&der[..place]).is_err(), "cut at {place}");
    }
    assert!(Request::parse(&[&der[..], &[0]].concat()).is_err());
    assert!(Request::parse(&[0x30; 5_000]).is_err());
}

proptest! {
    #[test]
    fn parsing_a_request_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Request::parse(&bytes).is_err());
    }
}
