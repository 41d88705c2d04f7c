//! A software TPM of one's own. The tests of the binary use this file as well.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lastkey_connect::seal::tpm::Tcti;

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

    pub(crate) fn command(&self, code: u32, body: &[u8]) {
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

pub(crate) fn socket_in(folder: &Path) -> PathBuf {
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
    let patience = Instant::now() + Duration::from_secs(120);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < patience, "swtpm does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

pub(crate) fn empty_password() -> [u8; 13] {
    [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]
}

pub(crate) fn exchange(socket: &Path, command: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    pass_on(&mut stream, command)
}

pub(crate) fn pass_on(stream: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).unwrap();
    read_whole(stream).unwrap()
}

/// A whole command or answer; `None` at the end.
pub(crate) fn read_whole(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes).ok()?;
    let len = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(len).unwrap(), 0);
    stream.read_exact(&mut bytes[10..]).unwrap();
    Some(bytes)
}
