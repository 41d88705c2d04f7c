//! Secrets as variables of an environment, or as files in memory.
//!
//! Room      `lastkey`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Component, Path, PathBuf},
    process::Command,
};

use lastkey_secret::SecretVec;
use lastkey_wire::SecretBase64;

use super::{ExecArgs, Fetched, steering::steers};
use crate::cli::failure::Failure;

/// The variable that tells a program where its files are.
const FOLDER_VARIABLE: &str = "LASTKEY_SECRETS_DIR";

/// What a program gets.
pub(super) enum Delivery {
    Variables(BTreeMap<String, OsString>),
    Files(Folder),
}

/// A folder of our own, which goes when this is dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// The files that it holds now.
    files: BTreeSet<PathBuf>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in memory and readable by this user alone.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Delivery {
    pub(super) fn prepare(args: &ExecArgs, fetched: &Fetched) -> Result<Self, Failure> {
        let Some(path) = &args.files else {
            return variables(args, fetched).map(Self::Variables);
        };
        let doing = || format!("make the folder {}", path.display());
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                let problem = "is there already; name a new folder, or remove it when no program \
                               uses it: one whose lastkey was killed leaves it behind";
                return Err(Failure::Usage(format!("{} {problem}", path.display())));
            }
            Err(cause) => return Err(Failure::io(doing(), cause)),
        }
        let mut folder = Folder { path: path.clone(), files: BTreeSet::new() };
        let about = rustix::fs::statfs(path).map_err(|cause| Failure::io(doing(), cause.into()))?;
        if about.f_type != TMPFS_MAGIC {
            let problem = "is not in memory (tmpfs), and a secret would reach a disk; name a new \
                           folder such as /dev/shm/app";
            return Err(Failure::Usage(format!("{} {problem}", path.display())));
        }
        folder.write(&files(fetched)?)?;
        Ok(Self::Files(folder))
    }

    /// Delivers other values from now on. When that fails, what was delivered stays.
    pub(super) fn renew(&mut self, args: &ExecArgs, fetched: &Fetched) -> Result<(), Failure> {
        match self {
            Self::Variables(all) => *all = variables(args, fetched)?,
            Self::Files(folder) => folder.write(&files(fetched)?)?,
        }
        Ok(())
    }

    /// Tells a program what it gets.
    pub(super) fn apply(&self, command: &mut Command) {
        match self {
            Self::Variables(all) => command.envs(all),
            Self::Files(folder) => command.env(FOLDER_VARIABLE, &folder.path),
        };
    }
}

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// `MAX_ARG_STRLEN` of linux/binfmts.h: longest `NAME=VALUE` with the zero byte after it.
const MAX_VARIABLE_LEN: usize = 131_072;

/// Whether this may be the name of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit())
}

fn variables(args: &ExecArgs, fetched: &Fetched) -> Result<BTreeMap<String, OsString>, Failure> {
    let mut all = BTreeMap::new();
    for (wanted, reply) in &fetched.0 {
        let last = wanted.name.rsplit('/').next().unwrap_or_default();
        let own = wanted.variable.clone().unwrap_or_else(|| shouted(last));
        let values = reply.value.iter().map(|value| (own.clone(), value, true));
        let fields = reply.fields.iter().flatten();
        let fields = fields.map(|(name, value)| (shouted(name), value, false));
        for (name, SecretBase64(value), is_ours) in values.chain(fields) {
            let name = format!("{}{name}", args.prefix);
            let problem = if !is_variable(&name) {
                "is no name of a variable; use --files, or VARIABLE=NAME"
            } else if !is_ours && steers(&name) {
                "steers programs, and a field may not choose that; use --prefix or --files"
            } else if value.expose(|bytes| bytes.contains(&0)) {
                "has a zero byte, which no variable can hold; use --files"
            } else if name.len().saturating_add(value.len()).saturating_add(2) > MAX_VARIABLE_LEN {
                "is longer than a variable can be; use --files"
            } else if all.insert(name.clone(), text_of(value)).is_some() {
                "is given twice; use --prefix, or VARIABLE=NAME"
            } else {
                continue;
            };
            return Err(Failure::Usage(format!("{}: {name} {problem}", wanted.name)));
        }
    }
    Ok(all)
}

fn text_of(value: &SecretVec) -> OsString {
    OsString::from_vec(value.expose(<[u8]>::to_vec))
}

/// `db.password` as `DB_PASSWORD`.
fn shouted(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect()
}

/// A file for each value: `NAME`, or `NAME/FIELD`.
fn files(fetched: &Fetched) -> Result<BTreeMap<PathBuf, &SecretVec>, Failure> {
    let mut all = BTreeMap::new();
    for (wanted, reply) in &fetched.0 {
        let values = reply.value.iter().map(|value| (wanted.name.clone(), value));
        let fields = reply.fields.iter().flatten();
        let fields = fields.map(|(field, value)| (format!("{}/{field}", wanted.name), value));
        for (path, SecretBase64(value)) in values.chain(fields) {
            // The server's names stay in their path; those of fields may be anything.
            let is_plain = |part| matches!(part, Component::Normal(_));
            if !Path::new(&path).components().all(is_plain) {
                return Err(Failure::Input(format!("{path:?} cannot be the name of a file")));
            }
            if all.insert(PathBuf::from(&path), value).is_some() {
                return Err(Failure::Usage(format!("the file {path} is given twice")));
            }
        }
    }
    let is_there = |path: &&Path| all.contains_key(*path);
    match all.keys().find_map(|path| path.ancestors().skip(1).find(is_there)) {
        Some(path) => {
            let problem = "would be a file and a folder";
            Err(Failure::Usage(format!("{} {problem}", path.display())))
        }
        None => Ok(all),
    }
}

/// Where files lie until all of them are written. No secret has this sign in its name.
const UNFINISHED: &str = ".new~";

impl Folder {
    /// Lets the folder hold these files and no others. Each is whole at any time: whoever reads
    /// meanwhile sees the old value or the new one. Nothing is replaced before all are written.
    fn write(&mut self, all: &BTreeMap<PathBuf, &SecretVec>) -> Result<(), Failure> {
        let unfinished = self.path.join(UNFINISHED);
        let outcome = self.replace(all, &unfinished);
        // What cannot be removed is in memory and readable by this user alone.
        let _ = fs::remove_dir_all(&unfinished);
        outcome
    }

    fn replace(
        &mut self,
        all: &BTreeMap<PathBuf, &SecretVec>,
        unfinished: &Path,
    ) -> Result<(), Failure> {
        let doing = |path: &Path| format!("write {}", path.display());
        let failed = |cause| Failure::io(doing(unfinished), cause);
        match fs::remove_dir_all(unfinished) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed(cause)),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(unfinished).map_err(failed)?;
        let mut ready = Vec::with_capacity(all.len());
        for (number, (name, value)) in all.iter().enumerate() {
            let (fresh, path) = (unfinished.join(number.to_string()), self.path.join(name));
            write_file(&fresh, &path, value).map_err(|cause| Failure::io(doing(&path), cause))?;
            ready.push((fresh, path));
        }
        for (fresh, path) in ready {
            fs::rename(fresh, &path).map_err(|cause| Failure::io(doing(&path), cause))?;
        }
        for gone in self.files.iter().filter(|name| !all.contains_key(*name)) {
            let path = self.path.join(gone);
            let doing = format!("remove {}", path.display());
            fs::remove_file(path).map_err(|cause| Failure::io(doing, cause))?;
        }
        self.files = all.keys().cloned().collect();
        Ok(())
    }
}

/// Writes a file that is not there, and makes the folder of the place that it is for.
fn write_file(fresh: &Path, path: &Path, value: &SecretVec) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(fresh)?;
    value.expose(|bytes| file.write_all(bytes))
}

#[cfg(test)]
mod tests {
    use lastkey_wire::native::secrets::SecretValueReply;

    use super::*;
    use crate::cli::exec::Wanted;

    fn held(folder: &Path) -> Vec<(String, String)> {
        let mut held = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            let text = fs::read_to_string(path).unwrap_or_else(|_| "a folder".to_owned());
            held.push((name.into_string().unwrap(), text));
        }
        held.sort();
        held
    }

    fn written(folder: &mut Folder, all: &[(&str, &str)]) -> bool {
        let values: Vec<_> = all
            .iter()
            .map(|(name, value)| (PathBuf::from(name), SecretVec::copy_of(value.as_bytes())))
            .collect();
        let all = values.iter().map(|(name, value)| (name.clone(), value)).collect();
        folder.write(&all).is_ok()
    }

    fn told(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_folder_holds_the_files_of_the_last_version_and_all_of_them_or_none() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_owned();
        let mut folder = Folder { path: path.clone(), files: BTreeSet::new() };
        // What somebody else left there is neither followed nor kept.
        fs::create_dir(path.join(UNFINISHED)).unwrap();
        std::os::unix::fs::symlink("/dev/null", path.join(UNFINISHED).join("0")).unwrap();
        assert!(written(&mut folder, &[("a", "1"), ("b", "1")]));
        assert_eq!(held(&path), told(&[("a", "1"), ("b", "1")]));
        assert!(written(&mut folder, &[("b", "2")]));
        assert_eq!(held(&path), told(&[("b", "2")]));
        // `b` cannot become a folder.
        assert!(!written(&mut folder, &[("a", "3"), ("b/c", "3")]));
        assert_eq!(held(&path), told(&[("b", "2")]));
        assert!(written(&mut folder, &[("b", "4")]));
        assert_eq!(held(&path), told(&[("b", "4")]));
    }

    fn fetched(name: &str, fields: &[&str]) -> (Wanted, SecretValueReply) {
        let fields: BTreeMap<_, _> = fields.iter().map(|field| (*field, "eA==")).collect();
        let reply = serde_json::json!({
            "name": name, "version": 1, "stages": [], "fields": fields,
            "created_at": "2026-01-01T00:00:00Z",
        });
        let wanted = Wanted { variable: None, name: name.to_owned() };
        (wanted, serde_json::from_value(reply).unwrap())
    }

    #[test]
    fn a_path_is_given_to_one_value() {
        let one = Fetched(vec![fetched("prod", &["shop/db"]), fetched("prod/shop", &["api"])]);
        assert!(files(&one).is_ok());
        for (name, field) in [("prod/shop", "db"), ("prod/shop/db", "x")] {
            let two = Fetched(vec![fetched("prod", &["shop/db"]), fetched(name, &[field])]);
            assert!(files(&two).is_err(), "{name}");
        }
    }

    #[test]
    fn names_become_variables() {
        assert_eq!(
            (shouted("db.pass-word"), shouted("tls.crt")),
            ("DB_PASS_WORD".into(), "TLS_CRT".into())
        );
        assert!(is_variable("A_1") && is_variable("_x"));
        assert!(!is_variable("1A") && !is_variable("") && !is_variable("A-B"));
    }
}
