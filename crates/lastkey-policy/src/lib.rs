//! Who may do what: Cedar policies, checked when written, sliced, decided and explained.
//!
//! Room      `policy`. Nothing of Cedar is seen outside; nothing here reads a clock or a disk.
//! Holds     default deny; a forbid wins; a policy that cannot be evaluated denies; a policy is
//!           left out of a decision only when its scope cannot match.

mod actions;
mod cache;
mod document;
mod entities;
mod explain;
mod limits;
mod names;
mod needs;
#[cfg(test)]
mod properties;
mod replay;
mod scope;
mod set;
mod who_can;
mod words;

pub use document::{Document, DocumentKind, PolicyError};
pub use explain::{Explanation, NearMiss};
pub use names::SCHEMA;
pub use replay::{Change, PastCall};
pub use set::{
    AUDIT_ADMINISTRATOR, Bootstrap, PolicyInfo, PolicySet, SECURITY_ADMINISTRATOR,
    SYSTEM_ADMINISTRATOR, built_in,
};
pub use who_can::{Answer, WhoCan};
