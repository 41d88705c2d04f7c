//! `xtask sbom`: what the released binary is made of, as CycloneDX.
//!
//! Room      `xtask`.
//! Source    CycloneDX 1.6, JSON form (ECMA-424).
//! Holds     The same sources give the same bytes: no time, no serial number, no path of the
//!           building machine. C libraries inside -sys crates are named as components too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metadata::{self, Features, Metadata, Package};

/// What the caller knows and cargo does not.
pub(crate) struct Release<'a> {
    /// Version of the release.
    pub(crate) version: &'a str,
    /// Target triple.
    pub(crate) platform: &'a str,
    /// Further static parts, as `name=version`.
    pub(crate) linked: &'a [&'a str],
}

/// A C library that a crate carries and builds.
struct Carried {
    carrier: &'static str,
    name: &'static str,
    /// File in the carrier's folder and the macro in it that holds the version.
    version_file: &'static str,
    version_macro: &'static str,
    package_url: &'static str,
}

const CARRIED: &[Carried] = &[
    Carried {
        carrier: "aws-lc-sys",
        name: "AWS-LC",
        version_file: "aws-lc/include/openssl/base.h",
        version_macro: "AWSLC_VERSION_NUMBER_STRING",
        package_url: "pkg:github/aws/aws-lc",
    },
    Carried {
        carrier: "libsqlite3-sys",
        name: "SQLite",
        version_file: "sqlite3/sqlite3.h",
        version_macro: "SQLITE_VERSION",
        package_url: "pkg:generic/sqlite",
    },
];

/// Cargo.lock, as far as the checksums go.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Prints the list for the `lastkey` binary on stdout.
///
/// # Errors
/// When cargo or a source file does not tell what the list needs.
pub(crate) fn run(root: &Path, release: &Release<'_>) -> Result<()> {
    let metadata = metadata::read(root, Features::Default, Some(release.platform))?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("read Cargo.lock")?;
    let list = describe(&metadata, &checksums(&lock)?, release)?;
    println!("{}", serde_json::to_string_pretty(&list).context("render the list")?);
    Ok(())
}

fn checksums(lock: &str) -> Result<BTreeMap<String, String>> {
    let lock: Lock = toml::from_str(lock).context("read Cargo.lock")?;
    let entries = lock.package.into_iter();
    Ok(entries
        .filter_map(|locked| {
            let sum = locked.checksum?;
            Some((format!("pkg:cargo/{}@{}", locked.name, locked.version), sum))
        })
        .collect())
}

fn describe(
    metadata: &Metadata,
    checksums: &BTreeMap<String, String>,
    release: &Release<'_>,
) -> Result<Value> {
    let binary = *metadata.members().get("lastkey").context("find the package `lastkey`")?;
    let reached = metadata.reach(binary);
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for package in reached {
        let reference = package_url(package);
        let mut below = metadata.direct(package).into_iter().map(package_url).collect();
        for carried in CARRIED.iter().filter(|carried| carried.carrier == package.name) {
            let (library, library_reference) = carried_component(carried, package)?;
            components.push(library);
            BTreeSet::insert(&mut below, library_reference);
        }
        if package.id != binary.id {
            components.push(component(package, checksums.get(&reference)));
        }
        dependencies.push(json!({"ref": reference, "dependsOn": below}));
    }
    for part in release.linked {
        let (name, version) = part.split_once('=').with_context(|| format!("split {part}"))?;
        components.push(library(name, version, &format!("pkg:generic/{name}@{version}")));
    }
    components.sort_by_key(|component| component.get("bom-ref").map(Value::to_string));
    dependencies.sort_by_key(|dependency| dependency.get("ref").map(Value::to_string));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": package_url(binary),
                "name": "lastkey",
                "version": release.version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
            "properties": [{"name": "lastkey:target", "value": release.platform}],
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn package_url(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn library(name: &str, version: &str, url: &str) -> Value {
    json!({"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url})
}

fn component(package: &Package, checksum: Option<&String>) -> Value {
    // Old manifests write `/` where SPDX says `OR`.
    let license = package.license.as_ref().map(|text| text.replace('/', " OR "));
    let url = package_url(package);
    json!({
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
        "licenses": Vec::from_iter(license.map(|text| json!({"expression": text}))),
        "hashes": Vec::from_iter(checksum.map(|sum| json!({"alg": "SHA-256", "content": sum}))),
    })
}

fn carried_component(carried: &Carried, package: &Package) -> Result<(Value, String)> {
    let folder = Path::new(&package.manifest_path).parent().context("find the crate's folder")?;
    let path = folder.join(carried.version_file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let version = defined_text(&text, carried.version_macro)
        .with_context(|| format!("find {} in {}", carried.version_macro, path.display()))?;
    let url = format!("{}@{version}", carried.package_url);
    Ok((library(carried.name, version, &url), url))
}

/// The text of `#define NAME "text"`.
fn defined_text<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let found = words.next() == Some("#define") && words.next() == Some(name);
        found.then(|| words.next())?.map(|text| text.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Release, checksums, defined_text, describe};
    use crate::metadata::Metadata;

    const RELEASE: Release<'_> =
        Release { version: "1.2.3", platform: "x86_64-unknown-linux-gnu", linked: &["glibc=2.36"] };

    fn world() -> Metadata {
        let text = r#"{"workspace_members": ["l"],
        "packages": [
            {"id": "l", "name": "lastkey", "version": "0.0.0", "license": "Apache-2.0",
             "manifest_path": "/machine/l", "dependencies": []},
            {"id": "u", "name": "uuid", "version": "1.0.0", "license": "MIT/Apache-2.0",
             "manifest_path": "/machine/u", "dependencies": []},
            {"id": "p", "name": "proptest", "version": "1.0.0", "license": "MIT",
             "manifest_path": "/machine/p", "dependencies": []}],
        "resolve": {"nodes": [{"id": "l", "deps": [
            {"pkg": "u", "dep_kinds": [{"kind": null}]},
            {"pkg": "p", "dep_kinds": [{"kind": "dev"}]}]}]}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn list_names_what_is_linked_with_its_checksum_and_nothing_else() {
        let lock = "[[package]]\nname = \"uuid\"\nversion = \"1.0.0\"\nchecksum = \"abcd\"\n";
        let list = describe(&world(), &checksums(lock).unwrap(), &RELEASE).unwrap();
        let components = list["components"].as_array().unwrap();
        let names: Vec<&str> = components.iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["uuid", "glibc"]);
        assert_eq!(components[0]["hashes"][0]["content"], "abcd");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(list["dependencies"][0]["dependsOn"][0], "pkg:cargo/uuid@1.0.0");
        assert_eq!(list["metadata"]["component"]["version"], "1.2.3");
    }

    #[test]
    fn list_holds_no_path_of_the_building_machine() {
        let list = describe(&world(), &checksums("package = []").unwrap(), &RELEASE).unwrap();
        assert!(!list.to_string().contains("/machine"));
    }

    #[test]
    fn defined_text_takes_the_named_macro_only() {
        let header = "#define V_NUMBER 3\n#define V        \"3.1\"\n";
        assert_eq!(defined_text(header, "V"), Some("3.1"));
        assert_eq!(defined_text(header, "W"), None);
    }
}
