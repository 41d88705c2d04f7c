//! Unix sockets of a node's doors: opened by us, or handed over by systemd.
//!
//! Room      `node`.
//! Holds     Nothing is removed but a dead socket of our own. The socket is open to nobody else,
//!           not even for a moment; two processes do not serve one path; while a successor takes
//!           over there is always a file at the path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, chmodat, chownat};
use rustix::process::geteuid;

/// Who may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// Root, and the user of this process (mode 0600).
    #[default]
    RootAndSelf,
    /// The group of the file as well (mode 0660), by its permissions alone.
    Group,
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The operating system says no.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder is another user's, can be written by others, or is no folder.
    #[error(
        "{} must be a folder that only root or the user of this process can write to",
        .0.display()
    )]
    Folder(PathBuf),
    /// Something else lies at the path: a file, a symlink, a socket of another user.
    #[error(
        "{} is there already and is not a socket of this user; look at it, and remove it if \
         nothing needs it",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// Another process serves the path.
    #[error("another process serves {}; each provider needs a socket of its own", .0.display())]
    InUse(PathBuf),
}

/// An open socket. While it lives, no other process of ours takes the path.
#[derive(Debug)]
pub struct Socket {
    /// The listener.
    pub listener: UnixListener,
    /// Who may connect.
    pub peers: Peers,
    /// Held for the sake of its lock; none for a socket of systemd.
    pub lock: Option<File>,
}

/// Sockets that systemd opened for this process (`sd_listen_fds(3)`), each under its path. Taken
/// once, at the start.
///
/// # Errors
/// When a descriptor is no unix socket that listens at a path.
pub fn handed_over() -> io::Result<Vec<(PathBuf, UnixListener)>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        let Some(listener) = given.take_unix_listener(index)? else { continue };
        let addr = listener.local_addr()?;
        let path = addr.as_pathname().ok_or_else(|| io::Error::other("a socket without a path"))?;
        sockets.push((path.to_owned(), listener));
    }
    Ok(sockets)
}

/// Opens the socket of a path.
///
/// # Errors
/// [`SocketError`].
pub fn open(path: &Path, group: Option<u32>) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    check_folder(path)?;
    let lock = lock(path)?;
    check_place(path)?;
    // Bound under another name and renamed over the old one: no moment without a socket, and
    // none with a wider mode.
    let fresh = beside(path, ".new");
    remove_if_socket(&fresh).map_err(failed)?;
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let finished = permit(&fresh, group).and_then(|()| std::fs::rename(&fresh, path));
    if let Err(source) = finished {
        drop(std::fs::remove_file(&fresh));
        return Err(failed(source));
    }
    let peers = if group.is_some() { Peers::Group } else { Peers::RootAndSelf };
    Ok(Socket { listener, peers, lock: Some(lock) })
}

/// The same for a folder in which somebody looks at every socket that appears, as the kubelet does:
/// it is bound under its own name alone.
///
/// # Errors
/// [`SocketError`].
pub fn open_in_place(path: &Path) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    check_folder(path)?;
    let lock = lock(path)?;
    check_place(path)?;
    remove_if_socket(path).map_err(failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    permit(path, None).map_err(failed)?;
    Ok(Socket { listener, peers: Peers::RootAndSelf, lock: Some(lock) })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn permit(path: &Path, group: Option<u32>) -> io::Result<()> {
    let mut mode = Mode::RUSR | Mode::WUSR;
    if let Some(group) = group {
        chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
        mode |= Mode::RGRP | Mode::WGRP;
    }
    Ok(chmodat(CWD, path, mode, AtFlags::empty())?)
}

/// Whoever can write to the folder can put a socket of his own in the place of ours.
fn check_folder(path: &Path) -> Result<(), SocketError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let found = std::fs::symlink_metadata(folder)
        .map_err(|source| SocketError::Io { path: path.to_owned(), source })?;
    let ours = [0, geteuid().as_raw()].contains(&found.uid());
    if !found.is_dir() || !ours || found.mode() & 0o022 != 0 {
        return Err(SocketError::Folder(folder.to_owned()));
    }
    Ok(())
}

/// The lock is the kernel's, so a killed process leaves none.
fn lock(path: &Path) -> Result<File, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let name = beside(path, ".lock");
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
    let file = options.open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Nothing may be there but a dead socket of ours: a live one is asked for, never unlinked.
fn check_place(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() || found.uid() != geteuid().as_raw() {
        return Err(SocketError::NotOurs(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// What a start that was killed has left.
fn remove_if_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn socket_is_for_its_user_alone_or_for_one_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = open(&path, None).unwrap();
        assert_eq!((mode(&path), socket.peers), (0o600, Peers::RootAndSelf));
        UnixStream::connect(&path).unwrap();
        drop(socket);
        let own = rustix::process::getegid().as_raw();
        let socket = open(&path, Some(own)).unwrap();
        assert_eq!((mode(&path), socket.peers), (0o660, Peers::Group));
    }

    #[test]
    fn stale_socket_is_replaced_without_a_moment_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(beside(&path, ".new")).unwrap());
        let _socket = open(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(!beside(&path, ".new").exists());
    }

    #[test]
    fn socket_in_place_takes_the_name_of_a_dead_one_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let first = open_in_place(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(open_in_place(&path), Err(SocketError::InUse(_))));
        drop(first);
        let names = std::fs::read_dir(folder.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "the socket and its lock: {names:?}");
    }

    #[test]
    fn two_on_one_path_are_refused_and_the_first_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = open(&path, None).unwrap();
        assert!(matches!(open(&path, None), Err(SocketError::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(first);
        open(&path, None).unwrap();
    }

    #[test]
    fn live_socket_of_somebody_without_our_lock_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(open(&path, None), Err(SocketError::InUse(_))));
    }

    #[test]
    fn file_and_symlink_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(open(&path, None), Err(SocketError::NotOurs(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        let _elsewhere = UnixListener::bind(folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(open(&path, None), Err(SocketError::NotOurs(_))));
    }

    #[test]
    fn folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open_to_all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open_to_all).unwrap();
        let refused = open(&folder.path().join("s"), None);
        assert!(matches!(refused, Err(SocketError::Folder(_))));
    }
}
