//! `scan`: finds secrets that lie in files, git history, archives and images.
//!
//! Room      `lastkey`. What to look for is decided in `checks`; here are the places to look:
//!           trees ([`tree`]), git ([`git`]) and standard input.
//! Source    docs/scan.md.
//! Holds     Needs no server and uses no network, unless it is told to confirm ([`confirm`]).

mod confirm;
mod git;
mod tree;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};
use lastkey_checks::{
    acceptance::{self, Baseline, Day, Suppressions},
    finding::{Fingerprinter, Severity},
    report::{self, Figure, NotChecked, Report},
    scan::{
        Limits, Options, Outcome, Rules, Scanner, Workspace,
        pack::{Matcher, ProofKey},
    },
};
use time::OffsetDateTime;

use self::confirm::Confirmer;
use super::{
    args::{ConnectionArgs, OutArgs, OutputForm},
    failure::Failure,
    input,
    output::{self, Content},
    progress::Spinner,
};

/// Arguments of `scan`.
#[derive(Args, Debug)]
pub(crate) struct ScanArgs {
    /// Files or folders; archives and images in them are opened
    #[arg(value_name = "PATH", required_unless_present_any = ["git", "stdin"], conflicts_with_all = ["git", "stdin"])]
    paths: Vec<PathBuf>,
    /// Every version of every file of a git repository
    #[arg(long, value_name = "REPO", conflicts_with = "stdin")]
    git: Option<PathBuf>,
    /// Only what is staged for the next commit
    #[arg(long, requires = "git", conflicts_with = "range")]
    staged: bool,
    /// Only the commits of this range, such as main..HEAD
    #[arg(long, requires = "git", value_name = "A..B")]
    range: Option<String>,
    /// Standard input
    #[arg(long)]
    stdin: bool,
    /// Rules in the TOML of gitleaks, in place of the built-in ones unless they extend them
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Scan pack of a key service: finds the values that it manages
    #[arg(long, value_name = "FILE")]
    pack: Option<PathBuf>,
    /// Key that must have signed the pack (Ed25519, base64)
    #[arg(long, requires = "pack", value_name = "BASE64")]
    pack_signer: Option<String>,
    /// Ask the key service whether what the pack finds is what it keeps
    #[arg(long, requires = "pack")]
    confirm: bool,
    /// Known findings, which do not fail the scan
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write all findings as a baseline, and end well
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,
    /// Accepted findings: reason, owner and last day of each
    #[arg(long, value_name = "FILE")]
    suppressions: Option<PathBuf>,
    /// Least severity that fails the scan
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "info")]
    fail_on: FailOn,
    /// File with a key under which fingerprints are made, so that they tell others nothing
    #[arg(long, value_name = "FILE")]
    fingerprint_key_file: Option<PathBuf>,
    /// Leave out what .gitignore names
    #[arg(long)]
    gitignore: bool,
    /// Look into files that are no text, too
    #[arg(long)]
    binaries: bool,
    /// Do not open archives
    #[arg(long)]
    no_archives: bool,
    /// Most that one archive may unpack to, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16_384)]
    max_unpacked: u64,
    /// Threads (default: one for each processor)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    #[command(flatten)]
    out: OutArgs,
}

/// Severities, as `--fail-on` takes them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl FailOn {
    const fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
        }
    }
}

/// Scans, reports, and says by its outcome whether something was found.
pub(crate) async fn run(
    args: &ScanArgs,
    connection: &ConnectionArgs,
    form: OutputForm,
) -> Result<(), Failure> {
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?.unwrap_or_default();
    let suppressions = args.suppressions.as_deref().map(read_suppressions).transpose()?;
    let suppressions = suppressions.unwrap_or_default();
    let confirmer = args.confirm.then(|| Confirmer::new(connection)).transpose()?;
    let (scanner, ignored) = scanner(args, confirmer.as_ref().map(Confirmer::proof_key))?;
    let mut outcome = look(args, &scanner)?;
    let refuted = match &confirmer {
        Some(confirmer) => Some(confirmer.settle(&mut outcome).await),
        None => None,
    };
    if let Some(path) = &args.write_baseline {
        let text = Baseline::render(&outcome.findings);
        let out = OutArgs { out: Some(path.clone()), force: true };
        return output::write_whole(&out, text.as_bytes(), Content::Unknown);
    }
    let failures = outcome.failures;
    let mut report = report_of(&scanner, outcome, &baseline, &suppressions, ignored)?;
    report.figures.extend(refuted.map(|count| Figure::new("refuted by the key service", count)));
    output::write_by(&args.out, |out| render(&report, form, out))?;
    let limit = args.fail_on.severity();
    if report.worst().is_some_and(|worst| worst >= limit) {
        return Err(Failure::Found);
    }
    if failures > 0 { Err(Failure::NotAllChecked) } else { Ok(()) }
}

fn render(report: &Report, form: OutputForm, out: &mut dyn io::Write) -> io::Result<()> {
    match form {
        OutputForm::Table => report::text(report, out),
        OutputForm::Json => report::json(report, (), out),
        OutputForm::Sarif => report::sarif(report, out),
        OutputForm::Junit => report::junit(report, out),
        OutputForm::Html => report::html(report, out),
    }
}

fn look(args: &ScanArgs, scanner: &Scanner) -> Result<Outcome, Failure> {
    let spinner = Spinner::new("scanning");
    let threads = match args.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    if args.stdin {
        let mut outcome = Outcome::default();
        let mut stdin = io::stdin().lock();
        scanner.scan("stdin", None, &mut stdin, &mut Workspace::default(), &mut outcome);
        return Ok(outcome);
    }
    match &args.git {
        Some(repository) => {
            let part = match (&args.range, args.staged) {
                (Some(range), _) => git::Part::Range(range),
                (None, true) => git::Part::Staged,
                (None, false) => git::Part::All,
            };
            git::scan(scanner, repository, part, threads, &spinner)
        }
        None => tree::scan(scanner, &args.paths, args.gitignore, threads, &spinner),
    }
}

fn report_of(
    scanner: &Scanner,
    outcome: Outcome,
    baseline: &Baseline,
    suppressions: &Suppressions,
    ignored: Vec<NotChecked>,
) -> Result<Report, Failure> {
    let mut report = Report {
        tool: "lastkey scan".to_owned(),
        version: crate::VERSION.to_owned(),
        rules: scanner.rule_infos(),
        figures: vec![
            Figure::new("files", outcome.files),
            Figure::new("bytes", outcome.bytes),
            Figure::new("binary files left", outcome.binaries),
        ],
        ..Report::default()
    };
    let (open, accepted) = acceptance::sort_out(outcome.findings, baseline, suppressions, today()?);
    report.findings = open;
    report.accepted = accepted.into_iter().chain(outcome.accepted).collect();
    report.not_checked = outcome.not_checked.into_iter().chain(ignored).collect();
    report.rules.push(acceptance::expired_rule());
    report.sort();
    Ok(report)
}

fn today() -> Result<Day, Failure> {
    let now = OffsetDateTime::now_utc();
    u16::try_from(now.year())
        .ok()
        .and_then(|year| Day::new(year, now.month().into(), now.day()))
        .ok_or_else(|| Failure::Input("the clock of this machine shows no year of ours".to_owned()))
}

/// The scanner, and what of the rules is not applied.
fn scanner(
    args: &ScanArgs,
    proofs: Option<ProofKey>,
) -> Result<(Scanner, Vec<NotChecked>), Failure> {
    let rules = match &args.rules {
        None => Rules::builtin(),
        Some(path) => {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let mut read = |name: &str| {
                fs::read_to_string(folder.join(name)).map_err(|error| error.to_string())
            };
            Rules::import(&read_text(path)?, &mut read)
        }
    };
    let unusable = |error: &dyn std::error::Error| match &args.rules {
        Some(path) => Failure::Usage(format!("{}: {error}", path.display())),
        None => Failure::Usage(error.to_string()),
    };
    let rules = rules.map_err(|error| unusable(&error))?;
    let gap = |reason: &String| NotChecked {
        rule: None,
        subject: args.rules.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        reason: reason.clone(),
    };
    let ignored = rules.ignored().iter().map(gap).collect();
    let limits = Limits {
        depth: if args.no_archives { 0 } else { Limits::default().depth },
        unpacked_len: args.max_unpacked.saturating_mul(1 << 20),
    };
    let options = Options { limits, binaries: args.binaries };
    let pack = args.pack.as_deref().map(|path| read_pack(path, args)).transpose()?;
    let pack = match (pack, proofs) {
        (Some(pack), Some(proofs)) => Some(pack.with_proofs(proofs)),
        (pack, _) => pack,
    };
    let scanner = Scanner::new(rules, fingerprinter(args)?, pack, options);
    Ok((scanner.map_err(|error| unusable(&error))?, ignored))
}

fn fingerprinter(args: &ScanArgs) -> Result<Fingerprinter, Failure> {
    const SHORTEST_KEY: usize = 16;
    const LONGEST_KEY: usize = 4_096;
    let Some(path) = &args.fingerprint_key_file else { return Ok(Fingerprinter::unkeyed()) };
    let key = input::Source::open(Some(path))?.read_secret(LONGEST_KEY)?;
    key.expose(|key| {
        if key.len() < SHORTEST_KEY {
            return Err(Failure::Usage(format!(
                "{}: a key of fingerprints has at least {SHORTEST_KEY} bytes",
                path.display()
            )));
        }
        Ok(Fingerprinter::keyed(key))
    })
}

fn read_pack(path: &Path, args: &ScanArgs) -> Result<Matcher, Failure> {
    let bytes = fs::read(path).map_err(|cause| reading(path, cause))?;
    let signer = args.pack_signer.as_deref().map(signer).transpose()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Matcher::parse(&bytes, now, signer.as_ref())
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn signer(text: &str) -> Result<[u8; 32], Failure> {
    let key = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| Failure::Usage("--pack-signer is no key of 32 bytes in base64".to_owned()))
}

fn read_baseline(path: &Path) -> Result<Baseline, Failure> {
    Baseline::parse(&read_text(path)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read_suppressions(path: &Path) -> Result<Suppressions, Failure> {
    Suppressions::parse(&path.display().to_string(), &read_text(path)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| reading(path, cause))
}

fn reading(path: &Path, cause: io::Error) -> Failure {
    Failure::io(format!("read {}", path.display()), cause)
}
