//! Version 1 of what is remembered of the seals.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::seal_record::{AcceptedWeakness, SealBook, SealProof};
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) struct SealBookV1<'a> {
    #[n(0)]
    proofs: Vec<ProofV1>,
    #[b(1)]
    accepted: Option<AcceptedV1<'a>>,
    #[n(2)]
    epoch: u32,
    #[n(3)]
    writes: u64,
}

#[derive(Encode, Decode)]
struct ProofV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    seal: [u8; 16],
    #[n(1)]
    opened_at: Option<u64>,
    #[n(2)]
    shares: Vec<ShareProofV1>,
}

#[derive(Encode, Decode)]
struct ShareProofV1 {
    #[n(0)]
    share: u8,
    #[n(1)]
    at: u64,
}

#[derive(Encode, Decode)]
struct AcceptedV1<'a> {
    #[b(0)]
    by: &'a str,
    #[n(1)]
    at: u64,
    #[b(2)]
    weaknesses: Vec<&'a str>,
}

impl<'a> From<&'a SealBook> for SealBookV1<'a> {
    fn from(book: &'a SealBook) -> Self {
        let accepted = book.accepted.as_ref().map(|accepted| AcceptedV1 {
            by: &accepted.by,
            at: accepted.at.0,
            weaknesses: accepted.weaknesses.iter().map(String::as_str).collect(),
        });
        let proofs = book.proofs.iter().map(ProofV1::from).collect();
        Self { proofs, accepted, epoch: book.epoch, writes: book.writes }
    }
}

impl From<SealBookV1<'_>> for SealBook {
    fn from(book: SealBookV1<'_>) -> Self {
        let accepted = book.accepted.map(|accepted| AcceptedWeakness {
            by: accepted.by.to_owned(),
            at: Timestamp(accepted.at),
            weaknesses: accepted.weaknesses.into_iter().map(str::to_owned).collect(),
        });
        let proofs = book.proofs.into_iter().map(SealProof::from).collect();
        Self { proofs, accepted, epoch: book.epoch, writes: book.writes }
    }
}

impl From<&SealProof> for ProofV1 {
    fn from(proof: &SealProof) -> Self {
        let share = |(share, at): &(u8, Timestamp)| ShareProofV1 { share: *share, at: at.0 };
        let opened_at = proof.opened_at.map(|at| at.0);
        Self { seal: proof.seal, opened_at, shares: proof.shares.iter().map(share).collect() }
    }
}

impl From<ProofV1> for SealProof {
    fn from(proof: ProofV1) -> Self {
        let share = |one: &ShareProofV1| (one.share, Timestamp(one.at));
        Self {
            seal: proof.seal,
            opened_at: proof.opened_at.map(Timestamp),
            shares: proof.shares.iter().map(share).collect(),
        }
    }
}
