//! Seals and storage keys of a large store: unsealing, rotating, and what putting every record
//! under a new key costs those who encrypt meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::PAIRS;
use super::files::{has, missing};
use super::http::{self, Connection};
use super::report::{Report, Row, median};
use super::server::{self, Cores, Running};

/// Keys in the store; each is two records.
const KEYS: usize = 500_000;
/// How often it is asked how far the records are.
const PAUSE: Duration = Duration::from_millis(20);
const PASSPHRASE: &str = "a passphrase of the measurement";

/// Adds the rows.
///
/// # Errors
/// When the server does not start or a request fails.
pub(crate) fn rows(report: &mut Report, binary: &Path, data: &Path) -> anyhow::Result<()> {
    let server = server::start_on(Cores::All, binary, data)?;
    server.fill(KEYS)?;
    let mut admin = server.admin()?;
    let times = (0..PAIRS).map(|_| seconds(|| rotate(&mut admin, false)).map(|(time, _)| time));
    let rotated = median(times.collect::<anyhow::Result<_>>()?);
    report.add(Row::at_most("root key rotation, 1,000,000 records", rotated, "s", 1.0));
    renewal(report, &server, &mut admin)?;
    let seal = format!(r#"{{"passphrase":{{"passphrase":"{PASSPHRASE}"}}}}"#);
    admin.post("/v1/sys/seals", &seal)?;
    server.stop()?;
    let sealed = server::start_sealed(binary, data)?;
    let body = format!(r#"{{"passphrase":"{PASSPHRASE}"}}"#);
    let mut admin = sealed.admin()?;
    let (unsealed, _) = seconds(|| admin.post("/v1/sys/unseal", &body))?;
    report.add(Row::at_most("unseal by a passphrase, 1,000,000 records", unsealed, "s", 1.0));
    sealed.stop()?;
    by_tpm(report, binary, &data.with_extension("tpm"))
}

/// A software TPM.
struct Swtpm(Child, PathBuf);

impl Swtpm {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("tpm.sock");
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        command.arg(format!("dir={}", folder.display())).arg("--server");
        command.arg(format!("type=unixio,path={}", socket.display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let tpm = Self(child, socket);
        while std::os::unix::net::UnixStream::connect(&tpm.1).is_err() {
            std::thread::sleep(PAUSE);
        }
        Ok(tpm)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a server takes from its start until its TPM has unsealed it, the start counted.
fn by_tpm(report: &mut Report, binary: &Path, data: &Path) -> anyhow::Result<()> {
    if !has("swtpm") {
        missing("unsealing by a TPM", "apt-get install swtpm");
        return Ok(());
    }
    std::fs::create_dir_all(data)?;
    let tpm = Swtpm::start(data)?;
    let data = data.join("data");
    let server = server::start_on(Cores::All, binary, &data)?;
    let mut add = Command::new(binary);
    add.args(["seal", "add", "tpm2", "--pcrs", "7", "--tcti"]);
    add.arg(format!("swtpm:path={}", tpm.1.display()));
    add.arg("--approval-key").arg(data.join("key.pem"));
    add.arg("--approval-out").arg(data.join("approval.json"));
    server.run_client(&mut add)?;
    server.stop()?;
    let mut times = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let began = Instant::now();
        let server = server::start_sealed(binary, &data)?;
        let mut admin = server.admin()?;
        while admin.send("GET", "/v1/sys/status", "")?.get("sealed") != Some(&Value::Bool(false)) {
            std::thread::yield_now();
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        server.stop()?;
    }
    let what = "start of a server until its TPM (swtpm) has unsealed it";
    report.add(Row::at_most(what, median(times), "ms", 200.0));
    Ok(())
}

/// The rate at which records are put under a new key when nobody disturbs it, and how long those
/// wait who encrypt meanwhile.
fn renewal(report: &mut Report, server: &Running, admin: &mut Connection) -> anyhow::Result<()> {
    let (time, ()) = seconds(|| {
        rotate(admin, true)?;
        wait_until_renewed(admin)
    })?;
    let rate = 2.0 * KEYS as f64 / time;
    report.add(Row::rate("records put under a new storage key", rate, "/s", 100_000.0));
    let bodies = server.make_keys(1)?.plaintexts;
    let load = || http::load(server.target(), "/v1/encrypt", &bodies, 16);
    let mut ratios = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let alone = load()?.p99_ms;
        rotate(admin, true)?;
        ratios.push(load()?.p99_ms / alone);
        wait_until_renewed(admin)?;
    }
    let (least, most) = (
        ratios.iter().copied().fold(f64::MAX, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    let ratio = format!("{:.2} ({least:.2} to {most:.2})", median(ratios));
    let what = "p99 of Encrypt while records are put under a new storage key";
    report.add(Row::ratio_at_most(what, &ratio, "p99 without", 1.20));
    Ok(())
}

fn rotate(admin: &mut Connection, keyring: bool) -> anyhow::Result<Value> {
    admin.post("/v1/sys/seals/rotate", &format!(r#"{{"keyring":{keyring}}}"#))
}

fn wait_until_renewed(admin: &mut Connection) -> anyhow::Result<()> {
    loop {
        let seals = admin.send("GET", "/v1/sys/seals", "")?;
        let epoch = seals.get("epoch").context("no epoch")?;
        if seals.get("records_from") == Some(epoch) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

fn seconds<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let began = Instant::now();
    let done = work()?;
    Ok((began.elapsed().as_secs_f64(), done))
}
