//! Why a token was refused: a word for the audit log, one sentence for everybody else.
//!
//! Room      `trust`.
//! Holds     The words are stable: searches and alarms stand on them. `Display` does not tell
//!           the reasons apart.

/// Why a token, certificate or login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the presented credential is not valid")]
pub enum Refusal {
    /// Longer than 20,000 bytes.
    TooLong,
    /// Not a compact JWS, not canonical base64url, not JSON, or a member named twice.
    Malformed,
    /// A header member that changes how a token is verified, or that is not known.
    HeaderNotAllowed,
    /// `none`, a MAC, or an algorithm that is not known.
    AlgorithmNotAllowed,
    /// No key of this id: the caller may fetch the keys again, rarely.
    UnknownKey,
    /// The algorithm is not the one of the key.
    AlgorithmMismatch,
    /// The signature is not one of this key.
    BadSignature,
    /// The issuer is not one that is trusted here.
    IssuerNotTrusted,
    /// None of our audiences is named, or there is no audience.
    AudienceMissing,
    /// Somebody else is named as an audience too, or a forbidden audience is.
    AudienceForeign,
    /// `exp`, `nbf` or `iat` is missing or not a number.
    TimeMissing,
    /// Past its end.
    Expired,
    /// Before its begin, or issued in the future.
    NotYetValid,
    /// Valid for longer than is allowed, or for no time at all.
    LifetimeTooLong,
    /// The subject is not of the expected form.
    SubjectMalformed,
    /// The subject and the claims beside it name different things.
    SubjectMismatch,
    /// Bound to no pod.
    PodMissing,
    /// Bound to a node and no pod: whoever has it is no workload of that node.
    NodeBound,
    /// Bound to a Secret object.
    SecretBound,
    /// The claims of a token from before bound tokens.
    LegacyToken,
    /// A claim that is asked for is missing or of another kind.
    ClaimMissing,
    /// A claim has another value than is asked for.
    ClaimMismatch,
    /// The nonce or state is not the one of this login.
    NonceMismatch,
    /// A certificate without the one URI name that is asked for.
    NameMissing,
    /// A certificate whose key is for something else.
    UsageNotAllowed,
    /// A name of another trust domain.
    TrustDomainMismatch,
}

impl Refusal {
    /// Whether a token that is refused for this bore a signature that was verified: whoever shows
    /// it has something of an issuer that is trusted. Of certificates it says nothing.
    #[must_use]
    pub const fn is_after_signature(self) -> bool {
        !matches!(
            self,
            Self::TooLong
                | Self::Malformed
                | Self::HeaderNotAllowed
                | Self::AlgorithmNotAllowed
                | Self::UnknownKey
                | Self::AlgorithmMismatch
                | Self::BadSignature
        )
    }

    /// The word for the audit log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::HeaderNotAllowed => "header_not_allowed",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::UnknownKey => "unknown_key",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::BadSignature => "bad_signature",
            Self::IssuerNotTrusted => "issuer_not_trusted",
            Self::AudienceMissing => "audience_missing",
            Self::AudienceForeign => "audience_foreign",
            Self::TimeMissing => "time_missing",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::SubjectMalformed => "subject_malformed",
            Self::SubjectMismatch => "subject_mismatch",
            Self::PodMissing => "pod_missing",
            Self::NodeBound => "node_bound",
            Self::SecretBound => "secret_bound",
            Self::LegacyToken => "legacy_token",
            Self::ClaimMissing => "claim_missing",
            Self::ClaimMismatch => "claim_mismatch",
            Self::NonceMismatch => "nonce_mismatch",
            Self::NameMissing => "name_missing",
            Self::UsageNotAllowed => "usage_not_allowed",
            Self::TrustDomainMismatch => "trust_domain_mismatch",
        }
    }
}
