//! Who may come in, and as what: `cluster`, `provider`, `role`, `policy`, `user`, and questions.
//!
//! Room      `lastkey`.

pub(crate) mod ask;
pub(crate) mod cluster;
pub(crate) mod login;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod role;
mod show;
pub(crate) mod user;

use std::path::Path;

use super::{failure::Failure, input};

/// The text of a file, or of standard input for `-`.
fn text(path: &Path) -> Result<String, Failure> {
    let bytes = input::Source::open(Some(path))?.read_plain()?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(format!("{} is not UTF-8 text", path.display())))
}
