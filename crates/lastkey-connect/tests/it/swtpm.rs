//! A software TPM of one's own, and somebody who sits on the wire to it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lastkey_connect::seal::tpm::Tcti;

/// `TPM_RH_LOCKOUT` and `TPM_RH_PLATFORM`.
const LOCKOUT: u32 = 0x4000_000a;
const PLATFORM: u32 = 0x4000_000c;

/// A TPM; it goes when this is dropped, its state with the folder.
pub(crate) struct Swtpm {
    folder: tempfile::TempDir,
    child: Child,
}

impl Swtpm {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = launch(folder.path());
        Self { folder, child }
    }

    /// Power off and on: registers are as at the start, what is written in the TPM stays.
    pub(crate) fn reboot(&mut self) {
        self.stop();
        self.child = launch(self.folder.path());
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn tcti(&self) -> Tcti {
        Tcti::Unix(self.socket())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// What a boot chain does: one more measurement in a register.
    pub(crate) fn extend(&self, register: u8) {
        let mut body = vec![0, 0, 0, register];
        body.extend(empty_password());
        body.extend([0, 0, 0, 1, 0, 0x0b]);
        body.extend([0x5a; 32]);
        self.command(0x182, &body);
    }

    pub(crate) fn clear(&self) {
        let body = [&PLATFORM.to_be_bytes()[..], &empty_password()].concat();
        self.command(0x126, &body);
    }

    /// Puts the TPM into dictionary-attack lockout: no attempt is allowed.
    pub(crate) fn lock_out(&self) {
        let mut body = [&LOCKOUT.to_be_bytes()[..], &empty_password()].concat();
        body.extend([0, 0, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10]);
        self.command(0x13a, &body);
    }

    /// Fills the slots for sessions, as a process does that dies in the middle.
    pub(crate) fn leave_sessions_behind(&self) {
        let mut body = vec![0x40, 0, 0, 7, 0x40, 0, 0, 7, 0, 32];
        body.extend([1; 32]);
        body.extend([0, 0, 0, 0, 0x10, 0, 0x0b]);
        for _ in 0..3 {
            let command = [&[0x80, 1, 0, 0, 0, 59, 0, 0, 1, 0x76][..], &body].concat();
            assert_eq!(exchange(&self.socket(), &command)[6..10], [0; 4]);
        }
    }

    fn command(&self, code: u32, body: &[u8]) {
        let len = u32::try_from(body.len() + 10).unwrap();
        let command = [&[0x80, 2][..], &len.to_be_bytes(), &code.to_be_bytes(), body].concat();
        let answer = exchange(&self.socket(), &command);
        assert_eq!(answer[6..10], [0; 4], "{code:#x}");
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("tpm.sock")
}

fn launch(folder: &Path) -> Child {
    let socket = socket_in(folder);
    // A socket that was left behind would be taken for a listening one.
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new("swtpm");
    command
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
        .arg(format!("dir={}", folder.display()))
        .arg("--server")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < patience, "swtpm does not listen");
        std::thread::yield_now();
    }
    child
}

fn empty_password() -> [u8; 13] {
    [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]
}

fn exchange(socket: &Path, command: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    pass_on(&mut stream, command)
}

fn pass_on(stream: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).unwrap();
    read_whole(stream).unwrap()
}

/// A whole command or answer; `None` at the end.
fn read_whole(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes).ok()?;
    let len = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(len).unwrap(), 0);
    stream.read_exact(&mut bytes[10..]).unwrap();
    Some(bytes)
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
