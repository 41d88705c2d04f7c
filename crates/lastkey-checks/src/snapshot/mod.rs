//! What the posture checks look at: Kubernetes objects, a node's files, an etcd snapshot.
//!
//! Room      `checks`. Nothing here opens a file; the caller brings bytes and says where they
//!           came from.
//! Holds     Values of Secrets and credentials of kubeconfigs do not enter the snapshot: only
//!           what kind of thing they are.

mod bolt;
pub mod component;
pub mod der;
pub mod etcd;
pub mod live;
pub mod node;
pub mod object;
pub mod pod;
pub mod stored;
pub mod yaml;

use std::{collections::HashSet, sync::Arc};

use self::{
    etcd::EtcdFacts,
    node::NodeFacts,
    object::{Object, Place},
};

/// Everything that was brought together for one run.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Objects in the order they were read.
    pub objects: Vec<Object>,
    /// What could not be read, and why.
    pub unreadable: Vec<Unreadable>,
    /// What a node said about itself.
    pub node: Option<NodeFacts>,
    /// What an etcd snapshot holds.
    pub etcd: Option<EtcdFacts>,
    /// Where objects came from.
    pub origin: Origin,
    /// The metrics of a running API server.
    pub metrics: Option<String>,
    /// What a live cluster did not show.
    pub withheld: Vec<Withheld>,
    /// Secrets of which nothing but metadata was read.
    pub unread_secrets: u64,
    /// Workloads of the lists that were taken.
    controllers: HashSet<Identity>,
    /// Names of the documents that were read.
    names: yaml::Names,
}

/// Kind, namespace and name.
type Identity = (String, String, String);

/// Something that a live cluster did not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// `cluster` and a path of the API.
    pub subject: String,
    /// Why, as the API server said it.
    pub reason: String,
    /// Checks that cannot tell for it.
    pub checks: &'static [&'static str],
}

/// Which sources were given; a check that misses its source cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Manifests or renders.
    pub manifests: bool,
    /// A live API server.
    pub live: bool,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where; the line is 0 when the whole file is meant.
    pub place: Place,
    /// Why, for people.
    pub reason: String,
}

impl Snapshot {
    /// Reads all documents of one file. What is no Kubernetes object is passed over; what is
    /// broken is remembered with its line, and the rest is read.
    pub fn add_file(&mut self, path: &str, bytes: &[u8]) {
        let path: Arc<str> = Arc::from(path);
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.refuse(Place::whole(&path), "not UTF-8 text".to_owned());
            return;
        };
        for (line, document) in yaml::documents(text) {
            match yaml::parse_with(&mut self.names, document, line) {
                Ok(root) => object::collect(root, &path, &mut self.objects),
                Err(error) => {
                    let place =
                        Place { path: Arc::clone(&path), line: error.line, column: error.column };
                    self.refuse(place, reason(document, error.message));
                }
            }
        }
    }

    /// Remembers that something could not be read.
    pub fn refuse(&mut self, place: Place, reason: String) {
        self.unreadable.push(Unreadable { place, reason });
    }

    /// Takes a node's facts and reads the objects among its files (static pods, configuration).
    /// The contents of those files are not kept: kubeconfigs hold credentials.
    pub fn set_node(&mut self, mut facts: NodeFacts) {
        for (path, file) in &mut facts.files {
            if node::holds_objects(path)
                && let Some(content) = file.content.take()
            {
                self.add_file(path, &content);
            }
        }
        self.node = Some(facts);
    }

    /// Drops objects that a controller in this snapshot made: its template is judged already.
    pub fn settle(&mut self) {
        let known: HashSet<Identity> = self.objects.iter().map(identity).collect();
        self.objects.retain(|object| {
            !object.owner().is_some_and(|(kind, name)| {
                known.contains(&(kind, object.namespace().to_owned(), name))
            })
        });
    }

    /// Objects of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }
}

fn identity(object: &Object) -> Identity {
    (object.kind.clone(), object.namespace().to_owned(), object.name.clone())
}

fn reason(document: &str, message: String) -> String {
    if document.contains("{{") {
        format!("{message}; this looks like a template: render it first (helm template)")
    } else {
        message
    }
}

#[cfg(test)]
mod tests {
    use super::Snapshot;

    #[test]
    fn broken_document_is_named_and_the_rest_is_read() {
        let mut snapshot = Snapshot::default();
        let text = "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n---\nkind: [\n---\nkind: Pod\napiVersion: v1\nmetadata: {name: b}\n";
        snapshot.add_file("x.yaml", text.as_bytes());
        let names: Vec<_> =
            snapshot.objects.iter().map(|o| (o.name.as_str(), o.place.line)).collect();
        assert_eq!(names, [("a", 1), ("b", 7)]);
        assert_eq!(snapshot.unreadable.len(), 1);
        assert!((5..=6).contains(&snapshot.unreadable[0].place.line));
    }

    #[test]
    fn templates_are_explained() {
        let mut snapshot = Snapshot::default();
        snapshot.add_file("t.yaml", b"kind: Pod\nmetadata:\n  {{- include \"x\" . }}\n");
        assert!(snapshot.unreadable[0].reason.contains("helm template"));
    }

    #[test]
    fn lists_are_opened_and_made_objects_are_dropped() {
        let mut snapshot = Snapshot::default();
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: r, namespace: n}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p, namespace: n, ownerReferences: [{kind: ReplicaSet, name: r, controller: true}]}\n- {apiVersion: v1, kind: Pod, metadata: {name: q, namespace: n, ownerReferences: [{kind: ReplicaSet, name: gone, controller: true}]}}\n";
        snapshot.add_file("l.yaml", text.as_bytes());
        snapshot.settle();
        let names: Vec<_> = snapshot.objects.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["r", "q"]);
    }

    #[test]
    fn binary_file_is_refused_whole() {
        let mut snapshot = Snapshot::default();
        snapshot.add_file("b", &[0xff, 0xfe, 0]);
        assert_eq!(snapshot.unreadable[0].place.line, 0);
    }
}
