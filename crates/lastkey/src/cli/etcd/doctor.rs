//! `etcd doctor`: whether this control-plane node can start, before it has to.
//!
//! Room      `lastkey`. Reads the plugin's configuration and manifests; changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use lastkey_checks::{
    boot::{Answer, Verdict, examine},
    snapshot::{Snapshot, component::components},
};

use crate::cli::{
    args::{Format, OutputForm},
    failure::{Failure, printable},
    output,
    table::grid,
};
use crate::roles::kms_plugin;

/// Arguments of `etcd doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Configuration file of the plugin
    #[arg(long, value_name = "FILE", default_value = "/etc/lastkey/kms-plugin.toml")]
    config: PathBuf,
    /// Folder of the static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests")]
    manifests: PathBuf,
    /// Encryption configuration [default: the one that the API server's manifest names]
    #[arg(long, value_name = "FILE")]
    encryption_config: Option<PathBuf>,
}

/// More is no manifest of a static pod.
const MAX_MANIFEST_LEN: u64 = 1_048_576;

/// Looks, says what it sees, and ends with exit code 1 when the node would not start.
pub(crate) fn doctor(args: &DoctorArgs, form: OutputForm) -> Result<(), Failure> {
    let Some(format) = form.plain() else {
        return Err(Failure::Usage("doctor prints a table or JSON".to_owned()));
    };
    let plugin = kms_plugin::facts(&args.config)
        .map_err(|error| Failure::Usage(printable(&format!("{error:#}"))))?;
    let answers = examine(&plugin, &snapshot(args)?, now());
    match format {
        Format::Table => output::print(&table(&answers))?,
        Format::Json => {
            let text = serde_json::to_string_pretty(&answers);
            let text = text.map_err(|error| Failure::Input(format!("no JSON: {error}")))?;
            output::print(&(text + "\n"))?;
        }
    }
    let is_bad = answers.iter().any(|answer| answer.verdict == Verdict::Bad);
    if is_bad { Err(Failure::Found) } else { Ok(()) }
}

fn snapshot(args: &DoctorArgs) -> Result<Snapshot, Failure> {
    let mut snapshot = Snapshot::default();
    let entries = fs::read_dir(&args.manifests).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| is_manifest(path)) {
        add(&mut snapshot, path)?;
    }
    let named = components(&snapshot)
        .iter()
        .find_map(|one| one.flag("encryption-provider-config").map(PathBuf::from));
    match (&args.encryption_config, named) {
        (Some(path), _) => add(&mut snapshot, path)?,
        (None, Some(path)) if path.exists() => add(&mut snapshot, &path)?,
        (None, Some(_) | None) => {}
    }
    Ok(snapshot)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
}

fn add(snapshot: &mut Snapshot, path: &Path) -> Result<(), Failure> {
    let failed = |cause| Failure::io(format!("read {}", path.display()), cause);
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > MAX_MANIFEST_LEN {
        return Err(Failure::Input(format!("{} is no manifest", path.display())));
    }
    snapshot.add_file(&path.to_string_lossy(), &fs::read(path).map_err(failed)?);
    Ok(())
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn table(answers: &[Answer]) -> String {
    let rows = answers.iter().map(|answer| {
        let verdict = match answer.verdict {
            Verdict::Good => "good",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD",
        };
        vec![verdict.to_owned(), answer.what.to_owned(), answer.words.clone()]
    });
    grid(&["", "WHAT", "HOW IT IS"], rows)
}
