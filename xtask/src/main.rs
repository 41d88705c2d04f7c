//! Checks of the workspace itself; never shipped.
//!
//! Room      `xtask`. Knows every room and is imported by none; needs nothing but cargo.
//! Holds     Every check ends with success or with one line for each fault; none of them is a
//!           warning.

mod bench;
mod clippy_files;
mod metadata;
mod report;
mod rooms;
mod sbom;
mod secrets;
mod size;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  bench [files|findings|seals|etcd|push]
                           the table of measurements (see `make bench`), or a part of it
  rooms                    allowed imports (rooms.toml) against cargo metadata
  secrets                  owned secrets outside the secret types
  size [--lower]           long functions and files against xtask/size.toml
  clippy-files [--check]   writes the clippy.toml of each pure room from one template
  sbom VERSION TARGET [NAME=VERSION]...
                           what is in the binary, as CycloneDX on stdout; NAME is something
                           linked that cargo does not know of
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = workspace_root()?;
    match words.as_slice() {
        ["bench"] => bench::run(bench::Part::All),
        ["bench", "files"] => bench::run(bench::Part::Files),
        ["bench", "findings"] => bench::run(bench::Part::Findings),
        ["bench", "seals"] => bench::run(bench::Part::Seals),
        ["bench", "etcd"] => bench::run(bench::Part::Etcd),
        ["bench", "push"] => bench::run(bench::Part::Push),
        ["rooms"] => rooms::run(&root),
        ["secrets"] => secrets::run(&root),
        ["size"] => size::run(&root, size::Mode::Check),
        ["size", "--lower"] => size::run(&root, size::Mode::Lower),
        ["clippy-files"] => clippy_files::run(&root, clippy_files::Mode::Write),
        ["clippy-files", "--check"] => clippy_files::run(&root, clippy_files::Mode::Check),
        ["sbom", version, platform, linked @ ..] => {
            sbom::run(&root, &sbom::Release { version, platform, linked })
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown command `{}`\n{USAGE}", words.join(" ")),
    }
}

/// The folder above this crate, whatever the caller's own folder is.
fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).context("xtask lies in the workspace root")
}
