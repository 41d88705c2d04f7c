//! From a volume on a device to its volume key, by the key service.
//!
//! Room      `volumes`.
//! Source    docs/formats/luks2-token.md.
//! Holds     A header is written where one never was, and only over a device that this driver made
//!           and that holds zeros. The data key is in memory for the length of one call.

use std::time::Instant;

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_luks::{
    Content, Copies, DATA_OFFSET, Format, Header, KmsToken, Segment, State, VolumeKey,
};
use lastkey_secret::SecretVec;

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while, key_fault, key_fault_of};
use crate::ports::{KeyInfo, VolumeKeys};
use crate::record::{VolumeRecord, Wraps};

const DATA_KEY_LEN: usize = 64;
/// Where the data of all volumes lies. A header is covered by no key, so that what it says of this
/// has to be this.
pub(crate) const LAYOUT: Segment = Segment { offset: DATA_OFFSET, size: None, sector_size: 4_096 };
/// What headers say of who made them.
pub(crate) const SUBSYSTEM: &str = "lastkey";

/// A volume or snapshot whose key is at hand.
pub(crate) struct Unlocked {
    pub(crate) header: Header,
    pub(crate) key: VolumeKey,
    /// The token, and its number.
    pub(crate) token: KmsToken,
    pub(crate) number: u32,
    /// Under what its data key is.
    pub(crate) wraps: Wraps,
    /// Why that is not the version that is primary, when it was to be.
    pub(crate) late: Option<Fault>,
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
        self.put(disk)
    }

    /// Writes a token with the data key wrapped anew.
    fn bind(&mut self, disk: &Disk, token: KmsToken, wraps: Wraps) -> Result<(), Fault> {
        self.token = token;
        self.put(disk)?;
        self.wraps = wraps;
        Ok(())
    }

    /// Writes the token as it is now.
    pub(crate) fn put(&mut self, disk: &Disk) -> Result<(), Fault> {
        self.header.put_token(Some(self.number), &self.token)?;
        Ok(self.header.store(disk)?)
    }
}

/// Whose header it is: what a token is looked for by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// Id of the volume or snapshot.
    pub(crate) id: &'a str,
    /// The volume that the data key is bound to, when it is another one.
    pub(crate) bound_to: Option<&'a str>,
    /// Which data key is in it.
    pub(crate) data_key: u32,
}

/// In whose name the key of a class is asked for a data key. That of the lineage is always the
/// driver's to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opener<'a> {
    /// In the driver's own.
    Driver,
    /// In that of a pod.
    Pod(&'a Pod),
}

/// A pod that showed its token.
#[derive(Debug)]
pub(crate) struct Pod {
    /// The credential of its session.
    pub(crate) session: SecretVec,
    /// As messages name it.
    pub(crate) who: String,
}

impl VolumeRecord {
    pub(crate) fn owner(&self) -> Owner<'_> {
        let data_key = self.wraps.as_ref().map_or(0, |wraps| wraps.data_key);
        Owner { id: &self.id, bound_to: self.bound_to.as_deref(), data_key }
    }
}

impl Driver {
    /// Reads the header of a volume and unlocks it; the first time, makes both.
    pub(crate) fn unlock(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        by: Opener<'_>,
    ) -> Result<Unlocked, Fault> {
        let began = Instant::now();
        let unlocked = self.try_unlock(record, disk, by)?;
        self.counts.unlocked(began.elapsed());
        Ok(unlocked)
    }

    fn try_unlock(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        by: Opener<'_>,
    ) -> Result<Unlocked, Fault> {
        let found = match Header::read(disk) {
            Err(lastkey_luks::Error::Damaged(_)) if !record.formatted => None,
            found => found.map_err(|error| damaged(record, error))?,
        };
        let Some(header) = found else { return self.format(record, disk, by) };
        // That it opens comes before anything that is written, here and on the device.
        let (mut unlocked, data_key) = self.open_header(record.owner(), disk, header, by)?;
        if !record.formatted {
            record.formatted = true;
            // With what is counted, so that no other volume waits for this one.
            record.wraps = Some(unlocked.wraps.clone());
            self.remember(record)?;
        }
        if unlocked.header.copies() != Copies::Both {
            unlocked.header.store(disk)?;
            tracing::warn!(volume = record.id, "a damaged copy of the header was written anew");
        }
        self.bind_anew(record, disk, &mut unlocked, &data_key)?;
        Ok(unlocked)
    }

    /// The key of a volume that was opened before. Writes nothing, so that it needs no lock.
    pub(crate) fn key_again(&self, record: &VolumeRecord, disk: &Disk) -> Result<VolumeKey, Fault> {
        let header = Header::read(disk)?.ok_or_else(|| header_gone(record))?;
        let opened = self.open_header(record.owner(), disk, header, Opener::Driver);
        Ok(opened.map_err(|fault| waits_for_pod(record, fault))?.0.key)
    }

    pub(crate) fn open_header(
        &self,
        owner: Owner<'_>,
        disk: &Disk,
        header: Header,
        by: Opener<'_>,
    ) -> Result<(Unlocked, SecretVec), Fault> {
        if header.segment()? != LAYOUT {
            return Err(Fault::precondition(format!(
                "the header of {} says that its data lies elsewhere than it was put: nothing was \
                 opened. Restore the header from a backup",
                owner.id
            )));
        }
        let (number, token) = token_of(owner, &header)?;
        let context = context(DATA_KEY_USE, &token);
        let inner = self.unwrap_by(by, &token.key, &token.wrapped, &context)?;
        let wraps = Wraps {
            key: token.key.clone(),
            version: self.version_of(&token.wrapped),
            lineage_version: inner.expose(|inner| self.version_of(inner)),
            data_key: owner.data_key,
        };
        let data_key = inner.expose(|inner| self.unwrap(&token.lineage, inner, &context))?;
        let key = header.open(disk, &token.slots, &data_key)?;
        Ok((Unlocked { header, key, token, number, wraps, late: None }, data_key))
    }

    fn unwrap_by(
        &self,
        by: Opener<'_>,
        key: &str,
        wrapped: &[u8],
        context: &Bound,
    ) -> Result<SecretVec, Fault> {
        match by {
            Opener::Driver => self.unwrap(key, wrapped, context),
            Opener::Pod(pod) => {
                let unwrapped = self.keys.unwrap_in(&pod.session, wrapped, context);
                unwrapped.map_err(|error| key_fault_of(&pod.who, key, error))
            }
        }
    }

    fn unwrap(&self, key: &str, wrapped: &[u8], context: &Bound) -> Result<SecretVec, Fault> {
        self.keys.unwrap(wrapped, context).map_err(|error| key_fault(key, error))
    }

    /// The service makes no ciphertext that does not tell its version, and would open none.
    fn version_of(&self, wrapped: &[u8]) -> u32 {
        self.keys.version_of(wrapped).unwrap_or_default()
    }

    /// A clone, or a volume that got another key, has its data key bound to itself; one whose key
    /// was rotated, under the version that is primary now.
    fn bind_anew(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        unlocked: &mut Unlocked,
        data_key: &SecretVec,
    ) -> Result<(), Fault> {
        let token = &unlocked.token;
        if token.volume != record.id || token.key != record.key {
            self.wrap_anew(disk, unlocked, data_key, &record.id, &record.key)?;
        } else if self.is_stale(&unlocked.wraps) {
            match self.wrapped_anew(unlocked, data_key, &record.id, &record.key) {
                Ok((token, wraps)) => unlocked.bind(disk, token, wraps)?,
                // A node that may open and not protect still opens.
                Err(refused) => unlocked.late = Some(refused),
            }
        }
        let is_bound = record.bound_to.take().is_some();
        if is_bound || record.wraps.as_ref() != Some(&unlocked.wraps) {
            record.wraps = Some(unlocked.wraps.clone());
            self.remember(record)?;
        }
        Ok(())
    }

    /// Wraps a data key under the versions that are primary, for a volume, and writes that down.
    pub(crate) fn wrap_anew(
        &self,
        disk: &Disk,
        unlocked: &mut Unlocked,
        data_key: &SecretVec,
        volume: &str,
        key: &str,
    ) -> Result<(), Fault> {
        let (token, wraps) = self.wrapped_anew(unlocked, data_key, volume, key)?;
        unlocked.bind(disk, token, wraps)
    }

    /// The token that [`Driver::wrap_anew`] writes. What fails is the key service's.
    fn wrapped_anew(
        &self,
        unlocked: &Unlocked,
        data_key: &SecretVec,
        volume: &str,
        key: &str,
    ) -> Result<(KmsToken, Wraps), Fault> {
        let mut token = unlocked.token.clone();
        volume.clone_into(&mut token.volume);
        key.clone_into(&mut token.key);
        // New data keys are counted by each key for itself.
        let is_same = unlocked.token.key == key;
        let number = if is_same { unlocked.wraps.data_key } else { 0 };
        let wraps = self.wrap(&mut token, data_key, number)?;
        Ok((token, wraps))
    }

    /// Puts a data key, wrapped, into a token.
    pub(crate) fn wrap(
        &self,
        token: &mut KmsToken,
        data_key: &SecretVec,
        number: u32,
    ) -> Result<Wraps, Fault> {
        let context = context(DATA_KEY_USE, token);
        let inner = wrap_twice(&*self.keys, &token.lineage, &token.key, data_key, &context)?;
        let lineage_version = self.version_of(&inner.0);
        token.wrapped = inner.1;
        Ok(Wraps {
            key: token.key.clone(),
            version: self.version_of(&token.wrapped),
            lineage_version,
            data_key: number,
        })
    }

    /// Whether another version of the key protects new data by now, as far as it is known.
    fn is_stale(&self, wraps: &Wraps) -> bool {
        let primary = self.known(&wraps.key).and_then(|info| info.primary);
        primary.is_some_and(|primary| primary != wraps.version)
    }

    /// The same, also when nobody has looked yet.
    pub(crate) fn is_behind(&self, wraps: Option<&Wraps>) -> bool {
        wraps.is_none_or(|wraps| self.is_stale(wraps))
    }

    fn format(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        by: Opener<'_>,
    ) -> Result<Unlocked, Fault> {
        if record.formatted {
            return Err(header_gone(record));
        }
        require_zeros(disk)?;
        let lineage = record.lineage.clone().ok_or_else(|| {
            Fault::precondition(format!("{} was not made to its end; create it again", record.id))
        })?;
        let data_key = fresh_data_key()?;
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
        let data_keys = self.known(&record.key).map_or(0, |info| info.data_keys);
        let wraps = self.wrap(&mut token, &data_key, data_keys)?;
        if let Opener::Pod(_) = by {
            // The driver may protect; the pod shows that it may recover, before anything is written.
            self.unwrap_by(by, &token.key, &token.wrapped, &context(DATA_KEY_USE, &token))?;
        }
        let label = label(&record.id);
        let format =
            Format { label: &label, subsystem: SUBSYSTEM, sector_size: LAYOUT.sector_size };
        let with_slot = |slot| KmsToken { slots: vec![slot], ..token.clone() };
        let (header, key) = Header::format(disk, format, &data_key, with_slot, &mut SystemEntropy)?;
        record.formatted = true;
        record.wraps = Some(wraps.clone());
        self.remember(record)?;
        let found = header.tokens()?.into_iter().next();
        let (number, token) =
            found.ok_or_else(|| Fault::new(Kind::Internal, "the token is gone again"))?;
        Ok(Unlocked { header, key, token, number, wraps, late: None })
    }

    pub(crate) fn remember(&self, record: &VolumeRecord) -> Result<(), Fault> {
        self.volumes.put(record).map_err(io_while("write the record of a volume"))
    }

    /// A key as it was described last.
    pub(crate) fn known(&self, key: &str) -> Option<KeyInfo> {
        self.lock_known().get(key).cloned()
    }
}

/// A fresh data key.
pub(crate) fn fresh_data_key() -> Result<SecretVec, Fault> {
    SecretVec::try_fill(DATA_KEY_LEN, |key| SystemEntropy.fill(key))
        .map_err(|_| Fault::new(Kind::Internal, "no randomness available"))
}

/// Under the lineage's key, and that under the class's; both wrappings.
pub(crate) fn wrap_twice(
    keys: &dyn VolumeKeys,
    lineage: &str,
    key: &str,
    secret: &SecretVec,
    context: &Bound,
) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let wrap = |key: &str, secret: &SecretVec| {
        keys.wrap(key, secret, context).map_err(|error| key_fault(key, error))
    };
    let inner = wrap(lineage, secret)?;
    let outer = wrap(key, &SecretVec::copy_of(&inner))?;
    Ok((inner, outer))
}

/// What headers show of the volume.
pub(crate) fn label(volume: &str) -> String {
    format!("{volume:.47}")
}

/// The token of a volume, or of the one that it was copied from.
fn token_of(owner: Owner<'_>, header: &Header) -> Result<(u32, KmsToken), Fault> {
    let tokens = header.tokens()?;
    let of = |volume: &str| tokens.iter().find(|(_, token)| token.volume == volume).cloned();
    of(owner.id).or_else(|| owner.bound_to.and_then(of)).ok_or_else(|| {
        Fault::precondition(format!("the header of {} has no token of this volume", owner.id))
    })
}

/// What the driver may not open itself is opened by the pods that use it.
pub(crate) fn waits_for_pod(record: &VolumeRecord, fault: Fault) -> Fault {
    if record.role.is_none() || fault.kind != Kind::Denied {
        return fault;
    }
    let message = format!(
        "{} waits for the next pod that opens it, since its key is for pods alone: {}",
        record.id, fault.message
    );
    Fault { message, ..fault }
}

fn header_gone(record: &VolumeRecord) -> Fault {
    Fault::precondition(format!(
        "the header of {0} is gone, and data may be behind it: nothing was written. Bring it back \
         from escrow: lastkey volume restore-header {0} --device DEVICE",
        record.id
    ))
}

fn damaged(record: &VolumeRecord, error: lastkey_luks::Error) -> Fault {
    let is_damaged = matches!(error, lastkey_luks::Error::Damaged(_));
    let fault = Fault::from(error);
    if !is_damaged {
        return fault;
    }
    let id = &record.id;
    let message =
        format!("{fault}; or from escrow: lastkey volume restore-header {id} --device DEVICE");
    Fault { message, ..fault }
}

/// Names and values that a wrapped key is bound to.
pub(crate) type Bound = [(&'static str, String); 4];

/// What a data key is wrapped for.
pub(crate) const DATA_KEY_USE: &str = "lastkey-volume";

/// What a key of a volume is bound to.
pub(crate) fn context(usage: &str, token: &KmsToken) -> Bound {
    [
        ("use", usage.to_owned()),
        ("cluster", token.cluster.clone()),
        ("volume", token.volume.clone()),
        ("lineage", token.lineage.clone()),
    ]
}

/// Beginning and end of the data, so that a device with something on it is not formatted.
fn require_zeros(disk: &Disk) -> Result<(), Fault> {
    if disk.is_blank_behind_header().map_err(io_while("look whether the device is empty"))? {
        return Ok(());
    }
    Err(Fault::precondition("the device holds data and no header of ours: nothing was written"))
}
