//! `check`: whether a cluster keeps its keys and Secrets well, from files alone.
//!
//! Room      `lastkey`. Collects what was named on the command line, has it judged by
//!           `lastkey-checks`, prints the report. No network.

mod manifests;
mod node;

use std::{
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueEnum};
use lastkey_checks::{
    acceptance::{Baseline, Day, Suppressions, expired_rule, sort_out},
    finding::Severity,
    posture::{self, Outcome, Settings, State, clauses, policy},
    report::{Report, html, json, junit, sarif, text},
    snapshot::{Snapshot, etcd},
};
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
pub(crate) fn run(args: &CheckArgs, form: OutputForm) -> Result<(), Failure> {
    if let Some(CheckCommand::Policy(args)) = &args.command {
        return write_policies(args);
    }
    let sources = &args.sources;
    if sources.manifests.is_empty()
        && sources.node_root.is_none()
        && sources.etcd_snapshot.is_none()
    {
        return Err(Failure::Usage(
            "name what to check: --manifests, --node-root or --etcd-snapshot".to_owned(),
        ));
    }
    let now = now();
    let snapshot = collect(sources)?;
    let outcome = posture::judge(&snapshot, Settings { now });
    if let Some(path) = &args.write_baseline {
        let text = Baseline::render(&outcome.findings);
        let out = OutArgs { out: Some(path.clone()), force: true };
        return output::write_whole(&out, text.as_bytes(), Content::Unknown);
    }
    let report = report(args, &snapshot, &outcome, now)?;
    let shown = shown(form, &report, &outcome)?;
    output::write_whole(&args.out, shown.as_bytes(), Content::Unknown)?;
    if report.findings.iter().any(|finding| args.fail_on.is_reached(finding.severity)) {
        return Err(Failure::Found);
    }
    if snapshot.unreadable.is_empty() { Ok(()) } else { Err(Failure::NotAllChecked) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn collect(sources: &SourceArgs) -> Result<Snapshot, Failure> {
    let mut snapshot = Snapshot::default();
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

fn report(
    args: &CheckArgs,
    snapshot: &Snapshot,
    outcome: &Outcome,
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
    let (findings, accepted) =
        sort_out(outcome.findings.clone(), &baseline, &suppressions, today(now)?);
    let mut figures = outcome.figures();
    figures
        .insert(0, lastkey_checks::report::Figure::new("objects", snapshot.objects.len() as u64));
    let mut rules = posture::rules();
    rules.push(expired_rule());
    let mut report = Report {
        tool: "lastkey check".to_owned(),
        version: crate::VERSION.to_owned(),
        rules,
        findings,
        accepted,
        not_checked: outcome.not_checked.clone(),
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

fn shown(form: OutputForm, report: &Report, outcome: &Outcome) -> Result<String, Failure> {
    Ok(match form {
        OutputForm::Table => text(report) + &clauses_in_words(outcome),
        OutputForm::Json => with_states(&json(report), outcome)?,
        OutputForm::Sarif => sarif(report),
        OutputForm::Junit => junit(report),
        OutputForm::Html => html(report),
    })
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

/// The JSON of the report with the state of every check and clause.
fn with_states(report: &str, outcome: &Outcome) -> Result<String, Failure> {
    let broken =
        |error: serde_json::Error| Failure::Input(format!("the report is broken: {error}"));
    let mut value: serde_json::Value = serde_json::from_str(report).map_err(broken)?;
    if let Some(fields) = value.as_object_mut() {
        let states =
            outcome.states.iter().map(|(id, state)| ((*id).to_owned(), state.name().into()));
        fields.insert("checks".to_owned(), serde_json::Value::Object(states.collect()));
        let clauses = clauses(&outcome.states).into_iter().map(|clause| {
            let checks: Vec<&str> = clause.checks.iter().map(|(id, _)| *id).collect();
            serde_json::json!({ "clause": clause.number, "title": clause.title, "state": clause.state.name(), "checks": checks })
        });
        fields.insert("mlps".to_owned(), clauses.collect());
    }
    let mut text = serde_json::to_string_pretty(&value).map_err(broken)?;
    text.push('\n');
    Ok(text)
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
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).create_new(!args.force);
        options
            .open(&path)
            .and_then(|mut target| std::io::Write::write_all(&mut target, file.text.as_bytes()))
            .map_err(|cause| Failure::io(format!("write {}", path.display()), cause))?;
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
