//! deploy/helm/lastkey by the real helm: what it renders is what `lastkey check` and an API server
//! that enforces the restricted standard take. Without helm or Go the tests say SKIPPED.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lastkey_checks::snapshot::yaml;
use serde_json::{Value, json};

use crate::api_server::{self, ApiServer};
use crate::process::{Ended, lastkey, not_run, run};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const VERSION: &str = "v3.22.0";

/// The helm of the path, or else one that Go builds.
fn program() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        if Command::new("helm").arg("version").output().is_ok_and(|ended| ended.status.success()) {
            return Ok("helm".into());
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = folder.join("helm");
        if built.exists() {
            return Ok(built);
        }
        let mut go = Command::new("go");
        go.env("GOBIN", folder);
        go.args(["install", "-ldflags=-s -w", &format!("helm.sh/helm/v3/cmd/helm@{VERSION}")]);
        match go.output() {
            Err(error) => Err(format!("needs helm, or Go 1.26 ({error})")),
            Ok(ended) if ended.status.success() => Ok(built),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
        }
    })
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/lastkey").canonicalize().unwrap()
}

/// Runs helm; `None` where there is none.
fn helm(test: &str, verb: &[&str], set: &[&str]) -> Option<Ended> {
    let program = match program() {
        Ok(program) => program,
        Err(reason) => {
            not_run(&format!("SKIPPED {test}: {reason}"));
            return None;
        }
    };
    let mut command = Command::new(program);
    command.args(verb).arg(chart()).args(["--namespace", "keys"]);
    // One that was built without the scripts of its makers believes in an old cluster.
    command.args(["--kube-version", "1.37.0"]);
    for value in set {
        command.args(["--set", value]);
    }
    Some(run(&mut command, b""))
}

fn image() -> [String; 2] {
    ["image.repository=registry.example/lastkey".to_owned(), format!("image.digest={DIGEST}")]
}

/// The chart with an image and these values.
fn render(test: &str, set: &[&str]) -> Option<String> {
    let image = image();
    let all: Vec<&str> = image.iter().map(String::as_str).chain(set.iter().copied()).collect();
    Some(helm(test, &["template", "lastkey"], &all)?.ok())
}

/// Every way in which the chart can be used.
const WAYS: [&[&str]; 4] = [
    &[],
    &["init=true"],
    &["cluster=prod", "metrics.access=public", "tls.names={keys.example.org}"],
    &[
        "storage.existingClaim=mine",
        "priorityClassName=system-cluster-critical",
        "nodeSelector.disk=ssd",
        "networkPolicy.from[0].podSelector.matchLabels.uses=keys",
        "networkPolicy.egress[0].ports[0].port=53",
        "image.pullSecrets[0].name=pull",
    ],
];

fn objects(rendered: &str) -> Vec<Value> {
    let documents = yaml::documents(rendered).into_iter();
    documents.map(|(line, text)| api_server::json(&yaml::parse(text, line).unwrap())).collect()
}

#[test]
#[ignore = "heavy: builds helm"]
fn chart_is_linted_and_its_values_are_checked() {
    let test = "chart_is_linted_and_its_values_are_checked";
    let image = image();
    let good: Vec<&str> = image.iter().map(String::as_str).collect();
    let Some(linted) = helm(test, &["lint", "--strict"], &good) else { return };
    assert!(linted.ok().contains("0 chart(s) failed"), "{}", linted.text());
    for bad in [
        "image.digest=sha256:12",
        "image.repository=",
        "storage.size=many",
        "metrics.access=everybody",
        "tls.names={\"}",
        "nobodyKnows=1",
        "image.nobodyKnows=1",
    ] {
        let set: Vec<&str> = good.iter().copied().chain([bad]).collect();
        let refused = helm(test, &["template", "lastkey"], &set).unwrap();
        assert_ne!(refused.code, Some(0), "{bad}");
        assert!(
            refused.stderr.contains("schema") || refused.stderr.contains("parsing"),
            "{bad}: {}",
            refused.stderr
        );
    }
    let refused = helm(test, &["template", "lastkey"], &[]).unwrap();
    assert!(refused.failed(1).contains("image"), "without an image: {}", refused.stderr);
}

#[test]
#[ignore = "heavy: builds helm"]
fn rendered_chart_has_no_finding_worth_a_word_and_a_configuration_that_is_taken() {
    let test = "rendered_chart_has_no_finding_worth_a_word_and_a_configuration_that_is_taken";
    for way in WAYS {
        let Some(rendered) = render(test, way) else { return };
        let mut check =
            lastkey(["check", "--manifests", "-", "--fail-on", "low", "--output", "json"]);
        let ended = run(&mut check, rendered.as_bytes());
        assert_eq!(ended.code, Some(0), "{way:?}\n{}", ended.text());
        // The server reads what it is given, and completes it.
        let all = objects(&rendered);
        let map = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lastkey.toml");
        std::fs::write(&file, map["data"]["lastkey.toml"].as_str().unwrap()).unwrap();
        let shown = run(&mut lastkey(["config", "show", "--config", file.to_str().unwrap()]), b"");
        assert!(shown.ok().contains("lastkey.keys.svc"), "{}", shown.text());
    }
}

#[test]
#[ignore = "heavy: builds helm, builds and starts a kube-apiserver"]
fn api_server_takes_the_chart_under_the_restricted_standard() {
    let test = "api_server_takes_the_chart_under_the_restricted_standard";
    let Some(first) = render(test, &[]) else { return };
    let Some(api) = ApiServer::found(test) else { return };
    let restricted = "apiVersion: v1\nkind: Namespace\nmetadata: {name: keys, labels: {pod-security.kubernetes.io/enforce: restricted}}\n";
    api.create(restricted, false).unwrap();
    for rendered in
        std::iter::once(first).chain(WAYS[1..].iter().filter_map(|way| render(test, way)))
    {
        for object in objects(&rendered) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            api.create_object(&object, true).unwrap_or_else(|error| panic!("{kind}: {error}"));
            // Pods that a controller would make are judged by what they are.
            if kind == "StatefulSet" {
                let template = &object["spec"]["template"];
                let mut metadata = template["metadata"].clone();
                metadata["name"] = "lastkey-0".into();
                metadata["namespace"] = "keys".into();
                let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] });
                api.create_object(&pod, true).unwrap_or_else(|error| panic!("its pod: {error}"));
            }
        }
    }
}
