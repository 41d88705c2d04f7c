//! The client, and the calls about the server itself.
//!
//! Room      `client`.

use std::{fmt, sync::Arc};

use http::Method;
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretVec;
use lastkey_wire::native::Empty;
use lastkey_wire::native::backups::{
    BackupView, CreateBackupRequest, ListBackupsReply, RemoveBackupRequest,
};
use lastkey_wire::native::seals::{DrillRequest, RotateSealsRequest, SealsReply, SetSealRequest};
use lastkey_wire::native::system::{
    ConfirmClockReply, ContinuityReply, ContinuityRequest, HealthReply, ReadyReply, SealReply,
    StatusReply, UnsealReply, UnsealRequest,
};

use crate::{
    call::{Call, escape},
    config::{ClientConfig, SetupError},
    error::Error,
    transport::Transport,
};

/// A connection to one server as one caller. Connections are pooled and made when needed; a
/// clone shares them, so clone it freely.
///
/// ```no_run
/// use lastkey_client::{Client, wire::native::operations::RandomRequest};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect()?;
/// println!("{}", client.status().await?.server_version);
/// let random = client.random(&RandomRequest { bytes: 32, dry_run: false }).await?;
/// # let _ = random;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    identity: [u8; 32],
}

const BACKUPS: &str = "/v1/sys/backups";

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("addr", &self.transport.addr()).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client; connects at the first call.
    ///
    /// # Errors
    /// [`Error::Trust`] when TLS cannot be prepared, [`Error::Token`] when the token cannot
    /// stand in a header.
    pub fn new(config: &ClientConfig) -> Result<Self, Error> {
        let transport = Arc::new(Transport::new(config)?);
        let identity = identity_of(&config.addr.to_string(), config.token.as_ref());
        Ok(Self { transport, identity })
    }

    /// A client of the server that the environment, a configuration file or the node tells, as
    /// [`ClientConfig::discover`] finds it. Connects at the first call.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn connect() -> Result<Self, SetupError> {
        Ok(Self::new(&ClientConfig::discover()?)?)
    }

    /// The same server over the same connections, as the holder of another token: for a program
    /// that calls in the name of many.
    ///
    /// # Errors
    /// [`Error::Token`] when the token cannot stand in a header.
    pub fn with_token(&self, token: &SecretVec) -> Result<Self, Error> {
        let transport = Arc::new(self.transport.with_token(token)?);
        let identity = identity_of(self.transport.addr(), Some(token));
        Ok(Self { transport, identity })
    }

    /// The same for clients of one server with one token, another for every other: what one
    /// caller was given is not another's to use.
    pub(crate) fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// Whether the process lives. Needs no token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<HealthReply, Error> {
        self.transport.probe("/healthz").await
    }

    /// Whether the server can serve. Needs no token; "not ready" is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ready(&self) -> Result<ReadyReply, Error> {
        self.transport.probe("/readyz").await
    }

    /// Version, identity, sealed or not. Needs no token.
    pub fn status(&self) -> Call<'_, (), StatusReply> {
        Call::route(&self.transport, Method::GET, "/v1/sys/status".to_owned())
    }

    /// Whether the state of the installation continues the one that is remembered, and what to
    /// remember. Needs no token.
    pub fn continuity<'a>(
        &'a self,
        request: &'a ContinuityRequest,
    ) -> Call<'a, &'a ContinuityRequest, ContinuityReply> {
        let path = "/v1/sys/continuity".to_owned();
        Call::route(&self.transport, Method::POST, path).with_body(request)
    }

    /// Recovers the root key, by a passphrase or by the content of a key file. Needs no token.
    pub fn unseal(&self, request: UnsealRequest) -> Call<'_, UnsealRequest, UnsealReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/unseal".to_owned()).with_body(request)
    }

    /// Makes the server forget the root key.
    pub fn seal(&self) -> Call<'_, (), SealReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/seal".to_owned())
    }

    /// The seals and what is known of them.
    pub fn list_seals(&self) -> Call<'_, (), SealsReply> {
        Call::route(&self.transport, Method::GET, "/v1/sys/seals".to_owned())
    }

    /// Adds a seal.
    pub fn add_seal(&self, request: SetSealRequest) -> Call<'_, SetSealRequest, SealsReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/seals".to_owned()).with_body(request)
    }

    /// Puts another seal in the place of one.
    pub fn replace_seal(
        &self,
        seal: &str,
        request: SetSealRequest,
    ) -> Call<'_, SetSealRequest, SealsReply> {
        let path = format!("/v1/sys/seals/{}", escape(seal));
        Call::route(&self.transport, Method::PUT, path).with_body(request)
    }

    /// Removes a seal.
    pub fn remove_seal(&self, seal: &str) -> Call<'_, (), SealsReply> {
        let path = format!("/v1/sys/seals/{}", escape(seal));
        Call::route(&self.transport, Method::DELETE, path)
    }

    /// Draws a new root key, and a new storage key when asked to.
    pub fn rotate_seals(
        &self,
        request: RotateSealsRequest,
    ) -> Call<'_, RotateSealsRequest, SealsReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/seals/rotate".to_owned())
            .with_body(request)
    }

    /// Opens every seal that can be opened now.
    pub fn drill_seals(&self, request: DrillRequest) -> Call<'_, DrillRequest, SealsReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/seals/drill".to_owned())
            .with_body(request)
    }

    /// Records that a configuration in which one loss is fatal is meant.
    pub fn accept_weakness(&self) -> Call<'_, (), SealsReply> {
        let path = "/v1/sys/seals/accept-weakness".to_owned();
        Call::route(&self.transport, Method::POST, path)
    }

    /// Begins a backup.
    pub fn create_backup(
        &self,
        request: CreateBackupRequest,
    ) -> Call<'_, CreateBackupRequest, BackupView> {
        Call::route(&self.transport, Method::POST, BACKUPS.to_owned()).with_body(request)
    }

    /// The backups, newest first.
    pub fn list_backups(&self) -> Call<'_, (), ListBackupsReply> {
        Call::route(&self.transport, Method::GET, BACKUPS.to_owned())
    }

    /// One backup.
    pub fn describe_backup(&self, backup: &str) -> Call<'_, (), BackupView> {
        let path = format!("{BACKUPS}/{}", escape(backup));
        Call::route(&self.transport, Method::GET, path)
    }

    /// Takes a backup away, or forgets one that is gone.
    pub fn remove_backup(
        &self,
        backup: &str,
        request: RemoveBackupRequest,
    ) -> Call<'_, RemoveBackupRequest, Empty> {
        let path = format!("{BACKUPS}/{}", escape(backup));
        Call::route(&self.transport, Method::DELETE, path).with_body(request)
    }

    /// Lets time go on after the server's clock jumped.
    pub fn confirm_clock(&self) -> Call<'_, (), ConfirmClockReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/clock/confirm".to_owned())
    }

    /// The server's own description of its API, OpenAPI in JSON. Needs no token.
    pub fn openapi(&self) -> Call<'_, (), serde_json::Value> {
        Call::route(&self.transport, Method::GET, "/v1/openapi.json".to_owned())
    }

    /// Measurements in the text format of Prometheus.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn metrics(&self) -> Result<String, Error> {
        self.transport.text("/metrics").await
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// A hash, so that the token is not kept a second time.
fn identity_of(addr: &str, token: Option<&SecretVec>) -> [u8; 32] {
    let of = |token: &[u8]| sha256_of(&[addr.as_bytes(), b"\0", token]);
    token.map_or_else(|| of(b""), |token| token.expose(of))
}
