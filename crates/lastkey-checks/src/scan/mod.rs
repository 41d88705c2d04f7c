//! The scanner: secrets that lie in code, configuration and images.
//!
//! Room      `checks`. [`Rules`] say what to look for, a [`Scanner`] is made of them once and
//!           shared by threads, and each [`Scanner::scan`] reads one file as a stream: archives
//!           inside it included, in bounded memory.
//! Source    docs/scan.md.
//! Holds     What leaves is a [`crate::finding::Finding`] with its secret masked. Memory does
//!           not depend on what a file claims or how long it is.

mod archive;
mod assignment;
mod checksum;
mod compile;
mod decode;
mod engine;
mod entropy;
mod placeholder;
mod reader;
mod rules;
mod structure;
mod toml_rules;
mod wide;
mod zip;
mod zstd;

pub mod pack;

pub use self::{
    reader::{Limits, Options, Outcome, Scanner, Workspace},
    rules::{Allowlist, Rule, Rules, RulesError},
};
