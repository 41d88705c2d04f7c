//! Zombies: mappings and loop devices of this driver that nothing remembers, found and closed.
//!
//! Room      `volumes`.
//! Holds     Only what is certainly ours is closed: by its name, by its UUID, and by what lies below
//!           it. What is mounted or open stays, and so does a device that is the last way to the data of a
//!           volume; both are told of. A volume with a record is no zombie: calls look after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use lastkey_kernel::loop_device::Orphan;
use lastkey_kernel::mapper::Mapping;

use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while};
use crate::inline;
use crate::node::{is_ours, shows};
use crate::record::VolumeRecord;
use crate::shelf::{DATA, Entry as _, HALF};

/// What is wrong with each of those that stay.
type Problems = BTreeMap<String, String>;

impl Driver {
    /// Looks once. What is being worked on waits for the next time.
    pub(crate) fn sweep_zombies(&self) {
        let orphans = self.machine.orphans().map_err(io_while("list the loop devices"));
        let swept = orphans.and_then(|orphans| {
            let mut problems = self.sweep_mappings(&orphans)?;
            problems.extend(self.sweep_loops(&orphans)?);
            Ok(problems)
        });
        match swept {
            Ok(problems) => {
                self.is_well(SWEEP);
                self.note_zombies(problems);
            }
            Err(fault) => self.complain(SWEEP, &fault),
        }
    }

    /// Under which names what this finds is complained of.
    pub(crate) fn zombie_names(&self) -> BTreeSet<String> {
        let known = self.zombies.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().cloned().chain([SWEEP.to_owned()]).collect()
    }

    /// Closes mappings that nobody uses.
    fn sweep_mappings(&self, orphans: &[Orphan]) -> Result<Problems, Fault> {
        let mut problems = Problems::new();
        for name in self.machine.mappings().map_err(io_while("list the mappings"))? {
            let Ok(_held) = self.locks.take_for_round(&name) else { continue };
            let Some(mapping) = self.zombie(&name, orphans)? else { continue };
            if mapping.opens > 0 || self.mounts()?.iter().any(|mount| shows(mount, &mapping)) {
                let message = "it is in use, and nothing is known of such a volume: unmount it, and \
                               it is closed";
                problems.insert(name, message.to_owned());
                continue;
            }
            self.machine.close(&name, false).map_err(io_while("close a mapping of nobody"))?;
            tracing::warn!(volume = name, "a mapping that nothing remembers was closed");
        }
        Ok(problems)
    }

    /// The mapping of a name when it is ours and there is no volume for it.
    fn zombie(&self, name: &str, orphans: &[Orphan]) -> Result<Option<Mapping>, Fault> {
        if self.is_remembered(name)? {
            return Ok(None);
        }
        let Some(mapping) = self.mapping(name)? else { return Ok(None) };
        let is_named = is_ours(&mapping, name) || mapping.uuid == inline::mapping_uuid(name);
        let Some(below) = mapping.below.filter(|_| is_named) else { return Ok(None) };
        let is_below = match orphans.iter().find(|orphan| orphan.number == below) {
            Some(orphan) => thing_of(&orphan.file) == Some(name),
            None => {
                let told = self.back_end.is_below(name, below);
                told.map_err(io_while(format!("look whose the mapping {name} is")))?
            }
        };
        Ok(is_below.then_some(mapping))
    }

    /// Whether there is a volume of this name, or the data of an inline volume.
    fn is_remembered(&self, name: &str) -> Result<bool, Fault> {
        if self.volumes.get(name).is_some() {
            return Ok(true);
        }
        match self.inline_data(name).symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_while("look for an inline volume")(error)),
        }
    }

    /// Lets go of devices whose files were deleted and that nobody can read any more.
    fn sweep_loops(&self, orphans: &[Orphan]) -> Result<Problems, Fault> {
        let mut problems = Problems::new();
        for Orphan { device, file, .. } in orphans {
            let Some(name) = thing_of(file) else { continue };
            let Ok(_held) = self.locks.take_for_round(name) else { continue };
            if self.mapping(name)?.is_some() {
                continue;
            }
            let device_name = device.display();
            if name.starts_with(inline::PREFIX) || name.starts_with(HALF) {
                let released = self.machine.release(device);
                released.map_err(io_while(format!("let go of {device_name}")))?;
                tracing::warn!(volume = name, "a loop device that nothing remembers was let go");
            } else {
                let message = format!(
                    "its file was deleted, and {device_name} is the last way to its data: copy it \
                     from there if it is needed, then `losetup -d {device_name}`"
                );
                problems.insert(name.to_owned(), message);
            }
        }
        Ok(problems)
    }

    /// Says what stays and why, and forgets what is gone.
    fn note_zombies(&self, problems: Problems) {
        let mut known = self.zombies.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .filter(|name| !problems.contains_key(*name))
            .for_each(|gone| self.is_well(gone));
        *known = problems.keys().cloned().collect::<BTreeSet<_>>();
        for (name, problem) in problems {
            self.complain(&name, &Fault::new(Kind::Precondition, format!("{name}: {problem}")));
        }
    }
}

const SWEEP: &str = "mappings and loop devices";

/// The volume whose data a file was, by the end of its path: what stands before is as another process
/// saw it.
fn thing_of(file: &Path) -> Option<&str> {
    let mut parts = file.iter().rev().map(|part| part.to_str());
    let (last, above) = (parts.next()??, parts.next()??);
    if above == inline::FOLDER && last.starts_with(inline::PREFIX) {
        return Some(last);
    }
    let is_data = last == DATA && parts.next()?? == VolumeRecord::FOLDER;
    let is_volume = above.starts_with("lkv-") || above.starts_with(HALF);
    (is_data && is_volume).then_some(above)
}
