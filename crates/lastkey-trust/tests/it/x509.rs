//! Certificates of peers.
//!
//! Room      `trust`, tests.

use lastkey_core::time::Timestamp;
use lastkey_trust::refusal::Refusal;
use lastkey_trust::x509::{Peer, SpiffeId, fingerprint, read_peer};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, date_time_ymd};

use crate::support::NOW;

const INSTANCE: &str = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
const NODE: &str = "spiffe://3fa85f64-5717-4562-b3fc-2c963f66afa6/node/node-7";

fn certificate(names: &[SanType], is_ca: bool) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 6, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn read(names: &[SanType]) -> Result<Peer, Refusal> {
    read_peer(&certificate(names, false), NOW)
}

#[test]
fn peer_is_its_one_uri_name() {
    let der = certificate(&[dns("node-7"), uri(NODE)], false);
    let peer = read_peer(&der, NOW).unwrap();
    assert_eq!(peer.id.as_str(), NODE);
    assert_eq!(peer.id.node_name(INSTANCE), Some("node-7"));
    assert_eq!(peer.fingerprint, fingerprint(&der));
    assert_eq!(peer.expires_at, Timestamp(1_811_808_000));
    assert_eq!(read_peer(&der, peer.expires_at).err(), Some(Refusal::Expired));
}

#[test]
fn certificate_without_exactly_one_uri_name_is_refused() {
    for names in [vec![], vec![dns("node-7")], vec![uri(NODE), uri("spiffe://other/x")]] {
        assert_eq!(read(&names).err(), Some(Refusal::NameMissing), "{names:?}");
    }
    let twice = [uri(NODE), uri(NODE)];
    assert_eq!(read(&twice).err(), Some(Refusal::NameMissing));
    assert_eq!(read(&[uri("https://example.org")]).err(), Some(Refusal::Malformed));
}

#[test]
fn certificate_of_an_authority_is_no_peer() {
    let der = certificate(&[uri(NODE)], true);
    assert_eq!(read_peer(&der, NOW).err(), Some(Refusal::NameMissing));
}

#[test]
fn certificate_fills_its_bytes() {
    let mut der = certificate(&[uri(NODE)], false);
    der.push(0);
    assert_eq!(read_peer(&der, NOW).err(), Some(Refusal::Malformed));
    assert_eq!(read_peer(&der[..der.len() - 2], NOW).err(), Some(Refusal::Malformed));
}

#[test]
fn spiffe_id_has_one_spelling() {
    for good in ["spiffe://example.org", "spiffe://a/b/c", "spiffe://a-b.c_d/X.y_z-1"] {
        assert_eq!(SpiffeId::parse(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "spiffe://",
        "spiffe:///x",
        "SPIFFE://a/b",
        "spiffe://A/b",
        "spiffe://a:443/b",
        "spiffe://u@a/b",
        "spiffe://a/",
        "spiffe://a/b/",
        "spiffe://a//b",
        "spiffe://a/./b",
        "spiffe://a/../b",
        "spiffe://a/%62",
        "spiffe://a/b?c",
        "spiffe://a/b#c",
        "spiffe://a/b c",
        "https://a/b",
    ] {
        assert_eq!(SpiffeId::parse(bad).err(), Some(Refusal::Malformed), "{bad}");
    }
    let long = format!("spiffe://a/{}", "b".repeat(2_048));
    assert!(SpiffeId::parse(&long).is_err());
}

#[test]
fn node_name_is_one_segment_of_our_own_domain() {
    assert_eq!(SpiffeId::node(INSTANCE, "node-7").unwrap().as_str(), NODE);
    for bad in ["", ".", "..", "a/b", "a b"] {
        assert!(SpiffeId::node(INSTANCE, bad).is_err(), "{bad}");
    }
    assert!(SpiffeId::node("a/b", "node-7").is_err());
    let of = |text: &str| SpiffeId::parse(text).unwrap().node_name("a").map(str::to_owned);
    assert_eq!(of("spiffe://a/node/n"), Some("n".into()));
    for other in
        ["spiffe://b/node/n", "spiffe://a/node/n/x", "spiffe://a/nodes/n", "spiffe://a/x/node/n"]
    {
        assert_eq!(of(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_certificate(bytes: Vec<u8>) {
        prop_assert!(read_peer(&bytes, NOW).is_err());
    }
}
