//! The pods that an object makes: one view for all kinds of workloads.
//!
//! Room      `checks`.

use super::{
    Snapshot,
    object::{Object, Place},
    yaml::Node,
};

/// A pod or the template of one.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    /// The object it stands in.
    pub object: &'a Object,
    /// Metadata of the pod.
    pub metadata: &'a Node,
    /// `spec` of the pod.
    pub spec: &'a Node,
}

/// The three lists of containers in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `containers`.
    Main,
    /// `initContainers`.
    Init,
    /// `ephemeralContainers`.
    Ephemeral,
}

impl Role {
    /// The field of the pod.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Main => "containers",
            Self::Init => "initContainers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// A container of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Which list it stands in.
    pub role: Role,
    /// The container.
    pub node: &'a Node,
}

impl Container<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.get("name").str()
    }
}

impl<'a> PodView<'a> {
    /// All containers of all three lists.
    pub fn containers(self) -> impl Iterator<Item = Container<'a>> {
        [Role::Main, Role::Init, Role::Ephemeral].into_iter().flat_map(move |role| {
            self.spec.get(role.field()).items().iter().map(move |node| Container { role, node })
        })
    }

    /// The ServiceAccount it runs as.
    #[must_use]
    pub fn service_account(&self) -> &'a str {
        let name = self.spec.get("serviceAccountName").text();
        name.or_else(|| self.spec.get("serviceAccount").text())
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
    }

    /// The place of a value.
    #[must_use]
    pub fn place_of(&self, node: &Node) -> Place {
        self.object.place_of(node)
    }

    /// Whether it runs Windows, for which most Linux settings do not exist.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        self.spec.at("os.name").text() == Some("windows")
    }

    /// Names of the Secrets it mounts or reads, and whether one of them comes by a variable.
    #[must_use]
    pub fn secrets(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        for volume in self.spec.get("volumes").items() {
            names.extend(volume.at("secret.secretName").text());
            let projected = volume.at("projected.sources").items();
            names.extend(projected.iter().filter_map(|source| source.at("secret.name").text()));
            names.extend(volume.at("csi.volumeAttributes.secretProviderClass").text());
        }
        for container in self.containers() {
            let variables = container.node.get("env").items().iter();
            names.extend(variables.filter_map(|v| v.at("valueFrom.secretKeyRef.name").text()));
            let from = container.node.get("envFrom").items().iter();
            names.extend(from.filter_map(|source| source.at("secretRef.name").text()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Every pod of the snapshot. Custom resources that hold a pod template where a Deployment has it
/// (Argo Rollouts and others) are taken for workloads too.
#[must_use]
pub fn pods(snapshot: &Snapshot) -> Vec<PodView<'_>> {
    snapshot.objects.iter().filter_map(view).collect()
}

fn view(object: &Object) -> Option<PodView<'_>> {
    let root = &object.root;
    let holder = match (object.group(), object.kind.as_str()) {
        ("", "Pod") => root,
        ("", "PodTemplate") => root.get("template"),
        ("batch", "CronJob") => root.at("spec.jobTemplate.spec.template"),
        _ => root.at("spec.template"),
    };
    let spec = holder.get("spec");
    let is_pod =
        [Role::Main, Role::Init].iter().any(|role| !spec.get(role.field()).items().is_empty());
    is_pod.then(|| PodView { object, metadata: holder.get("metadata"), spec })
}

#[cfg(test)]
mod tests {
    use super::super::Snapshot;
    use super::pods;

    const CONTAINERS: &str =
        "{containers: [{name: c}], initContainers: [{name: i}], ephemeralContainers: [{name: e}]}";

    #[test]
    fn pods_are_found_in_all_kinds() {
        let mut snapshot = Snapshot::default();
        for (version, kind, path) in [
            ("v1", "Pod", "spec: @"),
            ("v1", "PodTemplate", "template: {spec: @}"),
            ("v1", "ReplicationController", "spec: {template: {spec: @}}"),
            ("apps/v1", "Deployment", "spec: {template: {spec: @}}"),
            ("apps/v1", "StatefulSet", "spec: {template: {spec: @}}"),
            ("apps/v1", "DaemonSet", "spec: {template: {spec: @}}"),
            ("apps/v1", "ReplicaSet", "spec: {template: {spec: @}}"),
            ("batch/v1", "Job", "spec: {template: {spec: @}}"),
            ("batch/v1", "CronJob", "spec: {jobTemplate: {spec: {template: {spec: @}}}}"),
            ("argoproj.io/v1alpha1", "Rollout", "spec: {template: {spec: @}}"),
        ] {
            let text = format!(
                "{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}, {}}}",
                path.replace('@', CONTAINERS)
            );
            snapshot.add_file(kind, text.as_bytes());
        }
        let found = pods(&snapshot);
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|pod| pod.containers().count() == 3));
    }
}
