//! From a volume on a device to its volume key, by the key service.
//!
//! Room      `volumes`.
//! Source    docs/formats/luks2-token.md.
//! Holds     A header is written where one never was, and only over a device that this driver made
//!           and that holds zeros. The data key is in memory for the length of one call.

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_luks::{
    Content, Copies, DATA_OFFSET, Format, Header, KmsToken, Medium as _, Segment, State, VolumeKey,
};
use lastkey_secret::SecretVec;

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while, key_fault};
use crate::record::VolumeRecord;

const DATA_KEY_LEN: usize = 64;
/// Where the data of all volumes lies. A header is covered by no key, so that what it says of this
/// has to be this.
pub(crate) const LAYOUT: Segment = Segment { offset: DATA_OFFSET, size: None, sector_size: 4_096 };
/// What is looked at of the data's beginning and end, in bytes.
const PROBE_LEN: u64 = 1 << 20;

/// A volume whose key is at hand.
pub(crate) struct Unlocked {
    pub(crate) header: Header,
    pub(crate) key: VolumeKey,
    /// The token, and its number.
    pub(crate) token: KmsToken,
    pub(crate) number: u32,
}

impl Unlocked {
    /// Writes how far the volume was prepared.
    pub(crate) fn advance(
        &mut self,
        disk: &Disk,
        state: State,
        content: Content,
    ) -> Result<(), Fault> {
        if (self.token.state, self.token.content) == (state, content) {
            return Ok(());
        }
        self.token.state = state;
        self.token.content = content;
        self.header.put_token(Some(self.number), &self.token)?;
        Ok(self.header.store(disk)?)
    }
}

impl Driver {
    /// Reads the header of a volume and unlocks it; the first time, makes both.
    pub(crate) fn unlock(&self, record: &mut VolumeRecord, disk: &Disk) -> Result<Unlocked, Fault> {
        let found = match Header::read(disk) {
            Err(lastkey_luks::Error::Damaged(_)) if !record.formatted => None,
            found => found?,
        };
        let Some(mut header) = found else { return self.format(record, disk) };
        if !record.formatted {
            record.formatted = true;
            self.remember(record)?;
        }
        if header.copies() != Copies::Both {
            header.store(disk)?;
            tracing::warn!(volume = record.id, "a damaged copy of the header was written anew");
        }
        let (mut unlocked, data_key) = self.open_header(record, disk, header)?;
        self.bind_anew(record, disk, &mut unlocked, &data_key)?;
        Ok(unlocked)
    }

    /// The key of a volume that was opened before. Writes nothing, so that it needs no lock.
    pub(crate) fn key_again(&self, record: &VolumeRecord, disk: &Disk) -> Result<VolumeKey, Fault> {
        let header = Header::read(disk)?.ok_or_else(|| header_gone(record))?;
        Ok(self.open_header(record, disk, header)?.0.key)
    }

    fn open_header(
        &self,
        record: &VolumeRecord,
        disk: &Disk,
        header: Header,
    ) -> Result<(Unlocked, SecretVec), Fault> {
        if header.segment()? != LAYOUT {
            return Err(Fault::precondition(format!(
                "the header of {} says that its data lies elsewhere than it was put: nothing was \
                 opened. Restore the header from a backup",
                record.id
            )));
        }
        let (number, token) = self.token_of(record, &header)?;
        let data_key = self.data_key(&token)?;
        let key = header.open(disk, &token.slots, &data_key)?;
        Ok((Unlocked { header, key, token, number }, data_key))
    }

    /// The token of this volume, or of the one that it was copied from.
    fn token_of(&self, record: &VolumeRecord, header: &Header) -> Result<(u32, KmsToken), Fault> {
        let tokens = header.tokens()?;
        let of = |volume: &str| tokens.iter().find(|(_, token)| token.volume == volume).cloned();
        let origin = record.bound_to.as_deref();
        of(&record.id).or_else(|| origin.and_then(of)).ok_or_else(|| {
            Fault::precondition(format!("the header of {} has no token of this volume", record.id))
        })
    }

    fn data_key(&self, token: &KmsToken) -> Result<SecretVec, Fault> {
        let context = context(token);
        let unwrap = |key: &str, wrapped: &[u8]| {
            self.keys.unwrap(wrapped, &context).map_err(|error| key_fault(key, error))
        };
        let inner = unwrap(&token.key, &token.wrapped)?;
        inner.expose(|inner| unwrap(&token.lineage, inner))
    }

    fn wrap(&self, token: &KmsToken, data_key: &SecretVec) -> Result<Vec<u8>, Fault> {
        let context = context(token);
        let wrap = |key: &str, secret: &SecretVec| {
            self.keys.wrap(key, secret, &context).map_err(|error| key_fault(key, error))
        };
        let inner = SecretVec::take(wrap(&token.lineage, data_key)?);
        wrap(&token.key, &inner)
    }

    /// A clone, or a volume that got another key, has its data key bound to itself.
    fn bind_anew(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        unlocked: &mut Unlocked,
        data_key: &SecretVec,
    ) -> Result<(), Fault> {
        let token = &mut unlocked.token;
        if token.volume != record.id || token.key != record.key {
            record.id.clone_into(&mut token.volume);
            record.key.clone_into(&mut token.key);
            token.wrapped = self.wrap(token, data_key)?;
            unlocked.header.put_token(Some(unlocked.number), token)?;
            unlocked.header.store(disk)?;
        }
        if record.bound_to.take().is_some() {
            self.remember(record)?;
        }
        Ok(())
    }

    fn format(&self, record: &mut VolumeRecord, disk: &Disk) -> Result<Unlocked, Fault> {
        if record.formatted {
            return Err(header_gone(record));
        }
        require_zeros(disk)?;
        let lineage = record.lineage.clone().ok_or_else(|| {
            Fault::precondition(format!("{} was not made to its end; create it again", record.id))
        })?;
        let data_key = SecretVec::try_fill(DATA_KEY_LEN, |key| SystemEntropy.fill(key))
            .map_err(|_| Fault::new(Kind::Internal, "no randomness available"))?;
        let mut token = KmsToken {
            slots: Vec::new(),
            cluster: self.config.cluster.clone(),
            volume: record.id.clone(),
            lineage,
            key: record.key.clone(),
            wrapped: Vec::new(),
            state: State::Luks,
            content: Content::None,
        };
        token.wrapped = self.wrap(&token, &data_key)?;
        let label = format!("{:.47}", record.id);
        let format =
            Format { label: &label, subsystem: "lastkey", sector_size: LAYOUT.sector_size };
        let with_slot = |slot| KmsToken { slots: vec![slot], ..token.clone() };
        let (header, key) = Header::format(disk, format, &data_key, with_slot, &mut SystemEntropy)?;
        record.formatted = true;
        self.remember(record)?;
        let found = header.tokens()?.into_iter().next();
        let (number, token) =
            found.ok_or_else(|| Fault::new(Kind::Internal, "the token is gone again"))?;
        Ok(Unlocked { header, key, token, number })
    }

    pub(crate) fn remember(&self, record: &VolumeRecord) -> Result<(), Fault> {
        self.volumes.put(record).map_err(io_while("write the record of a volume"))
    }
}

fn header_gone(record: &VolumeRecord) -> Fault {
    Fault::precondition(format!(
        "the header of {} is gone, and data may be behind it: nothing was written. Restore the \
         header from a backup",
        record.id
    ))
}

/// What the data key is bound to.
fn context(token: &KmsToken) -> [(&'static str, String); 4] {
    [
        ("use", "lastkey-volume".to_owned()),
        ("cluster", token.cluster.clone()),
        ("volume", token.volume.clone()),
        ("lineage", token.lineage.clone()),
    ]
}

/// Beginning and end of the data, so that a device with something on it is not formatted.
fn require_zeros(disk: &Disk) -> Result<(), Fault> {
    let doing = "look whether the device is empty";
    let len = disk.len().map_err(io_while(doing))?;
    let probe = PROBE_LEN.min(len.saturating_sub(DATA_OFFSET));
    let probe_len = usize::try_from(probe).unwrap_or(0);
    for offset in [DATA_OFFSET, len.saturating_sub(probe)] {
        if !disk.is_zero(offset, probe_len).map_err(io_while(doing))? {
            return Err(Fault::precondition(
                "the device holds data and no header of ours: nothing was written",
            ));
        }
    }
    Ok(())
}
