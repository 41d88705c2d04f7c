//! Messages of the health of a gRPC server.
//!
//! Room      `wire`.
//! Source    grpc/grpc, `doc/health-checking.md` (service `grpc.health.v1.Health`).

use prost::Message;

/// Name of the service, as it stands in request paths.
pub const SERVICE: &str = "grpc.health.v1.Health";
/// It serves.
pub const SERVING: i32 = 1;

/// Asks whether a service is served.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthCheckRequest {
    /// The service; the server as a whole when it is empty.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// Whether it is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HealthCheckResponse {
    /// [`SERVING`], or another number.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_protocol() {
        let request = HealthCheckRequest { service: "a".to_owned() };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'a']);
        assert_eq!(HealthCheckResponse { status: SERVING }.encode_to_vec(), [0x08, 1]);
    }
}
