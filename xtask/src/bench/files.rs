//! Files: against a plain copy, the bare primitive, and the programs that people use instead.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::PAIRS;
use super::programs::{self, Scratch};
use super::report::{Report, Row, median};

/// Length of the one large file, in MiB.
const LARGE_MIB: usize = 1_024;
/// Files of the folder, and their length in bytes.
const SMALL_FILES: usize = 10_000;
const SMALL_LEN: usize = 4_096;
/// Files that age gets one by one: a process for each takes its time.
const LOOP_FILES: usize = 300;
/// What the largest files are measured against.
const COPY: &str = "copy with the same buffers";
/// How the AWS Encryption SDK and Tink are asked for one file.
const AWS_SDK: &str = include_str!("aws_encryption_sdk.py");
const TINK: &str = include_str!("tink_streaming.py");

/// Rows of the room, in its own process.
///
/// # Errors
/// When the example fails.
pub(super) fn in_process(report: &mut Report) -> anyhow::Result<()> {
    let figures = programs::example("lastkey-crypto", "crypto_bench", &["memory"], Some(1))?;
    for name in ["encrypt", "decrypt"] {
        let ratio = figures.text(&format!("memory.{name}_over_raw"))?;
        let what = format!("{name} 1 MiB in memory, against the bare primitive, processor time");
        report.add(Row::ratio_at_least(what, ratio, "aws-lc-rs AES-256-GCM", 0.90));
    }
    let scratch = Scratch::in_memory()?;
    let dir = scratch.path().to_str().context("the scratch directory has no name")?;
    let mib = LARGE_MIB.to_string();
    for (cores, suffix, core, goal) in
        [("one core", "", Some(1), 1.2), ("two cores", "_on_two", None, 1.1)]
    {
        let figures =
            programs::example("lastkey-crypto", "crypto_bench", &["file", dir, &mib], core)?;
        for name in ["encrypt", "decrypt"] {
            let ratio = figures.text(&format!("file.{name}{suffix}_over_copy"))?;
            let what = format!("file of 1 GiB, {name}, {cores}, against a plain copy");
            report.add(Row::ratio_at_most(what, ratio, COPY, goal));
        }
    }
    Ok(())
}

/// Rows of the command line beside its peers.
///
/// # Errors
/// When our own program fails; a peer that is missing is told of.
pub(super) fn beside_peers(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    let scratch = Scratch::in_memory()?;
    let bench = Bench::new(binary, scratch.path())?;
    large_file(report, &bench)?;
    small_files(report, &bench)?;
    rewrap(report, &bench)
}

/// A folder with an identity, and the program.
struct Bench<'a> {
    binary: &'a Path,
    dir: &'a Path,
    recipient: String,
}

impl<'a> Bench<'a> {
    fn new(binary: &'a Path, dir: &'a Path) -> anyhow::Result<Self> {
        let words = dir.join("words");
        fs::write(&words, "a passphrase for the bench\n")?;
        // An identity and its recipient, as age-keygen writes them; of no use but this one.
        let identity =
            "AGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y\n";
        fs::write(dir.join("identity"), identity)?;
        let recipient = "age1p5z6n9gplrv72tah09ydesmg5z59nv6p0yqy7fkahhq07dd7732smyg0pd";
        Ok(Self { binary, dir, recipient: recipient.to_owned() })
    }

    /// Seconds of a command in the folder. A shell is part of what people wait for only where
    /// there is a loop.
    fn seconds(&self, program: &Path, args: &[&str]) -> anyhow::Result<f64> {
        Ok(self.timed(program, args)?.0)
    }

    /// Seconds on the clock, and of processor time.
    fn timed(&self, program: &Path, args: &[&str]) -> anyhow::Result<(f64, f64)> {
        let before = programs::children_cpu_seconds()?;
        let begin = Instant::now();
        let status = Command::new(program)
            .args(args)
            .current_dir(self.dir)
            .env("GNUPGHOME", self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("{} does not start", program.display()))?;
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(status.success(), "{} {args:?} failed", program.display());
        Ok((seconds, programs::children_cpu_seconds()? - before))
    }

    fn ours(&self, args: &[&str]) -> anyhow::Result<f64> {
        self.seconds(self.binary, args)
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            let path = self.dir.join(name);
            // What is not there needs no removal.
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// A program beside ours: its name, how it is had, and its arguments.
struct Peer {
    name: &'static str,
    /// How it is installed.
    from: &'static str,
    program: &'static str,
    args: Vec<String>,
    /// How many times as long as ours it should take at least.
    goal: f64,
}

fn peers(recipient: &str) -> Vec<Peer> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let iv = "00112233445566778899aabbccddeeff";
    let python = |script: &str| ["-c", script, "large", "peer"].map(str::to_owned).to_vec();
    vec![
        Peer {
            name: "age",
            from: "apt-get install age",
            program: "age",
            args: words(&format!("-r {recipient} -o peer large")),
            goal: 2.5,
        },
        Peer {
            name: "rage",
            from: "cargo install rage",
            program: "rage",
            args: words(&format!("-r {recipient} -o peer large")),
            goal: 4.0,
        },
        Peer {
            name: "openssl aes-256-ctr, no authentication",
            from: "apt-get install openssl",
            program: "openssl",
            args: words(&format!("enc -aes-256-ctr -K {key} -iv {iv} -in large -out peer")),
            goal: 5.0,
        },
        Peer {
            name: "gpg, AES-256, no compression",
            from: "apt-get install gpg",
            program: "gpg",
            args: words(
                "--batch --yes --pinentry-mode loopback --passphrase-file words --symmetric \
                 --cipher-algo AES256 -z 0 -o peer large",
            ),
            goal: 8.0,
        },
        Peer {
            name: "Tink for Python, streaming",
            from: "pip install tink",
            program: "python3",
            args: python(TINK),
            goal: 5.0,
        },
        Peer {
            name: "AWS Encryption SDK for Python",
            from: "pip install aws-encryption-sdk aws-cryptographic-material-providers",
            program: "python3",
            args: python(AWS_SDK),
            goal: 15.0,
        },
    ]
}

fn is_there(peer: &Peer) -> bool {
    let ["-c", script, ..] = peer.args.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return has(peer.program);
    };
    let imports: Vec<&str> =
        script.lines().filter(|line| line.contains("import ")).map(str::trim).collect();
    let probe =
        Command::new(peer.program).args(["-c", &imports.join("\n")]).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

/// Whether a program is on the path.
pub(super) fn has(program: &str) -> bool {
    let line = format!("command -v {program}");
    let ended = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}

/// Says that a peer was not compared, and how it is had.
pub(super) fn missing(name: &str, from: &str) {
    eprintln!("bench: MISSING, NOT COMPARED: {name} ({from})");
}

fn large_file(report: &mut Report, bench: &Bench<'_>) -> anyhow::Result<()> {
    let large = bench.dir.join("large");
    write_large(&large)?;
    let ours = ["encrypt", "--recipient", &bench.recipient, "large", "-o", "ours"];
    let memory = peak_memory_mib(bench.binary, bench.dir, &ours)?;
    report.add(Row::at_most("memory, file of 1 GiB on the command line", memory, "MiB", 32.0));
    for peer in peers(&bench.recipient) {
        if !is_there(&peer) {
            missing(peer.name, peer.from);
            continue;
        }
        let args: Vec<&str> = peer.args.iter().map(String::as_str).collect();
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            bench.remove(&["ours", "peer"]);
            let us = bench.ours(&ours)?;
            pairs.push((us, bench.seconds(Path::new(peer.program), &args)?));
        }
        let what = "file of 1 GiB on the command line, all cores";
        report.add(Row::faster(what, &pairs, 1.0, "s", peer.name, peer.goal));
    }
    bench.remove(&["ours", "peer", "large"]);
    Ok(())
}

/// Bytes that no program can make shorter.
fn write_large(path: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = Vec::with_capacity(1 << 20);
    while piece.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.extend_from_slice(&state.to_le_bytes());
    }
    for _ in 0..LARGE_MIB {
        file.write_all(&piece)?;
    }
    Ok(())
}

/// The most memory that a command had at once, as far as it was seen every millisecond.
pub(super) fn peak_memory_mib(binary: &Path, dir: &Path, args: &[&str]) -> anyhow::Result<f64> {
    let mut child = Command::new(binary)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0.0_f64;
    while child.try_wait()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(1));
    }
    // 1: `scan` found something.
    let is_done = matches!(child.wait()?.code(), Some(0 | 1));
    ensure!(is_done && peak_kib > 0.0, "{args:?} failed");
    Ok(peak_kib / 1_024.0)
}

fn small_files(report: &mut Report, bench: &Bench<'_>) -> anyhow::Result<()> {
    for number in 0..SMALL_FILES {
        let folder = bench.dir.join("small").join((number % 10).to_string());
        fs::create_dir_all(&folder)?;
        let byte = u8::try_from(number % 251).unwrap_or(0);
        fs::write(folder.join(number.to_string()), vec![byte; SMALL_LEN])?;
    }
    let ours = ["encrypt", "--recipient", &bench.recipient, "small", "-o", "sealed"];
    let back = ["decrypt", "-i", "identity", "sealed", "-o", "opened"];
    let (mut there, mut again, mut looped) = (Vec::new(), Vec::new(), Vec::new());
    let each = format!(
        "for f in $(find small -type f | head -n {LOOP_FILES}); do \
         age -r {} -o looped \"$f\"; done",
        bench.recipient
    );
    let is_age_there = has("age");
    if !is_age_there {
        missing("age in a loop", "apt-get install age");
    }
    for _ in 0..PAIRS {
        bench.remove(&["copied", "sealed", "opened"]);
        let copy = bench.timed(Path::new("cp"), &["-r", "small", "copied"])?;
        let seal = bench.timed(bench.binary, &ours)?;
        there.push((seal, copy));
        again.push((bench.timed(bench.binary, &back)?, copy));
        if is_age_there {
            let age = bench.seconds(Path::new("sh"), &["-c", &each])?;
            looped.push((seal.0 / count(SMALL_FILES), age / count(LOOP_FILES)));
        }
    }
    for (name, pairs) in [("encrypt", &there), ("decrypt", &again)] {
        let what = format!("10,000 files of 4 KiB, {name}, against cp -r");
        let wall: Vec<f64> = pairs.iter().map(|(ours, copy)| ours.0 / copy.0).collect();
        report.add(Row::ratio_at_most(what.clone(), &range(&wall), COPY, 1.3));
        let cpu: Vec<f64> = pairs.iter().map(|(ours, copy)| ours.1 / copy.1).collect();
        report.add(Row::ratio_at_most(format!("{what}, processor time"), &range(&cpu), COPY, 1.3));
    }
    if is_age_there {
        let what = "10,000 files of 4 KiB, each";
        report.add(Row::faster(what, &looped, 1e6, "µs", "age in a shell loop", 50.0));
    }
    bench.remove(&["small", "copied", "sealed", "opened", "looped"]);
    Ok(())
}

/// Median, least and most.
fn range(ratios: &[f64]) -> String {
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", median(ratios.to_vec()))
}

fn count(files: usize) -> f64 {
    u32::try_from(files).map_or(1.0, f64::from)
}

/// Of a sparse file: what would be 100 GiB of segments is never read.
fn rewrap(report: &mut Report, bench: &Bench<'_>) -> anyhow::Result<()> {
    fs::write(bench.dir.join("few"), "a few bytes")?;
    bench.ours(&["encrypt", "--recipient", &bench.recipient, "few", "-o", "sparse"])?;
    fs::File::options().write(true).open(bench.dir.join("sparse"))?.set_len(100 << 30)?;
    let args = ["rewrap", "-i", "identity", "--add-recipient", &bench.recipient, "sparse"];
    let times = (0..PAIRS).map(|_| bench.ours(&args)).collect::<anyhow::Result<Vec<f64>>>()?;
    let what = "rewrap of a sparse file of 100 GiB, the whole process";
    report.add(Row::at_most(what, median(times) * 1e3, "ms", 10.0));
    bench.remove(&["few", "sparse"]);
    Ok(())
}
