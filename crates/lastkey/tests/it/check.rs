//! `lastkey check`: what it finds in files, how it ends, and the tour of docs/protection.md.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::process::{BINARY, Ended, command, lastkey, run};

const BAD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {hostPID: true, containers: [{name: a}]}\n";
const FINE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n";

fn planted(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/planted/posture").join(name)
}

fn check(folder: &Path, line: &str) -> Ended {
    run(lastkey(line.split_whitespace()).current_dir(folder), b"")
}

fn rules(ended: &Ended) -> Vec<String> {
    let report: Value = serde_json::from_str(&ended.text()).unwrap();
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn check_finds_in_every_form_and_ends_with_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), BAD).unwrap();
    let json = check(folder.path(), "check --manifests pod.yaml --output json");
    assert_eq!(json.code, Some(1), "{}", json.stderr);
    assert!(rules(&json).contains(&"POD-05".to_owned()));
    let report: Value = serde_json::from_str(&json.text()).unwrap();
    assert_eq!(report["checks"]["ENC-01"], "cannot tell");
    assert_eq!(report["checks"]["POD-05"], "fail");
    assert_eq!(report["mlps"][4]["state"], "fail");
    for (form, part) in [
        ("table", "POD-05  pod.yaml:4:"),
        ("sarif", "\"version\": \"2.1.0\""),
        ("junit", "<testsuite"),
        ("html", "<html"),
    ] {
        let ended = check(folder.path(), &format!("check --manifests pod.yaml --output {form}"));
        assert_eq!(ended.code, Some(1), "{form}");
        assert!(ended.text().contains(part), "{form}: {}", ended.text());
    }
}

#[test]
fn check_ends_well_below_the_level_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), BAD).unwrap();
    check(folder.path(), "check --manifests pod.yaml --fail-on critical").ok();
    check(folder.path(), "check --manifests pod.yaml --fail-on never").ok();
    let clean = planted("clean.yaml");
    let ended =
        check(folder.path(), &format!("check --manifests {} --fail-on info", clean.display()));
    assert!(ended.ok().contains("found: nothing"));
}

#[test]
fn broken_document_is_named_and_the_rest_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let broken = format!("apiVersion: v1\nkind: [\n---\n{BAD}");
    fs::write(folder.path().join("a.yaml"), broken).unwrap();
    let ended = check(folder.path(), "check --manifests a.yaml --output json");
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().contains("a.yaml:3") && rules(&ended).contains(&"POD-05".to_owned()));
    fs::write(folder.path().join("b.yaml"), format!("apiVersion: v1\nkind: [\n---\n{FINE}"))
        .unwrap();
    let ended = check(folder.path(), "check --manifests b.yaml");
    assert_eq!(ended.code, Some(7), "{}", ended.text());
    assert!(ended.text().contains("not checked  b.yaml:3"), "{}", ended.text());
}

#[test]
fn folder_is_walked_once_though_links_go_round() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("a/b");
    fs::create_dir_all(&there).unwrap();
    fs::write(there.join("pod.yaml"), BAD).unwrap();
    symlink(folder.path(), there.join("up")).unwrap();
    symlink("self", there.join("self")).unwrap();
    symlink("nowhere", there.join("gone.yaml")).unwrap();
    fs::write(there.join("other.json"), "{\"no\": \"object\"}").unwrap();
    let ended = check(folder.path(), "check --manifests . --output json");
    assert_eq!(ended.code, Some(1));
    let rules = rules(&ended);
    assert_eq!(rules.iter().filter(|rule| *rule == "POD-05").count(), 1, "{rules:?}");
    assert!(ended.text().contains("gone.yaml"));
}

#[test]
fn chart_is_named_and_not_taken_for_broken() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("templates")).unwrap();
    fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: c\n").unwrap();
    fs::write(folder.path().join("templates/x.yaml"), "apiVersion: v1\n{{- if .X }}\n").unwrap();
    let ended = check(folder.path(), "check --manifests .");
    assert_eq!(ended.code, Some(7));
    assert!(ended.text().contains("helm template"), "{}", ended.text());
}

#[test]
fn nothing_named_and_nothing_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    check(folder.path(), "check").failed(2);
    check(folder.path(), "check --manifests nowhere").failed(7);
    check(folder.path(), "check --node-root nowhere").failed(7);
    fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = check(folder.path(), "check --manifests empty");
    assert_eq!(empty.code, Some(7), "{}", empty.stderr);
    assert!(empty.text().contains("no Kubernetes object is in it"), "{}", empty.text());
    let nothing = run(&mut lastkey(["check", "--manifests", "-"]), b"");
    assert_eq!(nothing.code, Some(7), "{}", nothing.stderr);
    assert!(nothing.text().contains("did the program that writes them fail"));
    fs::write(folder.path().join("s.db"), "no snapshot").unwrap();
    let refused = check(folder.path(), "check --etcd-snapshot s.db");
    assert!(refused.failed(1).contains("no etcd snapshot"));
}

#[test]
fn etcd_snapshot_tells_what_is_in_the_clear_and_what_is_missing() {
    let data =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../lastkey-checks/tests/data/etcd-mixed.db");
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(data).unwrap();
    fs::write(folder.path().join("s.db"), &whole).unwrap();
    let ended = check(folder.path(), "check --etcd-snapshot s.db --output json");
    assert_eq!(ended.code, Some(1));
    let rules = rules(&ended);
    assert!(rules.contains(&"ENC-06".to_owned()) && rules.contains(&"ENC-07".to_owned()));
    assert!(ended.text().contains("shop/clear"));
    fs::write(folder.path().join("s.db"), &whole[..whole.len() - 9_000]).unwrap();
    assert!(check(folder.path(), "check --etcd-snapshot s.db").failed(1).contains("truncated"));
}

#[test]
fn node_root_is_read_without_leaving_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("etc/kubernetes/pki")).unwrap();
    fs::create_dir_all(root.join("etc/ssh")).unwrap();
    fs::write(root.join("etc/ssh/sshd_config"), "PermitRootLogin yes\n").unwrap();
    fs::write(root.join("etc/kubernetes/pki/ca.key"), "secret of the authority").unwrap();
    // A link to the host's own accounts must not be followed out of the root.
    symlink("/etc/passwd", root.join("etc/passwd")).unwrap();
    symlink("../../../../../../etc/group", root.join("etc/group")).unwrap();
    let ended = check(folder.path(), "check --node-root root --output json --fail-on never");
    let rules = rules(&ended);
    assert!(
        rules.contains(&"API-09".to_owned()) && rules.contains(&"HST-01".to_owned()),
        "{rules:?}"
    );
    assert!(!rules.contains(&"HST-02".to_owned()));
    assert!(!ended.text().contains("secret of the authority"));
    let report: Value = serde_json::from_str(&ended.text()).unwrap();
    assert_eq!(report["checks"]["HST-02"], "cannot tell");
}

#[test]
fn own_root_of_this_machine_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let ended = check(folder.path(), "check --node-root / --output json --fail-on never");
    assert!(matches!(ended.code, Some(0 | 7)), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.text()).unwrap();
    assert_ne!(report["checks"]["HST-03"], "cannot tell");
    assert_ne!(report["checks"]["KUB-06"], "cannot tell");
}

#[test]
fn baseline_and_suppressions_accept_what_they_name_until_their_day() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), BAD).unwrap();
    check(folder.path(), "check --manifests pod.yaml --write-baseline known").ok();
    check(folder.path(), "check --manifests pod.yaml --baseline known --fail-on info").ok();
    fs::write(folder.path().join("pod.yaml"), BAD.replace("hostPID", "hostIPC")).unwrap();
    assert_eq!(check(folder.path(), "check --manifests pod.yaml --baseline known").code, Some(1));
    let entry = |day: &str| {
        format!(
            "[[suppress]]\nrule = \"POD-05\"\nsubject = \"Pod/shop/*\"\nreason = \"x\"\nowner = \"y\"\nexpires = {day}\n"
        )
    };
    fs::write(folder.path().join("s.toml"), entry("2999-01-01")).unwrap();
    check(folder.path(), "check --manifests pod.yaml --suppressions s.toml").ok();
    fs::write(folder.path().join("s.toml"), entry("2020-01-01")).unwrap();
    let ended = check(folder.path(), "check --manifests pod.yaml --suppressions s.toml");
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().contains("suppression-expired"), "{}", ended.text());
}

#[test]
fn policies_are_written_once_and_close_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), BAD).unwrap();
    let ended = check(folder.path(), "check policy -o p --manifests pod.yaml");
    assert!(ended.ok().contains("p/pod-05-") && !ended.text().contains("rba-"), "{}", ended.text());
    check(folder.path(), "check policy -o p --manifests pod.yaml").failed(7);
    check(folder.path(), "check policy -o p --manifests pod.yaml --force").ok();
    let after = check(folder.path(), "check --manifests pod.yaml --manifests p --output json");
    assert!(!rules(&after).contains(&"NET-01".to_owned()));
}

#[test]
fn standard_input_is_read() {
    let ended = run(&mut lastkey(["check", "--manifests", "-"]), BAD.as_bytes());
    assert!(ended.code == Some(1) && ended.text().contains("standard input:4"), "{}", ended.text());
}

/// The same with 128 MiB of memory to work in.
fn bounded(folder: &Path, line: &str) -> Ended {
    let mut shell = command("sh");
    shell.args(["-c", &format!("ulimit -d 131072; exec {BINARY} {line}")]);
    run(shell.current_dir(folder), b"")
}

#[test]
fn file_of_two_gib_is_named_and_left() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pod.yaml"), BAD).unwrap();
    fs::File::create(folder.path().join("big.yaml")).unwrap().set_len(2 << 30).unwrap();
    let ended = bounded(folder.path(), "check --manifests . --fail-on never");
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    assert!(ended.text().contains("big.yaml: too large") && ended.text().contains("POD-05"));
    let ended = bounded(folder.path(), "scan .");
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    assert!(ended.text().contains("binary files left: 1"), "{}", ended.text());
}

/// 5,000 workloads and 10,000 RBAC objects; the time is for the reader of the output.
#[test]
#[ignore = "heavy: 15,000 objects"]
fn large_cluster_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..5_000 {
        let namespace = number / 50;
        let pod =
            BAD.replace("web", &format!("web-{number}")).replace("shop", &format!("n{namespace}"));
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: r{number}, namespace: n{namespace}}}\nrules: [{{apiGroups: [''], resources: [secrets], verbs: [get]}}]\n"
        );
        let binding = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: b{number}, namespace: n{namespace}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: r{number}}}\nsubjects: [{{kind: ServiceAccount, name: s, namespace: n{namespace}}}]\n"
        );
        fs::write(
            folder.path().join(format!("{number}.yaml")),
            format!("{pod}---\n{role}---\n{binding}"),
        )
        .unwrap();
    }
    let before = std::time::Instant::now();
    let ended = bounded(folder.path(), "check --manifests . --output json");
    println!("15,000 objects in {:?}", before.elapsed());
    assert_eq!(ended.code, Some(1));
    let found = rules(&ended);
    assert_eq!(found.iter().filter(|rule| *rule == "RBA-01").count(), 5_000);
    assert_eq!(found.iter().filter(|rule| *rule == "POD-05").count(), 5_000);
}

/// Runs the `console` blocks of docs/protection.md. After a command come lines of its output, in
/// order; `…` stands for anything.
#[test]
fn tour_of_the_manual_works() {
    let folder = tempfile::tempdir().unwrap();
    let manual = include_str!("../../../../docs/protection.md");
    let path =
        format!("{}:{}", Path::new(BINARY).parent().unwrap().display(), env::var("PATH").unwrap());
    let blocks = manual.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for step in blocks.flat_map(|block| block.split("$ ").filter(|step| !step.is_empty())) {
        let (line, expected) = step.split_once('\n').unwrap();
        let mut shell = command("sh");
        shell.args(["-c", line]).env("PATH", &path).current_dir(folder.path());
        let ended = run(&mut shell, b"");
        let text = ended.text();
        let mut rest = text.as_str();
        for part in
            expected.lines().flat_map(|line| line.split('…')).filter(|part| !part.is_empty())
        {
            rest = match rest.split_once(part) {
                Some((_, after)) => after,
                None => panic!("{line}\nlacks {part:?} in\n{text}\n{}", ended.stderr),
            };
        }
        count += 1;
    }
    assert!(count >= 7, "{count}");
}
