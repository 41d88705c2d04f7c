//! Components of the control plane and the flags they run with.
//!
//! Room      `checks`.
//! Source    Static pods as kubeadm writes them, or the command lines of processes.

use std::sync::Arc;

use super::{Snapshot, object::Place, pod};

/// A running or configured component.
#[derive(Clone, Debug)]
pub struct Component {
    /// For example `kube-apiserver`.
    pub name: &'static str,
    /// Where its command stands.
    pub place: Place,
    flags: Vec<(String, String)>,
}

const NAMES: [&str; 5] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kubelet"];

impl Component {
    /// The value of a flag without its dashes; the last one counts.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The parts of a flag that is a list.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.flags.iter().filter(move |(known, _)| known == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|part| !part.is_empty())
    }

    /// Whether a truth flag says yes.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.flag(name)
            .is_some_and(|value| matches!(value, "true" | "True" | "TRUE" | "1" | "t" | "T"))
    }

    /// Whether a truth flag says no.
    #[must_use]
    pub fn is_off(&self, name: &str) -> bool {
        self.flag(name)
            .is_some_and(|value| matches!(value, "false" | "False" | "FALSE" | "0" | "f" | "F"))
    }

    /// Reads a command line; `None` when it runs no component.
    #[must_use]
    pub fn from_command(words: &[&str], place: Place) -> Option<Self> {
        let words: Vec<&str> = words.iter().flat_map(|word| split(word)).collect();
        let (at, name) =
            words.iter().enumerate().find_map(|(at, word)| Some((at, component(word)?)))?;
        let mut flags = Vec::new();
        let mut rest = words.into_iter().skip(at + 1).peekable();
        while let Some(word) = rest.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            let value = match flag.split_once('=') {
                Some((_, value)) => value,
                None => rest.next_if(|next| !next.starts_with('-')).unwrap_or("true"),
            };
            let name = flag.split_once('=').map_or(flag, |(name, _)| name);
            flags.push((name.to_owned(), value.trim_matches(['"', '\'']).to_owned()));
        }
        Some(Self { name, place, flags })
    }
}

/// Words of a shell line stand in one argument.
fn split(word: &str) -> Vec<&str> {
    let is_line =
        word.contains(char::is_whitespace) && NAMES.iter().any(|name| word.contains(name));
    if is_line { word.split_whitespace().collect() } else { vec![word] }
}

fn component(word: &str) -> Option<&'static str> {
    let base = word.rsplit('/').next().unwrap_or(word);
    NAMES.into_iter().find(|name| *name == base)
}

/// All components of the snapshot: of static pods first, then of processes that no static pod
/// explains.
#[must_use]
pub fn components(snapshot: &Snapshot) -> Vec<Component> {
    let mut found: Vec<Component> = Vec::new();
    for pod in pod::pods(snapshot).into_iter().filter(|pod| pod.object.kind == "Pod") {
        for container in pod.containers() {
            let (command, args) = (container.node.get("command"), container.node.get("args"));
            let words: Vec<&str> = command.texts().chain(args.texts()).collect();
            let place = pod.place_of(if command.is_there() { command } else { args });
            found.extend(Component::from_command(&words, place).filter(|c| c.name != "kubelet"));
        }
    }
    for process in snapshot.node.iter().flat_map(|node| &node.processes) {
        let place = Place::whole(&Arc::from(format!("process {}", process.pid)));
        let words: Vec<&str> = process.arguments.iter().map(String::as_str).collect();
        let is_first = words.first().is_some_and(|word| component(word).is_some());
        let component = Component::from_command(&words, place).filter(|_| is_first);
        found.extend(component.filter(|c| !found.iter().any(|known| known.name == c.name)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Component, Place};

    fn read(words: &[&str]) -> Option<Component> {
        Component::from_command(words, Place::whole(&Arc::from("x")))
    }

    #[test]
    fn flags_are_read_in_all_forms() {
        let c = read(&[
            "/usr/local/bin/kube-apiserver",
            "--a=1",
            "--b",
            "2",
            "--on",
            "--off=false",
            "--a=3",
            "--l=x,y",
            "--l",
            "z",
        ])
        .unwrap();
        assert_eq!((c.name, c.flag("a"), c.flag("b")), ("kube-apiserver", Some("3"), Some("2")));
        assert!(c.is_on("on") && c.is_off("off") && !c.is_on("absent") && !c.is_off("absent"));
        assert_eq!(c.list("l").collect::<Vec<_>>(), ["x", "y", "z"]);
    }

    #[test]
    fn shell_lines_are_opened() {
        let c = read(&["/bin/sh", "-ec", "exec etcd --client-cert-auth=true 2>&1"]).unwrap();
        assert!(c.name == "etcd" && c.is_on("client-cert-auth"));
        assert!(read(&["nginx", "--etcd"]).is_none());
    }
}
