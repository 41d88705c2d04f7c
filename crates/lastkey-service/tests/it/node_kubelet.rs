//! Nodes that join by the certificates of their kubelets, and which of these are void.

use std::time::Duration;

use lastkey_core::access::RevokedWhat;
use lastkey_core::principal::Peer;
use lastkey_service::error::Error;
use lastkey_service::ops::nodes::{Joined, WayIn};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::nodes::{Cluster, ID, REFUSED, csr, name, nobody};
use crate::world::{World, admin, code, world};

fn kubelet_authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl World {
    /// A connection with the certificate of a kubelet, signed now and good for a year.
    fn kubelet(&self, node: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> Peer {
        let now = self.ports.clock.read().wall.0;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = (std::time::UNIX_EPOCH + Duration::from_secs(now)).into();
        params.not_after = params.not_before + Duration::from_secs(365 * 86_400);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
        let certificate = self.engine.read_peer(vec![leaf.der().to_vec()]);
        Peer { certificate, ..nobody() }
    }

    async fn join_by_kubelet(
        &self,
        node: &str,
        cluster: &Cluster,
        peer: &Peer,
    ) -> Result<Joined, Error> {
        self.engine.join_by_kubelet(ID, peer, name(node), cluster.name.clone(), &csr()).await
    }
}

#[tokio::test]
async fn node_that_was_removed_before_its_kubelets_were_known_stays_out_by_its_old_certificate() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    world.agent("a", &here).await;
    world.engine.remove_node(admin(), name("a")).await.unwrap();
    let issuer = kubelet_authority();
    let here = Cluster::with_kubelets(&world, "here", Some(issuer.pem())).await;
    let old = world.kubelet("a", &issuer);
    assert_eq!(code(world.join_by_kubelet("a", &here, &old).await), REFUSED);
    world.clock.pass(Duration::from_secs(1));
    let fresh = world.kubelet("a", &issuer);
    world.join_by_kubelet("a", &here, &fresh).await.unwrap();
}

#[tokio::test]
async fn revoked_certificate_of_a_kubelet_is_refused_as_long_as_it_lives() {
    let day = Duration::from_secs(86_400);
    let issuer = kubelet_authority();
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let world = world().await;
        let here = Cluster::with_kubelets(&world, "here", Some(issuer.pem())).await;
        let peer = world.kubelet("a", &issuer);
        let join = async || world.join_by_kubelet("a", &here, &peer).await;
        join().await.unwrap();
        world.engine.revoke(admin(), what).await.unwrap();
        for _ in 0..3 {
            assert_eq!(code(join().await), REFUSED);
            world.clock.pass(day);
            world.engine.run_due().await;
        }
        assert_eq!(code(join().await), REFUSED);
    }
}

#[tokio::test]
async fn certificate_of_another_kubelet_is_on_record_whatever_strangers_do() {
    let world = world().await;
    let (issuer, another) = (kubelet_authority(), kubelet_authority());
    let here = Cluster::with_kubelets(&world, "here", Some(issuer.pem())).await;
    let stranger = world.kubelet("b", &another);
    for _ in 0..101 {
        assert_eq!(code(world.join_by_kubelet("a", &here, &stranger).await), REFUSED);
    }
    let before = world.audit.events().len();
    assert_eq!(code(world.join_by_kubelet("a", &here, &stranger).await), REFUSED);
    assert_eq!(world.audit.events().len(), before);
    let other_node = world.kubelet("b", &issuer);
    assert_eq!(code(world.join_by_kubelet("a", &here, &other_node).await), REFUSED);
    assert_eq!(world.audit.events().last().unwrap().reason, "other_node");
}

#[tokio::test]
async fn node_that_joins_by_its_tpm_does_not_come_in_by_its_kubelet() {
    let world = world().await;
    let issuer = kubelet_authority();
    let here = Cluster::with_kubelets(&world, "here", Some(issuer.pem())).await;
    let peer = world.kubelet("a", &issuer);
    world.join_by_kubelet("a", &here, &peer).await.unwrap();
    let invite = async |way| {
        world.engine.invite_node(admin(), name("a"), here.name.clone(), way).await.unwrap();
    };
    invite(WayIn::Tpm([7; 32])).await;
    assert_eq!(code(world.join_by_kubelet("a", &here, &peer).await), REFUSED);
    assert_eq!(world.audit.events().last().unwrap().reason, "other_way_in");
    invite(WayIn::Token).await;
    world.join_by_kubelet("a", &here, &peer).await.unwrap();
}
