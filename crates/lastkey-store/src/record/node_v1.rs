//! Version 1 of the records of nodes, and of what signs their certificates.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::access::{Enrolment, Node, NodeAuthority, NodeCertificate, TpmKey};
use lastkey_core::ids::Name;
use lastkey_core::time::Timestamp;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::DecodeError;
use super::access_v1::{EnrolmentV1, name};
use super::v1::WrappedV1;

#[derive(Encode, Decode)]
pub(super) struct NodeV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    cluster: Option<&'a str>,
    #[n(2)]
    join: Option<EnrolmentV1>,
    #[n(3)]
    certificate: Option<NodeCertificateV1>,
    #[n(4)]
    created_at: u64,
    #[n(5)]
    previous: Option<NodeCertificateV1>,
    #[n(6)]
    tpm: Option<TpmKeyV1>,
}

#[derive(Encode, Decode)]
struct TpmKeyV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    name: [u8; 32],
    #[n(1)]
    since: u64,
}

#[derive(Encode, Decode)]
struct NodeCertificateV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    fingerprint: [u8; 32],
    #[n(1)]
    issued_at: u64,
    #[n(2)]
    expires_at: u64,
}

impl From<&NodeCertificate> for NodeCertificateV1 {
    fn from(certificate: &NodeCertificate) -> Self {
        Self {
            fingerprint: certificate.fingerprint,
            issued_at: certificate.issued_at.0,
            expires_at: certificate.expires_at.0,
        }
    }
}

impl From<NodeCertificateV1> for NodeCertificate {
    fn from(certificate: NodeCertificateV1) -> Self {
        Self {
            fingerprint: certificate.fingerprint,
            issued_at: Timestamp(certificate.issued_at),
            expires_at: Timestamp(certificate.expires_at),
        }
    }
}

impl<'a> From<&'a Node> for NodeV1<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            name: node.name.as_str(),
            cluster: node.cluster.as_ref().map(Name::as_str),
            join: node.join.as_ref().map(EnrolmentV1::from),
            certificate: node.certificate.as_ref().map(NodeCertificateV1::from),
            created_at: node.created_at.0,
            previous: node.previous.as_ref().map(NodeCertificateV1::from),
            tpm: node.tpm.as_ref().map(|key| TpmKeyV1 { name: key.name, since: key.since.0 }),
        }
    }
}

impl TryFrom<NodeV1<'_>> for Node {
    type Error = DecodeError;

    fn try_from(node: NodeV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: name(node.name)?,
            cluster: node.cluster.map(name).transpose()?,
            join: node.join.map(Enrolment::from),
            certificate: node.certificate.map(NodeCertificate::from),
            created_at: Timestamp(node.created_at),
            previous: node.previous.map(NodeCertificate::from),
            tpm: node.tpm.map(|key| TpmKey { name: key.name, since: Timestamp(key.since) }),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct NodeAuthorityV1<'a> {
    #[b(0)]
    private_key: WrappedV1<'a>,
    #[cbor(b(1), with = "minicbor::bytes")]
    certificate: &'a [u8],
    #[n(2)]
    created_at: u64,
    #[b(3)]
    previous: Option<&'a ByteSlice>,
}

impl<'a> From<&'a NodeAuthority> for NodeAuthorityV1<'a> {
    fn from(authority: &'a NodeAuthority) -> Self {
        Self {
            private_key: WrappedV1::from(&authority.private_key),
            certificate: &authority.certificate,
            created_at: authority.created_at.0,
            previous: authority.previous.as_deref().map(Into::into),
        }
    }
}

impl From<NodeAuthorityV1<'_>> for NodeAuthority {
    fn from(authority: NodeAuthorityV1<'_>) -> Self {
        Self {
            private_key: authority.private_key.into(),
            certificate: authority.certificate.to_vec(),
            created_at: Timestamp(authority.created_at),
            previous: authority.previous.map(|certificate| certificate.to_vec()),
        }
    }
}
