//! What the driver needs of the world.
//!
//! Room      `volumes`. Calls block: each call of CSI has a thread of its own, and is not cut short
//!           when its caller hangs up.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lastkey_kernel::DeviceNumber;
use lastkey_kernel::loop_device::Orphan;
use lastkey_kernel::mapper::{CryptTable, Mapping};
use lastkey_kernel::mounts::{Fill, Mount};
use lastkey_luks::VolumeKey;
pub use lastkey_node::ports::{Context, KeyError};
use lastkey_secret::SecretVec;

use crate::record::Fs;

/// A key as the service describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// Whether it may protect and recover now.
    pub usable: bool,
    /// The version that protects new data; none while there is none.
    pub primary: Option<u32>,
    /// How many times new data keys were asked for, for all volumes under it.
    pub data_keys: u32,
}

/// A volume or snapshot as the service is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// Its id.
    pub name: String,
    /// The version of the key that it is under.
    pub version: u32,
    /// What a person wants to know of it, by name.
    pub about: BTreeMap<&'static str, String>,
}

/// What is asked of the key service.
pub trait VolumeKeys: Send + Sync {
    /// Looks a key up by id or alias; `None` when the service knows none of this name.
    ///
    /// # Errors
    /// [`KeyError`].
    fn describe(&self, key: &str) -> Result<Option<KeyInfo>, KeyError>;

    /// Makes the key of a lineage, or finds the one that an earlier call made under this alias.
    ///
    /// # Errors
    /// [`KeyError`].
    fn make_lineage(&self, alias: &str, volume: &str) -> Result<String, KeyError>;

    /// Schedules the destruction of a lineage's key. Doing it twice is no error.
    ///
    /// # Errors
    /// [`KeyError`].
    fn end_lineage(&self, key: &str) -> Result<(), KeyError>;

    /// Protects a secret.
    ///
    /// # Errors
    /// [`KeyError`].
    fn wrap(&self, key: &str, secret: &SecretVec, context: &Context) -> Result<Vec<u8>, KeyError>;

    /// Recovers a secret.
    ///
    /// # Errors
    /// [`KeyError`].
    fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError>;

    /// Opens a session in the name of a pod, by its token: the credential of it, for the next call.
    ///
    /// # Errors
    /// [`KeyError`].
    fn open_session(&self, token: &SecretVec, role: &str) -> Result<SecretVec, KeyError>;

    /// Recovers a secret in such a session.
    ///
    /// # Errors
    /// [`KeyError`].
    fn unwrap_in(
        &self,
        session: &SecretVec,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<SecretVec, KeyError>;

    /// The version of its key that a wrapped secret is under; none when it is none.
    fn version_of(&self, wrapped: &[u8]) -> Option<u32>;

    /// Says what a place holds under a key, in place of what it said before. From then on the key is
    /// not destroyed while something is under it.
    ///
    /// # Errors
    /// [`KeyError`].
    fn report(&self, key: &str, place: &str, things: &[Thing]) -> Result<(), KeyError>;

    /// Keeps the header of a volume, under the key of its class, in place of the one before.
    ///
    /// # Errors
    /// [`KeyError`].
    fn keep_header(&self, volume: &str, key: &str, header: &SecretVec) -> Result<(), KeyError>;

    /// Lets the header of a volume go, in the time of its lineage's key. None is no error.
    ///
    /// # Errors
    /// [`KeyError`].
    fn drop_header(&self, volume: &str) -> Result<(), KeyError>;
}

/// What is asked of the machine. All of it can be repeated.
pub trait Machine: Send + Sync {
    /// The block device of a file: the one it has, or a new one.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn attach(&self, file: &Path) -> io::Result<PathBuf>;

    /// Lets go of the block device of a file, if it has one.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn detach(&self, file: &Path) -> io::Result<()>;

    /// Takes the new length of a file over, if it has a device.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn grow(&self, file: &Path) -> io::Result<()>;

    /// All block devices of files that were deleted.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    fn orphans(&self) -> io::Result<Vec<Orphan>>;

    /// Lets go of one of them. Somebody who has it open keeps it.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn release(&self, device: &Path) -> io::Result<()>;

    /// The number of a block device.
    ///
    /// # Errors
    /// When it is none.
    fn number(&self, device: &Path) -> io::Result<DeviceNumber>;

    /// Whether a device has no parts that move.
    fn is_solid_state(&self, device: DeviceNumber) -> bool;

    /// The names of all mappings.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    fn mappings(&self) -> io::Result<Vec<String>>;

    /// The mapping of a name.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    fn mapping(&self, name: &str) -> io::Result<Option<Mapping>>;

    /// Opens a mapping.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn open(
        &self,
        name: &str,
        uuid: &str,
        table: &CryptTable,
        key: &VolumeKey,
    ) -> io::Result<Mapping>;

    /// Gives a mapping another table.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn reload(&self, name: &str, table: &CryptTable, key: &VolumeKey) -> io::Result<()>;

    /// Closes a mapping; later, when it is still in use and `deferred`.
    ///
    /// # Errors
    /// When it is in use.
    fn close(&self, name: &str, deferred: bool) -> io::Result<()>;

    /// Stops a mapping and wipes its key from the kernel.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn freeze(&self, name: &str) -> io::Result<()>;

    /// Gives a mapping its key back and lets it go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn thaw(&self, name: &str, key: &VolumeKey) -> io::Result<()>;

    /// Stops a mapping; what is on its way is written first. The key stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn pause(&self, name: &str) -> io::Result<()>;

    /// Lets a mapping go on that [`Machine::pause`] stopped.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn go_on(&self, name: &str) -> io::Result<()>;

    /// Makes a file system, durably. Destroys what is there.
    ///
    /// # Errors
    /// When it fails, with what the program said.
    fn make_fs(&self, fs: Fs, device: &Path) -> io::Result<()>;

    /// Lets a mounted file system fill its device.
    ///
    /// # Errors
    /// When it fails, with what the program said.
    fn grow_fs(&self, fs: Fs, device: &Path, at: &Path) -> io::Result<()>;

    /// Mounts a file system.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn mount(&self, device: &Path, at: &Path, fs: Fs, options: &[String]) -> io::Result<()>;

    /// Shows a path at another one.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()>;

    /// Takes all mounts at a path away.
    ///
    /// # Errors
    /// When one is in use.
    fn unmount(&self, at: &Path) -> io::Result<()>;

    /// All mounts.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    fn mounts(&self) -> io::Result<Vec<Mount>>;

    /// How full a file system is.
    ///
    /// # Errors
    /// When it does not tell.
    fn fill(&self, at: &Path) -> io::Result<Fill>;
}
