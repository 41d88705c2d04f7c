//! Secrets as variables of an environment, or as files in memory.
//!
//! Room      `lastkey`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
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
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in memory and readable by this user alone.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Delivery {
    pub(super) fn prepare(args: &ExecArgs, fetched: &Fetched) -> Result<Self, Failure> {
        let Some(path) = &args.files else {
            return variables(args, fetched).map(Self::Variables);
        };
        let doing = || format!("make the folder {}", path.display());
        DirBuilder::new().mode(0o700).create(path).map_err(|cause| Failure::io(doing(), cause))?;
        let folder = Folder(path.clone());
        let about = rustix::fs::statfs(path).map_err(|cause| Failure::io(doing(), cause.into()))?;
        if about.f_type != TMPFS_MAGIC {
            let problem = "is not in memory (tmpfs), and a secret would reach a disk; name a new \
                           folder such as /dev/shm/app";
            return Err(Failure::Usage(format!("{} {problem}", path.display())));
        }
        let delivery = Self::Files(folder);
        delivery.write(fetched)?;
        Ok(delivery)
    }

    /// Writes the files anew. Nothing to do for variables.
    pub(super) fn write(&self, fetched: &Fetched) -> Result<(), Failure> {
        let Self::Files(Folder(folder)) = self else { return Ok(()) };
        for (path, value) in files(fetched) {
            write_file(folder, Path::new(&path), value)?;
        }
        Ok(())
    }

    /// Tells a program what it gets.
    pub(super) fn apply(&self, command: &mut Command) {
        match self {
            Self::Variables(all) => command.envs(all),
            Self::Files(Folder(folder)) => command.env(FOLDER_VARIABLE, folder),
        };
    }
}

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

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
fn files(fetched: &Fetched) -> impl Iterator<Item = (String, &SecretVec)> {
    fetched.0.iter().flat_map(|(wanted, reply)| {
        let name = &wanted.name;
        let values = reply.value.iter().map(move |value| (name.clone(), &value.0));
        let fields = reply.fields.iter().flatten();
        values.chain(fields.map(move |(field, value)| (format!("{name}/{field}"), &value.0)))
    })
}

fn write_file(folder: &Path, name: &Path, value: &SecretVec) -> Result<(), Failure> {
    // The server's names stay in their path; those of fields may be anything.
    let is_plain = |part| matches!(part, Component::Normal(_));
    if !name.components().all(is_plain) {
        let problem = format!("{:?} cannot be the name of a file", name.display().to_string());
        return Err(Failure::Input(problem));
    }
    let path = folder.join(name);
    let doing = || format!("write {}", path.display());
    let failed = |cause| Failure::io(doing(), cause);
    let parent = path.parent().unwrap_or(folder);
    DirBuilder::new().mode(0o700).recursive(true).create(parent).map_err(failed)?;
    // Whole or not at all: whoever reads meanwhile sees the old value or the new one.
    let mut fresh = path.clone().into_os_string();
    fresh.push(".new~");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o400)
        .open(&fresh)
        .map_err(failed)?;
    value.expose(|bytes| file.write_all(bytes)).map_err(failed)?;
    fs::rename(&fresh, &path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::{is_variable, shouted};

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
