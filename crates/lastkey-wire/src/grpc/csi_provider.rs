//! Messages of a provider of the Secrets Store CSI driver.
//!
//! Room      `wire`.
//! Source    kubernetes-sigs/secrets-store-csi-driver, `provider/v1alpha1/service.proto` (service
//!           `v1alpha1.CSIDriverProvider`).
//! Holds     Tokens and contents are wiped when their message is dropped, and no message that has
//!           one prints it.

use std::fmt;

use prost::Message;
use zeroize::Zeroize as _;

/// Name of the service, as it stands in request paths.
pub const SERVICE: &str = "v1alpha1.CSIDriverProvider";

/// Asks which version of the protocol is spoken.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionRequest {
    /// What the driver speaks, `v1alpha1`.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// Who answers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionResponse {
    /// What is spoken, `v1alpha1`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of the provider.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// Asks for the files of a volume.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct MountRequest {
    /// JSON: parameters of the class, what the pod adds, and who the pod is. Has tokens.
    #[prost(string, tag = "1")]
    pub attributes: String,
    /// JSON: the Secret that the pod names, and tokens from Kubernetes 1.35; or `null`.
    #[prost(string, tag = "2")]
    // secrets: allow, prost fills a text; it is wiped on drop
    pub secrets: String,
    /// Where the volume is.
    #[prost(string, tag = "3")]
    pub target_path: String,
    /// JSON: a mode in decimal.
    #[prost(string, tag = "4")]
    pub permission: String,
    /// What the driver knows; empty from version 1.6.
    #[prost(message, repeated, tag = "5")]
    pub current_object_version: Vec<ObjectVersion>,
}

/// The files of a volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MountResponse {
    /// At least one, or the driver refuses the answer.
    #[prost(message, repeated, tag = "1")]
    pub object_version: Vec<ObjectVersion>,
    /// An error whose text nobody sees.
    #[prost(message, optional, tag = "2")]
    pub error: Option<Error>,
    /// Everything that the volume holds.
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<File>,
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct File {
    /// Relative, without `..`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Its mode; 0 is one that nobody can read.
    #[prost(int32, tag = "2")]
    pub mode: i32,
    /// What is in it.
    #[prost(bytes = "vec", tag = "3")]
    pub contents: Vec<u8>,
}

/// Which version of an object a volume holds.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ObjectVersion {
    /// The object; each once.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Changes when the content does.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// An error, for the driver's metrics alone.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Error {
    /// A word.
    #[prost(string, tag = "1")]
    pub code: String,
}

impl Drop for MountRequest {
    fn drop(&mut self) {
        self.attributes.zeroize();
        self.secrets.zeroize();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.contents.zeroize();
    }
}

impl fmt::Debug for MountRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountRequest")
            .field("target_path", &self.target_path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand from the encoding rules of protocol buffers: tag, length, value.
    #[test]
    fn messages_have_the_field_numbers_of_the_protocol() {
        let request = MountRequest {
            attributes: "{}".to_owned(),
            secrets: "null".to_owned(),
            target_path: "/t".to_owned(),
            permission: "420".to_owned(),
            current_object_version: Vec::new(),
        };
        let bytes = request.encode_to_vec();
        assert_eq!(bytes, b"\x0a\x02{}\x12\x04null\x1a\x02/t\x22\x03420");
        assert_eq!(MountRequest::decode(&*bytes).unwrap(), request);
        let response = MountResponse {
            object_version: vec![ObjectVersion { id: "a".to_owned(), version: "1".to_owned() }],
            error: None,
            files: vec![File { path: "f".to_owned(), mode: 0o400, contents: vec![7] }],
        };
        assert_eq!(
            response.encode_to_vec(),
            b"\x0a\x06\x0a\x01a\x12\x011\x1a\x09\x0a\x01f\x10\x80\x02\x1a\x01\x07"
        );
        let version = VersionResponse {
            version: "v1alpha1".to_owned(),
            runtime_name: "lastkey".to_owned(),
            runtime_version: "1".to_owned(),
        };
        assert_eq!(version.encode_to_vec(), b"\x0a\x08v1alpha1\x12\x07lastkey\x1a\x011");
    }

    #[test]
    fn tokens_and_contents_are_not_printed() {
        let mut request = MountRequest::default();
        "hunter2".clone_into(&mut request.attributes);
        assert_eq!(format!("{request:?}"), r#"MountRequest { target_path: "", .. }"#);
        let file = File { path: "f".to_owned(), mode: 0, contents: b"hunter2".to_vec() };
        assert_eq!(format!("{file:?}"), r#"File { path: "f", .. }"#);
    }
}
