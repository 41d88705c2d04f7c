//! `xtask size`: functions above 60 lines and files above 600, against a list that may only
//! get shorter.
//!
//! Room      `xtask`.
//! Source    CONTRIBUTING.md, "Size"; the list is xtask/size.toml.
//! Holds     Lines are counted as clippy's `too_many_lines` does: without blank lines and
//!           comment lines, between the braces. A file's test module does not count.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::report;
use crate::source::{self, SourceFile};

/// Whether to hold the code against the list, or to shorten the list first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Fails on every difference.
    Check,
    /// Takes what became shorter out of the list; never adds to it.
    Lower,
}

const MAX_FUNCTION_LINES: usize = 60;
const MAX_FILE_LINES: usize = 600;

/// xtask/size.toml: what is too long, and how long.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Sizes {
    #[serde(default)]
    files: BTreeMap<String, usize>,
    #[serde(default)]
    functions: BTreeMap<String, usize>,
}

/// Compares the sizes of all code with the list.
///
/// # Errors
/// When something is longer than the list allows or shorter than it says, or a file cannot be
/// read.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<()> {
    let path = root.join("xtask/size.toml");
    let text = fs::read_to_string(&path).context("read xtask/size.toml")?;
    let mut recorded: Sizes = toml::from_str(&text).context("read xtask/size.toml")?;
    let found = measure(&source::read_all(root)?);
    if mode == Mode::Lower {
        lower(&mut recorded.files, &found.files);
        lower(&mut recorded.functions, &found.functions);
        fs::write(&path, render(&recorded)).context("write xtask/size.toml")?;
    }
    let mut faults = compare(&recorded.files, &found.files);
    faults.extend(compare(&recorded.functions, &found.functions));
    report::finish("size", &faults, "cut what grew; `cargo xtask size --lower` takes out the rest")
}

fn compare(recorded: &BTreeMap<String, usize>, found: &BTreeMap<String, usize>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, lines) in found {
        match recorded.get(name) {
            None => faults.push(format!("{name}: {lines} lines, too long")),
            Some(listed) if lines > listed => {
                faults.push(format!("{name}: grew from {listed} to {lines} lines"));
            }
            Some(_) => {}
        }
    }
    for (name, listed) in recorded {
        if found.get(name).is_none_or(|lines| lines < listed) {
            faults.push(format!("{name}: listed with {listed} lines, is shorter now"));
        }
    }
    faults
}

fn lower(recorded: &mut BTreeMap<String, usize>, found: &BTreeMap<String, usize>) {
    recorded.retain(|name, _| found.contains_key(name));
    for (name, listed) in recorded {
        *listed = found.get(name).map_or(*listed, |lines| *lines.min(listed));
    }
}

fn render(sizes: &Sizes) -> String {
    let mut text = "# Code lines of what is too long. The list may only get shorter.\n".to_owned();
    for (table, entries) in [("files", &sizes.files), ("functions", &sizes.functions)] {
        let _ = writeln!(text, "\n[{table}]");
        for (name, lines) in entries {
            let _ = writeln!(text, "\"{name}\" = {lines}");
        }
    }
    text
}

fn measure(files: &[SourceFile]) -> Sizes {
    let mut sizes = Sizes::default();
    for file in files {
        let length = file.product_lines().iter().filter(|product| **product).count();
        if length > MAX_FILE_LINES {
            sizes.files.insert(file.path.clone(), length);
        }
        for (name, lines) in functions(file) {
            if lines > MAX_FUNCTION_LINES {
                let longest = sizes.functions.entry(format!("{}::{name}", file.path)).or_default();
                *longest = lines.max(*longest);
            }
        }
    }
    sizes
}

/// Name and code lines of each function in `file`.
fn functions(file: &SourceFile) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in file.lines.iter().enumerate() {
        if let Some(name) = function_name(line) {
            let rest = file.lines.get(at..).unwrap_or_default();
            found.push((name.to_owned(), body_lines(rest)));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let only_qualifiers = before.split_whitespace().all(|word| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"")
            || word.starts_with("pub(")
    });
    let name = after.split(['(', '<']).next()?;
    (only_qualifiers && !name.is_empty()).then_some(name)
}

/// Code lines between the braces of the function that begins on the first of `lines`.
fn body_lines(lines: &[String]) -> usize {
    let first = lines.first().map_or("", String::as_str);
    let indent = first.len() - first.trim_start().len();
    let end = format!("{}}}", " ".repeat(indent));
    let opened = lines.iter().position(|line| line.ends_with('{'));
    let ended = lines.iter().position(|line| line.ends_with(';') || line.ends_with('}'));
    match (opened, ended) {
        (Some(opened), ended) if ended.is_none_or(|ended| opened < ended) => {
            let body = lines.iter().skip(opened + 1).take_while(|line| **line != end);
            body.filter(|line| is_code(line)).count()
        }
        _ => 0,
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{compare, functions, lower, measure};
    use crate::source::SourceFile;

    fn function(statements: usize) -> String {
        let body = "        step();\n\n        // Why.\n".repeat(statements);
        format!("impl X {{\n    pub async fn long<T>(\n        a: T,\n    ) {{\n{body}    }}\n}}\n")
    }

    fn sizes(entries: &[(&str, usize)]) -> BTreeMap<String, usize> {
        entries.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect()
    }

    #[test]
    fn size_counts_code_lines_between_the_braces() {
        let file = SourceFile::new("a.rs", &function(7));
        assert_eq!(functions(&file), [("long".to_owned(), 7)]);
    }

    #[test]
    fn size_counts_nothing_for_a_declaration() {
        let file = SourceFile::new("a.rs", "trait X {\n    fn a();\n    fn b() {}\n}\nfn c() {\n}");
        let expected = ["a", "b", "c"].map(|name| (name.to_owned(), 0));
        assert_eq!(functions(&file), expected);
    }

    #[test]
    fn size_reports_a_function_of_61_lines_but_not_of_60() {
        let report = |lines| measure(&[SourceFile::new("a.rs", &function(lines))]).functions;
        assert!(report(60).is_empty());
        assert_eq!(report(61), sizes(&[("a.rs::long", 61)]));
    }

    #[test]
    fn size_reports_a_file_of_601_lines_without_its_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    x\n".repeat(300));
        let report = |lines| {
            let text = format!("{}{tests}", "x\n".repeat(lines));
            measure(&[SourceFile::new("a.rs", &text)]).files
        };
        assert!(report(600).is_empty());
        assert_eq!(report(601), sizes(&[("a.rs", 601)]));
    }

    #[test]
    fn list_refuses_new_entries_growth_and_stale_entries() {
        let recorded = sizes(&[("gone", 70), ("grew", 70), ("same", 70), ("shrank", 70)]);
        let found = sizes(&[("grew", 71), ("new", 61), ("same", 70), ("shrank", 69)]);
        let expected = [
            "grew: grew from 70 to 71 lines",
            "new: 61 lines, too long",
            "gone: listed with 70 lines, is shorter now",
            "shrank: listed with 70 lines, is shorter now",
        ];
        assert_eq!(compare(&recorded, &found), expected);
    }

    #[test]
    fn lowering_the_list_never_adds_and_never_raises() {
        let mut recorded = sizes(&[("gone", 70), ("grew", 70), ("shrank", 70)]);
        lower(&mut recorded, &sizes(&[("grew", 71), ("new", 61), ("shrank", 69)]));
        assert_eq!(recorded, sizes(&[("grew", 70), ("shrank", 69)]));
    }
}
