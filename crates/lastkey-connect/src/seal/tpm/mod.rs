//! A seal by the TPM of the machine: it opens by itself, on this machine, in an approved state.
//!
//! Room      `connect`. Speaks to the TPM itself: no library of anybody is loaded.
//! Source    docs/formats/device-seals.md; TCG TPM 2.0 Library.
//! Holds     the key that wraps leaves the TPM only through a session that the pinned TPM alone
//!           can follow, and only while the registers are as in an approval that is signed by
//!           the operator's offline key and not below the TPM's counter.

mod approval;
mod attest;
mod commands;
mod device;
mod error;
mod here;
mod session;
mod tcti;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::ports::{DeviceKind, DeviceSettings, EntropySource, SealDevice, SealDeviceError};
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretArray;

pub use self::approval::{Anchor, Approval, ApprovalError, ApprovalKey, State};
pub use self::attest::{Attested, attest, attestation_key};
use self::commands::{Primary, Sealed};
use self::device::Tpm;
use self::error::RC_POLICY;
pub use self::error::TpmError;
pub use self::here::{seal_here, unseal_here};
use self::session::{Purpose, Session};
pub use self::tcti::{Tcti, TctiError};
use super::wire::{In, Out};
use super::{blocking, close, draw_key, open, refused};

/// The setting with the way to the TPM.
pub const TCTI_SETTING: &str = "tcti";
/// The setting with the first approval.
pub const APPROVAL_SETTING: &str = "approval";

const VERSION: u8 = 1;
/// Where counters lie: the range of NV indices that belongs to the owner.
const COUNTERS: u32 = 0x0181_0000;
/// Longest approval file, in bytes.
const MAX_APPROVAL_LEN: u64 = 16_384;

/// Why a TPM cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The registers.
    #[error(transparent)]
    Registers(#[from] ApprovalError),
    /// No randomness.
    #[error("no randomness available")]
    Entropy,
    /// The counter of a seal is gone.
    #[error("the TPM has no counter {0:#x}: it was cleared, or is another one")]
    NoCounter(u32),
    /// The TPM gave no counter.
    #[error("the TPM gave no free index for a counter")]
    NoIndex,
}

/// Reads what is to be approved. Without `anchor` a new seal is prepared: the TPM gets a counter.
///
/// # Errors
/// [`MeasureError`].
pub fn measure(
    tcti: &Tcti,
    registers: &[u8],
    anchor: Option<&Anchor>,
    entropy: &mut dyn Entropy,
) -> Result<State, MeasureError> {
    approval::check_registers(registers.iter().copied())?;
    let mut tpm = Tpm::connect(tcti)?;
    let primary = commands::create_primary(&mut tpm)?;
    let anchor = match anchor {
        Some(anchor) if anchor.parent() != &primary.name => return Err(TpmError::OtherTpm.into()),
        Some(anchor) => anchor.clone(),
        None => {
            let mut salt = [0; 16];
            entropy.fill(&mut salt).map_err(|_| MeasureError::Entropy)?;
            Anchor::new(primary.name, new_counter(&mut tpm, entropy)?, salt)
        }
    };
    let index = anchor.counter_index();
    let counter = commands::read_counter(&mut tpm, index)?;
    let counter = counter.ok_or(MeasureError::NoCounter(index))?;
    let mut pcrs = BTreeMap::new();
    for register in registers {
        pcrs.insert(*register, commands::read_register(&mut tpm, *register)?);
    }
    Ok(State::new(anchor, counter, pcrs))
}

fn new_counter(tpm: &mut Tpm, entropy: &mut dyn Entropy) -> Result<u32, MeasureError> {
    for _ in 0..16 {
        let mut low = [0; 2];
        entropy.fill(&mut low).map_err(|_| MeasureError::Entropy)?;
        let index = COUNTERS | u32::from(u16::from_be_bytes(low));
        if commands::define_counter(tpm, index)?.is_some() {
            return Ok(index);
        }
    }
    Err(MeasureError::NoIndex)
}

/// Gives the counter of a seal back to the TPM. The seal never opens again.
///
/// # Errors
/// [`TpmError`].
pub fn forget(tcti: &Tcti, anchor: &Anchor) -> Result<(), TpmError> {
    commands::remove_counter(&mut Tpm::connect(tcti)?, anchor.counter_index())
}

/// A seal by a TPM.
#[derive(Clone)]
pub struct Tpm2Seal {
    tcti: Tcti,
    first: Approval,
    approvals: Option<PathBuf>,
    entropy: Arc<dyn EntropySource>,
}

impl Tpm2Seal {
    /// The seal of these settings. Further approvals are files (`*.json`) in `approvals`.
    ///
    /// # Errors
    /// [`SealDeviceError::Settings`].
    pub fn open(
        settings: &DeviceSettings,
        approvals: Option<PathBuf>,
        entropy: Arc<dyn EntropySource>,
    ) -> Result<Self, SealDeviceError> {
        let setting =
            |name: &str| settings.get(name).ok_or_else(|| refused(format!("{name} is missing")));
        let tcti = setting(TCTI_SETTING)?
            .parse()
            .map_err(|error: TctiError| refused(error.to_string()))?;
        let first = Approval::parse(setting(APPROVAL_SETTING)?);
        let first = first.map_err(|error| refused(error.to_string()))?;
        Ok(Self { tcti, first, approvals, entropy })
    }

    fn connect(&self) -> Result<(Tpm, Primary), TpmError> {
        let mut tpm = Tpm::connect(&self.tcti)?;
        let primary = commands::create_primary(&mut tpm)?;
        if &primary.name == self.first.anchor().parent() {
            Ok((tpm, primary))
        } else {
            Err(TpmError::OtherTpm)
        }
    }

    fn wrap_now(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError> {
        let mut entropy = self.entropy.open();
        let key = draw_key(&mut *entropy)?;
        let (mut tpm, primary) = self.connect()?;
        let policy = self.first.seal_policy();
        let (public, private) = commands::create_sealed(&mut tpm, &primary, &policy, &key)?;
        let front = Out::default().u8(VERSION).sized(&public).sized(&private).done();
        close(front, aad, &key, secret, &mut *entropy)
    }

    fn unwrap_now(&self, aad: &[u8], stored: &[u8]) -> Result<SecretArray<32>, SealDeviceError> {
        let Stored { sealed, front, wrapped } =
            Stored::parse(stored).ok_or(SealDeviceError::NotThisDevice)?;
        let (mut tpm, primary) = self.connect()?;
        let (approval, policy) = self.satisfy(&mut tpm, &primary)?;
        let key = commands::unseal(&mut tpm, &primary, &sealed, policy)?;
        raise_counter(&mut tpm, &approval);
        open(front, wrapped, aad, &key)
    }

    /// Finds an approval of the state that the machine is in, and has the TPM believe it.
    fn satisfy(&self, tpm: &mut Tpm, primary: &Primary) -> Result<(Approval, Session), TpmError> {
        let mut refusal = TpmError::NotApproved;
        for approval in self.approvals() {
            if digest_of(tpm, approval.pcrs())? != *approval.pcr_digest() {
                continue;
            }
            match try_approval(tpm, primary, &approval) {
                Ok(session) => return Ok((approval, session)),
                Err(error) if error.is_refusal(RC_POLICY) => refusal = TpmError::ApprovalTooOld,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// All approvals of this seal, the newest first.
    fn approvals(&self) -> Vec<Approval> {
        let mut all = vec![self.first.clone()];
        let files = self.approvals.as_deref().map(files_in).unwrap_or_default();
        all.extend(files.iter().filter_map(|path| match read_approval(path) {
            Ok(approval) => approval.is_of_same_seal(&self.first).then_some(approval),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "an approval of the TPM seal cannot be used");
                None
            }
        }));
        all.sort_by_key(|approval| std::cmp::Reverse(approval.version()));
        all
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

fn read_approval(path: &Path) -> Result<Approval, ApprovalReadError> {
    if std::fs::metadata(path)?.len() > MAX_APPROVAL_LEN {
        return Err(ApprovalReadError::TooLong);
    }
    Ok(Approval::parse(&std::fs::read_to_string(path)?)?)
}

#[derive(Debug, thiserror::Error)]
enum ApprovalReadError {
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is longer than an approval")]
    TooLong,
    #[error(transparent)]
    Content(#[from] ApprovalError),
}

fn digest_of(tpm: &mut Tpm, registers: &[u8]) -> Result<[u8; 32], TpmError> {
    let sorted: std::collections::BTreeSet<_> = registers.iter().copied().collect();
    let mut values = Vec::with_capacity(sorted.len() * 32);
    for register in sorted {
        values.extend_from_slice(&commands::read_register(tpm, register)?);
    }
    Ok(lastkey_crypto::digest::sha256(&values))
}

fn try_approval(
    tpm: &mut Tpm,
    primary: &Primary,
    approval: &Approval,
) -> Result<Session, TpmError> {
    let session = primary.session(tpm, Purpose::Policy)?;
    commands::policy_pcr(tpm, &session, &approval.selection(), approval.pcr_digest())?;
    let index = approval.anchor().counter_index();
    commands::policy_counter(tpm, &session, index, approval.version())?;
    let (policy, reference) = (approval.policy(), approval.anchor().reference());
    let digest = lastkey_crypto::digest::sha256_of(&[&policy, &reference]);
    let ticket = commands::verify_signature(tpm, approval.key(), &digest, approval.signature())?;
    let key = approval.key_name();
    commands::policy_authorize(tpm, &session, (&policy, &reference), (&key, &ticket))?;
    Ok(session)
}

/// Makes older approvals void, now that this one has opened the seal. The seal is open: what
/// goes wrong here is said, and tried again at the next opening.
fn raise_counter(tpm: &mut Tpm, approval: &Approval) {
    let index = approval.anchor().counter_index();
    let raised = commands::read_counter(tpm, index).and_then(|counter| {
        let counter = counter.unwrap_or(u64::MAX);
        // A parsed approval may ask for any minimum; a step is a write to memory that wears out.
        for _ in (counter..approval.minimum()).take(approval::MAX_STEPS) {
            commands::increment_counter(tpm, index)?;
        }
        Ok(())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the TPM's counter of approved versions cannot be raised");
    }
}

/// Whether these bytes have the form of what [`Tpm2Seal`] wraps.
pub(super) fn is_stored(bytes: &[u8]) -> bool {
    Stored::parse(bytes).is_some_and(|stored| [stored.front, stored.wrapped].concat() == bytes)
}

/// The parts of what [`Tpm2Seal`] wrapped.
struct Stored<'a> {
    sealed: Sealed<'a>,
    front: &'a [u8],
    wrapped: &'a [u8],
}

impl<'a> Stored<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = In::new(bytes);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let (public, private) = (reader.sized().ok()?, reader.sized().ok()?);
        let wrapped = reader.rest();
        let front = bytes.get(..bytes.len().checked_sub(wrapped.len())?)?;
        Some(Self { sealed: Sealed { public, private }, front, wrapped })
    }
}

#[async_trait]
impl SealDevice for Tpm2Seal {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Tpm2
    }

    async fn wrap(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError> {
        let (seal, aad) = (self.clone(), aad.to_vec());
        let secret = secret.expose(SecretArray::copy_of);
        blocking(move || seal.wrap_now(&aad, &secret)).await
    }

    async fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<SecretArray<32>, SealDeviceError> {
        let (seal, aad, wrapped) = (self.clone(), aad.to_vec(), wrapped.to_vec());
        blocking(move || seal.unwrap_now(&aad, &wrapped)).await
    }
}
