//! Headers in escrow: what the service keeps of a volume's header, and a lost header made of it.
//!
//! Room      `volumes`.
//! Source    docs/formats/luks2-token.md, "Header in escrow".
//! Holds     The volume key is in it under the lineage's key and that of the class: escrow opens
//!           nothing that those do not open. A header is written where none is whole, and only
//!           when the data behind it is the volume's.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_luks::{Content, Format, Header, KmsToken, State, VolumeKey};
use lastkey_secret::SecretVec;
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, io_while, key_fault};
use crate::mark::{self, Found};
use crate::ports::VolumeKeys;
use crate::unlock::{
    Bound, DATA_KEY_USE, LAYOUT, SUBSYSTEM, Unlocked, context, fresh_data_key, label, wrap_twice,
};

/// What a volume key is wrapped for.
const VOLUME_KEY_USE: &str = "lastkey-volume-key";
const KIND: &str = "lastkey-volume-header";
const VERSION: u32 = 1;

/// A header in escrow. No secret: its key is wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowHeader {
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    /// UUID of the header.
    pub uuid: String,
    /// The cluster that its keys are bound to.
    pub cluster: String,
    /// The volume.
    pub volume: String,
    /// Id of the lineage's key.
    pub lineage: String,
    /// Id of the key of the class.
    pub key: String,
    /// What lies in the volume.
    pub content: Content,
    /// The volume key, wrapped, in hexadecimal digits.
    volume_key: String,
}

impl EscrowHeader {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let wrong = || Fault::invalid("this is no header in escrow of this version");
        let read: Self = serde_json::from_slice(bytes).map_err(|_| wrong())?;
        if read.kind == KIND && read.version == VERSION { Ok(read) } else { Err(wrong()) }
    }

    /// As the service keeps it.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        serde_json::to_vec(self).map_err(|error| Fault::invalid(error.to_string()))
    }

    /// Writes the lost header of the volume on a device anew, and its mark on a whole device.
    /// `unseen` also where nothing tells that the device is the volume's.
    ///
    /// # Errors
    /// When nothing is lost, the device is another volume's, or the key service refuses.
    pub fn restore(&self, keys: &dyn VolumeKeys, device: &Path, unseen: bool) -> Result<(), Fault> {
        self.restore_on(keys, device, unseen, FileType::is_block_device)
    }

    pub(crate) fn restore_on(
        &self,
        keys: &dyn VolumeKeys,
        device: &Path,
        unseen: bool,
        bears_mark: fn(&FileType) -> bool,
    ) -> Result<(), Fault> {
        let disk = Disk::open(device).map_err(io_while("open the device"))?;
        let kind = fs::metadata(device).map_err(io_while("look at the device"))?.file_type();
        let is_unmarked = bears_mark(&kind) && self.is_unmarked(&disk, device)?;
        match Header::read(&disk) {
            Ok(None) | Err(lastkey_luks::Error::Damaged(_)) => {
                self.restore_header(keys, &disk, unseen)?;
            }
            Ok(Some(header)) if is_unmarked => self.require_own(keys, &disk, &header)?,
            Ok(Some(_)) => {
                return Err(Fault::precondition(
                    "there is a whole header on this device: nothing was written",
                ));
            }
            Err(error) => return Err(error.into()),
        }
        if is_unmarked {
            mark::put(&disk, &self.volume).map_err(io_while("write the mark of the device"))?;
        }
        Ok(())
    }

    /// Whether a whole device has no mark. That of somebody else is an error; what is damaged or cannot
    /// be read is none, and is written anew.
    fn is_unmarked(&self, disk: &Disk, device: &Path) -> Result<bool, Fault> {
        match mark::find(disk) {
            Ok(Found::Mark(id)) if id == self.volume => {
                let is_whole = mark::is_on(device, &id);
                Ok(!is_whole.map_err(io_while("read the mark of the device"))?)
            }
            Ok(Found::Mark(id)) => Err(Fault::precondition(format!(
                "this device bears the mark of {id} and not of {}: nothing was written",
                self.volume
            ))),
            Ok(Found::Nothing | Found::Other) | Err(_) => Ok(true),
        }
    }

    /// A whole header is the volume's when it opens to the key in escrow.
    fn require_own(
        &self,
        keys: &dyn VolumeKeys,
        disk: &Disk,
        header: &Header,
    ) -> Result<(), Fault> {
        let tokens = header.tokens()?;
        let token = tokens.into_iter().find(|(_, token)| token.volume == self.volume);
        let (_, token) = token.ok_or_else(|| {
            Fault::precondition(format!(
                "there is a whole header on this device and it is not of {}: nothing was written",
                self.volume
            ))
        })?;
        let bound = context(DATA_KEY_USE, &token);
        let data_key = unwrap_twice(keys, &token.lineage, &token.key, &token.wrapped, &bound)?;
        if header.open(disk, &token.slots, &data_key)?.ct_eq(&self.open(keys)?) {
            return Ok(());
        }
        Err(Fault::precondition("the header on this device opens another key: nothing was written"))
    }

    fn restore_header(
        &self,
        keys: &dyn VolumeKeys,
        disk: &Disk,
        unseen: bool,
    ) -> Result<(), Fault> {
        let volume_key = self.open(keys)?;
        if !unseen && !self.is_behind(disk, &volume_key)? {
            return Err(Fault::precondition(format!(
                "nothing tells that this device is the volume {}: nothing was written. It is told \
                 by its file system; for one without, and when you are sure, give --unseen",
                self.volume
            )));
        }
        let data_key = fresh_data_key()?;
        let mut token = self.token();
        let wrapping = context(DATA_KEY_USE, &token);
        token.wrapped = wrap_twice(keys, &self.lineage, &self.key, &data_key, &wrapping)?.1;
        let label = label(&self.volume);
        let format =
            Format { label: &label, subsystem: SUBSYSTEM, sector_size: LAYOUT.sector_size };
        let with_slot = |slot| KmsToken { slots: vec![slot], ..token };
        let (uuid, noise) = (&self.uuid, &mut SystemEntropy);
        Header::restore(disk, format, uuid, &volume_key, &data_key, with_slot, noise)?;
        Ok(())
    }

    /// A file system is made once, so that what comes back is ready: nothing is ever made on it.
    fn token(&self) -> KmsToken {
        KmsToken {
            slots: Vec::new(),
            cluster: self.cluster.clone(),
            volume: self.volume.clone(),
            lineage: self.lineage.clone(),
            key: self.key.clone(),
            wrapped: Vec::new(),
            state: State::Ready,
            content: self.content,
        }
    }

    fn open(&self, keys: &dyn VolumeKeys) -> Result<VolumeKey, Fault> {
        let bound: Bound = context(VOLUME_KEY_USE, &self.token());
        let outer = unhex(&self.volume_key)
            .ok_or_else(|| Fault::invalid("the volume key in escrow is not hexadecimal"))?;
        Ok(VolumeKey::take(unwrap_twice(keys, &self.lineage, &self.key, &outer, &bound)?)?)
    }

    /// Whether the data on a device is a file system under this key.
    fn is_behind(&self, disk: &Disk, key: &VolumeKey) -> Result<bool, Fault> {
        let sector = key.first_sector(disk)?;
        Ok(sector.expose(|sector| match self.content {
            // The magic numbers of the first superblock.
            Content::Ext4 => sector.get(1_080..1_082) == Some(&[0x53, 0xef]),
            Content::Xfs => sector.get(..4) == Some(b"XFSB"),
            Content::Block | Content::None => false,
        }))
    }
}

impl Driver {
    /// Puts the header of a volume into escrow.
    pub(crate) fn keep_header(&self, volume: &str, unlocked: &Unlocked) -> Result<(), Fault> {
        let token = &unlocked.token;
        let bound = context(VOLUME_KEY_USE, token);
        let key = unlocked.key.expose(SecretVec::copy_of);
        let (_, outer) = wrap_twice(&*self.keys, &token.lineage, &token.key, &key, &bound)?;
        let header = EscrowHeader {
            kind: KIND.to_owned(),
            version: VERSION,
            uuid: unlocked.header.uuid().to_owned(),
            cluster: token.cluster.clone(),
            volume: token.volume.clone(),
            lineage: token.lineage.clone(),
            key: token.key.clone(),
            content: token.content,
            volume_key: hex(&outer),
        };
        let header = SecretVec::take(header.encode()?);
        let kept = self.keys.keep_header(volume, &token.key, &header);
        kept.map_err(|error| {
            let fault = key_fault(&token.key, error);
            let message = format!("the header is not in escrow: {fault}");
            Fault { message, ..fault }
        })
    }
}

/// What [`wrap_twice`] wrapped.
fn unwrap_twice(
    keys: &dyn VolumeKeys,
    lineage: &str,
    key: &str,
    wrapped: &[u8],
    bound: &Bound,
) -> Result<SecretVec, Fault> {
    let unwrap = |key: &str, wrapped: &[u8]| {
        keys.unwrap(wrapped, bound).map_err(|error| key_fault(key, error))
    };
    let inner = unwrap(key, wrapped)?;
    inner.expose(|inner| unwrap(lineage, inner))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::{EscrowHeader, hex, unhex};

    #[test]
    fn bytes_come_back_from_their_digits() {
        assert_eq!(unhex(&hex(&[0, 1, 0xab, 0xff])).unwrap(), [0, 1, 0xab, 0xff]);
        assert_eq!(unhex(""), Some(Vec::new()));
        for bad in ["0", "0g", "ä0"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_headers_of_this_version_are_read() {
        let good = r#"{"type":"lastkey-volume-header","version":1,"uuid":"u","cluster":"c",
            "volume":"v","lineage":"l","key":"k","content":"ext4","volume_key":"00"}"#;
        let read = EscrowHeader::parse(good.as_bytes()).unwrap();
        assert_eq!(EscrowHeader::parse(&read.encode().unwrap()).unwrap(), read);
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("-header", "-x"),
            ("{", "{\"more\":1,"),
            ("ext4", "btrfs"),
        ] {
            assert!(EscrowHeader::parse(good.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
