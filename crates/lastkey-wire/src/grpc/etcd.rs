//! Messages of etcd's API, as far as its keys are read.
//!
//! Room      `wire`.
//! Source    etcd, `api/etcdserverpb/rpc.proto` (services `etcdserverpb.KV` and
//!           `etcdserverpb.Maintenance`) and `api/mvccpb/kv.proto`.
//! Holds     A value, which may be a Secret in the clear, is wiped when its message is dropped,
//!           and is not printed.

use std::fmt;

use prost::Message;
use zeroize::Zeroize as _;

/// Path of the call that reads keys.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// Path of the call that answers the whole database.
pub const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// Asks for a page of keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeRequest {
    /// The first key.
    // secrets: allow, a key of etcd is the path of an object
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// One past the last key.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// At most so many keys; 0 for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// As of this revision; 0 for the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
}

/// A page of keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeResponse {
    /// Who answers, and when.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys in order.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether there are more behind.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// How many there are in all.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// Who answers, and when.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ResponseHeader {
    /// Of the cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// Of the member that answers.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The newest revision of the store.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// Of the raft.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// One key and its value.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct KeyValue {
    /// The key.
    // secrets: allow, a key of etcd is the path of an object
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision that created it.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The revision that wrote it last.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How often it was written since.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// What is stored.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// The lease that ends it; 0 without one.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Asks for the whole database.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SnapshotRequest {}

/// A part of the database.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct SnapshotResponse {
    /// Who answers, and when.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Bytes that are still to come.
    #[prost(uint64, tag = "2")]
    pub remaining_bytes: u64,
    /// The next bytes of the file.
    #[prost(bytes = "vec", tag = "3")]
    pub blob: Vec<u8>,
}

impl Drop for KeyValue {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl Drop for SnapshotResponse {
    fn drop(&mut self) {
        self.blob.zeroize();
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &String::from_utf8_lossy(&self.key))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SnapshotResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotResponse")
            .field("remaining_bytes", &self.remaining_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand from the encoding rules of protocol buffers: tag, length, value.
    #[test]
    fn messages_have_the_field_numbers_of_the_protocol() {
        let request =
            RangeRequest { key: b"a".to_vec(), range_end: b"b".to_vec(), limit: 2, revision: 3 };
        assert_eq!(request.encode_to_vec(), b"\x0a\x01a\x12\x01b\x18\x02\x20\x03");
        let answer = b"\x0a\x08\x08\x01\x10\x02\x18\x03\x20\x04\x12\x0e\x0a\x01k\x10\x01\x18\x02\x20\x03\x2a\x01v\x30\x04\x18\x01\x20\x05";
        let read = RangeResponse::decode(&answer[..]).unwrap();
        let header = read.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id), (1, 2));
        assert_eq!((header.revision, header.raft_term), (3, 4));
        let pair = &read.kvs[0];
        assert_eq!((&pair.key[..], &pair.value[..]), (&b"k"[..], &b"v"[..]));
        assert_eq!((pair.create_revision, pair.mod_revision), (1, 2));
        assert_eq!((pair.version, pair.lease), (3, 4));
        assert!(read.more && read.count == 5);
        assert_eq!(read.encode_to_vec(), answer);
        let part = SnapshotResponse::decode(&b"\x10\x07\x1a\x01x"[..]).unwrap();
        assert_eq!((part.remaining_bytes, &part.blob[..]), (7, &b"x"[..]));
    }

    #[test]
    fn values_are_not_printed() {
        let pair =
            KeyValue { key: b"k".to_vec(), value: b"hunter2".to_vec(), ..KeyValue::default() };
        assert_eq!(format!("{pair:?}"), r#"KeyValue { key: "k", .. }"#);
        let part = SnapshotResponse { blob: b"hunter2".to_vec(), ..SnapshotResponse::default() };
        assert!(!format!("{part:?}").contains("hunter2"));
    }
}
