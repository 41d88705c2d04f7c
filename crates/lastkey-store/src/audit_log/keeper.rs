//! Watches over the files and the space of the log, and removes what is old.
//!
//! Room      `store`.
//! Holds     a segment that was removed, replaced or cut under the writer stops the log for good;
//!           records are removed only when a signed checkpoint covers them, a record says so, and a
//!           clock that was found right says that they are old.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use lastkey_core::audit::merkle::TILE_WIDTH;
use lastkey_core::audit::record::Record;
use lastkey_core::audit::tile::{Records, TileKind, TileName};
use lastkey_core::audit::{AUDIT_LOG, AUDIT_PRUNES, AUDIT_REFUSES, AUDIT_RESUMES, Event, Phase};
use lastkey_core::ids::RequestId;
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use rustix::fs::fstatvfs;

use super::AuditOptions;
use super::builder::{Published, Space, now};
use super::files::{Layout, read_if_there, replace_file, sync_dir};
use super::pending::Buffer;
use super::recover::FIRST_SEGMENT_LEN;
use super::tail::MAX_BUNDLE_LEN;
use super::wal::zero_filled;
use super::writer::{Current, Spare};

/// How the record of a removal begins; the number of the oldest record that is kept follows.
pub(super) const PRUNED: &str = "records are removed before ";
/// How often old records are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Most bundles that are read or removed at one time, and bytes of them that are read: nothing is
/// built meanwhile.
const PRUNE_STEP: (u64, u64) = (1_024, 64 << 20);
/// Most bundles whose length is asked for at one time.
const COUNT_STEP: u64 = 16_384;

/// Watches over a log.
pub(super) struct Keeper {
    current: Current,
    spare: Spare,
    /// Length of the next spare segment.
    spare_len: u64,
    longest: u64,
    alarm_free: u64,
    refuse_free: u64,
    pruned_at: Option<Instant>,
    prune_step: (u64, u64),
    planned: Option<Planned>,
    counted: Counted,
    refusing: bool,
}

/// A removal that was recorded.
struct Planned {
    /// Records before this one go.
    minimum: u64,
    /// Bytes of their bundles.
    len: u64,
    /// They go when this record, which says so, is signed.
    said: u64,
}

/// What bundles are too old, or too many.
struct Prunable {
    /// Records before this one.
    minimum: u64,
    /// Bytes of their bundles.
    len: u64,
    /// Whether not all of it was looked at.
    is_more: bool,
}

impl Keeper {
    /// A keeper of a log that writes this segment; its next one is as long, within the options.
    pub(super) fn new(current: Current, spare: Spare, len: u64, options: &AuditOptions) -> Self {
        let longest = options.segment_len.max(FIRST_SEGMENT_LEN);
        Self {
            current,
            spare,
            spare_len: len.clamp(FIRST_SEGMENT_LEN, longest),
            longest,
            alarm_free: options.alarm_free,
            refuse_free: options.refuse_free,
            pruned_at: None,
            prune_step: PRUNE_STEP,
            planned: None,
            counted: Counted::default(),
            refusing: false,
        }
    }

    /// Looks once.
    pub(super) fn look_after(&mut self, layout: &Layout, buffer: &Buffer, published: &Published) {
        let checked = self.current.lock().unwrap_or_else(PoisonError::into_inner).check();
        if let Err(reason) = checked {
            tracing::error!(reason, "the audit log was tampered with; operations are refused");
            buffer.trouble(|troubles| troubles.tampered = Some(reason));
        }
        let space = self.space(layout);
        let had = published.space.lock().unwrap_or_else(PoisonError::into_inner).is_alarming;
        if space.is_alarming && !had {
            let free = space.free.unwrap_or(0);
            tracing::warn!(free, "space for the audit log is getting short");
        }
        *published.space.lock().unwrap_or_else(PoisonError::into_inner) = space;
        let short = space.free.filter(|free| *free < self.refuse_below(layout));
        let full = match short {
            Some(free) => Some(format!("{free} bytes are free on its disk")),
            None => self.prepare(layout).err().map(|error| error.to_string()),
        };
        self.report(buffer, full);
    }

    /// Notes whether records are refused, also in the log itself.
    fn report(&mut self, buffer: &Buffer, full: Option<String>) {
        let refusing = full.is_some();
        let reason = full.clone().unwrap_or_default();
        buffer.trouble(|troubles| troubles.full = full);
        if refusing != self.refusing {
            self.refusing = refusing;
            let action = if refusing { AUDIT_REFUSES } else { AUDIT_RESUMES };
            if refusing {
                tracing::error!(reason, "the audit log is full; operations are refused");
            }
            let reason = if refusing { "no space is left" } else { "there is space again" };
            self.speak(buffer, action, reason);
        }
    }

    /// Records something about the log itself; the number of the record.
    fn speak(&self, buffer: &Buffer, action: &'static str, reason: &str) -> Option<u64> {
        let mut request = [0; 16];
        SystemEntropy.fill(&mut request).ok()?;
        let event = Event {
            at: now(),
            request: RequestId(request),
            who: &Principal::named(AUDIT_LOG),
            action,
            phase: Phase::Whole,
            key: None,
            version: None,
            context_hash: None,
            result: "ok",
            reason,
            source: Source::default(),
            target: None,
        };
        let said = buffer.push(&event);
        said.inspect_err(|error| {
            tracing::warn!(%error, action, "the audit log cannot record this about itself");
        })
        .ok()
    }

    fn space(&self, layout: &Layout) -> Space {
        let vfs = File::open(&layout.dir).ok().and_then(|dir| fstatvfs(dir).ok());
        let free = vfs.as_ref().map(|vfs| vfs.f_bavail.saturating_mul(vfs.f_frsize));
        let alarm = vfs.map_or(0, |vfs| self.alarm_free.min(total(&vfs) / 20));
        Space { free, is_alarming: free.is_some_and(|free| free < alarm) }
    }

    /// Free bytes below which nothing but what is essential is recorded: on a small disk, a
    /// hundredth of it.
    fn refuse_below(&self, layout: &Layout) -> u64 {
        let vfs = File::open(&layout.dir).ok().and_then(|dir| fstatvfs(dir).ok());
        vfs.map_or(0, |vfs| self.refuse_free.min(total(&vfs) / 100))
    }

    /// Makes the next segment, if there is none.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn prepare(&mut self, layout: &Layout) -> io::Result<()> {
        if self.spare.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let path = layout.spare();
        let file = zero_filled(&path, self.spare_len)?;
        sync_dir(&layout.wal())?;
        self.put_spare(path, file);
        Ok(())
    }

    fn put_spare(&mut self, path: PathBuf, file: File) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, file));
        // A log that fills segments gets longer ones.
        self.spare_len = self.spare_len.saturating_mul(2).min(self.longest);
    }

    /// Removes a segment, or makes it the next one.
    ///
    /// # Errors
    /// An I/O error.
    pub(super) fn reuse(&mut self, layout: &Layout, path: &Path) -> io::Result<()> {
        let has_spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_spare || fs::metadata(path)?.len() < self.spare_len {
            fs::remove_file(path)?;
            return sync_dir(&layout.wal());
        }
        let spare = layout.spare();
        fs::rename(path, &spare)?;
        // Before the writer may have it: under its old name it must be found as it was.
        sync_dir(&layout.wal())?;
        let file = super::files::private_file().read(true).write(true).open(&spare)?;
        self.put_spare(spare, file);
        Ok(())
    }

    /// Removes bundles that are too old, or too many; the hashes stay, and with them all proofs.
    pub(super) fn prune(
        &mut self,
        layout: &Layout,
        options: &AuditOptions,
        buffer: &Buffer,
        signed: u64,
        now: Timestamp,
    ) {
        if let Err(error) = self.try_prune(layout, options, buffer, signed, now) {
            tracing::warn!(%error, "old records of the audit log stay");
        }
    }

    fn try_prune(
        &mut self,
        layout: &Layout,
        options: &AuditOptions,
        buffer: &Buffer,
        signed: u64,
        now: Timestamp,
    ) -> io::Result<()> {
        if let Some(planned) = self.planned.take_if(|planned| planned.said < signed) {
            self.counted.forget(&planned);
            return remove_before(layout, planned.minimum);
        }
        let waits = self.pruned_at.is_some_and(|at| at.elapsed() < PRUNE_EVERY);
        if waits || self.planned.is_some() {
            return Ok(());
        }
        self.pruned_at = Some(Instant::now());
        let Prunable { minimum, len, is_more } = self.prunable(layout, options, signed, now)?;
        if len > 0 {
            let said = self.speak(buffer, AUDIT_PRUNES, &format!("{PRUNED}{minimum}"));
            self.planned = said.map(|said| Planned { minimum, len, said });
        }
        if is_more && (len == 0 || self.planned.is_some()) {
            self.pruned_at = None;
        }
        Ok(())
    }

    /// What is to be removed next.
    fn prunable(
        &mut self,
        layout: &Layout,
        options: &AuditOptions,
        signed: u64,
        now: Timestamp,
    ) -> io::Result<Prunable> {
        let oldest = now.0.saturating_sub(options.retention.as_secs());
        let (first, full) = (minimum_index(layout)? / WIDTH, signed / WIDTH);
        let (mut excess, mut is_more) = (0, false);
        if let Some(most) = options.retention_len {
            is_more = !self.counted.go_on(layout, first, full)?;
            excess = self.counted.len.saturating_sub(most);
        }
        let (mut number, mut len) = (first, 0_u64);
        while number < full {
            if number - first >= self.prune_step.0 || len >= self.prune_step.1 {
                is_more = true;
                break;
            }
            let name = TileName::full(TileKind::Entries, number);
            let Some(bytes) = read_if_there(&layout.tile(&name), MAX_BUNDLE_LEN)? else { break };
            let newest = Records::of(&bytes).flatten().last().and_then(|r| Record::parse(r).ok());
            let at = newest.and_then(|record| record.number("at"));
            if at.is_none_or(|at| at >= oldest) && excess <= len {
                break;
            }
            len = len.saturating_add(bytes.len() as u64);
            number += 1;
        }
        Ok(Prunable { minimum: number.saturating_mul(WIDTH), len, is_more })
    }
}

/// Records of a bundle.
const WIDTH: u64 = TILE_WIDTH as u64;

/// The bytes of the bundles that are kept, as far as they are counted.
#[derive(Debug, Default)]
struct Counted {
    /// Number of the first of these bundles, and of the one after the last.
    range: Range<u64>,
    len: u64,
}

impl Counted {
    /// Counts some of those on from `first` to `end`; whether all are counted.
    fn go_on(&mut self, layout: &Layout, first: u64, end: u64) -> io::Result<bool> {
        if self.range.start != first || self.range.end < first {
            *self = Self { range: first..first, len: 0 };
        }
        let until = self.range.end.saturating_add(COUNT_STEP).min(end);
        while self.range.end < until {
            let name = TileName::full(TileKind::Entries, self.range.end);
            self.len = self.len.saturating_add(fs::metadata(layout.tile(&name))?.len());
            self.range.end += 1;
        }
        Ok(self.range.end >= end)
    }

    /// Forgets those that are removed.
    fn forget(&mut self, planned: &Planned) {
        self.range.start = planned.minimum / WIDTH;
        self.len = self.len.saturating_sub(planned.len);
    }
}

fn total(vfs: &rustix::fs::StatVfs) -> u64 {
    vfs.f_blocks.saturating_mul(vfs.f_frsize)
}

/// The number of the oldest record that is kept.
///
/// # Errors
/// An I/O error, also when the file holds no number.
pub(super) fn minimum_index(layout: &Layout) -> io::Result<u64> {
    let Some(bytes) = read_if_there(&layout.minimum(), 64)? else { return Ok(0) };
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end().parse().map_err(|_| io::Error::other("minimum-index holds no number"))
}

fn remove_before(layout: &Layout, minimum: u64) -> io::Result<()> {
    let first = minimum_index(layout)? / WIDTH;
    replace_file(&layout.minimum(), format!("{minimum}\n").as_bytes())?;
    for number in first..minimum / WIDTH {
        remove_bundle(layout, number)?;
    }
    Ok(())
}

/// Removes the bundles that a stop has left below the oldest record that is kept. They go in their
/// order, so that those that are left are the last.
///
/// # Errors
/// An I/O error.
pub(super) fn remove_leftovers(layout: &Layout) -> io::Result<()> {
    let end = minimum_index(layout)? / WIDTH;
    for number in (0..end).rev() {
        if !remove_bundle(layout, number)? {
            break;
        }
    }
    Ok(())
}

/// Removes a bundle; whether it was there.
fn remove_bundle(layout: &Layout, number: u64) -> io::Result<bool> {
    match fs::remove_file(layout.tile(&TileName::full(TileKind::Entries, number))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use lastkey_core::audit::tile::push_record;

    use super::super::builder::make_dirs;
    use super::super::files::write_file;
    use super::super::wal::Segment;
    use super::super::writer::Watched;
    use super::*;

    /// A keeper that takes two bundles at a time, of a log of these bundles.
    fn keeper(layout: &Layout, options: &AuditOptions, bundles: &[Vec<u8>]) -> Keeper {
        make_dirs(layout).unwrap();
        for (number, bundle) in (0..).zip(bundles) {
            let name = TileName::full(TileKind::Entries, number);
            write_file(&layout.tile(&name), bundle).unwrap();
        }
        let segment = Segment::create(&layout.wal(), 4_096, 0).unwrap();
        let current = Arc::new(Mutex::new(Watched::of(&segment).unwrap()));
        let keeper = Keeper::new(current, Arc::default(), 4_096, options);
        Keeper { prune_step: (2, u64::MAX), ..keeper }
    }

    fn bundle_of(at: u64) -> Vec<u8> {
        let (mut bundle, record) = (Vec::new(), format!("{{\"at\":{at}}}"));
        for _ in 0..TILE_WIDTH {
            assert!(push_record(&mut bundle, record.as_bytes()));
        }
        bundle
    }

    /// All that was old was read and removed at one go, and nothing was built meanwhile: after a
    /// change of the retention of a long log, for minutes.
    #[test]
    fn old_bundles_go_some_at_a_time_each_with_a_record_that_says_so() {
        let len = bundle_of(1_000_000).len() as u64;
        let day = Duration::from_secs(86_400);
        let by_age = AuditOptions { retention: day, ..AuditOptions::KEEP_ALL };
        let by_len = AuditOptions { retention_len: Some(2 * len), ..AuditOptions::KEEP_ALL };
        let neither = AuditOptions { retention: Duration::MAX, ..AuditOptions::KEEP_ALL };
        for (options, expected) in
            [(by_age, vec![512, 1_024, 1_280]), (by_len, vec![512, 1_024]), (neither, vec![])]
        {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout { dir: dir.path().to_owned() };
            let mut bundles = vec![bundle_of(1_000_000); 5];
            bundles.push(bundle_of(2_000_000));
            let mut keeper = keeper(&layout, &options, &bundles);
            let (buffer, now) = (Buffer::new(6 * 256), Timestamp(2_000_000));
            let mut removed = Vec::new();
            for round in 0..8 {
                // What is said is signed a round later.
                keeper.prune(&layout, &options, &buffer, 6 * 256 + round / 2, now);
                let first = minimum_index(&layout).unwrap();
                if first > 0 && removed.last() != Some(&first) {
                    removed.push(first);
                }
                let name = |number| layout.tile(&TileName::full(TileKind::Entries, number));
                assert!((0..6).all(|number| name(number).exists() == (number >= first / 256)));
            }
            assert_eq!(removed, expected);
            buffer.close();
            let said = buffer.take(0, Duration::ZERO).framed;
            let said = String::from_utf8_lossy(&said).matches(AUDIT_PRUNES).count();
            assert_eq!(said, expected.len());
        }
    }
}
