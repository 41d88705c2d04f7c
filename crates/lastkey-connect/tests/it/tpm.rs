//! The TPM seal, over a software TPM.

use std::path::Path;
use std::sync::Arc;

use lastkey_connect::seal::tpm::{
    APPROVAL_SETTING, Approval, ApprovalKey, MeasureError, State, TCTI_SETTING, Tcti, Tpm2Seal,
    TpmError, attest, attestation_key, forget, measure, seal_here, unseal_here,
};
use lastkey_core::ports::{DeviceSettings, EntropySource, SealDevice as _, SealDeviceError};
use lastkey_crypto::entropy::{Entropy, EntropyError, SystemEntropy};
use lastkey_secret::SecretArray;

use crate::is_installed;
use crate::mischief::{Interposer, clear, leave_sessions_behind, lock_out};
use crate::swtpm::Swtpm;

const SECRET: [u8; 32] = [0xa5; 32];
const AAD: &[u8] = b"this seal of this installation";

#[derive(Clone, Copy)]
struct Machine;

impl EntropySource for Machine {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(SystemEntropy)
    }
}

/// Draws the same byte again and again, so that a test knows the key.
struct Same(u8);

impl Entropy for Same {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(self.0);
        Ok(())
    }
}

impl EntropySource for Same {
    fn open(&self) -> Box<dyn Entropy + Send> {
        Box::new(Self(self.0))
    }
}

fn seal_of(tcti: &Tcti, approval: &Approval, approvals: Option<&Path>) -> Tpm2Seal {
    let settings = DeviceSettings::from([
        (TCTI_SETTING.to_owned(), tcti.to_string()),
        (APPROVAL_SETTING.to_owned(), approval.to_json()),
    ]);
    Tpm2Seal::open(&settings, approvals.map(Path::to_owned), Arc::new(Machine)).unwrap()
}

/// A TPM with a seal in it that is approved for the state it is in.
struct Sealed {
    tpm: Swtpm,
    key: ApprovalKey,
    state: State,
    approval: Approval,
    wrapped: Vec<u8>,
}

impl Sealed {
    async fn make() -> Option<Self> {
        if !is_installed("swtpm") {
            return None;
        }
        let tpm = Swtpm::start();
        let (key, _) = ApprovalKey::generate().unwrap();
        let state = measure(&tpm.tcti(), &[7, 11], None, &mut SystemEntropy).unwrap();
        let approval = key.approve(&state, state.counter(), state.counter()).unwrap();
        let seal = seal_of(&tpm.tcti(), &approval, None);
        let wrapped = seal.wrap(AAD, &SecretArray::copy_of(&SECRET)).await.unwrap();
        Some(Self { tpm, key, state, approval, wrapped })
    }

    fn seal(&self) -> Tpm2Seal {
        seal_of(&self.tpm.tcti(), &self.approval, None)
    }

    async fn opens(&self, seal: &Tpm2Seal) -> Result<(), SealDeviceError> {
        let secret = seal.unwrap(AAD, &self.wrapped).await?;
        assert!(secret.expose(|bytes| *bytes == SECRET));
        Ok(())
    }
}

#[tokio::test]
async fn tpm_opens_what_it_wrapped_and_nothing_else() {
    let Some(sealed) = Sealed::make().await else { return };
    let seal = sealed.seal();
    sealed.opens(&seal).await.unwrap();
    let other = seal.unwrap(b"another seal", &sealed.wrapped).await;
    assert!(matches!(other, Err(SealDeviceError::NotThisDevice)), "{other:?}");
    for place in [0, 1, 40, 150, 250, sealed.wrapped.len() - 1] {
        let mut bad = sealed.wrapped.clone();
        bad[place] ^= 1;
        seal.unwrap(AAD, &bad).await.unwrap_err();
    }
    for len in 0..sealed.wrapped.len() / 8 {
        seal.unwrap(AAD, &sealed.wrapped[..len * 8]).await.unwrap_err();
    }
    sealed.opens(&seal).await.unwrap();
}

#[tokio::test]
async fn tpm_opens_after_a_reboot_into_the_same_state() {
    let Some(mut sealed) = Sealed::make().await else { return };
    sealed.tpm.reboot();
    sealed.opens(&sealed.seal()).await.unwrap();
}

#[tokio::test]
async fn changed_registers_close_it_and_an_approval_opens_it_and_ends_older_ones() {
    let Some(mut sealed) = Sealed::make().await else { return };
    let approvals = tempfile::tempdir().unwrap();
    let seal = seal_of(&sealed.tpm.tcti(), &sealed.approval, Some(approvals.path()));
    sealed.tpm.extend(11);
    let closed = sealed.opens(&seal).await;
    assert!(matches!(closed, Err(SealDeviceError::StateChanged { .. })), "{closed:?}");

    // What is not of this seal, not signed, or no approval at all changes nothing.
    let anchor = Some(sealed.state.anchor());
    let state = measure(&sealed.tpm.tcti(), &[7, 11], anchor, &mut SystemEntropy).unwrap();
    let stranger = ApprovalKey::generate().unwrap().0.approve(&state, 300, 1);
    assert!(stranger.is_err(), "far above the counter");
    let version = state.counter() + 1;
    let stranger = ApprovalKey::generate().unwrap().0.approve(&state, version, version).unwrap();
    std::fs::write(approvals.path().join("stranger.json"), stranger.to_json()).unwrap();
    std::fs::write(approvals.path().join("broken.json"), "{").unwrap();
    sealed.opens(&seal).await.unwrap_err();

    let approval = sealed.key.approve(&state, version, version).unwrap();
    std::fs::write(approvals.path().join("update.json"), approval.to_json()).unwrap();
    sealed.opens(&seal).await.unwrap();

    // Back to the system of before: its approval is void.
    sealed.tpm.reboot();
    let old = sealed.opens(&seal).await;
    assert!(matches!(old, Err(SealDeviceError::StateChanged { .. })), "{old:?}");
    sealed.tpm.extend(11);
    sealed.opens(&seal).await.unwrap();
}

#[tokio::test]
async fn approval_that_keeps_older_ones_leaves_them_good() {
    let Some(mut sealed) = Sealed::make().await else { return };
    let approvals = tempfile::tempdir().unwrap();
    let seal = seal_of(&sealed.tpm.tcti(), &sealed.approval, Some(approvals.path()));
    sealed.tpm.extend(7);
    let anchor = Some(sealed.state.anchor());
    let state = measure(&sealed.tpm.tcti(), &[7, 11], anchor, &mut SystemEntropy).unwrap();
    let approval = sealed.key.approve(&state, state.counter() + 1, state.counter()).unwrap();
    std::fs::write(approvals.path().join("update.json"), approval.to_json()).unwrap();
    sealed.opens(&seal).await.unwrap();
    sealed.tpm.reboot();
    sealed.opens(&seal).await.unwrap();
}

#[tokio::test]
async fn another_tpm_and_a_cleared_one_do_not_open_it() {
    let Some(sealed) = Sealed::make().await else { return };
    let other = Swtpm::start();
    let elsewhere = sealed.opens(&seal_of(&other.tcti(), &sealed.approval, None)).await;
    assert!(matches!(elsewhere, Err(SealDeviceError::NotThisDevice)), "{elsewhere:?}");
    measure(&other.tcti(), &[7], Some(sealed.state.anchor()), &mut SystemEntropy).unwrap_err();
    clear(&sealed.tpm);
    let cleared = sealed.opens(&sealed.seal()).await;
    assert!(matches!(cleared, Err(SealDeviceError::NotThisDevice)), "{cleared:?}");
}

#[tokio::test]
async fn tpm_that_is_away_may_come_back() {
    let Some(mut sealed) = Sealed::make().await else { return };
    sealed.tpm.stop();
    let away = sealed.opens(&sealed.seal()).await.unwrap_err();
    assert!(away.may_pass(), "{away:?}");
    sealed.tpm.reboot();
    sealed.opens(&sealed.seal()).await.unwrap();
}

#[tokio::test]
async fn lockout_and_slots_left_full_do_not_keep_it_closed() {
    let Some(sealed) = Sealed::make().await else { return };
    lock_out(&sealed.tpm);
    sealed.opens(&sealed.seal()).await.unwrap();
    leave_sessions_behind(&sealed.tpm);
    sealed.opens(&sealed.seal()).await.unwrap();
}

#[tokio::test]
async fn counter_that_was_taken_away_closes_it_for_good() {
    let Some(sealed) = Sealed::make().await else { return };
    forget(&sealed.tpm.tcti(), sealed.state.anchor()).unwrap();
    sealed.opens(&sealed.seal()).await.unwrap_err();
}

#[tokio::test]
async fn who_sits_on_the_wire_hears_no_key() {
    let Some(sealed) = Sealed::make().await else { return };
    let wire = Interposer::start(&sealed.tpm, |_, _| ());
    let settings = DeviceSettings::from([
        (TCTI_SETTING.to_owned(), wire.tcti().to_string()),
        (APPROVAL_SETTING.to_owned(), sealed.approval.to_json()),
    ]);
    let seal = Tpm2Seal::open(&settings, None, Arc::new(Same(0x5a))).unwrap();
    let wrapped = seal.wrap(AAD, &SecretArray::copy_of(&SECRET)).await.unwrap();
    let opened = seal.unwrap(AAD, &wrapped).await.unwrap();
    assert!(opened.expose(|bytes| *bytes == SECRET));
    // The wire is heard at all: the private part passes as it lies in storage.
    assert!(wire.heard(&wrapped[100..150]));
    assert!(!wire.heard(&[0x5a; 16]), "the sealed key passes in the clear");
    assert!(!wire.heard(&SECRET[..16]));
}

#[tokio::test]
async fn answer_that_was_changed_on_the_wire_is_refused() {
    let Some(sealed) = Sealed::make().await else { return };
    for code in [0x131, 0x157, 0x15e] {
        let wire = Interposer::start(&sealed.tpm, move |command, answer| {
            if command == code {
                // The first byte of the first buffer among the parameters.
                let parameters = if code == 0x15e { 14 } else { 18 };
                answer[parameters + 2] ^= 1;
            }
        });
        let changed = seal_of(&wire.tcti(), &sealed.approval, None);
        let refused = sealed.opens(&changed).await;
        assert!(refused.is_err(), "{code:#x}");
    }
    sealed.opens(&sealed.seal()).await.unwrap();
}

#[test]
fn what_is_sealed_here_opens_here_and_in_this_state_alone() {
    if !is_installed("swtpm") {
        return;
    }
    let secret = SecretArray::copy_of(&SECRET);
    let mut tpm = Swtpm::start();
    let sealed = seal_here(&tpm.tcti(), &[7, 11], &secret).unwrap();
    assert!(unseal_here(&tpm.tcti(), &sealed).unwrap().ct_eq(&secret));
    tpm.reboot();
    assert!(unseal_here(&tpm.tcti(), &sealed).unwrap().ct_eq(&secret));
    tpm.extend(11);
    assert!(matches!(unseal_here(&tpm.tcti(), &sealed), Err(TpmError::OtherState)));
    tpm.reboot();
    // Registers that are not named may change.
    tpm.extend(4);
    assert!(unseal_here(&tpm.tcti(), &sealed).unwrap().ct_eq(&secret));
    let other = Swtpm::start();
    assert!(matches!(unseal_here(&other.tcti(), &sealed), Err(TpmError::OtherTpm)));
    for len in 0..sealed.len() {
        assert!(unseal_here(&tpm.tcti(), &sealed[..len]).is_err(), "{len}");
    }
    assert!(matches!(seal_here(&tpm.tcti(), &[], &secret), Err(MeasureError::Registers(_))));
    assert!(matches!(seal_here(&tpm.tcti(), &[16], &secret), Err(MeasureError::Registers(_))));
}

#[test]
fn attestation_key_is_the_same_one_each_time_and_another_on_another_machine() {
    if !is_installed("swtpm") {
        return;
    }
    let (mut own, other) = (Swtpm::start(), Swtpm::start());
    let key = attestation_key(&own.tcti()).unwrap();
    let said = attest(&own.tcti(), &[0x5a; 32]).unwrap();
    assert_eq!(said.public, key);
    assert!(said.attestation.windows(32).any(|part| part == [0x5a; 32]));
    own.reboot();
    assert_eq!(attestation_key(&own.tcti()).unwrap(), key);
    clear(&own);
    assert_eq!(attestation_key(&own.tcti()).unwrap(), key);
    assert_ne!(attestation_key(&other.tcti()).unwrap(), key);
    // The same seed and another signature: what was said for one request is not said for the next.
    assert_ne!(attest(&own.tcti(), &[0x5b; 32]).unwrap().attestation, said.attestation);
}
