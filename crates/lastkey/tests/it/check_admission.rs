//! The written policies before a real API server: it takes them, refuses what is bad and admits
//! what is good.

use std::fs;

use crate::api_server::ApiServer;
use crate::process::{lastkey, run};

/// What is said when an object is offered: the complaint, or nothing.
fn offer(api: &ApiServer, object: &str) -> String {
    api.create(object, true).err().map(|error| error.to_string()).unwrap_or_default()
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
#[ignore = "heavy: builds and starts a kube-apiserver"]
fn api_server_takes_the_policies_refuses_the_bad_and_admits_the_good() {
    let test = "api_server_takes_the_policies_refuses_the_bad_and_admits_the_good";
    let Some(api) = ApiServer::found(test) else { return };
    let cases = [workload_cases(), other_cases()].concat();
    for (_, bad, good) in &cases {
        for object in [bad, good] {
            assert_eq!(offer(&api, object), "", "refused before there is a policy:\n{object}");
        }
    }
    let policies = api.folder.path().join("policies");
    run(&mut lastkey(["check", "policy", "-o", policies.to_str().unwrap()]), b"").ok();
    let files = fs::read_dir(policies).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    // In turn, since of several that refuse the API server names one.
    files.sort_unstable();
    let mut refused = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        api.create(&text, false).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let name = file.file_name().unwrap().to_str().unwrap().to_uppercase();
        for (check, bad, _) in cases.iter().filter(|(check, ..)| name.starts_with(check)) {
            // Policies are loaded a moment after they are stored.
            api.until(&format!("{check} refuses\n{bad}"), || {
                offer(&api, bad).contains(&format!("{check}: "))
            });
            refused += 1;
        }
    }
    assert_eq!(refused, cases.len());
    for (check, _, good) in &cases {
        assert_eq!(offer(&api, good), "", "{check} refuses the good one:\n{good}");
    }
    println!("{} pairs, each bad one refused and each good one admitted", cases.len());
}
