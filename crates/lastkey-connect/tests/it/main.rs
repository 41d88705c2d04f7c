//! The way out, against servers on loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise, as tests do")]

mod guard;
mod server;
