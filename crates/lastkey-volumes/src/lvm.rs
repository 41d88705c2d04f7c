//! Logical volumes as back end: thick ones of a volume group, or thin ones of a pool in it.
//!
//! Room      `volumes`. lvm2 does it: its metadata is its own.
//! Holds     Nothing is removed but what bears our tag. A thin pool is not promised twice: each
//!           volume counts with all its bytes. udev is not waited for, which hangs in containers.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lastkey_luks::Medium as _;

use crate::back_end::{BackEnd, Fill};
use crate::disk::Disk;
use crate::program::{self, Ending, LONG, SHORT};

/// Over what the machine's configuration says. A volume that stands still, for a snapshot or because
/// its key is disabled, is not read: whoever reads it waits until it goes on.
const CONFIG: &str =
    "activation { udev_sync=0 udev_rules=0 monitoring=0 } devices { ignore_suspended_devices=1 }";
/// On every logical volume that is ours.
const TAG: &str = "lastkey";

/// A volume group, or a thin pool in it.
#[derive(Clone, Debug)]
pub struct Lvm {
    group: String,
    pool: Option<String>,
}

impl Lvm {
    /// `VG`, or `VG/POOL`; none for names that lvm2 would not take.
    pub fn parse(text: &str) -> Option<Self> {
        let (group, pool) = match text.split_once('/') {
            Some((group, pool)) => (group, Some(pool)),
            None => (text, None),
        };
        let is_name = |name: &str| {
            let begins =
                name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            begins
                && name.len() <= 63
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        };
        let is_good = is_name(group) && pool.is_none_or(is_name);
        is_good.then(|| Self { group: group.to_owned(), pool: pool.map(str::to_owned) })
    }

    /// Activates what is ours: after a restart, nobody else may.
    ///
    /// # Errors
    /// When the group or the pool is not there, or lvm2 is not installed.
    pub fn activate(&self) -> io::Result<()> {
        self.room()?;
        let ours = format!("tags=\"{TAG}\"");
        let mut change = lvm("lvchange");
        change.args(["--activate", "y", "--ignoreactivationskip", "--select", &ours]);
        // A pool is checked first, which takes as long as it is large.
        run(change.arg(&self.group), Duration::MAX).map(drop)
    }

    fn device(&self, id: &str) -> PathBuf {
        Path::new("/dev").join(&self.group).join(id)
    }

    fn name(&self, id: &str) -> String {
        format!("{}/{id}", self.group)
    }

    /// Numbers that a report of lvm2 has, in bytes.
    fn numbers(&self, command: &str, fields: &str, of: &[&str]) -> io::Result<Vec<u64>> {
        let mut report = lvm(command);
        report.args(["--noheadings", "--nosuffix", "--units", "b", "--options", fields]).args(of);
        let text = run(&mut report, SHORT)?;
        let numbers = text.split_whitespace().map(str::parse);
        numbers.collect::<Result<_, _>>().map_err(|_| {
            io::Error::other(format!(
                "lvm2 tells {:.100} where a length was asked for",
                text.trim()
            ))
        })
    }

    fn create(&self, id: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        let mut create = lvm("lvcreate");
        create.args(["--yes", "--addtag", TAG, "--name", id]);
        match (&self.pool, fill) {
            (None, Fill::Reference(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "logical volumes without a thin pool are copied byte by byte",
                ));
            }
            (Some(_), Fill::Copy(from) | Fill::Reference(from)) => {
                let from = fs::read_link(from)?;
                create.args(["--snapshot", "--setactivationskip", "n"]).arg(from);
            }
            (Some(pool), Fill::Nothing) => {
                create.args(["--thin", "--virtualsize", &bytes(len)]).arg(self.name(pool));
            }
            (None, Fill::Nothing | Fill::Copy(_)) => {
                create.args(["--zero", "n", "--wipesignatures", "n", "--size", &bytes(len)]);
                create.arg(&self.group);
            }
        }
        run(&mut create, limit(fill)).map_err(full)?;
        Ok(())
    }

    fn extend(&self, at: &Path, len: u64, limit: Duration) -> io::Result<()> {
        if Disk::open(at)?.len()? >= len {
            return Ok(());
        }
        let device = fs::read_link(at)?;
        let mut extend = lvm("lvextend");
        extend.args(["--size", &bytes(len)]).arg(device);
        run(&mut extend, limit).map_err(full).map(drop)
    }
}

impl BackEnd for Lvm {
    fn make(&self, at: &Path, id: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        let device = self.device(id);
        // Before it is there, so that it is found when this is cut short.
        symlink(&device, at)?;
        self.create(id, len, fill)?;
        match fill {
            Fill::Nothing => Disk::open(&device)?.blank()?,
            Fill::Copy(from) if self.pool.is_none() => {
                let mut to = File::options().write(true).open(&device)?;
                // A volume may be shorter than what it lies on.
                io::copy(&mut File::open(from)?.take(len), &mut to)?;
                to.sync_all()?;
            }
            Fill::Copy(_) | Fill::Reference(_) => {}
        }
        self.extend(at, len, limit(fill))
    }

    /// A name of a group is that of one logical volume for good.
    fn find(&self, _: &Path, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, at: &Path, len: u64) -> io::Result<()> {
        self.extend(at, len, LONG)
    }

    fn remove(&self, at: &Path, _: &str) -> io::Result<()> {
        let Some(id) = linked(at)? else { return Ok(()) };
        let ours = format!("lv_name={id} && tags=\"{TAG}\"");
        let mut find = lvm("lvs");
        find.args(["--noheadings", "--options", "lv_name", "--select", &ours, &self.group]);
        if !run(&mut find, SHORT)?.trim().is_empty() {
            run(lvm("lvremove").args(["--yes", "--force"]).arg(self.name(&id)), LONG)?;
        }
        fs::remove_file(at)
    }

    fn room(&self) -> io::Result<u64> {
        let Some(pool) = &self.pool else {
            let free = self.numbers("vgs", "vg_free", &[&self.group])?;
            return free.first().copied().ok_or_else(|| io::ErrorKind::NotFound.into());
        };
        let pool_len = self.numbers("lvs", "lv_size", &[&self.name(pool)])?;
        let pool_len = pool_len.first().copied().ok_or(io::ErrorKind::NotFound)?;
        let in_pool = format!("pool_lv={pool}");
        let promised = self.numbers("lvs", "lv_size", &["--select", &in_pool, &self.group])?;
        let promised = promised.into_iter().fold(0_u64, u64::saturating_add);
        Ok(pool_len.saturating_sub(promised))
    }
}

/// Runs one of lvm2, which is never killed: it lets volumes stand still while it changes them.
fn run(command: &mut Command, limit: Duration) -> io::Result<String> {
    program::run(command, limit, Ending::Told)
}

/// Pods wait while what they use is copied; a pool that is checked before its first use takes longer.
fn limit(fill: Fill<'_>) -> Duration {
    match fill {
        Fill::Reference(_) => SHORT,
        Fill::Nothing | Fill::Copy(_) => LONG,
    }
}

/// What the link at a path names, if there is one.
fn linked(at: &Path) -> io::Result<Option<String>> {
    match fs::read_link(at) {
        Ok(device) => Ok(device.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn lvm(command: &str) -> Command {
    let mut lvm = Command::new("lvm");
    lvm.arg(command).env("DM_DISABLE_UDEV", "1").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    lvm.args(["--config", CONFIG]);
    lvm
}

fn bytes(len: u64) -> String {
    format!("{len}b")
}

/// lvm2 has no code of its own for a group that is full.
fn full(error: io::Error) -> io::Error {
    let said = error.to_string();
    if said.contains("nsufficient free space") || said.contains("nsufficient suitable") {
        return io::Error::new(io::ErrorKind::StorageFull, said);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::Lvm;

    #[test]
    fn groups_and_pools_have_names_of_lvm2() {
        let thick = Lvm::parse("vg0").unwrap();
        assert_eq!((thick.group.as_str(), thick.pool), ("vg0", None));
        let thin = Lvm::parse("vg-0/thin_pool").unwrap();
        assert_eq!(thin.pool.as_deref(), Some("thin_pool"));
        for bad in
            ["", "/", "vg/", "/pool", "-vg", "vg/a/b", "vg 0", "vg;x", "../x", &"v".repeat(64)]
        {
            assert!(Lvm::parse(bad).is_none(), "{bad}");
        }
    }
}
