//! `etcd enable`: the encryption configuration, and what to do with it.
//!
//! Room      `lastkey`. Writes one file and changes nothing else.
//! Holds     A configuration that holds keys of another provider goes to a file of mode 0600,
//!           never to standard output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use lastkey_checks::{
    enable::{self, Platform, SECRETS_LIKE, Stage, Wanted},
    posture::{self, Settings},
    snapshot::Snapshot,
};

use crate::cli::{
    args::{OutArgs, OutputForm},
    failure::{Failure, printable},
    output::{self, Content},
};

/// Arguments of `etcd enable`.
#[derive(Args, Debug)]
pub(crate) struct EnableArgs {
    /// Name of the provider; it becomes a part of every stored value and can never change
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// Socket of the plugin, as the API server sees it
    #[arg(long, value_name = "PATH")]
    socket: String,
    /// Resource to encrypt: secrets, widgets.example.com, *., *.GROUP or *.* (repeatable)
    /// [default: secrets and configmaps]
    #[arg(long, value_name = "RESOURCE")]
    resource: Vec<String>,
    /// The configuration that is in force: its providers stay behind the new one
    #[arg(long, value_name = "FILE")]
    running: Option<PathBuf>,
    /// The last step: leave every other provider out, after all was rewritten and proved
    #[arg(long, requires = "running")]
    finish: bool,
    /// The way back: write in the clear again, and read what was encrypted
    #[arg(long, requires = "running", conflicts_with = "finish")]
    back: bool,
    /// How the control plane is run [default: what this machine looks like]
    #[arg(long, value_enum, value_name = "PLATFORM")]
    platform: Option<Runs>,
    /// What the cluster says of itself: the server version of `kubectl version`, or labels and
    /// provider ids of its nodes; a managed control plane is recognised by it
    #[arg(long, value_name = "WORDS")]
    cluster: Option<String>,
    #[command(flatten)]
    out: OutArgs,
}

/// How the control plane is run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runs {
    Kubeadm,
    K3s,
    Rke2,
    Talos,
    StaticPod,
}

/// Writes the configuration, and says what to do with it.
pub(crate) fn enable(args: &EnableArgs, form: OutputForm) -> Result<(), Failure> {
    if form != OutputForm::Table {
        return Err(Failure::Usage("the configuration is YAML whatever --output says".to_owned()));
    }
    if let Some(service) = args.cluster.as_deref().and_then(enable::managed) {
        output::print(&service.left())?;
        return Err(Failure::Declined);
    }
    let running = args.running.as_deref().map(read).transpose()?;
    let wanted = wanted(args);
    let text = enable::configuration(&wanted, running.as_deref())
        .map_err(|error| Failure::Input(printable(&error.to_string())))?;
    if enable::holds_keys(&text) && args.out.out.as_deref().is_none_or(|path| path == "-") {
        let advice = "the configuration holds keys of another provider: write it to a file with -o";
        return Err(Failure::Usage(advice.to_owned()));
    }
    if let (Some(running), Some(path)) = (&running, &args.running) {
        warn(path, running);
    }
    output::write_whole(&args.out, text.as_bytes(), Content::Unknown)?;
    let file =
        args.out.out.as_ref().map_or("encryption.yaml".into(), |path| path.to_string_lossy());
    output::note(&enable::steps(platform(args), &wanted, &text, &file));
    Ok(())
}

fn wanted(args: &EnableArgs) -> Wanted {
    let resources = if args.resource.is_empty() {
        SECRETS_LIKE.map(str::to_owned).to_vec()
    } else {
        args.resource.clone()
    };
    let stage = match (args.finish, args.back) {
        (true, _) => Stage::Finish,
        (_, true) => Stage::Back,
        (false, false) => Stage::Start,
    };
    let socket = args.socket.strip_prefix("unix://").unwrap_or(&args.socket).to_owned();
    Wanted { provider: args.provider.clone(), socket, resources, stage }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| Failure::io(format!("read {}", path.display()), cause))
}

/// Says what is wrong with the configuration that is in force.
fn warn(path: &Path, running: &str) {
    let mut snapshot = Snapshot::default();
    snapshot.add_file(&path.to_string_lossy(), running.as_bytes());
    let outcome = posture::judge(&snapshot, Settings { now: 0 });
    for finding in outcome.findings.iter().filter(|finding| finding.rule.starts_with("ENC-")) {
        let (rule, title) = (&finding.rule, printable(&finding.title));
        output::note(&format!("in force now: {rule} {} ({})", title, finding.location));
    }
}

/// The platform that was named, or whose files lie on this machine.
fn platform(args: &EnableArgs) -> Platform {
    match args.platform {
        Some(Runs::Kubeadm) => Platform::Kubeadm,
        Some(Runs::K3s) => Platform::K3s,
        Some(Runs::Rke2) => Platform::Rke2,
        Some(Runs::Talos) => Platform::Talos,
        Some(Runs::StaticPod) => Platform::StaticPod,
        None if Path::new("/etc/rancher/rke2").exists() => Platform::Rke2,
        None if Path::new("/etc/rancher/k3s").exists() => Platform::K3s,
        None if Path::new("/etc/kubernetes/kubelet.conf").exists() => Platform::Kubeadm,
        None => Platform::StaticPod,
    }
}
