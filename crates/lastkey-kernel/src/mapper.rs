//! The device mapper: a crypt target over a device, its key from the keyring.
//!
//! Room      `kernel`.
//! Source    linux/dm-ioctl.h; Documentation/admin-guide/device-mapper/dm-crypt.rst.
//! Holds     The key is in no table and no message, which name a key of the keyring. What stands
//!           under a name is told by UUID and device, so that nobody reuses a stranger's.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use crate::DeviceNumber;
use crate::block::{block_devices, told};
use crate::keyring::LogonKey;
use crate::sys::{DM_HEAD_LEN, device_mapper};

const CONTROL: &str = "/dev/mapper/control";
/// Names and UUIDs have one byte less, for the zero.
const NAME_LEN: usize = 128;
const UUID_LEN: usize = 129;
const TARGET_LEN: usize = 40;
/// Room for what the kernel answers: one target of a few hundred bytes.
const ANSWER_LEN: usize = 4_096;
const SECTOR_LEN: u64 = 512;

const FLAG_SUSPEND: u32 = 1 << 1;
const FLAG_STATUS_TABLE: u32 = 1 << 4;
const FLAG_ACTIVE_PRESENT: u32 = 1 << 5;
/// Buffers of this command are wiped in the kernel.
const FLAG_SECURE_DATA: u32 = 1 << 15;
/// Removed when the last one closes it.
const FLAG_DEFERRED_REMOVE: u32 = 1 << 17;

const ENXIO: i32 = 6;

/// Commands, by their numbers.
#[derive(Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    Suspend = 6,
    Status = 7,
    Load = 9,
    Clear = 10,
    Table = 12,
    Message = 14,
}

/// What a mapping encrypts, and how.
#[derive(Clone, Debug)]
pub struct CryptTable {
    /// Cipher and mode, `aes-xts-plain64`.
    pub encryption: String,
    /// The device below.
    pub device: DeviceNumber,
    /// Where the data begins there, in bytes.
    pub offset: u64,
    /// Length of the data, in bytes.
    pub len: u64,
    /// In bytes, 512 to 4,096.
    pub sector_size: u32,
    /// Added to the number of each sector.
    pub iv_tweak: u64,
    /// Tells the device below which blocks are free.
    pub discards: bool,
    /// Encrypts where the request is made instead of in a queue: faster on solid-state disks.
    pub no_workqueues: bool,
}

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// As it was given when the mapping was made.
    pub uuid: String,
    /// Its own number.
    pub number: DeviceNumber,
    /// Whether nothing passes: data waits.
    pub suspended: bool,
    /// The device below; none when there is no crypt target over exactly one.
    pub below: Option<DeviceNumber>,
    /// Length, in bytes.
    pub len: u64,
    /// How many have it open.
    pub opens: u32,
}

impl Mapping {
    /// The device.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.number.minor))
    }
}

/// Opens a mapping.
///
/// # Errors
/// When there is one of this name, or the kernel refuses.
pub fn open(name: &str, uuid: &str, table: &CryptTable, key: &[u8]) -> io::Result<Mapping> {
    let uuid = field::<UUID_LEN>(uuid)?;
    call(Command::Create, &Call { name, uuid: Some(&uuid), ..Call::default() })?;
    let loaded = load(name, table, key).and_then(|()| resume(name));
    if let Err(error) = loaded {
        drop(close(name, false));
        return Err(error);
    }
    status(name)?.ok_or_else(|| io::Error::other("the mapping is gone again"))
}

/// Gives an open mapping another table; what is written meanwhile waits.
///
/// # Errors
/// When the kernel refuses; the old table stays.
pub fn reload(name: &str, table: &CryptTable, key: &[u8]) -> io::Result<()> {
    load(name, table, key)?;
    let changed = suspend(name).and_then(|()| resume(name));
    if changed.is_err() {
        // The key is in this table too; and nobody is to wait for what did not come.
        drop(clear(name));
        drop(resume(name));
    }
    changed
}

/// The names of all mappings, whoever made them.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn names() -> io::Result<Vec<String>> {
    let devices = block_devices("dm-")?.into_iter();
    Ok(devices.filter_map(|device| told(&device, "dm/name")).collect())
}

/// What stands under a name.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn status(name: &str) -> io::Result<Option<Mapping>> {
    let answer = match call(Command::Status, &Call { name, ..Call::default() }) {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(ENXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (below, len) = if answer.flags() & FLAG_ACTIVE_PRESENT == 0 {
        (None, 0)
    } else {
        let flags = FLAG_STATUS_TABLE;
        call(Command::Table, &Call { name, flags, ..Call::default() })?.target()
    };
    Ok(Some(Mapping {
        uuid: answer.uuid(),
        number: answer.number(),
        suspended: answer.flags() & FLAG_SUSPEND != 0,
        below,
        len,
        opens: answer.word(24).unwrap_or(0),
    }))
}

/// Closes a mapping; with `deferred`, when the last one who has it open closes it.
///
/// # Errors
/// When it is in use, or the kernel refuses. One that is not there is no error.
pub fn close(name: &str, deferred: bool) -> io::Result<()> {
    let flags = if deferred { FLAG_DEFERRED_REMOVE } else { 0 };
    match call(Command::Remove, &Call { name, flags, ..Call::default() }) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets nothing pass any more. What is on its way is written first, and a file system is brought
/// into order.
///
/// # Errors
/// When the kernel refuses.
pub fn suspend(name: &str) -> io::Result<()> {
    let flags = FLAG_SUSPEND;
    call(Command::Suspend, &Call { name, flags, ..Call::default() }).map(drop)
}

/// Lets everything pass again.
///
/// # Errors
/// When the kernel refuses.
pub fn resume(name: &str) -> io::Result<()> {
    call(Command::Suspend, &Call { name, ..Call::default() }).map(drop)
}

/// Lets nothing pass any more and wipes the key from the kernel. What is on its way is written
/// first; a file system on it waits, with all who use it. Of one that is stopped already, whoever
/// did that, the key is wiped as well: stopped does not mean without a key.
///
/// # Errors
/// When the kernel refuses.
pub fn freeze(name: &str) -> io::Result<()> {
    // A table that was loaded and is not in use has the key too.
    clear(name)?;
    if status(name)?.is_some_and(|found| !found.suspended) {
        suspend(name)?;
    }
    message(name, "key wipe")
}

/// Takes away a table that was loaded and is not in use; none is no error.
fn clear(name: &str) -> io::Result<()> {
    call(Command::Clear, &Call { name, ..Call::default() }).map(drop)
}

/// Gives the key back, and lets everything pass.
///
/// # Errors
/// When the kernel refuses.
pub fn thaw(name: &str, key: &[u8]) -> io::Result<()> {
    let held = LogonKey::add(name, key)?;
    message(name, &format!("key set {}", held.reference(key.len())))?;
    resume(name)
}

fn load(name: &str, table: &CryptTable, key: &[u8]) -> io::Result<()> {
    let held = LogonKey::add(name, key)?;
    let payload = table.target(&held.reference(key.len()))?;
    let flags = FLAG_SECURE_DATA;
    call(Command::Load, &Call { name, flags, targets: 1, payload: &payload, ..Call::default() })?;
    Ok(())
}

/// `struct dm_target_msg`: a sector, which says which target, and a text.
fn message(name: &str, text: &str) -> io::Result<()> {
    let mut payload = 0_u64.to_ne_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    payload.push(0);
    let flags = FLAG_SECURE_DATA;
    call(Command::Message, &Call { name, flags, payload: &payload, ..Call::default() }).map(drop)
}

impl CryptTable {
    /// `struct dm_target_spec` and the parameters behind it.
    fn target(&self, key: &str) -> io::Result<Vec<u8>> {
        let parameters = self.parameters(key)?;
        let padded = (parameters.len() + 1).next_multiple_of(8);
        let next = u32::try_from(TARGET_LEN + padded).map_err(io::Error::other)?;
        let mut target = Vec::with_capacity(TARGET_LEN + padded);
        target.extend_from_slice(&0_u64.to_ne_bytes());
        target.extend_from_slice(&(self.len / SECTOR_LEN).to_ne_bytes());
        target.extend_from_slice(&0_i32.to_ne_bytes());
        target.extend_from_slice(&next.to_ne_bytes());
        target.extend_from_slice(b"crypt\0\0\0\0\0\0\0\0\0\0\0");
        target.extend_from_slice(parameters.as_bytes());
        target.resize(TARGET_LEN + padded, 0);
        Ok(target)
    }

    /// Fields are told apart by blanks, and the text ends with a zero: nothing may bring its own.
    fn parameters(&self, key: &str) -> io::Result<String> {
        [self.encryption.as_str(), key].into_iter().try_for_each(one_word)?;
        let options = [
            self.discards.then(|| "allow_discards".to_owned()),
            self.no_workqueues.then(|| "no_read_workqueue".to_owned()),
            self.no_workqueues.then(|| "no_write_workqueue".to_owned()),
            (self.sector_size != 512).then(|| format!("sector_size:{}", self.sector_size)),
        ];
        let options: Vec<String> = options.into_iter().flatten().collect();
        let Self { encryption, device, iv_tweak, .. } = self;
        let begin = self.offset / SECTOR_LEN;
        let mut text = format!("{encryption} {key} {iv_tweak} {device} {begin}");
        if !options.is_empty() {
            text.push_str(&format!(" {} {}", options.len(), options.join(" ")));
        }
        Ok(text)
    }
}

/// A command and its arguments.
#[derive(Default)]
struct Call<'a> {
    name: &'a str,
    uuid: Option<&'a [u8; UUID_LEN]>,
    flags: u32,
    targets: u32,
    payload: &'a [u8],
}

impl Call<'_> {
    /// `struct dm_ioctl`, and what follows it.
    fn encode(&self) -> io::Result<Vec<u8>> {
        let len = DM_HEAD_LEN + self.payload.len().max(ANSWER_LEN);
        let mut buffer = Vec::with_capacity(len);
        let total = u32::try_from(len).map_err(io::Error::other)?;
        let words = [4, 0, 0, total, 312, self.targets, 0, self.flags, 0, 0];
        words.iter().for_each(|word: &u32| buffer.extend_from_slice(&word.to_ne_bytes()));
        buffer.extend_from_slice(&0_u64.to_ne_bytes());
        buffer.extend_from_slice(&field::<NAME_LEN>(self.name)?);
        buffer.extend_from_slice(self.uuid.unwrap_or(&[0; UUID_LEN]));
        buffer.resize(DM_HEAD_LEN, 0);
        buffer.extend_from_slice(self.payload);
        buffer.resize(len, 0);
        Ok(buffer)
    }
}

fn call(command: Command, call: &Call<'_>) -> io::Result<Answer> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let mut buffer = call.encode()?;
    device_mapper(&control, command as u8, &mut buffer)?;
    Ok(Answer(buffer))
}

fn one_word(text: &str) -> io::Result<()> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a name with blanks or signs that are no text"))
}

fn field<const N: usize>(text: &str) -> io::Result<[u8; N]> {
    one_word(text)?;
    let mut field = [0; N];
    match field.get_mut(..text.len()) {
        Some(place) if text.len() < N => place.copy_from_slice(text.as_bytes()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name that is too long")),
    }
    Ok(field)
}

/// What the kernel wrote into the buffer.
struct Answer(Vec<u8>);

impl Answer {
    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*bytes))
    }

    fn long(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_ne_bytes(*bytes))
    }

    fn flags(&self) -> u32 {
        self.word(28).unwrap_or(0)
    }

    /// `dev_t` as the kernel gives it to programs: minor in bits 0 to 7 and 20 on, major between.
    fn number(&self) -> DeviceNumber {
        let number = self.long(40).unwrap_or(0);
        let part = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
        DeviceNumber { major: part((number >> 8) & 0xfff), minor: part(minor) }
    }

    fn uuid(&self) -> String {
        self.text(176, UUID_LEN)
    }

    fn text(&self, at: usize, len: usize) -> String {
        let field = self.0.get(at..).unwrap_or_default();
        let field = field.get(..len.min(field.len())).unwrap_or_default();
        let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// The device below a single crypt target, and its length in bytes.
    fn target(&self) -> (Option<DeviceNumber>, u64) {
        let Some(at) = self.word(16).and_then(|at| usize::try_from(at).ok()) else {
            return (None, 0);
        };
        let sectors = self.long(at.saturating_add(8)).unwrap_or(0);
        let len = sectors.saturating_mul(SECTOR_LEN);
        let kind = self.text(at.saturating_add(24), 16);
        if self.word(20) != Some(1) || kind != "crypt" {
            return (None, len);
        }
        let parameters = self.text(at.saturating_add(TARGET_LEN), ANSWER_LEN);
        (below(&parameters), len)
    }
}

/// The device among the parameters of a crypt target: `CIPHER KEY TWEAK MAJOR:MINOR BEGIN`.
fn below(parameters: &str) -> Option<DeviceNumber> {
    let (major, minor) = parameters.split(' ').nth(3)?.split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_LEN, Answer, Call, CryptTable, below};
    use crate::DeviceNumber;

    fn table() -> CryptTable {
        CryptTable {
            encryption: "aes-xts-plain64".to_owned(),
            device: DeviceNumber { major: 7, minor: 3 },
            offset: 16 << 20,
            len: 4 << 20,
            sector_size: 4_096,
            iv_tweak: 0,
            discards: true,
            no_workqueues: true,
        }
    }

    #[test]
    fn table_is_what_dm_crypt_reads_and_holds_no_key() {
        let target = table().target(":64:logon:lastkey:v").unwrap();
        assert_eq!(target[8..16], 8_192_u64.to_ne_bytes());
        assert_eq!(target[20..24], u32::try_from(target.len()).unwrap().to_ne_bytes());
        assert_eq!(&target[24..30], b"crypt\0");
        let text = "aes-xts-plain64 :64:logon:lastkey:v 0 7:3 32768 4 allow_discards \
                    no_read_workqueue no_write_workqueue sector_size:4096\0";
        assert_eq!(&target[40..][..text.len()], text.as_bytes());
        assert!(target.len().is_multiple_of(8));
        let plain =
            CryptTable { sector_size: 512, discards: false, no_workqueues: false, ..table() };
        assert_eq!(plain.parameters("-").unwrap(), "aes-xts-plain64 - 0 7:3 32768");
    }

    #[test]
    fn texts_that_would_be_several_fields_do_not_reach_the_kernel() {
        for text in ["cipher_null-ecb - 0 7:3 32768\0", "a b", "a\tb", "a\n", "a\0", "ä"] {
            let other = CryptTable { encryption: text.to_owned(), ..table() };
            assert!(other.target(":64:logon:lastkey:v").is_err(), "{text:?}");
            assert!(table().target(text).is_err(), "{text:?}");
            assert!(Call { name: text, ..Call::default() }.encode().is_err(), "{text:?}");
        }
    }

    #[test]
    fn command_has_the_layout_of_the_kernel() {
        let buffer = Call { name: "v1", flags: 5, targets: 1, payload: b"data", ..Call::default() }
            .encode()
            .unwrap();
        assert_eq!(buffer.len(), 312 + ANSWER_LEN);
        assert_eq!(buffer[..4], 4_u32.to_ne_bytes());
        assert_eq!(buffer[12..16], u32::try_from(buffer.len()).unwrap().to_ne_bytes());
        assert_eq!(buffer[16..20], 312_u32.to_ne_bytes());
        assert_eq!(buffer[20..24], 1_u32.to_ne_bytes());
        assert_eq!(buffer[28..32], 5_u32.to_ne_bytes());
        assert_eq!(&buffer[48..51], b"v1\0");
        assert_eq!(&buffer[312..316], b"data");
        let name = "x".repeat(128);
        assert!(Call { name: &name, ..Call::default() }.encode().is_err());
    }

    #[test]
    fn answer_tells_the_device_below_a_crypt_target_alone() {
        let mut buffer = Call { name: "v1", targets: 1, ..Call::default() }.encode().unwrap();
        buffer[40..48].copy_from_slice(&0x0010_fd05_u64.to_ne_bytes());
        let target = table().target(":64:logon:lastkey:v").unwrap();
        buffer[312..312 + target.len()].copy_from_slice(&target);
        let answer = Answer(buffer.clone());
        assert_eq!(answer.number(), DeviceNumber { major: 253, minor: 0x105 });
        assert_eq!(answer.target(), (Some(DeviceNumber { major: 7, minor: 3 }), 4 << 20));
        buffer[312 + 24..312 + 30].copy_from_slice(b"error\0");
        assert_eq!(Answer(buffer).target().0, None);
        assert_eq!(below("aes"), None);
        assert_eq!(below("a b 0 x:1 0"), None);
    }
}
