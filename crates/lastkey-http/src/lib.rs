//! The HTTP door of Lastkey: listeners, limits, authentication, and the native dialect.
//!
//! Room      `http` - decodes a request, calls one use case, encodes its answer. Decides nothing.
//! Holds     every path outside the closed list in `sys` is reached through `auth_layer` only:
//!           its handler needs a call, and nothing else makes one. Request targets and bodies
//!           are never logged.

mod answer;
mod auth_layer;
mod connection;
mod dialect;
mod door;
mod idle;
mod limits;
mod listener;
mod metrics;
mod peers;
mod problem;
mod request_id;
mod router;
mod server;
mod sys;
mod tls;

pub use limits::Limits;
pub use listener::{Address, BindError, Listen};
pub use metrics::MetricsAccess;
pub use server::{Server, ServerConfig, Shutdown};
pub use tls::{TlsError, TlsHandle};
