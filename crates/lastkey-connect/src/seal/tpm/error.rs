//! What can be wrong with a TPM, and what a person does next.
//!
//! Room      `connect`.
//! Source    TCG TPM 2.0 Library, part 2, 6.6 (response codes).

use std::io;

use lastkey_core::ports::SealDeviceError;

use crate::seal::wire::Malformed;

/// Why a TPM did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// There is no way to it, or it broke.
    #[error("the TPM cannot be reached")]
    Link(#[source] io::Error),
    /// Its answer does not parse.
    #[error("the TPM's answer is malformed")]
    Malformed,
    /// Its answer was changed on the way, or comes from another TPM.
    #[error("the TPM's answer was changed on the way")]
    Forged,
    /// The cryptographic library refused.
    #[error("a cryptographic step failed")]
    Crypto,
    /// It refused a command.
    #[error("the TPM refused command {command:#x} with {status:#x}")]
    Refused {
        /// The command.
        command: u32,
        /// The response code.
        status: u32,
    },
    /// It has no bank of SHA-256 for this register.
    #[error("the TPM has no SHA-256 value of PCR {0}")]
    NoRegister(u8),
    /// Its storage key is another than the pinned one.
    #[error("this is another TPM, or it was cleared")]
    OtherTpm,
    /// The registers are not as they were when it was sealed.
    #[error("the registers of the TPM (PCRs) are not as they were when this was sealed")]
    OtherState,
    /// No approval fits the registers.
    #[error("the registers of the TPM (PCRs) are as in no approval")]
    NotApproved,
    /// The approval that fits was made void by a newer one.
    #[error("the approval of this state was replaced by a newer one")]
    ApprovalTooOld,
}

impl From<Malformed> for TpmError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Format-one codes carry the number of a parameter, handle or session beside the code.
const fn plain(status: u32) -> u32 {
    if status & 0x80 == 0 { status } else { status & 0xbf }
}

impl TpmError {
    /// Whether the TPM refused with this response code, whatever it was about.
    pub(super) fn is_refusal(&self, wanted: u32) -> bool {
        matches!(self, Self::Refused { status, .. } if plain(*status) == wanted)
    }
}

/// A policy does not hold: `TPM_RC_POLICY`, from a comparison with a counter.
pub(super) const RC_POLICY: u32 = 0x126;
/// `TPM_RC_POLICY_FAIL`: what the session has gathered is another policy than the object's.
pub(super) const RC_POLICY_FAIL: u32 = 0x9d;
/// `TPM_RC_HANDLE`: nothing is there.
pub(super) const RC_HANDLE: u32 = 0x8b;
/// `TPM_RC_NV_DEFINED`: the index is taken.
pub(super) const RC_NV_DEFINED: u32 = 0x14c;
const RC_LOCKOUT: u32 = 0x921;
const RC_AUTH_FAIL: u32 = 0x8e;
const RC_BAD_AUTH: u32 = 0xa2;
const RC_INTEGRITY: u32 = 0x9f;
/// Warnings: no room for a moment, not started, or writes come too fast.
const MAY_PASS: [u32; 6] = [0x100, 0x902, 0x903, 0x908, 0x920, 0x923];

const APPROVE: &str = "boot the approved system, or approve this one: `lastkey seal tpm2 state`, \
                       then `lastkey seal tpm2 approve` with the approval key";
const OWNER: &str = "the TPM's owner hierarchy has a password, which is not supported; clear it";
const LOCKOUT: &str = "the TPM is in dictionary-attack lockout; wait, or end it by \
                       `tpm2_dictionarylockout --clear-lockout`";

impl From<TpmError> for SealDeviceError {
    fn from(error: TpmError) -> Self {
        match &error {
            TpmError::Link(_) => Self::Away(error.into()),
            TpmError::OtherTpm => Self::NotThisDevice,
            TpmError::NotApproved | TpmError::ApprovalTooOld => {
                Self::StateChanged { next: APPROVE }
            }
            TpmError::Refused { status, .. } => match plain(*status) {
                RC_LOCKOUT => Self::PinLocked { next: LOCKOUT },
                RC_AUTH_FAIL | RC_BAD_AUTH => Self::PinLocked { next: OWNER },
                RC_INTEGRITY => Self::NotThisDevice,
                code if MAY_PASS.contains(&code) => Self::Away(error.into()),
                _ => Self::Failed(error.into()),
            },
            TpmError::Malformed
            | TpmError::Forged
            | TpmError::Crypto
            | TpmError::NoRegister(_)
            | TpmError::OtherState => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_known_whatever_they_are_about() {
        let refused = |status| TpmError::Refused { command: 0x15e, status };
        assert!(refused(0x18b).is_refusal(RC_HANDLE));
        assert!(refused(0x28b).is_refusal(RC_HANDLE));
        assert!(refused(0x1cb).is_refusal(RC_HANDLE));
        assert!(refused(0x126).is_refusal(RC_POLICY));
        assert!(!refused(0x127).is_refusal(RC_POLICY));
    }

    #[test]
    fn warnings_may_pass_and_lockout_does_not() {
        let of = |status| SealDeviceError::from(TpmError::Refused { command: 0x15e, status });
        assert!(of(0x923).may_pass());
        assert!(matches!(of(0x921), SealDeviceError::PinLocked { .. }));
        assert!(matches!(of(0x1df), SealDeviceError::NotThisDevice));
        assert!(matches!(of(0x101), SealDeviceError::Failed(_)));
    }
}
