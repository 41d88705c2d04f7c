//! What can happen to a TPM, and somebody who sits on the wire to it.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use lastkey_connect::seal::tpm::Tcti;

use crate::swtpm::{Swtpm, empty_password, exchange, pass_on, read_whole, socket_in};

/// `TPM_RH_LOCKOUT` and `TPM_RH_PLATFORM`.
const LOCKOUT: u32 = 0x4000_000a;
const PLATFORM: u32 = 0x4000_000c;

pub(crate) fn clear(tpm: &Swtpm) {
    let body = [&PLATFORM.to_be_bytes()[..], &empty_password()].concat();
    tpm.command(0x126, &body);
}

/// Puts the TPM into dictionary-attack lockout: no attempt is allowed.
pub(crate) fn lock_out(tpm: &Swtpm) {
    let mut body = [&LOCKOUT.to_be_bytes()[..], &empty_password()].concat();
    body.extend([0, 0, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10]);
    tpm.command(0x13a, &body);
}

/// Fills the slots for sessions, as a process does that dies in the middle.
pub(crate) fn leave_sessions_behind(tpm: &Swtpm) {
    let mut body = vec![0x40, 0, 0, 7, 0x40, 0, 0, 7, 0, 32];
    body.extend([1; 32]);
    body.extend([0, 0, 0, 0, 0x10, 0, 0x0b]);
    for _ in 0..3 {
        let command = [&[0x80, 1, 0, 0, 0, 59, 0, 0, 1, 0x76][..], &body].concat();
        assert_eq!(exchange(&tpm.socket(), &command)[6..10], [0; 4]);
    }
}

/// Somebody on the wire between a program and a TPM, who keeps all that passes.
pub(crate) struct Interposer {
    folder: tempfile::TempDir,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Interposer {
    /// `change` may change the answer to the command of this code.
    pub(crate) fn start(tpm: &Swtpm, change: impl Fn(u32, &mut Vec<u8>) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_in(folder.path())).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (socket, keeps) = (tpm.socket(), Arc::clone(&heard));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut near, mut far) = (stream.unwrap(), UnixStream::connect(&socket).unwrap());
                while let Some(command) = read_whole(&mut near) {
                    let mut answer = pass_on(&mut far, &command);
                    change(u32::from_be_bytes(command[6..10].try_into().unwrap()), &mut answer);
                    keeps.lock().unwrap().extend([command, answer.clone()].concat());
                    near.write_all(&answer).unwrap();
                }
            }
        });
        Self { folder, heard }
    }

    pub(crate) fn tcti(&self) -> Tcti {
        Tcti::Unix(socket_in(self.folder.path()))
    }

    pub(crate) fn heard(&self, bytes: &[u8]) -> bool {
        self.heard.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }
}
