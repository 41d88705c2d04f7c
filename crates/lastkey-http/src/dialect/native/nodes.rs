//! Nodes: decode, one use case, encode. Three of the routes need no other credential.
//!
//! Room      `http`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_core::access::{NODE_JOIN_SECS, Node};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::principal::Peer;
use lastkey_crypto::digest::sha256;
use lastkey_service::engine::Engine;
use lastkey_service::ops::nodes::{CHALLENGE_SECS, Evidence, Invited, Joined, WayIn};
use lastkey_wire::native::Empty;
use lastkey_wire::native::nodes::{
    ChallengeReply, ChallengeRequest, JoinRequest, JoinTokenReply, ListNodesReply,
    NodeAuthorityView, NodeCertificateReply, NodeView, RenewRequest, SetNodeRequest,
};
use lastkey_wire::native::query::{DryRunQuery, PageQuery};
use lastkey_wire::{Base64Bytes, SecretText};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;

use super::access::{marker, page};
use super::decode::{Ask, RequestBody, parse};
use super::encode::{rfc3339, to_json};
use crate::answer::Answer;
use crate::auth_layer::from_hex;
use crate::problem::{Problem, Syntax};

impl RequestBody for SetNodeRequest {}

fn view(node: Node) -> NodeView {
    let certificate = node.certificate.as_ref();
    NodeView {
        name: node.name.to_string(),
        cluster: node.cluster.map(|cluster| cluster.to_string()),
        certificate: certificate.map(|held| fingerprint(&held.fingerprint)),
        issued_at: certificate.map(|held| rfc3339(held.issued_at)),
        expires_at: certificate.map(|held| rfc3339(held.expires_at)),
        may_join: node.join.is_some(),
        tpm_key: node.tpm.map(|key| fingerprint(&key.name)),
        created_at: rfc3339(node.created_at),
    }
}

/// SHA-256 of a certificate, for people.
pub(super) fn fingerprint(bytes: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 as people write it, with or without colons.
pub(super) fn parse_fingerprint(text: &str) -> Result<[u8; 32], &'static str> {
    const FORM: &str = "expected `sha256:` and 64 hexadecimal digits";
    let digits = text.strip_prefix("sha256:");
    let digits = digits.map(|digits| digits.to_ascii_lowercase().replace(':', ""));
    digits.and_then(|digits| from_hex(digits.as_bytes())).ok_or(FORM)
}

/// `PUT /v1/sys/nodes/{name}`
pub(super) async fn invite(ask: &Ask, body: SetNodeRequest) -> Result<JoinTokenReply, Problem> {
    let cluster = parse("cluster", &body.cluster, Name::parse)?;
    let key = body.tpm_key.map(|key| parse("tpm_key", &key, parse_fingerprint)).transpose()?;
    let way = key.map_or(WayIn::Token, WayIn::Tpm);
    let Invited { node, token } =
        ask.engine().invite_node(ask.call(), ask.name()?, cluster, way).await?;
    let expires_in = token.as_ref().map(|_| NODE_JOIN_SECS);
    Ok(JoinTokenReply { node: view(node), join_token: token.map(SecretText), expires_in })
}

/// `GET /v1/sys/nodes/{name}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<NodeView, Problem> {
    Ok(view(ask.engine().read_named::<Node>(ask.call(), &ask.name()?).await?))
}

/// `DELETE /v1/sys/nodes/{name}`
pub(super) async fn remove(ask: &Ask, _: Empty) -> Result<Empty, Problem> {
    ask.engine().remove_node(ask.call(), ask.name()?).await?;
    Ok(Empty {})
}

/// `GET /v1/sys/nodes`
pub(super) async fn list(ask: &Ask, query: PageQuery) -> Result<ListNodesReply, Problem> {
    let (after, limit) = page(&query)?;
    let page = ask.engine().list_named::<Node>(ask.call(), after, limit).await?;
    let nodes: Vec<_> = page.items.into_iter().map(view).collect();
    let next_marker = marker(nodes.last().map(|last| &last.name), page.more);
    Ok(ListNodesReply { nodes, next_marker })
}

/// `POST /v1/sys/node-authority/rotate`
pub(super) async fn rotate_authority(ask: &Ask, _: Empty) -> Result<NodeAuthorityView, Problem> {
    let now = ask.engine().rotate_node_authority(ask.call()).await?;
    let previous = now.previous.as_deref().map(|before| fingerprint(&sha256(before)));
    Ok(NodeAuthorityView {
        authority: fingerprint(&sha256(&now.certificate)),
        created_at: rfc3339(now.created_at),
        previous_until: previous.as_ref().map(|_| rfc3339(now.overlap_ends())),
        previous,
    })
}

/// `POST /v1/nodes/challenge`
pub(crate) fn challenge(engine: &Engine, body: &ChallengeRequest) -> Result<Answer, Problem> {
    let challenge = engine.challenge_node(&parse("name", &body.name, Name::parse)?)?;
    let (challenge, expires_in) = (Base64Bytes(challenge), CHALLENGE_SECS);
    Ok(Answer::json(to_json(&ChallengeReply { challenge, expires_in })))
}

/// `POST /v1/nodes/join`
pub(crate) async fn join(
    engine: &Arc<Engine>,
    body: JoinRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let (name, csr) = (parse("name", &body.name, Name::parse)?, csr(&body.csr)?);
    let joined = match (body.token, body.cluster, body.tpm) {
        (Some(token), None, None) => engine.join_node(id, peer, name, token.0, &csr).await?,
        (None, Some(cluster), None) => {
            let cluster = parse("cluster", &cluster, Name::parse)?;
            engine.join_by_kubelet(id, peer, name, cluster, &csr).await?
        }
        (None, None, Some(tpm)) => {
            let evidence = Evidence {
                public: &tpm.public.0,
                attestation: &tpm.attestation.0,
                signature: &tpm.signature.0,
            };
            engine.join_by_tpm(id, peer, name, &tpm.challenge.0, &evidence, &csr).await?
        }
        _none_or_several => {
            let problem = "expected one of `token`, `cluster` and `tpm`";
            return Err(Syntax::field("token", problem).into());
        }
    };
    Ok(certificate(joined))
}

/// `POST /v1/nodes/renew`
pub(crate) async fn renew(
    engine: &Arc<Engine>,
    body: RenewRequest,
    peer: &Peer,
    id: RequestId,
) -> Result<Answer, Problem> {
    let csr = csr(&body.csr)?;
    Ok(certificate(engine.renew_node(id, peer, &csr).await?))
}

fn csr(pem: &str) -> Result<CertificateSigningRequestDer<'static>, Syntax> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Syntax::field("csr", "expected a CERTIFICATE REQUEST in PEM"))
}

fn certificate(joined: Joined) -> Answer {
    let expires_at = joined.node.certificate.map(|held| rfc3339(held.expires_at));
    Answer::json(to_json(&NodeCertificateReply {
        name: joined.node.name.to_string(),
        spiffe_id: joined.spiffe_id,
        certificate: pem(&joined.certificate),
        expires_at: expires_at.unwrap_or_default(),
    }))
}

/// A certificate as RFC 7468 writes it.
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{fingerprint, parse_fingerprint};

    #[test]
    fn fingerprint_is_read_as_it_is_written_and_nothing_else_is() {
        let bytes = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let text = fingerprint(&bytes);
        assert_eq!(parse_fingerprint(&text), Ok(bytes));
        let digits = text.strip_prefix("sha256:").unwrap();
        let loud = format!("sha256:{}", digits.to_uppercase());
        assert_eq!(parse_fingerprint(&loud), Ok(bytes));
        let parted: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
        assert_eq!(parse_fingerprint(&format!("sha256:{}", parted.join(":"))), Ok(bytes));
        for wrong in [
            digits,
            text.strip_suffix('9').unwrap(),
            &format!("{text}0"),
            &text.replace("07", "0g"),
            "",
        ] {
            assert!(parse_fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
