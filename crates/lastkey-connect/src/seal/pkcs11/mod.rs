//! A seal by a hardware security module, through the module (a library) of its vendor.
//!
//! Room      `connect`.
//! Source    docs/formats/device-seals.md.
//! Holds     the module runs in a process of its own ([`host`]), which is given the PIN and a
//!           fresh key for each wrap, never a secret of the server. A PIN that was refused is not
//!           tried again until its file was changed.

pub mod host;
mod message;
mod token;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::ports::{DeviceKind, DeviceSettings, EntropySource, SealDevice, SealDeviceError};
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::{SecretArray, SecretVec};

pub use self::message::{Fault, Mechanism};
use self::message::{MAX_LEN, Question, Task, USUAL_LEN, decode_answer};
use super::wire::{In, Out};
use super::{blocking, check_path, close, draw_key, failed, hex_of, open, parse_hex, refused};

/// The setting with the path of the module.
pub const MODULE_SETTING: &str = "module";
/// The setting with the label of the token.
pub const TOKEN_SETTING: &str = "token";
/// The setting with the path of the file with the PIN.
pub const PIN_FILE_SETTING: &str = "pin_file";
/// The setting with the id of the key in the token, 32 hexadecimal digits.
pub const KEY_SETTING: &str = "key";
/// The setting with the mechanism; without it the first that works.
pub const MECHANISM_SETTING: &str = "mechanism";

/// The program that loads modules; it lies beside the server's.
pub const HOST_PROGRAM: &str = "lastkey-pkcs11";

const VERSION: u8 = 1;
/// A network module may be slow; half a minute is not slow any more.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PIN_LEN: u64 = 1_024;

/// What a module is called, and where exceptions are named.
const MODULES: (&str, &str) = ("module", "unseal.pkcs11_modules");

const WRONG: &str = "the PIN in the PIN file was refused, and is not tried again until the file \
                     was changed";
const LOCKED: &str = "the token has locked its PIN; its security officer unlocks it";
const FINAL: &str = "one more wrong PIN would lock the token; log in once by hand";

/// How modules are run.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The program [`HOST_PROGRAM`].
    pub program: PathBuf,
    /// Modules that may be loaded although not root alone can change them.
    pub trusted: Vec<PathBuf>,
    /// A folder that remembers which PIN files were refused.
    pub memory: PathBuf,
}

/// A seal by a token.
#[derive(Clone)]
pub struct Pkcs11Seal {
    module: PathBuf,
    label: String,
    pin_file: PathBuf,
    key: [u8; 16],
    mechanism: Option<Mechanism>,
    host: HostOptions,
    entropy: Arc<dyn EntropySource>,
}

impl Pkcs11Seal {
    /// The seal of these settings.
    ///
    /// # Errors
    /// [`SealDeviceError::Settings`].
    pub fn open(
        settings: &DeviceSettings,
        host: HostOptions,
        entropy: Arc<dyn EntropySource>,
    ) -> Result<Self, SealDeviceError> {
        let setting =
            |name: &str| settings.get(name).ok_or_else(|| refused(format!("{name} is missing")));
        let key = parse_hex(setting(KEY_SETTING)?)
            .ok_or_else(|| refused("key is not 32 hexadecimal digits".to_owned()))?;
        let mechanism = settings
            .get(MECHANISM_SETTING)
            .map(|word| {
                Mechanism::parse(word).ok_or_else(|| refused(format!("no mechanism {word:?}")))
            })
            .transpose()?;
        let seal = Self {
            module: PathBuf::from(setting(MODULE_SETTING)?),
            label: setting(TOKEN_SETTING)?.clone(),
            pin_file: PathBuf::from(setting(PIN_FILE_SETTING)?),
            key,
            mechanism,
            host,
            entropy,
        };
        if seal.module.is_absolute() && seal.pin_file.is_absolute() {
            Ok(seal)
        } else {
            Err(refused("the paths of module and PIN file must be absolute".to_owned()))
        }
    }

    fn wrap_now(&self, aad: &[u8], secret: &SecretArray<32>) -> Result<Vec<u8>, SealDeviceError> {
        let mut entropy = self.entropy.open();
        let key = draw_key(&mut *entropy)?;
        let passing = key.expose(|bytes| SecretVec::copy_of(bytes));
        let (mechanism, in_token) = self.ask(Task::Wrap(self.mechanism, passing))?;
        let front = Out::default().u8(VERSION).u8(mechanism as u8).raw(&self.key);
        let front = in_token.expose(|bytes| front.sized(bytes)).done();
        close(front, aad, &key, secret, &mut *entropy)
    }

    fn unwrap_now(&self, aad: &[u8], stored: &[u8]) -> Result<SecretArray<32>, SealDeviceError> {
        let Stored { mechanism, key, in_token, front, wrapped } =
            Stored::parse(stored).ok_or(SealDeviceError::NotThisDevice)?;
        if key != self.key {
            return Err(SealDeviceError::NotThisDevice);
        }
        let (_, key) = self.ask(Task::Unwrap(mechanism, in_token.to_vec()))?;
        let key = key.to_array().ok_or(SealDeviceError::NotThisDevice)?;
        open(front, wrapped, aad, &key)
    }

    /// Asks the host, with the PIN of the file.
    fn ask(&self, task: Task) -> Result<(Mechanism, SecretVec), SealDeviceError> {
        let module = check_path(&self.module, &self.host.trusted, MODULES)?;
        let (pin, state) = read_pin(&self.pin_file)?;
        let memory = self.memory_of();
        if std::fs::read(&memory).is_ok_and(|refused| refused == state) {
            return Err(SealDeviceError::PinLocked { next: WRONG });
        }
        let module = module.to_string_lossy().into_owned();
        let question = Question { module, label: self.label.clone(), pin, id: self.key, task };
        let answer = run_host(&self.host.program, &question.encode())?;
        let answer = answer.expose(decode_answer).map_err(failed)?;
        answer.map_err(|(fault, said)| {
            if fault == Fault::PinWrong {
                self.remember(&memory, &state);
            }
            error_of(fault, said)
        })
    }

    /// Where it is remembered that the PIN file was refused by this token.
    fn memory_of(&self) -> PathBuf {
        let module = self.module.as_os_str().as_encoded_bytes();
        let pin_file = self.pin_file.as_os_str().as_encoded_bytes();
        let hash = sha256_of(&[module, b"\0", self.label.as_bytes(), b"\0", pin_file]);
        self.host.memory.join(format!("pin-refused-{}", hex_of(&hash)))
    }

    fn remember(&self, memory: &Path, state: &[u8]) {
        let written =
            std::fs::create_dir_all(&self.host.memory).and_then(|()| std::fs::write(memory, state));
        if let Err(error) = written {
            tracing::error!(%error, "it cannot be remembered that the PIN was refused");
        }
    }
}

/// Whether these bytes have the form of what [`Pkcs11Seal`] wraps.
pub(super) fn is_stored(bytes: &[u8]) -> bool {
    Stored::parse(bytes).is_some_and(|stored| [stored.front, stored.wrapped].concat() == bytes)
}

/// The parts of what [`Pkcs11Seal`] wrapped.
struct Stored<'a> {
    mechanism: Mechanism,
    key: [u8; 16],
    in_token: &'a [u8],
    front: &'a [u8],
    wrapped: &'a [u8],
}

impl<'a> Stored<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = In::new(bytes);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let mechanism = Mechanism::of(reader.u8().ok()?)?;
        let (key, in_token) = (reader.array().ok()?, reader.sized().ok()?);
        let wrapped = reader.rest();
        let front = bytes.get(..bytes.len().checked_sub(wrapped.len())?)?;
        Some(Self { mechanism, key, in_token, front, wrapped })
    }
}

/// The PIN, and which file with which content it was, as far as that can be said without it.
fn read_pin(path: &Path) -> Result<(SecretVec, Vec<u8>), SealDeviceError> {
    let shown = path.display();
    let unreadable = |error| refused(format!("the PIN file {shown} cannot be read: {error}"));
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if about.mode() & 0o077 != 0 {
        return Err(refused(format!("others can read the PIN file {shown}; chmod 600 {shown}")));
    }
    if !about.is_file() || about.len() > MAX_PIN_LEN {
        return Err(refused(format!("{shown} is no PIN file")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(MAX_PIN_LEN).unwrap_or(0));
    (&mut file).take(MAX_PIN_LEN).read_to_end(&mut bytes).map_err(unreadable)?;
    let bytes = SecretVec::take(bytes);
    let pin = bytes.expose(|bytes| SecretVec::copy_of(bytes.trim_ascii_end()));
    if pin.is_empty() {
        return Err(refused(format!("the PIN file {shown} is empty")));
    }
    let times = format!("{} {} {} {}", about.ino(), about.len(), about.mtime(), about.mtime_nsec());
    Ok((pin, times.into_bytes()))
}

/// Runs the host for one question. It is ended when it does not answer.
fn run_host(program: &Path, question: &SecretVec) -> Result<SecretVec, SealDeviceError> {
    let spawned = Command::new(program)
        .env_remove("LASTKEY_TOKEN")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env_remove("AWS_SESSION_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| {
        let program = program.display();
        refused(format!("{program}, which loads modules, cannot be started: {error}"))
    })?;
    let answer = converse(&mut child, question);
    // It has answered, or is to be ended; either way it is over.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn converse(child: &mut Child, question: &SecretVec) -> Result<SecretVec, SealDeviceError> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, stdout) = stdin.zip(stdout).ok_or_else(|| broken("it has no pipes"))?;
    // A question is shorter than the buffer of a pipe, so this does not wait for the host.
    question.expose(|bytes| stdin.write_all(bytes)).map_err(failed)?;
    drop(stdin);
    let (sender, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::with_capacity(USUAL_LEN);
        let read = stdout.take(MAX_LEN).read_to_end(&mut bytes);
        // Nobody waits any more for a host that was given up.
        let _ = sender.send(read.map(|_| SecretVec::take(bytes)));
    });
    match answered.recv_timeout(PATIENCE) {
        Ok(Ok(answer)) if answer.is_empty() => Err(broken("it ended without an answer")),
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(SealDeviceError::Away("the module does not answer".into())),
    }
}

fn error_of(fault: Fault, said: String) -> SealDeviceError {
    match fault {
        Fault::Module => refused(format!("the module cannot be loaded: {said}")),
        Fault::Away => SealDeviceError::Away(said.into()),
        Fault::PinWrong => SealDeviceError::PinLocked { next: WRONG },
        Fault::PinLocked => SealDeviceError::PinLocked { next: LOCKED },
        Fault::FinalTry => SealDeviceError::PinLocked { next: FINAL },
        Fault::NotHere => SealDeviceError::NotThisDevice,
        Fault::NoMechanism => refused(format!("the token cannot wrap keys: {said}")),
        Fault::Failed => SealDeviceError::Failed(said.into()),
    }
}

#[async_trait]
impl SealDevice for Pkcs11Seal {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Pkcs11
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

fn broken(why: &'static str) -> SealDeviceError {
    SealDeviceError::Failed(why.into())
}
