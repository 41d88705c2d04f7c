//! Folders: in place and into another tree, cut short at any moment, on a full disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::directory::Disk;
use crate::process::{Ended, not_run, run};
use crate::world::Server;

/// A server, and a tree of files.
struct Desk {
    _data: tempfile::TempDir,
    folder: tempfile::TempDir,
    server: Server,
}

/// Name and content of each file of the tree.
fn content() -> Vec<(String, Vec<u8>)> {
    let lens = [0, 1, 100, 4_096, 5_000, 70_000, 1 << 20, (1 << 20) + 1, 3_000_000];
    let large = lens.into_iter().enumerate().map(|(number, len)| {
        let byte = u8::try_from(number).unwrap();
        (format!("large/{number}.bin"), vec![byte; len])
    });
    let small = (0..300).map(|number| {
        let folder = ["", "a/", "a/b/", "c/"][number % 4];
        (format!("{folder}{number}.txt"), format!("the text of number {number}\n").into_bytes())
    });
    large.chain(small).collect()
}

impl Desk {
    fn open() -> Self {
        let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Server::dev(&data.path().join("d"));
        server.cli("key create --alias alias/app").ok();
        let desk = Self { _data: data, folder, server };
        desk.plant(&desk.path().join("tree"));
        desk
    }

    fn plant(&self, root: &Path) {
        for (name, bytes) in content() {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, line: &str) -> Ended {
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.path()), b"")
    }

    /// Starts a run in place and kills it after so many new files have their names.
    fn killed(&self, line: &str, after: usize, is_new: fn(&[u8]) -> bool) {
        let mut command = self.server.client(line.split_whitespace());
        command.current_dir(self.path()).stderr(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        while child.try_wait().unwrap().is_none() && self.count(is_new) < after {}
        // It may have ended by itself.
        let _ = kill_process(id, Signal::KILL);
        child.wait().unwrap();
    }

    fn count(&self, is_new: fn(&[u8]) -> bool) -> usize {
        let tree = named(&self.path().join("tree"));
        tree.iter().filter(|path| fs::read(path).is_ok_and(|bytes| is_new(&bytes))).count()
    }

    /// Every file is the old one or opens to it, and there is no other.
    #[track_caller]
    fn is_whole(&self) {
        let tree = self.path().join("tree");
        let mut expected: Vec<PathBuf> =
            content().into_iter().map(|(name, _)| tree.join(name)).collect();
        expected.sort();
        assert_eq!(named(&tree), expected);
        for (name, plain) in content() {
            let bytes = fs::read(tree.join(&name)).unwrap();
            if !is_envelope(&bytes) {
                assert!(bytes == plain, "{name}");
            }
        }
        // Every envelope opens to the old content; what is plain is told of.
        let (check, sealed) = (self.path().join("check"), self.count(is_envelope));
        if check.exists() {
            fs::remove_dir_all(&check).unwrap();
        }
        let all = sealed == content().len();
        let ended = self.run("decrypt tree -o check");
        assert_eq!(ended.code, Some(if all { 0 } else { 5 }), "{}", ended.stderr);
        assert_eq!(files(&check).len(), sealed);
        for (name, plain) in content() {
            if let Ok(bytes) = fs::read(check.join(&name)) {
                assert!(bytes == plain, "{name}");
            }
        }
    }
}

fn is_envelope(bytes: &[u8]) -> bool {
    bytes.starts_with(b"LKENV\r\n\x1a")
}

fn is_plain(bytes: &[u8]) -> bool {
    !is_envelope(bytes)
}

/// The same without what a killed run leaves: a whole file just before it took its name.
fn named(root: &Path) -> Vec<PathBuf> {
    let mut found = files(root);
    found.retain(|path| !path.to_string_lossy().ends_with(".lastkey-tmp"));
    found
}

/// Every file below a folder, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[track_caller]
fn is_as_planted(root: &Path) {
    assert_eq!(files(root).len(), content().len());
    for (name, plain) in content() {
        assert!(fs::read(root.join(&name)).unwrap() == plain, "{name}");
    }
}

#[test]
fn tree_goes_there_and_back_and_a_second_run_changes_nothing() {
    let desk = Desk::open();
    let private = desk.path().join("tree/4.txt");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o640)).unwrap();
    desk.run("encrypt --key alias/app --context a=b tree -o sealed").ok();
    is_as_planted(&desk.path().join("tree"));
    let sealed = desk.path().join("sealed");
    assert!(files(&sealed).iter().all(|path| is_envelope(&fs::read(path).unwrap())));
    let mode = fs::metadata(sealed.join("4.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let before = fs::read(sealed.join("0.txt")).unwrap();
    let again = desk.run("encrypt --key alias/app --context a=b tree -o sealed");
    again.ok();
    assert!(again.stderr.contains("files: 0 encrypted, 309 encrypted before"), "{}", again.stderr);
    assert_eq!(fs::read(sealed.join("0.txt")).unwrap(), before);
    desk.run("decrypt sealed -o back").ok();
    is_as_planted(&desk.path().join("back"));
    desk.run("decrypt sealed -o back").failed(7);
    desk.run("decrypt sealed -o back --skip-existing").ok();
    desk.run("decrypt --context a=c sealed -o other").failed(5);
    assert_eq!(files(&desk.path().join("other")).len(), 0);
}

#[test]
fn tree_in_place_goes_there_and_back() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/app --in-place tree").ok();
    assert_eq!(desk.count(is_envelope), content().len());
    let before = fs::read(desk.path().join("tree/4.txt")).unwrap();
    desk.run("encrypt --key alias/app --in-place tree").ok();
    assert_eq!(fs::read(desk.path().join("tree/4.txt")).unwrap(), before);
    desk.run("decrypt --in-place tree").ok();
    is_as_planted(&desk.path().join("tree"));
    desk.run("encrypt --key alias/app --in-place tree/4.txt").ok();
    assert_eq!(desk.count(is_envelope), 1);
    desk.run("decrypt --in-place tree/4.txt").ok();
    is_as_planted(&desk.path().join("tree"));
}

#[test]
fn run_in_place_that_is_killed_leaves_each_file_old_or_new_and_goes_on() {
    let desk = Desk::open();
    for after in [0, 1, 60, 130, 200, 300] {
        desk.killed("encrypt --key alias/app --in-place tree --jobs 1", after, is_envelope);
        desk.is_whole();
    }
    desk.run("encrypt --key alias/app --in-place tree").ok();
    assert_eq!(desk.count(is_envelope), content().len());
    for after in [0, 1, 60, 130, 200, 300] {
        desk.killed("decrypt --in-place tree --jobs 1", after, is_plain);
        desk.is_whole();
    }
    desk.run("decrypt --in-place tree").ok();
    is_as_planted(&desk.path().join("tree"));
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let desk = Desk::open();
    desk.run("encrypt --key alias/app --in-place tree").ok();
    let (cut, changed) = (desk.path().join("tree/4.txt"), desk.path().join("tree/a/b/2.txt"));
    let mut bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    bytes = fs::read(&changed).unwrap();
    bytes[40] ^= 1;
    fs::write(&changed, &bytes).unwrap();
    let ended = desk.run("decrypt --in-place tree");
    assert!(ended.failed(5).contains("2 failed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("tree/4.txt") && ended.stderr.contains("a/b/2.txt"));
    assert_eq!(desk.count(is_envelope), 2);
    assert_eq!(fs::read(&changed).unwrap(), bytes, "a bad file stays as it was");
    // What looks encrypted and is not proven to be is neither skipped in silence nor encrypted
    // a second time.
    let ended = desk.run("encrypt --key alias/app --in-place tree");
    assert!(ended.failed(5).contains("1 failed"), "{}", ended.stderr);
    assert_eq!(fs::read(&changed).unwrap(), bytes);
}

#[test]
fn patterns_choose_the_files_and_links_are_not_followed() {
    let desk = Desk::open();
    let tree = desk.path().join("tree");
    fs::write(desk.path().join("outside"), "not ours").unwrap();
    symlink("../outside", tree.join("link")).unwrap();
    symlink("..", tree.join("loop")).unwrap();
    let line = "encrypt --key alias/app --in-place tree --include *.txt --exclude a/b --exclude 4*";
    let ended = desk.run(line);
    ended.ok();
    for (name, plain) in content() {
        let last = name.rsplit('/').next().unwrap();
        let chosen = last.ends_with(".txt") && !name.starts_with("a/b/") && !last.starts_with('4');
        let bytes = fs::read(tree.join(&name)).unwrap();
        assert_eq!((is_envelope(&bytes), bytes == plain), (chosen, !chosen), "{name}");
    }
    assert_eq!(fs::read(desk.path().join("outside")).unwrap(), b"not ours");
    assert!(fs::symlink_metadata(tree.join("link")).unwrap().is_symlink());
    desk.run("encrypt --key alias/app --include [ --in-place tree").failed(2);
}

#[test]
fn folder_needs_a_place_to_go_to() {
    let desk = Desk::open();
    for line in [
        "encrypt --key alias/app tree",
        "encrypt --key alias/app tree -o -",
        "encrypt --key alias/app tree -o tree/inside",
        "encrypt --key alias/app tree -o tree",
        "encrypt --key alias/app --in-place",
        "encrypt --key alias/app --in-place tree -o other",
        "encrypt --key alias/app --include *.txt tree/4.txt -o other",
        "decrypt --range 0-5 tree -o other",
    ] {
        desk.run(line).failed(2);
    }
    is_as_planted(&desk.path().join("tree"));
    desk.run("encrypt --key alias/none --in-place tree").failed(4);
    is_as_planted(&desk.path().join("tree"));
}

#[test]
fn target_on_another_file_system_is_as_good() {
    let desk = Desk::open();
    let Some(disk) = Disk::of(c"size=64m") else {
        return not_run("another file system: this process may not mount one");
    };
    let there = disk.path().join("sealed");
    desk.run(&format!("encrypt --key alias/app tree -o {}", there.display())).ok();
    desk.run(&format!("decrypt {} -o back", there.display())).ok();
    is_as_planted(&desk.path().join("back"));
    let one = disk.path().join("one.lk");
    desk.run(&format!("encrypt --key alias/app tree/large/8.bin -o {}", one.display())).ok();
    desk.run(&format!("decrypt {} -o one", one.display())).ok();
    assert_eq!(fs::read(desk.path().join("one")).unwrap(), vec![8; 3_000_000]);
}

#[test]
fn full_disk_ends_a_run_and_every_file_is_old_or_new() {
    let desk = Desk::open();
    let Some(disk) = Disk::of(c"size=8m") else {
        return not_run("a full disk: this process may not mount a file system");
    };
    let big = disk.path().join("big");
    desk.run(&format!("encrypt --key alias/app tree -o {}", big.display())).ok();
    let line = format!("decrypt {} -o {}", big.display(), disk.path().join("back").display());
    let ended = desk.run(&line);
    assert!(ended.failed(7).contains("No space left"), "{}", ended.stderr);
    for path in files(&disk.path().join("back")) {
        let name = path.strip_prefix(disk.path().join("back")).unwrap().to_string_lossy();
        let (_, plain) = content().into_iter().find(|(known, _)| *known == name).unwrap();
        assert!(fs::read(&path).unwrap() == plain, "{name}");
    }
    let one = format!("decrypt {}/large/8.bin -o {}/one", big.display(), disk.path().display());
    fs::write(disk.path().join("ballast"), vec![1; 8 << 20]).unwrap_err();
    desk.run(&one).failed(7);
    assert!(!disk.path().join("one").exists());
}
