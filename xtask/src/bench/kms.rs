//! The KMS plugin over its socket, against a bare tonic service.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::http::{Connection, Target};
use super::programs::{Figures, build_example, example, pinned};
use super::report::{Report, Row};
use super::server::Running;
use super::{PAIRS, programs};

/// Callers at once, on one connection.
const MANY: &str = "64";
const SECONDS: &str = "4";

/// Adds the rows of the plugin, behind a server that runs.
///
/// # Errors
/// When something does not start, or a call fails.
pub(crate) fn rows(
    report: &mut Report,
    binary: &Path,
    scratch: &Path,
    server: &Running,
) -> anyhow::Result<()> {
    let Target { address, token, .. } = server.target();
    let mut connection = Connection::open(address, token)?;
    connection.post("/v1/keys", r#"{"alias":"alias/etcd"}"#)?;
    let folder = scratch.join("sockets");
    std::fs::create_dir_all(&folder)?;
    // Built before the clock runs.
    let bare = build_example("lastkey-node", "kms_bench")?;
    let began = Instant::now();
    let mut command = pinned(0, binary);
    command.args(["kms-plugin", "--key", "alias/etcd", "--socket"]).arg(folder.join("kms.sock"));
    command.env("LASTKEY_ADDR", format!("http://{}", address));
    let plugin = Served::start(command.env("LASTKEY_TOKEN", token), &folder, "kms.sock")?;
    wait_for(&plugin.socket)?;
    let ready = began.elapsed().as_secs_f64();
    report.add(Row::at_most("KMS plugin, start to the first answer", ready, "s", 1.0));
    let mut command = pinned(0, &bare);
    let bare =
        Served::start(command.arg("bare").arg(folder.join("bare.sock")), &folder, "bare.sock")?;

    let one = load(&plugin.socket, "1")?;
    report.add(Row::at_most("KMS plugin, one caller, p50", one.get("kms.p50_us")?, "µs", 45.0));
    report.add(Row::at_most("KMS plugin, one caller, p99", one.get("kms.p99_us")?, "µs", 150.0));
    // What the machine allows: the same caller of a bare service.
    let rate = (one.get("kms.per_second")?, load(&bare.socket, "1")?.get("kms.per_second")?);
    report.add(Row::against("KMS plugin, one caller", &[rate], "calls/s", "bare tonic", 0.70));
    let mut pairs = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let ours = load(&plugin.socket, MANY)?.get("kms.per_second")?;
        pairs.push((ours, load(&bare.socket, MANY)?.get("kms.per_second")?));
    }
    let what = "KMS plugin, 64 callers, one core".to_owned();
    report.add(Row::against(what, &pairs, "calls/s", "bare tonic", 0.70));
    let memory = programs::memory_mib(plugin.process.id())?;
    report.add(Row::at_most("KMS plugin, memory", memory, "MiB", 15.0));
    Ok(())
}

/// Load from core 1.
fn load(socket: &Path, callers: &str) -> anyhow::Result<Figures> {
    let socket = socket.to_str().context("a path of UTF-8")?;
    example("lastkey-node", "kms_bench", &["load", socket, callers, SECONDS], Some(1))
}

/// Until an Encrypt is answered.
fn wait_for(socket: &Path) -> anyhow::Result<()> {
    let socket = socket.to_str().context("a path of UTF-8")?;
    example("lastkey-node", "kms_bench", &["wait", socket], Some(1)).map(drop)
}

/// A process that serves a socket.
struct Served {
    process: Child,
    socket: PathBuf,
}

impl Served {
    fn start(
        command: &mut std::process::Command,
        folder: &Path,
        socket: &str,
    ) -> anyhow::Result<Self> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.contains("serves"), "it does not serve: {line}");
        Ok(Self { process, socket: folder.join(socket) })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
