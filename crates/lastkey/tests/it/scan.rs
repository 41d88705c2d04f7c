//! `lastkey scan` on real trees, real git repositories and bad input.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{Ended, lastkey, run};

/// A token whose form is ours, put together here so that this file holds none.
fn token(digit: char) -> String {
    format!("lastkey_admin_{}{digit}", "0f1e2d3c4b5a".repeat(6).split_at(71).0)
}

fn scan(arguments: &[&str]) -> Ended {
    run(&mut lastkey([&["scan"], arguments].concat()), b"")
}

fn report(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr))
}

fn places(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|found| found["location"]["path"].as_str().unwrap().to_owned()).collect()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository in which a token was committed and taken out again.
fn repository(folder: &Path) -> String {
    git(folder, &["init", "-q"]);
    fs::write(folder.join("app.env"), format!("TOKEN={}\n", token('1'))).unwrap();
    git(folder, &["add", "."]);
    git(folder, &["commit", "-qm", "one"]);
    let first = git(folder, &["rev-parse", "--short=12", "HEAD"]);
    fs::write(folder.join("app.env"), "TOKEN=from-the-store\n").unwrap();
    git(folder, &["commit", "-qam", "two"]);
    first
}

#[test]
fn this_repository_scans_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let suppressions = root.join(".lastkey-suppressions.toml");
    let out = tempfile::tempdir().unwrap();
    let listing = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .unwrap();
    let names = String::from_utf8(listing.stdout).unwrap();
    for name in names.split('\0').filter(|name| !name.is_empty() && root.join(name).is_file()) {
        let copy = out.path().join(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(root.join(name), copy).unwrap();
    }
    let mut command = lastkey(["scan", ".", "--suppressions"]);
    let ended = run(command.arg(&suppressions).current_dir(out.path()), b"");
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
}

#[test]
fn tree_is_scanned_in_every_output_and_loops_of_links_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    symlink("..", folder.path().join("sub/loop")).unwrap();
    symlink("self", folder.path().join("self")).unwrap();
    fs::write(folder.path().join("sub/a.env"), token('2')).unwrap();
    fs::write(folder.path().join("binary"), b"\0\0\0").unwrap();
    let shown = scan(&[path, "--output", "json"]);
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert_eq!(places(&report(&shown)), [format!("{path}/sub/a.env")]);
    for (form, part) in [
        ("table", "critical  lastkey-admin-token"),
        ("sarif", "\"version\": \"2.1.0\""),
        ("junit", "<testsuites name=\"lastkey scan\""),
        ("html", "<!doctype html>"),
    ] {
        let shown = scan(&[path, "--output", form]);
        assert_eq!(shown.code, Some(1));
        assert!(shown.text().contains(part), "{}", shown.text());
        assert!(!shown.text().contains(&token('2')));
    }
    assert_eq!(run(&mut lastkey(["status", "--output", "sarif"]), b"").code, Some(2));
}

#[test]
fn baseline_and_suppressions_let_what_is_known_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, known) = (folder.path().join("tree"), folder.path().join("known"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), token('3')).unwrap();
    let (tree_text, known) = (tree.to_str().unwrap(), known.to_str().unwrap());
    assert_eq!(scan(&[tree_text, "--write-baseline", known]).code, Some(0));
    assert_eq!(scan(&[tree_text, "--baseline", known]).code, Some(0));
    fs::write(tree.join("a"), format!("\n\n{}", token('3'))).unwrap();
    fs::rename(tree.join("a"), tree.join("b")).unwrap();
    assert_eq!(scan(&[tree_text, "--baseline", known]).code, Some(0));
    fs::write(tree.join("c"), token('4')).unwrap();
    let shown = scan(&[tree_text, "--baseline", known, "--output", "json"]);
    assert_eq!(places(&report(&shown)), [format!("{tree_text}/c")]);
    let list = folder.path().join("list.toml");
    let entry = |day: &str| {
        format!(
            "[[suppress]]\nrule='lastkey-admin-token'\npath='*'\nreason='r'\nowner='o'\nexpires={day}\n"
        )
    };
    let list_text = list.to_str().unwrap();
    fs::write(&list, entry("9999-12-31")).unwrap();
    assert_eq!(scan(&[tree_text, "--suppressions", list_text]).code, Some(0));
    fs::write(&list, entry("2001-01-01")).unwrap();
    assert_eq!(scan(&[tree_text, "--suppressions", list_text]).code, Some(1));
    assert_eq!(scan(&[tree_text, "--fail-on", "critical"]).code, Some(1));
}

#[test]
fn history_of_git_is_scanned_and_names_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let first = repository(folder.path());
    let path = folder.path().to_str().unwrap();
    assert_eq!(scan(&[path]).code, Some(0), "the tree is clean");
    let shown = scan(&["--git", path, "--output", "json"]);
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert_eq!(places(&report(&shown)), [format!("{first}:app.env")]);
    assert_eq!(scan(&["--git", path, "--range", "HEAD~1..HEAD"]).code, Some(0));
    assert_eq!(scan(&["--git", path, "--staged"]).code, Some(0));
    fs::write(folder.path().join("new file"), token('5')).unwrap();
    git(folder.path(), &["add", "."]);
    let shown = scan(&["--git", path, "--staged", "--output", "json"]);
    assert_eq!(places(&report(&shown)), ["staged:new file"]);
    git(folder.path(), &["reset", "-q"]);
    git(folder.path(), &["commit", "-q", "--allow-empty", "-m", &token('6')]);
    let shown = scan(&["--git", path, "--range", "HEAD~1..HEAD", "--output", "json"]);
    assert!(places(&report(&shown))[0].ends_with(":commit message"));
}

#[test]
fn repository_with_a_missing_object_is_scanned_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path());
    let path = folder.path().to_str().unwrap();
    let gone = git(folder.path(), &["rev-parse", "HEAD:app.env"]);
    let (head, tail) = gone.split_at(2);
    fs::remove_file(folder.path().join(".git/objects").join(head).join(tail)).unwrap();
    let shown = scan(&["--git", path, "--output", "json"]);
    assert_eq!(shown.code, Some(1), "{}", shown.stderr);
    assert!(report(&shown)["not_checked"][0]["subject"].as_str().unwrap().contains(&gone));
    assert_eq!(
        scan(&["--git", path, "--fail-on", "critical", "--range", "HEAD~1..HEAD"]).code,
        Some(7)
    );
}

#[test]
fn bad_input_gets_a_message_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let clean = write("clean", "nothing");
    let rules =
        write("rules.toml", "[[rules]]\nid = 'broken-one'\nregex = '('\nkeywords = ['a']\n");
    let noise = write("noise", "<<<<<<< HEAD");
    let zip = write("cut.zip", "PK\u{3}\u{4}cut");
    for (arguments, code, part) in [
        (vec!["/nowhere/at/all"], 7, "/nowhere/at/all"),
        (vec![&clean, "--rules", &rules], 2, "broken-one"),
        (vec![&clean, "--rules", "/nowhere"], 7, "/nowhere"),
        (vec![&clean, "--baseline", &noise], 2, "line 1"),
        (vec![&clean, "--suppressions", &noise], 2, "suppressions"),
        (vec![&clean, "--pack", &noise], 2, "no scan pack"),
        (vec!["--git", folder.path().to_str().unwrap()], 1, "git"),
        (vec!["--git", ".", "--range=--output=x"], 2, "range"),
    ] {
        let ended = scan(&arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{arguments:?}: {}", ended.stderr);
    }
    let ended = scan(&[&zip]);
    assert_eq!(ended.code, Some(7));
    assert!(ended.text().contains("not checked"), "{}", ended.text());
}

#[test]
fn rules_of_a_file_replace_ours_unless_they_extend_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in");
    fs::write(&file, format!("{}\nacme_12345678\n", token('7'))).unwrap();
    let rules = folder.path().join("rules.toml");
    let rule = "[[rules]]\nid = 'acme'\ndescription = 'd'\nregex = 'acme_[0-9]{8}'\nkeywords = ['acme_']\n";
    let found = |text: &str| {
        fs::write(&rules, text).unwrap();
        let (file, rules) = (file.to_str().unwrap(), rules.to_str().unwrap());
        let shown = report(&scan(&[file, "--rules", rules, "--output", "json"]));
        let findings = shown["findings"].as_array().unwrap().clone();
        findings.iter().map(|found| found["rule"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(rule), ["acme"]);
    assert_eq!(
        found(&format!("[extend]\nuseDefault = true\n{rule}")),
        ["lastkey-admin-token", "acme"]
    );
}
