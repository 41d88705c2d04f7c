//! Messages of the Kubernetes KMS v2 plugin API, and what the API server stores of them.
//!
//! Room      `wire`.
//! Source    Kubernetes, `apis/v2/api.proto` of k8s.io/kms (service `v2.KeyManagementService`) and
//!           `envelope/kmsv2/v2/api.proto` of k8s.io/apiserver (`EncryptedObject`).
//! Holds     A plaintext is wiped when its message is dropped, and no message that has one
//!           prints it.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use zeroize::Zeroize as _;

/// Name of the service, as it stands in request paths.
pub const SERVICE: &str = "v2.KeyManagementService";

/// Asks for the state of the plugin.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StatusRequest {}

/// The state of the plugin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// Version of the API, `v2`; may not change while an API server runs.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `ok`, or a sentence that the API server shows in its own health.
    #[prost(string, tag = "2")]
    pub healthz: String,
    /// What new data is protected under: 1 to 1,024 bytes, public.
    #[prost(string, tag = "3")]
    pub key_id: String,
}

/// Asks to protect a seed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct EncryptRequest {
    /// The seed, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    // secrets: allow, prost fills a vector; it is wiped on drop
    pub plaintext: Vec<u8>,
    /// A UUID of this call, for logs.
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// A protected seed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EncryptResponse {
    /// 1 to 1,024 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// What it is protected under; equal to that of Status, or it is thrown away.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// Stored in clear with every object; names are fully qualified domain names.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// Asks to recover a seed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DecryptRequest {
    /// As Encrypt answered it.
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    /// A UUID of this call, for logs.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// As Encrypt answered it.
    #[prost(string, tag = "3")]
    pub key_id: String,
    /// As Encrypt answered them.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// A recovered seed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct DecryptResponse {
    /// The seed.
    #[prost(bytes = "vec", tag = "1")]
    // secrets: allow, prost reads a vector; it is wiped on drop
    pub plaintext: Vec<u8>,
}

/// What the API server stores in etcd, after `k8s:enc:kms:v2:NAME:`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EncryptedObject {
    /// The object: with a seed, `info 32 ‖ nonce 12 ‖ ciphertext ‖ tag 16`.
    #[prost(bytes = "vec", tag = "1")]
    pub encrypted_data: Vec<u8>,
    /// As Encrypt answered it.
    #[prost(string, tag = "2")]
    pub key_id: String,
    /// The ciphertext that Encrypt answered.
    #[prost(bytes = "vec", tag = "3")]
    pub encrypted_dek_source: Vec<u8>,
    /// As Encrypt answered them.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// 1: a seed from which the key of each object is derived. 0: the key itself (before 1.29).
    #[prost(int32, tag = "5")]
    pub encrypted_dek_source_type: i32,
}

impl Drop for EncryptRequest {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl Drop for DecryptResponse {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl fmt::Debug for EncryptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptRequest").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl fmt::Debug for DecryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResponse").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand from the encoding rules of protocol buffers: tag, length, value.
    #[test]
    fn messages_have_the_field_numbers_of_the_protocol() {
        let status = StatusResponse {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key_id: "k".to_owned(),
        };
        assert_eq!(status.encode_to_vec(), b"\x0a\x02v2\x12\x02ok\x1a\x01k");
        assert!(StatusRequest {}.encode_to_vec().is_empty());
        let annotations: BTreeMap<_, _> = [("a.b".to_owned(), vec![7])].into();
        let encrypted = EncryptResponse {
            ciphertext: vec![1],
            key_id: "k".to_owned(),
            annotations: annotations.clone(),
        };
        assert_eq!(
            encrypted.encode_to_vec(),
            b"\x0a\x01\x01\x12\x01k\x1a\x08\x0a\x03a.b\x12\x01\x07"
        );
        let decrypt = DecryptRequest {
            ciphertext: vec![1],
            uid: "u".to_owned(),
            key_id: "k".to_owned(),
            annotations,
        };
        assert_eq!(
            decrypt.encode_to_vec(),
            b"\x0a\x01\x01\x12\x01u\x1a\x01k\x22\x08\x0a\x03a.b\x12\x01\x07"
        );
        assert_eq!(DecryptRequest::decode(&*decrypt.encode_to_vec()).unwrap(), decrypt);
        let encrypt = EncryptRequest { plaintext: vec![9], uid: "u".to_owned() };
        assert_eq!(encrypt.encode_to_vec(), b"\x0a\x01\x09\x12\x01u");
        assert_eq!(DecryptResponse { plaintext: vec![9] }.encode_to_vec(), b"\x0a\x01\x09");
    }

    #[test]
    fn plaintexts_are_not_printed() {
        let request = EncryptRequest { plaintext: b"seed".to_vec(), uid: "u".to_owned() };
        assert_eq!(format!("{request:?}"), r#"EncryptRequest { uid: "u", .. }"#);
        let reply = DecryptResponse { plaintext: b"seed".to_vec() };
        assert_eq!(format!("{reply:?}"), "DecryptResponse { .. }");
    }

    /// Values that a real API server (k8s.io/apiserver 0.36.4) wrote into etcd.
    #[test]
    fn objects_of_a_real_api_server_are_read_and_written_again_to_the_byte() {
        let text = include_str!("../../tests/vectors/kmsv2.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 2);
        for vector in vectors {
            let value = unhex(vector["etcd_value_hex"].as_str().unwrap());
            let provider = vector["provider"].as_str().unwrap();
            let prefix = format!("k8s:enc:kms:v2:{provider}:");
            let body = value.strip_prefix(prefix.as_bytes()).unwrap();
            let object = EncryptedObject::decode(body).unwrap();
            assert_eq!(object.key_id, vector["key_id"].as_str().unwrap());
            let source = unhex(vector["dek_source_hex"].as_str().unwrap());
            assert_eq!(object.encrypted_dek_source, source);
            assert_eq!(object.encrypted_dek_source_type, 1);
            assert_eq!(object.annotations["kek-version.lastkey.dev"], b"1");
            assert_eq!(object.encode_to_vec(), body);
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }
}
