//! Trust of Lastkey: bytes in, claims out.
//!
//! Room      `trust`. Tokens, certificates, one-time codes and request signatures are judged
//!           here and nowhere else; sessions are sealed and opened here. No clock, network or
//!           disk: trusted keys, `now` and randomness are arguments.
//! Source    Each module names its standard; the format of sessions is `docs/formats/session.md`.
//! Holds     A caller learns that a credential was refused and never why; the audit log learns
//!           the word. Nothing of a token is believed before its signature was verified.

pub mod attestation;
pub mod authorities;
pub mod glob;
pub mod jwks;
pub mod jwt;
pub mod kubelet;
pub mod node_authority;
pub mod oidc;
pub mod refusal;
pub mod revocation;
pub mod service_account;
pub mod session;
pub mod sigv4;
pub mod svid;
pub mod totp;
pub mod x509;

mod b32;
mod b64;
mod strict_json;
