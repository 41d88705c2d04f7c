//! A mounted volume gets other files at once, in the way in which the driver writes them itself.
//!
//! Room      `node`.
//! Source    Kubernetes, `pkg/volume/util/atomic_writer.go`: contents in a folder of their own,
//!           `..data` that points to it and is replaced by a rename, links to what is in there.
//! Holds     A reader sees all files of one time or all of another. What fails before the rename
//!           changes nothing. Nothing is written but below `pods/UID/volumes/kubernetes.io~csi` of
//!           the kubelet, for the pod that the volume was made for, and through no symbolic link.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, fchmod, mkdirat, openat, openat2,
    readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde_json::Value;

use super::render::Rendered;

/// Where the kubelet keeps the folders of pods.
pub(super) const PODS: &str = "pods";
/// Where the kubelet keeps volumes of this kind, below the folder of a pod.
const KIND: &str = "kubernetes.io~csi";
/// What it notes about a volume, beside the place where that is mounted.
const NOTES: &str = "vol_data.json";

/// Why a volume was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    /// The place is none of a volume of that pod.
    #[error("the place of the volume is none below the kubelet's folder, or of another pod")]
    Elsewhere,
    /// The driver has not written it yet.
    #[error("there is no mounted volume")]
    NotMounted,
    /// The operating system says no.
    #[error("a volume cannot be written")]
    Io(#[from] io::Error),
}

impl From<Errno> for VolumeError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Puts these files in the place of those that a volume has.
pub(super) fn replace(
    kubelet: &Path,
    (target, pod_uid): (&str, &str),
    files: &[Rendered],
) -> Result<(), VolumeError> {
    let place = place_of(kubelet, target, pod_uid).ok_or(VolumeError::Elsewhere)?;
    let volume = open(kubelet, &place)?;
    let Ok(before) = readlinkat(&volume, DATA, Vec::new()) else {
        return Err(VolumeError::NotMounted);
    };
    let before = PathBuf::from(before.to_string_lossy().into_owned());
    let fresh = fresh_name();
    if let Err(error) = fill(&volume, &fresh, files).and_then(|()| turn(&volume, &fresh)) {
        remove(&volume, Path::new(&fresh));
        return Err(error);
    }
    let names = files.iter().filter_map(|file| file.path.split('/').next());
    show(&volume, &names.collect())?;
    remove(&volume, &before);
    Ok(())
}

/// The places of all volumes that live and die with a pod, as those of secrets do. Whose they are
/// the kubelet does not note.
///
/// # Errors
/// When its folder cannot be read.
pub(super) fn ephemeral(kubelet: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pod in fs::read_dir(kubelet.join(PODS))? {
        let volumes = match fs::read_dir(pod?.path().join("volumes").join(KIND)) {
            // A pod without such volumes, or one that has just gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            volumes => volumes?,
        };
        for volume in volumes {
            let volume = volume?.path();
            if is_ephemeral(&volume)? {
                found.push(volume.join("mount"));
            }
        }
    }
    Ok(found)
}

fn is_ephemeral(volume: &Path) -> io::Result<bool> {
    let notes = match fs::read(volume.join(NOTES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        notes => notes?,
    };
    let notes: Value = serde_json::from_slice(&notes)?;
    Ok(notes.get("volumeLifecycleMode").and_then(Value::as_str) == Some("Ephemeral"))
}

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_push";

/// The folder of a volume, relative to that of the kubelet.
fn place_of(kubelet: &Path, target: &str, pod_uid: &str) -> Option<PathBuf> {
    let place = Path::new(target).strip_prefix(kubelet).ok()?;
    let names: Option<Vec<&str>> = place
        .components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
        .collect();
    match names?.as_slice() {
        [PODS, uid, "volumes", KIND, _, "mount"] if *uid == pod_uid => Some(place.to_owned()),
        _ => None,
    }
}

fn open(kubelet: &Path, place: &Path) -> Result<OwnedFd, VolumeError> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, kubelet, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(&root, place, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => Err(VolumeError::NotMounted),
        opened => Ok(opened?),
    }
}

/// A name that no folder of the volume has.
fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("..push_{}_{count}", std::process::id())
}

fn fill(volume: &OwnedFd, fresh: &str, files: &[Rendered]) -> Result<(), VolumeError> {
    make_folder(volume, Path::new(fresh))?;
    for file in files {
        let path = Path::new(fresh).join(&file.path);
        let above: Vec<_> = path.ancestors().skip(1).collect();
        for folder in above.into_iter().rev().filter(|folder| *folder != Path::new("")) {
            make_folder(volume, folder)?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let opened = openat(volume, &path, flags | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR)?;
        // The mode last, and whatever the umask is.
        let mut opened = File::from(opened);
        file.contents.expose(|bytes| opened.write_all(bytes))?;
        fchmod(&opened, Mode::from_bits_truncate(file.mode))?;
    }
    Ok(())
}

fn make_folder(volume: &OwnedFd, path: &Path) -> Result<(), VolumeError> {
    match mkdirat(volume, path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// From here on readers see the new files.
fn turn(volume: &OwnedFd, fresh: &str) -> Result<(), VolumeError> {
    // One that a killed process left.
    match unlinkat(volume, DATA_TMP, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    symlinkat(fresh, volume, DATA_TMP)?;
    Ok(renameat(volume, DATA_TMP, volume, DATA)?)
}

/// Links for the files that are there, none for those that are not any more.
fn show(volume: &OwnedFd, names: &BTreeSet<&str>) -> Result<(), VolumeError> {
    for name in names {
        match symlinkat(Path::new(DATA).join(name), volume, *name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    for name in links_in(volume)? {
        if !name.starts_with("..") && !names.contains(&*name) {
            unlinkat(volume, &*name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn links_in(volume: &OwnedFd) -> Result<Vec<String>, VolumeError> {
    let listed = openat(volume, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = Vec::with_capacity(4 << 10);
    let mut entries = RawDir::new(&listed, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let about = statat(volume, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Symlink {
            names.push(name);
        }
    }
    Ok(names)
}

/// A folder of contents that nobody is pointed to any more. What stays lies in memory until the
/// volume goes.
fn remove(volume: &OwnedFd, folder: &Path) {
    let mut names = folder.components();
    let (Some(Component::Normal(name)), None) = (names.next(), names.next()) else { return };
    let is_ours = name.as_encoded_bytes().starts_with(b"..") && name != DATA;
    if is_ours {
        // Below the volume that is open, whatever its path leads to by now.
        let volume = format!("/proc/self/fd/{}", volume.as_raw_fd());
        // It may be gone already: the driver tidies up as well.
        drop(fs::remove_dir_all(Path::new(&volume).join(name)));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use lastkey_secret::SecretVec;

    use super::*;

    struct Kubelet(tempfile::TempDir);

    impl Kubelet {
        /// With a volume as the driver leaves it.
        fn new() -> Self {
            let this = Self(tempfile::tempdir().unwrap());
            let volume = this.volume();
            fs::create_dir_all(volume.join("..2026_11_29.1/sub")).unwrap();
            fs::write(volume.join("..2026_11_29.1/a"), "old").unwrap();
            fs::write(volume.join("..2026_11_29.1/sub/b"), "old").unwrap();
            symlink("..2026_11_29.1", volume.join("..data")).unwrap();
            symlink("..data/a", volume.join("a")).unwrap();
            symlink("..data/sub", volume.join("sub")).unwrap();
            this
        }

        fn volume(&self) -> PathBuf {
            self.0.path().join("pods/u/volumes/kubernetes.io~csi/v/mount")
        }

        fn replace(&self, files: &[Rendered]) -> Result<(), VolumeError> {
            replace(self.0.path(), (self.volume().to_str().unwrap(), "u"), files)
        }
    }

    fn file(path: &str, text: &str) -> Rendered {
        Rendered {
            is_random: false,
            path: path.to_owned(),
            object: String::new(),
            mode: 0o440,
            contents: SecretVec::copy_of(text.as_bytes()),
            version: String::new(),
        }
    }

    #[test]
    fn files_change_all_at_once_and_what_is_gone_goes() {
        let kubelet = Kubelet::new();
        kubelet.replace(&[file("a", "new"), file("deep/er/c", "c")]).unwrap();
        let volume = kubelet.volume();
        assert_eq!(fs::read(volume.join("a")).unwrap(), b"new");
        assert_eq!(fs::read(volume.join("deep/er/c")).unwrap(), b"c");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o440);
        assert!(fs::symlink_metadata(volume.join("sub")).is_err());
        assert!(!volume.join("..2026_11_29.1").exists());
        kubelet.replace(&[file("a", "newer")]).unwrap();
        assert_eq!(fs::read(volume.join("a")).unwrap(), b"newer");
        let hidden = fs::read_dir(&volume).unwrap().count();
        assert_eq!(hidden, 3, "..data, the folder it points to, and a");
    }

    #[test]
    fn failure_before_the_rename_changes_nothing() {
        let kubelet = Kubelet::new();
        // The second file wants a folder where the first one is.
        kubelet.replace(&[file("a", "new"), file("a/b", "x")]).unwrap_err();
        assert_eq!(fs::read(kubelet.volume().join("a")).unwrap(), b"old");
        let left = fs::read_dir(kubelet.volume()).unwrap();
        let left = left.filter(|one| {
            one.as_ref().unwrap().file_name().to_string_lossy().starts_with("..push")
        });
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn nothing_is_written_elsewhere_for_another_pod_or_through_a_link() {
        let kubelet = Kubelet::new();
        let (root, volume) = (kubelet.0.path(), kubelet.volume());
        let target = volume.to_str().unwrap();
        let files = [file("a", "new")];
        let outside = format!("{}/pods/u/volumes/kubernetes.io~csi/../x/mount", root.display());
        for (target, uid) in [(target, "other"), ("/mnt/secrets-store", "u"), (&outside, "u")] {
            let refused = replace(root, (target, uid), &files);
            assert!(matches!(refused, Err(VolumeError::Elsewhere)), "{target}");
        }
        let away = tempfile::tempdir().unwrap();
        fs::rename(volume.parent().unwrap(), away.path().join("v")).unwrap();
        symlink(away.path().join("v"), volume.parent().unwrap()).unwrap();
        assert!(kubelet.replace(&files).is_err());
        assert_eq!(fs::read(away.path().join("v/mount/a")).unwrap(), b"old");
    }

    #[test]
    fn nothing_else_is_deleted_whatever_the_volume_points_to() {
        for before in ["..", "folder", "../kept"] {
            let kubelet = Kubelet::new();
            let volume = kubelet.volume();
            let kept = [volume.parent().unwrap().join("kept"), volume.join("folder")];
            kept.iter().for_each(|folder| fs::create_dir(folder).unwrap());
            fs::remove_file(volume.join("..data")).unwrap();
            symlink(before, volume.join("..data")).unwrap();
            kubelet.replace(&[file("a", "new")]).unwrap();
            assert!(kept.iter().all(|folder| folder.exists()), "{before}");
            assert_eq!(fs::read(volume.join("a")).unwrap(), b"new");
        }
    }

    #[test]
    fn volume_that_is_not_mounted_yet_is_left_to_the_driver() {
        let kubelet = Kubelet::new();
        fs::remove_file(kubelet.volume().join("..data")).unwrap();
        assert!(matches!(kubelet.replace(&[file("a", "x")]), Err(VolumeError::NotMounted)));
        fs::remove_dir_all(kubelet.volume()).unwrap();
        assert!(matches!(kubelet.replace(&[file("a", "x")]), Err(VolumeError::NotMounted)));
    }
}
