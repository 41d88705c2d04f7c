//! `xtask clippy-files`: the clippy.toml of each pure room.
//!
//! Room      `xtask`.
//! Source    docs/adr/0001-rooms.md. Clippy takes the file in the crate's folder instead of the
//!           one in the root, not in addition, so the common lines are repeated.
//! Holds     One template (xtask/pure-room.toml) for all pure rooms; nobody edits what is
//!           written from it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report;
use crate::rooms;

/// Whether to write the files or only to compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writes each file.
    Write,
    /// Fails when a file differs from what would be written.
    Check,
}

const HEADER: &str = "# Written by `cargo xtask clippy-files` from the root clippy.toml and \
                      xtask/pure-room.toml; do not edit.";

/// Writes or compares the files of all pure rooms.
///
/// # Errors
/// When a file differs (check), or cannot be read or written.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<()> {
    let common = fs::read_to_string(root.join("clippy.toml")).context("read clippy.toml")?;
    let pure = fs::read_to_string(root.join("xtask/pure-room.toml"))
        .context("read xtask/pure-room.toml")?;
    let wanted = render(&common, &pure)?;
    let plan = rooms::read_plan(root)?;
    let mut faults = Vec::new();
    for name in plan.rooms.iter().filter(|(_, room)| room.pure).map(|(name, _)| name) {
        let path = root.join("crates").join(name).join("clippy.toml");
        match mode {
            Mode::Write => {
                fs::write(&path, &wanted).with_context(|| format!("write {}", path.display()))?;
            }
            Mode::Check if fs::read_to_string(&path).ok().as_ref() != Some(&wanted) => {
                faults.push(format!("crates/{name}/clippy.toml: not as the template says"));
            }
            Mode::Check => {}
        }
    }
    report::finish("clippy-files", &faults, "run `cargo xtask clippy-files`")
}

/// Fails when both parts name the same setting, which clippy would refuse.
fn render(common: &str, pure: &str) -> Result<String> {
    let text = format!("{HEADER}\n\n{}\n\n{}\n", common.trim(), pure.trim());
    toml::from_str::<toml::Table>(&text).context("join clippy.toml and xtask/pure-room.toml")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn template_repeats_the_common_lines_before_its_own() {
        let text = render("too-many-lines-threshold = 60\n", "disallowed-types = []\n").unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["too-many-lines-threshold"].as_integer(), Some(60));
        assert!(table.contains_key("disallowed-types"));
    }

    #[test]
    fn template_refuses_a_setting_that_both_parts_name() {
        assert!(render("disallowed-types = []", "disallowed-types = []").is_err());
    }
}
