//! Certificates of kubelets: which node of a cluster somebody is.
//!
//! Room      `trust`. Whose authorities they are checked by is the business of the caller.
//! Source    Kubernetes, "Certificate Signing Requests", signer
//!           `kubernetes.io/kube-apiserver-client-kubelet`, and "Using Node Authorization".
//! Holds     the authority of a cluster signs for administrators and components as well: a
//!           certificate is that of a node only when its subject says so and nothing beside it.

use lastkey_core::time::Timestamp;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::AttributeTypeAndValue;

use crate::authorities::Authorities;
use crate::refusal::Refusal;
use crate::x509::{allows_signatures_alone, parse};

/// Longest time that the certificate of a kubelet lasts, in seconds: a year, which is what a cluster
/// signs for unless it is told otherwise, and two days. A revocation is kept as long.
pub const MAX_LIFETIME_SECS: u64 = 367 * 86_400;

const GROUP: &str = "system:nodes";
const NAME: &str = "system:node:";

/// A kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Its node.
    pub node: String,
    /// When its certificate begins.
    pub issued_at: Timestamp,
}

/// Judges what a kubelet has shown on a connection, its own certificate first, each in DER.
///
/// # Errors
/// [`Refusal::SubjectMalformed`] for the name of anybody but a node, [`Refusal::NameMissing`] with
/// other names beside it, [`Refusal::UsageNotAllowed`] for a key that is not for clients,
/// [`Refusal::LifetimeTooLong`]; else as [`Authorities::verify`].
pub fn verify(
    authorities: &Authorities,
    chain: &[Vec<u8>],
    now: Timestamp,
) -> Result<Kubelet, Refusal> {
    let leaf = parse(chain.first().ok_or(Refusal::Malformed)?)?;
    let node = node_of(&leaf)?;
    let names = leaf.subject_alternative_name().map_err(|_| Refusal::Malformed)?;
    if names.is_some() {
        return Err(Refusal::NameMissing);
    }
    let usage = leaf.extended_key_usage().map_err(|_| Refusal::Malformed)?;
    let is_for_clients = usage.is_some_and(|usage| usage.value.client_auth && !usage.value.any);
    if leaf.is_ca() || !is_for_clients || !allows_signatures_alone(&leaf)? {
        return Err(Refusal::UsageNotAllowed);
    }
    let moment = |at: i64| u64::try_from(at).map_err(|_| Refusal::Malformed);
    let begins = moment(leaf.validity().not_before.timestamp())?;
    let ends = moment(leaf.validity().not_after.timestamp())?;
    if ends.saturating_sub(begins) > MAX_LIFETIME_SECS {
        return Err(Refusal::LifetimeTooLong);
    }
    authorities.verify(chain, now)?;
    Ok(Kubelet { node, issued_at: Timestamp(begins) })
}

/// The node that the subject of a certificate is: in one group, by one name.
fn node_of(leaf: &X509Certificate<'_>) -> Result<String, Refusal> {
    let subject = leaf.subject();
    let mut groups = subject.iter_organization();
    let mut names = subject.iter_common_name();
    let (group, name) = (only(&mut groups)?, only(&mut names)?);
    let node = name.strip_prefix(NAME).filter(|node| !node.is_empty());
    match node {
        Some(node) if group == GROUP => Ok(node.to_owned()),
        Some(_) | None => Err(Refusal::SubjectMalformed),
    }
}

fn only<'a>(
    all: &mut dyn Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<&'a str, Refusal> {
    match (all.next(), all.next()) {
        (Some(one), None) => one.as_str().map_err(|_| Refusal::SubjectMalformed),
        (Some(_), Some(_)) | (None, _) => Err(Refusal::SubjectMalformed),
    }
}
