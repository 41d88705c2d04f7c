//! What the binary can be: one file for each role.
//!
//! Room      the binary.

pub(crate) mod admin_token;
pub(crate) mod bench;
pub(crate) mod config_show;
pub(crate) mod dev;
mod events;
pub(crate) mod init;
pub(crate) mod kms_plugin;
mod pages;
pub(crate) mod secrets_provider;
pub(crate) mod server;
mod serving;
pub(crate) mod volumes;
