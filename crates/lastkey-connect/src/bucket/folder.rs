//! A folder of a bucket, as backups know it.
//!
//! Room      `connect`, inside. Implements `BackupFolder` of `core`.
//! Holds     an object is read in pieces of one state of it: another one that takes its place in
//!           between is told. What is removed is gone also from a bucket that keeps versions.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_LENGTH, ETAG};
use http::{HeaderName, Method, StatusCode};
use lastkey_core::backup::BackupError;
use lastkey_core::backup_folder::{BackupFolder, NewFile, StoredFile};

use super::answer::{never_kept_versions, page, uploads_of, versions_of};
use super::calls::{Ask, Calls};
use super::upload::Upload;
use crate::guard::Answer;

/// First piece that is read, in bytes: a head is shorter. Each one is longer than the one before.
const FIRST_PIECE_LEN: u64 = 64 << 10;
/// Longest piece that is read, in bytes.
const MAX_PIECE_LEN: u64 = 8 << 20;
/// Most pages of a list.
const MAX_PAGES: usize = 10_000;

/// A folder of a bucket.
pub(super) struct BucketFolder {
    calls: Arc<Calls>,
    /// Empty, or a path that ends in `/`.
    prefix: String,
}

/// What is known of an object.
pub(super) struct Found {
    pub(super) len: u64,
    tag: Option<String>,
}

impl BucketFolder {
    pub(super) const fn new(calls: Arc<Calls>, prefix: String) -> Self {
        Self { calls, prefix }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Ends what was begun under a key and did not end.
    fn end_uploads(&self, key: &str) -> Result<bool, BackupError> {
        let list = Ask::of(Method::GET, "").query("uploads", "").query("prefix", key);
        let list = self.calls.good(self.calls.ask(list)?, "list uploads of", key)?;
        let unread = || self.calls.failed("list uploads of", key, "the answer is no list");
        let uploads = uploads_of(&list.body, key).ok_or_else(unread)?;
        for upload in &uploads {
            let end = Ask::of(Method::DELETE, key).query("uploadId", upload);
            self.delete(end, key)?;
        }
        Ok(!uploads.is_empty())
    }

    /// Everything that the bucket keeps under a key, by the ids of the versions; `None` when the
    /// service lists no versions.
    fn versions(&self, key: &str) -> Result<Option<Vec<String>>, BackupError> {
        let mut ids = Vec::new();
        let mut next: Option<(String, Option<String>)> = None;
        for _ in 0..MAX_PAGES {
            let mut ask = Ask::of(Method::GET, "").query("versions", "").query("prefix", key);
            if let Some((key, version)) = &next {
                ask = ask.query("key-marker", key);
                if let Some(version) = version {
                    ask = ask.query("version-id-marker", version);
                }
            }
            let answer = self.calls.ask(ask)?;
            if is_unknown(answer.status) {
                return Ok(None);
            }
            let answer = self.calls.good(answer, "list versions of", key)?;
            let Some(page) = versions_of(&answer.body, key) else { return Ok(None) };
            ids.extend(page.ids);
            next = page.next;
            if next.is_none() {
                return Ok(Some(ids));
            }
        }
        Err(self.calls.failed("list versions of", key, "there are more than are looked at"))
    }

    /// Removes what has no versions, where the service lists none.
    fn remove_plain(&self, key: &str) -> Result<bool, BackupError> {
        let answer = self.calls.ask(Ask::of(Method::GET, "").query("versioning", ""))?;
        if !answer.status.is_success() || !never_kept_versions(&answer.body) {
            return Err(BackupError::Refused(format!(
                "{}: the service neither lists versions nor says that it never kept any, so \
                 nothing tells that what is removed is gone; remove it by other means, and see \
                 docs/backup.md",
                self.place()
            )));
        }
        let was_there = find(&self.calls, key)?.is_some();
        if was_there {
            self.delete(Ask::of(Method::DELETE, key), key)?;
        }
        match find(&self.calls, key)? {
            None => Ok(was_there),
            Some(_) => Err(self.calls.failed("remove", key, "it is still there")),
        }
    }

    /// Deletes; what is gone already is deleted.
    fn delete(&self, delete: Ask, key: &str) -> Result<(), BackupError> {
        let deleted = self.calls.ask(delete)?;
        if deleted.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        self.calls.good(deleted, "remove", key).map(drop)
    }
}

/// Whether a service does not know the question.
fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED)
}

/// Asks for an object; `None` when it is not there.
pub(super) fn find(calls: &Arc<Calls>, key: &str) -> Result<Option<Found>, BackupError> {
    let answer = calls.ask(Ask::of(Method::HEAD, key))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = calls.good(answer, "find", key)?;
    let text = |name| header(&answer, name);
    let len = text(CONTENT_LENGTH).and_then(|len| len.parse().ok());
    let len =
        len.ok_or_else(|| calls.failed("find", key, "the service does not tell its length"))?;
    Ok(Some(Found { len, tag: text(ETAG) }))
}

pub(super) fn header(answer: &Answer, name: HeaderName) -> Option<String> {
    answer.headers.get(name)?.to_str().ok().map(str::to_owned)
}

impl BackupFolder for BucketFolder {
    fn place(&self) -> &str {
        &self.calls.place
    }

    fn names(&self) -> Result<Vec<String>, BackupError> {
        let mut names = Vec::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let mut ask = Ask::of(Method::GET, "").query("list-type", 2).query("delimiter", "/");
            ask = ask.query("prefix", &self.prefix);
            if let Some(token) = &next {
                ask = ask.query("continuation-token", token);
            }
            let answer = self.calls.good(self.calls.ask(ask)?, "list", &self.prefix)?;
            let page = page(&answer.body);
            let page =
                page.ok_or_else(|| self.calls.failed("list", "", "the answer is no list"))?;
            let ours = page.keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
            names.extend(ours.filter(|name| !name.is_empty()).map(str::to_owned));
            next = page.next;
            if next.is_none() {
                return Ok(names);
            }
        }
        Err(self.calls.failed("list", "", "there are more objects than are looked at"))
    }

    fn open(&self, name: &str) -> Result<Box<dyn StoredFile>, BackupError> {
        let key = self.key(name);
        let found = find(&self.calls, &key)?;
        let found = found.ok_or_else(|| self.calls.failed("open", &key, "it is not there"))?;
        let calls = Arc::clone(&self.calls);
        Ok(Box::new(Object { calls, key, len: found.len, tag: found.tag }))
    }

    fn begin(&self, name: &str) -> Result<Box<dyn NewFile>, BackupError> {
        let key = self.key(name);
        if find(&self.calls, &key)?.is_some() {
            let place = self.place();
            return Err(BackupError::Refused(format!("{place}/{name} is there already")));
        }
        Ok(Box::new(Upload::begin(Arc::clone(&self.calls), key)))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BackupError> {
        let key = self.key(name);
        let answer = self.calls.ask(Ask::of(Method::GET, &key))?;
        let is_missing = answer.status == StatusCode::NOT_FOUND
            && super::answer::error_code(&answer.body).as_deref() == Some("NoSuchKey");
        if is_missing {
            return Ok(None);
        }
        Ok(Some(self.calls.good(answer, "read", &key)?.body.to_vec()))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let key = self.key(name);
        let put = Ask::of(Method::PUT, &key).body(Bytes::copy_from_slice(bytes));
        self.calls.good(self.calls.ask(put)?, "write", &key).map(drop)
    }

    fn remove(&self, name: &str) -> Result<bool, BackupError> {
        let key = self.key(name);
        // First, so that none of them becomes a version after the list was read.
        let had_uploads = self.end_uploads(&key)?;
        let Some(versions) = self.versions(&key)? else {
            return Ok(self.remove_plain(&key)? || had_uploads);
        };
        for version in &versions {
            self.delete(Ask::of(Method::DELETE, &key).query("versionId", version), &key)?;
        }
        if !versions.is_empty() && self.versions(&key)?.is_none_or(|left| !left.is_empty()) {
            return Err(self.calls.failed("remove", &key, "versions of it are still there"));
        }
        Ok(had_uploads || !versions.is_empty())
    }
}

/// An object that is there.
struct Object {
    calls: Arc<Calls>,
    key: String,
    len: u64,
    tag: Option<String>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Object {
    fn reader(&self, at: u64) -> ObjectReader {
        ObjectReader {
            calls: Arc::clone(&self.calls),
            key: self.key.clone(),
            len: self.len,
            tag: self.tag.clone(),
            at,
            piece_len: FIRST_PIECE_LEN,
            piece: Bytes::new(),
        }
    }
}

impl StoredFile for Object {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_from(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.reader(start)))
    }
}

/// Reads an object piece by piece.
struct ObjectReader {
    calls: Arc<Calls>,
    key: String,
    len: u64,
    tag: Option<String>,
    /// Where the next piece begins.
    at: u64,
    piece_len: u64,
    piece: Bytes,
}

impl ObjectReader {
    fn next_piece(&mut self) -> Result<Bytes, BackupError> {
        let end = self.at.saturating_add(self.piece_len).min(self.len);
        let wanted = end.saturating_sub(self.at);
        let range = format!("bytes={}-{}", self.at, end.saturating_sub(1));
        let mut ask = Ask::of(Method::GET, &self.key).header("range", range);
        if let Some(tag) = &self.tag {
            ask = ask.header("if-match", tag);
        }
        let piece = self.calls.good(self.calls.ask(ask)?, "read", &self.key)?.body;
        if piece.len() as u64 != wanted {
            return Err(self.calls.failed("read", &self.key, "the service gave another part"));
        }
        self.at = end;
        self.piece_len = self.piece_len.saturating_mul(8).min(MAX_PIECE_LEN);
        Ok(piece)
    }
}

impl Read for ObjectReader {
    fn read(&mut self, dest: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.at < self.len {
            self.piece = self.next_piece().map_err(io::Error::other)?;
        }
        let len = self.piece.len().min(dest.len());
        if let Some(dest) = dest.get_mut(..len) {
            self.piece.copy_to_slice(dest);
        }
        Ok(len)
    }
}
