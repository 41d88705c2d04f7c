//! Reports of every form against the schemas of others, and the JSON against ours
//! (docs/formats/report.schema.json). scripts/setup brings the validators and the schemas of SARIF
//! and JUnit; what is missing is said on the terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{lastkey, not_run, run, set_up};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Names and values that try to leave their place in each form.
const HOSTILE: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"<&\\\"']]>\\u0001\\u202e\", namespace: \"a\\nb\"}\nspec: {hostPID: true, containers: [{name: \"--><x>\", env: [{name: DB_PASSWORD, value: kR9vT2mQx}]}]}\n";

/// Every form of reports with findings, accepted ones, gaps and nothing at all.
fn write_reports(folder: &Path) -> usize {
    let input = folder.join("in put");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("pod & é.yaml"), HOSTILE).unwrap();
    fs::write(input.join("broken.yaml"), "apiVersion: v1\nkind: [\n").unwrap();
    let token = ["AKIA", "3XAMPL3ZQ7RWTY5B"].concat();
    fs::write(input.join("<key>.txt"), format!("\u{1b}[31m aws = \"{token}\"\n")).unwrap();
    fs::write(input.join("broken.zip"), b"PK\x03\x04broken").unwrap();
    let empty = folder.join("empty");
    fs::create_dir(&empty).unwrap();
    let (input, empty) = (input.to_str().unwrap(), empty.to_str().unwrap());
    let known = folder.join("known");
    let known = known.to_str().unwrap();
    run(&mut lastkey(["check", "--manifests", input, "--write-baseline", known]), b"").ok();
    let runs: [&[&str]; 6] = [
        &["check", "--manifests", input],
        &["check", "--manifests", input, "--baseline", known],
        &["check", "--manifests", empty],
        &["check", "--node-root", "/"],
        &["scan", input],
        &["scan", empty],
    ];
    let forms = [("json", "json"), ("sarif", "sarif"), ("junit", "xml"), ("html", "html")];
    for (number, arguments) in runs.iter().enumerate() {
        for (form, ending) in forms {
            let out = folder.join(format!("{number}.{ending}"));
            let out = out.to_str().unwrap();
            let line = [*arguments, &["--output", form, "-o", out][..]].concat();
            let ended = run(&mut lastkey(line), b"");
            assert!(
                matches!(ended.code, Some(0 | 1 | 7)),
                "{arguments:?} {form}: {}",
                ended.stderr
            );
        }
    }
    runs.len()
}

#[test]
fn reports_of_every_form_are_what_their_schemas_say() {
    // The schema of JUnit comes last, when the validators are there.
    let tools = set_up("schemas/junit-10.xsd").and_then(|_| set_up("python-venv/bin/python"));
    let Some(python) = tools else {
        not_run("SKIPPED reports_of_every_form: scripts/setup has not brought what validates them");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let count = write_reports(folder.path());
    let mut check = Command::new(python);
    check.arg(root().join("tests/python/check_reports.py")).arg(folder.path());
    let mut expected = format!("html={count} json={count}");
    for (flag, form, schema) in
        [("--sarif", "sarif", "sarif-2.1.0.json"), ("--junit", "xml", "junit-10.xsd")]
    {
        match set_up(&format!("schemas/{schema}")) {
            Some(path) => {
                check.arg(flag).arg(path);
                expected.push_str(&format!(" {form}={count}"));
            }
            None => not_run(&format!("SKIPPED {form}: scripts/setup could not bring {schema}")),
        }
    }
    assert_eq!(run(&mut check, b"").ok(), expected);
}
