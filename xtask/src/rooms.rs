//! `xtask rooms`: who may import whom, and what the pure rooms may never reach.
//!
//! Room      `xtask`.
//! Source    rooms.toml; docs/adr/0001-rooms.md.
//! Holds     Every member of the workspace has an entry, and every entry has a member.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::metadata::{self, Features, Metadata, Package};
use crate::report;

/// rooms.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Crates that no pure room may reach, directly or through others.
    never_reached_by_pure: BTreeSet<String>,
    pub(crate) rooms: BTreeMap<String, Room>,
}

/// What one room may do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Room {
    /// Rooms it may import.
    imports: BTreeSet<String>,
    /// Rooms that its tests may import as well.
    #[serde(default)]
    tests_import: BTreeSet<String>,
    /// No clock, disk, environment or network of its own.
    #[serde(default)]
    pub(crate) pure: bool,
    /// The complete list of other people's crates it may name; absent means any.
    outside: Option<BTreeSet<String>>,
    /// Exceptions from `never_reached_by_pure`.
    #[serde(default)]
    may_reach: BTreeSet<String>,
    /// The one file in which `unsafe` may stand.
    unsafe_in: Option<String>,
}

/// Compares rooms.toml with cargo's view of the workspace at `root`.
///
/// # Errors
/// When a rule is broken, or either side cannot be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let plan = read_plan(root)?;
    let metadata = metadata::read(root, Features::All, None)?;
    let mut faults = compare(&plan, &metadata);
    faults.extend(wrong_lints(&plan, root, &metadata)?);
    report::finish("rooms", &faults, "a new edge needs an ADR and a line in rooms.toml")
}

/// Reads rooms.toml.
///
/// # Errors
/// When it is missing or has another shape.
pub(crate) fn read_plan(root: &Path) -> Result<Plan> {
    let text = fs::read_to_string(root.join("rooms.toml")).context("read rooms.toml")?;
    toml::from_str(&text).context("read rooms.toml")
}

fn compare(plan: &Plan, metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let mut faults = Vec::new();
    for name in plan.rooms.keys().filter(|name| !members.contains_key(name.as_str())) {
        faults.push(format!("{name}: in rooms.toml, but not in the workspace"));
    }
    for (name, package) in &members {
        match plan.rooms.get(*name) {
            None => faults.push(format!("{name}: in the workspace, but not in rooms.toml")),
            Some(room) => {
                faults.extend(wrong_edges(room, package, &members));
                if room.pure {
                    faults.extend(wrong_reach(plan, room, metadata, package));
                }
            }
        }
    }
    faults
}

fn wrong_edges(room: &Room, package: &Package, members: &BTreeMap<&str, &Package>) -> Vec<String> {
    let mut faults = Vec::new();
    for dependency in &package.dependencies {
        let in_tests = dependency.kind.as_deref() == Some("dev");
        let name = &dependency.name;
        let from = &package.name;
        if members.contains_key(name.as_str()) {
            let allowed =
                room.imports.contains(name) || (in_tests && room.tests_import.contains(name));
            if !allowed {
                let when = if in_tests { " in tests" } else { "" };
                faults.push(format!("{from} may not import {name}{when}"));
            }
        } else if !in_tests && room.outside.as_ref().is_some_and(|list| !list.contains(name)) {
            faults.push(format!("{from} may not depend on {name}: not in its `outside` list"));
        }
    }
    faults
}

fn wrong_reach(plan: &Plan, room: &Room, metadata: &Metadata, package: &Package) -> Vec<String> {
    let forbidden: BTreeSet<&String> =
        plan.never_reached_by_pure.difference(&room.may_reach).collect();
    let reached = metadata.reach(package);
    let wrong = reached.iter().filter(|reached| forbidden.contains(&reached.name));
    wrong.map(|found| format!("{} is pure, but reaches {}", package.name, found.name)).collect()
}

/// A member that does not take the workspace's lints would escape all of them. One with `unsafe_in`
/// repeats them instead, since what is forbidden for the workspace cannot be excused.
fn wrong_lints(plan: &Plan, root: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let workspace = fs::read_to_string(root.join("Cargo.toml")).context("read Cargo.toml")?;
    let mut faults = Vec::new();
    for (name, package) in metadata.members() {
        let path = &package.manifest_path;
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let excused = plan.rooms.get(name).and_then(|room| room.unsafe_in.as_deref());
        let Some(excused) = excused else {
            if !takes_workspace_lints(&text).with_context(|| format!("read {path}"))? {
                faults.push(format!("{name}: Cargo.toml lacks `[lints] workspace = true`"));
            }
            continue;
        };
        if !repeats_lints(&workspace, &text).with_context(|| format!("read {path}"))? {
            faults.push(format!(
                "{name}: its lints are not those of the workspace with unsafe_code at deny"
            ));
        }
        let folder = Path::new(path).parent().unwrap_or(root);
        faults.extend(excuses_elsewhere(folder, &folder.join(excused), name)?);
    }
    Ok(faults)
}

fn takes_workspace_lints(manifest: &str) -> Result<bool> {
    let manifest: toml::Table = toml::from_str(manifest)?;
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(lints.and_then(toml::Value::as_bool) == Some(true))
}

/// Whether a manifest has the lints of the workspace, but for `unsafe_code`.
fn repeats_lints(workspace: &str, manifest: &str) -> Result<bool> {
    let workspace: toml::Table = toml::from_str(workspace)?;
    let manifest: toml::Table = toml::from_str(manifest)?;
    let mut expected = workspace.get("workspace").and_then(|table| table.get("lints")).cloned();
    let rust = expected.as_mut().and_then(|lints| lints.get_mut("rust"));
    if let Some(level) = rust.and_then(|rust| rust.get_mut("unsafe_code")) {
        *level = "deny".into();
    }
    Ok(expected.is_some() && manifest.get("lints") == expected.as_ref())
}

/// Files below `folder`, other than the one that may, that excuse `unsafe_code`.
fn excuses_elsewhere(folder: &Path, excused: &Path, name: &str) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            faults.extend(excuses_elsewhere(&path, excused, name)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") && path != excused {
            let text = fs::read_to_string(&path)?;
            if text.contains("unsafe_code") {
                faults.push(format!("{name}: {} excuses unsafe_code", path.display()));
            }
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::{Plan, compare, excuses_elsewhere, repeats_lints, takes_workspace_lints};
    use crate::metadata::Metadata;

    const PLAN: &str = r#"
        never_reached_by_pure = ["tokio"]
        [rooms.core]
        imports = []
        tests_import = ["kit"]
        pure = true
        outside = ["uuid"]
        [rooms.kit]
        imports = ["core"]
    "#;

    /// `core` with the given `[dependencies]`; `uuid` leads to `bytes`, and that to `tokio` when
    /// `leak` is set.
    fn world(core_dependencies: &str, leak: bool) -> Metadata {
        let bytes_deps = if leak { edge("tokio") } else { String::new() };
        let text = format!(
            r#"{{"workspace_members": ["core", "kit"],
            "packages": [{}, {}, {}, {}, {}],
            "resolve": {{"nodes": [
                {{"id": "core", "deps": [{}]}},
                {{"id": "uuid", "deps": [{}]}},
                {{"id": "bytes", "deps": [{bytes_deps}]}}]}}}}"#,
            package("core", core_dependencies),
            package("kit", r#"{"name": "core", "kind": null}"#),
            package("uuid", ""),
            package("bytes", ""),
            package("tokio", ""),
            edge("uuid"),
            edge("bytes"),
        );
        serde_json::from_str(&text).unwrap()
    }

    fn package(name: &str, dependencies: &str) -> String {
        format!(
            r#"{{"id": "{name}", "name": "{name}", "version": "1.0.0", "license": "MIT",
            "source": null, "manifest_path": "", "dependencies": [{dependencies}]}}"#
        )
    }

    fn edge(to: &str) -> String {
        format!(r#"{{"pkg": "{to}", "dep_kinds": [{{"kind": null}}]}}"#)
    }

    fn faults(core_dependencies: &str, leak: bool) -> Vec<String> {
        let plan: Plan = toml::from_str(PLAN).unwrap();
        compare(&plan, &world(core_dependencies, leak))
    }

    #[test]
    fn rooms_accept_a_listed_crate_and_the_testkit_in_tests() {
        let written = r#"{"name": "uuid", "kind": null}, {"name": "kit", "kind": "dev"}"#;
        assert!(faults(written, false).is_empty());
    }

    #[test]
    fn rooms_refuse_the_testkit_outside_tests() {
        let written = r#"{"name": "kit", "kind": null}"#;
        assert_eq!(faults(written, false), ["core may not import kit"]);
    }

    #[test]
    fn rooms_refuse_a_crate_that_is_not_listed() {
        let written = r#"{"name": "bytes", "kind": null}"#;
        let expected = "core may not depend on bytes: not in its `outside` list";
        assert_eq!(faults(written, false), [expected]);
    }

    #[test]
    fn rooms_see_a_forbidden_crate_behind_two_others() {
        assert_eq!(faults("", true), ["core is pure, but reaches tokio"]);
    }

    #[test]
    fn rooms_want_an_entry_for_each_member_and_a_member_for_each_entry() {
        let text =
            "never_reached_by_pure = []\n[rooms.core]\nimports = []\n[rooms.x]\nimports = []";
        let plan: Plan = toml::from_str(text).unwrap();
        let expected = [
            "x: in rooms.toml, but not in the workspace",
            "kit: in the workspace, but not in rooms.toml",
        ];
        assert_eq!(compare(&plan, &world("", false)), expected);
    }

    #[test]
    fn lints_count_only_when_they_are_the_workspaces() {
        assert!(takes_workspace_lints("[lints]\nworkspace = true").unwrap());
        assert!(!takes_workspace_lints("[lints.rust]\nunsafe_code = \"deny\"").unwrap());
        assert!(!takes_workspace_lints("[package]\nname = \"x\"").unwrap());
    }

    #[test]
    fn lints_of_a_room_with_unsafe_are_those_of_the_workspace() {
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"";
        let repeats = |lints: &str| repeats_lints(workspace, lints).unwrap();
        assert!(repeats("[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\""));
        assert!(!repeats("[lints.rust]\nunsafe_code = \"allow\"\nmissing_docs = \"warn\""));
        assert!(!repeats("[lints.rust]\nunsafe_code = \"deny\""));
        assert!(!repeats("[lints]\nworkspace = true"));
    }

    #[test]
    fn unsafe_is_excused_in_one_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let excused = folder.path().join("sys.rs");
        std::fs::write(&excused, "#![expect(unsafe_code)]").unwrap();
        assert!(excuses_elsewhere(folder.path(), &excused, "r").unwrap().is_empty());
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/a.rs"), "#[expect(unsafe_code)]").unwrap();
        assert_eq!(excuses_elsewhere(folder.path(), &excused, "r").unwrap().len(), 1);
    }
}
