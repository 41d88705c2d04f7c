//! Certificates of kubelets, and those that the same authority signs for others.
//!
//! Room      `trust`, tests.

use lastkey_core::time::Timestamp;
use lastkey_trust::authorities::Authorities;
use lastkey_trust::kubelet::{Kubelet, verify};
use lastkey_trust::refusal::Refusal;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::support::NOW;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The authority of a cluster, as kubeadm makes it.
fn cluster() -> (Issuer, Authorities) {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&[(DnType::CommonName, "kubernetes")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let authorities = Authorities::from_pem(&issuer.pem()).unwrap();
    (issuer, authorities)
}

fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    parts.iter().for_each(|(kind, text)| name.push(kind.clone(), *text));
    name
}

/// What the controller manager signs for a kubelet.
fn kubelet(group: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let parts = [(DnType::OrganizationName, group), (DnType::CommonName, name)];
    params.distinguished_name = named(&parts);
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = date_time_ymd(2026, 12, 1);
    params.not_after = date_time_ymd(2027, 12, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn judge(
    issuer: &Issuer,
    authorities: &Authorities,
    params: &CertificateParams,
) -> Result<Kubelet, Refusal> {
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &**issuer).unwrap();
    verify(authorities, &[leaf.der().to_vec()], NOW)
}

#[test]
fn kubelet_is_the_node_of_its_subject() {
    let (issuer, authorities) = cluster();
    let found = judge(&issuer, &authorities, &kubelet("system:nodes", "system:node:worker-1"));
    let issued_at = Timestamp(1_796_083_200);
    assert_eq!(found, Ok(Kubelet { node: "worker-1".to_owned(), issued_at }));
}

#[test]
fn attack_other_clients_of_the_cluster_as_a_node() {
    let (issuer, authorities) = cluster();
    for (group, name) in [
        ("system:masters", "kubernetes-admin"),
        ("system:masters", "system:node:worker-1"),
        ("system:nodes", "kubernetes-admin"),
        ("system:nodes", "system:node:"),
        ("system:nodes", "xsystem:node:worker-1"),
        ("system:nodes ", "system:node:worker-1"),
        ("System:nodes", "system:node:worker-1"),
    ] {
        let found = judge(&issuer, &authorities, &kubelet(group, name));
        assert_eq!(found, Err(Refusal::SubjectMalformed), "{group} {name}");
    }
    let mut two = kubelet("system:nodes", "system:node:worker-1");
    two.distinguished_name = named(&[(DnType::OrganizationName, "system:nodes")]);
    assert_eq!(judge(&issuer, &authorities, &two), Err(Refusal::SubjectMalformed));
    let mut serving = kubelet("system:nodes", "system:node:worker-1");
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(judge(&issuer, &authorities, &serving), Err(Refusal::UsageNotAllowed));
    let mut authority = kubelet("system:nodes", "system:node:worker-1");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(judge(&issuer, &authorities, &authority), Err(Refusal::UsageNotAllowed));
    let mut for_servers = kubelet("system:nodes", "system:node:worker-1");
    for_servers.subject_alt_names.push(rcgen::SanType::DnsName("worker-1".try_into().unwrap()));
    assert_eq!(judge(&issuer, &authorities, &for_servers), Err(Refusal::NameMissing));
}

#[test]
fn attack_kubelet_of_another_cluster() {
    let ((issuer, _), (_, others)) = (cluster(), cluster());
    let found = judge(&issuer, &others, &kubelet("system:nodes", "system:node:worker-1"));
    assert_eq!(found, Err(Refusal::IssuerNotTrusted));
    let none = Authorities::default();
    let found = judge(&issuer, &none, &kubelet("system:nodes", "system:node:worker-1"));
    assert_eq!(found, Err(Refusal::IssuerNotTrusted));
}

#[test]
fn attack_kubelet_out_of_its_time() {
    let (issuer, authorities) = cluster();
    let mut params = kubelet("system:nodes", "system:node:worker-1");
    params.not_after = date_time_ymd(2027, 1, 1);
    assert_eq!(judge(&issuer, &authorities, &params), Err(Refusal::Expired));
    params.not_before = date_time_ymd(2027, 6, 1);
    params.not_after = date_time_ymd(2027, 12, 1);
    assert_eq!(judge(&issuer, &authorities, &params), Err(Refusal::NotYetValid));
    params.not_before = date_time_ymd(2026, 1, 1);
    assert_eq!(judge(&issuer, &authorities, &params), Err(Refusal::LifetimeTooLong));
}
