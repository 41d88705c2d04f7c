//! The seal of a security module, over SoftHSM2.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lastkey_connect::seal::pkcs11::{
    HostOptions, KEY_SETTING, MECHANISM_SETTING, MODULE_SETTING, PIN_FILE_SETTING, Pkcs11Seal,
    TOKEN_SETTING,
};
use lastkey_core::ports::{DeviceSettings, SealDevice as _, SealDeviceError};
use lastkey_secret::SecretArray;
use lastkey_testkit::entropy::SeededSource;

use crate::is_installed;
use crate::softhsm::{SoftHsm, TOKEN};

const SECRET: [u8; 32] = [0xa5; 32];
const AAD: &[u8] = b"this seal of this installation";

/// A token, and a host that finds it.
fn softhsm() -> Option<SoftHsm> {
    let hsm = is_installed("softhsm2-util").then(SoftHsm::start)?;
    // A module takes its settings from the environment, which belongs to all tests.
    let host = format!(
        "#!/bin/sh\nSOFTHSM2_CONF='{}' exec '{}'\n",
        hsm.path("softhsm2.conf").display(),
        env!("CARGO_BIN_EXE_lastkey-pkcs11")
    );
    write_host(&hsm, &host);
    Some(hsm)
}

/// By another process: a program that this one has open to write cannot be started.
fn write_host(hsm: &SoftHsm, script: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", script]);
    assert!(shell.arg(hsm.path("host")).status().unwrap().success());
}

fn host(hsm: &SoftHsm) -> HostOptions {
    let (program, memory) = (hsm.path("host"), hsm.path("memory"));
    HostOptions { program, trusted: vec![SoftHsm::module()], memory }
}

fn settings(hsm: &SoftHsm) -> DeviceSettings {
    DeviceSettings::from([
        (MODULE_SETTING.to_owned(), SoftHsm::module().display().to_string()),
        (TOKEN_SETTING.to_owned(), TOKEN.to_owned()),
        (PIN_FILE_SETTING.to_owned(), hsm.path("pin").display().to_string()),
        (KEY_SETTING.to_owned(), "0123456789abcdef0123456789abcdef".to_owned()),
    ])
}

fn open(settings: &DeviceSettings, host: HostOptions) -> Result<Pkcs11Seal, SealDeviceError> {
    Pkcs11Seal::open(settings, host, Arc::new(SeededSource::new(1)))
}

fn seal_with(hsm: &SoftHsm, name: &str, value: impl AsRef<Path>) -> Pkcs11Seal {
    let mut settings = settings(hsm);
    settings.insert(name.to_owned(), value.as_ref().display().to_string());
    open(&settings, host(hsm)).unwrap()
}

async fn wrap(seal: &Pkcs11Seal) -> Vec<u8> {
    seal.wrap(AAD, &SecretArray::copy_of(&SECRET)).await.unwrap()
}

async fn opens(seal: &Pkcs11Seal, wrapped: &[u8]) -> Result<(), SealDeviceError> {
    let secret = seal.unwrap(AAD, wrapped).await?;
    assert!(secret.expose(|bytes| *bytes == SECRET));
    Ok(())
}

#[tokio::test]
async fn token_opens_what_it_wrapped_and_nothing_else() {
    let Some(hsm) = softhsm() else { return };
    let seal = open(&settings(&hsm), host(&hsm)).unwrap();
    let wrapped = wrap(&seal).await;
    opens(&seal, &wrapped).await.unwrap();
    let other = seal.unwrap(b"another seal", &wrapped).await;
    assert!(matches!(other, Err(SealDeviceError::NotThisDevice)), "{other:?}");
    for place in [0, 1, 5, 30, wrapped.len() - 1] {
        let mut bad = wrapped.clone();
        bad[place] ^= 1;
        opens(&seal, &bad).await.unwrap_err();
    }
    for len in [0, 1, 17, 40, wrapped.len() - 1] {
        opens(&seal, &wrapped[..len]).await.unwrap_err();
    }
}

#[tokio::test]
async fn every_mechanism_wraps_and_is_recorded() {
    let Some(hsm) = softhsm() else { return };
    // SoftHSM2 has OAEP by SHA-1 only.
    for (word, number) in [("aes-key-wrap", 1), ("rsa-oaep-sha1", 3), ("aes-gcm", 4)] {
        let seal = seal_with(&hsm, MECHANISM_SETTING, word);
        let wrapped = wrap(&seal).await;
        assert_eq!(wrapped[1], number, "{word}");
        // What is stored says how it was wrapped, whatever is asked for by now.
        opens(&open(&settings(&hsm), host(&hsm)).unwrap(), &wrapped).await.unwrap();
    }
}

#[tokio::test]
async fn another_token_does_not_open_it() {
    let Some((hsm, other)) = softhsm().zip(softhsm()) else { return };
    let wrapped = wrap(&open(&settings(&hsm), host(&hsm)).unwrap()).await;
    let elsewhere = opens(&open(&settings(&other), host(&other)).unwrap(), &wrapped).await;
    assert!(matches!(elsewhere, Err(SealDeviceError::NotThisDevice)), "{elsewhere:?}");
}

#[tokio::test]
async fn wrong_pin_is_tried_once_until_its_file_changes() {
    let Some(hsm) = softhsm() else { return };
    let wrapped = wrap(&open(&settings(&hsm), host(&hsm)).unwrap()).await;
    let counted = hsm.path("counted");
    let script = std::fs::read_to_string(hsm.path("host")).unwrap();
    let counting =
        script.replace("#!/bin/sh\n", &format!("#!/bin/sh\necho >>{}\n", counted.display()));
    write_host(&hsm, &counting);
    let attempts = || std::fs::read(&counted).map_or(0, |lines| lines.len());

    hsm.write_pin("pin", "999999");
    for _ in 0..3 {
        // A server that is restarted opens its devices anew.
        let refused = opens(&open(&settings(&hsm), host(&hsm)).unwrap(), &wrapped).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, SealDeviceError::PinLocked { .. }), "{refused:?}");
        assert!(!refused.may_pass());
        assert_eq!(attempts(), 1, "the wrong PIN was tried again");
    }
    hsm.write_pin("pin", crate::softhsm::PIN);
    opens(&open(&settings(&hsm), host(&hsm)).unwrap(), &wrapped).await.unwrap();
    assert_eq!(attempts(), 2);
}

#[tokio::test]
async fn token_that_is_taken_away_in_the_middle_is_away_and_comes_back() {
    let Some(hsm) = softhsm() else { return };
    let seal = open(&settings(&hsm), host(&hsm)).unwrap();
    let wrapped = wrap(&seal).await;
    let (here, away) = (hsm.path("tokens"), hsm.path("taken"));
    let stop = Arc::new(AtomicBool::new(false));
    let taking = {
        let (here, away, stop) = (here.clone(), away.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&here, &away).unwrap();
                std::thread::yield_now();
                std::fs::rename(&away, &here).unwrap();
            }
        })
    };
    for _ in 0..20 {
        // Opened or not, but never anything else that came out, nor a PIN that counts as wrong.
        if let Err(error) = opens(&seal, &wrapped).await {
            assert!(!matches!(error, SealDeviceError::PinLocked { .. }), "{error:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    taking.join().unwrap();
    std::fs::rename(&here, &away).unwrap();
    let gone = opens(&seal, &wrapped).await.unwrap_err();
    assert!(gone.may_pass(), "{gone:?}");
    std::fs::rename(&away, &here).unwrap();
    opens(&seal, &wrapped).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_or_unsafe_is_said() {
    let Some(hsm) = softhsm() else { return };
    let wrapped = wrap(&open(&settings(&hsm), host(&hsm)).unwrap()).await;
    let problem = async |seal: Pkcs11Seal| match opens(&seal, &wrapped).await {
        Err(SealDeviceError::Settings { problem }) => problem,
        other => panic!("{other:?}"),
    };
    let missing = problem(seal_with(&hsm, MODULE_SETTING, "/usr/lib/none.so")).await;
    assert!(missing.contains("cannot be found"), "{missing}");
    // A file that others than root can change is not run, although it is a module.
    let copy = hsm.path("copy.so");
    std::fs::copy(SoftHsm::module(), &copy).unwrap();
    let unsafe_path = problem(seal_with(&hsm, MODULE_SETTING, &copy)).await;
    assert!(unsafe_path.contains("unseal.pkcs11_modules"), "{unsafe_path}");
    let mut options = host(&hsm);
    let text = hsm.path("text.so");
    std::fs::write(&text, "no module").unwrap();
    options.trusted.push(text.clone());
    let mut changed = settings(&hsm);
    changed.insert(MODULE_SETTING.to_owned(), text.display().to_string());
    let no_module = problem(open(&changed, options).unwrap()).await;
    assert!(no_module.contains("cannot be loaded"), "{no_module}");
    let no_pin = problem(seal_with(&hsm, PIN_FILE_SETTING, "/nowhere/pin")).await;
    assert!(no_pin.contains("cannot be read"), "{no_pin}");
    let shown = hsm.write_pin("shown", "1");
    std::fs::set_permissions(&shown, PermissionsExt::from_mode(0o640)).unwrap();
    let exposed = problem(seal_with(&hsm, PIN_FILE_SETTING, &shown)).await;
    assert!(exposed.contains("chmod 600"), "{exposed}");
    let mut options = host(&hsm);
    options.program = PathBuf::from("/nowhere/lastkey-pkcs11");
    let no_host = problem(open(&settings(&hsm), options).unwrap()).await;
    assert!(no_host.contains("cannot be started"), "{no_host}");
}

#[tokio::test]
async fn host_that_dies_or_babbles_is_an_error_and_no_more() {
    let Some(hsm) = softhsm() else { return };
    let wrapped = wrap(&open(&settings(&hsm), host(&hsm)).unwrap()).await;
    for script in ["exit 3", "kill -9 $$", "cat >/dev/null; echo babble", "cat /dev/zero"] {
        write_host(&hsm, &format!("#!/bin/sh\n{script}\n"));
        let broken = opens(&open(&settings(&hsm), host(&hsm)).unwrap(), &wrapped).await;
        assert!(matches!(broken, Err(SealDeviceError::Failed(_))), "{script}: {broken:?}");
    }
}

#[tokio::test]
async fn module_that_locks_its_pin_is_not_asked_again() {
    let Some(hsm) = softhsm() else { return };
    let wrapped = wrap(&open(&settings(&hsm), host(&hsm)).unwrap()).await;
    // SoftHSM2 never locks, so a module around it answers CKR_PIN_LOCKED to every login.
    let (source, module) = (hsm.path("locked.c"), hsm.path("locked.so"));
    std::fs::write(&source, LOCKED_MODULE).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&module, &source])
        .arg(format!("-DINNER=\"{}\"", SoftHsm::module().display()))
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    let mut options = host(&hsm);
    options.trusted.push(module.clone());
    let mut changed = settings(&hsm);
    changed.insert(MODULE_SETTING.to_owned(), module.display().to_string());
    match opens(&open(&changed, options).unwrap(), &wrapped).await {
        Err(SealDeviceError::PinLocked { next }) => assert!(next.contains("unlock"), "{next}"),
        other => panic!("{other:?}"),
    }
}

/// A function list is a version (padded to a pointer) and 68 functions; `C_Login` is the 19th.
const LOCKED_MODULE: &str = r#"
#include <dlfcn.h>
#include <string.h>
static void *list[69];
static unsigned long locked(unsigned long s, unsigned long u, unsigned char *p, unsigned long l) {
  return 0xa4;
}
unsigned long C_GetFunctionList(void ***out) {
  void **inner;
  unsigned long (*get)(void ***) = dlsym(dlopen(INNER, RTLD_NOW), "C_GetFunctionList");
  unsigned long status = get(&inner);
  if (status) return status;
  memcpy(list, inner, sizeof list);
  list[19] = locked;
  *out = list;
  return 0;
}
"#;
