//! One conversation with a TPM: commands, who authorises them, and what must be flushed after.
//!
//! Room      `connect`.
//! Source    TCG TPM 2.0 Library, part 1: 16 (handles, sessions), 18 (authorisations).
//! Holds     every transient object and session made here is flushed when the conversation
//!           ends, also after an error. An answer to a command of a session is believed only
//!           with the session's HMAC.

use lastkey_crypto::digest::sha256_of;

use zeroize::{Zeroize as _, Zeroizing};

use super::error::TpmError;
use super::session::Session;
use super::tcti::{Link, Tcti};
use crate::seal::wire::{In, Malformed, Out};

/// Command codes (part 2, 6.5.2).
pub(super) mod code {
    pub(crate) const NV_UNDEFINE_SPACE: u32 = 0x122;
    pub(crate) const NV_DEFINE_SPACE: u32 = 0x12a;
    pub(crate) const CREATE_PRIMARY: u32 = 0x131;
    pub(crate) const NV_INCREMENT: u32 = 0x134;
    pub(crate) const POLICY_NV: u32 = 0x149;
    pub(crate) const NV_READ: u32 = 0x14e;
    pub(crate) const CREATE: u32 = 0x153;
    pub(crate) const LOAD: u32 = 0x157;
    pub(crate) const QUOTE: u32 = 0x158;
    pub(crate) const UNSEAL: u32 = 0x15e;
    pub(crate) const FLUSH_CONTEXT: u32 = 0x165;
    pub(crate) const LOAD_EXTERNAL: u32 = 0x167;
    pub(crate) const NV_READ_PUBLIC: u32 = 0x169;
    pub(crate) const POLICY_AUTHORIZE: u32 = 0x16a;
    pub(crate) const START_AUTH_SESSION: u32 = 0x176;
    pub(crate) const VERIFY_SIGNATURE: u32 = 0x177;
    pub(crate) const GET_CAPABILITY: u32 = 0x17a;
    pub(crate) const PCR_READ: u32 = 0x17e;
    pub(crate) const POLICY_PCR: u32 = 0x17f;
}

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const PASSWORD: u32 = 0x4000_0009;
/// Warnings that ask for the same command again: yielded, testing, retry (part 2, 6.6.3).
const AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];
const ATTEMPTS: u32 = 10;

/// A handle with the name that authorisations cover.
#[derive(Clone, Copy)]
pub(super) struct Entity<'a> {
    pub(super) handle: u32,
    pub(super) name: &'a [u8],
}

impl Entity<'_> {
    /// A hierarchy or a session. Their name is the handle itself; it is asked for only where a
    /// session authorises, and there it is not used.
    pub(super) fn permanent(handle: u32) -> Self {
        Self { handle, name: &[] }
    }
}

/// Who authorises the use of the first handle.
pub(super) enum Auth<'a> {
    /// Nobody has to.
    None,
    /// The empty password.
    Empty,
    /// A session. `attributes` say which half of the exchange it encrypts.
    Session(&'a mut Session, u8),
}

/// A command.
pub(super) struct Call<'a> {
    pub(super) code: u32,
    pub(super) handles: &'a [Entity<'a>],
    pub(super) parameters: Vec<u8>,
}

impl Drop for Call<'_> {
    /// One command carries a key before it is encrypted.
    fn drop(&mut self) {
        self.parameters.zeroize();
    }
}

/// A conversation.
pub(super) struct Tpm {
    link: Link,
    open: Vec<u32>,
}

impl Tpm {
    /// Begins a conversation.
    pub(super) fn connect(tcti: &Tcti) -> Result<Self, TpmError> {
        let link = tcti.connect().map_err(TpmError::Link)?;
        let mut tpm = Self { link, open: Vec::new() };
        if !tcti.has_resource_manager() {
            tpm.flush_leftovers()?;
        }
        Ok(tpm)
    }

    /// Without a resource manager, slots that a killed process left full stay full, and there
    /// are three.
    fn flush_leftovers(&mut self) -> Result<(), TpmError> {
        const HANDLES: u32 = 1;
        for first in [0x0200_0000_u32, 0x0300_0000, 0x8000_0000] {
            let parameters = Out::default().u32(HANDLES).u32(first).u32(64).done();
            let call = Call { code: code::GET_CAPABILITY, handles: &[], parameters };
            let answer = self.run(call, Auth::None)?;
            let mut reader = In::new(&answer);
            let (_more, _kind, count) = (reader.u8()?, reader.u32()?, reader.u32()?);
            for _ in 0..count {
                self.open.push(reader.u32()?);
            }
        }
        self.flush();
        Ok(())
    }

    /// Runs a command that makes no object; answers its parameters.
    pub(super) fn run(&mut self, call: Call<'_>, auth: Auth<'_>) -> Result<Vec<u8>, TpmError> {
        self.execute(&call, auth, false).map(|(_, parameters)| parameters)
    }

    /// Runs a command that makes an object or a session, which is flushed at the end.
    pub(super) fn make(
        &mut self,
        call: Call<'_>,
        auth: Auth<'_>,
    ) -> Result<(u32, Vec<u8>), TpmError> {
        let (handle, parameters) = self.execute(&call, auth, true)?;
        Ok((handle.ok_or(Malformed)?, parameters))
    }

    fn execute(
        &mut self,
        call: &Call<'_>,
        mut auth: Auth<'_>,
        makes: bool,
    ) -> Result<(Option<u32>, Vec<u8>), TpmError> {
        let mut parameters = Zeroizing::new(call.parameters.clone());
        let area = match &mut auth {
            Auth::None => None,
            Auth::Empty => {
                let area = Out::default().u32(PASSWORD).sized(&[]).u8(0).sized(&[]);
                Some(area.done())
            }
            Auth::Session(session, attributes) => {
                session.protect(&mut parameters, *attributes)?;
                let hash = command_hash(call, &parameters);
                Some(session.authorise(&hash, *attributes))
            }
        };
        let answer = self.exchange(&encode(call, area.as_deref(), &parameters))?;
        let mut reader = In::new(&answer);
        let (tag, _len, status) = (reader.u16()?, reader.u32()?, reader.u32()?);
        if status != 0 {
            return Err(TpmError::Refused { command: call.code, status });
        }
        let handle = if makes { Some(reader.u32()?) } else { None };
        // Kept before anything else can fail.
        self.open.extend(handle);
        if tag != SESSIONS {
            return match auth {
                Auth::None => Ok((handle, reader.rest().to_vec())),
                Auth::Empty | Auth::Session(..) => Err(Malformed.into()),
            };
        }
        let len = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        let mut parameters = reader.take(len)?.to_vec();
        if let Auth::Session(session, attributes) = auth {
            let hash = sha256_of(&[&[0; 4], &call.code.to_be_bytes(), &parameters]);
            session.verify(&hash, reader)?;
            session.reveal(&mut parameters, attributes)?;
        }
        Ok((handle, parameters))
    }

    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, TpmError> {
        for _ in 1..ATTEMPTS {
            let answer = self.link.exchange(command).map_err(TpmError::Link)?;
            let status = answer.get(6..10).and_then(|status| status.try_into().ok());
            if !status.map(u32::from_be_bytes).is_some_and(|status| AGAIN.contains(&status)) {
                return Ok(answer);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.link.exchange(command).map_err(TpmError::Link)
    }

    /// Flushes what was made. Without an error: what cannot be flushed now is flushed by the
    /// resource manager, or at the next conversation.
    fn flush(&mut self) {
        for handle in std::mem::take(&mut self.open) {
            let parameters = Out::default().u32(handle).done();
            let call = Call { code: code::FLUSH_CONTEXT, handles: &[], parameters };
            let _ = self.run(call, Auth::None);
        }
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.flush();
    }
}

fn command_hash(call: &Call<'_>, parameters: &[u8]) -> [u8; 32] {
    let code = call.code.to_be_bytes();
    let names = call.handles.iter().map(|entity| entity.name);
    let parts: Vec<&[u8]> = [&code[..]].into_iter().chain(names).chain([parameters]).collect();
    sha256_of(&parts)
}

fn encode(call: &Call<'_>, area: Option<&[u8]>, parameters: &[u8]) -> Vec<u8> {
    let mut body = Out::default();
    for entity in call.handles {
        body = body.u32(entity.handle);
    }
    if let Some(area) = area {
        body = body.u32(len_of(area)).raw(area);
    }
    let body = body.raw(parameters).done();
    let tag = if area.is_some() { SESSIONS } else { NO_SESSIONS };
    let len = len_of(&body).saturating_add(10);
    Out::default().u16(tag).u32(len).u32(call.code).raw(&body).done()
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
