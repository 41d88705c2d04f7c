//! An object that is being written.
//!
//! Room      `connect`, inside.
//! Source    Amazon S3 User Guide, "Uploading and copying objects using multipart upload".
//! Holds     nothing is there under the name before the end, and what was sent by then goes with a
//!           failure. One part is in memory at a time. All parts but the last are of one length,
//!           as some services want it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http::header::ETAG;
use lastkey_core::backup::BackupError;
use lastkey_core::backup_folder::NewFile;

use super::answer::{completion, is_completed, upload_id};
use super::calls::{Ask, Calls, passes};
use super::folder::{find, header};

/// Length of a part, in bytes; the least is 5 MiB.
const PART_LEN: usize = 16 << 20;
/// Most parts of an object.
const MAX_PARTS: usize = 10_000;
/// The first attempt to complete may take this part of the whole time; each one may take twice as
/// long as the one before.
const FIRST_ATTEMPTS: u32 = 10;
/// Pause between attempts to complete.
const PAUSE: Duration = Duration::from_secs(1);

/// An upload that has not ended. An object that is no longer than a part is sent by one request.
pub(super) struct Upload {
    calls: Arc<Calls>,
    key: String,
    part: Vec<u8>,
    /// The upload and what the service calls its parts, once there are some.
    sent: Option<Sent>,
    len: u64,
    /// Nothing is sent any more.
    is_over: bool,
}

struct Sent {
    id: String,
    tags: Vec<String>,
}

impl Upload {
    pub(super) const fn begin(calls: Arc<Calls>, key: String) -> Self {
        Self { calls, key, part: Vec::new(), sent: None, len: 0, is_over: false }
    }

    fn send_part(&mut self) -> Result<(), BackupError> {
        let body = Bytes::from(std::mem::take(&mut self.part));
        let sent = match &mut self.sent {
            Some(sent) => sent,
            none => none.insert(begin(&self.calls, &self.key)?),
        };
        let number = sent.tags.len().saturating_add(1);
        if number > MAX_PARTS {
            return Err(BackupError::Refused(format!(
                "{}: a backup in a bucket has at most {} GiB",
                self.calls.place,
                (PART_LEN * MAX_PARTS) >> 30
            )));
        }
        let put = Ask::of(Method::PUT, &self.key).query("partNumber", number);
        let answer = self.calls.ask(put.query("uploadId", &sent.id).body(body))?;
        let answer = self.calls.good(answer, "write", &self.key)?;
        let untagged = || self.calls.failed("write", &self.key, "the service has not named a part");
        sent.tags.push(header(&answer, ETAG).ok_or_else(untagged)?);
        Ok(())
    }

    fn end(&mut self) -> Result<(), BackupError> {
        if self.sent.is_some() && !self.part.is_empty() {
            self.send_part()?;
        }
        let Some(Sent { id, tags }) = &self.sent else {
            let body = Bytes::from(std::mem::take(&mut self.part));
            let answer = self.calls.ask(Ask::of(Method::PUT, &self.key).body(body))?;
            return self.calls.good(answer, "write", &self.key).map(drop);
        };
        let complete = Ask::of(Method::POST, &self.key).query("uploadId", id);
        self.complete(&complete.body(Bytes::from(completion(tags))))
    }

    /// Asks for the parts to be put together until they are, or the time for it is over. To ask
    /// again is no harm: they are put together once.
    fn complete(&self, ask: &Ask) -> Result<(), BackupError> {
        let whole = self.calls.completion;
        let (begun, mut time) = (Instant::now(), whole / FIRST_ATTEMPTS);
        loop {
            let Some((failure, may_pass)) = self.try_complete(ask.clone().once_within(time))?
            else {
                return Ok(());
            };
            // It may have been done by a request whose answer was lost.
            if let Ok(Some(found)) = find(&self.calls, &self.key)
                && found.len == self.len
            {
                return Ok(());
            }
            if !may_pass || begun.elapsed() >= whole {
                return Err(failure);
            }
            self.calls.pause(PAUSE)?;
            time = time.saturating_mul(2).min(whole.saturating_sub(begun.elapsed()));
        }
    }

    /// What is wrong, and whether it may pass; `None` when the object is whole.
    fn try_complete(&self, ask: Ask) -> Result<Option<(BackupError, bool)>, BackupError> {
        match self.calls.ask(ask) {
            Ok(answer) if answer.status.is_success() && is_completed(&answer.body) => Ok(None),
            // A status of success is sent before the service knows.
            Ok(answer) => {
                let may_pass = passes(answer.status) || answer.status.is_success();
                Ok(Some((self.calls.refusal(&answer, "complete", &self.key), may_pass)))
            }
            Err(BackupError::Stopped) => Err(BackupError::Stopped),
            Err(error) => {
                let may_pass = matches!(error, BackupError::Failed { .. });
                Ok(Some((error, may_pass)))
            }
        }
    }
}

fn begin(calls: &Arc<Calls>, key: &str) -> Result<Sent, BackupError> {
    let answer = calls.ask(Ask::of(Method::POST, key).query("uploads", ""))?;
    let answer = calls.good(answer, "begin", key)?;
    let id = upload_id(&answer.body);
    let id = id.ok_or_else(|| calls.failed("begin", key, "the answer is no upload"))?;
    Ok(Sent { id, tags: Vec::new() })
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_over {
            return Err(io::Error::other("the upload has failed"));
        }
        if self.part.len() == PART_LEN {
            self.send_part().map_err(|error| {
                self.is_over = true;
                io::Error::other(error)
            })?;
        }
        if self.part.capacity() == 0 {
            self.part.reserve_exact(PART_LEN);
        }
        let room = PART_LEN.saturating_sub(self.part.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or(bytes);
        self.part.extend_from_slice(taken);
        self.len = self.len.saturating_add(taken.len() as u64);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for Upload {
    fn finish(mut self: Box<Self>) -> Result<(), BackupError> {
        if self.is_over {
            return Err(self.calls.failed("write", &self.key, "a part of it could not be sent"));
        }
        self.end()?;
        self.sent = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(Sent { id, .. }) = &self.sent {
            // Nobody waits for it: what has failed may hold keys. What stays is taken away with the
            // record of the backup.
            let end = Ask::of(Method::DELETE, &self.key).query("uploadId", id);
            self.calls.ask_aside(end, "taking away what was uploaded of a failed backup");
        }
    }
}
