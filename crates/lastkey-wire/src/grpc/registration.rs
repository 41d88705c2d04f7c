//! Messages by which a kubelet learns of a plugin.
//!
//! Room      `wire`.
//! Source    kubelet `pkg/apis/pluginregistration/v1/api.proto`.

use prost::Message;

/// The service, as it stands in request paths.
pub const REGISTRATION: &str = "pluginregistration.Registration";
/// Kind of the plugins that are CSI drivers.
pub const CSI_PLUGIN: &str = "CSIPlugin";

/// Asks who is there.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct InfoRequest {}

/// Who is there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginInfo {
    /// Its kind.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The path of its own socket, as the kubelet sees it.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// Versions of its interface.
    #[prost(string, repeated, tag = "4")]
    pub versions: Vec<String>,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegistrationStatus {
    /// Whether the kubelet knows it now.
    #[prost(bool, tag = "1")]
    pub registered: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// Heard.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RegistrationStatusReply {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_protocol() {
        let info = PluginInfo {
            kind: "CSIPlugin".to_owned(),
            name: "d".to_owned(),
            endpoint: "/s".to_owned(),
            versions: vec!["1.0.0".to_owned()],
        };
        assert_eq!(info.encode_to_vec(), b"\x0a\x09CSIPlugin\x12\x01d\x1a\x02/s\x22\x051.0.0");
        let status = RegistrationStatus { registered: true, error: "e".to_owned() };
        assert_eq!(status.encode_to_vec(), b"\x08\x01\x12\x01e");
    }
}
