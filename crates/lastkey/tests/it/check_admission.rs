//! The written policies before a real API server: it takes them, refuses what is bad and admits
//! what is good. `kubectl` may lie beside it or on the path.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::api_server::{ApiServer, TOKEN};
use crate::process::{Ended, lastkey, run};

struct Cluster {
    api: ApiServer,
    kubectl: PathBuf,
}

impl Cluster {
    fn start(assets: &Path) -> Self {
        let own = assets.join("kubectl");
        let kubectl = if own.exists() { own } else { PathBuf::from("kubectl") };
        Self { api: ApiServer::start(assets), kubectl }
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = Command::new(&self.kubectl);
        command.args(["--server", &self.api.url, "--insecure-skip-tls-verify", "--token", TOKEN]);
        run(command.args(arguments), input.as_bytes())
    }

    /// What is said when an object is offered: the complaint, or nothing.
    fn offer(&self, object: &str) -> String {
        let ended = self.kubectl(&["create", "--dry-run=server", "-f", "-"], object);
        if ended.code == Some(0) { String::new() } else { ended.stderr }
    }
}

/// A pod, a Deployment and a CronJob with something added to their pod and their container.
fn workloads(spec: &str, container: &str) -> [String; 3] {
    let pod = |depth: usize| {
        let lines = format!(
            "serviceAccountName: web\nrestartPolicy: %\nsecurityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}\n{spec}\ncontainers:\n- name: a\n  image: a\n  securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}\n  {container}\n"
        );
        let space = "  ".repeat(depth);
        lines
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| format!("{space}{line}\n"))
            .collect::<String>()
    };
    [
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: w}}\nspec:\n{}",
            pod(1).replace('%', "Always")
        ),
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: w}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec:\n{}",
            pod(3).replace('%', "Always")
        ),
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: w}}\nspec:\n  schedule: 0 0 * * *\n  jobTemplate:\n    spec:\n      template:\n        spec:\n{}",
            pod(5).replace('%', "Never")
        ),
    ]
}

fn role(rule: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: r}}\nrules:\n- {rule}\n"
    )
}

fn binding(role: &str, subject: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: b}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}\nsubjects:\n- {subject}\n"
    )
}

fn class(parameters: &str) -> String {
    format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: s}}\nprovisioner: ebs.csi.aws.com\nparameters: {parameters}\n"
    )
}

/// Check, bad object, good object.
fn workload_cases() -> Vec<(&'static str, String, String)> {
    let mut cases = Vec::new();
    for (check, spec, container, fine_spec, fine_container) in [
        ("POD-05", "hostPID: true", "", "hostPID: false", ""),
        (
            "POD-05",
            "volumes: [{name: v, hostPath: {path: /}}]",
            "",
            "volumes: [{name: v, emptyDir: {}}]",
            "",
        ),
        (
            "POD-05",
            "initContainers: [{name: i, image: i, securityContext: {privileged: true, capabilities: {drop: [ALL]}}}]",
            "",
            "initContainers: [{name: i, image: i, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]",
            "",
        ),
        (
            "POD-05",
            "",
            "ports: [{containerPort: 80, hostPort: 80}]",
            "",
            "ports: [{containerPort: 80}]",
        ),
        ("POD-06", "initContainers: [{name: i, image: i}]", "", "", ""),
        ("POD-07", "shareProcessNamespace: true", "", "", ""),
        (
            "POD-03",
            "",
            "env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
            "",
            "env: [{name: P, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
        ),
        (
            "POD-03",
            "",
            "envFrom: [{secretRef: {name: s}}]",
            "",
            "envFrom: [{configMapRef: {name: s}}]",
        ),
    ] {
        let pairs =
            workloads(spec, container).into_iter().zip(workloads(fine_spec, fine_container));
        cases.extend(pairs.map(|(bad, good)| (check, bad, good)));
    }
    cases
}

/// The same for everything that is no workload of all kinds.
fn other_cases() -> Vec<(&'static str, String, String)> {
    let mut cases = Vec::new();
    let [pod, ..] = workloads("", "");
    cases.push((
        "POD-02",
        pod.replace("serviceAccountName: web", "serviceAccountName: default"),
        pod,
    ));
    let secret = |kind: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: t, annotations: {{kubernetes.io/service-account.name: default}}}}\ntype: {kind}\n"
        )
    };
    cases.push(("POD-08", secret("kubernetes.io/service-account-token"), secret("Opaque")));
    for (check, bad, good) in [
        (
            "RBA-01",
            "{apiGroups: [''], resources: [secrets], verbs: [list]}",
            "{apiGroups: [''], resources: [secrets], verbs: [get], resourceNames: [a]}",
        ),
        (
            "RBA-01",
            "{apiGroups: ['*'], resources: ['*'], verbs: ['*']}",
            "{apiGroups: [''], resources: [pods], verbs: [list]}",
        ),
        (
            "RBA-01",
            "{apiGroups: [''], resources: [secrets], verbs: [deletecollection]}",
            "{nonResourceURLs: [/healthz], verbs: [get]}",
        ),
        (
            "RBA-09",
            "{apiGroups: [''], resources: [users], verbs: [impersonate]}",
            "{apiGroups: [''], resources: [users], verbs: [impersonate], resourceNames: [bob]}",
        ),
        (
            "RBA-09",
            "{apiGroups: [''], resources: [nodes/proxy], verbs: [get]}",
            "{apiGroups: [''], resources: [nodes/metrics], verbs: [get]}",
        ),
        (
            "RBA-09",
            "{apiGroups: [''], resources: [serviceaccounts/token], verbs: [create]}",
            "{apiGroups: [''], resources: [serviceaccounts/token], verbs: [create], resourceNames: [a]}",
        ),
    ] {
        cases.push((check, role(bad), role(good)));
    }
    let user = "{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}";
    let everybody =
        "{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:authenticated'}";
    cases.push(("RBA-12", binding("view", everybody), binding("view", user)));
    let program = "{kind: ServiceAccount, name: a, namespace: b}";
    cases.push(("RBA-12", binding("cluster-admin", program), binding("view", program)));
    cases.push(("ENC-09", class("{type: gp3}"), class("{encrypted: 'true'}")));
    cases
}

#[test]
#[ignore = "heavy: starts a kube-apiserver, which KUBEBUILDER_ASSETS has to name"]
fn api_server_takes_the_policies_refuses_the_bad_and_admits_the_good() {
    let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") else {
        println!("SKIPPED: KUBEBUILDER_ASSETS is not set, so no API server has seen the policies");
        return;
    };
    let cluster = Cluster::start(Path::new(&assets));
    let cases = [workload_cases(), other_cases()].concat();
    for (_, bad, good) in &cases {
        for object in [bad, good] {
            assert_eq!(cluster.offer(object), "", "refused before there is a policy:\n{object}");
        }
    }
    let policies = cluster.api.folder.path().join("policies");
    run(&mut lastkey(["check", "policy", "-o", policies.to_str().unwrap()]), b"").ok();
    cluster.kubectl(&["apply", "-f", policies.to_str().unwrap()], "").ok();
    // Policies are loaded a moment after they are stored.
    for (check, bad, _) in &cases {
        cluster.api.until(&format!("{check} refuses\n{bad}"), || {
            cluster.offer(bad).contains(&format!("{check}: "))
        });
    }
    for (check, _, good) in &cases {
        assert_eq!(cluster.offer(good), "", "{check} refuses the good one:\n{good}");
    }
    println!("{} pairs, each bad one refused and each good one admitted", cases.len());
}
