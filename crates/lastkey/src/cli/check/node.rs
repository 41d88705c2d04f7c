//! A node's facts, read below a root: the machine's own, or a mounted one.
//!
//! Room      `lastkey`.
//! Holds     Links are followed inside the root alone (openat2 with RESOLVE_IN_ROOT): a root from
//!           elsewhere cannot make this machine's files its own.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use lastkey_checks::snapshot::node::{
    FileFact, FileKind, MAX_FILE_LEN, MAX_FILES, NodeFacts, PLACES, Process, wants_content,
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
    io::Errno,
};

use super::super::failure::Failure;

/// Reads the facts.
///
/// # Errors
/// [`Failure::Io`] when the root cannot be opened; anything below it is told in the facts.
pub(super) fn facts(root: &Path) -> Result<NodeFacts, Failure> {
    let failed = |cause: Errno| Failure::io(format!("open {}", root.display()), cause.into());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = open(root, flags, Mode::empty()).map_err(failed)?;
    let mut node = Node { root: handle, facts: NodeFacts::default() };
    let is_own = same(&node.root, Path::new("/"));
    node.facts.is_running = is_own;
    for place in PLACES {
        node.read(place);
    }
    if is_own {
        node.facts.processes = processes();
    }
    Ok(node.facts)
}

fn same(root: &OwnedFd, path: &Path) -> bool {
    let (Ok(one), Ok(other)) =
        (fstat(root), rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty()))
    else {
        return false;
    };
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

struct Node {
    root: OwnedFd,
    facts: NodeFacts,
}

impl Node {
    /// Reads a file, or a folder with everything below.
    fn read(&mut self, place: &str) {
        let mut waiting = vec![place.to_owned()];
        while let Some(path) = waiting.pop() {
            if self.facts.files.len() >= MAX_FILES {
                let reason = format!("more than {MAX_FILES} files; the rest was not looked at");
                self.facts.unreadable.push((path, reason));
                return;
            }
            match self.one(&path) {
                Ok(below) => waiting.extend(below),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(cause) => {
                    self.facts.unreadable.push((path, std::io::Error::from(cause).to_string()));
                }
            }
        }
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Reads one file; of a folder the names in it.
    fn one(&mut self, path: &str) -> Result<Vec<String>, Errno> {
        let handle = self.open(path, OFlags::PATH)?;
        let about = fstat(&handle)?;
        let kind = match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => FileKind::Other,
        };
        let content = if kind == FileKind::File && wants_content(path) {
            Some(self.content(path)?)
        } else {
            None
        };
        let fact = FileFact {
            kind,
            mode: about.st_mode & 0o7777,
            uid: about.st_uid,
            gid: about.st_gid,
            content,
        };
        self.facts.add(path, fact);
        if kind == FileKind::Folder { self.names(path) } else { Ok(Vec::new()) }
    }

    fn content(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let handle = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut bytes = Vec::new();
        File::from(handle)
            .take(MAX_FILE_LEN)
            .read_to_end(&mut bytes)
            .map_err(|cause| Errno::from_io_error(&cause).unwrap_or(Errno::IO))?;
        Ok(bytes)
    }

    fn names(&self, path: &str) -> Result<Vec<String>, Errno> {
        let handle = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(handle.as_fd())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(format!("{path}/{name}"));
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }
}

const COMPONENTS: [&str; 6] =
    ["kube-apiserver", "kube-controller", "kube-scheduler", "etcd", "kubelet", "lastkey"];

/// Processes of the components on this machine. One that ends meanwhile is left out.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(process).collect()
}

fn process(pid: u32) -> Option<Process> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !COMPONENTS.iter().any(|component| name.starts_with(component)) {
        return None;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let arguments = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let core_limit = core.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Some(Process { pid, arguments, core_limit })
}
