//! The native API, version 1: JSON over HTTP under `/v1`.
//!
//! Room      `wire`. One file for each group of routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod access;
pub mod aliases;
pub mod audit;
pub mod backups;
pub mod batch;
pub mod databases;
pub mod error;
pub mod holdings;
pub mod keys;
pub mod leaks;
pub mod nodes;
pub mod operations;
pub mod query;
pub mod rotation;
pub mod seals;
pub mod secrets;
pub mod sessions;
pub mod system;
pub mod users;
pub mod versions;

/// A request or an answer without content: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Whether a switch is off; such fields are left out of JSON.
pub(crate) const fn is_off(switch: &bool) -> bool {
    !*switch
}

#[cfg(test)]
mod tests {
    use super::access::{
        CanRequest, ReplayRequest, SetClusterRequest, SetPolicyRequest, SetProviderRequest,
        SetRoleRequest, WhoCanRequest,
    };
    use super::aliases::SetAliasRequest;
    use super::audit::{AddWitnessRequest, RemoveWitnessRequest};
    use super::batch::{BatchRequest, BatchResult};
    use super::error::ErrorBody;
    use super::holdings::{DestroyVersionRequest, ForgetHoldingRequest, ReportHoldingRequest};
    use super::keys::{
        CreateKeyRequest, ImportParametersRequest, ImportRequest, RemoveTagsRequest,
        ScheduleDeletionRequest, SetRotationRequest, SetTagsRequest, UpdateKeyRequest,
    };
    use super::leaks::{ConfirmLeaksRequest, LeakClaim};
    use super::operations::{
        DataKeyPairRequest, DataKeyRequest, DecryptRequest, EncryptReply, EncryptRequest,
        MacRequest, RandomRequest, ReencryptRequest, SignRequest, VerifyMacRequest, VerifyRequest,
    };
    use super::secrets::{
        DeleteSecretRequest, PlaceStageRequest, PutSecretRequest, SeenSecret,
        TransferSecretRequest, UpdateSecretRequest, WatchSecretsRequest,
    };
    use super::sessions::{BurnRequest, EnrolRequest, LoginRequest, RevokeRequest, TokenRequest};
    use super::system::UnsealRequest;
    use super::users::{AddUserRequest, UpdateUserRequest};
    use super::*;

    /// Whether the body is refused because of a field that there is not.
    fn refuses_unknown<T: for<'de> Deserialize<'de>>() -> bool {
        let refused = serde_json::from_str::<T>(r#"{"no_such_field":1}"#).err();
        refused.is_some_and(|error| error.to_string().starts_with("unknown field"))
    }

    #[test]
    fn every_request_refuses_unknown_fields() {
        let refusals = [
            refuses_unknown::<Empty>(),
            refuses_unknown::<SetAliasRequest>(),
            refuses_unknown::<AddWitnessRequest>(),
            refuses_unknown::<RemoveWitnessRequest>(),
            refuses_unknown::<EnrolRequest>(),
            refuses_unknown::<LoginRequest>(),
            refuses_unknown::<AddUserRequest>(),
            refuses_unknown::<UpdateUserRequest>(),
            refuses_unknown::<BatchRequest<EncryptRequest>>(),
            refuses_unknown::<CreateKeyRequest>(),
            refuses_unknown::<UpdateKeyRequest>(),
            refuses_unknown::<SetRotationRequest>(),
            refuses_unknown::<ScheduleDeletionRequest>(),
            refuses_unknown::<ReportHoldingRequest>(),
            refuses_unknown::<ForgetHoldingRequest>(),
            refuses_unknown::<DestroyVersionRequest>(),
            refuses_unknown::<ImportParametersRequest>(),
            refuses_unknown::<ImportRequest>(),
            refuses_unknown::<SetTagsRequest>(),
            refuses_unknown::<RemoveTagsRequest>(),
            refuses_unknown::<EncryptRequest>(),
            refuses_unknown::<DecryptRequest>(),
            refuses_unknown::<ReencryptRequest>(),
            refuses_unknown::<DataKeyRequest>(),
            refuses_unknown::<DataKeyPairRequest>(),
            refuses_unknown::<RandomRequest>(),
            refuses_unknown::<SignRequest>(),
            refuses_unknown::<VerifyRequest>(),
            refuses_unknown::<MacRequest>(),
            refuses_unknown::<VerifyMacRequest>(),
            refuses_unknown::<UnsealRequest>(),
            refuses_unknown::<SetClusterRequest>(),
            refuses_unknown::<SetProviderRequest>(),
            refuses_unknown::<SetRoleRequest>(),
            refuses_unknown::<SetPolicyRequest>(),
            refuses_unknown::<CanRequest>(),
            refuses_unknown::<WhoCanRequest>(),
            refuses_unknown::<ReplayRequest>(),
            refuses_unknown::<TokenRequest>(),
            refuses_unknown::<BurnRequest>(),
            refuses_unknown::<RevokeRequest>(),
            refuses_unknown::<PutSecretRequest>(),
            refuses_unknown::<UpdateSecretRequest>(),
            refuses_unknown::<PlaceStageRequest>(),
            refuses_unknown::<DeleteSecretRequest>(),
            refuses_unknown::<TransferSecretRequest>(),
            refuses_unknown::<WatchSecretsRequest>(),
            refuses_unknown::<SeenSecret>(),
            refuses_unknown::<ConfirmLeaksRequest>(),
            refuses_unknown::<LeakClaim>(),
        ];
        assert!(refusals.iter().all(|refused| *refused), "{refusals:?}");
    }

    #[test]
    fn what_is_left_out_is_not_written() {
        let request = CreateKeyRequest::default();
        assert_eq!(serde_json::to_string(&request).unwrap(), "{}");
        let request: EncryptRequest =
            serde_json::from_str(r#"{"key":"alias/app","plaintext":"Zm9v"}"#).unwrap();
        let written = serde_json::to_string(&request).unwrap();
        assert_eq!(written, r#"{"key":"alias/app","plaintext":"Zm9v"}"#);
    }

    #[test]
    fn requests_print_no_secret() {
        let request: EncryptRequest =
            serde_json::from_str(r#"{"key":"alias/app","plaintext":"aHVudGVyMg=="}"#).unwrap();
        let printed = format!("{request:?}");
        assert!(printed.contains("alias/app") && printed.contains("SecretBase64(..)"), "{printed}");
        assert!(!printed.contains("hunter2") && !printed.contains("aHVudGVyMg"), "{printed}");
    }

    #[test]
    fn an_item_of_a_batch_is_done_or_not_or_asked() {
        for json in [
            r#"{"ok":{"ciphertext":"Zm9v","key":"k","version":1}}"#,
            r#"{"error":{"code":"AccessDenied","message":"m","request_id":"r"}}"#,
            r#"{"dry_run":{"allowed":false,"why":"KeyState"}}"#,
        ] {
            let result: BatchResult<EncryptReply> = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&result).unwrap(), json);
        }
    }

    #[test]
    fn an_error_of_a_newer_server_can_be_read() {
        let json = r#"{"error":{"code":"FromTheFuture","message":"m","request_id":"r","more":1}}"#;
        let body: ErrorBody = serde_json::from_str(json).unwrap();
        assert_eq!(body.error.code, "FromTheFuture");
    }
}
