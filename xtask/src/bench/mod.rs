//! `cargo xtask bench`: our figure, the limit's figure of the same run, the ratio, the goal.
//!
//! Ratios are medians of paired runs (A B A B); their range is shown beside them. Absolute
//! figures mean little on a shared machine. Servers are pinned to core 0, load to core 1.

mod access;
mod custody;
mod etcd;
mod files;
mod findings;
mod http;
mod kms;
mod programs;
mod push;
mod report;
mod server;

use std::path::Path;

use anyhow::ensure;

use self::report::{Report, Row};
use self::server::Cores;

/// Keys in the store for the rows that say so.
const MANY_KEYS: usize = 10_000;
/// Keys in the store for the start of a large installation.
const VERY_MANY_KEYS: usize = 100_000;
/// Paired runs behind a ratio.
const PAIRS: usize = 5;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything.
    All,
    /// Files, folders and their peers.
    Files,
    /// `scan` and `check`.
    Findings,
    /// Seals and storage keys of a large store.
    Seals,
    /// `etcd verify`.
    Etcd,
    /// New versions on their way into mounted volumes.
    Push,
}

/// Runs a part and prints the table.
///
/// # Errors
/// When a program is missing or a run fails; the error says which.
pub(crate) fn run(part: Part) -> anyhow::Result<()> {
    let binary = programs::target_dir().join("release/lastkey");
    ensure!(binary.exists(), "no {}; run `make bench`", binary.display());
    let mut report = Report::default();
    programs::require(&["taskset"])?;
    let binary = std::path::absolute(&binary)?;
    match part {
        Part::All => all(&mut report, &binary)?,
        Part::Files => files_and_peers(&mut report, &binary)?,
        Part::Findings => findings::rows(&mut report, &binary)?,
        Part::Seals => {
            programs::require(&["wrk"])?;
            let scratch = programs::Scratch::new()?;
            custody::rows(&mut report, &binary, &scratch.path().join("custody"))?;
        }
        Part::Etcd => {
            let scratch = programs::Scratch::new()?;
            etcd::rows(&mut report, &binary, scratch.path())?;
        }
        Part::Push => push::rows(&mut report)?,
    }
    report.print();
    Ok(())
}

fn all(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    programs::require(&["wrk"])?;
    in_process(report)?;
    let scratch = programs::Scratch::new()?;
    // Before many files are removed: for minutes afterwards, ext4 without a journal looks long for
    // the number of each new file, and the audit log makes two for 256 records.
    served(report, binary, scratch.path())?;
    files_and_peers(report, binary)?;
    findings::rows(report, binary)?;
    backups(report, scratch.path())?;
    access::audit_log(report, scratch.path())?;
    custody::rows(report, binary, &scratch.path().join("custody"))?;
    etcd::rows(report, binary, scratch.path())?;
    // Last: it may build the binary anew, with what its tests need.
    push::rows(report)
}

fn files_and_peers(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    files::in_process(report)?;
    library(report)?;
    files::beside_peers(report, binary)
}

fn in_process(report: &mut Report) -> anyhow::Result<()> {
    let figures = programs::example("lastkey-crypto", "crypto_bench", &["blob"], Some(1))?;
    let volumes = programs::example("lastkey-node", "csi_bench", &[], Some(1))?;
    let p99 = volumes.get("csi.p99_ms")?;
    report.add(Row::at_most("mount of 10 objects out of memory, p99", p99, "ms", 5.0));
    let memory = volumes.get("csi.memory_mib")?;
    report.add(Row::at_most("250 pods with 10 objects each", memory, "MiB", 20.0));
    for (what, name) in [("Encrypt", "seal"), ("Decrypt", "open")] {
        let figure = figures.get(&format!("blob.{name}_32_bytes_per_second"))?;
        let what = format!("{what} 32 bytes in process, one core");
        report.add(Row::rate(what, figure, "/s", 500_000.0));
    }
    access::in_process(report)
}

/// A backup of a large store, and its trial restore.
fn backups(report: &mut Report, scratch: &Path) -> anyhow::Result<()> {
    let folder = scratch.to_str().ok_or_else(|| anyhow::anyhow!("a path that is no text"))?;
    let figures = programs::example("lastkey-store", "backup_bench", &[folder, "1000000"], None)?;
    let made = figures.get("backup.made_s")?;
    let both = made + figures.get("backup.proven_s")?;
    report.add(Row::at_most("backup of 1,000,000 records", made, "s", 30.0));
    report.add(Row::at_most(
        "backup of 1,000,000 records, with its trial restore",
        both,
        "s",
        60.0,
    ));
    let memory = figures.get("backup.proven_memory_mib")?;
    report.add(Row::at_most("memory that a backup and its trial take", memory, "MiB", 64.0));
    Ok(())
}

/// From one buffer into another, at the segment size of the format.
fn library(report: &mut Report) -> anyhow::Result<()> {
    let figures = programs::example("lastkey-client", "library_bench", &["32"], Some(1))?;
    for what in ["encrypt", "decrypt"] {
        let ratio = figures.text(&format!("library.{what}_over_raw"))?;
        let what = format!("library, {what} 32 MiB in memory, against bare AES-256-GCM");
        report.add(Row::ratio_at_least(what, ratio, "aws-lc-rs", 0.90));
    }
    Ok(())
}

fn served(report: &mut Report, binary: &Path, scratch: &Path) -> anyhow::Result<()> {
    let data = scratch.join("data");
    let idle = server::start(binary, &data)?;
    report.add(Row::at_most("memory, idle", idle.memory_mib()?, "MiB", 20.0));
    idle.stop()?;

    // Against a handler without audit the log runs, and nobody waits for its disk.
    let ours = server::start_batched(binary, &data)?;
    let one = ours.make_keys(1)?;
    against_axum(report, &ours, "decrypt, 1 key", "/v1/decrypt", &one.ciphertexts)?;
    against_axum(report, &ours, "encrypt, 1 key", "/v1/encrypt", &one.plaintexts)?;
    access::full_path(report, &ours, &one.ciphertexts)?;
    durable_audit(report, &ours, binary, &scratch.join("durable"))?;
    let many = ours.make_keys(MANY_KEYS)?;
    against_axum(report, &ours, "decrypt, 10,000 keys", "/v1/decrypt", &many.ciphertexts)?;
    against_axum(report, &ours, "encrypt, 10,000 keys", "/v1/encrypt", &many.plaintexts)?;
    report.add(Row::at_most("memory, 10,000 keys in use", ours.memory_mib()?, "MiB", 30.0));
    kms::rows(report, binary, scratch, &ours)?;
    ours.stop()?;

    creation(report, binary, &scratch.join("creation"))?;
    let empty = server::start_times(binary, &scratch.join("empty"), PAIRS)?;
    report.add(Row::at_most("start to serving, empty store", empty, "ms", 50.0));
    let full = server::start(binary, &data)?;
    full.fill(VERY_MANY_KEYS)?;
    full.stop()?;
    let large = server::start_times(binary, &data, PAIRS)?;
    report.add(Row::at_most("start to serving, 100,000 keys", large, "ms", 200.0));
    Ok(())
}

fn creation(report: &mut Report, binary: &Path, data: &Path) -> anyhow::Result<()> {
    let server = server::start_on(Cores::All, binary, data)?;
    let runs: Vec<_> = (0..PAIRS).map(|_| server.create_durably()).collect::<Result<_, _>>()?;
    server.stop()?;
    let rate = report::median(runs.iter().map(|run| run.rate).collect());
    let each = 1e6 / report::median(runs.iter().map(|run| run.by_cpu).collect());
    let what = format!("durable key creation, 16 clients, all cores, {each:.0} µs of them a key");
    report.add(Row::rate(what, rate, "/s", 10_000.0));
    Ok(())
}

/// Answers that wait until their record is on the disk, against the same that do not.
fn durable_audit(
    report: &mut Report,
    batched: &server::Running,
    binary: &Path,
    data: &Path,
) -> anyhow::Result<()> {
    const CLIENTS: u32 = 256;
    let durable = server::start(binary, data)?;
    let (bodies, other) = (durable.make_keys(1)?.ciphertexts, batched.make_keys(1)?.ciphertexts);
    let mut pairs = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let ours = http::load(durable.target(), "/v1/decrypt", &bodies, CLIENTS)?;
        pairs.push((ours.rate, http::load(batched.target(), "/v1/decrypt", &other, CLIENTS)?.rate));
    }
    durable.stop()?;
    let what = "HTTP decrypt, 256 connections, one core, audit on the disk before the answer";
    report.add(Row::against(what, &pairs, "requests/s", "audit not waited for", 0.70));
    Ok(())
}

/// Requests a second and, which other work on the machine disturbs less, for each second of
/// processor time.
fn against_axum(
    report: &mut Report,
    ours: &server::Running,
    what: &str,
    path: &str,
    bodies: &[String],
) -> anyhow::Result<()> {
    let axum = programs::bare_axum()?;
    // As many different bodies as ours, so that the generator does the same work for both.
    let theirs = axum.body(path)?;
    let theirs: Vec<_> = (0..bodies.len()).map(|n| numbered(&theirs, n)).collect();
    let (mut rates, mut by_cpu) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let ours = http::load(ours.target(), path, bodies, 64)?;
        let limit = http::load(axum.target(), path, &theirs, 64)?;
        rates.push((ours.rate, limit.rate));
        by_cpu.push((ours.by_cpu, limit.by_cpu));
    }
    let what = format!("HTTP {what}, 64 connections, one core");
    let unit = "requests/s";
    report.add(Row::against(what.clone(), &rates, unit, "bare axum", 0.80));
    let what = format!("{what}, by processor time");
    report.add(Row::against(what, &by_cpu, unit, "bare axum", 0.80));
    Ok(())
}

/// The same JSON object with one more field, which axum passes over.
fn numbered(body: &str, number: usize) -> String {
    body.replacen('{', &format!(r#"{{"n":{number},"#), 1)
}
