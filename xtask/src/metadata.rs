//! What cargo knows about the workspace: the part of `cargo metadata` that the checks read.
//!
//! Room      `xtask`.
//! Source    `cargo metadata --format-version 1` (the cargo book).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Packages and the resolved graph between them.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Resolve,
}

/// One package, ours or not.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a `[dependencies]` table, as written.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
}

/// The graph after resolution.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One package of the graph and what it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// One resolved dependency.
#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

impl Edge {
    /// Neither for tests nor for build scripts only.
    fn is_ordinary(&self) -> bool {
        self.dep_kinds.iter().any(|reason| reason.kind.is_none())
    }
}

/// Why an edge exists: `None` is an ordinary dependency.
#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

/// Which features the graph is resolved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// What every checkout can switch on: the rules hold for all of it.
    All,
    /// What the released binary is built with.
    Default,
}

/// Asks cargo about the workspace at `root`.
///
/// # Errors
/// When cargo cannot be run, refuses (for example a stale lock file), or answers another shape.
pub(crate) fn read(root: &Path, features: Features, platform: Option<&str>) -> Result<Metadata> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["metadata", "--format-version", "1", "--locked"]);
    match features {
        Features::All => command.arg("--all-features"),
        Features::Default => &mut command,
    };
    if let Some(platform) = platform {
        command.args(["--filter-platform", platform]);
    }
    let output = command.output().context("run cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

impl Metadata {
    /// The packages of this workspace, by name.
    pub(crate) fn members(&self) -> BTreeMap<&str, &Package> {
        let ids: BTreeSet<&str> = self.workspace_members.iter().map(String::as_str).collect();
        let ours = self.packages.iter().filter(|package| ids.contains(package.id.as_str()));
        ours.map(|package| (package.name.as_str(), package)).collect()
    }

    /// What `package` itself depends on for its product code.
    pub(crate) fn direct(&self, package: &Package) -> Vec<&Package> {
        let node = self.resolve.nodes.iter().find(|node| node.id == package.id);
        let edges = node.map(|node| node.deps.as_slice()).unwrap_or_default();
        let ids: BTreeSet<&str> =
            edges.iter().filter(|edge| edge.is_ordinary()).map(|edge| edge.pkg.as_str()).collect();
        self.packages.iter().filter(|package| ids.contains(package.id.as_str())).collect()
    }

    /// Everything that is built into `package` over ordinary dependencies, itself included.
    pub(crate) fn reach(&self, package: &Package) -> Vec<&Package> {
        let edges: BTreeMap<&str, &[Edge]> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node.deps.as_slice()))
            .collect();
        let mut seen = BTreeSet::from([package.id.as_str()]);
        let mut open = vec![package.id.as_str()];
        while let Some(id) = open.pop() {
            for edge in edges.get(id).copied().unwrap_or_default() {
                if edge.is_ordinary() && seen.insert(edge.pkg.as_str()) {
                    open.push(edge.pkg.as_str());
                }
            }
        }
        self.packages.iter().filter(|package| seen.contains(package.id.as_str())).collect()
    }
}
