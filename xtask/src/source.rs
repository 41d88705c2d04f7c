//! Our Rust files as the scanners read them: lines, with the test modules told apart.
//!
//! Room      `xtask`.
//! Holds     Files come in the order of their paths, so every report is the same twice.
//!           Works on formatted code (`cargo fmt --check` runs first): a closing brace stands
//!           at the indentation of the line that opened it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One Rust file.
pub(crate) struct SourceFile {
    /// Path from the workspace root, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
}

/// Every Rust file of the rooms and of xtask.
///
/// # Errors
/// When a folder or file cannot be read.
pub(crate) fn read_all(root: &Path) -> Result<Vec<SourceFile>> {
    let mut paths = Vec::new();
    collect(&root.join("crates"), &mut paths)?;
    collect(&root.join("bindings"), &mut paths)?;
    collect(&root.join("xtask"), &mut paths)?;
    paths.sort();
    paths.iter().map(|path| read(root, path)).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(root: &Path, path: &Path) -> Result<SourceFile> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    Ok(SourceFile::new(&name, &text))
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// A file under `tests/` or `benches/`, or one that only tests can import.
    pub(crate) fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.iter().any(|part| matches!(*part, "tests" | "benches" | "lastkey-testkit"))
            || self.path.ends_with("/tests.rs")
    }

    /// For each line, whether it belongs to the product (not inside `#[cfg(test)] mod .. {}`).
    pub(crate) fn product_lines(&self) -> Vec<bool> {
        let mut keep = Vec::with_capacity(self.lines.len());
        let mut waiting = false;
        let mut test_end: Option<String> = None;
        for line in &self.lines {
            if let Some(end) = &test_end {
                keep.push(false);
                if line == end {
                    test_end = None;
                }
                continue;
            }
            let code = line.trim_start();
            if waiting && code.starts_with("mod ") && code.ends_with('{') {
                let indent = line.len() - code.len();
                test_end = Some(format!("{}}}", " ".repeat(indent)));
            }
            waiting = code == "#[cfg(test)]" || (waiting && code.starts_with("#["));
            keep.push(!waiting && test_end.is_none());
        }
        keep
    }
}

/// The code of one line: without its `//` comment and without the text of its string literals.
pub(crate) fn code_of(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let line = line.replace("'\"'", "' '");
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match (in_string, character) {
            (true, '\\') => drop(characters.next()),
            (_, '"') => in_string = !in_string,
            (true, _) => {}
            (false, '/') if characters.peek() == Some(&'/') => break,
            (false, other) => code.push(other),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::{SourceFile, code_of};

    #[test]
    fn code_of_drops_comments_and_string_text() {
        assert_eq!(code_of(r#"let a = "x // \" y"; // token: String"#), "let a = ; ");
    }

    #[test]
    fn product_lines_leave_out_the_test_module_and_come_back_after_it() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let file = SourceFile::new("crates/x/src/lib.rs", text);
        assert_eq!(file.product_lines(), [true, false, false, false, false, true]);
    }

    #[test]
    fn product_lines_end_a_lone_test_attribute_after_its_line() {
        let file = SourceFile::new("a.rs", "#[cfg(test)]\nuse x::Y;\nfn a() {}\n");
        assert_eq!(file.product_lines(), [false, true, true]);
    }
}
