//! A running etcd, read page by page at one revision.
//!
//! Room      `lastkey`.
//! Holds     One page is in memory, of at most [`MAX_PAGE_LEN`] bytes. Every page is of the same
//!           revision; where etcd has compacted that away, reading begins anew.

use std::{
    env,
    fs::File,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
};

use http::uri::PathAndQuery;
use lastkey_wire::grpc::etcd::{
    KeyValue, RANGE, RangeRequest, RangeResponse, SNAPSHOT, SnapshotRequest, SnapshotResponse,
};
use rustix::fs::OFlags;
use tokio::time::timeout;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::connect::{CALL_LIMIT, Client, failed};
use crate::cli::failure::Failure;

/// Longest page that is taken, in bytes.
const MAX_PAGE_LEN: usize = 32 << 20;
/// Pages grow while they stay below this: etcd counts all that is behind for each of them.
const GOOD_PAGE_LEN: usize = 6 << 20;
const FIRST_LIMIT: i64 = 500;
const MAX_LIMIT: i64 = 50_000;

/// A walk through the keys below a prefix.
pub(super) struct Live {
    client: Client,
    name: String,
    first: Vec<u8>,
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    limit: i64,
    revision: i64,
}

/// What became of a page.
pub(super) enum Page {
    /// Keys, in order.
    Of(Vec<KeyValue>),
    /// The revision is gone; what was read so far does not count.
    Compacted,
    /// All was read.
    End,
}

impl Live {
    /// All keys below `registry` and a slash.
    pub(super) fn new(client: Client, name: &str, registry: &str) -> Self {
        let first = format!("{registry}/").into_bytes();
        // The slash is followed by 0 in ASCII: the first key that is not below.
        let end = format!("{registry}0").into_bytes();
        Self {
            client: client.max_decoding_message_size(MAX_PAGE_LEN),
            name: name.to_owned(),
            next: Some(first.clone()),
            first,
            end,
            limit: FIRST_LIMIT,
            revision: 0,
        }
    }

    /// The revision that is read; 0 before the first page.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) async fn next_page(&mut self) -> Result<Page, Failure> {
        let Some(first) = self.next.take() else { return Ok(Page::End) };
        loop {
            match self.range(&first).await {
                Ok(answer) => return Ok(Page::Of(self.take(answer))),
                Err(status) if is_compacted(&status) => {
                    self.next = Some(self.first.clone());
                    self.revision = 0;
                    return Ok(Page::Compacted);
                }
                // Longer than a page may be: fewer keys at once.
                Err(status) if status.code() == Code::OutOfRange && self.limit > 1 => {
                    self.limit = (self.limit / 4).max(1);
                }
                Err(status) => return Err(failed(&self.name, &status)),
            }
        }
    }

    async fn range(&mut self, first: &[u8]) -> Result<RangeResponse, Status> {
        let request = RangeRequest {
            key: first.to_vec(),
            range_end: self.end.clone(),
            limit: self.limit,
            revision: self.revision,
        };
        let (client, path) = (&mut self.client, PathAndQuery::from_static(RANGE));
        let call = async {
            client.ready().await.map_err(|cause| Status::unavailable(cause.to_string()))?;
            client.unary(Request::new(request), path, ProstCodec::default()).await
        };
        let answer = timeout(CALL_LIMIT, call)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        Ok(answer.into_inner())
    }

    fn take(&mut self, mut answer: RangeResponse) -> Vec<KeyValue> {
        if self.revision == 0 {
            self.revision = answer.header.map_or(0, |header| header.revision);
        }
        let page = std::mem::take(&mut answer.kvs);
        if answer.more {
            // The next key in order is the last one with a zero behind.
            self.next = page.last().map(|pair| [&pair.key[..], &[0]].concat());
        }
        let len: usize = page.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        if len.saturating_mul(2) < GOOD_PAGE_LEN {
            self.limit = self.limit.saturating_mul(2).min(MAX_LIMIT);
        }
        page
    }
}

/// Takes a member's whole database into a file without a name: it may hold Secrets in the
/// clear, and is gone with the process.
pub(super) async fn download(mut client: Client, name: &str) -> Result<File, Failure> {
    let folder = env::temp_dir();
    let doing = || format!("keep the database of {name} in {}", folder.display());
    let flags = OFlags::TMPFILE.bits().cast_signed();
    let mut file = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(&folder)
        .map_err(|cause| Failure::io(doing(), cause))?;
    client.ready().await.map_err(|cause| failed(name, &Status::unavailable(cause.to_string())))?;
    let codec = ProstCodec::<SnapshotRequest, SnapshotResponse>::default();
    let path = PathAndQuery::from_static(SNAPSHOT);
    let mut parts = client
        .server_streaming(Request::new(SnapshotRequest {}), path, codec)
        .await
        .map_err(|status| failed(name, &status))?
        .into_inner();
    loop {
        let part = timeout(CALL_LIMIT, parts.message())
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
            .map_err(|status| failed(name, &status))?;
        let Some(part) = part else { break };
        file.write_all(&part.blob).map_err(|cause| Failure::io(doing(), cause))?;
    }
    file.seek(SeekFrom::Start(0)).map_err(|cause| Failure::io(doing(), cause))?;
    Ok(file)
}

/// # Source
/// etcd: api/v3rpc/rpctypes/error.go.
fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("has been compacted")
}
