//! The provider of secrets, and a driver that behaves as Secrets Store CSI 1.6 does.

mod accounts;
mod classes;
mod driver;
mod in_pod;
mod mount;
mod outage;
pub(crate) mod push;
mod real_driver;
mod site;
