//! Listeners: TCP with and without TLS, and unix sockets.
//!
//! Room      `http`.
//! Holds     a unix socket is never open to a user who is not named, not even for a moment: the
//!           kernel says who is at the other end. Only a dead socket of our own is removed from its
//!           path.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lastkey_core::principal::Peer;
use rustix::fs::Mode;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::watch;

use crate::connection::{Phase, handshake, serve};
use crate::door::Door;
use crate::peers::shown_by;
use crate::tls::TlsHandle;

/// Where to listen.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A TCP port; port 0 takes any that is free.
    Tcp {
        /// Address and port.
        addr: SocketAddr,
        /// The identity; `None` speaks in the clear, and whether that is allowed is for the
        /// caller to decide.
        tls: Option<TlsHandle>,
    },
    /// A unix socket, for the user of this process alone (mode 0600), or for these as well.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Users who may connect and are known by that; to all others the kernel opens it (mode
        /// 0666) and the door is shut.
        users: Vec<u32>,
    },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port in the clear.
    Http(SocketAddr),
    /// A TCP port with TLS.
    Https(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(addr) => write!(f, "http://{addr}"),
            Self::Https(addr) => write!(f, "https://{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP port.
    #[error("cannot listen on {addr}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A unix socket.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another server answers on this unix socket.
    #[error("another server listens on {}", .0.display())]
    InUse(PathBuf),
    /// Something lies at the path that is not a socket of this user.
    #[error("{} is there already and is not a socket of this user", .0.display())]
    NotOurs(PathBuf),
}

/// An open listener.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener, SocketAddr, Option<TlsHandle>),
    Unix(UnixListener, SocketFile, Vec<u32>),
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream, IpAddr, Option<TlsHandle>),
    Unix(UnixStream, Option<u32>),
}

impl Bound {
    /// Opens a listener.
    ///
    /// # Errors
    /// [`BindError`].
    pub(crate) async fn open(listen: Listen) -> Result<Self, BindError> {
        match listen {
            Listen::Tcp { addr, tls } => {
                let failed = |source| BindError::Tcp { addr, source };
                let listener = TcpListener::bind(addr).await.map_err(failed)?;
                let addr = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, addr, tls))
            }
            Listen::Unix { path, users } => {
                remove_dead_socket(&path)?;
                let (listener, file) = bind_unix(&path, !users.is_empty())
                    .map_err(|source| BindError::Unix { path: path.clone(), source })?;
                Ok(Self::Unix(listener, file, users))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Tcp(_, addr, None) => Address::Http(*addr),
            Self::Tcp(_, addr, Some(_)) => Address::Https(*addr),
            Self::Unix(_, file, _) => Address::Unix(file.path.clone()),
        }
    }

    /// Takes connections until the phase changes.
    pub(crate) async fn serve(self, door: Arc<Door>, mut phase: watch::Receiver<Phase>) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = phase.changed() => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    tokio::spawn(admit(accepted, Arc::clone(&door), phase.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next connection; `None` for one of a user who may not connect.
    async fn accept(&self) -> io::Result<Option<Accepted>> {
        match self {
            Self::Tcp(listener, _, tls) => {
                let (stream, from) = listener.accept().await?;
                Ok(Some(Accepted::Tcp(stream, from.ip().to_canonical(), tls.clone())))
            }
            Self::Unix(listener, _, users) => {
                let (stream, _) = listener.accept().await?;
                // A peer that is gone already has no credentials any more.
                let Ok(peer) = stream.peer_cred() else { return Ok(None) };
                let user = users.contains(&peer.uid()).then_some(peer.uid());
                let own = rustix::process::geteuid();
                let may_connect = user.is_some() || [0, own.as_raw()].contains(&peer.uid());
                Ok(may_connect.then_some(Accepted::Unix(stream, user)))
            }
        }
    }
}

/// Usually the process has no file descriptors left; others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a connection; one too many is told so, if that costs little.
async fn admit(accepted: Accepted, door: Arc<Door>, phase: watch::Receiver<Phase>) {
    let seat = door.connections().take();
    let spare = if seat.is_none() { door.refusals().take() } else { None };
    let welcome = seat.is_some();
    if !welcome && spare.is_none() {
        return;
    }
    match accepted {
        Accepted::Tcp(stream, address, tls) => {
            let peer = Peer { address: Some(address), ..Peer::default() };
            // Answers are small and complete: waiting for more to send only delays them.
            drop(stream.set_nodelay(true));
            match tls {
                None => serve(stream, &door, peer, phase, welcome).await,
                Some(tls) => {
                    if let Some(stream) = handshake(&tls, stream, &door).await {
                        let certificate = shown_by(&stream, door.gate());
                        serve(stream, &door, Peer { certificate, ..peer }, phase, welcome).await;
                    }
                }
            }
        }
        Accepted::Unix(stream, user) => {
            serve(stream, &door, Peer { user, ..Peer::default() }, phase, welcome).await;
        }
    }
}

/// The file of a unix socket; removed with the listener, if it is still the same file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn bind_unix(path: &Path, is_for_others: bool) -> io::Result<(UnixListener, SocketFile)> {
    let socket = UnixSocket::new_stream()?;
    let own = Mode::RUSR | Mode::WUSR;
    // The file gets the mode of the socket at birth, so there is no moment with a wider one.
    rustix::fs::fchmod(&socket, own)?;
    socket.bind(path)?;
    if is_for_others {
        rustix::fs::chmod(path, own | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH)?;
    }
    let listener = socket.listen(BACKLOG)?;
    let found = std::fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    Ok((listener, file))
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Removes a socket that nobody listens on, if it is ours.
fn remove_dead_socket(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !found.file_type().is_socket() || !ours {
        return Err(BindError::NotOurs(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &Path) -> Result<Bound, BindError> {
        Bound::open(Listen::Unix { path: path.to_owned(), users: Vec::new() }).await
    }

    #[tokio::test]
    async fn unix_socket_is_for_its_user_alone_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = open(&path).await.unwrap();
        let mode = std::fs::symlink_metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bound.address(), Address::Unix(path.clone()));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn unix_socket_that_is_dead_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = open(&path).await.unwrap();
        assert!(matches!(open(&path).await, Err(BindError::InUse(_))));
        drop(live);
    }

    #[tokio::test]
    async fn unix_socket_takes_the_place_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(open(&path).await, Err(BindError::NotOurs(_))));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(open(&path).await, Err(BindError::NotOurs(_))));
    }

    #[tokio::test]
    async fn unix_socket_of_a_successor_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = open(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = open(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
