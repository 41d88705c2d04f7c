//! `etcd verify` over a million objects: of an etcd that runs, and of its database file.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::files::{has, missing, peak_memory_mib};
use super::report::{Report, Row};

const OBJECTS: usize = 1_000_000;
/// Objects in one transaction.
const AT_ONCE: usize = 1_000;
/// What a Secret of some 500 bytes takes when it is sealed.
const SEALED_LEN: u8 = 250;
const KEY_ID: &[u8] = b"lk1.lykpt2yvq3o2ffscsupuwukfm7ttgp32dg66o3ycdjas7lkcskua";

/// Adds the rows.
///
/// # Errors
/// When etcd does not start, or a run fails.
pub(crate) fn rows(report: &mut Report, binary: &Path, scratch: &Path) -> anyhow::Result<()> {
    if !has("etcd") || !has("curl") {
        missing("etcd", "apt-get install etcd-server curl");
        return Ok(());
    }
    let etcd = Etcd::start(scratch.join("etcd"))?;
    for first in (0..OBJECTS).step_by(AT_ONCE) {
        etcd.plant(first)?;
    }
    let url = etcd.url.clone();
    measure(report, binary, scratch, ("of an etcd that runs", ["--endpoints", &url]))?;
    let database = etcd.stop();
    let database = database.to_str().context("a path of UTF-8")?;
    measure(report, binary, scratch, ("of a file", ["--snapshot", database]))
}

fn measure(
    report: &mut Report,
    binary: &Path,
    scratch: &Path,
    (what, source): (&str, [&str; 2]),
) -> anyhow::Result<()> {
    let [option, place] = source;
    let args = ["etcd", "verify", option, place, "--require", "clear=0,stale=0"];
    let began = Instant::now();
    let memory = peak_memory_mib(binary, scratch, &args)?;
    let seconds = began.elapsed().as_secs_f64();
    let what = format!("etcd verify, 1,000,000 objects {what}");
    report.add(Row::at_most(what.clone(), seconds, "s", 60.0));
    report.add(Row::at_most(format!("{what}, memory"), memory, "MiB", 95.0));
    Ok(())
}

/// An etcd that runs.
struct Etcd {
    process: Child,
    url: String,
    folder: PathBuf,
}

impl Etcd {
    fn start(folder: PathBuf) -> anyhow::Result<Self> {
        // Its own gateway dials the port that it was told, so it has to be told one.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&folder).args(["--unsafe-no-fsync", "--log-level", "error"]);
        command.args(["--logger", "zap", "--max-txn-ops", "1000"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
        command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:1"]);
        command.args(["--initial-cluster", "default=http://127.0.0.1:1"]);
        let process = command.stdout(Stdio::null()).spawn().context("cannot start etcd")?;
        let etcd = Self { process, url, folder };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(etcd);
            }
            sleep(Duration::from_millis(100));
        }
        anyhow::bail!("etcd does not listen")
    }

    /// Stores the next objects.
    fn plant(&self, first: usize) -> anyhow::Result<()> {
        let put = |number: usize| {
            let key = format!("/registry/secrets/ns-{}/name-{number:07}", number % 1_000);
            json!({ "requestPut": { "key": STANDARD.encode(key), "value": STANDARD.encode(sealed(number)) } })
        };
        let puts: Vec<_> = (first..OBJECTS.min(first + AT_ONCE)).map(put).collect();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--data", "@-"]);
        curl.arg(format!("{}/v3/kv/txn", self.url)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = curl.spawn()?;
        let mut input = running.stdin.take().context("no input")?;
        input.write_all(json!({ "success": puts }).to_string().as_bytes())?;
        drop(input);
        ensure!(running.wait()?.success(), "etcd does not take the objects");
        Ok(())
    }

    /// Stops it; answers its database.
    fn stop(self) -> PathBuf {
        self.folder.join("member/snap/db")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A value as an API server stores it: by a hundred seeds, nothing of which opens.
fn sealed(number: usize) -> Vec<u8> {
    let mut value = b"k8s:enc:kms:v2:lastkey:".to_vec();
    let mut field = |tag: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        // The length of more than 127 bytes has two digits of seven bits.
        let len = if len < 128 { vec![len] } else { vec![len | 128, 1] };
        value.extend([&[tag << 3 | 2], &len[..], bytes].concat());
    };
    let noise = u8::try_from(number % 251).unwrap_or(0);
    let mut object = [noise; SEALED_LEN as usize];
    object[..8].copy_from_slice(&(number as u64).to_be_bytes());
    field(1, &object);
    field(2, KEY_ID);
    field(3, &[u8::try_from(number % 100).unwrap_or(0); 100]);
    value.extend([5 << 3, 1]);
    value
}
