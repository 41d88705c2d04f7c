//! Files: outputs that appear whole or not at all, and files that threads share.
//!
//! Room      `client`. An output has no name until it is whole and synced, so that even a killed
//!           process leaves nothing behind. File systems that cannot do that get a temporary
//!           name beside the destination, which goes when the output is dropped.
//! Holds     The destination holds either what it held before or the whole new content.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

use lastkey_crypto::{
    entropy::{Entropy, SystemEntropy},
    stream::{ReadAt, WriteAt},
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, open, renameat_with, syncfs},
    io::Errno,
};

/// How the name of a temporary file ends.
const TEMPORARY_SUFFIX: &str = ".lastkey-tmp";
/// Hexadecimal digits before that.
const TEMPORARY_DIGITS: usize = 16;

/// Whether an existing destination may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// An existing file is an error.
    Refuse,
    /// An existing file gives way in one step.
    Allow,
}

/// Why an output file did not come about.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The destination is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A call of the file system failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A file that is not there yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    /// Where it lies until then; nowhere, where the file system allows that.
    temporary: Option<PathBuf>,
    destination: PathBuf,
    replace: Replace,
}

impl PendingFile {
    /// Opens a file of mode 0600 in the folder of `destination`, without a name where the file
    /// system allows that.
    ///
    /// # Errors
    /// [`FileError::Exists`] when `replace` refuses it; [`FileError::Io`].
    pub fn create(destination: &Path, replace: Replace) -> Result<Self, FileError> {
        if replace == Replace::Refuse && fs::symlink_metadata(destination).is_ok() {
            return Err(FileError::Exists { path: destination.to_owned() });
        }
        Self::open(destination, replace)
    }

    /// The same where the folder was made just now: whether `destination` is there all the same
    /// is seen when it gets its name.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn create_in_fresh_folder(destination: &Path) -> Result<Self, FileError> {
        Self::open(destination, Replace::Refuse)
    }

    fn open(destination: &Path, replace: Replace) -> Result<Self, FileError> {
        let no_name = |cause| failed("name a temporary file for", destination, cause);
        if destination.file_name().is_none() {
            return Err(no_name(io::ErrorKind::IsADirectory.into()));
        }
        let (file, temporary) = match open_unnamed(folder_of(destination)) {
            Some(file) => (file, None),
            None => {
                let temporary = temporary_beside(destination).map_err(no_name)?;
                (open_named(&temporary)?, Some(temporary))
            }
        };
        Ok(Self { file, temporary, destination: destination.to_owned(), replace })
    }

    /// The file itself, open for writing.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A second handle to write with, for instance on another thread.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn handle(&self) -> Result<File, FileError> {
        self.file.try_clone().map_err(|cause| self.failed("open", cause))
    }

    /// Where it will be.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Gives it the lower nine bits of `mode`.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn set_mode(&self, mode: u32) -> Result<(), FileError> {
        self.file
            .set_permissions(Permissions::from_mode(mode & 0o777))
            .map_err(|cause| self.failed("set the mode of", cause))
    }

    /// Gives it to another user and group, unless it is theirs already.
    ///
    /// # Errors
    /// [`FileError::Io`], for instance when the process may not do that.
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<(), FileError> {
        let about = self.file.metadata().map_err(|cause| self.failed("look at", cause))?;
        if (about.uid(), about.gid()) == (uid, gid) {
            return Ok(());
        }
        std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid))
            .map_err(|cause| self.failed("set the owner of", cause))
    }

    /// Makes the content durable and gives it its name.
    /// `mode` (the lower nine bits) replaces 0600.
    ///
    /// # Errors
    /// [`FileError::Exists`] when somebody else made the destination meanwhile;
    /// [`FileError::Io`]. Nothing is left of it in both cases.
    pub fn keep(self, mode: Option<u32>) -> Result<(), FileError> {
        if let Some(mode) = mode {
            self.set_mode(mode)?;
        }
        self.file.sync_all().map_err(|cause| self.failed("sync", cause))?;
        let destination = self.destination.clone();
        self.keep_synced()?;
        File::open(folder_of(&destination))
            .and_then(|folder| folder.sync_all())
            .map_err(|cause| failed("sync the folder of", &destination, cause))
    }

    /// Makes the content of many files durable by one call for each file system.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn sync_many<'a>(files: impl Iterator<Item = &'a Self>) -> Result<(), FileError> {
        let (mut synced, mut folder) = (Vec::new(), None);
        for pending in files {
            // One folder is one file system.
            let own = Some(folder_of(&pending.destination));
            if std::mem::replace(&mut folder, own) == own {
                continue;
            }
            let about = pending.file.metadata().map_err(|cause| pending.failed("sync", cause))?;
            if !synced.contains(&about.dev()) {
                syncfs(&pending.file).map_err(|cause| pending.failed("sync", cause.into()))?;
                synced.push(about.dev());
            }
        }
        Ok(())
    }

    /// Gives a file that is durable its name. The name itself is durable only after the folder
    /// or the file system was synced.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn keep_synced(mut self) -> Result<(), FileError> {
        let outcome = match (&self.temporary, self.replace) {
            (Some(temporary), Replace::Allow) => fs::rename(temporary, &self.destination),
            (Some(temporary), Replace::Refuse) => {
                rename_without_replacing(temporary, &self.destination)
            }
            (None, Replace::Refuse) => link(&self.file, &self.destination),
            (None, Replace::Allow) => self.link_over(),
        };
        if outcome.is_ok() {
            self.temporary = None;
        }
        outcome.map_err(|cause| {
            if cause.kind() == io::ErrorKind::AlreadyExists {
                FileError::Exists { path: self.destination.clone() }
            } else {
                self.failed("write", cause)
            }
        })
    }

    /// A name cannot be linked over another, but renamed over it.
    fn link_over(&mut self) -> io::Result<()> {
        let temporary = temporary_beside(&self.destination)?;
        link(&self.file, &temporary)?;
        // From here on there is something to remove.
        let temporary = self.temporary.insert(temporary);
        fs::rename(temporary, &self.destination)
    }

    fn failed(&self, doing: &'static str, cause: io::Error) -> FileError {
        failed(doing, &self.destination, cause)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody is left to tell; at worst a temporary file stays.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// `None` where the file system has no files without a name, or no way to name them later.
fn open_unnamed(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    // Looked for once: a process without it cannot name its files.
    static CAN_NAME: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").exists());
    let file = File::from(open(folder, flags, Mode::RUSR | Mode::WUSR).ok()?);
    CAN_NAME.then_some(file)
}

fn open_named(temporary: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(|cause| failed("create", temporary, cause))
}

fn link(file: &File, name: &Path) -> io::Result<()> {
    // The short way is for those who may; others go by the name that the process has for it.
    match linkat(file, "", CWD, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            let place = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(linkat(CWD, place, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
        }
        outcome => Ok(outcome?),
    }
}

/// File systems without the flag get a hard link, which refuses an existing name as well.
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        outcome => Ok(outcome?),
    }
}

fn temporary_beside(destination: &Path) -> io::Result<PathBuf> {
    let name = destination.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut random = [0; 8];
    SystemEntropy.fill(&mut random).map_err(io::Error::other)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}{TEMPORARY_SUFFIX}", u64::from_be_bytes(random)));
    Ok(folder_of(destination).join(temporary))
}

/// Whether a file name is one that [`PendingFile`] gives to files that are not whole yet.
#[must_use]
pub fn is_temporary_name(name: &OsStr) -> bool {
    let digits = name
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()))
        .and_then(|rest| rest.rsplit(|byte| *byte == b'.').next());
    digits.is_some_and(|digits| {
        digits.len() == TEMPORARY_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// A file that several threads read and write at places of their own.
#[derive(Debug)]
pub struct SharedFile(pub File);

impl ReadAt for SharedFile {
    fn read_at(&self, dest: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(dest, offset)
    }
}

impl WriteAt for SharedFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::{FileError, PendingFile, Replace, is_temporary_name, open_named, temporary_beside};

    /// What a file system without unnamed files gets.
    fn named(destination: &std::path::Path, replace: Replace) -> PendingFile {
        let temporary = temporary_beside(destination).unwrap();
        let file = open_named(&temporary).unwrap();
        let destination = destination.to_owned();
        PendingFile { file, temporary: Some(temporary), destination, replace }
    }

    fn names_in(folder: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn file_appears_whole_when_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let pending = PendingFile::create(&path, Replace::Refuse).unwrap();
        pending.handle().unwrap().write_all(b"content").unwrap();
        assert!(!path.exists());
        pending.keep(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_leaves_nothing_behind_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let pending = PendingFile::create(&folder.path().join("out"), Replace::Refuse).unwrap();
        pending.handle().unwrap().write_all(b"half").unwrap();
        drop(pending);
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn file_has_no_name_before_it_is_kept() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let pending = PendingFile::create(&folder.path().join("out"), Replace::Allow).unwrap();
        pending.file().write_all(b"half").unwrap();
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn file_with_a_temporary_name_behaves_like_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        drop(named(&path, Replace::Refuse));
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
        for (replace, kept) in
            [(Replace::Refuse, true), (Replace::Refuse, false), (Replace::Allow, true)]
        {
            let pending = named(&path, replace);
            pending.file().write_all(b"content").unwrap();
            assert_eq!(pending.keep(None).is_ok(), kept);
            assert_eq!(fs::read(&path).unwrap(), b"content");
            assert_eq!(names_in(folder.path()), ["out"]);
        }
    }

    #[test]
    fn temporary_names_are_told_from_others() {
        let made = temporary_beside(std::path::Path::new("a/some.file")).unwrap();
        assert!(is_temporary_name(made.file_name().unwrap()));
        for name in [
            "",
            ".lastkey-tmp",
            "some.file",
            ".x.0123456789abcde.lastkey-tmp",
            ".x.0123456789abcdeg.lastkey-tmp",
            "x.0123456789abcdef.lastkey-tmp",
            ".x.0123456789abcdef.tmp",
        ] {
            assert!(!is_temporary_name(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn files_that_were_synced_together_are_kept_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let pending: Vec<PendingFile> = (0..3)
            .map(|number| {
                let path = folder.path().join(number.to_string());
                let pending = PendingFile::create(&path, Replace::Refuse).unwrap();
                pending.file().write_all(b"content").unwrap();
                pending
            })
            .collect();
        PendingFile::sync_many(pending.iter()).unwrap();
        pending.into_iter().for_each(|pending| pending.keep_synced().unwrap());
        let mut names = names_in(folder.path());
        names.sort();
        assert_eq!(names, ["0", "1", "2"]);
    }

    #[test]
    fn file_takes_the_mode_it_is_given_when_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        PendingFile::create(&path, Replace::Refuse).unwrap().keep(Some(0o100_640)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn file_refuses_an_existing_destination() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, b"before").unwrap();
        let refused = PendingFile::create(&path, Replace::Refuse).unwrap_err();
        assert!(matches!(refused, FileError::Exists { .. }));
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_refuses_a_destination_that_appeared_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let pending = PendingFile::create(&path, Replace::Refuse).unwrap();
        fs::write(&path, b"theirs").unwrap();
        assert!(matches!(pending.keep(None), Err(FileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_replaces_an_existing_destination_when_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, b"before").unwrap();
        let pending = PendingFile::create(&path, Replace::Allow).unwrap();
        pending.handle().unwrap().write_all(b"after").unwrap();
        pending.keep(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(names_in(folder.path()), ["out"]);
    }
}
