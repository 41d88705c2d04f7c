//! What the audit log is told: who did what, to which key, and how it ended.
//!
//! Room      `core`.
//! Holds     an event has no field that could carry a secret, a plaintext or a request target.

use crate::ids::{KeyId, RequestId, VersionNo};
use crate::principal::{Principal, Source};
use crate::time::Timestamp;

pub mod archive;
pub mod checkpoint;
pub mod merkle;
pub mod note;
pub mod receipt;
pub mod record;
pub mod tile;
pub mod witness;

/// Which part of an operation an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The one record of an operation whose only effect is its answer.
    Whole,
    /// Written before a change of state.
    Intent,
    /// Written after it. An intent without outcome reads as unknown, never as failed.
    Outcome,
}

impl Phase {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
        }
    }
}

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// Identity of the request.
    pub request: RequestId,
    /// Who.
    pub who: &'a Principal,
    /// What, for example `kms:Encrypt`.
    pub action: &'static str,
    /// Which part of the operation.
    pub phase: Phase,
    /// The key, once it is known.
    pub key: Option<KeyId>,
    /// The key version, once it is known.
    pub version: Option<VersionNo>,
    /// SHA-256 of the encoded encryption context, when there is one.
    pub context_hash: Option<[u8; 32]>,
    /// `ok`, or the stable code of the error.
    pub result: &'static str,
    /// Why it was allowed or refused, for those who may read the log; empty when nothing is known.
    pub reason: &'a str,
    /// Where the call came from.
    pub source: Source,
    /// What was acted on, when it is no key: its kind and name, for example `role/app`.
    pub target: Option<&'a str>,
}

impl Event<'_> {
    /// Whether it is of the few that are allowed while the log cannot be written: they are kept
    /// until it can be.
    #[must_use]
    pub fn is_essential(&self) -> bool {
        matches!(self.action, "sys:Unseal" | "sys:Seal" | AUDIT_REFUSES | AUDIT_RESUMES)
    }
}

/// Who speaks in records that the log makes about itself.
pub const AUDIT_LOG: &str = "system:audit";
/// The log takes no more records.
pub const AUDIT_REFUSES: &str = "audit:Refuse";
/// The log takes records again.
pub const AUDIT_RESUMES: &str = "audit:Resume";
/// Attempts to come in were counted instead of recorded one by one.
pub const AUDIT_SUMS: &str = "audit:Sum";
/// Old records were removed.
pub const AUDIT_PRUNES: &str = "audit:Prune";
