//! `check`: whether a cluster keeps its keys and Secrets well, from files or from the cluster.
//!
//! Room      `lastkey`. Collects what was named on the command line, has it judged by
//!           `lastkey-checks`, prints the report. No network but to the API server of a
//!           kubeconfig that was named.

mod live;
mod manifests;
mod node;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueEnum};
use lastkey_checks::{
    acceptance::{Baseline, Day, Suppressions, expired_rule, sort_out},
    finding::Severity,
    posture::{self, Outcome, Settings, State, clauses, policy},
    report::{Figure, Report, html, json, junit, sarif, text},
    snapshot::{Snapshot, etcd},
};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    args::{OutArgs, OutputForm},
    failure::Failure,
    output::{self, Content},
};

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    command: Option<CheckCommand>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Least severity that fails the check
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "high")]
    fail_on: Level,
    /// Findings of this file are known; only new ones count
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write what is found now as a baseline
    #[arg(long, value_name = "FILE", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,
    /// File of findings to live with, each with reason, owner and last day
    #[arg(long, value_name = "FILE")]
    suppressions: Option<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// What to look at.
#[derive(Args, Debug, Default)]
struct SourceArgs {
    /// Manifests: a file, a folder, or - for standard input (repeatable)
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// A live cluster: reads lists, of Secrets their metadata alone
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// Root of a node's files: / on the node itself
    #[arg(long, value_name = "DIR")]
    node_root: Option<PathBuf>,
    /// Snapshot of etcd, or its database file
    #[arg(long, value_name = "FILE")]
    etcd_snapshot: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum CheckCommand {
    /// Write admission and network policies that would have stopped what is found
    Policy(PolicyArgs),
}

#[derive(Args, Debug)]
struct PolicyArgs {
    /// Folder to write to
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Only what these manifests need: a file, a folder, or - (repeatable)
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// From which severity on findings fail the run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Info,
    Low,
    Medium,
    High,
    Critical,
    Never,
}

impl Level {
    fn is_reached(self, severity: Severity) -> bool {
        let least = match self {
            Self::Info => Severity::Info,
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
            Self::Never => return false,
        };
        severity >= least
    }
}

/// Checks what was named, or writes policies.
pub(crate) async fn run(args: &CheckArgs, form: OutputForm) -> Result<(), Failure> {
    if let Some(CheckCommand::Policy(args)) = &args.command {
        return write_policies(args);
    }
    let now = now();
    let snapshot = collect(&args.sources).await?;
    let mut outcome = posture::judge(&snapshot, Settings { now });
    if let Some(path) = &args.write_baseline {
        let text = Baseline::render(&outcome.findings);
        let out = OutArgs { out: Some(path.clone()), force: true };
        return output::write_whole(&out, text.as_bytes(), Content::Unknown);
    }
    let is_whole = snapshot.unreadable.is_empty() && snapshot.withheld.is_empty();
    let objects = snapshot.objects.len() as u64;
    // What was read is not needed any more, and may be much.
    drop(snapshot);
    let report = report(args, objects, &mut outcome, now)?;
    output::write_by(&args.out, |out| write(form, &report, &outcome, out))?;
    if report.findings.iter().any(|finding| args.fail_on.is_reached(finding.severity)) {
        return Err(Failure::Found);
    }
    if is_whole { Ok(()) } else { Err(Failure::NotAllChecked) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn collect(sources: &SourceArgs) -> Result<Snapshot, Failure> {
    let is_named = !sources.manifests.is_empty()
        || sources.kubeconfig.is_some()
        || sources.node_root.is_some()
        || sources.etcd_snapshot.is_some();
    if !is_named {
        let advice =
            "name what to check: --manifests, --kubeconfig, --node-root or --etcd-snapshot";
        return Err(Failure::Usage(advice.to_owned()));
    }
    let mut snapshot = Snapshot::default();
    if let Some(path) = &sources.kubeconfig {
        live::read(path, sources.context.as_deref(), &mut snapshot).await?;
    }
    for path in &sources.manifests {
        manifests::read(path, &mut snapshot)?;
    }
    if let Some(root) = &sources.node_root {
        snapshot.set_node(node::facts(root)?);
    }
    if let Some(path) = &sources.etcd_snapshot {
        let name = path.display();
        let file =
            fs::File::open(path).map_err(|cause| Failure::io(format!("open {name}"), cause))?;
        let facts = etcd::read(&mut BufReader::new(file))
            .map_err(|error| Failure::Input(format!("{name}: {error}")))?;
        snapshot.etcd = Some(facts);
    }
    snapshot.settle();
    Ok(snapshot)
}

/// Moves the findings and gaps of the outcome into the report; its states stay.
fn report(
    args: &CheckArgs,
    objects: u64,
    outcome: &mut Outcome,
    now: u64,
) -> Result<Report, Failure> {
    let suppressions = match &args.suppressions {
        None => Suppressions::default(),
        Some(path) => Suppressions::parse(&path.display().to_string(), &read_text(path)?)
            .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))?,
    };
    let baseline = match &args.baseline {
        None => Baseline::default(),
        Some(path) => Baseline::parse(&read_text(path)?)
            .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))?,
    };
    let mut figures = outcome.figures();
    figures.insert(0, Figure::new("objects", objects));
    let found = std::mem::take(&mut outcome.findings);
    let (findings, accepted) = sort_out(found, &baseline, &suppressions, today(now)?);
    let mut rules = posture::rules();
    rules.push(expired_rule());
    let mut report = Report {
        tool: "lastkey check".to_owned(),
        version: crate::VERSION.to_owned(),
        rules,
        findings,
        accepted,
        not_checked: std::mem::take(&mut outcome.not_checked),
        figures,
    };
    report.sort();
    Ok(report)
}

fn today(now: u64) -> Result<Day, Failure> {
    let beyond = || Failure::Input("the clock of this machine is beyond the calendar".to_owned());
    let now = i64::try_from(now).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    let date = now.ok_or_else(beyond)?.date();
    let year = u16::try_from(date.year()).map_err(|_| beyond())?;
    Day::new(year, date.month().into(), date.day()).ok_or_else(beyond)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| Failure::io(format!("read {}", path.display()), cause))
}

fn write(
    form: OutputForm,
    report: &Report,
    outcome: &Outcome,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    match form {
        OutputForm::Table => {
            text(report, out)?;
            out.write_all(clauses_in_words(outcome).as_bytes())
        }
        OutputForm::Json => json(report, States::of(outcome), out),
        OutputForm::Sarif => sarif(report, out),
        OutputForm::Junit => junit(report, out),
        OutputForm::Html => html(report, out),
    }
}

/// The clauses of the protection scheme that the checks answer.
fn clauses_in_words(outcome: &Outcome) -> String {
    let mut words = format!("\n{}, as far as these checks go:\n", posture::MLPS);
    for clause in clauses(&outcome.states) {
        let worst = |state| clause.checks.iter().filter(move |(_, known)| *known == state);
        let failed: Vec<&str> = worst(State::Fail).map(|(id, _)| *id).collect();
        let named =
            if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
        words.push_str(&format!(
            "  {:10} {:36} {}{named}\n",
            clause.number,
            clause.title,
            clause.state.name()
        ));
    }
    words
}

/// The state of every check and clause, for the JSON.
#[derive(Serialize)]
struct States {
    checks: BTreeMap<&'static str, &'static str>,
    mlps: Vec<ClauseState>,
}

#[derive(Serialize)]
struct ClauseState {
    clause: &'static str,
    title: &'static str,
    state: &'static str,
    checks: Vec<&'static str>,
}

impl States {
    fn of(outcome: &Outcome) -> Self {
        let mlps = clauses(&outcome.states).into_iter().map(|clause| ClauseState {
            clause: clause.number,
            title: clause.title,
            state: clause.state.name(),
            checks: clause.checks.iter().map(|(id, _)| *id).collect(),
        });
        Self {
            checks: outcome.states.iter().map(|(id, state)| (*id, state.name())).collect(),
            mlps: mlps.collect(),
        }
    }
}

fn write_policies(args: &PolicyArgs) -> Result<(), Failure> {
    let mut snapshot = Snapshot::default();
    for path in &args.manifests {
        manifests::read(path, &mut snapshot)?;
    }
    snapshot.settle();
    let outcome =
        (!args.manifests.is_empty()).then(|| posture::judge(&snapshot, Settings { now: now() }));
    fs::create_dir_all(&args.out)
        .map_err(|cause| Failure::io(format!("create {}", args.out.display()), cause))?;
    for file in policy::policies(&snapshot, outcome.as_ref()) {
        let path = args.out.join(&file.name);
        let out = OutArgs { out: Some(path.clone()), force: args.force };
        output::write_whole(&out, file.text.as_bytes(), Content::Unknown)?;
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
