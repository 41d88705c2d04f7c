//! What a node says about itself: files with owners and modes, processes, listening sockets.
//!
//! Room      `checks`. The collector is told here what to look at ([`PLACES`],
//!           [`wants_content`]) and brings facts; verdicts are made elsewhere.
//! Holds     Hashes of passwords and private keys are not kept.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Files and folders that the checks look at, below the root of the node. Folders are read
/// whole, [`MAX_FILES`] at most.
pub const PLACES: &[&str] = &[
    "/etc/kubernetes",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/kubelet/pki",
    "/var/lib/kubelet/kubeconfig",
    "/etc/systemd/system/kubelet.service.d",
    "/usr/lib/systemd/system/kubelet.service",
    "/var/lib/etcd",
    "/etc/etcd",
    "/etc/cni/net.d",
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/login.defs",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/audit/auditd.conf",
    "/proc/swaps",
    "/proc/self/mountinfo",
    "/proc/net/tcp",
    "/proc/net/tcp6",
    "/proc/net/fib_trie",
    "/proc/net/if_inet6",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/fs/suid_dumpable",
];

/// Files that are read of one node.
pub const MAX_FILES: usize = 20_000;
/// Bytes that are read of one file.
pub const MAX_FILE_LEN: u64 = 4 << 20;

/// Whether the content of a file matters, and not only its owner and mode.
#[must_use]
pub fn wants_content(path: &str) -> bool {
    let is_private = path.ends_with(".key") || path.ends_with("-key.pem");
    let is_data = path.starts_with("/var/lib/etcd/");
    let is_key_pair = path.starts_with("/var/lib/kubelet/pki/") && !path.ends_with(".crt");
    !is_private && !is_data && !is_key_pair
}

/// Whether a file may hold Kubernetes objects or configuration of its components.
#[must_use]
pub fn holds_objects(path: &str) -> bool {
    let is_place =
        ["/etc/kubernetes/", "/var/lib/kubelet/", "/etc/etcd/"].iter().any(|p| path.starts_with(p));
    is_place
        && [".yaml", ".yml", ".json", ".conf", ".kubeconfig", "/kubeconfig"]
            .iter()
            .any(|end| path.ends_with(end))
}

/// Facts of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Files by their absolute path on the node.
    pub files: BTreeMap<String, FileFact>,
    /// Processes; empty when the root is not that of the running machine.
    pub processes: Vec<Process>,
    /// The root belongs to the running machine, so `/proc` speaks of the node.
    pub is_running: bool,
    /// What could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

/// One file, folder or link.
#[derive(Clone, Debug, Default)]
pub struct FileFact {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 12 of them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its bytes, where they matter.
    pub content: Option<Vec<u8>>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    #[default]
    File,
    /// A folder.
    Folder,
    /// A device, socket, pipe or dangling link.
    Other,
}

/// A process of a component.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Largest core dump in bytes; `None` when there is no limit.
    pub core_limit: Option<u64>,
}

/// A socket that waits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Address it is bound to.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
}

impl Listener {
    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self.addr {
            IpAddr::V4(addr) => !addr.is_loopback(),
            IpAddr::V6(addr) => {
                !addr.is_loopback() && !addr.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
            }
        }
    }
}

/// A line of the account files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Whether somebody can log in with it.
    pub has_shell: bool,
    /// Whether its password is empty.
    pub is_open: bool,
    /// Marker of the hash (`1` is MD5, `6` SHA-512, `y` yescrypt), when there is one.
    pub hash: Option<String>,
}

impl NodeFacts {
    /// Adds a file. Of `/etc/shadow` only the kind of each hash is kept.
    pub fn add(&mut self, path: &str, mut file: FileFact) {
        if path == "/etc/shadow" {
            file.content = file.content.map(|bytes| without_hashes(&bytes));
        }
        self.files.insert(path.to_owned(), file);
    }

    /// A file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&FileFact> {
        self.files.get(path)
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.file(path)?.content.as_deref()?).ok()
    }

    /// Files and folders below a folder.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a FileFact)> {
        self.files
            .range(folder.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(folder))
            .filter(move |(path, _)| {
                path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
            })
            .map(|(path, file)| (path.as_str(), file))
    }

    /// Sockets that wait for connections, by `/proc/net/tcp` and `tcp6`.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        let texts =
            ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| self.text(path));
        let mut found: Vec<Listener> = texts.flat_map(str::lines).filter_map(listener).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Addresses of the machine that the whole internet can route to, by `/proc/net/fib_trie`
    /// and `if_inet6`.
    #[must_use]
    pub fn public_addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let mut last = "";
        for line in self.text("/proc/net/fib_trie").unwrap_or_default().lines() {
            match line.trim().split_once("-- ") {
                Some((_, addr)) => last = addr,
                None if line.ends_with("/32 host LOCAL") => {
                    found.extend(last.parse().ok().filter(is_public_v4).map(IpAddr::V4));
                }
                None => {}
            }
        }
        for line in self.text("/proc/net/if_inet6").unwrap_or_default().lines() {
            let digits = line.split_whitespace().next().unwrap_or_default();
            let addr = u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from_bits);
            found.extend(addr.filter(is_public_v6).map(IpAddr::V6));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The accounts of the machine.
    #[must_use]
    pub fn accounts(&self) -> Vec<Account> {
        let shadow: BTreeMap<&str, &str> = self
            .text("/etc/shadow")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                Some((fields.next()?, fields.next()?))
            })
            .collect();
        self.text("/etc/passwd")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| account(line, &shadow))
            .collect()
    }

    /// The name of a user, or its number.
    #[must_use]
    pub fn user(&self, uid: u32) -> String {
        let accounts = self.accounts();
        accounts
            .into_iter()
            .find(|account| account.uid == uid)
            .map_or_else(|| uid.to_string(), |a| a.name)
    }
}

fn is_public_v4(addr: &Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    let is_shared = a == 100 && (64..128).contains(&b) || a == 198 && (18..20).contains(&b);
    let is_local = addr.is_private() || addr.is_loopback() || addr.is_link_local();
    !(is_shared || is_local || addr.is_documentation() || addr.is_multicast() || a == 0 || a >= 240)
}

/// Global unicast (2000::/3), without the addresses of documentation.
fn is_public_v6(addr: &Ipv6Addr) -> bool {
    let [first, second, ..] = addr.segments();
    first >> 13 == 1 && (first, second) != (0x2001, 0xdb8)
}

fn account(line: &str, shadow: &BTreeMap<&str, &str>) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let (name, password) = (*fields.first()?, *fields.get(1)?);
    let shell = fields.get(6).copied().unwrap_or_default();
    let hash = if password == "x" { shadow.get(name).copied().unwrap_or("!") } else { password };
    Some(Account {
        name: name.to_owned(),
        uid: fields.get(2)?.parse().ok()?,
        has_shell: !shell.ends_with("nologin")
            && !shell.ends_with("false")
            && !shell.ends_with("sync"),
        is_open: hash.is_empty(),
        hash: hash
            .strip_prefix('$')
            .map(|rest| rest.split('$').next().unwrap_or_default().to_owned()),
    })
}

fn without_hashes(bytes: &[u8]) -> Vec<u8> {
    let mut kept = String::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':');
        let (name, hash) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let word = match hash.split('$').nth(1) {
            Some(kind) if hash.starts_with('$') => format!("${kind}$"),
            _ if hash.is_empty() => String::new(),
            _ if hash.starts_with(['!', '*']) => "!".to_owned(),
            _ => "$des$".to_owned(),
        };
        kept.push_str(&format!("{name}:{word}:\n"));
    }
    kept.into_bytes()
}

/// One line of `/proc/net/tcp`; only state 0A is listening.
fn listener(line: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (addr, port) = local.split_once(':')?;
    if state != "0A" {
        return None;
    }
    let words: Vec<u32> = addr
        .as_bytes()
        .chunks(8)
        .map(|chunk| {
            u32::from_str_radix(std::str::from_utf8(chunk).ok()?, 16).ok().map(u32::swap_bytes)
        })
        .collect::<Option<_>>()?;
    let addr = match *words.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from_bits(v4)),
        [a, b, c, d] => {
            let bits =
                [a, b, c, d].into_iter().fold(0_u128, |bits, word| bits << 32 | u128::from(word));
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        _ => return None,
    };
    Some(Listener { addr, port: u16::from_str_radix(port, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::{FileFact, NodeFacts};

    fn facts(files: &[(&str, &str)]) -> NodeFacts {
        let mut facts = NodeFacts::default();
        for (path, text) in files {
            let content = Some(text.as_bytes().to_vec());
            facts.add(path, FileFact { content, ..FileFact::default() });
        }
        facts
    }

    #[test]
    fn listeners_are_read_in_host_byte_order() {
        let facts = facts(&[
            (
                "/proc/net/tcp",
                "  sl  local_address rem_address   st\n   0: 0100007F:094B 00000000:0000 0A 0\n   1: 00000000:0016 00000000:0000 0A 0\n   2: 0100007F:1F90 0100007F:1234 01 0\n",
            ),
            (
                "/proc/net/tcp6",
                "  sl\n   0: 00000000000000000000000000000000:280A 0:0 0A\n   1: 00000000000000000000000001000000:280B 0:0 0A\n",
            ),
        ]);
        let found: Vec<_> = facts.listeners().iter().map(|l| (l.port, l.is_exposed())).collect();
        assert_eq!(found, [(22, true), (2379, false), (10250, true), (10251, false)]);
    }

    #[test]
    fn public_addresses_are_told_from_those_of_a_house() {
        let trie = |addr: &str| {
            format!("Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- {addr}\n        /32 host LOCAL\n")
        };
        for (addr, is_public) in [
            ("47.98.1.2", true),
            ("10.0.0.5", false),
            ("172.20.0.1", false),
            ("127.0.0.1", false),
            ("100.64.3.4", false),
            ("169.254.1.1", false),
        ] {
            let facts = facts(&[("/proc/net/fib_trie", &trie(addr))]);
            let expected: Vec<std::net::IpAddr> =
                is_public.then(|| addr.parse().unwrap()).into_iter().collect();
            assert_eq!(facts.public_addresses(), expected, "{addr}");
        }
        let six = facts(&[(
            "/proc/net/if_inet6",
            "fe80000000000000021122fffe334455 02 40 20 80 eth0\n\
             24080000000000000000000000000001 02 40 00 80 eth0\n\
             fd000000000000000000000000000001 02 40 00 80 eth0\n",
        )]);
        assert_eq!(six.public_addresses(), ["2408::1".parse::<std::net::IpAddr>().unwrap()]);
        let route = "Main:\n     |-- 47.98.1.0\n        /24 link UNICAST\n";
        assert!(facts(&[("/proc/net/fib_trie", route)]).public_addresses().is_empty());
    }

    #[test]
    fn hashes_of_passwords_are_not_kept() {
        let facts = facts(&[
            (
                "/etc/passwd",
                "root:x:0:0::/root:/bin/bash\nopen:x:7:7::/:/bin/sh\nold:x:8:8::/:/bin/sh\nd:x:9:9::/:/usr/sbin/nologin\n",
            ),
            ("/etc/shadow", "root:$6$salt$abcdef:1::\nopen::1::\nold:ab1234567890.:1::\nd:*:1::\n"),
        ]);
        let text = facts.text("/etc/shadow").unwrap();
        assert!(!text.contains("salt") && !text.contains("ab123"), "{text}");
        let accounts = facts.accounts();
        let seen: Vec<_> =
            accounts.iter().map(|a| (a.is_open, a.has_shell, a.hash.as_deref())).collect();
        assert_eq!(
            seen,
            [
                (false, true, Some("6")),
                (true, true, None),
                (false, true, Some("des")),
                (false, false, None)
            ]
        );
    }

    #[test]
    fn below_does_not_take_neighbours() {
        let facts = facts(&[("/a/b", ""), ("/a/b/c", ""), ("/a/bc", "")]);
        assert_eq!(facts.below("/a/b").map(|(path, _)| path).collect::<Vec<_>>(), ["/a/b/c"]);
    }
}
