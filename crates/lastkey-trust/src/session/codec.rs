//! A session as bytes.
//!
//! Room      `trust`, inside.
//! Source    `docs/formats/session.md`, "Session": CBOR (RFC 8949), fields by number.
//! Holds     What decodes is what would be written. A field that a later version adds is refused
//!           here: it may be a restriction.

use core::net::IpAddr;

use lastkey_core::ids::SessionId;
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

use super::{AuthStrength, Federated, Network, Session, Subject, User, Workload};
use crate::service_account::ObjectRef;

/// The bytes of a session.
#[must_use]
pub fn encode_session(session: &Session) -> Vec<u8> {
    encode(&SessionV1::from(session))
}

/// The session of these bytes; `None` when they are not its one encoding.
#[must_use]
pub fn decode_session(bytes: &[u8]) -> Option<Session> {
    Session::try_from(decode::<SessionV1<'_>>(bytes)?).ok()
}

/// The one encoding of a value.
pub(super) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match minicbor::encode(value, &mut out) {
        Ok(()) => out,
        // Writing to a vector does not fail; an empty encoding would decode as nothing.
        Err(_) => Vec::new(),
    }
}

/// The value that fills `bytes`, encoded the one way.
pub(super) fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Option<T> {
    let value: T = minicbor::decode(bytes).ok()?;
    (encode(&value) == bytes).then_some(value)
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SessionV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[b(1)]
    subject: SubjectV1<'a>,
    #[b(2)]
    role: Option<&'a str>,
    #[n(3)]
    issued_at: u64,
    #[n(4)]
    expires_at: u64,
    #[n(5)]
    via_provider: Option<bool>,
    #[b(6)]
    policy: Option<&'a str>,
    #[n(7)]
    sources: Option<Vec<NetworkV1>>,
    #[cbor(n(8), with = "minicbor::bytes")]
    certificate: Option<[u8; 32]>,
    #[b(9)]
    methods: Option<Vec<&'a str>>,
    #[n(10)]
    mfa_at: Option<u64>,
}

#[derive(Encode, Decode)]
enum SubjectV1<'a> {
    #[n(1)]
    Workload(#[b(0)] WorkloadV1<'a>),
    #[n(2)]
    Federated(#[b(0)] FederatedV1<'a>),
    #[n(3)]
    User(#[b(0)] UserV1<'a>),
    #[n(4)]
    Node(#[b(0)] &'a str),
    #[n(5)]
    Spiffe(#[b(0)] &'a str),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WorkloadV1<'a> {
    #[b(0)]
    cluster: &'a str,
    #[b(1)]
    namespace: &'a str,
    #[b(2)]
    service_account: ObjectV1<'a>,
    #[b(3)]
    pod: Option<ObjectV1<'a>>,
    #[b(4)]
    node: Option<&'a str>,
    #[b(5)]
    token_id: Option<&'a str>,
}

#[derive(Encode, Decode)]
struct ObjectV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    uid: &'a str,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct FederatedV1<'a> {
    #[b(0)]
    provider: &'a str,
    #[b(1)]
    subject: &'a str,
    #[b(2)]
    groups: Vec<&'a str>,
    #[b(3)]
    token_id: Option<&'a str>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct UserV1<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    groups: Vec<&'a str>,
}

#[derive(Encode, Decode)]
struct NetworkV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    address: Vec<u8>,
    #[n(1)]
    prefix: u8,
}

/// What is absent in the encoding when it is empty: `None` stands for it.
fn unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn owned(list: Vec<&str>) -> Vec<String> {
    list.into_iter().map(str::to_owned).collect()
}

impl<'a> From<&'a Session> for SessionV1<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            id: session.id.0,
            subject: SubjectV1::from(&session.subject),
            role: session.role.as_deref(),
            issued_at: session.issued_at.0,
            expires_at: session.expires_at.0,
            via_provider: session.via_provider.then_some(true),
            policy: session.policy.as_deref(),
            sources: unless_empty(session.sources.iter().map(NetworkV1::from).collect()),
            certificate: session.certificate,
            methods: unless_empty(texts(&session.strength.methods)),
            mfa_at: session.strength.mfa_at.map(|at| at.0),
        }
    }
}

/// The fields are well formed CBOR and mean nothing.
struct Meaningless;

impl TryFrom<SessionV1<'_>> for Session {
    type Error = Meaningless;

    fn try_from(raw: SessionV1<'_>) -> Result<Self, Meaningless> {
        // What is absent has one spelling: neither `false` nor an empty list is written.
        let is_spelt_out = raw.via_provider == Some(false)
            || raw.sources.as_ref().is_some_and(Vec::is_empty)
            || raw.methods.as_ref().is_some_and(Vec::is_empty);
        if is_spelt_out {
            return Err(Meaningless);
        }
        let sources = raw.sources.unwrap_or_default();
        Ok(Self {
            id: SessionId(raw.id),
            subject: Subject::from(raw.subject),
            role: raw.role.map(str::to_owned),
            issued_at: Timestamp(raw.issued_at),
            expires_at: Timestamp(raw.expires_at),
            via_provider: raw.via_provider.unwrap_or(false),
            policy: raw.policy.map(str::to_owned),
            sources: sources.into_iter().map(Network::try_from).collect::<Result<_, _>>()?,
            certificate: raw.certificate,
            strength: AuthStrength {
                methods: owned(raw.methods.unwrap_or_default()),
                mfa_at: raw.mfa_at.map(Timestamp),
            },
        })
    }
}

impl<'a> From<&'a Subject> for SubjectV1<'a> {
    fn from(subject: &'a Subject) -> Self {
        match subject {
            Subject::Workload(one) => Self::Workload(WorkloadV1 {
                cluster: &one.cluster,
                namespace: &one.namespace,
                service_account: ObjectV1::from(&one.service_account),
                pod: one.pod.as_ref().map(ObjectV1::from),
                node: one.node.as_deref(),
                token_id: one.token_id.as_deref(),
            }),
            Subject::Federated(one) => Self::Federated(FederatedV1 {
                provider: &one.provider,
                subject: &one.subject,
                groups: texts(&one.groups),
                token_id: one.token_id.as_deref(),
            }),
            Subject::User(one) => {
                Self::User(UserV1 { name: &one.name, groups: texts(&one.groups) })
            }
            Subject::Node { name } => Self::Node(name),
            Subject::Spiffe { id } => Self::Spiffe(id),
        }
    }
}

impl From<SubjectV1<'_>> for Subject {
    fn from(raw: SubjectV1<'_>) -> Self {
        match raw {
            SubjectV1::Workload(one) => Self::Workload(Workload {
                cluster: one.cluster.to_owned(),
                namespace: one.namespace.to_owned(),
                service_account: ObjectRef::from(one.service_account),
                pod: one.pod.map(ObjectRef::from),
                node: one.node.map(str::to_owned),
                token_id: one.token_id.map(str::to_owned),
            }),
            SubjectV1::Federated(one) => Self::Federated(Federated {
                provider: one.provider.to_owned(),
                subject: one.subject.to_owned(),
                groups: owned(one.groups),
                token_id: one.token_id.map(str::to_owned),
            }),
            SubjectV1::User(one) => {
                Self::User(User { name: one.name.to_owned(), groups: owned(one.groups) })
            }
            SubjectV1::Node(name) => Self::Node { name: name.to_owned() },
            SubjectV1::Spiffe(id) => Self::Spiffe { id: id.to_owned() },
        }
    }
}

impl<'a> From<&'a ObjectRef> for ObjectV1<'a> {
    fn from(object: &'a ObjectRef) -> Self {
        Self { name: &object.name, uid: &object.uid }
    }
}

impl From<ObjectV1<'_>> for ObjectRef {
    fn from(raw: ObjectV1<'_>) -> Self {
        Self { name: raw.name.to_owned(), uid: raw.uid.to_owned() }
    }
}

impl From<&Network> for NetworkV1 {
    fn from(network: &Network) -> Self {
        let (address, prefix) = network.parts();
        let address = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Self { address, prefix }
    }
}

impl TryFrom<NetworkV1> for Network {
    type Error = Meaningless;

    fn try_from(raw: NetworkV1) -> Result<Self, Meaningless> {
        let v4 = <[u8; 4]>::try_from(raw.address.as_slice()).map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(raw.address.as_slice()).map(IpAddr::from);
        let address = v4.or_else(|_| v6()).map_err(|_| Meaningless)?;
        Self::new(address, raw.prefix).ok_or(Meaningless)
    }
}
