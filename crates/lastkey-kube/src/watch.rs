//! A running watch: one JSON object after the other, as long as the connection lasts.
//!
//! Room      `kube`, inside.
//! Source    Kubernetes API concepts, "Efficient detection of changes".

use std::collections::VecDeque;

use http::StatusCode;
use lastkey_connect::guard::Stream;
use serde_json::Value;

use crate::cluster::{KubeError, refused};

/// Longest event, in bytes: an object has at most 1.5 MiB in etcd.
const MAX_EVENT_LEN: usize = 4 << 20;

/// One event of a watch.
#[derive(Debug)]
pub enum Change {
    /// Made, or changed: as it is now.
    Is(Value),
    /// Gone: as it was last.
    Was(Value),
    /// Nothing happened up to this version.
    Bookmark(String),
}

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    stream: Stream,
    unread: VecDeque<u8>,
    /// Bytes of `unread` that hold no end of a line.
    searched: usize,
}

impl Watch {
    pub(crate) const fn new(stream: Stream) -> Self {
        Self { stream, unread: VecDeque::new(), searched: 0 }
    }

    /// The next change; `None` when the server has ended the watch, which it does now and then.
    ///
    /// # Errors
    /// [`KubeError::Expired`] when everything must be listed again; others when the connection
    /// breaks. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Change>, KubeError> {
        loop {
            if let Some(line) = self.take_line() {
                return parse(&line).map(Some);
            }
            let Some(piece) = self.stream.next().await? else { return Ok(None) };
            self.unread.extend(&piece);
            if self.unread.len() > MAX_EVENT_LEN {
                return Err(KubeError::Malformed);
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let found = self.unread.iter().skip(self.searched).position(|byte| *byte == b'\n');
        let Some(end) = found else {
            self.searched = self.unread.len();
            return None;
        };
        let end = self.searched + end;
        self.searched = 0;
        Some(self.unread.drain(..=end).collect())
    }
}

fn parse(line: &[u8]) -> Result<Change, KubeError> {
    let mut event: Value = serde_json::from_slice(line).map_err(|_| KubeError::Malformed)?;
    let object = event.get_mut("object").map(Value::take).ok_or(KubeError::Malformed)?;
    match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => Ok(Change::Is(object)),
        Some("DELETED") => Ok(Change::Was(object)),
        Some("BOOKMARK") => {
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            Ok(Change::Bookmark(version.unwrap_or_default().to_owned()))
        }
        Some("ERROR") => {
            let code = object.get("code").and_then(Value::as_u64);
            let status = code.and_then(|code| u16::try_from(code).ok());
            let status = status.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(refused(status, object.to_string().as_bytes()))
        }
        Some(_) | None => Err(KubeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_their_type() {
        let of = |text: &str| parse(text.as_bytes());
        let is = r#"{"type":"ADDED","object":{"metadata":{"uid":"1"}}}"#;
        assert!(matches!(of(is), Ok(Change::Is(_))));
        assert!(matches!(of(&is.replace("ADDED", "MODIFIED")), Ok(Change::Is(_))));
        assert!(matches!(of(&is.replace("ADDED", "DELETED")), Ok(Change::Was(_))));
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#;
        assert!(matches!(of(mark), Ok(Change::Bookmark(version)) if version == "7"));
        let old = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert!(matches!(of(old), Err(KubeError::Expired)));
        let other = r#"{"type":"ERROR","object":{"code":500,"reason":"InternalError"}}"#;
        assert!(matches!(of(other), Err(KubeError::Refused { status: 500, .. })));
        for bad in ["", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"NEW","object":{}}"#] {
            assert!(matches!(of(bad), Err(KubeError::Malformed)), "{bad}");
        }
    }
}
