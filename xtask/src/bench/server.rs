//! Our own server under measurement.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::http::{Connection, Measured, Target, load};
use super::programs::{memory_mib, pinned};
use super::report::median;

/// A server that runs.
pub(crate) struct Running {
    process: Child,
    /// Read to its end only by the server's own end.
    _stdout: BufReader<ChildStdout>,
    address: String,
    token: String,
}

/// Bodies of requests for keys that were made.
pub(crate) struct Bodies {
    pub(crate) plaintexts: Vec<String>,
    pub(crate) ciphertexts: Vec<String>,
}

const PLAINTEXT: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

/// Where a server runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// On core 0 alone.
    One,
    /// On all of them.
    All,
}

/// Starts a server for development on core 0 and waits until it is ready. Its audit log is
/// durable before an answer leaves.
///
/// # Errors
/// When it does not start.
pub(crate) fn start(binary: &Path, data: &Path) -> anyhow::Result<Running> {
    start_on(Cores::One, binary, data)
}

/// The same on other cores.
///
/// # Errors
/// When it does not start.
pub(crate) fn start_on(cores: Cores, binary: &Path, data: &Path) -> anyhow::Result<Running> {
    let mut command = on(cores, binary);
    command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    wait_for(command, data)
}

/// Starts a server that does not wait for its audit log, on core 0, over data that
/// [`start`] made.
///
/// # Errors
/// When it does not start.
pub(crate) fn start_batched(binary: &Path, data: &Path) -> anyhow::Result<Running> {
    let config = data.join("bench.toml");
    let dir = data.display();
    std::fs::write(
        &config,
        format!(
            "data = \"{dir}\"\nlisten.tcp = [\"127.0.0.1:0\"]\ntls.mode = \"off\"\n\
             unseal.keyfile = \"{dir}/dev.key\"\naudit.durability = \"batched\"\n"
        ),
    )?;
    let mut command = on(Cores::One, binary);
    command.args(["server", "--config"]).arg(config);
    wait_for(command, data)
}

/// Starts a server on all cores over data that [`start`] made, sealed.
///
/// # Errors
/// When it does not start.
pub(crate) fn start_sealed(binary: &Path, data: &Path) -> anyhow::Result<Running> {
    let config = data.join("sealed.toml");
    let dir = data.display();
    std::fs::write(
        &config,
        format!("data = \"{dir}\"\nlisten.tcp = [\"127.0.0.1:0\"]\ntls.mode = \"off\"\n"),
    )?;
    let mut command = on(Cores::All, binary);
    command.args(["server", "--config"]).arg(config);
    wait_for(command, data)
}

fn on(cores: Cores, binary: &Path) -> Command {
    match cores {
        Cores::One => pinned(0, binary),
        Cores::All => Command::new(binary),
    }
}

fn wait_for(mut command: Command, data: &Path) -> anyhow::Result<Running> {
    let mut process = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = BufReader::new(process.stdout.take().context("no output")?);
    let mut line = String::new();
    let address = loop {
        line.clear();
        ensure!(stdout.read_line(&mut line)? > 0, "the server ended before it was ready");
        if let Some((_, address)) = line.split_once("http://") {
            break address.split([' ', ',']).next().unwrap_or_default().trim().to_owned();
        }
    };
    let env = std::fs::read_to_string(data.join("env"))?;
    let token = env.lines().find_map(|line| line.strip_prefix("LASTKEY_TOKEN="));
    let token = token.context("no token in DIR/env")?.to_owned();
    Ok(Running { process, _stdout: stdout, address, token })
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
        let mut connection = self.connect()?;
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

    /// As a target of load.
    pub(crate) fn target(&self) -> Target<'_> {
        self.target_by(&self.token)
    }

    /// The same by another token.
    pub(crate) fn target_by<'a>(&'a self, token: &'a str) -> Target<'a> {
        Target { address: &self.address, token, pid: self.process.id() }
    }

    /// A connection of the administrator.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address, &self.token)
    }

    /// Keys made durably, by 16 clients.
    ///
    /// # Errors
    /// When a request fails.
    pub(crate) fn create_durably(&self) -> anyhow::Result<Measured> {
        load(self.target(), "/v1/keys", &["{}".to_owned()], 16)
    }

    /// A connection of its administrator.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn admin(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address, &self.token)
    }

    /// Makes keys until there are so many.
    ///
    /// # Errors
    /// When a request fails.
    pub(crate) fn fill(&self, count: usize) -> anyhow::Result<()> {
        let mut made = 0.0;
        while made < count as f64 {
            made += self.create_durably()?.rate * f64::from(super::http::SECONDS);
        }
        Ok(())
    }

    /// Runs a command of a client of it.
    ///
    /// # Errors
    /// When it does not end well.
    pub(crate) fn run_client(&self, command: &mut Command) -> anyhow::Result<()> {
        command.env("LASTKEY_ADDR", format!("http://{}", self.address));
        let done = command.env("LASTKEY_TOKEN", &self.token).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "the client ended with {}: {said}", done.status);
        Ok(())
    }

    /// Stops it as an operator would, and waits.
    ///
    /// # Errors
    /// When it does not end well.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status()?;
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
