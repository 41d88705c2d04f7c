//! `scan` beside its peers, and `check` over a large cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::files::{has, missing, peak_memory_mib};
use super::programs::{self, Scratch};
use super::report::{Report, Row};

/// Length of the source tree, in bytes.
const TREE_LEN: u64 = 400_000_000;
/// Runs behind a ratio: a peer takes minutes.
const PAIRS: usize = 3;
/// Manifests, each with a pod, a role and its binding.
const MANIFESTS: usize = 5_000;

/// A scanner beside ours: its name, how it is had, its arguments before the folder.
struct Peer {
    name: &'static str,
    from: &'static str,
    args: &'static [&'static str],
    /// How many times as long as ours it should take at least.
    goal: f64,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "kingfisher",
        from: "pip install kingfisher-bin",
        args: &["scan", "--no-validate", "--no-update-check", "--jobs", "1"],
        goal: 1.8,
    },
    Peer {
        name: "gitleaks",
        from: "go install github.com/zricethezav/gitleaks/v8@latest",
        args: &["dir", "--no-banner", "--exit-code", "0"],
        goal: 5.0,
    },
    Peer {
        name: "betterleaks",
        from: "go install github.com/betterleaks/betterleaks@latest",
        args: &["dir", "--no-banner", "--exit-code", "0"],
        goal: 1.0,
    },
];

/// Rows of both.
///
/// # Errors
/// When our own program fails; a peer that is missing is told of.
pub(super) fn rows(report: &mut Report, binary: &Path) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    scan(report, binary, scratch.path())?;
    check(report, binary, scratch.path())
}

fn scan(report: &mut Report, binary: &Path, dir: &Path) -> anyhow::Result<()> {
    let tree = dir.join("tree");
    let len = plant(&tree)?;
    let empty = dir.join("empty");
    fs::create_dir(&empty)?;
    let (tree, empty) = (text(&tree)?, text(&empty)?);
    let ours = |folder: &str| run(binary, &["scan", "--threads", "1", "--output", "json", folder]);
    // The first run reads the disk.
    ours(tree)?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred million")]
    let megabytes = len as f64 / 1e6;
    report.add(Row::rate(
        "scan a source tree of 400 MB, one core",
        megabytes / ours(tree)?.seconds,
        " MB/s",
        150.0,
    ));
    report.add(Row::at_most("scan, start", ours(empty)?.seconds * 1_000.0, "ms", 60.0));
    let args = ["scan", "--threads", "1", tree];
    report.add(Row::at_most("scan, memory", peak_memory_mib(binary, dir, &args)?, "MiB", 150.0));
    for peer in PEERS {
        if !has(peer.name) {
            missing(peer.name, peer.from);
            continue;
        }
        let theirs = [peer.args, &[tree]].concat();
        let (mut clock, mut processor) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let (ours, theirs) = (ours(tree)?, run(Path::new(peer.name), &theirs)?);
            clock.push((ours.seconds, theirs.seconds));
            processor.push((ours.processor, theirs.processor));
        }
        for (what, pairs) in [
            ("scan of that tree, one core", clock),
            ("scan of that tree, processor time", processor),
        ] {
            report.add(Row::faster(what, &pairs, 1.0, "s", peer.name, peer.goal));
        }
    }
    Ok(())
}

fn check(report: &mut Report, binary: &Path, dir: &Path) -> anyhow::Result<()> {
    let manifests = dir.join("manifests");
    fs::create_dir(&manifests)?;
    for number in 0..MANIFESTS {
        fs::write(manifests.join(format!("{number}.yaml")), manifest(number))?;
    }
    let args =
        ["check", "--fail-on", "never", "--output", "json", "--manifests", text(&manifests)?];
    run(binary, &args)?;
    let what = "check over 5,000 manifests and 10,000 RBAC objects";
    report.add(Row::at_most(what, run(binary, &args)?.seconds, "s", 5.0));
    let memory = peak_memory_mib(binary, dir, &args)?;
    report.add(Row::at_most(format!("{what}, memory"), memory, "MiB", 150.0));
    Ok(())
}

fn manifest(number: usize) -> String {
    let namespace = number / 50;
    let api = "rbac.authorization.k8s.io";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: w{number}, namespace: n{namespace}}}\n\
         spec: {{hostPID: true, containers: [{{name: a}}]}}\n---\n\
         apiVersion: {api}/v1\nkind: Role\nmetadata: {{name: r{number}, namespace: n{namespace}}}\n\
         rules: [{{apiGroups: [''], resources: [secrets], verbs: [get]}}]\n---\n\
         apiVersion: {api}/v1\nkind: RoleBinding\nmetadata: {{name: b{number}, namespace: n{namespace}}}\n\
         roleRef: {{apiGroup: {api}, kind: Role, name: r{number}}}\n\
         subjects: [{{kind: ServiceAccount, name: s, namespace: n{namespace}}}]\n"
    )
}

/// This repository's own files, as often as they are needed; answers how long they are.
fn plant(tree: &Path) -> anyhow::Result<u64> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output()?;
    ensure!(listed.status.success(), "git cannot list the files of this repository");
    let names = String::from_utf8(listed.stdout)?;
    let mut len = 0;
    for copy in 0_u32.. {
        for name in names.split_terminator('\0') {
            let target = tree.join(copy.to_string()).join(name);
            fs::create_dir_all(target.parent().context("a file without a folder")?)?;
            len += fs::copy(name, target).with_context(|| name.to_owned())?;
            if len >= TREE_LEN {
                return Ok(len);
            }
        }
        ensure!(len > 0, "this repository has no files");
    }
    Ok(len)
}

/// What a run took.
struct Took {
    /// On the clock.
    seconds: f64,
    /// Of processor time, in seconds, which other work on the machine disturbs less.
    processor: f64,
}

/// Runs a program on core 1. Scanners end with 1 when they found something, kingfisher with 200.
fn run(program: &Path, args: &[&str]) -> anyhow::Result<Took> {
    let before = programs::children_cpu_seconds()?;
    let begin = Instant::now();
    let status = programs::pinned(1, program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let seconds = begin.elapsed().as_secs_f64();
    let is_done = matches!(status.code(), Some(0 | 1 | 7 | 200 | 205));
    ensure!(is_done, "{} {args:?} failed: {status}", program.display());
    Ok(Took { seconds, processor: programs::children_cpu_seconds()? - before })
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the scratch directory has no name")
}
