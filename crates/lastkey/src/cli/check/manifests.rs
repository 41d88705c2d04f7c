//! Manifests from files, folders and standard input.
//!
//! Room      `lastkey`.
//! Holds     No folder is entered twice (loops of links end), and memory is bounded by
//!           [`MAX_FILE_LEN`] and [`MAX_TOTAL_LEN`]: what is beyond is told, not passed over.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lastkey_checks::snapshot::{Snapshot, object::Place};

use super::super::{args::is_dash, failure::Failure};

/// Bytes of one file.
const MAX_FILE_LEN: u64 = 64 << 20;
/// Bytes of all files.
const MAX_TOTAL_LEN: u64 = 512 << 20;

/// Reads a file, all manifests below a folder, or standard input.
///
/// # Errors
/// [`Failure::Io`] when the path itself cannot be read; anything below it is told in the snapshot.
pub(super) fn read(path: &Path, snapshot: &mut Snapshot) -> Result<(), Failure> {
    snapshot.origin.manifests = true;
    if is_dash(path) {
        return read_stdin(snapshot);
    }
    let about = fs::metadata(path)
        .map_err(|cause| Failure::io(format!("read {}", path.display()), cause))?;
    let mut walk = Walk { snapshot, seen: HashSet::new(), total: 0, is_empty: true };
    if about.is_dir() {
        walk.folder(path)
    } else {
        walk.file(path)
    }
    if walk.is_empty {
        walk.refuse(path, "no Kubernetes object is in it".to_owned());
    }
    Ok(())
}

fn read_stdin(snapshot: &mut Snapshot) -> Result<(), Failure> {
    const NAME: &str = "standard input";
    let mut stdin = io::stdin().lock();
    let failed = |cause| Failure::io(format!("read {NAME}"), cause);
    let mut bytes = Vec::new();
    stdin.by_ref().take(MAX_FILE_LEN).read_to_end(&mut bytes).map_err(failed)?;
    if looks_like_objects(&bytes) {
        snapshot.add_file(NAME, &bytes);
    } else {
        let reason = "no Kubernetes object came in: did the program that writes them fail?";
        snapshot.refuse(Place::whole(&Arc::from(NAME)), reason.to_owned());
    }
    if stdin.read(&mut [0]).map_err(failed)? > 0 {
        let reason = format!("longer than {MAX_FILE_LEN} bytes; the rest was not read");
        snapshot.refuse(Place::whole(&Arc::from(NAME)), reason);
    }
    Ok(())
}

struct Walk<'a> {
    snapshot: &'a mut Snapshot,
    seen: HashSet<(u64, u64)>,
    total: u64,
    /// Nothing was read yet, and nothing refused.
    is_empty: bool,
}

impl Walk<'_> {
    fn refuse(&mut self, path: &Path, reason: String) {
        self.is_empty = false;
        let path: Arc<str> = Arc::from(path.display().to_string());
        self.snapshot.refuse(Place::whole(&path), reason);
    }

    fn folder(&mut self, root: &Path) {
        let mut waiting = vec![root.to_owned()];
        while let Some(folder) = waiting.pop() {
            match self.entries(&folder) {
                Ok(entries) => {
                    for path in entries {
                        match fs::metadata(&path) {
                            Ok(about) if about.is_dir() => waiting.push(path),
                            Ok(about) if about.is_file() && is_manifest(&path) => self.file(&path),
                            Ok(_) => {}
                            Err(cause) if is_manifest(&path) => {
                                self.refuse(&path, cause.to_string())
                            }
                            Err(_) => {}
                        }
                    }
                }
                Err(cause) => self.refuse(&folder, cause.to_string()),
            }
        }
    }

    /// The entries of a folder in order; none when it was entered before.
    fn entries(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let about = fs::metadata(folder)?;
        if !self.seen.insert((about.dev(), about.ino())) {
            return Ok(Vec::new());
        }
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        let is_chart = entries.iter().any(|path| path.ends_with("Chart.yaml"));
        if is_chart && entries.iter().any(|path| path.ends_with("templates")) {
            let reason = "a Helm chart: render it first (helm template NAME . | lastkey check --manifests -)";
            self.refuse(folder, reason.to_owned());
            entries.retain(|path| !path.ends_with("templates"));
        }
        entries.retain(|path| !path.ends_with(".git") && !path.ends_with("node_modules"));
        entries.sort_unstable_by(|a, b| b.cmp(a));
        Ok(entries)
    }

    fn file(&mut self, path: &Path) {
        match self.bytes(path) {
            Ok(bytes) if looks_like_objects(&bytes) => {
                self.is_empty = false;
                self.snapshot.add_file(&path.display().to_string(), &bytes);
            }
            Ok(_) => {}
            Err(cause) => self.refuse(path, cause.to_string()),
        }
    }

    fn bytes(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        let total = self.total.saturating_add(len);
        if len > MAX_FILE_LEN || total > MAX_TOTAL_LEN {
            let message = format!(
                "too large: {len} bytes; {MAX_FILE_LEN} in a file and {MAX_TOTAL_LEN} in all are read"
            );
            return Err(io::Error::other(message));
        }
        self.total = total;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn is_manifest(path: &Path) -> bool {
    let ends = ["yaml", "yml", "json", "kubeconfig", "conf"];
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.extension().is_some_and(|end| ends.iter().any(|known| end == *known))
        || name == "kubeconfig"
        || path.ends_with(".kube/config")
}

/// Kubernetes objects say their version; other YAML and JSON is left alone.
fn looks_like_objects(bytes: &[u8]) -> bool {
    bytes.windows(10).any(|window| window == b"apiVersion")
}
