//! Our own server under measurement.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::http::{Connection, load};
use super::programs::{memory_mib, pinned};
use super::report::median;

/// A server that runs on core 0.
pub(crate) struct Running {
    process: Child,
    /// Read to its end only by the server's own end.
    _stdout: BufReader<ChildStdout>,
    pub(crate) address: String,
    pub(crate) token: String,
}

/// Bodies of requests for keys that were made.
pub(crate) struct Bodies {
    pub(crate) plaintexts: Vec<String>,
    pub(crate) ciphertexts: Vec<String>,
}

const PLAINTEXT: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

/// Starts a server and waits until it is ready.
///
/// # Errors
/// When it does not start.
pub(crate) fn start(binary: &Path, data: &Path) -> anyhow::Result<Running> {
    let mut process = pinned(0, binary)
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(process.stdout.take().context("no output")?);
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        ensure!(stdout.read_line(&mut line)? > 0, "the server ended before it was ready");
    }
    let env = std::fs::read_to_string(data.join("env"))?;
    let value = |name: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::to_owned).with_context(|| format!("no {name} in DIR/env"))
    };
    let address = value("LASTKEY_ADDR=http://")?;
    Ok(Running { process, _stdout: stdout, address, token: value("LASTKEY_TOKEN=")? })
}

/// Median time from the start of the process to its ready line, in milliseconds.
///
/// # Errors
/// When it does not start.
pub(crate) fn start_times(binary: &Path, data: &Path, runs: usize) -> anyhow::Result<f64> {
    // The first start may have to found the installation.
    start(binary, data)?.stop()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let began = Instant::now();
        let running = start(binary, data)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        running.stop()?;
    }
    Ok(median(times))
}

impl Running {
    /// Resident memory, in MiB.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        memory_mib(self.process.id())
    }

    /// Makes keys and something encrypted under each.
    ///
    /// # Errors
    /// When a request fails.
    pub(crate) fn make_keys(&self, count: usize) -> anyhow::Result<Bodies> {
        let mut connection = Connection::open(&self.address, &self.token)?;
        let mut bodies = Bodies { plaintexts: Vec::new(), ciphertexts: Vec::new() };
        for _ in 0..count {
            let key = connection.post("/v1/keys", "{}")?;
            let id = key.get("id").and_then(|id| id.as_str()).context("no key id")?;
            let body = format!(r#"{{"key":"{id}","plaintext":"{PLAINTEXT}"}}"#);
            let sealed = connection.post("/v1/encrypt", &body)?;
            let sealed = sealed.get("ciphertext").and_then(|text| text.as_str());
            let sealed = sealed.context("no ciphertext")?;
            bodies.ciphertexts.push(format!(r#"{{"ciphertext":"{sealed}"}}"#));
            bodies.plaintexts.push(body);
        }
        Ok(bodies)
    }

    /// Keys made durably a second, by 16 clients.
    ///
    /// # Errors
    /// When a request fails.
    pub(crate) fn create_durably(&self) -> anyhow::Result<f64> {
        load(&self.address, &self.token, "/v1/keys", &["{}".to_owned()], 16)
    }

    /// Makes keys until there are so many.
    ///
    /// # Errors
    /// When a request fails.
    pub(crate) fn fill(&self, count: usize) -> anyhow::Result<()> {
        let mut made = 0.0;
        while made < count as f64 {
            made += self.create_durably()? * f64::from(super::http::SECONDS);
        }
        Ok(())
    }

    /// Stops it as an operator would, and waits.
    ///
    /// # Errors
    /// When it does not end well.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let killed =
            std::process::Command::new("kill").arg(self.process.id().to_string()).status()?;
        ensure!(killed.success(), "the server has ended before it was stopped");
        let ended = self.process.wait()?;
        ensure!(ended.success(), "the server ended with {ended}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been stopped already; there is nothing more to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
