//! Patches: the change that mends a finding, as YAML for `kubectl patch` or for the manifest.
//!
//! Room      `checks`.

use crate::snapshot::{
    object::Object,
    pod::{Container, PodView},
};

/// A strategic merge patch of an object; `body` is what stands below its name.
pub(super) fn object(object: &Object, body: &str) -> String {
    let mut text = format!(
        "apiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n",
        object.api_version, object.kind, object.name
    );
    if object.root.at("metadata.namespace").is_there() {
        text.push_str(&format!("  namespace: {}\n", object.namespace()));
    }
    text + body
}

/// A patch of the pod's specification, at the depth at which this kind has it.
pub(super) fn pod(pod: &PodView<'_>, spec: &str) -> String {
    let path: &[&str] = match pod.object.kind.as_str() {
        "Pod" => &["spec"],
        "PodTemplate" => &["template", "spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    };
    let mut body = String::new();
    for (depth, name) in path.iter().enumerate() {
        body.push_str(&format!("{}{name}:\n", "  ".repeat(depth)));
    }
    object(pod.object, &(body + &indent(spec, path.len())))
}

/// A patch of one container.
pub(super) fn container(view: &PodView<'_>, container: &Container<'_>, body: &str) -> String {
    let name = container.name();
    let item = format!("{}:\n- name: {name}\n{}", container.role.field(), indent(body, 1));
    pod(view, &item)
}

fn indent(text: &str, depth: usize) -> String {
    let space = "  ".repeat(depth);
    text.lines().map(|line| format!("{space}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use crate::snapshot::{Snapshot, pod::pods};

    #[test]
    fn patches_stand_at_the_depth_of_their_kind() {
        let mut snapshot = Snapshot::default();
        snapshot.add_file("x", b"apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c, namespace: shop}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}");
        let views = pods(&snapshot);
        let container = views[0].containers().next().unwrap();
        let patch =
            super::container(&views[0], &container, "securityContext:\n  privileged: false");
        assert_eq!(
            patch,
            "apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: c\n  namespace: shop\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          containers:\n          - name: a\n            securityContext:\n              privileged: false\n"
        );
    }
}
