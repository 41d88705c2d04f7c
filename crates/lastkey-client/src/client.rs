//! The client, and the calls about the server itself.
//!
//! Room      `client`.

use http::Method;
use lastkey_wire::native::system::{
    ConfirmClockReply, HealthReply, ReadyReply, SealReply, StatusReply, UnsealReply, UnsealRequest,
};

use crate::{call::Call, config::ClientConfig, error::Error, transport::Transport};

/// A connection to one server as one caller. Connections are pooled and made when needed;
/// share one client between tasks by reference or `Arc`.
pub struct Client {
    transport: Transport,
}

impl Client {
    /// Prepares a client; connects at the first call.
    ///
    /// # Errors
    /// [`Error::Trust`] when TLS cannot be prepared, [`Error::Token`] when the token cannot
    /// stand in a header.
    pub fn new(config: &ClientConfig) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(config)? })
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

    /// Recovers the root key, by a passphrase or by the content of a key file. Needs no token.
    pub fn unseal(&self, request: UnsealRequest) -> Call<'_, UnsealRequest, UnsealReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/unseal".to_owned()).with_body(request)
    }

    /// Makes the server forget the root key.
    pub fn seal(&self) -> Call<'_, (), SealReply> {
        Call::route(&self.transport, Method::POST, "/v1/sys/seal".to_owned())
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
