//! Other programs that a measurement needs: examples of our rooms, wrk, a scratch directory.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use super::http::Target;

/// Checks that programs are there.
///
/// # Errors
/// When one is missing, with the package that has it.
pub(crate) fn require(names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output()?;
        ensure!(found.status.success(), "{name} is missing: apt-get install wrk util-linux");
    }
    Ok(())
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// A command pinned to one core.
pub(crate) fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Processor time of a process so far, all its threads, in seconds.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    ticks_of(&format!("/proc/{pid}/stat"), 11)
}

/// Processor time of the commands that this process has waited for, in seconds.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn children_cpu_seconds() -> anyhow::Result<f64> {
    ticks_of("/proc/self/stat", 13)
}

/// The field of this number behind the name of the process and the next one, which the kernel
/// gives in hundredths of a second.
fn ticks_of(stat: &str, field: usize) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(stat)?;
    let (_, fields) = text.rsplit_once(')').context("no process name")?;
    let ticks = fields.split_whitespace().skip(field).take(2).map(str::parse::<f64>);
    let ticks: Vec<f64> = ticks.collect::<Result<_, _>>()?;
    ensure!(ticks.len() == 2, "no processor time in {stat}");
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// A directory that is gone afterwards. On a disk, not in memory: what is durable is measured.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// Makes it under `target`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::under(&std::path::absolute(target_dir())?)
    }

    /// Makes it on tmpfs, or under `target` where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn in_memory() -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::under(memory) } else { Self::new() }
    }

    fn under(parent: &Path) -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("lastkey-bench-").tempdir_in(parent)?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Figures that a program printed, a name and a value on each line.
pub(crate) struct Figures(HashMap<String, String>);

impl Figures {
    /// A figure as it was printed.
    ///
    /// # Errors
    /// When it was not.
    pub(crate) fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("no figure {name}"))
    }

    /// A figure as a number.
    ///
    /// # Errors
    /// When it was not printed, or is none.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<f64> {
        self.text(name)?.parse().with_context(|| format!("figure {name}"))
    }
}

/// Resident memory of a process, in MiB.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn memory_mib(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Builds an example of a room and answers where it is.
///
/// # Errors
/// When it does not compile.
pub(crate) fn build_example(package: &str, example: &str) -> anyhow::Result<PathBuf> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--locked", "-p", package, "--example", example])
        .status()?;
    ensure!(built.success(), "cannot build the example {example}");
    Ok(target_dir().join("release/examples").join(example))
}

/// Builds and runs an example of a room, pinned to a core or not.
///
/// # Errors
/// When it fails.
pub(crate) fn example(
    package: &str,
    example: &str,
    args: &[&str],
    core: Option<u32>,
) -> anyhow::Result<Figures> {
    let path = build_example(package, example)?;
    let mut command = core.map_or_else(|| Command::new(&path), |core| pinned(core, &path));
    printed(command.args(args), example)
}

/// Runs one of the heavy tests of the binary, built for release with the binary itself.
///
/// # Errors
/// When it does not compile, or fails.
pub(crate) fn journey(name: &str) -> anyhow::Result<Figures> {
    let mut command = Command::new("cargo");
    command.args(["test", "--release", "--quiet", "--locked", "-p", "lastkey", "--test", "it"]);
    command.args(["--", name, "--exact", "--ignored", "--nocapture"]);
    printed(&mut command, name)
}

/// The figures that a command prints.
fn printed(command: &mut Command, name: &str) -> anyhow::Result<Figures> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{name} failed");
    let text = String::from_utf8(output.stdout)?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(Figures(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
}

/// The peer: a bare axum handler that does one AES-256-GCM operation.
pub(crate) struct BareAxum {
    process: Child,
    address: String,
    ready: serde_json::Value,
}

/// Starts it on core 0.
///
/// # Errors
/// When it does not start.
pub(crate) fn bare_axum() -> anyhow::Result<BareAxum> {
    let path = build_example("lastkey-http", "bare_axum")?;
    let mut process = pinned(0, &path).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = process.stdout.take().context("no output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let ready: serde_json::Value =
        serde_json::from_str(&line).context("bare_axum did not start")?;
    let Some(address) = ready.get("addr").and_then(|addr| addr.as_str()) else {
        bail!("bare_axum did not say where it listens");
    };
    let address = address.trim_start_matches("http://").to_owned();
    Ok(BareAxum { process, address, ready })
}

impl BareAxum {
    /// As a target of load.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { address: &self.address, token: "none", pid: self.process.id() }
    }

    /// A body for a path.
    ///
    /// # Errors
    /// For a path that it does not serve.
    pub(crate) fn body(&self, path: &str) -> anyhow::Result<String> {
        let name = path.trim_start_matches("/v1/");
        let body = self.ready.get(name).and_then(|body| body.as_str());
        Ok(body.with_context(|| format!("bare_axum has no {path}"))?.to_owned())
    }
}

impl Drop for BareAxum {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
